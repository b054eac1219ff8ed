//! `bellhop plugin` as an author runs it: the binary in a folder, with no cluster, no kubeconfig and no home.

use super::Ended;
use crate::support::PATIENCE;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

/// Runs `bellhop plugin` in a folder, to its end, with nothing of the environment but where programs are.
async fn plugin(folder: &Path, args: &[&str], stdin: Option<&str>) -> Result<Ended> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_bellhop"));
    command.arg("plugin").args(args).current_dir(folder).env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().context("it has an input")?;
    let text = stdin.unwrap_or_default().to_owned();
    let feed = async move {
        // Who does not read it, need not.
        let _ = input.write_all(text.as_bytes()).await;
    };
    let (output, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(child.wait_with_output(), feed) }).await?;
    let output = output?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes);
    let code = output.status.code().context("an exit code")?;
    Ok(Ended { code, stdout: text(output.stdout)?, stderr: text(output.stderr)? })
}

/// The position of a text in a file, counted from 1.
fn position(text: &str, of: &str) -> Result<(u64, u64)> {
    let before = &text[..text.find(of).with_context(|| format!("{of:?} is in the file"))?];
    let line = before.lines().count().max(1) as u64 + u64::from(before.ends_with('\n'));
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
    Ok((line, column))
}

#[tokio::test]
async fn an_author_needs_no_cluster() -> Result<()> {
    let folder = TempDir::new()?;
    let run = async |args: &[&str]| plugin(folder.path(), args, None).await;
    let begun = run(&["init", "helpdesk"]).await?;
    ensure!((begun.code, begun.stderr.as_str()) == (0, ""), "{} {}", begun.code, begun.stderr);
    let file = folder.path().join("helpdesk/plugin.yaml");
    let source = std::fs::read_to_string(&file)?;

    // What it has written is right.
    let lint = run(&["lint", "helpdesk/plugin.yaml", "--deny-warnings"]).await?;
    ensure!(lint.code == 0 && lint.stderr.is_empty(), "{}{}", lint.stdout, lint.stderr);
    let lint = run(&["lint", "helpdesk/plugin.yaml", "--output", "json"]).await?;
    ensure!(lint.code == 0 && lint.json()? == json!([]), "{}", lint.stdout);
    let test = run(&["test", "helpdesk", "--output", "json"]).await?;
    let cases = test.json()?;
    ensure!(test.code == 0 && !cases.as_array().context("a list")?.is_empty(), "{}{}", test.stdout, test.stderr);
    for case in cases.as_array().context("a list")? {
        ensure!(case["passed"] == true && case.get("differences").is_none(), "{case}");
    }

    // Nothing is overwritten.
    let again = run(&["init", "helpdesk"]).await?;
    ensure!(again.code != 0 && again.stderr.contains("helpdesk"), "{} {}", again.code, again.stderr);
    ensure!(std::fs::read_to_string(&file)? == source);

    let schema = run(&["schema"]).await?;
    let kind = &schema.json()?["properties"]["kind"];
    ensure!(schema.code == 0 && kind.to_string().contains("TriggerPlugin"), "{kind}");
    Ok(())
}

