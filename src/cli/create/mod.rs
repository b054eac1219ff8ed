//! `bellhop create subscription`: the manifest of a Subscription, from flags and, on a terminal, from answers.

mod parameters;
mod wizard;

use super::client::{Access, Cluster, told};
use super::exit::Exit;
use super::output::{Format, clean, document, print};
use crate::api::{CREDENTIALS_FOR_LABEL, GROUP, TriggerPlugin};
use crate::plugin::{Plugin, join};
use anyhow::Context;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PartialObjectMeta, Patch, PatchParams};
use parameters::Parameters;
use serde_json::{Map, Value, json};
use std::io::IsTerminal;

/// Who applies, in `metadata.managedFields`.
const MANAGER: &str = "kubectl-bellhop";

/// Options of `bellhop create subscription`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The TriggerPlugin; `kubectl get triggerplugins` lists them
    plugin: String,

    /// Name of the Subscription
    #[arg(long)]
    name: Option<String>,

    /// An event to subscribe to; may be repeated; left out: all that the plugin has
    #[arg(long = "event", value_name = "NAME")]
    events: Vec<String>,

    /// A parameter of the plugin; may be repeated; lists are written as JSON or with commas
    #[arg(long = "parameter", short, value_name = "NAME=VALUE")]
    parameters: Vec<String>,

    /// Authorize with credentials from this Secret of the namespace
    #[arg(long, value_name = "SECRET", group = "method")]
    api_key_secret: Option<String>,

    /// Authorize by OAuth
    #[arg(long, group = "method")]
    oauth: bool,

    /// With --oauth: the Secret with the client; left out: the default client
    #[arg(long, value_name = "SECRET", requires = "oauth")]
    client_secret: Option<String>,

    /// Make the webhook by hand
    #[arg(long, group = "method")]
    manual: bool,

    /// With --manual: the Secret with the signing secret; left out: Bellhop makes one
    #[arg(long, value_name = "SECRET", requires = "manual")]
    secret: Option<String>,

    /// Apply the Subscription instead of printing its manifest
    #[arg(long)]
    apply: bool,

    /// How the manifest is printed; left out: as YAML, and with --apply the name alone
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    #[command(flatten)]
    access: Access,
}

/// What is known of the Subscription so far.
#[derive(Debug, Default, PartialEq)]
struct Draft {
    name: Option<String>,
    events: Option<Vec<String>>,
    parameters: Map<String, Value>,
    /// `spec.authorization`
    authorization: Option<Value>,
}

/// Prints or applies the Subscription.
///
/// # Errors
/// [`Exit::Usage`] if something is missing or wrong, [`Exit::NotFound`]; the API server refused.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let cluster = options.access.cluster().await?;
    let resource = cluster.get("TriggerPlugin", &options.plugin).await?;
    let resource: TriggerPlugin =
        resource.try_parse().with_context(|| format!("the TriggerPlugin {}", options.plugin))?;
    let plugin = Plugin::compile(&options.plugin, &resource.spec).map_err(|mistakes| {
        Exit::NotReady(format!("the TriggerPlugin {} has mistakes: {}", options.plugin, join(&mistakes)))
    })?;
    let parameters = Parameters::new(resource.spec.parameters.as_ref());
    let mut draft = options.draft(&parameters)?;
    let secrets = labelled_secrets(&cluster, &options.plugin).await;
    let attended = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let mut apply = options.apply;
    if attended && !draft.missing(&parameters).is_empty() {
        let facts = wizard::Facts {
            plugin: &plugin,
            resource: &resource,
            parameters: &parameters,
            secrets: &secrets,
            namespace: &cluster.namespace,
        };
        wizard::ask(&mut draft, &facts)?;
        let manifest = draft.manifest(&plugin, &parameters, &cluster.namespace)?;
        // Whoever writes it to a file wants the file.
        if !apply && std::io::stdout().is_terminal() {
            print(&document(Format::Yaml, &manifest, &[])?)?;
            apply = wizard::confirm_apply(&cluster.namespace)?;
            if !apply {
                return Ok(());
            }
        }
    }
    let manifest = draft.manifest(&plugin, &parameters, &cluster.namespace)?;
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    let names = [format!("subscription.{GROUP}/{name}")];
    if !apply {
        return Ok(print(&document(options.output.unwrap_or(Format::Yaml), &manifest, &names)?)?);
    }
    let params = PatchParams::apply(MANAGER);
    let applied = cluster.objects("Subscription").patch(name, &params, &Patch::Apply(&manifest)).await.map_err(told)?;
    match options.output {
        None => print(&format!("{} applied\n", names[0]))?,
        Some(format) => print(&document(format, &applied, &names)?)?,
    }
    eprint!("{}", next(&draft, &plugin, &secrets, &cluster.namespace));
    Ok(())
}

