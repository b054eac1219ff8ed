//! The CustomResourceDefinitions, as files.

use super::{Subscription, TriggerPlugin, WorkflowTrigger};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;

/// All definitions, in the order in which they are printed.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    vec![TriggerPlugin::crd(), Subscription::crd(), WorkflowTrigger::crd()]
        .into_iter()
        .map(with_known_formats)
        .map(with_unseen_status)
        .collect()
}

/// One definition as a YAML document, without a leading `---`.
///
/// # Errors
/// Only if the definition cannot be written as YAML, which would be a defect of the types.
pub fn to_yaml(crd: &CustomResourceDefinition) -> anyhow::Result<String> {
    // Through a JSON value, so that keys are sorted and the file does not change with the order of Rust's fields.
    Ok(serde_saphyr::to_string(&serde_json::to_value(crd)?)?)
}

/// Gives every new object a status which says that no controller has seen it yet.
///
/// Without a status, kstatus takes an object for finished (Flux and others wait by it): for a moment at each creation,
/// and for as long as Bellhop does not run.
fn with_unseen_status(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let status = schema.and_then(|schema| schema.properties.as_mut()?.get_mut("status"));
        let status = status.expect("every kind has a status");
        status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
    }
    crd
}

/// Removes the formats that Rust's integers get and the API server does not know (it warns on every apply).
fn with_known_formats(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    fn clean(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                if map.get("format").and_then(|f| f.as_str()).is_some_and(|f| f.starts_with("uint")) {
                    map.remove("format");
                }
                map.values_mut().for_each(clean);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(clean),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(&crd).expect("a definition is JSON");
    clean(&mut value);
    serde_json::from_value(value).expect("a definition without formats is a definition")
}
