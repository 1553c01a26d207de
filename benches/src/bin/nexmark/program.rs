//! The pipelines over one log, and their rows as text.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use annals::MemoryStore;
use annals::pipeline::Time;
use annals::prelude::*;

use crate::market::Market;
use crate::{joins, queries, rows};

const TIMEOUT: Duration = Duration::from_secs(600);

/// The rows of all queries in their order, each sorted.
pub(crate) async fn rows_of_all(market: &Market) -> Result<Vec<Vec<String>>, Box<dyn Error>> {
    let db = Annals::on(Arc::new(MemoryStore::new()));
    market.append_to(&**db.store()).await?;
    let db = db.with(queries::queries());
    let db = db.with(joins::queries(market.longest_ms()));
    let db = db.start_in_background().await?;
    let done = db.advance_clock(Time::MAX).await?;
    for name in ["nexmark", "nexmark-joins"] {
        let pipeline = db.pipeline(name).ok_or("the program has its pipelines")?;
        pipeline.wait_for(done.clone(), TIMEOUT).await?;
    }
    let all = vec![
        rows::of::<queries::Q0>(&db).await?,
        rows::of::<queries::Q1>(&db).await?,
        rows::of::<queries::Q2>(&db).await?,
        rows::of::<joins::Q3>(&db).await?,
        rows::of::<joins::Q4>(&db).await?,
        rows::of::<queries::Q5>(&db).await?,
        rows::of::<queries::Q7>(&db).await?,
        rows::of::<joins::Q8>(&db).await?,
        rows::of::<joins::Q9>(&db).await?,
        rows::of::<queries::Q11>(&db).await?,
        rows::of::<queries::Q15>(&db).await?,
        rows::of::<queries::Q17>(&db).await?,
        rows::of::<joins::Q18>(&db).await?,
        rows::of::<joins::Q19>(&db).await?,
        rows::of::<joins::Q20>(&db).await?,
    ];
    db.stop().await;
    Ok(all)
}
