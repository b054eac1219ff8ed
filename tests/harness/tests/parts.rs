//! The test world works: parts start, stop, come back, and are gone afterwards.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bellhop_harness::build::{self, Part, say};
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::git::Checkout;
use bellhop_harness::gitea::Gitea;
use bellhop_harness::process::Process;
use bellhop_harness::proxy::{Action, Hold, Proxy};
use bellhop_harness::runner::{Reply, Runner};
use bellhop_harness::{eventually, http, world};
use reqwest::Method;

const TIMEOUT: Duration = Duration::from_secs(20);

fn is_alive(pid: u32) -> bool {
    // A zombie is dead.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with(['Z', 'X'])))
}

fn sleep_for_ever(name: &str) -> Result<Process> {
    Process::spawn(name, Command::new("sleep").arg("1000"), &world::log_dir().join(format!("{name}.log")))
}

#[tokio::test]
async fn a_child_is_killed_with_its_handle_or_terminated() -> Result<()> {
    let child = sleep_for_ever("dropped")?;
    let pid = child.pid();
    assert!(is_alive(pid));
    drop(child);
    assert!(!is_alive(pid));

    let mut child = sleep_for_ever("terminated")?;
    let status = child.terminate(TIMEOUT).await?;
    assert!(!status.success());

    let mut child = Process::spawn("failing", Command::new("sh").args(["-c", "echo oh no; exit 3"]), &{
        world::log_dir().join("failing.log")
    })?;
    let error = child.wait_ready(TIMEOUT, async || anyhow::bail!("not yet")).await.unwrap_err();
    assert!(format!("{error:#}").contains("exit status: 3") && format!("{error:#}").contains("oh no"), "{error:#}");
    Ok(())
}

/// Not a test: the process that the next test kills.
#[test]
#[ignore = "started by children_die_with_a_killed_parent"]
fn parent_to_be_killed() -> Result<()> {
    // The child has a child, too.
    let script = "sleep 1000 & echo $! >\"$0\"; wait";
    let Ok(file) = std::env::var("GRANDCHILD_FILE") else { return Ok(()) };
    let child = Process::spawn("orphan", Command::new("sh").args(["-c", script, &file]), Path::new("/dev/null"))?;
    println!("child={}", child.pid());
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}

