//! Heartbeats through the log of the server: they move the slot of a quiet publication, and a link
//! is dead when the server has sent some that did not arrive.
//!
//! Silence alone says nothing: a server sends nothing while it reads the rows of a large
//! transaction before its commit, nor while it goes through one of tables that are not published.

use std::collections::VecDeque;
use std::time::Duration;

use annals_core::{Clock as _, SystemClock};
use chrono::{DateTime, Utc};
use sqlx::query_scalar;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::control::{Control, Sender};
use super::errors::{of_control, retry, state_of};
use crate::ingest::SourceError;
use crate::lsn::Lsn;

/// The prefix of the messages.
pub(super) const PREFIX: &str = "annals.heartbeat";

/// So many may be missing before a link is given up. Twice as many after each link that brought
/// nothing, so that whatever takes a server long is waited for at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MissedMax(u32);

impl Default for MissedMax {
    fn default() -> MissedMax {
        MissedMax(3)
    }
}

impl MissedMax {
    /// After a link that brought nothing.
    pub(super) fn doubled(self) -> MissedMax {
        MissedMax(self.0.saturating_mul(2))
    }

    /// How long the server may take to answer.
    pub(super) fn timeout(self, every: Duration) -> Duration {
        every.saturating_mul(self.0)
    }
}

#[derive(Debug)]
pub(super) struct Heartbeat {
    ticks: Interval,
    missing: u32,
    missed_max: MissedMax,
    every: Duration,
    refused: bool,
    /// Those that did not come back yet, the oldest first.
    sent: VecDeque<Sent>,
    /// Whether this link has brought something that need not be sent again.
    has_brought: bool,
    gave_up: bool,
}

/// A heartbeat that was written.
#[derive(Debug)]
struct Sent {
    content: String,
    at: DateTime<Utc>,
    /// Where it ends in the log of the server.
    end: Lsn,
}

impl Heartbeat {
    pub(super) fn every(every: Duration, missed_max: MissedMax) -> Heartbeat {
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Heartbeat {
            ticks,
            missing: 0,
            missed_max,
            every,
            refused: false,
            sent: VecDeque::new(),
            has_brought: false,
            gave_up: false,
        }
    }

    /// How many the next link may miss.
    pub(super) fn next_missed_max(&self) -> MissedMax {
        match (self.has_brought, self.gave_up) {
            (true, _) => MissedMax::default(),
            (false, true) => self.missed_max.doubled(),
            (false, false) => self.missed_max,
        }
    }

    /// Something was taken in, and is not sent again.
    pub(super) fn has_brought(&mut self) {
        self.has_brought = true;
    }

    /// Waits for what the connection for SQL says, which may be as dead as the other one.
    pub(super) async fn answer<T>(
        &mut self,
        asked: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        let at_most = self.missed_max.timeout(self.every);
        match tokio::time::timeout(at_most, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(self.gives_up(format!("the server did not answer in {at_most:?}"))),
        }
    }

    fn gives_up(&mut self, why: String) -> SourceError {
        self.gave_up = true;
        retry(format!("{why}: the link is dead"))
    }

    /// What the server says of its end of the link. While that has not come to the oldest heartbeat
    /// and does not wait for this end, none is missing.
    pub(super) fn is_served(&mut self, sender: Option<Sender>) {
        let is_before = |sender: Sender| self.sent.front().is_some_and(|of| sender.sent < of.end);
        if sender.is_some_and(|sender| !sender.waits_for_link && is_before(sender)) {
            self.missing = 0;
        }
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
        let is_it = |sent: &Sent| sent.content.as_bytes() == content;
        let at = self.sent.iter().position(is_it)?;
        self.has_brought = true;
        self.sent.drain(..=at).next_back().map(|sent| sent.at)
    }

