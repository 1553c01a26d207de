//! What was asked on the command line.

use std::path::PathBuf;

use annals::chrono::{DateTime, TimeDelta, Utc};

use crate::balances::{AsOf, Format};
use crate::calendar::{Day, Month};
use crate::store;

pub(crate) const HELP: &str = "\
A bank whose every balance can explain itself.

Usage: bank                          tells a short story on a fresh file
       bank import FILE              records the transactions of a PKDD'99 file
       bank balances                 prints what every account holds, or held
       bank statements ACCOUNT       prints what moved on one account, by month
       bank volume                   prints what moved on all accounts, by day
       bank history ACCOUNT          prints what happened to one account
       bank rebuild                  builds every read model anew from the log,
                                     and compares it with what it was before

Options of all but the story:
  --store URL         where the accounts are [default: sqlite:bank.db]; a URL of
                      PostgreSQL needs `cargo run --features postgres`

Options of balances:
  --as-of DATE        what had happened up to and including that day, by the
                      bank's own dates (1993-06-30)
  --known-at TIME     what had been recorded by then: a day, or a time such as
                      2026-03-31T12:00:00Z
  --format FORMAT     table or csv [default: table]

Options of statements:
  --month MONTH       only that month (1993-05)

Options of volume:
  --from DATE         from that day on
  --to DATE           up to and including that day

Rows that were imported before are passed over, so an import that was stopped is
simply run again. Rows that cannot be read are listed on stderr with their line,
and the others are recorded; only a file that cannot be used at all is an error.

Balances, statements and volume are read models beside the log. The first
question builds them, later ones fold only what was recorded since.

Exits with 0 when it did what was asked, 1 when it could not, 2 when it was not
understood.
";

#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Story,
    Help,
    Import {
        file: PathBuf,
        store: String,
    },
    Balances {
        as_of: AsOf,
        format: Format,
        store: String,
    },
    Statements {
        account: String,
        month: Option<Month>,
        store: String,
    },
    Volume {
        from: Option<Day>,
        to: Option<Day>,
        store: String,
    },
    History {
        account: String,
        store: String,
    },
    Rebuild {
        store: String,
    },
}

/// What is wrong with the command line.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Misunderstood {
    #[error("there is no command `{0}`")]
    Command(String),
    #[error("`{command}` has no option `{option}`")]
    Option { command: String, option: String },
    #[error("`{0}` needs a value")]
    NoValue(String),
    #[error("`{0}` is given twice")]
    Twice(String),
    #[error("`{command}` needs {what}")]
    Missing {
        command: &'static str,
        what: &'static str,
    },
    #[error("`{0}` is one argument too many")]
    TooMany(String),
    #[error("`{0}` is no day such as 1993-06-30")]
    Day(String),
    #[error("`{0}` is no month such as 1993-05")]
    Month(String),
    #[error("`{0}` is neither a day nor a time such as 2026-03-31T12:00:00Z")]
    Time(String),
    #[error("there is no format `{0}`: table or csv")]
    Format(String),
}

/// Reads the arguments, without the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, Misunderstood> {
    let mut arguments: Vec<String> = arguments.into_iter().collect();
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        return Ok(Command::Help);
    }
    if arguments.is_empty() {
        return Ok(Command::Story);
    }
    let command = arguments.remove(0);
    match &*command {
        "help" => Ok(Command::Help),
        "import" => {
            let mut given = Given::read("import", &["--store"], arguments)?;
            let file = given.the("import", "a FILE")?.into();
            Ok(Command::Import {
                file,
                store: given.store(),
            })
        }
        "history" => {
            let mut given = Given::read("history", &["--store"], arguments)?;
            let account = given.the("history", "an ACCOUNT")?;
            Ok(Command::History {
                account,
                store: given.store(),
            })
        }
        "balances" => {
            let mut given = Given::read(
                "balances",
                &["--store", "--as-of", "--known-at", "--format"],
                arguments,
            )?;
            given.none()?;
            let happened = given.option("--as-of").map(day).transpose()?;
            let known = given.option("--known-at").map(by_time).transpose()?;
            let format = match given.option("--format").as_deref() {
                None | Some("table") => Format::Table,
                Some("csv") => Format::Csv,
                Some(other) => return Err(Misunderstood::Format(other.to_owned())),
            };
            Ok(Command::Balances {
                as_of: AsOf { happened, known },
                format,
                store: given.store(),
            })
        }
        "statements" => {
            let mut given = Given::read("statements", &["--store", "--month"], arguments)?;
            let account = given.the("statements", "an ACCOUNT")?;
            let month = given.option("--month").map(month).transpose()?;
            Ok(Command::Statements {
                account,
                month,
                store: given.store(),
            })
        }
        "volume" => {
            let mut given = Given::read("volume", &["--store", "--from", "--to"], arguments)?;
            given.none()?;
            let from = given.option("--from").map(day).transpose()?;
            let to = given.option("--to").map(day).transpose()?;
            Ok(Command::Volume {
                from,
                to,
                store: given.store(),
            })
        }
        "rebuild" => {
            let mut given = Given::read("rebuild", &["--store"], arguments)?;
            given.none()?;
            Ok(Command::Rebuild {
                store: given.store(),
            })
        }
        _ if command.starts_with('-') => Err(Misunderstood::Option {
            command: "bank".to_owned(),
            option: command,
        }),
        _ => Err(Misunderstood::Command(command)),
    }
}

/// Words and options in any order; `--option value` and `--option=value` are the same.
struct Given {
    words: Vec<String>,
    options: Vec<(String, String)>,
}

