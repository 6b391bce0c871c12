//! Child processes that never outlive their test.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::wait::until;

/// A child process, killed and waited for on drop.
///
/// A guard, a shell that waits for the end of its input, kills it should this process die without dropping
/// anything: by a signal, by `abort`, by the runner's time limit.
#[derive(Debug)]
pub struct Process {
    child: Child,
    guard: Option<Child>,
}

impl Process {
    /// Starts a command.
    ///
    /// # Errors
    /// Those of [`Command::spawn`].
    pub fn spawn(command: &mut Command) -> std::io::Result<Self> {
        let mut process = Self { child: command.spawn()?, guard: None };
        let guard = Command::new("sh")
            .args([
                "-c",
                r#"trap "" HUP INT TERM; read -r _; kill -KILL "$0""#,
                &process.child.id().to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        process.guard = Some(guard?);
        Ok(process)
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Stops it where it is, and returns when it stands.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        until("the process stops", Duration::from_secs(5), || {
            let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
            waitid(WaitId::Pid(self.pid()), options).expect("it is our child")
        });
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it where it is, and returns when it has ended.
    pub fn kill(&mut self) {
        // The guard first: once the child is waited for, its number may be another's.
        for process in self.guard.iter_mut().chain([&mut self.child]) {
            // Killing fails only for one that has ended; SIGKILL ends a stopped one too.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it is our child, not yet waited for");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
