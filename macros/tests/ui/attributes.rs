//! A slip in an attribute is answered with what is known there.

use annals::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(categroy = "account")]
enum Slip {
    Opened,
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", version = 2)]
enum VersionOfAll {
    Opened,
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
enum OnVariants {
    #[event(category = "other")]
    Opened,
    #[event(nmae = "account.closed")]
    Closed,
    #[event(tag)]
    Frozen { by: String },
    #[event]
    Thawed,
    #[event(name = "a", name = "b")]
    Named,
    #[event(name = "")]
    Unnamed,
    #[event(name = "$reserved")]
    Reserved,
    #[event(version = 0)]
    Zero,
    #[event(version = "2")]
    Text,
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
struct OnFields {
    #[event(name = "owner")]
    owner: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", codec = "not a path")]
struct NoPath;

fn main() {}
