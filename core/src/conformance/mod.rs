//! The contract suite: what every backend owes, once, as one named test per promise.
//!
//! A backend says how its store is opened ([`Fixture`]) and which traits it has, and runs all of it
//! with [`conformance!`](macro@crate::conformance):
//!
//! ```
//! use annals_core::conformance::MemoryFixture;
//!
//! annals_core::conformance! {
//!     fixture: MemoryFixture::with_partitions(1),
//!     traits: [atomic, tagged, snapshots, views, inline, shared],
//! }
//! # fn main() {}
//! ```
//!
//! There is no list of cases to pick from. What a backend cannot do is a trait that it does not
//! have; a test of its own asks the opened store whether what was declared is what it offers, so
//! nothing is skipped silently.
//!
//! The cases are plain functions over a [`Fixture`], in a module per subject: `append`, `retry`,
//! `streams`, `read`, `log` and `faults` for everybody; `atomic`, `tagged` and `snapshots` for
//! those who have the trait; `leases`, `generations`, `steps`, `state`, `rows` and `past` for those
//! who keep read models; `inline` for those with inline views; `shared` for stores that several
//! handles (several processes) may have open at once; `custom_tables` for those who have tables of
//! the application's own in their transactions, by
//! [`conformance_of_custom_tables!`](macro@crate::conformance_of_custom_tables); `owned` for stores
//! whose partitions have owners, by
//! [`conformance_of_owners!`](macro@crate::conformance_of_owners). Stores that
//! misbehave on purpose are in [`faulty`], and for tests that kill a process and count what is
//! left there is [`numbered`].

// A case is a test: what must not fail is unwrapped, and its name is its documentation.
#![allow(clippy::unwrap_used)]

mod dice;
mod dropped;
pub mod faulty;
mod fixture;
mod list;
pub mod numbered;
mod rounds;
mod view_words;
mod words;

#[doc(hidden)]
pub mod append;
#[doc(hidden)]
pub mod atomic;
#[doc(hidden)]
pub mod bounds;
#[doc(hidden)]
pub mod custom_tables;
#[doc(hidden)]
pub mod edges;
#[doc(hidden)]
pub mod faults;
#[doc(hidden)]
pub mod generations;
#[doc(hidden)]
pub mod identity;
#[allow(missing_docs, reason = "each name is the promise")]
pub mod inline;
#[doc(hidden)]
pub mod leases;
#[doc(hidden)]
pub mod log;
#[doc(hidden)]
pub mod owned;
#[doc(hidden)]
pub mod past;
#[doc(hidden)]
pub mod read;
#[doc(hidden)]
pub mod retry;
#[doc(hidden)]
pub mod rows;
#[doc(hidden)]
pub mod shared;
#[doc(hidden)]
pub mod snapshots;
#[doc(hidden)]
pub mod state;
#[doc(hidden)]
pub mod steps;
#[doc(hidden)]
pub mod streams;
#[doc(hidden)]
pub mod tagged;

pub use dice::Dice;
pub use dropped::drop_after;
pub use fixture::{Fixture, MemoryFixture, OwnedFixture, TablesFixture};
pub use rounds::rounds;

use std::future::Future;
use std::time::Duration;

/// A case that takes longer than this hangs: it waits for something that the store owes and never
/// does.
const CASE_TAKES_AT_MOST: Duration = Duration::from_secs(120);

/// Runs one case on several threads, and fails it when it hangs.
#[doc(hidden)]
pub fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build();
    runtime.expect("threads can be started").block_on(async {
        tokio::time::timeout(CASE_TAKES_AT_MOST, Box::pin(case))
            .await
            .expect("the case hangs");
    });
}

/// Fails when the traits that a backend declared are not those that its store offers.
#[doc(hidden)]
pub async fn declared(fixture: &dyn Fixture, declared: &[&str]) {
    let store = words::open(fixture).await;
    let offered = [
        ("atomic", store.atomic()),
        ("tagged", store.tagged().is_some()),
        ("snapshots", store.snapshots().is_some()),
        ("views", store.views().is_some()),
        ("inline", store.inline_views().is_some()),
        ("shared", fixture.is_shared()),
    ];
    for (name, offered) in offered {
        assert_eq!(
            declared.contains(&name),
            offered,
            "`{name}`: declared (left) and offered (right) differ"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::list::cases;

    /// Every `pub async fn` of these files is a case.
    const FILES: [(&str, &[&str]); 22] = [
        (
            "append",
            &[
                include_str!("append.rs"),
                include_str!("append/content.rs"),
                include_str!("append/limits.rs"),
                include_str!("append/writers.rs"),
            ],
        ),
        ("atomic", &[include_str!("atomic.rs")]),
        ("bounds", &[include_str!("bounds.rs")]),
        ("custom_tables", &[include_str!("custom_tables.rs")]),
        ("edges", &[include_str!("edges.rs")]),
        ("faults", &[include_str!("faults.rs")]),
        ("generations", &[include_str!("generations.rs")]),
        ("identity", &[include_str!("identity.rs")]),
        ("inline", &[include_str!("inline.rs")]),
        ("leases", &[include_str!("leases.rs")]),
        (
            "log",
            &[
                include_str!("log.rs"),
                include_str!("log/filters.rs"),
                include_str!("log/pages.rs"),
                include_str!("log/race.rs"),
            ],
        ),
        ("owned", &[include_str!("owned.rs")]),
        ("past", &[include_str!("past.rs")]),
        ("read", &[include_str!("read.rs")]),
        ("retry", &[include_str!("retry.rs")]),
        ("rows", &[include_str!("rows.rs")]),
        ("shared", &[include_str!("shared.rs")]),
        ("snapshots", &[include_str!("snapshots.rs")]),
        ("state", &[include_str!("state.rs")]),
        (
            "steps",
            &[
                include_str!("steps.rs"),
                include_str!("steps/dead_letters.rs"),
                include_str!("steps/dropped.rs"),
                include_str!("steps/fenced.rs"),
            ],
        ),
        ("streams", &[include_str!("streams.rs")]),
        ("tagged", &[include_str!("tagged.rs")]),
    ];

    #[test]
    fn every_case_that_is_written_is_listed() {
        for (module, texts) in FILES {
            let mut written: Vec<&str> = texts
                .iter()
                .flat_map(|text| text.lines())
                .filter_map(|line| line.strip_prefix("pub async fn "))
                .map(|rest| rest.split(['(', '<']).next().unwrap())
                .collect();
            written.sort_unstable();
            let mut listed: Vec<&str> = cases()
                .into_iter()
                .filter(|(of, _)| *of == module)
                .map(|(_, case)| case)
                .collect();
            listed.sort_unstable();
            assert_eq!(
                written, listed,
                "the cases of `{module}`: written (left) and listed (right) differ"
            );
        }
    }

    #[test]
    fn every_file_of_cases_is_looked_at() {
        let public = include_str!("mod.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("pub mod "));
        let modules: Vec<&str> = public
            .map(|rest| rest.trim_end_matches(';'))
            .filter(|name| !["numbered", "faulty"].contains(name))
            .collect();
        assert_eq!(modules, FILES.map(|(file, _)| file));
    }
}
