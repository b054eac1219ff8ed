//! What is no mistake, but could be better.

use crate::api::{TriggerPluginSpec, Verification};
use crate::plugin::{Mistake, whole_events};

/// All warnings about a plugin.
pub fn of(spec: &TriggerPluginSpec) -> Vec<Mistake> {
    let mut warnings = Vec::new();
    let mut warn = |field: String, problem: &str| warnings.push(Mistake::new(field, problem));
    if spec.documentation_url.is_none() {
        warn("spec.documentationURL".to_owned(), "is missing; people look there for how to get a token");
    }
    for (at, origin) in spec.allowed_origins.iter().enumerate() {
        if origin.starts_with("http://") && !origin.contains("//127.0.0.1") && !origin.contains("//localhost") {
            warn(
                format!("spec.allowedOrigins[{at}]"),
                "credentials are sent over http, which everybody on the way can read",
            );
        }
    }
    for (at, verification) in spec.callback.verification.iter().enumerate() {
        let field = format!("spec.callback.verification[{at}]");
        match verification {
            Verification::None(_) => warn(field, "whoever knows the callback URL can send events"),
            Verification::Token(token) if token.query.is_some() => {
                warn(field, "a secret in the query ends up in the logs of proxies; a header does not");
            }
            _ => {}
        }
    }
    if spec.callback.delivery_id.is_none() {
        let problem =
            "without `deliveryID`, a repetition is recognised by its body alone: two events with the same body are one";
        warn("spec.callback.deliveryID".to_owned(), problem);
    }
    if let Some(webhook) = &spec.webhook
        && webhook.find.is_none()
        && !webhook.create.as_ref().is_some_and(|create| create.idempotent)
    {
        let problem = "without `find`, a webhook whose creation was not confirmed is neither found nor deleted";
        warn("spec.webhook.find".to_owned(), problem);
    }
    for (at, event) in spec.events.iter().enumerate() {
        let field = format!("spec.events[{at}]");
        if event.title.trim() == event.name {
            warn(format!("{field}.title"), "is just the name; say what happens, for people");
        }
    }
    // What leads nowhere is a mistake, which the compiler tells.
    let (whole, _) = whole_events(&spec.definitions, &spec.events);
    for parameter in whole.iter().flat_map(|event| event.parameters.values()) {
        let described = ["title", "description"].iter().any(|key| parameter.schema.value.contains_key(*key));
        if parameter.description.is_none() && !described {
            let problem = "has no description; who writes a trigger sees nothing but its name";
            warn(parameter.field.clone(), problem);
        }
    }
    warnings
}
