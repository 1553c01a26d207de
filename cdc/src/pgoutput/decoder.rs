//! Messages in order become records: what tables look like is remembered, and where a transaction
//! comes from until its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::message::{Message, OldTuple, Relation, TupleValue};
use crate::columns::Columns;
use crate::lsn::Lsn;
use crate::payload::Because;
use crate::record::{At, BeforeImage, Body, LogicalMessage, Record, RowOp, RowRecord, Truncate};
use crate::schema::{Column, Identity, TableName, TableSchema, type_name};

/// The columns of primary keys, by table: of tables that send whole old rows the protocol does not
/// say which columns are the key.
pub type PrimaryKeys = BTreeMap<TableName, Vec<Arc<str>>>;

/// Messages that do not fit what came before.
///
/// ```
/// use annals_cdc::pgoutput::{Decoder, Message, PrimaryKeys};
///
/// let delete = Message::Truncate { relations: vec![7], cascade: false, restart_identity: false };
/// let error = Decoder::new(PrimaryKeys::new()).decode(delete).unwrap_err();
/// assert!(error.to_string().starts_with("a change outside of a transaction"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (in the transaction that was committed at {lsn})")]
pub struct Undecoded {
    /// The commit of the transaction.
    pub lsn: Lsn,
    what: String,
}

/// Makes records of the messages of one session.
///
/// ```
/// use annals_cdc::pgoutput::{Decoder, Message, PrimaryKeys};
///
/// let mut decoder = Decoder::new(PrimaryKeys::new());
/// let begin = [&b"B"[..], &[0; 20]].concat();
/// assert_eq!(decoder.decode(Message::parse(&begin)?)?, None);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    keys: PrimaryKeys,
    relations: HashMap<u32, Known>,
    types: HashMap<u32, Arc<str>>,
    open: Option<Open>,
}

/// A table as it looks now.
#[derive(Clone, Debug)]
struct Known {
    schema: Arc<TableSchema>,
    /// The columns of which old rows hold values, when they are no whole rows.
    identity: Vec<Arc<str>>,
    /// The columns of the key, in order.
    key: Vec<Arc<str>>,
}

/// The transaction that is open.
#[derive(Clone, Debug)]
struct Open {
    lsn: Lsn,
    time: DateTime<Utc>,
    xid: u32,
    origin: Option<Arc<str>>,
    next: u64,
}

impl Decoder {
    /// At the beginning of a session.
    pub fn new(keys: PrimaryKeys) -> Decoder {
        Decoder {
            keys,
            ..Decoder::default()
        }
    }

    /// The table of a relation message, when its key has to be looked up: it sends whole old rows.
    /// The message comes again when the table has another key.
    pub fn lacks_key_of(&self, relation: &Relation) -> Option<TableName> {
        (relation.identity == Identity::Full).then(|| table_of(relation))
    }

    /// The key that was looked up for a relation message. One whose columns the message lacks does
    /// not replace one that is known: a column was renamed after the changes were written.
    pub fn know_key(&mut self, relation: &Relation, key: Vec<Arc<str>>) {
        let table = table_of(relation);
        let has = |name: &Arc<str>| relation.columns.iter().any(|column| column.name == *name);
        if key.iter().all(has) || !self.keys.contains_key(&table) {
            self.keys.insert(table, key);
        }
    }

    /// Whether a key is known of the table of a relation message, and the message has its columns.
    pub(crate) fn knows_key_of(&self, relation: &Relation) -> bool {
        let has = |name: &Arc<str>| relation.columns.iter().any(|column| column.name == *name);
        let key = self.keys.get(&table_of(relation));
        key.is_some_and(|key| !key.is_empty() && key.iter().all(has))
    }

