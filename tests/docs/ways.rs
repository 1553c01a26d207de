//! Every error text that names a way out has a test that takes it.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::collections::BTreeSet;
use std::fs;

use super::{files, joined, root};

/// The rooms whose texts are looked at. Those of pipelines, Kafka and of change data capture are
/// walked in their own suites.
const ROOMS: [&str; 6] = [
    "core/src",
    "runner/src",
    "projections/src",
    "store-sqlite/src",
    "store-postgres/src",
    "src",
];
const OTHER_SUITES: [&str; 5] = ["conformance", "testing", "plans", "pipeline", "tests.rs"];

/// What a text tells its reader to do, after one of [`BEFORE`].
const VERBS: &str = "add allow ask begin build bring call change connect create declare discard do \
    drop end give grant keep leave let load lower make mend merge migrate name open pass publish \
    put raise read rebuild register remove rename repair restart restore retry run say see set \
    skip start stop take try update upgrade use write";

const BEFORE: [&str; 5] = ["; ", ". ", ": ", ", ", ", or "];

/// A part of a text, and the test that takes its way. The file of the test has the same part.
const WALKED: &[(&str, &str)] = &[
    (
        "rebuild it, or declare a new version",
        "a_pipeline_over_more_partitions_needs_a_rebuild",
    ),
    (
        "declare a new version without `by_partition`",
        "a_pipeline_over_more_partitions_needs_a_rebuild",
    ),
    (", or rebuild it", "a_rebuild_goes_on_over_more_partitions"),
    (
        "begin it in the database of the store",
        "events_are_not_staged_in_another_log",
    ),
    (
        "a view is called so too",
        "a_pipeline_with_the_name_of_a_view_is_refused",
    ),
    (
        "merge the streams in one pipeline",
        "one_view_is_written_by_one_pipeline",
    ),
    (
        "drop what no program has any more with `drop_follower`",
        "what_no_program_follows_is_dropped_before_archiving",
    ),
    (
        "drop generations of older programs with `drop_others`",
        "generations_of_older_programs_are_dropped_before_archiving",
    ),
    (
        "drop the generations that it does not follow with `drop_others`",
        "generations_of_older_programs_are_dropped_before_archiving",
    ),
    (
        "give it another name",
        "a_view_under_the_name_of_a_reactor_is_refused",
    ),
    (
        "stop that program first",
        "what_no_program_follows_is_dropped_before_archiving",
    ),
    (
        "name the partition with `skip_event_in`",
        "a_skip_of_one_partition_names_it",
    ),
    (
        "build a new generation with `begin`",
        "a_roll_back_never_goes_to_a_generation_that_lags",
    ),
    (
        "rebuild with another fold",
        "a_skip_needs_a_reason_and_an_exact_position",
    ),
    (
        "retry, skip or discard",
        "asking_for_a_dead_lettered_write_is_an_error",
    ),
    (
        "ask about that or later",
        "after_history_is_forgotten_later_moments_answer",
    ),
    (
        "ask about a later moment",
        "an_answer_folded_from_the_log_lacks_no_archived_event",
    ),
    (
        "start the program again",
        "whatever_ends_a_worker_is_in_the_status",
    ),
    (
        "the program was stopped; start it again",
        "a_stopped_program_sees_again_after_a_start",
    ),
    (
        "name one that does with `views_in`",
        "a_log_without_read_models_takes_them_elsewhere",
    ),
    (
        "open the log it belongs to, or give it another name or version",
        "another_log_under_the_same_address_is_refused",
    ),
    (
        "if not, open the right one",
        "a_restored_log_that_went_on_needs_a_rebuild",
    ),
    (
        "another name, and it begins at the end of this log",
        "a_past_that_the_log_has_lost_is_an_error",
    ),
    (
        "raise its version, and build it again",
        "rows_from_all_over_the_view_are_compared",
    ),
    (
        "name them with `events(…)`",
        "a_view_without_events_is_refused_by_name",
    ),
    (
        "`start_in_background`",
        "what_stops_a_start_is_skipped_in_the_background",
    ),
    (
        "do without `views_in`",
        "a_view_that_cannot_be_inline_is_refused_at_start",
    ),
    (
        "`Options::skip_archived`",
        "archived_events_that_a_follower_lacks_require_a_rebuild",
    ),
    (
        "`skip_to` a position after it, or do without with `skip_archived`",
        "a_reactor_at_archived_events_continues_after_them",
    ),
    (
        "so nothing is called for later events",
        "what_stops_a_reactor_is_skipped",
    ),
    (
        "the event is not in the log any more; skip it",
        "a_dead_letter_of_an_archived_event_is_skipped",
    ),
    (
        "Repair the projection or its tables, or skip the event with `",
        "a_failing_event_is_undone_and_stops_until_skipped",
    ),
    (
        "raise `dead_letters_max`",
        "too_many_dead_letters_stop_the_projection",
    ),
    (
        "so no later event is folded",
        "what_stops_a_start_is_skipped_in_the_background",
    ),
    (
        "declare it with `history`",
        "a_declared_history_answers_what_was_refused",
    ),
    (
        "`history(bitemporal)`",
        "a_declared_history_answers_what_was_refused",
    ),
    (
        "load the aggregate as of it instead",
        "a_moment_of_several_partitions_is_asked_of_an_aggregate",
    ),
    (
        "raise the `version`",
        "an_unreadable_row_delays_its_key_only",
    ),
    (
        "Build it from the log with `begin`",
        "a_reset_without_history_says_to_rebuild",
    ),
    (
        "write the values of the range as",
        "an_index_range_has_its_type_and_skips_absent",
    ),
    (
        "ends the transaction",
        "a_transaction_that_the_application_ends_is_undone",
    ),
    (
        "may not be written; open it read-only",
        "cannot_write_the_file",
    ),
    (
        "make room, then retry",
        "a_store_without_room_refuses_then_goes_on",
    ),
    (
        "the store is closed, open it again",
        "a_medium_that_fails_closes_the_store_and_loses_nothing",
    ),
    (
        "restore a backup",
        "a_damaged_page_is_noticed_when_it_is_read",
    ),
    (
        "stop every program",
        "a_backup_moved_into_its_place_closes_the_store",
    ),
    (
        "open it once for writing",
        "an_older_schema_is_migrated_forward",
    ),
    ("newer Annals", "a_newer_schema_is_refused_and_left_alone"),
    (
        "open it without `mode=ro`",
        "a_store_opened_read_only_reads_and_refuses_to_write",
    ),
    (
        "remove it to copy that one, or name another place",
        "a_replica_is_not_opened_as_a_store",
    ),
    (
        "open it with `Options::replica_of`",
        "a_replica_is_not_opened_as_a_store",
    ),
    ("kept elsewhere", "a_replica_is_not_opened_as_a_store"),
    (
        "open the store again",
        "another_log_in_the_same_place_is_refused",
    ),
    (
        "migrate it first",
        "missing_tables_are_only_made_when_asked_for",
    ),
    (
        "create the database with `encoding 'UTF8'`",
        "a_database_of_another_encoding_is_refused",
    ),
    (
        "change the setting, or ask for `relaxed_durability`",
        "weak_durability_is_refused_unless_it_was_asked_for",
    ),
    (
        "is moving: try again in a moment",
        "an_import_goes_on_after_ownership_has_moved",
    ),
    (
        "has not said who it is: try again in a moment",
        "an_owner_is_named_or_said_to_be_unknown",
    ),
    (
        "the event was archived; discard it, or skip it",
        "a_reactors_archived_dead_letter_is_discarded",
    ),
];

