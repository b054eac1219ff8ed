//! The commands for the request log as users who may read it, work with it, or neither.

use super::{Ended, command, ended};
use crate::request_log::{certificate_user, left_out, roles, the_one, token_user};
use crate::support::{PATIENCE, Workspace};
use anyhow::{Result, ensure};
use serde_json::json;
use std::path::Path;

/// Runs a command as somebody with a kubeconfig of their own, in this namespace.
async fn as_user(kubeconfig: &Path, workspace: &Workspace<'_>, args: &[&str]) -> Result<Ended> {
    let mut command = command(workspace, args);
    command.env("KUBECONFIG", kubeconfig);
    ended(command).await
}

#[tokio::test]
async fn each_user_gets_what_their_role_allows_and_one_line_for_the_rest() -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let (a, b) = (&Workspace::shared("cli-rights").await?, &Workspace::shared("cli-others").await?);
    for workspace in [a, b] {
        roles(workspace).await?;
        workspace.connect("acme-web", "review").await?;
        let mut draft = workspace.trigger("draft", "acme-web");
        draft["spec"]["mode"] = json!("Draft");
        workspace.create_trigger(draft).await?;
        workspace.trigger_is("draft", "True", "Draft").await?;
        workspace.push("main", "a.txt").await?;
        workspace.runner.wait_for(1, PATIENCE).await?;
    }
    let (of_a, of_b) = (the_one(a, "outcome=Delivered").await?, the_one(b, "outcome=Delivered").await?);
    // Who, whether they read, whether they work.
    let users = [
        ("viewer", token_user(a, "viewer", "viewer").await?, true, false),
        ("certified viewer", certificate_user(a, "certified", "viewer").await?, true, false),
        ("editor", token_user(a, "editor", "editor").await?, true, true),
        ("certified editor", certificate_user(a, "certified-editor", "editor").await?, true, true),
        ("nobody", token_user(a, "nobody", "no-such-role").await?, false, false),
    ];
    for (who, kubeconfig, reads, works) in &users {
        let code = |may: &bool, code: i32| if *may { code } else { 1 };
        for (workspace, name, may_read, may_work) in [(a, &of_a, reads, works), (b, &of_b, &false, &false)] {
            // Who may not is told so before the time is over.
            let time = if *may_work { "1s" } else { "10s" };
            let cases: [(&[&str], i32); 6] = [
                (&["logs", "acme-web"], code(may_read, 0)),
                (&["explain", name], code(may_read, 0)),
                (&["replay", name, "--trigger", "review"], code(may_work, 0)),
                (&["replay", "--dead-letters", "review"], code(may_read, 0)),
                (&["send", "acme-web", "--event", "push", "--wait"], code(may_work, 0)),
                // Nothing comes while it listens.
                (&["listen", "draft", "--for", time], code(may_work, 4)),
            ];
            for (args, expected) in cases {
                let told = as_user(kubeconfig, workspace, args).await?;
                let shown = format!("{who} in {}: {args:?}: {} {:?}", workspace.namespace, told.code, told.stderr);
                ensure!(told.code == expected, "{shown}, not {expected}; {}", told.stdout);
                if expected == 1 {
                    let line = told.stderr.strip_suffix('\n').unwrap_or_default();
                    ensure!(told.stdout.is_empty() && !line.contains('\n'), "{shown} {}", told.stdout);
                    ensure!(line.contains("forbidden") && line.contains(&workspace.namespace), "{shown}");
                }
            }
        }
    }
    // Nothing was done by who may not.
    ensure!(b.runner.count() == 1, "{} in the other workspace", b.runner.count());
    a.runner.wait_for(5, PATIENCE).await?;
    Ok(())
}
