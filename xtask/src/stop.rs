//! Why a command stopped, and the exit code that says so.

use std::fmt;

/// What went wrong, in a sentence for who typed the command.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The work was done or begun, and something in it is wrong: exit code 1.
    Failed(String),
    /// The command line makes no sense: exit code 2.
    Misused(String),
}

impl Stop {
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }

    pub(crate) fn misused(why: impl Into<String>) -> Self {
        Self::Misused(why.into())
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Misused(_) => 2,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) | Self::Misused(why) => f.write_str(why),
        }
    }
}
