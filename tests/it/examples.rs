//! Every example and every plugin of the catalogue can be applied.

use crate::support::{PATIENCE, Workspace};
use anyhow::{Context, Result, ensure};
use bellhop::api::TriggerPlugin;
use bellhop_harness::build::{self, Part};
use bellhop_harness::{eventually, world};
use kube::{Api, ResourceExt};
use std::process::Command;

/// The chart of the catalogue with all plugins.
struct Catalogue {
    names: Vec<String>,
    /// What Helm renders.
    text: String,
}

fn rendered_catalogue() -> Result<Catalogue> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join("charts/bellhop-plugins/plugins"))? {
        names.push(entry?.path().file_stem().context("a name")?.to_string_lossy().into_owned());
    }
    ensure!(names.len() >= 19, "only {} plugins were found", names.len());
    let mut helm = Command::new(build::part(Part::Helm)?);
    helm.args(["template", "bellhop-plugins", "charts/bellhop-plugins", "--kube-version=1.35.0"]);
    helm.arg(format!("--set=plugins={{{}}}", names.join(","))).current_dir(root);
    helm.env_clear().env("HOME", world::dir().join("helm")).env("KUBECONFIG", "/dev/null");
    let output = helm.output().context("helm cannot be started")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(Catalogue { names, text: String::from_utf8(output.stdout)? })
}

#[tokio::test]
async fn every_example_and_the_catalogue_are_taken_by_the_api_server_and_every_plugin_compiles() -> Result<()> {
    let workspace = Workspace::shared("examples").await?;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut applied = 0;
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.join("plugin.yaml").exists() {
            workspace.control_plane.kubectl(["apply", "--server-side", "-f", &path.to_string_lossy()]).await?;
            applied += 1;
        }
    }
    ensure!(applied >= 2, "only {applied} examples were found");
    build::ensure_async(&[Part::Helm]).await?;
    let catalogue = rendered_catalogue()?;
    let file = world::dir().join("catalogue.yaml");
    std::fs::write(&file, &catalogue.text)?;
    workspace.control_plane.kubectl(["apply", "--server-side", "-f", &file.to_string_lossy()]).await?;
    let runners = folder.join("runners");
    workspace.control_plane.kubectl(["apply", "--server-side", "-f", &runners.to_string_lossy()]).await?;
    let plugins = Api::<TriggerPlugin>::all(workspace.client.clone());
    eventually(PATIENCE, "all plugins are ready", async || {
        let listed = plugins.list(&Default::default()).await?.items;
        for name in &catalogue.names {
            ensure!(listed.iter().any(|plugin| plugin.name_any() == *name), "there is no {name}");
        }
        for plugin in listed.iter().filter(|plugin| !plugin.name_any().starts_with("broken")) {
            let conditions = plugin.status.clone().unwrap_or_default().conditions;
            let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            ensure!(ready, "{}: {conditions:?}", plugin.name_any());
        }
        Ok(())
    })
    .await?;
    workspace.control_plane.kubectl(["delete", "namespace", "team-a", "team-b", "--wait=false"]).await?;
    Ok(())
}
