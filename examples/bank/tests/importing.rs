//! From the file to balances, beside sums that know nothing of events.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use annals::chrono::{DateTime, Utc};
use annals::prelude::*;
use annals::store::{Append, AppendError, Appended};
use annals::{MemoryStore, Store, testing};
use annals_core::conformance::faulty::{FaultyStore, StoreFault};
use indicatif::ProgressBar;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::balances::{self, AccountName, AsOf, Balances, Format, balances};
use crate::history;
use crate::import::{ImportError, Report, Source, import};
use crate::money::Money;
use crate::views;

pub(super) const EXCERPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/data/berka-excerpt.asc"
);

/// A store of its own, in a directory that goes with it.
pub(super) struct Fresh {
    directory: tempfile::TempDir,
    pub(super) db: Program,
}

pub(super) async fn fresh() -> Fresh {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bank.db");
    let db = Annals::open(&format!("sqlite:{}", file.display()))
        .await
        .unwrap();
    let db = views::up(db, None, &ProgressBar::hidden()).await.unwrap();
    Fresh { directory, db }
}

impl Fresh {
    pub(super) async fn import(&self, path: impl AsRef<Path>) -> Report {
        let source = Source::open(path.as_ref()).unwrap();
        import(&self.db, source, &ProgressBar::hidden())
            .await
            .unwrap()
    }

    async fn import_text(&self, text: impl AsRef<[u8]>) -> Result<Report, ImportError> {
        let path = self.directory.path().join("rows.asc");
        std::fs::write(&path, text).unwrap();
        import(&self.db, Source::open(&path)?, &ProgressBar::hidden()).await
    }

    pub(super) async fn balances(&self, question: &str) -> Balances {
        balances(&self.db, as_of(question)).await.unwrap()
    }
}

fn as_of(question: &str) -> AsOf {
    let words = format!("bank balances {question}");
    match Arguments::parse_from(words.split_whitespace()).command {
        Some(Command::Balances { as_of, .. }) => as_of,
        other => panic!("`{question}` is a question about balances, but: {other:?}"),
    }
}

#[track_caller]
fn check(report: &Report, imported: u64, already_there: u64, bad: u64) {
    assert_eq!(
        (report.imported, report.already_there, report.bad),
        (imported, already_there, bad),
        "{report:?}"
    );
}

/// The sum of every account's rows up to a day (YYMMDD), in halers, straight from the text.
fn sums(up_to: &str) -> BTreeMap<AccountName, Money> {
    let mut sums = BTreeMap::new();
    for row in std::fs::read_to_string(EXCERPT).unwrap().lines().skip(1) {
        let fields: Vec<&str> = row.split(';').collect();
        if fields[2] <= up_to {
            let halers: i64 = fields[5].replace('.', "").parse().unwrap();
            let signed = if fields[3] == "\"PRIJEM\"" {
                halers
            } else {
                -halers
            };
            *sums.entry(AccountName::new(fields[1])).or_default() += Money::halers(signed);
        }
    }
    sums
}

#[tokio::test]
async fn every_row_is_recorded_once() {
    let bank = fresh().await;
    check(&bank.import(EXCERPT).await, 297, 0, 0);
    check(&bank.import(EXCERPT).await, 0, 297, 0);
    assert_eq!(
        bank.db
            .events()
            .pages()
            .next()
            .await
            .unwrap()
            .unwrap()
            .events
            .len(),
        297
    );
}

#[tokio::test]
async fn an_import_goes_on_where_another_one_stopped() {
    let bank = fresh().await;
    let text = std::fs::read_to_string(EXCERPT).unwrap();
    let half: String = text
        .lines()
        .take(101)
        .map(|line| format!("{line}\n"))
        .collect();
    check(&bank.import_text(half).await.unwrap(), 100, 0, 0);
    check(&bank.import(EXCERPT).await, 197, 100, 0);
    assert_eq!(bank.balances("").await, sums("991231"));
}

