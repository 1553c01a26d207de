//! One stored name and version is one event type.

use annals::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
enum TwoVariants {
    Opened,
    #[event(name = "account.opened")]
    Created,
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
enum VariantAndAlias {
    Opened,
    #[event(alias = "account.opened")]
    Created,
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", retired("account.opened", version = 1, upcast = opened))]
enum VariantAndRetired {
    #[event(version = 2, upcast(1 = opened))]
    Opened,
}

fn opened(_: ()) -> VariantAndRetired {
    VariantAndRetired::Opened
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
enum SameInSnakeCase {
    SMSSent,
    SmsSent,
}

fn main() {}
