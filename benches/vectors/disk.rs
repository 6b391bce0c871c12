//! Collections on disk, beside writing the same bytes to a bare file.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use arshai::backends::vectors::EmbeddedStore;
use arshai::vectors::{CollectionConfig, VectorStore};
use arshai::{Component, Deadline};
use arshai_benches::{Bench, Better, Contender, ns_per_op};
use tokio::runtime::Runtime;

use crate::data::{self, DIM};
use crate::{MAX_BYTES, fill, runtime};

/// Bytes of a row in the file, about.
const ROW_BYTES: usize = 1_700;

/// A new folder on the disk of the build, since temporary ones may be in memory.
pub(crate) fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/vectors");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

fn store(path: &Path, sync: bool) -> EmbeddedStore {
    EmbeddedStore::new(MAX_BYTES).with_path(path, sync)
}

fn close(runtime: &Runtime, store: &EmbeddedStore) {
    let report = runtime.block_on(store.close(Deadline::after(std::time::Duration::from_secs(60))));
    assert!(report.is_clean(), "{report:?}");
}

pub(crate) fn measure(bench: &mut Bench, rows: usize) {
    let (folder, runtime) = (folder(), runtime());
    single_inserts(bench, &folder, &runtime);
    let vectors = data::vectors(rows, 4);
    bulk_and_open(bench, &folder, &runtime, &vectors);
    fs::remove_dir_all(&folder).expect("removed");
}

fn single_inserts(bench: &mut Bench, folder: &Path, runtime: &Runtime) {
    const INSERTS: usize = 100;
    let vector = data::vectors(1, 5).remove(0);
    for sync in [true, false] {
        let store = store(&folder.join(format!("single_{sync}")), sync);
        let config = CollectionConfig::new("single", DIM);
        let collection = runtime.block_on(store.get_or_create_collection(&config)).expect("created");
        let mut file = File::create(folder.join("bare")).expect("created");
        let bytes = vec![7; ROW_BYTES];
        let contenders: Vec<Contender<'_>> = vec![
            (
                "ours",
                Box::new(|| {
                    let insert = async || {
                        for n in 0..INSERTS {
                            collection.insert_entity(data::entity(n, &vector)).await.expect("inserted");
                        }
                    };
                    ns_per_op(INSERTS, || runtime.block_on(insert())) / 1_000.0
                }),
            ),
            (
                "bare file",
                Box::new(|| {
                    let work = || {
                        for _ in 0..INSERTS {
                            file.write_all(&bytes).expect("written");
                            if sync {
                                file.sync_data().expect("synced");
                            }
                        }
                    };
                    ns_per_op(INSERTS, work) / 1_000.0
                }),
            ),
        ];
        let case = if sync { "disk_insert_one_synced" } else { "disk_insert_one" };
        bench.compare(case, "us", Better::Lower, contenders);
        close(runtime, &store);
    }
}

fn bulk_and_open(bench: &mut Bench, folder: &Path, runtime: &Runtime, vectors: &[Vec<f32>]) {
    let rate = |began: Instant| vectors.len() as f64 / began.elapsed().as_secs_f64();
    let (mut bulk, mut bare, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    let (mut opened, mut read) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let path = folder.join(format!("bulk_{round}"));
        let first = store(&path, true);
        let began = Instant::now();
        runtime.block_on(fill(&first, vectors));
        bulk.push(rate(began));
        close(runtime, &first);

        let began = Instant::now();
        let second = store(&path, true);
        runtime.block_on(second.connect()).expect("opened");
        opened.push(rate(began));
        assert_eq!(second.stats().entities, vectors.len() as u64);
        close(runtime, &second);

        let file = path.join("000001.vectors");
        let began = Instant::now();
        let bytes = fs::read(&file).expect("readable");
        read.push(rate(began));
        let began = Instant::now();
        let mut copy = File::create(path.join("bare")).expect("created");
        for chunk in bytes.chunks(bytes.len().div_ceil(vectors.len() / 1_000)) {
            copy.write_all(chunk).expect("written");
            copy.sync_data().expect("synced");
        }
        bare.push(rate(began));
        fs::remove_dir_all(&path).expect("removed");

        let began = Instant::now();
        drop(runtime.block_on(fill(&EmbeddedStore::new(MAX_BYTES), vectors)));
        memory.push(rate(began));
    }
    let median = arshai_benches::median;
    let peers = [
        ("bare file, synced as often".to_owned(), median(bare)),
        ("ours in memory".to_owned(), median(memory)),
    ];
    bench.record("disk_bulk_insert_50kx384", "rows/s", Better::Higher, median(bulk), peers.into());
    let peers = [("reading the file".to_owned(), median(read))];
    bench.record("disk_open_50kx384", "rows/s", Better::Higher, median(opened), peers.into());
}
