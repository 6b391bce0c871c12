//! The real Python package, spoken to line by line.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::milvus::MilvusServer;
use crate::process::Process;

/// The interpreter starts and imports the package; on a busy machine that takes its time.
const START: Duration = Duration::from_secs(120);
/// A flush or the first load of a collection takes Milvus seconds even when the machine is idle.
const CALL: Duration = Duration::from_secs(120);

/// Python's arshai 1.15.0 in a process of its own, on one server; killed on drop.
#[derive(Debug)]
pub struct PythonPeer {
    stdin: ChildStdin,
    answers: Receiver<String>,
    _process: Process,
    folder: TempDir,
}

impl PythonPeer {
    /// Starts the interpreter with `url` as its Redis, and returns when the package is imported.
    /// `tests/interop/redis_memory.py` says what can be asked.
    ///
    /// # Panics
    ///
    /// With what Python wrote, if the package is not installed or does not come up.
    pub fn start(url: &str) -> Self {
        Self::run("redis_memory.py", &[("REDIS_URL", url)])
    }

    /// Starts the interpreter on a Milvus, and returns when it is connected. `tests/interop/milvus_client.py` says what
    /// can be asked.
    ///
    /// # Panics
    ///
    /// With what Python wrote, if the package is not installed or does not come up.
    pub fn on_milvus(server: &MilvusServer) -> Self {
        let port = server.port().to_string();
        let variables = [("MILVUS_HOST", "127.0.0.1"), ("MILVUS_PORT", &port), ("MILVUS_DB_NAME", "default")];
        Self::run("milvus_client.py", &variables)
    }

    fn run(script: &str, variables: &[(&str, &str)]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let python = root.join("target/python/bin/python");
        assert!(python.exists(), "{python:?} is missing; `bash tests/all.sh` installs it");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = File::create(log(&folder)).expect("the folder is ours");
        let mut process = Process::spawn(
            Command::new(python)
                .arg(root.join("tests/interop").join(script))
                .envs(variables.iter().copied())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(log),
        )
        .expect("the interpreter starts");
        let stdin = process.child().stdin.take().expect("it was asked for");
        let answers = lines(process.child().stdout.take().expect("it was asked for"));
        let mut peer = Self { stdin, answers, _process: process, folder };
        let version = peer.answer(START);
        assert_eq!(version["arshai"], "1.15.0", "`bash tests/all.sh` installs the right one");
        peer
    }

    /// Asks, and gives the answer: `{"ok": …}` or `{"error": type, "message": …}`.
    ///
    /// # Panics
    ///
    /// With what Python wrote, if there is no answer in two minutes.
    pub fn call(&mut self, request: &Value) -> Value {
        writeln!(self.stdin, "{request}")
            .unwrap_or_else(|error| panic!("Python is gone: {error}\n{}", self.log()));
        self.answer(CALL)
    }

    fn answer(&mut self, limit: Duration) -> Value {
        let line = self.answers.recv_timeout(limit);
        let line = line.unwrap_or_else(|error| panic!("Python does not answer: {error}\n{}", self.log()));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("Python answers {line:?}: {error}"))
    }

    fn log(&self) -> String {
        fs::read_to_string(log(&self.folder)).unwrap_or_default()
    }
}

fn log(folder: &TempDir) -> PathBuf {
    folder.path().join("log")
}

/// Reads on a thread, so that waiting for a line can have a limit; the thread ends with the process.
fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
