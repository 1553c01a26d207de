//! The client of the crate `pgwire-replication`.

use std::time::Duration;

use async_trait::async_trait;
use pgwire_replication::{PgWireError, ReplicationClient, ReplicationConfig, ReplicationEvent};

use super::address::BEGIN;
use super::errors::{of_replication, retry};
use super::pump::Pump;
use super::transport::{Frame, Lives, ServerIdentity, Transport};
use crate::ingest::SourceError;
use crate::lsn::Lsn;
use crate::pgoutput::time;

pub(super) struct Pgwire {
    state: State,
    process: i32,
}

enum State {
    Asks(Box<ReplicationClient>),
    Streams(Pump),
    Ended,
}

impl std::fmt::Debug for Pgwire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pgwire").finish_non_exhaustive()
    }
}

impl Pgwire {
    pub(super) async fn connect(config: ReplicationConfig) -> Result<Pgwire, SourceError> {
        let client = ReplicationClient::connect_gated(config).await;
        let cannot = |error| of_replication("cannot connect", error);
        let mut session = Pgwire {
            state: State::Asks(Box::new(client.map_err(cannot)?)),
            process: 0,
        };
        let begun = session.asks()?.simple_query(BEGIN).await;
        let first = begun.map_err(cannot)?.into_iter().flatten().next();
        let process = text(first.flatten()).parse::<i32>();
        session.process =
            process.map_err(|_| retry("the server did not say which process it is"))?;
        Ok(session)
    }

    /// The client, before the stream begins.
    fn asks(&mut self) -> Result<&mut ReplicationClient, SourceError> {
        match &mut self.state {
            State::Asks(client) => Ok(client),
            State::Streams(_) | State::Ended => Err(retry("the session streams already")),
        }
    }

    fn streams(&mut self) -> Result<&mut Pump, SourceError> {
        match &mut self.state {
            State::Streams(pump) => Ok(pump),
            State::Asks(_) | State::Ended => Err(retry("the session does not stream")),
        }
    }
}

impl Drop for Pgwire {
    fn drop(&mut self) {
        if let State::Asks(client) = &mut self.state {
            client.abort();
        }
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

pub(super) fn received(
    event: Result<Option<ReplicationEvent>, PgWireError>,
) -> Result<Frame, SourceError> {
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
    fn process(&self) -> i32 {
        self.process
    }

    async fn identify(&mut self) -> Result<ServerIdentity, SourceError> {
        let found = self.asks()?.identify_system().await;
        let found = found.map_err(|error| of_replication("cannot connect", error))?;
        Ok(ServerIdentity {
            system: found.system_id,
            timeline: found.timeline,
            written: lsn(found.xlogpos),
        })
    }

    async fn show(&mut self, setting: &str) -> Result<String, SourceError> {
        let rows = self.asks()?.simple_query(&format!("show {setting}")).await;
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
        let rows = self.asks()?.simple_query(&create).await;
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
        let client = self.asks()?;
        client.start().await.map_err(cannot)?;
        client.wait_started().await.map_err(cannot)?;
        if let State::Asks(client) = std::mem::replace(&mut self.state, State::Ended) {
            self.state = State::Streams(Pump::start(*client));
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Frame, SourceError> {
        self.streams()?.next().await
    }

    fn try_next(&mut self) -> Option<Result<Frame, SourceError>> {
        match self.streams() {
            Ok(pump) => pump.try_next(),
            Err(error) => Some(Err(error)),
        }
    }

    fn confirm(&mut self, up_to: Lsn) {
        if let State::Streams(pump) = &self.state {
            pump.confirm(up_to);
        }
    }

    async fn end(&mut self) {
        let ended = async {
            match &mut self.state {
                State::Asks(client) => drop(client.shutdown().await),
                State::Streams(pump) => pump.end().await,
                State::Ended => {}
            }
        };
        // A server that does not answer is left.
        let _ = tokio::time::timeout(Duration::from_secs(2), ended).await;
    }
}
