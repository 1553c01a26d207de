//! From the source of a type to its `impl View`.

mod attribute;

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Ident, Path, Result, Type, parse_quote};

use crate::attribute::named;
use crate::expand::seen_at;
use crate::fields::inner;
use crate::name;
use attribute::{Attributes, Retained, counted, is_index};

const NEEDS_EVENTS: &str = "a view is folded from events, name their type: \
    `#[view(event = AccountEvent)]`; one that a pipeline writes names its `key`";
const ONE_OR_SEVERAL: &str = "`event` is for a view of one type of events with a function \
    `apply`; name all types in `events(…)`, with an `impl Project<…>` for each";
const NO_ORDER: &str = "its entries have no order, so equal rows would be stored as different \
    bytes: use a `BTreeMap` or a `BTreeSet`";
const NOT_STORED: &str = "a row is read back from what is stored, and what is skipped would be \
    lost then: leave this out";

/// The `impl View` of a type, or what is wrong with it.
pub(crate) fn view(input: &DeriveInput) -> Result<TokenStream> {
    if !input.generics.params.is_empty() {
        let why =
            "a view has no generic parameters: what is stored under its name must be one shape";
        return Err(Error::new_spanned(&input.generics, why));
    }
    let said = Attributes::read(&input.attrs)?;
    let name = match &said.name {
        Some(name) => name::given(name)?,
        None => name::of_view(&input.ident)?,
    };
    let version = said.version.as_ref().map_or(Ok(1), counted)?;
    let events = match (&said.event, said.events.is_empty()) {
        (None, true) if said.key.is_none() => {
            return Err(Error::new_spanned(&input.ident, NEEDS_EVENTS));
        }
        // Only a pipeline writes it.
        (None, true) => &[],
        (Some(event), false) => return Err(Error::new_spanned(event, ONE_OR_SEVERAL)),
        (Some(event), true) => std::slice::from_ref(event),
        (None, false) => &said.events,
    };
    let annals = said
        .annals
        .unwrap_or_else(|| parse_quote!(::annals::projections));
    let indexes = indexes(&input.data)?;
    let ident = &input.ident;
    let project = said
        .event
        .as_ref()
        .map(|event| applied(&annals, ident, event));
    let history = match said.history {
        None => quote!(None),
        Some(Retained::Versions) => quote!(Versions),
        Some(Retained::Bitemporal) => quote!(Bitemporal),
    };
    let key = said
        .key
        .unwrap_or_else(|| parse_quote!(::std::string::String));
    // A type of events that the view does not fold is pointed at where it is named.
    let handlers = events
        .iter()
        .map(|event| quote_spanned!(seen_at(event.span())=> .on::<#event>()));
    let names = indexes.iter().map(|index| &index.name);
    let entries = indexes.iter().map(|index| index.entry(&annals));
    let types = indexes.iter().map(|index| index.index_type(&annals));
    Ok(quote! {
        #[automatically_derived]
        #[allow(unused_qualifications, clippy::all, clippy::absolute_paths, clippy::pedantic)]
        impl #annals::View for #ident {
            const NAME: &'static str = #name;
            const VERSION: u32 = #version;
            const HISTORY: #annals::History = #annals::History::#history;
            const INDEXES: &'static [&'static str] = &[#(#names),*];

            type Key = #key;

            fn handlers() -> #annals::Handlers<Self> {
                #annals::Handlers::new()#(#handlers)*
            }

            fn indexed(&self) -> ::std::vec::Vec<::std::string::String> {
                ::std::vec![#(#entries),*]
            }

            fn index_types() -> ::std::vec::Vec<#annals::IndexType> {
                ::std::vec![#(#types),*]
            }
        }

        #project
    })
}

/// What folds the one type of events: the function `apply` of the row.
fn applied(annals: &Path, ident: &Ident, event: &Type) -> TokenStream {
    // A function that is missing is pointed at where the type of events is named.
    let apply = quote_spanned!(seen_at(event.span())=> #ident::apply);
    quote! {
        #[automatically_derived]
        #[allow(unused_qualifications, clippy::all, clippy::absolute_paths, clippy::pedantic)]
        impl #annals::Project<#event> for #ident {
            fn on(
                row: &mut #annals::Row<'_, Self>,
                event: &#annals::Recorded<#event>,
            ) -> ::core::result::Result<(), #annals::Poison> {
                #apply(&mut **row, &event.event);
                ::core::result::Result::Ok(())
            }
        }
    }
}

