//! Messages of a large transaction in a temporary file, which has no name and is gone with the
//! process: nothing is ever read from it after a crash.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};

use bytes::Bytes;

use crate::ingest::{SourceError, SourceFailure};

#[derive(Debug)]
pub(super) struct Spool(BufWriter<File>);

#[derive(Debug)]
pub(super) struct SpoolReader(BufReader<File>);

fn failed(error: std::io::Error) -> SourceError {
    let folder = std::env::temp_dir();
    let what = format!(
        "a large transaction cannot be kept in {} until it is complete: make room there, or name \
         another folder in TMPDIR",
        folder.display()
    );
    SourceError::new(SourceFailure::Retry, what).because(error)
}

impl Spool {
    pub(super) fn new() -> Result<Spool, SourceError> {
        let file = tempfile::tempfile().map_err(failed)?;
        Ok(Spool(BufWriter::with_capacity(1 << 16, file)))
    }

    pub(super) fn write(&mut self, message: &[u8]) -> Result<(), SourceError> {
        let length = message.len() as u64;
        self.0.write_all(&length.to_be_bytes()).map_err(failed)?;
        self.0.write_all(message).map_err(failed)
    }

    pub(super) fn read(self) -> Result<SpoolReader, SourceError> {
        let mut file = self
            .0
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok(SpoolReader(BufReader::with_capacity(1 << 16, file)))
    }
}

impl SpoolReader {
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let mut length = [0; 8];
        match self.0.read_exact(&mut length) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read.map_err(failed)?,
        }
        let mut message = vec![0; u64::from_be_bytes(length) as usize];
        self.0.read_exact(&mut message).map_err(failed)?;
        Ok(Some(message.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_in_their_order() {
        let mut spool = Spool::new().unwrap();
        let messages = [&b""[..], b"one", &[0; 100_000]];
        for message in messages {
            spool.write(message).unwrap();
        }
        let mut reader = spool.read().unwrap();
        for message in messages {
            assert_eq!(reader.next().unwrap().unwrap(), message);
        }
        assert_eq!(reader.next().unwrap(), None);
    }
}
