//! What must hold before the stream begins, each with its text: a source that cannot go on without
//! a gap says so and stops.

use super::Settings;
use super::control::{Control, Published, Slot};
use super::errors::{retry, stop};
use super::transport::{ServerIdentity, Transport};
use crate::ingest::{Mark, SourceError};
use crate::lsn::Lsn;
use crate::schema::{Identity, TableName, quoted};

use super::address::PINNED;

const RESYNC: &str = "`resync_all` of the ingest makes a new slot and compares all tables; \
    nothing else is safe";

/// So many tables are warned of by their names.
const WARNED_TABLES_MAX: usize = 20;

/// A name that the replication client can say: it does not quote it.
pub(super) fn slot_name(name: &str) -> Result<(), SourceError> {
    let first = name.bytes().next().unwrap_or_default();
    let is_plain = name.len() <= 63
        && (first.is_ascii_lowercase() || first == b'_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_plain {
        return Ok(());
    }
    Err(stop(format!(
        "`{name}` is no name of a slot here: it begins with a letter or `_`, and goes on with \
         small letters, digits and `_`; say another one with `slot`"
    )))
}

/// The session writes values as it was asked to.
pub(super) async fn settings(transport: &mut dyn Transport) -> Result<(), SourceError> {
    for (name, wanted) in PINNED {
        let found = transport.show(name).await?;
        let same = |text: &str| text.replace(' ', "").to_ascii_lowercase();
        if same(&found) != same(wanted) {
            return Err(stop(format!(
                "the session has `{name}` = `{found}`, and values are exact only with `{wanted}`: \
                 a pooler between here and the server drops startup options; connect directly"
            )));
        }
    }
    Ok(())
}

/// How a source is named in marks: one that is another is seen.
pub(super) fn source_name(server: &ServerIdentity, slot: &str) -> String {
    format!(
        "postgres {} timeline {} slot {slot}",
        server.system, server.timeline
    )
}

/// The server is the one that was read, and has not lost what was read.
pub(super) fn server(
    settings: &Settings,
    server: &ServerIdentity,
    last: &Mark,
    slot: &str,
) -> Result<(), SourceError> {
    let words: Vec<&str> = last.source.split(' ').collect();
    let (was_system, was_timeline, was_slot) = match *words {
        ["postgres", system, "timeline", timeline, "slot", slot] => (system, timeline, slot),
        _ => {
            return Err(stop(format!(
                "the last mark is of another source, `{}`: give this ingest another name",
                last.source
            )));
        }
    };
    if was_slot != slot {
        return Err(stop(format!(
            "the last mark is of slot `{was_slot}`, and this one is `{slot}`: name that slot, or \
             give this ingest another name"
        )));
    }
    if was_system != server.system {
        return Err(stop(format!(
            "this server is another one: its system identifier is {}, and {was_system} was read. \
             {RESYNC}",
            server.system
        )));
    }
    if was_timeline != server.timeline.to_string() && !settings.follows_failover {
        return Err(stop(format!(
            "this server was promoted: it is at timeline {}, and was read at {was_timeline}. With \
             a failover slot (PostgreSQL 17) say `follows_failover`; else {RESYNC}",
            server.timeline
        )));
    }
    let resume = resume_of(last);
    if server.written < resume {
        return Err(stop(format!(
            "the server has written its log up to {}, and it was read up to {resume}: it was \
             restored from a backup. {RESYNC}",
            server.written
        )));
    }
    Ok(())
}

pub(super) fn resume_of(last: &Mark) -> Lsn {
    let resume = last.resume.as_ref().and_then(|resume| resume.lsn());
    resume.unwrap_or_default()
}

/// The publication is there, and publishes what is needed. Warnings for what is odd.
pub(super) async fn publication(
    control: &mut Control,
    name: &str,
    tables: &[TableName],
) -> Result<(Vec<Published>, Vec<String>), SourceError> {
    let Some(publishes) = control.publishes(name).await? else {
        return Err(stop(format!(
            "publication `{name}` does not exist: a slot gives only what was published when it \
             was written, so one that is made again does not help. Make the publication, then \
             {RESYNC}"
        )));
    };
    let published = control.published(name).await?;
    for table in tables {
        if !published.iter().any(|of| of.schema.table == *table) {
            if let Some(lacking) = control.lacks_table(std::slice::from_ref(table)).await? {
                return Err(stop(lacking));
            }
            if control.is_of_partitions(name, table).await? {
                return Err(stop(format!(
                    "publication `{name}` has the rows of table `{table}` as those of its \
                     partitions: `alter publication {} set (publish_via_partition_root = true)`",
                    quoted(name)
                )));
            }
            return Err(stop(format!(
                "publication `{name}` lacks table `{table}`: `alter publication \"{name}\" add \
                 table {}`, then `resync` of the table, because it is sent from its next changes \
                 on",
                table.quoted()
            )));
        }
    }
    let mut warnings = Vec::new();
    let others = published.iter().map(|of| &of.schema.table);
    let others: Vec<_> = others.filter(|of| !tables.contains(of)).collect();
    if let (false, Some(first)) = (tables.is_empty(), others.first()) {
        let more = match others.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        warnings.push(format!(
            "publication `{name}` has table `{first}`{more}, which `tables` does not name, and \
             its changes are taken in too: name it, or take it out of the publication"
        ));
    }
    let changes = publishes.updates || publishes.deletes;
    let lacks_key = |of: &&Published| {
        of.schema.identity == Identity::Nothing
            || of.schema.identity == Identity::Default && !of.has_primary_key
    };
    let lacking: Vec<_> = published
        .iter()
        .filter(|of| changes && lacks_key(of))
        .map(|of| &of.schema.table)
        .collect();
    for table in lacking.iter().take(WARNED_TABLES_MAX) {
        warnings.push(format!(
            "table `{table}` has no replica identity, so the application's own updates and \
             deletes fail: give it a primary key or `alter table {} replica identity full`",
            table.quoted()
        ));
    }
    if lacking.len() > WARNED_TABLES_MAX {
        let more = lacking.len() - WARNED_TABLES_MAX;
        warnings.push(format!("{more} more tables have no replica identity"));
    }
    let all = [
        (publishes.inserts, "inserts"),
        (publishes.updates, "updates"),
        (publishes.deletes, "deletes"),
        (publishes.truncates, "truncates"),
    ];
    let not = all.iter().filter(|(is, _)| !is).map(|(_, what)| *what);
    let not: Vec<_> = not.collect();
    if !not.is_empty() {
        let not = not.join(" and ");
        warnings.push(format!("publication `{name}` publishes no {not}"));
    }
    Ok((published, warnings))
}

