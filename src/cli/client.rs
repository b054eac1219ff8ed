//! The cluster that a user's command speaks to, and what its refusals mean.

use super::exit::Exit;
use crate::api::{Condition, GROUP};
use anyhow::{Context, anyhow};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Deserialize;
use std::path::PathBuf;

/// Where the cluster is, as kubectl is told.
#[derive(Debug, clap::Args)]
pub struct Access {
    /// The kubeconfig; left out: what KUBECONFIG names, else ~/.kube/config
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig; left out: its current one
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    context: Option<String>,

    /// The namespace; left out: the context's, else `default`
    #[arg(short, long, value_name = "NAME", help_heading = "Cluster")]
    namespace: Option<String>,
}

/// A cluster, and the namespace that a command is about.
#[derive(Clone)]
pub struct Cluster {
    /// Speaks to the API server as the user.
    pub client: Client,
    /// The workspace.
    pub namespace: String,
}

impl Access {
    /// Makes the client. Nothing is asked of the API server yet.
    ///
    /// # Errors
    /// There is no usable kubeconfig, or it does not have the context.
    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        let config = self.config().await.context("the kubeconfig")?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Cluster { client: Client::try_from(config).context("the kubeconfig")?, namespace })
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        Ok(match &self.kubeconfig {
            Some(file) => Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &options).await?,
            None if self.context.is_some() => Config::from_kubeconfig(&options).await?,
            // In a pod without a kubeconfig, this is the pod's account.
            None => Config::infer().await?,
        })
    }
}

impl Cluster {
    /// Access to the objects of one of Bellhop's kinds, without knowing their fields: a command that reads conditions goes
    /// on working with a newer Bellhop.
    pub fn objects(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha1", kind));
        match kind {
            "TriggerPlugin" => Api::all_with(self.client.clone(), &resource),
            _ => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
        }
    }

    /// One object by its name.
    ///
    /// # Errors
    /// [`Exit::NotFound`], or what [`told`] makes of a refusal.
    pub async fn get(&self, kind: &str, name: &str) -> anyhow::Result<DynamicObject> {
        let missing = || self.missing(kind, name);
        self.objects(kind).get_opt(name).await.map_err(told)?.ok_or_else(missing)
    }

    /// There is no such object.
    pub fn missing(&self, kind: &str, name: &str) -> anyhow::Error {
        let place = match kind {
            "TriggerPlugin" => "this cluster".to_owned(),
            _ => format!("the namespace {}", self.namespace),
        };
        let plural = format!("{}s", kind.to_lowercase());
        Exit::NotFound(format!("there is no {kind} {name} in {place}; `kubectl get {plural}.{GROUP}` lists them"))
            .into()
    }
}

/// What the API server's refusal means to the person who typed the command.
pub fn told(error: kube::Error) -> anyhow::Error {
    match error {
        // An object that is missing is told with a reason; a kind that is missing is not.
        kube::Error::Api(status)
            if status.code == 404 && status.details.as_ref().is_none_or(|of| of.name.is_empty()) =>
        {
            anyhow!("this cluster does not know Bellhop's kinds: is Bellhop installed in it?")
        }
        kube::Error::Api(status) if status.code == 404 => Exit::NotFound(status.message).into(),
        kube::Error::Api(status) => anyhow!("the API server refuses: {}", status.message),
        error => anyhow::Error::new(error).context("the API server cannot be asked"),
    }
}

/// The conditions in the status of one of Bellhop's objects; none, where there is no status that can be read.
pub fn conditions(object: &DynamicObject) -> Vec<Condition> {
    Vec::deserialize(&object.data["status"]["conditions"]).unwrap_or_default()
}
