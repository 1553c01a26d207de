//! From the source of a struct to its `impl FromColumn`, as a composite type.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Result};

use crate::table_row::annals_of;

const NEEDS_FIELDS: &str = "a composite is a struct with a field for each of the type's, in order";

/// The `impl FromColumn` of a struct, or what is wrong with it.
pub(crate) fn composite(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, NEEDS_FIELDS));
    };
    let Fields::Named(named_fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, NEEDS_FIELDS));
    };
    if !input.generics.params.is_empty() {
        let why = "a composite has no generic parameters: its type has one shape";
        return Err(Error::new_spanned(&input.generics, why));
    }
    let annals = annals_of(input, "composite")?;
    let ident = &input.ident;
    let count = named_fields.named.len();
    let names: Vec<_> = named_fields.named.iter().map(|of| &of.ident).collect();
    let types: Vec<_> = named_fields.named.iter().map(|of| &of.ty).collect();
    let shown = names.iter().map(|name| quote!(#name).to_string());
    let shown: Vec<_> = shown
        .map(|name| name.trim_start_matches("r#").to_owned())
        .collect();
    Ok(quote! {
        #[automatically_derived]
        #[allow(unused_qualifications, clippy::all, clippy::absolute_paths, clippy::pedantic)]
        impl #annals::FromColumn for #ident {
            fn from_column(
                text: ::core::option::Option<&str>,
            ) -> ::core::result::Result<Self, ::std::string::String> {
                let fields = #annals::derive::composite_fields(text, #count)?;
                let mut fields = ::core::iter::IntoIterator::into_iter(fields);
                ::core::result::Result::Ok(Self { #(
                    #names: {
                        let text = fields.next().flatten();
                        <#types as #annals::FromColumn>::from_column(text.as_deref())
                            .map_err(|error| ::std::format!("field `{}`: {error}", #shown))?
                    },
                )* })
            }

            fn to_column(&self) -> ::core::option::Option<::std::string::String> {
                ::core::option::Option::Some(#annals::derive::composite_text(&[
                    #(<#types as #annals::FromColumn>::to_column(&self.#names),)*
                ]))
            }
        }
    })
}
