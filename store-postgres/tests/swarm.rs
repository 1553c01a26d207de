//! Many processes at once, killed all the time: a subscriber is given everything that was
//! committed, once and in order.
//!
//! The test starts itself as its writers and subscribers, and learns from what they print what was
//! acknowledged and delivered.

// What must not fail is unwrapped, and the figures are shown.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "swarm/record.rs"]
mod record;
mod server;
#[path = "swarm/subject.rs"]
mod subject;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use annals_core::conformance::numbered::Numbered;
use annals_core::conformance::rounds;
use record::{Page, Wrong, compare};
use server::Schema;
use subject::{Kind, Subject};

const KIND: &str = "ANNALS_SWARM_KIND";
const SCHEMA: &str = "ANNALS_SWARM_SCHEMA";
/// A writer's run, or where a subscriber goes on.
const NUMBER: &str = "ANNALS_SWARM_NUMBER";

const WRITERS: usize = 4;
const TASKS: u64 = 4;
const SUBSCRIBERS: usize = 8;
const A_WRITER_IS_KILLED_EVERY: Duration = Duration::from_millis(200);
const A_SUBSCRIBER_IS_KILLED_EVERY: Duration = Duration::from_millis(500);
/// So many events are acknowledged between two kills of writers, however slow the machine: writers
/// that are killed before they wrote anything show nothing.
const EVENTS_BETWEEN_KILLS: u64 = 200;

/// Whatever has not happened by then never will.
const FOR_EVER: Duration = Duration::from_secs(600);

/// The subject and the number of a process of the swarm; none when a person runs all ignored
/// tests.
fn given() -> Option<(Kind, String, u64)> {
    let kind = if std::env::var(KIND).ok()? == "naive" {
        Kind::Naive
    } else {
        Kind::Annals
    };
    Some((
        kind,
        std::env::var(SCHEMA).ok()?,
        std::env::var(NUMBER).ok()?.parse().ok()?,
    ))
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}")
        .and_then(|()| out.flush())
        .unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
#[ignore = "it is a process that the other tests start and kill"]
fn writes() {
    let Some((kind, schema, run)) = given() else {
        return;
    };
    runtime().block_on(async {
        let subject = Subject::open(kind, &schema).await;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let subject = subject.clone();
            tasks.spawn(async move {
                for n in 0.. {
                    subject.append(Numbered { run, task, n }).await;
                    say(&format!("acknowledged {task} {n}"));
                }
            });
        }
        tasks.join_next().await.unwrap().unwrap();
    });
}

#[test]
#[ignore = "it is a process that the other tests start and kill"]
fn follows() {
    let Some((kind, schema, mut at)) = given() else {
        return;
    };
    runtime().block_on(async {
        let subject = Subject::open(kind, &schema).await;
        let mut hint = subject.hint();
        let mut is_live = false;
        loop {
            let (mut page, is_end) = subject.read(at).await;
            if page.last > at {
                at = page.last;
                if !is_live {
                    page.delays.clear();
                }
                say(&page.line());
            }
            if is_end {
                is_live = true;
                subject::pause(&mut hint).await;
            }
        }
    });
}

/// A process of the swarm, killed when the test ends, however it does.
struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process said, or nothing more.
struct Said {
    role: &'static str,
    slot: usize,
    number: u64,
    line: Option<String>,
}

struct Swarm {
    kind: Kind,
    schema: String,
    writers: Vec<Member>,
    subscribers: Vec<Member>,
    says: Sender<Said>,
    said: Receiver<Said>,
    runs: u64,
    acknowledged: HashSet<Numbered>,
    events: u64,
    /// By subscriber: where it goes on, and all that it was given in all its lives.
    reached: Vec<u64>,
    pages: Vec<Page>,
}

impl Swarm {
    fn gather(kind: Kind, schema: &str) -> Swarm {
        let (says, said) = channel();
        let mut swarm = Swarm {
            kind,
            schema: schema.to_owned(),
            writers: Vec::new(),
            subscribers: Vec::new(),
            says,
            said,
            runs: 0,
            acknowledged: HashSet::new(),
            events: 0,
            reached: vec![0; SUBSCRIBERS],
            pages: Vec::new(),
        };
        for slot in 0..SUBSCRIBERS {
            let member = swarm.start("follows", slot, 0);
            swarm.subscribers.push(member);
        }
        for slot in 0..WRITERS {
            let member = swarm.writer(slot);
            swarm.writers.push(member);
        }
        swarm
    }

    fn writer(&mut self, slot: usize) -> Member {
        self.runs += 1;
        self.start("writes", slot, self.runs)
    }

    fn start(&self, role: &'static str, slot: usize, number: u64) -> Member {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([role, "--exact", "--ignored", "--nocapture"])
            .env(
                KIND,
                if self.kind == Kind::Naive {
                    "naive"
                } else {
                    "annals"
                },
            )
            .env(SCHEMA, &self.schema)
            .env(NUMBER, number.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let says = self.says.clone();
        std::thread::spawn(move || {
            let mut out = out;
            let mut line = String::new();
            while out.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                // The last line may be cut off.
                if let Some(whole) = line.strip_suffix('\n') {
                    let _ = says.send(Said {
                        role,
                        slot,
                        number,
                        line: Some(whole.to_owned()),
                    });
                }
                line.clear();
            }
            let _ = says.send(Said {
                role,
                slot,
                number,
                line: None,
            });
        });
        Member(child)
    }

