//! The name of a table as sources are given it: `orders`, `public.orders`, `"a.b"."c"`.

use syn::{Error, LitStr, Result};

const NO_NAME: &str = "a table is named `orders`, `public.orders` or, as in SQL, \
    `\"a.b\".\"c-d\"`";

/// As `annals_cdc::TableName::parse`: the schema and the name. Quotes that SQL would not take are
/// refused.
pub(crate) fn table_name(text: &LitStr) -> Result<(String, String)> {
    parse(&text.value()).ok_or_else(|| Error::new_spanned(text, NO_NAME))
}

fn parse(text: &str) -> Option<(String, String)> {
    let (first, rest) = match text.strip_prefix('"') {
        Some(quoted) => match unquoted(quoted)? {
            (first, "") => (first, None),
            (first, rest) => (first, Some(rest.strip_prefix('.')?)),
        },
        None => match text.split_once('.') {
            Some((first, rest)) => (first.to_owned(), Some(rest)),
            None => (text.to_owned(), None),
        },
    };
    let (schema, name) = match rest {
        None => ("public".to_owned(), first),
        Some(rest) => match rest.strip_prefix('"') {
            Some(quoted) => match unquoted(quoted)? {
                (name, "") => (first, name),
                _ => return None,
            },
            None => (first, rest.to_owned()),
        },
    };
    (!schema.is_empty() && !name.is_empty()).then_some((schema, name))
}

/// A name after its first quote, and what comes after its last one.
fn unquoted(mut rest: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(again) => {
                name.push('"');
                rest = again;
            }
            None => return Some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_as_sources_are_given_it() {
        for (text, schema, name) in [
            ("orders", "public", "orders"),
            ("shop.orders", "shop", "orders"),
            ("shop.orders.old", "shop", "orders.old"),
            (r#""Orders""#, "public", "Orders"),
            (r#""a.b"."c""d""#, "a.b", "c\"d"),
            (r#"shop."c-d""#, "shop", "c-d"),
            (r#""Ward".admissions"#, "Ward", "admissions"),
        ] {
            let wanted = (schema.to_owned(), name.to_owned());
            assert_eq!(parse(text), Some(wanted), "{text}");
        }
    }

    #[test]
    fn quotes_that_sql_would_not_take_are_refused() {
        for text in [
            "",
            "a.",
            ".b",
            r#""a"#,
            r#""a"b"#,
            r#""a"."b"#,
            r#"a."b"c"#,
            r#""""#,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
