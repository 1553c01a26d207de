//! The category is required, and one that streams can have.

use annals::prelude::*;

#[derive(Event, Serialize, Deserialize)]
enum Missing {
    Opened,
}

#[derive(Event, Serialize, Deserialize)]
#[event(codec = "annals::Json")]
struct AlsoMissing;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "")]
struct Empty;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "bank-account")]
struct Dashed;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "$account")]
struct Reserved;

#[derive(Event, Serialize, Deserialize)]
#[event(category = account)]
struct NoText;

fn main() {}
