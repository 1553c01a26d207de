//! The connection for SQL: what the catalog says, and what is made before the stream begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, query_as};

use super::address::BEGIN;
use super::errors::of_control;
use crate::ingest::SourceError;
use crate::lsn::Lsn;
use crate::pgoutput::PrimaryKeys;
use crate::schema::{Column, Identity, TableName, TableSchema, type_name};

/// What the catalog says of a slot.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) plugin: String,
    pub(super) database: String,
    pub(super) active: bool,
    pub(super) wal_status: String,
    pub(super) confirmed: Option<Lsn>,
}

/// How much a slot keeps and lags.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotSize {
    pub(super) keeps_bytes: i64,
    /// Up to where the server has written its log.
    pub(super) written: Lsn,
    pub(super) safe_wal_bytes: Option<i64>,
    pub(super) spilled_bytes: i64,
    pub(super) sender: Option<Sender>,
}

/// The process of the server that reads the log for a session and sends what it finds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    /// What was written before is read, and sent if it was to be sent.
    pub(super) sent: Lsn,
    /// Whether it waits until the other end of the link takes something, or says something.
    pub(super) waits_for_link: bool,
}

/// A table of a publication.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) schema: Arc<TableSchema>,
    pub(super) filter: Option<String>,
    pub(super) bytes: i64,
    /// Whether its rows are those of its partitions.
    pub(super) is_partitioned: bool,
    /// Its rows, as far as the server has counted them.
    pub(super) rows_about: u64,
    /// Whether it has a primary key that is its replica identity by default.
    pub(super) has_primary_key: bool,
}

/// A column of a table, as the catalog has it.
#[derive(Clone, Debug)]
pub(super) struct ColumnNow {
    pub(super) name: Arc<str>,
    /// The number of its type.
    pub(super) oid: u32,
    /// Whether it is of the primary key.
    pub(super) is_key: bool,
}

/// The tables of a publication, by the numbers that stay theirs under another name.
pub(super) type NamedTables = BTreeMap<i64, TableName>;

/// What a publication publishes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Publishes {
    pub(super) inserts: bool,
    pub(super) updates: bool,
    pub(super) deletes: bool,
    pub(super) truncates: bool,
}

#[derive(Debug)]
pub(super) struct Control {
    pub(super) connection: PgConnection,
}

impl Control {
    pub(super) async fn connect(options: &PgConnectOptions) -> Result<Control, SourceError> {
        let connected = options.connect().await;
        let connection = connected.map_err(|error| of_control("cannot connect", error))?;
        let mut control = Control { connection };
        control.run("cannot connect", BEGIN.to_owned()).await?;
        Ok(control)
    }

    pub(super) async fn run(&mut self, doing: &str, sql: String) -> Result<(), SourceError> {
        let done = self.connection.execute(AssertSqlSafe(sql)).await;
        done.map(drop).map_err(|error| of_control(doing, error))
    }

    pub(super) async fn database(&mut self) -> Result<String, SourceError> {
        let found: Result<(String,), _> = query_as("select current_database()::text")
            .fetch_one(&mut self.connection)
            .await;
        found
            .map(|(name,)| name)
            .map_err(|error| of_control("cannot ask for the database", error))
    }

    /// What to say of the first of these tables that does not exist; nothing when all do.
    pub(super) async fn lacks_table(
        &mut self,
        tables: &[TableName],
    ) -> Result<Option<String>, SourceError> {
        for table in tables {
            let found: Result<Vec<(String, String)>, _> = query_as(
                "select n.nspname::text, c.relname::text from pg_catalog.pg_class c \
                 join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
                 where lower(c.relname) = lower($1) and c.relkind in ('r', 'p') order by 1, 2",
            )
            .bind(&*table.name)
            .fetch_all(&mut self.connection)
            .await;
            let found = found.map_err(|error| of_control("cannot look for a table", error))?;
            let mut found = found
                .iter()
                .map(|(schema, name)| TableName::new(schema, name));
            let mut others = found.clone().map(|of| format!("`{of}`"));
            if found.any(|of| of == *table) {
                continue;
            }
            let other = others
                .next()
                .map(|first| others.fold(first, |all, of| all + ", " + &of));
            let other = other.map_or_else(String::new, |of| format!("; there is {of}"));
            let database = self.database().await?;
            return Ok(Some(format!(
                "table `{table}` does not exist in database `{database}`; names are \
                 case-sensitive{other}"
            )));
        }
        Ok(None)
    }

