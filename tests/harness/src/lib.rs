//! The real parts that Bellhop's tests, benchmarks and demo run against, and nothing simulated that can be real.
//!
//! - [`build`] makes etcd, Kubernetes and Gitea from source (`tests/cluster`), once, into `target/cluster/bin`.
//! - [`control_plane`] runs etcd, kube-apiserver and kube-controller-manager on loopback; [`gitea`] runs the external
//!   system; [`bellhop`] runs the operator's binary. Each can be stopped, killed and started again on the same ports
//!   and data.
//! - [`cluster`] adds a real node on this machine ([`node`]), on which [`image`]s run that were made here.
//! - [`runner`] is an HTTP service that records what it is asked to run; [`proxy`] stands in front of Gitea and loses,
//!   holds or answers calls as a test wants. Both are a [`server`] on a thread of their own.
//! - [`vendor`] has stand-ins for external systems that nobody can run, such as Airtable: each is a small server that
//!   behaves as the vendor documents it.
//! - [`runner_systems`] answers as systems do that run workflows; [`verifier`] reads requests with npm packages;
//!   [`published`] has what vendors publish about their webhooks.
//! - [`browser`] logs in and consents as a person does; [`oidc`] is a second, stricter OAuth server than Gitea's.
//! - [`world`] is what the tests of one binary share: a control plane and a Gitea, started once.
//! - [`process`] is the one way children are started: they never outlive the test process, however it dies.
//! - [`ports`], [`wait`], [`http`] and [`git`] are the small things that all of these use.
//!
//! A part that is started in a folder (`dir`) with a name keeps its state in `dir/NAME` and its log in `dir/log`.
//!
//! # Environment
//!
//! | variable | meaning |
//! | --- | --- |
//! | `KUBEBUILDER_ASSETS` | a folder with `etcd`, `kube-apiserver`, `kubectl` (and perhaps `kube-controller-manager`) to use instead of building them |
//! | `BELLHOP_TEST_KUBECONFIG` | an existing cluster to use instead of a control plane; tests that stop the API server ask [`ControlPlane::is_external`](control_plane::ControlPlane::is_external) and skip |
//!
//! # Example
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use bellhop_harness::{runner::Runner, wait::eventually, world};
//! use std::time::Duration;
//!
//! let world = world::shared().await;
//! let namespace = world.control_plane.create_namespace("team").await?;
//! let owner = world.gitea.create_user("acme").await?;
//! world.gitea.create_repository(&owner, "web").await?;
//! let runner = Runner::start()?;
//! world.gitea.commit_file(&owner, "web", "main", "a.txt", "hello", "first").await?;
//! let requests = runner.wait_for(1, Duration::from_secs(10)).await?;
//! # Ok(()) }
//! ```

pub mod bellhop;
pub mod browser;
pub mod build;
pub mod cluster;
pub mod control_plane;
pub mod git;
pub mod gitea;
pub mod http;
pub mod image;
pub mod node;
mod npm;
pub mod oidc;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod published;
pub mod runner;
pub mod runner_systems;
pub mod server;
pub mod signers;
pub mod vendor;
pub mod verifier;
pub mod wait;
pub mod world;

pub use wait::eventually;

use std::path::PathBuf;

/// The repository's root folder.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the harness lies two folders below the root")
        .to_path_buf()
}
