//! The commands of a person who works with Bellhop, as that person has them: the real binary, a kubeconfig, a terminal.

mod listening;
mod log;
mod plugin;
mod real_log;
mod rights;
mod stand_in;
mod terminal;
mod wizard;

use crate::oauth::support::{OAuth, consent_at_gitea, plugin_like_gitea};
use crate::support::{PATIENCE, SECRET, Workspace, shared};
use anyhow::{Context, Result, ensure};
use bellhop::api::Subscription;
use bellhop_harness::browser::Browser;
use bellhop_harness::{eventually, world};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a command printed and how it ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| self.stdout.clone())
    }
}

/// The command, with the workspace's cluster and namespace.
fn command(workspace: &Workspace<'_>, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellhop"));
    command.args(args).args(["-n", &workspace.namespace]).env("KUBECONFIG", workspace.control_plane.kubeconfig());
    command.env_remove("NO_COLOR");
    command
}

/// Runs a command to its end, with nobody at a terminal. What it prints is kept for the search for secrets.
pub async fn run(workspace: &Workspace<'_>, args: &[&str]) -> Result<Ended> {
    ended(command(workspace, args)).await
}

/// Runs a command to its end, which has to come soon.
pub async fn ended(command: Command) -> Result<Ended> {
    let mut command = tokio::process::Command::from(command);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.context("the command does not end")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ended = Ended {
        code: output.status.code().context("an exit code")?,
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    let mut seen = std::fs::File::options().create(true).append(true).open(world::log_dir().join("cli.txt"))?;
    writeln!(seen, "{}{}", ended.stdout, ended.stderr)?;
    Ok(ended)
}

#[tokio::test]
async fn status_says_what_is_not_ready_and_ends_with_4() -> Result<()> {
    let workspace = Workspace::shared("cli-status").await?;
    let nothing = run(&workspace, &["status"]).await?;
    ensure!((nothing.code, nothing.stdout.as_str(), nothing.stderr.as_str()) == (0, "", ""), "{}", nothing.stdout);

    workspace.create_trigger(workspace.trigger("review", "acme-web")).await?;
    workspace.trigger_is("review", "False", "SubscriptionNotFound").await?;
    let missing = run(&workspace, &["status"]).await?;
    ensure!(missing.code == 4 && missing.stderr.is_empty(), "{} {}", missing.code, missing.stderr);
    let fields: Vec<_> = missing.stdout.trim_end().split('\t').collect();
    let [kind, name, reason, age, message] = fields.as_slice() else { panic!("{fields:?}") };
    ensure!((*kind, *name, *reason) == ("WorkflowTrigger", "review", "SubscriptionNotFound"), "{fields:?}");
    ensure!(age.ends_with('s') && message.contains("there is no Subscription \"acme-web\""), "{fields:?}");
    let names = run(&workspace, &["status", "-o", "name"]).await?;
    ensure!(names.stdout == "workflowtrigger.bellhop.dev/review\n", "{}", names.stdout);
    let report = run(&workspace, &["status", "-o", "json"]).await?.json()?;
    ensure!(report["ready"] == false && report["workflowTriggers"] == json!({"total": 1, "ready": 0}), "{report}");
    ensure!(report["notReady"][0]["reason"] == "SubscriptionNotFound", "{report}");

    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.trigger_is("review", "True", "Bound").await?;
    let ready = run(&workspace, &["status", "-o", "json"]).await?;
    ensure!(ready.code == 0 && ready.json()?["subscriptions"] == json!({"total": 1, "ready": 1}), "{}", ready.stdout);
    workspace.collect(shared().await).await
}

#[tokio::test]
async fn a_wrong_command_line_a_missing_object_and_a_missing_cluster_have_codes_of_their_own() -> Result<()> {
    let workspace = Workspace::shared("cli-codes").await?;
    for (args, code, words) in [
        (&["status", "--no-such-option"][..], 2, "unexpected argument"),
        (&["events", "gitee"], 3, "there is no TriggerPlugin gitee in this cluster"),
        (&["authorize", "acme-web"], 3, "there is no Subscription acme-web in the namespace cli-codes-"),
        (&["create", "subscription", "gitea", "--name", "a"], 2, "missing: --parameter baseURL=VALUE"),
        (&["status", "--context", "nowhere"], 1, "the kubeconfig"),
        (&["status", "--kubeconfig", "/nowhere"], 1, "the kubeconfig"),
    ] {
        let ended = run(&workspace, args).await?;
        ensure!(ended.code == code && ended.stderr.contains(words), "{args:?}: {} {}", ended.code, ended.stderr);
        ensure!(ended.stdout.is_empty(), "{args:?}: {}", ended.stdout);
    }
    // Whoever reads the first line alone does not see an error.
    let mut command = command(&workspace, &["events", "gitea"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    drop(child.stdout.take());
    let output = child.wait_with_output()?;
    ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    Ok(())
}

#[tokio::test]
async fn events_are_told_to_people_and_to_programs() -> Result<()> {
    let workspace = Workspace::shared("cli-events").await?;
    let names = run(&workspace, &["events", "gitea", "-o", "name"]).await?;
    ensure!(names.stdout.lines().any(|name| name == "push"), "{}", names.stdout);
    let lines = run(&workspace, &["events", "gitea", "--event", "push"]).await?;
    ensure!(lines.stdout.lines().any(|line| line.starts_with("push\tvariable\tref\tstring\t")), "{}", lines.stdout);
    ensure!(lines.stdout.lines().all(|line| line.starts_with("push\t")), "{}", lines.stdout);
    let document = run(&workspace, &["events", "gitea", "-o", "json"]).await?.json()?;
    let push = document["events"].as_array().into_iter().flatten().find(|event| event["name"] == "push");
    ensure!(push.context("push")?["parameters"]["branches"]["schema"]["type"] == "array", "{document}");
    let unknown = run(&workspace, &["events", "gitea", "--event", "pusch"]).await?;
    ensure!(unknown.code == 3 && unknown.stderr.contains("it has push,"), "{}", unknown.stderr);
    Ok(())
}

#[tokio::test]
async fn a_subscription_is_made_from_flags_as_a_manifest_or_in_the_cluster() -> Result<()> {
    let workspace = Workspace::shared("cli-create").await?;
    let (base_url, owner) = (format!("baseURL={}", workspace.base_url), format!("owner={}", workspace.user.name));
    let mut args = vec!["create", "subscription", "gitea", "--api-key-secret", SECRET, "--event", "push"];
    args.extend(["-p", &base_url, "-p", &owner, "-p", "repository=web", "--name"]);

    let printed = run(&workspace, &[&args[..], &["by-hand"]].concat()).await?;
    ensure!(printed.code == 0 && printed.stderr.is_empty(), "{}", printed.stderr);
    ensure!(workspace.api::<Subscription>().get_opt("by-hand").await?.is_none(), "it was only printed");
    let file = world::log_dir().join(format!("{}.yaml", workspace.namespace));
    std::fs::write(&file, &printed.stdout)?;
    workspace.control_plane.apply_file(&file).await?;
    workspace.subscription_is("by-hand", "Ready", "True", "").await?;

    let applied = run(&workspace, &[&args[..], &["acme-web", "--apply"]].concat()).await?;
    ensure!((applied.code, applied.stdout.as_str()) == (0, "subscription.bellhop.dev/acme-web applied\n"));
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    let subscription = workspace.api::<Subscription>().get("acme-web").await?;
    ensure!(subscription.spec.events == Some(vec!["push".to_owned()]), "{:?}", subscription.spec);
    let managers: Vec<_> = subscription.managed_fields().iter().filter_map(|one| one.manager.clone()).collect();
    ensure!(managers.contains(&"kubectl-bellhop".to_owned()), "{managers:?}");

    // What cannot be changed is refused in the API server's words.
    let mut other = [&args[..], &["acme-web", "--apply"]].concat();
    other[6] = "release";
    let refused = run(&workspace, &other).await?;
    ensure!(refused.code == 1 && refused.stderr.contains("cannot be changed"), "{}", refused.stderr);
    workspace.collect(shared().await).await
}

/// Starts `bellhop authorize`, gives the link that it prints, and what to wait for.
async fn authorize(workspace: &Workspace<'_>, name: &str) -> Result<(String, std::process::Child)> {
    let mut command = command(workspace, &["authorize", name, "--timeout", "60s"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("its output")?;
    let (link, child) = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map(|_| (line.trim_end().to_owned(), child))
    })
    .await??;
    Ok((link, child))
}

async fn said(child: std::process::Child) -> Result<(Option<i32>, String)> {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[tokio::test]
async fn authorize_waits_for_the_consent_or_its_refusal() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("cli-authorize").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    plugin_like_gitea(&workspace, "gitea-cli", &json!({})).await?;
    oauth.connectable("acme-web", "gitea-cli").await?;

    let (link, child) = authorize(&workspace, "acme-web").await?;
    ensure!(link.starts_with(&bellhop.url()) && link.contains("/oauth/start/"), "{link}");
    let mut browser = Browser::new();
    consent_at_gitea(&workspace, &mut browser, &link, false).await?;
    let (code, words) = said(child).await?;
    ensure!(code == Some(4) && words.contains("access_denied"), "{code:?} {words}");

    // The refusal is there from before; another consent is waited for all the same.
    let (link, child) = authorize(&workspace, "acme-web").await?;
    consent_at_gitea(&workspace, &mut browser, &link, true).await?;
    let (code, words) = said(child).await?;
    let expected = format!("is authorized as {} and Ready", workspace.user.name);
    ensure!(code == Some(0) && words.contains(&expected), "{code:?} {words}");

    // Nothing is left to consent to.
    let again = run(&workspace, &["authorize", "acme-web"]).await?;
    ensure!(again.code == 0 && again.stdout.is_empty(), "{} {}", again.code, again.stdout);
    let document = run(&workspace, &["authorize", "acme-web", "-o", "json"]).await?.json()?;
    let expected = json!({"name": "acme-web", "account": workspace.user.name, "ready": true});
    ensure!(document == expected, "{document}");
    let named = run(&workspace, &["authorize", "acme-web", "-o", "name"]).await?;
    ensure!(named.stdout == "subscription.bellhop.dev/acme-web\n", "{}", named.stdout);
    workspace.create_subscription(workspace.subscription("by-key")).await?;
    let by_key = run(&workspace, &["authorize", "by-key"]).await?;
    ensure!(by_key.code == 2 && by_key.stderr.contains("authorized by apiKey"), "{}", by_key.stderr);
    workspace.collect(bellhop).await
}

#[tokio::test]
async fn authorize_gives_up_after_the_time_that_it_was_given() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("cli-timeout").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    plugin_like_gitea(&workspace, "gitea-cli-timeout", &json!({})).await?;
    oauth.connectable("acme-web", "gitea-cli-timeout").await?;
    workspace.subscription_is("acme-web", "Authorized", "False", "AuthorizationRequired").await?;
    let ended = run(&workspace, &["authorize", "acme-web", "--timeout", "1s", "-o", "yaml"]).await?;
    // Programs read standard output, people the link.
    ensure!(ended.stdout.is_empty() && ended.stderr.contains("/oauth/start/"), "{} {}", ended.stdout, ended.stderr);
    ensure!(
        ended.code == 4 && ended.stderr.contains("not Ready after 1s: nobody has consented at"),
        "{}",
        ended.stderr
    );
    Ok(())
}

#[tokio::test]
async fn kubectl_finds_it_as_a_plugin_and_completes_it() -> Result<()> {
    let workspace = Workspace::shared("cli-plugin").await?;
    let folder = tempfile::tempdir()?;
    let plugin = folder.path().join("kubectl-bellhop");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_bellhop"), &plugin)?;
    std::os::unix::fs::symlink(&plugin, folder.path().join("kubectl_complete-bellhop"))?;
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH")?);
    let kubectl = async |args: &[&str]| {
        let mut command = workspace.control_plane.kubectl_command(args);
        command.env("PATH", &path);
        ended(command).await
    };
    workspace.create_trigger(workspace.trigger("review", "acme-web")).await?;
    workspace.trigger_is("review", "False", "SubscriptionNotFound").await?;
    let status = kubectl(&["bellhop", "status", "-n", &workspace.namespace]).await?;
    ensure!(status.code == 4 && status.stdout.contains("SubscriptionNotFound"), "{} {}", status.code, status.stderr);
    let help = kubectl(&["bellhop", "--help"]).await?;
    ensure!(help.stdout.contains("Usage: kubectl bellhop "), "{}", help.stdout);
    ensure!(!help.stdout.contains("uninstall-notice"), "{}", help.stdout);
    let offered = kubectl(&["__complete", "bellhop", "st"]).await?;
    ensure!(offered.stdout.starts_with("status\t"), "{} {}", offered.stdout, offered.stderr);

    for (shell, word) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef bellhop"),
        ("fish", "complete -c bellhop"),
        ("powershell", "Register-"),
    ] {
        let script = Command::new(env!("CARGO_BIN_EXE_bellhop")).args(["completion", shell]).output()?;
        let script = String::from_utf8(script.stdout)?;
        ensure!(script.contains(word) && script.contains("authorize"), "{shell}: {script}");
    }
    Ok(())
}

/// Waits until a Subscription exists.
async fn exists(workspace: &Workspace<'_>, name: &str) -> Result<Subscription> {
    let api = workspace.api::<Subscription>();
    eventually(Duration::from_secs(30), &format!("Subscription {name} exists"), async || Ok(api.get(name).await?)).await
}
