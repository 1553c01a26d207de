//! What can never work is an error that names the thing, and nothing is written.

use std::collections::BTreeMap;

use annals_core::{
    Aggregate, Annals, Append, AppendError, Checkpoint, Clock as _, CommandError, EncodeError,
    Generation, GenerationId, GenerationSpec, Lease, LoadError, LogId, Metadata, NewEvent,
    Partition, Phase, Position, StreamId, SystemClock, ViewCommit,
};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

use crate::bank::{Account, transfer};
use crate::store::{head, processes, told};

#[derive(Event, Clone, Debug, Serialize, Deserialize)]
#[event(category = "thing", crate = "annals_core")]
enum ThingEvent {
    Named {
        #[event(tag)]
        name: String,
    },
    Mapped(BTreeMap<(u8, u8), u8>),
    Filled(Vec<u8>),
    /// Written as a number, read as a text.
    Changeling(#[serde(serialize_with = "as_number")] String),
}

fn as_number<S: serde::Serializer>(_: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u8(7)
}

#[derive(Debug, Default)]
struct Thing;

impl Aggregate for Thing {
    type Event = ThingEvent;

    fn apply(&mut self, _: &ThingEvent) {}
}

async fn refused(db: &Annals, id: &str, events: Vec<ThingEvent>) -> CommandError<String> {
    let error = db
        .aggregate::<Thing>(id)
        .run(|_| Ok::<_, String>(events.clone()))
        .await
        .unwrap_err();
    assert_eq!(head(db).await, 0, "{error}");
    error
}

fn named(name: &str) -> ThingEvent {
    ThingEvent::Named { name: name.into() }
}

#[tokio::test]
async fn an_id_that_is_no_legal_name() {
    let [db] = processes();
    for (id, said) in [
        ("x".repeat(250), "has 256 bytes, at most 255 are allowed"),
        ("é".repeat(125), "has 256 bytes, at most 255 are allowed"),
        ("a\nb".into(), "holds a control character"),
    ] {
        let told = |error: &dyn std::error::Error| {
            let text = error.to_string();
            assert!(text.contains(said) && text.contains("thing-"), "{text}");
        };
        let error = refused(&db, &id, vec![named("n")]).await;
        assert!(matches!(error, CommandError::Invalid(_)));
        told(&error);
        let thing = db.aggregate::<Thing>(&id);
        told(&thing.load().await.unwrap_err());
        told(&thing.history().await.unwrap_err());
        told(&thing.query(|_| ()).await.unwrap_err());
        told(&thing.delete().await.unwrap_err());
        told(&thing.stream().unwrap_err());
        let decided = db
            .decide((Thing::at(&id),), |_| Ok::<_, String>((named("n"),)))
            .await;
        told(&decided.unwrap_err());
    }
    assert!(
        db.aggregate::<Thing>("x".repeat(249))
            .run(|_| Ok::<_, String>(named("n")))
            .await
            .is_ok()
    );
}

/// Of a category that is reserved.
#[derive(Event, Clone, Debug, Serialize, Deserialize)]
#[event(category = "plain", crate = "annals_core")]
struct Happened;

#[tokio::test]
async fn a_reserved_name_and_an_empty_one() {
    let [db] = processes();
    for (stream, said) in [
        ("$secret-1", "reserved"),
        ("", "empty"),
        ("a\u{0}", "control character"),
    ] {
        let emit =
            |_: &(Account,)| Ok::<_, String>(annals_core::Emit::to(stream.to_owned(), Happened));
        let error = db.decide((Account::at("alice"),), emit).await.unwrap_err();
        assert!(
            matches!(error, CommandError::Invalid(_)) && error.to_string().contains(said),
            "{error}"
        );
    }
    assert_eq!(head(&db).await, 0);
}

#[tokio::test]
async fn an_event_that_cannot_be_written() {
    let [db] = processes();
    let map = ThingEvent::Mapped([((1, 2), 3)].into());
    for (event, said) in [
        (
            map.clone(),
            "cannot write event `thing.mapped`: key must be a string",
        ),
        (
            named(""),
            "cannot write event `thing.named`: tag `name:` has an empty key or value",
        ),
        (
            named("a\tb"),
            "cannot write event `thing.named`: tag `name:a\\tb` holds a control character",
        ),
        (
            ThingEvent::Changeling("x".into()),
            "event `thing.changeling` cannot be read back as it is written: \
             malformed payload of event type `thing.changeling` v1: invalid type: integer `7`, \
             expected a string at line 1 column 1",
        ),
    ] {
        // The last of several: the ones before it are not written either.
        let error = refused(&db, "1", vec![named("fine"), event.clone()]).await;
        assert!(matches!(error, CommandError::Encode(_)));
        assert_eq!(told(&error), said);
        if !matches!(event, ThingEvent::Changeling(_)) {
            let decided = db.decide((Thing::at(1), Thing::at(2)), |_| {
                Ok::<_, String>((named("fine"), event.clone()))
            });
            assert_eq!(
                (told(&decided.await.unwrap_err()), head(&db).await),
                (said.into(), 0)
            );
        }
    }
    let tagged = NewEvent::of(&named(&"x".repeat(300))).unwrap_err();
    assert!(
        matches!(tagged, EncodeError::Invalid { .. })
            && told(&tagged).contains("longer than 255 bytes")
    );
}

#[tokio::test]
async fn too_much_of_something() {
    let [db] = processes();
    let error = refused(&db, "1", vec![ThingEvent::Filled(vec![0; 10 << 20])]).await;
    assert_eq!(
        error.to_string(),
        "event 0 (`thing.filled`) has 20971521 bytes of payload, at most 16777216 are allowed"
    );
    let error = refused(&db, "1", vec![named("n"); 10_001]).await;
    assert_eq!(
        error.to_string(),
        "an append of 10001 events, at most 10000 are allowed"
    );
    let metadata = Metadata::default().key("k", "x".repeat(70_000));
    let large = db
        .aggregate::<Thing>(1)
        .run(|_| Ok::<_, String>(named("n")))
        .metadata(metadata)
        .await
        .unwrap_err();
    assert!(large.to_string().contains("bytes of metadata"), "{large}");
    assert_eq!(head(&db).await, 0);
}

#[tokio::test]
async fn a_stream_that_holds_what_cannot_be_read() {
    for (event, said) in [
        (
            NewEvent::json("account.frozen", "{}"),
            "unknown event type `account.frozen`",
        ),
        (
            NewEvent::json("account.deposited", "{}").schema_version(2),
            "unknown schema version 2 of event type `account.deposited`",
        ),
        (
            NewEvent::new("account.deposited", "cbor", "x"),
            "unknown codec `cbor` of event type `account.deposited`",
        ),
        (
            NewEvent::json("account.deposited", "{\"cents\":1} and more"),
            "malformed payload of event type `account.deposited` v1: trailing characters at line 1 \
             column 13",
        ),
    ] {
        let [db] = processes();
        let alice = db.aggregate::<Account>("alice");
        alice.run(|a| a.deposit(5)).await.unwrap();
        let stream = StreamId::new("account-alice").unwrap();
        let id = event.id;
        db.store()
            .append(Append::new(stream, [event]))
            .await
            .unwrap();
        let whole = format!(
            "cannot read version 2 of stream `account-alice` (position 2, id {id}): {said}"
        );
        let error = alice.load().await.unwrap_err();
        assert!(matches!(error, LoadError::Undecodable(_)));
        assert_eq!(told(&error), whole);
        // Also to the command whose state was cached, and to decisions: nothing is decided without
        // it.
        assert_eq!(told(&alice.run(|a| a.deposit(1)).await.unwrap_err()), whole);
        assert_eq!(told(&alice.query(|a| a.cents).await.unwrap_err()), whole);
        let both = (Account::at("alice"), Account::at("bob"));
        assert_eq!(
            told(
                &db.decide(both, |(a, b)| transfer(a, b, 1))
                    .await
                    .unwrap_err()
            ),
            whole
        );
        assert_eq!(head(&db).await, 2);
        // What was before it can be asked for.
        assert_eq!(alice.load().at_version(1).await.unwrap().cents, 5);
    }
}

#[tokio::test]
async fn the_same_aggregate_twice_in_one_decision() {
    let [db] = processes();
    db.aggregate::<Account>("alice")
        .run(|a| a.deposit(5))
        .await
        .unwrap();
    let twice = (
        Account::at("alice"),
        Account::at("bob"),
        Account::at("alice"),
    );
    let error = db
        .decide(twice, |(a, b, _)| {
            transfer(a, b, 1).map(|(a, b)| (a, b, ()))
        })
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "`account-alice` appears twice in one decision"
    );
    assert!(matches!(error, CommandError::Invalid(_)));
    assert_eq!(head(&db).await, 1);
}

