//! Other processes of this machine: a number alone does not say which one it is.

use std::process::Command;

use crate::program::answer;

/// The words with which the process of that number was started, separated by spaces; nothing when
/// there is no such process, or when it has ended and only its number is left.
pub(crate) fn command_line(pid: u32) -> Option<String> {
    let from_kernel = std::fs::read(format!("/proc/{pid}/cmdline"));
    let line = match from_kernel {
        Ok(words) => String::from_utf8_lossy(&words).replace('\0', " "),
        // Not every system shows its processes as files.
        Err(_) if cfg!(target_os = "linux") => return None,
        Err(_) => {
            let mut ps = Command::new("ps");
            answer(ps.args(["-ww", "-o", "args=", "-p", &pid.to_string()])).ok()?
        }
    };
    let line = line.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_process_is_known_by_its_words_until_it_ends() {
        let mut child = Command::new("cat")
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Between the fork and the exec it is still this program.
        let begun = std::iter::repeat_with(|| command_line(child.id()))
            .find(|line| line.as_deref() == Some("cat -"));
        assert!(begun.is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(command_line(child.id()), None);
    }
}
