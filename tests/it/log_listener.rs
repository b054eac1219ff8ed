//! The request log as the controller asks for it: over TLS, with the key and the authority that are published.

use crate::bad_input::sign;
use crate::support::{INGRESS_NAMESPACE, PATIENCE, Pair, Workspace, callback_secret, install, note_secret};
use anyhow::{Context, Result, ensure};
use bellhop::api::Subscription;
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::{eventually, world};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::net::SocketAddr;

const SERVER: &str = "bellhop-ingress.bellhop.internal";

/// Asks as the controller does.
pub struct Asker {
    http: reqwest::Client,
    url: String,
    key: String,
}

impl Asker {
    pub fn new(published: &Value, address: SocketAddr) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("it is text");
        let roots = reqwest::Certificate::from_pem_bundle(text(&published["authorities"])?.as_bytes())?;
        let http = reqwest::Client::builder().tls_certs_only(roots).resolve(SERVER, address).build()?;
        Ok(Self { http, url: format!("https://{SERVER}:{}", address.port()), key: text(&published["key"])? })
    }

    async fn ask(&self, path: &str) -> Result<(u16, Value)> {
        let answer = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.key).send().await?;
        Ok((answer.status().as_u16(), serde_json::from_str(&answer.text().await?)?))
    }

    /// Follows a question from the moment at which this ends, for as long as the answer is kept.
    pub async fn follow(&self, path: &str) -> Result<reqwest::Response> {
        let mut answer = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.key).send().await?;
        ensure!(answer.status() == 200, "{path}: {}", answer.status());
        let mut told = String::new();
        while !told.contains("BOOKMARK") {
            let chunk = tokio::time::timeout(PATIENCE, answer.chunk()).await.context("nothing is told")??;
            told.push_str(std::str::from_utf8(&chunk.context("it has ended")?)?);
        }
        Ok(answer)
    }

    /// The requests of a question, newest first.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let (status, page) = self.ask(path).await?;
        ensure!(status == 200, "{path}: {status} {page}");
        Ok(page["items"].as_array().context("a list")?.clone())
    }
}

/// What is published for the ingress: the Subscription's token, and how the controller asks for the log.
pub async fn published(workspace: &Workspace<'_>, subscription: &Subscription) -> Result<(String, Value)> {
    let published = Api::<Secret>::namespaced(workspace.client.clone(), INGRESS_NAMESPACE);
    let read = async |name: &str, key: &str| -> Result<Value> {
        let secret = published.get(name).await?;
        Ok(serde_json::from_slice(&secret.data.context("it has data")?[key].0)?)
    };
    let route = read(&format!("route-{}", subscription.uid().context("a UID")?), "route.json").await?;
    let controller = read("controller", "controller.json").await?;
    note_secret(controller["key"].as_str().context("a key")?)?;
    let private = controller["log"]["key"].as_str().context("a private key")?;
    note_secret(private.lines().nth(1).context("a line of it")?)?;
    Ok((route["token"].as_str().context("a token")?.to_owned(), controller))
}

