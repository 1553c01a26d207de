//! `#[derive(Event)]` and `#[derive(View)]` for Annals. Programs use it through the facade, the
//! crate `annals`.

mod attribute;
mod composite;
mod expand;
mod fields;
mod kind;
mod name;
mod serde_form;
mod table_name;
mod table_row;
mod text;
mod upcast;
mod view;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes an enum, or a struct, something that is stored as events.
///
/// Each variant is one event type. It is stored under the name `category.variant_in_snake_case`,
/// and its payload is only the variant's content, written with serde.
///
/// ```
/// use annals::prelude::*;
///
/// #[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
/// #[event(category = "account")]
/// enum AccountEvent {
///     Opened { owner: String },     // `account.opened`    {"owner":"Ada"}
///     Deposited { cents: i64 },     // `account.deposited` {"cents":5}
///     Closed,                       // `account.closed`    null
/// }
///
/// let event = AccountEvent::Deposited { cents: 5 };
/// assert_eq!(event.shape().event_type, "account.deposited");
/// assert_eq!(event.encode()?.payload, r#"{"cents":5}"#);
/// # Ok::<_, annals::CodecError>(())
/// ```
///
/// # On the type
///
/// - `category = "account"`: the category of its streams and the first part of its names; required.
/// - `codec = "path::Codec"`: how payloads are written. Default: JSON; what is already stored as
///   JSON can still be read.
/// - `retired("name", version = 1, upcast = function)`: an event type that has no variant any more;
///   repeatable.
/// - `crate = "path"`: where the derived code finds Annals. Default: `::annals`.
///
/// # On a variant, or on a struct
///
/// | attribute | says |
/// |---|---|
/// | `name = "account.opened"` | the whole stored name; keeps it through a rename in Rust |
/// | `alias = "account.created"` | an older stored name that is read too; repeatable |
/// | `version = 2` | the current version of its shape, 1 unless said |
/// | `upcast(1 = function)` | how each version below the current one becomes the next one |
///
/// # On a field
///
/// | attribute | says |
/// |---|---|
/// | `tag` | the event carries the tag `field_name:value` |
/// | `tag = "key"` | the same under another key |
///
/// A value is written with `Display`. An `Option` is a tag when it is `Some`, a `Vec` is one for
/// each of its elements; both are known by these names as they are written in the source.
///
/// ```
/// use annals::prelude::*;
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(category = "course")]
/// struct Subscribed {
///     #[event(tag = "course")]
///     id: u32,
///     #[event(tag)]
///     student: Option<String>,
/// }
///
/// let event = Subscribed { id: 7, student: Some("ada".into()) };
/// assert_eq!(event.tags()?, ["course:7".parse()?, "student:ada".parse()?]);
/// # Ok::<_, annals::Invalid>(())
/// ```
///
/// # When a name changes
///
/// Stored names are for ever. `name` keeps the old one, and `alias` reads it beside a new one:
///
/// ```
/// use annals::prelude::*;
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(category = "account")]
/// enum AccountEvent {
///     #[event(name = "account.opened")]       // written and read as before
///     AccountOpened { owner: String },
///     // Written as `account.paid_in`, read under both names.
///     #[event(alias = "account.deposited")]
///     PaidIn { cents: i64 },
/// }
///
/// let names: Vec<_> = AccountEvent::shapes().iter().map(|shape| shape.event_type).collect();
/// assert_eq!(names, ["account.opened", "account.paid_in", "account.deposited"]);
/// ```
///
/// Projections and filters that ask for a type by name ask for all of them. Older programs do not
/// know the new name: `name` is what a rolling deployment wants.
///
/// # When a shape changes
///
/// A field that has a default (`#[serde(default)]`) or is an `Option` can be added as it is. Any
/// other change is a new `version`, and the old versions are read through functions, each from one
/// version to the next, the last one to the event type itself. Each may also return an `Option`, an
/// array or a `Vec` of it, when one old event is none or several now. An old shape is a type that
/// serde can read; give it a name and leave it as it is.
///
/// ```
/// use annals::prelude::*;
///
/// #[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
/// #[event(category = "cart")]
/// #[event(retired("cart.coupon_clicked", version = 1, upcast = forget))]
/// enum CartEvent {
///     #[event(version = 3, upcast(1 = with_quantity, 2 = with_currency))]
///     Added { sku: String, quantity: u32, price: String },
/// }
///
/// #[derive(Deserialize)]
/// struct AddedV1 { sku: String, cents: u64 }
///
/// #[derive(Deserialize)]
/// struct AddedV2 { sku: String, cents: u64, quantity: u32 }
///
/// fn with_quantity(AddedV1 { sku, cents }: AddedV1) -> AddedV2 {
///     AddedV2 { sku, cents, quantity: 1 }
/// }
///
/// fn with_currency(AddedV2 { sku, cents, quantity }: AddedV2) -> CartEvent {
///     CartEvent::Added { sku, quantity, price: format!("{}.{:02} EUR", cents / 100, cents % 100) }
/// }
///
/// fn forget(_: serde::de::IgnoredAny) -> Option<CartEvent> {
///     None
/// }
///
/// # fn main() -> Result<(), annals::DecodeError> {
/// let payload = br#"{"sku":"tea","cents":450}"#;
/// let stored = annals::Stored {
///     event_type: "cart.added",
///     schema_version: 1,
///     codec: "json",
///     payload,
/// };
/// let event = CartEvent::Added { sku: "tea".into(), quantity: 1, price: "4.50 EUR".into() };
/// assert_eq!(CartEvent::decode(stored)?, Decoded::One(event));
/// # Ok(())
/// # }
/// ```
///
/// # What it refuses
///
/// Two variants with one stored name and version; a version without an upcaster; generic
/// parameters; and the attributes of serde that would put the type's name into the payload (`tag`,
/// `content`, `untagged`), take a variant out of it (`skip`, `other`), or hide the enum from serde
/// (`from`, `into`, `transparent`, `remote`).
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::event(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes a type the rows of a read model.
///
/// The rows are what the type is, written with serde. A view of one type of events, with a row for
/// each stream, needs a function `apply` that folds an event into a row:
///
/// ```
/// use annals::prelude::*;
///
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(category = "account")]
/// # enum AccountEvent { Deposited { cents: i64 } }
/// #[derive(Default, Serialize, Deserialize, View)]
/// #[view(event = AccountEvent)]
/// struct Balance {
///     cents: i64,
/// }
///
/// impl Balance {
///     fn apply(&mut self, AccountEvent::Deposited { cents }: &AccountEvent) {
///         self.cents += cents;
///     }
/// }
/// # assert_eq!(Balance::NAME, "balance");
/// ```
///
/// A view of several types, with keys of its own, with rows that are removed or with events that
/// can be poison names them in `events(…)`, and says by one `impl Project<…>` for each type how
/// its events change rows:
///
/// ```
/// use annals::prelude::*;
///
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(category = "account")]
/// # enum AccountEvent { Opened { branch: String }, Deposited { cents: i64 }, Closed }
/// #[derive(Debug, Default, PartialEq, Serialize, Deserialize, View)]
/// #[view(name = "balances", version = 1, events(AccountEvent), history)]
/// struct Balance {
///     cents: i64,
///     #[view(index)]
///     branch: Option<String>,
/// }
///
/// impl Project<AccountEvent> for Balance {
///     fn on(balance: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
///         match &**event {
///             AccountEvent::Opened { branch } => balance.branch = Some(branch.clone()),
///             AccountEvent::Deposited { cents } => balance.cents += cents,
///             AccountEvent::Closed => balance.remove(),
///         }
///         Ok(())
///     }
/// }
///
/// # #[derive(Default)]
/// # struct Account;
/// # impl Aggregate for Account {
/// #     type Event = AccountEvent;
/// #     fn apply(&mut self, _: &AccountEvent) {}
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let db = Annals::in_memory().with(Balance::projection()).start().await?;
/// let deposit = |_: &Account| Ok::<_, String>(AccountEvent::Deposited { cents: 5 });
/// let done = db.aggregate::<Account>("alice").run(deposit).await?;
/// let row = db.view::<Balance>().get("alice").at_least(&done).await?;
/// assert_eq!(row, Some(Balance { cents: 5, branch: None }));
/// # Ok(())
/// # }
/// ```
///
/// # On the type
///
/// - `event = AccountEvent`: the one type of events that it is folded from, by
///   `fn apply(&mut self, event: &AccountEvent)`; the keys of rows are the ids of streams.
/// - `version = 1`: the version of the fold: raise it when the fold, the keys or the fields change,
///   and the view is rebuilt. Default: 1.
/// - `events(AccountEvent, …)`: the types of events that it is folded from, by `impl Project<…>`;
///   repeatable.
/// - `name = "balances"`: the name under which it is stored, for good. Default: the name of the
///   type in snake case.
/// - `key = Type`: the key of a row, any `ViewKey`. Default: `String`.
/// - `history`: the past of every row is kept, and can be asked about.
/// - `history(bitemporal)`: also which events touched a row, so that the past of the world can be
///   asked about.
/// - `crate = "path"`: where the derived code finds the read models of Annals. Default:
///   `::annals::projections`.
///
/// # On a field
///
/// `#[view(index)]`: rows can be found by this field and read in its order. The field is a
/// `ViewKey` or an `Option` of one; absent comes before everything else.
///
/// # What it refuses
///
/// Generic parameters; fields with a `HashMap` or a `HashSet` in them, whose order changes from one
/// moment to the next, so that equal rows would be different bytes; and fields that serde does not
/// write (`skip`), which would be lost between two batches.
#[proc_macro_derive(View, attributes(view))]
pub fn derive_view(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    view::view(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes a type the rows of a captured table, for change data capture.
///
/// # On the type
///
/// - `table("public.orders")`: the table; required. Without a dot it is in the schema `public`; a
///   part may be quoted as in SQL: `r#""Ward"."a.b""#`.
/// - `table("…", prefix = "shop")`: the prefix that the ingest was given.
/// - `table("…", crate = "path")`: where the derived code finds change data capture. Default:
///   `::annals::cdc`.
///
/// # On a field
///
/// | attribute | says |
/// |---|---|
/// | `key` | it is the key, or a part of it in the order of the fields; required on one at least |
/// | `column("name")` | the name of its column, that of the field unless said |
/// | `column(default)` | the default of its type when the table has no such column |
#[proc_macro_derive(TableRow, attributes(table, column, key))]
pub fn derive_table_row(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    table_row::table_row(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes an enum without fields the values of an enum of PostgreSQL, or of a text column: each
/// variant is a label, in snake case unless `#[label("…")]` says another one.
///
/// `#[label(crate = "path")]` on the type says where the derived code finds change data capture.
#[proc_macro_derive(Label, attributes(label))]
pub fn derive_label(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    table_row::label(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes a struct the values of a composite type of PostgreSQL. Its fields are those of the type,
/// all of them and in the same order; their names may differ.
///
/// `#[composite(crate = "path")]` on the type says where the derived code finds change data
/// capture.
#[proc_macro_derive(Composite, attributes(composite))]
pub fn derive_composite(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    composite::composite(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
