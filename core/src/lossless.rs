//! JSON of values that JSON can hold: what would be read back as something else is refused where it
//! is written.

use std::cell::Cell;
use std::fmt::{self, Display};

use serde::Serialize;
use serde::ser::{
    Error, Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use crate::codec::CodecError;

/// The JSON of a value.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let json = serde_json::to_vec(value).map_err(CodecError::new)?;
    // All that is lost on the way is written as `null`.
    if json.windows(4).any(|part| part == b"null") {
        let unclear = Cell::new(false);
        let inspected = value.serialize(Inspector::at(&unclear));
        inspected.map_err(CodecError::new)?;
    }
    Ok(json)
}

/// What is known of a value whose JSON was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Survival {
    /// JSON has a form for all of it.
    Whole,
    /// A field is skipped, or a key is no text: only writing and reading it back shows.
    Unclear,
}

/// Looks at a value without writing it.
pub(crate) fn look_at<T: Serialize + ?Sized>(value: &T) -> Result<Survival, CodecError> {
    let unclear = Cell::new(false);
    let inspected = value.serialize(Inspector::at(&unclear));
    inspected.map_err(CodecError::new)?;
    Ok(match unclear.get() {
        true => Survival::Unclear,
        false => Survival::Whole,
    })
}

/// What has no form in JSON, and where it is.
#[derive(Debug)]
struct Lost {
    path: String,
    what: String,
}

impl Lost {
    fn of(what: impl Display) -> Lost {
        Lost {
            path: String::new(),
            what: what.to_string(),
        }
    }

    fn below(mut self, field: &str) -> Lost {
        self.path = match &*self.path {
            "" => field.to_owned(),
            path => format!("{field}.{path}"),
        };
        self
    }
}

impl Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.path {
            "" => write!(f, "it is {}", self.what),
            path => write!(f, "`{path}` is {}", self.what),
        }?;
        f.write_str(", which JSON has no form for: it is not read back as it was written")
    }
}

impl std::error::Error for Lost {}

impl Error for Lost {
    fn custom<T: Display>(what: T) -> Lost {
        Lost::of(what)
    }
}

/// Looks at all parts of a value and writes none.
#[derive(Clone, Copy)]
struct Inspector<'a> {
    /// Directly in a `Some`.
    in_some: bool,
    /// Whether there is something that looking does not decide.
    unclear: &'a Cell<bool>,
}

impl<'a> Inspector<'a> {
    fn at(unclear: &'a Cell<bool>) -> Inspector<'a> {
        Inspector {
            in_some: false,
            unclear,
        }
    }

    fn inside(self) -> Inspector<'a> {
        Inspector::at(self.unclear)
    }

    fn nothing(self, what: &str) -> Result<(), Lost> {
        if self.in_some {
            return Err(Lost::of(what));
        }
        Ok(())
    }
}

fn finite(number: f64) -> Result<(), Lost> {
    if number.is_finite() {
        return Ok(());
    }
    Err(Lost::of(number))
}

macro_rules! kept {
    ($($method:ident($type:ty);)*) => {
        $(fn $method(self, _: $type) -> Result<(), Lost> {
            Ok(())
        })*
    };
}

impl<'a> Serializer for Inspector<'a> {
    type Ok = ();
    type Error = Lost;
    type SerializeSeq = Inspector<'a>;
    type SerializeTuple = Inspector<'a>;
    type SerializeTupleStruct = Inspector<'a>;
    type SerializeTupleVariant = Inspector<'a>;
    type SerializeMap = Inspector<'a>;
    type SerializeStruct = Inspector<'a>;
    type SerializeStructVariant = Inspector<'a>;

    kept! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
    }

    fn serialize_f32(self, number: f32) -> Result<(), Lost> {
        finite(number.into())
    }

    fn serialize_f64(self, number: f64) -> Result<(), Lost> {
        finite(number)
    }

    fn serialize_none(self) -> Result<(), Lost> {
        self.nothing("`Some(None)`")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Lost> {
        value.serialize(Inspector {
            in_some: true,
            ..self
        })
    }

    fn serialize_unit(self) -> Result<(), Lost> {
        self.nothing("`Some` of nothing")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Lost> {
        self.nothing("`Some` of nothing")
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Lost> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Lost> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Lost> {
        let inspected = value.serialize(self.inside());
        inspected.map_err(|lost| lost.below(variant))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Inspector<'a>, Lost> {
        Ok(self.inside())
    }

    fn serialize_tuple(self, _: usize) -> Result<Inspector<'a>, Lost> {
        Ok(self.inside())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Inspector<'a>, Lost> {
        Ok(self.inside())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Inspector<'a>, Lost> {
        Ok(self.inside())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Inspector<'a>, Lost> {
        Ok(self.inside())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Inspector<'a>, Lost> {
        Ok(self.inside())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Inspector<'a>, Lost> {
        Ok(self.inside())
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Result<(), Lost> {
        Ok(())
    }
}

macro_rules! parts {
    ($($kind:ident: $method:ident;)*) => {
        $(impl $kind for Inspector<'_> {
            type Ok = ();
            type Error = Lost;

            fn $method<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), Lost> {
                part.serialize(self.inside())
            }

            fn end(self) -> Result<(), Lost> {
                Ok(())
            }
        })*
    };
}

