//! What a reader was given, in a small form that shows everything that can be wrong with it.

use annals_core::conformance::numbered::Numbered;
use annals_core::{Clock, RecordedEvent, SystemClock};

/// Multiplies what was read so far, so that another order is another sum.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// An event, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) position: u64,
    /// Its position, whose it is, and which of its append: no two are alike.
    mark: u64,
    recorded_at_micros: i64,
}

impl Event {
    pub(crate) fn new(position: u64, of: Numbered, index: u64, recorded_at_micros: i64) -> Event {
        let mark = [position, of.run, of.task, of.n, index]
            .into_iter()
            .fold(1, mixed);
        Event {
            position,
            mark,
            recorded_at_micros,
        }
    }

    pub(crate) fn of(event: &RecordedEvent) -> Event {
        let (numbered, index) = Numbered::of(event);
        Event::new(
            event.position.get(),
            numbered,
            index,
            event.recorded_at.timestamp_micros(),
        )
    }
}

fn mixed(sum: u64, mark: u64) -> u64 {
    let mark = (mark ^ (mark >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    sum.wrapping_mul(STEP).wrapping_add(mark ^ (mark >> 27))
}

/// What a reader was given at once: everything after one position up to another, or so it believes.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) after: u64,
    pub(crate) last: u64,
    count: u64,
    sum: u64,
    /// How long after it was recorded each event was given, in microseconds; empty while the reader
    /// catches up.
    pub(crate) delays: Vec<i64>,
}

impl Page {
    pub(crate) fn new(after: u64, last: u64, events: &[Event]) -> Page {
        let now = SystemClock.now().timestamp_micros();
        Page {
            after,
            last,
            count: events.len() as u64,
            sum: events.iter().fold(0, |sum, event| mixed(sum, event.mark)),
            delays: events
                .iter()
                .map(|event| now - event.recorded_at_micros)
                .collect(),
        }
    }

    /// As a line of a process's output.
    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "page {} {} {} {}",
            self.after, self.last, self.count, self.sum
        );
        for delay in &self.delays {
            line += &format!(" {delay}");
        }
        line
    }

    /// None when the line is something else, or was cut off where the process was killed.
    pub(crate) fn parse(line: &str) -> Option<Page> {
        let mut numbers = line.strip_prefix("page ")?.split(' ');
        let mut next = || numbers.next()?.parse::<u64>().ok();
        let after = next()?;
        let last = next()?;
        let count = next()?;
        let sum = next()?;
        let delays = numbers
            .map(|delay| delay.parse().ok())
            .collect::<Option<_>>()?;
        Some(Page {
            after,
            last,
            count,
            sum,
            delays,
        })
    }
}

/// What was wrong with what readers were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) skipped: u64,
    pub(crate) duplicated: u64,
    /// Pages with as many events as there are, and others or in another order.
    pub(crate) out_of_order: u64,
}

/// Compares pages with all events there are.
pub(crate) fn compare<'a>(truth: &[Event], pages: impl IntoIterator<Item = &'a Page>) -> Wrong {
    let mut sums = vec![0];
    let mut steps = vec![1_u64];
    for (at, event) in truth.iter().enumerate() {
        sums.push(mixed(sums[at], event.mark));
        steps.push(steps[at].wrapping_mul(STEP));
    }
    let up_to = |position| truth.partition_point(|event| event.position <= position);
    let mut wrong = Wrong::default();
    for page in pages {
        let from = up_to(page.after);
        let to = up_to(page.last);
        let count = (to - from) as u64;
        let sum = sums[to].wrapping_sub(sums[from].wrapping_mul(steps[to - from]));
        wrong.skipped += count.saturating_sub(page.count);
        wrong.duplicated += page.count.saturating_sub(count);
        wrong.out_of_order += u64::from(count == page.count && sum != page.sum);
    }
    wrong
}

#[test]
fn the_oracle_knows_skips_repetitions_and_wrong_order() {
    let event = |position, n| Event::new(position, Numbered { run: 1, task: 2, n }, 0, 0);
    let truth: Vec<Event> = [1, 2, 4, 5]
        .map(|position| event(position, position))
        .to_vec();
    let compared = |after, last, events: &[Event]| {
        let Wrong {
            skipped,
            duplicated,
            out_of_order,
        } = compare(&truth, [&Page::new(after, last, events)]);
        [skipped, duplicated, out_of_order]
    };
    let [one, two, four, five] = truth[..] else {
        unreachable!()
    };
    assert_eq!(compared(0, 5, &truth), [0, 0, 0]);
    assert_eq!(compared(2, 5, &[four, five]), [0, 0, 0]);
    assert_eq!(compared(0, 5, &[one, four, five]), [1, 0, 0]);
    assert_eq!(compared(0, 2, &[one, two, two]), [0, 1, 0]);
    assert_eq!(compared(0, 2, &[two, one]), [0, 0, 1]);
    assert_eq!(compared(0, 2, &[one, event(2, 3)]), [0, 0, 1]);
    let page = Page::new(0, 5, &truth);
    assert_eq!(Page::parse(&page.line()).unwrap().line(), page.line());
    assert!(Page::parse("page 1 2 3").is_none());
}