/// A part of a text whose way no test takes, and why.
const LEFT: &[(&str, &str)] = &[
    (
        "ended by itself; restart the program",
        "no worker ends past its supervisor",
    ),
    (
        "call the build off, and reset the view again",
        "another process changes the generation",
    ),
    (
        "begin the transaction again",
        "the server recovers between staging and commit",
    ),
    (
        "faster than this append is; try it again",
        "others win hundreds of times in a row",
    ),
    (
        "update the crate `libsqlite3-sys`",
        "the library is linked in",
    ),
    (
        "start the newest program that wrote it",
        "a newer program has to be there first",
    ),
    (
        "let it keep them, or connect to the server itself",
        "the test server has no pooler",
    ),
    (
        "repair the projection and retry or skip them",
        "as `dead_letters_max` of views",
    ),
    (
        "open it with a store that does, or do without `inline`",
        "refused at the start",
    ),
    (
        "write `impl Project<",
        "an error of the compiler; macros/tests/ui reads it",
    ),
    (
        "change faster than they are read: ask for fewer",
        "a race of readers and writers",
    ),
];

#[test]
fn every_way_that_an_error_names_is_tested() {
    let texts = ways();
    let known: Vec<&str> = WALKED.iter().chain(LEFT).map(|(part, _)| *part).collect();
    let unknown: Vec<_> = texts
        .iter()
        .filter(|text| !known.iter().any(|part| text.contains(part)))
        .collect();
    assert!(unknown.is_empty(), "no test takes the ways of {unknown:#?}");
    let is_gone = |part: &&&str| !texts.iter().any(|text| text.contains(**part));
    let gone: Vec<_> = known.iter().filter(is_gone).collect();
    assert!(gone.is_empty(), "no text says {gone:#?}");

    let tests: Vec<String> = files(root(), &[".rs"])
        .iter()
        .map(|file| joined(&fs::read_to_string(file).unwrap()))
        .filter(|source| source.contains("#[test]") || source.contains("fn "))
        .collect();
    let takes = |part: &str, test: &str| {
        let is_there = |source: &&String| {
            source.contains(&format!("fn {test}(")) || source.contains(&format!("fn {test}<"))
        };
        let mut found = tests.iter().filter(is_there);
        found.any(|source| source.contains(part))
    };
    let missing: Vec<_> = WALKED
        .iter()
        .filter(|(part, test)| !takes(part, test))
        .collect();
    assert!(
        missing.is_empty(),
        "no such test, or it does not read the text: {missing:#?}"
    );
}

