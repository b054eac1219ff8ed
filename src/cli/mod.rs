//! What a user types: the commands of the processes, and those of a person who works with Bellhop (the feature `cli`), which
//! are a plugin of kubectl under the name kubectl-bellhop.

#[cfg(feature = "cli")]
mod authorize;
mod clean;
#[cfg(feature = "cli")]
mod client;
#[cfg(feature = "cli")]
mod completion;
#[cfg(feature = "cli")]
mod create;
#[cfg(feature = "cli")]
mod events;
pub mod exit;
#[cfg(feature = "cli")]
mod explain;
#[cfg(feature = "cli")]
mod listen;
#[cfg(feature = "cli")]
mod logs;
#[cfg(feature = "cli")]
mod output;
#[cfg(feature = "cli")]
mod person;
#[cfg(feature = "cli")]
pub mod plugin;
#[cfg(feature = "cli")]
mod replay;
#[cfg(feature = "cli")]
mod request_log;
mod run;
#[cfg(feature = "cli")]
mod send;
#[cfg(feature = "cli")]
mod status;
mod support_bundle;
#[cfg(feature = "cli")]
mod tree;
mod uninstall_notice;

use crate::api::{all_crds, to_markdown, to_yaml};
use crate::config::{Common, ControllerOptions, IngressOptions, LogFormat, RunOptions};
use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use kube::ResourceExt;
use std::io::Write;
use std::path::PathBuf;

/// Starts workflows on the events of external systems
#[derive(Debug, Parser)]
#[command(name = "bellhop", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Options of a process, with those of what it writes while it runs.
#[derive(Debug, clap::Args)]
struct Process<T: clap::Args> {
    /// How log lines are written
    #[arg(long, env = "BELLHOP_LOG_FORMAT", default_value = "auto", value_enum)]
    log_format: LogFormat,

    /// Which log lines are written, such as `info` or `bellhop=debug`
    #[arg(long, env = "BELLHOP_LOG", default_value = "info")]
    log: String,

    #[command(flatten)]
    options: T,
}

impl<T: clap::Args> Process<T> {
    /// Writes log lines from now on; gives the options.
    fn begin(self) -> anyhow::Result<T> {
        crate::telemetry::init(self.log_format, &self.log)?;
        Ok(self.options)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run controller and ingress in one process
    Run(Box<Process<RunOptions>>),
    /// Run the controller alone; of several, one works at a time
    Controller(Box<Process<ControllerOptions>>),
    /// Run the ingress alone
    Ingress(Box<Process<IngressOptions>>),
    #[cfg(feature = "cli")]
    #[command(flatten)]
    Person(person::Command),
    /// Say what stays when Bellhop is uninstalled, and how to remove it; the chart runs this before it goes
    UninstallNotice(Box<Process<Common>>),
    /// Write an archive with what somebody needs to see who is to help: resources, logs, metrics, and no secrets
    SupportBundle {
        #[command(flatten)]
        options: support_bundle::Options,
    },
    /// Print the CustomResourceDefinitions as YAML
    Crds {
        /// Write one file for each into this directory instead
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Write the reference of all fields, in Markdown, into this file instead
        #[arg(long, conflicts_with = "dir")]
        reference: Option<PathBuf>,
    },
}

/// Reads the command line of this process, and ends the process where it is wrong or help was asked for.
pub fn parse() -> Cli {
    let mut words = std::env::args_os();
    let path = PathBuf::from(words.next().unwrap_or_default());
    let program = path.file_stem().unwrap_or_default().to_string_lossy();
    #[cfg(feature = "cli")]
    if program == COMPLETION {
        let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        print!("{}", completion::offers(command(PLUGIN), &words));
        std::process::exit(0);
    }
    let matches = command(&program).get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The name by which kubectl finds the program.
const PLUGIN: &str = "kubectl-bellhop";
/// The name by which kubectl asks what may follow.
#[cfg(feature = "cli")]
const COMPLETION: &str = "kubectl_complete-bellhop";

/// All commands. A plugin of kubectl is for people: the commands of the processes are there, but not in its list.
fn command(program: &str) -> clap::Command {
    let command = Cli::command();
    if program != PLUGIN {
        return command;
    }
    let processes = ["run", "controller", "ingress", "uninstall-notice", "crds"];
    processes
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, |command| command.hide(true)))
        .bin_name("kubectl bellhop")
}

/// Runs one command.
///
/// # Errors
/// What went wrong, for people, as a chain of causes.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Run(process) => run::run(process.begin()?),
        Command::Controller(process) => run::controller(process.begin()?),
        Command::Ingress(process) => run::ingress(process.begin()?),
        Command::UninstallNotice(process) => {
            let common = process.begin()?;
            run::block_on(async |_| uninstall_notice::run(&common).await)
        }
        Command::SupportBundle { options } => run::block_on(async |_| support_bundle::run(&options).await),
        #[cfg(feature = "cli")]
        Command::Person(command) => person::run(command),
        Command::Crds { reference: Some(file), .. } => {
            std::fs::write(&file, to_markdown(&all_crds())).with_context(|| file.display().to_string())
        }
        Command::Crds { dir: None, .. } => {
            let mut out = std::io::stdout().lock();
            for crd in all_crds() {
                write!(out, "---\n{}", to_yaml(&crd)?)?;
            }
            Ok(())
        }
        Command::Crds { dir: Some(dir), .. } => {
            for crd in all_crds() {
                let path = dir.join(format!("{}.yaml", crd.name_any()));
                std::fs::write(&path, to_yaml(&crd)?).with_context(|| path.display().to_string())?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_contradicts_itself_nowhere() {
        command("bellhop").debug_assert();
        command(PLUGIN).debug_assert();
    }

    #[test]
    fn processes_take_their_options_and_those_of_their_log() {
        let words = ["bellhop", "run", "--public-url", "http://a.example", "--log", "debug"];
        let parsed = Cli::try_parse_from(words).unwrap();
        assert!(matches!(parsed.command, Command::Run(process) if process.log == "debug"));
    }
}
