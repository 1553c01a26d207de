//! The dead letters of a reactor: read, marked to be tried again, removed when they are skipped.

use annals_core::{CommitError, DeadLetter, PAGE_EVENTS, Partition, ViewCommit};
use annals_runner::{DeadLetterPages, DrainResult, HeldLease, Skips, Slot, WorkError, queue};

/// A commit that leaves the checkpoint of a partition where it is.
pub(super) async fn unmoved(
    slot: &Slot,
    held: &HeldLease,
    partition: Partition,
    change: impl FnOnce(&mut ViewCommit) + Send,
) -> Result<ViewCommit, WorkError> {
    let at = slot.checkpoint(partition).await?;
    let mut commit = slot.view_commit(held.lease(), at.position, at);
    change(&mut commit);
    Ok(commit)
}

/// The first dead letter of a key.
pub(super) async fn first_dead_letter(
    slot: &Slot,
    key: &str,
) -> Result<Option<DeadLetter>, CommitError> {
    let page = DeadLetterPages::of(&*slot.context.views, slot.generation.id)
        .from(key, Partition(0))
        .limit(1)
        .next()
        .await?;
    Ok(page.into_iter().next().filter(|letter| letter.key == key))
}

/// Marks the first dead letter of each key as one that is to be tried again, and removes those
/// before it that are skipped.
pub(super) async fn mark(
    slot: &Slot,
    held: &HeldLease,
    keys: &[String],
    skips: &Skips,
) -> Result<DrainResult, WorkError> {
    let mut all = DrainResult::default();
    for key in keys {
        all.settled += remove_skipped(slot, held, key, skips).await?;
        if let Some(first) = first_dead_letter(slot, key).await?
            && first.reason.is_some()
        {
            let again = DeadLetter {
                reason: None,
                ..first.clone()
            };
            let commit = unmoved(slot, held, first.partition, |commit| {
                commit.dead_letters.push(again);
            });
            slot.context.views.commit_view(commit.await?).await?;
        }
    }
    Ok(all)
}

/// Removes the first dead letters of a key that are skipped.
async fn remove_skipped(
    slot: &Slot,
    held: &HeldLease,
    key: &str,
    skips: &Skips,
) -> Result<u64, WorkError> {
    let log = slot.context.log();
    let views = &*slot.context.views;
    let mut removed = 0;
    for partition in (0..log.partitions()).map(Partition) {
        loop {
            let letters = queue(views, slot.generation.id, key, partition, PAGE_EVENTS).await?;
            let skipped: Vec<_> = letters
                .iter()
                .take_while(|letter| skips.for_dead_letter(letter))
                .map(|of| (of.key.clone(), of.position))
                .collect();
            let count = skipped.len();
            if count > 0 {
                let commit = unmoved(slot, held, partition, |commit| {
                    commit.settled_letters = skipped;
                });
                views.commit_view(commit.await?).await?;
                removed += count as u64;
            }
            if count < letters.len() {
                return Ok(removed);
            }
            if letters.len() < PAGE_EVENTS {
                break;
            }
        }
    }
    Ok(removed)
}
