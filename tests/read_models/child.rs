//! The process that the tests start, kill and pause, and the steps at which it pauses for
//! that.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use annals::prelude::*;
use annals::projections::ReactorSetup;
use annals::read_model::{Checkpoint, CommitError, ViewCommit, ViewStore};
use annals::{Store, StoreError};
use annals_core::conformance::faulty::{Call, FaultyStore, StoreFault};
use async_trait::async_trait;

use crate::fixture::Location;
use crate::oracle::{Forgetful, TIMEOUT, Tally, options};
use crate::rebuilt::{Bell, build, build_options};
use crate::shared::sharing;

const PLACE: &str = "ANNALS_READ_MODELS_PLACE";
const WORK: &str = "ANNALS_READ_MODELS_WORK";
const STEP: &str = "ANNALS_READ_MODELS_STEP";
const TIMES: &str = "ANNALS_READ_MODELS_TIMES";

/// Where a process pauses, or what else becomes of its commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A page was read.
    AfterRead,
    /// A row is being folded.
    InFold,
    /// A batch was folded, and nothing of it is written.
    BeforeWrite,
    /// It tells that it writes, and goes on.
    InWrite,
    /// A step was committed, and the worker does not know.
    AfterCommit,
    /// The lease is about to be renewed.
    BeforeRenewal,
    /// It waits for a word before each commit, and says what came of it.
    Asks,
    /// The rows are written in one transaction and the checkpoint in another one, and it stands
    /// still in between.
    Torn,
    /// A generation is begun, or switched to.
    BeforeSwitch,
    /// A generation was begun, or switched to.
    AfterSwitch,
    /// Nowhere.
    Never,
}

const STEPS: [Step; 11] = [
    Step::AfterRead,
    Step::InFold,
    Step::BeforeWrite,
    Step::InWrite,
    Step::AfterCommit,
    Step::BeforeRenewal,
    Step::Asks,
    Step::Torn,
    Step::BeforeSwitch,
    Step::AfterSwitch,
    Step::Never,
];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(name: &str) -> Result<Step, String> {
        STEPS
            .into_iter()
            .find(|step| step.to_string() == name)
            .ok_or(format!("no step is called {name}"))
    }
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Follow,
    FollowForgetful,
    Share,
    Build,
}

/// Says a line to the test. It begins one, because the harness may be in the middle of its own.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}")
        .and_then(|()| out.flush())
        .unwrap();
}

/// How often the step is still passed before the process pauses at it.
struct Countdown(AtomicI64);

