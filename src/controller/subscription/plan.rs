//! What to do next for a Subscription: decided from what is known, without I/O.
//!
//! Each pass begins from what is stored, does the first step that is missing, and stores what came of it. A controller
//! that is killed between two steps therefore goes on where it stopped.

use super::{Blocked, valid};
use crate::api::{Subscription, reason, type_};
use crate::controller::PluginState;
use crate::controller::custody::{Custody, WebhookState};
use std::collections::BTreeMap;

/// What a Subscription's Secret holds, or why it cannot be used.
pub type Credentials = Result<BTreeMap<String, String>, Blocked>;

/// The next step.
#[derive(Debug)]
pub enum Step {
    /// Take a slot and store the accepted spec with these events.
    Accept {
        /// The pinned events.
        events: Vec<String>,
    },
    /// Publish the route and wait until the ingress serves it.
    Publish,
    /// Ask the external system whether the credentials are good.
    Authorize {
        /// What the Secret holds.
        credentials: BTreeMap<String, String>,
    },
    /// Find or create the webhook.
    Register,
    /// Nothing is missing.
    Finished,
    /// Nothing can be done now.
    Blocked(Blocked),
}

/// Decides the next step.
///
/// `route_live` says whether the ingress serves the custody's route.
pub fn next(
    subscription: &Subscription,
    plugin: &PluginState,
    custody: Option<&Custody>,
    credentials: Option<&Credentials>,
    route_live: bool,
) -> Step {
    if let Some(custody) = custody
        && !custody.matches(subscription)
    {
        return Step::Blocked(Blocked::stalled(
            type_::READY,
            reason::SPEC_CHANGED,
            "spec: it differs from what was accepted, although a Subscription cannot be changed; \
             delete the Subscription and create a new one",
        ));
    }
    // Once accepted, a plugin that is missing or broken makes the Subscription unready and loses nothing.
    let blocked_at = if custody.is_some() { type_::READY } else { type_::ACCEPTED };
    let plugin = match valid::plugin(&subscription.spec.plugin_ref.name, plugin) {
        Ok(plugin) => plugin,
        Err(mistake) => return Step::Blocked(Blocked::waiting(blocked_at, mistake.reason, mistake.message)),
    };
    let Some(custody) = custody else { return accept(subscription, plugin) };
    if !route_live {
        return Step::Publish;
    }
    match credentials {
        None => {}
        Some(Err(blocked)) => return Step::Blocked(blocked.clone()),
        Some(Ok(credentials)) if *credentials != custody.credentials => {
            return Step::Authorize { credentials: credentials.clone() };
        }
        Some(Ok(_)) => {}
    }
    match custody.webhook {
        WebhookState::Registered { .. } => Step::Finished,
        WebhookState::None | WebhookState::Creating => Step::Register,
    }
}

fn accept(subscription: &Subscription, plugin: &crate::plugin::Plugin) -> Step {
    match valid::events(&subscription.spec, plugin) {
        Ok(events) => Step::Accept { events },
        Err(mistake) => Step::Blocked(Blocked::stalled(type_::ACCEPTED, mistake.reason, mistake.message)),
    }
}
