//! A network between a client and a server that misbehaves on command.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::port::{ReservedPort, listen};

/// Read at once, and how many such pieces may lie in a connection before its sender feels it.
const PIECE: usize = 16 * 1024;
const QUEUED: usize = 64;

/// A TCP proxy on a loopback port, on a thread and a clock of its own.
///
/// At first it passes everything on. What it is told then holds for open connections as well as for new ones, from
/// the next byte on, and adds up: replies may be delayed and in small pieces. [`pass`](Self::pass) takes everything
/// back. Dropping closes all connections.
#[derive(Debug)]
pub struct Proxy {
    port: ReservedPort,
    rules: watch::Sender<Rules>,
    counts: Arc<Counts>,
    doors: Option<mpsc::UnboundedSender<Door>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Debug, Default)]
struct Rules {
    request_delay: Duration,
    reply_delay: Duration,
    jitter: Duration,
    /// The most bytes of a reply sent at once.
    shred: Option<usize>,
    stalled: bool,
    /// How many more bytes of replies each connection lets through, and which order of that kind it was.
    truncate: Option<(u64, u64)>,
    orders: u64,
    /// How often everything was cut.
    cuts: u64,
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    ever: AtomicUsize,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
}

/// An order to listen or not to, and where to say that it is done.
struct Door {
    open: bool,
    done: std::sync::mpsc::SyncSender<()>,
}

impl Proxy {
    /// A proxy in front of `target`.
    pub fn start(target: SocketAddr) -> Self {
        Self::seeded(target, 0)
    }

