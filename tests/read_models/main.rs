//! Read models with the workers that programs have: killed at every step, paused past their leases,
//! killed while they rebuild, given what they cannot fold, and put before a log that was
//! restored. At the end the rows are those of a replay, each time, on every store.
//!
//! The tests start themselves as the processes that are killed and paused. `ANNALS_TEST_LONG=1`
//! kills them 200 times at each step.

// What must not fail is unwrapped, and the figures are shown.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod child;
#[cfg(feature = "postgres")]
mod databases;
mod files;
mod fixture;
mod forgotten;
#[cfg(feature = "postgres")]
mod heads;
mod killed;
mod oracle;
mod paused;
mod poisoned;
mod rebuilt;
mod restored;
#[cfg(feature = "postgres")]
#[path = "../../store-postgres/tests/server/mod.rs"]
mod server;
mod shared;

/// What holds on every store.
macro_rules! proofs {
    ($fixture:path) => {
        proofs! { $fixture;
            killed: a_worker_killed_after_reading_harms_nothing,
                a_worker_killed_while_folding_harms_nothing,
                a_worker_killed_before_writing_harms_nothing,
                a_worker_killed_while_writing_harms_nothing,
                a_worker_killed_before_its_commit_ends_harms_nothing,
                a_worker_killed_after_a_commit_harms_nothing,
                a_worker_killed_before_a_renewal_harms_nothing,
                a_checkpoint_in_a_second_transaction_applies_events_twice;
            forgotten: a_forgotten_person_is_nowhere_in_the_store;
            paused: a_worker_paused_past_its_lease_is_fenced;
            poisoned: poison_delays_its_key_alone_and_drains_in_order;
            rebuilt: readers_see_whole_views_while_builders_are_killed;
            restored: a_restored_log_stops_the_view,
                a_restored_log_that_went_on_needs_a_rebuild,
                another_log_under_the_same_address_is_refused,
                a_view_restored_with_its_log_continues;
            shared: slots_are_shared_fairly_through_deaths_and_pauses;
        }
    };
    ($fixture:path; $($file:ident: $($proof:ident),+;)+) => { $($(
        #[tokio::test(flavor = "multi_thread")]
        async fn $proof() {
            crate::$file::$proof(&$fixture().await).await;
        }
    )+)+ };
}

mod on_sqlite {
    proofs!(crate::files::Files::new);
}

/// Skipped by this name where there is no server.
#[cfg(feature = "postgres")]
mod on_postgres {
    proofs!(crate::databases::Databases::new);
    proofs! { crate::databases::Databases::new; heads: all_readers_see_one_head; }
}
