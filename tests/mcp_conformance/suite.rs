//! Runs the suite and compares the successes of each scenario's own checks with the list in this folder.
//!
//! The suite's exit code says little: a scenario without checks, with skipped ones, or whose client is killed, passes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

/// Checks that the suite adds to every scenario, about messages on the wire.
const ADDED: [&str; 2] = ["wire-schema-valid", "wire-schema-harness-error"];

/// The number of checks of a scenario that succeed, with the version given and with the version detected: finding it out
/// takes a request more, which some scenarios check too.
#[derive(Deserialize)]
struct Expected {
    given: usize,
    detected: usize,
}

/// The checks of one scenario.
#[derive(Default, Debug)]
struct Outcome {
    successes: usize,
    failures: Vec<String>,
}

pub(crate) fn run(revision: &str, version: &str) -> Result<(), String> {
    let results = tempfile::tempdir().map_err(|error| error.to_string())?;
    let client = std::env::current_exe().map_err(|error| error.to_string())?;
    let node = installed(&format!("node-{}/bin/node", platform()))?;
    let suite = installed("@modelcontextprotocol/conformance/dist/index.js")?;
    let expected = expected(revision)?;
    // One at a time: their clients at once would measure this machine.
    for scenario in expected.keys() {
        Command::new(&node)
            .arg(&suite)
            .args(["client", "--scenario", scenario, "--spec-version", revision, "--output-dir"])
            .arg(results.path())
            .args(["--command", &format!("{} {version}", client.display())])
            .output()
            .map_err(|error| format!("the suite does not start: {error}"))?;
    }
    let outcomes = read(results.path())?;
    let expected = expected.into_iter().map(|(scenario, expected)| match version {
        "given" => (scenario, expected.given),
        _ => (scenario, expected.detected),
    });
    compare(expected, &outcomes)
}

/// The suite's name of this platform, in the name of Node's package.
fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}-{arch}", std::env::consts::OS)
}

fn installed(path: &str) -> Result<PathBuf, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/node/node_modules").join(path);
    match path.exists() {
        true => Ok(path),
        false => Err(format!("{path:?} is missing; `bash tests/all.sh` installs it")),
    }
}

fn expected(revision: &str) -> Result<BTreeMap<String, Expected>, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp_conformance");
    let path = path.join(format!("{revision}.json"));
    let text = std::fs::read(&path).map_err(|error| format!("{path:?}: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("{path:?}: {error}"))
}

/// What the suite wrote: a folder `SCENARIO-TIME` with `checks.json` for each scenario; scenarios of authorization in a
/// folder of their own.
fn read(results: &Path) -> Result<BTreeMap<String, Outcome>, String> {
    let mut outcomes = BTreeMap::new();
    for (folder, prefix) in [(results.to_owned(), ""), (results.join("auth"), "auth/")] {
        for entry in std::fs::read_dir(folder).map_err(|error| error.to_string())?.flatten() {
            let Ok(text) = std::fs::read(entry.path().join("checks.json")) else { continue };
            let checks: Vec<Value> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // `-2026-11-28T19-13-29-289Z`
            let scenario = name.get(..name.len().saturating_sub(25)).unwrap_or_default();
            outcomes.insert(format!("{prefix}{scenario}"), outcome(&checks));
        }
    }
    Ok(outcomes)
}

fn outcome(checks: &[Value]) -> Outcome {
    let mut outcome = Outcome::default();
    for check in checks {
        let text = |key: &str| check[key].as_str().unwrap_or_default();
        if ADDED.contains(&text("id")) {
            continue;
        }
        match text("status") {
            "SUCCESS" => outcome.successes += 1,
            "FAILURE" | "WARNING" => {
                outcome.failures.push(format!("{}: {}", text("id"), text("errorMessage")))
            }
            _ => {}
        }
    }
    outcome
}

fn compare(
    expected: impl Iterator<Item = (String, usize)>,
    outcomes: &BTreeMap<String, Outcome>,
) -> Result<(), String> {
    let nothing = Outcome::default();
    let differences = expected.filter_map(|(scenario, successes)| {
        let outcome = outcomes.get(&scenario).unwrap_or(&nothing);
        let is_passed = outcome.successes == successes && outcome.failures.is_empty();
        (!is_passed).then(|| format!("{scenario}: {successes} successes expected, {outcome:?}"))
    });
    let differences: Vec<_> = differences.collect();
    match differences.is_empty() {
        true => Ok(()),
        false => Err(differences.join("\n")),
    }
}
