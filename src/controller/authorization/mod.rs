//! Authorization by OAuth 2.0: which client, a person's consent, access tokens and their renewal.
//!
//! What is known is an [`AuthorizationRecord`] in the Subscription's custody; [`next`] decides from it what has to be
//! done. The pages that a browser sees need nothing but custody, so every replica of the controller serves them; what
//! they store wakes the one that works.

mod clients;
mod decide;
pub mod pages;
mod record;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod tokens;

pub use clients::Clients;
pub use decide::{FLOW_LIFE, LINK_LIFE, Next, after, consent_needed, due, expiring, next, no_token};
pub use record::{AuthorizationRecord, Flow, Grant, Link, PinnedClient, Problem, ProblemKind, TokenFailure};
pub use tokens::{choose_client, ensure_link, refresh, revoke};

use super::installation::random_secret as random_text;
use super::now as now_millis;
use decide::{CLIENT_PATIENCE, REQUEST_PATIENCE};

use url::Url;

/// The redirect URL to register for every OAuth client of this installation.
pub fn redirect_url(public_url: &Url) -> Url {
    let mut url = public_url.clone();
    url.set_path(&format!("{}/oauth/callback", public_url.path().trim_end_matches('/')));
    url
}
