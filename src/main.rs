//! The `bellhop` command: parses arguments and runs one command.

use bellhop::cli::{Cli, run};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever the chain of causes: for people and for whoever reads the log of a failed start.
            eprintln!("bellhop: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}
