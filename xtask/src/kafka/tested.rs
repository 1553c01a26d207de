//! The brokers that tests run on: some that were named, or private ones for this run.

use std::net::ToSocketAddrs;

use super::ready::brokers;
use super::{BOOTSTRAP, CONTROL, JARS, Jars, Java, Lent};
use crate::stop::Stop;
use crate::test::{Need, State};

/// The module that tests are in when they need a broker, and when they stop and start it.
const MODULE: &str = "on_kafka::";
const RESTARTS_MODULE: &str = "broker_restarts::";

/// The packages that have such tests.
const PACKAGES: [&str; 2] = ["annals-kafka", "annals"];

/// The need, and what was done about it.
pub(crate) struct Tested {
    pub(crate) need: Need,
    /// What tests learn of the brokers through their environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Stopped when this is dropped.
    lent: Option<Lent>,
    was_named: bool,
}

/// Whether a test of these packages may need a broker; none chosen are all.
pub(crate) fn is_wanted_by(packages: &[&str]) -> bool {
    packages.is_empty() || packages.iter().any(|name| PACKAGES.contains(name))
}

impl Tested {
    /// Finds or starts them.
    pub(crate) fn find() -> Self {
        match std::env::var(BOOTSTRAP) {
            Ok(bootstrap) if !bootstrap.is_empty() => Self::named(&bootstrap),
            _ => Self::private().unwrap_or_else(|stop| Self::of(State::Missing(stop.to_string()))),
        }
    }

    fn of(state: State) -> Self {
        Self {
            need: Need {
                name: "Apache Kafka",
                state,
            },
            environment: Vec::new(),
            lent: None,
            was_named: false,
        }
    }

    fn named(bootstrap: &str) -> Self {
        let answers = bootstrap
            .split(',')
            .filter_map(|address| address.trim().to_socket_addrs().ok())
            .flatten()
            .any(|address| brokers(address).is_some());
        let named = format!("{bootstrap}, named in {BOOTSTRAP}");
        // A client that is not ours is run from them; the broker is somebody else's.
        let jars = Java::find().and_then(|java| Jars::find(&java));
        Self {
            was_named: true,
            environment: jars.iter().map(environment_of).collect(),
            ..Self::of(match answers {
                true => State::Found(named),
                false => State::Missing(format!("{named}: no broker answers there")),
            })
        }
    }

    fn private() -> Result<Self, Stop> {
        let java = Java::find()?;
        let jars = Jars::find(&java)?;
        let lent = Lent::start(&java, &jars, 1)?;
        let found = format!("{} on Java {}", jars.version, java.version);
        let state = match java.installed {
            true => State::Installed(found),
            false => State::Found(found),
        };
        let mut environment = lent.environment()?;
        environment.push(environment_of(&jars));
        Ok(Self {
            environment,
            lent: Some(lent),
            ..Self::of(state)
        })
    }

    /// The module whose tests cannot run, if there is one.
    pub(crate) fn skipped(&self) -> Option<&'static str> {
        if self.need.is_missing() {
            Some(MODULE)
        } else {
            let ours = self.lent.is_some() || std::env::var_os(CONTROL).is_some();
            (!ours).then_some(RESTARTS_MODULE)
        }
    }

    /// Whether a run without them has failed.
    pub(crate) fn must_be_there(&self) -> bool {
        self.was_named || std::env::var("CI").is_ok_and(|ci| ci == "true")
    }

    /// A closing line.
    pub(crate) fn shown(&self) -> String {
        match (&self.lent, self.need.is_missing()) {
            (Some(lent), _) => format!("Apache Kafka, {}: stopped and removed", lent.shown()),
            (None, false) => "Apache Kafka, as named".to_owned(),
            (None, true) => "no Apache Kafka".to_owned(),
        }
    }
}

/// Where tests find the jars of a Java client.
fn environment_of(jars: &Jars) -> (&'static str, String) {
    (JARS, jars.directory.display().to_string())
}
