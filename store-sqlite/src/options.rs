//! Where the file is and how it is used. Every option has a default that keeps every promise.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Clock, Invalid, Limits, LogId, SystemClock};

/// How a store is opened.
///
/// ```
/// use std::time::Duration;
///
/// use annals_sqlite::Options;
///
/// let options = Options::file("bank.db").busy_timeout(Duration::from_secs(30)).readers(2);
/// let same: Options = "sqlite:bank.db?busy_timeout_ms=30000&readers=2".parse()?;
/// assert_eq!(options.path(), same.path());
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) path: Option<PathBuf>,
    pub(crate) read_only: bool,
    pub(crate) create: bool,
    pub(crate) relaxed_durability: bool,
    pub(crate) busy_timeout: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) readers: usize,
    pub(crate) group_events_max: usize,
    pub(crate) group_bytes_max: usize,
    pub(crate) queue_bytes_max: usize,
    pub(crate) page_cache_bytes: usize,
    pub(crate) file_bytes_max: Option<u64>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    pub(crate) replica_of: Option<LogId>,
}

impl Options {
    /// A store in the file at `path`, which is made when it is not there. A `-wal` and a `-shm`
    /// file are beside it while it is open and belong to it: remove or replace none of them.
    ///
    /// ```
    /// let options = annals_sqlite::Options::file("data/bank.db");
    /// assert_eq!(options.path().unwrap(), std::path::Path::new("data/bank.db"));
    /// ```
    pub fn file(path: impl Into<PathBuf>) -> Options {
        Options::at(Some(path.into()))
    }

    /// A store that is forgotten when the last handle to it is gone.
    ///
    /// ```
    /// assert!(annals_sqlite::Options::in_memory().path().is_none());
    /// ```
    pub fn in_memory() -> Options {
        Options::at(None)
    }

    fn at(path: Option<PathBuf>) -> Options {
        Options {
            path,
            read_only: false,
            create: true,
            relaxed_durability: false,
            busy_timeout: Duration::from_secs(10),
            poll_interval: Duration::from_millis(50),
            readers: std::thread::available_parallelism()
                .map_or(4, usize::from)
                .clamp(2, 8),
            group_events_max: 8_192,
            group_bytes_max: 8 << 20,
            queue_bytes_max: 64 << 20,
            page_cache_bytes: 8 << 20,
            file_bytes_max: None,
            clock: Arc::new(SystemClock),
            limits: Limits::default(),
            replica_of: None,
        }
    }

    /// The file; none when the store is in memory.
    ///
    /// ```
    /// assert!(annals_sqlite::Options::in_memory().path().is_none());
    /// ```
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Refuses every write with [`Failure::ReadOnly`](annals_core::Failure), and does not upgrade
    /// an older file but refuses it. Others may go on writing. Default: off. In a URL: `mode=ro`.
    ///
    /// ```
    /// let options = annals_sqlite::Options::file("bank.db").read_only();
    /// ```
    #[must_use]
    pub fn read_only(mut self) -> Options {
        self.read_only = true;
        self
    }

    /// Does not make a file that is not there but fails. Default: makes it. In a URL: `mode=rw`.
    ///
    /// ```
    /// let options = annals_sqlite::Options::file("bank.db").existing();
    /// ```
    #[must_use]
    pub fn existing(mut self) -> Options {
        self.create = false;
        self
    }

    /// Answers appends before they are on the disk (`synchronous=NORMAL`): the last ones before a
    /// power cut may be gone although they were acknowledged; a killed process loses nothing.
    /// Several times faster for single appends. Default: off, an acknowledged append survives a
    /// power cut. In a URL: `relaxed_durability=true`.
    ///
    /// ```
    /// let options = annals_sqlite::Options::file("cache.db").relaxed_durability();
    /// ```
    #[must_use]
    pub fn relaxed_durability(mut self) -> Options {
        self.relaxed_durability = true;
        self
    }

    /// How long a write waits for another process that is writing; after that it fails with
    /// [`Failure::Unavailable`](annals_core::Failure) and nothing was written. Default: 10 seconds.
    /// In a URL: `busy_timeout_ms`.
    ///
    /// ```
    /// # use annals_sqlite::Options;
    /// # use std::time::Duration;
    /// let options = Options::file("bank.db").busy_timeout(Duration::from_secs(1));
    /// ```
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Options {
        self.busy_timeout = timeout.min(LONGEST);
        self
    }

