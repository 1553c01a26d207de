//! The lines of a file that may still be written.

use std::fs::Metadata;
use std::path::Path;

use annals_core::EventId;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use uuid::Uuid;

/// A file from one of its lines on.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<File>,
    /// The lines that were passed over or given.
    number: u64,
    /// The bytes that were read.
    bytes: u64,
    /// A line whose end is not written yet.
    unfinished: Vec<u8>,
    /// The last line was taken without its end.
    is_open: bool,
}

impl Lines {
    /// After so many lines, or as many of them as there are, and the id of the last of them.
    pub(super) async fn open(path: &Path, after: u64) -> std::io::Result<(Lines, Option<EventId>)> {
        let mut lines = Lines {
            reader: BufReader::new(File::open(path).await?),
            number: 0,
            bytes: 0,
            unfinished: Vec::new(),
            is_open: false,
        };
        let mut line = Vec::new();
        while lines.number < after {
            line.clear();
            let count = lines.reader.read_until(b'\n', &mut line).await?;
            if count == 0 {
                break;
            }
            lines.number += 1;
            lines.bytes += count as u64;
            lines.is_open = !line.ends_with(b"\n");
        }
        let last = (lines.number > 0).then(|| id_of(&line));
        Ok((lines, last))
    }

    /// The number of the line that was given last.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether another file is in its place by now, or it is shorter than what was read of it.
    pub(super) async fn is_replaced(&self, path: &Path) -> std::io::Result<bool> {
        let there = tokio::fs::metadata(path).await?;
        let here = self.reader.get_ref().metadata().await?;
        Ok(there.len() < self.bytes || !are_same(&here, &there))
    }

    /// Whether a line has begun, and its end is not written yet.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// The next line; nothing as long as no more is written. One without an end is given when it is
    /// JSON in whole.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            let read = self.reader.read_until(b'\n', &mut self.unfinished);
            self.bytes += read.await? as u64;
            let is_ended = self.unfinished.ends_with(b"\n");
            if self.is_open && is_ended && self.unfinished.trim_ascii().is_empty() {
                // The end of the line that was taken.
                self.is_open = false;
                self.unfinished.clear();
                continue;
            }
            let is_whole = || {
                let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&self.unfinished);
                is_json.is_ok()
            };
            if !is_ended && !is_whole() {
                return Ok(None);
            }
            self.is_open = !is_ended;
            self.number += 1;
            return Ok(Some(std::mem::take(&mut self.unfinished)));
        }
    }
}

/// What tells a line from another one with the same number.
pub(super) fn id_of(line: &[u8]) -> EventId {
    let hash: [u8; 32] = Sha256::digest(line.trim_ascii()).into();
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    EventId::from_uuid(Uuid::new_v8(half))
}

#[cfg(unix)]
fn are_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn are_same(_: &Metadata, _: &Metadata) -> bool {
    true
}
