//! What is wrong is said when it is applied, by the real API server's question to the controller; and nothing depends on
//! the answer.

use crate::support::{Own, PATIENCE, Workspace, note_secret};
use anyhow::{Context, Result, bail, ensure};
use bellhop::api::{Subscription, WorkflowTrigger};
use bellhop_harness::{eventually, world};
use k8s_openapi::api::admissionregistration::v1::{ValidatingWebhookConfiguration, WebhookClientConfig};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

const CONFIGURATION: &str = "bellhop-test";

/// What the chart renders, but for a controller outside of the cluster, and with time for a slow machine. No `caBundle`: the
/// controller puts it there. One more, for nothing that anybody has, is as the chart renders it.
async fn configure(own: &Own, workspace: &Workspace<'_>, failure_policy: &str) -> Result<()> {
    let webhook = |resource: &str, operations: &[&str]| {
        json!({
            "name": format!("{resource}.bellhop.dev"),
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": failure_policy,
            "timeoutSeconds": 30,
            "clientConfig": {"url": format!("{}/admission", own.bellhop.internal_url())},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": workspace.namespace}},
            "rules": [{
                "apiGroups": ["bellhop.dev"], "apiVersions": ["v1alpha1"], "scope": "Namespaced",
                "resources": [resource], "operations": operations,
            }],
        })
    };
    let mut as_in_the_chart = webhook("nothing", &["CREATE"]);
    let service = json!({"namespace": "bellhop-system", "name": "bellhop-internal", "port": 9443});
    as_in_the_chart["clientConfig"] = json!({"service": service});
    let object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": CONFIGURATION},
        "webhooks": [
            webhook("subscriptions", &["CREATE"]), webhook("workflowtriggers", &["CREATE", "UPDATE"]), as_in_the_chart,
        ],
    });
    let api = Api::<ValidatingWebhookConfiguration>::all(workspace.client.clone());
    let apply = async || api.patch(CONFIGURATION, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await;
    apply().await?;
    let told = |config: &WebhookClientConfig| {
        let path = config.service.as_ref().and_then(|service| service.path.as_deref());
        let address = path.or(config.url.as_deref()).unwrap_or_default();
        let token = address.rsplit_once("/admission/").map(|(_, token)| token.to_owned());
        config.ca_bundle.is_some().then_some(token).flatten()
    };
    let all_are_told = async || {
        eventually(PATIENCE, "the API server knows the authority and the path", async || {
            let webhooks = api.get(CONFIGURATION).await?.webhooks.unwrap_or_default();
            let tokens: Option<Vec<String>> = webhooks.iter().map(|webhook| told(&webhook.client_config)).collect();
            let tokens = tokens.with_context(|| format!("{webhooks:?}"))?;
            ensure!(tokens.len() == 3 && tokens.iter().all(|token| *token == tokens[0]), "{webhooks:?}");
            Ok(tokens[0].clone())
        })
        .await
    };
    let token = all_are_told().await?;
    // A pipeline that applies it again and again takes nothing away that it has not written.
    let webhooks = apply().await?.webhooks.unwrap_or_default();
    ensure!(webhooks.iter().all(|webhook| webhook.client_config.ca_bundle.is_some()), "applied again, it is gone");
    ensure!(told(&webhooks[2].client_config).as_ref() == Some(&token), "applied again, the path is gone");
    ensure!(all_are_told().await? == token, "what was written over is mended");

    // Whoever else reaches the listener is not answered.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let anybody = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build()?;
    for path in ["/admission", "/admission/", "/admission/0123456789abcdef"] {
        let answer = anybody.post(format!("{}{path}", own.bellhop.internal_url())).body("{}").send().await?;
        ensure!(answer.status() == 404, "{path}: {}", answer.status());
    }
    Ok(())
}

