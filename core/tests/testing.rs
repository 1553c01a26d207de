//! What the test kit prints, and how it fails.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::testing::{self, Given};
use annals_core::{
    Aggregate, Annals, CommandError, Emit, Fold, Handle, IntoEvents, MemoryStore, Metadata,
    NewEvent, Over, Query, Recorded, StreamId, Tag,
};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account", crate = "annals_core")]
#[event(retired("account.clicked", version = 1, upcast = forget))]
enum AccountEvent {
    #[event(version = 2, upcast(1 = with_owner))]
    Opened {
        owner: String,
    },
    Deposited {
        cents: i64,
    },
    Withdrawn {
        cents: i64,
    },
    Noted {
        text: String,
        #[serde(skip)]
        draft: bool,
    },
    Limited(f64),
    Closed,
}

#[derive(Deserialize)]
struct OpenedV1 {
    name: String,
}

fn with_owner(OpenedV1 { name }: OpenedV1) -> AccountEvent {
    opened(&name)
}

fn forget(_: serde::de::IgnoredAny) -> Option<AccountEvent> {
    None
}

fn opened(owner: &str) -> AccountEvent {
    AccountEvent::Opened {
        owner: owner.into(),
    }
}

fn deposited(cents: i64) -> AccountEvent {
    AccountEvent::Deposited { cents }
}

fn withdrawn(cents: i64) -> AccountEvent {
    AccountEvent::Withdrawn { cents }
}

fn noted(text: &str, draft: bool) -> AccountEvent {
    AccountEvent::Noted {
        text: text.into(),
        draft,
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Account {
    open: bool,
    cents: i64,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { .. } => self.open = true,
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
            AccountEvent::Noted { .. } | AccountEvent::Limited(_) => {}
            AccountEvent::Closed => self.open = false,
        }
    }
}

#[derive(Debug, PartialEq)]
enum AccountError {
    NotOpen,
    Overdrawn { missing: i64 },
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccountError::NotOpen => f.write_str("the account is not open"),
            AccountError::Overdrawn { missing } => write!(f, "{missing} cents are missing"),
        }
    }
}

impl Account {
    fn deposit(&self, cents: i64) -> Result<AccountEvent, AccountError> {
        if self.open {
            Ok(deposited(cents))
        } else {
            Err(AccountError::NotOpen)
        }
    }

    fn withdraw(&self, cents: i64) -> Result<AccountEvent, AccountError> {
        match cents - self.cents {
            _ if !self.open => Err(AccountError::NotOpen),
            missing if missing > 0 => Err(AccountError::Overdrawn { missing }),
            _ => Ok(withdrawn(cents)),
        }
    }

    fn close(&self) -> Result<Vec<AccountEvent>, AccountError> {
        let rest = (self.cents > 0).then(|| withdrawn(self.cents));
        Ok(rest
            .into_iter()
            .chain(self.open.then_some(AccountEvent::Closed))
            .collect())
    }
}

#[derive(Debug)]
struct Deposit {
    cents: i64,
}

impl Handle<Deposit> for Account {
    type Error = AccountError;

    fn handle(&self, command: &Deposit) -> Result<impl IntoEvents<AccountEvent>, AccountError> {
        self.deposit(command.cents)
    }
}

/// What `f` panics with.
#[track_caller]
fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f))
        .err()
        .expect("it should have panicked");
    *panic.downcast::<String>().unwrap()
}