    /// What a message says; nothing for those that only explain others.
    ///
    /// # Errors
    ///
    /// [`Undecoded`] for a change of a table that was not explained, or outside of a transaction.
    pub fn decode(&mut self, message: Message) -> Result<Option<Record>, Undecoded> {
        let body = match message {
            Message::Begin {
                final_lsn,
                time,
                xid,
            } => {
                self.open = Some(Open {
                    lsn: final_lsn,
                    time,
                    xid,
                    origin: None,
                    next: 0,
                });
                return Ok(None);
            }
            Message::Commit { .. } => {
                self.open = None;
                return Ok(None);
            }
            Message::Origin { name } => {
                if let Some(open) = &mut self.open {
                    open.origin = Some(name);
                }
                return Ok(None);
            }
            Message::Relation(relation) => {
                self.know(relation);
                return Ok(None);
            }
            Message::Type { oid, schema, name } => {
                self.types.insert(oid, format!("{schema}.{name}").into());
                return Ok(None);
            }
            Message::Insert { relation, new } => {
                let known = self.known(relation)?;
                let (after, unchanged) = self.new_row(known, new, None)?;
                row(known, RowOp::Insert, BeforeImage::None, after, unchanged)
            }
            Message::Update { relation, old, new } => {
                let known = self.known(relation)?;
                let before = self.old_row(known, old)?;
                let full = match &before {
                    BeforeImage::Full(columns) => Some(columns),
                    _ => None,
                };
                let (after, unchanged) = self.new_row(known, new, full)?;
                row(known, RowOp::Update, before, after, unchanged)
            }
            Message::Delete { relation, old } => {
                let known = self.known(relation)?;
                let before = self.old_row(known, old)?;
                let key = before.columns().map(|old| old.only(&known.key));
                let mut body = row(known, RowOp::Delete, before, Columns::default(), Vec::new());
                body.after = None;
                body.key = key.unwrap_or_default();
                body
            }
            Message::Truncate {
                relations,
                cascade,
                restart_identity,
            } => {
                let known = relations.into_iter().map(|relation| self.known(relation));
                let tables = known.map(|known| Ok(known?.schema.table.clone()));
                let truncate = Truncate {
                    tables: tables.collect::<Result<_, _>>()?,
                    cascade: Some(cascade),
                    restart_identity: Some(restart_identity),
                };
                return self.at_open(Body::Truncate(truncate)).map(Some);
            }
            Message::Logical {
                transactional,
                lsn,
                prefix,
                content,
            } => {
                let body = Body::Message(LogicalMessage {
                    prefix,
                    content,
                    transactional,
                });
                if transactional {
                    return self.at_open(body).map(Some);
                }
                let at = At {
                    lsn,
                    ..At::default()
                };
                return Ok(Some(Record {
                    body,
                    at,
                    origin: None,
                    repeat_key: None,
                }));
            }
        };
        self.at_open(Body::Row(body)).map(Some)
    }

    /// A record of the open transaction.
    fn at_open(&mut self, body: Body) -> Result<Record, Undecoded> {
        let Some(open) = &mut self.open else {
            return Err(Undecoded {
                lsn: Lsn::ZERO,
                what: "a change outside of a transaction".into(),
            });
        };
        let at = At {
            lsn: open.lsn,
            ordinal: open.next,
            xid: Some(open.xid.into()),
            time: Some(open.time),
            message: None,
        };
        open.next += 1;
        Ok(Record {
            body,
            at,
            origin: open.origin.clone(),
            repeat_key: None,
        })
    }

    fn undecoded(&self, what: String) -> Undecoded {
        Undecoded {
            lsn: self.open.as_ref().map_or(Lsn::ZERO, |open| open.lsn),
            what,
        }
    }

    fn known(&self, relation: u32) -> Result<&Known, Undecoded> {
        if self.open.is_none() {
            return Err(self.undecoded("a change outside of a transaction".into()));
        }
        self.relations.get(&relation).ok_or_else(|| {
            self.undecoded(format!(
                "a change of table number {relation}, which was not explained before"
            ))
        })
    }

