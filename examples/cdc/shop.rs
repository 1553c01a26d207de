//! The shop of another application: a plain schema, and an application that is `psql`.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const SCHEMA: &str = "
    create table products (id bigint primary key, name text not null, in_stock int not null);
    create table orders (id bigint primary key, customer text not null,
                         status text not null, cents bigint not null);
    alter table orders replica identity full;
    create table outbox (id uuid primary key, aggregatetype text not null,
                         aggregateid text not null, type text not null, payload jsonb not null);
    insert into products values (1, 'lamp', 12), (2, 'chair', 3);
    insert into orders values (1, 'ada', 'pending', 4200), (2, 'bob', 'pending', 900);
";

/// A database of this run, removed at its end.
pub(crate) struct Shop {
    server: String,
    pub(crate) name: String,
    pub(crate) url: String,
}

impl Shop {
    pub(crate) fn open(server: &str) -> Result<Shop, Box<dyn Error>> {
        let name = format!("annals_shop_{}", std::process::id());
        psql(server, &format!("create database {name}"))?;
        let address = server
            .rsplit_once('/')
            .map_or(server, |(address, _)| address);
        let shop = Shop {
            server: server.to_owned(),
            url: format!("{address}/{name}"),
            name,
        };
        shop.does(SCHEMA)?;
        Ok(shop)
    }

    /// What the application does, in one transaction.
    pub(crate) fn does(&self, sql: &str) -> Result<(), Box<dyn Error>> {
        psql(&self.url, &format!("begin;\n{sql};\ncommit;"))
    }

    pub(crate) fn close(self) -> Result<(), Box<dyn Error>> {
        let name = &self.name;
        psql(
            &self.server,
            &format!(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
                 where database = '{name}';
                 drop database {name} with (force)"
            ),
        )
    }
}

/// Runs a script; who brought a private server says where its programs are.
fn psql(url: &str, script: &str) -> Result<(), Box<dyn Error>> {
    let beside = std::env::var("ANNALS_TEST_POSTGRES_BINARIES").ok();
    let beside = beside.map(|folder| Path::new(&folder).join("psql"));
    let program = beside.filter(|it| it.is_file()).unwrap_or("psql".into());
    let mut psql = Command::new(&program)
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    if let Some(mut input) = psql.stdin.take() {
        writeln!(input, "{script};")?;
    }
    match psql.wait()?.success() {
        true => Ok(()),
        false => Err("psql failed".into()),
    }
}

/// The private server of this clone, which stays until `cargo xtask postgres down`.
pub(crate) fn private_server() -> Result<String, Box<dyn Error>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let up = Command::new(cargo)
        .args(["xtask", "postgres", "up"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    let said = String::from_utf8_lossy(&up.stdout);
    let url = said.lines().last().filter(|_| up.status.success());
    url.map(str::to_owned)
        .ok_or_else(|| "`cargo xtask postgres up` starts no server: name one".into())
}
