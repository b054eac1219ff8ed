//! Bellhop's objects in the hands of GitOps tools: applied in any order, judged by their conditions, replaced, pruned,
//! and applied to a new cluster.

use crate::support::{NAMESPACE, Own, PATIENCE, SECRET, Workspace, callback_url, install, options};
use anyhow::{Context, Result, bail, ensure};
use bellhop::api::{Subscription, TriggerPlugin, WorkflowTrigger};
use bellhop_harness::bellhop::Bellhop;
use bellhop_harness::build::{Part, part};
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::ports::free_port;
use bellhop_harness::proxy::Proxy;
use bellhop_harness::{eventually, world};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gitops").join(path)
}

/// How the tools judge one object.
#[derive(Debug)]
struct Verdicts {
    flux: String,
    flux_message: String,
    argocd: String,
    argocd_message: String,
}

/// Judges all objects of these kinds, by kind and name.
async fn judge(
    control_plane: &ControlPlane,
    namespace: &str,
    kinds: &str,
) -> Result<BTreeMap<(String, String), Verdicts>> {
    let objects = control_plane.kubectl(["-n", namespace, "get", kinds, "-o", "json"]).await?;
    let config = example("argocd/argocd-cm.yaml").display().to_string();
    let (flux, argocd) = (kstatus(&["flux"], &objects).await?, kstatus(&["argocd", &config], &objects).await?);
    let text = |verdict: &Value, field: &str| verdict[field].as_str().unwrap_or_default().to_owned();
    let both = flux.iter().zip(&argocd).map(|(flux, argocd)| {
        let verdicts = Verdicts {
            flux: text(flux, "status"),
            flux_message: text(flux, "message"),
            argocd: text(argocd, "status"),
            argocd_message: text(argocd, "message"),
        };
        ((text(flux, "kind"), text(flux, "name")), verdicts)
    });
    Ok(both.collect())
}

