//! Replacing the servers while calls are in flight.

use std::sync::Arc;

use futures_util::future::join_all;

use super::server::Server;
use super::{COMPONENT, RmcpServerManager};
use crate::config::McpServerConfig;
use crate::{Component, Deadline, Error, ErrorKind, Result};

/// Servers that end when this is dropped: those that are not in use yet, and those that are not any more.
struct StopOnDrop(Vec<Arc<Server>>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.iter().for_each(|server| server.stop());
    }
}

impl RmcpServerManager {
    /// See [`McpServerManager::set_servers`](crate::mcp::McpServerManager::set_servers).
    pub(super) async fn replace(&self, configs: Vec<McpServerConfig>, deadline: Deadline) -> Result<()> {
        let configs = self.config.validated_servers(configs)?;
        let _alone =
            deadline.run(COMPONENT, "waiting for another replacement", self.replacing.lock()).await?;
        let old = self.current();
        let kept =
            |config: &McpServerConfig| old.iter().find(|server| server.config.is_same(config)).cloned();
        let new = configs.into_iter().map(|config| match kept(&config) {
            Some(server) => Ok((server, false)),
            None => Ok((self.build(config)?, true)),
        });
        let new = new.collect::<Result<Vec<_>>>()?;
        let is_new = |(server, is_new): &(Arc<Server>, bool)| is_new.then(|| Arc::clone(server));
        let mut added = StopOnDrop(new.iter().filter_map(is_new).collect());
        let connecting = added.0.iter().map(|server| {
            server.start();
            server.settled(self.attempts(&server.config))
        });
        // Those that are down are connected later, in the background.
        let _ = deadline.run(COMPONENT, "connecting to MCP servers", join_all(connecting)).await;
        let new: Arc<[_]> = new.into_iter().map(|(server, _)| server).collect();
        let added = self.swap(&old, new, &mut added)?;
        self.retire(&old, &added, deadline).await;
        Ok(())
    }

    /// Puts the new servers in place of the old ones; calls find them from now on.
    fn swap(
        &self,
        old: &[Arc<Server>],
        new: Arc<[Arc<Server>]>,
        added: &mut StopOnDrop,
    ) -> Result<Arc<[Arc<Server>]>> {
        {
            let mut servers = self.servers.write();
            // Closing takes the lock too: what it does not find here does not come later.
            if self.closed.is_cancelled() {
                return Err(Error::new(ErrorKind::Closed, COMPONENT, "closed").not_sent());
            }
            *servers = Arc::clone(&new);
        }
        for server in gone(old, &new) {
            self.registrar.unregister(&(server as Arc<dyn Component>));
        }
        for server in added.0.drain(..) {
            self.registrar.register(server);
        }
        Ok(new)
    }

    /// Lets calls of servers that are gone complete until the deadline, and ends them.
    async fn retire(&self, old: &[Arc<Server>], new: &[Arc<Server>], deadline: Deadline) {
        let gone = StopOnDrop(gone(old, new).collect());
        {
            let mut names = self.names.lock();
            for config in gone.0.iter().map(|server| &server.config) {
                let key = (&config.name, &config.prefix);
                if new.iter().all(|server| (&server.config.name, &server.config.prefix) != key) {
                    names.forget_server(&config.name, config.prefix.as_deref());
                }
            }
        }
        join_all(gone.0.iter().map(|server| server.close(deadline))).await;
    }
}

/// The servers of `old` that are not among `new`.
fn gone(old: &[Arc<Server>], new: &[Arc<Server>]) -> impl Iterator<Item = Arc<Server>> {
    old.iter().filter(|server| new.iter().all(|other| !Arc::ptr_eq(server, other))).cloned()
}
