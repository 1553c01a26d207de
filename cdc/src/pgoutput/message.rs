//! Messages of the protocol, each read whole.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::reader::{MalformedMessage, Reader};
use crate::lsn::Lsn;
use crate::schema::Identity;

/// Microseconds from 1970 to 2000, where times of the protocol begin.
const EPOCH_2000_MICROS: i64 = 946_684_800_000_000;

/// A message of the protocol.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// A transaction begins; it was committed at `final_lsn`.
    Begin {
        /// Where it was committed: what its commit says too.
        final_lsn: Lsn,
        /// When.
        time: DateTime<Utc>,
        /// The transaction.
        xid: u32,
    },
    /// A transaction ends.
    Commit {
        /// Where it was committed.
        lsn: Lsn,
        /// Where the log goes on after it: where one resumes.
        end: Lsn,
        /// When.
        time: DateTime<Utc>,
    },
    /// Where the transaction comes from.
    Origin {
        /// The name of the origin.
        name: Arc<str>,
    },
    /// What a table looks like from here on.
    Relation(Relation),
    /// The name of a type of users; of a domain, that of the type that it is made of.
    Type {
        /// Its number.
        oid: u32,
        /// Its schema.
        schema: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// A row is new.
    Insert {
        /// The number of its table.
        relation: u32,
        /// Its values.
        new: Vec<TupleValue>,
    },
    /// A row has other values.
    Update {
        /// The number of its table.
        relation: u32,
        /// What was sent of the old row.
        old: OldTuple,
        /// Its values.
        new: Vec<TupleValue>,
    },
    /// A row is gone.
    Delete {
        /// The number of its table.
        relation: u32,
        /// What was sent of the old row.
        old: OldTuple,
    },
    /// Tables are empty.
    Truncate {
        /// The numbers of the tables.
        relations: Vec<u32>,
        /// Whether tables that refer to them were included.
        cascade: bool,
        /// Whether their sequences begin again.
        restart_identity: bool,
    },
    /// A message of `pg_logical_emit_message`.
    Logical {
        /// Whether it belongs to the transaction that is open.
        transactional: bool,
        /// Where it was written.
        lsn: Lsn,
        /// Who it is for.
        prefix: String,
        /// Its bytes.
        content: Vec<u8>,
    },
}

/// What a table looks like.
///
/// ```
/// # fn example(relation: &annals_cdc::pgoutput::Relation) {
/// println!("{} {}.{}", relation.oid, relation.schema, relation.name);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Relation {
    /// Its number.
    pub oid: u32,
    /// The schema that it is in.
    pub schema: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// What it sends of old rows.
    pub identity: Identity,
    /// Its columns, in order.
    pub columns: Vec<RelationColumn>,
}

/// A column of a table.
///
/// ```
/// # fn example(column: &annals_cdc::pgoutput::RelationColumn) {
/// println!("{} of type {}", column.name, column.oid);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct RelationColumn {
    /// Whether it is sent of old rows.
    pub identity: bool,
    /// Its name.
    pub name: Arc<str>,
    /// The number of its type.
    pub oid: u32,
    /// What is said of the type.
    pub typmod: i32,
}

/// A value of a row, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum TupleValue {
    /// Null.
    Null,
    /// It did not change and is not sent.
    Unchanged,
    /// The text of the value.
    Text(String),
}

/// What was sent of an old row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum OldTuple {
    /// Nothing.
    None,
    /// Its key, with null in all other columns.
    Key(Vec<TupleValue>),
    /// All of it.
    Full(Vec<TupleValue>),
}

impl Message {
    /// Reads a message; all bytes must belong to it.
    ///
    /// # Errors
    ///
    /// [`MalformedMessage`] when it is none of version 1 of the protocol.
    pub fn parse(bytes: &[u8]) -> Result<Message, MalformedMessage> {
        let Some((kind, rest)) = bytes.split_first() else {
            return Err(MalformedMessage("an empty message".into()));
        };
        let what = match kind {
            b'B' => "begin",
            b'C' => "commit",
            b'O' => "origin",
            b'R' => "relation",
            b'Y' => "type",
            b'I' => "insert",
            b'U' => "update",
            b'D' => "delete",
            b'T' => "truncate",
            b'M' => "logical",
            _ => {
                let kind = char::from(*kind).escape_debug();
                return Err(MalformedMessage(format!(
                    "a message of the unknown kind `{kind}`"
                )));
            }
        };
        let mut reader = Reader::new(rest, what);
        let message = match kind {
            b'B' => begin(&mut reader)?,
            b'C' => commit(&mut reader)?,
            b'O' => origin(&mut reader)?,
            b'R' => relation(&mut reader)?,
            b'Y' => type_(&mut reader)?,
            b'I' => insert(&mut reader)?,
            b'U' => update(&mut reader)?,
            b'D' => delete(&mut reader)?,
            b'T' => truncate(&mut reader)?,
            _ => logical(&mut reader)?,
        };
        reader.end()?;
        Ok(message)
    }
}

/// The moment of so many microseconds after 2000.
pub(crate) fn time(micros: i64) -> Result<DateTime<Utc>, MalformedMessage> {
    micros
        .checked_add(EPOCH_2000_MICROS)
        .and_then(DateTime::from_timestamp_micros)
        .ok_or_else(|| MalformedMessage(format!("{micros} microseconds after 2000 are no time")))
}

