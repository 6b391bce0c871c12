//! Entities as the columns of an insert.

use milvus::proto::schema::{
    BoolArray, DataType, FieldData, FloatArray, JsonArray, LongArray, ScalarField, SparseFloatArray,
    StringArray, VectorField, field_data, scalar_field, vector_field,
};
use serde_json::Value;

use super::python_floats::write_as_python;
use crate::vectors::{CollectionConfig, Entity, FieldType, SparseVector};

/// The columns of checked entities, in the order of the schema.
pub(super) fn columns(
    config: &CollectionConfig,
    entities: Vec<Entity>,
    python_floats: bool,
) -> Vec<FieldData> {
    let mut scalars = vec![
        Column::new(&config.text_field, FieldType::VarChar, entities.len()),
        Column::new(&config.metadata_field, FieldType::Json, entities.len()),
    ];
    scalars.extend(
        config.extra_fields.iter().map(|field| Column::new(&field.name, field.field_type, entities.len())),
    );
    let mut dense = Vec::with_capacity(entities.len() * config.dense_dim);
    let mut sparse = Vec::with_capacity(if config.is_hybrid { entities.len() } else { 0 });
    for Entity { mut fields, dense: vector, sparse: weights, .. } in entities {
        if python_floats && let Some(metadata) = fields.get_mut(&config.metadata_field) {
            write_as_python(metadata);
        }
        for column in &mut scalars {
            column.push(fields.remove(column.name).unwrap_or_default());
        }
        dense.extend_from_slice(&vector);
        if config.is_hybrid {
            sparse.push(weights.unwrap_or_default());
        }
    }
    let mut scalars = scalars.into_iter().map(Column::into_field);
    let mut columns: Vec<FieldData> = scalars.by_ref().take(2).collect();
    let dense = vector_field::Data::FloatVector(FloatArray { data: dense });
    columns.push(vector_column(&config.dense_field, DataType::FloatVector, config.dense_dim as i64, dense));
    if config.is_hybrid {
        let dim = sparse
            .iter()
            .filter_map(|vector| vector.keys().next_back())
            .max()
            .map_or(0, |last| i64::from(*last) + 1);
        let contents = sparse.iter().map(sparse_bytes).collect();
        let data = vector_field::Data::SparseFloatVector(SparseFloatArray { contents, dim });
        columns.push(vector_column(&config.sparse_field, DataType::SparseFloatVector, dim, data));
    }
    columns.extend(scalars);
    columns
}

/// Pairs of dimension and weight, in the order of the dimensions, as Milvus stores them.
pub(super) fn sparse_bytes(vector: &SparseVector) -> Vec<u8> {
    vector
        .iter()
        .flat_map(|(dimension, weight)| [dimension.to_le_bytes(), weight.to_le_bytes()])
        .flatten()
        .collect()
}

pub(super) fn dense_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|element| element.to_le_bytes()).collect()
}

fn vector_column(name: &str, data_type: DataType, dim: i64, data: vector_field::Data) -> FieldData {
    let vectors = VectorField { dim, data: Some(data), ..VectorField::default() };
    FieldData {
        r#type: data_type.into(),
        field_name: name.to_owned(),
        field: Some(field_data::Field::Vectors(vectors)),
        ..FieldData::default()
    }
}

struct Column<'a> {
    name: &'a str,
    data: Values,
}

enum Values {
    Strings(Vec<String>),
    Longs(Vec<i64>),
    Floats(Vec<f32>),
    Bools(Vec<bool>),
    Json(Vec<Vec<u8>>),
}

impl<'a> Column<'a> {
    fn new(name: &'a str, field_type: FieldType, rows: usize) -> Self {
        let data = match field_type {
            FieldType::VarChar => Values::Strings(Vec::with_capacity(rows)),
            FieldType::Int64 => Values::Longs(Vec::with_capacity(rows)),
            FieldType::Float => Values::Floats(Vec::with_capacity(rows)),
            FieldType::Bool => Values::Bools(Vec::with_capacity(rows)),
            _ => Values::Json(Vec::with_capacity(rows)),
        };
        Self { name, data }
    }

    /// Appends a value of the column's type, which was checked.
    fn push(&mut self, value: Value) {
        match (&mut self.data, value) {
            (Values::Strings(data), Value::String(text)) => data.push(text),
            (Values::Strings(data), _) => data.push(String::new()),
            (Values::Longs(data), number) => data.push(number.as_i64().unwrap_or_default()),
            (Values::Floats(data), number) => data.push(number.as_f64().unwrap_or_default() as f32),
            (Values::Bools(data), flag) => data.push(flag.as_bool().unwrap_or_default()),
            (Values::Json(data), json) => data.push(json.to_string().into_bytes()),
        }
    }

    fn into_field(self) -> FieldData {
        use scalar_field::Data;
        let (data_type, data) = match self.data {
            Values::Strings(data) => (DataType::VarChar, Data::StringData(StringArray { data })),
            Values::Longs(data) => (DataType::Int64, Data::LongData(LongArray { data })),
            Values::Floats(data) => (DataType::Float, Data::FloatData(FloatArray { data })),
            Values::Bools(data) => (DataType::Bool, Data::BoolData(BoolArray { data })),
            Values::Json(data) => (DataType::Json, Data::JsonData(JsonArray { data })),
        };
        FieldData {
            r#type: data_type.into(),
            field_name: self.name.to_owned(),
            field: Some(field_data::Field::Scalars(ScalarField {
                data: Some(data),
                ..ScalarField::default()
            })),
            ..FieldData::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_have_the_order_and_types_of_the_schema() {
        let config = CollectionConfig::new("c", 2).hybrid().with_field("page", FieldType::Int64);
        let entity = |page: i64, weight| {
            let mut entity = Entity::new(format!("page {page}"), vec![1.0, 2.0]).with_field("page", page);
            entity.fields.insert("metadata".into(), json!({"p": 0.5}));
            entity.with_sparse([(7, weight), (300, 1.0)].into())
        };
        let columns = columns(&config, vec![entity(1, 0.5), entity(2, 1.5)], false);
        let names: Vec<_> = columns.iter().map(|column| column.field_name.as_str()).collect();
        assert_eq!(names, ["content", "metadata", "dense_vector", "sparse_vector", "page"]);
        let Some(field_data::Field::Vectors(sparse)) = &columns[3].field else { panic!("a vector") };
        assert_eq!(sparse.dim, 301);
        let Some(field_data::Field::Scalars(pages)) = &columns[4].field else { panic!("a scalar") };
        assert_eq!(pages.data, Some(scalar_field::Data::LongData(LongArray { data: vec![1, 2] })));
    }

    #[test]
    fn sparse_vectors_are_pairs_in_the_order_of_their_dimensions() {
        let bytes = sparse_bytes(&[(258, 1.0), (1, 0.5)].into());
        assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 63, 2, 1, 0, 0, 0, 0, 128, 63]);
    }
}
