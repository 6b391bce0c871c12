//! What the server sends by itself: progress and changes of its tools.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::model::{ClientConfig, Implementation, ProgressNotificationParam, ProgressToken};
use rmcp::service::NotificationContext;
use rmcp::{ClientHandler, RoleClient};
use tokio::sync::Notify;

use crate::mcp::ProgressListener;

/// Receives what the server sends by itself.
#[derive(Default)]
pub(super) struct Handler {
    pub(super) tools_changed: Notify,
    listeners: Arc<Mutex<HashMap<ProgressToken, ProgressListener>>>,
}

impl Handler {
    pub(super) fn listen(&self, token: ProgressToken, listener: ProgressListener) -> Listening {
        self.listeners.lock().insert(token.clone(), listener);
        Listening { listeners: Arc::clone(&self.listeners), token }
    }
}

/// Removes a call's progress listener.
pub(super) struct Listening {
    listeners: Arc<Mutex<HashMap<ProgressToken, ProgressListener>>>,
    token: ProgressToken,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.listeners.lock().remove(&self.token);
    }
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let mut config = ClientConfig::default();
        config.client_info = Implementation::new("arshai", env!("CARGO_PKG_VERSION"));
        config
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let listener = self.listeners.lock().get(&params.progress_token).cloned();
        if let Some(listener) = listener {
            listener(params.progress, params.total, params.message.as_deref());
        }
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.tools_changed.notify_one();
    }
}
