//! What a topic may be called.

use annals_core::Invalid;

/// Bytes of a name at most, as brokers have it.
pub(crate) const NAME_BYTES_MAX: usize = 249;

/// Refuses a name that no broker takes, with the rule.
pub(crate) fn check_name(name: &str, bytes_max: usize) -> Result<(), Invalid> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_path = [".", ".."].contains(&name);
    if (1..=bytes_max).contains(&name.len()) && name.bytes().all(is_legal) && !is_path {
        return Ok(());
    }
    Err(Invalid::new(format!(
        "`{}` is no name of a topic: up to {bytes_max} letters of ASCII, digits, dots, dashes and \
         underscores are, but not a dot or two alone",
        name.escape_debug()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_refused_comes_with_the_rule() {
        for name in ["a", "orders.v1_x-2", "...", &"x".repeat(9)] {
            assert_eq!(check_name(name, 9 + 4), Ok(()), "{name}");
        }
        for name in ["", ".", "..", "b k", "ä", "a/b", &"x".repeat(14)] {
            let said = check_name(name, 13).unwrap_err().to_string();
            assert!(said.contains("up to 13 letters of ASCII"), "{said}");
        }
    }
}
