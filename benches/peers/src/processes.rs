//! The same appends from several processes: this program, started again for each of them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use crate::server::{Database, Disk};
use crate::{CLIENTS, Outcome, Peer, WARM, write_all};

/// The argument with which the program is one of several.
pub(crate) const ARGUMENT: &str = "--append-in-process";

/// What one process appends.
pub(crate) struct Share {
    /// Its first stream.
    pub(crate) first: usize,
    pub(crate) tasks: usize,
    /// Events of each task.
    pub(crate) events: usize,
}

impl Share {
    /// Gets ready, says so, waits for the word, appends, says so.
    pub(crate) async fn append<P: Peer>(&self, database: &Database) -> Outcome<()> {
        let peer = Arc::new(P::open(database, CLIENTS.min(self.tasks as u32)).await?);
        write_all(&peer, self.first, self.tasks, 0..WARM).await?;
        println!("ready");
        std::io::stdin().read_line(&mut String::new())?;
        write_all(&peer, self.first, self.tasks, WARM..WARM + self.events).await?;
        println!("done");
        Ok(())
    }
}

/// Appends a second, from so many processes with so many tasks in all.
pub(crate) async fn rate<P: Peer>(
    (processes, tasks, events, disk): (usize, usize, usize, Disk),
) -> Outcome<f64> {
    let database = Database::make(P::NAME, disk).await?;
    // Makes the tables, once for all.
    drop(P::open(&database, 1).await?);
    let events = events / tasks;
    let tasks = tasks / processes;
    let mut started = Vec::new();
    for process in 0..processes {
        let mut child = Command::new(std::env::current_exe()?)
            .args([ARGUMENT, P::NAME, database.name()])
            .args([tasks, process * tasks, events].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = BufReader::new(child.stdout.take().ok_or("a process without output")?);
        started.push((child, said));
    }
    let mut line = String::new();
    for (_, said) in &mut started {
        said.read_line(&mut line)?;
    }
    let began = Instant::now();
    for (child, _) in &mut started {
        child
            .stdin
            .take()
            .ok_or("a process without input")?
            .write_all(b"go\n")?;
    }
    for (child, said) in &mut started {
        said.read_line(&mut line)?;
        if !child.wait()?.success() {
            return Err("a process that appends failed".into());
        }
    }
    let rate = (processes * tasks * events) as f64 / began.elapsed().as_secs_f64();
    database.drop().await?;
    Ok(rate)
}
