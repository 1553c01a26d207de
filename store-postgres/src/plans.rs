//! Nothing that an index finds scans the log: how the server plans the statements of readers on a
//! million events, for the parameters given and for any.

mod views;

use std::sync::Arc;

use annals_core::{Direction, Filter, Query, QueryItem, Tag};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, query_scalar, raw_sql};

use crate::copied::Copied;
use crate::database::Database;
use crate::query_plan::{Search, Wanted, hash};
use crate::store::PostgresStore;
use crate::{Options, statements as sql};

/// A log in which some things are frequent and some are rare, made by the server itself.
const MANY: &str = "
    insert into annals.category (key, name) values (1, 'account'), (2, 'cart'), (3, 'rare');
    insert into annals.kind (key, type, schema_version, codec, category)
    select n, 'type' || n, 1, 'json', case when n = 12 then 3 else n % 2 + 1 end
    from generate_series(1, 12) as n;
    insert into annals.stream (name) select 'account-' || n from generate_series(1, 20000) as n;
    insert into annals.event
    select
        n, (n - 1) % 20000 + 1, (n - 1) / 20000 + 1,
        case when n % 9973 = 0 then 12 else n % 11 + 1 end, 0, 1, n, n, gen_random_uuid(),
        gen_random_uuid(), 'seven:' || n % 7 || E'\\n' || 'user:' || n % 50000, null, '{}'
    from generate_series(1, 1000000) as n;
    insert into annals.event_tag select HASH_SEVEN, n from generate_series(1, 1000000) as n
    where n % 7 = 3;
    insert into annals.event_tag select n % 50000, n from generate_series(1, 1000000) as n;
    analyze annals.event; analyze annals.event_tag; analyze annals.stream;
    analyze annals.kind; analyze annals.category;
";

/// Tables that no page may look through from one end to the other.
const LARGE: [&str; 3] = ["event", "event_tag", "stream"];

/// For the parameters given, and for any.
const MODES: [&str; 2] = ["force_custom_plan", "force_generic_plan"];

/// A schema of its own, dropped at the end.
struct Large {
    options: Options,
    connection: PgConnection,
    database: Arc<Database>,
}

impl Large {
    /// With what these statements put there.
    async fn with(fill: &str) -> Large {
        let url = std::env::var("ANNALS_TEST_POSTGRES").expect(
            "this test needs a PostgreSQL server: `cargo xtask test` makes one, or set \
             ANNALS_TEST_POSTGRES to the URL of a database \
             in which it may make and drop schemas",
        );
        let schema = format!("test_{}", uuid::Uuid::now_v7().simple());
        let options: Options = url.parse::<Options>().unwrap().schema(schema).unwrap();
        PostgresStore::migrate(options.clone()).await.unwrap();
        let mut connection = PgConnection::connect_with(&options.connect).await.unwrap();
        let database = Database::new(&options);
        raw_sql(database.named(fill))
            .execute(&mut connection)
            .await
            .unwrap();
        Large {
            options,
            connection,
            database,
        }
    }

    async fn plan(&mut self, mode: &str, explain: &str, text: &str, parameters: &str) -> String {
        let text = self.database.named(text);
        let prepare = format!(
            "set plan_cache_mode = {mode}; prepare asked as {}",
            text.as_str()
        );
        raw_sql(AssertSqlSafe(prepare))
            .execute(&mut self.connection)
            .await
            .unwrap();
        let parameters = if parameters.is_empty() {
            String::new()
        } else {
            format!("({parameters})")
        };
        let explain = format!("{explain} execute asked {parameters}");
        let plan: Vec<String> = query_scalar(AssertSqlSafe(explain))
            .persistent(false)
            .fetch_all(&mut self.connection)
            .await
            .unwrap();
        raw_sql("deallocate asked")
            .execute(&mut self.connection)
            .await
            .unwrap();
        plan.join("\n")
    }

    /// Ends it, and fails when something was wrong.
    async fn end(mut self, wrong: &[String]) {
        let drop = format!("drop schema \"{}\" cascade", self.options.schema_name());
        raw_sql(AssertSqlSafe(drop))
            .execute(&mut self.connection)
            .await
            .unwrap();
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }
}

