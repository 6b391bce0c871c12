//! How changes of the tools arrive: as a notification in the session, or by a subscription in the stateless era.

use std::time::Duration;

use rmcp::model::SubscriptionFilter;
use rmcp::service::Subscription;

use super::connection::Connection;
use crate::Deadline;
use crate::support::Backoff;

/// How long a server may take to acknowledge a subscription.
const ACKNOWLEDGED: Duration = Duration::from_secs(10);
/// Delays before a subscription that ended, or was refused, is asked for again.
const RESUBSCRIBE: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// The subscription of a connection.
#[derive(Default)]
pub(super) struct Subscribed {
    active: Option<Subscription>,
    /// Subscriptions that failed since the last notification.
    failed: u32,
}

impl Connection {
    /// Waits until the server says that its tools changed, or may have changed unnoticed.
    pub(super) async fn tools_changed(&self) {
        tokio::select! {
            () = self.handler.tools_changed() => {}
            () = self.subscription_changed() => {}
        }
    }

    /// Whether the server notifies its clients when its tools change.
    pub(super) fn announces_changes(&self) -> bool {
        let tools = self.peer.peer_info().and_then(|info| info.capabilities.tools.clone());
        tools.is_some_and(|tools| tools.list_changed == Some(true))
    }

    async fn subscription_changed(&self) {
        if !self.is_stateless() || !self.announces_changes() {
            return std::future::pending().await;
        }
        let mut subscribed = self.subscribed.lock().await;
        loop {
            match subscribed.active.as_mut() {
                Some(active) => match active.next().await {
                    Ok(Some(_)) => {
                        subscribed.failed = 0;
                        return;
                    }
                    _ => {
                        subscribed.active = None;
                        subscribed.failed += 1;
                    }
                },
                None => {
                    let is_again = subscribed.failed > 0;
                    if is_again {
                        tokio::time::sleep(RESUBSCRIBE.delay(subscribed.failed)).await;
                    }
                    let mut filter = SubscriptionFilter::new();
                    filter.tools_list_changed = Some(true);
                    // Boxed, so that its 7 KiB are free while the subscription is open, or there is none.
                    let listening = Box::pin(self.peer.listen(filter));
                    let deadline = Deadline::after(ACKNOWLEDGED);
                    match deadline.run("mcp", "subscribing", listening).await {
                        Ok(Ok(subscription)) => {
                            subscribed.active = Some(subscription);
                            if is_again {
                                // Something may have changed in between.
                                return;
                            }
                        }
                        _ => subscribed.failed += 1,
                    }
                }
            }
        }
    }
}
