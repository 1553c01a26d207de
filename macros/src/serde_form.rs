//! What serde's attributes do to the stored form: some are written down, some would break it and
//! are refused.

use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Meta, Result, Token};

use crate::attribute::named;
use crate::text;

/// Those of a field that change how it is stored or read.
const OF_FIELDS: &[&str] = &[
    "rename",
    "alias",
    "default",
    "with",
    "serialize_with",
    "deserialize_with",
    "flatten",
    "skip",
    "skip_serializing",
    "skip_deserializing",
    "skip_serializing_if",
];

/// Those of a variant. Its own name is not in the payload.
const OF_VARIANTS: &[&str] = &["rename_all", "with", "serialize_with", "deserialize_with"];

const OF_ENUMS: &[&str] = &["rename_all_fields", "deny_unknown_fields"];

const OF_STRUCTS: &[&str] = &[
    "rename_all",
    "default",
    "deny_unknown_fields",
    "transparent",
    "from",
    "try_from",
    "into",
];

const NAME_STANDS_BESIDE: &str = "the type's name is stored beside the payload, so serde must not \
    write it into the payload: leave this out";
const NOT_AN_ENUM: &str = "events are read and written variant by variant, and this makes serde \
    see another type: leave this out";
const NOT_WRITTEN: &str = "every variant is an event type that must be written and read: leave \
    this out, and take a variant that is no longer \
     wanted out of the enum with `#[event(retired(…))]`";
const REMOTE: &str =
    "this implements serde's traits for another type and not for this one: leave this out";

const REFUSED_ON_ENUMS: &[(&str, &str)] = &[
    ("tag", NAME_STANDS_BESIDE),
    ("content", NAME_STANDS_BESIDE),
    (
        "untagged",
        "events are read by the variant that their name says, never by trial: leave this out",
    ),
    ("from", NOT_AN_ENUM),
    ("try_from", NOT_AN_ENUM),
    ("into", NOT_AN_ENUM),
    ("transparent", NOT_AN_ENUM),
    ("remote", REMOTE),
    ("variant_identifier", NOT_AN_ENUM),
    ("field_identifier", NOT_AN_ENUM),
];

const REFUSED_ON_STRUCTS: &[(&str, &str)] = &[("tag", NAME_STANDS_BESIDE), ("remote", REMOTE)];

const REFUSED_ON_VARIANTS: &[(&str, &str)] = &[
    ("skip", NOT_WRITTEN),
    ("skip_serializing", NOT_WRITTEN),
    ("skip_deserializing", NOT_WRITTEN),
    (
        "other",
        "a name that no variant has is an error, so that no event is taken for another: leave this \
         out",
    ),
    (
        "untagged",
        "events are read by the variant that their name says, never by trial: leave this out",
    ),
];

/// The attributes of an enum, as far as they change what its variants store.
pub(crate) fn of_enum(attributes: &[Attribute]) -> Result<Vec<String>> {
    read(attributes, OF_ENUMS, REFUSED_ON_ENUMS)
}

/// The same of a struct.
pub(crate) fn of_struct(attributes: &[Attribute]) -> Result<Vec<String>> {
    read(attributes, OF_STRUCTS, REFUSED_ON_STRUCTS)
}

/// The same of a variant.
pub(crate) fn of_variant(attributes: &[Attribute]) -> Result<Vec<String>> {
    read(attributes, OF_VARIANTS, REFUSED_ON_VARIANTS)
}

/// The same of a field.
pub(crate) fn of_field(attributes: &[Attribute]) -> Result<Vec<String>> {
    read(attributes, OF_FIELDS, &[])
}

fn read(attributes: &[Attribute], told: &[&str], refused: &[(&str, &str)]) -> Result<Vec<String>> {
    let mut kept = Vec::new();
    for attribute in named(attributes, "serde") {
        // What does not parse is serde's to complain about.
        let Ok(said) = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
        else {
            continue;
        };
        for meta in said {
            if let Some((key, why)) = refused.iter().find(|(key, _)| meta.path().is_ident(key)) {
                return Err(Error::new_spanned(
                    &meta,
                    format!("`#[serde({key})]` on an event type: {why}"),
                ));
            }
            if told.iter().any(|key| meta.path().is_ident(key)) {
                kept.push(text::of(quote::quote!(#meta)));
            }
        }
    }
    Ok(kept)
}
