//! Read models of a million versions: a page of rows, or of the past, reads little more than that.

use super::{Large, MODES, backward};
use crate::statements as sql;

/// Two generations of a view with 100,000 keys that changed ten times each, the second in the way
/// of the first.
const MANY: &str = "
    insert into annals.view_generation
        (id, view, version, phase, history, inline, partitions, slots, log, started_at,
         history_since, event_types, indexes)
    overriding system value
    select n, 'totals', n, 1, 2, false, 1, 1, gen_random_uuid(), 0, 0, '[]', '[\"sum\"]'
    from generate_series(1, 2) as n;
    insert into annals.view_checkpoint
    select n, 0, 0, 1000000, null, '' from generate_series(1, 2) as n;
    insert into annals.view_row (generation, key, value)
    select generation, convert_to('key-' || lpad(n::text, 6, '0'), 'utf8'),
        repeat('value', 20)::bytea
    from generate_series(1, 2) as generation, generate_series(1, 100000) as n;
    insert into annals.view_index_entry
    select generation, 0, convert_to(lpad((n % 1000)::text, 4, '0'), 'utf8'),
        convert_to('key-' || lpad(n::text, 6, '0'), 'utf8')
    from generate_series(1, 2) as generation, generate_series(1, 100000) as n;
    insert into annals.view_row_version
    select
        1 + n % 2, convert_to('key-' || lpad((n / 2 % 100000 + 1)::text, 6, '0'), 'utf8'),
        n, n - 1, n, repeat('value', 20)::bytea
    from generate_series(1, 2000000) as n;
    insert into annals.view_touched
    select 1 + n % 2, convert_to('key-' || lpad((n / 2 % 100000 + 1)::text, 6, '0'), 'utf8'), n
    from generate_series(1, 1000000) as n;
    insert into annals.view_dead_letter
    select 1 + n % 2, convert_to('key-' || lpad((n % 1000)::text, 6, '0'), 'utf8'), 0, n,
        gen_random_uuid(), 1, 0, null
    from generate_series(1, 100000) as n;
    analyze annals.view_row; analyze annals.view_index_entry; analyze annals.view_row_version;
    analyze annals.view_touched;
    analyze annals.view_dead_letter; analyze annals.view_generation; analyze annals.view_checkpoint;
";

/// Pages that are read for one answer of at most a hundred rows, at most: ten for each. Each of
/// these tables has more.
const PAGES_MAX: u64 = 2_000;

/// The pages that a plan has read, where it was carried out: those of the functions in it are among
/// them.
fn pages(plan: &str) -> u64 {
    // The first line about buffers is that of the whole: `Buffers: shared hit=12 read=3 dirtied=1`.
    let line = plan
        .lines()
        .find(|line| line.trim_start().starts_with("Buffers: shared"))
        .expect("no page was read");
    let counted = line
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("hit=").or(word.strip_prefix("read=")));
    counted.map(|count| count.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn rows_and_their_history_are_found_by_index() {
    let mut large = Large::with(MANY).await;
    let list = |of: fn(u32) -> String| (1..=100).map(of).collect::<Vec<_>>().join(", ");
    let hundred = format!(
        "array[{}]::bytea[]",
        list(|n| format!("'key-{:06}'", n * 997))
    );
    let positions = format!("array[{}]", list(|n| n.to_string()));
    let key = "'key-050000'::bytea";
    let from = "'key-050000'::bytea";
    let end = "'\\xff'::bytea";
    let cases: Vec<(&str, String, String)> = vec![
        (
            "rows by key",
            sql::ROWS_BY_KEYS.to_owned(),
            format!("1, {hundred}, 101, 4194304"),
        ),
        (
            "rows by key, from the end",
            backward(sql::ROWS_BY_KEYS),
            format!("1, {hundred}, 101, 4194304"),
        ),
        (
            "a range",
            sql::ROWS_BY_RANGE.to_owned(),
            format!("1, {from}, {end}, 100, 4194304"),
        ),
        (
            "a range, from its end",
            backward(sql::ROWS_BY_RANGE),
            format!("1, '', {from}, 100, 4194304"),
        ),
        (
            "an index",
            sql::ROWS_BY_INDEX.to_owned(),
            format!("1, {key}, '', 100, 4194304, 0, '0500'::bytea, '0700'::bytea"),
        ),
        (
            "an index, from its end",
            backward(sql::ROWS_BY_INDEX),
            format!("1, '', {key}, 100, 4194304, 0, '0500', '0700'"),
        ),
        (
            "rows as of",
            sql::ROWS_AS_OF.to_owned(),
            format!("1, {hundred}, 700000"),
        ),
        (
            "keys as of",
            sql::HISTORY_KEYS.to_owned(),
            format!("1, {from}, {end}, 100"),
        ),
        (
            "the history of a key",
            sql::ROW_VERSIONS.to_owned(),
            format!("1, {key}, 0, 2000000, 100"),
        ),
        (
            "a part of a history",
            sql::ROW_VERSIONS.to_owned(),
            format!("1, {key}, 900000, 1100000, 100"),
        ),
        (
            "what changed lately",
            sql::KEYS_CHANGED.to_owned(),
            format!("1, 1999900, 2000000, {from}, 100"),
        ),
        (
            "what touched a key",
            sql::TOUCHED.to_owned(),
            format!("1, {key}, 0, 2000000, 100"),
        ),
        (
            "dead letters",
            sql::DEAD_LETTERS.to_owned(),
            "1, 'key-000500', 0, 0, 100".into(),
        ),
        (
            "how far it has come",
            sql::VIEW_STATE.to_owned(),
            "1".into(),
        ),
        (
            "a version that is taken",
            sql::DUPLICATE_VERSION.to_owned(),
            format!("1, {hundred}, {positions}"),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, text, parameters) in &cases {
        for mode in MODES {
            let plan = large
                .plan(mode, "explain (analyze, buffers)", text, parameters)
                .await;
            let pages = pages(&plan);
            if pages > PAGES_MAX {
                wrong.push(format!("{name} ({mode}) read {pages} pages:\n{plan}"));
            }
        }
    }
    large.end(&wrong).await;
}

#[tokio::test]
async fn plans_made_on_an_empty_table_still_use_indexes() {
    let mut empty = Large::with("select 1").await;
    let mut wrong = Vec::new();
    for text in [sql::ROWS_BY_KEYS.to_owned(), backward(sql::ROWS_BY_KEYS)] {
        let plan = empty
            .plan(
                "force_generic_plan",
                "explain",
                &text,
                "1, array['a', 'b']::bytea[], 101, 4194304",
            )
            .await;
        if !plan.contains("Index Cond: ((generation = $1) AND (key = wanted.key))") {
            wrong.push(plan);
        }
    }
    empty.end(&wrong).await;
}
