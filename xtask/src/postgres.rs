//! A private PostgreSQL: for the tests of one run, and with `cargo xtask postgres up` for a
//! developer's afternoon.
//!
//! Everything is below `target/postgres`; no other server, and none that a package started, is ever
//! touched.

mod account;
mod binaries;
mod cluster;
mod given;
mod lent;
mod place;

use std::fs::File;
use std::path::PathBuf;

pub(crate) use account::Account;
pub(crate) use binaries::{Binaries, Search};
pub(crate) use given::{answers, shown};
pub(crate) use lent::{CONTROL, Lent, URL};

use crate::stop::Stop;
use cluster::{Cluster, Port, Shutdown};

/// The word with which a test has the server that was lent to it stopped and started.
const TELL: &str = "tell";

/// `up` and `down` for people; the rest for the processes that a run starts.
pub(crate) fn run(arguments: &[String]) -> Result<(), Stop> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["up"] => up(),
        ["down"] => down(),
        [lent::GUARD, directory, binaries] => lent::stand_guard(directory, binaries),
        [TELL, directory, binaries, word] => tell(directory, binaries, word),
        _ => Err(Stop::misused("takes one word: up or down")),
    }
}

/// Starts the developers' server unless it runs, and prints its URL as the last line.
fn up() -> Result<(), Stop> {
    let account = Account::for_server()?;
    let binaries = match Binaries::find(&account) {
        Search::Found(binaries) | Search::Installed(binaries) => binaries,
        Search::Missing(advice) => return Err(Stop::failed(advice)),
    };
    let (directory, _turn) = developers(&account)?;
    let cluster = Cluster::create(directory, &binaries, &account)?;
    let ran = cluster.is_running();
    cluster.start(Port::Any)?;
    let state = if ran { "runs already" } else { "runs" };
    println!(
        "PostgreSQL {} {state}, in {}",
        binaries.version,
        cluster.directory().display()
    );
    println!("{}", cluster.url()?);
    Ok(())
}

/// Stops the developers' server if it runs; what is in it stays for the next time.
fn down() -> Result<(), Stop> {
    let account = Account::for_server()?;
    let (directory, _turn) = developers(&account)?;
    let cluster =
        Binaries::there(&account).map(|found| Cluster::at(directory, found.directory, account));
    match cluster.filter(Cluster::is_running) {
        Some(cluster) => {
            cluster.stop(Shutdown::Fast)?;
            println!(
                "stopped; its data stays in {}",
                cluster.directory().display()
            );
        }
        None => println!("no server of this clone runs"),
    }
    Ok(())
}

/// The place of the developers' server, and a lock: of two who type `up` at once, one waits.
fn developers(account: &Account) -> Result<(PathBuf, File), Stop> {
    let directory = place::directory(account)?.join("developers");
    let lock = directory.with_extension("lock");
    let file = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let file =
        file.map_err(|error| Stop::failed(format!("cannot lock {}: {error}", lock.display())))?;
    Ok((directory, file))
}

/// What a test asks of its server: a `stop`, a `kill` that is a crash, a `start` on the same port.
fn tell(directory: &str, binaries: &str, word: &str) -> Result<(), Stop> {
    let cluster = Cluster::at(directory.into(), binaries.into(), Account::for_server()?);
    match word {
        "stop" => cluster.stop(Shutdown::Fast),
        "kill" => cluster.stop(Shutdown::Immediate),
        "start" => cluster.start(Port::Same),
        _ => Err(Stop::misused(format!(
            "a server can be told stop, kill or start, not {word}"
        ))),
    }
}
