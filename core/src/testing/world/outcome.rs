//! What the last step of a story did: to look at, and to assert.

use std::fmt::Debug;

use super::World;
use crate::aggregate::{Aggregate, AggregateRef, At};
use crate::annals::Annals;
use crate::event::RecordedEvent;
use crate::testing::bench::Bench;
use crate::testing::refusal::Refusal;
use crate::testing::text::listed;
use crate::testing::watched::at_once;
use crate::typed::{Event, Stored};
use crate::with_causes;

impl World {
    /// What the last step appended; nothing when it refused.
    pub fn appended(&self) -> &[RecordedEvent] {
        &self.appended
    }

    /// How the last step refused, if it did.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_ref().map(Refusal::text)
    }

    /// The error by which the last step refused, if it did and the error is an `E`.
    pub fn refusal_as<E: 'static>(&self) -> Option<&E> {
        self.refusal.as_ref()?.of_type()
    }

    /// The state of an aggregate after everything so far.
    ///
    /// # Panics
    ///
    /// When it cannot be read.
    #[track_caller]
    pub fn state<A: Aggregate>(&self, at: At<A>) -> A {
        let aggregate = AggregateRef::new(Annals::clone(&self.bench), at);
        match at_once(aggregate.load().into_future()) {
            Ok(state) => state.into_state(),
            Err(error) => panic!("{}\n\n{self}\n", with_causes(&error)),
        }
    }

    /// The handle that the story is played on, to look further.
    ///
    /// ```
    /// # async fn example(story: annals_core::testing::World) {
    /// println!("{}", story.annals().timeline_of_log().await);
    /// # }
    /// ```
    pub fn annals(&self) -> &Bench {
        &self.bench
    }

    /// Says that the last step appended exactly these events to a stream, and gives the story back.
    ///
    /// # Panics
    ///
    /// When it did not, with the whole story.
    #[track_caller]
    pub fn assert_appended<E>(
        self,
        stream: impl AsRef<str>,
        events: impl IntoIterator<Item = E>,
    ) -> World
    where
        E: Event + Debug + PartialEq,
    {
        let stream = stream.as_ref();
        let expected: Vec<E> = events.into_iter().collect();
        let appended = self
            .appended
            .iter()
            .filter(|event| event.stream.as_str() == stream);
        let read = appended
            .map(|event| E::decode(Stored::from(event)))
            .collect::<Result<Vec<_>, _>>();
        let found = match read {
            Ok(read) => read.into_iter().flatten().collect::<Vec<_>>(),
            Err(error) => {
                panic!(
                    "what was appended to `{stream}` is something else: {}\n\n{self}\n",
                    with_causes(&error)
                )
            }
        };
        if found != expected {
            let expected = listed(&expected);
            panic!(
                "the last step should have appended to `{stream}`\n{expected}\nbut this \
                 happened\n\n{self}\n"
            );
        }
        self
    }

    /// Says that the last step refused with this text, and gives the story back.
    ///
    /// # Panics
    ///
    /// When it did not, with the whole story.
    #[track_caller]
    pub fn assert_refused(self, text: impl AsRef<str>) -> World {
        let text = text.as_ref();
        if self.refusal() != Some(text) {
            panic!(
                "the last step should have been refused\n  {text}\n\nbut this happened\n\n{self}\n"
            );
        }
        self
    }
}