/// A field whose value orders an index.
struct IndexField<'a> {
    name: String,
    member: &'a Ident,
    ty: &'a Type,
}

impl IndexField<'_> {
    fn index_type(&self, annals: &Path) -> TokenStream {
        let span = seen_at(self.ty.span());
        match inner(self.ty, "Option") {
            None => {
                let ty = self.ty;
                quote_spanned!(span=> #annals::IndexType::of::<#ty>())
            }
            Some(ty) => quote_spanned!(span=> #annals::IndexType::optional::<#ty>()),
        }
    }

    fn entry(&self, annals: &Path) -> TokenStream {
        let member = self.member;
        // A value that is no key is pointed at by its type.
        let span = seen_at(self.ty.span());
        let to_key = quote_spanned!(span=> #annals::ViewKey::to_key);
        match inner(self.ty, "Option") {
            None => quote_spanned!(span=> #to_key(&self.#member)),
            Some(_) => quote_spanned! {span=>
                #annals::IndexType::entry(::core::option::Option::as_ref(&self.#member))
            },
        }
    }
}

fn indexes(data: &Data) -> Result<Vec<IndexField<'_>>> {
    let fields: Vec<(&Field, bool)> = match data {
        Data::Struct(data) => data.fields.iter().map(|field| (field, true)).collect(),
        Data::Enum(data) => data
            .variants
            .iter()
            .flat_map(|of| of.fields.iter().map(|field| (field, false)))
            .collect(),
        Data::Union(data) => {
            return Err(Error::new_spanned(
                data.union_token,
                "a union cannot be a view",
            ));
        }
    };
    let mut indexes = Vec::new();
    for (field, of_struct) in fields {
        keeps_its_value(field)?;
        let Some(at) = is_index(&field.attrs)? else {
            continue;
        };
        match &field.ident {
            Some(member) if of_struct => {
                let name = member.to_string().trim_start_matches("r#").to_owned();
                indexes.push(IndexField {
                    name,
                    member,
                    ty: &field.ty,
                });
            }
            _ => {
                return Err(Error::new(
                    at,
                    "an index is a field with a name, of a struct: every row has an entry in it",
                ));
            }
        }
    }
    Ok(indexes)
}

/// Refuses fields that do not come back from the store as they went, or not in the same bytes.
fn keeps_its_value(field: &Field) -> Result<()> {
    if let Some(unordered) = unordered(field.ty.to_token_stream()) {
        return Err(Error::new(
            unordered.span(),
            format!("a row cannot hold a `{unordered}`: {NO_ORDER}"),
        ));
    }
    for attribute in named(&field.attrs, "serde") {
        // What does not parse is serde's to complain about.
        let list = syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated;
        let Ok(said) = attribute.parse_args_with(list) else {
            continue;
        };
        for key in ["skip", "skip_serializing", "skip_deserializing"] {
            if let Some(meta) = said.iter().find(|meta| meta.path().is_ident(key)) {
                return Err(Error::new_spanned(
                    meta,
                    format!("`#[serde({key})]` on a field of a view: {NOT_STORED}"),
                ));
            }
        }
    }
    Ok(())
}

/// The type without an order that is named somewhere in these tokens.
fn unordered(tokens: TokenStream) -> Option<Ident> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == "HashMap" || ident == "HashSet" => Some(ident),
        TokenTree::Group(group) => unordered(group.stream()),
        _ => None,
    })
}
