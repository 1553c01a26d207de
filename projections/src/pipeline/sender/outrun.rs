//! Whether the generation that is sent from makes no progress while the live one does: in a
//! deployment, an older program follows a generation of its own, and has the lease of the sender.

use std::time::{Duration, Instant};

use annals_core::{Generation, Position};

/// So long a generation makes no progress before its sender says so: either may be ahead for a
/// moment.
const LAGS_FOR: Duration = Duration::from_secs(1);

/// Since when a generation is where it is, and lags the live one.
#[derive(Debug, Default)]
pub(super) struct Outrun {
    since: Option<(Instant, Vec<Position>)>,
}

impl Outrun {
    /// Why nothing is sent, when that is so: of the generation that is sent from and the live one,
    /// each with where its slots are by partition.
    pub(super) fn look(
        &mut self,
        (served, at): (&Generation, Vec<Position>),
        (live, ahead): (&Generation, &[Position]),
    ) -> Option<String> {
        if served.id == live.id || !at.iter().zip(ahead).any(|(at, ahead)| at < ahead) {
            self.since = None;
            return None;
        }
        let since = match &self.since {
            Some((since, before)) if *before == at => *since,
            _ => self.since.insert((Instant::now(), at)).0,
        };
        (since.elapsed() >= LAGS_FOR).then(|| {
            let (id, live) = (served.id, live.id);
            format!(
                "generation {id}, which this program follows and sends from, makes no progress, \
                 and generation {live} is the live one; stop the programs that follow generation \
                 {id}, and a program that follows generation {live} sends"
            )
        })
    }
}