/// The texts of the sources that tell their reader to do something.
fn ways() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in ROOMS
        .iter()
        .flat_map(|room| files(&root().join(room), &[".rs"]))
    {
        let path = file
            .strip_prefix(root())
            .unwrap()
            .to_string_lossy()
            .into_owned();
        if OTHER_SUITES.iter().any(|part| path.contains(part)) {
            continue;
        }
        let source = joined(&fs::read_to_string(&file).unwrap());
        let source = source
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let code = source
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        found.extend(code.flat_map(texts).filter(|text| names_a_way(text)));
    }
    assert!(found.len() > 40, "{found:#?}");
    found
}

/// What is between quotes on a line.
fn texts(line: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut text: Option<String> = None;
    let mut signs = line.chars();
    while let Some(sign) = signs.next() {
        match (&mut text, sign) {
            (Some(inside), '\\') => inside.extend(signs.next()),
            (Some(_), '"') => texts.extend(text.take()),
            (None, '"') => text = Some(String::new()),
            (Some(inside), sign) => inside.push(sign),
            (None, _) => {}
        }
    }
    texts
}

fn names_a_way(text: &str) -> bool {
    let verbs: BTreeSet<&str> = VERBS.split_whitespace().collect();
    BEFORE.iter().any(|before| {
        text.split(*before).skip(1).any(|after| {
            let word: String = after.chars().take_while(|c| c.is_alphabetic()).collect();
            verbs.contains(&*word.to_lowercase())
        })
    })
}
