//! What the tests need from the machine, and whether it is there.

use std::fmt;

/// One thing that tests cannot do without: a compiler, or a server where a backend has one.
#[derive(Debug)]
pub(crate) struct Need {
    pub(crate) name: &'static str,
    pub(crate) state: State,
}

/// How a need was met; each text names the thing exactly, or says what to do.
#[derive(Debug)]
pub(crate) enum State {
    /// It was there.
    Found(String),
    /// It was not there and now is.
    Installed(String),
    /// It could not be had.
    Missing(String),
}

impl Need {
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.state, State::Missing(_))
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match &self.state {
            State::Found(text) => ("found:    ", text),
            State::Installed(text) => ("installed:", text),
            State::Missing(text) => ("MISSING:  ", text),
        };
        write!(f, "{word} {}: {text}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_loudly() {
        let need = Need {
            name: "C compiler",
            state: State::Missing("install one".to_owned()),
        };
        assert!(need.is_missing());
        assert_eq!(need.to_string(), "MISSING:   C compiler: install one");
    }
}
