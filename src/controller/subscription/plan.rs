//! What to do next for a Subscription: decided from what is known and the time, without I/O.
//!
//! Each pass begins from what is stored, does the first step that is missing, and stores what came of it. A controller
//! that is killed between two steps therefore goes on where it stopped.

mod keep;

use super::blocked::Upkeep;
use super::{Blocked, valid};
use crate::api::{Subscription, reason, type_};
use crate::controller::PluginState;
use crate::controller::custody::{Custody, SecretOrigin};
use crate::plugin::Plugin;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// What the Secret that a Subscription names holds, or why it cannot be used.
pub type Given = Result<BTreeMap<String, String>, Blocked>;

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take a slot and store the accepted spec.
    Accept {
        /// The pinned events.
        events: Vec<String>,
        /// Who chooses the callback secret.
        origin: SecretOrigin,
    },
    /// Refuse the callback secrets whose time is over.
    DropSecrets,
    /// Take the callback secret that the user has put into a Secret.
    TakeSecret {
        /// The secret.
        secret: String,
    },
    /// Begin to replace the callback secret, or wait for another one from the external system.
    BeginRotation {
        /// The annotation's value.
        request: String,
    },
    /// Note that every webhook has the current callback secret.
    EndRotation,
    /// Publish the route and wait until the ingress serves it.
    Publish,
    /// Put the callback secret into a Secret of the workspace, for the person who makes the webhook by hand.
    HandOver,
    /// Ask the external system whether these credentials are good.
    Authorize {
        /// What the Secret holds.
        credentials: BTreeMap<String, String>,
    },
    /// Ask the external system whether the grant is good.
    VerifyGrant,
    /// Make the link that a person follows to consent.
    MakeLink,
    /// Get an access token.
    FetchToken,
    /// Make one of the calls before the first create call.
    Prepare {
        /// Which one, from 0.
        index: usize,
    },
    /// Find or create the webhook for this event.
    Register {
        /// The event, where the external system needs a webhook for each.
        event: Option<String>,
    },
    /// Make the next call after the creation of this webhook.
    Complete {
        /// Names the webhook.
        attempt: Uuid,
    },
    /// Delete this webhook.
    Retire {
        /// Names the webhook.
        attempt: Uuid,
    },
    /// Give this webhook the current callback secret, in place.
    Rewrite {
        /// Names the webhook.
        attempt: Uuid,
    },
    /// Create another webhook that takes the place of this one; or, where the external system refuses a second one with the
    /// same URL, delete this one, so that the next step creates the other.
    Replace {
        /// Names the webhook.
        attempt: Uuid,
        /// What it is for.
        upkeep: Upkeep,
    },
    /// Prolong the life of this webhook by `refresh`.
    Refresh {
        /// Names the webhook.
        attempt: Uuid,
    },
    /// Prolong the life of this webhook by `create`.
    CreateAgain {
        /// Names the webhook.
        attempt: Uuid,
    },
    /// Look at this webhook in the external system, and mend what is not as it was made.
    Check {
        /// Names the webhook.
        attempt: Uuid,
    },
    /// Tell that a webhook was mended.
    TellRepair,
    /// Nothing is missing.
    Finished {
        /// The time until something is due; nothing: for ever.
        next_look: Option<Duration>,
    },
    /// Nothing can be done now.
    Blocked(Blocked),
}

impl Step {
    /// Whether the external system is called.
    pub fn calls(&self) -> bool {
        matches!(
            self,
            Step::Authorize { .. }
                | Step::VerifyGrant
                | Step::FetchToken
                | Step::Prepare { .. }
                | Step::Register { .. }
                | Step::Complete { .. }
                | Step::Retire { .. }
                | Step::Rewrite { .. }
                | Step::Replace { .. }
                | Step::Refresh { .. }
                | Step::CreateAgain { .. }
                | Step::Check { .. }
        )
    }
}

impl Step {
    /// What a failure of this step is called while the Subscription has all its webhooks.
    pub fn upkeep(&self) -> Option<Upkeep> {
        match self {
            Step::Retire { .. } => Some(Upkeep::Removal),
            Step::Rewrite { .. } => Some(Upkeep::Rotation),
            Step::Replace { upkeep, .. } => Some(*upkeep),
            // With all webhooks there, it is about one that takes the place of another.
            Step::Register { .. } | Step::Complete { .. } | Step::Refresh { .. } | Step::CreateAgain { .. } => {
                Some(Upkeep::Renewal)
            }
            Step::Check { .. } => Some(Upkeep::Check),
            _ => None,
        }
    }
}

/// What is known of a Subscription.
pub struct View<'a> {
    /// The object.
    pub subscription: &'a Subscription,
    /// Its plugin.
    pub plugin: &'a PluginState,
    /// What is stored of it, once it is accepted.
    pub custody: Option<&'a Custody>,
    /// What the Secret holds that it names; nothing if it names none.
    pub given: Option<&'a Given>,
    /// Whether the ingress serves exactly the custody's route.
    pub route_live: bool,
    /// For a webhook made by hand: whether the Secret in the workspace holds the callback secret.
    pub handed_over: bool,
    /// For OAuth: the link that a person follows to consent, or empty.
    pub link: &'a str,
    /// When each webhook was looked at last in the external system by this process, by attempt.
    pub looked: &'a BTreeMap<Uuid, i64>,
    /// When this process began to look.
    pub started: i64,
    /// The events whose upkeep has failed in this pass.
    pub failed: &'a BTreeSet<Option<String>>,
    /// From one look at the external system to the next; zero: never.
    pub drift_interval: Duration,
    /// The time.
    pub now: i64,
}

/// Decides the next step.
pub fn next(view: &View) -> Step {
    let subscription = view.subscription;
    if let Some(custody) = view.custody
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
    let blocked_at = if view.custody.is_some() { type_::READY } else { type_::ACCEPTED };
    let plugin = match valid::plugin(&subscription.spec.plugin_ref.name, view.plugin) {
        Ok(plugin) => plugin,
        Err(mistake) => return Step::Blocked(Blocked::waiting(blocked_at, mistake.reason, mistake.message)),
    };
    match view.custody {
        None => accept(subscription, plugin),
        Some(custody) if subscription.spec.authorization.manual.is_some() => keep::by_hand(view, custody),
        Some(custody) => keep::automatic(view, plugin, custody),
    }
}

fn accept(subscription: &Subscription, plugin: &Plugin) -> Step {
    let spec = &subscription.spec;
    match valid::events(spec, plugin) {
        Ok(events) => Step::Accept { events, origin: valid::secret_origin(spec, plugin) },
        Err(mistake) => Step::Blocked(Blocked::stalled(type_::ACCEPTED, mistake.reason, mistake.message)),
    }
}

pub use keep::wanted;
