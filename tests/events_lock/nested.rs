//! Stored bytes of nested types keep their values.

use std::path::PathBuf;

use annals::prelude::*;
use annals::testing::EventsLock;

use crate::life::{Program, added, refused};

mod units {
    use super::*;

    noted! { seconds,
        #[derive(Debug, Serialize, Deserialize)]
        struct Inner {
            #[serde(with = "annals::chrono::serde::ts_seconds")]
            at: annals::chrono::DateTime<annals::chrono::Utc>,
        },
        Inner { at: "2026-03-31T12:00:00Z".parse().unwrap() }
    }

    noted! { milliseconds,
        #[derive(Debug, Serialize, Deserialize)]
        struct Inner {
            #[serde(with = "annals::chrono::serde::ts_milliseconds")]
            at: annals::chrono::DateTime<annals::chrono::Utc>,
        },
        Inner { at: "2026-03-31T12:00:00Z".parse().unwrap() }
    }

    noted! { gross_and_net,
        #[derive(Debug, Serialize, Deserialize)]
        struct Inner { gross: u8, net: u8 },
        Inner { gross: 119, net: 100 }
    }

    noted! { net_and_gross,
        #[derive(Debug, Serialize, Deserialize)]
        struct Inner {
            #[serde(rename = "net")]
            gross: u8,
            #[serde(rename = "gross")]
            net: u8,
        },
        Inner { gross: 119, net: 100 }
    }

    macro_rules! by_hand {
        ($name:ident, $factor:literal) => {
            program! { $name,
                use serde::{Deserializer, Serializer};

                #[derive(Debug)]
                struct Inner(u32);

                impl Serialize for Inner {
                    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                        to.serialize_u32(self.0 * $factor)
                    }
                }

                impl<'de> Deserialize<'de> for Inner {
                    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Inner, D::Error> {
                        Ok(Inner(u32::deserialize(from)? / $factor))
                    }
                }

                #[derive(Event, Debug, Serialize, Deserialize)]
                #[event(category = "note")]
                enum NoteEvent {
                    Written { inner: Inner },
                }

                fn samples() -> [NoteEvent; 1] {
                    [NoteEvent::Written { inner: Inner(7) }]
                }
            }
        };
    }
    by_hand!(in_euros, 1);
    by_hand!(in_cents, 100);

    #[test]
    fn old_bytes_that_give_other_values_are_refused() {
        let words = "has a sample that no value in the test is written as";
        refused(seconds::program, milliseconds::program, words);
        refused(gross_and_net::program, net_and_gross::program, words);
        refused(
            in_euros::program,
            in_cents::program,
            "written in other bytes",
        );
        refused(in_cents::program, in_euros::program, words);
    }
}

noted! { signed,
#[derive(Debug, Serialize, Deserialize)]
struct Inner { cents: i64 },
Inner { cents: 5 } }
noted! { unsigned,
#[derive(Debug, Serialize, Deserialize)]
struct Inner { cents: u64 },
Inner { cents: 5 } }
noted! { small,
#[derive(Debug, Serialize, Deserialize)]
struct Inner { cents: u8 },
Inner { cents: 5 } }
noted! { large,
#[derive(Debug, Serialize, Deserialize)]
struct Inner { cents: i128 },
Inner { cents: 5 } }

noted! { two_kinds,
#[derive(Debug, Serialize, Deserialize)]
enum Inner { Gift, #[allow(dead_code)] Sale { to: String } },
Inner::Gift }
noted! { one_kind,
#[derive(Debug, Serialize, Deserialize)]
enum Inner { Gift },
Inner::Gift }
noted! { renamed_kind,
#[derive(Debug, Serialize, Deserialize)]
enum Inner { Gift, #[allow(dead_code)] Sold { to: String } },
Inner::Gift }
noted! { three_kinds,
#[derive(Debug, Serialize, Deserialize)]
enum Inner { Gift, #[allow(dead_code)] Sale { to: String }, #[allow(dead_code)] Loan },
Inner::Gift }

noted! { euros,
#[derive(Debug, Serialize, Deserialize)]
struct Inner { #[serde(default = "super::eur")] currency: String },
Inner { currency: "CZK".into() } }
fn eur() -> String {
    "EUR".into()
}

fn usd() -> String {
    "USD".into()
}
noted! { no_default,
#[derive(Debug, Serialize, Deserialize)]
struct Inner { currency: String },
Inner { currency: "CZK".into() } }
noted! { dollars,
#[derive(Debug, Serialize, Deserialize)]
struct Inner { #[serde(default = "super::usd")] currency: String },
Inner { currency: "CZK".into() } }
noted! { strict,
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner { currency: String },
Inner { currency: "CZK".into() } }

#[test]
fn nested_types_must_accept_what_they_accepted() {
    for narrower in [unsigned::program as Program, small::program] {
        refused(
            signed::program,
            narrower,
            "`.inner.cents` takes other numbers",
        );
    }
    for other in [one_kind::program as Program, renamed_kind::program] {
        refused(two_kinds::program, other, "`.inner` has not all variants");
    }
    for other in [no_default::program as Program, dollars::program] {
        refused(
            euros::program,
            other,
            "`.inner.currency` is filled in otherwise where it is absent",
        );
    }
    refused(
        no_default::program,
        strict::program,
        "`.inner` refuses fields that it ignored",
    );
}

#[test]
fn nested_types_may_accept_more() {
    added(small::program, signed::program);
    added(signed::program, large::program);
    added(two_kinds::program, three_kinds::program);
    added(no_default::program, euros::program);
    added(strict::program, no_default::program);
}

/// Types that take less than they took, where the sample does not show it.
mod narrower {
    use std::collections::BTreeMap;
    use std::num::NonZeroU32;

    use super::*;

    noted! { optional,
    #[derive(Debug, Serialize, Deserialize)]
    struct Inner { a: Option<u8> },
    Inner { a: Some(5) } }
    noted! { required,
    #[derive(Debug, Serialize, Deserialize)]
    struct Inner { a: u8 },
    Inner { a: 5 } }
    noted! { any_number,
    #[derive(Debug, Serialize, Deserialize)]
    struct Inner { a: u32 },
    Inner { a: 5 } }
    noted! { no_zero,
    #[derive(Debug, Serialize, Deserialize)]
    struct Inner { a: NonZeroU32 },
    Inner { a: NonZeroU32::MIN.saturating_add(4) } }
    noted! { large_values,
    #[derive(Debug, Serialize, Deserialize)]
    struct Inner { a: BTreeMap<String, u32> },
    Inner { a: BTreeMap::from([("k".to_owned(), 5)]) } }
    noted! { small_values,
    #[derive(Debug, Serialize, Deserialize)]
    struct Inner { a: BTreeMap<String, u8> },
    Inner { a: BTreeMap::from([("k".to_owned(), 5)]) } }
    #[test]
    fn types_that_take_less_are_refused() {
        refused(optional::program, required::program, "");
        refused(any_number::program, no_zero::program, "");
        refused(large_values::program, small_values::program, "");
    }
}
