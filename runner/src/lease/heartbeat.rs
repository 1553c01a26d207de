//! The heartbeat of a lease.

use std::time::Duration;

use annals_core::Lease;
use tokio::sync::watch;

use crate::location::ViewLocation;

/// Renews a lease three times in its length, and says when it is lost.
pub(super) async fn heartbeat(
    views: ViewLocation,
    lease: Lease,
    ttl: Duration,
    lost: watch::Sender<bool>,
) {
    loop {
        tokio::time::sleep(ttl / 3).await;
        match views.renew_lease(&lease, ttl).await {
            Ok(true) => {}
            Ok(false) => break,
            // It may still be ours; a commit under it is refused if it is not.
            Err(error) => tracing::warn!(lease = lease.name, %error, "a lease was not renewed"),
        }
    }
    let _ = lost.send(true);
}
