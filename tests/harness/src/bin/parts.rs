//! Builds the parts that the tests need, or finds them built, with progress: a test would keep it to itself.

use bellhop_harness::build::{Part, ensure};
use std::process::ExitCode;

fn main() -> ExitCode {
    match ensure(&Part::ALL) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
