//! What holds for read models on every backend, through the public door: each promise is compiled
//! once, and is a test of each kind of store.

// A store that cannot be made fails its test.
#![allow(clippy::unwrap_used)]
#![cfg(all(feature = "sqlite", feature = "projections", feature = "macros"))]

use std::pin::Pin;

mod archiving;
mod bank;
mod decisions;
mod edges;
mod exactly_once;
mod gateway;
mod history;
mod inline;
mod key_faults;
mod key_types;
mod large_rows;
mod lifecycle;
mod lifecycles;
mod metrics;
mod nets;
mod panicking;
mod partitions;
mod past;
mod poison;
mod processes;
mod processes_killed;
mod queries;
mod reactors;
mod reactors_killed;
mod rebuild;
mod redeclared;
mod registry;
mod reset;
#[cfg(feature = "postgres")]
#[path = "../../store-postgres/tests/server/mod.rs"]
mod server;
mod shop;
mod shortest;
mod status;
mod test_store;
mod unfit;
mod unread;
mod verified;
mod watch;
mod ways;

use test_store::{Stores, make_stores_with};

/// Keeps a promise on the stores that this makes, on one thread or on as many as are named.
fn keeps(stores: Stores, threads: &[usize], promise: fn() -> Pin<Box<dyn Future<Output = ()>>>) {
    make_stores_with(stores);
    let mut runtime = match threads {
        [] => tokio::runtime::Builder::new_current_thread(),
        [threads, ..] => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(*threads);
            runtime
        }
    };
    runtime.enable_all().build().unwrap().block_on(promise());
}

