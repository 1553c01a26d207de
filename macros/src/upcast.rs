//! `upcast(1 = from_1_to_2, 2 = from_2_to_now)`: one function for each version below the current
//! one.

use std::collections::BTreeMap;

use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::{Error, ExprPath, LitInt, Result, Token};

use crate::attribute::{function, number, parentheses};

/// How upcasters are written.
const FORM: &str = "`upcast(1 = from_v1)`, a version and the function that reads it";

fn form(error: Error) -> Error {
    Error::new(error.span(), format!("write {FORM}"))
}

/// The functions, by the version that each reads.
pub(crate) struct Upcasters {
    steps: BTreeMap<u32, (Span, ExprPath)>,
}

impl Upcasters {
    pub(crate) fn none() -> Upcasters {
        Upcasters {
            steps: BTreeMap::new(),
        }
    }

    pub(crate) fn read(meta: &ParseNestedMeta<'_>) -> Result<Upcasters> {
        let content = parentheses(meta.input).map_err(form)?;
        let mut upcasters = Upcasters::none();
        let steps =
            Punctuated::<(LitInt, ExprPath), Token![,]>::parse_terminated_with(&content, |step| {
                let version = step.parse().map_err(form)?;
                step.parse::<Token![=]>().map_err(form)?;
                Ok((version, function(step, FORM)?))
            })?;
        for (version, function) in steps {
            let number = number(&version)?;
            let span = version.span();
            if upcasters.steps.insert(number, (span, function)).is_some() {
                return Err(Error::new(
                    span,
                    format!("version {number} has two upcasters"),
                ));
            }
        }
        Ok(upcasters)
    }

    /// The functions in the order of their versions, when there is one for each version below
    /// `current`.
    pub(crate) fn below(self, current: u32, at: Span) -> Result<Vec<ExprPath>> {
        if let Some((_, (span, _))) = self.steps.range(current..).next() {
            let why = format!(
                "only versions below the current one are brought up to date, and that is `version \
                 = {current}`"
            );
            return Err(Error::new(*span, why));
        }
        if let Some(missing) = (1..current).find(|version| !self.steps.contains_key(version)) {
            let into = if missing + 1 == current {
                "the event type"
            } else {
                "the shape of the version after it"
            };
            let why = format!(
                "version {missing} has no upcaster, and events of it may be stored: \
                 add `{missing} = …` to `upcast(…)`, a function from its shape to {into}"
            );
            return Err(Error::new(at, why));
        }
        Ok(self
            .steps
            .into_values()
            .map(|(_, function)| function)
            .collect())
    }
}
