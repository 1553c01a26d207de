//! What was asked on the command line.

use std::path::PathBuf;

use annals::chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use clap::{Args, Parser, Subcommand};

use crate::balances::{AsOf, Format};
use crate::month::Month;
use crate::store;

/// A bank whose every balance can explain itself. Without a command it tells a short story on a
/// fresh file.
#[derive(Debug, Parser)]
#[command(name = "bank", bin_name = "bank", after_help = NOTES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const NOTES: &str = "\
Rows that were imported before are passed over, so an import that was stopped is
simply run again. Rows that cannot be read are listed on stderr with their line,
and the others are recorded; only a file that cannot be used at all is an error.

Balances, statements and volume are read models beside the log. The first
question builds them, later ones fold only what was recorded since.

Exits with 0 when it did what was asked, 1 when it could not, 2 when it was not
understood.";

#[derive(Debug, PartialEq, Subcommand)]
pub(crate) enum Command {
    /// Records the transactions of a PKDD'99 file.
    Import {
        file: PathBuf,
        #[command(flatten)]
        store: Store,
    },
    /// Prints what every account holds, or held.
    Balances {
        #[command(flatten)]
        as_of: AsOf,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// From a topic that `publish` wrote, instead of a store: kafka://HOST:PORT[/TOPIC].
        #[arg(long, value_name = "URL", conflicts_with_all = ["url", "known_at"])]
        from: Option<String>,
        #[command(flatten)]
        store: Store,
    },
    /// Publishes what happened to a topic, each event once; the topic is made when it is missing.
    Publish {
        /// Where to: kafka://HOST:PORT[/TOPIC]; needs `cargo run --features kafka`.
        #[arg(long, value_name = "URL")]
        to: String,
        #[command(flatten)]
        store: Store,
    },
    /// Prints what moved on one account, by month.
    Statements {
        account: String,
        /// Only that month (1993-05).
        #[arg(long)]
        month: Option<Month>,
        #[command(flatten)]
        store: Store,
    },
    /// Prints what moved on all accounts, by day.
    Volume {
        /// From that day on.
        #[arg(long, value_name = "DATE", value_parser = day)]
        from: Option<NaiveDate>,
        /// Up to and including that day.
        #[arg(long, value_name = "DATE", value_parser = day)]
        to: Option<NaiveDate>,
        #[command(flatten)]
        store: Store,
    },
    /// Prints what happened to one account.
    History {
        account: String,
        #[command(flatten)]
        store: Store,
    },
    /// Rebuilds every read model from the log, and compares it with what it was before.
    Rebuild {
        #[command(flatten)]
        store: Store,
    },
}

/// Where the accounts are.
#[derive(Args, Clone, Debug, PartialEq)]
pub(crate) struct Store {
    /// Where the accounts are; a URL of PostgreSQL needs `cargo run --features postgres`, one of
    /// Kafka `--features kafka-store`.
    #[arg(long = "store", value_name = "URL", default_value = store::DEFAULT)]
    pub(crate) url: String,
    /// Where the read models are, when not in the store itself: a URL of SQLite or PostgreSQL.
    #[arg(long, value_name = "URL")]
    pub(crate) views: Option<String>,
}

/// A day such as 1993-06-30.
pub(crate) fn day(text: &str) -> Result<NaiveDate, String> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .map_err(|_| "it is no day such as 1993-06-30".to_owned())
}

/// Up to and including that moment, or that day (in UTC).
pub(crate) fn by_time(text: &str) -> Result<DateTime<Utc>, String> {
    // Times are recorded to the microsecond, so this is the last one that a day has.
    let end_of_day = day(text)
        .ok()
        .and_then(|day| day.succ_opt())
        .map(|next| next.and_time(NaiveTime::MIN).and_utc() - TimeDelta::microseconds(1));
    match (end_of_day, DateTime::parse_from_rfc3339(text)) {
        (Some(end), _) => Ok(end),
        (None, Ok(time)) => Ok(time.to_utc()),
        (None, Err(_)) => {
            Err("it is neither a day nor a time such as 2026-03-31T12:00:00Z".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parsed(line: &str) -> Result<Option<Command>, clap::Error> {
        let words = std::iter::once("bank").chain(line.split_whitespace());
        Ok(Arguments::try_parse_from(words)?.command)
    }

    #[test]
    fn the_arguments_make_sense_to_clap() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn commands_and_options_come_in_any_order() {
        let import = |url: &str| Command::Import {
            file: "rows.asc".into(),
            store: Store {
                url: url.to_owned(),
                views: None,
            },
        };
        assert_eq!(parsed("").unwrap(), None);
        for (line, url) in [
            ("import rows.asc", "sqlite:bank.db"),
            ("import --store sqlite:x.db rows.asc", "sqlite:x.db"),
            ("import rows.asc --store=sqlite:x.db", "sqlite:x.db"),
        ] {
            assert_eq!(parsed(line).unwrap(), Some(import(url)), "{line}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn names_of_files_need_not_be_text() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let name = OsStr::from_bytes(b"rows\xff.asc");
        let words = [OsStr::new("bank"), OsStr::new("import"), name];
        let command = Arguments::try_parse_from(words).unwrap().command;
        let Some(Command::Import { file, .. }) = command else {
            panic!("it is an import")
        };
        assert_eq!(file.as_os_str(), name);
    }

    #[test]
    fn a_day_counts_whole_and_a_time_to_the_moment() {
        let as_of = |line: &str| match parsed(line).unwrap() {
            Some(Command::Balances { as_of, .. }) => as_of,
            other => panic!("it is about balances: {other:?}"),
        };
        let moment = as_of("balances --as-of 1993-06-30 --known-at 2026-03-31T12:00:00+02:00");
        assert_eq!(moment.happened, Some("1993-06-30".parse().unwrap()));
        assert_eq!(moment.known, Some("2026-03-31T10:00:00Z".parse().unwrap()));
        let day = as_of("balances --known-at 2026-03-31");
        assert_eq!(
            day.known,
            Some("2026-03-31T23:59:59.999999Z".parse().unwrap())
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (line, kind) in [
            ("rob", ErrorKind::InvalidSubcommand),
            ("--fast", ErrorKind::UnknownArgument),
            ("history 7 --as-of 1993-01-01", ErrorKind::UnknownArgument),
            ("import", ErrorKind::MissingRequiredArgument),
            ("import a b", ErrorKind::UnknownArgument),
            ("balances 7", ErrorKind::UnknownArgument),
            ("balances --as-of", ErrorKind::InvalidValue),
            (
                "balances --format csv --format csv",
                ErrorKind::ArgumentConflict,
            ),
            ("balances --as-of yesterday", ErrorKind::ValueValidation),
            ("balances --as-of 1993-02-30", ErrorKind::ValueValidation),
            ("balances --known-at noon", ErrorKind::ValueValidation),
            ("volume --to 1993-05", ErrorKind::ValueValidation),
            ("publish", ErrorKind::MissingRequiredArgument),
            (
                "balances --from kafka://a --store memory:",
                ErrorKind::ArgumentConflict,
            ),
            (
                "balances --from kafka://a --known-at 2026-03-31",
                ErrorKind::ArgumentConflict,
            ),
            ("statements", ErrorKind::MissingRequiredArgument),
            (
                "statements 7 --month 1993-05-01",
                ErrorKind::ValueValidation,
            ),
            ("rebuild balances", ErrorKind::UnknownArgument),
            ("balances --format xml", ErrorKind::InvalidValue),
        ] {
            assert_eq!(parsed(line).unwrap_err().kind(), kind, "{line}");
        }
    }
}