    pub(super) async fn slot(&mut self, name: &str) -> Result<Option<Slot>, SourceError> {
        type Found = (String, String, bool, String, Option<String>);
        let found: Result<Option<Found>, _> = query_as(
            "select coalesce(plugin::text, ''), coalesce(database::text, ''), active, \
             coalesce(wal_status, ''), confirmed_flush_lsn::text \
             from pg_catalog.pg_replication_slots where slot_name = $1",
        )
        .bind(name)
        .fetch_optional(&mut self.connection)
        .await;
        let found = found.map_err(|error| of_control("cannot look for the slot", error))?;
        Ok(
            found.map(|(plugin, database, active, wal_status, confirmed)| Slot {
                plugin,
                database,
                active,
                wal_status,
                confirmed: confirmed.and_then(|lsn| lsn.parse().ok()),
            }),
        )
    }

    pub(super) async fn slot_size(&mut self, name: &str) -> Result<Option<SlotSize>, SourceError> {
        type Found = (
            i64,
            Option<String>,
            Option<i64>,
            i64,
            bool,
            Option<String>,
            bool,
        );
        // The state of a sender is hidden from roles that may not see what it does.
        let found: Result<Option<Found>, _> = query_as(
            "select coalesce(pg_wal_lsn_diff(w.lsn, s.restart_lsn), 0)::bigint, w.lsn::text, \
             s.safe_wal_size, coalesce(t.spill_bytes, 0)::bigint, \
             r.state is not null, r.sent_lsn::text, coalesce(a.wait_event in \
             ('ClientRead', 'ClientWrite', 'WalSenderMain', 'WalSenderWriteData'), false) \
             from pg_catalog.pg_replication_slots s \
             cross join (select case when pg_is_in_recovery() then pg_last_wal_receive_lsn() \
             else pg_current_wal_lsn() end as lsn) w \
             left join pg_catalog.pg_stat_replication_slots t using (slot_name) \
             left join pg_catalog.pg_stat_replication r on r.pid = s.active_pid \
             left join pg_catalog.pg_stat_activity a on a.pid = s.active_pid \
             where s.slot_name = $1",
        )
        .bind(name)
        .fetch_optional(&mut self.connection)
        .await;
        let found = found.map_err(|error| of_control("cannot measure the slot", error))?;
        let lsn = |text: Option<String>| text.and_then(|lsn| lsn.parse().ok());
        Ok(found.map(
            |(keeps_bytes, written, safe_wal_bytes, spilled_bytes, is_seen, sent, waits)| {
                SlotSize {
                    keeps_bytes,
                    written: lsn(written).unwrap_or_default(),
                    safe_wal_bytes,
                    spilled_bytes,
                    sender: is_seen.then(|| Sender {
                        sent: lsn(sent).unwrap_or_default(),
                        waits_for_link: waits,
                    }),
                }
            },
        ))
    }

    pub(super) async fn publishes(
        &mut self,
        publication: &str,
    ) -> Result<Option<Publishes>, SourceError> {
        let found: Result<Option<(bool, bool, bool, bool)>, _> = query_as(
            "select pubinsert, pubupdate, pubdelete, pubtruncate \
             from pg_catalog.pg_publication where pubname = $1",
        )
        .bind(publication)
        .fetch_optional(&mut self.connection)
        .await;
        let found = found.map_err(|error| of_control("cannot look for the publication", error))?;
        Ok(
            found.map(|(inserts, updates, deletes, truncates)| Publishes {
                inserts,
                updates,
                deletes,
                truncates,
            }),
        )
    }

