//! Who holds a lease: a name by which another process of the same machine knows whether its owner
//! can still be alive.

use std::fmt;

use uuid::Uuid;

/// A process that works on slots. Its name says which process on which machine, as far as the
/// operating system shows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    process: u32,
    /// When the process began, in ticks since the machine was started: a number that is used again
    /// belongs to another one.
    began: u64,
    /// This start of the machine, and the space in which its processes are numbered (containers
    /// have their own).
    machine: String,
}

/// The name under which this program works.
pub(crate) fn name() -> String {
    let unique = Uuid::now_v7().simple().to_string();
    match Owner::of_this_process() {
        Some(owner) => format!("{owner}-{unique}"),
        None => format!("{}-{unique}", std::process::id()),
    }
}

/// Whether a process of this name has certainly ended: one of this machine, which runs no such
/// process any more. One on another machine, or that cannot be seen, may be alive.
pub(crate) fn has_ended(name: &str) -> bool {
    let (Some(owner), Some(here)) = (Owner::parse(name), Owner::of_this_process()) else {
        return false;
    };
    // Where the processes of other users are hidden, none of them is known to have ended.
    let sees_others = began(1).is_some();
    sees_others && owner.machine == here.machine && began(owner.process) != Some(owner.began)
}

impl Owner {
    fn of_this_process() -> Option<Owner> {
        let process = std::process::id();
        Some(Owner {
            process,
            began: began(process)?,
            machine: machine()?,
        })
    }

    fn parse(name: &str) -> Option<Owner> {
        let mut parts = name.split('-');
        let process = parts.next()?.parse().ok()?;
        let began = parts.next()?.parse().ok()?;
        let machine = parts.next()?.to_owned();
        // The unique part follows.
        parts.next().map(|_| Owner {
            process,
            began,
            machine,
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.process, self.began, self.machine)
    }
}

/// When a process began; nothing when none has this number, or the system does not show it.
fn began(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program is in brackets and may hold anything; after it the state is the
    // first field, the start time the twentieth. A process that has ended and whose parent has not
    // waited for it yet is listed as a zombie.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn machine() -> Option<String> {
    let start = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let numbers = |text: &str| {
        text.chars()
            .filter(char::is_ascii_hexdigit)
            .collect::<String>()
    };
    Some(format!(
        "{}.{}",
        numbers(&start),
        numbers(space.to_str()?.strip_prefix("pid:")?)
    ))
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner::of_this_process().expect("Linux shows it")
    }

    #[test]
    fn a_process_that_runs_has_not_ended() {
        assert!(!has_ended(&name()), "{}", name());
        assert!(!has_ended(&format!("{}-settles", name())));
    }

    #[test]
    fn a_killed_process_has_ended_although_its_number_is_reused() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let began = began(child.id()).unwrap();
        let of_child = format!(
            "{}-x",
            Owner {
                process: child.id(),
                began,
                ..owner()
            }
        );
        assert!(!has_ended(&of_child));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(&of_child));
        let number_used_again = format!(
            "{}-x",
            Owner {
                began: owner().began + 1,
                ..owner()
            }
        );
        assert!(has_ended(&number_used_again));
    }

    #[test]
    fn an_owner_that_cannot_be_seen_counts_as_alive() {
        let elsewhere = Owner {
            process: u32::MAX,
            machine: "another".into(),
            ..owner()
        };
        for name in [
            &format!("{elsewhere}-x"),
            "",
            "worker-a",
            "4711-0199",
            "another",
            "-",
            "1-2-3",
        ] {
            assert!(!has_ended(name), "{name}");
        }
    }
}
