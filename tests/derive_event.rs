//! What `#[derive(Event)]` makes of a type: names, shapes, tags, and the way into storage and back.

#![allow(missing_docs, clippy::unwrap_used)]

use annals::codec::{Codec, CodecError, DecodeError, Encoded, Json, Stored};
use annals::prelude::*;
use annals::store::NewEvent;

fn written<E: Event>(event: &E) -> (String, u32, &'static str, String) {
    let Encoded { codec, payload } = event.encode().unwrap();
    let shape = event.shape();
    (
        shape.event_type.to_owned(),
        shape.schema_version,
        codec,
        String::from_utf8(payload.to_vec()).unwrap(),
    )
}

fn read<E: Event>(
    event_type: &str,
    schema_version: u32,
    payload: &str,
) -> Result<Vec<E>, DecodeError> {
    let stored = Stored {
        event_type,
        schema_version,
        codec: "json",
        payload: payload.as_bytes(),
    };
    Ok(E::decode(stored)?.into_iter().collect())
}

/// It is stored under this name as this text, and comes back.
#[track_caller]
fn check<E: Event + PartialEq + std::fmt::Debug>(event: E, event_type: &str, payload: &str) {
    let (stored_type, version, codec, stored) = written(&event);
    assert_eq!(
        (stored_type.as_str(), codec, stored.as_str()),
        (event_type, "json", payload)
    );
    assert_eq!(read::<E>(event_type, version, payload).unwrap(), [event]);
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account")]
enum AccountEvent {
    Opened {
        owner: String,
    },
    #[event(
        name = "account.paid_in",
        alias = "account.deposited",
        alias = "deposit"
    )]
    Deposited {
        cents: i64,
    },
    Renamed(String),
    Moved(u64, Option<i128>),
    SMSSent {},
    Closed,
}

#[test]
fn a_variant_is_stored_under_its_name_without_wrapper() {
    check(
        AccountEvent::Opened {
            owner: "Ada".into(),
        },
        "account.opened",
        r#"{"owner":"Ada"}"#,
    );
    check(
        AccountEvent::Deposited { cents: i64::MIN },
        "account.paid_in",
        r#"{"cents":-9223372036854775808}"#,
    );
    check(
        AccountEvent::Renamed("B".into()),
        "account.renamed",
        r#""B""#,
    );
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
fn an_event_reads_older_names_and_writes_the_newest() {
    for name in ["account.paid_in", "account.deposited", "deposit"] {
        assert_eq!(
            read::<AccountEvent>(name, 1, r#"{"cents":5}"#).unwrap(),
            [AccountEvent::Deposited { cents: 5 }]
        );
    }
    let new = NewEvent::of(&AccountEvent::Deposited { cents: 5 }).unwrap();
    assert_eq!(
        (new.event_type.as_ref(), new.schema_version),
        ("account.paid_in", 1)
    );
}

#[test]
fn the_current_shapes_come_first_and_tell_their_fields() {
    let shapes: Vec<_> = AccountEvent::shapes()
        .iter()
        .map(|shape| format!("{shape} {} {}", shape.current, shape.fields))
        .collect();
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
    for (at, event) in [
        AccountEvent::Opened {
            owner: String::new(),
        },
        AccountEvent::Closed,
    ]
    .iter()
    .zip([0, 5])
    {
        assert_eq!(at.shape(), &AccountEvent::shapes()[event]);
    }
}

#[test]
fn what_is_unknown_is_told_apart() {
    let error = read::<AccountEvent>("account.frozen", 1, "null").unwrap_err();
    assert_eq!(error.to_string(), "unknown event type `account.frozen`");
    for name in ["account.closed", "deposit"] {
        let error = read::<AccountEvent>(name, 2, "null").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("unknown schema version 2 of event type `{name}`")
        );
    }
    let error = read::<AccountEvent>("account.opened", 1, r#"{"name":"Ada"}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed payload of event type `account.opened` v1"
    );
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("missing field `owner`")
    );
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "invoice", name = "invoice.issued", version = 2, upcast(1 = InvoiceV1::split))]
struct Invoice {
    #[event(tag)]
    customer: String,
    cents: u64,
}

