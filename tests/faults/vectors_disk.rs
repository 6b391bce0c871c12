//! The embedded store with a folder: crashes, damage, a full disk, two stores at once.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arshai::backends::vectors::{DamagedFile, EmbeddedStore};
use arshai::vectors::{
    Collection, CollectionConfig, Entity, FieldType, Filter, Hit, Metric, QueryRequest, SearchRequest,
    VectorStore,
};
use arshai::{Arshai, Component, Config, Deadline, ErrorKind, Outcome};
use serde_json::json;

const FOLDER: &str = "ARSHAI_TEST_FOLDER";
const ID_BYTES: usize = 25;

fn store(folder: &Path) -> EmbeddedStore {
    EmbeddedStore::new(256 << 20).with_path(folder, true)
}

fn config() -> CollectionConfig {
    CollectionConfig::new("pages", 3).hybrid().with_field("price", FieldType::Float)
}

async fn open(store: &EmbeddedStore) -> Arc<dyn Collection> {
    store.get_or_create_collection(&config()).await.expect("opened")
}

fn entity(number: u64) -> Entity {
    let number_f = number as f32;
    Entity::new(format!("page {number} ü\0\n"), vec![number_f, 1.0, -0.5])
        .with_sparse([(7, number_f), (u32::MAX - 1, 0.25)].into())
        .with_field("price", 0.1 + number as f64)
        .with_metadata(json!({
            "number": number, "float": 1.0 / 3.0, "large": u64::MAX, "small": i64::MIN, "null": null,
            "nested": [{"a": [true, -0.0]}, "\u{1F600}"],
        }))
}

fn everything() -> QueryRequest {
    QueryRequest::new(Filter::parse("doc_id != ''").expect("valid"))
}

async fn all(collection: &dyn Collection) -> Vec<Hit> {
    collection.query_by_expr(everything()).await.expect("a valid query")
}

/// Closes the store, so that the folder is free.
async fn close(store: EmbeddedStore) {
    let report = store.close(Deadline::after(Duration::from_secs(30))).await;
    assert!(report.is_clean(), "{report:?}");
}

/// Opens a folder and returns what is in it and what was damaged.
async fn read_back(folder: &Path) -> (Vec<Hit>, Vec<DamagedFile>) {
    let store = store(folder);
    let collection = open(&store).await;
    let hits = all(&*collection).await;
    let damage = store.damage();
    let lost: u64 = damage.iter().map(|damage| damage.lost_entities).sum();
    assert_eq!(store.stats().lost_entities, lost);
    close(store).await;
    (hits, damage)
}

fn only_file(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "vectors")).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// A folder with inserts of three rows each and a delete of rows 3 and 4, what is in it, and the lengths of the file after
/// each write.
async fn small_folder(folder: &Path) -> (Vec<Hit>, Vec<u64>) {
    let store = store(folder);
    let collection = open(&store).await;
    let mut lengths = vec![fs::metadata(only_file(folder)).expect("a file").len()];
    for batch in 0..4 {
        let entities = (batch * 3..batch * 3 + 3).map(entity).collect();
        collection.insert_entities(entities).await.expect("inserted");
        if batch == 2 {
            let some = Filter::parse("metadata['number'] in [3, 4]").expect("valid");
            assert_eq!(collection.delete_entity(&some).await.expect("deleted"), 2);
        }
        lengths.push(fs::metadata(only_file(folder)).expect("a file").len());
    }
    let hits = all(&*collection).await;
    close(store).await;
    (hits, lengths)
}

