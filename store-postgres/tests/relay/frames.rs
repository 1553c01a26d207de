//! Where the messages of the protocol end, however their bytes are cut into packets.

/// The numbers in place of a protocol version when a client asks for encryption: TLS,
/// and GSSAPI.
const ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];

/// A message, whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its kind. What a client says first has none.
    pub(crate) tag: Option<u8>,
    /// All of it, as it came.
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    /// The two texts that end with a zero at the start of `Parse` (name, statement), `Bind`
    /// (portal, name) and `Query` (statement).
    pub(crate) fn two_texts(&self) -> (&[u8], &[u8]) {
        let mut texts = self
            .bytes
            .get(5..)
            .unwrap_or_default()
            .splitn(3, |&byte| byte == 0);
        (
            texts.next().unwrap_or_default(),
            texts.next().unwrap_or_default(),
        )
    }

    /// A client's question that is answered by one byte.
    pub(crate) fn asks_for_encryption(&self) -> bool {
        self.tag.is_none()
            && ENCRYPTION
                .iter()
                .any(|number| self.bytes[4..] == number.to_be_bytes())
    }

    /// The server's word that a request is done.
    pub(crate) fn is_ready_for_query(&self) -> bool {
        self.tag == Some(b'Z')
    }
}

/// Collects bytes until they are messages.
#[derive(Debug)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    has_tags: bool,
    is_one_byte: bool,
}

impl Frames {
    pub(crate) fn of_a_client() -> Frames {
        Frames {
            bytes: Vec::new(),
            has_tags: false,
            is_one_byte: false,
        }
    }

    pub(crate) fn of_a_server() -> Frames {
        Frames {
            bytes: Vec::new(),
            has_tags: true,
            is_one_byte: false,
        }
    }

    /// The next thing said is a single byte.
    pub(crate) fn expect_one_byte(&mut self) {
        self.is_one_byte = true;
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, when all of it is there.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let at = usize::from(self.has_tags);
        let length = match self.is_one_byte {
            true => 1,
            false => at + u32::from_be_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?) as usize,
        };
        if self.bytes.len() < length {
            return None;
        }
        self.is_one_byte = false;
        let rest = self.bytes.split_off(length);
        let bytes = std::mem::replace(&mut self.bytes, rest);
        let frame = Frame {
            tag: self.has_tags.then(|| bytes[0]),
            bytes,
        };
        // A client begins with what has no tag: questions about encryption, and then its version
        // and name.
        self.has_tags |= !frame.asks_for_encryption();
        Some(frame)
    }
}

#[test]
fn messages_are_found_however_they_come() {
    let encryption = [&[0, 0, 0, 8][..], &80_877_103_u32.to_be_bytes()].concat();
    let start = [&[0, 0, 0, 9][..], &[0, 3, 0, 0], b"x"].concat();
    let parse = [b"P", &[0, 0, 0, 16][..], b"s1\0select\0", &[0, 0]].concat();
    let all = [encryption, start, parse].concat();
    for size in [1, 3, 100] {
        let mut frames = Frames::of_a_client();
        let mut found = Vec::new();
        for piece in all.chunks(size) {
            frames.push(piece);
            found.extend(std::iter::from_fn(|| frames.next()));
        }
        assert_eq!(
            found.iter().map(|frame| frame.tag).collect::<Vec<_>>(),
            [None, None, Some(b'P')]
        );
        assert!(found[0].asks_for_encryption() && !found[1].asks_for_encryption());
        assert_eq!(found[2].two_texts(), (&b"s1"[..], &b"select"[..]));
    }
}
