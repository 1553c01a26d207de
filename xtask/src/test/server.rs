//! The servers that tests run on: each is one that was named, or an ephemeral one of this run.

use super::need::{Need, State};
use crate::stop::Stop;
use crate::{kafka, postgres};

/// Every kind of server that some test needs. A new backend gets its line here.
pub(crate) const KINDS: [&Kind; 2] = [&postgres::KIND, &kafka::KIND];

/// What is known of a kind of server before one is looked for.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// The variable that names an external server, and in which tests find any.
    pub(crate) url: &'static str,
    /// The variable that names the program with which tests stop, kill and start it.
    pub(crate) control: &'static str,
    /// The package whose tests all need it, if there is one.
    pub(crate) package: Option<&'static str>,
    /// The packages that have tests which need it.
    pub(crate) packages: &'static [&'static str],
    /// The module that such tests are in outside of that package.
    pub(crate) module: &'static str,
    /// The module that tests are in which stop and start it.
    pub(crate) restarts_module: &'static str,
    /// Whether an external one answers: what is shown of it, or why not.
    pub(crate) ask: fn(&str) -> Result<String, String>,
    /// What tests learn of what came with it, also where it is external.
    pub(crate) beside: fn() -> Vec<(&'static str, String)>,
    /// Starts an ephemeral one.
    pub(crate) start: fn() -> Result<Started, Stop>,
}

/// An ephemeral server that runs.
pub(crate) struct Started {
    /// What was found or installed to start it.
    pub(crate) state: State,
    /// Where it is, for a closing line.
    pub(crate) shown: String,
    /// What tests learn of it through their environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Stops and removes the server when it is dropped.
    pub(crate) guard: Box<dyn Send>,
}

/// A server of a run, or what is in its place.
pub(crate) struct Server {
    pub(crate) kind: &'static Kind,
    pub(crate) need: Need,
    /// What tests learn of the server through their environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    shown: String,
    ephemeral: Option<Box<dyn Send>>,
    is_external: bool,
}

impl Server {
    /// The one that is named in the environment, or else an ephemeral one.
    pub(crate) fn find(kind: &'static Kind) -> Self {
        match std::env::var(kind.url) {
            Ok(url) if !url.is_empty() => Self::external(kind, &url),
            _ => Self::ephemeral(kind),
        }
    }

    fn external(kind: &'static Kind, url: &str) -> Self {
        let state = match (kind.ask)(url) {
            Ok(shown) => State::Found(format!("{shown}, named in {}", kind.url)),
            Err(why) => State::Missing(format!("{why} (named in {})", kind.url)),
        };
        Self {
            is_external: true,
            environment: (kind.beside)(),
            ..Self::of(kind, state)
        }
    }

    fn ephemeral(kind: &'static Kind) -> Self {
        match (kind.start)() {
            Err(stop) => Self::of(kind, State::Missing(stop.to_string())),
            Ok(mut started) => Self {
                environment: {
                    started.environment.extend((kind.beside)());
                    started.environment
                },
                shown: started.shown,
                ephemeral: Some(started.guard),
                ..Self::of(kind, started.state)
            },
        }
    }

    fn of(kind: &'static Kind, state: State) -> Self {
        Self {
            kind,
            need: Need {
                name: kind.name,
                state,
            },
            environment: Vec::new(),
            shown: String::new(),
            ephemeral: None,
            is_external: false,
        }
    }

    /// Which tests cannot run on it.
    pub(crate) fn lacks(&self) -> Lacks {
        if self.need.is_missing() {
            Lacks::Everything
        } else if self.ephemeral.is_none() && std::env::var_os(self.kind.control).is_none() {
            Lacks::Restarts
        } else {
            Lacks::Nothing
        }
    }

    /// Whether a run without it has failed: in CI, and where a certain server was wanted.
    pub(crate) fn must_be_there(&self) -> bool {
        self.is_external || std::env::var("CI").is_ok_and(|ci| ci == "true")
    }

    /// A closing line.
    pub(crate) fn shown(&self) -> String {
        let name = self.kind.name;
        match (&self.ephemeral, self.need.is_missing()) {
            (Some(_), _) => format!("{name}, {}: stopped and removed", self.shown),
            (None, false) => format!("{name}, external"),
            (None, true) => format!("no {name}"),
        }
    }
}

/// What tests must do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    Nothing,
    /// The server is external, and no program stops and starts it.
    Restarts,
    /// There is no server.
    Everything,
}