fn page(wanted: &[Wanted<'_>], direction: Direction) -> String {
    Search::new(0, 0, direction, 100)
        .unwrap()
        .page(wanted, 1 << 20)
        .unwrap()
        .0
}

fn backward(statement: &str) -> String {
    statement.replace("/*desc*/", "desc")
}

fn copied(types: &[String]) -> String {
    Copied {
        after: 900_000,
        up_to: 1_000_000,
        limit: 100,
        payload_bytes: 4096,
        types,
    }
    .statement(&[2, 3])
}

#[tokio::test]
async fn pages_of_a_million_events_come_from_indexes() {
    let hash_of_seven = hash(&"seven:3".parse().unwrap()).to_string();
    let mut large = Large::with(&MANY.replace("HASH_SEVEN", &hash_of_seven)).await;
    let range = "900000, 1000000";
    let seven: Tag = "seven:3".parse().unwrap();
    let user: Tag = "user:77".parse().unwrap();
    let category = Filter::default().category("cart");
    let prefix = Filter::default().stream_prefix("account-77");
    let types = Filter::default().types(["type12", "type3"]);
    let both = Query::tagged([seven.clone(), user.clone()]);
    let boundary =
        Query::tagged([user.clone()]).or(QueryItem::types(["type12"]).tag(seven.clone()));
    let stream = Query::stream(annals_core::StreamId::new("account-7").unwrap());
    let h7 = hash(&seven);
    let h77 = hash(&user);
    let cases: Vec<(&str, String, String)> = vec![
        (
            "the log",
            sql::LOG_PAGE.into(),
            format!("{range}, 100, 1000000"),
        ),
        (
            "the log, from its end",
            backward(sql::LOG_PAGE),
            format!("{range}, 100, 1000000"),
        ),
        (
            "small payloads",
            sql::LOG_PAGE_SMALL.into(),
            format!("{range}, 100, 4096"),
        ),
        (
            "small payloads, from the end",
            backward(sql::LOG_PAGE_SMALL),
            format!("{range}, 100, 4096"),
        ),
        (
            "common types",
            sql::LOG_PAGE_KINDS.into(),
            format!("{range}, 100, 4096, array['account.deposited']"),
        ),
        ("a long page", copied(&[]), String::new()),
        (
            "a long page of common types",
            copied(&["account.deposited".to_owned()]),
            String::new(),
        ),
        (
            "a stream",
            sql::STREAM_PAGE.into(),
            "'account-7', 1, 50, false, 100, 1000000".into(),
        ),
        (
            "a stream, from its end",
            backward(sql::STREAM_PAGE),
            "'account-7', 1, 50, false, 100, 1000000".into(),
        ),
        (
            "the state of a stream",
            sql::STREAM.into(),
            "'account-7'".into(),
        ),
        (
            "an id",
            sql::KNOWN_IDS.into(),
            "array[gen_random_uuid()]::uuid[]".into(),
        ),
        ("a moment", sql::POSITION_AT.into(), "500000".into()),
        ("the head", sql::HEAD.into(), String::new()),
        (
            "a category",
            page(&[Wanted::by_filter(&category)], Direction::Forward),
            format!("{range}, array['cart'], array['cart'], 1000000"),
        ),
        (
            "a category, from its end",
            page(&[Wanted::by_filter(&category)], Direction::Backward),
            format!("{range}, array['cart'], array['cart'], 1000000"),
        ),
        (
            "types",
            page(&[Wanted::by_filter(&types)], Direction::Forward),
            format!("{range}, array['type12', 'type3'], 1000000"),
        ),
        (
            "names that begin alike",
            page(&[Wanted::by_filter(&prefix)], Direction::Forward),
            format!("{range}, array['account-77'], 1000000"),
        ),
        (
            "two tags",
            page(&Wanted::by_query(&both), Direction::Forward),
            format!("{range}, {h7}, {h77}, array['seven:3', 'user:77'], 1000000"),
        ),
        (
            "a decision",
            page(&Wanted::by_query(&boundary), Direction::Forward),
            format!(
                "{range}, {h77}, array['user:77'], {h7}, array['seven:3'], array['type12'], 1000000"
            ),
        ),
        (
            "a stream by a query",
            page(&Wanted::by_query(&stream), Direction::Forward),
            format!("{range}, array['account-7'], 1000000"),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, text, parameters) in &cases {
        for mode in MODES {
            let plan = large.plan(mode, "explain", text, parameters).await;
            if plan.lines().any(|line| {
                LARGE
                    .iter()
                    .any(|table| line.contains(&format!("Seq Scan on {table} ")))
            }) {
                wrong.push(format!("{name} ({mode}):\n{plan}"));
            }
        }
    }
    large.end(&wrong).await;
}
