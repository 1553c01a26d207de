//! Where the database is and how it is used. Every option has a default that keeps every promise.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Clock, Invalid, Limits, SystemClock};
use percent_encoding::percent_decode_str;
use sqlx::postgres::PgConnectOptions;

/// How a store is opened.
///
/// ```
/// use std::time::Duration;
///
/// let options: annals_postgres::Options = "postgres://app@localhost/bank?schema=sales".parse()?;
/// let options = options.readers(4).statement_timeout(Duration::from_secs(10));
/// assert_eq!(options.schema_name(), "sales");
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) connect: PgConnectOptions,
    pub(crate) schema: String,
    pub(crate) read_only: bool,
    pub(crate) migrate: bool,
    pub(crate) relaxed_durability: bool,
    pub(crate) listen: bool,
    pub(crate) statement_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) readers: u32,
    pub(crate) group_events_max: usize,
    pub(crate) group_bytes_max: usize,
    pub(crate) queue_bytes_max: usize,
    pub(crate) clock: Arc<dyn Clock>,
    /// The clock that was asked for; leases end by it, and else by that of the server.
    pub(crate) lease_clock: Option<Arc<dyn Clock>>,
    pub(crate) limits: Limits,
}

/// Without the options of the connection, which hold the password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("host", &self.connect.get_host())
            .field("port", &self.connect.get_port())
            .field("database", &self.connect.get_database())
            .field("user", &self.connect.get_username())
            .field("schema", &self.schema)
            .field("read_only", &self.read_only)
            .field("migrate", &self.migrate)
            .field("relaxed_durability", &self.relaxed_durability)
            .field("readers", &self.readers)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The longest name of a schema, in bytes: what PostgreSQL keeps of a name.
    const SCHEMA_BYTES_MAX: usize = 63;

    /// A store in the database that sqlx would connect to with these options: for what a URL cannot
    /// say, such as certificates in memory.
    ///
    /// ```
    /// use annals_postgres::{Options, sqlx::postgres::PgConnectOptions};
    ///
    /// let options = Options::new(PgConnectOptions::new().host("localhost").database("bank"));
    /// assert_eq!(options.schema_name(), "annals");
    /// ```
    pub fn new(connect: PgConnectOptions) -> Options {
        Options {
            connect,
            schema: "annals".into(),
            read_only: false,
            migrate: true,
            relaxed_durability: false,
            listen: true,
            statement_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            poll_interval: Duration::from_millis(50),
            readers: 8,
            group_events_max: 4_096,
            group_bytes_max: 4 << 20,
            queue_bytes_max: 64 << 20,
            clock: Arc::new(SystemClock),
            lease_clock: None,
            limits: Limits::default(),
        }
    }

    /// The schema that holds the tables.
    ///
    /// ```
    /// let options: annals_postgres::Options = "postgres://localhost/bank".parse()?;
    /// assert_eq!(options.schema_name(), "annals");
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    pub fn schema_name(&self) -> &str {
        &self.schema
    }

    /// Keeps everything in this schema, which is made when it is not there. Two stores in two
    /// schemas of one database know nothing of each other. Default: `annals`. In a URL: `schema`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for an empty name, one of more than 63 bytes, one with a control character or a
    /// quote, and one that begins with `pg_`.
    ///
    /// ```
    /// let options: annals_postgres::Options = "postgres://localhost/bank".parse()?;
    /// assert!(options.clone().schema("tenant_7").is_ok());
    /// assert!(options.schema("pg_catalog").is_err());
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    pub fn schema(mut self, name: impl Into<String>) -> Result<Options, Invalid> {
        let name = name.into();
        let legal = (1..=Options::SCHEMA_BYTES_MAX).contains(&name.len())
            && !name
                .chars()
                .any(|c| c.is_control() || c == '"' || c == '\'' || c == '$')
            && !name.starts_with("pg_");
        if !legal {
            return Err(Invalid::new(format!(
                "`{}` is not a name for a schema: that is 1 to {} bytes without quotes, `$` and \
                 control characters, and does not begin with `pg_`",
                name.escape_debug(),
                Options::SCHEMA_BYTES_MAX
            )));
        }
        self.schema = name;
        Ok(self)
    }

    /// Refuses every write with [`Failure::ReadOnly`](annals_core::Failure), and does not upgrade
    /// older tables but refuses them. The role needs `usage` on the schema and `select` on its
    /// tables, no more. Others may go on writing. Default: off. In a URL: `mode=ro`.
    ///
    /// ```
    /// let options: annals_postgres::Options = "postgres://reporting@localhost/bank".parse()?;
    /// let options = options.read_only();
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    #[must_use]
    pub fn read_only(mut self) -> Options {
        self.read_only = true;
        self
    }

    /// Does not make or upgrade tables when it opens, but refuses older ones: for programs whose
    /// role may not do so, and for those who want to say when.
    /// [`PostgresStore::migrate`](crate::PostgresStore::migrate) does it then. Default: makes and
    /// upgrades. In a URL: `migrate=false`.
    ///
    /// ```
    /// let options: annals_postgres::Options = "postgres://app@localhost/bank".parse()?;
    /// let options = options.without_migration();
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    #[must_use]
    pub fn without_migration(mut self) -> Options {
        self.migrate = false;
        self
    }

    /// Answers appends before the server has them on its disk (`synchronous_commit=off`), and takes
    /// a server with `fsync=off` or `full_page_writes=off`: the last appends before a crash of the
    /// server may be gone although they were acknowledged; with the latter two the whole database
    /// may. Default: off, an acknowledged append survives a power cut, and such a server is
    /// refused. In a URL: `relaxed_durability=true`.
    ///
    /// ```
    /// let options: annals_postgres::Options = "postgres://localhost/scratch".parse()?;
    /// let options = options.relaxed_durability();
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    #[must_use]
    pub fn relaxed_durability(mut self) -> Options {
        self.relaxed_durability = true;
        self
    }

    /// Does not `listen` for what other processes commit, but looks every
    /// [`poll_interval`](Options::poll_interval): for a pooler in transaction mode, through which
    /// nothing can be listened to. Default: listens, and looks as well. In a URL: `listen=false`.
    ///
    /// ```
    /// let options: annals_postgres::Options = "postgres://pooler:6432/bank".parse()?;
    /// let options = options.without_listening();
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    #[must_use]
    pub fn without_listening(mut self) -> Options {
        self.listen = false;
        self
    }

    /// How long one statement may take, waiting for other writers included; after that the server
    /// gives it up, with [`Failure::Unavailable`](annals_core::Failure). Also how long an
    /// application's work on its own tables may leave its transaction idle. Default: 30 seconds. In
    /// a URL: `statement_timeout_ms`.
    ///
    /// ```
    /// let options: annals_postgres::Options = "postgres://localhost/bank".parse()?;
    /// let options = options.statement_timeout(std::time::Duration::from_secs(5));
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Options {
        self.statement_timeout = timeout.clamp(SHORTEST, LONGEST);
        self
    }

    /// How long to wait for a connection; after that a call fails with
    /// [`Failure::Unavailable`](annals_core::Failure). Default: 10 seconds. In a URL:
    /// `connect_timeout_ms`.
    ///
    /// ```
    /// let options: annals_postgres::Options = "postgres://localhost/bank".parse()?;
    /// let options = options.connect_timeout(std::time::Duration::from_secs(2));
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Options {
        self.connect_timeout = timeout.clamp(SHORTEST, LONGEST);
        self
    }

    /// How often a store that cannot listen looks whether another process has written: the hint of
    /// the log comes at most so much later than the commit. One that listens looks twenty times
    /// less often. Default: 50 milliseconds.
    ///
    /// ```
    /// let options: annals_postgres::Options = "postgres://localhost/bank".parse()?;
    /// let options = options.poll_interval(std::time::Duration::from_millis(10));
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Options {
        self.poll_interval = interval.clamp(SHORTEST, LONGEST);
        self
    }

    /// How many connections are kept for everything but appending and listening, which have one
    /// each (at least 1). Default: 8. In a URL: `readers`.
    ///
    /// ```
    /// let options: annals_postgres::Options = "postgres://localhost/bank".parse()?;
    /// let options = options.readers(2);
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    #[must_use]
    pub fn readers(mut self, count: u32) -> Options {
        self.readers = count.clamp(1, 1_024);
        self
    }

    /// How many events and how many bytes are committed together at most; a single larger append is
    /// committed alone. Larger groups make better use of each flush and are answered later.
    /// Default: 4,096 events, 4 MiB.
    ///
    /// ```
    /// let options: annals_postgres::Options = "postgres://localhost/bank".parse()?;
    /// let options = options.group_max(1_000, 1 << 20);
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    #[must_use]
    pub fn group_max(mut self, events: usize, bytes: usize) -> Options {
        self.group_events_max = events.max(1);
        self.group_bytes_max = bytes.max(1);
        self
    }

    /// How many bytes of appends may wait for the writer (each counts as at least 1 KiB); when it
    /// is full, further appends wait before they are handed over. Default: 64 MiB.
    ///
    /// ```
    /// let options: annals_postgres::Options = "postgres://localhost/bank".parse()?;
    /// let options = options.queue_bytes_max(8 << 20);
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    #[must_use]
    pub fn queue_bytes_max(mut self, bytes: usize) -> Options {
        self.queue_bytes_max = bytes.max(1 << 10);
        self
    }

    /// Where recorded times come from, and by what leases end. Default: recorded times are those of
    /// this machine, and leases end by the clock of the server, so that the clocks of workers need
    /// not agree.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// let options: annals_postgres::Options = "postgres://localhost/bank".parse()?;
    /// let options = options.clock(Arc::new(annals_core::ManualClock::default()));
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Options {
        self.lease_clock = Some(Arc::clone(&clock));
        self.clock = clock;
        self
    }

    /// How much one append may hold. Default: [`Limits::default`].
    ///
    /// ```
    /// let mut limits = annals_core::Limits::default();
    /// limits.append_events_max = 100;
    /// let options: annals_postgres::Options = "postgres://localhost/bank".parse()?;
    /// let options = options.limits(limits);
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Options {
        self.limits = limits;
        self
    }

    /// Sets one of our own options; none when the key is not ours.
    fn set(self, key: &str, value: &str) -> Result<Option<Options>, Invalid> {
        let wrong = || {
            let choices = match key {
                "mode" => "it is `ro` or `rw`",
                "migrate" | "listen" | "relaxed_durability" => "it is `true` or `false`",
                _ => "it is a whole number",
            };
            // Not the value: an unencoded `?` in a password puts the rest of it here.
            Invalid::new(format!(
                "option `{key}` of a postgres url has a value that is not known: {choices}"
            ))
        };
        let milliseconds = || {
            value
                .parse()
                .map(Duration::from_millis)
                .map_err(|_| wrong())
        };
        Ok(Some(match (key, value) {
            ("schema", _) => self.schema(value)?,
            ("mode", "ro") => self.read_only(),
            ("mode", "rw") => self,
            ("migrate", "false") => self.without_migration(),
            ("listen", "false") => self.without_listening(),
            ("relaxed_durability", "true") => self.relaxed_durability(),
            ("migrate" | "listen", "true") | ("relaxed_durability", "false") => self,
            ("statement_timeout_ms", _) => self.statement_timeout(milliseconds()?),
            ("connect_timeout_ms", _) => self.connect_timeout(milliseconds()?),
            ("readers", _) => self.readers(value.parse().map_err(|_| wrong())?),
            ("mode" | "migrate" | "listen" | "relaxed_durability", _) => return Err(wrong()),
            _ => return Ok(None),
        }))
    }
}

