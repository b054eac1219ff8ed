//! Carries out the steps of a Subscription. Each ends with what was done being stored.

use super::calls::NotCreated;
use super::{Blocked, calls};
use crate::api::{CREDENTIALS_FOR_LABEL, Subscription, reason, type_};
use crate::controller::custody::{Custody, Stored, WebhookState};
use crate::controller::slots::{self, Decision, Waiting, decide};
use crate::controller::{Context, Failure, installation, uid_of};
use crate::plugin::Plugin;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;

/// Reads the Secret that the Subscription names.
///
/// The Secret's metadata is read first: the content of one that is not meant for this plugin is never asked for.
///
/// # Errors
/// [`Failure::Blocked`] says what is wrong with the Secret; the API server failed.
pub async fn read_credentials(
    context: &Context,
    namespace: &str,
    secret_name: &str,
    plugin: &Plugin,
) -> Result<BTreeMap<String, String>, Failure> {
    let blocked = |reason, message| Err(Blocked::waiting(type_::AUTHORIZED, reason, message).into());
    let field = "spec.authorization.apiKey.secretRef.name";
    let api = Api::<Secret>::namespaced(context.client.clone(), namespace);
    let is_for_plugin = |labels: &BTreeMap<String, String>| {
        labels.get(CREDENTIALS_FOR_LABEL).is_some_and(|value| value == plugin.name())
    };
    let Some(metadata) = api.get_metadata_opt(secret_name).await? else {
        let message = format!("{field}: there is no Secret \"{secret_name}\" in the namespace {namespace}");
        return blocked(reason::SECRET_NOT_FOUND, message);
    };
    let secret = if is_for_plugin(metadata.labels()) { api.get_opt(secret_name).await? } else { None };
    let Some(secret) = secret.filter(|secret| is_for_plugin(secret.labels())) else {
        let message = format!(
            "{field}: the Secret \"{secret_name}\" is not meant for this plugin; \
             add the label {CREDENTIALS_FOR_LABEL}={} to it",
            plugin.name()
        );
        return blocked(reason::SECRET_NOT_LABELLED, message);
    };
    let data = secret.data.unwrap_or_default();
    let mut credentials = BTreeMap::new();
    for key in plugin.credential_keys() {
        let value = data.get(key).and_then(|value| std::str::from_utf8(&value.0).ok()).map(str::trim);
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            let found = match data.len() {
                0 => "no keys".to_owned(),
                _ => format!("the keys {}", data.keys().cloned().collect::<Vec<_>>().join(", ")),
            };
            let message =
                format!("{field}: the Secret \"{secret_name}\" must have text under the key `{key}`; it has {found}");
            return blocked(reason::SECRET_KEY_MISSING, message);
        };
        credentials.insert(key.clone(), value.to_owned());
    }
    Ok(credentials)
}

/// Takes a slot and stores the custody.
///
/// # Errors
/// [`Failure::Blocked`] if the cap is reached; [`Failure::Conflict`] if others took slots at the same moment.
pub async fn accept(
    context: &Context,
    subscription: &Subscription,
    plugin: &str,
    events: Vec<String>,
) -> Result<Stored, Failure> {
    let (namespace, uid) = (subscription.namespace().unwrap_or_default(), uid_of(subscription)?);
    {
        // Within one process, one after the other, so that eleven at once do not run into eleven conflicts.
        let _turn = context.accepting.lock().await;
        let mut ledger = context.ledgers.get(&namespace, plugin).await?;
        let waiting = waiting(context, &namespace, plugin).await?;
        let cap = context.options.max_subscriptions;
        match decide(ledger.holders.keys(), &waiting, cap, uid) {
            Decision::Held => {}
            Decision::Take => {
                ledger.holders.insert(uid, subscription.name_any());
                context.ledgers.put(&namespace, plugin, &ledger).await?;
            }
            Decision::Full => {
                let names = ledger.holders.values().map(String::as_str);
                let message = format!(
                    "{}; this one is accepted when one of them is deleted",
                    slots::taken(cap, plugin, &namespace, names)
                );
                return Err(Blocked::stalled(type_::ACCEPTED, reason::QUOTA_EXCEEDED, message).into());
            }
        }
    }
    let name = subscription.name_any();
    let custody = Custody {
        uid,
        token: context.key.token(&namespace, &name, plugin),
        namespace,
        name,
        accepted: subscription.spec.clone(),
        events,
        callback_secret: installation::random_secret(),
        credentials: BTreeMap::new(),
        account: None,
        webhook: WebhookState::None,
        authorization: Default::default(),
    };
    context.vault.create(custody).await
}