#[tokio::test]
async fn everything_is_there_after_the_store_was_closed_and_opened() {
    for metric in [Metric::InnerProduct, Metric::Cosine, Metric::L2] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config().with_metric(metric);
        let first = store(folder.path());
        let collection = first.get_or_create_collection(&config).await.expect("created");
        let ids = collection.insert_entities((0..500).map(entity).collect()).await.expect("inserted");
        let even = Filter::parse("metadata['number'] % 2 == 0").expect("valid");
        assert_eq!(collection.delete_entity(&even).await.expect("deleted"), 250);
        let search = || SearchRequest::new(vec![0.3, -2.0, 1.0]).with_limit(100);
        let before = (
            all(&*collection).await,
            collection.search_by_vector(search()).await.expect("found"),
            first.stats(),
        );
        close(first).await;

        let second = store(folder.path());
        assert_eq!(second.list_collections().await.expect("opened"), ["pages"]);
        let collection = second.get_collection("pages").await.expect("it is there");
        assert_eq!(collection.config(), &config);
        assert_eq!(all(&*collection).await, before.0);
        assert_eq!(collection.search_by_vector(search()).await.expect("found"), before.1);
        let stats = second.stats();
        assert_eq!((stats.entities, stats.lost_entities), (250, 0));
        assert_eq!(second.damage(), []);
        let id = collection.insert_entity(entity(1)).await.expect("inserted");
        assert!(ids.iter().all(|old| *old < id), "ids ascend and are not given again");
        second.drop_collection("pages").await.expect("dropped");
        close(second).await;
        let third = store(folder.path());
        assert_eq!(third.list_collections().await.expect("opened"), [""; 0]);
        close(third).await;
    }
}

/// Inserts until it is killed. Started by the test below.
#[tokio::test]
#[ignore = "the child process of another test"]
async fn child_that_inserts() {
    let folder = std::env::var_os(FOLDER).expect("set by the parent");
    let store = store(folder.as_ref());
    let collection = open(&store).await;
    for batch in 0_u64.. {
        let ids =
            collection.insert_entities((0..batch % 4 + 1).map(entity).collect()).await.expect("inserted");
        let acknowledged: String = ids.iter().map(|id| format!("acknowledged {id}\n")).collect();
        std::io::stdout().write_all(acknowledged.as_bytes()).expect("the parent reads");
        if batch % 50 == 49 {
            let doomed = Filter::with_params("doc_id == {id}", [("id", json!(ids[0]))]).expect("valid");
            assert_eq!(collection.delete_entity(&doomed).await.expect("deleted"), 1);
            println!("deleted {}", ids[0]);
        }
    }
}

fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test binary"));
    command.args(["--ignored", "--exact", "--nocapture", &format!("vectors_disk::{test}")]);
    command.env(FOLDER, folder).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

#[tokio::test]
async fn every_acknowledged_insert_survives_a_killed_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut acknowledged, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    for round in 1..6 {
        let mut child = child("child_that_inserts", folder.path()).spawn().expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let mut note = |line: String| {
            let id =
                |event| line.split_once(event).map(|(_, id)| id.to_owned()).filter(|id| id.len() == ID_BYTES);
            deleted.extend(id("deleted "));
            acknowledged.extend(id("acknowledged "));
        };
        lines.by_ref().take(round * 97).for_each(&mut note);
        child.kill().expect("killed");
        child.wait().expect("ended");
        // What it acknowledged before the signal arrived, but for an unfinished line.
        lines.for_each(&mut note);

        let (hits, damage) = read_back(folder.path()).await;
        let lost: u64 = damage.iter().map(|damage| damage.lost_entities + damage.damaged_bytes).sum();
        assert_eq!(lost, 0, "{damage:?}");
        let there: BTreeSet<_> = hits.into_iter().map(|hit| hit.id).collect();
        let missing: Vec<_> = acknowledged.difference(&there).filter(|id| !deleted.contains(*id)).collect();
        assert!(
            missing.len() <= 1,
            "only the row of a delete that was not acknowledged may be gone: {missing:?}"
        );
        assert!(there.is_disjoint(&deleted), "deleted rows stay deleted");
        assert!(there.len() > 90, "the child inserted");
    }
}

