//! What the bank prints on any store.

use clap::Parser;

use super::importing::EXCERPT;
use crate::arguments::Arguments;
use crate::store;

/// What is asked, one after another.
pub(crate) const QUESTIONS: [&[&str]; 11] = [
    &["import", EXCERPT],
    &["import", EXCERPT],
    &["history", "576"],
    &["history", "nobody"],
    &["balances"],
    &["balances", "--as-of", "1993-06-30", "--format", "csv"],
    &["balances", "--known-at", "1999-01-01"],
    &["statements", "576"],
    &["statements", "576", "--month", "1993-05"],
    &["volume", "--from", "1993-03-01"],
    &["rebuild"],
];

/// Everything that the bank prints, without what differs from run to run: the store's own name,
/// times, rates.
pub(crate) async fn printed(question: &[&str], url: &str) -> String {
    let store = ["--store", url];
    let words = ["bank"].iter().chain(question).chain(&store);
    let command = Arguments::parse_from(words).command;
    let mut out = Vec::new();
    let outcome = crate::run(command, &mut out).await;
    let mut text = String::from_utf8(out).unwrap();
    if let Err(error) = outcome {
        text += &error.to_string();
    }
    let text = text.replace(&store::shown(url), "STORE");
    let lines = text.lines().map(|line| match question[0] {
        "import" => line
            .split_once(", in ")
            .map_or(line, |(before, _)| before)
            .to_owned(),
        // How long it took is in the middle.
        "rebuild" => {
            let (before, after) = line.split_once(" in ").unwrap_or((line, ""));
            let after = after.split_once("/s)").map_or(after, |(_, after)| after);
            format!("{before}{after}")
        }
        // The column of the time at which it was recorded.
        "history" if line.ends_with(" UTC") => {
            line[..line.len() - "2026-03-31 12:00:00.000 UTC".len()].to_owned()
        }
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}
