//! Whether a Subscription can be accepted, besides the cap.

use super::Step;
use crate::api::{Subscription, reason, type_};
use crate::controller::custody::SecretOrigin;
use crate::controller::subscription::Blocked;
use crate::plugin::{Plugin, SecretSource};

/// Accepts a Subscription, or says which field is wrong and what would be right.
pub fn accept(subscription: &Subscription, plugin: &Plugin) -> Step {
    let refuse = |reason, message: String| Step::Blocked(Blocked::stalled(type_::ACCEPTED, reason, message));
    let spec = &subscription.spec;
    let method = spec.authorization.method();
    if !plugin.offers().contains(&method) {
        return refuse(
            reason::METHOD_NOT_OFFERED,
            format!(
                "spec.authorization.{method}: the plugin \"{}\" does not offer it; it offers {}",
                plugin.name(),
                plugin.offers().join(", ")
            ),
        );
    }
    let given = spec.authorization.manual.as_ref().is_some_and(|manual| manual.secret_ref.is_some());
    let origin = match plugin.secret_source() {
        SecretSource::NotNeeded => SecretOrigin::NotNeeded,
        _ if given => SecretOrigin::Given,
        SecretSource::Generated => SecretOrigin::Generated,
        SecretSource::External => SecretOrigin::External,
    };
    if method == "manual" && origin == SecretOrigin::External && !plugin.captures_secret_by_handshake() {
        return refuse(
            reason::METHOD_NOT_OFFERED,
            format!(
                "spec.authorization.manual.secretRef: is missing; the external system of the plugin \"{}\" chooses the \
                 signing secret and shows it where the webhook is made, so put it into a Secret under the key `secret`, \
                 with the label {}={}, and name the Secret here; the Secret may be made later",
                plugin.name(),
                crate::api::CREDENTIALS_FOR_LABEL,
                plugin.name()
            ),
        );
    }
    if let Err(mistakes) = plugin.check_parameters(&spec.parameters) {
        return refuse(reason::INVALID_PARAMETERS, crate::plugin::join(&mistakes));
    }
    match plugin.pin_events(spec.events.as_deref()) {
        Ok(events) => Step::Accept { events, origin },
        Err(mistake) => refuse(reason::UNKNOWN_EVENT, mistake.to_string()),
    }
}
