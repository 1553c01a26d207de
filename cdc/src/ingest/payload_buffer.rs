//! The payloads of events that are made one after another, in buffers that they share.

use bytes::{Bytes, BytesMut};
use serde::Serialize;

/// Payloads share buffers of this size: large enough to be cheap, small enough that keeping one
/// event keeps little else.
const BUFFER_BYTES: usize = 64 << 10;

/// Longer ones have memory of their own, so that little of a buffer is left over.
const SHARED_BYTES_MAX: usize = BUFFER_BYTES / 8;

/// Where the next payload goes.
#[derive(Default)]
pub(super) struct PayloadBuffer {
    /// The payload while it is written, before its length is known.
    text: Vec<u8>,
    buffer: BytesMut,
}

impl PayloadBuffer {
    /// The value as JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<Bytes, serde_json::Error> {
        self.text.clear();
        serde_json::to_writer(&mut self.text, value)?;
        if self.text.len() > SHARED_BYTES_MAX {
            return Ok(std::mem::take(&mut self.text).into());
        }
        if self.buffer.capacity() < self.text.len() {
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES);
        }
        self.buffer.extend_from_slice(&self.text);
        Ok(self.buffer.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_payloads_follow_each_other_in_a_bounded_buffer() {
        let mut buffer = PayloadBuffer::default();
        let first = buffer.json(&"a").unwrap();
        let second = buffer.json(&["b"]).unwrap();
        assert_eq!((&*first, &*second), (&b"\"a\""[..], &b"[\"b\"]"[..]));
        assert_eq!(first.as_ptr_range().end, second.as_ptr());
        let long = "c".repeat(SHARED_BYTES_MAX);
        assert_eq!(buffer.json(&long).unwrap().len(), SHARED_BYTES_MAX + 2);
        let third = buffer.json(&"d").unwrap();
        assert_eq!(second.as_ptr_range().end, third.as_ptr());
        for _ in 0..BUFFER_BYTES {
            buffer.json(&"e").unwrap();
            assert!(buffer.buffer.capacity() <= BUFFER_BYTES);
        }
    }
}
