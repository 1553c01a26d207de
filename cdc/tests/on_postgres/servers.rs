//! Servers that are not what they were, and such that encrypt.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::path::Path;
use std::process::Command;

use annals::cdc::{IngestState, Ingests as _};
use annals::prelude::*;

use super::procedures::{EX, Ex, INSERTED, shop};
use crate::server::Server;
use crate::world::{self, following, ids, ids_of, source, start, start_with_copy, stopped, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_without_the_slot_is_not_followed_silently() {
    let (server, url, folder) = shop(&[], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    server.psql("shop", "insert into ex(v) values ('a'), ('b'), ('c')");
    ids_of(&program, INSERTED, 3).await;
    let standby = server.standby();
    server.psql("shop", "insert into ex(v) values ('d')");
    ids_of(&program, INSERTED, 4).await;
    program.stop().await;
    drop(program);
    until("the standby has everything", || async {
        let count = standby.psql("shop", "select count(*) from ex");
        (count == "4").then_some(())
    })
    .await;
    server.crash();
    standby.promote();
    // While no ingest reads it.
    standby.psql(
        "shop",
        "insert into ex(v) values ('e'); update ex set v = 'f' where id = 1; \
         delete from ex where id = 2",
    );
    let url = standby.url("shop");
    for follows in [false, true] {
        let promoted = source(&url, &["ex"]);
        let promoted = match follows {
            true => promoted.follows_failover(),
            false => promoted,
        };
        let program = start_with_copy::<Ex>(folder.path(), promoted).await;
        let why = stopped(&program).await;
        let wanted = match follows {
            true => "slot `annals_shop` is gone",
            false => "this server was promoted: it is at timeline 2, and was read at 1",
        };
        assert!(why.contains(wanted) && why.contains("resync_all"), "{why}");
        assert_eq!(ids(&program, INSERTED).await, [1, 2, 3, 4]);
        if follows {
            // The way out that the text names.
            let shop = program.ingest("shop").unwrap();
            shop.resync_all("the server was promoted").await.unwrap();
            is_equal(&standby, &program).await;
            standby.psql("shop", "insert into ex(v) values ('g')");
            is_equal(&standby, &program).await;
        }
        program.stop().await;
    }
    let events = world::events(&world::open(folder.path()).await).await;
    let of_two: Vec<_> = events
        .iter()
        .filter(|event| event.stream.id() == "2")
        .map(|event| &*event.event_type)
        .collect();
    assert_eq!(of_two, [INSERTED, "public.ex.deleted"]);
}

/// Waits until the copy is what the table is.
pub(super) async fn is_equal(server: &Server, program: &Program) {
    let table = || server.psql("shop", "select id || '|' || coalesce(v, '') from ex");
    let line = |row: &Ex| format!("{}|{}", row.id, row.v.as_deref().unwrap_or_default());
    world::copy_has(program, table, line).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_is_named_in_sql() {
    let setup = format!("{EX} create publication cdc_pub for table ex; create role reader login");
    let (server, url, folder) = shop(&[], &setup);
    let url = url.replace("postgres@", "reader@");
    let program = start(folder.path(), source(&url, &["ex"]).publication("cdc_pub")).await;
    for (lacks, gets) in [
        (
            "`alter role … replication`",
            "alter role reader replication",
        ),
        (
            "`grant select on \"public\".\"ex\"`",
            "grant select on ex to reader",
        ),
    ] {
        until("it says what it lacks", || async {
            let state = world::status(&program).state;
            let stopped = matches!(&state, IngestState::Stopped(why) if why.contains(lacks));
            stopped.then_some(())
        })
        .await;
        server.psql("shop", gets);
    }
    following(&program).await;
    server.psql("shop", "insert into ex(v) values ('a')");
    assert_eq!(ids_of(&program, INSERTED, 1).await, [1]);
    program.stop().await;
}

/// A certificate of `name`, signed by the authority in the folder.
fn certificate(folder: &Path, name: &str) {
    let make = format!(
        "openssl req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr \
         2>&1 && openssl x509 -req -in {name}.csr -CA root.pem -CAkey root.key -CAcreateserial \
         -days 2 -extfile names -out {name}.pem 2>&1"
    );
    openssl(folder, &make);
}

fn openssl(folder: &Path, script: &str) {
    let mut shell = Command::new("sh");
    let ran = shell.args(["-c", script]).current_dir(folder).output();
    let ran = ran.unwrap();
    assert!(ran.status.success(), "this test needs openssl: {ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_checking_a_password_is_spoken() {
    let (server, url, folder) = shop(&[], EX);
    let ways = ["scram-sha-256", "md5", "password"];
    let mut rules = String::new();
    for way in ways {
        let kept = if way == "password" { "md5" } else { way };
        let role = format!("by_{}", way.split('-').next().unwrap());
        server.psql(
            "shop",
            &format!(
                "set password_encryption = '{kept}';
                 create role {role} superuser login replication password 'a secret'"
            ),
        );
        rules.push_str(&format!("host all {role} 127.0.0.1/32 {way}\n"));
    }
    rules.push_str("host all all 127.0.0.1/32 trust\n");
    server.file("pg_hba.conf", rules.as_bytes());
    server.psql("shop", "select pg_reload_conf()");
    for (number, way) in ways.into_iter().enumerate() {
        let role = format!("by_{}", way.split('-').next().unwrap());
        let url = url.replace("postgres@", &format!("{role}:a%20secret@"));
        let program = start(folder.path(), source(&url, &["ex"])).await;
        following(&program).await;
        server.psql("shop", "insert into ex(v) values ('a')");
        assert_eq!(
            ids_of(&program, INSERTED, number + 1).await.len(),
            number + 1,
            "{way}"
        );
        program.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_the_url_are_for_both_connections() {
    let files = tempfile::tempdir().unwrap();
    let authority = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=authority -days 2 \
        -keyout root.key -out root.pem 2>&1";
    openssl(files.path(), &authority.replace("root.", "stranger."));
    openssl(files.path(), authority);
    std::fs::write(files.path().join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    certificate(files.path(), "localhost");
    certificate(files.path(), "postgres");
    let (server, url, folder) = shop(&[], EX);
    let read = |name: &str| std::fs::read(files.path().join(name)).unwrap();
    server.file("server.crt", &read("localhost.pem"));
    server.file("server.key", &read("localhost.key"));
    server.file("root.crt", &read("root.pem"));
    for set in [
        "ssl_cert_file = 'server.crt'",
        "ssl_key_file = 'server.key'",
        "ssl_ca_file = 'root.crt'",
        "ssl = on",
    ] {
        server.psql("postgres", &format!("alter system set {set}"));
    }
    // Tests look in without encryption; a client that uses it shows a certificate.
    let rules = b"hostnossl all all 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 cert\n";
    server.file("pg_hba.conf", rules);
    server.stop();
    server.start_again();
    let by_name = url.replace("127.0.0.1", "localhost");
    let file = |name: &str| files.path().join(name).display().to_string();
    let with = |roots: &str, own: &str| {
        format!(
            "{by_name}?sslmode=verify-full&sslrootcert={}{own}",
            file(roots)
        )
    };
    let own = format!(
        "&sslcert={}&sslkey={}",
        file("postgres.pem"),
        file("postgres.key")
    );

    // Neither a server that a stranger vouches for, nor one that does not know us.
    for (url, what) in [
        (with("stranger.pem", &own), "certificate"),
        (with("root.pem", ""), "certificate"),
    ] {
        let program = start(folder.path(), source(&url, &["ex"])).await;
        let why = stopped(&program).await;
        assert!(why.contains(what), "{why}");
        program.stop().await;
    }
    let program = start(folder.path(), source(&with("root.pem", &own), &["ex"])).await;
    following(&program).await;
    server.psql("shop", "insert into ex(v) values ('a')");
    assert_eq!(ids_of(&program, INSERTED, 1).await, [1]);
    let encrypted = "select string_agg(distinct s.ssl || ' ' || a.backend_type, ', ') \
        from pg_stat_ssl s join pg_stat_activity a using (pid) \
        where a.application_name = 'annals cdc'";
    let found = server.psql("shop", encrypted);
    assert_eq!(found, "true client backend, true walsender");
    assert_eq!(world::status(&program).state, IngestState::Following);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_exist_is_named_first() {
    let setup = format!("{EX} create publication cdc_pub for table ex");
    let (_server, url, _folder) = shop(&[], &setup);
    let why = async |source| {
        let folder = tempfile::tempdir().unwrap();
        let program = start(folder.path(), source).await;
        let why = stopped(&program).await;
        program.stop().await;
        why
    };
    let wanted = "table `public.Ex` does not exist in database `shop`; names are case-sensitive; \
        there is `public.ex`";
    assert_eq!(why(source(&url, &["Ex"])).await, wanted);
    assert_eq!(
        why(source(&url, &["Ex"]).publication("cdc_pub")).await,
        wanted
    );
    // As the server says it, without a line of its own source.
    let nowhere = why(source(&url.replace("/shop", "/nowhere"), &["ex"])).await;
    assert_eq!(
        nowhere,
        "cannot connect: database \"nowhere\" does not exist"
    );
}