impl Options {
    fn draft(&self, parameters: &Parameters) -> anyhow::Result<Draft> {
        let named = |name: &Option<String>, field: &str| match name {
            Some(name) => json!({field: {"name": name}}),
            None => json!({}),
        };
        let authorization = match (&self.api_key_secret, self.oauth, self.manual) {
            (Some(secret), _, _) => Some(json!({"apiKey": {"secretRef": {"name": secret}}})),
            (_, true, _) => Some(json!({"oauth2": named(&self.client_secret, "clientSecretRef")})),
            (_, _, true) => Some(json!({"manual": named(&self.secret, "secretRef")})),
            _ => None,
        };
        let mut set = Map::new();
        for text in &self.parameters {
            let (name, value) = parameters.parse(text).map_err(Exit::Usage)?;
            if set.insert(name.clone(), value).is_some() {
                return Err(Exit::Usage(format!("--parameter {name} is given twice")).into());
            }
        }
        let events = (!self.events.is_empty()).then(|| self.events.clone());
        Ok(Draft { name: self.name.clone(), events, parameters: set, authorization })
    }
}

impl Draft {
    /// What a Subscription cannot do without, as the flags that give it.
    fn missing(&self, parameters: &Parameters) -> Vec<String> {
        let name = self.name.is_none().then(|| "--name NAME".to_owned());
        let unset = parameters.required().iter().filter(|name| !self.parameters.contains_key(*name));
        let method = "one of --api-key-secret SECRET, --oauth and --manual";
        let method = self.authorization.is_none().then(|| method.to_owned());
        name.into_iter().chain(unset.map(|name| format!("--parameter {name}=VALUE"))).chain(method).collect()
    }

    /// The finished Subscription.
    ///
    /// # Errors
    /// [`Exit::Usage`]: something is missing, or does not fit the plugin.
    fn manifest(&self, plugin: &Plugin, parameters: &Parameters, namespace: &str) -> anyhow::Result<Value> {
        let missing = self.missing(parameters);
        let (Some(name), Some(authorization), true) = (&self.name, &self.authorization, missing.is_empty()) else {
            return Err(Exit::Usage(format!("missing: {}", missing.join(", "))).into());
        };
        let method = authorization.as_object().and_then(|methods| methods.keys().next()).map_or("", String::as_str);
        if !plugin.offers().contains(&method) {
            let message = format!(
                "the plugin {} does not offer the method {method}; it offers {}",
                plugin.name(),
                plugin.offers().join(", ")
            );
            return Err(Exit::Usage(message).into());
        }
        plugin.check_parameters(&self.parameters).map_err(|mistakes| Exit::Usage(join(&mistakes)))?;
        plugin.pin_events(self.events.as_deref()).map_err(|mistake| Exit::Usage(mistake.to_string()))?;
        let mut spec = json!({"pluginRef": {"name": plugin.name()}, "authorization": authorization});
        if let Some(events) = &self.events {
            spec["events"] = json!(events);
        }
        if !self.parameters.is_empty() {
            spec["parameters"] = Value::Object(self.parameters.clone());
        }
        Ok(json!({
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": "Subscription",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }))
    }
}

/// What is to be done after a Subscription was applied.
fn next(draft: &Draft, plugin: &Plugin, secrets: &[String], namespace: &str) -> String {
    let name = draft.name.as_deref().unwrap_or_default();
    let authorization = draft.authorization.as_ref().unwrap_or(&Value::Null);
    if let Some(secret) = authorization["apiKey"]["secretRef"]["name"].as_str() {
        let is_there = secrets.iter().any(|name| name == secret);
        return if is_there { String::new() } else { make_secret(secret, plugin, namespace) };
    }
    if authorization["oauth2"].is_object() {
        return format!("Consent with: kubectl bellhop authorize {name} -n {namespace}\n");
    }
    format!(
        "Make the webhook with the URL and the secret that it names: \
         kubectl get subscription.{GROUP} {name} -n {namespace} -o yaml\n"
    )
}

/// How a Secret with credentials is made, for those who have not yet done it.
fn make_secret(name: &str, plugin: &Plugin, namespace: &str) -> String {
    let keys = plugin.credential_keys().iter().map(|key| format!(" --from-file={key}=FILE")).collect::<String>();
    format!(
        "It waits until there is the Secret {name}: kubectl create secret generic {name} -n {namespace}{keys} && \
         kubectl label secret {name} -n {namespace} {CREDENTIALS_FOR_LABEL}={}\n",
        plugin.name()
    )
}

/// Names of the Secrets that the plugin may use; none, where the user may not list Secrets.
async fn labelled_secrets(cluster: &Cluster, plugin: &str) -> Vec<String> {
    let api = Api::<PartialObjectMeta<Secret>>::namespaced(cluster.client.clone(), &cluster.namespace);
    let params = ListParams::default().labels(&format!("{CREDENTIALS_FOR_LABEL}={plugin}")).limit(100);
    let list = api.list_metadata(&params).await;
    list.map(|list| list.items.iter().map(|secret| clean(&secret.name_any())).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
