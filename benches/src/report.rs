//! Rows: measured in turns with what they are compared to, and printed as one table.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use annals_benches::latency::Latencies;
use annals_benches::rate::{Rate, median, readable};
use annals_benches::{Outcome, machine};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// The system tells the time on a core in steps; what took only a few of them is not shown.
const CPU_SHOWN_MIN: Duration = Duration::from_millis(80);

/// What a row is called and compared to.
pub(crate) struct Row {
    /// What a filter finds it by.
    pub(crate) name: String,
    pub(crate) work: String,
    pub(crate) unit: &'static str,
    /// What the other figure is of.
    pub(crate) beside: String,
    pub(crate) target: Option<Target>,
}

/// What a row is to come to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// At least so much of the other.
    Ratio(f64),
    /// At least so many in a second.
    PerSecond(f64),
    /// All but one in a hundred within this.
    Within(Duration),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Ratio(ratio) => write!(f, "{ratio}"),
            Target::PerSecond(rate) => write!(f, "{}/s", readable(*rate)),
            Target::Within(time) => write!(f, "p99 {} ms", readable(milliseconds(*time))),
        }
    }
}

struct Line {
    row: Row,
    ours: String,
    beside: String,
    ratio: String,
    cpu: String,
    met: Option<bool>,
}

/// What has been measured.
pub(crate) struct Report {
    filter: String,
    rounds: usize,
    dir: PathBuf,
    lines: Vec<Line>,
    described: Vec<(&'static str, String)>,
    load_before: String,
    pub(crate) runtime: Runtime,
}

impl Report {
    pub(crate) fn new(filter: String, rounds: usize, dir: PathBuf) -> Outcome<Report> {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        Ok(Report {
            filter,
            rounds,
            dir,
            lines: Vec::new(),
            described: Vec::new(),
            load_before: machine::load(),
            runtime,
        })
    }

    /// Another line above the table.
    pub(crate) fn describe(&mut self, what: &'static str, text: String) {
        self.described.push((what, text));
    }

    /// Whether the filter lets a row of this name through.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    /// An empty directory on the disk that is measured, removed when it is dropped.
    pub(crate) fn directory(&self) -> Outcome<TempDir> {
        Ok(tempfile::Builder::new()
            .prefix("annals-benches-")
            .tempdir_in(&self.dir)?)
    }

    /// Compares rates: what is shown is the medians, and the median of the ratios of each round.
    pub(crate) fn compare(
        &mut self,
        row: Row,
        ours: impl FnMut(&Runtime, &Path) -> Outcome<Rate>,
        theirs: impl FnMut(&Runtime, &Path) -> Outcome<Rate>,
    ) -> Outcome<()> {
        if !self.wants(&row.name) {
            return Ok(());
        }
        let (ours, theirs) = self.in_turns(ours, theirs)?;
        let ratios = ours
            .iter()
            .zip(&theirs)
            .map(|(ours, theirs)| ours.per_second() / theirs.per_second());
        let ratios = Ratios(ratios.collect());
        let per_second = |rates: &[Rate]| middle(rates.iter().map(Rate::per_second));
        let cpu = |rates: &[Rate]| match rates.iter().all(|rate| rate.cpu >= CPU_SHOWN_MIN) {
            true => readable(middle(rates.iter().map(Rate::cpu_microseconds_each))),
            false => "–".into(),
        };
        let line = Line {
            ours: format!("{} {}", readable(per_second(&ours)), row.unit),
            beside: readable(per_second(&theirs)),
            ratio: ratios.to_string(),
            cpu: format!("{} / {}", cpu(&ours), cpu(&theirs)),
            met: row.target.map(|target| match target {
                Target::Ratio(ratio) => ratios.middle() >= ratio,
                Target::PerSecond(rate) => per_second(&ours) >= rate,
                Target::Within(_) => false,
            }),
            row,
        };
        self.push(line);
        Ok(())
    }

    /// Compares how long single things took: what is shown is the percentiles of all rounds
    /// together, and the median of the ratios of each round's middle. As with rates, more than 1 is
    /// faster than the other.
    pub(crate) fn compare_latencies(
        &mut self,
        row: Row,
        ours: impl FnMut(&Runtime, &Path) -> Outcome<Latencies>,
        theirs: impl FnMut(&Runtime, &Path) -> Outcome<Latencies>,
    ) -> Outcome<()> {
        if !self.wants(&row.name) {
            return Ok(());
        }
        let (ours, theirs) = self.in_turns(ours, theirs)?;
        let seconds =
            |latencies: &Latencies| latencies.percentile(50).unwrap_or_default().as_secs_f64();
        let ratios = Ratios(
            ours.iter()
                .zip(&theirs)
                .map(|(ours, theirs)| seconds(theirs) / seconds(ours))
                .collect(),
        );
        let together =
            |all: Vec<Latencies>| all.into_iter().fold(Latencies::default(), Latencies::and);
        let ours = together(ours);
        let theirs = together(theirs);
        let worst = ours.percentile(99).unwrap_or(Duration::MAX);
        let line = Line {
            ours: shown(&ours),
            beside: shown(&theirs),
            ratio: ratios.to_string(),
            cpu: format!("{} / {}", cpu_each(&ours), cpu_each(&theirs)),
            met: row
                .target
                .map(|target| matches!(target, Target::Within(time) if worst <= time)),
            row,
        };
        self.push(line);
        Ok(())
    }

