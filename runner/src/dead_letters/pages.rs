//! The dead letters of a generation, page by page.

use annals_core::{
    CommitError, DeadLetter, GenerationId, PAGE_EVENTS, Partition, Position, ViewStore,
};

/// Reads the dead letters of a generation in the order of key, partition and position.
#[derive(Clone, Debug)]
pub struct DeadLetterPages<'a, S: ViewStore + ?Sized> {
    views: &'a S,
    generation: GenerationId,
    after: Option<(String, Partition, Position)>,
    limit: usize,
}

impl<'a, S: ViewStore + ?Sized> DeadLetterPages<'a, S> {
    /// All of a generation.
    pub fn of(views: &'a S, generation: GenerationId) -> DeadLetterPages<'a, S> {
        DeadLetterPages {
            views,
            generation,
            after: None,
            limit: PAGE_EVENTS,
        }
    }

    /// From the first one of a key in a partition on.
    #[must_use]
    pub fn from(mut self, key: &str, partition: Partition) -> DeadLetterPages<'a, S> {
        self.after = Some((key.to_owned(), partition, Position::START));
        self
    }

    /// Those of the keys after this one.
    #[must_use]
    pub fn after_key(mut self, key: &str) -> DeadLetterPages<'a, S> {
        self.after = Some((key.to_owned(), Partition(u32::MAX), Position::MAX));
        self
    }

    /// With pages of this length (at least one).
    #[must_use]
    pub fn limit(mut self, events: usize) -> DeadLetterPages<'a, S> {
        self.limit = events.max(1);
        self
    }

    /// The next page; an empty one at the end.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`], and those of the store.
    pub async fn next(&mut self) -> Result<Vec<DeadLetter>, CommitError> {
        let after = self
            .after
            .as_ref()
            .map(|(key, partition, position)| (key.as_str(), *partition, *position));
        let page = self
            .views
            .dead_letters(self.generation, after, self.limit)
            .await?;
        if let Some(last) = page.last() {
            self.after = Some((last.key.clone(), last.partition, last.position));
        }
        Ok(page)
    }
}

/// The first dead letters of a key in a partition, at most `limit`: the queue of the key.
///
/// # Errors
///
/// Those of [`DeadLetterPages::next`].
pub async fn queue<S: ViewStore + ?Sized>(
    views: &S,
    generation: GenerationId,
    key: &str,
    partition: Partition,
    limit: usize,
) -> Result<Vec<DeadLetter>, CommitError> {
    let mut queue = DeadLetterPages::of(views, generation)
        .from(key, partition)
        .limit(limit)
        .next()
        .await?;
    queue.retain(|of| of.key == key && of.partition == partition);
    Ok(queue)
}
