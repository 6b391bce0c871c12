//! An MCP server that can be killed.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::port::ReservedPort;
use crate::process::Process;
use crate::wait::until;

/// Python takes a second or two on an idle machine; the machine is seldom idle.
const START: Duration = Duration::from_secs(60);

/// `tests/mcp/server.py`, made with the official Python SDK, over HTTP on a free loopback port; killed on drop.
#[derive(Debug)]
pub struct McpServer {
    process: Option<Process>,
    port: ReservedPort,
}

impl McpServer {
    /// Starts the server and returns when it listens.
    ///
    /// # Panics
    ///
    /// If Python's packages are not installed or it does not come up.
    pub fn start() -> Self {
        let mut server = Self { process: None, port: ReservedPort::reserve() };
        server.restart();
        server
    }

    /// The address of its endpoint.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.port.address())
    }

    /// Kills it: connections break, new ones are refused.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again at the same address.
    pub fn restart(&mut self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let python = root.join("target/mcp-python/bin/python");
        assert!(python.exists(), "{python:?} is missing; `bash tests/all.sh` installs it");
        let mut command = Command::new(python);
        command.arg(root.join("tests/mcp/server.py")).args(["http", &self.port.number().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::spawn(&mut command).expect("Python starts");
        until("the MCP server listens", START, || {
            assert_eq!(process.ended(), None, "the MCP server ended");
            TcpStream::connect(self.port.address()).ok()
        });
        self.process = Some(process);
    }
}
