//! Which fields can be tags.

use annals::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "course")]
enum Tags {
    NoName(#[event(tag)] String),
    Colon {
        #[event(tag = "a:b")]
        id: u8,
    },
    Empty {
        #[event(tag = "")]
        id: u8,
    },
    Twice {
        #[event(tag, tag = "id")]
        id: u8,
    },
}

fn main() {}