    /// Whether the table is partitioned, and the publication has its partitions in its place.
    pub(super) async fn is_of_partitions(
        &mut self,
        publication: &str,
        table: &TableName,
    ) -> Result<bool, SourceError> {
        let found: Result<(bool,), _> = query_as(
            "select exists (select from pg_catalog.pg_publication p \
             cross join pg_catalog.pg_class c \
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             where p.pubname = $1 and not p.pubviaroot and c.relkind = 'p' \
             and n.nspname = $2 and c.relname = $3)",
        )
        .bind(publication)
        .bind(&*table.schema)
        .bind(&*table.name)
        .fetch_one(&mut self.connection)
        .await;
        let doing = "cannot look for the partitions of a table";
        let (is_it,) = found.map_err(|error| of_control(doing, error))?;
        Ok(is_it)
    }

    /// The tables of a publication.
    pub(super) async fn named_tables(
        &mut self,
        publication: &str,
    ) -> Result<NamedTables, SourceError> {
        let found: Result<Vec<(i64, String, String)>, _> = query_as(
            "select c.oid::bigint, p.schemaname::text, p.tablename::text \
             from pg_catalog.pg_publication_tables p \
             join pg_catalog.pg_namespace n on n.nspname = p.schemaname \
             join pg_catalog.pg_class c on c.relname = p.tablename and c.relnamespace = n.oid \
             where p.pubname = $1",
        )
        .bind(publication)
        .fetch_all(&mut self.connection)
        .await;
        let doing = "cannot read the tables of the publication";
        let found = found.map_err(|error| of_control(doing, error))?.into_iter();
        let named = found.map(|(number, schema, name)| (number, TableName::new(&schema, &name)));
        Ok(named.collect())
    }

    /// The tables of a publication, with the columns that it publishes.
    pub(super) async fn published(
        &mut self,
        publication: &str,
    ) -> Result<Vec<Published>, SourceError> {
        type Found = (String, String, Option<String>, String, i64, bool, i64, bool);
        let doing = "cannot read the tables of the publication";
        let found: Result<Vec<Found>, _> = query_as(
            "select p.schemaname::text, p.tablename::text, p.rowfilter, c.relreplident::text, \
             pg_relation_size(c.oid), c.relkind = 'p', greatest(c.reltuples, 0)::bigint, \
             exists (select from pg_catalog.pg_index i \
             where i.indrelid = c.oid and i.indisprimary and i.indimmediate) \
             from pg_catalog.pg_publication_tables p \
             join pg_catalog.pg_namespace n on n.nspname = p.schemaname \
             join pg_catalog.pg_class c on c.relname = p.tablename and c.relnamespace = n.oid \
             where p.pubname = $1 order by 1, 2",
        )
        .bind(publication)
        .fetch_all(&mut self.connection)
        .await;
        let found = found.map_err(|error| of_control(doing, error))?;
        let mut columns_of = self.columns(publication).await?;
        let mut published = Vec::new();
        for (schema, name, filter, identity, bytes, is_partitioned, rows_about, has_primary_key) in
            found
        {
            let table = TableName::new(&schema, &name);
            let columns = columns_of.remove(&table).unwrap_or_default();
            published.push(Published {
                schema: Arc::new(TableSchema {
                    table,
                    identity: match &*identity {
                        "f" => Identity::Full,
                        "n" => Identity::Nothing,
                        "i" => Identity::Index,
                        _ => Identity::Default,
                    },
                    columns,
                }),
                filter,
                bytes,
                is_partitioned,
                rows_about: u64::try_from(rows_about).unwrap_or_default(),
                has_primary_key,
            });
        }
        Ok(published)
    }

