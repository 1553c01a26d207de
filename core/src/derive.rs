//! What derived code calls: the content of an enum's variant without its tag, in any codec.

mod decode;
mod encode;

pub use decode::{decode_plain, decode_variant};
pub use encode::{encode_plain, encode_variant};

/// What an upcaster makes of an old value: one of the next shape, or an `Option` or `Vec` of it.
///
/// ```
/// use annals_core::derive::Upcasted;
///
/// assert_eq!(Upcasted::<u8>::upcasted(7_u8), [7]);
/// assert_eq!(Upcasted::<u8>::upcasted(vec![1_u8, 2]), [1, 2]);
/// assert!(Upcasted::<u8>::upcasted(None::<u8>).is_empty());
/// ```
pub trait Upcasted<T> {
    /// The values, in order.
    fn upcasted(self) -> Vec<T>;
}

impl<T> Upcasted<T> for T {
    fn upcasted(self) -> Vec<T> {
        vec![self]
    }
}

impl<T> Upcasted<T> for Vec<T> {
    fn upcasted(self) -> Vec<T> {
        self
    }
}

impl<T> Upcasted<T> for Option<T> {
    fn upcasted(self) -> Vec<T> {
        self.into_iter().collect()
    }
}