#[tokio::test]
async fn a_file_cut_anywhere_keeps_every_whole_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let (hits, lengths) = small_folder(folder.path()).await;
    let file = only_file(folder.path());
    let whole = fs::read(&file).expect("readable");
    let last_record = lengths[lengths.len() - 2] as usize;
    for cut in 0..whole.len() {
        fs::write(&file, &whole[..cut]).expect("written");
        let (kept, damage) = read_back(folder.path()).await;
        if cut >= last_record {
            assert_eq!(kept, hits[..hits.len() - 3], "cut at {cut}: only the last record is gone");
            let torn = (cut - last_record) as u64;
            assert_eq!(damage.iter().map(|damage| damage.torn_bytes).sum::<u64>(), torn);
            assert!(damage.iter().all(|damage| damage.lost_entities == 0), "{damage:?}");
        } else if cut as u64 >= lengths[0] {
            let writes = lengths.iter().filter(|length| **length <= cut as u64).count() - 1;
            assert!(kept.len() + 2 >= writes * 3, "cut at {cut}: {} rows of {writes} inserts", kept.len());
        } else {
            assert!(kept.is_empty());
        }
        // It is usable, and the damage at the end is reported once.
        let store = store(folder.path());
        let id = open(&store).await.insert_entity(entity(99)).await.expect("inserted");
        assert_eq!(store.damage(), [], "cut at {cut}");
        let is_new = cut < lengths[0] as usize || damage.is_empty() || hits.iter().all(|hit| hit.id < id);
        assert!(is_new, "cut at {cut}: {id} may have been given before");
        close(store).await;
        fs::read_dir(folder.path()).expect("a folder").for_each(|entry| {
            let path = entry.expect("readable").path();
            if path.to_string_lossy().contains(".vectors") {
                fs::remove_file(path).expect("removed");
            }
        });
    }
}

/// A folder as `small_folder` makes it, whose file ends with a delete of the last row.
async fn small_folder_ending_with_a_delete(folder: &Path) -> (Vec<Hit>, Vec<u64>) {
    let (mut hits, mut lengths) = small_folder(folder).await;
    let store = store(folder);
    let last = Filter::parse("metadata['number'] == 11").expect("valid");
    assert_eq!(open(&store).await.delete_entity(&last).await.expect("deleted"), 1);
    close(store).await;
    hits.pop();
    lengths.push(fs::metadata(only_file(folder)).expect("a file").len());
    (hits, lengths)
}

#[tokio::test]
async fn a_flipped_bit_anywhere_costs_one_record_and_is_reported_as_damage_that_stays() {
    for ends_with_delete in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let (hits, _) = if ends_with_delete {
            small_folder_ending_with_a_delete(folder.path()).await
        } else {
            small_folder(folder.path()).await
        };
        let file = only_file(folder.path());
        let whole = fs::read(&file).expect("readable");
        let mut random = fastrand::Rng::with_seed(3);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << random.u8(0..8);
            fs::write(&file, &damaged).expect("written");
            let (kept, damage) = read_back(folder.path()).await;
            assert_eq!(damage.len(), 1, "bit flipped in byte {at}");
            let DamagedFile { damaged_bytes, torn_bytes, .. } = damage[0];
            assert!(damaged_bytes > 0, "byte {at}: {damage:?}");
            assert_eq!(torn_bytes, 0, "byte {at}: it was acknowledged");
            let gone = hits.iter().filter(|hit| !kept.contains(hit)).count();
            assert!(gone <= 3, "byte {at} costs {gone} rows");
            let back = kept.iter().filter(|hit| !hits.contains(hit));
            assert!(back.count() <= 2, "byte {at}: nothing but deleted rows comes back");
            assert_eq!(fs::read(&file).expect("readable"), damaged, "byte {at}: the file is left as it was");
        }
    }
}

