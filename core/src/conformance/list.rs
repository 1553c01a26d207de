//! The list of the cases, and the macro that makes a test of each.

/// Runs the contract suite against a backend: one test per promise.
///
/// `fixture` makes a fresh, empty [`Fixture`](crate::conformance::Fixture) for every test (it may `.await`). `traits` names what
/// the store can do: `atomic` ([`AtomicStreams`](crate::AtomicStreams)), `tagged` ([`TaggedStore`](crate::TaggedStore)),
/// `snapshots` ([`SnapshotStore`](crate::SnapshotStore)), and `shared` when several handles may have it open at once.
/// A test compares that with what the opened store says.
///
/// The whole test file of a backend:
///
/// ```
/// //! The contract of a store, on the memory store.
/// annals_core::conformance! {
///     fixture: annals_core::conformance::MemoryFixture::with_partitions(3),
///     traits: [snapshots, shared],
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance {
    (fixture: $fixture:expr, traits: [$($declared:ident),* $(,)?] $(,)?) => {
        #[allow(dead_code)]
        async fn conformance_fixture() -> impl $crate::conformance::Fixture {
            $fixture
        }

        #[test]
        fn the_store_offers_the_declared_traits_and_no_other() {
            $crate::conformance::run(async {
                let fixture = conformance_fixture().await;
                $crate::conformance::declared(&fixture, &[$(stringify!($declared)),*]).await;
            });
        }
        $crate::__conformance_cases! { [$crate::__conformance_tests] {} always }
        $($crate::__conformance_cases! { [$crate::__conformance_tests] {} $declared })*
    };
}

/// The cases: those of everybody, and those of each trait.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ([$($make:tt)*] { $($with:tt)* } always) => {
        $($make)*! { { $($with)* }
            append {
                happens_exactly_when_its_expectation_holds,
                that_is_refused_writes_nothing_and_says_what_it_found,
                of_a_refused_request_may_be_repeated_when_its_expectation_holds,
                without_events_is_invalid,
                naming_one_id_twice_is_invalid,
                beyond_a_limit_is_invalid_and_names_what_is_too_much,
                up_to_its_limits_is_accepted,
                of_many_events_numbers_them_one_after_another,
                leaves_nothing_behind_the_position_that_it_returns,
                keeps_the_order_of_each_of_four_writers,
                under_a_version_lets_one_of_four_writers_win_and_refuses_only_what_was_stale,
                of_a_new_stream_by_many_lets_exactly_one_begin_it,
                of_a_thousand_events_does_not_mix_with_another_and_is_seen_whole,
                gives_back_every_byte,
                keeps_the_event_time_to_the_microsecond,
                is_recorded_at_the_moment_that_the_clock_tells,
                never_records_an_earlier_time_than_before_also_when_the_clock_runs_back,
                accepts_every_legal_name,
                survives_reopening,
                that_is_refused_leaves_no_hole,
            }
        }
    };
    ([$($make:tt)*] { $($with:tt)* } atomic) => { $($make)*! { { $($with)* } } };
    ([$($make:tt)*] { $($with:tt)* } tagged) => { $($make)*! { { $($with)* } } };
    ([$($make:tt)*] { $($with:tt)* } snapshots) => { $($make)*! { { $($with)* } } };
    ([$($make:tt)*] { $($with:tt)* } shared) => { $($make)*! { { $($with)* } } };
}

/// A module per subject, a test per case.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ({} $($subject:ident { $($case:ident,)* })*) => {
        $(mod $subject {
            $(#[test]
            fn $case() {
                $crate::conformance::run(async {
                    let fixture = super::conformance_fixture().await;
                    $crate::conformance::$subject::$case(&fixture).await;
                });
            })*
        })*
    };
}

/// The names of the cases, for the test that compares them with what is written.
#[cfg(test)]
pub(super) fn cases() -> Vec<(&'static str, &'static str)> {
    macro_rules! names {
        ({} $($subject:ident { $($case:ident,)* })*) => {
            vec![$($((stringify!($subject), stringify!($case)),)*)*]
        };
    }
    macro_rules! all {
        ($($part:ident)*) => { [$(crate::__conformance_cases! { [names] {} $part }),*].concat() };
    }
    all! { always atomic tagged snapshots shared }
}
