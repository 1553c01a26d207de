//! Slips of syntax: each error says how it is written.

use annals::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(category = account)]
struct CategoryUnquoted;

#[derive(Event, Serialize, Deserialize)]
#[event(category("account"))]
struct CategoryInParentheses;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", version = "2")]
struct VersionQuoted;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", version(2))]
struct VersionInParentheses;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", name = account.opened)]
struct NameUnquoted;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", alias("account.created"))]
struct AliasInParentheses;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", version = 2, upcast = from_v1)]
struct UpcastWithoutVersion;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", version = 2, upcast(1 => from_v1))]
struct UpcastWithArrow;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", version = 2, upcast("1" = from_v1))]
struct UpcastVersionQuoted;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", version = 2, upcast(1 = |old: u8| UpcastClosure))]
struct UpcastClosure;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", version = 2, upcast(1 = from_v1()))]
struct UpcastCalled;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", retired(account.clicked, upcast = from_v1))]
struct RetiredUnquoted;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", retired = "account.clicked")]
struct RetiredWithoutParentheses;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account", crate = annals_core)]
struct CrateUnquoted;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
struct Tagged {
    #[event(tag("customer"))]
    customer: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
struct Borrowed {
    owner: &'static str,
    others: Vec<&'static [u8]>,
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "a2345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890")]
struct LongCategory;

fn main() {}
