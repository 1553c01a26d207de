//! The jars of a broker: what Maven brings for two coordinates.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::java::Java;
use super::{cannot, make, place};
use crate::apt;
use crate::program::{answer, program};
use crate::stop::Stop;
use crate::terminal::say;

/// The broker that is tested against unless another version is named.
const VERSION: &str = "4.3.1";

/// Names another version of the broker.
const VERSION_VARIABLE: &str = "ANNALS_KAFKA_VERSION";

/// Copies the jars that a project needs at run time.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// A directory of jars that is complete.
#[derive(Clone, Debug)]
pub(crate) struct Jars {
    pub(crate) directory: PathBuf,
    pub(crate) version: String,
}

impl Jars {
    /// Those of this clone, fetched when they are not there.
    pub(crate) fn find(java: &Java) -> Result<Jars, Stop> {
        let version = match std::env::var(VERSION_VARIABLE) {
            Ok(version) if !version.is_empty() => version,
            _ => VERSION.to_owned(),
        };
        make(&place())?;
        let directory = place().join(format!("libs-{version}"));
        let jars = Jars { directory, version };
        if !jars.directory.join(jars.main()).is_file() {
            jars.fetch(java)?;
        }
        Ok(jars)
    }

    fn main(&self) -> String {
        format!("kafka_2.13-{}.jar", self.version)
    }

    /// Fetches into a directory beside it and renames that, so that what has the name is complete.
    fn fetch(&self, java: &Java) -> Result<(), Stop> {
        let maven = maven(java)?;
        let half = self
            .directory
            .with_extension(format!("{}", std::process::id()));
        make(&half)?;
        let project = half.join("pom.xml");
        std::fs::write(&project, pom(&self.version))
            .map_err(|error| cannot("write", &project, &error))?;
        let mut fetch = program(&maven, ["-q", "-B", "-f"]);
        fetch
            .arg(&project)
            .arg(COPY)
            .arg("-DincludeScope=runtime")
            .arg(format!("-DoutputDirectory={}", half.display()));
        say!(
            "fetching the jars of Apache Kafka {} with Maven",
            self.version
        );
        answer(&mut fetch)?;
        if !half.join(self.main()).is_file() {
            return Err(Stop::failed(format!("Maven brought no {}", self.main())));
        }
        // Another process may have been quicker: its files are as good.
        if std::fs::rename(&half, &self.directory).is_err() {
            let _ = std::fs::remove_dir_all(&half);
        }
        match self.directory.join(self.main()).is_file() {
            true => Ok(()),
            false => Err(Stop::failed(format!(
                "{} holds no {}: remove it",
                self.directory.display(),
                self.main()
            ))),
        }
    }
}

fn maven(java: &Java) -> Result<String, Stop> {
    let is_there = || {
        let mut version = Command::new("mvn");
        version
            .arg("-version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    };
    if is_there() || apt::install(&["maven"]) && is_there() {
        return Ok("mvn".to_owned());
    }
    Err(Stop::failed(format!(
        "there is Java {} but no Maven to fetch the broker with; install it (Debian and Ubuntu: \
         `apt-get install maven`)",
        java.version
    )))
}

/// The broker, and something that its log messages can go to.
fn pom(version: &str) -> String {
    let dependency = |group: &str, name: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>annals</groupId>\
         <artifactId>broker</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{}{}</dependencies></project>\n",
        dependency("org.apache.kafka", "kafka_2.13", version),
        dependency("org.slf4j", "slf4j-simple", "1.7.36"),
    )
}
