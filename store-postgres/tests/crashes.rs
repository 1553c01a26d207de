//! Names that a crash takes back, and a standby that lags and takes the server's place: each event
//! is read under its own stream and type.
//!
//! `ANNALS_TEST_LONG=1` makes fifty rounds.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod named;
mod outage;
mod server;
#[cfg(target_os = "linux")]
mod standby;

/// Tests that stop the server. They are skipped by this name where it may not be stopped.
pub(crate) mod server_restarts {
    use std::time::Duration;

    use annals_core::{AppendError, EventStore};
    use annals_postgres::PostgresStore;

    use crate::named::{all_named, named};
    use crate::outage::{SERVER, control, kill_all, rounds};
    use crate::server::Schema;

    /// Names that were made and not flushed when the server is killed are another's afterwards.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_type_number_means_the_same_after_a_crash() {
        let _alone = SERVER.lock().await;
        for _ in 0..rounds() {
            let schema = Schema::new();
            let one = schema.store().await;
            let two = schema.store().await;
            let refused =
                named("pay-1", "payment.made".into()).expecting(annals_core::Expected::Exists);
            one.append(refused).await.unwrap_err();
            kill_all().await;
            control("start").await;
            let after = |store: PostgresStore, append: annals_core::Append| async move {
                let mut pause = tokio::time::interval(Duration::from_millis(5));
                while let Err(error) = store.append(append.clone()).await {
                    assert!(!matches!(error, AppendError::Conflict(_)), "{error:?}");
                    pause.tick().await;
                }
            };
            after(two, named("back-1", "refund.made".into())).await;
            after(one, named("pay-1", "payment.made".into())).await;
            assert_eq!(all_named(&schema.store().await).await.len(), 2);
        }
    }
}
