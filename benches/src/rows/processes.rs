//! Several processes that append at the same time, one task in each, on this disk and on one that
//! takes 2 ms for each flush.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::store::{Append, Expected};
use annals::{EventId, Store, Version};
use annals_benches::append::Singles;
use annals_benches::latency::{Laps, Latencies};
use annals_benches::rate::{Rate, Watch};
use annals_benches::server::{Disk, Schema};
use annals_benches::{Outcome, account, baseline_sqlx};
use tokio::runtime::{Builder, Runtime};

use super::{backend, row};
use crate::report::Report;

/// The argument with which the program is one of several processes that append.
pub(crate) const APPENDS: &str = "--append-in-process";

/// So many events each process appends before the clock starts: at first a session compiles
/// functions and plans statements.
const WARM_UP: u32 = 16;
/// What a row is to come to beside plain inserts.
const TARGET: f64 = 0.8;
/// How many times as long as a plain insert a command may take.
const LATENCY_MAX: f64 = 1.5;

pub(super) fn rows(report: &mut Report, events: usize) -> Outcome<()> {
    for disk in [Disk::AsIs, Disk::TwoMilliseconds] {
        let slow = if disk == Disk::AsIs { "" } else { "-2ms" };
        for processes in [1, 4, 16, 64] {
            // About as long for each: more processes do more in a second.
            let events = match disk {
                Disk::AsIs => events * processes.clamp(4, 16) / 16,
                Disk::TwoMilliseconds => events * processes.clamp(1, 16) / 32,
            };
            let name = format!("append/processes/{processes}/postgres{slow}");
            if !report.wants(&name) {
                continue;
            }
            let mut last = (Latencies::default(), Latencies::default());
            report.compare(
                row(
                    &name,
                    &format!("append, durable, single events, {processes} processes of one task"),
                    "events/s",
                    "sqlx, an insert and its commit for each event, one client in each of as many \
                     processes",
                    (processes > 1).then_some(TARGET),
                ),
                |runtime, _| {
                    let done = measured(runtime, disk, "annals", processes, events)?;
                    last.0 = std::mem::take(&mut last.0).and(done.1);
                    Ok(done.0)
                },
                |runtime, _| {
                    let done = measured(runtime, disk, "baseline", processes, events)?;
                    last.1 = std::mem::take(&mut last.1).and(done.1);
                    Ok(done.0)
                },
            )?;
            let (ours, theirs) = last;
            let p50 = |of: &Latencies| milliseconds(of, 50);
            let times = p50(&ours) / p50(&theirs);
            report.state(
                row(
                    &format!("{name}/latency"),
                    "how long one of these appends took",
                    "",
                    "",
                    None,
                ),
                format!(
                    "p50 {:.2} ms, p99 {:.2} ms",
                    p50(&ours),
                    milliseconds(&ours, 99)
                ),
                format!(
                    "p50 {:.2} ms, p99 {:.2} ms",
                    p50(&theirs),
                    milliseconds(&theirs, 99)
                ),
                format!("{times:.2} times as long"),
                times <= LATENCY_MAX,
            );
        }
    }
    Ok(())
}

fn milliseconds(latencies: &Latencies, percent: u8) -> f64 {
    latencies
        .percentile(percent)
        .unwrap_or_default()
        .as_secs_f64()
        * 1e3
}

fn measured(
    runtime: &Runtime,
    disk: Disk,
    how: &str,
    processes: usize,
    events: usize,
) -> Outcome<(Rate, Latencies)> {
    backend::measured(runtime, Path::new(""), async |schema: &Schema| {
        match how {
            "annals" => drop(schema.store().await?),
            _ => schema.make_baseline().await?,
        }
        together(how, schema, disk, processes, events)
    })
}

/// Starts processes that append, lets them begin at once, and measures until the last has done.
fn together(
    how: &str,
    schema: &Schema,
    disk: Disk,
    processes: usize,
    events: usize,
) -> Outcome<(Rate, Latencies)> {
    let mut started: Vec<(Child, BufReader<ChildStdout>)> = Vec::new();
    for process in 0..processes {
        let mut child = Command::new(std::env::current_exe()?)
            .args([APPENDS, how, schema.name(), disk.name()])
            .args([process, events / processes].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = child.stdout.take().ok_or("a process without output")?;
        started.push((child, BufReader::new(said)));
    }
    let mut line = String::new();
    for (_, said) in &mut started {
        said.read_line(&mut line)?;
    }
    let watch = Watch::start();
    for (child, _) in &mut started {
        child
            .stdin
            .take()
            .ok_or("a process without input")?
            .write_all(b"go\n")?;
    }
    let mut took = Vec::new();
    for (child, said) in &mut started {
        line.clear();
        said.read_line(&mut line)?;
        for micros in line.split_whitespace() {
            took.push(Duration::from_micros(micros.parse()?));
        }
        if !child.wait()?.success() {
            return Err("a process that appends failed".into());
        }
    }
    let latencies = Laps::start().stop_with(took);
    Ok((watch.stop(events / processes * processes), latencies))
}

/// What such a process does: appends some events, says that it is ready, waits for the word,
/// appends the others, and says how many microseconds each of these took.
pub(crate) fn append_in_process(
    how: &str,
    schema: &str,
    disk: &str,
    process: &str,
    events: &str,
) -> Outcome<()> {
    let process: usize = process.parse()?;
    let work = Singles {
        events: events.parse::<usize>()? + WARM_UP as usize,
        tasks: 1,
    };
    let mut made = work.make()?;
    let mut first = Vec::new();
    for (stream, events) in &mut made {
        *stream = account::stream(process)?;
        first.push((stream.clone(), events.drain(..WARM_UP as usize).collect()));
    }
    // As a small service has them.
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let took = runtime.block_on(async {
        let schema = Schema::named(schema)?.on(Disk::named(disk));
        let ready = || -> Outcome<()> {
            println!("ready");
            let mut word = String::new();
            std::io::stdin().read_line(&mut word)?;
            Ok(())
        };
        match how {
            "annals" => {
                let store = schema.store().await?;
                append(&store, first, 0).await?;
                ready()?;
                append(&store, made, WARM_UP.into()).await
            }
            _ => {
                let mut inserts =
                    baseline_sqlx::Inserts::connect(&schema, i64::try_from(process)?).await?;
                inserts.run(first, 0).await?;
                ready()?;
                inserts.run(made, WARM_UP.into()).await
            }
        }
    })?;
    let micros: Vec<String> = took
        .iter()
        .map(|each| each.as_micros().to_string())
        .collect();
    println!("{}", micros.join(" "));
    Ok(())
}

async fn append(
    store: &Arc<dyn Store>,
    made: Vec<(annals::StreamId, Vec<annals::store::NewEvent>)>,
    after: u64,
) -> Outcome<Vec<Duration>> {
    let mut took = Vec::new();
    for (stream, events) in made {
        for (version, event) in (after..).zip(events) {
            let began = Instant::now();
            // Made when it is needed, as programs do: ids that ascend with time are cheap to index.
            let event = event.id(EventId::random());
            let expected = Expected::Version(Version::new(version));
            store
                .append(Append::new(stream.clone(), [event]).expecting(expected))
                .await?;
            took.push(began.elapsed());
        }
    }
    Ok(took)
}