#[tokio::test]
async fn children_die_with_a_killed_parent() -> Result<()> {
    let file = world::dir().join("grandchild");
    let mut parent = Command::new(std::env::current_exe()?)
        .args(["--exact", "parent_to_be_killed", "--ignored", "--nocapture"])
        .env("GRANDCHILD_FILE", &file)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(parent.stdout.take().context("no output")?).lines();
    let child: u32 = lines
        .find_map(|line| line.ok()?.rsplit_once("child=")?.1.trim().parse().ok())
        .context("the parent did not say which child it has")?;
    let grandchild: u32 =
        eventually(TIMEOUT, "the grandchild's id", async || Ok(std::fs::read_to_string(&file)?.trim().parse()?))
            .await?;
    assert!(is_alive(child) && is_alive(grandchild));
    parent.kill()?;
    parent.wait()?;
    eventually(TIMEOUT, "the end of the orphans", async || {
        ensure!(!is_alive(child) && !is_alive(grandchild), "they live");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_control_plane_stops_and_comes_back() -> Result<()> {
    build::ensure_async(&Part::CONTROL_PLANE).await?;
    let started = Instant::now();
    let control_plane = ControlPlane::start(world::dir(), "own-control-plane").await?;
    say(&format!("control plane: ready in {:.1} s", started.elapsed().as_secs_f64()));
    if control_plane.is_external() {
        return Ok(());
    }
    let namespace = control_plane.create_namespace("test").await?;
    let version = control_plane.kubectl(["version", "-o", "json"]).await?;
    let version: serde_json::Value = serde_json::from_str(&version)?;
    assert_eq!(version["serverVersion"]["gitVersion"], version["clientVersion"]["gitVersion"]);

    let client = control_plane.client().await?;
    control_plane.stop_api_server().await?;
    assert!(client.apiserver_version().await.is_err());
    let started = Instant::now();
    control_plane.start_api_server().await?;
    say(&format!("API server: back in {:.1} s", started.elapsed().as_secs_f64()));
    let found = control_plane.kubectl(["get", "namespace", &namespace, "-o", "name"]).await?;
    assert_eq!(found.trim(), format!("namespace/{namespace}"));

    // The controllers work again, too: a namespace goes away.
    let started = Instant::now();
    control_plane.kubectl(["delete", "namespace", &namespace, "--timeout=60s"]).await?;
    say(&format!("deleting a namespace: {:.1} s", started.elapsed().as_secs_f64()));

    let port: u16 = control_plane.url().context("no URL")?.rsplit(':').next().context("no port")?.parse()?;
    drop(control_plane);
    TcpListener::bind(("127.0.0.1", port)).context("the port is not free again")?;
    Ok(())
}

#[tokio::test]
async fn gitea_calls_webhooks_and_comes_back() -> Result<()> {
    build::ensure_async(&[Part::Gitea]).await?;
    let started = Instant::now();
    let gitea = Gitea::start(world::dir(), "own-gitea").await?;
    say(&format!("Gitea: ready, with an administrator, in {:.1} s", started.elapsed().as_secs_f64()));
    let started = Instant::now();
    let owner = gitea.create_user("acme").await?;
    gitea.create_repository(&owner, "web").await?;
    say(&format!("Gitea: a user, a token and a repository in {:.2} s", started.elapsed().as_secs_f64()));

    let runner = Runner::start()?;
    gitea.create_hook(&owner, "web", &format!("{}/hook", runner.url()), "secret", &["push"]).await?;
    assert_eq!(gitea.hooks(&owner, "web").await?.len(), 1);
    let commit = gitea.commit_file(&owner, "web", "main", "a.txt", "hello", "first").await?;
    let requests = runner.wait_for(1, TIMEOUT).await?;
    assert_eq!(requests[0].header("X-Gitea-Event"), Some("push"));
    assert_eq!(requests[0].json()?["after"], commit.as_str());

    let started = Instant::now();
    gitea.stop().await?;
    say(&format!("Gitea: stopped in {:.1} s", started.elapsed().as_secs_f64()));
    assert!(gitea.hooks(&owner, "web").await.is_err());
    let started = Instant::now();
    gitea.start_again().await?;
    say(&format!("Gitea: back in {:.1} s", started.elapsed().as_secs_f64()));

    let clone = Checkout::clone_of(&gitea.clone_url(&owner, "web"), &world::dir().join("clone")).await?;
    let commit = clone.commit("b.txt", "hello", "second").await?;
    clone.push("main").await?;
    let requests = runner.wait_for(2, TIMEOUT).await?;
    assert_eq!(requests[1].json()?["after"], commit.as_str());

    let id = gitea.hooks(&owner, "web").await?[0]["id"].as_u64().context("no id")?;
    gitea.delete_hook(&owner, "web", id).await?;
    assert_eq!(gitea.hooks(&owner, "web").await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_runner_records_answers_and_restarts() -> Result<()> {
    let runner = Runner::start()?;
    let url = format!("{}/runs?x=1", runner.url());
    runner.respond_with(|request| match request.json().map(|body| body == 2) {
        Ok(true) => Reply::status(503).header("retry-after", "7").after(Duration::from_millis(50)),
        Ok(false) => Reply::ok().body("done"),
        Err(_) => Reply::dropped(),
    });
    let (status, body) = http::json(Method::POST, &url, Some("token x"), Some(&1.into())).await?;
    assert_eq!((status.as_u16(), body.as_str()), (200, Some("done")));
    let answer = http::client().post(&url).body("2").send().await?;
    assert_eq!(answer.headers()["retry-after"], "7");
    assert!(http::client().post(&url).body("{").send().await.is_err());
    let requests = runner.wait_for(3, TIMEOUT).await?;
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("POST", "/runs?x=1"));
    assert_eq!(requests[0].header("Authorization"), Some("token x"));

    runner.stop();
    assert!(http::client().get(&url).send().await.is_err());
    runner.start_again()?;
    runner.respond_with(|_| Reply::ok());
    http::get_ok(&url).await?;
    assert_eq!(runner.count(), 4);
    assert!(runner.wait_for(5, Duration::from_millis(10)).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_runner_holds_many_requests() -> Result<()> {
    const CLIENTS: usize = 8;
    const EACH: usize = 2_500;
    let runner = Runner::start()?;
    http::install_crypto();
    let started = Instant::now();
    let url = runner.url();
    futures::future::try_join_all((0..CLIENTS).map(async |_| {
        // Unlike the shared one, it keeps its connection.
        let client = reqwest::Client::new();
        for _ in 0..EACH {
            client.post(&url).body("{\"workflow\": \"review\"}").send().await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    runner.wait_for(CLIENTS * EACH, TIMEOUT).await?;
    say(&format!("runner: {} requests in {:.1} s", runner.count(), started.elapsed().as_secs_f64()));
    Ok(())
}

#[tokio::test]
async fn a_proxy_loses_holds_and_answers_calls() -> Result<()> {
    let upstream = Runner::start()?;
    upstream.respond_with(|request| Reply::status(201).header("x-path", &request.path));
    let proxy = Proxy::start(&upstream.url())?;
    let url = format!("{}/a/b?c=%2F", proxy.url());
    let post = || http::client().post(&url).body("hello").send();

    let answer = post().await?;
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-path"]), (201, &"/a/b?c=%2F".parse()?));
    assert_eq!(&upstream.requests()[0].body[..], b"hello");

    proxy.on_call(|_| Action::Respond(Reply::status(429).header("retry-after", "1")));
    assert_eq!(post().await?.status(), 429);
    proxy.on_call(|_| Action::Drop);
    assert!(post().await.is_err());
    assert_eq!(upstream.count(), 1);
    proxy.on_call(|_| Action::ForwardThenDrop);
    assert!(post().await.is_err());
    assert_eq!(upstream.count(), 2);

    let hold = Hold::new();
    proxy.on_call({
        let hold = hold.clone();
        move |_| Action::ForwardThenHold(hold.clone())
    });
    let held = tokio::spawn(post());
    hold.reached(TIMEOUT).await?;
    assert_eq!(upstream.count(), 3);
    assert!(!held.is_finished());
    hold.release();
    assert_eq!(held.await??.status(), 201);
    assert_eq!(proxy.count("POST", |path| path == "/a/b"), 5);
    Ok(())
}

#[tokio::test]
async fn waiting_in_vain_says_for_what() {
    let waited = eventually(Duration::from_millis(50), "the moon", async || -> Result<()> { anyhow::bail!("too far") });
    let message = format!("{:#}", waited.await.unwrap_err());
    assert!(message.contains("the moon") && message.contains("too far"), "{message}");
}

async fn use_the_shared_world() -> Result<PathBuf> {
    let world = world::shared().await;
    world.control_plane.create_namespace("shared").await?;
    http::get_ok(&format!("{}/api/v1/version", world.gitea.url())).await?;
    Ok(world.control_plane.kubeconfig().to_owned())
}

#[tokio::test]
async fn tests_share_a_world() -> Result<()> {
    let first = use_the_shared_world().await?;
    // Another test, with a runtime of its own.
    let second = std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(use_the_shared_world())
    });
    assert_eq!(first, second.join().expect("no panic")?);
    Ok(())
}
