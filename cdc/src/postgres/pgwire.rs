//! The client of the crate `pgwire-replication`.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use pgwire_replication::{PgWireError, ReplicationClient, ReplicationConfig, ReplicationEvent};

use super::errors::{of_replication, retry};
use super::transport::{Frame, Lives, ServerIdentity, Transport};
use crate::ingest::SourceError;
use crate::lsn::Lsn;
use crate::pgoutput::time;

pub(super) struct Pgwire {
    client: ReplicationClient,
}

impl std::fmt::Debug for Pgwire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pgwire").finish_non_exhaustive()
    }
}

impl Pgwire {
    pub(super) async fn connect(config: ReplicationConfig) -> Result<Pgwire, SourceError> {
        let client = ReplicationClient::connect_gated(config).await;
        let client = client.map_err(|error| of_replication("cannot connect", error))?;
        Ok(Pgwire { client })
    }
}

impl Drop for Pgwire {
    fn drop(&mut self) {
        self.client.abort();
    }
}

fn lsn(lsn: pgwire_replication::Lsn) -> Lsn {
    Lsn::new(lsn.as_u64())
}

fn frame(event: ReplicationEvent) -> Result<Frame, SourceError> {
    Ok(match event {
        ReplicationEvent::Begin {
            final_lsn,
            xid,
            commit_time_micros,
        } => Frame::Begin {
            final_lsn: lsn(final_lsn),
            time: time(commit_time_micros).map_err(|error| retry(error.to_string()))?,
            xid,
        },
        ReplicationEvent::XLogData { data, .. } => Frame::Data(data),
        ReplicationEvent::Commit {
            lsn: at, end_lsn, ..
        } => Frame::Commit {
            lsn: lsn(at),
            end: lsn(end_lsn),
        },
        ReplicationEvent::Message {
            transactional,
            lsn: at,
            prefix,
            content,
        } => Frame::Logical {
            transactional,
            lsn: lsn(at),
            prefix,
            content,
        },
        ReplicationEvent::KeepAlive {
            wal_end,
            reply_requested,
            ..
        } => Frame::KeepAlive {
            at: lsn(wal_end),
            asks: reply_requested,
        },
        ReplicationEvent::StoppedAt { .. } => return Err(retry("the stream was stopped")),
    })
}

fn received(event: Result<Option<ReplicationEvent>, PgWireError>) -> Result<Frame, SourceError> {
    match event {
        Ok(Some(event)) => frame(event),
        Ok(None) => Err(retry("the server ended the stream")),
        Err(error) => Err(of_replication("the stream broke off", error)),
    }
}

fn text(value: Option<bytes::Bytes>) -> String {
    value.map_or_else(String::new, |value| {
        String::from_utf8_lossy(&value).into_owned()
    })
}

#[async_trait]
impl Transport for Pgwire {
    async fn identify(&mut self) -> Result<ServerIdentity, SourceError> {
        let found = self.client.identify_system().await;
        let found = found.map_err(|error| of_replication("cannot connect", error))?;
        Ok(ServerIdentity {
            system: found.system_id,
            timeline: found.timeline,
            written: lsn(found.xlogpos),
        })
    }

    async fn show(&mut self, setting: &str) -> Result<String, SourceError> {
        let rows = self.client.simple_query(&format!("show {setting}")).await;
        let rows = rows.map_err(|error| of_replication("cannot read a setting", error))?;
        let value = rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next());
        Ok(text(value.flatten()))
    }

    async fn create_slot(
        &mut self,
        slot: &str,
        lives: Lives,
    ) -> Result<(Lsn, String), SourceError> {
        let doing = format!("cannot make the slot `{slot}`");
        let temporary = match lives {
            Lives::ForEver => "",
            Lives::WithSession => " TEMPORARY",
        };
        let create = format!(
            "CREATE_REPLICATION_SLOT \"{slot}\"{temporary} LOGICAL pgoutput EXPORT_SNAPSHOT"
        );
        let rows = self.client.simple_query(&create).await;
        let rows = rows.map_err(|error| of_replication(&doing, error))?;
        let mut row = rows
            .into_iter()
            .next()
            .unwrap_or_default()
            .into_iter()
            .map(text);
        let point = row.nth(1).and_then(|point| point.parse().ok());
        match (point, row.next()) {
            (Some(point), Some(snapshot)) => Ok((point, snapshot)),
            _ => Err(retry(format!(
                "{doing}: the server did not say where it begins"
            ))),
        }
    }

    async fn start(&mut self) -> Result<(), SourceError> {
        let cannot = |error| of_replication("cannot begin to stream", error);
        self.client.start().await.map_err(cannot)?;
        self.client.wait_started().await.map_err(cannot)
    }

    async fn next(&mut self) -> Result<Frame, SourceError> {
        received(self.client.recv().await)
    }

    fn try_next(&mut self) -> Option<Result<Frame, SourceError>> {
        // What is not there now is received by `next`.
        self.client.recv().now_or_never().map(received)
    }

    fn confirm(&mut self, up_to: Lsn) {
        let up_to = pgwire_replication::Lsn::from_u64(up_to.get());
        self.client.update_applied_lsn(up_to);
    }

    async fn end(&mut self) {
        let ended = self.client.shutdown();
        // A server that does not answer is left.
        let _ = tokio::time::timeout(Duration::from_secs(2), ended).await;
    }
}
