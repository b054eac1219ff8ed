//! The cluster that a user's command speaks to, and what its refusals mean.

use super::exit::Exit;
use super::output::clean;
use crate::api::{Condition, GROUP};
use anyhow::{Context, anyhow};
use http::Response;
use http::header::WARNING;
use kube::Config;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::client::{Client, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tower::util::MapResponseLayer;

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
    /// Warnings that came with answers. Each was shown.
    pub warnings: Arc<AtomicUsize>,
}

impl Access {
    /// Makes the client. Nothing is asked of the API server yet.
    ///
    /// # Errors
    /// There is no usable kubeconfig, or it does not have the context.
    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        let mut config = self.config().await.context("the kubeconfig")?;
        // Otherwise what is answered 503 is asked again for minutes, in silence, and what changes something perhaps twice.
        config.default_retry = false;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = ClientBuilder::try_from(config).context("the kubeconfig")?;
        let warnings = Arc::new(AtomicUsize::new(0));
        let counted = warnings.clone();
        let show = move |response| show_warnings(response, &counted);
        let client = client.with_layer(&MapResponseLayer::new(show)).build();
        Ok(Cluster { client, namespace, warnings })
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
        kube::Error::Api(status) if status.code == 404 && !names_an_object(&status) => {
            anyhow!("this cluster does not know Bellhop's kinds: is Bellhop installed in it?")
        }
        kube::Error::Api(status) if status.code == 404 => Exit::NotFound(status.message).into(),
        kube::Error::Api(status) => anyhow!("the API server refuses: {}", status.message),
        error => anyhow::Error::new(error).context("the API server cannot be asked"),
    }
}

/// Whether a refusal is about one object. That an object is missing is told with its name; that a kind is missing is not.
pub fn names_an_object(status: &Status) -> bool {
    status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

/// Shows what the API server, or what answers through it, wants people to read besides, as kubectl does; and counts it.
fn show_warnings<B>(response: Response<B>, count: &AtomicUsize) -> Response<B> {
    let values = response.headers().get_all(WARNING).iter().filter_map(|value| value.to_str().ok());
    for text in values.filter_map(warning) {
        eprintln!("Warning: {}", clean(&text));
        count.fetch_add(1, Ordering::Relaxed);
    }
    response
}

/// The text of a `Warning` header: a code, an agent, and words in quotes (RFC 7234, section 5.5).
fn warning(header: &str) -> Option<String> {
    let quoted = header.strip_prefix("299 ")?.split_once('"')?.1;
    let (mut text, mut characters) = (String::new(), quoted.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => text.extend(characters.next()),
            _ => text.push(character),
        }
    }
    Some(text)
}

/// The conditions in the status of one of Bellhop's objects; none, where there is no status that can be read.
pub fn conditions(object: &DynamicObject) -> Vec<Condition> {
    Vec::deserialize(&object.data["status"]["conditions"]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_read_as_they_are_quoted() {
        let header = r#"299 - "replica 1 has not answered: \"no\"" "Tue, 24 Nov 2026 10:00:00 GMT""#;
        assert_eq!(warning(header).as_deref(), Some("replica 1 has not answered: \"no\""));
        assert_eq!(warning("199 - \"other\""), None);
    }
}
