//! Which partitions this process is asked to own.

use annals_core::{Partition, StoreError};

use super::options::Owns;
use super::state::Shared;
use crate::group::Group;
use crate::kafka::Kafka;

/// Tells each partition whether this process is asked to own it.
pub(super) struct Owners {
    group: Option<Group>,
}

impl Owners {
    pub(super) fn join(kafka: &Kafka, owns: Owns, topic: &str) -> Result<Owners, StoreError> {
        let group = match owns {
            Owns::Shared => Some(Group::join(kafka, &format!("{topic}.owners"), topic, None)?),
            Owns::All | Owns::None => None,
        };
        Ok(Owners { group })
    }

    /// Runs until it is dropped; then this process leaves the group.
    pub(super) async fn run(self, states: Vec<Shared>) {
        let Some(group) = self.group else { return };
        let mut assignments = group.assignment();
        loop {
            let assignment = assignments.borrow_and_update().clone();
            if assignment.generation > 0 {
                for (number, state) in (0_u32..).zip(&states) {
                    let is_assigned = assignment.partitions.contains(&Partition(number));
                    state.send_if_modified(|state| {
                        let was = std::mem::replace(&mut state.is_assigned, is_assigned);
                        state.is_standby &= was == is_assigned;
                        let is_new = !state.is_settled;
                        state.is_settled = true;
                        if !is_assigned {
                            state.has_rebalanced();
                        }
                        was != is_assigned || is_new
                    });
                }
            }
            if assignments.changed().await.is_err() {
                return;
            }
        }
    }
}