#[tokio::test]
async fn a_refusal_by_a_store_keeps_its_text() {
    let [db] = processes();
    let error = db
        .store()
        .append(Append::new(StreamId::new("a-1").unwrap(), []))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, AppendError::Invalid(_))
            && error.to_string() == "an append without events"
    );
}

#[tokio::test]
async fn no_text_of_an_error_takes_over_the_terminal() {
    let bad = "x\n\u{1b}[2J";
    let [db] = processes();
    let long = format!("{bad}{}", "x".repeat(300));
    let mut said = Vec::new();
    for name in [bad, &long, "$x\n", "\n"] {
        said.extend(StreamId::new(name).err());
        said.extend(StreamId::any(name).err());
        said.extend(StreamId::of(name, 1).err());
        said.extend(StreamId::of(&format!("a-{name}"), 1).err());
        said.extend(StreamId::of("a", name).err());
        said.extend(annals_core::Tag::new(name, "v").err());
        said.extend(annals_core::Tag::new(format!("{name}:"), name).err());
        said.extend(name.parse::<annals_core::Tag>().err());
        said.extend(name.parse::<annals_core::Token>().err());
        said.extend(name.parse::<annals_core::EventId>().err());
        said.extend(annals_core::Instant::from(name).time().err());
    }
    let mut texts: Vec<String> = said.iter().map(ToString::to_string).collect();
    texts.push(db.drop_follower(bad).await.unwrap_err().to_string());
    texts.push(
        db.aggregate::<Account>(bad)
            .load()
            .await
            .unwrap_err()
            .to_string(),
    );
    let to = StreamId::new("a-1").unwrap();
    let wrong = Append::new(to, [NewEvent::json(bad, "1")]);
    texts.push(db.store().append(wrong).await.unwrap_err().to_string());
    let wrong = refused(&db, "a", vec![named(bad)]).await;
    texts.push(annals_core::with_causes(&wrong).to_string());
    let decided = db.decide((Account::at_each(["a"]),), |_| {
        Ok::<_, String>((vec![(bad, crate::bank::deposited(1))],))
    });
    texts.push(decided.await.unwrap_err().to_string());
    assert_eq!(texts.len(), said.len() + 5);
    for text in texts {
        assert!(!text.contains(['\n', '\u{1b}']), "{text:?}");
    }
}

#[test]
fn a_step_in_a_later_partition_needs_an_accepted_growth() {
    let spec = GenerationSpec::new("balances", 1, LogId::random());
    let now = SystemClock.now();
    let generation = Generation::new(GenerationId(1), spec, Phase::Live, now, Position::MAX);
    let lease = Lease {
        name: generation.lease_name(0),
        owner: "a".into(),
        epoch: 1,
    };
    let to = Checkpoint::start(0, Partition(1));
    let mut step = ViewCommit::new(generation.id, lease, Position::START, to);
    let refused = step.check(&generation).unwrap_err().to_string();
    assert_eq!(refused, "there is no partition 1, generation 1 has 1");
    step.partitions = Some(2);
    assert!(step.check(&generation).is_ok());
    step.to.partition = Partition(2);
    assert!(step.check(&generation).is_err());
}
