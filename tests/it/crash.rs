//! A 2xx answer means that the event is on disk: kill -9 under load loses nothing and invents nothing.

use crate::bad_input::sign;
use crate::support::{Own, PATIENCE, Workspace, callback_secret, callback_url};
use anyhow::{Result, ensure};
use bellhop_harness::{eventually, world};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KILLS: usize = 20;
const SENDERS: usize = 64;

#[derive(Default)]
struct Ledger {
    sent: AtomicUsize,
    acknowledged: Mutex<HashSet<String>>,
    stop: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_under_load_lose_nothing() -> Result<()> {
    let mut own = Own::start("kills", &[]).await?;
    let control_plane = &own.control_plane;
    let workspace = Workspace::new(control_plane, &world::shared().await.gitea, "kills").await?;
    let subscription = workspace.connect("acme-web", "review").await?;
    let url = callback_url(&subscription)?;
    let secret = callback_secret(&workspace.client, &subscription).await?;
    workspace.fires(&subscription, "review", &workspace.runner).await?;

    let ledger = Arc::new(Ledger::default());
    let senders: Vec<_> =
        (0..SENDERS).map(|sender| tokio::spawn(send(sender, url.clone(), secret.clone(), ledger.clone()))).collect();
    for kill in 0..KILLS {
        // A moment that no two kills share, between right after the start and well into the work.
        let moment = 37 + (kill as u64 * 7919) % 400;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        own.bellhop.kill9();
        own.bellhop.restart().await?;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // A slow machine has sent little by now.
    let enough = eventually(2 * PATIENCE, "enough was sent and acknowledged", async || {
        let sent = ledger.sent.load(Ordering::Relaxed);
        let acknowledged = ledger.acknowledged.lock().expect("no sender panicked").len();
        ensure!(sent >= 1000 && acknowledged >= 500, "{acknowledged} of {sent} were acknowledged");
        Ok(())
    })
    .await;
    ledger.stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await?;
    }
    enough?;

    let acknowledged = ledger.acknowledged.lock().expect("no sender panicked").clone();
    let sent = ledger.sent.load(Ordering::Relaxed);
    let delivered = eventually(Duration::from_secs(180), "every acknowledged event is delivered", async || {
        let delivered: HashSet<String> = workspace
            .runner
            .requests()
            .iter()
            .filter_map(|run| Some(run.json().ok()?["ref"].as_str()?.strip_prefix("refs/heads/")?.to_owned()))
            .collect();
        let missing = acknowledged.difference(&delivered).count();
        ensure!(missing == 0, "{missing} of {} are missing", acknowledged.len());
        Ok(delivered)
    })
    .await?;
    for name in &delivered {
        let sequence: Option<(usize, usize)> =
            name.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        ensure!(sequence.is_some_and(|(sender, _)| sender < SENDERS), "{name} was never sent");
    }
    ensure!(delivered.len() <= sent, "{} delivered of {sent} sent", delivered.len());
    eprintln!(
        "{KILLS} kills: {sent} sent, {} acknowledged, {} delivered in {} attempts",
        acknowledged.len(),
        delivered.len(),
        workspace.runner.count()
    );
    Ok(())
}

async fn send(sender: usize, url: String, secret: String, ledger: Arc<Ledger>) {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().expect("a client");
    for number in 0.. {
        if ledger.stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("{sender}-{number}");
        let body = format!("{{\"ref\": \"refs/heads/{name}\", \"commits\": []}}");
        ledger.sent.fetch_add(1, Ordering::Relaxed);
        let request = client
            .post(&url)
            .header("x-gitea-event", "push")
            .header("x-gitea-delivery", &name)
            .header("x-gitea-signature", sign(&secret, body.as_bytes()))
            .header("content-type", "application/json")
            .body(body);
        match request.send().await {
            Ok(answer) if answer.status().is_success() => {
                ledger.acknowledged.lock().expect("no sender panicked").insert(name);
            }
            // Refused, reset or not there: never acknowledged, so it may be lost.
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
