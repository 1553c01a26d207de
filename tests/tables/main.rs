//! Tables of one's own and rows that travel with appends, in the database of the log, with the
//! programs that keep them: what is taken in, left out and built anew; and what is left when
//! processes are killed at any moment, or connections break around a commit.
//!
//! The tests start themselves as the processes that are killed. `ANNALS_TEST_KILLS` says how many.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // What must not fail is unwrapped, and the figures are shown.

mod bank;
#[cfg(feature = "postgres")]
mod cut;
#[cfg(feature = "postgres")]
mod databases;
mod files;
mod follows;
mod ground;
mod killed;
mod ledger;
#[cfg(feature = "postgres")]
#[path = "../../store-postgres/tests/relay/mod.rs"]
mod relay;
#[cfg(feature = "postgres")]
#[path = "../../store-postgres/tests/server/mod.rs"]
mod server;

/// What holds on every store.
macro_rules! proofs {
    ($ground:path) => {
        proofs! { $ground;
            follows: tables_follow_the_log_and_go_on_where_the_last_program_stopped,
                an_event_that_fails_undoes_itself_alone_and_stops_the_projection_until_it_is_left_out,
                an_event_is_tried_again_when_its_trouble_has_passed,
                readers_see_whole_tables_while_new_ones_are_built_and_others_append,
                a_build_that_is_called_off_takes_its_tables_along,
                an_event_with_a_key_delays_only_its_key_until_a_person_has_looked;
            killed: inline_rows_and_own_tables_equal_a_replay_when_their_processes_are_killed;
        }
    };
    ($ground:path; $($file:ident: $($proof:ident),+;)+) => { $($(
        #[tokio::test(flavor = "multi_thread")]
        async fn $proof() {
            crate::$file::$proof::<$ground>().await;
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

/// Left out by this name where there is no server.
#[cfg(feature = "postgres")]
mod on_postgres {
    proofs!(crate::databases::Databases);
    proofs! { crate::databases::Databases;
        follows: work_that_ends_the_transaction_stops_the_projection_where_it_was;
    }

    /// The process that the tests start and kill.
    #[test]
    #[ignore = "it is the process that the other tests start and kill"]
    fn works_until_it_is_killed() {
        crate::killed::work::<crate::databases::Databases>();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn inline_rows_and_own_tables_equal_a_replay_when_connections_break_around_each_commit() {
        crate::cut::inline_rows_and_own_tables_equal_a_replay_when_connections_break_around_each_commit().await;
    }
}
