//! Asking a table of the past by hand: one select, and the row read with serde_json.

use std::time::Instant;

use annals_postgres::sqlx;

use crate::Outcome;
use crate::latency::Laps;
use crate::past::{Answers, Questions};
use crate::server::Schema;

/// Asks the history that [`rebuild`](super::rebuild) left.
///
/// # Errors
///
/// Those of the server and serde_json.
pub async fn ask(views: &Schema, questions: &Questions) -> Outcome<Answers> {
    let mut connection = views.connection().await?;
    let mut laps = Laps::start();
    let mut answers = Answers::default();
    for (number, position) in questions.make() {
        let start = Instant::now();
        let select = sqlx::query_scalar(views.sql(include_str!("../sql/sqlx_version_at.sql")))
            .bind(number.to_string().into_bytes())
            .bind(position.get().cast_signed());
        let value: Option<Vec<u8>> = select.fetch_optional(&mut connection).await?;
        let row = value
            .map(|value| serde_json::from_slice(&value))
            .transpose()?;
        laps.took(start);
        answers.take(row.as_ref());
    }
    Ok(Answers {
        latencies: laps.stop(),
        ..answers
    })
}