/// The Subscriptions of this plugin and namespace, as the API server lists them now, that may want a slot.
async fn waiting(context: &Context, namespace: &str, plugin: &str) -> Result<Vec<Waiting>, Failure> {
    let api = Api::<Subscription>::namespaced(context.client.clone(), namespace);
    let list = api.list(&ListParams::default().fields(&format!("spec.pluginRef.name={plugin}"))).await?;
    Ok(list.items.iter().filter(|other| wants_slot(other)).filter_map(rank).collect())
}

/// Whether a Subscription holds a slot or may get one. One that is refused for another reason than the cap does not hold up those behind it.
pub fn wants_slot(subscription: &Subscription) -> bool {
    let accepted = subscription.status.as_ref().and_then(|status| {
        status.conditions.iter().find(|condition| condition.type_ == type_::ACCEPTED && condition.status == "False")
    });
    subscription.metadata.deletion_timestamp.is_none()
        && accepted.is_none_or(|condition| condition.reason == reason::QUOTA_EXCEEDED)
}

fn rank(subscription: &Subscription) -> Option<Waiting> {
    let created = subscription.metadata.creation_timestamp.as_ref()?.0.as_second();
    Some(Waiting { created, uid: uid_of(subscription).ok()? })
}

/// Publishes the route and waits until every ready replica of the ingress serves it.
///
/// # Errors
/// [`Failure::Blocked`] if one does not serve it within ten seconds; the API server failed.
pub async fn publish(context: &Context, custody: &Custody) -> Result<(), Failure> {
    let route = calls::route(custody);
    let namespace = &context.common.ingress_namespace;
    let api = Api::<Secret>::namespaced(context.client.clone(), namespace);
    let secret = route.to_secret(namespace);
    let params = PatchParams::apply(super::FIELD_MANAGER).force();
    api.patch(&secret.name_any(), &params, &Patch::Apply(&secret)).await?;
    let confirmed = context.replicas.confirmed(&route).await;
    confirmed.map_err(|why| Blocked::retrying(type_::READY, reason::ROUTE_NOT_LIVE, why).into())
}

/// Asks the external system whether the credentials are good, and stores them as confirmed.
///
/// # Errors
/// [`Failure::Blocked`] with the external system's own words if they are not.
pub async fn authorize(
    context: &Context,
    plugin: &Plugin,
    stored: &Stored,
    credentials: BTreeMap<String, String>,
) -> Result<Stored, Failure> {
    let mut custody = stored.custody.clone();
    custody.credentials = credentials;
    custody.account = calls::verify(context, plugin, &custody).await?;
    context.vault.replace(stored, custody).await
}

/// Makes sure that exactly one webhook with the callback URL exists, and that it has the callback secret.
///
/// # Errors
/// [`Failure::Blocked`] with the external system's own words.
pub async fn register(context: &Context, plugin: &Plugin, stored: &Stored) -> Result<Stored, Failure> {
    let found = calls::find(context, plugin, &stored.custody, type_::WEBHOOK_REGISTERED).await?;
    if found.is_none() && stored.custody.webhook == WebhookState::Creating {
        return Err(Blocked::stalled(
            type_::WEBHOOK_REGISTERED,
            reason::CREATE_UNCONFIRMED,
            "create: a call was made and its answer is not known, and the plugin cannot list webhooks; look for one with \
             this callback URL in the external system and remove it, then delete this Subscription and create it anew",
        )
        .into());
    }
    let mut found = found.into_iter().flatten();
    let Some(id) = found.next() else { return create(context, plugin, stored).await };

    // More than one can only come from races that Bellhop did not win; the callback URL is nobody else's.
    for superfluous in found {
        calls::delete(context, plugin, &stored.custody, &superfluous).await?;
    }
    // In the state Creating nothing was found before the call, so what is found now came from it and has the secret.
    if stored.custody.webhook != WebhookState::Creating && !calls::update(context, plugin, &stored.custody, &id).await?
    {
        calls::delete(context, plugin, &stored.custody, &id).await?;
        return create(context, plugin, stored).await;
    }
    registered(context, stored, id).await
}

async fn create(context: &Context, plugin: &Plugin, stored: &Stored) -> Result<Stored, Failure> {
    let mut custody = stored.custody.clone();
    custody.webhook = WebhookState::Creating;
    let stored = context.vault.replace(stored, custody).await?;
    match calls::create(context, plugin, &stored.custody).await {
        Ok(id) => registered(context, &stored, id).await,
        Err(NotCreated::Perhaps(failure)) => Err(failure),
        Err(NotCreated::Certainly(failure)) => {
            let mut custody = stored.custody.clone();
            custody.webhook = WebhookState::None;
            context.vault.replace(&stored, custody).await?;
            Err(failure)
        }
    }
}

async fn registered(context: &Context, stored: &Stored, id: String) -> Result<Stored, Failure> {
    let mut custody = stored.custody.clone();
    custody.webhook = WebhookState::Registered { id };
    context.vault.replace(stored, custody).await
}