impl Given {
    fn read(command: &str, known: &[&str], arguments: Vec<String>) -> Result<Given, Misunderstood> {
        let mut given = Given {
            words: Vec::new(),
            options: Vec::new(),
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if !argument.starts_with('-') || argument == "-" {
                given.words.push(argument);
                continue;
            }
            let (option, value) = match argument.split_once('=') {
                Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            if !known.contains(&&*option) {
                return Err(Misunderstood::Option {
                    command: command.to_owned(),
                    option,
                });
            }
            if given.options.iter().any(|(before, _)| *before == option) {
                return Err(Misunderstood::Twice(option));
            }
            match value.or_else(|| arguments.next()) {
                Some(value) => given.options.push((option, value)),
                None => return Err(Misunderstood::NoValue(option)),
            }
        }
        Ok(given)
    }

    /// The one word that the command needs.
    fn the(&mut self, command: &'static str, what: &'static str) -> Result<String, Misunderstood> {
        let mut words = std::mem::take(&mut self.words).into_iter();
        match (words.next(), words.next()) {
            (Some(word), None) => Ok(word),
            (_, Some(extra)) => Err(Misunderstood::TooMany(extra)),
            (None, None) => Err(Misunderstood::Missing { command, what }),
        }
    }

    /// No word but the command.
    fn none(&mut self) -> Result<(), Misunderstood> {
        self.words
            .pop()
            .map_or(Ok(()), |extra| Err(Misunderstood::TooMany(extra)))
    }

    fn option(&mut self, name: &str) -> Option<String> {
        let at = self.options.iter().position(|(option, _)| option == name)?;
        Some(self.options.remove(at).1)
    }

    fn store(&mut self) -> String {
        self.option("--store")
            .unwrap_or_else(|| store::DEFAULT.to_owned())
    }
}

fn day(text: String) -> Result<Day, Misunderstood> {
    text.parse().map_err(|_| Misunderstood::Day(text))
}

fn month(text: String) -> Result<Month, Misunderstood> {
    text.parse().map_err(|_| Misunderstood::Month(text))
}

/// Up to and including that moment, or that day (in UTC).
fn by_time(text: String) -> Result<DateTime<Utc>, Misunderstood> {
    // Times are recorded to the microsecond, so this is the last one that a day has.
    let end_of_day = text
        .parse::<Day>()
        .ok()
        .and_then(Day::next)
        .map(|next| next.start() - TimeDelta::microseconds(1));
    match (end_of_day, DateTime::parse_from_rfc3339(&text)) {
        (Some(end), _) => Ok(end),
        (None, Ok(time)) => Ok(time.to_utc()),
        (None, Err(_)) => Err(Misunderstood::Time(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, Misunderstood> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn commands_and_options_come_in_any_order() {
        let import = |store: &str| {
            Ok(Command::Import {
                file: "rows.asc".into(),
                store: store.to_owned(),
            })
        };
        assert_eq!(parsed(""), Ok(Command::Story));
        assert_eq!(parsed("import rows.asc"), import("sqlite:bank.db"));
        assert_eq!(
            parsed("import --store sqlite:x.db rows.asc"),
            import("sqlite:x.db")
        );
        assert_eq!(
            parsed("import rows.asc --store=sqlite:x.db"),
            import("sqlite:x.db")
        );
        for line in ["--help", "help", "-h", "import --help"] {
            assert_eq!(parsed(line), Ok(Command::Help), "{line}");
        }
    }

    #[test]
    fn a_day_counts_whole_and_a_time_to_the_moment() {
        let Ok(Command::Balances { as_of, .. }) =
            parsed("balances --as-of 1993-06-30 --known-at 2026-03-31T12:00:00+02:00")
        else {
            panic!("it is understood")
        };
        assert_eq!(as_of.happened, Some("1993-06-30".parse().unwrap()));
        assert_eq!(as_of.known, Some("2026-03-31T10:00:00Z".parse().unwrap()));
        let Ok(Command::Balances { as_of, .. }) = parsed("balances --known-at 2026-03-31") else {
            panic!("it is understood")
        };
        assert_eq!(
            as_of.known,
            Some("2026-03-31T23:59:59.999999Z".parse().unwrap())
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, said) in [
            ("rob", "there is no command `rob`"),
            ("--fast", "`bank` has no option `--fast`"),
            (
                "history 7 --as-of 1993-01-01",
                "`history` has no option `--as-of`",
            ),
            ("import", "`import` needs a FILE"),
            ("import a b", "`b` is one argument too many"),
            ("balances 7", "`7` is one argument too many"),
            ("balances --as-of", "`--as-of` needs a value"),
            (
                "balances --format csv --format csv",
                "`--format` is given twice",
            ),
            (
                "balances --as-of yesterday",
                "`yesterday` is no day such as 1993-06-30",
            ),
            (
                "balances --as-of 1993-02-30",
                "`1993-02-30` is no day such as 1993-06-30",
            ),
            (
                "balances --known-at noon",
                "`noon` is neither a day nor a time such as 2026-03-31T12:00:00Z",
            ),
            (
                "volume --to 1993-05",
                "`1993-05` is no day such as 1993-06-30",
            ),
            ("statements", "`statements` needs an ACCOUNT"),
            (
                "statements 7 --month 1993-05-01",
                "`1993-05-01` is no month such as 1993-05",
            ),
            ("rebuild balances", "`balances` is one argument too many"),
            (
                "balances --format xml",
                "there is no format `xml`: table or csv",
            ),
        ] {
            assert_eq!(parsed(line).unwrap_err().to_string(), said);
        }
    }
}