parts! {
    SerializeSeq: serialize_element;
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
}

macro_rules! fields {
    ($($kind:ident)*) => {
        $(impl $kind for Inspector<'_> {
            type Ok = ();
            type Error = Lost;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                field: &T,
            ) -> Result<(), Lost> {
                let inspected = field.serialize(self.inside());
                inspected.map_err(|lost| lost.below(name))
            }

            fn skip_field(&mut self, _: &'static str) -> Result<(), Lost> {
                self.unclear.set(true);
                Ok(())
            }

            fn end(self) -> Result<(), Lost> {
                Ok(())
            }
        })*
    };
}

fields! { SerializeStruct SerializeStructVariant }

impl SerializeMap for Inspector<'_> {
    type Ok = ();
    type Error = Lost;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Lost> {
        if key.serialize(TextKey).is_err() {
            self.unclear.set(true);
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Lost> {
        value.serialize(self.inside())
    }

    fn end(self) -> Result<(), Lost> {
        Ok(())
    }
}

/// Takes keys of maps that are texts or whole numbers, and fails on all others.
struct TextKey;

macro_rules! no_keys {
    ($($method:ident($($type:ty),*) -> $part:ty;)*) => {
        $(fn $method(self, $(_: $type),*) -> Result<$part, Lost> {
            Err(Lost::of("no text"))
        })*
    };
}

impl Serializer for TextKey {
    type Ok = ();
    type Error = Lost;
    type SerializeSeq = Impossible<(), Lost>;
    type SerializeTuple = Impossible<(), Lost>;
    type SerializeTupleStruct = Impossible<(), Lost>;
    type SerializeTupleVariant = Impossible<(), Lost>;
    type SerializeMap = Impossible<(), Lost>;
    type SerializeStruct = Impossible<(), Lost>;
    type SerializeStructVariant = Impossible<(), Lost>;

    kept! {
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_char(char);
        serialize_str(&str);
    }

    no_keys! {
        serialize_bool(bool) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), Lost> {
        Err(Lost::of("no text"))
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Lost> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Lost> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Lost> {
        Err(Lost::of("no text"))
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Result<(), Lost> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Serialize)]
    struct Rates {
        rate: Option<f64>,
        days: Vec<Option<Option<u8>>>,
        named: BTreeMap<u8, f32>,
        kind: Kind,
    }

    #[derive(Serialize)]
    enum Kind {
        Plain,
        Of(Option<()>),
        At { x: f64 },
    }

    fn rates() -> Rates {
        Rates {
            rate: None,
            days: vec![None, Some(Some(1))],
            named: BTreeMap::from([(1, f32::MAX)]),
            kind: Kind::Of(None),
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Rates), said: &str) {
        let mut rates = rates();
        change(&mut rates);
        let error = to_json(&rates).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }

    #[test]
    fn what_json_has_no_form_for_is_named() {
        check(|of| of.rate = Some(f64::NAN), "`rate` is NaN, which JSON");
        check(|of| of.rate = Some(-f64::INFINITY), "`rate` is -inf,");
        check(|of| of.days.push(Some(None)), "`days` is `Some(None)`,");
        let infinite = |of: &mut Rates| _ = of.named.insert(2, f32::INFINITY);
        check(infinite, "`named` is inf,");
        check(|of| of.kind = Kind::Of(Some(())), "`kind.Of` is `Some` of");
        check(|of| of.kind = Kind::At { x: f64::NAN }, "`kind.x` is NaN,");
        let error = to_json(&f32::NAN).unwrap_err().to_string();
        assert!(error.starts_with("it is NaN, which JSON"), "{error}");
    }

    #[derive(Serialize)]
    struct Skipping {
        #[serde(skip_serializing_if = "Option::is_none")]
        cents: Option<i64>,
        by: BTreeMap<(u8, u8), u8>,
    }

    #[test]
    fn what_looking_does_not_decide_is_unclear() {
        let of = |cents, keys: &[(u8, u8)]| {
            let by = keys.iter().map(|key| (*key, 1)).collect();
            look_at(&Skipping { cents, by }).unwrap()
        };
        assert_eq!(of(Some(1), &[]), Survival::Whole);
        assert_eq!(of(None, &[]), Survival::Unclear);
        assert_eq!(of(Some(1), &[(1, 2)]), Survival::Unclear);
        assert_eq!(look_at(&rates()).unwrap(), Survival::Whole);
        assert!(look_at(&f32::NAN).is_err());
    }

    #[test]
    fn what_json_holds_is_written() {
        let written = |rates: &Rates| String::from_utf8(to_json(rates).unwrap()).unwrap();
        let mut plain = rates();
        assert!(written(&plain).starts_with(r#"{"rate":null,"days":[null,1],"#));
        plain.kind = Kind::Plain;
        plain.rate = Some(5e-324);
        assert!(written(&plain).starts_with(r#"{"rate":5e-324,"#));
        assert_eq!(to_json(&()).unwrap(), b"null");
        assert_eq!(to_json("null").unwrap(), b"\"null\"");
    }
}
