//! A transaction while it arrives: its messages as bytes, in memory or in a temporary file, until
//! its commit.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::spool::{Spool, SpoolReader};
use crate::ingest::SourceError;
use crate::lsn::Lsn;

/// A transaction that has begun.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) final_lsn: Lsn,
    pub(super) time: DateTime<Utc>,
    pub(super) xid: u32,
    messages: Vec<Bytes>,
    bytes: usize,
    spool: Option<Spool>,
}

/// Its messages, from the first.
#[derive(Debug)]
pub(super) enum Messages {
    InMemory(std::vec::IntoIter<Bytes>),
    InFile(SpoolReader),
}

impl Arriving {
    pub(super) fn new(final_lsn: Lsn, time: DateTime<Utc>, xid: u32) -> Arriving {
        Arriving {
            final_lsn,
            time,
            xid,
            messages: Vec::new(),
            bytes: 0,
            spool: None,
        }
    }

    /// A message more; beyond so many bytes all of them go to a file.
    pub(super) fn push(&mut self, message: Bytes, in_memory_max: usize) -> Result<(), SourceError> {
        self.bytes += message.len();
        if let Some(spool) = &mut self.spool {
            return spool.write(&message);
        }
        self.messages.push(message);
        if self.bytes > in_memory_max {
            let mut spool = Spool::new()?;
            for message in self.messages.drain(..) {
                spool.write(&message)?;
            }
            self.messages.shrink_to_fit();
            self.spool = Some(spool);
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_large(&self) -> bool {
        self.spool.is_some()
    }

    pub(super) fn messages(self) -> Result<Messages, SourceError> {
        match self.spool {
            Some(spool) => Ok(Messages::InFile(spool.read()?)),
            None => Ok(Messages::InMemory(self.messages.into_iter())),
        }
    }
}

impl Messages {
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        match self {
            Messages::InMemory(messages) => Ok(messages.next()),
            Messages::InFile(spool) => spool.next(),
        }
    }
}

/// The bytes of a logical message: the client has read them already, and all messages are kept in
/// one form.
pub(super) fn logical_message(
    transactional: bool,
    lsn: Lsn,
    prefix: &str,
    content: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![b'M', u8::from(transactional)];
    bytes.extend(lsn.get().to_be_bytes());
    bytes.extend(prefix.as_bytes());
    bytes.push(0);
    bytes.extend((content.len() as u32).to_be_bytes());
    bytes.extend(content);
    bytes
}
