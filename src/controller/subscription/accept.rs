//! Takes a Subscription in: a slot, its custody, its route.

use super::calls::{self, Calls};
use super::desk::Desk;
use super::{Blocked, oauth};
use crate::api::{ROTATE_ANNOTATION, Subscription, reason, type_};
use crate::controller::custody::{Custody, SecretOrigin, Stored};
use crate::controller::slots::{self, Decision, Waiting, decide};
use crate::controller::{Context, Failure, installation, uid_of};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Takes a slot and stores the custody.
///
/// # Errors
/// [`Failure::Blocked`] if the cap is reached, or there is no OAuth client; [`Failure::Conflict`] if others took slots at
/// the same moment.
pub async fn accept(
    desk: &Desk<'_>,
    subscription: &Subscription,
    events: Vec<String>,
    origin: SecretOrigin,
) -> Result<Stored, Failure> {
    let (context, plugin) = (desk.context, desk.plugin.name());
    let (namespace, uid) = (subscription.namespace().unwrap_or_default(), uid_of(subscription)?);
    let authorization = oauth::choose_client(desk, subscription).await?;
    {
        let _turn = context.accepting.wait(&namespace, plugin).await;
        let mut ledger = context.ledgers.get(&namespace, plugin).await?;
        let cap = context.options.max_subscriptions;
        let decide = |waiting: &[Waiting]| decide(ledger.holders.keys(), waiting, cap, uid);
        let mut decision = decide(&known(context, &namespace, plugin, uid));
        if decision == Decision::Full {
            // What is known may be behind, and nobody comes back to one that is refused because of others that are gone.
            decision = decide(&listed(context, &namespace, plugin, uid).await?);
        }
        match decision {
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
        callback_secret: match origin {
            SecretOrigin::Generated | SecretOrigin::NotNeeded => installation::random_secret(),
            SecretOrigin::Given | SecretOrigin::External => String::new(),
        },
        secret_origin: origin,
        secret_version: 0,
        previous_secrets: Vec::new(),
        // The secret is new already.
        rotated: subscription.annotations().get(ROTATE_ANNOTATION).cloned(),
        credentials: BTreeMap::new(),
        account: None,
        authorization,
        verified: None,
        setup: BTreeMap::new(),
        prepared: 0,
        webhooks: Vec::new(),
        repaired: None,
    };
    context.vault.create(custody).await
}

/// The Subscriptions of this plugin and namespace that may want a slot, as the watch has shown them.
///
/// All that were created before the one that asks are among them: a watch tells of them in this order. Who holds a slot
/// stands in the ledger alone.
fn known(context: &Context, namespace: &str, plugin: &str, me: Uuid) -> Vec<Waiting> {
    let of_plugin = |other: &Subscription| other.spec.plugin_ref.name == plugin;
    let others = context.subscriptions.of_namespace(namespace, of_plugin);
    waiting(others.iter().map(|other| &**other), me)
}

/// The same as the API server lists them now, which costs it and this process as much as all of them are large.
async fn listed(context: &Context, namespace: &str, plugin: &str, me: Uuid) -> Result<Vec<Waiting>, Failure> {
    let api = Api::<Subscription>::namespaced(context.client.clone(), namespace);
    let list = api.list(&ListParams::default().fields(&format!("spec.pluginRef.name={plugin}"))).await?;
    Ok(waiting(list.items.iter(), me))
}

fn waiting<'a>(subscriptions: impl Iterator<Item = &'a Subscription>, me: Uuid) -> Vec<Waiting> {
    // What was in the way of the one that asks is so no longer, whatever its status says.
    let is_me = |other: &&Subscription| uid_of(*other).is_ok_and(|uid| uid == me);
    subscriptions.filter(|other| is_me(other) || wants_slot(other)).filter_map(rank).collect()
}

/// Whether a Subscription holds a slot or may get one. One that is refused for another reason than the cap does not hold
/// up those behind it.
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
    let route = calls::route(context, custody);
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
    desk: &Desk<'_>,
    stored: &Stored,
    credentials: &BTreeMap<String, String>,
) -> Result<Stored, Failure> {
    let tried = Custody { credentials: credentials.clone(), ..stored.custody.clone() };
    let account = Calls::new(desk, &tried, type_::AUTHORIZED).verify().await?;
    let store = |custody: &mut Custody| {
        custody.credentials.clone_from(credentials);
        custody.account.clone_from(&account);
    };
    desk.context.vault.record(stored, store).await
}
