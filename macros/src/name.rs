//! Stored names: `category.snake_case(Variant)` of an event and `snake_case(Type)` of a view,
//! unless one is given.

use proc_macro2::Span;
use syn::{Error, Ident, LitStr, Result};

const BYTES_MAX: usize = 255;
/// What leaves room for `-` and an id of one byte in the name of a stream.
const CATEGORY_BYTES_MAX: usize = BYTES_MAX - 2;

/// The category, when it is one that streams can have.
pub(crate) fn category(category: &LitStr) -> Result<String> {
    let text = category.value();
    let wrong = if text.is_empty() {
        "a category is not empty"
    } else if text.len() > CATEGORY_BYTES_MAX {
        "a category has at most 253 bytes, because a stream named `category-id` has 255 at most"
    } else if text.contains('-') {
        "a category holds no `-`, because a stream is named `category-id`"
    } else if text.starts_with('$') {
        "names that start with `$` are reserved"
    } else if text.chars().any(char::is_control) {
        "a category holds no control characters"
    } else {
        return Ok(text);
    };
    Err(Error::new(category.span(), wrong))
}

/// The name that the source gives.
pub(crate) fn given(name: &LitStr) -> Result<String> {
    legal(name.value(), name.span())
}

/// The name of a view that follows from the Rust one.
pub(crate) fn of_view(ident: &Ident) -> Result<String> {
    let rust = ident.to_string();
    legal(snake_case(rust.trim_start_matches("r#")), ident.span())
}

/// The name of an event that follows from the Rust one.
pub(crate) fn derived(category: &str, ident: &Ident) -> Result<String> {
    let rust = ident.to_string();
    legal(
        format!("{category}.{}", snake_case(rust.trim_start_matches("r#"))),
        ident.span(),
    )
}

fn legal(name: String, span: Span) -> Result<String> {
    let wrong = if name.is_empty() {
        "a stored name is not empty"
    } else if name.len() > BYTES_MAX {
        "a stored name has at most 255 bytes"
    } else if name.starts_with('$') {
        "names that start with `$` are reserved"
    } else if name.chars().any(char::is_control) {
        "a stored name holds no control characters"
    } else {
        return Ok(name);
    };
    Err(Error::new(span, wrong))
}

/// Words begin at a capital after a small letter or a digit, and at the last capital of several:
/// `HTTPServerUp` is `http_server_up`.
pub(crate) fn snake_case(rust: &str) -> String {
    let mut snake = String::new();
    let mut letters = rust.chars().peekable();
    let mut before = '_';
    while let Some(letter) = letters.next() {
        let last_of_capitals =
            before.is_uppercase() && letters.peek().is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && before != '_' && (!before.is_uppercase() || last_of_capitals) {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
        before = letter;
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_name_is_the_rust_one_in_snake_case() {
        for (rust, stored) in [
            ("Opened", "opened"),
            ("CouponApplied", "coupon_applied"),
            ("HTTPServerUp", "http_server_up"),
            ("SentSMS", "sent_sms"),
            ("Level2Reached", "level2_reached"),
            ("AB", "ab"),
            ("A", "a"),
            ("Already_Apart", "already_apart"),
            ("ÄrgerNotiert", "ärger_notiert"),
        ] {
            assert_eq!(snake_case(rust), stored);
        }
    }
}
