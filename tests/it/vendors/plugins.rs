//! Which plugin a story is told with.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;

/// Where the calls of the stories go.
const BASE: &str = "{+parameters.baseURL}";

/// The plugin that the folder of the stories has for a vendor; else that of the catalogue, whose calls go to the parameter
/// `baseURL` instead of the vendor's origins, and which is called `vendor-NAME`.
pub fn plugin(vendor: &str) -> Result<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let story = root.join(format!("tests/it/vendors/{vendor}.yaml"));
    if story.exists() { read(&story) } else { of_the_catalogue(vendor) }
}

fn of_the_catalogue(vendor: &str) -> Result<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut plugin = read(&root.join(format!("charts/bellhop-plugins/plugins/{vendor}.yaml")))?;
    plugin["metadata"]["name"] = json!(format!("vendor-{vendor}"));
    let spec = &mut plugin["spec"];
    let origins: Vec<String> = serde_json::from_value(spec["allowedOrigins"].take())?;
    // The documentation may be at one of the origins, and stays there.
    let documentation = spec["documentationURL"].take();
    redirect(spec, &origins);
    spec["documentationURL"] = documentation;
    spec["allowedOrigins"] = json!([BASE]);
    if spec["parameters"].is_null() {
        spec["parameters"] = json!({"type": "object", "properties": {}});
    }
    spec["parameters"]["properties"]["baseURL"] = json!({"type": "string", "format": "uri"});
    Ok(plugin)
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(serde_saphyr::from_str(&text)?)
}

fn redirect(value: &mut Value, origins: &[String]) {
    match value {
        Value::String(text) => {
            for origin in origins {
                if let Some(rest) = text.strip_prefix(origin.as_str()) {
                    *text = format!("{BASE}{rest}");
                    return;
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redirect(item, origins)),
        Value::Object(fields) => fields.values_mut().for_each(|field| redirect(field, origins)),
        _ => {}
    }
}