    /// How often an idle store polls for the commits of other processes; the hint of the log comes
    /// at most so much later than the commit. Each poll costs some microseconds. Default: 50
    /// milliseconds.
    ///
    /// ```
    /// # use annals_sqlite::Options;
    /// # use std::time::Duration;
    /// let options = Options::file("bank.db").poll_interval(Duration::from_millis(10));
    /// ```
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Options {
        self.poll_interval = interval.clamp(Duration::from_millis(1), LONGEST);
        self
    }

    /// How many reads may go on at once (at least 1); further ones wait. Each has a connection with
    /// a page cache of its own, made when it is first needed. Default: one for each core, 2 to 8.
    /// In a URL: `readers`.
    ///
    /// ```
    /// let options = annals_sqlite::Options::file("bank.db").readers(2);
    /// ```
    #[must_use]
    pub fn readers(mut self, count: usize) -> Options {
        self.readers = count.clamp(1, 1_024);
        self
    }

    /// How many events and how many bytes are committed together at most; a single larger append is
    /// committed alone. Larger groups make better use of each disk flush and are answered later.
    /// Default: 8,192 events, 8 MiB.
    ///
    /// ```
    /// let options = annals_sqlite::Options::file("bank.db").group_max(1_000, 1 << 20);
    /// ```
    #[must_use]
    pub fn group_max(mut self, events: usize, bytes: usize) -> Options {
        self.group_events_max = events.max(1);
        self.group_bytes_max = bytes.max(1);
        self
    }

    /// How many bytes of appends may wait for the writer (each counts as at least 1 KiB); when it
    /// is full, further appends wait before they are queued. Default: 64 MiB.
    ///
    /// ```
    /// let options = annals_sqlite::Options::file("bank.db").queue_bytes_max(8 << 20);
    /// ```
    #[must_use]
    pub fn queue_bytes_max(mut self, bytes: usize) -> Options {
        self.queue_bytes_max = bytes.max(1 << 10);
        self
    }

    /// How many bytes of the file the connection that writes keeps in memory; each that reads keeps
    /// an eighth of it. Default: 8 MiB.
    ///
    /// The SQLite that is built in counts the pages of all connections of a process together: what
    /// one does not use another one may, up to the sum.
    ///
    /// ```
    /// let options = annals_sqlite::Options::file("bank.db").page_cache_bytes(64 << 20);
    /// ```
    #[must_use]
    pub fn page_cache_bytes(mut self, bytes: usize) -> Options {
        self.page_cache_bytes = bytes;
        self
    }

    /// How large the file may grow, in bytes, rounded up to whole pages of 4 KiB; beyond that an
    /// append fails with [`Failure::Full`](annals_core::Failure) and nothing is lost. Opening with
    /// a larger value makes room. Default: what SQLite allows.
    ///
    /// ```
    /// let options = annals_sqlite::Options::file("bank.db").file_bytes_max(10 << 30);
    /// ```
    #[must_use]
    pub fn file_bytes_max(mut self, bytes: u64) -> Options {
        self.file_bytes_max = Some(bytes);
        self
    }

    /// Where recorded times come from. Default: the system's clock.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// # use annals_sqlite::Options;
    /// let options = Options::in_memory().clock(Arc::new(annals_core::ManualClock::default()));
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Options {
        self.clock = clock;
        self
    }

    /// How much one append may hold. Default: [`Limits::default`].
    ///
    /// ```
    /// let mut limits = annals_core::Limits::default();
    /// limits.append_events_max = 100;
    /// let options = annals_sqlite::Options::in_memory().limits(limits);
    /// ```
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Options {
        self.limits = limits;
        self
    }

    /// The file is the local copy of a log that is kept elsewhere: it takes appends only while it
    /// [owns](crate::SqliteStore::own) that log, and is brought up to date by
    /// [`apply`](crate::SqliteStore::apply). A file that is a replica is opened in no other way
    /// but read-only, and one of another log is refused.
    ///
    /// ```
    /// use annals_sqlite::Options;
    ///
    /// let log = annals_core::LogId::random();
    /// let options = Options::file("bank/0.db").replica_of(log).relaxed_durability();
    /// ```
    #[must_use]
    pub fn replica_of(mut self, log: LogId) -> Options {
        self.replica_of = Some(log);
        self
    }

