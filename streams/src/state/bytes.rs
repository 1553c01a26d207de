//! Places and values of entries as bytes whose order is that of what they mean.

use super::{Codec, written};
use crate::{Kept, Place, StateError, Time};
use serde::{Serialize, de::DeserializeOwned};

/// The place of a piece within its key, in bytes that order as it does.
pub(crate) trait Part: Clone + Ord {
    fn write<C: Codec>(&self, to: &mut Vec<u8>) -> Result<(), StateError>;
    fn read<C: Codec>(from: &mut Bytes<'_>) -> Result<Self, StateError>;
}

impl Part for () {
    fn write<C: Codec>(&self, _: &mut Vec<u8>) -> Result<(), StateError> {
        Ok(())
    }

    fn read<C: Codec>(_: &mut Bytes<'_>) -> Result<Self, StateError> {
        Ok(())
    }
}

impl Part for u8 {
    fn write<C: Codec>(&self, to: &mut Vec<u8>) -> Result<(), StateError> {
        to.push(*self);
        Ok(())
    }

    fn read<C: Codec>(from: &mut Bytes<'_>) -> Result<Self, StateError> {
        from.take::<1>().map(|[byte]| byte)
    }
}

impl Part for Time {
    fn write<C: Codec>(&self, to: &mut Vec<u8>) -> Result<(), StateError> {
        to.extend(time_bytes(*self));
        Ok(())
    }

    fn read<C: Codec>(from: &mut Bytes<'_>) -> Result<Self, StateError> {
        from.time()
    }
}

impl Part for Place {
    fn write<C: Codec>(&self, to: &mut Vec<u8>) -> Result<(), StateError> {
        to.extend(self.partition.to_be_bytes());
        to.extend(self.position.to_be_bytes());
        to.extend(self.index.to_be_bytes());
        Ok(())
    }

    fn read<C: Codec>(from: &mut Bytes<'_>) -> Result<Self, StateError> {
        let partition = u32::from_be_bytes(from.take()?);
        let position = u64::from_be_bytes(from.take()?);
        let index = u32::from_be_bytes(from.take()?);
        Ok(Place {
            partition,
            position,
            index,
        })
    }
}

impl<A: Part, B: Part> Part for (A, B) {
    fn write<C: Codec>(&self, to: &mut Vec<u8>) -> Result<(), StateError> {
        self.0.write::<C>(to)?;
        self.1.write::<C>(to)
    }

    fn read<C: Codec>(from: &mut Bytes<'_>) -> Result<Self, StateError> {
        let first = A::read::<C>(from)?;
        let second = B::read::<C>(from)?;
        Ok((first, second))
    }
}

/// A part that is a value of the user: the last one, because it has no fixed length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Named<T>(pub(crate) T);

impl<T: Kept + Ord> Part for Named<T> {
    fn write<C: Codec>(&self, to: &mut Vec<u8>) -> Result<(), StateError> {
        to.extend(written::<C, T>(&self.0)?);
        Ok(())
    }

    fn read<C: Codec>(from: &mut Bytes<'_>) -> Result<Self, StateError> {
        C::decode(from.rest()).map(Named)
    }
}

fn time_bytes(time: Time) -> [u8; 8] {
    // With the sign turned, bytes order as the moments do.
    ((time.micros() as u64) ^ (1 << 63)).to_be_bytes()
}

/// Writes a value: a head of fixed parts, then what the codec makes of the rest.
#[derive(Default)]
pub(crate) struct Value(Vec<u8>);

impl Value {
    pub(crate) fn flag(mut self, flag: bool) -> Self {
        self.0.push(u8::from(flag));
        self
    }

    pub(crate) fn time(mut self, time: Time) -> Self {
        self.0.extend(time_bytes(time));
        self
    }

    pub(crate) fn then<C: Codec, T: Serialize + DeserializeOwned>(
        mut self,
        rest: &T,
    ) -> Result<Vec<u8>, StateError> {
        self.0.extend(written::<C, T>(rest)?);
        Ok(self.0)
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what [`Value`] and [`Part`] wrote.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or_else(too_short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, StateError> {
        self.take::<1>().map(|[byte]| byte != 0)
    }

    pub(crate) fn time(&mut self) -> Result<Time, StateError> {
        let turned = u64::from_be_bytes(self.take()?);
        Ok(Time::from_micros((turned ^ (1 << 63)) as i64))
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn then<C: Codec, T: DeserializeOwned>(&mut self) -> Result<T, StateError> {
        C::decode(self.rest())
    }
}

fn too_short() -> StateError {
    StateError::new("an entry of saved state is too short")
}
