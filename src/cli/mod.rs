//! What a user types: the commands of the processes, and those of a person who works with Bellhop, which are a plugin of
//! kubectl under the name kubectl-bellhop.

mod authorize;
mod client;
mod completion;
mod create;
mod events;
pub mod exit;
mod explain;
mod listen;
mod logs;
mod output;
mod replay;
mod request_log;
mod run;
mod status;
mod support_bundle;
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
    /// Show what is not Ready in a namespace, and why
    Status(status::Options),
    /// Show the events of a plugin, what a WorkflowTrigger may set, and what a workflow gets
    Events(events::Options),
    /// Create an object
    #[command(subcommand, arg_required_else_help = true)]
    Create(Create),
    /// Open the link at which a person consents, and wait until a Subscription is Ready
    Authorize(authorize::Options),
    /// Show the requests of a Subscription, a line each
    Logs(logs::Options),
    /// Tell the whole story of one request
    Explain(explain::Options),
    /// Have requests delivered again
    Replay(replay::Options),
    /// Show the events that a draft would have fired on
    Listen(listen::Options),
    /// Print the script that makes a shell complete commands and options
    Completion {
        /// The shell
        shell: completion::For,
    },
    /// Say what stays when Bellhop is uninstalled, and how to remove it; the chart runs this before it goes
    UninstallNotice {
        #[command(flatten)]
        common: Common,
    },
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

#[derive(Debug, Subcommand)]
enum Create {
    /// Make the manifest of a Subscription, from flags or from answers on a terminal, and apply it if wished
    Subscription(Box<create::Options>),
}

/// Reads the command line of this process, and ends the process where it is wrong or help was asked for.
pub fn parse() -> Cli {
    let mut words = std::env::args_os();
    let path = PathBuf::from(words.next().unwrap_or_default());
    let program = path.file_stem().unwrap_or_default().to_string_lossy();
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
        Command::UninstallNotice { common } => run::block_on(async |_| uninstall_notice::run(&common).await),
        Command::SupportBundle { options } => run::block_on(async |_| support_bundle::run(&options).await),
        Command::Status(options) => interruptible(async || status::run(&options).await),
        Command::Events(options) => interruptible(async || events::run(&options).await),
        Command::Create(Create::Subscription(options)) => interruptible(async || create::run(&options).await),
        Command::Authorize(options) => interruptible(async || authorize::run(&options).await),
        Command::Logs(options) => interruptible(async || logs::run(&options).await),
        Command::Explain(options) => interruptible(async || explain::run(&options).await),
        Command::Replay(options) => interruptible(async || replay::run(&options).await),
        Command::Listen(options) => run::block_on(async |shutdown| listen::run(&options, &shutdown).await),
        Command::Completion { shell } => {
            std::io::stdout().write_all(&completion::script(shell, Cli::command()))?;
            Ok(())
        }
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

/// What ends with the next Ctrl-C, wherever it is.
fn interruptible(work: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    run::block_on(async |shutdown| {
        tokio::select! {
            result = work() => result,
            () = shutdown.cancelled() => Err(exit::Exit::Interrupted.into()),
        }
    })
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
