//! Rows of `copy … to stdout`, in text form: the texts of values are those of the stream.

/// The values of a line, without its end.
pub(super) fn values(line: &[u8]) -> Result<Vec<Option<String>>, String> {
    line.split(|byte| *byte == b'\t').map(value).collect()
}

fn value(field: &[u8]) -> Result<Option<String>, String> {
    if field == b"\\N" {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            Some(other) => *other,
            None => return Err("a row of a copy ends in a backslash".into()),
        });
    }
    let text = String::from_utf8(bytes);
    text.map(Some)
        .map_err(|_| "a row of a copy is not UTF-8".into())
}

/// Takes whole lines out of what arrived.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        mut line: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut bytes = bytes;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            if self.rest.is_empty() {
                line(&bytes[..end])?;
            } else {
                self.rest.extend_from_slice(&bytes[..end]);
                line(&self.rest)?;
                self.rest.clear();
            }
            bytes = &bytes[end + 1..];
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_arrive_in_pieces_are_read_whole() {
        let whole = b"1\t\\N\t\n2\ta\\tb\\\\N\t\\n\n";
        for cut in 0..whole.len() {
            let mut lines = Lines::default();
            let mut rows = Vec::new();
            for part in [&whole[..cut], &whole[cut..]] {
                lines
                    .take(part, |line| {
                        rows.push(values(line)?);
                        Ok(())
                    })
                    .unwrap();
            }
            let text = |text: &str| Some(text.to_owned());
            assert_eq!(rows[0], [text("1"), None, text("")]);
            assert_eq!(rows[1], [text("2"), text("a\tb\\N"), text("\n")]);
        }
    }
}
