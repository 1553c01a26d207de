//! What `#[view(…)]` may say on a type and on a field.

use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Ident, LitInt, LitStr, Path, Result, Token, Type};

use crate::attribute::{key_of, named, once, parentheses, path};

const KNOWN: &str = "`event`, `events`, `name`, `version`, `key`, `history`, `crate`";

/// How much of the past is kept.
#[derive(Clone, Copy)]
pub(super) enum Retained {
    Versions,
    Bitemporal,
}

/// Everything that the `#[view(…)]` attributes of a type say.
#[derive(Default)]
pub(super) struct Attributes {
    pub(super) name: Option<LitStr>,
    pub(super) version: Option<LitInt>,
    pub(super) event: Option<Type>,
    pub(super) events: Vec<Type>,
    pub(super) key: Option<Type>,
    pub(super) history: Option<Retained>,
    pub(super) annals: Option<Path>,
}

impl Attributes {
    pub(super) fn read(attributes: &[Attribute]) -> Result<Attributes> {
        let mut read = Attributes::default();
        for attribute in named(attributes, "view") {
            attribute.parse_nested_meta(|meta| read.take(&meta))?;
        }
        Ok(read)
    }

    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let key = key_of(meta);
        match key.as_str() {
            "name" => once(&mut self.name, meta, |meta| meta.value()?.parse()),
            "version" => once(&mut self.version, meta, |meta| meta.value()?.parse()),
            "key" => once(&mut self.key, meta, |meta| meta.value()?.parse()),
            "crate" => once(&mut self.annals, meta, path),
            "history" => once(&mut self.history, meta, history),
            "event" => once(&mut self.event, meta, |meta| meta.value()?.parse()),
            "events" => {
                self.events.extend(events(meta)?);
                Ok(())
            }
            "index" => Err(meta.error(format!("`index` belongs on a field; a view knows {KNOWN}"))),
            _ => Err(meta.error(format!("unknown attribute `{key}`; a view knows {KNOWN}"))),
        }
    }
}

fn events(meta: &ParseNestedMeta<'_>) -> Result<Vec<Type>> {
    if !meta.input.peek(syn::token::Paren) {
        return Err(meta.error(
            "the types of events are in parentheses: `events(AccountEvent, TransferEvent)`",
        ));
    }
    let content = parentheses(meta.input)?;
    Ok(Punctuated::<Type, Token![,]>::parse_terminated(&content)?
        .into_iter()
        .collect())
}

/// The version of a view.
pub(super) fn counted(literal: &LitInt) -> Result<u32> {
    match literal.base10_parse() {
        Ok(0) => Err(Error::new(
            literal.span(),
            "the versions of a view count from 1",
        )),
        parsed => parsed,
    }
}

/// `history` or `history(bitemporal)`.
fn history(meta: &ParseNestedMeta<'_>) -> Result<Retained> {
    if !meta.input.peek(syn::token::Paren) {
        return Ok(Retained::Versions);
    }
    let content = parentheses(meta.input)?;
    let said: Ident = content.parse()?;
    if said != "bitemporal" || !content.is_empty() {
        return Err(Error::new(
            said.span(),
            "`history` knows `bitemporal`: `history(bitemporal)`",
        ));
    }
    Ok(Retained::Bitemporal)
}

/// Where `#[view(index)]` is among the attributes of a field, if it does.
pub(super) fn is_index(attributes: &[Attribute]) -> Result<Option<Span>> {
    let mut index = None;
    for attribute in named(attributes, "view") {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("index") {
                let key = key_of(&meta);
                return Err(meta.error(format!(
                    "unknown attribute `{key}`; a field of a view knows `index`"
                )));
            }
            once(&mut index, &meta, |meta| Ok(meta.path.span()))
        })?;
    }
    Ok(index)
}
