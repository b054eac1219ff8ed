//! The callback secrets of a Subscription: the current one, those of single webhooks, and those that are still accepted.

use super::{Custody, WebhookRecord, WebhookState};
use serde::{Deserialize, Serialize};
use std::fmt;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// Most secrets that are accepted although there is a newer one; of more, the oldest are refused.
const MOST_PREVIOUS: usize = 8;

/// Who chooses the callback secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretOrigin {
    /// Bellhop does.
    #[default]
    Generated,
    /// The user has put it into a Secret.
    Given,
    /// The external system does, and tells it.
    External,
    /// The plugin verifies nothing by a callback secret.
    NotNeeded,
}

/// A callback secret that is still accepted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retired {
    /// The secret.
    pub secret: String,
    /// When it ends to be accepted; nothing while a webhook may have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

impl fmt::Debug for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retired").field("until", &self.until).finish_non_exhaustive()
    }
}

/// What came of a secret that an external system has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// None was known; it is the callback secret now.
    Stored,
    /// It is known already.
    Same,
    /// Another one is known, or the external system is not the one to choose it.
    Refused,
}

impl Custody {
    /// Every secret that proves a callback now, the current one first.
    pub fn secrets(&self) -> Vec<String> {
        let current = std::iter::once(&self.callback_secret);
        let of_webhooks = self.webhooks.iter().filter_map(|record| record.secret.as_ref());
        let previous = self.previous_secrets.iter().map(|retired| &retired.secret);
        let mut secrets = Vec::new();
        for secret in current.chain(of_webhooks).chain(previous) {
            if !secret.is_empty() && !secrets.contains(secret) {
                secrets.push(secret.clone());
            }
        }
        secrets
    }

    /// Whether callbacks can be proven: a secret is known, or none is needed.
    pub fn has_secret(&self) -> bool {
        self.secret_origin == SecretOrigin::NotNeeded || !self.secrets().is_empty()
    }

    /// Whether a secret that callbacks may be signed with from now on has still to be told: by the external system, for any
    /// of the webhooks, or by a person. Secrets of other webhooks, and of those that are gone, are accepted meanwhile.
    pub fn awaits_secret(&self) -> bool {
        let has_none = |record: &WebhookRecord| record.secret.is_none();
        let told_with_the_webhook = |record: &WebhookRecord| {
            matches!(record.state, WebhookState::Creating | WebhookState::Created { .. }) && has_none(record)
        };
        let told_later = |record: &WebhookRecord| record.is_registered() && has_none(record);
        let none_yet = self.callback_secret.is_empty() && self.webhooks.iter().all(has_none);
        match self.secret_origin {
            SecretOrigin::Given => none_yet,
            SecretOrigin::External => {
                none_yet
                    || self.webhooks.iter().any(told_with_the_webhook)
                    || self.callback_secret.is_empty() && self.webhooks.iter().any(told_later)
            }
            SecretOrigin::Generated | SecretOrigin::NotNeeded => false,
        }
    }

    /// Forgets a webhook that is gone, or is deleted to make room, although none has taken its place yet. Its secret, if the
    /// external system has chosen that and no other webhook has it, is accepted until `until`, for what is still under way.
    pub fn lose(&mut self, attempt: Uuid, until: i64) {
        // One that has come in a handshake stands in no record.
        let has_current =
            |record: &WebhookRecord| record.secret.as_ref().is_none_or(|secret| *secret == self.callback_secret);
        let mut others = self.webhooks.iter().filter(|other| other.attempt != attempt && other.id().is_some());
        let is_its_own = self.webhook(attempt).is_some_and(has_current) && !others.any(has_current);
        if self.secret_origin == SecretOrigin::External && is_its_own {
            let secret = std::mem::take(&mut self.callback_secret);
            self.retire(secret, Some(until));
        }
        self.forget(attempt, Some(until));
    }

    /// Takes a secret that the external system has told in a handshake, if none is known.
    pub fn capture_secret(&mut self, secret: &str) -> Capture {
        let same = |known: &String| bool::from(known.as_bytes().ct_eq(secret.as_bytes()));
        if secret.is_empty() || self.secret_origin != SecretOrigin::External {
            return Capture::Refused;
        }
        if self.secrets().iter().any(same) {
            return Capture::Same;
        }
        if !self.callback_secret.is_empty() {
            return Capture::Refused;
        }
        secret.clone_into(&mut self.callback_secret);
        Capture::Stored
    }

    /// Accepts a secret that is not the current one any more until `until`; without it, until further notice.
    pub fn retire(&mut self, secret: String, until: Option<i64>) {
        if secret.is_empty() {
            return;
        }
        self.previous_secrets.retain(|retired| retired.secret != secret);
        self.previous_secrets.push(Retired { secret, until });
        let surplus = self.previous_secrets.len().saturating_sub(MOST_PREVIOUS);
        self.previous_secrets.drain(..surplus);
    }

    /// Puts another callback secret in the place of the current one, which is accepted until `until`.
    pub fn replace_secret(&mut self, secret: String, until: Option<i64>) {
        let old = std::mem::replace(&mut self.callback_secret, secret);
        self.retire(old, until);
        self.secret_version += 1;
    }

    /// Notes that every webhook has the current secret: what was accepted until further notice ends at `until`.
    pub fn end_rotation(&mut self, until: i64) {
        for retired in &mut self.previous_secrets {
            retired.until.get_or_insert(until);
        }
    }

    /// Refuses the secrets whose time is over.
    pub fn drop_retired(&mut self, now: i64) {
        self.previous_secrets.retain(|retired| retired.until.is_none_or(|until| until > now));
    }

    /// Makes room for the secret that an external system will choose for the next webhook: the current one becomes that
    /// of the webhooks that have it.
    pub fn await_secret(&mut self) {
        let secret = std::mem::take(&mut self.callback_secret);
        if secret.is_empty() {
            return;
        }
        // Without such a webhook it came with a create call that failed, and nothing will be signed with it.
        for record in self.webhooks.iter_mut().filter(|record| record.id().is_some()) {
            record.secret.get_or_insert_with(|| secret.clone());
        }
    }

    /// Takes back what [`await_secret`](Self::await_secret) has given away, when no webhook came of it.
    pub fn stop_awaiting_secret(&mut self) {
        if self.secret_origin != SecretOrigin::External {
            return;
        }
        let of_webhook =
            self.webhooks.iter().filter(|record| record.id().is_some()).find_map(|record| record.secret.clone());
        self.callback_secret = of_webhook.unwrap_or_default();
    }
}
