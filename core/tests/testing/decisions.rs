//! What a story of a decision over several streams prints.

use crate::account::*;
use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::testing::{self};
use annals_core::{Aggregate, CommandError, Emit, Fold, Over, Query, Recorded, Tag};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

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
fn a_decision_over_a_query_names_its_selection_and_times() {
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
async fn a_story_of_several_streams_runs_inside_a_runtime() {
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
fn an_event_that_a_decision_cannot_read_is_named() {
    let world = || testing::world().given_stored("account-alice", [("account.frozen", 1, "{}")]);
    insta::assert_snapshot!(panic_of(|| world().run(Account::at("alice"), |a| a.deposit(1))), @r"
    cannot read version 1 of stream `account-alice` (position 1, id 00000000-0000-7000-8000-000000000001): unknown event type `account.frozen`

    given     1  account-alice  account.frozen {}
    ");
    insta::assert_snapshot!(panic_of(|| world().given("account-bob", [AccountEvent::Limited(f64::NAN)])), @r"
    what was given in `account-bob` cannot be written: cannot write event `account.limited`: it is NaN, which JSON has no form for: it is not read back as it was written

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
