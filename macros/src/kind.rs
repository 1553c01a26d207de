//! One event type: a variant of an enum, or a struct.

use proc_macro2::Span;
use syn::{ExprPath, Fields, Ident, LitInt, LitStr, Result};

use crate::attribute::{Attributes, number};
use crate::fields::{self, TagField};
use crate::name;
use crate::upcast::Upcasters;

/// What is written and read under one name.
pub(crate) struct Kind {
    pub(crate) ident: Ident,
    pub(crate) name: Named,
    pub(crate) aliases: Vec<Named>,
    pub(crate) version: u32,
    /// From version 1 on, one for each below the current.
    pub(crate) upcasters: Vec<ExprPath>,
    pub(crate) fields: String,
    pub(crate) tags: Vec<TagField>,
}

/// A stored name and where it is said.
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) span: Span,
}

impl Named {
    pub(crate) fn given(literal: &LitStr) -> Result<Named> {
        Ok(Named {
            name: name::given(literal)?,
            span: literal.span(),
        })
    }
}

impl Kind {
    pub(crate) fn new(
        category: &str,
        ident: &Ident,
        said: Attributes,
        fields: &Fields,
        around: &[String],
    ) -> Result<Kind> {
        let name = match &said.name {
            Some(name) => Named::given(name)?,
            None => Named {
                name: name::derived(category, ident)?,
                span: ident.span(),
            },
        };
        let version = said.version.as_ref().map_or(Ok(1), number)?;
        let at = said.version.as_ref().map_or(ident.span(), LitInt::span);
        Ok(Kind {
            ident: ident.clone(),
            name,
            aliases: said
                .aliases
                .iter()
                .map(Named::given)
                .collect::<Result<_>>()?,
            version,
            upcasters: said
                .upcasters
                .unwrap_or_else(Upcasters::none)
                .below(version, at)?,
            fields: fields::as_text(fields, around)?,
            tags: TagField::of(fields)?,
        })
    }

    /// Its name and the older ones.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Named> {
        std::iter::once(&self.name).chain(&self.aliases)
    }
}
