//! What serde may not do to events.

use annals::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
#[serde(tag = "type")]
enum Tagged {
    Opened,
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
#[serde(rename_all = "snake_case", tag = "type", content = "data")]
enum Adjacent {
    Opened,
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
#[serde(untagged)]
enum Untagged {
    Opened,
}

#[derive(Clone, Event, Serialize, Deserialize)]
#[event(category = "account")]
#[serde(from = "String", into = "String")]
enum Hidden {
    Opened,
}

impl From<String> for Hidden {
    fn from(_: String) -> Hidden {
        Hidden::Opened
    }
}

impl From<Hidden> for String {
    fn from(_: Hidden) -> String {
        String::new()
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
enum Variants {
    #[serde(skip)]
    Skipped,
    #[serde(skip_serializing)]
    Unwritten,
    #[serde(rename = "x", skip_deserializing)]
    Unread,
    #[serde(untagged)]
    Untagged(u8),
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
enum Unknown {
    Opened,
    #[serde(other)]
    Other,
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
#[serde(crate = "serde", tag = "type")]
struct Struct {
    owner: String,
}

fn main() {}
