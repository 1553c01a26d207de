//! Reading the content of a variant: the type's name said which one it is, and serde is told so.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::U32Deserializer;
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::codec::{Codec, CodecError, Json};
use crate::typed::{DecodeError, Stored};

/// Reads a value as it is, in the type's own codec or in JSON.
///
/// # Errors
///
/// [`DecodeError::UnknownCodec`] and [`DecodeError::Malformed`].
///
/// ```
/// use annals_core::{Json, Stored, derive::decode_plain};
///
/// let stored = Stored { event_type: "noted", schema_version: 1, codec: "json", payload: b"[1]" };
/// assert_eq!(decode_plain::<Json, Vec<u8>>(stored)?, [1]);
/// # Ok::<_, annals_core::DecodeError>(())
/// ```
pub fn decode_plain<C: Codec, T: DeserializeOwned>(stored: Stored<'_>) -> Result<T, DecodeError> {
    decode::<C, _>(stored, PhantomData)
}

/// Reads the variant `index` (counted from 0 in the order of the source) of an externally tagged
/// enum from its content.
///
/// # Errors
///
/// [`DecodeError::UnknownCodec`] and [`DecodeError::Malformed`].
///
/// ```
/// use annals_core::{Json, Stored, derive::decode_variant};
///
/// #[derive(serde::Deserialize, Debug, PartialEq)]
/// enum Noted { Nothing, Text { words: u8 } }
///
/// let stored = Stored {
///     event_type: "noted.text",
///     schema_version: 1,
///     codec: "json",
///     payload: br#"{"words":3}"#,
/// };
/// assert_eq!(decode_variant::<Json, Noted>(stored, 1)?, Noted::Text { words: 3 });
/// # Ok::<_, annals_core::DecodeError>(())
/// ```
pub fn decode_variant<C: Codec, E: DeserializeOwned>(
    stored: Stored<'_>,
    index: u32,
) -> Result<E, DecodeError> {
    decode::<C, _>(
        stored,
        Variant {
            index,
            event: PhantomData::<E>,
        },
    )
}

fn decode<'de, C: Codec, S: DeserializeSeed<'de>>(
    stored: Stored<'de>,
    seed: S,
) -> Result<S::Value, DecodeError> {
    let malformed = |source: CodecError| DecodeError::Malformed {
        event_type: stored.event_type.into(),
        schema_version: stored.schema_version,
        source,
    };
    if stored.codec == C::NAME {
        C::decode(stored.payload, seed).map_err(malformed)
    } else if stored.codec == Json::NAME {
        Json::decode(stored.payload, seed).map_err(malformed)
    } else {
        Err(DecodeError::UnknownCodec {
            event_type: stored.event_type.into(),
            codec: stored.codec.into(),
        })
    }
}

struct Variant<E> {
    index: u32,
    event: PhantomData<E>,
}

impl<'de, E: Deserialize<'de>> DeserializeSeed<'de> for Variant<E> {
    type Value = E;

    fn deserialize<D: Deserializer<'de>>(self, content: D) -> Result<E, D::Error> {
        E::deserialize(Tagged {
            index: self.index,
            content,
        })
    }
}

/// A deserializer of one enum, whose tag is known and whose content is still to be read.
struct Tagged<D> {
    index: u32,
    content: D,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Tagged<D> {
    type Error = D::Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_enum(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(serde::de::Error::custom(
            "an event type with variants must be an externally tagged enum",
        ))
    }

    fn is_human_readable(&self) -> bool {
        self.content.is_human_readable()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de, D: Deserializer<'de>> EnumAccess<'de> for Tagged<D> {
    type Error = D::Error;
    type Variant = Content<D>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Content<D>), D::Error> {
        let index: U32Deserializer<D::Error> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, Content(self.content)))
    }
}

struct Content<D>(D);

impl<'de, D: Deserializer<'de>> VariantAccess<'de> for Content<D> {
    type Error = D::Error;

    fn unit_variant(self) -> Result<(), D::Error> {
        self.0.deserialize_any(Nothing)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, D::Error> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct("", fields, visitor)
    }
}

/// The content of a variant without fields: `null`. An object is let through as well, so that a
/// variant may lose its fields.
struct Nothing;

impl<'de> Visitor<'de> for Nothing {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map
            .next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?
            .is_some()
        {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::derive::encode_variant;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Every {
        Unit,
        New(i128),
        Pair(u64, Option<String>),
        #[serde(rename = "other")]
        Fields {
            exact: i64,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            nested: Option<Box<Every>>,
        },
    }

    #[test]
    fn every_kind_of_variant_comes_back_from_its_content() {
        let rows = [
            (0, Every::Unit, "null"),
            (
                1,
                Every::New(i128::MAX),
                "170141183460469231731687303715884105727",
            ),
            (
                2,
                Every::Pair(u64::MAX, None),
                "[18446744073709551615,null]",
            ),
            (
                3,
                Every::Fields {
                    exact: i64::MIN,
                    nested: None,
                },
                r#"{"exact":-9223372036854775808}"#,
            ),
            (
                3,
                Every::Fields {
                    exact: 1,
                    nested: Some(Box::new(Every::Unit)),
                },
                r#"{"exact":1,"nested":"unit"}"#,
            ),
        ];
        for (index, event, text) in rows {
            let encoded = encode_variant::<Json, _>(&event).unwrap();
            assert_eq!(encoded.payload, text);
            let stored = Stored {
                event_type: "t",
                schema_version: 1,
                codec: "json",
                payload: text.as_bytes(),
            };
            assert_eq!(decode_variant::<Json, Every>(stored, index).unwrap(), event);
        }
    }

    #[test]
    fn a_payload_that_does_not_decode_names_its_type() {
        let stored = |codec, payload| Stored {
            event_type: "t",
            schema_version: 2,
            codec,
            payload,
        };
        let error =
            decode_variant::<Json, Every>(stored("json", br#"{"exact":"x"}"#), 3).unwrap_err();
        assert_eq!(error.to_string(), "malformed payload of event type `t` v2");
        let error = decode_variant::<Json, Every>(stored("json", b"null null"), 0).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed { .. }));
        let error = decode_variant::<Json, Every>(stored("cbor", b"x"), 0).unwrap_err();
        assert_eq!(error.to_string(), "unknown codec `cbor` of event type `t`");
    }
}
