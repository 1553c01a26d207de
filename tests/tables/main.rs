//! Custom tables and inline rows, in the database of the log, with the
//! programs that keep them: what is taken in, skipped and rebuilt; and what is left when
//! processes are killed at any moment, or connections break around a commit.
//!
//! The tests start themselves as the processes that are killed; `ANNALS_TEST_LONG=1` kills 200.

// What must not fail is unwrapped, and the figures are shown.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bank;
#[cfg(feature = "postgres")]
mod cut;
#[cfg(feature = "postgres")]
mod databases;
mod files;
mod fixture;
mod follows;
mod inline_and_tables;
mod killed;
#[cfg(feature = "postgres")]
#[path = "../../store-postgres/tests/relay/mod.rs"]
mod relay;
#[cfg(feature = "postgres")]
#[path = "../../store-postgres/tests/server/mod.rs"]
mod server;

/// What holds on every store.
macro_rules! proofs {
    ($fixture:path) => {
        proofs! { $fixture;
            follows: tables_follow_the_log_and_resume_after_a_restart,
                a_failing_event_is_undone_and_stops_until_skipped,
                an_event_is_retried_after_a_passing_failure,
                readers_see_whole_tables_during_a_rebuild,
                a_cancelled_build_drops_its_tables,
                an_event_with_a_key_delays_its_key_alone,
                operators_are_answered_while_an_event_is_tried_again;
            killed: killed_processes_leave_rows_equal_to_a_replay;
        }
    };
    ($fixture:path; $($file:ident: $($proof:ident),+;)+) => { $($(
        #[tokio::test(flavor = "multi_thread")]
        async fn $proof() {
            crate::$file::$proof::<$fixture>().await;
        }
    )+)+ };
}

mod on_sqlite {
    proofs!(crate::files::Files);

    /// The process that the tests start and kill.
    #[test]
    #[ignore = "it is the process that the other tests start and kill"]
    fn works_until_it_is_killed() {
        crate::killed::work::<crate::files::Files>();
    }
}

/// Skipped by this name where there is no server.
#[cfg(feature = "postgres")]
mod on_postgres {
    proofs!(crate::databases::Databases);
    proofs! { crate::databases::Databases;
        follows: work_that_ends_the_transaction_stops_the_projection;
    }

    /// The process that the tests start and kill.
    #[test]
    #[ignore = "it is the process that the other tests start and kill"]
    fn works_until_it_is_killed() {
        crate::killed::work::<crate::databases::Databases>();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn cut_connections_leave_rows_equal_to_a_replay() {
        crate::cut::cut_connections_leave_rows_equal_to_a_replay().await;
    }
}
