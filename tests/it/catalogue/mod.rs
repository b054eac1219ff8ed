//! The catalogue's plugins against what the vendors publish about their webhooks.

mod described;
mod gitea;
mod github;
mod made_up;

use anyhow::{Context, Result};
use bellhop::api::TriggerPlugin;
use bellhop::plugin::Plugin;
use std::path::Path;

/// A plugin of the catalogue, as its file has it and compiled.
pub fn plugin(name: &str) -> Result<(TriggerPlugin, Plugin)> {
    let file = format!("charts/bellhop-plugins/plugins/{name}.yaml");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file)).context(file)?;
    let resource: TriggerPlugin = serde_saphyr::from_str(&text)?;
    let compiled = Plugin::compile(name, &resource.spec).map_err(|mistakes| {
        anyhow::anyhow!("{}", mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    Ok((resource, compiled))
}