#[tokio::test]
async fn losses_in_records_whose_header_can_be_read_are_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (hits, lengths) = small_folder_ending_with_a_delete(folder.path()).await;
    let file = only_file(folder.path());
    let whole = fs::read(&file).expect("readable");
    // The payloads of both deletes and of all inserts.
    let mut at = lengths[0] as usize;
    while at < whole.len() {
        let kind = whole[at + 4];
        let rows = u64::from(u32::from_le_bytes(whole[at + 24..at + 28].try_into().expect("four bytes")));
        let len = u32::from_le_bytes(whole[at + 28..at + 32].try_into().expect("four bytes")) as usize;
        let mut damaged = whole.clone();
        damaged[at + 40 + len / 2] ^= 1;
        fs::write(&file, &damaged).expect("written");
        let (kept, damage) = read_back(folder.path()).await;
        let DamagedFile { lost_entities, lost_deletions, damaged_bytes, torn_bytes, .. } = damage[0];
        let back = kept.iter().filter(|hit| !hits.contains(hit)).count() as u64;
        let gone = hits.iter().filter(|hit| !kept.contains(hit)).count() as u64;
        let losses = if kind == 3 { (0, rows) } else { (rows, 0) };
        assert_eq!((lost_entities, lost_deletions), losses, "record at {at}");
        assert_eq!((damaged_bytes, torn_bytes), (40 + len as u64, 0), "record at {at}");
        assert!(gone <= lost_entities && back == lost_deletions, "record at {at}: {gone} gone, {back} back");
        at += 40 + len;
    }
}

#[tokio::test]
async fn damage_at_the_end_stays_where_it_is_when_more_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (hits, lengths) = small_folder_ending_with_a_delete(folder.path()).await;
    let file = only_file(folder.path());
    let whole = fs::read(&file).expect("readable");
    for cut_at_insert in [false, true] {
        // The last record is a delete, or without it an insert.
        let last = lengths.len() - 1 - usize::from(cut_at_insert);
        let (start, end) = (lengths[last - 1] as usize, lengths[last] as usize);
        for damage_at in [0, 4, 8, 16, 24, 28, 32, 36, 40, end - start - 1] {
            let mut damaged = whole[..end].to_vec();
            damaged[start + damage_at] ^= 0x10;
            fs::write(&file, &damaged).expect("written");
            let first = store(folder.path());
            let collection = open(&first).await;
            let before = all(&*collection).await;
            let reported = first.damage();
            let id = collection.insert_entity(entity(99)).await.expect("inserted");
            assert!(hits.iter().all(|hit| hit.id < id), "lost ids are not given again");
            close(first).await;
            let longer = fs::read(&file).expect("readable");
            assert_eq!(longer[..end], damaged, "byte {damage_at}: nothing was cut or overwritten");
            let (mut after, reported_again) = read_back(folder.path()).await;
            assert_eq!(after.pop().map(|hit| hit.id), Some(id), "byte {damage_at}");
            assert_eq!((after, reported_again), (before, reported), "byte {damage_at}");
        }
    }
}

#[tokio::test]
async fn only_a_record_that_the_file_ends_before_is_an_unfinished_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let (hits, lengths) = small_folder(folder.path()).await;
    let file = only_file(folder.path());
    let whole = fs::read(&file).expect("readable");
    let mut random = fastrand::Rng::with_seed(7);
    // After a crash of the system a file may end with zeros, or with what the disk held before.
    for len in [1, 39, 40, 41, 5_000] {
        for tail in [vec![0; len], (0..len).map(|_| random.u8(..)).collect()] {
            fs::write(&file, [&*whole, &tail].concat()).expect("written");
            let (kept, damage) = read_back(folder.path()).await;
            assert_eq!(kept, hits);
            let bytes = (damage[0].damaged_bytes, damage[0].torn_bytes);
            // No record is shorter than its header.
            assert_eq!(bytes, if len < 40 { (0, len as u64) } else { (len as u64, 0) });
        }
    }
    // The header of a delete of one range is damaged, and the write after it is unfinished.
    let torn_at = lengths[lengths.len() - 2] as usize;
    for cut in [torn_at + 40, whole.len() - 1] {
        let mut bytes = whole[..cut].to_vec();
        bytes[torn_at - 56] ^= 1;
        fs::write(&file, &bytes).expect("written");
        let (_, damage) = read_back(folder.path()).await;
        assert_eq!((damage[0].damaged_bytes, damage[0].torn_bytes), (56, (cut - torn_at) as u64));
        let left = fs::read(&file).expect("readable");
        assert_eq!(left[..torn_at], bytes[..torn_at], "only the unfinished write is removed");
        assert_eq!(read_back(folder.path()).await.1[0].torn_bytes, 0, "it is reported once");
    }
}