#[test]
fn an_overdraft_is_refused_and_the_state_stays() {
    let story = Account::given([opened("Alice"), deposited(50)]).when(|a| a.withdraw(80));
    insta::assert_snapshot!(story, @r#"
    given     1  Opened { owner: "Alice" }
              2  Deposited { cents: 50 }

    refused  30 cents are missing
    state    Account { open: true, cents: 50 }
    "#);
    assert_eq!(story.events(), []);
    assert_eq!(story.refusal(), Some("30 cents are missing"));
    assert_eq!(
        story.refusal_as(),
        Some(&AccountError::Overdrawn { missing: 30 })
    );
    assert_eq!(story.refusal_as::<String>(), None);
    assert_eq!(
        story.state(),
        &Account {
            open: true,
            cents: 50
        }
    );
}

#[test]
fn a_story_goes_on_from_step_to_step() {
    let story = Account::given([])
        .step("deposit 50", |a| a.deposit(50))
        .and_given([opened("Alice")])
        .when_command(Deposit { cents: 50 })
        .step("withdraw 80", |a| a.withdraw(80))
        .step("close", Account::close)
        .when(Account::close);
    insta::assert_snapshot!(story, @r#"
    given    nothing

    when     deposit 50
    refused  the account is not open
    state    Account { open: false, cents: 0 }

    given     1  Opened { owner: "Alice" }

    when     Deposit { cents: 50 }
    then      2  Deposited { cents: 50 }
    state    Account { open: true, cents: 50 }

    when     withdraw 80
    refused  30 cents are missing
    state    Account { open: true, cents: 50 }

    when     close
    then      3  Withdrawn { cents: 50 }
              4  Closed
    state    Account { open: false, cents: 0 }

    then     nothing
    state    Account { open: false, cents: 0 }
    "#);
}

#[test]
fn what_was_given_and_changed_nothing_is_marked() {
    let story = Account::given([
        opened("Alice"),
        opened("Alice"),
        noted("vip", false),
        deposited(0),
        deposited(1),
    ]);
    insta::assert_snapshot!(story, @r#"
    given     1  Opened { owner: "Alice" }
              2  Opened { owner: "Alice" }  (changed nothing)
              3  Noted { text: "vip", draft: false }  (changed nothing)
              4  Deposited { cents: 0 }  (changed nothing)
              5  Deposited { cents: 1 }
    state    Account { open: true, cents: 1 }
    "#);
}

#[test]
fn old_shapes_come_through_their_upcasters() {
    let story = Account::given_stored([
        ("account.opened", 1, r#"{"name":"Alice"}"#),
        ("account.clicked", 1, "{}"),
    ])
    .and_given([deposited(50)])
    .when(|a| a.withdraw(50));
    insta::assert_snapshot!(story, @r#"
    given     1  account.opened {"name":"Alice"}
                 reads as Opened { owner: "Alice" }
              2  account.clicked {}
                 reads as nothing
              3  Deposited { cents: 50 }

    then      4  Withdrawn { cents: 50 }
    state    Account { open: true, cents: 0 }
    "#);
}

#[test]
fn a_codec_that_forgets_something_shows() {
    let story =
        Account::given([noted("vip", true)]).when(|_| Ok::<_, AccountError>(noted("gold", true)));
    insta::assert_snapshot!(story, @r#"
    given     1  Noted { text: "vip", draft: true }
                 reads as Noted { text: "vip", draft: false }  (changed nothing)

    then      2  Noted { text: "gold", draft: true }
                 reads as Noted { text: "gold", draft: false }
    state    Account { open: false, cents: 0 }
    "#);
    assert_eq!(story.events(), [noted("gold", false)]);
}

#[test]
fn what_is_long_is_laid_out_over_lines() {
    let story = Account::given([noted(&"a long note ".repeat(9), false)])
        .when(|_| Err::<(), _>("not today:\n  the bank is closed"));
    insta::assert_snapshot!(story, @r#"
    given     1  Noted {
                     text: "a long note a long note a long note a long note a long note a long note a long note a long note a long note ",
                     draft: false,
                 }  (changed nothing)

    refused  not today:
               the bank is closed
    state    Account { open: false, cents: 0 }
    "#);
}

#[test]
fn an_event_that_cannot_be_read_stops_the_story_and_is_named() {
    insta::assert_snapshot!(
        panic_of(|| Account::given_stored([("account.opened", 2, r#"{"owner":"A"}"#), ("account.frozen", 1, "{}")])),
        @r#"
    event 2 that was given, `account.frozen {}`, cannot be read: unknown event type `account.frozen`

    given     1  account.opened v2 {"owner":"A"}
                 reads as Opened { owner: "A" }
    state    Account { open: true, cents: 0 }
    "#
    );
    insta::assert_snapshot!(panic_of(|| Account::given_stored([("account.deposited", 1, r#"{"cents":"x"}"#)])), @r#"
    event 1 that was given, `account.deposited {"cents":"x"}`, cannot be read: malformed payload of event type `account.deposited` v1: invalid type: string "x", expected i64 at line 1 column 12

    state    Account { open: false, cents: 0 }
    "#);
    insta::assert_snapshot!(
        panic_of(|| Account::given([]).when(|_| Ok::<_, String>(AccountEvent::Limited(f64::NAN)))),
        @r"
    event 1 that was decided, `account.limited null`, cannot be read: malformed payload of event type `account.limited` v1: invalid type: null, expected f64 at line 1 column 4

    given    nothing
    "
    );
}

#[test]
fn an_assertion_that_fails_tells_the_whole_story() {
    let story = || Account::given([opened("Alice")]).when(|a| a.deposit(50));
    drop(
        story()
            .assert_events([deposited(50)])
            .when(|a| a.withdraw(51))
            .assert_refused("1 cents are missing"),
    );
    insta::assert_snapshot!(panic_of(|| story().assert_events([deposited(51)])), @r#"
    the last step should have decided
      Deposited { cents: 51 }

    but this happened

    given     1  Opened { owner: "Alice" }

    then      2  Deposited { cents: 50 }
    state    Account { open: true, cents: 50 }
    "#);
    insta::assert_snapshot!(panic_of(|| story().assert_events([])), @r#"
    the last step should have decided
      nothing

    but this happened

    given     1  Opened { owner: "Alice" }

    then      2  Deposited { cents: 50 }
    state    Account { open: true, cents: 50 }
    "#);
    insta::assert_snapshot!(panic_of(|| story().assert_refused("the account is not open")), @r#"
    the last step should have been refused
      the account is not open

    but this happened

    given     1  Opened { owner: "Alice" }

    then      2  Deposited { cents: 50 }
    state    Account { open: true, cents: 50 }
    "#);
}

fn transfer(
    from: &Account,
    to: &Account,
    cents: i64,
) -> Result<(AccountEvent, AccountEvent), AccountError> {
    Ok((from.withdraw(cents)?, to.deposit(cents)?))
}

#[test]
fn a_decision_over_two_aggregates_is_told_whole() {
    let both = || (Account::at("alice"), Account::at("bob"));
    let story = testing::world()
        .given("account-alice", [opened("Alice"), deposited(50)])
        .given("account-bob", [opened("Bob")])
        .given("account-carol", [opened("Carol")])
        .when("alice sends bob 80")
        .decide(both(), |(a, b)| transfer(a, b, 80))
        .assert_refused("30 cents are missing")
        .when("alice sends bob 20")
        .decide(both(), |(a, b)| transfer(a, b, 20))
        .assert_appended("account-bob", [deposited(20)])
        .execute(Account::at("bob"), Deposit { cents: 5 })
        .run(Account::at("bob"), |b| b.withdraw(26))
        .decide(both(), |_| Ok::<_, AccountError>(()));
    insta::assert_snapshot!(story, @r#"
    given     1  account-alice  account.opened v2 {"owner":"Alice"}
              2  account-alice  account.deposited {"cents":50}
              3  account-bob    account.opened v2 {"owner":"Bob"}
              4  account-carol  account.opened v2 {"owner":"Carol"}  (not selected)

    when     alice sends bob 80
    saw      (Account { open: true, cents: 50 }, Account { open: true, cents: 0 })
    refused  30 cents are missing

    when     alice sends bob 20
    saw      (Account { open: true, cents: 50 }, Account { open: true, cents: 0 })
    then      5  account-alice  account.withdrawn {"cents":20}
              6  account-bob    account.deposited {"cents":20}

    when     Deposit { cents: 5 }
    then      7  account-bob    account.deposited {"cents":5}
    state    Account { open: true, cents: 25 }

    refused  1 cents are missing
    state    Account { open: true, cents: 25 }

    saw      (Account { open: true, cents: 30 }, Account { open: true, cents: 25 })
    then     nothing
    "#);
    assert_eq!(story.state(Account::at("bob")).cents, 25);
    assert_eq!(story.appended(), []);
}

#[test]
fn the_same_aggregate_twice_is_no_decision() {
    let twice = (Account::at("alice"), Account::at("alice"));
    let story = testing::world().decide(twice, |(a, b)| transfer(a, b, 1));
    insta::assert_snapshot!(story, @r"refused  `account-alice` appears twice in one decision");
    assert!(matches!(
        story.refusal_as::<CommandError<AccountError>>(),
        Some(CommandError::Invalid(_))
    ));
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "coupon", crate = "annals_core")]
enum CouponEvent {
    Issued {
        #[event(tag = "coupon")]
        code: String,
    },
    Used {
        #[event(tag = "coupon")]
        code: String,
    },
}

fn issued(code: &str) -> CouponEvent {
    CouponEvent::Issued { code: code.into() }
}

fn used(code: &str) -> CouponEvent {
    CouponEvent::Used { code: code.into() }
}

#[derive(Debug, Default)]
struct CouponUse {
    issued: Option<DateTime<Utc>>,
    used: bool,
}

impl Fold for CouponUse {
    type Event = CouponEvent;

    fn apply(&mut self, event: &Recorded<CouponEvent>) {
        match **event {
            CouponEvent::Issued { .. } => self.issued = Some(event.record.occurred_at),
            CouponEvent::Used { .. } => self.used = true,
        }
    }
}

impl CouponUse {
    fn of(code: &str) -> Over<CouponUse> {
        CouponUse::over(Query::tagged([Tag::new("coupon", code).unwrap()]))
    }

    /// It may be used once, until a week after it was issued.
    fn redeem(&self, cart: &'static str, code: &str, now: &str) -> Result<Emit, &'static str> {
        let now: DateTime<Utc> = now.parse().unwrap();
        match self.issued {
            _ if self.used => Err("the coupon was used"),
            Some(issued) if now - issued <= TimeDelta::days(7) => Ok(Emit::to(cart, used(code))),
            _ => Err("the coupon does not hold any more"),
        }
    }
}

#[test]
fn a_decision_over_a_query_says_what_it_selected_and_when_all_happened() {
    let story = testing::world()
        .at("2026-03-01T00:00:00Z")
        .given("coupon-1", [issued("SPRING"), issued("SUMMER")])
        .given_tagged(
            "account-alice",
            [opened("Alice")],
            [Tag::new("coupon", "SPRING").unwrap()],
        )
        .later(TimeDelta::days(7))
        .when("use SPRING within the week")
        .decide(CouponUse::of("SPRING"), |seen| {
            seen.redeem("cart-1", "SPRING", "2026-03-08T00:00:00Z")
        })
        .when("use SPRING again")
        .decide(
            (CouponUse::of("SPRING"), CouponUse::of("WINTER")),
            |(spring, _)| spring.redeem("cart-2", "SPRING", "2026-03-08T00:00:00Z"),
        );
    insta::assert_snapshot!(story, @r#"
    at       2026-03-01T00:00:00Z
    given     1  coupon-1       coupon.issued {"code":"SPRING"}  [coupon:SPRING]
              2  coupon-1       coupon.issued {"code":"SUMMER"}  [coupon:SUMMER]  (not selected)
              3  account-alice  account.opened v2 {"owner":"Alice"}  [coupon:SPRING]  (not selected)

    at       2026-03-08T00:00:00Z
    when     use SPRING within the week
    saw      CouponUse { issued: Some(2026-03-01T00:00:00Z), used: false }
    then      4  cart-1         coupon.used {"code":"SPRING"}  [coupon:SPRING]

    when     use SPRING again
    saw      (CouponUse { issued: Some(2026-03-01T00:00:00Z), used: true }, CouponUse { issued: None, used: false })
    refused  the coupon was used
    "#);
    insta::assert_snapshot!(
        testing::world().given("coupon-1", [issued("SPRING")]).at("2026-01-09T00:00:00Z").decide(
            CouponUse::of("SPRING"),
            |seen| seen.redeem("cart-1", "SPRING", "2026-01-09T00:00:00Z")
        ),
        @r#"
    given     1  coupon-1  coupon.issued {"code":"SPRING"}  [coupon:SPRING]

    at       2026-01-09T00:00:00Z
    saw      CouponUse { issued: Some(2026-01-01T00:00:00Z), used: false }
    refused  the coupon does not hold any more
    "#
    );
}

#[tokio::test]
async fn a_story_of_several_streams_is_also_told_inside_a_runtime() {
    let mut story = testing::world();
    for _ in 0..200 {
        story = story.run(Account::at("a"), |_| Ok::<_, AccountError>(deposited(1)));
    }
    assert_eq!(story.state(Account::at("a")).cents, 200);
    assert!(story.annals().timeline("account-a").await.ends_with(
        r#"200  account-a@200  account.deposited {"cents":1}  occurred 2026-01-01T00:00:00Z"#
    ));
}

#[test]
fn what_a_decision_cannot_read_stops_the_story_and_is_named() {
    let world = || testing::world().given_stored("account-alice", [("account.frozen", 1, "{}")]);
    insta::assert_snapshot!(panic_of(|| world().run(Account::at("alice"), |a| a.deposit(1))), @r"
    cannot read version 1 of stream `account-alice` (position 1, id 00000000-0000-7000-8000-000000000001): unknown event type `account.frozen`

    given     1  account-alice  account.frozen {}
    ");
    insta::assert_snapshot!(panic_of(|| world().given("account-bob", [AccountEvent::Limited(f64::NAN)])), @r"
    what was given in `account-bob`, `account.limited null`, cannot be read: malformed payload of event type `account.limited` v1: invalid type: null, expected f64 at line 1 column 4

    given     1  account-alice  account.frozen {}
    ");
    insta::assert_snapshot!(panic_of(|| world().assert_appended("account-bob", [deposited(5)])), @r"
    the last step should have appended to `account-bob`
      Deposited { cents: 5 }

    but this happened

    given     1  account-alice  account.frozen {}
    ");
    insta::assert_snapshot!(panic_of(|| world().at("yesterday")), @r"`yesterday` is no RFC 3339 time such as 2026-03-31T00:00:00Z");
}

/// A transfer, and what came of it, by Ada.
async fn told_to(db: &Annals) {
    let db = db.with_metadata(Metadata::default().actor("ada").key("ip", "::1"));
    let alice = db.aggregate::<Account>("alice");
    alice
        .run(|_| Ok::<_, AccountError>([opened("Alice"), deposited(50)]))
        .await
        .unwrap();
    let christmas = "2025-12-24T18:00:00Z".parse().unwrap();
    alice
        .run(|a| a.deposit(5))
        .occurred_at(christmas)
        .await
        .unwrap();
    let cause = db.events().pages().next().await.unwrap().unwrap().events[2].clone();
    db.caused_by(&cause)
        .aggregate::<Account>("bob")
        .run(|_| Ok::<_, AccountError>(opened("Bob")))
        .await
        .unwrap();
    let request = Metadata::default()
        .correlation(*annals_core::EventId::random().as_uuid())
        .tenant("north");
    alice
        .run(|a| a.withdraw(9))
        .metadata(request.clone())
        .await
        .unwrap();
    alice
        .run(|a| a.withdraw(1))
        .metadata(request)
        .idempotency_key("again")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_timeline_is_the_same_whatever_the_ids_and_the_clock_are() {
    let random = Annals::in_memory();
    let counted = testing::annals();
    told_to(&random).await;
    told_to(&counted).await;
    let timeline = testing::timeline(&random, "account-alice").await;
    insta::assert_snapshot!(timeline, @r#"
    1  account-alice@1  account.opened v2 {"owner":"Alice"}  {actor: ada, ip: ::1}
    2  account-alice@2  account.deposited {"cents":50}  {actor: ada, correlation: account-alice@1, ip: ::1}
    3  account-alice@3  account.deposited {"cents":5}  occurred 2025-12-24T18:00:00Z  {actor: ada, ip: ::1}
    5  account-alice@4  account.withdrawn {"cents":9}  {actor: ada, tenant: north, correlation: #1, ip: ::1}
    6  account-alice@5  account.withdrawn {"cents":1}  {actor: ada, tenant: north, correlation: #1, ip: ::1}
    "#);
    assert_eq!(testing::timeline(&counted, "account-alice").await, timeline);
    let log = testing::timeline_of_log(&random).await;
    insta::assert_snapshot!(log, @r#"
    1  account-alice@1  account.opened v2 {"owner":"Alice"}  {actor: ada, ip: ::1}
    2  account-alice@2  account.deposited {"cents":50}  {actor: ada, correlation: account-alice@1, ip: ::1}
    3  account-alice@3  account.deposited {"cents":5}  occurred 2025-12-24T18:00:00Z  {actor: ada, ip: ::1}
    4  account-bob@1    account.opened v2 {"owner":"Bob"}  {actor: ada, correlation: account-alice@3, causation: account-alice@3, ip: ::1}
    5  account-alice@4  account.withdrawn {"cents":9}  {actor: ada, tenant: north, correlation: #1, ip: ::1}
    6  account-alice@5  account.withdrawn {"cents":1}  {actor: ada, tenant: north, correlation: #1, ip: ::1}
    "#);
    assert_eq!(testing::timeline_of_log(&counted).await, log);
}

#[tokio::test]
async fn a_timeline_with_a_clock_that_stands_still_tells_its_times() {
    let db = testing::annals();
    told_to(&db).await;
    db.clock().advance(TimeDelta::milliseconds(1_500));
    db.aggregate::<Account>("bob")
        .run(|b| b.deposit(1))
        .await
        .unwrap();
    insta::assert_snapshot!(db.timeline("account-alice").await, @r#"
    1  account-alice@1  account.opened v2 {"owner":"Alice"}  occurred 2026-01-01T00:00:00Z  {actor: ada, ip: ::1}
    2  account-alice@2  account.deposited {"cents":50}  occurred 2026-01-01T00:00:00Z  {actor: ada, correlation: account-alice@1, ip: ::1}
    3  account-alice@3  account.deposited {"cents":5}  occurred 2025-12-24T18:00:00Z, recorded 2026-01-01T00:00:00Z  {actor: ada, ip: ::1}
    5  account-alice@4  account.withdrawn {"cents":9}  occurred 2026-01-01T00:00:00Z  {actor: ada, tenant: north, correlation: #1, ip: ::1}
    6  account-alice@5  account.withdrawn {"cents":1}  occurred 2026-01-01T00:00:00Z  {actor: ada, tenant: north, correlation: #1, ip: ::1}
    "#);
    insta::assert_snapshot!(db.timeline("account-bob").await, @r#"
    4  account-bob@1  account.opened v2 {"owner":"Bob"}  occurred 2026-01-01T00:00:00Z  {actor: ada, correlation: account-alice@3, causation: account-alice@3, ip: ::1}
    7  account-bob@2  account.deposited {"cents":1}  occurred 2026-01-01T00:00:01.500Z
    "#);
}

#[tokio::test]
async fn a_timeline_shows_what_is_hidden_and_says_what_is_gone() {
    let db = testing::annals();
    let account = db.aggregate::<Account>("alice");
    insta::assert_snapshot!(testing::timeline(&db, "account-alice").await, @r"account-alice is absent");
    assert_eq!(testing::timeline_of_log(&db).await, "nothing");
    account
        .run(|_| Ok::<_, AccountError>([opened("Alice"), deposited(50), deposited(1)]))
        .await
        .unwrap();
    account
        .archive(|state| Ok::<_, AccountError>(deposited(state.cents)))
        .await
        .unwrap();
    account
        .run(|_| Ok::<_, AccountError>(deposited(2)))
        .await
        .unwrap();
    account.truncate_before(5).await.unwrap();
    insta::assert_snapshot!(testing::timeline(&db, "account-alice").await, @r#"
    4  account-alice@4  account.deposited {"cents":51}  (hidden)
    5  account-alice@5  account.deposited {"cents":2}
    account-alice has no events before version 4 any more
    "#);
    account.tombstone().await.unwrap();
    insta::assert_snapshot!(testing::timeline(&db, "account-alice").await, @r#"
    4  account-alice@4  account.deposited {"cents":51}  (hidden)
    5  account-alice@5  account.deposited {"cents":2}  (hidden)
    account-alice has no events before version 4 any more
    account-alice is tombstoned at 5
    "#);
}

#[tokio::test]
async fn a_timeline_tells_partitions_and_bytes() {
    let db = Annals::on(std::sync::Arc::new(MemoryStore::with_partitions(3)));
    for (stream, event) in [
        (
            "note-1",
            NewEvent::new("noted", "raw", b"\xff\x00".as_slice()),
        ),
        (
            "note-2",
            NewEvent::json("noted", b"1".as_slice())
                .schema_version(2)
                .tag("of:ada".parse().unwrap()),
        ),
        ("note-33", NewEvent::json("noted", b"\n2".as_slice())),
    ] {
        let stream = StreamId::new(stream).unwrap();
        let event = event.at("2026-01-01T00:00:00.25Z".parse().unwrap());
        db.store()
            .append(annals_core::Append::new(stream, [event]))
            .await
            .unwrap();
    }
    insta::assert_snapshot!(testing::timeline_of_log(&db).await, @r"
    0/1  note-1@1   noted raw 0xff00  occurred 2026-01-01T00:00:00.250Z
    2/1  note-2@1   noted v2 1  [of:ada]  occurred 2026-01-01T00:00:00.250Z
    2/2  note-33@1  noted json 0x0a32  occurred 2026-01-01T00:00:00.250Z
    ");
}

/// What is wrong with it is that a map in no order prints differently each time.
mod unstable {
    use std::collections::HashMap;

    use super::*;

    #[derive(Event, Clone, Debug, Serialize, Deserialize)]
    #[event(category = "box", crate = "annals_core")]
    pub(super) enum BoxEvent {
        Put { thing: String },
        Listed { things: HashMap<String, u8> },
    }

    #[derive(Debug, Default)]
    pub(super) struct Things {
        things: HashMap<String, u8>,
    }

    impl Aggregate for Things {
        type Event = BoxEvent;

        fn apply(&mut self, event: &BoxEvent) {
            if let BoxEvent::Put { thing } = event {
                self.things.insert(thing.clone(), 1);
            }
        }
    }

    pub(super) fn put(thing: &str) -> BoxEvent {
        BoxEvent::Put {
            thing: thing.into(),
        }
    }
}

#[test]
fn a_state_or_event_that_prints_in_no_order_fails() {
    use unstable::{BoxEvent, Things, put};

    let things = ["a", "b", "c", "d"];
    let panic = panic_of(|| Things::given(things.map(put)));
    assert!(panic.contains("take a `BTreeMap` or `BTreeSet`"), "{panic}");
    let listed = BoxEvent::Listed {
        things: things.map(|thing| (thing.to_owned(), 1)).into(),
    };
    let panic = panic_of(|| Things::given([listed]));
    assert!(
        panic.contains("event 1 that was given prints differently"),
        "{panic}"
    );
    assert_eq!(
        Things::given([put("a")]).to_string(),
        "given     1  Put { thing: \"a\" }\nstate    Things { things: {\"a\": 1} }"
    );
}

/// An event with as many tags as it has words.
#[derive(Event, Clone, Debug, Serialize, Deserialize)]
#[event(category = "page", crate = "annals_core")]
struct Page {
    #[event(tag = "word")]
    words: Vec<u32>,
    text: String,
}

#[derive(Debug, Default)]
struct Pages(usize);

impl Aggregate for Pages {
    type Event = Page;

    fn apply(&mut self, _: &Page) {
        self.0 += 1;
    }
}

#[test]
fn a_story_refuses_what_every_store_refuses() {
    let page = |words: u32, bytes: usize| Page {
        words: (0..words).collect(),
        text: "x".repeat(bytes),
    };
    let panic = panic_of(|| Pages::given([page(70, 0)]));
    assert!(
        panic.contains("has 70 tags, at most 64 are allowed"),
        "{panic}"
    );
    let panic = panic_of(|| Pages::given([page(0, 20_000_000)]));
    assert!(panic.contains("bytes of payload, at most"), "{panic}");
    let panic =
        panic_of(|| Pages::given([page(64, 1)]).when(|_| Ok::<_, String>(page(0, 20_000_000))));
    assert!(
        panic.contains("no store accepts what was decided"),
        "{panic}"
    );
}

#[test]
fn what_a_terminal_would_act_on_is_escaped() {
    let story = Account::given([opened("Ada")])
        .when(|_| Err::<AccountEvent, _>("\u{1b}[31mred\0\u{202e}desrever"));
    insta::assert_snapshot!(story, @r#"
    given     1  Opened { owner: "Ada" }

    refused  \u{1b}[31mred\0\u{202e}desrever
    state    Account { open: true, cents: 0 }
    "#);
}
