//! Both Milvus engines that a development machine can run, from packages of PyPI.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::port::ReservedPort;
use crate::process::Process;
use crate::tls::Certificates;
use crate::wait::until;

/// The full server takes five seconds on an idle machine, thirty after its death; the machine is seldom idle.
const START: Duration = Duration::from_secs(180);
const STOP: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(5);

/// What `tests/support/milvus_server.py` asks for: clients, metrics, two of etcd, seven of its parts.
const PORTS_OF_THE_FULL_SERVER: usize = 11;

/// A Milvus of the test's own, on free loopback ports and in a folder of its own; killed on drop.
#[derive(Debug)]
pub struct MilvusServer {
    process: Option<Process>,
    engine: Engine,
    /// The first one is for clients.
    ports: Vec<ReservedPort>,
    folder: TempDir,
    certificates: Option<Certificates>,
}

/// Which server, and its settings.
#[derive(Debug)]
enum Engine {
    Small,
    Full(Vec<String>),
}

/// What a full server is started with; from [`MilvusServer::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder starts nothing by itself"]
pub struct MilvusServerBuilder {
    settings: Vec<String>,
    tls: bool,
    wants_client_certificate: bool,
}

impl MilvusServerBuilder {
    /// Asks for a user and a password: `root` and `Milvus`, so the token `root:Milvus`.
    pub fn authorization(self) -> Self {
        self.setting("authorization_enabled", "true")
    }

    /// Speaks TLS only, with a certificate for `localhost` and `127.0.0.1` from a new authority.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Speaks TLS only, and with nobody but clients that have a certificate of its authority.
    pub fn mutual_tls(mut self) -> Self {
        self.wants_client_certificate = true;
        self.tls()
    }

    /// Any setting: a name of the package, or a path in the configuration file, such as `log.level`.
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push(format!("{key}={value}"));
        self
    }

    /// Starts the server and returns when it is healthy.
    ///
    /// # Panics
    ///
    /// With the server's log, if it does not come up.
    pub fn start(self) -> MilvusServer {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let certificates = self.tls.then(|| Certificates::make(folder.path()));
        let mut settings = vec!["log.level=warn".to_owned()];
        if let Some(made) = &certificates {
            settings.push(format!("tls_mode={}", if self.wants_client_certificate { 2 } else { 1 }));
            settings.push(format!("ca_pem_path={}", made.authority.display()));
            settings.push(format!("server_pem_path={}", made.certificate.display()));
            settings.push(format!("server_key_path={}", made.key.display()));
        }
        settings.extend(self.settings);
        MilvusServer::new(Engine::Full(settings), PORTS_OF_THE_FULL_SERVER, folder, certificates)
    }
}

impl MilvusServer {
    /// The small engine, the native server of `milvus-lite` 2.5.1: sparse vectors and hybrid search; no flush, version,
    /// databases or users. Up in a second.
    ///
    /// # Panics
    ///
    /// With the server's log, if it does not come up.
    pub fn small() -> Self {
        Self::new(Engine::Small, 1, tempfile::tempdir().expect("a temporary folder"), None)
    }

    /// The full standalone server 2.3.5: everything but sparse vectors and hybrid search. Up in five seconds, where
    /// the machine is idle.
    ///
    /// # Panics
    ///
    /// With the server's log, if it does not come up.
    pub fn full() -> Self {
        Self::builder().start()
    }

    /// A full server with settings.
    pub fn builder() -> MilvusServerBuilder {
        MilvusServerBuilder::default()
    }

    /// The port that clients connect to, now or after a restart.
    pub fn port(&self) -> u16 {
        self.address().port()
    }

