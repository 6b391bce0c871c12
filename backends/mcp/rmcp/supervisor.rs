//! The supervisor of one server: connects, reconnects and refreshes in the background.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;
use super::listing::ToolList;
use super::server::Server;
use super::state::LastError;
use crate::config::McpProtocol;
use crate::mcp::McpTool;
use crate::support::Backoff;
use crate::{Deadline, Error, ErrorKind, Result};

/// Delays between attempts to connect.
const RECONNECT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// Shortest time between two listings: a storm of notifications costs at most two a second.
const LISTING_INTERVAL: Duration = Duration::from_millis(500);
/// A list with a shorter lifetime is fetched again after this time all the same.
const MIN_TTL: Duration = Duration::from_secs(5);
/// A connection that is lost sooner is not replaced immediately again.
const STABLE: Duration = Duration::from_secs(30);
/// After so many failures in a row in the era that once worked, one attempt tries the other one too.
const PROBE_EVERY: u32 = 3;

impl Server {
    pub(super) async fn supervise(&self) {
        let (mut failed, mut unstable) = (0, 0);
        loop {
            // Boxed, so that its 11 KiB are free while the connection is watched.
            let (delay, error, lost) = match Box::pin(self.connect_once(failed)).await {
                Ok((connection, list)) => {
                    failed = 0;
                    let connected = Instant::now();
                    let lost = self.watch(&connection, list).await;
                    unstable = if connected.elapsed() < STABLE { unstable + 1 } else { 1 };
                    let delay = if unstable > 1 { RECONNECT.delay(unstable - 1) } else { Duration::ZERO };
                    (delay, lost, Some(connection))
                }
                Err(error) => {
                    failed += 1;
                    (RECONNECT.delay_at_least(failed, error.retry_after), error, None)
                }
            };
            // Authorization does not come by asking again.
            let next = (error.kind != ErrorKind::Authentication).then(|| Instant::now() + delay);
            self.state.send_modify(|state| {
                if failed > 0 {
                    state.attempts += 1;
                }
                state.connection = None;
                state.is_recovering = failed == 0 && next.is_some() && delay.is_zero();
                // The server answers and wants another handshake: it was replaced.
                if error.is_rejection && error.kind == ErrorKind::Protocol {
                    state.protocol = None;
                }
                state.fail(error);
                state.next_attempt = next;
            });
            if let Some(connection) = lost {
                self.retire(connection);
            }
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.attempt_requested() => {}
            }
        }
    }

    /// Calls that hold the lost connection may still get their answer; it is closed when the last of them has ended.
    fn retire(&self, connection: Arc<Connection>) {
        let patience = if connection.has_exited() { Duration::ZERO } else { self.config.timeout };
        let (stop, deadline) = (self.stop.clone(), Deadline::after(patience));
        tokio::spawn(async move { stop.run_until_cancelled(connection.close(deadline)).await });
    }

    async fn connect_once(&self, failed: u32) -> Result<(Arc<Connection>, ToolList), LastError> {
        let deadline = Deadline::after(self.connect_timeout);
        let known =
            self.state.borrow().protocol.filter(|_| failed == 0 || !failed.is_multiple_of(PROBE_EVERY));
        let protocol = match self.config.protocol {
            McpProtocol::Auto => known.unwrap_or(McpProtocol::Auto),
            fixed => fixed,
        };
        let connected = async {
            // Limits that were changed since apply to the new connection.
            let connector = self.connector.with_guards(self.catalog.guards());
            let connection = connector.connect(&self.config, protocol, deadline).await?;
            let list = self.list(&connection);
            let list = deadline.run("mcp", "listing tools", list).await??;
            Ok::<_, Error>((Arc::new(connection), list))
        };
        match connected.await {
            Ok((connection, mut list)) => {
                self.connected(&connection, &mut list);
                Ok((connection, list))
            }
            Err(error) => {
                tracing::warn!(mcp.server = self.config.name, %error, "failed to connect");
                Err(LastError::from(&error))
            }
        }
    }

    fn connected(&self, connection: &Arc<Connection>, list: &mut ToolList) {
        let tools = self.update(list);
        tracing::info!(mcp.server = self.config.name, tools = tools.len(), "connected");
        self.state.send_modify(|state| {
            let is_stateless = connection.is_stateless();
            state.protocol =
                Some(if is_stateless { McpProtocol::Stateless } else { McpProtocol::Initialize });
            state.connection = Some(Arc::clone(connection));
            state.tools = tools;
            state.error = None;
            state.challenge = None;
            state.is_recovering = false;
            state.next_attempt = None;
            state.attempts += 1;
            state.connects += 1;
            state.sessions += u64::from(!is_stateless);
        });
    }

    async fn list(&self, connection: &Connection) -> Result<ToolList> {
        connection.list_tools(&self.config.name, &self.catalog.guards()).await
    }

    /// The tools of `list` that are offered.
    fn update(&self, list: &mut ToolList) -> Arc<[McpTool]> {
        self.catalog.update(list.pages, std::mem::take(&mut list.tools))
    }

    /// Refreshes the tool list as it changes, until the connection ends; the error says why it ended.
    async fn watch(&self, connection: &Connection, list: ToolList) -> LastError {
        let mut listed = Instant::now();
        let mut stale = stale_at(connection, &list);
        let mut changed = pin!(connection.tools_changed());
        loop {
            tokio::select! {
                () = connection.ended() => {
                    return connection.failure().unwrap_or_else(|| self.ended("connection lost"));
                }
                () = self.attempt_requested() => return self.ended("reconnecting"),
                () = &mut changed => changed.set(connection.tools_changed()),
                () = self.relist.notified() => {}
                () = sleep_until(stale) => {}
            }
            tokio::time::sleep_until(listed + LISTING_INTERVAL).await;
            listed = Instant::now();
            stale = Box::pin(self.refresh(connection)).await;
        }
    }

    fn ended(&self, message: &'static str) -> LastError {
        LastError::from(&self.error(ErrorKind::Unavailable, message))
    }

    /// Fetches the list again; returns when it is stale.
    async fn refresh(&self, connection: &Connection) -> Option<Instant> {
        let deadline = Deadline::after(self.connect_timeout);
        let listed = deadline.run("mcp", "listing tools", self.list(connection)).await;
        match listed.and_then(|list| list) {
            Ok(mut list) => {
                let tools = self.update(&mut list);
                self.state.send_modify(|state| state.tools = tools);
                stale_at(connection, &list)
            }
            Err(error) => {
                tracing::warn!(mcp.server = self.config.name, %error, "failed to refresh the tool list");
                self.state.send_modify(|state| state.last_error = Some(error.to_string()));
                Instant::now().checked_add(STABLE)
            }
        }
    }
}

/// When a list has to be fetched again, where the server does not tell that it changed. A lifetime of zero asks for
/// a list that is fetched whenever it is used, which no agent's turn could wait for.
fn stale_at(connection: &Connection, list: &ToolList) -> Option<Instant> {
    let ttl = list.ttl.filter(|ttl| !ttl.is_zero() && !connection.announces_changes())?;
    Instant::now().checked_add(ttl.max(MIN_TTL))
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
