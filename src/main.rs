//! The `bellhop` command: parses arguments and runs one command.

use bellhop::cli::{exit, parse, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Err(error) = run(parse()) else { return ExitCode::SUCCESS };
    if let Some(line) = exit::line(&error) {
        eprintln!("bellhop: {line}");
    }
    ExitCode::from(exit::code(&error))
}
