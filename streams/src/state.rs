//! What an operator must be able to write and read back, in canonical bytes.
//!
//! State is a set of small entries, each with the key of the user, a place within that key and a
//! value. An operator knows which of them changed since it was last asked, so that a commit
//! writes what changed and nothing else; what came and went in between leaves no trace.

use crate::{StateError, Time};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

mod bytes;
mod pieces;

pub(crate) use bytes::{Bytes, Named, Part, Value};
pub(crate) use pieces::{Mark, Marks, Pieces};

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
