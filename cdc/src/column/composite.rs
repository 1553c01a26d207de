//! Composite values, as PostgreSQL writes them: `(1,"a, b",)`.

use super::delimited::{text_before, written};
use super::present;

/// The texts of the fields of a composite value, which has so many.
///
/// # Errors
///
/// What is wrong with it.
#[doc(hidden)]
pub fn composite_fields(text: Option<&str>, count: usize) -> Result<Vec<Option<String>>, String> {
    let text = present(text)?;
    let malformed = || format!("`{text}` is no composite value");
    let mut rest = text.chars().peekable();
    if rest.next() != Some('(') {
        return Err(malformed());
    }
    let mut fields = Vec::with_capacity(count);
    loop {
        fields.push(text_before(",)", &mut rest).map_err(|()| malformed())?);
        if rest.next() == Some(')') {
            break;
        }
    }
    if rest.next().is_some() {
        return Err(malformed());
    }
    if fields.len() != count {
        return Err(format!(
            "`{text}` has {} fields, and the struct {count}: name them all, in the order of the \
             type",
            fields.len()
        ));
    }
    Ok(fields)
}

/// The text of a composite value with these fields.
#[doc(hidden)]
pub fn composite_text(fields: &[Option<String>]) -> String {
    let fields = fields.iter().map(|field| match field {
        Some(text) => written(text, "(),"),
        None => String::new(),
    });
    format!("({})", fields.collect::<Vec<_>>().join(","))
}
