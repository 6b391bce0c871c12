//! The example as a process of its own.

use std::net::TcpStream;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use arshai_test_support::{Process, ReservedPort, example, until};

const LONG: Duration = Duration::from_secs(60);

/// A running `web_service` without an API key, on a port of its own.
pub(crate) struct Service {
    process: Process,
    port: ReservedPort,
}

impl Service {
    /// Starts it with these variables and no others, and returns when it listens.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let port = ReservedPort::reserve();
        Self { process: spawn(&port, variables), port }
    }

    /// Starts it again at the same address.
    pub(crate) fn restart(&mut self, variables: &[(&str, &str)]) {
        self.process = spawn(&self.port, variables);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.port.address())
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the service ends", LONG, || self.process.ended())
    }
}

fn spawn(port: &ReservedPort, variables: &[(&str, &str)]) -> Process {
    let mut command = Command::new(example("web_service"));
    command.env_clear().env("LISTEN", port.address().to_string()).envs(variables.iter().copied());
    let mut process =
        Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null())).expect("the example runs");
    until("the service listens", LONG, || {
        assert_eq!(process.ended(), None, "the service ended");
        TcpStream::connect(port.address()).ok()
    });
    process
}
