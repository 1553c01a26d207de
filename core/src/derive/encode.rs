//! Writing the content of a variant: serde says which variant it is, and that is not written.

use serde::Serialize;
use serde::ser::{
    SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleVariant, Serializer,
};

use crate::codec::{Codec, CodecError};
use crate::typed::Encoded;

/// Writes a value as it is.
///
/// # Errors
///
/// When the codec cannot write it.
///
/// ```
/// use annals_core::{Json, derive::encode_plain};
///
/// assert_eq!(encode_plain::<Json, _>(&[1])?.payload, "[1]");
/// # Ok::<_, annals_core::CodecError>(())
/// ```
pub fn encode_plain<C: Codec, T: Serialize + ?Sized>(value: &T) -> Result<Encoded, CodecError> {
    Ok(Encoded {
        codec: C::NAME,
        payload: C::encode(value)?.into(),
    })
}

/// Writes the content of an externally tagged enum's value: the fields of its variant, `null` where
/// it has none.
///
/// # Errors
///
/// When the codec cannot write it.
///
/// ```
/// use annals_core::{Json, derive::encode_variant};
///
/// #[derive(serde::Serialize)]
/// enum Noted { Text { words: u8 }, Nothing }
///
/// assert_eq!(encode_variant::<Json, _>(&Noted::Text { words: 3 })?.payload, r#"{"words":3}"#);
/// assert_eq!(encode_variant::<Json, _>(&Noted::Nothing)?.payload, "null");
/// # Ok::<_, annals_core::CodecError>(())
/// ```
pub fn encode_variant<C: Codec, E: Serialize>(event: &E) -> Result<Encoded, CodecError> {
    encode_plain::<C, _>(&Content(event))
}

struct Content<'a, E>(&'a E);

impl<E: Serialize> Serialize for Content<'_, E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Untagged(serializer))
    }
}

/// A serializer that omits the tag of the outermost enum.
struct Untagged<S>(S);

/// Everything but variants goes through as it is.
macro_rules! forward {
    ($($method:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $method(self, $($arg: $type),*) -> Result<$result, S::Error> {
            self.0.$method($($arg),*)
        })*
    };
}

impl<S: Serializer> Serializer for Untagged<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = S::SerializeSeq;
    type SerializeTuple = S::SerializeTuple;
    type SerializeTupleStruct = S::SerializeTupleStruct;
    type SerializeTupleVariant = TupleContent<S::SerializeTuple>;
    type SerializeMap = S::SerializeMap;
    type SerializeStruct = S::SerializeStruct;
    type SerializeStructVariant = StructContent<S::SerializeStruct>;

    forward! {
        serialize_bool(v: bool) -> S::Ok;
        serialize_i8(v: i8) -> S::Ok;
        serialize_i16(v: i16) -> S::Ok;
        serialize_i32(v: i32) -> S::Ok;
        serialize_i64(v: i64) -> S::Ok;
        serialize_i128(v: i128) -> S::Ok;
        serialize_u8(v: u8) -> S::Ok;
        serialize_u16(v: u16) -> S::Ok;
        serialize_u32(v: u32) -> S::Ok;
        serialize_u64(v: u64) -> S::Ok;
        serialize_u128(v: u128) -> S::Ok;
        serialize_f32(v: f32) -> S::Ok;
        serialize_f64(v: f64) -> S::Ok;
        serialize_char(v: char) -> S::Ok;
        serialize_str(v: &str) -> S::Ok;
        serialize_bytes(v: &[u8]) -> S::Ok;
        serialize_none() -> S::Ok;
        serialize_unit() -> S::Ok;
        serialize_unit_struct(name: &'static str) -> S::Ok;
        serialize_seq(len: Option<usize>) -> S::SerializeSeq;
        serialize_tuple(len: usize) -> S::SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> S::SerializeTupleStruct;
        serialize_map(len: Option<usize>) -> S::SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> S::SerializeStruct;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(value)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, value)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(self.0)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.0.serialize_tuple(len).map(TupleContent)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.0.serialize_struct(variant, len).map(StructContent)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

/// The fields of a tuple variant, as a tuple.
struct TupleContent<S>(S);

impl<S: SerializeTuple> SerializeTupleVariant for TupleContent<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.0.serialize_element(value)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

/// The fields of a struct variant, as a struct.
struct StructContent<S>(S);

impl<S: SerializeStruct> SerializeStructVariant for StructContent<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), S::Error> {
        self.0.serialize_field(key, value)
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
        self.0.skip_field(key)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}
