//! The same questions in SQL, over the same bids.

use std::error::Error;

use rusqlite::Connection;

use crate::bids::Bid;

/// One statement for each query, in their order; each gives one text a row.
const STATEMENTS: [&str; 8] = [
    include_str!("sql/q0.sql"),
    include_str!("sql/q1.sql"),
    include_str!("sql/q2.sql"),
    include_str!("sql/q5.sql"),
    include_str!("sql/q7.sql"),
    include_str!("sql/q11.sql"),
    include_str!("sql/q15.sql"),
    include_str!("sql/q17.sql"),
];

/// The rows of all queries, each sorted.
pub(crate) fn rows_of_all(bids: &[Bid]) -> Result<Vec<Vec<String>>, Box<dyn Error>> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch(include_str!("sql/bids.sql"))?;
    let mut insert = connection.prepare(include_str!("sql/insert_bid.sql"))?;
    for bid in bids {
        insert.execute((bid.auction, bid.bidder, bid.price, bid.time))?;
    }
    let mut all = Vec::new();
    for statement in STATEMENTS {
        let mut statement = connection.prepare(statement)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
        rows.sort_unstable();
        all.push(rows);
    }
    Ok(all)
}
