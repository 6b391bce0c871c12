//! Quantised dense vectors: one byte an element, with a bound of the error that they make.
//!
//! A scan reads the codes, a quarter of the bytes, and computes the exact score only of rows that the bound lets into the
//! best hits. Therefore it finds exactly what a scan of the vectors finds.

use crate::vectors::Metric;

/// Shorter vectors have no codes: reading them is no cheaper.
const MIN_DIM: usize = 64;
const MAX_CODE: f32 = 127.0;

/// A vector is `scale` times its codes, but for a rest of length `residual`.
#[derive(Debug, Clone, Copy)]
struct Summary<T = f32> {
    scale: T,
    residual: T,
    norm: T,
}

impl Summary {
    /// In doubles, products neither overflow nor vanish.
    fn widen(self) -> Summary<f64> {
        Summary { scale: self.scale.into(), residual: self.residual.into(), norm: self.norm.into() }
    }
}

/// The codes of the vectors of a segment, one after the other.
#[derive(Debug, Default)]
pub(super) struct Codes {
    values: Vec<i8>,
    summaries: Vec<Summary>,
}

impl Codes {
    pub(super) fn with_capacity(rows: usize, dim: usize) -> Self {
        if dim < MIN_DIM {
            return Self::default();
        }
        Self { values: Vec::with_capacity(rows * dim), summaries: Vec::with_capacity(rows) }
    }

    pub(super) fn push(&mut self, vector: &[f32]) {
        if vector.len() >= MIN_DIM {
            let (codes, summary) = quantise(vector);
            self.values.extend(codes.map(|code| code as i8));
            self.summaries.push(summary);
        }
    }

    /// Copies a row of other codes.
    pub(super) fn push_from(&mut self, other: &Self, row: usize, dim: usize) {
        if let Some(summary) = other.summaries.get(row) {
            self.values.extend_from_slice(&other.values[row * dim..(row + 1) * dim]);
            self.summaries.push(*summary);
        }
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.values.shrink_to_fit();
        self.summaries.shrink_to_fit();
    }

    pub(super) fn bytes(&self) -> usize {
        self.values.capacity() + self.summaries.capacity() * size_of::<Summary>()
    }
}

/// A query vector, quantised as well.
pub(super) struct QueryCodes {
    values: Vec<i16>,
    summary: Summary,
    metric: Metric,
}

impl QueryCodes {
    /// `None` for vectors without codes.
    pub(super) fn new(metric: Metric, query: &[f32]) -> Option<Self> {
        if query.len() < MIN_DIM {
            return None;
        }
        let (codes, summary) = quantise(query);
        Some(Self { values: codes.map(|code| code as i16).collect(), summary, metric })
    }

    /// What the nearness of a row is at most; not finite where the vectors are too long to tell.
    pub(super) fn max_nearness(&self, codes: &Codes, row: usize) -> f64 {
        let dim = self.values.len();
        let (x, q) = (codes.summaries[row].widen(), self.summary.widen());
        let dot = dot(&codes.values[row * dim..(row + 1) * dim], &self.values);
        // The product of both vectors is that of the codes, plus those of the rests.
        let rests = x.residual * q.norm + (x.norm + x.residual) * q.residual;
        let product = x.scale * q.scale * f64::from(dot) + rests;
        // What the exact score may be off by, which is a sum in single precision.
        let rounding = (dim as f64 / 16.0 + 32.0) * f64::from(f32::EPSILON);
        let smallest = dim as f64 * f64::from(f32::MIN_POSITIVE);
        match self.metric {
            Metric::L2 => {
                let squares = x.norm * x.norm + q.norm * q.norm;
                2.0 * product - squares * (1.0 - 2.0 * rounding) + smallest
            }
            _ => product + rounding * x.norm * q.norm + smallest,
        }
    }
}

fn quantise(vector: &[f32]) -> (impl Iterator<Item = f32>, Summary) {
    let scale = vector.iter().fold(0.0_f32, |max, x| max.max(x.abs())) / MAX_CODE;
    // Of zeros, and of vectors too short to divide by, all codes are zero.
    let inverse = Some(1.0 / scale).filter(|inverse| inverse.is_finite()).unwrap_or_default();
    let code = move |x: f32| (x * inverse).round().clamp(-MAX_CODE, MAX_CODE);
    let square = |x: f64| x * x;
    let residual = vector.iter().map(|x| square(f64::from(*x) - f64::from(scale) * f64::from(code(*x))));
    let norm = vector.iter().map(|x| square(f64::from(*x)));
    let summary = Summary { scale, residual: round_up(residual.sum()), norm: round_up(norm.sum()) };
    (vector.iter().map(move |x| code(*x)), summary)
}

/// The root of a sum of squares as a float that is not below it.
fn round_up(squares: f64) -> f32 {
    (squares.sqrt() as f32) * (1.0 + 2.0 * f32::EPSILON)
}

/// Products of codes are below 2^14, so that sums of 32 768 of them fit.
fn dot(codes: &[i8], query: &[i16]) -> i32 {
    codes.iter().zip(query).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum()
}

#[cfg(test)]
mod tests {
    use super::super::search::nearness;
    use super::*;

    #[test]
    fn no_row_is_nearer_than_its_codes_say() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..2_000 {
            let dim = random.usize(MIN_DIM..400);
            let length = 10.0_f32.powi(random.i32(-20..15));
            let mut vector = || -> Vec<f32> {
                let spike = random.usize(0..dim);
                let element = |i| if round % 3 == 0 && i != spike { 0.001 } else { 2.0 };
                (0..dim).map(|i| (random.f32() - 0.5) * element(i) * length).collect()
            };
            let (x, q) = (vector(), if round % 5 == 0 { vec![0.0; dim] } else { vector() });
            let mut codes = Codes::with_capacity(1, dim);
            codes.push(&x);
            for metric in [Metric::InnerProduct, Metric::L2] {
                let max = QueryCodes::new(metric, &q).expect("long enough").max_nearness(&codes, 0);
                let exact = nearness(metric, &x, &q);
                assert!(
                    max.is_nan() || f64::from(exact) <= max,
                    "{metric:?} {dim} {length}: {exact} is above {max}"
                );
                let same = QueryCodes::new(metric, &x).expect("long enough").max_nearness(&codes, 0);
                assert!(same.is_nan() || f64::from(nearness(metric, &x, &x)) <= same, "{metric:?} of itself");
            }
        }
    }
}
