//! Which types can be events.

use annals::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
enum Generic<T> {
    Opened(T),
}

#[derive(Event, Serialize)]
#[event(category = "account")]
struct Borrowed<'a>(&'a str);

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
enum Nothing {}

#[derive(Event)]
#[event(category = "account")]
union Either {
    a: u8,
    b: i8,
}

fn main() {}