    /// When the oldest was sent that did not come back yet.
    pub(super) fn waits_since(&self) -> Option<DateTime<Utc>> {
        self.sent.front().map(|sent| sent.at)
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
        if self.missing >= self.missed_max.0 {
            let within = self.missed_max.timeout(self.every);
            return Err(self.gives_up(format!(
                "{} heartbeats did not come back in {within:?}",
                self.missing
            )));
        }
        let began = SystemClock.now();
        let content = format!("{ingest} {}", began.timestamp_micros());
        match self.answer(emit(control, &content)).await? {
            Some(end) => {
                self.missing += 1;
                self.sent.push_back(Sent {
                    content,
                    at: began,
                    end,
                });
            }
            None => self.refused = true,
        }
        Ok(())
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

/// Writes one, and says where it ends; nothing when the role may not, or the server is a standby.
async fn emit(control: &mut Control, content: &str) -> Result<Option<Lsn>, SourceError> {
    let doing = "cannot send a heartbeat";
    let emit = query_scalar("select pg_logical_emit_message(false, $1, $2)::text")
        .bind(PREFIX)
        .bind(content)
        .fetch_one(&mut control.connection);
    let end: String = match emit.await {
        Ok(end) => end,
        Err(error) if matches!(state_of(&error).as_deref(), Some("42501" | "25006")) => {
            return Ok(None);
        }
        Err(error) => return Err(of_control(doing, error)),
    };
    let end = end.parse();
    end.map(Some)
        .map_err(|_| retry(format!("{doing}: the server did not say where it is")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    /// A heartbeat of which this many were written, up to LSN 100, 200 and so on.
    fn written(count: u64) -> Heartbeat {
        let mut heartbeat = Heartbeat::every(EVERY, MissedMax::default());
        for number in 1..=count {
            heartbeat.missing += 1;
            heartbeat.sent.push_back(Sent {
                content: number.to_string(),
                at: SystemClock.now(),
                end: Lsn::new(number * 100),
            });
        }
        heartbeat
    }

    #[tokio::test]
    async fn none_is_missing_that_the_server_has_not_come_to() {
        let sender = |sent, waits_for_link| {
            Some(Sender {
                sent: Lsn::new(sent),
                waits_for_link,
            })
        };
        for (sender, missing) in [
            (sender(99, false), 0),
            (sender(99, true), 3),
            (sender(100, false), 3),
            (sender(300, false), 3),
            (None, 3),
        ] {
            let mut heartbeat = written(3);
            heartbeat.is_served(sender);
            assert_eq!(heartbeat.missing, missing, "{sender:?}");
        }
    }

    #[tokio::test]
    async fn a_link_that_sent_nothing_lengthens_the_next_timeout() {
        let mut missed_max = MissedMax::default();
        for next in [6, 12, 24] {
            let mut heartbeat = Heartbeat::every(Duration::from_millis(1), missed_max);
            let never = std::future::pending::<Result<(), SourceError>>();
            heartbeat.answer(never).await.unwrap_err();
            missed_max = heartbeat.next_missed_max();
            assert_eq!(missed_max, MissedMax(next));
        }
        assert_eq!(missed_max.timeout(EVERY), Duration::from_secs(240));
        let mut heartbeat = Heartbeat::every(EVERY, missed_max);
        assert_eq!(heartbeat.next_missed_max(), missed_max);
        // Once something was taken in, the next link does not begin where this one did.
        heartbeat.has_brought();
        heartbeat.gave_up = true;
        assert_eq!(heartbeat.next_missed_max(), MissedMax::default());
    }

    #[tokio::test]
    async fn a_heartbeat_that_came_back_has_brought_something() {
        let mut heartbeat = written(2);
        heartbeat.gave_up = true;
        assert!(heartbeat.is_back(b"another").is_none());
        assert_eq!(heartbeat.next_missed_max(), MissedMax(6));
        assert!(heartbeat.is_back(b"1").is_some());
        assert_eq!(heartbeat.next_missed_max(), MissedMax::default());
    }
}
