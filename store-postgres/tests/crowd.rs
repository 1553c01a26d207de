//! Many processes at once, killed all the time: whoever follows the log is given everything that
//! was committed, once and in order.
//!
//! The test starts itself as its writers and subscribers, and learns from what they print what was
//! acknowledged and delivered.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // What must not fail is unwrapped, and the figures are shown.

#[path = "crowd/record.rs"]
mod record;
mod server;
#[path = "crowd/trunk.rs"]
mod trunk;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use annals_core::conformance::numbered::Numbered;
use record::{Page, Wrong, recheck};
use server::Schema;
use trunk::{Kind, Trunk};

const KIND: &str = "ANNALS_CROWD_KIND";
const SCHEMA: &str = "ANNALS_CROWD_SCHEMA";
/// A writer's run, or where a subscriber goes on.
const NUMBER: &str = "ANNALS_CROWD_NUMBER";

const WRITERS: usize = 4;
const TASKS: u64 = 4;
const SUBSCRIBERS: usize = 8;
const A_WRITER_IS_KILLED_EVERY: Duration = Duration::from_millis(200);
const A_SUBSCRIBER_IS_KILLED_EVERY: Duration = Duration::from_millis(500);

/// Whatever has not happened by then never will.
const FOR_EVER: Duration = Duration::from_secs(600);

/// The trunk and the number of a process of the crowd; none for a person who runs all ignored
/// tests.
fn told() -> Option<(Kind, String, u64)> {
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
    let Some((kind, schema, run)) = told() else {
        return;
    };
    runtime().block_on(async {
        let trunk = Trunk::open(kind, &schema).await;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let trunk = trunk.clone();
            tasks.spawn(async move {
                for n in 0.. {
                    trunk.append(Numbered { run, task, n }).await;
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
    let Some((kind, schema, mut at)) = told() else {
        return;
    };
    runtime().block_on(async {
        let trunk = Trunk::open(kind, &schema).await;
        let mut hint = trunk.hint();
        let mut is_live = false;
        loop {
            let (mut page, is_end) = trunk.read(at).await;
            if page.last > at {
                at = page.last;
                if !is_live {
                    page.delays.clear();
                }
                say(&page.line());
            }
            if is_end {
                is_live = true;
                trunk::pause(&mut hint).await;
            }
        }
    });
}

/// A process of the crowd, killed when the test ends, however it does.
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

struct Crowd {
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

impl Crowd {
    fn gather(kind: Kind, schema: &str) -> Crowd {
        let (says, said) = channel();
        let mut crowd = Crowd {
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
            let member = crowd.start("follows", slot, 0);
            crowd.subscribers.push(member);
        }
        for slot in 0..WRITERS {
            let member = crowd.writer(slot);
            crowd.writers.push(member);
        }
        crowd
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
    fn listen(&mut self, until: Instant, trunk: &Trunk) -> Option<(&'static str, usize)> {
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
                }) => self.hear(slot, number, &line, trunk),
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
            }
        }
    }

    fn hear(&mut self, slot: usize, number: u64, line: &str, trunk: &Trunk) {
        if let Some((task, n)) = line
            .strip_prefix("acknowledged ")
            .and_then(|numbers| numbers.split_once(' '))
        {
            let numbered = Numbered {
                run: number,
                task: task.parse().unwrap(),
                n: n.parse().unwrap(),
            };
            self.events += trunk.events_of(numbered);
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
    fn kill(&mut self, role: &'static str, slot: usize, is_cold: bool, trunk: &Trunk) {
        let members = if role == "writes" {
            &mut self.writers
        } else {
            &mut self.subscribers
        };
        members[slot].0.kill().unwrap();
        let ended = self.listen(Instant::now() + FOR_EVER, trunk);
        assert_eq!(
            ended,
            Some((role, slot)),
            "a process ended that nobody killed"
        );
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

/// Lets the crowd write until so many events are acknowledged and all subscribers have reached the
/// end. Answers with what was wrong.
fn crowd(kind: Kind, events: u64) -> Wrong {
    let schema = Schema::new();
    let runtime = runtime();
    let trunk = runtime.block_on(Trunk::open(kind, &schema.name));
    let began = Instant::now();
    let mut crowd = Crowd::gather(kind, &schema.name);
    let mut writers_killed = 0;
    let mut subscribers_killed = 0;
    let mut cold = 0;
    while crowd.events < events {
        let writer = began + A_WRITER_IS_KILLED_EVERY * (writers_killed + 1);
        let subscriber = began + A_SUBSCRIBER_IS_KILLED_EVERY * (subscribers_killed + 1);
        let ended = crowd.listen(writer.min(subscriber), &trunk);
        assert_eq!(ended, None, "a process ended that nobody killed");
        assert!(
            began.elapsed() < FOR_EVER,
            "only {} events in {:?}",
            crowd.events,
            began.elapsed()
        );
        if writer <= subscriber {
            crowd.kill("writes", writers_killed as usize % WRITERS, false, &trunk);
            writers_killed += 1;
        } else {
            // Every other one begins anew.
            let is_cold = subscribers_killed % 2 == 1;
            crowd.kill(
                "follows",
                subscribers_killed as usize % SUBSCRIBERS,
                is_cold,
                &trunk,
            );
            subscribers_killed += 1;
            cold += u32::from(is_cold);
        }
    }
    let wrote = began.elapsed();
    for slot in 0..WRITERS {
        crowd.writers[slot].0.kill().unwrap();
    }
    // What they said until then counts.
    let mut ended = 0;
    while ended < WRITERS {
        ended += usize::from(crowd.listen(Instant::now() + FOR_EVER, &trunk).is_some());
    }
    let truth = runtime.block_on(trunk.truth(&crowd.acknowledged));
    let end = truth.last().unwrap().position;
    while crowd.reached.iter().any(|&reached| reached < end) {
        crowd.listen(Instant::now() + Duration::from_millis(20), &trunk);
        assert!(
            began.elapsed() < wrote + FOR_EVER,
            "subscribers reached {:?} of {end}",
            crowd.reached
        );
    }
    let wrong = recheck(&truth, &crowd.pages);

    let mut delays: Vec<i64> = crowd
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
         {subscribers_killed} of {SUBSCRIBERS} subscribers killed, {cold} of those began anew; {} \
         pages delivered: {wrong:?}; from recorded to delivered, \
         for {} live deliveries: median {:.1} ms, p99 {:.1} ms",
        crowd.events,
        wrote.as_secs_f64(),
        truth.len(),
        crowd.pages.len(),
        delays.len(),
        at(50),
        at(99),
    );
    wrong
}

#[test]
fn nothing_is_skipped_repeated_or_out_of_order_for_any_subscriber() {
    assert_eq!(crowd(Kind::Annals, 100_000), Wrong::default());
}

/// The same, with a head that everybody writes first.
#[test]
fn the_control_which_follows_the_highest_number_skips_events() {
    assert!(
        crowd(Kind::Naive, 20_000).skipped > 0,
        "the test would not notice a skipped event"
    );
}
