//! Conditions as Kubernetes means them: a list keyed by type, whose `lastTransitionTime` moves only when the status flips.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Types of conditions.
pub mod type_ {
    /// The object does what it is for.
    pub const READY: &str = "Ready";
    /// The Subscription is valid and holds one of the slots of its plugin and workspace.
    pub const ACCEPTED: &str = "Accepted";
    /// The external system has confirmed the credentials.
    pub const AUTHORIZED: &str = "Authorized";
    /// The webhook exists in the external system.
    pub const WEBHOOK_REGISTERED: &str = "WebhookRegistered";
    /// Abnormal-true: a webhook could not be renewed, or an authorization not refreshed, and it ends soon.
    pub const EXPIRING: &str = "Expiring";
    /// Abnormal-true: a WorkflowTrigger's runner does not answer, and its deliveries wait.
    pub const RUNNER_AWAY: &str = "RunnerAway";
    /// Abnormal-true: public keys that a TriggerPlugin names could not be fetched.
    pub const KEYS_NOT_FETCHED: &str = "KeysNotFetched";
    /// Abnormal-true (kstatus): work is under way.
    pub const RECONCILING: &str = "Reconciling";
    /// Abnormal-true (kstatus): nothing will change until somebody changes something.
    pub const STALLED: &str = "Stalled";
}

/// Reasons of conditions.
#[allow(missing_docs)]
pub mod reason {
    pub const READY: &str = "Ready";
    pub const PENDING: &str = "Pending";
    pub const PROGRESSING: &str = "Progressing";
    pub const IN_USE: &str = "InUse";
    pub const INVALID_PLUGIN: &str = "InvalidPlugin";
    /// No keys of a place are known: what they would prove is answered 503.
    pub const KEYS_NOT_KNOWN: &str = "KeysNotKnown";
    /// The keys of a place could not be fetched again; those that are known stay in force.
    pub const KEYS_NOT_RENEWED: &str = "KeysNotRenewed";
    pub const PLUGIN_NOT_FOUND: &str = "PluginNotFound";
    pub const PLUGIN_NOT_READY: &str = "PluginNotReady";
    pub const INVALID_PARAMETERS: &str = "InvalidParameters";
    pub const UNKNOWN_EVENT: &str = "UnknownEvent";
    pub const METHOD_NOT_OFFERED: &str = "MethodNotOffered";
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    pub const ACCEPTED: &str = "Accepted";
    pub const SPEC_CHANGED: &str = "SpecChanged";
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    pub const SECRET_NOT_LABELLED: &str = "SecretNotLabelled";
    pub const SECRET_KEY_MISSING: &str = "SecretKeyMissing";
    pub const ORIGIN_NOT_ALLOWED: &str = "OriginNotAllowed";
    pub const CREDENTIALS_REFUSED: &str = "CredentialsRefused";
    pub const EXTERNAL_SYSTEM_FAILED: &str = "ExternalSystemFailed";
    pub const EXPRESSION_FAILED: &str = "ExpressionFailed";
    pub const AUTHORIZED: &str = "Authorized";
    pub const ROUTE_NOT_LIVE: &str = "RouteNotLive";
    pub const REGISTERED: &str = "Registered";
    pub const CREATE_UNCONFIRMED: &str = "CreateUnconfirmed";
    /// A webhook that is to be replaced may be why the external system refuses another one.
    pub const WEBHOOK_IN_THE_WAY: &str = "WebhookInTheWay";
    pub const DELETION_FAILED: &str = "DeletionFailed";
    /// OAuth: nobody has consented yet; the link is in the status.
    pub const AUTHORIZATION_REQUIRED: &str = "AuthorizationRequired";
    /// OAuth: somebody has refused the consent, or the external system has.
    pub const CONSENT_REFUSED: &str = "ConsentRefused";
    /// OAuth: the external system does not take the grant any more; a new link is in the status.
    pub const AUTHORIZATION_EXPIRED: &str = "AuthorizationExpired";
    /// OAuth: there is no client for the plugin.
    pub const CLIENT_NOT_FOUND: &str = "ClientNotFound";
    /// OAuth: the workspace has two default clients for the plugin.
    pub const CLIENT_AMBIGUOUS: &str = "ClientAmbiguous";
    /// OAuth: the client may not be used with these parameters.
    pub const CLIENT_NOT_ALLOWED: &str = "ClientNotAllowed";
    /// Nothing has to be authorized or registered: a person does it.
    pub const MANUAL: &str = "Manual";
    /// A Secret of another owner is where Bellhop would put the callback secret.
    pub const SECRET_EXISTS: &str = "SecretExists";
    pub const SECRET_NOT_CAPTURED: &str = "SecretNotCaptured";
    pub const RENEWAL_FAILED: &str = "RenewalFailed";
    pub const WEBHOOK_EXPIRED: &str = "WebhookExpired";
    pub const BOUND: &str = "Bound";
    pub const SUBSCRIPTION_NOT_FOUND: &str = "SubscriptionNotFound";
    pub const SUBSCRIPTION_NOT_READY: &str = "SubscriptionNotReady";
    pub const EVENT_NOT_SUBSCRIBED: &str = "EventNotSubscribed";
    pub const INVALID_FILTER: &str = "InvalidFilter";
    pub const INVALID_RUNNER: &str = "InvalidRunner";
    pub const RUNNER_NOT_FOUND: &str = "RunnerNotFound";
    pub const RUNNER_NOT_ALLOWED: &str = "RunnerNotAllowed";
    pub const DRAFT: &str = "Draft";
    /// A draft captures events, until a time.
    pub const LISTENING: &str = "Listening";
    /// The runner has answered 410: nothing fires until somebody changes the trigger.
    pub const RUNNER_GONE: &str = "RunnerGone";
    pub const RUNNER_NOT_ANSWERING: &str = "RunnerNotAnswering";
    pub const SUSPENDED: &str = "Suspended";
}