#[tokio::test]
async fn whatever_is_overwritten_no_loss_is_silent_and_nothing_is_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let (hits, _) = small_folder_ending_with_a_delete(folder.path()).await;
    let file = only_file(folder.path());
    let whole = fs::read(&file).expect("readable");
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..500 {
        let mut damaged = whole.clone();
        for _ in 0..random.usize(1..4) {
            let start = random.usize(0..whole.len());
            let end = whole.len().min(start + random.usize(1..600));
            damaged[start..end].fill(if random.bool() { 0 } else { random.u8(..) });
        }
        fs::write(&file, &damaged).expect("written");
        let (kept, damage) = read_back(folder.path()).await;
        if kept != hits {
            assert!(damage[0].damaged_bytes > 0, "round {round}: {damage:?}");
        }
        assert!(damage.iter().all(|damage| damage.torn_bytes == 0), "round {round}: {damage:?}");
        let aside = file.with_extension("vectors.damaged");
        let is_aside = aside.exists();
        let left = fs::read(if is_aside { &aside } else { &file }).expect("readable");
        assert_eq!(left, damaged, "round {round}");
        if is_aside {
            // An empty collection was created in its place.
            fs::remove_file(&aside).expect("removed");
            fs::remove_file(only_file(folder.path())).expect("removed");
        }
    }
}

#[tokio::test]
async fn random_bytes_are_no_collection_and_hurt_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let (hits, _) = small_folder(folder.path()).await;
    let mut random = fastrand::Rng::with_seed(5);
    let garbage: Vec<u8> = (0..100_000).map(|_| random.u8(..)).collect();
    fs::write(folder.path().join("000077.vectors"), &garbage).expect("written");
    fs::write(folder.path().join("000078.vectors"), "").expect("written");
    fs::write(folder.path().join("notes.txt"), "not ours").expect("written");
    let (kept, damage) = read_back(folder.path()).await;
    assert_eq!(kept, hits);
    assert_eq!(damage.len(), 2);
    assert!(damage.iter().all(|damage| damage.collection.is_none()), "{damage:?}");
    let aside = folder.path().join("000077.vectors.damaged");
    assert_eq!(fs::read(aside).expect("it was set aside"), garbage);
    let (kept, damage) = read_back(folder.path()).await;
    assert_eq!((kept, damage), (hits, Vec::new()), "they are reported once");
}

#[tokio::test]
async fn an_interrupted_snapshot_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = store(folder.path());
    let collection = open(&first).await;
    collection.insert_entities((0..3_000).map(entity).collect()).await.expect("inserted");
    let before_delete = fs::read(only_file(folder.path())).expect("readable");
    let most = Filter::parse("metadata['number'] < 2900").expect("valid");
    assert_eq!(collection.delete_entity(&most).await.expect("deleted"), 2_900);
    let hits = all(&*collection).await;
    close(first).await;
    let file = only_file(folder.path());
    let snapshot = fs::read(&file).expect("readable");
    assert!(snapshot.len() * 10 < before_delete.len(), "a file of mostly deleted rows is written anew");
    assert_eq!(read_back(folder.path()).await, (hits.clone(), Vec::new()), "after the rename");

    // Before the rename: the old file, and a part of the new one next to it.
    let temporary = file.with_extension("vectors.tmp");
    for part in [0, 1, 39, 40, snapshot.len() / 2, snapshot.len()] {
        fs::write(&temporary, &snapshot[..part]).expect("written");
        fs::write(&file, &before_delete).expect("written");
        let (kept, damage) = read_back(folder.path()).await;
        assert_eq!((kept.len(), damage), (3_000, Vec::new()));
        assert!(!temporary.exists(), "it is removed");
    }
    // Numbers of rows that were deleted before the snapshot are not given again either.
    fs::write(&file, &snapshot).expect("written");
    let store = store(folder.path());
    let collection = open(&store).await;
    collection.delete_entity(&everything().filter).await.expect("deleted");
    let id = collection.insert_entity(entity(0)).await.expect("inserted");
    assert!(hits.iter().all(|hit| hit.id < id));
    close(store).await;
}

