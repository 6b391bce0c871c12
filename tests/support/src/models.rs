//! An independent server that speaks the protocols of model providers.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::port::ReservedPort;
use crate::process::Process;
use crate::wait::until;

const START: Duration = Duration::from_secs(30);

/// The npm package `@copilotkit/aimock` in a process of its own, with scripted answers; killed on drop. It knows nothing of
/// arshai: what it sends is what other clients are tested with.
#[derive(Debug)]
pub struct ModelServer {
    port: ReservedPort,
    process: Process,
    folder: TempDir,
}

impl ModelServer {
    /// Starts the server with the answers of `tests/models/answers.json`, as [`start_with`](Self::start_with) does.
    pub fn start() -> Self {
        Self::start_with("tests/models/answers.json")
    }

    /// Starts the server with the answers of a file of the repository, and returns when it listens.
    ///
    /// # Panics
    ///
    /// With what it wrote, if the package is not installed or does not come up.
    pub fn start_with(answers: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let program = root.join("target/node/node_modules/.bin/llmock");
        assert!(program.exists(), "{program:?} is missing; `bash tests/all.sh` installs it");
        let (port, folder) = (ReservedPort::reserve(), tempfile::tempdir().expect("a temporary folder"));
        let log = File::create(log_in(&folder)).expect("the folder is ours");
        let process = Process::spawn(
            Command::new("node")
                .arg(program)
                .args(["--strict", "--port", &port.number().to_string(), "--fixtures"])
                .arg(root.join(answers))
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a file can be shared"))
                .stderr(log),
        );
        let mut server = Self { port, process: process.expect("node starts"), folder };
        until("the model server listens", START, || {
            if let Some(status) = server.process.ended() {
                let log = fs::read_to_string(log_in(&server.folder)).unwrap_or_default();
                panic!("the model server ended with {status}:\n{log}");
            }
            TcpStream::connect(server.port.address()).ok()
        });
        server
    }

    /// The address of `path` on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.port.address())
    }
}

fn log_in(folder: &TempDir) -> PathBuf {
    folder.path().join("log")
}
