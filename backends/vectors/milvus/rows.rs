//! The columns of an answer as hits.

use milvus::proto::milvus::{QueryResults, SearchResults};
use milvus::proto::schema::{FieldData, IDs, field_data, i_ds, scalar_field};
use serde_json::{Map, Number, Value};

use super::COMPONENT;
use crate::vectors::{CollectionConfig, Hit};
use crate::{Error, ErrorKind, Result};

/// The hits of a search, one list per query vector; equal scores by ascending id.
pub(super) fn search_hits(
    config: &CollectionConfig,
    answer: SearchResults,
    output_fields: Option<&[String]>,
) -> Result<Vec<Vec<Hit>>> {
    let data = answer.results.unwrap_or_default();
    let ids = id_strings(data.ids)?;
    let total = data.topks.iter().try_fold(0_usize, |sum, k| sum.checked_add(usize::try_from(*k).ok()?));
    if total != Some(ids.len()) || data.scores.len() != ids.len() {
        return Err(malformed("numbers of hits, ids and scores differ"));
    }
    let rows = rows(data.fields_data, ids.len())?;
    let wants_id = output_fields.is_none_or(|fields| fields.contains(&config.pk_field));
    let mut hits = ids.into_iter().zip(data.scores).zip(rows).map(|((id, score), mut fields)| {
        if wants_id {
            fields.insert(config.pk_field.clone(), Value::from(id.as_str()));
        }
        // Adding zero turns -0 into 0.
        Hit::new(id, score + 0.0, fields)
    });
    let mut lists: Vec<Vec<Hit>> =
        data.topks.iter().map(|k| hits.by_ref().take(usize::try_from(*k).unwrap_or(0)).collect()).collect();
    for list in &mut lists {
        for tie in list.chunk_by_mut(|a, b| a.score == b.score) {
            tie.sort_by(|a, b| a.id.cmp(&b.id));
        }
    }
    Ok(lists)
}

/// The hits of a query, by ascending id.
pub(super) fn query_hits(
    config: &CollectionConfig,
    answer: QueryResults,
    output_fields: Option<&[String]>,
) -> Result<Vec<Hit>> {
    let keeps_id = output_fields.is_none_or(|fields| fields.contains(&config.pk_field));
    let ids = answer.fields_data.iter().find(|field| field.field_name == config.pk_field);
    let number = match ids {
        Some(ids) => values_len(ids),
        // Without entities, some versions answer without fields.
        None if answer.fields_data.iter().all(|field| values_len(field) == 0) => 0,
        None => return Err(malformed("ids are missing")),
    };
    let rows = rows(answer.fields_data, number)?;
    let mut hits = Vec::with_capacity(rows.len());
    for mut fields in rows {
        let id = match fields.get_mut(&config.pk_field) {
            Some(Value::String(id)) => {
                if keeps_id {
                    id.clone()
                } else {
                    std::mem::take(id)
                }
            }
            _ => return Err(malformed("an id is not a string")),
        };
        if !keeps_id {
            fields.remove(&config.pk_field);
        }
        hits.push(Hit::new(id, 0.0, fields));
    }
    hits.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(hits)
}

/// The only number of an answer to `count(*)`.
pub(super) fn count(answer: &QueryResults) -> Result<u64> {
    let counted = answer.fields_data.iter().find_map(|field| match &field.field {
        Some(field_data::Field::Scalars(scalars)) => match &scalars.data {
            Some(scalar_field::Data::LongData(longs)) => longs.data.first(),
            _ => None,
        },
        _ => None,
    });
    counted.and_then(|count| u64::try_from(*count).ok()).ok_or_else(|| malformed("a count is missing"))
}

pub(super) fn id_strings(ids: Option<IDs>) -> Result<Vec<String>> {
    match ids.and_then(|ids| ids.id_field) {
        None => Ok(Vec::new()),
        Some(i_ds::IdField::StrId(ids)) => Ok(ids.data),
        Some(_) => Err(malformed("ids are not strings")),
    }
}

fn rows(fields: Vec<FieldData>, number: usize) -> Result<Vec<Map<String, Value>>> {
    let mut rows = vec![Map::new(); number];
    // Columns without rows have any type.
    for field in fields.into_iter().filter(|_| number > 0) {
        let name = field.field_name.clone();
        let values = values(field)?;
        if values.len() != number {
            return Err(malformed("columns have different lengths"));
        }
        for (row, value) in rows.iter_mut().zip(values) {
            row.insert(name.clone(), value);
        }
    }
    Ok(rows)
}

fn values_len(field: &FieldData) -> usize {
    use scalar_field::Data;
    match &field.field {
        Some(field_data::Field::Scalars(scalars)) => match &scalars.data {
            Some(Data::StringData(column)) => column.data.len(),
            Some(Data::LongData(column)) => column.data.len(),
            Some(Data::FloatData(column)) => column.data.len(),
            Some(Data::BoolData(column)) => column.data.len(),
            Some(Data::JsonData(column)) => column.data.len(),
            _ => 0,
        },
        _ => 0,
    }
}

fn values(field: FieldData) -> Result<Vec<Value>> {
    use scalar_field::Data;
    let Some(field_data::Field::Scalars(scalars)) = field.field else {
        return Err(malformed("a column is no scalar"));
    };
    let mut values: Vec<Value> = match scalars.data {
        None => Vec::new(),
        Some(Data::StringData(column)) => column.data.into_iter().map(Value::String).collect(),
        Some(Data::LongData(column)) => column.data.into_iter().map(Value::from).collect(),
        Some(Data::FloatData(column)) => column.data.into_iter().map(float).collect(),
        Some(Data::BoolData(column)) => column.data.into_iter().map(Value::Bool).collect(),
        Some(Data::JsonData(column)) => column.data.iter().map(|text| json(text)).collect::<Result<_>>()?,
        Some(_) => return Err(malformed("a column has a type that arshai does not read")),
    };
    let valid = if scalars.valid_data.is_empty() { field.valid_data } else { scalars.valid_data };
    for (value, is_valid) in values.iter_mut().zip(valid) {
        if !is_valid {
            *value = Value::Null;
        }
    }
    Ok(values)
}

/// The number with the same shortest text: 0.1, not 0.10000000149.
fn float(value: f32) -> Value {
    value.to_string().parse().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

fn json(text: &[u8]) -> Result<Value> {
    serde_json::from_slice(text).map_err(|cause| {
        Error::new(ErrorKind::Corrupt, COMPONENT, "a JSON field holds no JSON").with_source(cause)
    })
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, COMPONENT, format!("malformed response: {what}"))
}
