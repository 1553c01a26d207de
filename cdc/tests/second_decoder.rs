//! A second decoder of the protocol, written by others (`pg_walstream`), reads in every message of
//! a slot what ours reads.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod server;
mod slot;

mod on_postgres {
    use std::fmt::Write as _;

    use annals_cdc::pgoutput::{Message, OldTuple, TupleValue};
    use annals_core::conformance::rounds;
    use pg_walstream::{
        ColumnData, LogicalReplicationMessage, LogicalReplicationParser, TupleData,
    };

    use super::server::Server;
    use super::slot;

    const TABLES: &str = "create table by_key(id int primary key, v text, long text);
        alter table by_key alter long set storage external;
        create table full_rows(id int primary key, v text, long text);
        alter table full_rows alter long set storage external;
        alter table full_rows replica identity full;
        create table by_index(a int not null, b text not null, c text, unique(a, b));
        alter table by_index replica identity using index by_index_a_b_key;
        create type mood as enum ('sad', 'ok');
        create table moods(id int primary key, m mood, ms mood[]);
        create publication cdc_pub for all tables;
        select pg_create_logical_replication_slot('second', 'pgoutput');";

    /// Statements of all kinds, the same for the same number.
    fn script(rounds: u32) -> String {
        let mut script = String::new();
        for n in 0..rounds {
            let id = n * 7 % 23;
            let _ = match n % 11 {
                0 | 1 => writeln!(
                    script,
                    "begin; insert into by_key values ({n}, 'a', repeat('é', 3000)); insert into \
                     full_rows values ({n}, null, repeat('y', 3000)); commit;"
                ),
                2 => writeln!(script, "update by_key set v = 'b {n}' where id = {id};"),
                3 => writeln!(script, "update by_key set id = -id - 1 where id = {id};"),
                4 => writeln!(script, "update full_rows set v = '' where id = {id};"),
                5 => writeln!(script, "delete from full_rows where id = {id};"),
                6 => writeln!(
                    script,
                    "insert into by_index values ({n}, 'k', E'\\t\\\\'); \
                     update by_index set a = -a where a = {id}; \
                     delete from by_index where a = {id} + 9;"
                ),
                7 => writeln!(
                    script,
                    "select pg_logical_emit_message({}, 'p', E'\\\\x00ff{id:02}'::bytea);",
                    n % 2 == 0
                ),
                8 => writeln!(
                    script,
                    "insert into moods values ({n}, 'ok', '{{sad,NULL}}');"
                ),
                9 => writeln!(
                    script,
                    "alter table moods add c{n} numeric(9, 2) default {n};"
                ),
                _ => writeln!(script, "truncate by_index, moods restart identity cascade;"),
            };
        }
        script
    }

    #[test]
    fn both_decoders_read_the_same_messages() {
        let server = Server::start(&[]);
        server.database("second");
        server.psql("second", TABLES);
        server.psql("second", &script(rounds(400, 20_000) as u32));
        let messages = slot::messages(&server, "second", "second");
        let mut parser = LogicalReplicationParser::with_protocol_version(1);
        let mut kinds = std::collections::BTreeSet::new();
        for bytes in &messages {
            let theirs = parser.parse_wal_message(bytes).unwrap();
            let ours = ours(&Message::parse(bytes).unwrap());
            kinds.insert(ours.split(' ').next().unwrap().to_owned());
            assert_eq!(ours, shown(&theirs.message));
        }
        let all = [
            "begin", "commit", "delete", "insert", "message", "relation", "truncate",
        ];
        for kind in all.into_iter().chain(["type", "update"]) {
            assert!(
                kinds.contains(kind),
                "no {kind} in {} messages",
                messages.len()
            );
        }
    }

