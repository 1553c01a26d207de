//! Heartbeats through the log of the server: they move the slot of a quiet publication, and one
//! that does not come back is a dead link.

use std::collections::VecDeque;
use std::time::Duration;

use annals_core::{Clock as _, SystemClock};
use chrono::{DateTime, Utc};
use sqlx::query;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::control::Control;
use super::errors::{of_control, retry, state_of};
use crate::ingest::SourceError;

/// The prefix of the messages.
pub(super) const PREFIX: &str = "annals.heartbeat";

/// So many may be missing.
const MISSED_MAX: u32 = 3;

#[derive(Debug)]
pub(super) struct Heartbeat {
    ticks: Interval,
    missing: u32,
    every: Duration,
    refused: bool,
    /// When those were sent that did not come back yet, the oldest first.
    sent: VecDeque<(String, DateTime<Utc>)>,
}

impl Heartbeat {
    pub(super) fn every(every: Duration) -> Heartbeat {
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Heartbeat {
            ticks,
            missing: 0,
            every,
            refused: false,
            sent: VecDeque::new(),
        }
    }

    /// How long the server may take to answer.
    pub(super) fn timeout(&self) -> Duration {
        self.every * MISSED_MAX
    }

    /// Returns when it is time for the next one.
    pub(super) async fn due(&mut self) {
        self.ticks.tick().await;
    }

    /// One came back, or something else came.
    pub(super) fn came_back(&mut self) {
        self.missing = 0;
    }

    /// One with this content came back: says when it was sent, if this session did.
    pub(super) fn is_back(&mut self, content: &[u8]) -> Option<DateTime<Utc>> {
        let is_it = |(sent, _): &(String, _)| sent.as_bytes() == content;
        let at = self.sent.iter().position(is_it)?;
        self.sent.drain(..=at).next_back().map(|(_, at)| at)
    }

    /// When the oldest was sent that did not come back yet.
    pub(super) fn waits_since(&self) -> Option<DateTime<Utc>> {
        self.sent.front().map(|(_, at)| *at)
    }

    /// Sends one, unless the role may not.
    pub(super) async fn send(
        &mut self,
        control: &mut Control,
        ingest: &str,
    ) -> Result<(), SourceError> {
        if self.refused {
            return Ok(());
        }
        if self.missing >= MISSED_MAX {
            return Err(retry(format!(
                "{MISSED_MAX} heartbeats did not come back in {:?}: the link is dead",
                self.timeout()
            )));
        }
        let began = SystemClock.now();
        let content = format!("{ingest} {}", began.timestamp_micros());
        let emit = query("select pg_logical_emit_message(false, $1, $2)")
            .bind(PREFIX)
            .bind(&content)
            .execute(&mut control.connection);
        // The control connection may be as dead as the other one.
        match tokio::time::timeout(self.timeout(), emit).await {
            Err(_) => Err(retry(
                "the server does not answer a heartbeat: the link is dead",
            )),
            Ok(Ok(_)) => {
                self.missing += 1;
                self.sent.push_back((content, began));
                Ok(())
            }
            // No right, or a standby.
            Ok(Err(error)) if matches!(state_of(&error).as_deref(), Some("42501" | "25006")) => {
                self.refused = true;
                Ok(())
            }
            Ok(Err(error)) => Err(of_control("cannot send a heartbeat", error)),
        }
    }

    /// What operators should know.
    pub(super) fn warning(&self) -> Option<String> {
        self.refused.then(|| {
            "no heartbeat: the role may not call `pg_logical_emit_message`, or the server is a \
             standby; a quiet publication keeps more log, and a dead link is seen later"
                .to_owned()
        })
    }
}