    fn know(&mut self, relation: Relation) {
        let table = TableName {
            schema: relation.schema,
            name: relation.name,
        };
        let flagged = relation.columns.iter().filter(|column| column.identity);
        let flagged: Vec<_> = flagged.map(|column| Arc::clone(&column.name)).collect();
        let key = if relation.identity == Identity::Full {
            // All columns are flagged.
            self.keys.get(&table).cloned().unwrap_or_default()
        } else {
            if !flagged.is_empty() {
                self.keys.insert(table.clone(), flagged.clone());
            }
            flagged.clone()
        };
        let columns = relation.columns.iter().map(|column| Column {
            name: Arc::clone(&column.name),
            type_name: self.name_of_type(column.oid),
            oid: column.oid,
            typmod: column.typmod,
            key: key.contains(&column.name),
        });
        let schema = TableSchema {
            identity: relation.identity,
            columns: columns.collect(),
            table,
        };
        self.relations.insert(
            relation.oid,
            Known {
                // In the order of the table.
                key: schema.key(),
                schema: Arc::new(schema),
                identity: flagged,
            },
        );
    }

    fn name_of_type(&self, oid: u32) -> Arc<str> {
        match (self.types.get(&oid), type_name(oid)) {
            (Some(name), _) => Arc::clone(name),
            (None, Some(name)) => name.into(),
            (None, None) => format!("oid {oid}").into(),
        }
    }

    fn old_row(&self, known: &Known, old: OldTuple) -> Result<BeforeImage, Undecoded> {
        Ok(match old {
            OldTuple::None => BeforeImage::None,
            OldTuple::Full(values) => BeforeImage::Full(self.new_row(known, values, None)?.0),
            // All other columns hold null, whatever they were.
            OldTuple::Key(values) => {
                let (columns, _) = self.new_row(known, values, None)?;
                BeforeImage::Key(columns.only(&known.identity))
            }
        })
    }

    /// Names and values, and which values were not sent and are not in the old row either.
    fn new_row(
        &self,
        known: &Known,
        values: Vec<TupleValue>,
        old: Option<&Columns>,
    ) -> Result<(Columns, Vec<Arc<str>>), Undecoded> {
        let columns = &known.schema.columns;
        if values.len() != columns.len() {
            return Err(self.undecoded(format!(
                "a row of table `{}` with {} values, and it has {} columns",
                known.schema.table,
                values.len(),
                columns.len()
            )));
        }
        let mut row = Columns::with_capacity(columns.len());
        let mut unchanged = Vec::new();
        for (column, value) in columns.iter().zip(values) {
            let name = Arc::clone(&column.name);
            match value {
                TupleValue::Null => row.push(name, None),
                TupleValue::Text(text) => row.push(name, Some(text)),
                TupleValue::Unchanged => match old.and_then(|old| old.get(&name)) {
                    Some(value) => row.push(name, value.map(str::to_owned)),
                    None => unchanged.push(name),
                },
            }
        }
        Ok((row, unchanged))
    }
}

fn table_of(relation: &Relation) -> TableName {
    TableName {
        schema: Arc::clone(&relation.schema),
        name: Arc::clone(&relation.name),
    }
}

fn row(
    known: &Known,
    op: RowOp,
    before: BeforeImage,
    after: Columns,
    unchanged: Vec<Arc<str>>,
) -> RowRecord {
    let mut key = Columns::with_capacity(known.key.len());
    for name in &known.key {
        // A long key is not sent again in the new row, and is in the old one.
        let value = after.get(name).or_else(|| before.columns()?.get(name));
        key.push(Arc::clone(name), value.flatten().map(str::to_owned));
    }
    RowRecord {
        op,
        table: known.schema.table.clone(),
        key,
        before,
        after: Some(after),
        unchanged,
        schema: Some(Arc::clone(&known.schema)),
        because: Because::Deleted,
        snapshot: None,
    }
}
