//! Every example and every plugin of the catalogue can be applied.

use crate::support::Workspace;
use anyhow::{Result, ensure};
use bellhop::api::TriggerPlugin;
use bellhop_harness::eventually;
use kube::{Api, ResourceExt};

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
    let catalogue = folder.with_file_name("charts").join("bellhop-plugins/plugins");
    workspace.control_plane.kubectl(["apply", "--server-side", "-f", &catalogue.to_string_lossy()]).await?;
    let runners = folder.join("runners");
    workspace.control_plane.kubectl(["apply", "--server-side", "-f", &runners.to_string_lossy()]).await?;
    let plugins = Api::<TriggerPlugin>::all(workspace.client.clone());
    eventually(crate::support::PATIENCE, "all plugins are ready", async || {
        for plugin in
            plugins.list(&Default::default()).await?.items.iter().filter(|p| !p.name_any().starts_with("broken"))
        {
            let conditions = plugin.status.clone().unwrap_or_default().conditions;
            ensure!(conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"), "{conditions:?}");
        }
        Ok(())
    })
    .await?;
    workspace.control_plane.kubectl(["delete", "namespace", "team-a", "team-b", "--wait=false"]).await?;
    Ok(())
}