#[tokio::test]
async fn a_folder_is_open_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = store(folder.path());
    open(&first).await;
    let second = store(folder.path());
    let error = second.connect().await.expect_err("in use");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotSent));
    assert!(error.message().contains("in use by another store"), "{error}");
    assert!(!second.health(Deadline::after(Duration::from_secs(5))).await.is_usable());
    close(first).await;
    second.connect().await.expect("it is free");
    assert_eq!(second.list_collections().await.expect("opened"), ["pages"]);
    close(second).await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_an_error_that_names_the_setting() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    for path in [file.clone(), file.join("within"), PathBuf::from("/proc/arshai")] {
        let store = store(&path);
        let error = store.get_or_create_collection(&config()).await.expect_err("no folder");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(!error.is_retryable() && error.message().contains("vectors.path"), "{error}");
        let health = store.health(Deadline::after(Duration::from_secs(5))).await;
        assert!(!health.is_usable(), "{health:?}");
    }
}

/// Started with a limit on the size of files by the test below.
#[tokio::test]
#[ignore = "the child process of another test"]
async fn child_with_a_full_disk() {
    let folder = std::env::var_os(FOLDER).expect("set by the parent");
    let store = store(folder.as_ref());
    let collection = open(&store).await;
    let mut inserted = 0;
    let error = loop {
        match collection.insert_entities((0..20).map(entity).collect()).await {
            Ok(ids) => inserted += ids.len(),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Capacity, Outcome::Rejected), "{error}");
    assert!(error.message().contains("vectors.path"), "{error}");
    assert_eq!(all(&*collection).await.len(), inserted, "a rejected insert changes nothing");
    let bytes = store.stats().bytes;
    collection.insert_entities((0..20).map(entity).collect()).await.expect_err("still full");
    assert_eq!(store.stats().bytes, bytes, "and costs no memory");
    close(store).await;
    println!("inserted {inserted}");
}

#[tokio::test]
async fn a_full_disk_rejects_writes_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let child = child("child_with_a_full_disk", folder.path());
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\""]);
    limited.arg(child.get_program()).args(child.get_args()).env(FOLDER, folder.path());
    let output = limited.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let count = text.lines().find_map(|line| line.split_once("inserted ")?.1.parse().ok());
    let inserted: usize = count.expect("it says how many");
    assert!(inserted > 0);
    let (kept, damage) = read_back(folder.path()).await;
    assert_eq!((kept.len(), damage), (inserted, Vec::new()));
}

#[tokio::test]
async fn collections_that_do_not_fit_into_memory_are_an_error_and_stay_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let large = store(folder.path());
    open(&large).await.insert_entities((0..2_000).map(entity).collect()).await.expect("inserted");
    close(large).await;
    let small = EmbeddedStore::new(1 << 20).with_path(folder.path(), true);
    let error = small.connect().await.expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::Capacity);
    assert!(error.message().contains("vectors.max_memory_mb"), "{error}");
    assert_eq!(small.stats().bytes, 0);
    small.set_limit("vectors.max_memory_mb", 64 << 20).expect("known");
    small.connect().await.expect("it fits now");
    assert_eq!(small.stats().entities, 2_000);
    close(small).await;
}

