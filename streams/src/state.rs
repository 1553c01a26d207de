//! What an operator must be able to write and read back, in canonical bytes.
//!
//! State is a set of small entries, each with the key of the user, a place within that key and a
//! value. An operator knows which of them changed since it was last asked, so that a commit
//! writes what changed and nothing else; what came and went in between leaves no trace.

use crate::{Kept, Key, Place, StateError, Time};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// How keys, items and accumulators become bytes. Equal values must become equal bytes.
///
/// ```
/// use annals_streams::{Codec, StateError};
/// use serde::{Serialize, de::DeserializeOwned};
///
/// struct Json;
///
/// impl Codec for Json {
///     fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StateError> {
///         serde_json::to_vec(value).map_err(|error| StateError::new(error.to_string()))
///     }
///
///     fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
///         serde_json::from_slice(bytes).map_err(|error| StateError::new(error.to_string()))
///     }
/// }
///
/// assert_eq!(Json::encode(&("tea", 3))?, br#"["tea",3]"#);
/// # Ok::<(), StateError>(())
/// ```
pub trait Codec: 'static {
    /// The canonical bytes of a value.
    ///
    /// # Errors
    ///
    /// When the value cannot be written; the commit that wanted it must fail.
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StateError>;

    /// The value of such bytes.
    ///
    /// # Errors
    ///
    /// When the bytes are not those of a `T`.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError>;
}

/// Where an entry of state belongs. Entries of one key lie together.
///
/// ```
/// use annals_streams::Address;
///
/// let address = Address { stage: 2, key: b"\"ann\"".to_vec(), place: vec![0] };
/// assert!(address > Address { stage: 1, ..address.clone() });
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The stage of the pipeline.
    pub stage: u16,
    /// The user's key, encoded; what decides about the virtual node.
    pub key: Vec<u8>,
    /// Which piece of the key's state.
    pub place: Vec<u8>,
}

/// Entries that were written or removed, in the order of their addresses.
///
/// ```
/// use annals_streams::{Address, Changes};
///
/// let mut changes = Changes::new();
/// let address = Address { stage: 0, key: vec![1], place: vec![] };
/// changes.set(address, Some(vec![7]));
/// assert_eq!(changes.len(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    entries: BTreeMap<Address, Option<Vec<u8>>>,
    stage: u16,
}

impl Changes {
    /// None.
    ///
    /// ```
    /// # use annals_streams::Changes;
    /// assert!(Changes::new().is_empty());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries that operators write from here on belong to this stage.
    ///
    /// ```
    /// # use annals_streams::Changes;
    /// Changes::new().of_stage(3);
    /// ```
    pub fn of_stage(&mut self, stage: u16) {
        self.stage = stage;
    }

    /// The entry is now this; `None`: it is gone.
    ///
    /// ```
    /// # use annals_streams::{Address, Changes};
    /// let mut changes = Changes::new();
    /// changes.set(Address { stage: 0, key: vec![], place: vec![] }, None);
    /// assert!(!changes.is_empty());
    /// ```
    pub fn set(&mut self, address: Address, value: Option<Vec<u8>>) {
        self.entries.insert(address, value);
    }

    /// How many entries changed.
    ///
    /// ```
    /// # use annals_streams::Changes;
    /// assert_eq!(Changes::new().len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing changed.
    ///
    /// ```
    /// # use annals_streams::Changes;
    /// assert!(Changes::new().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries in the order of their addresses.
    ///
    /// ```
    /// # use annals_streams::Changes;
    /// assert_eq!(Changes::new().iter().count(), 0);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&Address, Option<&[u8]>)> {
        self.entries
            .iter()
            .map(|(address, value)| (address, value.as_deref()))
    }

    /// Applies newer changes on top of these, as a journal is read.
    ///
    /// What was removed is left out: the result holds values only.
    ///
    /// ```
    /// # use annals_streams::{Address, Changes};
    /// let address = Address { stage: 0, key: vec![], place: vec![] };
    /// let mut all = Changes::new();
    /// all.set(address.clone(), Some(vec![1]));
    /// let mut newer = Changes::new();
    /// newer.set(address, None);
    /// all.apply(newer);
    /// assert!(all.is_empty());
    /// ```
    pub fn apply(&mut self, newer: Changes) {
        for (address, value) in newer.entries {
            match value {
                Some(value) => self.entries.insert(address, Some(value)),
                None => self.entries.remove(&address),
            };
        }
    }
}

/// State that can be saved and loaded.
///
/// After `restore` of all entries of a snapshot and `resume` with the watermark of that moment an
/// operator goes on exactly as the one that was saved.
///
/// ```
/// use annals_streams::{Changes, Codec, Count, Sessions, Span, State, StateError, Time};
/// use annals_streams::WindowOptions;
///
/// fn reload<C: Codec, S: State>(from: &S, mut into: S, now: Time) -> Result<S, StateError> {
///     let mut saved = Changes::new();
///     from.snapshot::<C>(&mut saved)?;
///     for (address, value) in saved.iter() {
///         if let Some(value) = value {
///             into.restore::<C>(&address.key, &address.place, value)?;
///         }
///     }
///     into.resume(now);
///     Ok(into)
/// }
/// ```
pub trait State {
    /// Writes all entries.
    ///
    /// # Errors
    ///
    /// When the codec cannot write a key or a value.
    fn snapshot<C: Codec>(&self, to: &mut Changes) -> Result<(), StateError>;

