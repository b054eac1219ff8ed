//! Authorization by OAuth 2.0: which client, a person's consent, access tokens and their renewal.
//!
//! What is known is an [`AuthorizationRecord`] in the Subscription's custody; [`next`] decides from it what has to be
//! done. The pages that a browser sees need nothing but custody, so every replica of the controller serves them; what
//! they store wakes the one that works.

mod decide;
mod record;
#[cfg(test)]
mod tests;

pub use decide::{FLOW_LIFE, LINK_LIFE, Next, Tokens, after, consent_needed, due, expiring, next, no_token};
pub use record::{AuthorizationRecord, Flow, Grant, Link, PinnedClient, Problem, ProblemKind, TokenFailure};

use super::installation::random_secret as random_text;
