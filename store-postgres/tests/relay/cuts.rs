//! Which requests are cut, and a count of them by how.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Treatment;

/// Of some requests one is cut.
#[derive(Debug)]
pub(crate) struct Cuts {
    every: u64,
    requests: AtomicU64,
    before: AtomicU64,
    meanwhile: AtomicU64,
    after: AtomicU64,
}

impl Cuts {
    pub(crate) fn one_in(every: u64) -> Cuts {
        let [requests, before, meanwhile, after] = [0; 4].map(AtomicU64::new);
        Cuts {
            every,
            requests,
            before,
            meanwhile,
            after,
        }
    }

    /// Half of the cuts before the server has the request, half after.
    pub(crate) fn next(&self) -> Treatment {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        if !request.is_multiple_of(self.every) {
            return Treatment::Passes;
        }
        let (treatment, count) = match request / self.every % 4 {
            0 | 2 => (Treatment::NeverArrives, &self.before),
            1 => (Treatment::CutWhileItRuns, &self.meanwhile),
            _ => (Treatment::AnswerLost, &self.after),
        };
        count.fetch_add(1, Ordering::Relaxed);
        treatment
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn all(&self) -> [u64; 3] {
        [&self.before, &self.meanwhile, &self.after].map(|count| count.load(Ordering::Relaxed))
    }
}
