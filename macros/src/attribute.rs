//! What `#[event(…)]` may say, and where.

use syn::meta::ParseNestedMeta;
use syn::parse::{Parse, ParseBuffer, ParseStream, Parser};
use syn::{Attribute, Error, ExprPath, Ident, LitInt, LitStr, Path, Result, Token, parenthesized};

use crate::upcast::Upcasters;

/// Where an attribute is, and what it may say there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Enum,
    Struct,
    Variant,
    Field,
}

impl Place {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Place::Enum => &["category", "codec", "crate", "retired"],
            Place::Struct => &[
                "category", "codec", "crate", "retired", "name", "version", "alias", "upcast",
            ],
            Place::Variant => &["name", "version", "alias", "upcast"],
            Place::Field => &["tag"],
        }
    }

    fn called(self) -> &'static str {
        match self {
            Place::Enum => "an enum of events",
            Place::Struct => "a struct that is an event",
            Place::Variant => "a variant",
            Place::Field => "a field",
        }
    }
}

/// Everything that the `#[event(…)]` attributes of one place say.
#[derive(Default)]
pub(crate) struct Attributes {
    pub(crate) category: Option<LitStr>,
    pub(crate) codec: Option<Path>,
    pub(crate) annals: Option<Path>,
    pub(crate) retired: Vec<Retired>,
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<LitInt>,
    pub(crate) aliases: Vec<LitStr>,
    pub(crate) upcasters: Option<Upcasters>,
    pub(crate) tag: Option<Tag>,
}

/// An event type that has no variant any more.
pub(crate) struct Retired {
    pub(crate) name: LitStr,
    pub(crate) version: u32,
    pub(crate) upcaster: ExprPath,
}

/// A field is a tag, under its own name or under another key.
pub(crate) struct Tag {
    pub(crate) span: proc_macro2::Span,
    pub(crate) key: Option<LitStr>,
}

impl Attributes {
    pub(crate) fn read(attributes: &[Attribute], place: Place) -> Result<Attributes> {
        let mut read = Attributes::default();
        for attribute in named(attributes, "event") {
            attribute.parse_nested_meta(|meta| read.take(&meta, place))?;
        }
        Ok(read)
    }

    fn take(&mut self, meta: &ParseNestedMeta<'_>, place: Place) -> Result<()> {
        let key = key_of(meta);
        if !place.keys().contains(&key.as_str()) {
            return Err(meta.error(unknown(&key, place)));
        }
        match key.as_str() {
            "category" => once(&mut self.category, meta, |meta| value(meta, "\"account\"")),
            "codec" => once(&mut self.codec, meta, path),
            "crate" => once(&mut self.annals, meta, path),
            "name" => once(&mut self.name, meta, |meta| {
                value(meta, "\"account.opened\"")
            }),
            "version" => once(&mut self.version, meta, |meta| value(meta, "2")),
            "upcast" => once(&mut self.upcasters, meta, Upcasters::read),
            "tag" => once(&mut self.tag, meta, tag),
            "retired" => {
                self.retired.push(retired(meta)?);
                Ok(())
            }
            _ => {
                self.aliases.push(value(meta, "\"account.created\"")?);
                Ok(())
            }
        }
    }
}

/// Those of the attributes that have this name.
pub(crate) fn named<'a>(
    attributes: &'a [Attribute],
    name: &str,
) -> impl Iterator<Item = &'a Attribute> {
    attributes
        .iter()
        .filter(move |attribute| attribute.path().is_ident(name))
}

/// The word that is said; no word where it is a path.
pub(crate) fn key_of(meta: &ParseNestedMeta<'_>) -> String {
    meta.path
        .get_ident()
        .map(Ident::to_string)
        .unwrap_or_default()
}