/// Once, one event held several invoices.
#[derive(Deserialize)]
struct InvoiceV1(Vec<(String, u64)>);

impl InvoiceV1 {
    fn split(self) -> Vec<Invoice> {
        self.0
            .into_iter()
            .map(|(customer, cents)| Invoice { customer, cents })
            .collect()
    }
}

#[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "clock")]
struct Ticked;

#[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "note")]
#[serde(transparent)]
struct Noted(String);

#[test]
fn a_struct_is_one_event_type() {
    check(
        Invoice {
            customer: "ada".into(),
            cents: u64::MAX,
        },
        "invoice.issued",
        r#"{"customer":"ada","cents":18446744073709551615}"#,
    );
    check(Ticked, "clock.ticked", "null");
    check(Noted("x".into()), "note.noted", r#""x""#);
    assert_eq!(Noted::shapes()[0].fields, "#[serde(transparent)] (String)");
    assert_eq!(
        Invoice {
            customer: "ada".into(),
            cents: 1
        }
        .tags()
        .unwrap(),
        ["customer:ada".parse().unwrap()]
    );
}

#[test]
fn an_old_event_becomes_none_one_or_several() {
    let two = [
        Invoice {
            customer: "a".into(),
            cents: 1,
        },
        Invoice {
            customer: "b".into(),
            cents: 2,
        },
    ];
    assert_eq!(
        read::<Invoice>("invoice.issued", 1, r#"[["a",1],["b",2]]"#).unwrap(),
        two
    );
    assert_eq!(
        read::<Invoice>("invoice.issued", 1, r#"[["a",1]]"#).unwrap(),
        two[..1]
    );
    assert_eq!(read::<Invoice>("invoice.issued", 1, "[]").unwrap(), []);
    assert_eq!(Invoice::shapes()[1].fields, "read by InvoiceV1::split");
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "cart")]
#[event(retired("cart.coupon_clicked", upcast = old::forget))]
#[event(retired("cart.doubled", version = 7, upcast = old::doubled))]
enum CartEvent {
    #[event(
        version = 4,
        alias = "basket.added",
        upcast(1 = old::count, 2 = old::spread, 3 = old::now)
    )]
    Added {
        sku: String,
        quantity: u32,
    },
    Cleared,
}

mod old {
    use super::{CartEvent, Deserialize};

    #[derive(Deserialize)]
    pub(super) struct V1(String);

    #[derive(Deserialize)]
    pub(super) struct V2 {
        sku: String,
        times: u32,
    }

    #[derive(Deserialize)]
    pub(super) struct V3 {
        sku: String,
    }

    pub(super) fn count(V1(sku): V1) -> V2 {
        V2 { sku, times: 1 }
    }

    pub(super) fn spread(V2 { sku, times }: V2) -> Vec<V3> {
        (0..times).map(|_| V3 { sku: sku.clone() }).collect()
    }

    pub(super) fn now(V3 { sku }: V3) -> Option<CartEvent> {
        (sku != "test").then_some(CartEvent::Added { sku, quantity: 1 })
    }

    pub(super) fn forget(_: serde::de::IgnoredAny) -> Option<CartEvent> {
        None
    }

    pub(super) fn doubled((sku, quantity): (String, u32)) -> [CartEvent; 1] {
        [CartEvent::Added {
            sku,
            quantity: 2 * quantity,
        }]
    }
}

