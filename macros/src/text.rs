//! Tokens as text that is the same for every compiler: it is kept in files and compared.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// The tokens as a source file has them: `Option<(u64, String)>`, `rename = "x"`.
pub(crate) fn of(tokens: TokenStream) -> String {
    let mut text = Text::default();
    text.write(tokens);
    text.written
}

#[derive(Default)]
struct Text {
    written: String,
    /// What the last token asks for before the next one.
    then: Then,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Then {
    #[default]
    Nothing,
    Space,
    /// A space if a word follows.
    SpaceBeforeWord,
}

impl Text {
    fn write(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => self.group(group.delimiter(), group.stream()),
                TokenTree::Ident(ident) => self.word(&ident.to_string()),
                TokenTree::Literal(literal) => self.word(&literal.to_string()),
                TokenTree::Punct(punct) => {
                    let mut symbol = punct.as_char().to_string();
                    // `'a` is a mark and a word, `::` and `->` are one symbol.
                    if punct.spacing() == Spacing::Joint
                        && matches!(punct.as_char(), ':' | '-' | '=' | '.')
                        && let Some(TokenTree::Punct(next)) = tokens.peek()
                    {
                        symbol.push(next.as_char());
                        tokens.next();
                    }
                    self.symbol(&symbol);
                }
            }
        }
    }

    fn group(&mut self, delimiter: Delimiter, inside: TokenStream) {
        let (open, close) = match delimiter {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::Brace => ("{ ", " }"),
            Delimiter::None => ("", ""),
        };
        self.push(open, self.then == Then::Space);
        self.then = Then::Nothing;
        self.write(inside);
        if delimiter != Delimiter::None {
            self.push(close, false);
            self.then = Then::SpaceBeforeWord;
        }
    }

    fn word(&mut self, word: &str) {
        self.push(word, self.then != Then::Nothing);
        self.then = Then::SpaceBeforeWord;
    }

    fn symbol(&mut self, symbol: &str) {
        match symbol {
            "," | ";" | ":" => {
                self.push(symbol, false);
                self.then = Then::Space;
            }
            "=" | "+" | "->" | "=>" | "|" => {
                self.push(symbol, true);
                self.then = Then::Space;
            }
            _ => {
                self.push(
                    symbol,
                    self.then == Then::Space
                        || (symbol == "'" && self.then == Then::SpaceBeforeWord),
                );
                self.then = if symbol == ">" {
                    Then::SpaceBeforeWord
                } else {
                    Then::Nothing
                };
            }
        }
    }

    fn push(&mut self, text: &str, after_space: bool) {
        if after_space && !self.written.is_empty() && !self.written.ends_with(' ') {
            self.written.push(' ');
        }
        self.written.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_as_in_source_files() {
        for source in [
            "Option<(u64, String)>",
            "::std::collections::BTreeMap<String, Vec<[u8; 4]>>",
            "&'static str",
            "Box<dyn Fn(&'static str, u8) -> Vec<u8> + Send>",
            "rename = \"x\", default, with = \"a::b\"",
            "rename(serialize = \"x\", deserialize = \"y\")",
            "<Self as Trait>::Out",
            "Cow<'static, str>",
            "[u8; { 1 }]",
        ] {
            assert_eq!(of(source.parse().unwrap()), source);
            let spread = source
                .replace('<', " < ")
                .replace('(', " ( ")
                .replace(',', " , ");
            assert_eq!(of(spread.parse().unwrap()), source);
        }
    }
}
