//! From a record's key to the name of a stream.

use annals_core::StreamId;
use sha2::{Digest as _, Sha256};

/// The name of the stream of a key, and whether the key is in it unchanged.
///
/// What a name may not contain, and `%`, become `%XX`; what makes the name too long becomes a hash
/// after `#`. Two keys never have one stream.
pub(crate) fn stream_of_key(category: &str, key: &[u8]) -> (StreamId, bool) {
    let mut id = String::with_capacity(key.len());
    let mut plain = true;
    for (index, chunk) in key.utf8_chunks().enumerate() {
        for (at, character) in chunk.valid().char_indices() {
            let is_first = index == 0 && at == 0;
            let is_mark = is_first && matches!(character, '~' | '#');
            if character.is_control() || character == '%' || is_mark {
                plain = false;
                let mut bytes = [0; 4];
                let bytes = character.encode_utf8(&mut bytes).as_bytes();
                bytes.iter().for_each(|byte| escape(&mut id, *byte));
            } else {
                id.push(character);
            }
        }
        for byte in chunk.invalid() {
            plain = false;
            escape(&mut id, *byte);
        }
    }
    match StreamId::any(format!("{category}-{id}")) {
        Ok(stream) => (stream, plain),
        Err(_) => (hashed(category, key), false),
    }
}

/// The stream of a record without a key: its own, so that it delays nothing else.
pub(crate) fn stream_of_record(category: &str, partition: u32, offset: i64) -> StreamId {
    StreamId::any(format!("{category}-~{partition}.{offset}"))
        .unwrap_or_else(|_| hashed(category, format!("~{partition}.{offset}").as_bytes()))
}

/// The category that a topic's records have: its name, without `-`.
pub(crate) fn category_of_topic(topic: &str) -> String {
    topic.replace('-', "%2D")
}

fn hashed(category: &str, key: &[u8]) -> StreamId {
    let mut hash = Sha256::new();
    // A category that leaves no room for a hash is part of what is hashed.
    let room = StreamId::BYTES_MAX - 70;
    let short: String = category.chars().take(room / 4).collect();
    if short != category {
        hash.update(category.as_bytes());
        hash.update([0]);
    }
    hash.update(key);
    let hex: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    StreamId::any(format!("{short}-#{hex}")).expect("a short category and a hash are a legal name")
}

fn escape(id: &mut String, byte: u8) {
    id.push_str(&format!("%{byte:02X}"));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(key: &[u8], name: &str, plain: bool) {
        let (stream, found) = stream_of_key("orders", key);
        assert_eq!((stream.as_str(), found), (name, plain));
    }

    #[test]
    fn a_key_that_is_a_legal_name_is_unchanged() {
        check(b"ada", "orders-ada", true);
        check("Ärö-1 ~#".as_bytes(), "orders-Ärö-1 ~#", true);
        check(b"", "orders-", true);
    }

    #[test]
    fn a_key_that_is_no_legal_name_is_escaped() {
        check(b"a\nb", "orders-a%0Ab", false);
        check(b"100%", "orders-100%25", false);
        check(b"~0.7", "orders-%7E0.7", false);
        check(b"\xff\xfe", "orders-%FF%FE", false);
    }

    #[test]
    fn a_long_key_is_hashed() {
        let (stream, plain) = stream_of_key("orders", &[b'x'; 300]);
        assert!(stream.as_str().starts_with("orders-#") && !plain);
        let (stream, _) = stream_of_key(&"é".repeat(200), b"x");
        assert!(stream.as_str().len() <= StreamId::BYTES_MAX);
    }

    proptest! {
        #[test]
        fn different_keys_have_different_streams(keys: HashSet<Vec<u8>>) {
            let streams: HashSet<StreamId> =
                keys.iter().map(|key| stream_of_key("t", key).0).collect();
            prop_assert_eq!(streams.len(), keys.len());
        }
    }
}
