//! The fields of an event type: as text for reviewers and `events.lock`, and those that are tags.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Error, Field, Fields, GenericArgument, Ident, Index, LitStr, Member, Path, PathArguments,
    Result, Type,
};

use crate::attribute::{Attributes, Place};
use crate::expand::seen_at;
use crate::{serde_form, text};

/// The fields as they are in the source, with their serde attributes, and which are tags:
/// `{ owner: String, cents: i64 }`.
pub(crate) fn as_text(fields: &Fields, around: &[String]) -> Result<String> {
    let said = fields
        .iter()
        .map(one_as_text)
        .collect::<Result<Vec<_>>>()?
        .join(", ");
    let said = match fields {
        Fields::Named(_) if said.is_empty() => "{}".to_owned(),
        Fields::Named(_) => format!("{{ {said} }}"),
        Fields::Unnamed(_) => format!("({said})"),
        Fields::Unit => said,
    };
    Ok(with_serde(around, said))
}

/// What is read from stored bytes owns what it holds: `&'static str` and its like cannot be read.
fn must_be_owned(ty: &Type) -> Result<()> {
    match ty {
        Type::Reference(reference) => {
            let owned = match &*reference.elem {
                Type::Path(path) if path.path.is_ident("str") => "`String`, or `Cow<'static, str>`",
                Type::Slice(_) => "a `Vec`, or an array",
                _ => "the type without `&`, or a `Box` of it",
            };
            let why = format!(
                "an event is read back from stored bytes, and a reference has nothing to borrow \
                 from: write {owned}"
            );
            Err(Error::new_spanned(ty, why))
        }
        Type::Path(path) => {
            let arguments = path.path.segments.iter().map(|segment| &segment.arguments);
            for argument in arguments {
                let PathArguments::AngleBracketed(argument) = argument else {
                    continue;
                };
                for argument in &argument.args {
                    if let GenericArgument::Type(inner) = argument {
                        must_be_owned(inner)?;
                    }
                }
            }
            Ok(())
        }
        Type::Tuple(tuple) => tuple.elems.iter().try_for_each(must_be_owned),
        Type::Array(array) => must_be_owned(&array.elem),
        Type::Group(group) => must_be_owned(&group.elem),
        Type::Paren(paren) => must_be_owned(&paren.elem),
        _ => Ok(()),
    }
}

fn one_as_text(field: &Field) -> Result<String> {
    let serde = serde_form::of_field(&field.attrs)?;
    // Serde is said to leave the field out, or how to read it.
    let is_read_otherwise = serde.iter().any(|said| {
        ["skip", "with", "deserialize_with", "borrow"]
            .iter()
            .any(|word| said == word || said.starts_with(&format!("{word} ")))
    });
    if !is_read_otherwise {
        must_be_owned(&field.ty)?;
    }
    let ty = text::of(field.ty.to_token_stream());
    let own_name = field.ident.as_ref().map(ToString::to_string);
    let own_name = own_name
        .as_deref()
        .map(|name| name.trim_start_matches("r#"));
    let mut said = own_name.map_or(ty.clone(), |name| format!("{name}: {ty}"));
    if let Some(tag) = Attributes::read(&field.attrs, Place::Field)?.tag {
        let key = tag.key.as_ref().map(LitStr::value);
        let key = key.as_deref().or(own_name).unwrap_or_default();
        said = format!("#[event(tag = {key:?})] {said}");
    }
    Ok(with_serde(&serde, said))
}

fn with_serde(serde: &[String], said: String) -> String {
    if serde.is_empty() {
        return said;
    }
    let serde = format!("#[serde({})]", serde.join(", "));
    if said.is_empty() {
        serde
    } else {
        format!("{serde} {said}")
    }
}

/// The member as derived code names it: what is deprecated is no news there.
fn derived_member(member: &Member) -> Member {
    match member {
        Member::Named(name) => {
            let mut name = name.clone();
            name.set_span(seen_at(name.span()));
            Member::Named(name)
        }
        Member::Unnamed(_) => member.clone(),
    }
}

/// A field whose value is a tag.
pub(crate) struct TagField {
    member: Member,
    key: String,
    ty: Type,
}

impl TagField {
    /// Those of `fields` that are marked.
    pub(crate) fn of(fields: &Fields) -> Result<Vec<TagField>> {
        let mut marked = Vec::new();
        for (at, field) in fields.iter().enumerate() {
            let Some(tag) = Attributes::read(&field.attrs, Place::Field)?.tag else {
                continue;
            };
            let (member, own_name) = match &field.ident {
                Some(name) => (Member::Named(name.clone()), Some(name.to_string())),
                None => (Member::Unnamed(Index::from(at)), None),
            };
            let key = match (&tag.key, own_name) {
                (Some(key), _) => legal(&key.value(), key)?,
                (None, Some(own_name)) => own_name.trim_start_matches("r#").to_owned(),
                (None, None) => {
                    return Err(Error::new(
                        tag.span,
                        "a field without a name needs a key: `#[event(tag = \"…\")]`",
                    ));
                }
            };
            marked.push(TagField {
                member,
                key,
                ty: field.ty.clone(),
            });
        }
        Ok(marked)
    }

    /// The pattern's part that binds the field, and what pushes its tags onto `__tags`.
    pub(crate) fn bind_and_push(&self, at: usize, annals: &Path) -> (TokenStream, TokenStream) {
        let member = derived_member(&self.member);
        let bound = Ident::new(&format!("__field_{at}"), seen_at(self.ty.span()));
        (quote!(#member: #bound), self.push(&self.ty, &bound, annals))
    }

    fn push(&self, ty: &Type, value: &Ident, annals: &Path) -> TokenStream {
        let key = &self.key;
        // A value that cannot be displayed is pointed at by its type.
        let each = Ident::new("__value", seen_at(ty.span()));
        if let Some(inner) = inner(ty, "Option") {
            let push = self.push(inner, &each, annals);
            quote!(if let ::core::option::Option::Some(#each) = #value { #push })
        } else if let Some(inner) = inner(ty, "Vec") {
            let push = self.push(inner, &each, annals);
            quote!(for #each in #value { #push })
        } else {
            let push = quote_spanned!(seen_at(ty.span())=> #annals::derive::push_tag);
            quote!(#push(&mut __tags, #key, #value)?;)
        }
    }
}

fn legal(key: &str, at: impl ToTokens) -> Result<String> {
    if key.is_empty() || key.contains(':') || key.chars().any(char::is_control) || key.len() > 200 {
        let why = "the key of a tag is 1 to 200 bytes without `:` and control characters";
        return Err(Error::new_spanned(at, why));
    }
    Ok(key.to_owned())
}

/// `T` of `Option<T>`, by the name as it is written.
pub(crate) fn inner<'t>(ty: &'t Type, wrapper: &str) -> Option<&'t Type> {
    match ty {
        Type::Group(group) => inner(&group.elem, wrapper),
        Type::Paren(paren) => inner(&paren.elem, wrapper),
        Type::Path(path) => {
            let last = path
                .path
                .segments
                .last()
                .filter(|last| last.ident == wrapper)?;
            match &last.arguments {
                PathArguments::AngleBracketed(arguments) => match arguments.args.first()? {
                    GenericArgument::Type(inner) => Some(inner),
                    _ => None,
                },
                _ => None,
            }
        }
        _ => None,
    }
}