pub(crate) fn once<T>(
    slot: &mut Option<T>,
    meta: &ParseNestedMeta<'_>,
    read: impl FnOnce(&ParseNestedMeta<'_>) -> Result<T>,
) -> Result<()> {
    if slot.is_some() {
        let key = key_of(meta);
        return Err(meta.error(format!("`{key}` is said twice")));
    }
    *slot = Some(read(meta)?);
    Ok(())
}

/// The value after `=`; an error says how it is written, with an example.
pub(crate) fn value<T: Parse>(meta: &ParseNestedMeta<'_>, example: &str) -> Result<T> {
    let key = key_of(meta);
    let form = |error: Error| Error::new(error.span(), format!("write `{key} = {example}`"));
    let value = meta.value().map_err(form)?.parse().map_err(form)?;
    // What follows belongs to the value: `2 + 1`, `"a".len()`.
    if !meta.input.is_empty() && !meta.input.peek(Token![,]) {
        return Err(form(meta.input.error("")));
    }
    Ok(value)
}

/// The path of a function: what has no name cannot be called from derived code.
pub(crate) fn function(input: ParseStream<'_>, form: &str) -> Result<ExprPath> {
    let why = |error: Error| {
        let why = format!("an upcaster is the path of a function, not a closure or a call: {form}");
        Error::new(error.span(), why)
    };
    let path = input.parse().map_err(why)?;
    if !input.is_empty() && !input.peek(Token![,]) {
        return Err(why(input.error("")));
    }
    Ok(path)
}

pub(crate) fn path(meta: &ParseNestedMeta<'_>) -> Result<Path> {
    let text: LitStr = value(meta, "\"path::to::it\"")?;
    text.parse_with(Path::parse_mod_style)
        .map_err(|_| Error::new(text.span(), "this is not a path"))
}

fn tag(meta: &ParseNestedMeta<'_>) -> Result<Tag> {
    let span = meta
        .path
        .get_ident()
        .map_or_else(proc_macro2::Span::call_site, Ident::span);
    let key = if meta.input.peek(Token![=]) {
        Some(value(meta, "\"customer\"")?)
    } else if meta.input.is_empty() || meta.input.peek(Token![,]) {
        None
    } else {
        return Err(meta.input.error("write `tag`, or `tag = \"customer\"`"));
    };
    Ok(Tag { span, key })
}

/// How a retired event type is written.
const RETIRED: &str = "retired(\"cart.coupon_clicked\", version = 1, upcast = to_event)";

/// What is in the parentheses that come next.
pub(crate) fn parentheses(input: ParseStream<'_>) -> Result<ParseBuffer<'_>> {
    let content;
    parenthesized!(content in input);
    Ok(content)
}

/// `retired("cart.coupon_clicked", version = 1, upcast = path::to_function)`.
fn retired(meta: &ParseNestedMeta<'_>) -> Result<Retired> {
    let form = |error: Error| Error::new(error.span(), format!("write `{RETIRED}`"));
    let content = parentheses(meta.input).map_err(form)?;
    let name: LitStr = content.parse().map_err(form)?;
    let mut version = None;
    let mut upcaster = None;
    if !content.is_empty() {
        content.parse::<Token![,]>().map_err(form)?;
    }
    let rest =
        syn::meta::parser(
            |meta| match meta.path.get_ident().map(Ident::to_string).as_deref() {
                Some("version") => once(&mut version, &meta, |meta| number(&value(meta, "1")?)),
                Some("upcast") => once(&mut upcaster, &meta, |meta| {
                    function(meta.value()?, "`upcast = to_event`")
                }),
                _ => Err(meta.error(format!("`retired` knows `version` and `upcast`: {RETIRED}"))),
            },
        );
    rest.parse2(content.parse()?)?;
    let upcaster = upcaster.ok_or_else(|| {
        Error::new(
            name.span(),
            "an event type without a variant needs a function that reads it: `upcast = …`",
        )
    })?;
    Ok(Retired {
        name,
        version: version.unwrap_or(1),
        upcaster,
    })
}

/// A schema version.
pub(crate) fn number(literal: &LitInt) -> Result<u32> {
    match literal.base10_parse() {
        Ok(0) => Err(Error::new(literal.span(), "schema versions count from 1")),
        parsed => parsed,
    }
}

fn unknown(key: &str, place: Place) -> String {
    let list = |place: Place| {
        place
            .keys()
            .iter()
            .map(|key| format!("`{key}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let elsewhere = [Place::Variant, Place::Field, Place::Enum]
        .into_iter()
        .find(|place| place.keys().contains(&key));
    let place_called = place.called();
    let known = list(place);
    match elsewhere {
        Some(elsewhere) if place != Place::Field || elsewhere != Place::Field => {
            format!(
                "`{key}` belongs on {}; {place_called} knows {known}",
                elsewhere.called()
            )
        }
        _ => format!("unknown attribute `{key}`; {place_called} knows {known}"),
    }
}
