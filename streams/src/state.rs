//! What an operator must be able to write and read back, in canonical bytes.
//!
//! State is a set of small entries, each with the key of the user, a place within that key and a
//! value. An operator knows which of them changed since it was last asked, so that a commit
//! writes what changed and nothing else; what came and went in between leaves no trace.

use crate::{StateError, Time};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::fmt::Display;

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
    /// When the value cannot be written, or would be read back as another, as NaN is from JSON; the
    /// commit that wanted it must fail.
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StateError>;

    /// The value of such bytes.
    ///
    /// # Errors
    ///
    /// When the bytes are not those of a `T`.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError>;

    /// Whether a value can be written, asked after each item of what is saved later. By default it
    /// is written; a codec that can tell for less does.
    ///
    /// ```
    /// # use annals_streams::{Codec, StateError};
    /// fn can_be_saved<C: Codec>(sums: &[f64]) -> bool {
    ///     C::check(sums).is_ok()
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`encode`](Codec::encode).
    fn check<T: Serialize + ?Sized>(value: &T) -> Result<(), StateError> {
        Self::encode(value).map(drop)
    }

    /// In what the bytes of two values differ; nothing where they mean the same.
    ///
    /// ```
    /// # use annals_streams::{Codec, StateError};
    /// # use serde::{Serialize, de::DeserializeOwned};
    /// # struct Json;
    /// # impl Codec for Json {
    /// #     fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StateError> {
    /// #         serde_json::to_vec(value).map_err(|error| StateError::new(error.to_string()))
    /// #     }
    /// #     fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
    /// #         serde_json::from_slice(bytes).map_err(|error| StateError::new(error.to_string()))
    /// #     }
    /// # }
    /// assert_eq!(Json::difference(b"3", b"3"), None);
    /// assert!(Json::difference(b"3", b"4").is_some());
    /// ```
    fn difference(one: &[u8], other: &[u8]) -> Option<String> {
        (one != other).then(|| "it is written otherwise then".into())
    }
}

/// The bytes of a value, once it is certain that they are read back as what was written.
pub(crate) fn written<C: Codec, T>(value: &T) -> Result<Vec<u8>, StateError>
where
    T: Serialize + DeserializeOwned,
{
    let unlike = |why: &dyn Display| {
        StateError::new(format!(
            "its state is not read back as it was written: {why}"
        ))
    };
    let bytes = C::encode(value).map_err(unwritable)?;
    let again: T = C::decode(&bytes).map_err(|error| unlike(&error))?;
    let again = C::encode(&again).map_err(unwritable)?;
    match C::difference(&bytes, &again) {
        None => Ok(bytes),
        Some(difference) => Err(unlike(&difference)),
    }
}

/// Whether what is about to be held as it is can be saved.
pub(crate) fn holds<C: Codec, T>(value: &T) -> Result<(), StateError>
where
    T: Serialize + DeserializeOwned,
{
    written::<C, T>(value).map(drop)
}

/// Whether state that an item was just taken into can be saved.
pub(crate) fn can_be_saved<C: Codec, T: Serialize + ?Sized>(value: &T) -> Result<(), StateError> {
    C::check(value).map_err(unwritable)
}

fn unwritable(error: StateError) -> StateError {
    StateError::new(format!("its state cannot be written: {error}"))
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

    /// Newer changes come on top of these: an entry that they remove is removed here too.
    ///
    /// ```
    /// # use annals_streams::{Address, Changes};
    /// let address = Address { stage: 0, key: vec![], place: vec![] };
    /// let mut newer = Changes::new();
    /// newer.set(address, None);
    /// let mut all = Changes::new();
    /// all.append(newer);
    /// assert_eq!(all.len(), 1);
    /// ```
    pub fn append(&mut self, mut newer: Changes) {
        self.entries.append(&mut newer.entries);
    }

    /// Applies newer changes on top of these, as a journal is read.
    ///
    /// What was removed is not in it: the result holds values only.
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
    /// When the codec cannot write a key or a value, or would not read back what it wrote. What was
    /// not written is lost to later calls: throw the operator away and load it again.
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
