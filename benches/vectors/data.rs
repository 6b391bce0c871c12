//! What is inserted and searched for: vectors in clusters, as embeddings are.

use arshai::vectors::{Entity, Filter};
use serde_json::{Map, Value, json};

pub(crate) const DIM: usize = 384;
pub(crate) const LIMIT: usize = 10;
const CLUSTERS: usize = 500;

/// So many vectors of unit length; the same for the same seed.
pub(crate) fn vectors(count: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut centers = fastrand::Rng::with_seed(1);
    let centers: Vec<_> = (0..CLUSTERS).map(|_| unit(random(&mut centers))).collect();
    let mut rng = fastrand::Rng::with_seed(seed);
    let around = |rng: &mut fastrand::Rng| {
        let center = &centers[rng.usize(0..CLUSTERS)];
        let noise = unit(random(rng));
        unit(center.iter().zip(noise).map(|(x, y)| x + 0.8 * y).collect())
    };
    (0..count).map(|_| around(&mut rng)).collect()
}

/// Close to normally distributed.
fn random(rng: &mut fastrand::Rng) -> Vec<f32> {
    (0..DIM).map(|_| (0..4).map(|_| rng.f32() - 0.5).sum()).collect()
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}

pub(crate) fn text(number: usize) -> String {
    format!("Paragraph {number} of a document, as long as a sentence that was found in it usually is.")
}

pub(crate) fn metadata(number: usize) -> Value {
    json!({"source": format!("{}.md", number % 1_000), "percent": number % 100, "number": number})
}

pub(crate) fn entity(number: usize, vector: &[f32]) -> Entity {
    Entity::new(text(number), vector.to_vec()).with_metadata(metadata(number))
}

/// The fields of an entity, as a filter sees them.
pub(crate) fn fields(number: usize) -> Map<String, Value> {
    Map::from_iter([("content".to_owned(), text(number).into()), ("metadata".to_owned(), metadata(number))])
}

/// True for one row of a hundred.
pub(crate) fn one_percent() -> Filter {
    Filter::parse("metadata['percent'] == 7").expect("valid")
}

pub(crate) fn is_one_percent(number: usize) -> bool {
    number % 100 == 7
}

/// Filters of the usual kinds.
pub(crate) const FILTERS: [(&str, &str); 4] = [
    ("compare", "metadata['percent'] == 7"),
    ("and_in", "metadata['percent'] > 50 and metadata['source'] in ['1.md', '2.md', '3.md', '4.md']"),
    ("like", "content like '%sentence that was lost%'"),
    ("arithmetic", "metadata['number'] % 10 + 1 == 4 or metadata['percent'] * 2 > 180"),
];