    /// A proxy whose jitter and piece sizes are drawn from `seed`: the same for the same connections in the same
    /// order.
    pub fn seeded(target: SocketAddr, seed: u64) -> Self {
        let (port, counts) = (ReservedPort::reserve(), Arc::new(Counts::default()));
        let (rules, watched) = watch::channel(Rules::default());
        let (doors, orders) = mpsc::unbounded_channel();
        let server =
            Server { target, address: port.address(), seed, rules: watched, counts: Arc::clone(&counts) };
        // Listening before the thread starts: the first connection must not be refused.
        let listener = listen(port.address());
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(server.serve(listener, orders));
        });
        Self { port, rules, counts, doors: Some(doors), thread: Some(thread.expect("a thread")) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Takes back everything it was told. What a stall held is sent on.
    pub fn pass(&self) {
        self.rules.send_modify(|rules| {
            *rules = Rules { orders: rules.orders, cuts: rules.cuts, ..Rules::default() };
        });
        self.door(true);
    }

    /// Holds every byte from a client for `delay`.
    pub fn delay_requests(&self, delay: Duration) {
        self.rules.send_modify(|rules| rules.request_delay = delay);
    }

    /// Holds every byte from the server for `delay`.
    pub fn delay_replies(&self, delay: Duration) {
        self.rules.send_modify(|rules| rules.reply_delay = delay);
    }

    /// Holds every piece, either way, for up to `most` longer than its delay; the order of bytes is kept.
    pub fn jitter(&self, most: Duration) {
        self.rules.send_modify(|rules| rules.jitter = most);
    }

    /// Sends replies in pieces of at most `most` bytes.
    pub fn shred_replies(&self, most: usize) {
        self.rules.send_modify(|rules| rules.shred = Some(most.max(1)));
    }

    /// Accepts and reads, and forwards nothing, either way; neither side learns that the other has closed.
    pub fn stall(&self) {
        self.rules.send_modify(|rules| rules.stalled = true);
    }

    /// Lets each connection, old or new, have `bytes` more of its replies, then closes it in order.
    pub fn truncate_replies_after(&self, bytes: u64) {
        self.rules.send_modify(|rules| {
            rules.orders += 1;
            rules.truncate = Some((rules.orders, bytes));
        });
    }

    /// Resets every open connection, on both sides. New ones are served.
    pub fn cut(&self) {
        self.rules.send_modify(|rules| rules.cuts += 1);
    }

    /// Refuses new connections, as if nobody listened; open ones live on. Holds on return.
    pub fn refuse(&self) {
        self.door(false);
    }

    /// Connections that their client has not closed and the proxy has not cut.
    pub fn connections(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// Connections since the start.
    pub fn connections_ever(&self) -> usize {
        self.counts.ever.load(Ordering::SeqCst)
    }

    /// Bytes sent on to the server.
    pub fn request_bytes(&self) -> u64 {
        self.counts.request_bytes.load(Ordering::SeqCst)
    }

    /// Bytes sent on to clients.
    pub fn reply_bytes(&self) -> u64 {
        self.counts.reply_bytes.load(Ordering::SeqCst)
    }

    fn door(&self, open: bool) {
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        let doors = self.doors.as_ref().expect("taken on drop only");
        doors.send(Door { open, done }).expect("the thread lives as long as the proxy");
        wait.recv().expect("the thread lives as long as the proxy");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Ends the thread's loop, and its runtime with every connection.
        self.doors = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Server {
    target: SocketAddr,
    address: SocketAddr,
    seed: u64,
    rules: watch::Receiver<Rules>,
    counts: Arc<Counts>,
}

impl Server {
    async fn serve(self, listener: std::net::TcpListener, mut doors: mpsc::UnboundedReceiver<Door>) {
        let mut listener = Some(register(listener));
        loop {
            tokio::select! {
                door = doors.recv() => {
                    let Some(Door { open, done }) = door else { return };
                    match (open, &listener) {
                        (true, None) => listener = Some(register(listen(self.address))),
                        (false, _) => listener = None,
                        (true, Some(_)) => {}
                    }
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                }
                client = accept(listener.as_ref()) => self.take(client),
            }
        }
    }

    fn take(&self, client: TcpStream) {
        let number = self.counts.ever.fetch_add(1, Ordering::SeqCst);
        let line = Line {
            rules: self.rules.clone(),
            counts: Arc::clone(&self.counts),
            random: fastrand::Rng::with_seed(self.seed.wrapping_add(number as u64)),
        };
        let open = Open::count(&self.counts);
        tokio::spawn(connection(client, self.target, line, open));
    }
}

fn register(listener: std::net::TcpListener) -> TcpListener {
    TcpListener::from_std(listener).expect("a listener that does not block")
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        // An error is of a connection that went away before it was accepted.
        if let Ok((client, _)) = listener.accept().await {
            return client;
        }
    }
}

/// Counts a connection for as long as it lives.
struct Open(Arc<Counts>);

impl Open {
    fn count(counts: &Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(counts))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How a connection ends before both sides have closed it.
enum End {
    Close,
    Reset,
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Reset
    }
}

/// What both directions of a connection go by.
#[derive(Clone)]
struct Line {
    rules: watch::Receiver<Rules>,
    counts: Arc<Counts>,
    random: fastrand::Rng,
}

async fn connection(mut client: TcpStream, target: SocketAddr, mut line: Line, open: Open) {
    let Ok(mut server) = TcpStream::connect(target).await else { return reset(&client) };
    // Pieces must leave as they come. It fails only on a connection that is gone.
    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let requests = requests(from_client, to_server, line.clone(), open);
        let replies = replies(from_server, to_client, line.clone());
        tokio::select! {
            ended = async { tokio::try_join!(requests, replies) } => ended.map(drop),
            Err(end) = cut(&mut line.rules) => Err(end),
        }
    };
    if let Err(End::Reset) = ended {
        reset(&client);
        reset(&server);
    }
}

/// Closing it then sends a reset.
fn reset(stream: &TcpStream) {
    // It fails only on a connection that is gone.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn cut(rules: &mut watch::Receiver<Rules>) -> Result<Infallible, End> {
    let before = rules.borrow().cuts;
    // An error is the proxy's end, which ends this too.
    let _ = rules.wait_for(|rules| rules.cuts != before).await;
    Err(End::Reset)
}

async fn requests(from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut line: Line, open: Open) -> Result<(), End> {
    let (queue, mut queued) = mpsc::channel(QUEUED);
    let mut filler = line.clone();
    let fill = async move {
        let filled = fill(from, queue, &mut filler, |rules| rules.request_delay).await;
        drop(open);
        filled
    };
    let drain = async move {
        while let Some(piece) = due(&mut queued).await {
            unstalled(&mut line.rules).await;
            to.write_all(&piece).await?;
            line.counts.request_bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
        }
        unstalled(&mut line.rules).await;
        Ok(to.shutdown().await?)
    };
    tokio::try_join!(fill, drain).map(drop)
}

async fn replies(from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut line: Line) -> Result<(), End> {
    let (queue, mut queued) = mpsc::channel(QUEUED);
    let mut filler = line.clone();
    let fill = async move { fill(from, queue, &mut filler, |rules| rules.reply_delay).await };
    let drain = async move {
        let mut truncated = None;
        while let Some(piece) = due(&mut queued).await {
            let mut rest = piece.as_slice();
            while !rest.is_empty() {
                unstalled(&mut line.rules).await;
                let length = line.shredded(rest.len());
                let allowed = line.allowed(&mut truncated, length);
                to.write_all(&rest[..allowed]).await?;
                line.counts.reply_bytes.fetch_add(allowed as u64, Ordering::SeqCst);
                if allowed < length {
                    to.shutdown().await?;
                    return Err(End::Close);
                }
                rest = &rest[length..];
                tokio::task::yield_now().await;
            }
        }
        unstalled(&mut line.rules).await;
        Ok(to.shutdown().await?)
    };
    tokio::try_join!(fill, drain).map(drop)
}

impl Line {
    fn shredded(&mut self, length: usize) -> usize {
        match self.rules.borrow().shred {
            Some(most) => self.random.usize(1..=most).min(length),
            None => length,
        }
    }

    /// How much of `length` may pass; `truncated` remembers the order and what is left of it.
    fn allowed(&self, truncated: &mut Option<(u64, u64)>, length: usize) -> usize {
        let ordered = self.rules.borrow().truncate;
        if truncated.map(|(order, _)| order) != ordered.map(|(order, _)| order) {
            *truncated = ordered;
        }
        let Some((_, left)) = truncated else { return length };
        let allowed = usize::try_from(*left).map_or(length, |left| left.min(length));
        *left -= allowed as u64;
        allowed
    }
}

type Queued = (Option<Instant>, Vec<u8>);

async fn fill(
    mut from: ReadHalf<'_>,
    queue: mpsc::Sender<Queued>,
    line: &mut Line,
    delay: impl Fn(&Rules) -> Duration,
) -> Result<(), End> {
    let mut buffer = vec![0; PIECE];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let (delay, jitter) = {
            let rules = line.rules.borrow();
            (delay(&rules), rules.jitter)
        };
        let delay = delay + jitter.mul_f64(line.random.f64());
        let due = (!delay.is_zero()).then(|| Instant::now() + delay);
        if queue.send((due, buffer[..length].to_vec())).await.is_err() {
            return Ok(());
        }
    }
}

/// The next piece, when its time has come; none once the sender has closed.
async fn due(queued: &mut mpsc::Receiver<Queued>) -> Option<Vec<u8>> {
    let (due, piece) = queued.recv().await?;
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
    Some(piece)
}

async fn unstalled(rules: &mut watch::Receiver<Rules>) {
    // An error is the proxy's end, which ends the connection.
    let _ = rules.wait_for(|rules| !rules.stalled).await;
}