    fn set(self, key: &str, value: &str) -> Result<Options, Invalid> {
        // Of an unknown option only the name: its value may be a secret.
        let unknown = || {
            Invalid::new(format!(
                "option `{}` of a sqlite url is not known: mode, relaxed_durability, \
                 busy_timeout_ms, readers and page_cache_bytes are",
                key.escape_debug()
            ))
        };
        let wrong = || {
            Invalid::new(format!(
                "option `{key}={}` of a sqlite url is not understood",
                value.escape_debug()
            ))
        };
        let number = || value.parse::<u64>().map_err(|_| wrong());
        Ok(match (key, value) {
            ("mode", "ro") => self.read_only().existing(),
            ("mode", "rw") => self.existing(),
            ("mode", "rwc") => self,
            ("relaxed_durability", "true") => self.relaxed_durability(),
            ("relaxed_durability", "false") => self,
            ("busy_timeout_ms", _) => self.busy_timeout(Duration::from_millis(number()?)),
            ("readers", _) => self.readers(usize::try_from(number()?).map_err(|_| wrong())?),
            ("page_cache_bytes", _) => {
                self.page_cache_bytes(usize::try_from(number()?).map_err(|_| wrong())?)
            }
            ("mode" | "relaxed_durability", _) => return Err(wrong()),
            _ => return Err(unknown()),
        })
    }
}

/// SQLite waits no longer, some 24 days.
const LONGEST: Duration = Duration::from_millis(2_147_483_647);

/// `sqlite:PATH`, `sqlite://PATH` or `sqlite::memory:`, with options after a `?`. The path is taken
/// literally: nothing in it is decoded, and `file:x.db` is a file of that name.
impl FromStr for Options {
    type Err = Invalid;

    fn from_str(url: &str) -> Result<Options, Invalid> {
        let rest = url.strip_prefix("sqlite:").ok_or_else(|| {
            // Not the rest of it: the url of another database may hold a password.
            let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
            Invalid::new(format!(
                "a url that begins with `{}:` is no sqlite url; that is `sqlite:PATH` or \
                 `sqlite::memory:`",
                scheme.escape_debug()
            ))
        })?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, settings) = rest.split_once('?').unwrap_or((rest, ""));
        let options = match path {
            "" => return Err(Invalid::new("a sqlite url names no file")),
            ":memory:" => Options::in_memory(),
            path => Options::file(path),
        };
        settings
            .split('&')
            .filter(|setting| !setting.is_empty())
            .try_fold(options, |options, setting| {
                let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
                options.set(key, value)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_with_the_longest_times_opens() {
        let options: Options = "sqlite::memory:?busy_timeout_ms=18446744073709551615"
            .parse()
            .unwrap();
        let options = options.poll_interval(Duration::MAX);
        assert_eq!(
            (options.busy_timeout, options.poll_interval),
            (LONGEST, LONGEST)
        );
        crate::SqliteStore::open_with(options).await.unwrap();
    }

    #[test]
    fn a_url_names_a_file_and_how_to_use_it() {
        for (url, path) in [
            ("sqlite:bank.db", Some("bank.db")),
            ("sqlite://bank.db", Some("bank.db")),
            ("sqlite:///var/lib/bank.db", Some("/var/lib/bank.db")),
            (
                "sqlite:/var/lib/b%20k.db?mode=rwc",
                Some("/var/lib/b%20k.db"),
            ),
            ("sqlite::memory:", None),
        ] {
            assert_eq!(
                url.parse::<Options>().unwrap().path(),
                path.map(Path::new),
                "{url}"
            );
        }
        let options: Options =
            "sqlite:x.db?mode=ro&busy_timeout_ms=5&readers=3&relaxed_durability=true"
                .parse()
                .unwrap();
        assert!(options.read_only && options.relaxed_durability && !options.create);
        assert_eq!(
            (options.busy_timeout, options.readers),
            (Duration::from_millis(5), 3)
        );
    }

    #[test]
    fn what_is_no_url_of_ours_is_refused_and_named() {
        for (url, said) in [
            ("postgres://x", "postgres:"),
            ("sqlite:", "names no file"),
            ("sqlite:x.db?mode=fast", "mode=fast"),
            ("sqlite:x.db?synchronous=off", "`synchronous`"),
            ("sqlite:x.db?readers=many", "readers=many"),
        ] {
            let error = url.parse::<Options>().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn an_error_about_a_url_keeps_its_secrets() {
        for url in [
            "postgres://me:secret@host/db",
            "me:secret@host",
            "secret",
            "sqlite:x.db?password=secret",
            "sqlite:?password=secret",
        ] {
            let error = url.parse::<Options>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
