//! Pipelines over real stores: rows and state are a function of the log, whatever happens to those
//! who write them.
//!
//! The tests start themselves as the processes that are killed; `ANNALS_TEST_LONG=1` kills 50.

// What must not fail is unwrapped, and stores are shared by handles.
#![allow(clippy::unwrap_used, clippy::clone_on_ref_ptr, clippy::print_stdout)]

#[allow(dead_code, reason = "each example is more than a test uses of it")]
#[allow(
    clippy::print_stdout,
    reason = "it is part of a program, which tells a story"
)]
#[path = "../../examples/fraud/afternoon.rs"]
mod afternoon;
mod appended;
mod asked;
#[allow(dead_code, reason = "each example is more than a test uses of it")]
#[path = "../../examples/fraud/bank.rs"]
mod bank;
mod broken;
mod chain;
mod chains;
mod fraud_killed;
mod intake;
mod joined;
mod killed;
mod kinds;
mod lessons;
mod ordered;
mod panics;
mod partitions;
mod redeclared;
mod refused;
mod rolling;
#[path = "../../examples/fraud/rules.rs"]
mod rules;
mod same;
#[cfg(feature = "postgres")]
#[path = "../../store-postgres/tests/server/mod.rs"]
mod server;
mod shop;
mod slow;
mod stopped;
mod trials;
mod unsaved;
#[allow(dead_code, reason = "each example is more than a test uses of it")]
#[path = "../../examples/fraud/verdict.rs"]
mod verdict;
mod verified;

/// What holds on every store.
macro_rules! proofs {
    ($location:path) => {
        proofs! { $location;
            asked: rows_are_asked_as_those_of_views_are;
            broken: sales_survive_every_broken_commit_and_equal_a_rebuild;
            same: a_random_log_gives_one_result_however_it_is_cut;
        }
    };
    ($location:path; $($file:ident: $($proof:ident),+;)+) => { $($(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $proof() {
            crate::$file::$proof($location()).await;
        }
    )+)+ };
}

mod on_memory {
    proofs!(crate::shop::Location::memory);
}

mod on_sqlite {
    proofs!(crate::shop::Location::file);
    proofs! { crate::shop::Location::file;
        killed: killed_processes_leave_the_rows_of_a_rebuild;
    }
}

/// Skipped by this name where there is no server.
#[cfg(feature = "postgres")]
mod on_postgres {
    proofs!(crate::shop::Location::schema);
    proofs! { crate::shop::Location::schema;
        killed: killed_processes_leave_the_rows_of_a_rebuild;
    }
}
