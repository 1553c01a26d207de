//! Derived code needs nothing around it: nothing in scope, everything shadowed, every lint on.

#![no_implicit_prelude]
#![deny(warnings, missing_docs, clippy::all, clippy::pedantic, clippy::nursery)]
#![allow(clippy::missing_const_for_fn, clippy::redundant_pub_crate)]
#![deny(
    clippy::indexing_slicing,
    clippy::pattern_type_mismatch,
    clippy::shadow_same
)]
#![deny(
    unused_qualifications,
    unused_results,
    unreachable_pub,
    single_use_lifetimes
)]

use ::std::prelude::v1::{Default, derive, test};

/// Shadows everything that derived code might name.
#[allow(dead_code, non_camel_case_types, missing_docs)]
mod shadows {
    pub(crate) struct Result;
    pub(crate) struct Option;
    pub(crate) struct Vec;
    pub(crate) struct String;
    pub(crate) struct Ok;
    pub(crate) struct Err;
    pub(crate) struct Some;
    pub(crate) struct None;
    pub(crate) struct Event;
    pub(crate) struct Shape;
    pub(crate) struct Decoded;
    pub(crate) struct View;
    pub(crate) struct Handlers;
    pub(crate) struct Keeps;
    pub(crate) struct stored;
    pub(crate) mod std {}
    pub(crate) mod core {}
    pub(crate) mod annals {}
    pub(crate) mod serde {}
}

#[allow(unused_imports)]
use shadows::*;

/// An event with a bit of everything.
#[derive(::annals::Event, ::serde::Serialize, ::serde::Deserialize)]
#[event(category = "thing")]
#[event(retired("thing.gone", upcast = forget))]
pub enum Thing {
    /// Made.
    #[event(version = 2, upcast(1 = named))]
    Made {
        /// Who.
        #[event(tag)]
        who: ::std::option::Option<u8>,
        /// What.
        #[event(tag)]
        what: ::std::vec::Vec<u8>,
    },
    /// Not any more.
    #[deprecated]
    Bent(u8),
    /// Broken.
    Broken,
}

fn named(who: u8) -> Thing {
    Thing::Made {
        who: ::std::option::Option::Some(who),
        what: ::std::vec::Vec::new(),
    }
}

fn forget(_: ::serde::de::IgnoredAny) -> ::std::option::Option<Thing> {
    ::std::option::Option::None
}

/// An event of its own.
#[derive(::annals::Event, ::serde::Serialize, ::serde::Deserialize)]
#[event(category = "thing")]
pub struct Seen {
    /// Where.
    #[event(tag)]
    pub place: u8,
}

/// A view with a bit of everything.
#[cfg(feature = "projections")]
#[derive(Default, ::annals::View, ::serde::Serialize, ::serde::Deserialize)]
#[view(name = "things", version = 3, events(Thing, Seen), history(bitemporal), key = u32)]
pub struct Row {
    /// How many.
    #[view(index)]
    pub count: u64,
    /// Which, maybe.
    #[view(index)]
    pub last: ::std::option::Option<(::std::string::String, u32)>,
}

#[cfg(feature = "projections")]
impl ::annals::projections::Project<Thing> for Row {
    fn on(
        row: &mut ::annals::projections::Row<'_, Self>,
        _: &::annals::Recorded<Thing>,
    ) -> ::std::result::Result<(), ::annals::projections::Poison> {
        row.count += 1;
        ::std::result::Result::Ok(())
    }
}

#[cfg(feature = "projections")]
impl ::annals::projections::Project<Seen> for Row {
    fn on(
        row: &mut ::annals::projections::Row<'_, Self>,
        seen: &::annals::Recorded<Seen>,
    ) -> ::std::result::Result<(), ::annals::projections::Poison> {
        row.last = ::std::option::Option::Some((
            ::std::string::String::new(),
            ::std::convert::From::from(seen.place),
        ));
        ::std::result::Result::Ok(())
    }
}

/// What a macro of the user makes is an event too.
mod generated {
    macro_rules! event {
        ($name:ident, $category:literal, $ty:ty) => {
            /// Generated.
            #[derive(::annals::Event, ::serde::Serialize, ::serde::Deserialize)]
            #[event(category = $category)]
            pub(crate) struct $name {
                #[event(tag)]
                value: $ty,
            }

            impl $name {
                pub(crate) const fn new(value: $ty) -> Self {
                    Self { value }
                }
            }
        };
    }
    event!(Measured, "probe", ::std::option::Option<u8>);
}

#[test]
fn derived_code_needs_nothing_in_scope() {
    use ::annals::Event as _;

    ::std::assert_eq!(Thing::shapes().len(), 5);
    ::std::assert_eq!(Seen { place: 1 }.tags().map_or(0, |tags| tags.len()), 1);
    let measured = generated::Measured::new(::std::option::Option::Some(1));
    ::std::assert_eq!(measured.tags().map_or(0, |tags| tags.len()), 1);
}

#[cfg(feature = "projections")]
#[test]
fn a_derived_view_needs_nothing_in_scope() {
    use ::annals::projections::View as _;

    ::std::assert_eq!(Row::INDEXES, ["count", "last"]);
    ::std::assert_eq!(Row::VERSION, 3);
    ::std::assert_eq!(
        Row::handlers().types(),
        [
            "thing.bent",
            "thing.broken",
            "thing.gone",
            "thing.made",
            "thing.seen"
        ]
    );
    let last = ::std::option::Option::Some((::std::convert::From::from("x"), 7));
    ::std::assert_eq!(
        Row { count: 1, last }.indexed(),
        ["00000000000000000001", "=x\u{1f}\u{1f}0000000007"]
    );
    ::std::assert_eq!(Row::default().indexed(), ["00000000000000000000", ""]);
}
