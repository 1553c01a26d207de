//! A cluster of three brokers for one test.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// A cluster that is removed when this is dropped, or when this program ends in any way.
pub(crate) struct Cluster {
    lender: Child,
    control: String,
    pub(crate) url: String,
}

impl Cluster {
    pub(crate) fn borrow() -> Cluster {
        let lend = std::env::var("ANNALS_TEST_KAFKA_LEND").expect(
            "ANNALS_TEST_KAFKA_LEND names no program: run `cargo xtask test -p annals-kafka`",
        );
        let mut lender = Command::new(lend)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(lender.stdout.take().unwrap()).lines();
        let mut line = || lines.next().expect("a cluster was lent").unwrap();
        let url = format!("kafka://{}", line());
        let control = line();
        Cluster {
            lender,
            control,
            url,
        }
    }

    /// Asks the program that controls the brokers for something.
    pub(crate) async fn control(&self, word: &'static str, node: usize) {
        let mut asks = Command::new(&self.control);
        asks.args([word, &node.to_string()]);
        let asked = tokio::task::spawn_blocking(move || asks.status());
        assert!(asked.await.unwrap().unwrap().success(), "{word} {node}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.lender.stdin.take());
        let _ = self.lender.wait();
    }
}
