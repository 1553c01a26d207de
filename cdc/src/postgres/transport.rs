//! What is asked of a client of the replication protocol.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::ingest::SourceError;
use crate::lsn::Lsn;

/// What comes over the session.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    /// A transaction begins.
    Begin {
        final_lsn: Lsn,
        time: DateTime<Utc>,
        xid: u32,
    },
    /// A message of `pgoutput`, as bytes.
    Data(Bytes),
    /// A transaction ends.
    Commit { lsn: Lsn, end: Lsn },
    /// A logical message.
    Logical {
        transactional: bool,
        lsn: Lsn,
        prefix: String,
        content: Bytes,
    },
    /// The server has read its log up to here, and perhaps waits for an answer.
    KeepAlive { at: Lsn, asks: bool },
}

impl Frame {
    /// The bytes of its content.
    pub(super) fn content_bytes(&self) -> usize {
        match self {
            Frame::Data(bytes) => bytes.len(),
            Frame::Logical {
                prefix, content, ..
            } => prefix.len() + content.len(),
            Frame::Begin { .. } | Frame::Commit { .. } | Frame::KeepAlive { .. } => 0,
        }
    }
}

/// How long a slot is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lives {
    /// Until it is dropped.
    ForEver,
    /// As long as its session.
    WithSession,
}

/// Which server it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerIdentity {
    pub(super) system: String,
    pub(super) timeline: u32,
    pub(super) written: Lsn,
}

/// A session of the replication protocol, before and after its start.
#[async_trait]
pub(super) trait Transport: Send + Sync + std::fmt::Debug {
    /// The number of its process of the server, by which another session can end it.
    fn process(&self) -> i32;

    async fn identify(&mut self) -> Result<ServerIdentity, SourceError>;

    /// The value of a setting, as this session has it.
    async fn show(&mut self, setting: &str) -> Result<String, SourceError>;

    /// Makes the slot, and says from where it gives everything and under which name its snapshot
    /// is exported, until the next call.
    async fn create_slot(&mut self, slot: &str, lives: Lives)
    -> Result<(Lsn, String), SourceError>;

    /// Begins to stream.
    async fn start(&mut self) -> Result<(), SourceError>;

    /// Waits for the next frame.
    async fn next(&mut self) -> Result<Frame, SourceError>;

    /// A frame that is there already.
    fn try_next(&mut self) -> Option<Result<Frame, SourceError>>;

    /// Everything up to here is durable.
    fn confirm(&mut self, up_to: Lsn);

    /// Ends the session in order.
    async fn end(&mut self);
}
