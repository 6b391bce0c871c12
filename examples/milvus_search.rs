//! Texts in Milvus: inserted in bulk, searched by similarity, filtered by what a user typed.
//!
//! ```text
//! MILVUS_HOST=localhost cargo run --release --features milvus --example milvus_search -- red wine
//! ```
//!
//! `MILVUS_PORT`, `MILVUS_DB_NAME` and `MILVUS_TOKEN` are read too. Run it twice: the second run finds what the first one
//! inserted.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use arshai::vectors::{
    BulkInsertOptions, Collection, CollectionConfig, Entity, FieldType, Filter, QueryRequest, SearchRequest,
    entity_stream,
};
use arshai::{Arshai, Config, Deadline, ErrorKind};
use serde_json::json;

const DIMENSIONS: usize = 64;

/// Text, shelf and price.
const GOODS: [(&str, &str, f64); 8] = [
    ("dry red wine from the Rhône", "drinks", 9.5),
    ("sweet white wine from the Mosel", "drinks", 7.25),
    ("red apples, two kilograms", "fruit", 3.5),
    ("green apples, one kilogram", "fruit", 2.0),
    ("red paint for wood, one litre", "tools", 14.0),
    ("sparkling water, six bottles", "drinks", 4.5),
    ("cherry juice, not from concentrate", "drinks", 3.0),
    ("cherries in a jar", "fruit", 2.75),
];

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut config = Config::load()?;
    config.vectors.backend = "milvus".into();
    let address = format!("{}:{}", config.milvus.host, config.milvus.port);
    let runtime = Arshai::builder(config).build()?;
    let store = runtime.vectors()?;
    if let Err(error) = store.connect().await {
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
            eprintln!("There is no Milvus at {address}. Set MILVUS_HOST and MILVUS_PORT, or start one: see");
            eprintln!("https://milvus.io/docs, or with Python 3.11 on Linux:");
            eprintln!("  pip install milvus==2.3.5 && milvus-server --data /tmp/milvus\n");
        }
        return Err(error.into());
    }

    let config = CollectionConfig::new("milvus_search_example", DIMENSIONS)
        .with_field("shelf", FieldType::VarChar)
        .with_field("price", FieldType::Float);
    let goods = store.get_or_create_collection(&config).await?;
    if goods.get_collection_stats().await?.num_entities == 0 {
        let entities = GOODS.into_iter().map(|(text, shelf, price)| {
            Entity::new(text, embed(text)).with_field("shelf", shelf).with_field("price", price)
        });
        let report = goods.bulk_insert_optimized(entity_stream(entities), BulkInsertOptions::default()).await;
        println!("inserted {} entities", report.into_result()?.written_count());
    }
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words = if words.is_empty() { "red wine".to_owned() } else { words.join(" ") };
    search(&*goods, &words).await?;
    cheap_goods(&*goods, "fruit").await?;

    runtime.shutdown(Deadline::after(Duration::from_secs(5))).await;
    Ok(())
}

/// The nearest entities; the best first.
async fn search(goods: &dyn Collection, words: &str) -> Result<(), Box<dyn Error>> {
    println!("\nnearest to {words:?}:");
    let found = goods.search_by_vector(SearchRequest::new(embed(words))).await?;
    for hit in found.iter().flatten() {
        println!("  {:.2}  {} ({})", hit.score, hit.fields["content"], hit.fields["price"]);
    }
    Ok(())
}

/// What a user typed is bound to a name, so that it can never become part of the expression.
async fn cheap_goods(goods: &dyn Collection, shelf: &str) -> Result<(), Box<dyn Error>> {
    println!("\nbelow 3.00 on the shelf {shelf:?}:");
    let filter = Filter::with_params("shelf == {shelf} and price < 3.0", [("shelf", json!(shelf))])?;
    for hit in goods.query_by_expr(QueryRequest::new(filter)).await? {
        println!("  {} ({})", hit.fields["content"], hit.fields["price"]);
    }
    Ok(())
}

/// Stands for an embedding model: counts words by their hash, so texts with common words are near each other.
fn embed(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0_f32; DIMENSIONS];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = word
            .to_lowercase()
            .bytes()
            .fold(17_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        vector[hash % DIMENSIONS] += 1.0;
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter().map(|x| x / length).collect()
}
