//! Public keys that tokens are verified with: fetched here and published for the ingress, which calls nobody because somebody
//! has sent it a token.
//!
//! What is fetched are the JWK Sets that TriggerPlugins name, and nothing else. `plan.rs` says when.

mod plan;
mod troubles;

use super::activity::Desk;
use super::{Context, Failure, PluginState, ignore_not_found};
use crate::api::PublishedKeys;
use crate::external::BudgetKey;
use crate::plugin::{HttpCall, KeySet};
use futures::StreamExt;
use http::{HeaderMap, Method};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use plan::Place;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;
pub(super) use troubles::{Trouble, Troubles};

/// Field manager of what is written here.
const FIELD_MANAGER: &str = "bellhop-public-keys";
/// How often it is looked whether something has to be fetched.
const TICK: Duration = Duration::from_secs(1);
/// Calls at the same time.
const AT_ONCE: usize = 8;
/// How often keys that no plugin needs any more are looked for.
const SWEEP: Duration = Duration::from_secs(300);

/// Why keys are not published.
#[derive(Debug, thiserror::Error)]
enum Unfetched {
    #[error(transparent)]
    Call(#[from] crate::external::CallFailure),
    #[error("what is there {0}")]
    NotKeys(String),
    #[error(transparent)]
    Unwritten(#[from] Failure),
}

/// Fetches and publishes keys, for ever; to stop it, drop it.
pub async fn run(context: &Context, desk: &Desk) {
    let api = Api::<Secret>::namespaced(context.client.clone(), &context.common.ingress_namespace);
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    let mut swept: Option<Instant> = None;
    loop {
        let wanted = wanted(context);
        let before = places.len();
        places.retain(|url, _| wanted.contains_key(url));
        context.key_troubles.retain(|url| wanted.contains_key(url));
        if swept.is_none_or(|swept| swept.elapsed() >= SWEEP) || places.len() < before {
            sweep(&api, &wanted).await;
            swept = Some(Instant::now());
        }
        for missed in desk.take_missed_keys() {
            if let Some(place) = places.get_mut(&missed) {
                place.miss();
            }
        }
        let now = Instant::now();
        let due = wanted.iter().filter(|(url, _)| places.entry((*url).clone()).or_default().is_due(now));
        let due: Vec<_> = due.collect();
        let fetched = futures::stream::iter(due).map(async |(url, plugin)| {
            let fetched = fetch(context, &api, url, plugin).await;
            (url, plugin, fetched)
        });
        // One that does not answer must not hold up the others.
        let mut fetched = std::pin::pin!(fetched.buffer_unordered(AT_ONCE));
        while let Some((url, plugin, fetched)) = fetched.next().await {
            context.key_troubles.set(url, trouble(&api, url, fetched.as_ref().err()).await);
            if let Some(place) = places.get_mut(url) {
                note(place, url, plugin, fetched);
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

/// The places that plugins name, each with one of the plugins.
fn wanted(context: &Context) -> BTreeMap<String, String> {
    let mut wanted = BTreeMap::new();
    for resource in context.plugins.store().state() {
        let name = resource.name_any();
        if let PluginState::Ready(plugin) = context.plugins.get(&name) {
            wanted.extend(plugin.jwks_urls().map(|url| (url.to_owned(), name.clone())));
        }
    }
    wanted
}

fn note(place: &mut Place, url: &str, plugin: &str, fetched: Result<HeaderMap, Unfetched>) {
    match fetched {
        Ok(headers) => {
            if place.is_failing() {
                tracing::info!(plugin, url, "public keys were fetched again");
            }
            place.fetched(Instant::now(), &headers);
        }
        Err(why) => {
            tracing::warn!(plugin, url, error = %why, "public keys cannot be fetched: those that are known stay in force");
            let retry_after = match &why {
                Unfetched::Call(failure) => failure.retry_after(),
                Unfetched::NotKeys(_) | Unfetched::Unwritten(_) => None,
            };
            place.failed(Instant::now(), retry_after);
        }
    }
}

/// What the plugins are told.
async fn trouble(api: &Api<Secret>, url: &str, why: Option<&Unfetched>) -> Option<Trouble> {
    let why = why?.to_string();
    // Keys of before are published still, perhaps by another process. Where that cannot be seen, nothing is promised.
    let published = api.get_metadata_opt(&PublishedKeys::secret_name(url)).await;
    Some(Trouble { why, known: published.is_ok_and(|published| published.is_some()) })
}

async fn fetch(context: &Context, api: &Api<Secret>, url: &str, plugin: &str) -> Result<HeaderMap, Unfetched> {
    let target = url.parse().map_err(|_| Unfetched::NotKeys("is no URL".to_owned()))?;
    let call = HttpCall { method: Method::GET, url: target, headers: HeaderMap::new(), body: None };
    let sent = context.external.send(call, &[], &BudgetKey::new(plugin, [])).await;
    let status = match &sent {
        Ok(response) => Some(response.status),
        Err(failure) => failure.status(),
    };
    if !matches!(&sent, Err(failure) if failure.nothing_was_sent()) {
        context.metrics.external_call(plugin, "publicKeys", status);
    }
    let response = sent?;
    let keys = KeySet::read(&response.body).map_err(Unfetched::NotKeys)?;
    let published = PublishedKeys { url: url.to_owned(), jwks: keys.to_json() };
    let secret = published.to_secret(&context.common.ingress_namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = api.patch(&PublishedKeys::secret_name(url), &params, &Patch::Apply(&secret)).await;
    written.map_err(Failure::from)?;
    tracing::debug!(plugin, url, "public keys were published");
    Ok(response.headers)
}

/// Removes keys that no plugin needs.
async fn sweep(api: &Api<Secret>, wanted: &BTreeMap<String, String>) {
    let names: HashSet<String> = wanted.keys().map(|url| PublishedKeys::secret_name(url)).collect();
    let listed = match api.list_metadata(&ListParams::default().labels(&PublishedKeys::selector())).await {
        Ok(listed) => listed,
        Err(error) => {
            tracing::debug!(%error, "published keys cannot be listed");
            return;
        }
    };
    for secret in listed.items.iter().filter(|secret| !names.contains(&secret.name_any())) {
        if let Err(failure) = ignore_not_found(api.delete(&secret.name_any(), &DeleteParams::default()).await) {
            tracing::debug!(%failure, "keys that no plugin needs were not removed");
        }
    }
}
