//! From the source of a struct to its `impl TableRow`, and of an enum to its `impl FromColumn`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    Data, DeriveInput, Error, Field, Fields, LitStr, Path, Result, Token, Type, parse_quote,
};

use crate::attribute::named;
use crate::name::snake_case;
use crate::table_name::table_name;

const NEEDS_TABLE: &str = "a row belongs to a table: `#[table(\"public.orders\")]`";
const NEEDS_KEY: &str = "rows are known by a key: mark its fields with `#[key]`";
const NEEDS_FIELDS: &str = "a row is a struct with named fields, one for each column";
const NEEDS_VARIANTS: &str = "labels are an enum whose variants have no fields";

/// What `#[table(…)]` says.
struct Table {
    name: LitStr,
    prefix: Option<LitStr>,
    annals: Path,
}

/// A column of the row.
struct Column<'a> {
    field: &'a Field,
    name: String,
    is_default: bool,
    is_key: bool,
}

/// Where derived code finds change data capture, unless it is told.
fn annals() -> Path {
    parse_quote!(::annals::cdc)
}

/// Where it is, as `#[NAME(crate = "path")]` on the type says.
pub(crate) fn annals_of(input: &DeriveInput, name: &str) -> Result<Path> {
    let mut annals = annals();
    for attribute in named(&input.attrs, name) {
        annals = attribute.parse_args_with(|input: syn::parse::ParseStream<'_>| {
            input.parse::<Token![crate]>()?;
            input.parse::<Token![=]>()?;
            input.parse::<LitStr>()?.parse()
        })?;
    }
    Ok(annals)
}

