//! Which store, where its local copy is, and what this process owns of it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use annals_core::{Clock, Invalid, SystemClock};

use crate::topic::name::check_name;
use crate::url::Url;

/// Bytes of the name of a store: its group and its transactional ids have more.
const NAME_BYTES_MAX: usize = 200;

/// Partitions of a topic that is made.
const PARTITIONS: u32 = 16;

/// Which partitions a process owns: for those alone it takes appends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owns {
    /// Those that a consumer group assigns to it, which divides them among the processes.
    #[default]
    Shared,
    /// All of them: for one process alone.
    All,
    /// None: it only reads.
    None,
}

/// How a store is opened.
///
/// ```
/// use annals_kafka::store::{Options, Owns};
///
/// let options: Options = "kafka://127.0.0.1:9092/bank?local=./bank&owns=all".parse()?;
/// let same = Options::new("kafka://127.0.0.1:9092", "bank", "./bank").owns(Owns::All);
/// assert_eq!(options.local(), same.local());
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone)]
pub struct Options {
    /// Without what is said of the store.
    pub(super) brokers: String,
    pub(super) name: String,
    pub(super) local: PathBuf,
    pub(super) owns: Owns,
    pub(super) advertise: Option<String>,
    pub(super) partitions: u32,
    pub(super) replicas: Option<u16>,
    pub(super) relaxed_durability: bool,
    pub(super) accepted: BTreeSet<(u32, i64)>,
    pub(super) settings: Vec<(String, String)>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Without user and password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("local", &self.local)
            .field("owns", &self.owns)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The store in the topic `name` of these brokers, with its local copy in the folder `local`.
    ///
    /// ```
    /// use annals_kafka::store::Options;
    ///
    /// let options = Options::new("kafka://a,b,c", "bank", "/var/lib/bank").replicas(3);
    /// ```
    pub fn new(
        brokers: impl Into<String>,
        name: impl Into<String>,
        local: impl Into<PathBuf>,
    ) -> Options {
        Options {
            brokers: brokers.into(),
            name: name.into(),
            local: local.into(),
            owns: Owns::default(),
            advertise: None,
            partitions: PARTITIONS,
            replicas: None,
            relaxed_durability: false,
            accepted: BTreeSet::new(),
            settings: Vec::new(),
            clock: Arc::new(SystemClock),
        }
    }

    /// The folder of the local copy.
    ///
    /// ```
    /// # use annals_kafka::store::Options;
    /// let options = Options::new("kafka://a", "bank", "./bank");
    /// assert_eq!(options.local(), std::path::Path::new("./bank"));
    /// ```
    pub fn local(&self) -> &Path {
        &self.local
    }

    /// Which partitions this process owns. Default: shared with others by a group. In a URL:
    /// `owns=shared|all|none`.
    ///
    /// ```
    /// # use annals_kafka::store::{Options, Owns};
    /// let options = Options::new("kafka://a", "bank", "./bank").owns(Owns::None);
    /// ```
    #[must_use]
    pub fn owns(mut self, owns: Owns) -> Options {
        self.owns = owns;
        self
    }

    /// What other processes are told to send commands to:
    /// [`NotOwner`](annals_core::AppendError::NotOwner). Default: machine and process. In a URL:
    /// `advertise`.
    ///
    /// ```
    /// # use annals_kafka::store::Options;
    /// let options =
    ///     Options::new("kafka://a", "bank", "./bank").advertise("http://10.0.0.7:8080");
    /// ```
    #[must_use]
    pub fn advertise(mut self, address: impl Into<String>) -> Options {
        self.advertise = Some(address.into());
        self
    }

    /// Partitions of the topic when it is made; they stay as many for ever. Default: 16. In a URL:
    /// `partitions`.
    ///
    /// ```
    /// # use annals_kafka::store::Options;
    /// let options = Options::new("kafka://a", "bank", "./bank").partitions(3);
    /// ```
    #[must_use]
    pub fn partitions(mut self, count: u32) -> Options {
        self.partitions = count.max(1);
        self
    }

    /// Replicas of the topic when it is made. Default: the brokers'. In a URL: `replicas`.
    ///
    /// ```
    /// # use annals_kafka::store::Options;
    /// let options = Options::new("kafka://a,b,c", "bank", "./bank").replicas(3);
    /// ```
    #[must_use]
    pub fn replicas(mut self, count: u16) -> Options {
        self.replicas = Some(count);
        self
    }

    /// Takes a topic that may lose what it acknowledged when a broker is lost. Default: off. In a
    /// URL: `relaxed_durability=true`.
    ///
    /// ```
    /// # use annals_kafka::store::Options;
    /// let options = Options::new("kafka://a", "bank", "./bank").relaxed_durability();
    /// ```
    #[must_use]
    pub fn relaxed_durability(mut self) -> Options {
        self.relaxed_durability = true;
        self
    }

    /// Passes over a record that another program wrote into the topic. In a URL:
    /// `accept_foreign=PARTITION:OFFSET`, several with commas.
    ///
    /// ```
    /// # use annals_kafka::store::Options;
    /// let options = Options::new("kafka://a", "bank", "./bank").accept_foreign(3, 991);
    /// ```
    #[must_use]
    pub fn accept_foreign(mut self, partition: u32, offset: i64) -> Options {
        self.accepted.insert((partition, offset));
        self
    }

