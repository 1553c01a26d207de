//! What a story of one aggregate prints, and how it fails.

use crate::account::*;
use annals_core::testing::Given;

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
fn an_unreadable_event_stops_the_story_and_is_named() {
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
    event 1 that was decided, Limited(NaN), cannot be written: cannot write event `account.limited`: it is NaN, which JSON has no form for: it is not read back as it was written

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
