//! One redis-server process.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::port::ReservedPort;
use crate::process::Process;
use crate::resp::{RawConnection, Reply};
use crate::tls::Certificates;
use crate::wait::until;

/// How long a server may take to come up, and to answer once it has.
const LIMIT: Duration = Duration::from_secs(10);

/// A redis-server of the test's own, on a free loopback port and a folder of its own.
///
/// It is looked into over a Unix socket, so that inspection neither needs TLS nor counts as a connection of the
/// client under test. Dropping kills the process and removes the folder.
#[derive(Debug)]
pub struct RedisServer {
    process: Option<Process>,
    port: ReservedPort,
    folder: TempDir,
    credentials: Option<(String, String)>,
    certificates: Option<Certificates>,
    sentinel: bool,
}

/// What a server is started with; from [`RedisServer::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder starts nothing by itself"]
pub struct RedisServerBuilder {
    credentials: Option<(String, String)>,
    tls: bool,
    sentinel: bool,
    lines: String,
}

impl RedisServerBuilder {
    /// Asks for a password: of the user named, and the same one of the default user.
    pub fn password(mut self, user: &str, password: &str) -> Self {
        self.credentials = Some((user.to_owned(), password.to_owned()));
        self.setting("requirepass", password).setting("user", &format!("{user} on >{password} ~* &* +@all"))
    }

    /// Speaks TLS only, with a certificate for `localhost` and `127.0.0.1` from a new authority.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Writes every change to disk before answering, so that nothing answered is lost by [`RedisServer::kill9`].
    pub fn appendonly_always(self) -> Self {
        self.setting("appendonly", "yes").setting("appendfsync", "always")
    }

    /// Refuses writes beyond `bytes`.
    pub fn maxmemory_noeviction(self, bytes: u64) -> Self {
        self.setting("maxmemory", &bytes.to_string()).setting("maxmemory-policy", "noeviction")
    }

    /// Any line of the configuration file: its key and the rest.
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        let _ = writeln!(self.lines, "{key} {value}");
        self
    }

    pub(crate) fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    /// Starts the server and returns when it answers.
    ///
    /// # Panics
    ///
    /// With the server's log, if it does not come up in ten seconds.
    pub fn start(self) -> RedisServer {
        let (port, folder) = (ReservedPort::reserve(), tempfile::tempdir().expect("a temporary folder"));
        let certificates = self.tls.then(|| Certificates::make(folder.path()));
        let mut server = RedisServer {
            process: None,
            port,
            folder,
            credentials: self.credentials,
            certificates,
            sentinel: self.sentinel,
        };
        fs::write(server.file("redis.conf"), server.configuration(&self.lines)).expect("the folder is ours");
        server.restart();
        server
    }
}

impl RedisServer {
    /// A server with nothing special about it.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A server that keeps nothing on disk, unless told to.
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    /// The URL of its database 0, with the password if it asks for one.
    pub fn url(&self) -> String {
        self.url_at(self.port())
    }

    /// The same URL for another port, such as a proxy's.
    pub fn url_at(&self, port: u16) -> String {
        let scheme = if self.certificates.is_some() { "rediss" } else { "redis" };
        let user = self.credentials.as_ref().map(|(user, password)| format!("{user}:{password}@"));
        format!("{scheme}://{}127.0.0.1:{port}/0", user.unwrap_or_default())
    }

    /// The port it listens on, now or again.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The loopback address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The authority's certificate in PEM, to be trusted by a client of a TLS server.
    ///
    /// # Panics
    ///
    /// If the server does not speak TLS.
    pub fn ca_file(&self) -> &Path {
        &self.certificates.as_ref().expect("the server was built with tls()").authority
    }

    /// Kills it as a power cut would, and returns when it is gone. Connecting is refused until [`restart`].
    ///
    /// [`restart`]: Self::restart
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Starts it again, on its port and in its folder, killing it first if it runs; returns when it answers.
    ///
    /// # Panics
    ///
    /// With the server's log, if it does not come up in ten seconds.
    pub fn restart(&mut self) {
        self.kill9();
        let mut process = self.launch();
        until(&format!("redis-server answers; it logs to {:?}", self.file("log")), LIMIT, || {
            if let Some(status) = process.ended() {
                panic!("redis-server ended ({status}) before it answered; its log:\n{}", self.log());
            }
            // Not yet listening, or loading its data.
            self.try_raw()
                .and_then(|mut raw| raw.command(&["PING"]))
                .ok()
                .filter(|reply| reply.text() == "PONG")
        });
        self.process = Some(process);
    }

