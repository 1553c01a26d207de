//! The lines of a file that may still be written.

use std::path::Path;

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// A file from one of its lines on.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<File>,
    /// A line whose end is not written yet.
    unfinished: Vec<u8>,
    /// The last line was taken without its end.
    is_open: bool,
}

impl Lines {
    /// After so many lines, and how many of them there were.
    pub(super) async fn open(path: &Path, after: u64) -> std::io::Result<(Lines, u64)> {
        let mut lines = Lines {
            reader: BufReader::new(File::open(path).await?),
            unfinished: Vec::new(),
            is_open: false,
        };
        let mut line = Vec::new();
        for found in 0..after {
            line.clear();
            if lines.reader.read_until(b'\n', &mut line).await? == 0 {
                return Ok((lines, found));
            }
            lines.is_open = !line.ends_with(b"\n");
        }
        Ok((lines, after))
    }

    /// Whether a line has begun, and its end is not written yet.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// The next line; nothing as long as no more is written. One without an end is given when it is
    /// JSON in whole.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            self.reader.read_until(b'\n', &mut self.unfinished).await?;
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
            return Ok(Some(std::mem::take(&mut self.unfinished)));
        }
    }
}
