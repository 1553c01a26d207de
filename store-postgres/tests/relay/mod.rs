//! A relay between a client and the test server that cuts their connection, or stops it,
//! around chosen requests.
//!
//! It follows the wire protocol as far as it must: where a message ends, which statement a message
//! runs, when the server has answered.

#![allow(dead_code)] // Each test uses some of this.

pub(crate) mod cuts;
mod frames;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use annals_postgres::{Options, sqlx::postgres::PgConnectOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::server;
use frames::{Frame, Frames};

/// What becomes of a request, which is everything up to the point from which the client waits for
/// an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// It and its answer pass.
    Passes,
    /// The connection is cut before the server has any of it.
    NeverArrives,
    /// The server gets all of it, and at that moment the connection is cut: it may notice while it
    /// works.
    CutWhileItRuns,
    /// The server has done it and said so, and the connection is cut before the client hears it.
    AnswerLost,
    /// As when the client stops at that point: so much of the request arrives, and nothing more is
    /// said in either direction while the connection stays open.
    Stops(Arrives),
}

/// How much of a request has arrived when a client stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrives {
    Nothing,
    Half,
    All,
}

type Chooses = Box<dyn FnMut(&str) -> Treatment + Send>;

/// Calls of functions of the schema, and which of them were seen.
#[derive(Debug)]
struct Calls {
    /// All statements are chosen when this is empty.
    names: &'static [&'static str],
    seen: Mutex<BTreeSet<&'static str>>,
}

impl Calls {
    /// Why a statement is chosen: it calls this one of the functions, or is that word.
    fn chosen(&self, statement: &str) -> Option<&'static str> {
        let is_in = |name: &&&str| statement.contains(&format!(".{name}(")) || statement == **name;
        let Some(name) = self.names.iter().find(is_in) else {
            return self.names.is_empty().then_some("");
        };
        self.seen.lock().unwrap().insert(name);
        Some(name)
    }
}

/// The relay; it ends, with all of its connections, when this is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    chooses: Arc<Mutex<Chooses>>,
    calls: Arc<Calls>,
    task: JoinHandle<()>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Relay {
    /// Listens for clients. A request that calls one of these functions of the schema, or is such a
    /// word, is one whose treatment is chosen; every request when there are none.
    pub(crate) async fn around(names: &'static [&'static str]) -> Relay {
        let calls = Arc::new(Calls {
            names,
            seen: Mutex::default(),
        });
        let chosen = Arc::clone(&calls);
        let server: PgConnectOptions = server::url().parse().unwrap();
        let server = (server.get_host().to_owned(), server.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let chooses: Arc<Mutex<Chooses>> =
            Arc::new(Mutex::new(Box::new(|_: &str| Treatment::Passes)));
        let choosing = Arc::clone(&chooses);
        let task = tokio::spawn(async move {
            // Aborted with the relay, because the set is dropped with this task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let server = server.clone();
                let choosing = Arc::clone(&choosing);
                let chosen = Arc::clone(&chosen);
                connections.spawn(async move {
                    // The side that ends first ends the other one too.
                    if let Ok(server) = TcpStream::connect(server).await {
                        let _ = Connection::new(client, server, chosen, choosing)
                            .run()
                            .await;
                    }
                });
            }
        });
        Relay {
            address,
            chooses,
            calls,
            task,
        }
    }

    /// How a store reaches the server through it.
    pub(crate) fn options(&self, schema: &str) -> Options {
        let server: PgConnectOptions = server::url().parse().unwrap();
        let through = server
            .host(&self.address.ip().to_string())
            .port(self.address.port());
        Options::new(through.options([("search_path", schema)]))
            .schema(schema)
            .unwrap()
    }

    /// Each of these was called, so that the test did not only pass other requests by.
    pub(crate) fn assert_called(&self, names: &[&str]) {
        let seen = self.calls.seen.lock().unwrap();
        let missing: Vec<_> = names.iter().filter(|name| !seen.contains(**name)).collect();
        assert!(missing.is_empty(), "never called: {missing:?}");
    }

    /// From now on the treatment of each chosen request is what this answers.
    pub(crate) fn choose(&self, mut treatment: impl FnMut() -> Treatment + Send + 'static) {
        self.choose_by(move |_| treatment());
    }

    /// As [`Relay::choose`], by the function or the word for which the request is chosen.
    pub(crate) fn choose_by(&self, treatment: impl FnMut(&str) -> Treatment + Send + 'static) {
        *self.chooses.lock().unwrap() = Box::new(treatment);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    calls: Arc<Calls>,
    chooses: Arc<Mutex<Chooses>>,
    /// Why prepared statements are chosen, by name.
    statements: HashMap<Vec<u8>, Option<&'static str>>,
    /// The request that is being received, and why its treatment is chosen, if it is.
    request: Vec<u8>,
    chosen_for: Option<&'static str>,
    /// How many answers the server owes.
    owed: u64,
}

