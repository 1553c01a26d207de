//! A shape that has only grown: what was stored reads as it did, and new events hold at least what
//! old ones hold.

use serde_json::Value;

/// Whether `is` has all fields of `was`, and each one more may be absent: it has a default, or is
/// an `Option`.
pub(super) fn has_grown(was: &str, is: &str) -> bool {
    let (Some((was_around, was)), Some((is_around, is))) = (named_fields(was), named_fields(is))
    else {
        return false;
    };
    let mut more = is.iter().filter(|field| !was.contains(field));
    was_around == is_around
        && was.iter().all(|field| is.contains(field))
        && more.all(|field| may_be_absent(field))
}

/// Whether the JSON `is` holds all that the JSON `was` holds, in the same places.
pub(super) fn holds(is: &[u8], was: &[u8]) -> bool {
    fn value_holds(is: &Value, was: &Value) -> bool {
        match (is, was) {
            (Value::Object(is), Value::Object(was)) => was
                .iter()
                .all(|(key, was)| is.get(key).is_some_and(|is| value_holds(is, was))),
            (Value::Array(is), Value::Array(was)) => {
                is.len() == was.len() && is.iter().zip(was).all(|(is, was)| value_holds(is, was))
            }
            _ => is == was,
        }
    }
    let value = |json| serde_json::from_slice::<Value>(json).ok();
    value(is)
        .zip(value(was))
        .is_some_and(|(is, was)| value_holds(&is, &was))
}

/// What stands before the braces, and the fields in them.
fn named_fields(text: &str) -> Option<(&str, Vec<&str>)> {
    let inside = text.strip_suffix('}')?;
    let (around, inside) = match inside.strip_prefix('{') {
        Some(inside) => ("", inside),
        None => inside.split_once("] {")?,
    };
    Some((around, parts(inside)))
}

/// The parts between the commas that stand in no bracket and no text.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let mut in_text = false;
    let mut escaped = false;
    let mut before = ' ';
    let parts = text.split(move |letter| {
        let is_arrow = before == '-' && letter == '>';
        before = letter;
        match letter {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            _ if in_text || is_arrow => {}
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth -= 1,
            ',' => return depth == 0,
            _ => {}
        }
        false
    });
    parts
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

fn may_be_absent(field: &str) -> bool {
    match field
        .strip_prefix("#[serde(")
        .and_then(|rest| rest.split_once(")] "))
    {
        Some((serde, _)) => parts(serde)
            .iter()
            .any(|said| *said == "default" || said.starts_with("default = ")),
        None => field
            .split_once(": ")
            .is_some_and(|(_, ty)| ty.starts_with("Option<")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_grow_by_what_may_be_absent() {
        #[track_caller]
        fn check(was: &str, is: &str, grown: bool) {
            assert_eq!(has_grown(was, is), grown, "{was} -> {is}");
        }
        check("{ a: u8 }", "{ a: u8, b: Option<u8> }", true);
        check(
            "{ a: u8 }",
            "{ #[serde(default)] b: BTreeMap<u8, fn(u8) -> u8>, a: u8 }",
            true,
        );
        check(
            "{}",
            r#"{ #[serde(rename = "x, )] y", default = "z") ] b: u8 }"#,
            false,
        );
        check(
            "{}",
            r#"{ #[serde(rename = "x, y", default = "z")] b: u8 }"#,
            true,
        );
        check(
            "#[serde(deny_unknown_fields)] { a: u8 }",
            "#[serde(deny_unknown_fields)] { a: u8, b: Option<u8> }",
            true,
        );
        check(
            "{ a: u8 }",
            "#[serde(deny_unknown_fields)] { a: u8, b: Option<u8> }",
            false,
        );
        check("{ a: u8 }", "{ a: u8, b: u8 }", false);
        check(
            "{ a: u8 }",
            r#"{ a: u8, #[serde(with = "text")] b: Option<u8> }"#,
            false,
        );
        check("{ a: u8 }", "{ #[serde(default)] b: u8 }", false);
        check("{ a: u8 }", "{ a: Option<u8> }", false);
        check("(u8)", "(u8, Option<u8>)", false);
        check("", "{ b: Option<u8> }", false);
    }

    #[test]
    fn json_holds_what_stands_in_the_same_places() {
        #[track_caller]
        fn check(was: &str, is: &str, held: bool) {
            assert_eq!(holds(is.as_bytes(), was.as_bytes()), held, "{was} -> {is}");
        }
        check(
            r#"{"a":{"b":[1]}}"#,
            r#"{"n":null,"a":{"b":[1],"c":2}}"#,
            true,
        );
        check(r#"{"a":1}"#, r#"{"a":2,"b":1}"#, false);
        check(r#"{"a":1}"#, r#"{"b":1}"#, false);
        check("[1]", "[1,2]", false);
        check("null", "{}", false);
        check("{", "{", false);
    }
}