#[tokio::test]
async fn opening_goes_on_when_its_future_is_dropped_and_is_done_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (hits, _) = small_folder(folder.path()).await;
    let store = store(folder.path());
    for _ in 0..10 {
        let mut opening = Box::pin(store.connect());
        // Dropped while another thread reads the folder, unless that is as fast.
        let _ = opening.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    }
    let many = (0..20).map(|_| async { all(&*open(&store).await).await });
    for found in futures_util::future::join_all(many).await {
        assert_eq!(found, hits);
    }
    close(store).await;
}

#[tokio::test]
async fn the_path_comes_from_the_configuration_and_nothing_is_opened_before_it_is_needed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new/vectors");
    let variable = ("ARSHAI_VECTOR_PATH".into(), path.clone().into_os_string());
    let config = Config::from_vars([variable]).expect("valid");
    let runtime = Arshai::builder(config.clone()).build().expect("built");
    assert!(!path.exists(), "building touches no disk");
    let collection = runtime.vectors().expect("built in").get_or_create_collection(&self::config()).await;
    let id = collection.expect("created").insert_entity(entity(1)).await.expect("inserted");
    let report = runtime.shutdown(Deadline::after(Duration::from_secs(30))).await;
    assert!(report.is_clean(), "{report:?}");
    let runtime = Arshai::builder(config).build().expect("built");
    let collection = runtime.vectors().expect("built in").get_collection("pages").await.expect("it is there");
    assert_eq!(all(&*collection).await[0].id, id);
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    small_folder(folder.path()).await;
    let file = only_file(folder.path());
    let before = fs::read(&file).expect("readable");
    // Two configurations begin the file; both must be of a later version, with their checksums.
    let mut later = before.clone();
    let mut at = 0;
    for _ in 0..2 {
        let len = u32::from_le_bytes(later[at + 28..at + 32].try_into().expect("four bytes")) as usize;
        let payload = at + 40..at + 40 + len;
        let text = String::from_utf8(later[payload.clone()].to_vec()).expect("JSON");
        let text = text.replace("\"format\":1", "\"format\":2");
        later[payload.clone()].copy_from_slice(text.as_bytes());
        let crc = crc32(&later[payload]);
        later[at + 32..at + 36].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32(&later[at..at + 36]);
        later[at + 36..at + 40].copy_from_slice(&crc.to_le_bytes());
        at += 40 + len;
    }
    OpenOptions::new().write(true).open(&file).expect("opened").write_all(&later).expect("written");
    let store = store(folder.path());
    let error = store.connect().await.expect_err("a later version");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(fs::read(&file).expect("readable"), later);
}

/// CRC-32 as in zip files.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[tokio::test]
async fn damage_in_one_place_never_costs_a_whole_collection() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = store(folder.path());
    let collection = open(&first).await;
    for batch in 0..20 {
        let entities = (batch * 50..batch * 50 + 50).map(entity).collect();
        collection.insert_entities(entities).await.expect("inserted");
    }
    close(first).await;
    let file = only_file(folder.path());
    let mut bytes = fs::read(&file).expect("readable");
    bytes[..8_192].fill(0);
    fs::write(&file, &bytes).expect("written");
    let (kept, damage) = read_back(folder.path()).await;
    assert!(kept.len() >= 900, "{} rows, {damage:?}", kept.len());
    assert_eq!(damage[0].lost_entities as usize + kept.len(), 1_000);
}

#[tokio::test]
async fn collections_hold_no_files_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = EmbeddedStore::new(256 << 20).with_path(folder.path(), false);
    let open_here = || {
        let files = fs::read_dir("/proc/self/fd").expect("a Linux machine");
        let paths = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        paths.filter(|path| path.starts_with(folder.path())).count()
    };
    for number in 0..50 {
        let config = CollectionConfig::new(format!("c{number}"), 3);
        let collection = store.get_or_create_collection(&config).await.expect("created");
        collection.insert_entity(Entity::new("text", vec![1.0; 3])).await.expect("inserted");
    }
    assert_eq!(open_here(), 1, "the lock");
    close(store).await;
    assert_eq!(open_here(), 0);
}
