//! Why a Subscription does not go on, and when it is tried again.

use crate::api::reason;
use crate::controller::Retry;
use std::time::Duration;

/// Why a Subscription cannot go on, in words for its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The condition that says so.
    pub condition: &'static str,
    /// The condition's reason.
    pub reason: &'static str,
    /// The condition's message.
    pub message: String,
    /// Nothing will change until somebody changes something (kstatus `Stalled`).
    pub stalled: bool,
    /// Whether time alone can help: then the pass is repeated with growing pauses.
    pub retry: bool,
    /// The pause that the external system asks for.
    pub retry_after: Option<Duration>,
}

impl Blocked {
    /// Until a user acts on the Subscription or what it depends on.
    pub fn stalled(condition: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { condition, reason, message: message.into(), stalled: true, retry: false, retry_after: None }
    }

    /// Until something that is watched appears or changes; a GitOps pipeline may still be at it.
    pub fn waiting(condition: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { stalled: false, ..Self::stalled(condition, reason, message) }
    }

    /// Until it works.
    pub fn retrying(condition: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { stalled: false, retry: true, ..Self::stalled(condition, reason, message) }
    }
}

impl From<&Blocked> for Retry {
    fn from(blocked: &Blocked) -> Self {
        match (blocked.retry_after, blocked.retry) {
            (Some(after), _) => Retry::After(after),
            (None, true) => Retry::Backoff,
            // What a person has to mend in the external system is not watched, nor is a slot that is taken back from a
            // Subscription that went without its finalizer; what is watched wakes the pass anyway.
            (None, false)
                if matches!(
                    blocked.reason,
                    reason::CREDENTIALS_REFUSED
                        | reason::CLIENT_NOT_FOUND
                        | reason::SECRET_EXISTS
                        | reason::QUOTA_EXCEEDED
                ) =>
            {
                Retry::Slow
            }
            (None, false) => Retry::OnChange,
        }
    }
}

/// What keeping up a webhook has failed at. Events are received meanwhile, so the Subscription stays Ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What was tried.
    pub upkeep: Upkeep,
    /// The event of the webhook, where the external system needs one for each.
    pub event: Option<String>,
    /// What came of it.
    pub blocked: Blocked,
}

/// What is done to keep up a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// Its life is prolonged.
    Renewal,
    /// It gets a new callback secret.
    Rotation,
    /// One that was replaced is deleted.
    Removal,
    /// It is looked at, and mended.
    Check,
}

/// How a pass has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Why the Subscription is not Ready.
    pub blocked: Option<Blocked>,
    /// What has failed although it is Ready.
    pub troubles: Vec<Trouble>,
    /// The time until something is due, if nothing has failed.
    pub next_look: Option<Duration>,
    /// More calls are due than one pass may make.
    pub unfinished: bool,
}

impl Outcome {
    /// When the next pass is.
    pub fn retry(&self) -> Option<Retry> {
        if self.unfinished {
            return Some(Retry::At(Duration::ZERO));
        }
        let failed = self.blocked.iter().chain(self.troubles.iter().map(|trouble| &trouble.blocked));
        let retries: Vec<Retry> = failed.map(Retry::from).collect();
        // A day at most: clocks are set.
        let at = self.next_look.map(|pause| Retry::At(pause.min(Duration::from_secs(24 * 3600))));
        match (&self.blocked, retries.as_slice()) {
            (_, []) => at,
            (Some(_), [first, ..]) => Some(*first),
            // What only a person can mend is tried again all the same: the webhook will not wait for ever.
            (None, some) => {
                let after = some.iter().filter_map(|retry| match retry {
                    Retry::After(after) => Some(*after),
                    _ => None,
                });
                Some(after.max().map_or(Retry::Backoff, Retry::After))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::type_;

    #[test]
    fn only_what_time_can_mend_is_tried_again_by_time() {
        let blocked = |reason| Blocked::stalled(type_::AUTHORIZED, reason, "");
        assert_eq!(Retry::from(&blocked(reason::INVALID_PARAMETERS)), Retry::OnChange);
        assert_eq!(Retry::from(&blocked(reason::CREDENTIALS_REFUSED)), Retry::Slow);
        let failed = Blocked::retrying(type_::AUTHORIZED, reason::EXTERNAL_SYSTEM_FAILED, "");
        assert_eq!(Retry::from(&failed), Retry::Backoff);
        let busy = Blocked { retry_after: Some(Duration::from_secs(30)), ..failed };
        assert_eq!(Retry::from(&busy), Retry::After(Duration::from_secs(30)));
    }

    #[test]
    fn a_pass_without_trouble_comes_back_when_something_is_due() {
        assert_eq!(Outcome::default().retry(), None);
        let due = Outcome { next_look: Some(Duration::from_secs(9)), ..Outcome::default() };
        assert_eq!(due.retry(), Some(Retry::At(Duration::from_secs(9))));
        let blocked = Blocked::stalled(type_::READY, reason::EXPRESSION_FAILED, "");
        let trouble = Trouble { upkeep: Upkeep::Renewal, event: None, blocked };
        assert_eq!(Outcome { troubles: vec![trouble], ..due }.retry(), Some(Retry::Backoff));
    }
}