    /// Measures ours and theirs in turns, each time in an empty directory.
    fn in_turns<M>(
        &self,
        mut ours: impl FnMut(&Runtime, &Path) -> Outcome<M>,
        mut theirs: impl FnMut(&Runtime, &Path) -> Outcome<M>,
    ) -> Outcome<(Vec<M>, Vec<M>)> {
        let mut ours_done = Vec::new();
        let mut theirs_done = Vec::new();
        for round in 0..self.rounds {
            let mut measure = |is_ours: bool| -> Outcome<()> {
                let directory = self.directory()?;
                let runtime = &self.runtime;
                let path = directory.path();
                if is_ours {
                    ours_done.push(ours(runtime, path)?);
                } else {
                    theirs_done.push(theirs(runtime, path)?);
                }
                Ok(())
            };
            // Who goes first changes, so that neither always finds the caches warm or the disk
            // busy.
            let ours_first = round % 2 == 0;
            measure(ours_first)?;
            measure(!ours_first)?;
        }
        Ok((ours_done, theirs_done))
    }

    /// A row that is not a rate.
    pub(crate) fn state(
        &mut self,
        row: Row,
        ours: String,
        beside: String,
        ratio: String,
        met: bool,
    ) {
        self.push(Line {
            row,
            ours,
            beside,
            ratio,
            cpu: String::new(),
            met: Some(met),
        });
    }

    fn push(&mut self, line: Line) {
        eprintln!(
            "{}: {} beside {}, {}; CPU {} µs",
            line.row.name, line.ours, line.beside, line.ratio, line.cpu
        );
        self.lines.push(line);
    }

    pub(crate) fn print(&self) {
        for (name, value) in machine::describe().iter().chain(&self.described) {
            println!("- {name}: {value}");
        }
        println!(
            "- load: {} before, {} after (tasks that run or wait, over the last minute)",
            self.load_before,
            machine::load()
        );
        println!(
            "- rounds: {}, ours and the other in turns; medians, and the lowest and highest ratio",
            self.rounds
        );
        println!();
        println!("| row | work | Annals | beside it | of | ratio | CPU µs each | target |");
        println!("|---|---|---:|---:|---|---:|---:|---|");
        for Line {
            row,
            ours,
            beside,
            ratio,
            cpu,
            met,
        } in &self.lines
        {
            let target = match (row.target, met) {
                (Some(target), Some(met)) => {
                    format!("{target}: {}", if *met { "met" } else { "missed" })
                }
                (None, Some(met)) => if *met { "met" } else { "missed" }.to_owned(),
                _ => String::new(),
            };
            println!(
                "| `{}` | {} | {ours} | {beside} | {} | {ratio} | {cpu} | {target} |",
                row.name, row.work, row.beside
            );
        }
    }
}

impl Report {
    /// The rows as a table of values separated by tabs: data for other programs, one row a line.
    ///
    /// # Errors
    ///
    /// Those of the file.
    pub(crate) fn write_tsv(&self, path: &Path) -> Outcome<()> {
        let mut text =
            String::from("row\twork\tannals\tbeside\tof\tratio\tcpu_us_each\ttarget\tmet\n");
        for line in &self.lines {
            let target = line.row.target.map(|target| target.to_string());
            let met = line.met.map(|met| met.to_string());
            let fields = [
                &line.row.name,
                &line.row.work,
                &line.ours,
                &line.beside,
                &line.row.beside,
                &line.ratio,
                &line.cpu,
                &target.unwrap_or_default(),
                &met.unwrap_or_default(),
            ];
            let fields = fields.map(|field| field.replace(['\t', '\n'], " "));
            text += &fields.join("\t");
            text.push('\n');
        }
        std::fs::write(path, text)?;
        Ok(())
    }
}

/// Those of each round.
struct Ratios(Vec<f64>);

impl Ratios {
    fn middle(&self) -> f64 {
        middle(self.0.iter().copied())
    }
}

impl fmt::Display for Ratios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.0.iter().copied().fold(0.0, f64::max);
        write!(f, "{:.2} ({low:.2}–{high:.2})", self.middle())
    }
}

fn shown(latencies: &Latencies) -> String {
    let at = |percent| latencies.percentile(percent).map_or(f64::NAN, milliseconds);
    format!("p50 {}, p99 {} ms", readable(at(50)), readable(at(99)))
}

fn cpu_each(latencies: &Latencies) -> String {
    match latencies.cpu >= CPU_SHOWN_MIN {
        true => readable(latencies.cpu.as_secs_f64() * 1e6 / latencies.each.len() as f64),
        false => "–".into(),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    median(&values.collect::<Vec<_>>()).unwrap_or(f64::NAN)
}
