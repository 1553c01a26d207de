//! Arrays, as PostgreSQL writes them: `{1,NULL,"a,b"}`, `[0:1]={5,6}`, `{{1,2},{3,4}}`.

use super::delimited::is_space;
use super::{FromColumn, present};

/// An array with everything that PostgreSQL knows of it: several dimensions, and bounds that need
/// not begin at 1. A `Vec` forgets the bounds.
///
/// ```
/// use annals_cdc::{Array, FromColumn};
///
/// let grid = Array::<i32>::from_column(Some("[0:1][1:2]={{1,2},{3,4}}"))?;
/// assert_eq!(grid.dimensions(), [(0, 2), (1, 2)]);
/// assert_eq!(grid.values(), [1, 2, 3, 4]);
/// assert_eq!(grid.to_column().as_deref(), Some("[0:1][1:2]={{1,2},{3,4}}"));
/// # Ok::<_, String>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Array<T> {
    dimensions: Vec<(i32, usize)>,
    values: Vec<T>,
}

impl<T> Array<T> {
    /// Of each dimension its lower bound and its length; none of an array without elements.
    pub fn dimensions(&self) -> &[(i32, usize)] {
        &self.dimensions
    }

    /// All elements, those of the last dimension side by side.
    pub fn values(&self) -> &[T] {
        &self.values
    }
}

impl<T: FromColumn> FromColumn for Array<T> {
    fn from_column(text: Option<&str>) -> Result<Array<T>, String> {
        let text = present(text)?;
        let malformed = || format!("`{text}` is no array");
        let (bounds, body) = match text.strip_prefix('[') {
            Some(_) => text.split_once('=').ok_or_else(malformed)?,
            None => ("", text),
        };
        let depth = body.bytes().take_while(|byte| *byte == b'{').count();
        let mut lengths = vec![None; depth];
        let mut texts = Vec::new();
        flatten(body, &mut lengths, &mut texts).ok_or_else(malformed)?;
        let mut dimensions: Vec<_> = lengths.into_iter().flatten().map(|of| (1, of)).collect();
        if !bounds.is_empty() {
            let lower = lower_bounds(bounds, &dimensions).ok_or_else(malformed)?;
            for (dimension, lower) in dimensions.iter_mut().zip(lower) {
                dimension.0 = lower;
            }
        }
        if texts.is_empty() {
            dimensions.clear();
        }
        let read = |element: Option<String>| T::from_column(element.as_deref());
        let values = texts.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Array { dimensions, values })
    }

    fn to_column(&self) -> Option<String> {
        let mut texts: Vec<String> = self
            .values
            .iter()
            .map(|value| match value.to_column() {
                None => "NULL".to_owned(),
                Some(text) => quoted(&text, false),
            })
            .collect();
        for (_, length) in self.dimensions.iter().skip(1).rev() {
            let inner = texts.chunks(*length);
            texts = inner.map(|of| format!("{{{}}}", of.join(","))).collect();
        }
        let body = format!("{{{}}}", texts.join(","));
        if self.dimensions.iter().all(|(lower, _)| *lower == 1) {
            return Some(body);
        }
        let bounds = self.dimensions.iter().map(|(lower, length)| {
            let upper = i64::from(*lower) + *length as i64 - 1;
            format!("[{lower}:{upper}]")
        });
        Some(format!("{}={body}", bounds.collect::<String>()))
    }
}

/// The elements of all dimensions, whose lengths must be the same wherever they are.
fn flatten(
    text: &str,
    lengths: &mut [Option<usize>],
    values: &mut Vec<Option<String>>,
) -> Option<()> {
    let (own, inner) = lengths.split_first_mut()?;
    let found = elements(text)?;
    if own.is_some_and(|length| length != found.len()) {
        return None;
    }
    *own = Some(found.len());
    if inner.is_empty() {
        values.extend(found);
        return Some(());
    }
    for element in found {
        flatten(&element?, inner, values)?;
    }
    Some(())
}

/// `[0:1][1:2]`, which must agree with the lengths.
fn lower_bounds(text: &str, dimensions: &[(i32, usize)]) -> Option<Vec<i32>> {
    let parts = text.strip_prefix('[')?.strip_suffix(']')?.split("][");
    let bounds = parts.map(|part| {
        let (lower, upper) = part.split_once(':')?;
        let (lower, upper): (i32, i64) = (lower.parse().ok()?, upper.parse().ok()?);
        Some((lower, usize::try_from(upper - i64::from(lower) + 1).ok()?))
    });
    let bounds: Vec<_> = bounds.collect::<Option<_>>()?;
    let agree = bounds.len() == dimensions.len()
        && bounds
            .iter()
            .zip(dimensions)
            .all(|(bound, of)| bound.1 == of.1);
    agree.then(|| bounds.into_iter().map(|(lower, _)| lower).collect())
}

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
        || text.contains(|c: char| is_space(c) || "{},\"\\".contains(c));
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
