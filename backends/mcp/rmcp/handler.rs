//! What the server sends by itself: progress and changes of its tools.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::model::{ClientConfig, Implementation, ProgressNotificationParam, ProgressToken};
use rmcp::service::NotificationContext;
use rmcp::{ClientHandler, RoleClient};
use tokio::sync::Notify;

use crate::mcp::ProgressListener;

/// Receives what the server sends by itself. Cloning returns another handle to the same one.
#[derive(Clone, Default)]
pub(super) struct Handler(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tools_changed: Notify,
    listeners: Mutex<HashMap<ProgressToken, ProgressListener>>,
}

impl Handler {
    /// Waits for the notification that the tools changed. However many came meanwhile, it returns once.
    pub(super) async fn tools_changed(&self) {
        self.0.tools_changed.notified().await;
    }

    /// Calls `listener` for the progress of a call until the returned value is dropped.
    pub(super) fn listen(&self, token: ProgressToken, listener: ProgressListener) -> Listening {
        self.0.listeners.lock().insert(token.clone(), listener);
        Listening { inner: Arc::clone(&self.0), token }
    }
}

/// Removes a call's progress listener.
pub(super) struct Listening {
    inner: Arc<Inner>,
    token: ProgressToken,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.inner.listeners.lock().remove(&self.token);
    }
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let mut config = ClientConfig::default();
        config.client_info = Implementation::new("arshai", env!("CARGO_PKG_VERSION"));
        config
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let listener = self.0.listeners.lock().get(&params.progress_token).cloned();
        if let Some(listener) = listener {
            listener(params.progress, params.total, params.message.as_deref());
        }
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.0.tools_changed.notify_one();
    }
}
