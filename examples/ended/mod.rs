//! How the examples end: quietly when their reader has seen enough, as in `cart | head`, and with
//! what went wrong on one line of stderr otherwise.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// The end of a program of this name.
pub(crate) fn ended(name: &str, done: Result<(), Box<dyn Error>>) -> ExitCode {
    match what_went_wrong(done) {
        None => ExitCode::SUCCESS,
        Some(error) => {
            let text = causes(&*error).map(ToString::to_string);
            let text = text.collect::<Vec<_>>().join(": ").replace('\n', " ");
            // Who closed stderr wants to know nothing.
            let _ = writeln!(io::stderr(), "{name}: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Nothing, when the reader has seen enough.
pub(crate) fn what_went_wrong(done: Result<(), Box<dyn Error>>) -> Option<Box<dyn Error>> {
    done.err().filter(|error| !is_broken_pipe(&**error))
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    causes(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
