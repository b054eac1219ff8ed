//! `bellhop support-bundle`: what somebody needs to see who is to help, and no secret.
//!
//! Secrets appear by name only. Of callback URLs the token is masked, and of containers the values of environment
//! variables that are not Bellhop's own. Logs and metrics hold no secrets to begin with.

use crate::api::GROUP;
use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ListParams, LogParams, PartialObjectMeta};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use tar::{Builder, Header};

/// Lines of each container's log.
const LOG_LINES: i64 = 5_000;
/// Most bytes of each container's log.
const LOG_BYTES: i64 = 4 * 1024 * 1024;
/// Objects of each kind.
const OBJECTS: u32 = 5_000;
/// Port of the private listener.
const PRIVATE_PORT: u16 = 9090;

/// Options of `bellhop support-bundle`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The file to write, a gzipped tar archive
    #[arg(long, short, default_value = "bellhop-support.tar.gz")]
    output: PathBuf,

    /// Bellhop's own namespace
    #[arg(long, env = "BELLHOP_NAMESPACE", default_value = "bellhop-system")]
    namespace: String,

    /// Namespace of what the controller publishes for the ingress
    #[arg(long, env = "BELLHOP_INGRESS_NAMESPACE", default_value = "bellhop-ingress")]
    ingress_namespace: String,
}

/// Writes the bundle. What cannot be read is listed in it, in `errors.txt`, and on standard error.
///
/// # Errors
/// The file cannot be written, or there is no usable kubeconfig.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("the configuration of the Kubernetes client")?;
    let mut bundle = Bundle::create(&options.output)?;
    let version = client.apiserver_version().await;
    let server = version.as_ref().map_or_else(ToString::to_string, |info| info.git_version.clone());
    bundle.add("version.txt", &format!("bellhop {}\nKubernetes {server}\n", env!("CARGO_PKG_VERSION")))?;
    for (group, version, kind, namespace) in [
        (GROUP, "v1alpha1", "TriggerPlugin", None),
        (GROUP, "v1alpha1", "Subscription", None),
        (GROUP, "v1alpha1", "WorkflowTrigger", None),
        ("", "v1", "Event", Some(&options.namespace)),
        ("", "v1", "Pod", Some(&options.namespace)),
        ("", "v1", "Service", Some(&options.namespace)),
        ("", "v1", "PersistentVolumeClaim", Some(&options.namespace)),
        ("", "v1", "ConfigMap", Some(&options.namespace)),
        ("apps", "v1", "Deployment", Some(&options.namespace)),
        ("apps", "v1", "StatefulSet", Some(&options.namespace)),
        ("policy", "v1", "PodDisruptionBudget", Some(&options.namespace)),
        ("coordination.k8s.io", "v1", "Lease", Some(&options.namespace)),
        ("discovery.k8s.io", "v1", "EndpointSlice", Some(&options.namespace)),
    ] {
        let listed = list(&client, group, version, kind, namespace.map(String::as_str)).await;
        bundle.add_or_note(&format!("{}.yaml", kind.to_lowercase()), listed)?;
    }
    for namespace in [&options.namespace, &options.ingress_namespace] {
        bundle.add_or_note(&format!("secrets-of-{namespace}.txt"), secret_names(&client, namespace).await)?;
    }
    pods(&client, &options.namespace, &mut bundle).await?;
    let missing = bundle.finish()?;
    println!("{} is written{}", options.output.display(), if missing == 0 { "" } else { "; see errors.txt in it" });
    Ok(())
}

/// Logs and metrics of Bellhop's pods.
async fn pods(client: &Client, namespace: &str, bundle: &mut Bundle) -> anyhow::Result<()> {
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    // Decoding whole pods would make up a twentieth of the program.
    let resource = ApiResource::erase::<Pod>(&());
    let objects = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    let pods = match objects.list(&ListParams::default()).await {
        Ok(pods) => pods,
        Err(error) => {
            bundle.note("pods", &error.into());
            return Ok(());
        }
    };
    for pod in pods.into_iter().filter(is_bellhop) {
        let name = pod.name_any();
        for previous in [false, true] {
            let params = LogParams {
                previous,
                tail_lines: Some(LOG_LINES),
                limit_bytes: Some(LOG_BYTES),
                timestamps: true,
                ..LogParams::default()
            };
            match api.logs(&name, &params).await {
                Ok(log) => bundle.add(&format!("logs/{name}{}.log", if previous { "-previous" } else { "" }), &log)?,
                // Most containers have not been restarted.
                Err(_) if previous => {}
                Err(error) => bundle.note(&format!("logs of {name}"), &error.into()),
            }
        }
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{PRIVATE_PORT}/proxy/metrics");
        let metrics = async { Ok(client.request_text(http::Request::get(path).body(Vec::new())?).await?) };
        bundle.add_or_note(&format!("metrics/{name}.txt"), metrics.await)?;
    }
    Ok(())
}

