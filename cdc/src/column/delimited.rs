//! Texts in ranges and composite values: in quotes where they need some, with `"` and `\` doubled.

use std::iter::Peekable;
use std::str::Chars;

/// Reads the text up to one of these delimiters, which stays unread; nothing when there is none.
///
/// # Errors
///
/// When quotes are not closed, or the text does not end.
pub(super) fn text_before(
    ends: &str,
    rest: &mut Peekable<Chars<'_>>,
) -> Result<Option<String>, ()> {
    let mut text = None::<String>;
    loop {
        let next = *rest.peek().ok_or(())?;
        if ends.contains(next) {
            return Ok(text);
        }
        rest.next();
        let text = text.get_or_insert_default();
        match next {
            '"' => quoted(rest, text)?,
            '\\' => text.push(rest.next().ok_or(())?),
            other => text.push(other),
        }
    }
}

fn quoted(rest: &mut Peekable<Chars<'_>>, text: &mut String) -> Result<(), ()> {
    loop {
        match rest.next().ok_or(())? {
            '"' if rest.next_if_eq(&'"').is_some() => text.push('"'),
            '"' => return Ok(()),
            '\\' => text.push(rest.next().ok_or(())?),
            other => text.push(other),
        }
    }
}

/// What the server takes for white space.
pub(super) fn is_space(character: char) -> bool {
    character.is_ascii_whitespace() || character == '\u{b}'
}

/// The text as it is written between these delimiters.
pub(super) fn written(text: &str, delimiters: &str) -> String {
    let is_special = |c: char| is_space(c) || "\"\\".contains(c) || delimiters.contains(c);
    let needs_quotes = text.is_empty() || text.contains(is_special);
    if !needs_quotes {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""))
}
