//! Bytes of the protocol, whole, cut off and wrong: no panic, and no message of what is none.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use annals_cdc::pgoutput::{Decoder, Message, OldTuple, PrimaryKeys, TupleValue};
use annals_cdc::{Body, TableName};
use proptest::prelude::*;

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn tuple(values: &[TupleValue]) -> Vec<u8> {
    let mut bytes = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            TupleValue::Null => bytes.push(b'n'),
            TupleValue::Unchanged => bytes.push(b'u'),
            TupleValue::Text(text) => {
                bytes.push(b't');
                bytes.extend((text.len() as u32).to_be_bytes());
                bytes.extend(text.as_bytes());
            }
        }
    }
    bytes
}

fn update(old: &OldTuple, new: &[TupleValue]) -> Vec<u8> {
    let mut bytes = vec![b'U', 0, 0, 0, 7];
    match old {
        OldTuple::None => {}
        OldTuple::Key(values) => bytes.extend([vec![b'K'], tuple(values)].concat()),
        OldTuple::Full(values) => bytes.extend([vec![b'O'], tuple(values)].concat()),
    }
    bytes.push(b'N');
    bytes.extend(tuple(new));
    bytes
}

fn relation() -> Vec<u8> {
    let mut bytes = vec![b'R', 0, 0, 0, 7];
    bytes.extend(text("public"));
    bytes.extend(text("t"));
    bytes.extend([b'd', 0, 2]);
    for (flags, name) in [(1, "id"), (0, "größe")] {
        bytes.push(flags);
        bytes.extend(text(name));
        bytes.extend([0, 0, 0, 20, 255, 255, 255, 255]);
    }
    bytes
}

fn value() -> impl Strategy<Value = TupleValue> {
    prop_oneof![
        Just(TupleValue::Null),
        Just(TupleValue::Unchanged),
        ".{0,20}".prop_map(TupleValue::Text),
    ]
}

fn values() -> impl Strategy<Value = Vec<TupleValue>> {
    proptest::collection::vec(value(), 0..6)
}

fn old() -> impl Strategy<Value = OldTuple> {
    prop_oneof![
        Just(OldTuple::None),
        values().prop_map(OldTuple::Key),
        values().prop_map(OldTuple::Full),
    ]
}

proptest! {
    #[test]
    fn an_update_is_read_as_it_was_written(old in old(), new in values()) {
        let message = Message::parse(&update(&old, &new)).unwrap();
        prop_assert_eq!(message, Message::Update { relation: 7, old, new });
    }

    #[test]
    fn a_message_that_is_cut_off_is_an_error(
        old in old(),
        new in values(),
        at in any::<prop::sample::Index>(),
    ) {
        for whole in [update(&old, &new), relation()] {
            let cut = &whole[..at.index(whole.len())];
            prop_assert!(Message::parse(cut).is_err(), "{cut:?}");
            let longer = [&whole[..], &[0]].concat();
            prop_assert!(Message::parse(&longer).is_err());
        }
    }

    #[test]
    fn no_bytes_panic(
        kind in prop::sample::select(&b"BCORYIUDTM?"[..]),
        rest in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let bytes = [&[kind][..], &rest].concat();
        let mut decoder = Decoder::new(PrimaryKeys::new());
        let _ = decoder.decode(Message::parse(&relation()).unwrap());
        if let Ok(message) = Message::parse(&bytes) {
            let _ = decoder.decode(message);
        }
    }
}

#[test]
fn a_looked_up_key_replaces_one_unless_columns_lack() {
    // The table sends whole old rows.
    let mut bytes = relation();
    let identity = 5 + text("public").len() + text("t").len();
    bytes[identity] = b'f';
    let Message::Relation(relation) = Message::parse(&bytes).unwrap() else {
        panic!("{bytes:?}");
    };
    let begin = [&b"B"[..], &[0; 20]].concat();
    let mut insert = vec![b'I', 0, 0, 0, 7, b'N'];
    insert.extend(tuple(&[TupleValue::Null, TupleValue::Null]));
    let mut decoder = Decoder::new(PrimaryKeys::new());
    decoder.decode(Message::parse(&begin).unwrap()).unwrap();
    for (found, wanted) in [("id", "id"), ("größe", "größe"), ("uid", "größe")] {
        let table = decoder.lacks_key_of(&relation).unwrap();
        assert_eq!(table, TableName::new("public", "t"));
        decoder.know_key(&relation, vec![found.into()]);
        decoder.decode(Message::Relation(relation.clone())).unwrap();
        let row = Message::parse(&insert).unwrap();
        let record = decoder.decode(row).unwrap().unwrap();
        let Body::Row(row) = record.body else {
            panic!("no row");
        };
        assert!(
            row.key.get(wanted).is_some() && row.key.len() == 1,
            "{row:?}"
        );
    }
}

#[test]
fn a_changed_length_byte_is_an_error() {
    let new = [
        TupleValue::Text("abc".into()),
        TupleValue::Text("de".into()),
    ];
    let whole = update(&OldTuple::None, &new);
    // The number of values, and the last byte of each length.
    for at in [7, 12, 20] {
        for other in (0..=255).filter(|other| *other != whole[at]) {
            let mut bytes = whole.clone();
            bytes[at] = other;
            assert!(Message::parse(&bytes).is_err(), "byte {at} is {other}");
        }
    }
}

#[test]
fn a_row_of_an_unknown_table_is_a_located_error() {
    let mut decoder = Decoder::new(PrimaryKeys::new());
    let begin = [&b"B"[..], &0x1528640_u64.to_be_bytes(), &[0; 12]].concat();
    decoder.decode(Message::parse(&begin).unwrap()).unwrap();
    let change = Message::parse(&update(&OldTuple::None, &[])).unwrap();
    let error = decoder.decode(change).unwrap_err().to_string();
    assert_eq!(
        error,
        "a change of table number 7, which was not explained before (in the transaction that was \
         committed at 0/1528640)"
    );
}

#[test]
fn a_type_of_the_server_itself_has_its_schema() {
    for (schema, named) in [("", "pg_catalog"), ("shop", "shop")] {
        let bytes = [&b"Y\0\0\x40\0"[..], &text(schema), &text("text")].concat();
        let wanted = Message::Type {
            oid: 0x4000,
            schema: named.into(),
            name: "text".into(),
        };
        assert_eq!(Message::parse(&bytes), Ok(wanted));
    }
}
