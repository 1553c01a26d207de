//! Reading the parts of a message, none of which may go past its end.

/// Bytes that are no message of the protocol.
///
/// ```
/// use annals_cdc::pgoutput::Message;
///
/// let error = Message::parse(b"?").unwrap_err();
/// assert_eq!(error.to_string(), "a message of the unknown kind `?`");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedMessage(pub(crate) String);

/// A message that is read from its beginning to its end.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { bytes, what }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], MalformedMessage> {
        match self.bytes.split_at_checked(count) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => Err(MalformedMessage(format!(
                "a {} message ends {} bytes too early",
                self.what,
                count - self.bytes.len()
            ))),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MalformedMessage> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, MalformedMessage> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, MalformedMessage> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, MalformedMessage> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, MalformedMessage> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, MalformedMessage> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, MalformedMessage> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// Bytes after their length.
    pub(crate) fn counted(&mut self) -> Result<&'a [u8], MalformedMessage> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// A text that ends with a zero byte.
    pub(crate) fn text(&mut self) -> Result<&'a str, MalformedMessage> {
        let Some(length) = self.bytes.iter().position(|byte| *byte == 0) else {
            return Err(MalformedMessage(format!(
                "a {} message has a text without an end",
                self.what
            )));
        };
        let text = self.take(length)?;
        self.take(1)?;
        self.utf8(text)
    }

    pub(crate) fn utf8(&self, text: &'a [u8]) -> Result<&'a str, MalformedMessage> {
        std::str::from_utf8(text).map_err(|error| {
            MalformedMessage(format!(
                "a {} message has a text that is not UTF-8 ({error}): the session must have \
                 `client_encoding` UTF8",
                self.what
            ))
        })
    }

    /// All of it was read.
    pub(crate) fn end(&self) -> Result<(), MalformedMessage> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(MalformedMessage(format!(
            "a {} message has {} bytes too many",
            self.what,
            self.bytes.len()
        )))
    }
}
