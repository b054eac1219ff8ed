//! The catalogue's plugins against what the vendors publish about their webhooks.

mod described;
mod gitea;
mod github;
mod made_up;

use anyhow::{Context, Result};
use bellhop::api::TriggerPlugin;
use bellhop::plugin::{CallContext, Credentials, Plugin, Secret};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// What the calls about a Subscription are made of, but for its parameters.
pub struct Caller {
    credentials: Credentials,
    secret: Secret,
    events: Vec<String>,
    setup: BTreeMap<String, String>,
}

impl Caller {
    /// One with a token, for these events; `secret` is the callback secret.
    pub fn new(secret: &str, events: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            credentials: Credentials::ApiKey([("token".to_owned(), Secret::from("t0k3n"))].into()),
            secret: Secret::from(secret),
            events: events.into_iter().map(Into::into).collect(),
            setup: BTreeMap::new(),
        }
    }

    /// The context of its calls before there is a webhook.
    pub fn context<'a>(&'a self, parameters: &'a Map<String, Value>, callback_url: &'a str) -> CallContext<'a> {
        CallContext {
            parameters,
            credentials: &self.credentials,
            callback_url,
            callback_name: "bellhop-0123456789abcdef",
            callback_secret: &self.secret,
            events: &self.events,
            event: None,
            setup: &self.setup,
            webhook: None,
            attempt: None,
            now: bellhop_harness::vendor::now(),
        }
    }
}

/// A plugin of the catalogue, as its file has it and compiled.
pub fn plugin(name: &str) -> Result<(TriggerPlugin, Plugin)> {
    let file = format!("charts/bellhop-plugins/plugins/{name}.yaml");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file)).context(file)?;
    let resource: TriggerPlugin = serde_saphyr::from_str(&text)?;
    let compiled = Plugin::compile(name, &resource.spec).map_err(|mistakes| {
        anyhow::anyhow!("{}", mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    Ok((resource, compiled))
}
