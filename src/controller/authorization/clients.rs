//! Which OAuth client a Subscription gets, and what is in its Secret.
//!
//! A Secret's metadata is read first: the content of one that does not say that it is for the plugin is never asked for.

use super::record::{AuthorizationRecord, PinnedClient};
use crate::api::{CREDENTIALS_FOR_LABEL, DEFAULT_CLIENT_ANNOTATION, OAuth2Authorization, reason, type_};
use crate::controller::labelled::{self, Labelled};
use crate::controller::{Blocked, Failure};
use crate::plugin::Plugin;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Keys of a Secret with an OAuth client.
const CLIENT_ID: &str = "clientID";
const CLIENT_SECRET: &str = "clientSecret";
/// Most Secrets for one plugin that are looked through for a workspace's default.
const MOST_SECRETS: u32 = 500;

/// Reads OAuth clients. Every read asks the API server.
#[derive(Clone)]
pub struct Clients {
    client: kube::Client,
    namespace: String,
}

/// What is in a client's Secret.
struct Content {
    id: String,
    secret: String,
}

impl Clients {
    /// The plugins' default clients are in `namespace`, Bellhop's own.
    pub fn new(client: kube::Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    /// Chooses the client of a Subscription: the one that it names, else the workspace's default for the plugin, else the
    /// plugin's default, if the parameters lead to one of its origins.
    ///
    /// # Errors
    /// [`Failure::Blocked`] says which client is missing and how to add it, or what is wrong with its Secret; the API
    /// server failed.
    pub async fn choose(
        &self,
        workspace: &str,
        wanted: &OAuth2Authorization,
        parameters: &Map<String, Value>,
        plugin: &Plugin,
    ) -> Result<AuthorizationRecord, Failure> {
        let client = if let Some(named) = &wanted.client_secret_ref {
            PinnedClient::Named { secret: named.name.clone() }
        } else if let Some(secret) = self.workspace_default(workspace, plugin).await? {
            PinnedClient::WorkspaceDefault { secret }
        } else if plugin.oauth2().is_some_and(|oauth2| oauth2.default_client.is_some()) {
            PinnedClient::PluginDefault
        } else {
            let message = format!(
                "spec.authorization.oauth2: there is no OAuth client for the plugin \"{0}\": {1}, or ask the \
                 administrator for a default client of the plugin",
                plugin.name(),
                how_to_add(workspace, plugin)
            );
            return Err(Blocked::waiting(type_::ACCEPTED, reason::CLIENT_NOT_FOUND, message).into());
        };
        let Content { id, secret } = self.content(&client, workspace, parameters, plugin).await?;
        let client = Some(client);
        Ok(AuthorizationRecord { client, client_id: id, client_secret: secret, ..AuthorizationRecord::default() })
    }

    /// Reads the pinned client again, because its secret may have been replaced, and puts it into the record. What cannot
    /// be read any more is used as it was read last: deletion has to go on without the workspace.
    ///
    /// # Errors
    /// [`Failure::Blocked`] if the client may not be used with these parameters any more; the API server failed.
    pub async fn read_again(
        &self,
        record: &mut AuthorizationRecord,
        workspace: &str,
        parameters: &Map<String, Value>,
        plugin: &Plugin,
    ) -> Result<(), Failure> {
        let Some(client) = &record.client else { return Ok(()) };
        match self.content(client, workspace, parameters, plugin).await {
            Ok(Content { id, secret }) => (record.client_id, record.client_secret) = (id, secret),
            Err(Failure::Blocked(blocked)) if blocked.reason != reason::CLIENT_NOT_ALLOWED => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    async fn content(
        &self,
        client: &PinnedClient,
        workspace: &str,
        parameters: &Map<String, Value>,
        plugin: &Plugin,
    ) -> Result<Content, Failure> {
        match client {
            PinnedClient::Named { secret } => {
                self.read("spec.authorization.oauth2.clientSecretRef.name", workspace, secret, plugin).await
            }
            PinnedClient::WorkspaceDefault { secret } => {
                self.read("the workspace's default OAuth client", workspace, secret, plugin).await
            }
            PinnedClient::PluginDefault => {
                let default = plugin.oauth2().and_then(|oauth2| oauth2.default_client.as_ref());
                let Some(default) = default else {
                    let message = format!("the plugin \"{}\" has no default OAuth client any more", plugin.name());
                    return Err(Blocked::waiting(type_::ACCEPTED, reason::CLIENT_NOT_FOUND, message).into());
                };
                // A user chooses the parameters, and must not be able to have the client's secret sent elsewhere.
                let allowed = plugin.default_client_allowed(parameters).map_err(|error| {
                    Blocked::stalled(type_::ACCEPTED, reason::CLIENT_NOT_ALLOWED, format!("spec.parameters: {error}"))
                })?;
                if !allowed {
                    let message = format!(
                        "spec.parameters: the default OAuth client of the plugin \"{}\" may be used with {} only; for another \
                         system, {}",
                        plugin.name(),
                        default.origins.join(", "),
                        how_to_add(workspace, plugin)
                    );
                    return Err(Blocked::waiting(type_::ACCEPTED, reason::CLIENT_NOT_ALLOWED, message).into());
                }
                let field = format!(
                    "TriggerPlugin \"{}\": spec.authorization.oauth2.defaultClient.secretRef.name",
                    plugin.name()
                );
                self.read(&field, &self.namespace, &default.secret_ref.name, plugin).await
            }
        }
    }

    /// The name of the Secret that is marked as the workspace's default for the plugin.
    async fn workspace_default(&self, workspace: &str, plugin: &Plugin) -> Result<Option<String>, Failure> {
        let api = Api::<Secret>::namespaced(self.client.clone(), workspace);
        let params =
            ListParams::default().labels(&format!("{CREDENTIALS_FOR_LABEL}={}", plugin.name())).limit(MOST_SECRETS);
        let found = api.list_metadata(&params).await?;
        let is_default = |annotations: &BTreeMap<String, String>| {
            annotations.get(DEFAULT_CLIENT_ANNOTATION).is_some_and(|value| value == "true")
        };
        let mut defaults: Vec<_> = found
            .items
            .iter()
            .filter(|secret| is_default(secret.annotations()))
            .map(|secret| secret.name_any())
            .collect();
        defaults.sort();
        if defaults.len() > 1 {
            let message = format!(
                "spec.authorization.oauth2: the namespace {workspace} has several default OAuth clients for the plugin \
                 \"{}\": the Secrets {}; leave the annotation {DEFAULT_CLIENT_ANNOTATION} on one of them",
                plugin.name(),
                defaults.join(", ")
            );
            return Err(Blocked::waiting(type_::ACCEPTED, reason::CLIENT_AMBIGUOUS, message).into());
        }
        Ok(defaults.pop())
    }

    /// Reads one Secret. `field` is what names it, for people.
    async fn read(&self, field: &str, namespace: &str, name: &str, plugin: &Plugin) -> Result<Content, Failure> {
        let blocked = |reason, message| Err(Blocked::waiting(type_::ACCEPTED, reason, message).into());
        let content = match labelled::read(&self.client, namespace, name, plugin.name()).await? {
            Labelled::Content(content) => content,
            Labelled::Missing => {
                let message = format!("{field}: there is no Secret \"{name}\" in the namespace {namespace}");
                return blocked(reason::SECRET_NOT_FOUND, message);
            }
            Labelled::ForOthers => {
                let message = format!(
                    "{field}: the Secret \"{name}\" in the namespace {namespace} is not meant for this plugin; add the label \
                     {CREDENTIALS_FOR_LABEL}={} to it",
                    plugin.name()
                );
                return blocked(reason::SECRET_NOT_LABELLED, message);
            }
        };
        match (content.text(CLIENT_ID), content.text(CLIENT_SECRET)) {
            (Some(id), Some(secret)) => Ok(Content { id, secret }),
            (id, secret) => {
                let missing: Vec<_> = [(CLIENT_ID, id), (CLIENT_SECRET, secret)]
                    .into_iter()
                    .filter_map(|(key, value)| value.is_none().then(|| format!("`{key}`")))
                    .collect();
                let message = format!(
                    "{field}: the Secret \"{name}\" in the namespace {namespace} must have text under {}; it has {}",
                    missing.join(" and "),
                    content.keys()
                );
                blocked(reason::SECRET_KEY_MISSING, message)
            }
        }
    }
}

fn how_to_add(workspace: &str, plugin: &Plugin) -> String {
    format!(
        "register one in the external system with the redirect URL that `kubectl get triggerplugin {0} -o \
         jsonpath='{{.status.oauthRedirectURL}}'` shows, and store it in the namespace {workspace} as a Secret with \
         {CLIENT_ID}, {CLIENT_SECRET}, the label {CREDENTIALS_FOR_LABEL}={0} and the annotation \
         {DEFAULT_CLIENT_ANNOTATION}=true",
        plugin.name()
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ApiServer, plugin};
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    const GOOD: &[(&str, &str)] = &[("clientID", " an-id\n"), ("clientSecret", "a-secret")];

    fn default_client() -> Value {
        json!({"defaultClient": {"secretRef": {"name": "forge-oauth"}, "origins": ["https://git.example.com"]}})
    }

    async fn choose(
        server: &Arc<ApiServer>,
        named: Option<&str>,
        base_url: &str,
        oauth2: &Value,
    ) -> Result<AuthorizationRecord, Blocked> {
        let wanted =
            OAuth2Authorization { client_secret_ref: named.map(|name| crate::api::NameRef { name: name.into() }) };
        let Value::Object(parameters) = json!({"baseURL": base_url}) else { unreachable!() };
        let clients = Clients::new(server.client(), "bellhop-system");
        match clients.choose("team-a", &wanted, &parameters, &plugin(oauth2)).await {
            Ok(record) => Ok(record),
            Err(Failure::Blocked(blocked)) => Err(*blocked),
            Err(failure) => panic!("{failure}"),
        }
    }

    #[tokio::test]
    async fn the_named_one_then_the_workspaces_then_the_plugins() {
        let server = Arc::new(ApiServer::default());
        let base = "https://git.example.com";
        let chosen = async |named| choose(&server, named, base, &default_client()).await.unwrap();
        server.secret("bellhop-system", "forge-oauth", "forge", false, GOOD);
        let record = chosen(None).await;
        assert_eq!((record.client, record.client_id.as_str()), (Some(PinnedClient::PluginDefault), "an-id"));
        assert_eq!(record.client_secret, "a-secret");
        // One for the same plugin that is not marked, and a marked one for another plugin, change nothing.
        server.secret("team-a", "mine", "forge", false, GOOD);
        server.secret("team-a", "others", "github", true, GOOD);
        assert_eq!(chosen(None).await.client, Some(PinnedClient::PluginDefault));
        server.secret("team-a", "ours", "forge", true, GOOD);
        assert_eq!(chosen(None).await.client, Some(PinnedClient::WorkspaceDefault { secret: "ours".into() }));
        assert_eq!(chosen(Some("mine")).await.client, Some(PinnedClient::Named { secret: "mine".into() }));
    }

    #[tokio::test]
    async fn two_defaults_are_both_named() {
        let server = Arc::new(ApiServer::default());
        for name in ["b", "a"] {
            server.secret("team-a", name, "forge", true, GOOD);
        }
        let blocked = choose(&server, None, "https://git.example.com", &default_client()).await.unwrap_err();
        assert_eq!((blocked.condition, blocked.reason), (type_::ACCEPTED, reason::CLIENT_AMBIGUOUS));
        assert!(blocked.message.contains("the Secrets a, b;"), "{}", blocked.message);
    }

    #[tokio::test]
    async fn without_a_client_it_is_said_how_to_add_one() {
        let server = Arc::new(ApiServer::default());
        let blocked = choose(&server, None, "https://git.example.com", &json!({})).await.unwrap_err();
        assert_eq!((blocked.condition, blocked.reason), (type_::ACCEPTED, reason::CLIENT_NOT_FOUND));
        for told in ["oauthRedirectURL", "namespace team-a", "credentials-for=forge", "is-default-client=true"] {
            assert!(blocked.message.contains(told), "{}", blocked.message);
        }
    }

    #[tokio::test]
    async fn a_default_client_stays_where_the_administrator_has_put_it() {
        let server = Arc::new(ApiServer::default());
        server.secret("bellhop-system", "forge-oauth", "forge", false, GOOD);
        for elsewhere in ["https://evil.example.com", "http://git.example.com", "https://git.example.com:8443"] {
            let blocked = choose(&server, None, elsewhere, &default_client()).await.unwrap_err();
            assert_eq!(blocked.reason, reason::CLIENT_NOT_ALLOWED, "{elsewhere}");
            assert!(blocked.message.contains("https://git.example.com only"), "{}", blocked.message);
        }
        assert!(server.read.lock().unwrap().is_empty(), "its Secret was not even read");
        // A client of the user's own may be sent wherever the user says.
        server.secret("team-a", "mine", "forge", false, GOOD);
        choose(&server, Some("mine"), "https://evil.example.com", &default_client()).await.unwrap();
        // Also one that was pinned is not sent where it may not go any more.
        let Value::Object(parameters) = json!({"baseURL": "https://evil.example.com"}) else { unreachable!() };
        let client = Some(PinnedClient::PluginDefault);
        let mut record = AuthorizationRecord { client, client_id: "old".into(), ..AuthorizationRecord::default() };
        let clients = Clients::new(server.client(), "bellhop-system");
        let failure = clients.read_again(&mut record, "team-a", &parameters, &plugin(&default_client())).await;
        let Err(Failure::Blocked(blocked)) = failure else { panic!("{failure:?}") };
        assert_eq!(blocked.reason, reason::CLIENT_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_secret_is_said_and_a_foreign_one_is_not_read() {
        let server = Arc::new(ApiServer::default());
        server.secret("team-a", "unlabelled", "", false, GOOD);
        server.secret("team-a", "others", "github", false, GOOD);
        for (name, reason, told) in [
            ("absent", reason::SECRET_NOT_FOUND, "there is no Secret \"absent\" in the namespace team-a"),
            ("unlabelled", reason::SECRET_NOT_LABELLED, "bellhop.dev/credentials-for=forge"),
            ("others", reason::SECRET_NOT_LABELLED, "bellhop.dev/credentials-for=forge"),
        ] {
            let blocked = choose(&server, Some(name), "https://x.example.com", &json!({})).await.unwrap_err();
            assert_eq!(blocked.reason, reason);
            assert!(blocked.message.starts_with("spec.authorization.oauth2.clientSecretRef.name: "));
            assert!(blocked.message.contains(told), "{}", blocked.message);
        }
        assert!(server.read.lock().unwrap().is_empty());
        server.secret(
            "team-a",
            "bad",
            "forge",
            false,
            &[("clientID", "x"), ("clientsecret", "y"), ("clientSecret", " ")],
        );
        let blocked = choose(&server, Some("bad"), "https://x.example.com", &json!({})).await.unwrap_err();
        assert_eq!(blocked.reason, reason::SECRET_KEY_MISSING);
        assert!(
            blocked.message.ends_with("under `clientSecret`; it has the keys clientID, clientSecret, clientsecret")
        );
    }
}
