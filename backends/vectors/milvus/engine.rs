//! The server behind the connection, and what its version can do.

use milvus::proto::milvus::GetVersionResponse;

use crate::vectors::{MilvusDialect, QueryVectors};
use crate::{Error, ErrorKind, Result};

/// What answers: a server with a version, or the small engine of `milvus-lite`, which has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// `milvus-lite` 2.x.
    Lite,
    /// A server; major and minor version.
    Server(u32, u32),
}

impl Engine {
    /// By the answer to a request for the version.
    pub(super) fn detect(answer: Result<GetVersionResponse>) -> Result<Self> {
        match answer {
            Ok(response) => Ok(Self::parse(&response.version)),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Self::Lite),
            Err(error) => Err(error),
        }
    }

    /// `v2.3.5`, `2.5.4-dev` or `master-20250101`: one without numbers is newer than any.
    fn parse(version: &str) -> Self {
        let mut numbers = version.trim_start_matches('v').split(['.', '-']).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Self::Server(major, minor),
            _ => Self::Server(u32::MAX, 0),
        }
    }

    /// Sparse vectors and hybrid search: Milvus 2.4.
    pub(super) fn has_sparse(self) -> bool {
        self >= Self::Server(2, 4) || self == Self::Lite
    }

    /// What it evaluates of the filter language.
    pub(super) fn dialect(self) -> MilvusDialect {
        match self {
            Self::Lite => MilvusDialect::LITE,
            _ if self >= Self::Server(2, 6) => MilvusDialect::STANDALONE_2_6,
            _ if self >= Self::Server(2, 4) => MilvusDialect::STANDALONE_2_4,
            Self::Server(..) => MilvusDialect::STANDALONE,
        }
    }

    /// Whether it answers a delete by ids with their number, even of those that are not there.
    pub(super) fn counts_deleted_ids(self) -> bool {
        self != Self::Lite
    }

    /// Whether an offset skips hits of each query vector. The small engine loses hits of several sparse vectors, of which
    /// some have fewer than the offset.
    pub(super) fn skips_hits_of_each(self, vectors: &QueryVectors) -> bool {
        self != Self::Lite || vectors.len() == 1 || matches!(vectors, QueryVectors::Dense(_))
    }

    /// Maximum size of an insert. The small engine never answers one of 7.7 MB; a server reads at most 64 MiB.
    pub(super) fn max_insert_bytes(self) -> usize {
        match self {
            Self::Lite => 7_000_000,
            Self::Server(..) => 32 << 20,
        }
    }

    /// # Errors
    /// [`ErrorKind::Unsupported`] where it has no sparse vectors.
    pub(super) fn check_sparse(self) -> Result<()> {
        if self.has_sparse() {
            return Ok(());
        }
        let message = "sparse vectors need Milvus 2.4 or newer";
        Err(Error::new(ErrorKind::Unsupported, super::COMPONENT, message)
            .with_context("server", self)
            .not_sent())
    }
}

impl PartialOrd for Engine {
    /// By version; the small engine has none.
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Server(major, minor), Self::Server(other_major, other_minor)) => {
                (major, minor).partial_cmp(&(other_major, other_minor))
            }
            _ => (self == other).then_some(std::cmp::Ordering::Equal),
        }
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lite => f.write_str("milvus-lite"),
            Self::Server(u32::MAX, _) => f.write_str("a development version"),
            Self::Server(major, minor) => write!(f, "{major}.{minor}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_vectors_came_with_version_2_4() {
        for (version, has_sparse) in
            [("v2.3.5", false), ("2.4.0", true), ("v2.5.4-dev", true), ("v3.0", true), ("master-2025", true)]
        {
            assert_eq!(Engine::parse(version).has_sparse(), has_sparse, "{version}");
        }
        assert!(Engine::Lite.has_sparse());
    }

    #[test]
    fn a_version_gets_the_filters_that_it_evaluates() {
        for (version, dialect) in [
            ("2.2.16", MilvusDialect::STANDALONE),
            ("v2.3.5", MilvusDialect::STANDALONE),
            ("v2.4.0-rc.1", MilvusDialect::STANDALONE_2_4),
            ("2.5.26", MilvusDialect::STANDALONE_2_4),
            ("2.6.0", MilvusDialect::STANDALONE_2_6),
            ("3.0.1", MilvusDialect::STANDALONE_2_6),
            ("2.6-20250217-80671131-amd64", MilvusDialect::STANDALONE_2_6),
            ("master-20250211-85c9f92f-amd64", MilvusDialect::STANDALONE_2_6),
        ] {
            assert_eq!(Engine::parse(version).dialect(), dialect, "{version}");
        }
        assert_eq!(Engine::Lite.dialect(), MilvusDialect::LITE);
    }
}