/// Every promise, as a test on the stores that something makes. Those that draw their histories at
/// random come first, and make runtimes of their own.
macro_rules! promises {
    ($stores:path) => { promises! { $stores;
        [
            history::row_history_and_changes_equal_a_replay,
            lifecycles::inline_async_live_and_replay_agree_at_every_moment,
            past::as_of_any_position_equals_a_replay,
            poison::retried_dead_letters_fold_as_if_never_delayed
        ]
        archiving:
            a_rebuild_that_needs_archived_events_stops_and_names_them,
            a_rebuild_folds_the_summary_that_the_view_names,
            an_answer_folded_from_the_log_lacks_no_archived_event,
            archiving_what_a_follower_has_not_read_is_refused,
            what_was_valid_before_a_summary_occurred_is_no_answer,
            a_view_answers_about_the_past_exactly_or_refuses;
        decisions:
            a_rebuild_repeats_skip_decisions,
            what_is_discarded_is_gone_for_its_key_alone,
            a_skip_needs_a_reason_and_an_exact_position,
            an_event_that_one_generation_lacks_can_be_skipped,
            a_dead_letter_of_a_build_alone_can_be_skipped,
            a_skip_whose_answer_is_lost_delays_no_later_event,
            an_event_without_a_key_stops_until_skipped,
            too_many_dead_letters_stop_the_projection,
            an_event_skipped_for_one_key_counts_for_others,
            settling_during_appends_folds_each_event_once [2 threads];
        edges:
            keys_of_any_text_have_rows_of_their_own,
            values_at_the_ends_of_their_types_come_back,
            a_follower_goes_on_where_its_last_event_was_archived,
            moments_and_positions_outside_of_the_log_are_answered,
            a_queue_of_several_pages_is_settled_whole,
            many_keys_are_asked_for_at_once,
            named_keys_come_in_pages_now_and_in_the_past,
            the_order_of_a_views_types_is_no_other_view,
            an_empty_stream_name_part_is_no_key;
        exactly_once:
            a_worker_that_lost_its_slot_changes_nothing,
            workers_stealing_each_others_lease_apply_every_event_once [2 threads];
        history:
            several_rows_are_read_as_of_one_moment [2 threads],
            valid_at_folds_what_had_occurred_by_then,
            questions_beyond_the_kept_history_are_errors,
            history_past_its_retention_is_forgotten_with_an_error,
            no_past_is_forgotten_that_a_slot_still_makes;
        inline:
            inline_rows_are_read_at_once_by_every_query,
            a_decision_over_several_takes_all_rows_along,
            a_request_that_is_repeated_counts_once,
            concurrent_commands_on_one_row_fold_once_each,
            get_folds_what_another_program_appended,
            a_poison_event_does_not_fail_its_command,
            asking_inline_for_a_dead_lettered_write_is_an_error,
            a_watcher_is_told_of_rows_that_appends_wrote,
            becoming_inline_rebuilds_and_a_rebuilt_view_stays_inline,
            a_fold_that_reads_the_position_is_right_inline,
            a_view_that_cannot_be_inline_is_refused_at_start,
            an_event_for_another_streams_row_stops_the_view;
        key_faults:
            a_row_that_becomes_nan_is_a_dead_letter,
            a_row_without_a_json_form_is_a_dead_letter,
            a_row_that_cannot_be_written_is_a_dead_letter,
            a_field_that_is_written_and_not_read_is_named,
            a_row_that_reads_back_otherwise_is_a_dead_letter,
            an_index_entry_too_long_is_a_dead_letter,
            an_index_that_panics_is_a_dead_letter,
            an_inline_index_that_panics_refuses_no_command,
            a_serializer_that_panics_is_a_dead_letter,
            a_default_that_panics_is_a_dead_letter,
            a_key_that_is_too_long_is_a_dead_letter,
            an_unreadable_row_delays_its_key_only,
            after_a_stop_waiting_ends_at_once,
            two_hundred_decisions_at_once_all_take_effect,
            a_past_that_the_log_has_lost_is_an_error;
        key_types:
            an_index_range_has_its_type_and_skips_absent,
            two_types_that_read_one_stored_name_both_fold,
            streams_of_other_names_never_share_a_row;
        large_rows:
            a_batch_goes_on_with_all_of_its_rows,
            a_build_is_compared_with_all_of_its_rows,
            a_build_that_goes_on_meanwhile_is_compared,
            a_page_of_history_makes_only_its_own_versions,
            pages_of_the_past_end_where_pages_of_the_present_do;
        lifecycle:
            a_reader_that_waits_for_a_command_sees_it,
            a_program_goes_on_where_the_last_one_stopped,
            starting_waits_for_everything_that_is_in_the_log,
            slots_divide_the_keys_and_lose_none,
            a_view_being_built_answers_building,
            a_dead_programs_slot_is_free_after_its_lease,
            a_stopped_programs_slot_is_taken_at_once,
            two_projections_of_one_name_are_an_error,
            settings_that_nothing_could_work_with_are_refused,
            another_log_is_noticed_and_stops_the_projection;
        lifecycles:
            a_live_view_pages_as_a_stored_one,
            a_live_view_refuses_what_needs_stored_rows,
            a_live_view_answers_by_event_time,
            a_row_is_what_its_aggregate_is_after_a_deletion;
        nets:
            an_inline_row_that_cannot_be_kept_refuses_no_command,
            a_live_row_that_cannot_be_stored_stays_unchanged,
            an_overlong_reactor_key_is_a_dead_letter,
            calls_that_hang_end_at_their_time_limit,
            a_decision_about_one_key_breaks_off_no_other_call,
            each_part_of_an_event_reaches_its_own_key,
            an_overlong_process_id_is_a_dead_letter,
            a_panic_at_a_due_deadline_delays_no_other_process,
            floats_and_maps_in_rows_equal_those_of_a_rebuild;
        panicking:
            a_call_that_panics_anywhere_stops_its_key_only,
            a_row_that_panics_anywhere_stops_its_key_only;
        past:
            a_moment_that_is_no_time_is_refused;
        poison:
            a_poison_event_delays_only_its_own_key,
            asking_for_a_dead_lettered_write_is_an_error,
            a_key_that_waits_still_waits_after_a_restart,
            a_fold_with_attempts_is_retried_by_itself,
            poison_among_many_events_delays_its_keys_and_no_other,
            an_upcast_to_several_is_folded_whole_or_not,
            a_long_reason_is_recorded_as_far_as_it_is_read;
        processes:
            a_paid_order_is_shipped_and_its_process_finished,
            a_deadline_is_reached_once_when_the_clock_says_so,
            a_deadline_passed_while_stopped_is_reached_after_restart,
            a_process_that_begins_anew_reaches_its_deadline,
            a_command_that_is_refused_means_what_the_process_says,
            what_a_process_does_is_caused_by_the_event,
            two_reactions_of_a_process_to_one_event_take_effect;
        processes_killed:
            a_process_dropped_at_any_call_gives_commands_once [2 threads],
            many_processes_survive_repeated_kills [2 threads];
        queries:
            pages_by_key_and_by_index_neither_lose_nor_repeat,
            a_removed_row_is_gone_and_comes_back_fresh,
            what_cannot_be_seen_in_time_says_what_holds_it;
        reactors:
            a_slow_key_delays_no_other_and_keeps_order,
            events_settled_after_a_slow_one_are_not_repeated,
            no_more_events_are_held_than_the_window_allows,
            a_failed_key_continues_in_order_after_a_retry,
            a_skipped_event_lets_later_ones_go_on,
            a_rebuild_calls_no_reactor,
            a_new_reactor_begins_at_the_head_by_default,
            what_a_reactor_appends_is_caused_by_the_event,
            repeating_from_a_moment_uses_the_same_keys,
            a_repetition_goes_on_in_the_next_program,
            a_reactor_can_skip_ahead;
        reactors_killed:
            nothing_is_missed_and_every_repetition_has_the_same_key [2 threads],
            programs_that_keep_taking_over_from_each_other_miss_nothing [2 threads],
            at_most_once_is_never_twice [2 threads];
        rebuild:
            readers_see_a_complete_view_throughout_a_rebuild [2 threads],
            a_build_goes_on_where_the_last_program_died,
            a_build_writes_a_row_seldom_that_changes_often,
            a_build_finds_rows_that_are_not_at_hand,
            one_rebuild_at_a_time_and_it_is_cancellable,
            a_roll_back_is_current_and_kept_can_be_dropped,
            a_roll_back_never_goes_to_a_generation_that_lags,
            a_new_version_is_built_while_the_old_serves,
            an_old_version_that_was_never_built_is_an_error,
            readers_see_what_their_program_follows,
            rows_of_other_fields_are_rebuilt,
            one_generation_is_kept_to_go_back_to;
        redeclared:
            a_view_that_is_declared_otherwise_reads_what_is_right,
            programs_of_other_declarations_share_no_rows,
            a_view_that_is_rolled_back_can_be_reset,
            entries_of_another_type_are_in_an_index_of_their_own,
            a_generation_that_does_not_name_its_keys_goes_on,
            programs_that_start_in_turn_have_one_generation_each;
        registry:
            a_running_program_lists_what_it_is_made_of,
            stored_events_are_shown_as_the_program_reads_them_today,
            numbers_of_any_size_are_shown_to_the_last_digit,
            states_are_shown_at_any_version,
            rows_are_folded_without_their_type;
        reset:
            a_reset_to_any_position_gives_the_same_rows,
            a_reset_keeps_the_dead_letters_of_then,
            a_reset_goes_on_where_the_last_program_died,
            a_reset_without_history_says_to_rebuild,
            event_time_answers_survive_a_reset,
            a_view_of_one_row_can_be_reset;
        shortest:
            a_view_needs_one_derive_and_one_function;
        status:
            a_status_shows_progress_and_rows_at_hand,
            a_log_that_stalls_says_so_in_the_status,
            a_slot_held_elsewhere_shows_owner_and_lag,
            waiting_for_a_stopped_projection_fails_at_once,
            starting_reports_progress_until_complete,
            caught_up_fails_when_a_view_stops;
        unfit:
            a_row_invalid_between_events_is_treated_alike_everywhere,
            a_row_invalid_between_events_is_treated_alike_when_built;
        unread:
            a_reactor_stops_at_unread_archived_events,
            a_reactor_is_called_for_what_precedes_archived_events,
            archiving_waits_for_a_reactor_that_repeats_calls,
            a_process_stops_at_unread_archived_events,
            an_inline_view_refuses_rows_that_lack_archived_events,
            a_command_writes_no_inline_row_that_lacks_archived_events,
            a_view_that_skips_archived_events_folds_the_others,
            archiving_waits_for_no_reactor_of_other_events;
        verified:
            a_generation_unlike_a_replay_is_never_switched_to,
            rows_from_all_over_the_view_are_compared,
            a_key_that_becomes_a_dead_letter_refuses_no_switch,
            a_build_whose_past_is_forgotten_is_switched_to,
            slots_that_are_not_level_are_compared_with_the_log [4 threads];
        watch:
            a_watcher_sees_every_change_of_its_row,
            watch_all_sees_every_row_change,
            what_is_settled_late_is_told_too,
            a_slow_watcher_reads_again_and_sees_the_newest,
            a_switch_to_another_generation_tells_watchers_to_look_again,
            what_another_process_folds_is_noticed,
            what_another_process_retries_is_noticed;
        ways:
            what_stops_a_start_is_skipped_in_the_background,
            what_stops_a_reactor_is_skipped,
            a_stopped_program_sees_again_after_a_start,
            after_history_is_forgotten_later_moments_answer,
            a_declared_history_answers_what_was_refused,
            a_dead_letter_of_an_archived_event_is_skipped,
            a_reactors_archived_dead_letter_is_discarded,
            a_retry_forgets_the_causes_of_archived_events_elsewhere,
            generations_of_older_programs_are_dropped_before_archiving,
            what_no_program_follows_is_dropped_before_archiving,
            a_reactor_at_archived_events_continues_after_them,
            a_log_without_read_models_takes_them_elsewhere,
            a_view_without_events_is_refused_by_name,
            a_view_under_the_name_of_a_reactor_is_refused,
            archived_events_that_a_follower_lacks_require_a_rebuild;
    } };
    (
        $stores:path;
        [$($from:ident::$random:ident),+]
        $($file:ident: $($promise:ident $([$threads:literal threads])?),+;)+
    ) => {
        $(mod $file { $(
            #[test]
            fn $promise() {
                crate::keeps($stores, &[$($threads)?], || Box::pin(crate::$file::$promise()));
            }
        )+ })+
        mod at_random { $(
            #[test]
            fn $random() {
                crate::test_store::make_stores_with($stores);
                crate::$from::$random();
            }
        )+ }
    };
}

