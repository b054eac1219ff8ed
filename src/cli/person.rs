//! The commands of a person who works with Bellhop. The image is built without them.

use super::{authorize, completion, create, events, exit, explain, listen, logs, plugin, replay, send, status};
use clap::{CommandFactory, Subcommand};
use std::io::Write;

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
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
    /// Send a sample of an event, signed, to try triggers without the external system
    Send(Box<send::Options>),
    /// Show the events that a draft would have fired on
    Listen(listen::Options),
    /// Write and check TriggerPlugins, without a cluster
    #[command(subcommand, arg_required_else_help = true)]
    Plugin(plugin::Command),
    /// Print the script that makes a shell complete commands and options
    Completion {
        /// The shell
        shell: completion::For,
    },
}

/// What can be created.
#[derive(Debug, Subcommand)]
pub enum Create {
    /// Make the manifest of a Subscription, from flags or from answers on a terminal, and apply it if wished
    Subscription(Box<create::Options>),
}

/// Runs one command.
///
/// # Errors
/// What went wrong, for people, as a chain of causes.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Status(options) => interruptible(async || status::run(&options).await),
        Command::Events(options) => interruptible(async || events::run(&options).await),
        Command::Create(Create::Subscription(options)) => interruptible(async || create::run(&options).await),
        Command::Authorize(options) => interruptible(async || authorize::run(&options).await),
        Command::Logs(options) => interruptible(async || logs::run(&options).await),
        Command::Explain(options) => interruptible(async || explain::run(&options).await),
        Command::Replay(options) => interruptible(async || replay::run(&options).await),
        Command::Send(options) => interruptible(async || send::run(&options).await),
        Command::Listen(options) => super::run::block_on(async |shutdown| listen::run(&options, &shutdown).await),
        Command::Plugin(command) => plugin::run(&command),
        Command::Completion { shell } => {
            std::io::stdout().write_all(&completion::script(shell, super::Cli::command()))?;
            Ok(())
        }
    }
}

/// What ends with the next Ctrl-C, wherever it is.
fn interruptible(work: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    super::run::block_on(async |shutdown| {
        tokio::select! {
            result = work() => result,
            () = shutdown.cancelled() => Err(exit::Exit::Interrupted.into()),
        }
    })
}