#[tokio::test]
async fn every_request_can_be_found_out_about_and_delivered_again() -> Result<()> {
    let world = world::shared().await;
    let control_plane = ControlPlane::start(world::dir(), "control-plane-log").await?;
    install(&control_plane).await?;
    let workspace = Workspace::new(&control_plane, &world.gitea, "log").await?;
    let mut pair = Pair::start("log", &control_plane)?;
    let subscription = workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.create_trigger(workspace.trigger("review", "acme-web")).await?;
    let mut release = workspace.trigger("release", "acme-web");
    release["spec"]["parameters"] = json!({"branches": ["release/*"]});
    workspace.create_trigger(release).await?;
    workspace.subscription_is("acme-web", "Ready", "False", "RouteNotLive").await?;

    let (token, controller) = published(&workspace, &subscription).await?;
    let asker = Asker::new(&controller, pair.log_address)?;
    let secret = callback_secret(&workspace.client, &subscription).await?;
    let url = format!("{}/hooks/{token}", pair.public_url);
    let post = async |proof: Option<&str>| -> Result<u16> {
        let body = json!({"ref": "refs/heads/main", "commits": [], "echo": secret}).to_string();
        let proof = proof.map_or_else(|| sign(&secret, body.as_bytes()), str::to_owned);
        let request = reqwest::Client::new().post(format!("{url}?token=hush-Q7x2")).header("x-gitea-event", "push");
        let request = request.header("x-gitea-signature", proof).header("x-gitea-delivery", "d-1");
        let request = request.header("authorization", "Basic hush-Q7x2").header("content-type", "application/json");
        Ok(request.body(body).send().await?.status().as_u16())
    };
    let log = format!("/log/{}/requests", workspace.namespace);

    // Without a proof of who sends it.
    eventually(PATIENCE, "the log knows of a refused request", async || {
        ensure!(post(Some(&"0".repeat(64))).await? == 401);
        ensure!(!asker.list(&log).await?.is_empty(), "nothing yet");
        Ok(())
    })
    .await?;
    ensure!(post(None).await? == 200);
    workspace.runner.wait_for(1, PATIENCE).await?;
    ensure!(post(None).await? == 200);

    let outcomes = eventually(PATIENCE, "the delivery is told", async || {
        let all = asker.list(&log).await?;
        let outcomes: Vec<String> =
            all.iter().filter_map(|r| r["outcome"].as_str().map(str::to_owned)).take(3).collect();
        ensure!(outcomes.contains(&"Delivered".to_owned()), "{outcomes:?}");
        Ok(outcomes)
    })
    .await?;
    ensure!(outcomes == ["Duplicate", "Delivered", "Refused"], "{outcomes:?}");
    let refused = asker.list(&format!("{log}?outcome=Refused&limit=1")).await?.remove(0);
    ensure!(refused["answer"]["status"] == 401 && refused["answer"]["reason"] == "Unverified", "{refused}");
    ensure!(refused["verification"]["verified"] == false, "{refused}");

    let found = asker.list(&format!("{log}?trigger=review&event=push&outcome=Delivered")).await?;
    let [one] = found.as_slice() else { anyhow::bail!("{found:?}") };
    ensure!(one["received"].get("body").is_none() && one["received"].get("headers").is_none(), "{one}");
    let id = one["metadata"]["uid"].as_str().context("a UID")?.to_owned();
    let (status, whole) = asker.ask(&format!("{log}/{id}")).await?;
    ensure!(status == 200, "{status} {whole}");
    let text = whole.to_string();
    ensure!(!text.contains(&secret) && !text.contains("hush-Q7x2"), "a secret is shown: {text}");
    ensure!(text.contains(r#"{"name":"authorization","value":"***"}"#), "{text}");
    ensure!(whole["received"]["query"] == "token=***", "{whole}");
    ensure!(whole["received"]["body"]["text"].as_str().is_some_and(|body| body.contains("refs/heads/main")), "{whole}");
    ensure!(whole["answer"]["afterMillis"].is_u64() && whole["subscription"]["plugin"] == "gitea", "{whole}");
    let triggers = whole["events"][0]["triggers"].as_array().context("triggers")?;
    let named = |name: &str| triggers.iter().find(|trigger| trigger["name"] == name).context("it was held against it");
    ensure!(named("release")?["reason"].as_str().is_some_and(|why| why.contains("branches")), "{whole}");
    ensure!(named("review")?["delivery"]["attempts"][0]["status"] == 200, "{whole}");

    // Nobody else may ask, and nobody sees what is another namespace's.
    let keyless = asker.http.get(format!("{}{log}", asker.url)).send().await?;
    ensure!(keyless.status() == 401, "{}", keyless.status());
    let stranger = reqwest::Client::builder().resolve(SERVER, pair.log_address).build()?;
    ensure!(stranger.get(format!("{}{log}", asker.url)).send().await.is_err(), "its authority is not a public one");
    ensure!(asker.list("/log/default/requests").await?.is_empty());
    ensure!(asker.ask(&format!("/log/default/requests/{id}")).await?.0 == 404);

    // Delivered again, under the same id, and the watch tells it.
    let question = format!("{}{log}?watch=true&trigger=review", asker.url);
    let mut watch = asker.http.get(question).bearer_auth(&asker.key).send().await?;
    let first = watch.chunk().await?.context("a line")?;
    ensure!(serde_json::from_slice::<Value>(&first)?["type"] == "BOOKMARK");
    let wish = json!({"trigger": "review", "by": "jane"}).to_string();
    let answer = asker.http.post(format!("{}{log}/{id}/replay", asker.url)).bearer_auth(&asker.key).body(wish);
    let answer: Value = serde_json::from_str(&answer.send().await?.text().await?)?;
    let again = workspace.runner.wait_for(2, PATIENCE).await?;
    ensure!(answer["deliveries"][0]["event"].as_str() == again[1].header("ce-id"), "{answer}");
    ensure!(again[0].header("ce-id") == again[1].header("ce-id"));
    let told = watch.chunk().await?.context("a line")?;
    let told: Value = serde_json::from_slice(told.split(|byte| *byte == b'\n').next().context("a line")?)?;
    ensure!(told["type"] == "ADDED" && told["object"]["metadata"]["uid"] == id.as_str(), "{told}");

    // What is stored outlives a crash; what is not does not.
    eventually(PATIENCE, "the second delivery is told", async || {
        let whole = asker.ask(&format!("{log}/{id}")).await?.1;
        ensure!(whole["outcome"] == "Delivered", "{whole}");
        Ok(())
    })
    .await?;
    pair.restart_ingress()?;
    let after = eventually(PATIENCE, "the log is there again", async || asker.list(&log).await).await?;
    ensure!(after.len() == 1 && after[0]["metadata"]["uid"] == id.as_str(), "{after:?}");
    let (_, whole) = asker.ask(&format!("{log}/{id}")).await?;
    ensure!(whole["answer"]["afterMillis"].is_u64(), "{whole}");
    let review = whole["events"][0]["triggers"].as_array().context("triggers")?.iter().find(|t| t["name"] == "review");
    let review = review.context("it was held against it")?;
    ensure!(review["replayed"]["by"] == "jane" && review["delivery"]["state"] == "Delivered", "{review}");
    ensure!(review["delivery"]["attempts"].as_array().is_some_and(|attempts| attempts.len() == 2), "{review}");
    workspace.runner.stop();
    Ok(())
}