mod in_memory {
    use std::sync::Arc;

    use annals_core::conformance::{Fixture, MemoryFixture};

    fn new() -> Arc<dyn Fixture> {
        Arc::new(MemoryFixture::with_partitions(1))
    }

    promises!(super::new);
}

mod on_sqlite {
    use std::sync::Arc;

    use annals::sqlite::{Options, SqliteStore};
    use annals::{Clock, Store};
    use annals_core::conformance::Fixture;
    use tempfile::TempDir;

    /// A file in a directory of its own; every handle opens it again, as another process would.
    #[derive(Debug)]
    struct OnFile(TempDir);

    #[async_trait::async_trait]
    impl Fixture for OnFile {
        async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
            let file = Options::file(self.0.path().join("log.db"));
            Arc::new(SqliteStore::open_with(file.clock(clock)).await.unwrap())
        }
    }

    fn new() -> Arc<dyn Fixture> {
        Arc::new(OnFile(TempDir::new().unwrap()))
    }

    promises!(super::new);
}

/// `cargo xtask test` skips it by this name where there is no server.
#[cfg(feature = "postgres")]
mod on_postgres {
    use std::sync::Arc;

    use annals::{Clock, Store};
    use annals_core::conformance::Fixture;
    use annals_postgres::PostgresStore;

    use crate::server::Schema;

    #[async_trait::async_trait]
    impl Fixture for Schema {
        async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
            Arc::new(
                PostgresStore::connect_with(self.options().clock(clock))
                    .await
                    .unwrap(),
            )
        }
    }

    fn new() -> Arc<dyn Fixture> {
        Arc::new(Schema::new())
    }

    promises!(super::new);
}
