//! What derived code calls: the content of an enum's variant without its tag, in any codec.

mod decode;
mod encode;

pub use decode::{decode_plain, decode_variant};
pub use encode::{encode_plain, encode_variant};

use std::fmt::Display;

use crate::error::Invalid;
use crate::tag::Tag;
use crate::typed::{DecodeError, Decoded, Event, Stored};

/// What an upcaster makes of an old value: one of the next shape, or an `Option`, an array or a
/// `Vec` of it.
///
/// ```
/// use annals_core::{Decoded, derive::Upcasted};
///
/// assert_eq!(Upcasted::<u8>::upcasted(7_u8), Decoded::One(7));
/// assert_eq!(Upcasted::<u8>::upcasted(vec![1_u8, 2]), Decoded::Several(vec![1, 2]));
/// assert_eq!(Upcasted::<u8>::upcasted(None::<u8>).into_iter().count(), 0);
/// ```
///
/// Anything else does not compile:
///
/// ```compile_fail
/// use annals_core::{Decoded, derive::upcast};
///
/// let _: Decoded<u16> = upcast(Decoded::One(7_u8), |old| (old, old));
/// ```
#[diagnostic::on_unimplemented(
    message = "an upcaster returns `{Self}`, and what comes after it is `{T}`",
    label = "not `{T}`, an `Option`, an array or a `Vec` of it"
)]
pub trait Upcasted<T> {
    /// The values, in order.
    fn upcasted(self) -> Decoded<T>;
}

impl<T> Upcasted<T> for T {
    fn upcasted(self) -> Decoded<T> {
        Decoded::One(self)
    }
}

impl<T> Upcasted<T> for Vec<T> {
    fn upcasted(self) -> Decoded<T> {
        Decoded::Several(self)
    }
}

impl<T, const N: usize> Upcasted<T> for [T; N] {
    fn upcasted(self) -> Decoded<T> {
        Decoded::Several(self.into())
    }
}

impl<T> Upcasted<T> for Option<T> {
    fn upcasted(self) -> Decoded<T> {
        self.map_or(Decoded::Several(Vec::new()), Decoded::One)
    }
}

/// Brings old values one version further.
///
/// ```
/// use annals_core::{Decoded, derive::upcast};
///
/// fn doubled(old: u8) -> Vec<u16> {
///     vec![old.into(), old.into()]
/// }
/// assert_eq!(upcast(Decoded::One(7), doubled), Decoded::Several(vec![7_u16, 7]));
/// ```
pub fn upcast<Old, Between, New>(old: Decoded<Old>, upcaster: fn(Old) -> Between) -> Decoded<New>
where
    Between: Upcasted<New>,
{
    match old {
        Decoded::One(old) => upcaster(old).upcasted(),
        Decoded::Several(old) => Decoded::Several(
            old.into_iter()
                .flat_map(|old| upcaster(old).upcasted())
                .collect(),
        ),
    }
}

/// Adds a tag, unless it is there already.
///
/// # Errors
///
/// [`Invalid`] when key and value are no legal tag.
///
/// ```
/// let mut tags = Vec::new();
/// for course in ["c1", "c1"] {
///     annals_core::derive::push_tag(&mut tags, "course", &course)?;
/// }
/// assert_eq!(tags, ["course:c1".parse()?]);
/// # Ok::<_, annals_core::Invalid>(())
/// ```
pub fn push_tag<V: Display + ?Sized>(
    tags: &mut Vec<Tag>,
    key: &str,
    value: &V,
) -> Result<(), Invalid> {
    let tag = Tag::new(key, value)?;
    if !tags.contains(&tag) {
        tags.push(tag);
    }
    Ok(())
}

/// Why a stored shape that is none of the type's cannot be read.
///
/// ```
/// # use annals_core::{Event, Stored};
/// # fn example<E: Event>(stored: Stored<'_>) {
/// println!("{}", annals_core::derive::unknown::<E>(stored));
/// # }
/// ```
pub fn unknown<E: Event>(stored: Stored<'_>) -> DecodeError {
    let event_type = stored.event_type.to_owned();
    if E::shapes()
        .iter()
        .any(|shape| shape.event_type == event_type)
    {
        DecodeError::UnknownVersion {
            event_type,
            schema_version: stored.schema_version,
        }
    } else {
        DecodeError::UnknownType { event_type }
    }
}
