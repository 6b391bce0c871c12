//! Floats: Python arshai writes those at the top of the metadata as texts.

use arshai::vectors::{
    Collection, CollectionConfig, Consistency, Entity, FieldType, Filter, Hit, QueryRequest, VectorStore,
};
use arshai_test_support::MilvusServer;
use serde_json::{Value, json};

use crate::{Both, DIM, python_config, query_vector, store};

fn entity(text: &str) -> Entity {
    Entity::new(text, query_vector())
        .with_metadata(json!({
            "half": 0.5, "whole": 2.0, "tenth": 0.1, "minus": -0.0, "small": 1e-5, "limit": 1e-4, "large": 1e15,
            "larger": 1e16, "huge": 1.25e22, "least": 5e-324, "most": f64::MAX, "int": 3, "flag": true,
            "nested": {"half": 0.5}, "list": [0.5],
        }))
        .with_field("more", json!({"half": 0.5}))
}

fn config() -> CollectionConfig {
    CollectionConfig::new("c", DIM).with_field("more", FieldType::Json)
}

async fn rows(collection: &dyn Collection, filter: &str) -> Vec<Hit> {
    let filter = Filter::parse(filter).expect("a filter");
    let request = QueryRequest::new(filter).with_consistency(Consistency::Strong);
    collection.query_by_expr(request).await.expect("it queries")
}

async fn texts(collection: &dyn Collection, filter: &str) -> Vec<Value> {
    let mut texts: Vec<_> =
        rows(collection, filter).await.into_iter().map(|hit| hit.fields["content"].clone()).collect();
    texts.sort_by_key(|text| text.as_str().map(str::to_owned));
    texts
}

#[tokio::test]
async fn floats_are_numbers_from_rust_and_texts_from_python_and_both_are_read() {
    for server in [MilvusServer::small(), MilvusServer::full()] {
        let mut both = Both::on(server);
        let collection = both.rust.get_or_create_collection(&config()).await.expect("made");
        collection.insert_entity(entity("rust")).await.expect("inserted");
        both.python_inserts(&config(), &[entity("python")]);

        assert_eq!(texts(&*collection, "metadata['half'] == 0.5").await, ["rust"]);
        assert_eq!(texts(&*collection, "metadata['half'] == '0.5'").await, ["python"]);
        assert_eq!(texts(&*collection, "metadata['nested']['half'] == 0.5").await, ["python", "rust"]);
        assert_eq!(texts(&*collection, "more['half'] == 0.5").await, ["python", "rust"]);
        for (text, half, whole) in [("rust", json!(0.5), json!(2.0)), ("python", json!("0.5"), json!("2.0"))]
        {
            let expr = format!("content == '{text}'");
            let rust = &rows(&*collection, &expr).await[0].fields["metadata"];
            let python =
                both.arshai("query_by_expr", &config(), json!({"expr": expr, "consistency_level": "Strong"}));
            assert_eq!((&rust["half"], &rust["whole"]), (&half, &whole));
            assert_eq!(rust, &python[0]["metadata"]);
        }
    }
}

#[tokio::test]
async fn with_python_floats_rust_writes_exactly_what_python_does() {
    for server in [MilvusServer::small(), MilvusServer::full()] {
        let mut both = Both::on(server);
        both.rust = store(&both.server, |milvus| milvus.python_floats = true);
        let collection = both.rust.get_or_create_collection(&config()).await.expect("made");
        collection.insert_entity(entity("rust")).await.expect("inserted");
        both.python_inserts(&config(), &[entity("python")]);

        let stored =
            async |text: &str| rows(&*collection, &format!("content == '{text}'")).await.remove(0).fields;
        let (by_rust, by_python) = (stored("rust").await, stored("python").await);
        assert_eq!(by_rust["metadata"], by_python["metadata"]);
        assert_eq!(by_rust["more"], by_python["more"]);
        assert_eq!(texts(&*collection, "metadata['half'] == '0.5'").await, ["python", "rust"]);
    }
}

/// Python arshai makes a text of a float field's value too, and its own client refuses that.
#[tokio::test]
async fn float_fields_are_numbers_that_rust_and_pymilvus_write_and_everybody_reads() {
    for server in [MilvusServer::small(), MilvusServer::full()] {
        let mut both = Both::on(server);
        let config = CollectionConfig::new("c", DIM).with_field("price", FieldType::Float);
        both.rust = store(&both.server, |milvus| milvus.python_floats = true);
        both.arshai("get_or_create_collection", &config, json!({}));
        let priced = |text: &str| Entity::new(text, query_vector()).with_field("price", 2.5);
        let refused = both.python.call(&json!({
            "op": "insert_entity",
            "config": python_config(&config),
            "entity": priced("python").fields,
            "embedding": {"dense": query_vector()},
        }));
        assert_eq!(refused["error"], "DataNotMatchException", "{refused}");

        let collection = both.rust.get_collection("c").await.expect("Rust opens it");
        collection.insert_entity(priced("rust")).await.expect("inserted");
        let row =
            json!({"content": "pymilvus", "metadata": {}, "dense_vector": query_vector(), "price": 2.5});
        both.pymilvus("insert", "c", json!({"rows": [row]}));
        assert_eq!(texts(&*collection, "price == 2.5").await, ["pymilvus", "rust"]);
        let arguments =
            json!({"expr": "price > 2", "consistency_level": "Strong", "output_fields": ["price"]});
        let found = both.arshai("query_by_expr", &config, arguments);
        let prices: Vec<_> = found.as_array().expect("rows").iter().map(|row| &row["price"]).collect();
        assert_eq!(prices, [&json!(2.5), &json!(2.5)]);
    }
}
