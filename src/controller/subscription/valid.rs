//! What is wrong with a Subscription by itself and by its plugin: decided without I/O, in the words of its conditions, which
//! are those of admission too.

use crate::api::{CREDENTIALS_FOR_LABEL, SubscriptionSpec, reason};
use crate::controller::PluginState;
use crate::controller::custody::SecretOrigin;
use crate::plugin::{Plugin, SecretSource};
use std::sync::Arc;

/// Why a Subscription is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The reason of the condition.
    pub reason: &'static str,
    /// Its message, which names the field.
    pub message: String,
}

/// The compiled plugin with this name.
///
/// # Errors
/// There is none, or it has mistakes.
pub fn plugin<'a>(name: &str, plugin: &'a PluginState) -> Result<&'a Arc<Plugin>, Mistake> {
    match plugin {
        PluginState::Ready(plugin) => Ok(plugin),
        PluginState::NotFound => Err(Mistake {
            reason: reason::PLUGIN_NOT_FOUND,
            message: format!(
                "spec.pluginRef.name: there is no TriggerPlugin \"{name}\"; `kubectl get triggerplugins` lists them"
            ),
        }),
        PluginState::Broken(mistakes) => Err(Mistake {
            reason: reason::PLUGIN_NOT_READY,
            message: format!("TriggerPlugin \"{name}\" has mistakes: {mistakes}"),
        }),
    }
}

/// The events of a Subscription that fits its plugin.
///
/// # Errors
/// The plugin does not offer the method, or parameters or events do not fit.
pub fn events(spec: &SubscriptionSpec, plugin: &Plugin) -> Result<Vec<String>, Mistake> {
    let mistake = |reason, message: String| Mistake { reason, message };
    let method = spec.authorization.method();
    if !plugin.offers().contains(&method) {
        return Err(mistake(
            reason::METHOD_NOT_OFFERED,
            format!(
                "spec.authorization.{method}: the plugin \"{}\" does not offer it; it offers {}",
                plugin.name(),
                plugin.offers().join(", ")
            ),
        ));
    }
    let untold = secret_origin(spec, plugin) == SecretOrigin::External && !plugin.captures_secret_by_handshake();
    if method == "manual" && untold {
        return Err(mistake(
            reason::METHOD_NOT_OFFERED,
            format!(
                "spec.authorization.manual.secretRef: is missing; the external system of the plugin \"{0}\" chooses the \
                 signing secret and shows it where the webhook is made, so put it into a Secret under the key `secret`, with \
                 the label {CREDENTIALS_FOR_LABEL}={0}, and name the Secret here; the Secret may be made later",
                plugin.name(),
            ),
        ));
    }
    plugin
        .check_parameters(&spec.parameters)
        .map_err(|mistakes| mistake(reason::INVALID_PARAMETERS, crate::plugin::join(&mistakes)))?;
    plugin.pin_events(spec.events.as_deref()).map_err(|wrong| mistake(reason::UNKNOWN_EVENT, wrong.to_string()))
}

/// Who chooses the callback secret of a Subscription that fits its plugin.
pub fn secret_origin(spec: &SubscriptionSpec, plugin: &Plugin) -> SecretOrigin {
    let given = spec.authorization.manual.as_ref().is_some_and(|manual| manual.secret_ref.is_some());
    match plugin.secret_source() {
        SecretSource::NotNeeded => SecretOrigin::NotNeeded,
        _ if given => SecretOrigin::Given,
        SecretSource::Generated => SecretOrigin::Generated,
        SecretSource::External => SecretOrigin::External,
    }
}