    /// The loopback address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.ports.first().expect("there is at least one").address()
    }

    /// The address as clients of Milvus write it.
    pub fn uri(&self) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// The authority's certificate in PEM, to be trusted by a client of a TLS server.
    ///
    /// # Panics
    ///
    /// If the server does not speak TLS.
    pub fn ca_file(&self) -> &Path {
        &self.certificates.as_ref().expect("the server was built with tls()").authority
    }

    /// A certificate of the authority for a client, and its key.
    ///
    /// # Panics
    ///
    /// If the server does not speak TLS.
    pub fn client_certificate(&self) -> (&Path, &Path) {
        let made = self.certificates.as_ref().expect("the server was built with tls()");
        (&made.client_certificate, &made.client_key)
    }

    /// Ends it politely (SIGTERM), and returns when it is gone. Connecting is refused until [`restart`](Self::restart).
    ///
    /// # Panics
    ///
    /// If it has not ended in a minute.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.terminate();
        until("the Milvus server ends", STOP, || process.ended());
    }

    /// Kills it as a power cut would, and returns when it is gone. Connecting is refused until
    /// [`restart`](Self::restart).
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Starts it again, on its port and its data, killing it first if it runs; returns when it answers.
    ///
    /// # Panics
    ///
    /// With the server's log, if it does not come up.
    pub fn restart(&mut self) {
        self.kill9();
        let mut process = self.launch();
        until("the Milvus server is healthy", START, || {
            if let Some(status) = process.ended() {
                panic!("the Milvus server ended ({status}) before it answered; its log:\n{}", self.log());
            }
            self.is_healthy().ok().filter(|healthy| *healthy)
        });
        self.process = Some(process);
    }

    /// Halts it where it stands (SIGSTOP): its connections stay open and nothing is answered.
    pub fn pause(&self) {
        self.process.as_ref().expect("it runs").pause();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.process.as_ref().expect("it runs").resume();
    }

    /// Whether its process is there; engines die of some requests.
    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// What the server has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    fn new(engine: Engine, ports: usize, folder: TempDir, certificates: Option<Certificates>) -> Self {
        let ports = (0..ports).map(|_| ReservedPort::reserve()).collect();
        let mut server = Self { process: None, engine, ports, folder, certificates };
        server.restart();
        server
    }

    fn launch(&self) -> Process {
        let log =
            File::options().create(true).append(true).open(self.file("log")).expect("the folder is ours");
        let errors = log.try_clone().expect("a file can be shared");
        let mut command = match &self.engine {
            Engine::Small => self.small_command(),
            Engine::Full(settings) => self.full_command(settings),
        };
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(log).stderr(errors);
        Process::spawn(&mut command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    fn small_command(&self) -> Command {
        let program = installed("target/milvus-lite", "milvus_lite/lib/milvus");
        let mut command = Command::new(&program);
        command.env("LD_LIBRARY_PATH", program.parent().expect("it lies in a folder"));
        command.arg(self.file("data.db")).arg(self.address().to_string()).arg("ERROR");
        command
    }

    /// A script of Python, which the server replaces: the process stays the same.
    fn full_command(&self, settings: &[String]) -> Command {
        installed("target/milvus-server", "milvus/__init__.py");
        let ports: Vec<_> = self.ports.iter().map(|port| port.number().to_string()).collect();
        let mut command = Command::new(root().join("target/milvus-server/bin/python"));
        command.arg(root().join("tests/support/milvus_server.py"));
        command.arg(self.file("milvus")).arg(ports.join(",")).args(settings);
        command
    }

    fn is_healthy(&self) -> io::Result<bool> {
        TcpStream::connect(self.address())?;
        let [_, metrics, ..] = self.ports.as_slice() else { return Ok(true) };
        let mut connection = TcpStream::connect(metrics.address())?;
        connection.set_read_timeout(Some(ANSWER))?;
        connection.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer.ends_with("OK"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the tests run in the checkout they were built in")
}

/// A file of a package in a virtual environment, whichever Python made that.
fn installed(environment: &str, file: &str) -> PathBuf {
    let libraries = root().join(environment).join("lib");
    let found = fs::read_dir(&libraries).ok().and_then(|pythons| {
        let mut paths = pythons.flatten().map(|python| python.path().join("site-packages").join(file));
        paths.find(|path| path.exists())
    });
    found.unwrap_or_else(|| panic!("{environment} lacks {file}; `bash tests/all.sh` installs it"))
}
