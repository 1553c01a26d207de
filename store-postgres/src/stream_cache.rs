//! What the writer knows of names: streams with their versions, and kinds, each with its key.

use std::collections::HashMap;

use annals_core::{Status, StreamId, StreamState, Version};
use hashlink::{DefaultHashBuilder, LruCache};

use crate::request::KindName;

/// Streams that are cached: some 10 MB.
const STREAMS: usize = 65_536;
/// Streams of one append or batch at most: all of them must be cached at once.
pub(crate) const BATCH_STREAMS_MAX: usize = STREAMS / 2;
/// Kinds that are cached.
const KINDS: usize = 16_384;

/// A stream's version and status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamEntry {
    pub(crate) version: u64,
    pub(crate) status: Status,
}

impl StreamEntry {
    /// As far as an expectation needs it.
    pub(crate) fn state(&self) -> StreamState {
        let mut state = StreamState::absent();
        state.status = self.status;
        state.version = Version::new(self.version);
        state
    }
}

/// What is cached. Keys are for good; versions are forgotten when others may have appended.
#[derive(Debug)]
pub(crate) struct StreamCache {
    keys: LruCache<StreamId, i64>,
    entries: LruCache<i64, StreamEntry>,
    kinds: LruCache<KindName, i32>,
}

impl StreamCache {
    pub(crate) fn new() -> StreamCache {
        StreamCache {
            keys: LruCache::new(STREAMS),
            entries: LruCache::new(STREAMS),
            kinds: LruCache::new(KINDS),
        }
    }

    /// The key of a stream, and its version; none when that is not known.
    pub(crate) fn stream(&mut self, stream: &StreamId) -> Option<(i64, StreamEntry)> {
        let key = *self.keys.get(stream)?;
        Some((key, *self.entries.get(&key)?))
    }

    pub(crate) fn learn(&mut self, stream: StreamId, key: i64, entry: StreamEntry) {
        self.keys.insert(stream, key);
        self.entries.insert(key, entry);
    }

    /// A stream that is known was written to, and so is active.
    pub(crate) fn written(&mut self, key: i64, version: u64) {
        if let Some(entry) = self.entries.get_mut(&key) {
            *entry = StreamEntry {
                version: version.max(entry.version),
                status: Status::Active,
            };
        }
    }

    /// The stream's version is not known any more.
    pub(crate) fn forget(&mut self, stream: &StreamId) {
        if let Some(key) = self.keys.get(stream) {
            self.entries.remove(key);
        }
    }

    /// No stream's version is known any more.
    pub(crate) fn forget_all(&mut self) {
        self.entries.clear();
    }

    pub(crate) fn kind(&mut self, name: &KindName) -> Option<i32> {
        self.kinds.get(name).copied()
    }

    pub(crate) fn learn_kind(&mut self, name: KindName, key: i32) {
        self.kinds.insert(name, key);
    }
}

/// Versions of streams by their keys, which are asked for several times an event.
pub(crate) type Versions = HashMap<i64, u64, DefaultHashBuilder>;
