//! Merges the hits of a dense and a sparse search.

use std::collections::BTreeMap;
use std::f32::consts::PI;

use serde::{Deserialize, Serialize};

use super::Metric;

/// How a hybrid search merges the hits of both vectors. An entity that only one of them found gets nothing from the
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Ranker {
    /// The weighted sum of both scores, each normalised to 0..1 as Milvus does with `norm_score`: `0.5 + atan(s)/π` for
    /// an inner product, `(1 + s)/2` for a cosine, `1 - 2·atan(d)/π` for a distance.
    #[doc(alias = "WeightedRanker")]
    Weighted {
        /// Weight of the dense score, 0 to 1.
        dense: f32,
        /// Weight of the sparse score, 0 to 1.
        sparse: f32,
    },
    /// Reciprocal rank fusion: the sum of `1 / (k + rank)` over both lists; the best hit has rank 1.
    #[doc(alias = "RRFRanker")]
    ReciprocalRank {
        /// The constant `k`, above 0 and below 16 384; usually 60.
        k: f32,
    },
}

/// Weighted, 0.5 each, as in Python arshai.
impl Default for Ranker {
    fn default() -> Self {
        Self::Weighted { dense: 0.5, sparse: 0.5 }
    }
}

impl Ranker {
    /// Merges two lists of hits, best first, into the best `limit`; equal scores by ascending key. For backends that
    /// search both vectors separately.
    #[must_use]
    pub fn merge<K: Ord>(
        &self,
        metric: Metric,
        dense: Vec<(K, f32)>,
        sparse: Vec<(K, f32)>,
        limit: usize,
    ) -> Vec<(K, f32)> {
        let (dense_weight, sparse_weight) = match *self {
            Self::Weighted { dense, sparse } => (dense, sparse),
            Self::ReciprocalRank { .. } => (1.0, 1.0),
        };
        let mut scores = BTreeMap::new();
        let lists = [(metric, dense, dense_weight), (Metric::InnerProduct, sparse, sparse_weight)];
        for (metric, hits, weight) in lists {
            for (i, (key, score)) in hits.into_iter().enumerate() {
                let part = match *self {
                    Self::Weighted { .. } => weight * normalise(metric, score),
                    Self::ReciprocalRank { k } => 1.0 / (k + (i + 1) as f32),
                };
                *scores.entry(key).or_insert(0.0) += part;
            }
        }
        let mut merged: Vec<(K, f32)> = scores.into_iter().collect();
        // The sort is stable, so equal scores stay in the order of their keys.
        merged.sort_by(|a, b| b.1.total_cmp(&a.1));
        merged.truncate(limit);
        merged
    }
}

fn normalise(metric: Metric, score: f32) -> f32 {
    match metric {
        Metric::InnerProduct => 0.5 + score.atan() / PI,
        Metric::Cosine => (1.0 + score) * 0.5,
        Metric::L2 => 1.0 - 2.0 * score.atan() / PI,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weighted_scores_are_normalised_and_an_absent_part_counts_nothing() {
        let ranker = Ranker::Weighted { dense: 0.25, sparse: 0.75 };
        let merged = ranker.merge(Metric::L2, vec![("a", 0.0), ("b", 1.0)], vec![("b", 1.0)], 5);
        assert_eq!(merged[0].0, "b");
        assert!((merged[0].1 - (0.25 * 0.5 + 0.75 * 0.75)).abs() < 1e-6, "{merged:?}");
        assert!((merged[1].1 - 0.25).abs() < 1e-6, "{merged:?}");
    }

    #[test]
    fn reciprocal_ranks_add_up_and_ties_are_ordered_by_key() {
        let ranker = Ranker::ReciprocalRank { k: 60.0 };
        let merged = ranker.merge(
            Metric::Cosine,
            vec![("b", 0.9), ("c", 0.8), ("d", 0.7)],
            vec![("a", 9.0), ("c", 1.0)],
            3,
        );
        let keys: Vec<_> = merged.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["c", "a", "b"]);
        assert!((merged[0].1 - 2.0 / 62.0).abs() < 1e-6, "{merged:?}");
    }
}