/// The `impl TableRow` of a type, or what is wrong with it.
pub(crate) fn table_row(input: &DeriveInput) -> Result<TokenStream> {
    if !input.generics.params.is_empty() {
        let why = "a row has no generic parameters: its table has one shape";
        return Err(Error::new_spanned(&input.generics, why));
    }
    let table = table(input)?;
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, NEEDS_FIELDS));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, NEEDS_FIELDS));
    };
    let columns = fields
        .named
        .iter()
        .map(column)
        .collect::<Result<Vec<_>>>()?;
    let keys: Vec<_> = columns.iter().filter(|column| column.is_key).collect();
    if keys.is_empty() {
        return Err(Error::new_spanned(&input.ident, NEEDS_KEY));
    }
    let annals = &table.annals;
    let ident = &input.ident;
    let (schema, own) = table_name(&table.name)?;
    let mut category = format!("{}.{}", escaped(&schema), escaped(&own));
    if let Some(prefix) = &table.prefix {
        category = format!("{}.{category}", escaped(&prefix.value()));
    }
    let view = format!("table {category}");
    let history = format!("history of table {category}");
    let shown: Vec<String> = columns
        .iter()
        .map(|column| format!("{}: {}", column.name, type_text(&column.field.ty)))
        .collect();
    let shown = shown.join(", ");
    let shape = |what: &str, fields: &str| {
        let event_type = format!("{category}.{what}");
        quote! {
            #annals::derive::Shape {
                event_type: #event_type,
                schema_version: 1,
                current: true,
                fields: #fields,
            }
        }
    };
    let shapes = ["read", "inserted", "updated", "deleted", "moved"].map(|of| shape(of, &shown));
    let table_shapes = [
        shape("truncated", "cascade, restart_identity, rows"),
        shape("schema", "number, identity, columns"),
    ];
    let key_types = keys.iter().map(|column| &column.field.ty);
    let key_type = match &*keys {
        [only] => {
            let of = &only.field.ty;
            quote!(#of)
        }
        _ => quote!((#(#key_types),*)),
    };
    let key_names: Vec<_> = keys.iter().map(|column| &column.name).collect();
    let key_parts = keys.iter().map(|column| {
        let name = &column.name;
        let of = &column.field.ty;
        quote!(row.column::<#of>(&table, #name)?)
    });
    let key = match &*keys {
        [_] => quote!(#(#key_parts)*),
        _ => quote!((#(#key_parts),*)),
    };
    let read = columns.iter().map(|column| {
        let field = &column.field.ident;
        let name = &column.name;
        let of = &column.field.ty;
        if column.is_default {
            quote!(#field: row.optional::<#of>(&table, #name)?.unwrap_or_default())
        } else {
            quote!(#field: row.column::<#of>(&table, #name)?)
        }
    });
    let written = columns.iter().map(|column| {
        let field = &column.field.ident;
        let name = &column.name;
        let of = &column.field.ty;
        quote! {
            columns.push(
                #name.into(),
                <#of as #annals::FromColumn>::to_column(&self.#field),
            );
        }
    });
    let hidden = format_ident!("row");
    Ok(quote! {
        #[automatically_derived]
        #[allow(unused_qualifications, clippy::all, clippy::absolute_paths, clippy::pedantic)]
        impl #annals::TableRow for #ident {
            type Key = #key_type;

            const CATEGORY: &'static str = #category;
            const VIEW: &'static str = #view;
            const HISTORY_VIEW: &'static str = #history;

            fn table() -> #annals::TableName {
                #annals::TableName::new(#schema, #own)
            }

            fn shapes() -> &'static [#annals::derive::Shape] {
                const SHAPES: &[#annals::derive::Shape] = &[#(#shapes),*];
                SHAPES
            }

            fn table_shapes() -> &'static [#annals::derive::Shape] {
                const SHAPES: &[#annals::derive::Shape] = &[#(#table_shapes),*];
                SHAPES
            }

            fn key_names() -> &'static [&'static str] {
                &[#(#key_names),*]
            }

            fn key_of(
                columns: &#annals::Columns,
            ) -> ::core::result::Result<#key_type, #annals::ColumnError> {
                let table = <Self as #annals::TableRow>::table();
                let #hidden = #annals::ReceivedRow {
                    columns,
                    unchanged: &[],
                    schema: 0,
                };
                ::core::result::Result::Ok(#key)
            }

            fn from_columns(
                row: &#annals::ReceivedRow<'_>,
            ) -> ::core::result::Result<Self, #annals::ColumnError> {
                let table = <Self as #annals::TableRow>::table();
                ::core::result::Result::Ok(Self { #(#read),* })
            }

            fn to_columns(&self) -> #annals::Columns {
                let mut columns = <#annals::Columns as ::core::default::Default>::default();
                #(#written)*
                columns
            }
        }
    })
}

fn table(input: &DeriveInput) -> Result<Table> {
    let mut found = None;
    for attribute in named(&input.attrs, "table") {
        found = Some(
            attribute.parse_args_with(|input: syn::parse::ParseStream<'_>| {
                let mut table = Table {
                    name: input.parse()?,
                    prefix: None,
                    annals: annals(),
                };
                while input.parse::<Option<Token![,]>>()?.is_some() && !input.is_empty() {
                    if input.parse::<Option<Token![crate]>>()?.is_some() {
                        input.parse::<Token![=]>()?;
                        table.annals = input.parse::<LitStr>()?.parse()?;
                        continue;
                    }
                    let word: syn::Ident = input.parse()?;
                    if word != "prefix" {
                        return Err(Error::new_spanned(word, "known are `prefix` and `crate`"));
                    }
                    input.parse::<Token![=]>()?;
                    table.prefix = Some(input.parse()?);
                }
                Ok(table)
            })?,
        );
    }
    found.ok_or_else(|| Error::new_spanned(&input.ident, NEEDS_TABLE))
}

fn column(field: &Field) -> Result<Column<'_>> {
    let ident = field.ident.as_ref().map(ToString::to_string);
    let ident = ident.unwrap_or_default();
    let mut column = Column {
        field,
        name: ident.strip_prefix("r#").unwrap_or(&ident).to_owned(),
        is_default: false,
        is_key: named(&field.attrs, "key").next().is_some(),
    };
    for attribute in named(&field.attrs, "column") {
        attribute.parse_args_with(|input: syn::parse::ParseStream<'_>| {
            while !input.is_empty() {
                if input.peek(LitStr) {
                    column.name = input.parse::<LitStr>()?.value();
                } else {
                    let word: syn::Ident = input.parse()?;
                    if word != "default" {
                        let why = "known are a name in quotes and `default`";
                        return Err(Error::new_spanned(word, why));
                    }
                    column.is_default = true;
                }
                input.parse::<Option<Token![,]>>()?;
            }
            Ok(())
        })?;
    }
    Ok(column)
}

/// The `impl FromColumn` of an enum, or what is wrong with it.
pub(crate) fn label(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, NEEDS_VARIANTS));
    };
    let annals = annals_of(input, "label")?;
    let mut variants = Vec::new();
    let mut labels = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, NEEDS_VARIANTS));
        }
        let mut label = snake_case(&variant.ident.to_string());
        for attribute in named(&variant.attrs, "label") {
            label = attribute.parse_args::<LitStr>()?.value();
        }
        variants.push(&variant.ident);
        labels.push(label);
    }
    let ident = &input.ident;
    let known = labels.join("`, `");
    Ok(quote! {
        #[automatically_derived]
        #[allow(unused_qualifications, clippy::all, clippy::absolute_paths, clippy::pedantic)]
        impl #annals::FromColumn for #ident {
            fn from_column(
                text: ::core::option::Option<&str>,
            ) -> ::core::result::Result<Self, ::std::string::String> {
                match text {
                    #(::core::option::Option::Some(#labels) => {
                        ::core::result::Result::Ok(Self::#variants)
                    })*
                    other => ::core::result::Result::Err(::std::format!(
                        "{other:?} is none of `{}`", #known
                    )),
                }
            }

            fn to_column(&self) -> ::core::option::Option<::std::string::String> {
                ::core::option::Option::Some(match self {
                    #(Self::#variants => #labels,)*
                }.into())
            }
        }
    })
}

fn type_text(of: &Type) -> String {
    crate::text::of(quote!(#of))
}

/// As `annals_cdc::escaped`, which names streams.
fn escaped(part: &str) -> String {
    let mut text = String::new();
    for character in part.chars() {
        if character.is_control() || ".-%,".contains(character) {
            for byte in character.to_string().bytes() {
                text.push_str(&format!("%{byte:02X}"));
            }
        } else {
            text.push(character);
        }
    }
    text
}
