//! Python arshai, measured by a script of its own in the same run on the same server.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// What `benches/python/milvus.py fill` prints.
#[derive(Debug, Deserialize)]
pub(crate) struct Fill {
    pub(crate) rate: f64,
    pub(crate) rate_without_flush: f64,
    pub(crate) cpu_micros_per_row: f64,
    pub(crate) peak_mib: f64,
}

pub(crate) fn fill(port: u16, rows: usize) -> Fill {
    let output = run(port, &["fill", &rows.to_string()]);
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error} in {output:?}"))
}

/// Searches a second.
pub(crate) fn search(port: u16, name: &str, callers: usize) -> f64 {
    let output = run(port, &["search", name, &callers.to_string()]);
    output.trim().parse().unwrap_or_else(|error| panic!("{error} in {output:?}"))
}

fn run(port: u16, arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(root.join("target/python/bin/python"))
        .arg(root.join("benches/python/milvus_client.py"))
        .args(arguments)
        .env("MILVUS_HOST", "127.0.0.1")
        .env("MILVUS_PORT", port.to_string())
        .env("MILVUS_DB_NAME", "default")
        .output()
        .expect("`bash tests/all.sh` installs Python arshai");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