/// The longest message that is written; the API server refuses more than 32768 bytes.
const MAX_MESSAGE: usize = 2048;

/// The three values of a condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// `True`
    True,
    /// `False`
    False,
    /// `Unknown`
    Unknown,
}

impl Is {
    /// The value as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Is::True => "True",
            Is::False => "False",
            Is::Unknown => "Unknown",
        }
    }
}

/// Builds the next list of conditions from the previous one.
///
/// What is not set again is dropped, so that a condition that no longer applies disappears.
pub struct Conditions<'a> {
    previous: &'a [Condition],
    generation: Option<i64>,
    now: Time,
    next: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Starts an empty list; `previous` gives the transition times of what did not flip.
    pub fn new(previous: &'a [Condition], generation: Option<i64>, now: Time) -> Self {
        Self { previous, generation, now, next: Vec::new() }
    }

    /// Sets one condition; the last call for a type counts. Messages are cut at 2048 bytes.
    pub fn set(&mut self, type_: &str, is: Is, reason: &str, message: impl Into<String>) -> &mut Self {
        let status = is.as_str().to_owned();
        let last_transition_time = match self.previous.iter().find(|c| c.type_ == type_ && c.status == status) {
            Some(same) => same.last_transition_time.clone(),
            None => self.now.clone(),
        };
        let condition = Condition {
            type_: type_.to_owned(),
            status,
            reason: reason.to_owned(),
            message: shorten(message.into()),
            observed_generation: self.generation,
            last_transition_time,
        };
        match self.next.iter_mut().find(|c| c.type_ == type_) {
            Some(slot) => *slot = condition,
            None => self.next.push(condition),
        }
        self
    }

    /// The finished list, in the order in which the types were first set.
    pub fn finish(self) -> Vec<Condition> {
        self.next
    }
}

fn shorten(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let mut end = MAX_MESSAGE;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn transition_time_moves_only_on_a_flip() {
        let mut first = Conditions::new(&[], Some(1), at(10));
        first.set(type_::READY, Is::False, reason::PENDING, "waiting");
        let first = first.finish();

        let mut second = Conditions::new(&first, Some(1), at(20));
        second.set(type_::READY, Is::False, reason::PROGRESSING, "still waiting");
        let second = second.finish();
        assert_eq!(second[0].last_transition_time, at(10));
        assert_eq!(second[0].reason, reason::PROGRESSING);

        let mut third = Conditions::new(&second, Some(1), at(30));
        third.set(type_::READY, Is::True, reason::READY, "");
        assert_eq!(third.finish()[0].last_transition_time, at(30));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let mut conditions = Conditions::new(&[], None, at(0));
        conditions.set(type_::READY, Is::False, reason::PENDING, "é".repeat(3000));
        assert!(conditions.finish()[0].message.len() <= MAX_MESSAGE + '…'.len_utf8());
    }
}
