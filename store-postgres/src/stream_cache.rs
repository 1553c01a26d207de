//! Where streams stand and which keys names have, as the writer knows them.

use std::collections::HashMap;

use annals_core::{Status, StreamId, StreamState, Version};
use hashlink::LruCache;

use crate::request::KindName;

/// Streams whose place is kept at hand: some 10 MB.
const STREAMS: usize = 65_536;
/// Kinds kept at hand.
const KINDS: usize = 16_384;

/// Where a stream stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamPlace {
    pub(crate) version: u64,
    pub(crate) status: Status,
}

impl StreamPlace {
    /// As far as an expectation needs it.
    pub(crate) fn state(&self) -> StreamState {
        let mut state = StreamState::absent();
        state.status = self.status;
        state.version = Version::new(self.version);
        state
    }
}

/// What the writer knows. Keys are for good; where a stream stands is forgotten when others may
/// have moved it.
#[derive(Debug)]
pub(crate) struct Places {
    keys: LruCache<StreamId, i64>,
    standings: LruCache<i64, StreamPlace>,
    kinds: LruCache<KindName, i32>,
}

impl Places {
    pub(crate) fn new() -> Places {
        Places {
            keys: LruCache::new(STREAMS),
            standings: LruCache::new(STREAMS),
            kinds: LruCache::new(KINDS),
        }
    }

    /// The key of a stream, and where it stands; none when that is not known.
    pub(crate) fn stream(&mut self, stream: &StreamId) -> Option<(i64, StreamPlace)> {
        let key = *self.keys.get(stream)?;
        Some((key, *self.standings.get(&key)?))
    }

    pub(crate) fn learn(&mut self, stream: StreamId, key: i64, standing: StreamPlace) {
        self.keys.insert(stream, key);
        self.standings.insert(key, standing);
    }

    /// A stream that is known was written to, and so is active.
    pub(crate) fn written(&mut self, key: i64, version: u64) {
        if let Some(standing) = self.standings.get_mut(&key) {
            *standing = StreamPlace {
                version: version.max(standing.version),
                status: Status::Active,
            };
        }
    }

    /// Where this stream stands is not known any more.
    pub(crate) fn forget(&mut self, stream: &StreamId) {
        if let Some(key) = self.keys.get(stream) {
            self.standings.remove(key);
        }
    }

    /// Where any stream stands is not known any more.
    pub(crate) fn forget_all(&mut self) {
        self.standings.clear();
    }

    pub(crate) fn kind(&mut self, name: &KindName) -> Option<i32> {
        self.kinds.get(name).copied()
    }

    pub(crate) fn learn_kind(&mut self, name: KindName, key: i32) {
        self.kinds.insert(name, key);
    }
}

/// Versions of streams by their keys.
pub(crate) type Versions = HashMap<i64, u64>;
