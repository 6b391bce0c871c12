//! One collection: rows in the order of their ids, dense vectors side by side.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use serde_json::{Map, Value};

use super::row::{Row, invalid, text};
use crate::Result;
use crate::vectors::{CollectionConfig, Filter, Hit, HybridRequest, SparseVector};

/// What a row's place in the vectors' lists takes.
const PLACE: u64 = (size_of::<Map<String, Value>>() + size_of::<SparseVector>()) as u64;

/// What a collection takes in the store: its key and pointer in a tree whose nodes are at least five elevenths full, its
/// counters and its lock.
const PLACE_IN_STORE: usize = 128;

#[derive(Debug)]
pub(super) struct Collection {
    pub config: CollectionConfig,
    rows: Vec<Map<String, Value>>,
    sparse: Vec<SparseVector>,
    /// All dense vectors, one after the other.
    dense: Vec<f32>,
    /// Bytes of the rows besides their places and dense vectors, one figure each, and their sum.
    row_bytes: Vec<u64>,
    rows_total: u64,
}

/// A row that scored, ordered so that the best is the greatest: by score, then by the lower place.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scored {
    score: f32,
    place: Reverse<usize>,
}

impl Eq for Scored {}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(self.place.cmp(&other.place))
    }
}

impl Collection {
    pub(super) fn new(config: CollectionConfig) -> Self {
        Self {
            config,
            rows: Vec::new(),
            sparse: Vec::new(),
            dense: Vec::new(),
            row_bytes: Vec::new(),
            rows_total: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of everything here, reserved room included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_with_room(self.rows.capacity()) + self.rows_total
    }

    /// Bytes of an empty collection: itself, its place in the store, its name (which is there twice) and fields.
    fn own_bytes(&self) -> u64 {
        let config = &self.config;
        let names = [
            &config.text_field,
            &config.pk_field,
            &config.dense_field,
            &config.sparse_field,
            &config.metadata_field,
            &config.collection_name,
            &config.collection_name,
        ];
        let extra = config.extra_fields.iter().map(|field| size_of_val(field) + text(&field.name));
        let strings = names.into_iter().map(|name| text(name)).chain(extra).sum::<usize>();
        (size_of::<Self>() + PLACE_IN_STORE + strings) as u64
    }

    fn bytes_with_room(&self, capacity: usize) -> u64 {
        self.own_bytes() + capacity as u64 * (PLACE + 8 + self.config.dense_dim as u64 * 4)
    }

    /// The room after `more` rows: grown by an eighth, so that growing stays rare and the surplus small.
    fn room_for(&self, more: usize) -> usize {
        let needed = self.rows.len() + more;
        if needed <= self.rows.capacity() { self.rows.capacity() } else { needed + needed / 8 }
    }

    /// Bytes of everything here once `rows` are in.
    pub(super) fn bytes_with(&self, rows: &[Row]) -> u64 {
        let more: u64 = rows.iter().map(Row::bytes).sum();
        self.bytes_with_room(self.room_for(rows.len())) + self.rows_total + more
    }

    pub(super) fn push(&mut self, rows: Vec<Row>) {
        let more = self.room_for(rows.len()) - self.rows.len();
        self.rows.reserve_exact(more);
        self.sparse.reserve_exact(more);
        self.row_bytes.reserve_exact(more);
        self.dense.reserve_exact(more * self.config.dense_dim);
        for row in rows {
            let bytes = row.bytes();
            self.rows_total += bytes;
            self.row_bytes.push(bytes);
            self.dense.extend_from_slice(&row.dense);
            self.sparse.push(row.sparse);
            self.rows.push(row.fields);
        }
    }

    /// Removes what matches; gives how many there were. The others close up in their order.
    pub(super) fn delete(&mut self, filter: &Filter) -> Result<u64> {
        self.check_fields(filter.fields())?;
        let dim = self.config.dense_dim;
        let mut kept = 0;
        for place in 0..self.rows.len() {
            if filter.matches(&self.rows[place]) {
                self.rows_total -= self.row_bytes[place];
                continue;
            }
            if kept != place {
                self.rows.swap(kept, place);
                self.sparse.swap(kept, place);
                self.row_bytes.swap(kept, place);
                self.dense.copy_within(place * dim..(place + 1) * dim, kept * dim);
            }
            kept += 1;
        }
        let deleted = self.rows.len() - kept;
        self.rows.truncate(kept);
        self.sparse.truncate(kept);
        self.row_bytes.truncate(kept);
        self.dense.truncate(kept * dim);
        // Memory goes back once half the room is empty.
        if self.rows.capacity() > 2 * kept {
            self.rows.shrink_to_fit();
            self.sparse.shrink_to_fit();
            self.row_bytes.shrink_to_fit();
            self.dense.shrink_to_fit();
        }
        Ok(deleted as u64)
    }

    /// Fails on the first name that is no field of this collection.
    pub(super) fn check_fields<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Result<()> {
        let config = &self.config;
        let is_known = |name: &str| {
            [&config.pk_field, &config.text_field, &config.metadata_field].iter().any(|known| *known == name)
                || config.extra_fields.iter().any(|field| field.name == name)
        };
        match names.find(|name| !is_known(name)) {
            Some(name) => {
                Err(invalid(format!("the collection {:?} has no field {name:?}", config.collection_name)))
            }
            None => Ok(()),
        }
    }

    /// The places of the rows that count.
    fn candidates(&self, filter: Option<&Filter>) -> Vec<usize> {
        let counts = |place: &usize| filter.is_none_or(|filter| filter.matches(&self.rows[*place]));
        (0..self.rows.len()).filter(counts).collect()
    }

    /// The best `limit` of `candidates`.
    fn best(candidates: &[usize], limit: usize, score: impl Fn(usize) -> f32) -> Vec<Scored> {
        let mut best = BinaryHeap::with_capacity(limit.min(candidates.len()) + 1);
        for &place in candidates {
            let scored = Scored { score: score(place), place: Reverse(place) };
            if best.len() < limit {
                best.push(Reverse(scored));
            } else if best.peek().is_some_and(|Reverse(worst)| scored > *worst) {
                best.pop();
                best.push(Reverse(scored));
            }
        }
        let mut best: Vec<_> = best.into_iter().map(|Reverse(scored)| scored).collect();
        best.sort_by(|a, b| b.cmp(a));
        best
    }

    pub(super) fn search(
        &self,
        queries: &[Vec<f32>],
        filter: Option<&Filter>,
        output_fields: Option<&[String]>,
        limit: usize,
    ) -> Vec<Vec<Hit>> {
        let candidates = self.candidates(filter);
        let one = |query: &Vec<f32>| {
            let best = Self::best(&candidates, limit, |place| self.dense_score(place, query));
            best.into_iter().map(|scored| self.hit(scored.place.0, scored.score, output_fields)).collect()
        };
        queries.iter().map(one).collect()
    }

    /// The best of both searches, each brought into 0 to 1 and weighed; a row that only one of them found has nothing
    /// from the other, as in Milvus.
    pub(super) fn hybrid(&self, request: &HybridRequest) -> Vec<Hit> {
        let candidates = self.candidates(request.filter.as_ref());
        let matching: Vec<usize> = candidates
            .iter()
            .copied()
            .filter(|place| shares(&self.sparse[*place], &request.sparse))
            .collect();
        let dense = Self::best(&candidates, request.limit, |place| self.dense_score(place, &request.dense));
        let sparse =
            Self::best(&matching, request.limit, |place| sparse_dot(&self.sparse[place], &request.sparse));
        let mut scores = std::collections::BTreeMap::new();
        for (found, weight) in [(dense, request.weights.0), (sparse, request.weights.1)] {
            for Scored { score, place } in found {
                *scores.entry(place.0).or_insert(0.0) += weight * (0.5 + score.atan() / std::f32::consts::PI);
            }
        }
        let places: Vec<usize> = scores.keys().copied().collect();
        let best = Self::best(&places, request.limit, |place| scores.get(&place).copied().unwrap_or(0.0));
        best.into_iter()
            .map(|scored| self.hit(scored.place.0, scored.score, request.output_fields.as_deref()))
            .collect()
    }

    pub(super) fn query(&self, filter: &Filter, output_fields: Option<&[String]>, limit: usize) -> Vec<Hit> {
        let matching = (0..self.rows.len()).filter(|place| filter.matches(&self.rows[*place]));
        matching.take(limit).map(|place| self.hit(place, 0.0, output_fields)).collect()
    }

    fn dense_score(&self, place: usize, query: &[f32]) -> f32 {
        let dim = self.config.dense_dim;
        let vector = &self.dense[place * dim..(place + 1) * dim];
        let score = dot(vector, query);
        if score.is_finite() { score } else { precise(vector.iter().zip(query).map(|(x, y)| (*x, *y))) }
    }

    fn hit(&self, place: usize, score: f32, output_fields: Option<&[String]>) -> Hit {
        let row = &self.rows[place];
        let id = row.get(&self.config.pk_field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let fields = match output_fields {
            None => row.clone(),
            Some(wanted) => {
                wanted.iter().filter_map(|name| Some((name.clone(), row.get(name)?.clone()))).collect()
            }
        };
        Hit::new(id, score, fields)
    }
}

/// The inner product, summed in lanes that the compiler keeps in vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

fn sparse_dot(a: &SparseVector, b: &SparseVector) -> f32 {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    precise(short.iter().filter_map(|(dimension, x)| Some((*x, *long.get(dimension)?))))
}

/// The inner product by way of doubles, in which no product of floats overflows; the score is finite and not `-0`.
fn precise(pairs: impl Iterator<Item = (f32, f32)>) -> f32 {
    let sum: f64 = pairs.map(|(x, y)| f64::from(x) * f64::from(y)).sum();
    sum.clamp(f32::MIN.into(), f32::MAX.into()) as f32 + 0.0
}

/// Whether two sparse vectors have a dimension in common: only then does an inverted index find one by the other.
fn shares(a: &SparseVector, b: &SparseVector) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    short.keys().any(|dimension| long.contains_key(dimension))
}
