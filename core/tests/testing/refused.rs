//! What a story refuses, and what it escapes.

use crate::account::*;
use annals_core::Aggregate;
use annals_core::testing::Given;
use annals_macros::Event;
use serde::{Deserialize, Serialize};

/// What is wrong with it is that a map in no order prints differently each time.
mod unstable {
    use std::collections::HashMap;

    use super::*;

    #[derive(Event, Clone, Debug, Serialize, Deserialize)]
    #[event(category = "box", crate = "annals_core")]
    pub(super) enum BoxEvent {
        Put { thing: String },
        Listed { things: HashMap<String, u8> },
    }

    #[derive(Debug, Default)]
    pub(super) struct Things {
        things: HashMap<String, u8>,
    }

    impl Aggregate for Things {
        type Event = BoxEvent;

        fn apply(&mut self, event: &BoxEvent) {
            if let BoxEvent::Put { thing } = event {
                self.things.insert(thing.clone(), 1);
            }
        }
    }

    pub(super) fn put(thing: &str) -> BoxEvent {
        BoxEvent::Put {
            thing: thing.into(),
        }
    }
}

#[test]
fn a_state_or_event_that_prints_in_no_order_fails() {
    use unstable::{BoxEvent, Things, put};

    let things = ["a", "b", "c", "d"];
    let panic = panic_of(|| Things::given(things.map(put)));
    assert!(panic.contains("take a `BTreeMap` or `BTreeSet`"), "{panic}");
    let listed = BoxEvent::Listed {
        things: things.map(|thing| (thing.to_owned(), 1)).into(),
    };
    let panic = panic_of(|| Things::given([listed]));
    assert!(
        panic.contains("event 1 that was given prints differently"),
        "{panic}"
    );
    assert_eq!(
        Things::given([put("a")]).to_string(),
        "given     1  Put { thing: \"a\" }\nstate    Things { things: {\"a\": 1} }"
    );
}

/// An event with as many tags as it has words.
#[derive(Event, Clone, Debug, Serialize, Deserialize)]
#[event(category = "page", crate = "annals_core")]
struct Page {
    #[event(tag = "word")]
    words: Vec<u32>,
    text: String,
}

#[derive(Debug, Default)]
struct Pages(usize);

impl Aggregate for Pages {
    type Event = Page;

    fn apply(&mut self, _: &Page) {
        self.0 += 1;
    }
}

#[test]
fn a_story_refuses_what_every_store_refuses() {
    let page = |words: u32, bytes: usize| Page {
        words: (0..words).collect(),
        text: "x".repeat(bytes),
    };
    let panic = panic_of(|| Pages::given([page(70, 0)]));
    assert!(
        panic.contains("has 70 tags, at most 64 are allowed"),
        "{panic}"
    );
    let panic = panic_of(|| Pages::given([page(0, 20_000_000)]));
    assert!(panic.contains("bytes of payload, at most"), "{panic}");
    let panic =
        panic_of(|| Pages::given([page(64, 1)]).when(|_| Ok::<_, String>(page(0, 20_000_000))));
    assert!(
        panic.contains("no store accepts what was decided"),
        "{panic}"
    );
}

#[test]
fn what_a_terminal_would_act_on_is_escaped() {
    let story = Account::given([opened("Ada")])
        .when(|_| Err::<AccountEvent, _>("\u{1b}[31mred\0\u{202e}desrever"));
    insta::assert_snapshot!(story, @r#"
    given     1  Opened { owner: "Ada" }

    refused  \u{1b}[31mred\0\u{202e}desrever
    state    Account { open: true, cents: 0 }
    "#);
}