/// Both sides are let go.
struct Cut;

impl Connection {
    fn new(
        client: TcpStream,
        server: TcpStream,
        calls: Arc<Calls>,
        chooses: Arc<Mutex<Chooses>>,
    ) -> Self {
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let statements = HashMap::new();
        let request = Vec::new();
        Self {
            client,
            server,
            calls,
            chooses,
            statements,
            request,
            chosen_for: None,
            owed: 0,
        }
    }

    async fn run(mut self) -> Result<(), Cut> {
        let mut from_client = Frames::of_a_client();
        let mut from_server = Frames::of_a_server();
        let mut asked = vec![0; 16 * 1024];
        let mut answered = vec![0; 16 * 1024];
        loop {
            tokio::select! {
                read = self.client.read(&mut asked) => {
                    from_client.push(&asked[..some(read)?]);
                    while let Some(frame) = from_client.next() {
                        if frame.asks_for_encryption() {
                            from_server.expect_one_byte();
                        }
                        if self.hear(&frame) {
                            self.pass_on(&mut from_server).await?;
                        }
                    }
                }
                read = self.server.read(&mut answered) => {
                    let bytes = &answered[..some(read)?];
                    from_server.push(bytes);
                    while let Some(frame) = from_server.next() {
                        self.owed = self.owed.saturating_sub(u64::from(frame.is_ready_for_query()));
                    }
                    self.client.write_all(bytes).await.map_err(|_| Cut)?;
                }
            }
        }
    }

    /// Adds a message to the request; whether the request is whole with it.
    fn hear(&mut self, frame: &Frame) -> bool {
        match frame.tag {
            Some(b'P') => {
                let (name, statement) = frame.two_texts();
                let chosen = self.calls.chosen(&String::from_utf8_lossy(statement));
                self.statements.insert(name.to_vec(), chosen);
            }
            Some(b'B') => {
                let (_portal, name) = frame.two_texts();
                let chosen = self.statements.get(name).copied().flatten();
                self.chosen_for = chosen.or(self.chosen_for);
            }
            Some(b'Q') => {
                let statement = String::from_utf8_lossy(frame.two_texts().0);
                self.chosen_for = self.calls.chosen(&statement).or(self.chosen_for);
            }
            _ => {}
        }
        self.request.extend_from_slice(&frame.bytes);
        // Describe, Execute and Close belong to what follows, as Parse and Bind do.
        !matches!(frame.tag, Some(b'P' | b'B' | b'D' | b'E' | b'C'))
    }

    async fn pass_on(&mut self, from_server: &mut Frames) -> Result<(), Cut> {
        let request = std::mem::take(&mut self.request);
        let treatment = match self.chosen_for.take() {
            Some(name) => (self.chooses.lock().unwrap())(name),
            None => Treatment::Passes,
        };
        match treatment {
            Treatment::NeverArrives => return Err(Cut),
            Treatment::Stops(arrives) => {
                let bytes = match arrives {
                    Arrives::Nothing => 0,
                    Arrives::Half => request.len() / 2,
                    Arrives::All => request.len(),
                };
                self.server
                    .write_all(&request[..bytes])
                    .await
                    .map_err(|_| Cut)?;
                return std::future::pending().await;
            }
            Treatment::Passes | Treatment::CutWhileItRuns | Treatment::AnswerLost => {}
        }
        self.owed += u64::from(
            matches!(request.first(), Some(b'Q')) || request.ends_with(&[b'S', 0, 0, 0, 4]),
        );
        self.server.write_all(&request).await.map_err(|_| Cut)?;
        match treatment {
            Treatment::Passes => Ok(()),
            Treatment::AnswerLost => {
                let mut answered = vec![0; 16 * 1024];
                while self.owed > 0 {
                    let bytes = some(self.server.read(&mut answered).await)?;
                    from_server.push(&answered[..bytes]);
                    while let Some(frame) = from_server.next() {
                        self.owed = self
                            .owed
                            .saturating_sub(u64::from(frame.is_ready_for_query()));
                    }
                }
                Err(Cut)
            }
            _ => Err(Cut),
        }
    }
}

/// How many bytes came; the end of the connection is a cut.
fn some(read: std::io::Result<usize>) -> Result<usize, Cut> {
    read.ok().filter(|&bytes| bytes > 0).ok_or(Cut)
}