    /// The columns of the tables of a publication, in order. Asked for at once: the server goes
    /// through all tables of the publication for each question.
    async fn columns(
        &mut self,
        publication: &str,
    ) -> Result<BTreeMap<TableName, Vec<Column>>, SourceError> {
        type Found = (String, String, String, i64, i32, String, bool);
        // Of a domain the stream names what it is made of. The key is what the stream flags: that
        // of the replica identity, which no deferrable key is, or the primary key where whole rows
        // are sent. Columns that an index only includes are not of its key.
        let found: Result<Vec<Found>, _> = query_as(
            "select p.schemaname::text, p.tablename::text, a.attname::text, \
             a.atttypid::bigint, a.atttypmod, tn.nspname::text || '.' || t.typname::text, \
             c.relreplident <> 'n' and a.attnum in (select of_key.number \
             from unnest(k.indkey::smallint[]) with ordinality of_key (number, place) \
             where of_key.place <= k.indnkeyatts) \
             from pg_catalog.pg_publication_tables p \
             join pg_catalog.pg_namespace n on n.nspname = p.schemaname \
             join pg_catalog.pg_class c on c.relname = p.tablename and c.relnamespace = n.oid \
             join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 \
             and not a.attisdropped and a.attgenerated = '' and a.attname = any (p.attnames) \
             join lateral (with recursive made_of as ( \
             select o.* from pg_catalog.pg_type o where o.oid = a.atttypid union all \
             select o.* from made_of d join pg_catalog.pg_type o \
             on d.typtype = 'd' and o.oid = d.typbasetype) \
             select typname, typnamespace from made_of where typtype <> 'd') t on true \
             join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace \
             left join pg_catalog.pg_index k on k.indrelid = c.oid and \
             case c.relreplident when 'i' then k.indisreplident when 'f' then k.indisprimary \
             else k.indisprimary and k.indimmediate end \
             where p.pubname = $1 order by 1, 2, a.attnum",
        )
        .bind(publication)
        .fetch_all(&mut self.connection)
        .await;
        let found =
            found.map_err(|error| of_control("cannot read the columns of tables", error))?;
        let mut columns: BTreeMap<TableName, Vec<Column>> = BTreeMap::new();
        for (schema, table, name, oid, typmod, full_name, key) in found {
            let oid = oid as u32;
            let type_name: Arc<str> = match type_name(oid) {
                Some(name) => name.into(),
                // The stream names only the types of users.
                None if oid < 10_000 => format!("oid {oid}").into(),
                None => full_name.into(),
            };
            let of_table = columns.entry(TableName::new(&schema, &table)).or_default();
            of_table.push(Column {
                name: name.into(),
                type_name,
                oid,
                typmod,
                key,
            });
        }
        Ok(columns)
    }

    /// The columns of a table that the stream sends, as they are now; none, when it is gone.
    pub(super) async fn columns_now(
        &mut self,
        table_oid: u32,
    ) -> Result<Vec<ColumnNow>, SourceError> {
        let found: Result<Vec<(String, i64, bool)>, _> = query_as(
            "select a.attname::text, a.atttypid::bigint, a.attnum in (select of_key.number \
             from unnest(k.indkey::smallint[]) with ordinality of_key (number, place) \
             where of_key.place <= k.indnkeyatts) \
             from pg_catalog.pg_attribute a \
             left join pg_catalog.pg_index k on k.indrelid = a.attrelid and k.indisprimary \
             where a.attrelid = ($1::bigint)::oid and a.attnum > 0 and not a.attisdropped \
             and a.attgenerated = '' order by a.attnum",
        )
        .bind(i64::from(table_oid))
        .fetch_all(&mut self.connection)
        .await;
        let found = found.map_err(|error| of_control("cannot read the key of a table", error))?;
        let columns = found.into_iter().map(|(name, oid, is_key)| ColumnNow {
            name: name.into(),
            oid: oid as u32,
            is_key,
        });
        Ok(columns.collect())
    }
}

/// The keys of tables that send whole rows.
pub(super) fn primary_keys(published: &[Published]) -> PrimaryKeys {
    let full = published
        .iter()
        .filter(|of| of.schema.identity == Identity::Full);
    full.map(|of| (of.schema.table.clone(), of.schema.key()))
        .collect()
}
