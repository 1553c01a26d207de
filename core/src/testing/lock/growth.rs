//! A shape that has only grown: what was stored reads as it did, and new events hold at least what
//! old ones hold.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Whether both are one shape: the order of named fields, the path to a type of the standard
/// library and raw identifiers change nothing that is stored.
pub(super) fn is_same(was: &str, is: &str) -> bool {
    match (Fields::parse(was), Fields::parse(is)) {
        (Some(was), Some(is)) => was == is,
        (None, None) => plain(was) == plain(is),
        _ => false,
    }
}

/// Whether `is` has all fields of `was`, and each one more may be absent: it has a default, or is
/// an `Option`. A field may also get a default, or one more alias.
pub(super) fn has_grown(was: &str, is: &str) -> bool {
    let (Some(was), Some(is)) = (Fields::parse(was), Fields::parse(is)) else {
        return is_same(was, is);
    };
    let has_field = |(name, was): (&String, &Field)| {
        is.fields.get(name).is_some_and(|is| is.reads_what_was(was))
    };
    let mut more = is
        .fields
        .iter()
        .filter(|(name, _)| !was.fields.contains_key(*name));
    was.around == is.around
        && was.fields.iter().all(has_field)
        && more.all(|(_, field)| field.may_be_absent())
}

/// Named fields, in any order.
#[derive(Debug, PartialEq)]
struct Fields {
    /// What serde is said about all of them.
    around: BTreeSet<String>,
    fields: BTreeMap<String, Field>,
}

/// One field, and what serde and the derive are said about it.
#[derive(Debug, PartialEq)]
struct Field {
    serde: BTreeSet<String>,
    event: BTreeSet<String>,
    ty: String,
}

impl Fields {
    fn parse(text: &str) -> Option<Fields> {
        let (around, inside) = named_fields(text)?;
        let mut fields = BTreeMap::new();
        for part in inside {
            let mut rest = part;
            let serde = attribute(&mut rest, "#[serde(");
            let event = attribute(&mut rest, "#[event(");
            let (name, ty) = rest.split_once(": ")?;
            let field = Field {
                serde,
                event,
                ty: plain(ty),
            };
            fields.insert(name.trim_start_matches("r#").to_owned(), field);
        }
        let mut around_rest = around;
        let mut said = attribute(&mut around_rest, "#[serde(");
        if !around_rest.is_empty() {
            said.insert(around_rest.to_owned());
        }
        Some(Fields {
            around: said,
            fields,
        })
    }
}

impl Field {
    fn may_be_absent(&self) -> bool {
        let has_default = self.serde.iter().any(|said| is_default(said));
        has_default || (self.serde.is_empty() && self.ty.starts_with("Option<"))
    }

    fn reads_what_was(&self, was: &Field) -> bool {
        let mut more = self.serde.difference(&was.serde);
        self.ty == was.ty
            && self.event == was.event
            && was.serde.is_subset(&self.serde)
            && more.all(|said| is_default(said) || said.starts_with("alias = "))
    }
}

fn is_default(said: &str) -> bool {
    said == "default" || said.starts_with("default = ")
}

/// Takes an attribute from the beginning of the text: what is said in it.
fn attribute(text: &mut &str, begins: &str) -> BTreeSet<String> {
    let Some((said, rest)) = text
        .strip_prefix(begins)
        .and_then(|rest| rest.split_once(")]"))
    else {
        return BTreeSet::new();
    };
    *text = rest.trim_start();
    parts(said).into_iter().map(str::to_owned).collect()
}

/// A type without the path to the standard library and without marks of raw identifiers.
fn plain(ty: &str) -> String {
    let mut plain = String::new();
    let mut rest = ty;
    while let Some(next) = rest.chars().next() {
        let begins_word = !plain.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':'));
        if begins_word && let Some(after) = without_library(rest) {
            rest = after;
        } else if begins_word && let Some(after) = rest.strip_prefix("r#") {
            rest = after;
        } else {
            plain.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    plain
}

/// What follows `std::collections::` and its like: the name of the type.
fn without_library(text: &str) -> Option<&str> {
    let text = text.strip_prefix("::").unwrap_or(text);
    let mut rest = ["std::", "core::", "alloc::"]
        .iter()
        .find_map(|library| text.strip_prefix(library))?;
    loop {
        let word = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        match rest[word..].strip_prefix("::") {
            Some(after) if after.starts_with(char::is_alphabetic) => rest = after,
            _ => return Some(rest),
        }
    }
}

/// Whether both payloads are the same value; in JSON fields have no order.
pub(super) fn is_same_value(one: &[u8], other: &[u8], is_json: bool) -> bool {
    one == other || (is_json && holds(one, other) && holds(other, one))
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

/// What comes before the braces, and the fields in them.
fn named_fields(text: &str) -> Option<(&str, Vec<&str>)> {
    let inside = text.strip_suffix('}')?;
    let (around, inside) = match inside.strip_prefix('{') {
        Some(inside) => ("", inside),
        None => {
            let end = inside.find(")] {")?;
            (&inside[..end + 2], &inside[end + 4..])
        }
    };
    Some((around, parts(inside)))
}

/// The parts between the commas that are in no bracket and no text.
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
        check("{ a: u8 }", "{ #[serde(default)] a: u8 }", true);
        check("{ a: u8 }", r#"{ #[serde(alias = "b")] a: u8 }"#, true);
        check(r#"{ #[serde(alias = "b")] a: u8 }"#, "{ a: u8 }", false);
        check("{ a: u8 }", "{ #[event(tag = \"a\")] a: u8 }", false);
        check(
            "{ a: u8 }",
            "{ a: u8, #[event(tag = \"b\")] b: Option<u8> }",
            true,
        );
        check("(u8)", "(u8, Option<u8>)", false);
        check("", "{ b: Option<u8> }", false);
    }

    #[test]
    fn order_paths_and_raw_names_are_no_change() {
        for (was, is, same) in [
            (
                "{ a: u8, b: String }",
                "{ b: std::string::String, a: u8 }",
                true,
            ),
            ("{ r#type: u8 }", "{ type: u8 }", true),
            (
                "{ a: ::std::collections::BTreeMap<String, Vec<u8>> }",
                "{ a: BTreeMap<alloc::string::String, Vec<u8>> }",
                true,
            ),
            ("(String)", "(std::string::String)", true),
            ("{ a: u8 }", "{ a: u16 }", false),
            ("{ a: mystd::String }", "{ a: String }", false),
            ("(u8, u16)", "(u16, u8)", false),
        ] {
            assert_eq!(is_same(was, is), same, "{was} -> {is}");
        }
    }

    #[test]
    fn json_holds_what_is_in_the_same_places() {
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
