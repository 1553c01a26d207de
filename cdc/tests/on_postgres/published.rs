//! Tables that leave the publication or get another name while the stream goes on.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use annals::prelude::*;

use super::procedures::{EX, INSERTED, shop};
use crate::world::{following, ids_of, source, start, status, until};

async fn warns(program: &Program, of: &str) {
    until(of, || async {
        let warnings = status(program).source.warnings;
        warnings
            .iter()
            .any(|warning| warning.contains(of))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_taken_out_while_streaming_is_warned_of() {
    let setup = format!("{EX} create publication cdc_pub for table ex");
    let (server, url, folder) = shop(&[], &setup);
    let tables = source(&url, &["ex"]).publication("cdc_pub");
    let program = start(folder.path(), tables).await;
    following(&program).await;
    server.psql("shop", "alter publication cdc_pub drop table ex");
    warns(&program, "publication `cdc_pub` lacks table `public.ex`").await;
    server.psql("shop", "insert into ex(v) values ('lost')");
    server.psql("shop", "alter publication cdc_pub add table ex");
    warns(&program, "lacked table `public.ex` for a while: `resync`").await;
    server.psql("shop", "insert into ex(v) values ('seen')");
    assert_eq!(ids_of(&program, INSERTED, 1).await, [2]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_renamed_while_streaming_is_warned_of() {
    let (server, url, folder) = shop(&[], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    server.psql(
        "shop",
        "alter table ex rename to old; insert into old(v) values ('a')",
    );
    ids_of(&program, "public.old.inserted", 1).await;
    warns(&program, "table `public.ex` is named `public.old` now").await;
    server.psql(
        "shop",
        "alter table old rename to ex; insert into ex(v) values ('b')",
    );
    assert_eq!(ids_of(&program, INSERTED, 1).await, [2]);
    until("it warns no more", || async {
        let warnings = status(&program).source.warnings;
        warnings.is_empty().then_some(())
    })
    .await;
    program.stop().await;
}