async fn kstatus(args: &[&str], objects: &str) -> Result<Vec<Value>> {
    let program = tokio::task::spawn_blocking(|| part(Part::Kstatus)).await??;
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It reads everything before it prints anything.
    child.stdin.take().context("standard input")?.write_all(objects.as_bytes()).await?;
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "kstatus {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

const ALL: &str = "subscriptions.bellhop.dev,workflowtriggers.bellhop.dev,triggerplugins.bellhop.dev";
/// What Flux and Argo CD say of an object that is as it should be, may become so by itself, or needs a person.
const CURRENT: (&str, &str) = ("Current", "Healthy");
const IN_PROGRESS: (&str, &str) = ("InProgress", "Progressing");
const FAILED: (&str, &str) = ("Failed", "Degraded");
const TERMINATING: (&str, &str) = ("Terminating", "Progressing");

/// The plugin of Gitea under another name.
fn plugin(name: &str) -> Result<TriggerPlugin> {
    let file = std::fs::read_to_string(example("kustomize/platform/gitea.yaml"))?;
    let mut plugin: Value = serde_saphyr::from_str(&file)?;
    plugin["metadata"]["name"] = json!(name);
    Ok(serde_json::from_value(plugin)?)
}

async fn create_plugin(client: &Client, plugin: &TriggerPlugin) -> Result<()> {
    Api::<TriggerPlugin>::all(client.clone()).create(&PostParams::default(), plugin).await?;
    Ok(())
}

/// The reason and the message of an object's condition Ready.
async fn ready(control_plane: &ControlPlane, namespace: &str, kind: &str, name: &str) -> Result<(String, String)> {
    let kind = format!("{kind}.bellhop.dev");
    let object = control_plane.kubectl(["-n", namespace, "get", &kind, name, "-o", "json"]).await?;
    let object: Value = serde_json::from_str(&object)?;
    let conditions = object["status"]["conditions"].as_array().context("no conditions yet")?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").context("no condition Ready yet")?;
    let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
    Ok((text("reason"), text("message")))
}

type Expected = (&'static str, &'static str, &'static str, (&'static str, &'static str));

/// Waits until each object has its reason, then compares the verdicts.
async fn expect(control_plane: &ControlPlane, namespace: &str, expected: &[Expected]) -> Result<()> {
    for (kind, name, reason, (flux, argocd)) in expected {
        eventually(PATIENCE, &format!("{kind} {name} is {reason}, {flux} and {argocd}"), async || {
            let (found, message) = ready(control_plane, namespace, kind, name).await?;
            ensure!(found == *reason, "{found}: {message}");
            let verdicts = judge(control_plane, namespace, &format!("{kind}.bellhop.dev")).await?;
            let verdicts = verdicts.into_iter().find(|((_, found), _)| found == name).context("not judged")?.1;
            ensure!(verdicts.flux == *flux && verdicts.argocd == *argocd, "{verdicts:?}");
            // Whoever looks at the tool reads why.
            let is_told = *flux == CURRENT.0 || *flux == TERMINATING.0 || verdicts.flux_message == message;
            ensure!(is_told, "{} instead of {message}", verdicts.flux_message);
            let is_told = *flux == TERMINATING.0 || verdicts.argocd_message == format!("{reason}: {message}");
            ensure!(is_told, "{} instead of {reason}: {message}", verdicts.argocd_message);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn flux_and_argo_cd_read_every_state_right() -> Result<()> {
    // As many as the Subscriptions below that are accepted.
    let mut own = Own::start("health", &["--max-subscriptions", "8"]).await?;
    let gitea = &world::shared().await.gitea;
    let workspace = Workspace::new(&own.control_plane, gitea, "health").await?;
    let namespace = workspace.namespace.clone();
    let proxy = Proxy::start(&gitea.url())?;

    let mut broken = plugin("broken")?;
    broken.spec.callback.event = "request.".to_owned();
    create_plugin(&workspace.client, &broken).await?;
    workspace.put_secret("no-label", None, &[("token", "x")]).await?;
    workspace.put_secret("no-key", Some("gitea"), &[("password", "x")]).await?;
    workspace.put_secret("wrong", Some("gitea"), &[("token", "wrong")]).await?;

    let subscription = |name: &str, pointer: &str, value: Value| {
        let mut object = workspace.subscription(name);
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        object.pointer_mut(parent).expect("the parent of the field")[field] = value;
        workspace.create_subscription(object)
    };
    let secret = "/spec/authorization/apiKey/secretRef/name";
    subscription("ready", "/spec/events", json!(["push"])).await?;
    subscription("stuck", "/spec/parameters/baseURL", json!(proxy.url())).await?;
    subscription("no-plugin", "/spec/pluginRef/name", json!("nonsense")).await?;
    subscription("broken-plugin", "/spec/pluginRef/name", json!("broken")).await?;
    subscription("oauth2", "/spec/authorization", json!({"oauth2": {}})).await?;
    subscription("manual", "/spec/authorization", json!({"manual": {}})).await?;
    subscription("parameters", "/spec/parameters/nonsense", json!(1)).await?;
    subscription("event", "/spec/events", json!(["nonsense"])).await?;
    subscription("no-secret", secret, json!("nonsense")).await?;
    subscription("no-label", secret, json!("no-label")).await?;
    subscription("no-key", secret, json!("no-key")).await?;
    subscription("refused", secret, json!("wrong")).await?;
    subscription("away", "/spec/parameters/baseURL", json!(format!("http://127.0.0.1:{}", free_port()?))).await?;
    let trigger = |name: &str, subscription: &str, field: &str, value: Value| {
        let mut object = workspace.trigger(name, subscription);
        object["spec"][field] = value;
        workspace.create_trigger(object)
    };
    trigger("bound", "ready", "mode", json!("Published")).await?;
    trigger("suspended", "ready", "mode", json!("Suspended")).await?;
    trigger("draft", "ready", "mode", json!("Draft")).await?;
    trigger("alone", "nonsense", "mode", json!("Published")).await?;
    trigger("waits", "no-secret", "mode", json!("Published")).await?;
    trigger("runner", "ready", "runner", json!({"url": "https://runner.example.com"})).await?;
    trigger("event", "ready", "event", json!("nonsense")).await?;
    trigger("not-subscribed", "ready", "event", json!("issues")).await?;
    trigger("parameters", "ready", "parameters", json!({"branches": 1})).await?;
    trigger("filter", "ready", "filter", json!("variables.")).await?;

    expect(
        &own.control_plane,
        &namespace,
        &[
            ("triggerplugins", "gitea", "Ready", CURRENT),
            ("triggerplugins", "broken", "InvalidPlugin", FAILED),
            ("subscriptions", "ready", "Ready", CURRENT),
            ("subscriptions", "stuck", "Ready", CURRENT),
            ("subscriptions", "no-plugin", "PluginNotFound", IN_PROGRESS),
            ("subscriptions", "broken-plugin", "PluginNotReady", IN_PROGRESS),
            ("subscriptions", "oauth2", "ClientNotFound", IN_PROGRESS),
            ("subscriptions", "manual", "Ready", CURRENT),
            ("subscriptions", "parameters", "InvalidParameters", FAILED),
            ("subscriptions", "event", "UnknownEvent", FAILED),
            ("subscriptions", "no-secret", "SecretNotFound", IN_PROGRESS),
            ("subscriptions", "no-label", "SecretNotLabelled", IN_PROGRESS),
            ("subscriptions", "no-key", "SecretKeyMissing", IN_PROGRESS),
            ("subscriptions", "refused", "CredentialsRefused", FAILED),
            ("subscriptions", "away", "ExternalSystemFailed", IN_PROGRESS),
            ("workflowtriggers", "bound", "Bound", CURRENT),
            ("workflowtriggers", "suspended", "Suspended", CURRENT),
            ("workflowtriggers", "draft", "Draft", CURRENT),
            ("workflowtriggers", "alone", "SubscriptionNotFound", IN_PROGRESS),
            ("workflowtriggers", "waits", "SubscriptionNotReady", IN_PROGRESS),
            ("workflowtriggers", "runner", "RunnerNotAllowed", FAILED),
            ("workflowtriggers", "event", "UnknownEvent", FAILED),
            ("workflowtriggers", "not-subscribed", "EventNotSubscribed", FAILED),
            ("workflowtriggers", "parameters", "InvalidParameters", FAILED),
            ("workflowtriggers", "filter", "InvalidFilter", FAILED),
        ],
    )
    .await?;
    subscription("forbidden", "/spec/parameters/baseURL", json!("http://10.255.255.1")).await?;
    expect(&own.control_plane, &namespace, &[("subscriptions", "forbidden", "QuotaExceeded", FAILED)]).await?;
    workspace.delete_subscription("no-key").await?;
    expect(&own.control_plane, &namespace, &[("subscriptions", "forbidden", "OriginNotAllowed", FAILED)]).await?;

    // What is being deleted.
    proxy.stop();
    workspace.delete_subscription("stuck").await?;
    Api::<TriggerPlugin>::all(workspace.client.clone()).delete("gitea", &DeleteParams::default()).await?;
    let deleted =
        [("subscriptions", "stuck", "DeletionFailed", TERMINATING), ("triggerplugins", "gitea", "InUse", TERMINATING)];
    expect(&own.control_plane, &namespace, &deleted).await?;

    // What Bellhop has not seen yet: new objects, and a change of one.
    own.bellhop.kill9();
    create_plugin(&workspace.client, &plugin("unseen")?).await?;
    subscription("unseen", "/spec/pluginRef/name", json!("unseen")).await?;
    trigger("unseen", "unseen", "mode", json!("Published")).await?;
    let change = Patch::Merge(json!({"spec": {"mode": "Suspended"}}));
    workspace.api::<WorkflowTrigger>().patch("bound", &PatchParams::default(), &change).await?;
    let verdicts = judge(&own.control_plane, &namespace, ALL).await?;
    for (kind, name) in [
        ("TriggerPlugin", "unseen"),
        ("Subscription", "unseen"),
        ("WorkflowTrigger", "unseen"),
        ("WorkflowTrigger", "bound"),
    ] {
        let verdict = &verdicts[&(kind.to_owned(), name.to_owned())];
        ensure!((&*verdict.flux, &*verdict.argocd) == IN_PROGRESS, "{kind} {name}: {verdict:?}");
    }
    own.bellhop.restart().await?;
    let seen = [
        ("triggerplugins", "unseen", "Ready", CURRENT),
        ("subscriptions", "unseen", "SecretNotLabelled", IN_PROGRESS),
        ("workflowtriggers", "unseen", "SubscriptionNotReady", IN_PROGRESS),
        ("workflowtriggers", "bound", "Suspended", CURRENT),
    ];
    expect(&own.control_plane, &namespace, &seen).await
}

#[tokio::test]
async fn what_waits_for_a_person_is_in_progress_and_passes_the_link_on() -> Result<()> {
    // What a Subscription will say that waits for somebody's consent: the tools wait, and show the link.
    let link = "follow https://hooks.example.com/oauth/start/abc and consent";
    let condition = |type_: &str, status: &str| {
        json!({"type": type_, "status": status, "reason": "AuthorizationRequired", "message": link,
               "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let object = json!({
        "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription",
        "metadata": {"name": "acme-web", "namespace": "team-a", "generation": 1},
        "status": {"observedGeneration": 1, "conditions": [
            condition("Authorized", "False"), condition("Ready", "False"), condition("Reconciling", "True"),
        ]},
    });
    let config = example("argocd/argocd-cm.yaml").display().to_string();
    for (args, status) in [(vec!["flux"], "InProgress"), (vec!["argocd", &config], "Progressing")] {
        let verdict = kstatus(&args, &object.to_string()).await?.remove(0);
        ensure!(verdict["status"] == status, "{verdict}");
        ensure!(verdict["message"].as_str().is_some_and(|message| message.contains(link)), "{verdict}");
    }
    Ok(())
}

/// The objects of one workspace that depend on each other, with a plugin of their own.
struct Parts<'a> {
    workspace: &'a Workspace<'static>,
    name: String,
}

impl Parts<'_> {
    async fn create(&self, what: &str) -> Result<()> {
        let Parts { workspace, name } = self;
        match what {
            "trigger" => workspace.create_trigger(workspace.trigger(name, name)).await.map(drop),
            "plugin" => create_plugin(&workspace.client, &plugin(name)?).await,
            "secret" => workspace.put_secret(name, Some(name), &[("token", &workspace.user.token)]).await,
            "subscription" => {
                let mut subscription = workspace.subscription(name);
                subscription["spec"]["pluginRef"]["name"] = json!(name);
                subscription["spec"]["authorization"]["apiKey"]["secretRef"]["name"] = json!(name);
                workspace.create_subscription(subscription).await.map(drop)
            }
            other => bail!("there is no {other}"),
        }
    }

    async fn remove(&self) -> Result<()> {
        self.workspace.delete_subscription(&self.name).await?;
        self.workspace.is_gone(&self.name).await?;
        let plugins = Api::<TriggerPlugin>::all(self.workspace.client.clone());
        plugins.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

#[tokio::test]
async fn the_reverse_order_converges_and_is_never_failed_on_its_way() -> Result<()> {
    let workspace = Workspace::shared("reverse").await?;
    let parts = Parts { workspace: &workspace, name: workspace.namespace.clone() };
    let name: &'static str = parts.name.clone().leak();
    let (control_plane, namespace) = (workspace.control_plane, &workspace.namespace);
    let steps: [(&str, &[Expected]); 4] = [
        ("trigger", &[("workflowtriggers", name, "SubscriptionNotFound", IN_PROGRESS)]),
        (
            "subscription",
            &[
                ("subscriptions", name, "PluginNotFound", IN_PROGRESS),
                ("workflowtriggers", name, "SubscriptionNotReady", IN_PROGRESS),
            ],
        ),
        ("plugin", &[("subscriptions", name, "SecretNotFound", IN_PROGRESS)]),
        ("secret", &[("subscriptions", name, "Ready", CURRENT), ("workflowtriggers", name, "Bound", CURRENT)]),
    ];
    for (what, expected) in steps {
        parts.create(what).await?;
        expect(control_plane, namespace, expected).await?;
    }
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    parts.remove().await
}

#[tokio::test]
async fn every_order_converges() -> Result<()> {
    let workspace = Workspace::shared("orders").await?;
    let mut all = Vec::new();
    for order in orders(&["trigger", "subscription", "plugin", "secret"]) {
        let parts = Parts { workspace: &workspace, name: format!("{}-{}", workspace.namespace, all.len()) };
        for what in order {
            parts.create(what).await?;
        }
        all.push(parts);
    }
    ensure!(all.len() == 24);
    for parts in &all {
        workspace.subscription_is(&parts.name, "Ready", "True", "").await?;
        workspace.trigger_is(&parts.name, "True", "Bound").await?;
    }
    ensure!(workspace.hooks().await?.len() == 24, "one webhook each");
    for parts in &all {
        parts.remove().await?;
    }
    Ok(())
}

fn orders<'a>(of: &[&'a str]) -> Vec<Vec<&'a str>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for first in of {
        let rest: Vec<_> = of.iter().filter(|other| *other != first).copied().collect();
        all.extend(orders(&rest).into_iter().map(|order| [vec![*first], order].concat()));
    }
    all
}

/// A checkout of a team's git repository: the example's folder, and an overlay that fits it to the workspace.
struct Checkout<'a> {
    workspace: &'a Workspace<'static>,
    folder: PathBuf,
}

impl Checkout<'_> {
    fn new<'a>(workspace: &'a Workspace<'static>) -> Result<Checkout<'a>> {
        let folder = world::dir().join(format!("git-{}", workspace.namespace));
        let base = folder.join("team-a");
        std::fs::create_dir_all(&base)?;
        for entry in std::fs::read_dir(example("kustomize/team-a"))? {
            let path = entry?.path();
            std::fs::copy(&path, base.join(path.file_name().context("a name")?))?;
        }
        let checkout = Checkout { workspace, folder };
        let overlay = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": workspace.namespace,
            "resources": ["team-a"],
            "labels": [{"pairs": {"example.com/team": workspace.namespace}}],
            "patches": [
                {"target": {"kind": "Subscription"}, "patch": json!([
                    {"op": "replace", "path": "/spec/parameters/baseURL", "value": workspace.base_url},
                    {"op": "replace", "path": "/spec/parameters/owner", "value": workspace.user.name},
                ]).to_string()},
                {"target": {"kind": "WorkflowTrigger"}, "patch": json!([
                    {"op": "replace", "path": "/spec/runner", "value": {"url": workspace.runner.url()}},
                ]).to_string()},
            ],
        });
        std::fs::write(checkout.folder.join("kustomization.yaml"), overlay.to_string())?;
        Ok(checkout)
    }

    /// Changes one file as a commit would.
    fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let path = self.folder.join("team-a").join(file);
        let content = std::fs::read_to_string(&path)?;
        ensure!(content.contains(from), "{file} has no {from}");
        std::fs::write(path, content.replace(from, to))?;
        Ok(())
    }

    async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let folder = self.folder.display().to_string();
        self.workspace.control_plane.kubectl([args, &["-k", &folder]].concat()).await
    }

    async fn apply_and_wait(&self) -> Result<()> {
        self.kubectl(&["apply"]).await?;
        self.workspace.subscription_is("acme-web", "Ready", "True", "").await?;
        self.workspace.trigger_is("review-on-push", "True", "Bound").await?;
        Ok(())
    }

    async fn url(&self) -> Result<String> {
        callback_url(&self.workspace.api().get("acme-web").await?)
    }
}

