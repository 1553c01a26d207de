//! The same questions in SQL, over the same events.

use std::error::Error;

use rusqlite::Connection;

use crate::market::{Happening, Market};

/// The queries and their statements, each of which gives one text a row.
pub(crate) const QUERIES: [(u8, &str); 15] = [
    (0, include_str!("sql/q0.sql")),
    (1, include_str!("sql/q1.sql")),
    (2, include_str!("sql/q2.sql")),
    (3, include_str!("sql/q3.sql")),
    (4, include_str!("sql/q4.sql")),
    (5, include_str!("sql/q5.sql")),
    (7, include_str!("sql/q7.sql")),
    (8, include_str!("sql/q8.sql")),
    (9, include_str!("sql/q9.sql")),
    (11, include_str!("sql/q11.sql")),
    (15, include_str!("sql/q15.sql")),
    (17, include_str!("sql/q17.sql")),
    (18, include_str!("sql/q18.sql")),
    (19, include_str!("sql/q19.sql")),
    (20, include_str!("sql/q20.sql")),
];

/// The rows of all queries in their order, each sorted.
pub(crate) fn rows_of_all(market: &Market) -> Result<Vec<Vec<String>>, Box<dyn Error>> {
    let mut connection = Connection::open_in_memory()?;
    connection.execute_batch(include_str!("sql/tables.sql"))?;
    let transaction = connection.transaction()?;
    for happening in &market.0 {
        match happening {
            Happening::Bid(of) => {
                let mut insert = transaction.prepare_cached(include_str!("sql/insert_bid.sql"))?;
                insert.execute((of.auction, of.bidder, of.price, of.time))?;
            }
            Happening::Auction(of) => {
                let insert = include_str!("sql/insert_auction.sql");
                let mut insert = transaction.prepare_cached(insert)?;
                insert.execute((of.id, of.seller, of.category, of.time, of.expires))?;
            }
            Happening::Person(of) => {
                let insert = include_str!("sql/insert_person.sql");
                let mut insert = transaction.prepare_cached(insert)?;
                insert.execute((of.id, &of.name, &of.city, &of.state, of.time))?;
            }
        }
    }
    transaction.commit()?;
    let mut all = Vec::new();
    for (_, statement) in QUERIES {
        let mut statement = connection.prepare(statement)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
        rows.sort_unstable();
        all.push(rows);
    }
    Ok(all)
}
