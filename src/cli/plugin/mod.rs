//! `bellhop plugin`: tools for who writes a TriggerPlugin. None of them needs a cluster, and all of them use what the
//! processes use.

mod file;
mod init;
mod lint;
pub mod test;
#[cfg(test)]
mod tutorial;
mod yaml;

use crate::api::trigger_plugin_schema;
use crate::cli::output::print;
use clap::Subcommand;

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a folder with a plugin to begin with
    Init(init::Options),
    /// Show every mistake of a plugin in its place
    Lint(lint::Options),
    /// Replay recorded requests, and show where what becomes of them is not what is expected
    Test(test::Options),
    /// Print the JSON schema of TriggerPlugins, for editors
    Schema,
}

/// Runs one command.
///
/// # Errors
/// What went wrong, or that there are mistakes or differences.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Init(options) => init::run(options),
        Command::Lint(options) => lint::run(options),
        Command::Test(options) => test::run(options),
        Command::Schema => Ok(print(&(serde_json::to_string_pretty(&trigger_plugin_schema())? + "\n"))?),
    }
}