#[tokio::test]
async fn what_was_applied_with_kustomize_does_not_drift() -> Result<()> {
    let workspace = Workspace::shared("drift").await?;
    let git = Checkout::new(&workspace)?;
    git.apply_and_wait().await?;
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;

    // It fails if there is a difference.
    git.kubectl(&["diff"]).await?;
    let again = git.kubectl(&["apply"]).await?;
    ensure!(again.lines().count() == 3 && again.lines().all(|line| line.ends_with(" unchanged")), "{again}");

    // Bellhop writes the status and the finalizer; the spec is its author's.
    let objects = workspace.control_plane.kubectl([
        "-n",
        &workspace.namespace,
        "get",
        ALL,
        "-o",
        "json",
        "--show-managed-fields",
    ]);
    let objects: Value = serde_json::from_str(&objects.await?)?;
    let mut writers = 0;
    for object in objects["items"].as_array().into_iter().flatten() {
        for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let manager = entry["manager"].as_str().unwrap_or_default();
            let of_the_spec = entry["fieldsV1"].get("f:spec").is_some();
            writers += usize::from(of_the_spec);
            ensure!(!of_the_spec || !manager.contains("bellhop"), "{manager} writes {}: {entry}", object["kind"]);
            ensure!(!of_the_spec || entry.get("subresource").is_none(), "{entry}");
        }
    }
    ensure!(writers >= 3, "somebody has written the specs: {objects}");
    Ok(())
}

