//! Read models with the workers that programs have: killed at every step, paused past their leases,
//! killed while they build anew, given what they cannot fold, and put before a log that was
//! restored. At the end the rows are those of a replay, each time, on every store.
//!
//! The tests start themselves as the processes that are killed and paused. `ANNALS_TEST_KILLS` says
//! how often they are killed at each step.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // What must not fail is unwrapped, and the figures are shown.

#[cfg(feature = "postgres")]
mod databases;
mod files;
mod ground;
#[cfg(feature = "postgres")]
mod heads;
mod killed;
mod paused;
mod poisoned;
mod rebuilt;
mod restored;
#[cfg(feature = "postgres")]
#[path = "../../store-postgres/tests/server/mod.rs"]
mod server;
mod shared;
mod tally;
mod victim;

/// What holds on every store.
macro_rules! proofs {
    ($ground:path) => {
        proofs! { $ground;
            killed: a_worker_that_is_killed_after_it_has_read_harms_nothing, a_worker_that_is_killed_while_it_folds_harms_nothing,
                a_worker_that_is_killed_before_it_writes_harms_nothing, a_worker_that_is_killed_while_it_writes_harms_nothing,
                a_worker_that_is_killed_between_its_write_and_the_commit_harms_nothing,
                a_worker_that_is_killed_after_a_commit_harms_nothing,
                a_worker_that_is_killed_before_it_renews_its_lease_harms_nothing,
                a_checkpoint_in_a_second_transaction_applies_events_twice;
            paused: a_worker_that_is_paused_past_its_lease_is_refused_each_time;
            poisoned: a_poison_event_per_thousand_delays_its_key_alone_and_what_waited_drains_in_order;
            rebuilt: readers_see_a_whole_view_while_those_who_build_it_anew_are_killed_20_times;
            restored: a_log_that_was_restored_from_a_backup_stops_the_view_which_says_what_to_do,
                a_restored_log_that_went_on_stops_the_view_and_a_rebuild_is_right_again,
                another_log_in_the_place_of_the_one_that_was_folded_is_refused,
                a_view_that_was_restored_with_its_log_goes_on_from_there;
            shared: processes_share_slots_fairly_whoever_comes_dies_stands_still_or_is_cut_off;
        }
    };
    ($ground:path; $($file:ident: $($proof:ident),+;)+) => { $($(
        #[tokio::test(flavor = "multi_thread")]
        async fn $proof() {
            crate::$file::$proof(&$ground().await).await;
        }
    )+)+ };
}

mod on_sqlite {
    proofs!(crate::files::Files::new);
}

/// Left out by this name where there is no server.
#[cfg(feature = "postgres")]
mod on_postgres {
    proofs!(crate::databases::Databases::new);
    proofs! { crate::databases::Databases::new; heads: all_who_read_obey_one_head; }
}