#[test]
fn upcasters_hand_an_old_event_from_version_to_version() {
    let added = |sku: &str, quantity| CartEvent::Added {
        sku: sku.into(),
        quantity,
    };
    for (event_type, version, payload, events) in [
        (
            "cart.added",
            4,
            r#"{"sku":"tea","quantity":3}"#,
            vec![added("tea", 3)],
        ),
        ("cart.added", 1, r#""tea""#, vec![added("tea", 1)]),
        ("basket.added", 1, r#""tea""#, vec![added("tea", 1)]),
        ("cart.added", 1, r#""test""#, vec![]),
        (
            "cart.added",
            2,
            r#"{"sku":"tea","times":2}"#,
            vec![added("tea", 1), added("tea", 1)],
        ),
        ("basket.added", 2, r#"{"sku":"tea","times":0}"#, vec![]),
        ("cart.added", 3, r#"{"sku":"tea"}"#, vec![added("tea", 1)]),
        ("cart.coupon_clicked", 1, r#"{"code":["X"]}"#, vec![]),
        ("cart.doubled", 7, r#"["tea",4]"#, vec![added("tea", 8)]),
        ("cart.cleared", 1, "null", vec![CartEvent::Cleared]),
    ] {
        assert_eq!(
            read::<CartEvent>(event_type, version, payload).unwrap(),
            events,
            "{event_type} v{version}"
        );
    }
    for (event_type, version) in [("cart.added", 5), ("cart.added", 0), ("cart.doubled", 1)] {
        let error = read::<CartEvent>(event_type, version, "null").unwrap_err();
        assert!(
            matches!(error, DecodeError::UnknownVersion { .. }),
            "{error}"
        );
    }
    let error = read::<CartEvent>("cart.added", 2, r#"{"sku":1}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed payload of event type `cart.added` v2"
    );
}

#[test]
fn one_old_event_that_stays_one_takes_no_detour() {
    let stored = Stored {
        event_type: "cart.added",
        schema_version: 3,
        codec: "json",
        payload: br#"{"sku":"a"}"#,
    };
    assert!(matches!(
        CartEvent::decode(stored).unwrap(),
        Decoded::One(CartEvent::Added { .. })
    ));
}

#[test]
fn old_shapes_follow_the_current_ones() {
    let shapes: Vec<_> = CartEvent::shapes()
        .iter()
        .map(|shape| format!("{shape}: {}", shape.fields))
        .collect();
    let expected = [
        "cart.added v4: { sku: String, quantity: u32 }",
        "cart.cleared v1: ",
        "basket.added v4: { sku: String, quantity: u32 }",
        "cart.added v3: read by old::now",
        "basket.added v3: read by old::now",
        "cart.added v2: read by old::spread",
        "basket.added v2: read by old::spread",
        "cart.added v1: read by old::count",
        "basket.added v1: read by old::count",
        "cart.coupon_clicked v1: read by old::forget",
        "cart.doubled v7: read by old::doubled",
    ];
    assert_eq!(shapes, expected);
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "course")]
enum Tagged {
    Subscribed {
        #[event(tag = "course")]
        id: u32,
        #[event(tag)]
        student: Option<String>,
        #[event(tag = "room")]
        rooms: Vec<Option<u8>>,
        #[event(tag)]
        r#type: std::sync::Arc<str>,
        note: String,
    },
    Noted(#[event(tag = "note")] String, u8),
    Closed,
}

#[test]
fn fields_are_tags_where_they_say_so() {
    #[track_caller]
    fn check(event: Tagged, tags: &[&str]) {
        let found: Vec<_> = event.tags().unwrap().iter().map(Tag::to_string).collect();
        assert_eq!(found, tags);
        assert_eq!(NewEvent::of(&event).unwrap().tags, event.tags().unwrap());
    }
    let event = |student: Option<&str>, rooms: &[Option<u8>]| Tagged::Subscribed {
        id: 7,
        student: student.map(str::to_owned),
        rooms: rooms.to_vec(),
        r#type: "evening".into(),
        note: String::new(),
    };
    check(event(None, &[]), &["course:7", "type:evening"]);
    check(
        event(Some("a:b"), &[Some(1), None, Some(2), Some(1)]),
        &[
            "course:7",
            "student:a:b",
            "room:1",
            "room:2",
            "type:evening",
        ],
    );
    check(Tagged::Noted("x".into(), 1), &["note:x"]);
    check(Tagged::Closed, &[]);
}

#[test]
fn writing_a_value_that_no_tag_holds_fails() {
    let error = NewEvent::of(&Tagged::Noted(String::new(), 1)).unwrap_err();
    assert_eq!(error.to_string(), "cannot write event `course.noted`");
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "tag `note:` has an empty key or value"
    );
}

#[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "form")]
#[serde(
    rename_all = "SCREAMING-KEBAB-CASE",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
enum Renaming {
    #[serde(rename = "somethingElse")]
    Sent {
        first_name: String,
        #[serde(rename = "nick", default, skip_serializing_if = "Option::is_none")]
        nick_name: Option<String>,
    },
    #[serde(rename_all = "UPPERCASE")]
    Left {
        the_room: u8,
    },
    Shown(#[serde(with = "text")] u64),
}

mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[test]
fn serde_attributes_of_fields_hold_and_shape_the_type() {
    check(
        Renaming::Sent {
            first_name: "A".into(),
            nick_name: None,
        },
        "form.sent",
        r#"{"firstName":"A"}"#,
    );
    check(
        Renaming::Left { the_room: 1 },
        "form.left",
        r#"{"THE_ROOM":1}"#,
    );
    check(
        Renaming::Shown(u64::MAX),
        "form.shown",
        r#""18446744073709551615""#,
    );
    let fields: Vec<_> = Renaming::shapes()
        .iter()
        .map(|shape| shape.fields)
        .collect();
    let around = r#"rename_all_fields = "camelCase", deny_unknown_fields"#;
    let nick = concat!(
        r#"#[serde(rename = "nick", default, skip_serializing_if = "Option::is_none")] "#,
        "nick_name: Option<String>"
    );
    assert_eq!(
        fields[0],
        format!("#[serde({around})] {{ first_name: String, {nick} }}")
    );
    assert_eq!(
        fields[1],
        format!(r#"#[serde({around}, rename_all = "UPPERCASE")] {{ the_room: u8 }}"#)
    );
    assert_eq!(
        fields[2],
        format!(r#"#[serde({around})] (#[serde(with = "text")] u64)"#)
    );
}

/// JSON backwards: unlike JSON, and easy to tell.
struct Backwards;

impl Codec for Backwards {
    const NAME: &'static str = "backwards";

    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
        let mut bytes = Json::encode(value)?;
        bytes.reverse();
        Ok(bytes)
    }

    fn decode<'de, S: serde::de::DeserializeSeed<'de>>(
        bytes: &'de [u8],
        seed: S,
    ) -> Result<S::Value, CodecError> {
        let forwards: Vec<u8> = bytes.iter().rev().copied().collect();
        seed.deserialize(
            serde_json::from_slice::<serde_json::Value>(&forwards).map_err(CodecError::new)?,
        )
        .map_err(CodecError::new)
    }
}

#[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "odd", codec = "Backwards")]
enum Odd {
    #[event(version = 2, upcast(1 = Odd::from_text))]
    Said { words: Vec<String> },
}

impl Odd {
    fn from_text(text: String) -> Odd {
        Odd::Said { words: vec![text] }
    }
}

#[test]
fn a_type_with_its_own_codec_still_reads_json() {
    let event = Odd::Said {
        words: vec!["x".into()],
    };
    let (_, _, codec, payload) = written(&event);
    assert_eq!(
        (codec, payload.as_str()),
        ("backwards", r#"}]"x"[:"sdrow"{"#)
    );
    for (codec, version, payload) in [
        ("backwards", 2, payload.as_str()),
        ("json", 2, r#"{"words":["x"]}"#),
        ("json", 1, r#""x""#),
        ("backwards", 1, r#""x""#),
    ] {
        let stored = Stored {
            event_type: "odd.said",
            schema_version: version,
            codec,
            payload: payload.as_bytes(),
        };
        assert_eq!(
            Odd::decode(stored).unwrap(),
            Decoded::One(Odd::Said {
                words: vec!["x".into()]
            })
        );
    }
    let stored = Stored {
        event_type: "odd.said",
        schema_version: 2,
        codec: "cbor",
        payload: b"",
    };
    assert_eq!(
        Odd::decode(stored).unwrap_err().to_string(),
        "unknown codec `cbor` of event type `odd.said`"
    );
}
