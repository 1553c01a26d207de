//! Ranges and sets of ranges, as PostgreSQL writes them: `[1,5)`, `(,7]`, `empty`, `{[1,3),[5,7)}`.

use std::iter::Peekable;
use std::ops::Bound;
use std::str::Chars;

use super::delimited::{text_before, written};
use super::{FromColumn, present};

/// A value of a range type.
///
/// ```
/// use std::ops::Bound::{Excluded, Included, Unbounded};
///
/// use annals_cdc::{FromColumn, Range};
///
/// let nights = Range::<i32>::from_column(Some("[1,5)"))?;
/// assert_eq!(nights, Range::Between(Included(1), Excluded(5)));
/// assert_eq!(nights.to_column().as_deref(), Some("[1,5)"));
/// assert_eq!(Range::<i32>::from_column(Some("empty"))?, Range::Empty);
/// let open = Range::<i32>::from_column(Some("(,7)"))?;
/// assert_eq!(open, Range::Between(Unbounded, Excluded(7)));
/// # Ok::<_, String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum Range<T> {
    /// Nothing is in it.
    Empty,
    /// What lies between a lower and an upper bound.
    Between(Bound<T>, Bound<T>),
}

/// A value of a multirange type: ranges that do not touch, in order.
///
/// ```
/// use annals_cdc::{FromColumn, Multirange, Range};
///
/// let Multirange(open) = Multirange::<i32>::from_column(Some("{[1,3),[5,7)}"))?;
/// assert_eq!(open.len(), 2);
/// assert_eq!(open.first(), Range::from_column(Some("[1,3)")).as_ref().ok());
/// # Ok::<_, String>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs)]
pub struct Multirange<T>(pub Vec<Range<T>>);

impl<T: FromColumn> FromColumn for Range<T> {
    fn from_column(text: Option<&str>) -> Result<Range<T>, String> {
        let text = present(text)?;
        let malformed = || format!("`{text}` is no range");
        if text == "empty" {
            return Ok(Range::Empty);
        }
        let mut rest = text.chars().peekable();
        let (lower, upper) = bounds(&mut rest).map_err(|()| malformed())?;
        if rest.next().is_some() {
            return Err(malformed());
        }
        Range::of(lower, upper)
    }

    fn to_column(&self) -> Option<String> {
        let Range::Between(lower, upper) = self else {
            return Some("empty".to_owned());
        };
        let text = |bound: &T| written(&bound.to_column().unwrap_or_default(), "()[],");
        let lower = match lower {
            Bound::Included(bound) => format!("[{}", text(bound)),
            Bound::Excluded(bound) => format!("({}", text(bound)),
            Bound::Unbounded => "(".to_owned(),
        };
        let upper = match upper {
            Bound::Included(bound) => format!("{}]", text(bound)),
            Bound::Excluded(bound) => format!("{})", text(bound)),
            Bound::Unbounded => ")".to_owned(),
        };
        Some(format!("{lower},{upper}"))
    }
}

impl<T: FromColumn> Range<T> {
    fn of(lower: Bound<String>, upper: Bound<String>) -> Result<Range<T>, String> {
        let bound = |bound: Bound<String>| {
            Ok::<_, String>(match bound {
                Bound::Included(text) => Bound::Included(T::from_column(Some(&text))?),
                Bound::Excluded(text) => Bound::Excluded(T::from_column(Some(&text))?),
                Bound::Unbounded => Bound::Unbounded,
            })
        };
        Ok(Range::Between(bound(lower)?, bound(upper)?))
    }
}

impl<T: FromColumn> FromColumn for Multirange<T> {
    fn from_column(text: Option<&str>) -> Result<Multirange<T>, String> {
        let text = present(text)?;
        let malformed = || format!("`{text}` is no multirange");
        let inner = text.strip_prefix('{').and_then(|of| of.strip_suffix('}'));
        let mut rest = inner.ok_or_else(malformed)?.chars().peekable();
        let mut ranges = Vec::new();
        while rest.peek().is_some() {
            if !ranges.is_empty() && rest.next() != Some(',') {
                return Err(malformed());
            }
            let (lower, upper) = bounds(&mut rest).map_err(|()| malformed())?;
            ranges.push(Range::of(lower, upper)?);
        }
        Ok(Multirange(ranges))
    }

    fn to_column(&self) -> Option<String> {
        let ranges: Vec<_> = self.0.iter().filter_map(Range::to_column).collect();
        Some(format!("{{{}}}", ranges.join(",")))
    }
}

/// The texts of the bounds, up to the bracket that closes them.
fn bounds(rest: &mut Peekable<Chars<'_>>) -> Result<(Bound<String>, Bound<String>), ()> {
    let bound = |text: Option<String>, includes: bool| match text {
        None => Bound::Unbounded,
        Some(text) if includes => Bound::Included(text),
        Some(text) => Bound::Excluded(text),
    };
    let opening = rest
        .next()
        .filter(|opening| "[(".contains(*opening))
        .ok_or(())?;
    let lower = text_before(",", rest)?;
    rest.next();
    let upper = text_before("])", rest)?;
    let closing = rest.next().ok_or(())?;
    Ok((bound(lower, opening == '['), bound(upper, closing == ']')))
}