    /// Writes what changed since the last call; the first call writes everything.
    ///
    /// # Errors
    ///
    /// When the codec cannot write a key or a value. What was not written is lost to later
    /// calls: throw the operator away and load it again.
    fn changes<C: Codec>(&mut self, to: &mut Changes) -> Result<(), StateError>;

    /// Takes one entry back.
    ///
    /// # Errors
    ///
    /// When the entry is not one that this operator writes.
    fn restore<C: Codec>(
        &mut self,
        key: &[u8],
        place: &[u8],
        value: &[u8],
    ) -> Result<(), StateError>;

    /// All entries are back: goes on from this watermark. Timers are set again.
    fn resume(&mut self, watermark: Time);
}

/// What an operator remembers of a piece between two commits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    changed: bool,
    saved: bool,
}

impl Mark {
    const SAVED: Mark = Mark {
        changed: false,
        saved: true,
    };
}

/// Which pieces changed. Follows nothing until it is asked for the first time, so that those who
/// never save pay nothing.
#[derive(Debug)]
pub(crate) struct Marks<A> {
    following: bool,
    changed: Vec<A>,
    removed: Vec<A>,
}

impl<A> Default for Marks<A> {
    fn default() -> Self {
        Self {
            following: false,
            changed: Vec::new(),
            removed: Vec::new(),
        }
    }
}

impl<A> Marks<A> {
    pub(crate) fn change(&mut self, mark: &mut Mark, at: impl FnOnce() -> A) {
        if self.following && !mark.changed {
            mark.changed = true;
            self.changed.push(at());
        }
    }

    pub(crate) fn remove(&mut self, mark: Mark, at: impl FnOnce() -> A) {
        if mark.saved {
            self.removed.push(at());
        }
    }
}

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
        to.extend(C::encode(&self.0)?);
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

    pub(crate) fn then<C: Codec, T: Serialize>(mut self, rest: &T) -> Result<Vec<u8>, StateError> {
        self.0.extend(C::encode(rest)?);
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

/// An operator as the pieces that its state is made of; [`State`] follows from it.
pub(crate) trait Pieces {
    type Key: Key;
    type Part: Part;

    fn marks(&mut self) -> &mut Marks<(Self::Key, Self::Part)>;

    /// All pieces that exist, in any order.
    fn pieces(&self) -> Vec<(Self::Key, Self::Part)>;

    fn mark(&mut self, key: &Self::Key, part: &Self::Part) -> Option<&mut Mark>;

    fn value<C: Codec>(
        &self,
        key: &Self::Key,
        part: &Self::Part,
    ) -> Result<Option<Vec<u8>>, StateError>;

    fn put_back<C: Codec>(
        &mut self,
        key: Self::Key,
        part: Self::Part,
        value: Bytes<'_>,
    ) -> Result<(), StateError>;

    /// Everything is back: make timers and what else follows from the pieces.
    fn resumed(&mut self, watermark: Time);
}

fn address<C: Codec, P: Pieces>(
    stage: u16,
    key: &P::Key,
    part: &P::Part,
) -> Result<Address, StateError> {
    let mut place = Vec::new();
    part.write::<C>(&mut place)?;
    Ok(Address {
        stage,
        key: C::encode(key)?,
        place,
    })
}

impl<P: Pieces> State for P {
    fn snapshot<C: Codec>(&self, to: &mut Changes) -> Result<(), StateError> {
        for (key, part) in self.pieces() {
            let value = self.value::<C>(&key, &part)?;
            to.set(address::<C, P>(to.stage, &key, &part)?, value);
        }
        Ok(())
    }

    fn changes<C: Codec>(&mut self, to: &mut Changes) -> Result<(), StateError> {
        let was_following = std::mem::replace(&mut self.marks().following, true);
        let changed = std::mem::take(&mut self.marks().changed);
        let removed = std::mem::take(&mut self.marks().removed);
        let candidates = if was_following {
            changed
        } else {
            self.pieces()
        };
        for (key, part) in removed {
            to.set(address::<C, P>(to.stage, &key, &part)?, None);
        }
        // A piece that was removed and made again is found here, and its value is what counts.
        for (key, part) in candidates {
            let Some(mark) = self.mark(&key, &part) else {
                continue;
            };
            *mark = Mark::SAVED;
            let value = self.value::<C>(&key, &part)?;
            to.set(address::<C, P>(to.stage, &key, &part)?, value);
        }
        Ok(())
    }

    fn restore<C: Codec>(
        &mut self,
        key: &[u8],
        place: &[u8],
        value: &[u8],
    ) -> Result<(), StateError> {
        let key: P::Key = C::decode(key)?;
        let part = P::Part::read::<C>(&mut Bytes(place))?;
        self.put_back::<C>(key.clone(), part.clone(), Bytes(value))?;
        if let Some(mark) = self.mark(&key, &part) {
            *mark = Mark::SAVED;
        }
        Ok(())
    }

    fn resume(&mut self, watermark: Time) {
        // What was loaded is what the store has: from here on changes are followed.
        self.marks().following = true;
        self.resumed(watermark);
    }
}