/// By the name of the private listener's port, which no value of the chart changes.
fn is_bellhop(pod: &DynamicObject) -> bool {
    let items = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    let containers = items(&pod.data["spec"], "containers");
    let mut ports = containers.iter().flat_map(|container| items(container, "ports"));
    ports.any(|port| port["name"] == "private" && port["containerPort"] == PRIVATE_PORT)
}

async fn list(
    client: &Client,
    group: &str,
    version: &str,
    kind: &str,
    namespace: Option<&str>,
) -> anyhow::Result<String> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut items = Vec::new();
    for mut item in api.list(&ListParams::default().limit(OBJECTS)).await? {
        item.managed_fields_mut().clear();
        let mut item = serde_json::to_value(item)?;
        mask(&mut item);
        items.push(item);
    }
    Ok(serde_saphyr::to_string(&json!({"kind": kind, "items": items}))?)
}

async fn secret_names(client: &Client, namespace: &str) -> anyhow::Result<String> {
    let api = Api::<PartialObjectMeta<Secret>>::namespaced(client.clone(), namespace);
    let list = api.list_metadata(&ListParams::default()).await?;
    Ok(list.items.iter().map(|secret| format!("{}\n", secret.name_any())).collect())
}

/// Replaces what is nobody's business: callback tokens, and values of environment variables.
fn mask(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((before, _)) = text.split_once("/hooks/") {
                *text = format!("{before}/hooks/[masked]");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Object(fields) => {
            // What was applied is repeated in this annotation as one string.
            fields.remove("kubectl.kubernetes.io/last-applied-configuration");
            let bellhops_own =
                fields.get("name").and_then(Value::as_str).is_some_and(|name| name.starts_with("BELLHOP_"));
            let is_variable = fields.len() == 2 && fields.contains_key("name") && fields.contains_key("value");
            if is_variable && !bellhops_own {
                fields.insert("value".to_owned(), "[masked]".into());
            }
            fields.values_mut().for_each(mask);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The archive that is being written.
struct Bundle {
    tar: Builder<GzEncoder<File>>,
    errors: String,
}

impl Bundle {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self { tar: Builder::new(GzEncoder::new(file, Compression::default())), errors: String::new() })
    }

    fn add(&mut self, name: &str, content: &str) -> anyhow::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        header.set_mtime(since.as_secs());
        Ok(self.tar.append_data(&mut header, Path::new("bellhop-support").join(name), content.as_bytes())?)
    }

    fn add_or_note(&mut self, name: &str, content: anyhow::Result<String>) -> anyhow::Result<()> {
        match content {
            Ok(content) => self.add(name, &content),
            Err(error) => {
                self.note(name, &error);
                Ok(())
            }
        }
    }

    fn note(&mut self, what: &str, error: &anyhow::Error) {
        let line = format!("{what}: {error:#}\n");
        eprint!("{line}");
        self.errors.push_str(&line);
    }

    /// The number of things that could not be read.
    fn finish(mut self) -> anyhow::Result<usize> {
        let errors = std::mem::take(&mut self.errors);
        self.add("errors.txt", &errors)?;
        self.tar.into_inner()?.finish()?;
        Ok(errors.lines().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callback_tokens_and_foreign_variables_are_masked() {
        let mut object = json!({
            "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"}},
            "status": {"address": {"url": "https://hooks.example.com/hooks/the-token"}},
            "env": [
                {"name": "BELLHOP_PUBLIC_URL", "value": "https://hooks.example.com"},
                {"name": "HTTPS_PROXY", "value": "http://user:password@proxy"},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
        });
        mask(&mut object);
        let masked = object.to_string();
        assert!(!masked.contains("the-token") && !masked.contains("password") && !masked.contains("last-applied"));
        assert!(masked.contains("https://hooks.example.com/hooks/[masked]"), "{masked}");
        assert!(masked.contains(r#""value":"https://hooks.example.com""#) && masked.contains(r#""a":"b""#), "{masked}");
    }
}
