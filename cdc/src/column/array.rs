//! Arrays, as PostgreSQL writes them: `{1,NULL,"a,b"}`.

use super::{FromColumn, present};

impl<T: FromColumn> FromColumn for Vec<T> {
    fn from_column(text: Option<&str>) -> Result<Vec<T>, String> {
        let whole = present(text)?;
        let malformed = || format!("`{whole}` is no array");
        // Bounds that do not begin at 1: the values are the same.
        let text = match whole.strip_prefix('[') {
            Some(bounded) => bounded.split_once("]=").ok_or_else(malformed)?.1,
            None => whole,
        };
        let elements = elements(text).ok_or_else(malformed)?;
        let read = |element: Option<String>| T::from_column(element.as_deref());
        elements.into_iter().map(read).collect()
    }

    fn to_column(&self) -> Option<String> {
        let elements = self.iter().map(|element| match element.to_column() {
            None => "NULL".to_owned(),
            Some(text) => quoted(&text, T::is_array()),
        });
        Some(format!("{{{}}}", elements.collect::<Vec<_>>().join(",")))
    }

    fn is_array() -> bool {
        true
    }
}

/// An element, in quotes where it needs some.
fn quoted(text: &str, is_array: bool) -> String {
    let needs_quotes = text.is_empty()
        || text.eq_ignore_ascii_case("null")
        || text.contains(|c: char| c.is_ascii_whitespace() || "{},\"\\".contains(c));
    if is_array || !needs_quotes {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The texts of the elements; nothing when it is no array.
fn elements(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    if inner.is_empty() {
        return Some(elements);
    }
    let mut rest = inner.chars().peekable();
    loop {
        let mut element = String::new();
        let mut was_quoted = false;
        match rest.peek()? {
            '"' => {
                was_quoted = true;
                rest.next();
                loop {
                    match rest.next()? {
                        '"' => break,
                        '\\' => element.push(rest.next()?),
                        other => element.push(other),
                    }
                }
            }
            '{' => element = nested(&mut rest)?,
            _ => {
                while let Some(next) = rest.next_if(|next| *next != ',') {
                    match next {
                        '\\' => element.push(rest.next()?),
                        '{' | '}' | '"' => return None,
                        other => element.push(other),
                    }
                }
                if element.is_empty() {
                    return None;
                }
            }
        }
        let is_null = !was_quoted && element.eq_ignore_ascii_case("null");
        elements.push((!is_null).then_some(element));
        match rest.next() {
            None => return Some(elements),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// An array in an array, with its braces.
fn nested(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut text = String::new();
    let mut depth = 0;
    let mut in_quotes = false;
    loop {
        let next = rest.next()?;
        text.push(next);
        match next {
            '\\' => text.push(rest.next()?),
            '"' => in_quotes = !in_quotes,
            '{' if !in_quotes => depth += 1,
            '}' if !in_quotes => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(text);
        }
    }
}
