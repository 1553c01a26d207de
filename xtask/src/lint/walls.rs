//! The walls of the house: which of our crates may name which.
//!
//! Arrows point to `annals-core`; backends know neither each other nor what is built on top of
//! them. What tests need (`dev-dependencies`) may cross a wall, what ships may not.

use super::tree::{Member, members};
use crate::program::{answer, cargo};
use crate::stop::Stop;

/// A crate, and those of ours that it may depend on. A new crate gets its line here.
const WALLS: [(&str, &[&str]); 12] = [
    ("annals-streams", &[]),
    ("annals-core", &[]),
    ("annals-macros", &[]),
    (
        "annals-cdc",
        &["annals-core", "annals-projections", "annals-runner"],
    ),
    // The local copy of its store is a SQLite store.
    (
        "annals-kafka",
        &["annals-core", "annals-runner", "annals-sqlite"],
    ),
    ("annals-postgres", &["annals-core"]),
    ("annals-sqlite", &["annals-core"]),
    ("annals-runner", &["annals-core"]),
    (
        "annals-projections",
        &["annals-core", "annals-runner", "annals-streams"],
    ),
    (
        "annals",
        &[
            "annals-cdc",
            "annals-core",
            "annals-kafka",
            "annals-macros",
            "annals-postgres",
            "annals-projections",
            "annals-runner",
            "annals-sqlite",
            "annals-streams",
        ],
    ),
    (
        "annals-benches",
        &[
            "annals",
            "annals-core",
            "annals-kafka",
            "annals-macros",
            "annals-postgres",
            "annals-projections",
            "annals-sqlite",
        ],
    ),
    ("xtask", &[]),
];

/// Database drivers, and who may speak to them: a backend, and the benches that set it beside its
/// bare driver.
const DRIVERS: [(&str, &[&str]); 4] = [
    ("pgwire-replication", &["annals-cdc"]),
    ("rdkafka", &["annals-kafka", "annals-benches"]),
    ("rusqlite", &["annals-sqlite", "annals-benches"]),
    ("sqlx", &["annals-cdc", "annals-postgres", "annals-benches"]),
];

/// No crate crosses a wall, and nothing turns on a feature that would change the rest of a
/// user's program.
pub(crate) fn check() -> Result<String, Stop> {
    let members = members("normal,build")?;
    let mut broken: Vec<String> = members.iter().flat_map(crossings).collect();
    broken.extend(exact_numbers_kept()?);
    if broken.is_empty() {
        Ok(format!("{} crates keep to their side", members.len()))
    } else {
        Err(Stop::failed(broken.join("\n")))
    }
}

fn crossings(member: &Member) -> Vec<String> {
    let Some((name, allowed)) = WALLS.iter().find(|(name, _)| *name == member.name) else {
        return vec![format!(
            "`{}` has no line in xtask/src/lint/walls.rs: say what it may depend on",
            member.name
        )];
    };
    let mut crossings = Vec::new();
    for dependency in &member.dependencies {
        let ours =
            dependency == "xtask" || dependency == "annals" || dependency.starts_with("annals-");
        if ours && !allowed.contains(&dependency.as_str()) {
            crossings.push(format!(
                "`{name}` depends on `{dependency}`, and may only on [{}]",
                allowed.join(", ")
            ));
        }
        for (driver, speakers) in DRIVERS {
            if dependency == driver && !speakers.contains(name) {
                crossings.push(format!(
                    "`{name}` names the driver `{driver}`, which belongs to {}",
                    speakers.join(" and ")
                ));
            }
        }
    }
    crossings
}

/// Features unify over a user's whole program: this one of serde_json would change how their
/// numbers are read.
fn exact_numbers_kept() -> Result<Option<String>, Stop> {
    let words = [
        "tree",
        "--workspace",
        "--all-features",
        "--locked",
        "--edges",
        "features",
        "--prefix",
        "none",
    ];
    let tree = answer(&mut cargo(words))?;
    let on = tree
        .lines()
        .any(|line| line.starts_with("serde_json feature \"arbitrary_precision\""));
    Ok(on.then(|| {
        "serde_json's `arbitrary_precision` is on; carry exact numbers as RawValue or strings"
            .to_owned()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, dependencies: &[&str], crossings_expected: &[&str]) {
        let dependencies = dependencies.iter().map(|&name| name.to_owned()).collect();
        let member = Member {
            name: name.to_owned(),
            directory: "anywhere".into(),
            dependencies,
        };
        assert_eq!(crossings(&member), crossings_expected);
    }

    #[test]
    fn arrows_point_to_core() {
        check("annals-sqlite", &["annals-core", "rusqlite", "serde"], &[]);
        check(
            "annals-core",
            &["annals-macros"],
            &["`annals-core` depends on `annals-macros`, and may only on []"],
        );
        check(
            "annals-sqlite",
            &["annals"],
            &["`annals-sqlite` depends on `annals`, and may only on [annals-core]"],
        );
    }

    #[test]
    fn only_a_backend_and_its_bench_name_its_driver() {
        check("annals-benches", &["rusqlite"], &[]);
        check(
            "annals-core",
            &["rusqlite"],
            &[
                "`annals-core` names the driver `rusqlite`, which belongs to annals-sqlite and \
                 annals-benches",
            ],
        );
    }

    #[test]
    fn a_new_crate_must_say_what_it_may_depend_on() {
        check(
            "annals-news",
            &[],
            &["`annals-news` has no line in xtask/src/lint/walls.rs: say what it may depend on"],
        );
    }
}
