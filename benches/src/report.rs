//! Rows: measured in turns with what they are compared to, and printed as one table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use annals_benches::rate::{Rate, median, readable};
use annals_benches::{Outcome, machine};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// The system tells the time on a core in steps; what took only a few of them is not told.
const CPU_TOLD_MIN: Duration = Duration::from_millis(80);

/// What a row is called and compared to.
pub(crate) struct Row {
    /// What a filter finds it by.
    pub(crate) name: String,
    pub(crate) work: String,
    pub(crate) unit: &'static str,
    /// What the other figure is of.
    pub(crate) beside: &'static str,
    pub(crate) target: Option<f64>,
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
    load_before: String,
    pub(crate) runtime: Runtime,
}

impl Report {
    pub(crate) fn new(filter: String, rounds: usize, dir: PathBuf) -> Outcome<Report> {
        let runtime = Builder::new_multi_thread().enable_time().build()?;
        Ok(Report { filter, rounds, dir, lines: Vec::new(), load_before: machine::load(), runtime })
    }

    /// Whether the filter lets a row of this name through.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    /// An empty directory on the disk that is measured, removed when it is dropped.
    pub(crate) fn directory(&self) -> Outcome<TempDir> {
        Ok(tempfile::Builder::new().prefix("annals-benches-").tempdir_in(&self.dir)?)
    }

    /// Measures ours and theirs in turns, each time in an empty directory; what is told is the medians, and the median of the
    /// ratios of each round.
    pub(crate) fn compare(
        &mut self,
        row: Row,
        mut ours: impl FnMut(&Runtime, &Path) -> Outcome<Rate>,
        mut theirs: impl FnMut(&Runtime, &Path) -> Outcome<Rate>,
    ) -> Outcome<()> {
        if !self.wants(&row.name) {
            return Ok(());
        }
        let (mut ours_done, mut theirs_done) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            let mut rate = |is_ours: bool| -> Outcome<Rate> {
                let directory = self.directory()?;
                let (runtime, path) = (&self.runtime, directory.path());
                if is_ours { ours(runtime, path) } else { theirs(runtime, path) }
            };
            // Who goes first changes, so that neither always finds the caches warm or the disk busy.
            let ours_first = round % 2 == 0;
            let (first, second) = (rate(ours_first)?, rate(!ours_first)?);
            let (our_rate, their_rate) = if ours_first { (first, second) } else { (second, first) };
            ours_done.push(our_rate);
            theirs_done.push(their_rate);
        }
        let ratios: Vec<f64> =
            ours_done.iter().zip(&theirs_done).map(|(ours, theirs)| ours.per_second() / theirs.per_second()).collect();
        let ratio = middle(ratios.iter().copied());
        let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let high = ratios.iter().copied().fold(0.0, f64::max);
        let cpu = |rates: &[Rate]| match rates.iter().all(|rate| rate.cpu >= CPU_TOLD_MIN) {
            true => readable(middle(rates.iter().map(Rate::cpu_microseconds_each))),
            false => "–".into(),
        };
        let line = Line {
            ours: format!("{} {}", readable(middle(ours_done.iter().map(Rate::per_second))), row.unit),
            beside: readable(middle(theirs_done.iter().map(Rate::per_second))),
            ratio: format!("{ratio:.2} ({low:.2}–{high:.2})"),
            cpu: format!("{} / {}", cpu(&ours_done), cpu(&theirs_done)),
            met: row.target.map(|target| ratio >= target),
            row,
        };
        self.push(line);
        Ok(())
    }

    /// A row that is not a rate.
    pub(crate) fn state(&mut self, row: Row, ours: String, beside: String, ratio: String, met: bool) {
        self.push(Line { row, ours, beside, ratio, cpu: String::new(), met: Some(met) });
    }

    fn push(&mut self, line: Line) {
        eprintln!("{}: {} beside {}, {}; CPU {} µs", line.row.name, line.ours, line.beside, line.ratio, line.cpu);
        self.lines.push(line);
    }

    pub(crate) fn print(&self) {
        for (name, value) in machine::describe() {
            println!("- {name}: {value}");
        }
        println!(
            "- load: {} before, {} after (tasks that run or wait, over the last minute)",
            self.load_before,
            machine::load()
        );
        println!("- rounds: {}, ours and the other in turns; medians, and the lowest and highest ratio", self.rounds);
        println!();
        println!("| row | work | Annals | beside it | of | ratio | CPU µs each | target |");
        println!("|---|---|---:|---:|---|---:|---:|---|");
        for Line { row, ours, beside, ratio, cpu, met } in &self.lines {
            let target = match (row.target, met) {
                (Some(target), Some(met)) => format!("{target}: {}", if *met { "met" } else { "missed" }),
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

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    median(&values.collect::<Vec<_>>()).unwrap_or(f64::NAN)
}
