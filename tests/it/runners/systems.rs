//! Each example of `examples/runners` starts a workflow in the system that it is for, and a wrong credential does not.

use crate::support::{PATIENCE, Workspace, note_secret, shared};
use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bellhop_harness::eventually;
use bellhop_harness::runner::{Reply, Runner};
use bellhop_harness::runner_systems::System;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// The credential that a system knows.
fn credential(system: System) -> String {
    match system {
        System::Kestra => BASE64_STANDARD.encode("rs-kestra-user:rs-kestra-pw-90c1"),
        System::ArgoEvents | System::ArgoSubmit => "rs-argo-4f7d20".to_owned(),
        other => format!("rs-{}-4f7d20", other.name()),
    }
}

/// The content of the Secret that the example names.
fn content(system: System, right: bool) -> Vec<(&'static str, String)> {
    let keys = system.secret().map(|(_, keys)| keys).unwrap_or_default();
    let value = |key: &str| match (system, key) {
        _ if !right => format!("rs-wrong-{key}"),
        (System::Kestra, "user") => "rs-kestra-user".to_owned(),
        (System::Kestra, _) => "rs-kestra-pw-90c1".to_owned(),
        _ => credential(system),
    };
    keys.iter().map(|key| (*key, value(key))).collect()
}

/// A server that behaves as the system does, and the statuses that it has answered.
struct Stage {
    system: System,
    server: Runner,
    statuses: Arc<Mutex<Vec<u16>>>,
}

impl Stage {
    fn start(system: System) -> Result<Stage> {
        let (server, statuses) = (Runner::start()?, Arc::<Mutex<Vec<u16>>>::default());
        let (answered, known) = (statuses.clone(), credential(system));
        server.respond_with(move |request| {
            let answer = system.answer(request, &known);
            answered.lock().expect("no panic while it is held").push(answer.status);
            Reply::status(answer.status).body(answer.body)
        });
        Ok(Stage { system, server, statuses })
    }

    fn statuses(&self) -> Vec<u16> {
        self.statuses.lock().expect("no panic while it is held").clone()
    }

    fn started(&self) -> bool {
        self.statuses().iter().any(|status| (200..300).contains(status))
    }

    /// The example, with another workspace and another origin.
    fn trigger(&self, workspace: &Workspace<'_>) -> Result<Value> {
        let path = format!("{}/examples/runners/{}.yaml", env!("CARGO_MANIFEST_DIR"), self.system.name());
        let mut trigger: Value = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
        ensure!(trigger["metadata"]["name"] == self.system.name(), "the example's name");
        trigger["metadata"]["namespace"] = json!(workspace.namespace);
        let runner = &mut trigger["spec"]["runner"];
        match runner["url"].as_str() {
            Some(url) => {
                let path = url.splitn(4, '/').nth(3).context("a path")?;
                runner["url"] = json!(format!("{}/{path}", self.server.url()));
            }
            // With the cluster domain `localhost`, the Service's name leads to this machine.
            None => runner["service"]["port"] = json!(self.server.port()),
        }
        Ok(trigger)
    }

    async fn put_secret(&self, workspace: &Workspace<'_>, right: bool) -> Result<()> {
        let Some((name, _)) = self.system.secret() else { return Ok(()) };
        let content = content(self.system, right);
        let content: Vec<(&str, &str)> = content.iter().map(|(key, value)| (*key, value.as_str())).collect();
        for (_, value) in &content {
            note_secret(value)?;
        }
        workspace.put_secret(name, Some("runners"), &content).await
    }
}

#[tokio::test]
async fn every_example_starts_a_workflow_in_the_system_that_it_is_for() -> Result<()> {
    let workspace = Workspace::shared("systems").await?;
    note_secret(&credential(System::Kestra))?;
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.put_service("el-push", 8080).await?;
    let stages = System::ALL.map(Stage::start).into_iter().collect::<Result<Vec<_>>>()?;
    for stage in &stages {
        stage.put_secret(&workspace, false).await?;
        workspace.create_trigger(stage.trigger(&workspace)?).await?;
    }
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    for stage in &stages {
        workspace.trigger_is(stage.system.name(), "True", "Bound").await?;
    }

    workspace.push("main", "a.txt").await?;
    for stage in &stages {
        let expected = stage.system.refusal().unwrap_or(202);
        eventually(PATIENCE, "the system has answered", async || {
            ensure!(stage.statuses() == [expected], "{:?}, wrong credential: {:?}", stage.system, stage.statuses());
            Ok(())
        })
        .await?;
    }

    for stage in &stages {
        stage.put_secret(&workspace, true).await?;
    }
    eventually(PATIENCE, "every system has started a workflow", async || {
        workspace.push("main", &format!("{}.txt", uuid::Uuid::new_v4())).await?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        for stage in &stages {
            ensure!(stage.started(), "{:?}: {:?}", stage.system, stage.statuses());
        }
        Ok(())
    })
    .await?;
    // What was refused was refused for the credential alone.
    for stage in &stages {
        let allowed = |status: &u16| (200..300).contains(status) || Some(*status) == stage.system.refusal();
        ensure!(stage.statuses().iter().all(allowed), "{:?}: {:?}", stage.system, stage.statuses());
    }
    workspace.collect(shared().await).await
}
