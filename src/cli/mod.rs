//! What a user types.

mod run;
mod support_bundle;
mod uninstall_notice;

use crate::api::{all_crds, to_markdown, to_yaml};
use crate::config::{Common, ControllerOptions, IngressOptions, LogFormat, RunOptions};
use anyhow::Context;
use clap::{Parser, Subcommand};
use kube::ResourceExt;
use std::io::Write;
use std::path::PathBuf;

/// Starts workflows on the events of external systems
#[derive(Debug, Parser)]
#[command(name = "bellhop", version)]
pub struct Cli {
    /// How log lines are written
    #[arg(long, env = "BELLHOP_LOG_FORMAT", default_value = "auto", value_enum, global = true)]
    log_format: LogFormat,

    /// Which log lines are written, such as `info` or `bellhop=debug`
    #[arg(long, env = "BELLHOP_LOG", default_value = "info", global = true)]
    log: String,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run controller and ingress in one process
    Run(Box<RunOptions>),
    /// Run the controller alone; of several, one works at a time
    Controller(Box<ControllerOptions>),
    /// Run the ingress alone
    Ingress(Box<IngressOptions>),
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

/// Runs one command.
///
/// # Errors
/// What went wrong, for people, as a chain of causes.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Run(options) => {
            crate::telemetry::init(cli.log_format, &cli.log)?;
            run::run(*options)
        }
        Command::Controller(options) => {
            crate::telemetry::init(cli.log_format, &cli.log)?;
            run::controller(*options)
        }
        Command::Ingress(options) => {
            crate::telemetry::init(cli.log_format, &cli.log)?;
            run::ingress(*options)
        }
        Command::UninstallNotice { common } => run::block_on(async |_| uninstall_notice::run(&common).await),
        Command::SupportBundle { options } => run::block_on(async |_| support_bundle::run(&options).await),
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
