//! The PostgreSQL server that tests run on: one that was named, or a private one for this run.

use super::need::{Need, State};
use crate::postgres::{self, Account, Binaries, CONTROL, Lent, Search, URL};
use crate::stop::Stop;

/// The need, and what was done about it.
pub(crate) struct Server {
    pub(crate) need: Need,
    /// What tests learn of the server through their environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Stopped when this is dropped.
    lent: Option<Lent>,
    /// Somebody wanted a certain server, and it is not there.
    was_named: bool,
}

impl Server {
    /// Finds or starts it.
    pub(crate) fn find() -> Self {
        match std::env::var(URL) {
            Ok(url) if !url.is_empty() => Self::named(&url),
            _ => Self::private(),
        }
    }

    fn named(url: &str) -> Self {
        let shown = postgres::shown(url);
        let state = match postgres::answers(url) {
            Ok(()) => State::Found(format!("{shown}, named in {URL}")),
            Err(why) => State::Missing(format!("{shown}, named in {URL}: {why}")),
        };
        Self {
            lent: None,
            environment: Vec::new(),
            was_named: true,
            need: need(state),
        }
    }

    fn private() -> Self {
        start().unwrap_or_else(|stop| {
            let need = need(State::Missing(stop.to_string()));
            Self {
                need,
                lent: None,
                environment: Vec::new(),
                was_named: false,
            }
        })
    }

    /// Which tests cannot run on it.
    pub(crate) fn lacks(&self) -> Lacks {
        if self.need.is_missing() {
            Lacks::Everything
        } else if self.lent.is_none() && std::env::var_os(CONTROL).is_none() {
            Lacks::Restarts
        } else {
            Lacks::Nothing
        }
    }

    /// Whether a run without it has failed: where nobody reads closing lines, and where a certain
    /// server was wanted.
    pub(crate) fn must_be_there(&self) -> bool {
        self.was_named || std::env::var("CI").is_ok_and(|ci| ci == "true")
    }

    /// A closing line.
    pub(crate) fn shown(&self) -> String {
        match (&self.lent, self.need.is_missing()) {
            (Some(lent), _) => format!("PostgreSQL, {}: stopped and removed", lent.shown()),
            (None, false) => "PostgreSQL, as named".to_owned(),
            (None, true) => "NONE".to_owned(),
        }
    }
}

/// What tests must do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    Nothing,
    /// The server is somebody else's, and nobody said how to stop and start it.
    Restarts,
    /// There is no server.
    Everything,
}

fn start() -> Result<Server, Stop> {
    let account = Account::for_server()?;
    let (binaries, state): (Binaries, fn(String) -> State) = match Binaries::find(&account) {
        Search::Found(binaries) => (binaries, State::Found),
        Search::Installed(binaries) => (binaries, State::Installed),
        Search::Missing(advice) => return Err(Stop::failed(advice)),
    };
    let lent = Lent::start(&binaries, &account)?;
    let environment = lent.environment()?;
    let need = need(state(format!(
        "{} in {}",
        binaries.version,
        binaries.directory.display()
    )));
    Ok(Server {
        need,
        environment,
        lent: Some(lent),
        was_named: false,
    })
}

fn need(state: State) -> Need {
    Need {
        name: "PostgreSQL",
        state,
    }
}