#[tokio::test]
async fn balances_are_the_sums_of_the_rows_on_every_day() {
    let bank = fresh().await;
    bank.import(EXCERPT).await;
    assert_eq!(bank.balances("").await, sums("991231"));
    for (asked, day) in [
        ("1992-12-31", "921231"),
        ("1993-01-01", "930101"),
        ("1993-02-28", "930228"),
        ("1993-06-30", "930630"),
        ("1993-07-01", "930701"),
        ("1993-12-30", "931230"),
        ("1993-12-31", "931231"),
    ] {
        assert_eq!(
            bank.balances(&format!("--as-of {asked}")).await,
            sums(day),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn what_was_not_known_yet_does_not_count() {
    let bank = fresh().await;
    let text = std::fs::read_to_string(EXCERPT).unwrap();
    let half: String = text
        .lines()
        .take(101)
        .map(|line| format!("{line}\n"))
        .collect();
    bank.import_text(half).await.unwrap();
    let known_then = bank.balances("").await;
    let moment = last_recorded(&bank.db).await;
    // The rest is recorded later; how much later depends on the clock, which may not have moved on.
    while bank.db.clock().now() <= moment {
        tokio::task::yield_now().await;
    }
    bank.import(EXCERPT).await;
    let moment = moment.to_rfc3339();
    assert_eq!(
        bank.balances(&format!("--known-at {moment}")).await,
        known_then
    );
    assert!(bank.balances("--known-at 1993-12-31").await.is_empty());
    let both = bank
        .balances(&format!("--as-of 1993-01-31 --known-at {moment}"))
        .await;
    assert!(
        both.len() < bank.balances("--as-of 1993-03-31").await.len(),
        "{both:?}"
    );
}

async fn last_recorded(db: &Annals) -> DateTime<Utc> {
    let page = db.events().pages().next().await.unwrap().unwrap();
    page.events.last().unwrap().recorded_at
}

#[tokio::test]
async fn bad_rows_are_named_and_the_others_recorded() {
    let bank = fresh().await;
    let text = "\
trans_id;account_id;date;type;operation;amount;balance;k_symbol;bank;account
1;7;930101;PRIJEM;VKLAD;700.00;700.00;;;
2;7;930102;PRIJEM;VKLAD;seven;700.00;;;

3;7;930103;VYDAJ;VYBER;100.50;599.50;;;
3;7;930103;VYDAJ;VYBER;100.50;599.50;;;
4;7;931301;VYDAJ;VYBER;1;598.50;;;
5;7;930104
6;7;930105;VYDAJ;VYBER;10000000000000;0;;;
7;8;930105;\"VYBER\";\"VYBER\";1000.00;-1000.00;\" \";;\r
8;9;930106;PREVOD;;1;1;;;
9;7;930107;PRIJEM;;0.01;0;;;";
    let report = bank.import_text(text).await.unwrap();
    check(&report, 4, 1, 5);
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(faults.join("\n"));
    insta::assert_snapshot!(printed(&bank.balances("").await, Format::Table), @r"
    account           balance
          7            599.51
          8          -1000.00
             ----------------
      total           -400.49
    ");
}

#[tokio::test]
async fn the_first_bad_rows_are_listed_and_all_counted() {
    let bank = fresh().await;
    let header = std::fs::read_to_string(EXCERPT)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned();
    let report = bank
        .import_text(header + &"\n?".repeat(1_000))
        .await
        .unwrap();
    check(&report, 0, 0, 1_000);
    let lines: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        (lines.len(), &*lines[0]),
        (20, "line 2: it has 1 fields instead of 10")
    );
}

#[tokio::test]
async fn a_file_of_something_else_is_refused() {
    let bank = fresh().await;
    for text in [
        "",
        "a;b;c\n1;2;3\n",
        "1;7;930101;PRIJEM;VKLAD;700.00;700.00;;;\n",
    ] {
        let error = bank.import_text(text).await.unwrap_err();
        assert!(matches!(error, ImportError::Header(_)), "{error}");
    }
    let missing = Source::open(&bank.directory.path().join("missing.asc"));
    assert!(matches!(missing, Err(ImportError::File { .. })));
    assert!(bank.balances("").await.is_empty());
}

#[tokio::test]
async fn a_too_long_row_is_refused_and_import_continues() {
    let bank = fresh().await;
    let header = std::fs::read_to_string(EXCERPT).unwrap();
    let header = header.lines().next().unwrap();
    let long = "x".repeat(17 << 20);
    let text = format!(
        "{header}\n1;7;930101;PRIJEM;VKLAD;1.00;0;;;\n2;7;930101;PRIJEM;{long};1.00;0;;;\n\
         3;7;930101;PRIJEM;\"not closed;1.00;0;;;\n4;7;930102;PRIJEM;VKLAD;1.00;0;;;\n"
    );
    let report = bank.import_text(text).await.unwrap();
    check(&report, 2, 0, 2);
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "line 3: it has more than 65536 bytes",
            "line 4: it has 5 fields instead of 10",
        ]
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_line_without_end_is_no_header() {
    let endless = Source::open(Path::new("/dev/zero"));
    assert!(matches!(endless, Err(ImportError::Header(_))));
}

#[tokio::test]
async fn balances_print_as_csv_and_as_a_table() {
    let bank = fresh().await;
    bank.import(EXCERPT).await;
    insta::assert_snapshot!(printed(&bank.balances("").await, Format::Csv), @r"
    account,balance
    47,36086.00
    576,23643.40
    704,43928.50
    5442,22299.50
    8564,104311.80
    9188,31239.60
    ");
    insta::assert_snapshot!(printed(&bank.balances("--as-of 1993-03-31").await, Format::Table), @r"
    account           balance
        576          19600.30
        704          47730.00
       5442          42667.40
       9188          17309.50
             ----------------
      total         127307.20
    ");
}

#[test]
fn accounts_come_in_order_of_number_and_name() {
    let names = ["bob", "10", "9", "alice", "010", "a,\"b\""];
    let balances = names
        .into_iter()
        .map(|name| (AccountName::new(name), Money::ZERO))
        .collect();
    insta::assert_snapshot!(printed(&balances, Format::Csv), @r#"
    account,balance
    9,0.00
    010,0.00
    10,0.00
    "a,""b""",0.00
    alice,0.00
    bob,0.00
    "#);
}

#[tokio::test]
async fn a_row_is_stored_to_the_letter() {
    let bank = fresh().await;
    let text = "\
trans_id;account_id;date;type;operation;amount;balance;k_symbol;bank;account
637742;2177;930105;\"PRIJEM\";\"PREVOD Z UCTU\";5123.00;5923.00;\"DUCHOD\";\"YZ\";\"62457513\"
637743;2177;930106;\"VYBER\";\"VYBER\";0.07;5922.93;\" \";;";
    check(&bank.import_text(text).await.unwrap(), 2, 0, 0);
    insta::assert_snapshot!(testing::timeline(&bank.db, "account-2177").await);
}

#[tokio::test]
async fn an_imported_account_has_a_history_in_the_banks_words() {
    let bank = fresh().await;
    bank.import(EXCERPT).await;
    let mut printed = Vec::new();
    assert!(
        history::print(&bank.db, "8564", "8564", &mut printed)
            .await
            .unwrap()
    );
    let printed = String::from_utf8(printed).unwrap();
    // When it was recorded is another moment in every run.
    let lines = printed.lines().map(|line| {
        line.rsplit_once("  ")
            .map_or(line, |(before, _)| before.trim_end())
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}

fn printed(balances: &Balances, format: Format) -> String {
    let mut out = Vec::new();
    balances::print(balances, format, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_question_without_moments_is_about_now() {
    assert_eq!(as_of(""), AsOf::NOW);
    assert_eq!(as_of("--as-of 1993-01-01").known, None);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_leaves_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("bank.db");
    let url = format!("sqlite:{}", store.display());
    let missing = directory.path().join("missing.asc");
    let words = ["bank", "import", missing.to_str().unwrap(), "--store", &url];
    let command = Arguments::parse_from(words).command;
    assert!(crate::run(command, &mut Vec::new()).await.is_err());
    assert!(!store.exists());
}

/// A store whose partitions are all on their way to another process, once.
#[derive(Debug, Default)]
struct Moves(std::sync::atomic::AtomicBool);

#[async_trait::async_trait]
impl StoreFault for Moves {
    async fn append(&self, store: &dyn Store, append: Append) -> Result<Appended, AppendError> {
        match self.0.swap(true, std::sync::atomic::Ordering::SeqCst) {
            true => store.append(append).await,
            false => Err(AppendError::OwnershipMoving),
        }
    }
}

#[tokio::test]
async fn an_import_goes_on_after_ownership_has_moved() {
    let said = AppendError::OwnershipMoving.to_string();
    assert!(said.ends_with("is moving: try again in a moment"), "{said}");
    let moving = FaultyStore::new(Arc::new(MemoryStore::new()), Moves::default());
    let source = Source::open(EXCERPT.as_ref()).unwrap();
    let imported = import(&Annals::on(moving), source, &ProgressBar::hidden()).await;
    let whole = fresh().await.import(EXCERPT).await;
    assert_eq!(imported.unwrap().imported, whole.imported);
}
