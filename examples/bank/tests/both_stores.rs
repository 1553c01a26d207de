//! The bank prints the same on SQLite and on PostgreSQL.

/// Skipped by this name where there is no server.
pub(crate) mod on_postgres {
    use annals::EventId;
    use annals::postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection};

    use crate::tests::printed::{QUESTIONS, printed};

    /// A schema that no other test has.
    pub(crate) struct Schema {
        server: String,
        name: String,
    }

    impl Schema {
        pub(crate) fn new() -> Schema {
            let server = std::env::var("ANNALS_TEST_POSTGRES").expect(
                "this test needs a PostgreSQL server: `cargo xtask test` makes one, or set \
                 ANNALS_TEST_POSTGRES",
            );
            Schema {
                server,
                name: format!("bank_{}", EventId::random().as_uuid().simple()),
            }
        }

        pub(crate) fn url(&self) -> String {
            let more = if self.server.contains('?') { '&' } else { '?' };
            format!("{}{more}schema={}", self.server, self.name)
        }

        pub(crate) async fn remove(self) {
            let drop = format!("drop schema if exists \"{}\" cascade", self.name);
            let mut connection = PgConnection::connect(&self.server).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(drop))
                .execute(&mut connection)
                .await
                .unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_bank_prints_the_same_on_both_stores() {
        let schema = Schema::new();
        let postgres = schema.url();
        let directory = tempfile::tempdir().unwrap();
        let sqlite = format!("sqlite:{}", directory.path().join("bank.db").display());
        for question in QUESTIONS {
            let expected = printed(question, &sqlite).await;
            let found = printed(question, &postgres).await;
            assert_eq!(found, expected, "{question:?}");
            assert!(!found.is_empty(), "{question:?} was not answered");
        }
        schema.remove().await;
    }
}
