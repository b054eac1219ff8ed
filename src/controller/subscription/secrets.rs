//! Secrets of the workspace: credentials and signing secrets that a user has put there, and those that Bellhop puts there.

use super::Blocked;
use super::plan::Given;
use crate::api::{CREDENTIALS_FOR_LABEL, Subscription, reason, type_};
use crate::controller::custody::{Custody, SecretOrigin};
use crate::controller::labelled::{self, Labelled};
use crate::controller::{Context, Failure};
use crate::plugin::Plugin;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Resource, ResourceExt};
use std::collections::BTreeMap;

/// Key of a signing secret, in Secrets of users and of Bellhop.
const KEY: &str = "secret";

/// Reads the Secret that a Subscription names; nothing if it names none.
///
/// # Errors
/// The API server failed.
pub async fn given(context: &Context, subscription: &Subscription, plugin: &Plugin) -> Result<Option<Given>, Failure> {
    let authorization = &subscription.spec.authorization;
    let namespace = subscription.namespace().unwrap_or_default();
    let read = if let Some(method) = &authorization.api_key {
        read_credentials(context, &namespace, &method.secret_ref.name, plugin).await
    } else if let Some(secret) = authorization.manual.as_ref().and_then(|manual| manual.secret_ref.as_ref()) {
        let named = Named { field: "spec.authorization.manual.secretRef.name", condition: type_::READY };
        named.read(context, &namespace, &secret.name, plugin.name(), &[KEY.to_owned()]).await
    } else {
        return Ok(None);
    };
    match read {
        Ok(values) => Ok(Some(Ok(values))),
        Err(Failure::Blocked(blocked)) => Ok(Some(Err(*blocked))),
        Err(failure) => Err(failure),
    }
}

/// Reads the Secret with credentials that a Subscription names.
///
/// # Errors
/// [`Failure::Blocked`] says what is wrong with the Secret; the API server failed.
pub async fn read_credentials(
    context: &Context,
    namespace: &str,
    secret_name: &str,
    plugin: &Plugin,
) -> Result<BTreeMap<String, String>, Failure> {
    let named = Named { field: "spec.authorization.apiKey.secretRef.name", condition: type_::AUTHORIZED };
    named.read(context, namespace, secret_name, plugin.name(), plugin.credential_keys()).await
}

/// A Secret that a field names.
struct Named {
    field: &'static str,
    condition: &'static str,
}

impl Named {
    /// Reads these keys.
    async fn read(
        &self,
        context: &Context,
        namespace: &str,
        secret_name: &str,
        plugin: &str,
        keys: &[String],
    ) -> Result<BTreeMap<String, String>, Failure> {
        let field = self.field;
        let blocked = |reason, message| Err(Blocked::waiting(self.condition, reason, message).into());
        let content = match labelled::read(&context.client, namespace, secret_name, plugin).await? {
            Labelled::Content(content) => content,
            Labelled::Missing => {
                let message = format!("{field}: there is no Secret \"{secret_name}\" in the namespace {namespace}");
                return blocked(reason::SECRET_NOT_FOUND, message);
            }
            Labelled::ForOthers => {
                let message = format!(
                    "{field}: the Secret \"{secret_name}\" is not meant for this plugin; \
                     add the label {CREDENTIALS_FOR_LABEL}={plugin} to it"
                );
                return blocked(reason::SECRET_NOT_LABELLED, message);
            }
        };
        let mut values = BTreeMap::new();
        for key in keys {
            let Some(value) = content.text(key) else {
                let message = format!(
                    "{field}: the Secret \"{secret_name}\" must have text under the key `{key}`; it has {}",
                    content.keys()
                );
                return blocked(reason::SECRET_KEY_MISSING, message);
            };
            values.insert(key.clone(), value);
        }
        Ok(values)
    }
}

/// Name of the Secret with the signing secret for the person who makes the webhook by hand; nothing if there is none,
/// because the secret is the user's own, or the external system has still to tell it. One that it has told is shown too:
/// Notion wants it back, typed by a person.
pub fn handed_over_name(custody: &Custody) -> Option<String> {
    let by_hand = custody.accepted.authorization.manual.is_some();
    let has_one = match custody.secret_origin {
        SecretOrigin::Generated => true,
        SecretOrigin::External => !custody.callback_secret.is_empty(),
        _ => false,
    };
    if !by_hand || !has_one {
        return None;
    }
    let name = format!("{}-callback-secret", custody.name);
    // A name has 253 characters at most.
    Some(if name.len() <= 253 { name } else { format!("callback-secret-{}", custody.uid) })
}

/// Whether the Secret of the workspace holds the callback secret.
///
/// # Errors
/// The API server failed.
pub async fn is_handed_over(context: &Context, custody: &Custody) -> Result<bool, Failure> {
    let Some(name) = handed_over_name(custody) else { return Ok(true) };
    let api = Api::<Secret>::namespaced(context.client.clone(), &custody.namespace);
    if !api.get_metadata_opt(&name).await?.is_some_and(|secret| belongs_to(&secret, custody)) {
        return Ok(false);
    }
    let secret = api.get_opt(&name).await?.filter(|secret| belongs_to(secret, custody));
    let value = secret.and_then(|secret| secret.data?.remove(KEY));
    Ok(value.is_some_and(|value| value.0 == custody.callback_secret.as_bytes()))
}

/// Puts the callback secret into a Secret of the workspace, which goes with the Subscription.
///
/// It has the label of credentials, so that it is noticed when somebody changes or deletes it.
///
/// # Errors
/// [`Failure::Blocked`] if there is a Secret with this name that is somebody else's; the API server failed.
pub async fn hand_over(context: &Context, subscription: &Subscription, custody: &Custody) -> Result<(), Failure> {
    let Some(name) = handed_over_name(custody) else { return Ok(()) };
    let api = Api::<Secret>::namespaced(context.client.clone(), &custody.namespace);
    let plugin = custody.accepted.plugin_ref.name.clone();
    let mut secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(BTreeMap::from([(CREDENTIALS_FOR_LABEL.to_owned(), plugin)])),
            owner_references: Some(subscription.owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(custody.callback_secret.clone().into_bytes()))])),
        ..Secret::default()
    };
    let existing = api.get_metadata_opt(&name).await?;
    match existing {
        None => {
            api.create(&PostParams::default(), &secret).await?;
        }
        Some(existing) if belongs_to(&existing, custody) => {
            secret.metadata.resource_version = existing.metadata.resource_version;
            api.replace(&name, &PostParams::default(), &secret).await?;
        }
        Some(_) => {
            let message = format!(
                "the Secret \"{name}\" exists and does not belong to this Subscription; delete it, or give it another \
                 name, because the signing secret has to go there"
            );
            return Err(Blocked::waiting(type_::READY, reason::SECRET_EXISTS, message).into());
        }
    }
    Ok(())
}

fn belongs_to<K: Resource>(object: &K, custody: &Custody) -> bool {
    let uid = custody.uid.to_string();
    object.meta().owner_references.iter().flatten().any(|owner| owner.uid == uid)
}
