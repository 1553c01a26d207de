//! The list of the cases, and the macro that makes a test of each.

/// Runs the contract suite against a backend: one test per promise.
///
/// `fixture` makes a fresh, empty [`Fixture`](crate::conformance::Fixture) for every test (it may
/// `.await`). `traits` names what the store can do: `atomic`
/// ([over streams](crate::Store::atomic)), `tagged` ([`TaggedStore`](crate::TaggedStore)),
/// `snapshots` ([`SnapshotStore`](crate::SnapshotStore)), `views`
/// ([`ViewStore`](crate::ViewStore)), `inline` ([`InlineViews`](crate::InlineViews)), and `shared`
/// when several handles may have it open at once. A test compares that with what the opened store
/// says.
///
/// The whole test file of a backend:
///
/// ```
/// //! The contract of a store, on the memory store.
/// annals_core::conformance! {
///     fixture: annals_core::conformance::MemoryFixture::with_partitions(3),
///     traits: [snapshots, views, inline, shared],
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

/// Runs what the contract says of [`CustomTables`](crate::CustomTables) against a backend: one test
/// per promise, in a module or a file of its own.
///
/// `fixture` makes a fresh, empty [`TablesFixture`](crate::conformance::TablesFixture) for every
/// test (it may `.await`). `store-sqlite/tests/custom_tables.rs` is a file to copy.
#[macro_export]
macro_rules! conformance_of_custom_tables {
    (fixture: $fixture:expr $(,)?) => {
        async fn conformance_fixture() -> impl $crate::conformance::TablesFixture {
            $fixture
        }

        $crate::__conformance_cases! { [$crate::__conformance_tests] {} custom_tables }
    };
}

