//! The bank says the same on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.
#![cfg(all(feature = "sqlite", feature = "postgres", feature = "projections"))]

/// Left out by this name where there is no server.
mod on_postgres {
    use std::process::Command;

    use annals::EventId;
    use annals::postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection};

    /// What is asked, one after another.
    const QUESTIONS: [&[&str]; 11] = [
        &["import", "examples/data/berka-excerpt.asc"],
        &["import", "examples/data/berka-excerpt.asc"],
        &["history", "576"],
        &["history", "nobody"],
        &["balances"],
        &["balances", "--as-of", "1993-06-30", "--format", "csv"],
        &["balances", "--known-at", "1999-01-01"],
        &["statements", "576"],
        &["statements", "576", "--month", "1993-05"],
        &["volume", "--from", "1993-03-01"],
        &["rebuild"],
    ];

    /// Everything that the bank prints, with what differs from run to run taken out: the store's
    /// own name, times, rates.
    fn said(question: &[&str], store: &str, shown: &str) -> String {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo)
            .args([
                "run",
                "--quiet",
                "--all-features",
                "--example",
                "bank",
                "--",
            ])
            .args(question)
            .args(["--store", store])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .concat();
        assert!(!said.contains("panicked"), "{question:?}: {said}");
        let said = said.replace(store, "STORE").replace(shown, "STORE");
        let lines = said.lines().map(|line| match question[0] {
            "import" => line
                .split_once(", in ")
                .map_or(line, |(before, _)| before)
                .to_owned(),
            // How long it took stands in the middle.
            "rebuild" => {
                let (before, after) = line.split_once(" in ").unwrap_or((line, ""));
                format!(
                    "{before}{}",
                    after.split_once("/s)").map_or(after, |(_, after)| after)
                )
            }
            // The column of the time at which it was recorded.
            "history" if line.ends_with(" UTC") => {
                line[..line.len() - "2026-03-31 12:00:00.000 UTC".len()].to_owned()
            }
            _ => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// A schema that is dropped at the end.
    struct Schema(String);

    impl Schema {
        async fn new() -> (Schema, String) {
            let url = std::env::var("ANNALS_TEST_POSTGRES").expect(
                "this test needs a PostgreSQL server: `cargo xtask test` makes one, or set \
                 ANNALS_TEST_POSTGRES",
            );
            let name = format!("bank_{}", EventId::random().as_uuid().simple());
            let store = format!(
                "{url}{}schema={name}",
                if url.contains('?') { "&" } else { "?" }
            );
            (Schema(name), store)
        }

        async fn drop(self) {
            let mut connection =
                PgConnection::connect(&std::env::var("ANNALS_TEST_POSTGRES").unwrap())
                    .await
                    .unwrap();
            let drop = format!("drop schema if exists \"{}\" cascade", self.0);
            sqlx::raw_sql(AssertSqlSafe(drop))
                .execute(&mut connection)
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn the_bank_says_the_same_on_both() {
        let directory = tempfile::tempdir().unwrap();
        let sqlite = format!("sqlite:{}", directory.path().join("bank.db").display());
        let (schema, postgres) = Schema::new().await;
        let (scheme, rest) = postgres.split_once("://").unwrap();
        let shown = format!(
            "{scheme}://{}",
            rest.rsplit_once('@').map_or(rest, |(_, place)| place)
        );
        for question in QUESTIONS {
            let expected = said(question, &sqlite, &sqlite);
            let found = said(question, &postgres, &shown);
            assert_eq!(found, expected, "{question:?}");
            assert!(!found.is_empty(), "{question:?} was not answered");
        }
        schema.drop().await;
    }
}
