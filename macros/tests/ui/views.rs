//! What a view may not be, and what it must say.

use std::collections::{BTreeMap, HashMap, HashSet};

use annals::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
enum AccountEvent {
    Closed,
}

#[derive(Default, Serialize, Deserialize, View)]
struct SaysNothing;

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances")]
struct WithoutEvents;

#[derive(Default, Serialize, Deserialize, View)]
#[view(nmae = "balances", events(AccountEvent))]
struct Slip;

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "", events(AccountEvent))]
struct Unnamed;

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances", name = "other", events(AccountEvent))]
struct NamedTwice;

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances", events(AccountEvent), version = 0)]
struct VersionZero;

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances", events = AccountEvent)]
struct EventsWithoutParentheses;

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances", events(AccountEvent), history(tritemporal))]
struct OtherHistory;

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances", events(AccountEvent), index)]
struct IndexOnType;

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances", events(AccountEvent))]
struct Generic<T> {
    value: T,
}

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances", events(AccountEvent))]
struct Unordered {
    fine: BTreeMap<String, i64>,
    by_day: HashMap<String, i64>,
}

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances", events(AccountEvent))]
struct UnorderedInside {
    seen: Option<Vec<HashSet<String>>>,
}

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances", events(AccountEvent))]
struct Lost {
    #[serde(default, skip)]
    cached: i64,
}

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances", events(AccountEvent))]
struct OtherOnField {
    #[view(indexed)]
    cents: i64,
}

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances", events(AccountEvent))]
struct IndexWithoutName(#[view(index)] i64);

fn main() {}