    /// Halts it where it stands (SIGSTOP): its connections stay open and nothing is answered.
    pub fn stop_signal(&self) {
        self.process.as_ref().expect("it runs").pause();
    }

    /// Lets it go on (SIGCONT).
    pub fn continue_signal(&self) {
        self.process.as_ref().expect("it runs").resume();
    }

    /// One command on a connection of its own, in database 0.
    ///
    /// # Panics
    ///
    /// If the server is not there or does not answer in ten seconds.
    pub fn command<A: AsRef<[u8]>>(&self, arguments: &[A]) -> Reply {
        self.try_command(arguments).expect("the server answers")
    }

    /// As [`command`](Self::command), where the server may be gone, or close the connection, as one does that becomes
    /// a replica.
    pub fn try_command<A: AsRef<[u8]>>(&self, arguments: &[A]) -> io::Result<Reply> {
        self.try_raw()?.command(arguments)
    }

    /// A logged-in connection for several commands, not counted by [`connections`](Self::connections).
    ///
    /// # Panics
    ///
    /// If the server is not there or does not answer in ten seconds.
    pub fn raw(&self) -> RawConnection {
        self.try_raw().expect("the server takes connections")
    }

    /// The connections that clients have open, as the server counts them: without those of this value, of replicas
    /// and of sentinels.
    pub fn connections(&self) -> usize {
        let clients = self.command(&["CLIENT", "LIST"]);
        clients.text().lines().filter(|client| is_of_a_client(client)).count()
    }

    /// A field of `INFO`, such as `role`.
    ///
    /// # Panics
    ///
    /// If there is no such field.
    pub fn info(&self, field: &str) -> String {
        let info = self.command(&["INFO"]);
        let value = info.text().lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("INFO has no field {field}")).to_owned()
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    pub(crate) fn try_raw(&self) -> io::Result<RawConnection> {
        let mut raw = RawConnection::unix(&self.file("socket"), LIMIT)?;
        if let Some((user, password)) = &self.credentials {
            raw.command(&["AUTH", user, password])?;
        }
        Ok(raw)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn launch(&self) -> Process {
        let log =
            File::options().create(true).append(true).open(self.file("log")).expect("the folder is ours");
        let errors = log.try_clone().expect("a file can be shared");
        let mut command = Command::new("redis-server");
        command.arg(self.file("redis.conf")).args(self.sentinel.then_some("--sentinel"));
        Process::spawn(command.stdin(Stdio::null()).stdout(log).stderr(errors)).unwrap_or_else(|error| {
            panic!("redis-server: {error}; `bash tests/all.sh` installs what is missing")
        })
    }

    fn configuration(&self, lines: &str) -> String {
        let folder = self.folder.path().display();
        let port = self.port();
        let mut text = format!("bind 127.0.0.1\ndir \"{folder}\"\nunixsocket \"{folder}/socket\"\n");
        match &self.certificates {
            None => {
                let _ = writeln!(text, "port {port}");
            }
            Some(Certificates { authority, certificate, key, .. }) => {
                let _ = writeln!(text, "port 0\ntls-port {port}\ntls-auth-clients no");
                let _ = writeln!(text, "tls-ca-cert-file \"{}\"", authority.display());
                let _ = writeln!(text, "tls-cert-file \"{}\"", certificate.display());
                let _ = writeln!(text, "tls-key-file \"{}\"", key.display());
            }
        }
        if !self.sentinel {
            text.push_str("save \"\"\nenable-debug-command local\nrepl-diskless-sync-delay 0\n");
        }
        text + lines
    }
}

/// Of a line of `CLIENT LIST`: U is a Unix socket, S a replica, M a master.
fn is_of_a_client(line: &str) -> bool {
    let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name)).unwrap_or_default();
    !field("flags=").contains(['U', 'S', 'M']) && !field("name=").starts_with("sentinel-")
}
