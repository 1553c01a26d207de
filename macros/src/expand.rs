//! From the source of a type to its `impl Event`.

use std::collections::HashMap;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DataEnum, DeriveInput, Error, ExprPath, Ident, Path, Result, parse_quote};

use crate::attribute::{Attributes, Place, Retired};
use crate::kind::{Kind, Named};
use crate::{name, serde_form, text};

/// The `impl Event` of a type, or everything that is wrong with it.
pub(crate) fn event(input: &DeriveInput) -> Result<TokenStream> {
    Ok(Type::read(input)?.implementation())
}

struct Type<'a> {
    input: &'a DeriveInput,
    annals: Path,
    codec: Path,
    category: String,
    kinds: Vec<Kind>,
    retired: Vec<(Named, u32, ExprPath)>,
    is_enum: bool,
}

impl<'a> Type<'a> {
    fn read(input: &'a DeriveInput) -> Result<Type<'a>> {
        if !input.generics.params.is_empty() {
            let why = "an event type has no generic parameters: what is stored under its names \
                must be one shape";
            return Err(Error::new_spanned(&input.generics, why));
        }
        let place = match &input.data {
            Data::Enum(_) => Place::Enum,
            Data::Struct(_) => Place::Struct,
            Data::Union(_) => {
                return Err(Error::new_spanned(
                    &input.ident,
                    "a union cannot be an event",
                ));
            }
        };
        let mut said = Attributes::read(&input.attrs, place)?;
        let category = said.category.as_ref().ok_or_else(|| {
            let why = "an event type needs a category, the first part of its streams' names: \
                `#[event(category = \"account\")]`";
            Error::new_spanned(&input.ident, why)
        })?;
        let category = name::category(category)?;
        let annals = said.annals.take().unwrap_or_else(|| parse_quote!(::annals));
        let codec = said
            .codec
            .take()
            .unwrap_or_else(|| parse_quote!(#annals::Json));
        let retired = std::mem::take(&mut said.retired);
        let retired = retired.into_iter().map(
            |Retired {
                 name,
                 version,
                 upcaster,
             }| Ok((Named::given(&name)?, version, upcaster)),
        );
        let retired = retired.collect::<Result<_>>()?;
        let kinds = match &input.data {
            Data::Enum(data) => variants(input, data, &category)?,
            Data::Struct(data) => {
                let around = serde_form::of_struct(&input.attrs)?;
                vec![Kind::new(
                    &category,
                    &input.ident,
                    said,
                    &data.fields,
                    &around,
                )?]
            }
            Data::Union(_) => Vec::new(),
        };
        let is_enum = place == Place::Enum;
        let read = Type {
            input,
            annals,
            codec,
            category,
            kinds,
            retired,
            is_enum,
        };
        read.names_are_apart()?;
        Ok(read)
    }

    fn names_are_apart(&self) -> Result<()> {
        let mut taken: HashMap<(&str, u32), String> = HashMap::new();
        let of_kinds = self.kinds.iter().flat_map(|kind| {
            kind.names().flat_map(move |named| {
                (1..=kind.version).map(move |version| (named, version, format!("`{}`", kind.ident)))
            })
        });
        let of_retired = self
            .retired
            .iter()
            .map(|(named, version, _)| (named, *version, "`retired`".to_owned()));
        for (named, version, owner) in of_kinds.chain(of_retired) {
            if let Some(first) = taken.insert((&named.name, version), owner.clone()) {
                let why = format!(
                    "`{}` v{version} is stored by {first} and by {owner}",
                    named.name
                );
                return Err(Error::new(named.span, why));
            }
        }
        Ok(())
    }

    fn implementation(&self) -> TokenStream {
        let Type {
            input,
            annals,
            category,
            ..
        } = self;
        let ident = derived(&input.ident);
        let shapes = self.shapes();
        let shape = self.shape();
        let tags = self.tags();
        let encode = self.encode();
        let decode = self.decode();
        quote! {
            #[automatically_derived]
            #[allow(unused_qualifications, clippy::all, clippy::absolute_paths, clippy::pedantic)]
            impl #annals::Event for #ident {
                const CATEGORY: &'static str = #category;

                fn shapes() -> &'static [#annals::Shape] { &[#shapes] }

                fn shape(&self) -> &'static #annals::Shape { #shape }

                fn tags(
                    &self,
                ) -> ::core::result::Result<::std::vec::Vec<#annals::Tag>, #annals::Invalid> {
                    #tags
                }

                fn encode(&self) -> ::core::result::Result<#annals::Encoded, #annals::CodecError> {
                    #encode
                }

                fn decode(
                    __stored: #annals::Stored<'_>,
                ) -> ::core::result::Result<#annals::Decoded<Self>, #annals::DecodeError> {
                    #decode
                }
            }
        }
    }

    /// Current ones first, then the old ones.
    fn shapes(&self) -> TokenStream {
        let current = self.kinds.iter().map(|kind| self.current_shape(kind));
        let mut old = Vec::new();
        for kind in &self.kinds {
            for alias in &kind.aliases {
                old.push(self.old_shape(&alias.name, kind.version, &kind.fields));
            }
            for (below, upcaster) in kind.upcasters.iter().enumerate().rev() {
                let version = to_version(below);
                let read_by = read_by(upcaster);
                old.extend(
                    kind.names()
                        .map(|named| self.old_shape(&named.name, version, &read_by)),
                );
            }
        }
        let retired = self.retired.iter();
        old.extend(retired.map(|(named, version, upcaster)| {
            self.old_shape(&named.name, *version, &read_by(upcaster))
        }));
        quote!(#(#current,)* #(#old,)*)
    }

    fn current_shape(&self, kind: &Kind) -> TokenStream {
        shape(
            &self.annals,
            &kind.name.name,
            kind.version,
            true,
            &kind.fields,
        )
    }

    fn old_shape(&self, name: &str, version: u32, fields: &str) -> TokenStream {
        shape(&self.annals, name, version, false, fields)
    }

    fn shape(&self) -> TokenStream {
        let arms = self.kinds.iter().map(|kind| {
            let pattern = self.pattern(kind, &[]);
            let shape = self.current_shape(kind);
            quote!(#pattern => &#shape)
        });
        quote!(match self { #(#arms,)* })
    }

    fn tags(&self) -> TokenStream {
        if self.kinds.iter().all(|kind| kind.tags.is_empty()) {
            return quote!(::core::result::Result::Ok(::std::vec::Vec::new()));
        }
        let arms = self.kinds.iter().map(|kind| {
            let fields = kind.tags.iter().enumerate();
            let (bound, push): (Vec<_>, Vec<_>) = fields
                .map(|(at, field)| field.bind_and_push(at, &self.annals))
                .unzip();
            let pattern = self.pattern(kind, &bound);
            quote!(#pattern => { #(#push)* })
        });
        quote! {
            let mut __tags = ::std::vec::Vec::new();
            match self { #(#arms)* }
            ::core::result::Result::Ok(__tags)
        }
    }

    fn pattern(&self, kind: &Kind, bound: &[TokenStream]) -> TokenStream {
        // Named by derived code, so that a deprecated variant is not reported there.
        let variant = derived(&kind.ident);
        if self.is_enum {
            quote!(Self::#variant { #(#bound,)* .. })
        } else {
            quote!(Self { #(#bound,)* .. })
        }
    }

    fn encode(&self) -> TokenStream {
        let annals = &self.annals;
        let codec = &self.codec;
        let helper = if self.is_enum {
            quote!(encode_variant)
        } else {
            quote!(encode_plain)
        };
        // A type that serde cannot write is pointed at by its name.
        let at = seen_at(self.input.ident.span());
        quote_spanned!(at=> #annals::derive::#helper::<#codec, Self>(self))
    }

    fn decode(&self) -> TokenStream {
        let annals = &self.annals;
        let codec = &self.codec;
        let current = self.kinds.iter().enumerate().map(|(index, kind)| {
            let names = kind.names().map(|named| &named.name);
            let version = kind.version;
            let at = seen_at(self.input.ident.span());
            let decode = quote!(#annals::derive);
            let read = if self.is_enum {
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                quote_spanned!(at=> #decode::decode_variant::<#codec, Self>(__stored, #index)?)
            } else {
                quote_spanned!(at=> #decode::decode_plain::<#codec, Self>(__stored)?)
            };
            quote!((#(#names)|*, #version) => {
                ::core::result::Result::Ok(#annals::Decoded::One(#read))
            })
        });
        let old = self.kinds.iter().flat_map(|kind| {
            (0..kind.upcasters.len()).map(move |below| {
                let names = kind.names().map(|named| &named.name);
                let version = to_version(below);
                let read = self.upcast(&kind.upcasters[below..]);
                quote!((#(#names)|*, #version) => { #read })
            })
        });
        let retired = self.retired.iter().map(|(named, version, upcaster)| {
            let name = &named.name;
            let read = self.upcast(std::slice::from_ref(upcaster));
            quote!((#name, #version) => { #read })
        });
        quote! {
            match (__stored.event_type, __stored.schema_version) {
                #(#current,)*
                #(#old)*
                #(#retired)*
                _ => ::core::result::Result::Err(#annals::derive::unknown::<Self>(__stored)),
            }
        }
    }

    /// Reads what the first function takes, and hands it from one to the next.
    fn upcast(&self, functions: &[ExprPath]) -> TokenStream {
        let annals = &self.annals;
        let codec = &self.codec;
        let steps = functions.iter().enumerate().map(|(at, function)| {
            let into = if at + 1 == functions.len() {
                quote!(Self)
            } else {
                quote!(_)
            };
            // A function that does not fit is pointed at, not the derive.
            quote_spanned! {seen_at(function.span())=>
                let __old = #annals::derive::upcast::<_, _, #into>(__old, #function);
            }
        });
        // What the first function takes is what must be readable.
        let at = seen_at(
            functions
                .first()
                .map_or_else(Span::call_site, Spanned::span),
        );
        let decode = quote!(#annals::derive::decode_plain);
        let read = quote_spanned! {at=>
            #annals::Decoded::One(#decode::<#codec, _>(__stored)?)
        };
        quote! {
            let __old = #read;
            #(#steps)*
            ::core::result::Result::Ok(__old)
        }
    }
}

fn variants(input: &DeriveInput, data: &DataEnum, category: &str) -> Result<Vec<Kind>> {
    let around_all = serde_form::of_enum(&input.attrs)?;
    if data.variants.is_empty() {
        return Err(Error::new_spanned(
            &input.ident,
            "an enum of events has at least one variant",
        ));
    }
    let mut kinds = Vec::new();
    let mut wrong: Option<Error> = None;
    for variant in &data.variants {
        let kind = serde_form::of_variant(&variant.attrs).and_then(|own| {
            let around: Vec<_> = around_all.iter().cloned().chain(own).collect();
            let said = Attributes::read(&variant.attrs, Place::Variant)?;
            Kind::new(category, &variant.ident, said, &variant.fields, &around)
        });
        match kind {
            Ok(kind) => kinds.push(kind),
            Err(error) => match &mut wrong {
                Some(wrong) => wrong.combine(error),
                None => wrong = Some(error),
            },
        }
    }
    wrong.map_or(Ok(kinds), Err)
}

fn shape(annals: &Path, name: &str, version: u32, current: bool, fields: &str) -> TokenStream {
    quote! {
        #annals::Shape {
            event_type: #name,
            schema_version: #version,
            current: #current,
            fields: #fields,
        }
    }
}

/// A span that the compiler points at, and that sees what derived code sees, also inside a macro of
/// the user.
pub(crate) fn seen_at(span: Span) -> Span {
    Span::call_site().located_at(span)
}

/// The name as derived code says it. The compiler reports no use of something deprecated there, and
/// an `allow` would not compile under `#![forbid(deprecated)]`.
fn derived(ident: &Ident) -> Ident {
    let mut ident = ident.clone();
    ident.set_span(seen_at(ident.span()));
    ident
}

/// The version that the function at this place of the list reads.
fn to_version(place: usize) -> u32 {
    u32::try_from(place + 1).unwrap_or(u32::MAX)
}

/// The fields of an old shape are those of the type that its upcaster takes.
fn read_by(upcaster: &ExprPath) -> String {
    format!("read by {}", text::of(quote!(#upcaster)))
}