#[tokio::test]
async fn mistakes_have_their_place_and_end_with_1() -> Result<()> {
    let folder = TempDir::new()?;
    let run = async |args: &[&str], stdin: Option<&str>| plugin(folder.path(), args, stdin).await;
    run(&["init", "helpdesk"], None).await?;
    let source = std::fs::read_to_string(folder.path().join("helpdesk/plugin.yaml"))?;
    // Two mistakes of different sorts, both of which are found at once.
    let wrong = source.replacen("displayName:", "displayNam:", 1).replacen("event: body.", "event: bodi.", 1);
    ensure!(wrong.matches("displayNam:").count() == 1 && wrong.contains("bodi."), "the file has both: {wrong}");
    std::fs::write(folder.path().join("wrong.yaml"), &wrong)?;
    let by_name = run(&["lint", "wrong.yaml", "-o", "json"], None).await?;
    let by_input = run(&["lint", "-", "-o", "json"], Some(&wrong)).await?;
    for (ended, name) in [(&by_name, "wrong.yaml"), (&by_input, "-")] {
        ensure!(ended.code == 1 && ended.stderr.contains("mistake"), "{} {}", ended.code, ended.stderr);
        let problems: Vec<Value> = serde_json::from_value(ended.json()?)?;
        for word in ["displayNam", "bodi"] {
            let place = position(&wrong, word)?;
            let here = |problem: &&Value| {
                (problem["line"].as_u64(), problem["column"].as_u64()) == (Some(place.0), Some(place.1))
            };
            let problem = problems.iter().find(here).with_context(|| format!("{word} at {place:?}: {problems:#?}"))?;
            ensure!(problem["file"] == name && problem["severity"] == "error", "{problem}");
            ensure!(problem["message"].as_str().is_some_and(|message| message.contains(word)), "{problem}");
        }
    }
    // The same for a person: file, line and column.
    let shown = run(&["lint", "wrong.yaml"], None).await?;
    let (line, column) = position(&wrong, "bodi")?;
    ensure!(shown.code == 1 && shown.stdout.contains(&format!("wrong.yaml:{line}:{column}")), "{}", shown.stdout);
    let names = run(&["lint", "wrong.yaml", "helpdesk/plugin.yaml", "-o", "name"], None).await?;
    ensure!((names.code, names.stdout.as_str()) == (1, "wrong.yaml\n"), "{} {}", names.code, names.stdout);

    // What is no YAML has a place, too.
    std::fs::write(folder.path().join("broken.yaml"), "kind: TriggerPlugin\nspec: [unclosed\n")?;
    let broken = run(&["lint", "broken.yaml", "-o", "json"], None).await?;
    let problems = broken.json()?;
    ensure!(broken.code == 1 && problems[0]["line"].as_u64().is_some_and(|line| line >= 2), "{problems}");
    ensure!(problems[0]["severity"] == "error" && problems[0]["column"].as_u64().is_some(), "{problems}");

    // A case that is not as expected.
    std::fs::write(folder.path().join("helpdesk/plugin.yaml"), source.replacen("sha256", "sha1", 1))?;
    let differs = run(&["test", "helpdesk", "-o", "json"], None).await?;
    let cases = differs.json()?;
    ensure!(differs.code == 1 && cases[0]["passed"] == false, "{} {cases}", differs.code);
    ensure!(cases[0]["differences"][0]["problem"].is_string(), "{cases}");
    Ok(())
}

#[tokio::test]
async fn what_is_missing_ends_with_3_and_what_is_typed_wrongly_with_2() -> Result<()> {
    let folder = TempDir::new()?;
    std::fs::create_dir(folder.path().join("empty"))?;
    std::fs::write(folder.path().join("other.yaml"), "kind: ConfigMap\n")?;
    std::fs::write(folder.path().join("binary.yaml"), [0xff, 0xfe, 0x00])?;
    let cases: [(&[&str], i32, &str); 9] = [
        (&["lint", "nowhere.yaml"], 3, "nowhere.yaml"),
        (&["lint", "other.yaml"], 3, "no TriggerPlugin"),
        (&["test", "nowhere"], 3, "nowhere"),
        (&["test", "empty"], 3, "empty"),
        (&["lint", "binary.yaml"], 2, "binary.yaml"),
        (&["lint", "empty"], 2, "empty"),
        (&["lint"], 2, "FILE"),
        (&["test"], 2, "DIR"),
        (&["lint", "other.yaml", "--output", "table"], 2, "table"),
    ];
    for (args, code, words) in cases {
        let ended = plugin(folder.path(), args, None).await?;
        ensure!(ended.code == code && ended.stderr.contains(words), "{args:?}: {} {}", ended.code, ended.stderr);
    }
    Ok(())
}
