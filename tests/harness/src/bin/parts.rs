//! Builds the parts that the tests need, or finds them built, with progress: a test would keep it to itself.

use bellhop_harness::build::{Part, ensure};
use std::process::ExitCode;

fn main() -> ExitCode {
    let all = [&Part::CONTROL_PLANE[..], &[Part::Gitea, Part::Kstatus], &Part::NODE].concat();
    match ensure(&all) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
