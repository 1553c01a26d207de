//! What a process is to a partition, as appends and the partition's task see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{Failure, StoreError};
use tokio::sync::watch;

/// How long the process that gets a partition may take until it says so.
const TAKE_OVER: Duration = Duration::from_secs(3);

/// What this process is to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It reads what the owner writes.
    Following,
    /// It is about to own it.
    Opening,
    /// It alone appends.
    Owning,
}

/// What is known of a partition now.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) role: Role,
    /// Whether this process is asked to own it.
    pub(super) is_assigned: bool,
    /// Whether that was said yet.
    pub(super) is_settled: bool,
    /// Counts the fences that were seen and followed by everything before them: what was undecided
    /// before one is decided.
    pub(super) settled: u64,
    /// Counts the transactions whose commit was never asked for, and whose writer ended with them:
    /// nothing of them is recorded, whoever ends them.
    pub(super) taken_back: u64,
    /// What `settled` was when the last writer of this process ended.
    pub(super) ended_in: u64,
    /// Who owns it, as the last owner said; nothing while none has said so, and when the last one
    /// was this process, which has given it up.
    pub(super) owner: Option<String>,
    /// When the group may have given it to a process that has not said so yet.
    pub(super) rebalanced: Option<Instant>,
    /// Whether everything was applied that was there when it was first looked at.
    pub(super) has_caught_up: bool,
    /// Whether this process ever owned it.
    pub(super) has_owned: bool,
    /// Whether the last writer was fenced by another one.
    pub(super) was_fenced: bool,
    /// Whether this process is a standby: another one has taken the partition over while nothing
    /// was appended here, and keeps it until something is.
    pub(super) is_standby: bool,
    /// Whether an append has ended the standby, and the partition is not being opened yet. Notes
    /// that are read until then are of those from whom it is taken.
    pub(super) is_taking_back: bool,
    /// Why nothing is read or opened just now.
    pub(super) last_error: Option<String>,
    /// What kind of error it is, where only an operator mends it.
    pub(super) refused: Option<Failure>,
}

impl State {
    /// Nothing is said yet where a group decides.
    pub(super) fn new(is_assigned: Option<bool>) -> State {
        let is_settled = is_assigned.is_some();
        let is_assigned = is_assigned.unwrap_or(false);
        State {
            role: match is_assigned {
                true => Role::Opening,
                false => Role::Following,
            },
            is_assigned,
            is_settled,
            settled: 0,
            taken_back: 0,
            ended_in: 0,
            owner: None,
            rebalanced: None,
            has_caught_up: false,
            has_owned: false,
            was_fenced: false,
            is_standby: false,
            is_taking_back: false,
            last_error: None,
            refused: None,
        }
    }

    /// Whether no process is known to own it.
    pub(super) fn is_moving(&self) -> bool {
        let is_over = self
            .rebalanced
            .is_none_or(|since| since.elapsed() >= TAKE_OVER);
        self.owner.is_none() || !is_over || self.is_taking_back
    }

    /// How long it is until the owner that was named last is believed again.
    pub(super) fn moves_for(&self) -> Duration {
        let took = self.rebalanced.map(|since| since.elapsed());
        match took.filter(|took| *took < TAKE_OVER) {
            Some(took) => TAKE_OVER.saturating_sub(took),
            None => Duration::MAX,
        }
    }

    /// Whether this process is to own it now.
    pub(super) fn is_to_own(&self) -> bool {
        self.is_assigned && !self.is_standby
    }

    /// A standby is to own it again; whether it was one. Who has it now is about to be fenced, and
    /// is not named any more.
    pub(super) fn stands_by_no_more(&mut self) -> bool {
        let was_standby = std::mem::take(&mut self.is_standby);
        if was_standby {
            self.is_owned_by(None);
            self.is_taking_back = true;
        }
        was_standby
    }

    /// The writer of this process has ended.
    pub(super) fn writes_no_more(&mut self) {
        self.ended_in = self.settled;
        if self.role != Role::Owning {
            return;
        }
        // The process that has it now says so.
        self.owner = None;
        self.role = match self.is_assigned && !self.was_fenced {
            true => Role::Opening,
            false => Role::Following,
        };
    }

    /// The writer of this process is about to end, and nothing of its last transaction is recorded.
    /// What a writer says that only opens the partition is no append.
    pub(super) fn takes_back(&mut self) {
        if self.role == Role::Owning {
            self.taken_back += 1;
        }
    }

    /// The fence after which an append is decided is a later one than this: its writer ended, and
    /// may have begun after the append was asked for.
    pub(super) fn undecided_since(&self, before: &State) -> u64 {
        before.settled.max(self.ended_in)
    }

    /// The group has rebalanced: the process that gets this partition says so soon.
    pub(super) fn has_rebalanced(&mut self) {
        self.rebalanced = Some(Instant::now());
    }

    /// What the log says of the owner.
    pub(super) fn is_owned_by(&mut self, owner: Option<String>) {
        self.owner = owner;
        self.rebalanced = None;
    }

    /// Whether what was asked for since is not in the topic: one writer ended, and took it back.
    pub(super) fn has_taken_back_since(&self, before: &State) -> bool {
        self.taken_back > before.taken_back && self.settled == before.settled
    }

    /// Why nothing goes on here until an operator mends it.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        let failure = match self.refused? {
            // It is none of the caller's.
            Failure::Invalid => Failure::Corrupt,
            failure => failure,
        };
        Some(StoreError::new(failure, self.last_error.clone()?))
    }
}

/// Shared by all that look at a partition.
pub(super) type Shared = Arc<watch::Sender<State>>;
