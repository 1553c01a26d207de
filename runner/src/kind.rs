//! The kinds of things that follow a log.

use serde::Serialize;

/// What follows the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A read model.
    View,
    /// A reactor.
    Reactor,
    /// The process managers of a kind.
    Process,
    /// What publishes the log elsewhere.
    Relay,
    /// What publishes the rows of a view elsewhere.
    StateTopic,
    /// What takes the changes of a source into the log.
    Ingest,
    /// What sends the events that a pipeline emits.
    Sender,
}

impl Kind {
    /// Its name in metrics and in the names of checkpoints.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::View => "view",
            Kind::Reactor => "reactor",
            Kind::Process => "process",
            Kind::Relay => "relay",
            Kind::StateTopic => "state_topic",
            Kind::Ingest => "ingest",
            Kind::Sender => "sender",
        }
    }

    /// The name under which the view store keeps the checkpoints of one of this kind.
    pub fn stored_name(self, name: &str) -> String {
        match self {
            Kind::View => name.to_owned(),
            kind => format!("${}/{name}", kind.name()),
        }
    }

    /// The name that users gave, of such a stored one.
    pub fn display_name(self, stored: &str) -> &str {
        stored.strip_prefix(&self.stored_name("")).unwrap_or(stored)
    }
}
