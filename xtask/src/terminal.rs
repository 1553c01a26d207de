//! What is printed: output without a reader is not an error of the work.

use std::fmt::Arguments;
use std::io::Write;

/// Prints a line on standard output. `cargo xtask lint | head -1` goes on to its true exit code.
macro_rules! say {
    ($($words:tt)*) => { $crate::terminal::line(std::io::stdout(), format_args!($($words)*)) };
}

/// Prints a line on standard error.
macro_rules! complain {
    ($($words:tt)*) => { $crate::terminal::line(std::io::stderr(), format_args!($($words)*)) };
}

pub(crate) use {complain, say};

pub(crate) fn line(mut to: impl Write, words: Arguments<'_>) {
    // The reader may have gone, as `head` does; what the exit code says stays true.
    let _ = writeln!(to, "{words}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_gone_stops_nothing() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        line(writer, format_args!("without a reader"));
    }
}