#[tokio::test]
async fn an_immutable_subscription_is_replaced_from_git_and_keeps_its_url() -> Result<()> {
    let workspace = Workspace::shared("replace").await?;
    let git = Checkout::new(&workspace)?;
    git.apply_and_wait().await?;
    let url = git.url().await?;
    let uid = workspace.api::<Subscription>().get("acme-web").await?.uid();

    git.edit("subscription.yaml", "  authorization:", "  events: [push, issues]\n  authorization:")?;
    let refused = git.kubectl(&["apply"]).await.unwrap_err();
    ensure!(format!("{refused:#}").contains("a Subscription cannot be changed"), "{refused:#}");
    ensure!(workspace.api::<Subscription>().get("acme-web").await?.uid() == uid);

    // Deletes and creates what is refused, and nothing else: the namespace is in the same folder.
    let replaced = git.kubectl(&["apply", "--force", "--timeout=60s"]).await?;
    ensure!(replaced.lines().filter(|line| line.ends_with(" unchanged")).count() == 2, "{replaced}");
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    workspace.trigger_is("review-on-push", "True", "Bound").await?;
    let new = workspace.api::<Subscription>().get("acme-web").await?;
    ensure!(new.uid() != uid && git.url().await? == url, "another object with the same URL");
    ensure!(new.status.context("a status")?.events == ["push", "issues"]);
    ensure!(workspace.hooks().await?.len() == 1, "{:?}", workspace.hooks().await?);

    // The same with `kubectl replace --force` of the one file.
    git.edit("subscription.yaml", "[push, issues]", "[push]")?;
    let rendered = workspace.control_plane.kubectl(["kustomize", &git.folder.display().to_string()]).await?;
    let file = git.folder.join("rendered.yaml");
    let subscription =
        rendered.split("---\n").find(|document| document.contains("kind: Subscription")).context("one")?;
    std::fs::write(&file, subscription)?;
    workspace.control_plane.kubectl(["replace", "--force", "-f", &file.display().to_string()]).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    ensure!(git.url().await? == url && workspace.hooks().await?.len() == 1);
    workspace.trigger_is("review-on-push", "True", "Bound").await?;
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn pruning_a_subscription_deletes_its_webhook() -> Result<()> {
    let workspace = Workspace::shared("prune").await?;
    let git = Checkout::new(&workspace)?;
    git.apply_and_wait().await?;
    ensure!(workspace.hooks().await?.len() == 1);

    git.edit("kustomization.yaml", "- subscription.yaml\n", "")?;
    let label = format!("example.com/team={}", workspace.namespace);
    let kinds =
        ["Subscription", "WorkflowTrigger"].map(|kind| format!("--prune-allowlist=bellhop.dev/v1alpha1/{kind}"));
    let pruned = git.kubectl(&["apply", "--prune", "-l", &label, &kinds[0], &kinds[1]]).await?;
    let pruned: Vec<_> = pruned.lines().filter(|line| line.ends_with(" pruned")).collect();
    ensure!(pruned == ["subscription.bellhop.dev/acme-web pruned"], "{pruned:?}");
    workspace.is_gone("acme-web").await?;
    ensure!(workspace.hooks().await?.is_empty(), "the webhook is gone with it");
    workspace.trigger_is("review-on-push", "False", "SubscriptionNotFound").await?;
    Ok(())
}

#[tokio::test]
async fn a_cluster_rebuilt_from_git_with_the_key_adopts_its_webhooks() -> Result<()> {
    let world = world::shared().await;
    let mut old = Own::start("lost", &[]).await?;
    if old.control_plane.is_external() {
        eprintln!("left out: an existing cluster cannot be lost");
        return Ok(());
    }
    let workspace = Workspace::new(&old.control_plane, &world.gitea, "rebuilt").await?;
    let before = callback_url(&workspace.connect("acme-web", "review").await?)?;
    let secrets = Api::<Secret>::namespaced(workspace.client.clone(), NAMESPACE);
    let key = secrets.get("bellhop-installation-key").await?.data.context("the key has data")?;
    let port: u16 = old.bellhop.url().rsplit(':').next().context("a port")?.parse()?;
    // The cluster is lost: nobody deletes anything in the external system.
    old.bellhop.kill9();
    let Workspace { namespace, user, runner, base_url, .. } = workspace;
    drop(old);

    let new = ControlPlane::start(world::dir(), "control-plane-rebuilt").await?;
    install(&new).await?;
    let client = new.client().await?;
    for namespace in [NAMESPACE, &namespace] {
        new.kubectl(["create", "namespace", namespace]).await?;
    }
    let restored = json!({"apiVersion": "v1", "kind": "Secret", "data": key,
                          "metadata": {"name": "bellhop-installation-key", "namespace": NAMESPACE}});
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    secrets.create(&PostParams::default(), &serde_json::from_value(restored)?).await?;
    let workspace = Workspace { control_plane: &new, gitea: &world.gitea, client, namespace, user, runner, base_url };
    // Bellhop first or the objects first: neither matters.
    workspace.create_trigger(workspace.trigger("review", "acme-web")).await?;
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    let mut options = options("bellhop-rebuilt", &new);
    options.port = Some(port);
    let _bellhop = Bellhop::start(options).await?;
    workspace.put_secret(SECRET, Some("gitea"), &[("token", &workspace.user.token)]).await?;

    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    ensure!(callback_url(&workspace.api().get("acme-web").await?)? == before, "the same callback URL");
    let hooks = workspace.hooks().await?;
    ensure!(hooks.len() == 1 && hooks[0]["config"]["url"] == json!(before), "one webhook, adopted: {hooks:?}");
    workspace.trigger_is("review", "True", "Bound").await?;
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn the_examples_can_be_built_and_are_what_they_copy() -> Result<()> {
    let copy = std::fs::read_to_string(example("kustomize/platform/gitea.yaml"))?;
    let original = std::fs::read_to_string(example("../gitea-push/plugin.yaml"))?;
    ensure!(
        copy == original,
        "examples/gitops/kustomize/platform/gitea.yaml is a copy of examples/gitea-push/plugin.yaml"
    );

    let workspace = Workspace::shared("gitops-examples").await?;
    let folder = |path: &str| example(path).display().to_string();
    workspace.control_plane.kubectl(["apply", "--server-side", "-k", &folder("kustomize/platform")]).await?;
    for (path, expected) in [
        ("flux/bellhop", "kind: HelmRelease"),
        ("flux/team-a", "kind: WorkflowTrigger"),
        ("argocd/team-a", "argocd.argoproj.io/sync-options: Prune=confirm"),
    ] {
        let built = workspace.control_plane.kubectl(["kustomize", &folder(path)]).await?;
        ensure!(built.contains(expected), "{path} has no {expected}:\n{built}");
    }
    Ok(())
}
