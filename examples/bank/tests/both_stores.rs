//! The bank prints the same on SQLite and on PostgreSQL.

/// Skipped by this name where there is no server.
mod on_postgres {
    use annals::EventId;
    use annals::postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection};

    use crate::tests::printed::{QUESTIONS, printed};

    #[tokio::test(flavor = "multi_thread")]
    async fn the_bank_prints_the_same_on_both_stores() {
        let server = std::env::var("ANNALS_TEST_POSTGRES").expect(
            "this test needs a PostgreSQL server: `cargo xtask test` makes one, or set \
             ANNALS_TEST_POSTGRES",
        );
        let schema = format!("bank_{}", EventId::random().as_uuid().simple());
        let more = if server.contains('?') { '&' } else { '?' };
        let postgres = format!("{server}{more}schema={schema}");
        let directory = tempfile::tempdir().unwrap();
        let sqlite = format!("sqlite:{}", directory.path().join("bank.db").display());
        for question in QUESTIONS {
            let expected = printed(question, &sqlite).await;
            let found = printed(question, &postgres).await;
            assert_eq!(found, expected, "{question:?}");
            assert!(!found.is_empty(), "{question:?} was not answered");
        }
        let drop = format!("drop schema if exists \"{schema}\" cascade");
        let mut connection = PgConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(drop))
            .execute(&mut connection)
            .await
            .unwrap();
    }
}
