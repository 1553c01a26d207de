//! Whether all numbers of a value are finite: NaN and infinities come back from most codecs as
//! something else, or not at all.

use crate::StateError;
use serde::{Serialize, ser};
use std::fmt;

/// Refuses a value that holds a number which is not finite, or that cannot be written at all.
///
/// Of what holds no floating-point numbers nothing is left of this when it is compiled.
pub(crate) fn finite<T: Serialize + ?Sized>(value: &T) -> Result<(), StateError> {
    let looked = value.serialize(Look);
    looked.map_err(|Refused(why)| StateError::new(why))
}

#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Refused(why.to_string())
    }
}

type Looked = Result<(), Refused>;

fn look_at(number: f64) -> Looked {
    if number.is_finite() {
        return Ok(());
    }
    Err(Refused(format!("{number} is no number that comes back")))
}

/// Writes nothing.
#[derive(Clone, Copy)]
struct Look;

macro_rules! fine {
    ($($name:ident($of:ty),)*) => {
        $(fn $name(self, _: $of) -> Looked { Ok(()) })*
    };
}

impl ser::Serializer for Look {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Look;
    type SerializeTuple = Look;
    type SerializeTupleStruct = Look;
    type SerializeTupleVariant = Look;
    type SerializeMap = Look;
    type SerializeStruct = Look;
    type SerializeStructVariant = Look;

    fine! {
        serialize_bool(bool), serialize_char(char), serialize_str(&str), serialize_bytes(&[u8]),
        serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_i128(i128), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32),
        serialize_u64(u64), serialize_u128(u128), serialize_unit_struct(&'static str),
    }

    fn serialize_f32(self, number: f32) -> Looked {
        look_at(number.into())
    }

    fn serialize_f64(self, number: f64) -> Looked {
        look_at(number)
    }

    fn serialize_none(self) -> Looked {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Looked {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Looked {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Looked {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, of: &T) -> Looked {
        of.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        of: &T,
    ) -> Looked {
        of.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Look, Refused> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Look, Refused> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Look, Refused> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Look, Refused> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Look, Refused> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Look, Refused> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Look, Refused> {
        Ok(self)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Looked {
        Ok(())
    }
}

macro_rules! parts {
    ($($of:ident::$name:ident($($field:ident)?),)*) => {$(
        impl ser::$of for Look {
            type Ok = ();
            type Error = Refused;

            fn $name<T: Serialize + ?Sized>(
                &mut self,
                $($field: &'static str,)?
                value: &T,
            ) -> Looked {
                $(let _ = $field;)?
                value.serialize(*self)
            }

            fn end(self) -> Looked {
                Ok(())
            }
        }
    )*};
}

parts! {
    SerializeSeq::serialize_element(),
    SerializeTuple::serialize_element(),
    SerializeTupleStruct::serialize_field(),
    SerializeTupleVariant::serialize_field(),
    SerializeStruct::serialize_field(name),
    SerializeStructVariant::serialize_field(name),
}

impl ser::SerializeMap for Look {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Looked {
        key.serialize(*self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Looked {
        value.serialize(*self)
    }

    fn end(self) -> Looked {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Serialize)]
    enum Deep {
        Named {
            of: BTreeMap<u8, Vec<(u8, Option<f32>)>>,
        },
        Alone(f64),
        Both(f64, f64),
    }

    #[test]
    fn a_number_that_is_not_finite_is_found_wherever_it_is() {
        let named = |last| Deep::Named {
            of: [(1, vec![(2, None), (3, Some(last))])].into(),
        };
        assert_eq!(finite(&named(1.5)), Ok(()));
        assert_eq!(finite(&("text", 7_u128, [1.0_f64])), Ok(()));
        let refused = [
            finite(&named(f32::NAN)),
            finite(&Deep::Alone(f64::INFINITY)),
            finite(&Deep::Both(0.0, f64::NEG_INFINITY)),
            finite(&Some(f64::NAN)),
        ];
        let texts = refused.map(|refused| refused.map_err(|error| error.to_string()));
        let no_number = |number: &str| Err(format!("{number} is no number that comes back"));
        let expected = ["NaN", "inf", "-inf", "NaN"].map(no_number);
        assert_eq!(texts, expected);
    }
}