    fn ours(message: &Message) -> String {
        match message {
            Message::Begin { final_lsn, xid, .. } => format!("begin {} {xid}", final_lsn.get()),
            Message::Commit { lsn, end, .. } => format!("commit {} {}", lsn.get(), end.get()),
            Message::Origin { name } => format!("origin {name}"),
            Message::Relation(relation) => {
                let columns = relation.columns.iter();
                let columns: Vec<_> = columns
                    .map(|of| format!("{} {} {} {}", of.name, of.identity, of.oid, of.typmod))
                    .collect();
                let (schema, name) = (&relation.schema, &relation.name);
                format!("relation {} {schema}.{name} {columns:?}", relation.oid)
            }
            Message::Type { oid, schema, name } => format!("type {oid} {schema}.{name}"),
            Message::Insert { relation, new } => format!("insert {relation} {}", row(new)),
            Message::Update { relation, old, new } => {
                format!("update {relation} {} {}", old_row(old), row(new))
            }
            Message::Delete { relation, old } => format!("delete {relation} {}", old_row(old)),
            Message::Truncate {
                relations,
                cascade,
                restart_identity,
            } => format!("truncate {relations:?} {cascade} {restart_identity}"),
            Message::Logical {
                transactional,
                lsn,
                prefix,
                content,
            } => format!("message {transactional} {} {prefix} {content:?}", lsn.get()),
            other => format!("{other:?}"),
        }
    }

    fn row(values: &[TupleValue]) -> String {
        let values = values.iter().map(|value| match value {
            TupleValue::Null => "null".to_owned(),
            TupleValue::Text(text) => format!("{text:?}"),
            TupleValue::Unchanged => "unchanged".to_owned(),
        });
        format!("({})", values.collect::<Vec<_>>().join(", "))
    }

    fn old_row(old: &OldTuple) -> String {
        match old {
            OldTuple::None => "none".to_owned(),
            OldTuple::Key(values) => format!("key {}", row(values)),
            OldTuple::Full(values) => format!("full {}", row(values)),
        }
    }

    fn shown(message: &LogicalReplicationMessage) -> String {
        use LogicalReplicationMessage as Of;
        match message {
            Of::Begin { final_lsn, xid, .. } => format!("begin {final_lsn} {xid}"),
            Of::Commit {
                commit_lsn,
                end_lsn,
                ..
            } => format!("commit {commit_lsn} {end_lsn}"),
            Of::Origin { origin_name, .. } => format!("origin {origin_name}"),
            Of::Relation {
                relation_id,
                namespace,
                relation_name,
                columns,
                ..
            } => {
                let columns = columns.iter();
                let columns: Vec<_> = columns
                    .map(|of| {
                        let (oid, typmod) = (of.type_id, of.type_modifier);
                        format!("{} {} {oid} {typmod}", of.name, of.is_key())
                    })
                    .collect();
                format!("relation {relation_id} {namespace}.{relation_name} {columns:?}")
            }
            Of::Type {
                type_id,
                namespace,
                type_name,
            } => format!("type {type_id} {namespace}.{type_name}"),
            Of::Insert { relation_id, tuple } => {
                format!("insert {relation_id} {}", tuple_row(tuple))
            }
            Of::Update {
                relation_id,
                old_tuple,
                new_tuple,
                key_type,
            } => {
                let old = old_tuple.as_ref().map_or_else(
                    || "none".to_owned(),
                    |old| format!("{} {}", kind(key_type.unwrap()), tuple_row(old)),
                );
                format!("update {relation_id} {old} {}", tuple_row(new_tuple))
            }
            Of::Delete {
                relation_id,
                old_tuple,
                key_type,
            } => format!(
                "delete {relation_id} {} {}",
                kind(*key_type),
                tuple_row(old_tuple)
            ),
            Of::Truncate {
                relation_ids,
                flags,
            } => {
                format!(
                    "truncate {relation_ids:?} {} {}",
                    flags & 1 != 0,
                    flags & 2 != 0
                )
            }
            Of::Message {
                flags,
                lsn,
                prefix,
                content,
            } => format!(
                "message {} {lsn} {prefix} {:?}",
                flags & 1 != 0,
                content.to_vec()
            ),
            other => format!("{other:?}"),
        }
    }

    fn kind(of: char) -> &'static str {
        if of == 'K' { "key" } else { "full" }
    }

    fn tuple_row(tuple: &TupleData) -> String {
        let value = |of: &ColumnData| {
            if of.is_null() {
                "null".to_owned()
            } else if of.is_unchanged() {
                "unchanged".to_owned()
            } else {
                format!("{:?}", std::str::from_utf8(of.as_bytes()).unwrap())
            }
        };
        let values = (0..tuple.column_count()).filter_map(|n| tuple.get_column(n));
        format!("({})", values.map(value).collect::<Vec<_>>().join(", "))
    }
}
