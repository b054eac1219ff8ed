//! Every bad input gets an answer that says what is wrong and what would be right.

use crate::support::{PATIENCE, SECRET, Workspace, callback_secret, callback_url, shared};
use anyhow::{Context, Result, ensure};
use bellhop::api::{Subscription, TriggerPlugin};
use bellhop_harness::eventually;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use reqwest::StatusCode;
use serde_json::json;

#[tokio::test]
async fn a_plugin_that_does_not_exist_is_waited_for() -> Result<()> {
    let workspace = Workspace::shared("no-plugin").await?;
    let mut object = workspace.subscription("acme-web");
    object["spec"]["pluginRef"]["name"] = json!("gittea");
    workspace.create_subscription(object).await?;
    let message = workspace.subscription_is("acme-web", "Accepted", "False", "PluginNotFound").await?;
    ensure!(message.contains("spec.pluginRef.name") && message.contains("gittea"), "{message}");
    workspace.create_trigger(workspace.trigger("review", "no-such-subscription")).await?;
    let message = workspace.trigger_is("review", "False", "SubscriptionNotFound").await?;
    ensure!(message.contains("no-such-subscription"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_broken_expression_is_named_with_field_and_position() -> Result<()> {
    let workspace = Workspace::shared("broken-cel").await?;
    let plugins = Api::<TriggerPlugin>::all(workspace.client.clone());
    let mut plugin = plugins.get("gitea").await?;
    plugin.metadata = kube::api::ObjectMeta { name: Some("broken".into()), ..Default::default() };
    plugin.status = None;
    plugin.spec.callback.event = "request.headers[".into();
    plugin.spec.events[0].variables.values_mut().next().context("a variable")?.value = "bodi.ref".into();
    plugins.create(&PostParams::default(), &plugin).await?;
    let message = eventually(PATIENCE, "the plugin says what is wrong", async || {
        let status = plugins.get("broken").await?.status.context("no status")?;
        let ready = status.conditions.into_iter().find(|c| c.type_ == "Ready").context("no Ready")?;
        ensure!(ready.status == "False" && ready.reason == "InvalidPlugin", "{ready:?}");
        Ok(ready.message)
    })
    .await?;
    ensure!(message.contains("spec.callback.event") && message.contains("1:"), "{message}");
    ensure!(message.contains("spec.events[0].variables.") && message.contains("bodi"), "{message}");

    let mut object = workspace.subscription("acme-web");
    object["spec"]["pluginRef"]["name"] = json!("broken");
    workspace.create_subscription(object).await?;
    workspace.subscription_is("acme-web", "Accepted", "False", "PluginNotReady").await?;

    // Mended, it is taken up without anybody touching the Subscription.
    let good = plugins.get("gitea").await?.spec;
    let patch = json!({"spec": serde_json::to_value(good)?});
    plugins.patch("broken", &PatchParams::default(), &Patch::Merge(patch)).await?;
    workspace.put_secret(SECRET, Some("broken"), &[("token", &workspace.user.token)]).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    plugins.delete("broken", &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn wrong_parameters_and_events_are_named() -> Result<()> {
    let workspace = Workspace::shared("parameters").await?;
    let mut wrong_type = workspace.subscription("wrong-type");
    wrong_type["spec"]["parameters"]["owner"] = json!(7);
    workspace.create_subscription(wrong_type).await?;
    let message = workspace.subscription_is("wrong-type", "Accepted", "False", "InvalidParameters").await?;
    ensure!(message.contains("spec.parameters.owner") && message.contains("string"), "{message}");

    let mut wrong_event = workspace.subscription("wrong-event");
    wrong_event["spec"]["events"] = json!(["pusch"]);
    workspace.create_subscription(wrong_event).await?;
    let message = workspace.subscription_is("wrong-event", "Accepted", "False", "UnknownEvent").await?;
    ensure!(message.contains("pusch") && message.contains("push"), "{message}");

    workspace.connect("acme-web", "review").await?;
    let mut trigger = workspace.trigger("bad-parameter", "acme-web");
    trigger["spec"]["parameters"] = json!({"branches": "main"});
    workspace.create_trigger(trigger).await?;
    let message = workspace.trigger_is("bad-parameter", "False", "InvalidParameters").await?;
    ensure!(message.contains("branches"), "{message}");

    let mut trigger = workspace.trigger("bad-filter", "acme-web");
    trigger["spec"]["filter"] = json!("variables.commits.size( > 0");
    workspace.create_trigger(trigger).await?;
    let message = workspace.trigger_is("bad-filter", "False", "InvalidFilter").await?;
    ensure!(message.contains("spec.filter") && message.contains("1:"), "{message}");

    let mut trigger = workspace.trigger("bad-runner", "acme-web");
    trigger["spec"]["runner"] = json!({"url": "https://elsewhere.example.com/run"});
    workspace.create_trigger(trigger).await?;
    let message = workspace.trigger_is("bad-runner", "False", "RunnerNotAllowed").await?;
    ensure!(message.contains("elsewhere.example.com"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_says_why_and_is_taken_up_when_it_can() -> Result<()> {
    let workspace = Workspace::shared("secrets").await?;
    workspace.api::<Secret>().delete(SECRET, &DeleteParams::default()).await?;
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    let message = workspace.subscription_is("acme-web", "Authorized", "False", "SecretNotFound").await?;
    ensure!(message.contains("spec.authorization.apiKey.secretRef.name") && message.contains(SECRET), "{message}");

    workspace.put_secret(SECRET, None, &[("token", &workspace.user.token)]).await?;
    // An unlabelled Secret is none of Bellhop's business and is not watched; another change makes it look.
    let poke = json!({"metadata": {"annotations": {"poke": "1"}}});
    workspace.api::<Subscription>().patch("acme-web", &PatchParams::default(), &Patch::Merge(poke)).await?;
    let message = workspace.subscription_is("acme-web", "Authorized", "False", "SecretNotLabelled").await?;
    ensure!(message.contains("bellhop.dev/credentials-for=gitea"), "{message}");

    workspace.put_secret(SECRET, Some("gitea"), &[("password", "not-a-token")]).await?;
    workspace
        .api::<Secret>()
        .patch(SECRET, &PatchParams::default(), &Patch::Merge(json!({"data": {"token": null}})))
        .await?;
    let message = workspace.subscription_is("acme-web", "Authorized", "False", "SecretKeyMissing").await?;
    ensure!(message.contains("`token`") && message.contains("password"), "{message}");
    ensure!(!message.contains("not-a-token"), "{message}");

    workspace.put_secret(SECRET, Some("gitea"), &[("token", "0123456789abcdef0123456789abcdef01234567")]).await?;
    let message = workspace.subscription_is("acme-web", "Authorized", "False", "CredentialsRefused").await?;
    ensure!(message.contains("answered 401: "), "Gitea's own words: {message}");
    ensure!(!message.contains("0123456789abcdef"), "{message}");
    ensure!(workspace.hooks().await?.is_empty(), "nothing is created before the credentials are confirmed");

    workspace.put_secret(SECRET, Some("gitea"), &[("token", &workspace.user.token)]).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    workspace.collect(shared().await).await
}

#[tokio::test]
async fn callbacks_that_prove_nothing_are_refused() -> Result<()> {
    let workspace = Workspace::shared("callbacks").await?;
    let subscription = workspace.connect("acme-web", "review").await?;
    let url = callback_url(&subscription)?;
    let secret = callback_secret(&workspace.client, &subscription).await?;
    workspace.fires(&subscription, "review", &workspace.runner).await?;
    let client = reqwest::Client::new();
    let body = br#"{"ref": "refs/heads/main", "commits": []}"#;
    let good = sign(&secret, body);
    let post = async |url: &str, signature: Option<&str>, body: Bytes| -> Result<StatusCode> {
        let mut request = client.post(url).header("x-gitea-event", "push").header("content-type", "application/json");
        request = request.header("x-gitea-delivery", uuid::Uuid::new_v4().to_string());
        if let Some(signature) = signature {
            request = request.header("x-gitea-signature", signature);
        }
        Ok(request.body(body).send().await?.status())
    };
    let send = async |signature: Option<&str>| post(&url, signature, Bytes::from_static(body)).await;

    ensure!(send(None).await? == 401, "missing");
    ensure!(send(Some("")).await? == 401, "empty");
    ensure!(send(Some(&good[..62])).await? == 401, "truncated");
    ensure!(send(Some(&format!("{good}00"))).await? == 401, "too long");
    ensure!(send(Some("zz")).await? == 401, "not hexadecimal");
    ensure!(send(Some(&sign("another secret", body))).await? == 401, "another secret");
    ensure!(send(Some(&sign("", body))).await? == 401, "an empty secret");
    ensure!(
        post(&format!("{}/hooks/{}", shared().await.url(), "A".repeat(43)), Some(&good), Bytes::from_static(body))
            .await?
            == 404
    );

    let no_json = b"{\"ref\": ";
    ensure!(post(&url, Some(&sign(&secret, no_json)), Bytes::from_static(no_json)).await? == 400, "no JSON");
    let large = Bytes::from(vec![b' '; 6 * 1024 * 1024]);
    ensure!(post(&url, Some(&sign(&secret, &large)), large.clone()).await? == 413, "6 MiB with Content-Length");
    ensure!(chunked(&url, &large).await? == 413, "6 MiB in chunks");
    ensure!(workspace.runner.count() == 0, "none of these may run anything");

    ensure!(send(Some(&good)).await? == 200, "the right one");
    workspace.runner.wait_for(1, PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn a_redelivery_runs_nothing_twice() -> Result<()> {
    let workspace = Workspace::shared("dedupe").await?;
    let subscription = workspace.connect("acme-web", "review").await?;
    let secret = callback_secret(&workspace.client, &subscription).await?;
    workspace.fires(&subscription, "review", &workspace.runner).await?;
    let body = br#"{"ref": "refs/heads/main", "commits": []}"#;
    for _ in 0..3 {
        let request = reqwest::Client::new()
            .post(callback_url(&subscription)?)
            .header("x-gitea-event", "push")
            .header("x-gitea-delivery", "the-same-delivery")
            .header("x-gitea-signature", sign(&secret, body))
            .header("content-type", "application/json")
            .body(body.to_vec());
        ensure!(request.send().await?.status() == 200);
    }
    workspace.runner.wait_for(1, PATIENCE).await?;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    ensure!(workspace.runner.count() == 1, "{} runs", workspace.runner.count());
    Ok(())
}

/// Sends a body in chunks, without Content-Length, and gives the status of the answer.
async fn chunked(url: &str, body: &[u8]) -> Result<u16> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let url: url::Url = url.parse()?;
    let address = format!("{}:{}", url.host_str().context("host")?, url.port().context("port")?);
    let stream = tokio::net::TcpStream::connect(&address).await?;
    let (mut reader, mut writer) = stream.into_split();
    let head = format!("POST {} HTTP/1.1\r\nhost: {address}\r\ntransfer-encoding: chunked\r\n\r\n", url.path());
    writer.write_all(head.as_bytes()).await?;
    let chunks = body.to_vec();
    // The listener stops reading at the limit, so that not all of it can be written.
    let write = tokio::spawn(async move {
        for chunk in chunks.chunks(64 * 1024) {
            let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
            if writer.write_all(&framed).await.is_err() {
                break;
            }
        }
        let _ = writer.write_all(b"0\r\n\r\n").await;
        // To drop the writer would be to close the connection.
        std::future::pending::<()>().await;
    });
    let mut answer = vec![0; 64];
    let length = reader.read(&mut answer).await?;
    write.abort();
    let line = String::from_utf8_lossy(&answer[..length]).into_owned();
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).with_context(|| format!("no status in {line:?}"))
}

/// What Gitea writes into `X-Gitea-Signature`.
pub fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of every length");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}
