//! A story as text.

use std::collections::BTreeSet;
use std::fmt::{self, Debug, Display, Write};

use super::{Came, Entry, World};
use crate::event::RecordedEvent;
use crate::position::Position;
use crate::tag::Tag;
use crate::testing::text::{Script, stored, time};
use crate::typed::Stored;

impl Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let streams = self.everything();
        let width = streams
            .iter()
            .map(|event| event.stream.as_str().chars().count())
            .max()
            .unwrap_or_default();
        let read = self.store.positions_read();
        let mut script = Script::default();
        let mut within = false;
        for said in &self.said {
            // A moment heads the block of what happens then.
            if !within || matches!(said, Entry::At(_)) {
                script.begin();
            }
            within = matches!(said, Entry::At(_));
            match said {
                Entry::At(moment) => script.say("at", &time(*moment)),
                Entry::Given(events) => say_events(
                    &mut script,
                    "given",
                    events,
                    width,
                    self.decided.then_some(&read),
                ),
                Entry::Step {
                    when,
                    saw,
                    came,
                    state,
                } => {
                    for (label, text) in [("when", when), ("saw", saw)] {
                        if let Some(text) = text {
                            script.say(label, text);
                        }
                    }
                    match came {
                        Came::Refused(text) => script.say("refused", text),
                        Came::Appended(events) => {
                            say_events(&mut script, "then", events, width, None);
                        }
                    }
                    if let Some(state) = state {
                        script.say("state", state);
                    }
                }
            }
        }
        Display::fmt(&script, f)
    }
}

/// The events; those that are not among the `read` ones are marked.
fn say_events(
    script: &mut Script,
    label: &str,
    events: &[RecordedEvent],
    width: usize,
    read: Option<&BTreeSet<Position>>,
) {
    if events.is_empty() {
        script.say(label, "nothing");
    }
    for (index, event) in events.iter().enumerate() {
        let mut text = format!(
            "{:width$}  {}",
            event.stream.as_str(),
            stored(Stored::from(event))
        );
        if !event.tags.is_empty() {
            let tags: Vec<_> = event.tags.iter().map(Tag::as_str).collect();
            let _ = write!(text, "  [{}]", tags.join(", "));
        }
        if read.is_some_and(|read| !read.contains(&event.position)) {
            text.push_str("  (not selected)");
        }
        script.say_event(
            if index == 0 { label } else { "" },
            event.position.get(),
            &text,
        );
    }
}

impl Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}
