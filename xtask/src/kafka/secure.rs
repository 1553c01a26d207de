//! The listener of a private broker that asks for TLS and SCRAM: its certificate and its user.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::java::Java;
use crate::program::answer;
use crate::stop::Stop;

/// The one user; a broker that tests make and remove has no secrets.
const USER: &str = "annals";
const PASSWORD: &str = "private";

/// What protects the key in its file; `keytool` demands at least six characters.
const STORE_PASSWORD: &str = "private";

/// A key and a certificate of its own for 127.0.0.1, which clients are given as their authority.
pub(crate) fn make_keys(java: &Java, directory: &Path) -> Result<PathBuf, Stop> {
    let keys = directory.join("keys.p12");
    let store = |command: &mut Command| {
        command
            .args(["-storetype", "PKCS12", "-storepass", STORE_PASSWORD])
            .args(["-alias", "broker", "-keystore"])
            .arg(&keys);
    };
    // It comes with every Java, in the same place.
    let program = java.program.with_file_name("keytool");
    let mut make = Command::new(&program);
    make.args(["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1"])
        .args(["-dname", "CN=127.0.0.1", "-ext", "SAN=IP:127.0.0.1"])
        .args(["-ext", "BC=ca:true", "-validity", "3650"]);
    store(&mut make);
    answer(&mut make)?;
    let mut export = Command::new(&program);
    export.args(["-exportcert", "-rfc", "-file"]);
    export.arg(authority(directory));
    store(&mut export);
    answer(&mut export)?;
    Ok(keys)
}

/// The certificate that clients trust.
fn authority(directory: &Path) -> PathBuf {
    directory.join("ca.pem")
}

/// What clients connect to.
pub(crate) fn url(port: u16, directory: &Path) -> String {
    format!(
        "kafka://{USER}:{PASSWORD}@127.0.0.1:{port}?tls=true&sasl=scram-sha-512&ca={}",
        authority(directory).display()
    )
}

/// The user, as the storage of a broker is formatted with it.
pub(crate) fn scram() -> String {
    format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]")
}

/// The settings of the listener.
pub(crate) fn settings(keys: &Path) -> String {
    let of = "listener.name.secure";
    format!(
        "{of}.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
         {of}.scram-sha-512.sasl.jaas.config=\
         org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
         {of}.ssl.keystore.type=PKCS12\n\
         {of}.ssl.keystore.location={}\n\
         {of}.ssl.keystore.password={STORE_PASSWORD}\n\
         {of}.ssl.key.password={STORE_PASSWORD}\n",
        keys.display()
    )
}