    /// Takes in what is said until `until`. Answers with the process that ended, when one did
    /// before.
    fn listen(&mut self, until: Instant, subject: &Subject) -> Option<(&'static str, usize)> {
        loop {
            match self
                .said
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(Said {
                    role,
                    slot,
                    line: None,
                    ..
                }) => return Some((role, slot)),
                Ok(Said {
                    slot,
                    number,
                    line: Some(line),
                    ..
                }) => self.hear(slot, number, &line, subject),
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
            }
        }
    }

    fn hear(&mut self, slot: usize, number: u64, line: &str, subject: &Subject) {
        if let Some((task, n)) = line
            .strip_prefix("acknowledged ")
            .and_then(|numbers| numbers.split_once(' '))
        {
            let numbered = Numbered {
                run: number,
                task: task.parse().unwrap(),
                n: n.parse().unwrap(),
            };
            self.events += subject.events_of(numbered);
            self.acknowledged.insert(numbered);
        } else if let Some(page) = Page::parse(line) {
            assert_eq!(
                page.after, self.reached[slot],
                "subscriber {slot} went on somewhere else"
            );
            self.reached[slot] = page.last;
            self.pages.push(page);
        }
    }

    /// Kills a process, takes in the rest of what it said, and starts its successor.
    fn kill(&mut self, role: &'static str, slot: usize, is_cold: bool, subject: &Subject) {
        let members = if role == "writes" {
            &mut self.writers
        } else {
            &mut self.subscribers
        };
        members[slot].0.kill().unwrap();
        let ended = self.listen(Instant::now() + FOR_EVER, subject);
        assert_eq!(ended, Some((role, slot)), "a process ended by itself");
        if role == "writes" {
            self.writers[slot] = self.writer(slot);
        } else {
            if is_cold {
                self.reached[slot] = 0;
            }
            self.subscribers[slot] = self.start(role, slot, self.reached[slot]);
        }
    }
}

/// Lets the swarm write until so many events are acknowledged and all subscribers have reached the
/// end. Answers with what was wrong.
fn swarm(kind: Kind, events: u64) -> Wrong {
    let schema = Schema::new();
    let runtime = runtime();
    let subject = runtime.block_on(Subject::open(kind, &schema.name));
    let began = Instant::now();
    let mut swarm = Swarm::gather(kind, &schema.name);
    let mut writers_killed = 0;
    let mut subscribers_killed = 0;
    let mut cold = 0;
    while swarm.events < events {
        let has_written = swarm.events >= EVENTS_BETWEEN_KILLS * u64::from(writers_killed);
        let writer = if has_written {
            began + A_WRITER_IS_KILLED_EVERY * (writers_killed + 1)
        } else {
            Instant::now() + A_WRITER_IS_KILLED_EVERY
        };
        let subscriber = began + A_SUBSCRIBER_IS_KILLED_EVERY * (subscribers_killed + 1);
        let ended = swarm.listen(writer.min(subscriber), &subject);
        assert_eq!(ended, None, "a process ended by itself");
        assert!(
            began.elapsed() < FOR_EVER,
            "only {} events in {:?}",
            swarm.events,
            began.elapsed()
        );
        let now = Instant::now();
        if has_written && writer <= now {
            swarm.kill("writes", writers_killed as usize % WRITERS, false, &subject);
            writers_killed += 1;
        }
        if subscriber <= now {
            // Every other one begins again from the start.
            let is_cold = subscribers_killed % 2 == 1;
            swarm.kill(
                "follows",
                subscribers_killed as usize % SUBSCRIBERS,
                is_cold,
                &subject,
            );
            subscribers_killed += 1;
            cold += u32::from(is_cold);
        }
    }
    let wrote = began.elapsed();
    for slot in 0..WRITERS {
        swarm.writers[slot].0.kill().unwrap();
    }
    // What they said until then counts.
    let mut ended = 0;
    while ended < WRITERS {
        ended += usize::from(swarm.listen(Instant::now() + FOR_EVER, &subject).is_some());
    }
    let truth = runtime.block_on(subject.truth(&swarm.acknowledged));
    let end = truth.last().unwrap().position;
    while swarm.reached.iter().any(|&reached| reached < end) {
        swarm.listen(Instant::now() + Duration::from_millis(20), &subject);
        assert!(
            began.elapsed() < wrote + FOR_EVER,
            "subscribers reached {:?} of {end}",
            swarm.reached
        );
    }
    let wrong = compare(&truth, &swarm.pages);

    let mut delays: Vec<i64> = swarm
        .pages
        .iter()
        .flat_map(|page| &page.delays)
        .copied()
        .collect();
    delays.sort_unstable();
    let at = |share: usize| {
        delays
            .get(delays.len() * share / 100)
            .map_or(0.0, |&micros| micros as f64 / 1_000.0)
    };
    println!(
        "{kind:?}: {} events acknowledged to {WRITERS} processes of {TASKS} tasks in {:.1} s, {} \
         committed; {writers_killed} writers and \
         {subscribers_killed} of {SUBSCRIBERS} subscribers killed, {cold} of those began again; {} \
         pages delivered: {wrong:?}; from recorded to delivered, \
         for {} live deliveries: median {:.1} ms, p99 {:.1} ms",
        swarm.events,
        wrote.as_secs_f64(),
        truth.len(),
        swarm.pages.len(),
        delays.len(),
        at(50),
        at(99),
    );
    wrong
}

#[test]
fn no_subscriber_skips_repeats_or_reorders_anything() {
    assert_eq!(
        swarm(Kind::Annals, rounds(8_000, 100_000)),
        Wrong::default()
    );
}

/// The same, with a table whose numbers are given before the commit.
#[test]
fn the_control_which_follows_the_highest_number_skips_events() {
    assert!(
        swarm(Kind::Naive, rounds(6_000, 20_000)).skipped > 0,
        "the test would not notice a skipped event"
    );
}