/// Runs what the contract says of stores whose partitions have owners against a backend: one test
/// per promise, in a module or a file of its own.
///
/// `fixture` makes a fresh, empty [`OwnedFixture`](crate::conformance::OwnedFixture) for every test
/// (it may `.await`). `store-kafka/tests/store_contract.rs` is a file to copy.
#[macro_export]
macro_rules! conformance_of_owners {
    (fixture: $fixture:expr $(,)?) => {
        async fn conformance_fixture() -> impl $crate::conformance::OwnedFixture {
            $fixture
        }

        $crate::__conformance_cases! { [$crate::__conformance_tests] {} owned }
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
                of_a_refused_request_succeeds_once_its_expectation_holds,
                without_events_is_invalid,
                naming_one_id_twice_is_invalid,
                beyond_a_limit_is_invalid_and_names_the_limit,
                up_to_its_limits_is_accepted,
                of_many_events_numbers_them_one_after_another,
                returns_the_position_after_which_the_next_one_is_read,
                keeps_the_order_of_each_of_four_writers,
                under_a_version_lets_exactly_one_of_four_writers_win,
                of_a_new_stream_by_many_succeeds_exactly_once,
                of_a_thousand_events_is_contiguous_and_seen_whole,
                gives_back_every_byte,
                keeps_the_event_time_to_the_microsecond,
                is_recorded_at_the_time_of_the_clock,
                records_no_earlier_time_when_the_clock_goes_back,
                accepts_every_legal_name,
                survives_reopening,
                that_is_refused_leaves_no_gap,
                with_rows_is_refused_by_a_store_without_inline_views,
            }
            retry {
                gets_what_the_first_append_got_whatever_is_expected,
                is_recognised_after_reopening,
                is_recognised_after_many_other_appends,
                by_eight_tasks_writes_once_and_answers_all_alike,
                with_other_content_is_refused,
                is_compared_by_its_content_and_keeps_the_first_metadata,
                is_compared_by_the_callers_digest_where_one_was_given,
                in_another_stream_is_refused_and_names_the_first_stream,
                of_events_since_hidden_or_removed_gets_the_original_places,
                of_a_request_gets_the_first_result,
                of_a_shared_append_gets_the_first_result,
                of_a_request_by_racers_keeps_the_first_result,
                is_answered_without_asking_the_clock,
                that_asks_first_is_told_what_became_of_each_id,
                of_a_thousand_ids_is_found,
            }
            streams {
                are_changed_exactly_when_the_expectation_holds,
                that_are_deleted_are_empty_and_keep_counting,
                that_are_absent_stay_so_when_deleted,
                that_are_tombstoned_stay_so_for_ever,
                that_are_truncated_hide_only_earlier_events,
                that_are_archived_lose_events_and_reuse_no_position,
                that_are_archived_are_reported_by_pages_of_the_log,
                that_are_archived_at_length_are_reported_over_several_pages,
                are_changed_without_a_trace_in_the_log,
                are_deleted_or_written_but_not_both_under_one_version,
            }
            read {
                of_an_unknown_stream_is_empty,
                says_what_the_stream_is,
                honours_range_limit_and_direction,
                shows_of_a_range_what_truncation_and_deletion_left,
                loses_and_repeats_nothing_at_the_borders_of_pages,
                of_large_events_comes_in_pages_that_fit_into_memory,
                shows_one_moment,
            }
            log {
                that_is_empty_ends_where_it_starts,
                has_only_its_partitions,
                is_dense_and_holds_appends_in_commit_order,
                honours_range_limit_and_direction,
                loses_and_repeats_nothing_at_the_borders_of_pages,
                says_in_long_pages_what_it_says_in_short_ones,
                is_the_same_for_every_reader_while_ten_writers_append,
                has_one_head_for_all_who_ask,
                wakes_who_waits_for_its_first_event,
                gives_who_starts_at_the_head_exactly_what_comes_later,
                filters_by_type_category_prefix_tags_and_times,
                tells_how_far_a_filtered_page_has_looked,
                is_filtered_without_missing_what_is_appended_meanwhile,
                refuses_names_that_no_event_has,
                knows_its_position_at_every_moment,
                keeps_its_identity,
            }
            identity {
                a_change_that_is_repeated_is_made_once,
                a_known_id_beside_a_new_one_is_refused,
            }
            bounds {
                a_prefix_finds_streams_after_many_tombstones,
                a_prefix_finds_streams_after_many_refused_appends,
                a_time_bound_within_a_microsecond_is_exact,
            }
            edges {
                reads_from_and_to_both_ends_are_answered,
                a_prefix_is_taken_sign_by_sign,
                types_and_tags_that_differ_in_one_sign_are_apart,
                moments_before_1970_are_found_to_the_microsecond,
                the_last_event_is_found_after_thousands_of_removed_ones,
                a_request_of_many_names_is_answered,
                what_neighbours_are_answered_was_true_at_their_place,
                a_stream_name_of_maximum_length_works_everywhere,
            }
            faults {
                an_outcome_that_is_unknown_is_resolved_by_asking_again,
                a_refusal_whose_answer_was_lost_is_refused_again,
                an_append_that_was_never_sent_succeeds_on_retry,
                an_append_is_whole_or_absent_when_dropped,
                a_stream_change_is_whole_or_absent_when_dropped,
                a_read_that_is_dropped_disturbs_no_other,
                tasks_that_are_aborted_lose_nothing_that_was_acknowledged,
                a_caller_stalled_after_its_append_blocks_no_other,
                a_lost_hint_delays_a_reader_until_its_next_poll,
                a_clock_that_panics_fails_its_own_requests_only,
            }
        }
    };
    ([$($make:tt)*] { $($with:tt)* } atomic) => {
        $($make)*! { { $($with)* }
            atomic {
                checks_streams_that_get_no_event,
                leaves_a_stream_that_is_only_checked_as_it_was,
                reports_every_violation_with_its_index_and_writes_nothing,
                refuses_what_can_never_succeed,
                keeps_the_order_of_the_request_over_its_streams,
                keeps_the_categories_of_its_streams_apart,
                revives_a_deleted_stream_and_counts_on,
                is_recognised_when_it_is_repeated,
                lets_only_one_of_two_crosswise_decisions_through,
                is_never_seen_in_part,
                is_whole_or_absent_wherever_its_future_is_dropped,
            }
        }
    };
    ([$($make:tt)*] { $($with:tt)* } tagged) => {
        $($make)*! { { $($with)* }
            tagged {
                queries_of_an_empty_store_match_nothing,
                queries_match_by_type_stream_and_all_of_the_tags,
                queries_match_the_same_whatever_the_range_limit_and_direction,
                tags_match_whole_and_a_key_may_have_several_values,
                a_condition_holds_when_nothing_newer_matches,
                a_condition_sees_what_was_appended_under_the_last_one,
                a_condition_sees_what_is_hidden_from_ordinary_reads,
                a_query_without_items_is_invalid,
                a_condition_and_expectations_must_hold_together,
                an_append_is_deduplicated_before_its_condition_is_checked,
                of_racers_for_one_tag_exactly_one_wins,
                of_two_crosswise_decisions_at_most_one_goes_through,
                decisions_that_have_nothing_in_common_never_conflict,
                the_head_of_a_decision_belongs_to_its_events,
                an_append_between_reading_and_deciding_is_noticed,
                no_decision_misses_what_it_was_decided_on,
                a_conditional_append_is_whole_or_absent_when_dropped,
            }
        }
    };
    ([$($make:tt)*] { $($with:tt)* } snapshots) => {
        $($make)*! { { $($with)* }
            snapshots {
                are_found_by_the_newest_version_that_was_asked_for,
                at_the_same_version_replace_each_other,
                of_another_fold_or_stream_are_not_given,
                come_back_byte_for_byte_after_reopening,
                change_nothing_of_the_log,
                saved_by_many_at_once_are_all_kept,
                of_an_archived_stream_are_removed_with_its_events,
            }
        }
    };
    ([$($make:tt)*] { $($with:tt)* } views) => {
        $($make)*! { { $($with)* }
            leases {
                are_held_by_one_until_the_store_clock_ends_them,
                are_renewed_until_another_worker_takes_them,
                are_renewed_together_each_by_itself,
                that_are_given_back_are_free_at_once,
                never_reuse_an_epoch,
                asked_for_by_many_are_granted_to_exactly_one,
                are_listed_by_prefix_byte_by_byte,
                survive_reopening,
            }
            generations {
                begin_empty_and_come_back_as_they_were_begun,
                that_no_store_can_keep_are_refused,
                have_ids_that_grow_and_never_return,
                serve_the_readers_of_their_version_after_the_switch,
                are_switched_in_one_moment,
                that_are_dropped_take_everything_along_and_say_so,
                on_which_readers_depend_are_not_dropped,
                are_found_by_the_name_of_their_view,
                are_polled_with_their_checkpoints_and_leases,
            }
            steps {
                change_everything_together,
                that_can_never_succeed_change_nothing,
                keep_of_the_past_what_the_view_keeps,
                under_an_older_epoch_are_fenced,
                under_a_lease_that_was_given_back_are_fenced,
                under_a_lease_that_ended_without_takeover_are_committed,
                from_another_checkpoint_than_the_slots_are_fenced,
                from_one_place_by_many_at_once_are_taken_once,
                of_other_slots_partitions_and_views_are_independent,
                keep_the_state_byte_for_byte,
                keep_dead_letters_in_order_and_settle_them,
                forget_the_reason_of_what_is_archived,
                find_what_operators_decided,
                whose_answer_was_lost_are_resolved_by_the_checkpoint,
                are_whole_or_absent_wherever_their_future_is_dropped,
                and_all_else_disturb_no_other_when_dropped,
            }
            state {
                is_written_with_the_rows_or_not_at_all,
                is_fenced_by_the_epoch,
                is_read_in_the_order_of_bytes,
                is_read_in_pages_by_bytes,
                holds_a_value_of_a_mebibyte,
                is_gone_with_its_generation,
                is_there_after_reopening,
            }
            rows {
                by_keys_are_those_that_exist,
                by_a_range_of_keys_honour_every_kind_of_bound,
                by_an_index_are_ordered_by_entry_then_key,
                are_found_by_their_newest_entries_only,
                are_neither_lost_nor_repeated_at_the_borders_of_pages,
                that_are_large_come_in_pages_that_fit_into_memory,
                of_a_page_belong_to_one_moment,
            }
            past {
                is_known_before_at_inside_and_after_each_run,
                of_rows_keeps_values_and_times_exactly,
                has_the_versions_of_a_key_in_order,
                has_keys_that_are_or_were,
                tells_which_keys_changed_between_two_positions,
                knows_what_touched_a_key,
                that_is_forgotten_is_not_answered_and_the_rest_stays,
                of_a_view_that_keeps_none_is_never_answered,
                equals_a_replay_at_every_position_of_a_random_history,
            }
        }
    };
    ([$($make:tt)*] { $($with:tt)* } inline) => {
        $($make)*! { { $($with)* }
            inline {
                rows_are_written_with_their_append_at_its_version,
                rows_of_a_refused_append_are_not_written,
                rows_of_a_repeated_append_are_not_written_again,
                rows_at_another_version_are_skipped_by_the_append,
                rows_of_a_dropped_generation_are_skipped_by_the_append,
                rows_that_are_never_valid_are_refused_with_their_append,
                rows_may_be_removed_and_keep_their_version,
                row_versions_are_kept_at_the_positions_of_events,
                steps_leave_rows_as_appends_made_them,
                steps_over_rows_that_moved_elsewhere_are_fenced,
                steps_without_the_target_version_of_a_row_are_refused,
                rows_survive_reopening,
                appends_and_steps_at_once_fold_every_event_once,
            }
        }
    };
    ([$($make:tt)*] { $($with:tt)* } custom_tables) => {
        $($make)*! { { $($with)* }
            custom_tables {
                and_the_checkpoint_change_together,
                lose_a_part_that_fails_and_keep_the_others,
                do_not_change_by_work_that_fails_or_panics,
                are_not_changed_by_a_fenced_worker,
                come_with_a_step_that_their_work_may_change,
                do_not_change_with_a_step_that_can_never_succeed,
                do_not_change_by_work_that_ends_the_transaction,
                leave_rows_of_inline_views_as_appends_made_them,
                come_and_go_with_a_switch_and_a_drop,
            }
        }
    };
    ([$($make:tt)*] { $($with:tt)* } owned) => {
        $($make)*! { { $($with)* }
            owned {
                an_append_to_a_foreign_partition_names_the_owner,
                a_new_owner_goes_on_at_the_next_version,
                an_owner_that_was_shut_out_acknowledges_nothing,
                of_two_that_own_at_once_what_is_acknowledged_stays,
                a_reader_sees_appends_soon_and_whole,
                a_lost_local_copy_is_made_again,
                an_id_is_known_after_the_copy_was_lost,
            }
        }
    };
    ([$($make:tt)*] { $($with:tt)* } shared) => {
        $($make)*! { { $($with)* }
            shared {
                handles_see_each_others_commits,
                handles_refuse_what_the_other_made_stale,
                handles_recognise_what_the_other_appended,
                handles_let_one_writer_win_each_version,
                handles_with_clocks_that_differ_never_record_an_earlier_time,
                handles_read_the_same_log_while_the_other_appends,
                a_handle_stays_usable_when_the_other_is_dropped,
                a_neighbour_that_is_refused_supports_no_expectation,
            }
        }
    };
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
    all! { always atomic tagged snapshots views inline custom_tables owned shared }
}