    /// Any setting of librdkafka but those that carry a promise.
    ///
    /// ```
    /// # use annals_kafka::store::Options;
    /// let options = Options::new("kafka://a", "bank", "./bank")
    ///     .setting("session.timeout.ms", "6000");
    /// ```
    #[must_use]
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Options {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// Where recorded times come from. Default: the system's clock.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// # use annals_kafka::store::Options;
    /// let clock = Arc::new(annals_core::ManualClock::default());
    /// let options = Options::new("kafka://a", "bank", "./bank").clock(clock);
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Options {
        self.clock = clock;
        self
    }

    fn set(self, key: &str, value: &str) -> Result<Options, Invalid> {
        let wrong = || {
            Invalid::new(format!(
                "`{key}={}` of a URL of a Kafka store is not understood: {}",
                value.escape_debug(),
                choices(key)
            ))
        };
        Ok(match (key, value) {
            ("owns", "shared") => self.owns(Owns::Shared),
            ("owns", "all") => self.owns(Owns::All),
            ("owns", "none") => self.owns(Owns::None),
            ("advertise", address) if !address.is_empty() => self.advertise(address),
            ("partitions", count) => match count.parse() {
                Ok(count @ 1..) => self.partitions(count),
                _ => return Err(wrong()),
            },
            ("replicas", count) => match count.parse() {
                Ok(count @ 1..) => self.replicas(count),
                _ => return Err(wrong()),
            },
            ("relaxed_durability", "true") => self.relaxed_durability(),
            ("relaxed_durability", "false") => self,
            ("accept_foreign", list) => list.split(',').try_fold(self, |options, place| {
                let place = place.split_once(':').ok_or_else(wrong)?;
                match (place.0.parse(), place.1.parse()) {
                    (Ok(partition), Ok(offset)) => Ok(options.accept_foreign(partition, offset)),
                    _ => Err(wrong()),
                }
            })?,
            _ => return Err(wrong()),
        })
    }
}

/// `kafka://[USER:PASSWORD@]HOST[:PORT][,HOST…]/NAME?local=DIR`, with what a connection takes and
/// `owns`, `advertise`, `partitions`, `replicas`, `relaxed_durability` and `accept_foreign`.
impl FromStr for Options {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Options, Invalid> {
        let url = Url::parse(text).map_err(|error| Invalid::new(error.to_string()))?;
        let shape = "`kafka://HOST:PORT/NAME?local=DIR`";
        let Some(name) = url.name.clone() else {
            return Err(Invalid::new(format!(
                "the URL of a Kafka store names its topic: {shape}"
            )));
        };
        check_name(&name, NAME_BYTES_MAX)?;
        let Some(local) = url.local().filter(|local| !local.is_empty()) else {
            return Err(Invalid::new(format!(
                "the URL of a Kafka store says where its local copy is: {shape}"
            )));
        };
        let options = Options::new(connection_of(text), name, local);
        url.of_store()
            .filter(|(key, _)| *key != "local")
            .try_fold(options, |options, (key, value)| options.set(key, value))
    }
}

/// What a setting may be.
fn choices(key: &str) -> &'static str {
    match key {
        "owns" => "it is `shared`, `all` or `none`",
        "partitions" | "replicas" => "it is a number from 1 on",
        "relaxed_durability" => "it is `true` or `false`",
        "accept_foreign" => "it is `PARTITION:OFFSET`, several with commas",
        "advertise" => "it is what others are told to send commands to, and not empty",
        _ => {
            "there are `local`, `owns`, `advertise`, `partitions`, `replicas`, \
              `relaxed_durability` and `accept_foreign`"
        }
    }
}

/// The URL without the name and without what only a store understands.
fn connection_of(url: &str) -> String {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let brokers = match place.strip_prefix("kafka://") {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => place,
    };
    let rest: Vec<&str> = query
        .split('&')
        .filter(|pair| !Url::is_of_store(pair.split('=').next().unwrap_or(pair)))
        .collect();
    match rest.join("&") {
        query if query.is_empty() => format!("kafka://{brokers}"),
        query => format!("kafka://{brokers}?{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_everything() {
        let options: Options = "kafka://u:p@a,b:1/bank?local=.%2Fbank%20x&owns=none&tls=true\
             &advertise=http%3A%2F%2F10.0.0.7&partitions=3&replicas=2&accept_foreign=0:7,2:9\
             &relaxed_durability=true"
            .parse()
            .unwrap();
        assert_eq!(options.brokers, "kafka://u:p@a,b:1?tls=true");
        assert_eq!(options.name, "bank");
        assert_eq!(options.local, Path::new("./bank x"));
        assert_eq!(options.owns, Owns::None);
        assert_eq!(options.advertise.as_deref(), Some("http://10.0.0.7"));
        assert_eq!((options.partitions, options.replicas), (3, Some(2)));
        assert_eq!(options.accepted, [(0, 7), (2, 9)].into());
        assert!(options.relaxed_durability);
        assert!(!format!("{options:?}").contains("u:p"));
    }

    #[test]
    fn what_is_no_store_url_is_refused_and_named() {
        for (url, said) in [
            ("sqlite:x", "begins with `kafka://`"),
            ("kafka://a", "names its topic"),
            ("kafka://a/bank", "where its local copy is"),
            ("kafka://a/bank?local=", "where its local copy is"),
            ("kafka://a/b%20k?local=x", "no name of a topic"),
            (
                "kafka://a/bank?local=x&owns=some",
                "`owns=some` of a URL of a Kafka store is not understood: it is `shared`, `all` \
                 or `none`",
            ),
            (
                "kafka://a/bank?local=x&partitions=0",
                "it is a number from 1 on",
            ),
            (
                "kafka://a/bank?local=x&accept_foreign=7",
                "it is `PARTITION:OFFSET`",
            ),
            (
                "kafka://a/bank?local=x&nonsense=1",
                "`nonsense` is no setting",
            ),
        ] {
            let error = url.parse::<Options>().unwrap_err().to_string();
            assert!(error.contains(said), "{url}: {error}");
        }
    }
}