/// `kubectl apply`, as a person types it: standard output and error if it went well, standard error if not.
async fn apply(own: &Own, object: &Value, args: &[&str]) -> Result<Result<String, String>> {
    let mut command = own.control_plane.kubectl_command([&["apply", "-f", "-"], args].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = object.to_string();
    let output = tokio::task::spawn_blocking(move || -> Result<_> {
        let mut child = command.spawn()?;
        child.stdin.take().context("it has a standard input")?.write_all(input.as_bytes())?;
        Ok(child.wait_with_output()?)
    })
    .await??;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(if output.status.success() { Ok(format!("{out}{err}")) } else { Err(err.into_owned()) })
}

#[track_caller]
fn holds(result: Result<String, String>, refused: bool, words: &[&str]) -> Result<()> {
    let text = match (result, refused) {
        (Ok(text), false) | (Err(text), true) => text,
        (other, _) => bail!("refused: {refused}? {other:?}"),
    };
    // kubectl may escape quotes in warnings.
    let text = text.replace("\\\"", "\"");
    for word in words {
        ensure!(text.contains(word), "{word}: {text}");
    }
    Ok(())
}

/// The API server takes a moment to take up a configuration.
async fn is_asked(own: &Own, workspace: &Workspace<'_>) -> Result<()> {
    let mut unknown = workspace.subscription("not-there");
    unknown["spec"]["events"] = json!(["pusch"]);
    eventually(PATIENCE, "the controller is asked", async || {
        let words = ["admission webhook", "spec.events", "did you mean `push`"];
        holds(apply(own, &unknown, &["--dry-run=server"]).await?, true, &words)
    })
    .await
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_once_and_what_may_yet_is_let_in() -> Result<()> {
    let args = ["--admission-configuration", CONFIGURATION];
    let mut own = Own::start("admission", &args).await?;
    let workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "admission").await?;
    let workspace = &workspace;
    configure(&own, workspace, "Ignore").await?;
    is_asked(&own, workspace).await?;

    // Nothing is there yet: a pipeline may apply in any order.
    let trigger = |name: &str, spec: Value| {
        let mut trigger = workspace.trigger(name, "sub-0");
        spec.as_object().into_iter().flatten().for_each(|(field, value)| trigger["spec"][field] = value.clone());
        trigger
    };
    let early = apply(&own, &trigger("early", json!({})), &[]).await?;
    holds(early, false, &["Warning: ", "spec.subscriptionRef.name", "no Subscription \"sub-0\"", "created"])?;
    let mut no_plugin = workspace.subscription("no-plugin");
    no_plugin["spec"]["pluginRef"]["name"] = json!("not-yet");
    let no_plugin = apply(&own, &no_plugin, &[]).await?;
    holds(no_plugin, false, &["Warning: ", "there is no TriggerPlugin \"not-yet\"", "created"])?;

    // Ten are let in, the eleventh is not.
    for n in 0..10 {
        let dry = apply(&own, &workspace.subscription(&format!("sub-{n}")), &["--dry-run=server"]).await?;
        holds(dry, false, &["created (server dry run)"])?;
        holds(apply(&own, &workspace.subscription(&format!("sub-{n}")), &[]).await?, false, &["created"])?;
    }
    let names = "(sub-0, sub-1, sub-2, sub-3, sub-4, sub-5, sub-6, sub-7, sub-8, sub-9)";
    let in_words = |message: &str| {
        // Those that were not accepted yet when the eleventh came are in the order of their names, too.
        let open = message.find('(').unwrap_or(0);
        let listed = message[open + 1..message[open..].find(')').map_or(message.len(), |end| open + end)].split(", ");
        let mut listed: Vec<_> = listed.collect();
        listed.sort_unstable();
        format!("({})", listed.join(", "))
    };
    let count = format!("10 of 10 Subscriptions of the plugin \"gitea\" in the namespace {}", workspace.namespace);
    let eleventh = workspace.subscription("sub-10");
    for args in [&[][..], &["--dry-run=server"], &["--server-side"]] {
        let Err(refusal) = apply(&own, &eleventh, args).await? else { bail!("the eleventh is let in: {args:?}") };
        let from = refusal.find(&count).with_context(|| refusal.clone())?;
        ensure!(in_words(&refusal[from..]) == names && refusal.contains("delete one of them first"), "{refusal}");
    }
    // What is there is applied again.
    holds(apply(&own, &workspace.subscription("sub-3"), &[]).await?, false, &["unchanged"])?;
    workspace.subscription_is("sub-0", "Ready", "True", "").await?;
    workspace.trigger_is("early", "True", "Bound").await?;

    let wrong = [
        (json!({"event": "pusch"}), &["spec.event", "did you mean `push`"][..]),
        (json!({"parameters": {"branhces": ["main"]}}), &["spec.parameters.branhces", "did you mean `branches`"]),
        (json!({"parameters": {"branches": "main"}}), &["spec.parameters.branches"]),
        (json!({"filter": "variables.commits.size( > 0"}), &["spec.filter"]),
        (json!({"filter": "variables.comits.size() > 0"}), &["spec.filter", "commits"]),
    ];
    for (spec, words) in &wrong {
        for args in [&[][..], &["--dry-run=server"]] {
            holds(apply(&own, &trigger("wrong", spec.clone()), args).await?, true, words)?;
        }
        // A change is as bad as a new one.
        holds(apply(&own, &trigger("early", spec.clone()), &[]).await?, true, words)?;
    }
    holds(
        apply(&own, &trigger("right", json!({"parameters": {"branches": ["main"]}})), &[]).await?,
        false,
        &["created"],
    )?;
    ensure!(workspace.api::<WorkflowTrigger>().get_opt("wrong").await?.is_none());
    for (kind, outcome) in [("Subscription", "refused"), ("Subscription", "warned"), ("WorkflowTrigger", "refused")] {
        let labels = [format!("kind=\"{kind}\""), format!("outcome=\"{outcome}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let counted = own.bellhop.metric("bellhop_admissions_total", &labels).await?;
        ensure!(counted >= 1.0, "{kind} {outcome}: {counted}");
    }

    // Nothing depends on the controller.
    own.bellhop.kill9();
    holds(apply(&own, &eleventh, &[]).await?, false, &["created"])?;
    holds(apply(&own, &trigger("wrong", json!({"event": "pusch"})), &[]).await?, false, &["created"])?;
    own.bellhop.restart().await?;
    let message = workspace.subscription_is("sub-10", "Accepted", "False", "QuotaExceeded").await?;
    ensure!(message.starts_with(&count) && in_words(&message) == names, "{message}");
    let message = workspace.trigger_is("wrong", "False", "UnknownEvent").await?;
    ensure!(message.contains("did you mean `push`"), "{message}");
    // Whoever wants to touch it without changing it, or delete it, can.
    is_asked(&own, workspace).await?;
    own.control_plane.kubectl(["-n", &workspace.namespace, "label", "workflowtriggers", "wrong", "a=b"]).await?;
    own.control_plane.kubectl(["-n", &workspace.namespace, "delete", "workflowtriggers", "wrong"]).await?;

    // A place that gets free can be taken.
    for name in ["sub-10", "sub-4"] {
        workspace.delete_subscription(name).await?;
        workspace.is_gone(name).await?;
    }
    holds(apply(&own, &eleventh, &[]).await?, false, &["created"])?;
    workspace.subscription_is("sub-10", "Ready", "True", "").await?;
    let left = workspace.api::<Subscription>().list(&Default::default()).await?.items.len();
    ensure!(left == 11, "{left}");
    Ok(())
}

/// Certificates and authorities that last a minute: the API server is answered all the time, and it would let nothing in
/// if it were not.
#[tokio::test]
async fn a_certificate_and_its_authority_are_renewed_without_a_gap() -> Result<()> {
    let lives = ["--certificate-life", "45s", "--authority-life", "75s"];
    let args = [&["--admission-configuration", CONFIGURATION], &lives[..]].concat();
    let own = Own::start("certificates", &args).await?;
    let workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "certificates").await?;
    configure(&own, &workspace, "Fail").await?;
    is_asked(&own, &workspace).await?;
    let system = Api::<Secret>::namespaced(workspace.client.clone(), crate::support::NAMESPACE);
    let published = Api::<Secret>::namespaced(workspace.client.clone(), crate::support::INGRESS_NAMESPACE);
    let stored = async || -> Result<Value> {
        let secret = system.get("bellhop-certificates").await?;
        Ok(serde_json::from_slice(&secret.data.context("it has data")?["certificates.json"].0)?)
    };
    let first = stored().await?;
    note_secret(first["key"].as_str().context("it has a key")?)?;
    let mut unknown = workspace.subscription("not-there");
    unknown["spec"]["events"] = json!(["pusch"]);
    let api = workspace.api::<Subscription>();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let (start, mut asked) = (Instant::now(), 0);
    // The certificate that was there when the authority had just been replaced, and when that was replaced in its turn.
    let (mut of_the_former, mut renewed) = (None, None::<Instant>);
    while renewed.is_none_or(|renewed| renewed.elapsed() < Duration::from_secs(5)) {
        ensure!(start.elapsed() < Duration::from_secs(300), "not both were renewed: {of_the_former:?}");
        let error = api.create(&dry, &serde_json::from_value(unknown.clone())?).await.unwrap_err().to_string();
        ensure!(error.contains("did you mean `push`"), "after {:?}: {error}", start.elapsed());
        asked += 1;
        let now = stored().await?;
        if now["authority"]["pem"] != first["authority"]["pem"] {
            let former = of_the_former.get_or_insert_with(|| now["leaf"]["pem"].clone());
            if now["leaf"]["pem"] != *former {
                renewed.get_or_insert_with(Instant::now);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let last = stored().await?;
    ensure!(asked >= 10, "asked {asked} times only");
    ensure!(first["key"] == last["key"], "the key of the ingress is not renewed with them");
    eventually(PATIENCE, "the ingress is told", async || {
        let secret = published.get("controller").await?;
        let told: Value = serde_json::from_slice(&secret.data.context("it has data")?["controller.json"].0)?;
        let newest = stored().await?;
        let authority = newest["authority"]["pem"].as_str().context("a PEM")?.trim().to_owned();
        ensure!(
            told["key"] == newest["key"] && told["authorities"].as_str().is_some_and(|pem| pem.contains(&authority))
        );
        Ok(())
    })
    .await
}
