//! Who holds a lease: a name that tells another process of the same machine whether its owner can
//! still be alive.

use std::fmt;

use uuid::Uuid;

/// A process that works on slots. Its name says which process on which machine, as far as the
/// operating system tells.
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
/// process any more. Who is elsewhere, or cannot be told, may be alive.
pub(crate) fn has_ended(name: &str) -> bool {
    let (Some(owner), Some(here)) = (Owner::parse(name), Owner::of_this_process()) else {
        return false;
    };
    // Where the processes of others are hidden, none of them can be told to have ended.
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
        // The unique part stands behind it.
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

/// When a process began; nothing when there is none of this number, or nobody tells.
fn began(process: u32) -> Option<u64> {
    let told = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program stands in brackets and may hold anything; behind it the state is the
    // first field, the beginning the twentieth. A process that has ended and that nobody has asked
    // about yet is listed as a zombie.
    let mut fields = told.rsplit_once(')')?.1.split_whitespace();
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
#[allow(clippy::unwrap_used)] // What must not fail is unwrapped.
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner::of_this_process().expect("Linux tells")
    }

    #[test]
    fn a_process_that_runs_has_not_ended() {
        assert!(!has_ended(&name()), "{}", name());
        assert!(!has_ended(&format!("{}-settles", name())));
    }

    #[test]
    fn a_process_that_was_killed_has_ended_although_its_number_is_used_again() {
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

    /// What `owner` was granted for a year is `next`'s at once, under another epoch.
    async fn is_free_at_once(owner: &str, next: &str) {
        use annals_core::{Acquired, GenerationSpec, Leases, Log, MemoryStore, ViewStore};

        let store = std::sync::Arc::new(MemoryStore::new());
        let generation = store
            .begin_generation(GenerationSpec::new("balances", 1, store.id()))
            .await
            .unwrap();
        let lease = std::time::Duration::from_secs(31_536_000);
        let name = generation.lease_name(0);
        let Acquired::Granted(before) = store.acquire_lease(&name, owner, lease).await.unwrap()
        else {
            panic!()
        };

        let place = crate::location::ViewLocation::Own(std::sync::Arc::clone(&store) as _);
        let system: std::sync::Arc<dyn annals_core::Clock> =
            std::sync::Arc::new(annals_core::SystemClock);
        let views = &place;
        let generation = &generation;
        let clock = &*system;
        let post = crate::worker::SlotClaim {
            views,
            generation,
            slot: 0,
            owner: next,
            lease,
            clock,
            share: None,
        };
        let progress = crate::worker::Progress::of(crate::Kind::View, generation, 0, &system);
        let look = || async { Ok(()) };
        let acquire =
            crate::worker::HeldLease::acquire(&post, &progress, look, std::future::pending());
        let held = tokio::time::timeout(std::time::Duration::from_secs(60), acquire)
            .await
            .expect("it is waited for");
        assert!(
            held.unwrap().unwrap().lease().epoch > before.epoch,
            "what was begun before is refused"
        );
    }

    #[tokio::test]
    async fn a_slot_of_a_process_that_was_killed_is_free_at_once() {
        is_free_at_once(
            &format!(
                "{}-x",
                Owner {
                    began: owner().began + 1,
                    ..owner()
                }
            ),
            "next",
        )
        .await;
    }

    #[tokio::test]
    async fn a_slot_that_was_granted_in_an_answer_that_got_lost_is_free_at_once() {
        let name = name();
        is_free_at_once(&name, &name).await;
    }

    #[test]
    fn nobody_is_taken_for_dead_who_cannot_be_seen_from_here() {
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