/// The bounds of times. The server takes no longer ones.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(2_147_483_647);

/// Our own options in a URL.
const OURS: [&str; 8] = [
    "schema",
    "mode",
    "migrate",
    "listen",
    "relaxed_durability",
    "statement_timeout_ms",
    "connect_timeout_ms",
    "readers",
];

/// Those of the driver, which ignores one that it does not know with no more than a warning.
const OF_DRIVER: [&str; 13] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "statement-cache-capacity",
];

/// Other spellings of some of them.
const SPELT_OTHERWISE: [&str; 5] = ["ssl-mode", "ssl-root-cert", "ssl-ca", "ssl-cert", "ssl-key"];

fn is_of_driver(key: &str) -> bool {
    OF_DRIVER.contains(&key) || SPELT_OTHERWISE.contains(&key) || key.starts_with("options[")
}

fn no_option(key: &str) -> Invalid {
    Invalid::new(format!(
        "a postgres url has no option `{}`; there are `{}` and `{}`",
        key.escape_debug(),
        OURS.join("`, `"),
        OF_DRIVER.join("`, `")
    ))
}

fn not_understood() -> Invalid {
    // Not what the parser says: it may quote what it takes for a part of the url.
    Invalid::new(
        "a postgres url is not understood; it is postgres://USER:PASSWORD@HOST:PORT/DATABASE, with \
         `@`, `:`, `/`, `?`, `#` and `%` in a user or a password percent-encoded",
    )
}

/// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, or with `postgresql:`. After a `?` are our own
/// options and those of sqlx (`sslmode`, `sslrootcert`, `application_name`, `host` for a socket,
/// …), percent-encoded; one that neither knows is refused.
impl FromStr for Options {
    type Err = Invalid;

    fn from_str(url: &str) -> Result<Options, Invalid> {
        if !url.starts_with("postgres:") && !url.starts_with("postgresql:") {
            // Not the whole of it: what was meant for another program may hold a password.
            let scheme: String = url.chars().take_while(|c| *c != ':').take(32).collect();
            return Err(Invalid::new(format!(
                "`{}:…` is not a postgres url",
                scheme.escape_debug()
            )));
        }
        let (base, settings) = url.split_once('?').unwrap_or((url, ""));
        let mut theirs = Vec::new();
        let mut ours = Vec::new();
        let probe = Options::new(PgConnectOptions::new());
        for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| not_understood())?;
            if probe.clone().set(key, &value)?.is_some() {
                ours.push((key, value));
            } else if is_of_driver(key) {
                theirs.push(setting);
            } else if settings.contains('@') {
                // An unencoded `?` in a password puts the rest of it here.
                return Err(not_understood());
            } else {
                return Err(no_option(key));
            }
        }
        let separator = if theirs.is_empty() { "" } else { "?" };
        let connect = format!("{base}{separator}{}", theirs.join("&"))
            .parse()
            .map_err(|_: sqlx::Error| not_understood())?;
        let mut options = Options::new(connect);
        for (key, value) in ours {
            options = options.clone().set(key, &value)?.unwrap_or(options);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_to_what_a_server_takes() {
        let url = "postgres://x/y?statement_timeout_ms=2147483648&connect_timeout_ms=0";
        let options: Options = url.parse().unwrap();
        let options = options.poll_interval(Duration::MAX);
        assert_eq!(options.statement_timeout.as_millis(), 2_147_483_647);
        assert_eq!(options.connect_timeout.as_millis(), 1);
        assert_eq!(options.poll_interval.as_millis(), 2_147_483_647);
    }

    #[test]
    fn a_url_names_a_database_and_how_to_use_it() {
        let url = "postgres://app:secret@db.internal:5433/bank?schema=sales&sslmode=require\
                   &readers=3&statement_timeout_ms=250&mode=ro\
                   &relaxed_durability=true&listen=false&migrate=false";
        let options: Options = url.parse().unwrap();
        assert_eq!(
            (options.connect.get_host(), options.connect.get_port()),
            ("db.internal", 5433)
        );
        assert_eq!(
            (options.connect.get_database(), options.schema_name()),
            (Some("bank"), "sales")
        );
        assert_eq!(
            (options.readers, options.statement_timeout),
            (3, Duration::from_millis(250))
        );
        assert!(
            options.read_only && options.relaxed_durability && !options.listen && !options.migrate
        );
    }

    #[test]
    fn values_in_a_url_are_percent_decoded() {
        let options: Options = "postgres://x/y?schema=s%C3%A9%20a".parse().unwrap();
        assert_eq!(options.schema_name(), "sé a");
    }

    #[test]
    fn what_is_no_url_of_ours_is_refused_and_named() {
        for (url, said) in [
            ("mysql://app:secret@x/y", "`mysql:…`"),
            ("postgres://x/y?schema=", "schema"),
            ("postgres://x/y?schema=pg_mine", "pg_mine"),
            ("postgres://x/y?readers=many", "`readers`"),
            ("postgres://x/y?mode=fast", "`ro` or `rw`"),
            ("postgres://x/y?mod=ro", "no option `mod`"),
            ("postgres://x/y?sslmod=verify-full", "`sslmode`"),
            ("postgres://app:my?secret@x/y", "percent-encoded"),
            ("postgres://x/y?schema=a%22b", "quotes"),
        ] {
            let error = url.parse::<Options>().unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{error}");
        }
    }
}
