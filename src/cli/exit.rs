//! How a command ends, for scripts.
//!
//! | Code | Meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | something went wrong |
//! | 2 | the command was typed wrongly, or something is missing that nobody can be asked for |
//! | 3 | what was named does not exist |
//! | 4 | something is not Ready, was refused, or did not happen in time |
//! | 130 | interrupted by Ctrl-C |

use super::clean::clean;
use std::fmt;
use std::io;

/// An end that is not just "something went wrong".
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command was typed wrongly.
    Usage(String),
    /// What was named does not exist.
    NotFound(String),
    /// Something is not Ready, was refused, or did not happen in time. The message may be empty, where the output has said
    /// it.
    NotReady(String),
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Usage(message) | Exit::NotFound(message) | Exit::NotReady(message) => f.write_str(message),
            Exit::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Exit {}

/// The code that a failed command ends with.
pub fn code(error: &anyhow::Error) -> u8 {
    if is_broken_pipe(error) {
        return 0;
    }
    match error.downcast_ref::<Exit>() {
        Some(Exit::Usage(_)) => 2,
        Some(Exit::NotFound(_)) => 3,
        Some(Exit::NotReady(_)) => 4,
        Some(Exit::Interrupted) => 130,
        None => 1,
    }
}

/// What standard error is told of a failed command, in one line; nothing, where there is nothing to say.
pub fn line(error: &anyhow::Error) -> Option<String> {
    if is_broken_pipe(error) || matches!(error.downcast_ref::<Exit>(), Some(Exit::Interrupted)) {
        return None;
    }
    // One line, whatever the chain of causes: for people and for whoever reads the log of a failed start.
    // What a cluster says may come from a payload, and a terminal takes some of it for orders.
    let line = clean(&format!("{error:#}"));
    (!line.is_empty()).then_some(line)
}

/// Whoever read the output has seen enough, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn each_end_has_its_code_and_its_words() {
        let ends = [
            (Exit::Usage("a".to_owned()).into(), 2, Some("a")),
            (Exit::NotFound("b".to_owned()).into(), 3, Some("b")),
            (Exit::NotReady(String::new()).into(), 4, None),
            (Exit::Interrupted.into(), 130, None),
            (anyhow!("two\nlines").context("the cause"), 1, Some("the cause: two lines")),
            (anyhow::Error::from(Exit::NotFound("c".to_owned())).context("the plugin"), 3, Some("the plugin: c")),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), 0, None),
        ];
        for (error, expected, words) in ends {
            assert_eq!((code(&error), line(&error).as_deref()), (expected, words));
        }
    }
}