fn begin(reader: &mut Reader<'_>) -> Result<Message, MalformedMessage> {
    Ok(Message::Begin {
        final_lsn: Lsn::new(reader.u64()?),
        time: time(reader.i64()?)?,
        xid: reader.u32()?,
    })
}

fn commit(reader: &mut Reader<'_>) -> Result<Message, MalformedMessage> {
    let _flags = reader.u8()?;
    Ok(Message::Commit {
        lsn: Lsn::new(reader.u64()?),
        end: Lsn::new(reader.u64()?),
        time: time(reader.i64()?)?,
    })
}

fn origin(reader: &mut Reader<'_>) -> Result<Message, MalformedMessage> {
    let _lsn = reader.u64()?;
    let name = reader.text()?.into();
    Ok(Message::Origin { name })
}

fn relation(reader: &mut Reader<'_>) -> Result<Message, MalformedMessage> {
    let oid = reader.u32()?;
    let schema = match reader.text()? {
        "" => "pg_catalog",
        schema => schema,
    };
    let name = reader.text()?.into();
    let identity = match reader.u8()? {
        b'd' => Identity::Default,
        b'n' => Identity::Nothing,
        b'f' => Identity::Full,
        b'i' => Identity::Index,
        other => {
            return Err(MalformedMessage(format!(
                "table `{schema}.{name}` has the unknown replica identity {other}"
            )));
        }
    };
    let count = reader.u16()?;
    let mut columns = Vec::with_capacity(usize::from(count).min(1_600));
    for _ in 0..count {
        columns.push(RelationColumn {
            identity: reader.u8()? & 1 == 1,
            name: reader.text()?.into(),
            oid: reader.u32()?,
            typmod: reader.i32()?,
        });
    }
    Ok(Message::Relation(Relation {
        oid,
        schema: schema.into(),
        name,
        identity,
        columns,
    }))
}

fn type_(reader: &mut Reader<'_>) -> Result<Message, MalformedMessage> {
    let oid = reader.u32()?;
    // Of a domain what it is made of is named.
    let schema = match reader.text()? {
        "" => "pg_catalog",
        schema => schema,
    };
    Ok(Message::Type {
        oid,
        schema: schema.into(),
        name: reader.text()?.into(),
    })
}

fn insert(reader: &mut Reader<'_>) -> Result<Message, MalformedMessage> {
    let relation = reader.u32()?;
    match reader.u8()? {
        b'N' => Ok(Message::Insert {
            relation,
            new: tuple(reader)?,
        }),
        other => Err(unknown_tuple("insert", other)),
    }
}

fn update(reader: &mut Reader<'_>) -> Result<Message, MalformedMessage> {
    let relation = reader.u32()?;
    let (old, next) = match reader.u8()? {
        b'K' => (OldTuple::Key(tuple(reader)?), reader.u8()?),
        b'O' => (OldTuple::Full(tuple(reader)?), reader.u8()?),
        next => (OldTuple::None, next),
    };
    if next != b'N' {
        return Err(unknown_tuple("update", next));
    }
    Ok(Message::Update {
        relation,
        old,
        new: tuple(reader)?,
    })
}

fn delete(reader: &mut Reader<'_>) -> Result<Message, MalformedMessage> {
    let relation = reader.u32()?;
    let old = match reader.u8()? {
        b'K' => OldTuple::Key(tuple(reader)?),
        b'O' => OldTuple::Full(tuple(reader)?),
        other => return Err(unknown_tuple("delete", other)),
    };
    Ok(Message::Delete { relation, old })
}

fn truncate(reader: &mut Reader<'_>) -> Result<Message, MalformedMessage> {
    let count = reader.u32()?;
    let options = reader.u8()?;
    let mut relations = Vec::new();
    for _ in 0..count {
        relations.push(reader.u32()?);
    }
    Ok(Message::Truncate {
        relations,
        cascade: options & 1 != 0,
        restart_identity: options & 2 != 0,
    })
}

fn logical(reader: &mut Reader<'_>) -> Result<Message, MalformedMessage> {
    Ok(Message::Logical {
        transactional: reader.u8()? & 1 == 1,
        lsn: Lsn::new(reader.u64()?),
        prefix: reader.text()?.to_owned(),
        content: reader.counted()?.to_owned(),
    })
}

fn tuple(reader: &mut Reader<'_>) -> Result<Vec<TupleValue>, MalformedMessage> {
    let count = reader.u16()?;
    let mut values = Vec::with_capacity(usize::from(count).min(1_600));
    for _ in 0..count {
        values.push(match reader.u8()? {
            b'n' => TupleValue::Null,
            b'u' => TupleValue::Unchanged,
            b't' => {
                let text = reader.counted()?;
                TupleValue::Text(reader.utf8(text)?.to_owned())
            }
            b'b' => {
                return Err(MalformedMessage(
                    "a value in binary form: the session must not ask for `binary`".into(),
                ));
            }
            other => {
                return Err(MalformedMessage(format!(
                    "a value of the unknown kind {other}"
                )));
            }
        });
    }
    Ok(values)
}

fn unknown_tuple(what: &str, kind: u8) -> MalformedMessage {
    let kind = char::from(kind).escape_debug();
    MalformedMessage(format!(
        "an {what} message has a row of the unknown kind `{kind}`"
    ))
}
