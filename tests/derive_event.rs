//! What `#[derive(Event)]` makes of a type: names, shapes, tags, and the way into storage and back.

#![allow(missing_docs, clippy::unwrap_used)]

use annals::prelude::*;
use annals::{DecodeError, Encoded, NewEvent, Stored};

fn written<E: Event>(event: &E) -> (String, u32, &'static str, String) {
    let Encoded { codec, payload } = event.encode().unwrap();
    let shape = event.shape();
    (shape.event_type.to_owned(), shape.schema_version, codec, String::from_utf8(payload.to_vec()).unwrap())
}

fn read<E: Event>(event_type: &str, schema_version: u32, payload: &str) -> Result<Vec<E>, DecodeError> {
    let stored = Stored { event_type, schema_version, codec: "json", payload: payload.as_bytes() };
    Ok(E::decode(stored)?.into_iter().collect())
}

/// It is stored under this name as this text, and comes back.
#[track_caller]
fn check<E: Event + PartialEq + std::fmt::Debug>(event: E, event_type: &str, payload: &str) {
    let (stored_type, version, codec, stored) = written(&event);
    assert_eq!((stored_type.as_str(), codec, stored.as_str()), (event_type, "json", payload));
    assert_eq!(read::<E>(event_type, version, payload).unwrap(), [event]);
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account")]
enum AccountEvent {
    Opened {
        owner: String,
    },
    #[event(name = "account.paid_in", alias = "account.deposited", alias = "deposit")]
    Deposited {
        cents: i64,
    },
    Renamed(String),
    Moved(u64, Option<i128>),
    SMSSent {},
    Closed,
}

#[test]
fn a_variant_is_stored_under_its_name_with_its_content_only() {
    check(AccountEvent::Opened { owner: "Ada".into() }, "account.opened", r#"{"owner":"Ada"}"#);
    check(AccountEvent::Deposited { cents: i64::MIN }, "account.paid_in", r#"{"cents":-9223372036854775808}"#);
    check(AccountEvent::Renamed("B".into()), "account.renamed", r#""B""#);
    check(
        AccountEvent::Moved(u64::MAX, Some(i128::MIN)),
        "account.moved",
        "[18446744073709551615,-170141183460469231731687303715884105728]",
    );
    check(AccountEvent::SMSSent {}, "account.sms_sent", "{}");
    check(AccountEvent::Closed, "account.closed", "null");
    assert_eq!(AccountEvent::CATEGORY, "account");
}

#[test]
fn an_event_is_read_under_its_older_names_and_written_under_the_newest() {
    for name in ["account.paid_in", "account.deposited", "deposit"] {
        assert_eq!(read::<AccountEvent>(name, 1, r#"{"cents":5}"#).unwrap(), [AccountEvent::Deposited { cents: 5 }]);
    }
    let new = NewEvent::of(&AccountEvent::Deposited { cents: 5 }).unwrap();
    assert_eq!((new.event_type.as_ref(), new.schema_version), ("account.paid_in", 1));
}

#[test]
fn the_current_shapes_come_first_and_tell_their_fields() {
    let shapes: Vec<_> =
        AccountEvent::shapes().iter().map(|shape| format!("{shape} {} {}", shape.current, shape.fields)).collect();
    let expected = [
        "account.opened v1 true { owner: String }",
        "account.paid_in v1 true { cents: i64 }",
        "account.renamed v1 true (String)",
        "account.moved v1 true (u64, Option<i128>)",
        "account.sms_sent v1 true {}",
        "account.closed v1 true ",
        "account.deposited v1 false { cents: i64 }",
        "deposit v1 false { cents: i64 }",
    ];
    assert_eq!(shapes, expected);
    for (at, event) in [AccountEvent::Opened { owner: String::new() }, AccountEvent::Closed].iter().zip([0, 5]) {
        assert_eq!(at.shape(), &AccountEvent::shapes()[event]);
    }
}

#[test]
fn what_is_unknown_is_told_apart() {
    let error = read::<AccountEvent>("account.frozen", 1, "null").unwrap_err();
    assert_eq!(error.to_string(), "unknown event type `account.frozen`");
    for name in ["account.closed", "deposit"] {
        let error = read::<AccountEvent>(name, 2, "null").unwrap_err();
        assert_eq!(error.to_string(), format!("unknown schema version 2 of event type `{name}`"));
    }
    let error = read::<AccountEvent>("account.opened", 1, r#"{"name":"Ada"}"#).unwrap_err();
    assert_eq!(error.to_string(), "malformed payload of event type `account.opened` v1");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("missing field `owner`"));
}
