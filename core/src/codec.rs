//! Codecs: how a payload is written. The name is stored with every event.

use std::error::Error;

use serde::Serialize;
use serde::de::DeserializeSeed;

pub use crate::lossless::Survival;

/// A way to write values as bytes.
///
/// A user's own codec is a type that implements this, named in `#[event(codec = "…")]`. Its name is
/// stored beside every payload and must never change.
///
/// ```
/// use annals_core::{Codec, Json};
///
/// let bytes = Json::encode(&[1, 2])?;
/// assert_eq!(bytes, b"[1,2]");
/// assert_eq!(Json::decode(&bytes, std::marker::PhantomData::<Vec<u8>>)?, [1, 2]);
/// # Ok::<_, annals_core::CodecError>(())
/// ```
pub trait Codec: Send + Sync + 'static {
    /// What it is called where events are stored.
    const NAME: &'static str;

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// When the codec has no way to write it.
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError>;

    /// Reads a value; all bytes must belong to it.
    ///
    /// # Errors
    ///
    /// When the bytes are not such a value.
    fn decode<'de, S: DeserializeSeed<'de>>(
        bytes: &'de [u8],
        seed: S,
    ) -> Result<S::Value, CodecError>;
}

/// JSON text, the default. Integers are exact in the range of the field's type.
///
/// ```
/// use annals_core::{Codec, Json};
///
/// assert_eq!(Json::NAME, "json");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl Json {
    /// Whether JSON has a form for all of a value, which is not written: a fraction of the price of
    /// [`encode`](Codec::encode). For values of which only the last of several is written.
    ///
    /// # Errors
    ///
    /// As [`encode`](Codec::encode): what has no form, and in which field.
    ///
    /// ```
    /// use annals_core::{Json, Survival};
    ///
    /// assert_eq!(Json::look_at(&("tea", 1.5))?, Survival::Whole);
    /// assert!(Json::look_at(&f64::NAN).is_err());
    /// # Ok::<_, annals_core::CodecError>(())
    /// ```
    pub fn look_at<T: Serialize + ?Sized>(value: &T) -> Result<Survival, CodecError> {
        crate::lossless::look_at(value)
    }
}

impl Codec for Json {
    const NAME: &'static str = "json";

    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
        crate::lossless::to_json(value)
    }

    fn decode<'de, S: DeserializeSeed<'de>>(
        bytes: &'de [u8],
        seed: S,
    ) -> Result<S::Value, CodecError> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let value = seed.deserialize(&mut reader).map_err(CodecError::new)?;
        reader.end().map_err(CodecError::new)?;
        Ok(value)
    }
}

/// A value that a codec could not write or read; says what and where.
///
/// ```
/// use annals_core::{Codec, Json};
///
/// let error = Json::decode(b"{", std::marker::PhantomData::<u8>).unwrap_err();
/// assert!(error.to_string().contains("line 1"));
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(Box<dyn Error + Send + Sync>);

impl CodecError {
    /// The codec's own error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> CodecError {
        CodecError(error.into())
    }
}