/// The slot is there, is ours, is free, and has everything after the last mark.
pub(super) async fn slot(
    control: &mut Control,
    name: &str,
    database: &str,
    resume: Lsn,
) -> Result<(), SourceError> {
    let Some(slot) = control.slot(name).await? else {
        return Err(stop(format!(
            "slot `{name}` is gone: what was written since {resume} may be lost. {RESYNC}"
        )));
    };
    belongs(&slot, name, database)?;
    if slot.wal_status == "lost" {
        return Err(stop(format!(
            "slot `{name}` is lost: it was further than `max_slot_wal_keep_size` after the last \
             write, and the server removed the log that it needs, since {resume}. {RESYNC}"
        )));
    }
    if slot.active {
        return Err(retry(format!("slot `{name}` is used by another session")));
    }
    match slot.confirmed {
        // Going back is no gap: what is known is passed over.
        Some(confirmed) if confirmed > resume => Err(stop(format!(
            "slot `{name}` begins at {confirmed}, and the log was read up to {resume}: it was made \
             again, or another session reads it, and what is in between is lost. {RESYNC}"
        ))),
        _ => Ok(()),
    }
}

/// The slot that is in the way of a new one is one that this log had, and no other program misses
/// it: it begins where the last copy began, or an operator has asked for another one.
pub(super) fn may_drop(
    found: &Slot,
    (name, system): (&str, &str),
    database: &str,
    last: Option<&Mark>,
    is_asked: bool,
) -> Result<(), SourceError> {
    belongs(found, name, database)?;
    let is_ours = last.is_some_and(|last| {
        let copy = last.snapshot.unwrap_or_default();
        let is_of_copy = copy.point.is_some() && copy.point == found.confirmed;
        let had_one = last.resume.is_some() || copy.point.is_some() || copy.after.is_some();
        // A copy after others was asked for, too.
        let is_asked = is_asked || copy.after.is_some();
        slot_of(last, system) == Some(name) && (is_of_copy || is_asked && had_one)
    });
    if found.active && last.is_some() {
        return Err(retry(format!("slot `{name}` is used by another session")));
    }
    if is_ours {
        return Ok(());
    }
    Err(stop(format!(
        "slot `{name}` is there already, and this log knows nothing of it: another program may use \
         it. Say another one with `slot`, or drop it: `select pg_drop_replication_slot('{name}')`"
    )))
}

/// The slot of a mark, if it is of this server.
fn slot_of<'a>(mark: &'a Mark, system: &str) -> Option<&'a str> {
    let words: Vec<&str> = mark.source.split(' ').collect();
    match *words {
        ["postgres", of, "timeline", _, "slot", slot] if of == system => Some(slot),
        _ => None,
    }
}

/// What to say of the slot that was read before, when another one takes its place.
pub(super) async fn other_slot(
    control: &mut Control,
    name: &str,
    system: &str,
    last: &Mark,
) -> Result<Option<String>, SourceError> {
    let Some(other) = slot_of(last, system).filter(|other| *other != name) else {
        return Ok(None);
    };
    let found = control.slot(other).await?;
    Ok(found.map(|_| {
        format!(
            "slot `{other}` was read before, and keeps the log of the server: if no program reads \
             it, `select pg_drop_replication_slot('{other}')`"
        )
    }))
}

fn belongs(slot: &Slot, name: &str, database: &str) -> Result<(), SourceError> {
    if slot.plugin != "pgoutput" {
        return Err(stop(format!(
            "slot `{name}` is for the plugin `{}`, and not for `pgoutput`: say another one with \
             `slot`",
            slot.plugin
        )));
    }
    if slot.database != database {
        return Err(stop(format!(
            "slot `{name}` is of database `{}`, and this one is `{database}`: say another one with \
             `slot`",
            slot.database
        )));
    }
    Ok(())
}