impl Countdown {
    fn is_over(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

static FOLDS: OnceLock<Countdown> = OnceLock::new();

/// Called for every event that is folded, in every process.
pub(crate) fn in_the_fold() {
    if FOLDS.get().is_some_and(Countdown::is_over) {
        say("here");
        loop {
            std::thread::park();
        }
    }
}

/// Pauses at one step, until the process is killed.
struct Halts {
    step: Step,
    left: Countdown,
    store: Arc<dyn Store>,
}

impl fmt::Debug for Halts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Halts")
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

impl Halts {
    async fn at(&self, step: Step) {
        if self.step == step && self.left.is_over() {
            say("here");
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl StoreFault for Halts {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        match call {
            Call::CommitView => self.at(Step::BeforeWrite).await,
            Call::RenewLease => self.at(Step::BeforeRenewal).await,
            Call::ChangeView => self.at(Step::BeforeSwitch).await,
            _ => {}
        }
        Ok(())
    }

    async fn after(&self, call: Call) -> Result<(), StoreError> {
        match call {
            Call::CommitView => self.at(Step::AfterCommit).await,
            Call::ReadLog => self.at(Step::AfterRead).await,
            Call::ChangeView => self.at(Step::AfterSwitch).await,
            _ => {}
        }
        Ok(())
    }

    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        step: ViewCommit,
    ) -> Result<(), CommitError> {
        match self.step {
            Step::InWrite => {
                if self.left.is_over() {
                    say("here");
                }
                let taken = views.commit_view(step).await;
                say("took");
                taken
            }
            Step::Asks => {
                say("here");
                // The thread waits: giving up the task in the meantime does not keep the
                // commit from being made.
                let mut word = String::new();
                std::io::stdin().read_line(&mut word).unwrap();
                let store = Arc::clone(&self.store);
                let commit = tokio::spawn(async move {
                    let taken = store.views().unwrap().commit_view(step).await;
                    say(match &taken {
                        Ok(()) => "came: committed",
                        Err(CommitError::Fenced { .. }) => "came: fenced",
                        Err(_) => "came: failed",
                    });
                    taken
                });
                commit.await.unwrap()
            }
            Step::Torn => {
                let moved = ViewCommit::new(
                    step.generation,
                    step.lease.clone(),
                    step.from,
                    step.to.clone(),
                );
                let mut rows = step;
                rows.to = Checkpoint {
                    position: rows.from,
                    event: None,
                    ..rows.to
                };
                views.commit_view(rows).await?;
                self.at(Step::Torn).await;
                views.commit_view(moved).await
            }
            _ => views.commit_view(step).await,
        }
    }
}

#[test]
#[ignore = "it is the process that the other tests start"]
fn works_until_it_is_killed() {
    let variable = |name| std::env::var(name);
    let (Ok(place), Ok(work), Ok(step), Ok(times)) = (
        variable(PLACE),
        variable(WORK),
        variable(STEP),
        variable(TIMES),
    ) else {
        return;
    };
    let step: Step = step.parse().unwrap();
    let times: i64 = times.parse().unwrap();
    if step == Step::InFold {
        let _ = FOLDS.set(Countdown(AtomicI64::new(times)));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Location(place).open().await;
        let left = Countdown(AtomicI64::new(times));
        let stands_still = Halts {
            step,
            left,
            store: Arc::clone(&store),
        };
        let db = Annals::on(FaultyStore::new(store, stands_still));
        let _program = if work == format!("{:?}", Work::Build) {
            let bell = ReactorSetup::of(Bell).lease(options().lease);
            let setup = db
                .with(ViewSetup::<Tally>::new().options(build_options()))
                .with(bell);
            build(setup.start().await.unwrap()).await
        } else if work == format!("{:?}", Work::FollowForgetful) {
            db.with(ViewSetup::<Forgetful>::new().options(options()))
                .start()
                .await
                .unwrap()
        } else {
            let options = if work == format!("{:?}", Work::Share) {
                sharing()
            } else {
                options()
            };
            db.with(ViewSetup::<Tally>::new().options(options))
                .start()
                .await
                .unwrap()
        };
        std::future::pending::<()>().await;
    });
}

/// A process that works, and what it says.
pub(crate) struct ChildProcess {
    child: Child,
    word: ChildStdin,
    said: Receiver<String>,
}

impl ChildProcess {
    /// It pauses when it comes to the step for the `times`-th time.
    pub(crate) fn start(place: &Location, work: Work, step: Step, times: u64) -> ChildProcess {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "child::works_until_it_is_killed",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env(PLACE, &place.0)
            .env(WORK, format!("{work:?}"))
            .env(STEP, step.to_string())
            .env(TIMES, times.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let word = child.stdin.take().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, said) = channel();
        std::thread::spawn(move || {
            for line in out
                .lines()
                .map_while(Result::ok)
                .filter(|line| !line.is_empty())
            {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        ChildProcess { child, word, said }
    }

    /// The next thing it says that begins so; what it says before is passed over.
    pub(crate) fn says(&self, begin: &str) -> String {
        let until = Instant::now() + TIMEOUT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self
                .said
                .recv_timeout(left)
                .expect("the process neither paused nor said a word");
            if line.starts_with(begin) {
                return line;
            }
        }
    }

    /// Its number among the processes of this machine.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Gives it the word that it waits for.
    pub(crate) fn goes_on(&mut self) {
        writeln!(self.word, "go on").unwrap();
    }

    /// `STOP`: all of it pauses until `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {}", self.child.id())])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Stops all of it, and returns when all of it is paused: on a busy machine some threads run
    /// on for a while.
    pub(crate) fn stops(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.child.id());
        let is_paused = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_none_or(|(_, state)| state.starts_with('T'))
        };
        // Where there is no `/proc`, it is unknown.
        while std::fs::read_dir(&tasks)
            .is_ok_and(|mut tasks| !tasks.all(|task| task.is_ok_and(is_paused)))
        {
            std::thread::yield_now();
        }
    }

    /// How long it has worked, in hundredths of a second of processor time. Where there is no
    /// `/proc`, it is unknown.
    pub(crate) fn worked(&self) -> Option<u64> {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // After the name, which may hold anything: the state is the first field, what it worked
        // itself and in the kernel the twelfth and the thirteenth.
        let (_, fields) = stat.rsplit_once(") ")?;
        Some(
            fields
                .split(' ')
                .skip(11)
                .take(2)
                .map(|ticks| ticks.parse::<u64>().unwrap())
                .sum(),
        )
    }

    /// Kills it with `SIGKILL`, and says what it had said before that was not listened to.
    pub(crate) fn killed(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.said.iter().collect()
    }
}

/// A test that fails leaves no process.
impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
