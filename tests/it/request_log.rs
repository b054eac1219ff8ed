//! The request log as people read it: by kubectl, through the real API server, each with their own rights.

use crate::support::{PATIENCE, Workspace, callback_url, note_secret, shared};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use bellhop::api::Subscription;
use bellhop_harness::{eventually, world};
use http::StatusCode;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};

const RESOURCE: &str = "requests.log.bellhop.dev";

/// What kubectl printed, or its error; as the administrator, or as somebody with a kubeconfig of their own.
async fn kubectl(workspace: &Workspace<'_>, who: Option<&Path>, args: &[&str]) -> Result<Result<String, String>> {
    let mut command = command(workspace, who, args);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(if output.status.success() { Ok(format!("{out}{err}")) } else { Err(err.into_owned()) })
}

fn command(workspace: &Workspace<'_>, who: Option<&Path>, args: &[&str]) -> Command {
    let mut command = workspace.control_plane.kubectl_command(args);
    if let Some(kubeconfig) = who {
        command.env("KUBECONFIG", kubeconfig);
    }
    command
}

async fn printed(workspace: &Workspace<'_>, args: &[&str]) -> Result<String> {
    kubectl(workspace, None, args).await?.map_err(anyhow::Error::msg)
}

/// The requests of the workspace, newest first, as JSON.
pub async fn requests(workspace: &Workspace<'_>, selector: &str) -> Result<Vec<Value>> {
    let args = ["-n", &workspace.namespace, "get", RESOURCE, "-o", "json", "--field-selector", selector];
    let list: Value = serde_json::from_str(&printed(workspace, &args).await?)?;
    Ok(list["items"].as_array().context("a list has items")?.clone())
}

/// The name of the only request that a selector means, once there is one.
pub async fn the_one(workspace: &Workspace<'_>, selector: &str) -> Result<String> {
    eventually(PATIENCE, &format!("a request with {selector}"), async || {
        let found = requests(workspace, selector).await?;
        ensure!(found.len() == 1, "{} requests", found.len());
        Ok(found[0]["metadata"]["name"].as_str().context("it has a name")?.to_owned())
    })
    .await
}

/// The API server of an existing cluster does not reach Bellhop on this machine.
pub fn left_out() -> bool {
    let external = std::env::var_os("BELLHOP_TEST_KUBECONFIG").is_some_and(|path| !path.is_empty());
    if external {
        eprintln!("left out: the request log, because an existing cluster does not reach this machine");
    }
    external
}

#[tokio::test]
async fn a_push_can_be_followed_from_its_arrival_to_its_replay() -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let workspace = &Workspace::shared("log").await?;
    let subscription = workspace.connect("acme-web", "review").await?;
    let mut other = workspace.trigger("only-release", "acme-web");
    other["spec"]["parameters"] = json!({"branches": ["release/*"]});
    workspace.create_trigger(other).await?;
    workspace.trigger_is("only-release", "True", "Bound").await?;
    let namespace = workspace.namespace.as_str();

    // `-w` prints it when it comes, in a table.
    let mut watch = tokio::process::Command::from(command(workspace, None, &["-n", namespace, "get", RESOURCE, "-w"]));
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().context("it has a standard output")?).lines();
    // Time for the list before it; what comes during it would be in the list.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let commit = workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    let (mut header, mut seen) = (String::new(), String::new());
    let arrived = async {
        while let Some(line) = lines.next_line().await? {
            match header.is_empty() {
                true => header = line,
                false if line.contains(" Delivered ") => {
                    seen = line;
                    return Ok(());
                }
                false => {}
            }
        }
        anyhow::bail!("the watch has ended")
    };
    tokio::time::timeout(PATIENCE, arrived).await.context("kubectl get -w prints nothing")??;
    for column in ["NAME", "SUBSCRIPTION", "EVENT", "OUTCOME", "FIRED", "ANSWER", "AGE"] {
        ensure!(header.contains(column), "{header}");
    }
    for word in ["acme-web", "push", "1/2", "200"] {
        ensure!(seen.split_whitespace().any(|cell| cell == word), "{word}: {seen}");
    }
    let name = the_one(workspace, "outcome=Delivered").await?;
    ensure!(seen.starts_with(&name), "{name}: {seen}");

    // The table, by every name of the resource.
    for resource in ["requests", "request", "req", RESOURCE] {
        let table = printed(workspace, &["-n", namespace, "get", resource]).await?;
        ensure!(table.contains(&name) && table.contains("OUTCOME"), "{resource}: {table}");
    }
    let all = printed(workspace, &["get", RESOURCE, "-A"]).await?;
    ensure!(all.lines().any(|line| line.starts_with(namespace) && line.contains(&name)), "{all}");

    // The whole story.
    let story = printed(workspace, &["-n", namespace, "get", RESOURCE, &name, "-o", "yaml"]).await?;
    let story: Value = serde_saphyr::from_str(&story)?;
    let received = &story["received"];
    ensure!(received["body"]["text"].as_str().is_some_and(|text| text.contains(&commit)), "{received}");
    ensure!(story["verification"]["verified"] == true, "{story}");
    let triggers = story["events"][0]["triggers"].as_array().context("triggers")?;
    let of = |name: &str| triggers.iter().find(|trigger| trigger["name"] == name).context("the trigger");
    let (review, release) = (of("review")?, of("only-release")?);
    ensure!(review["delivery"]["attempts"][0]["status"] == 200 || review["fired"] == true, "{review}");
    ensure!(release["fired"] == false, "{release}");
    ensure!(release["reason"].as_str().is_some_and(|reason| reason.contains("branches")), "{release}");
    ensure!(story["events"][0]["variables"]["ref"] == "refs/heads/main", "{story}");
    let listed = &requests(workspace, "").await?[0];
    ensure!(listed["received"]["body"].is_null() && listed["received"]["headers"].is_null(), "{listed}");
    printed(workspace, &["-n", namespace, "describe", RESOURCE, &name]).await?;
    let explained =
        printed(workspace, &["explain", "requests.outcome", "--api-version=log.bellhop.dev/v1alpha1"]).await?;
    ensure!(explained.contains("outcome"), "{explained}");

    // One with a wrong signature is there, too.
    forge(&callback_url(&subscription)?).await?;
    let refused = the_one(workspace, "outcome=Refused").await?;
    let story: Value =
        serde_json::from_str(&printed(workspace, &["-n", namespace, "get", RESOURCE, &refused, "-o", "json"]).await?)?;
    ensure!(story["answer"]["status"] == 401 && story["subscription"]["name"] == "acme-web", "{story}");

    // Selected by what it is.
    for (selector, expected) in [
        ("subscription=acme-web,event=push", &name),
        ("trigger=review", &name),
        ("trigger=only-release,outcome!=Refused", &name),
        ("outcome!=Delivered", &refused),
    ] {
        ensure!(the_one(workspace, selector).await? == *expected, "{selector}");
    }
    for selector in ["subscription=other", "event=release", "outcome=DeadLettered", "trigger=other"] {
        ensure!(requests(workspace, selector).await?.is_empty(), "{selector}");
    }
    let wrong = kubectl(workspace, None, &["-n", namespace, "get", RESOURCE, "--field-selector", "status=x"]).await?;
    let why = wrong.err().context("it cannot be selected by that")?;
    ensure!(why.contains("subscription, outcome, event, trigger"), "{why}");
    let missing = format!("0-{}", uuid::Uuid::new_v4());
    let why = kubectl(workspace, None, &["-n", namespace, "get", RESOURCE, &missing]).await?;
    ensure!(why.as_ref().is_err_and(|why| why.contains("NotFound") && why.contains("not in the log")), "{why:?}");
    // Page by page.
    let pages = printed(workspace, &["-n", namespace, "get", RESOURCE, "--chunk-size=1", "-o", "name"]).await?;
    ensure!(pages.lines().count() == 2 && pages.contains(&name) && pages.contains(&refused), "{pages}");

    // Once more, with the same id.
    replay(workspace, None, namespace, &name, "review").await?.map_err(anyhow::Error::msg)?;
    let runs = workspace.runner.wait_for(2, PATIENCE).await?;
    ensure!(runs[0].header("ce-id").is_some() && runs[0].header("ce-id") == runs[1].header("ce-id"));
    let why = replay(workspace, None, namespace, &refused, "review").await?;
    ensure!(why.is_err(), "what was refused cannot be delivered: {why:?}");
    workspace.collect(shared().await).await
}

/// A request with a wrong signature, and a secret that the log must not show. Gives that.
async fn forge(url: &str) -> Result<String> {
    let secret = format!("q7-{}", uuid::Uuid::new_v4().simple());
    note_secret(&secret)?;
    let request = reqwest::Client::new().post(url).header("x-gitea-event", "push").header("x-gitea-signature", "00");
    let answer = request.header("authorization", format!("Bearer {secret}")).body("{}").send().await?;
    ensure!(answer.status() == StatusCode::UNAUTHORIZED, "{}", answer.status());
    Ok(secret)
}

/// As `kubectl create --raw` does it.
pub async fn replay(
    workspace: &Workspace<'_>,
    who: Option<&Path>,
    namespace: &str,
    name: &str,
    trigger: &str,
) -> Result<Result<String, String>> {
    let path = format!("/apis/log.bellhop.dev/v1alpha1/namespaces/{namespace}/requests/{name}/replay");
    let body = json!({"apiVersion": "log.bellhop.dev/v1alpha1", "kind": "Replay", "spec": {"trigger": trigger}});
    let file = world::dir().join(format!("replay-{name}.json"));
    std::fs::write(&file, body.to_string())?;
    let file = file.to_string_lossy();
    kubectl(workspace, who, &["create", "--raw", &path, "-f", &file]).await
}

/// Has the sample of a push sent; gives the object that is answered.
async fn send(
    workspace: &Workspace<'_>,
    who: Option<&Path>,
    namespace: &str,
    subscription: &str,
) -> Result<Result<Value, String>> {
    let path = format!("/apis/log.bellhop.dev/v1alpha1/namespaces/{namespace}/subscriptions/{subscription}/send");
    let file = world::dir().join(format!("send-{}.json", workspace.namespace));
    std::fs::write(&file, json!({"kind": "Send", "spec": {"event": "push"}}).to_string())?;
    let answer = kubectl(workspace, who, &["create", "--raw", &path, "-f", &file.to_string_lossy()]).await?;
    Ok(answer.and_then(|text| serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))))
}

/// A kubeconfig of a ServiceAccount, by its token; `role` is what it has in its namespace.
pub async fn token_user(workspace: &Workspace<'_>, name: &str, role: &str) -> Result<PathBuf> {
    let namespace = workspace.namespace.as_str();
    printed(workspace, &["-n", namespace, "create", "serviceaccount", name]).await?;
    let account = format!("--serviceaccount={namespace}:{name}");
    bind(workspace, name, role, &account).await?;
    let token = printed(workspace, &["-n", namespace, "create", "token", name]).await?.trim().to_owned();
    note_secret(&token)?;
    workspace.control_plane.kubeconfig_for(&format!("{namespace}-{name}"), json!({"token": token}))
}

async fn bind(workspace: &Workspace<'_>, name: &str, role: &str, subject: &str) -> Result<()> {
    let role = format!("--role={role}");
    printed(workspace, &["-n", &workspace.namespace, "create", "rolebinding", name, &role, subject]).await.map(drop)
}

/// A kubeconfig of a user with a certificate that the cluster has signed.
pub async fn certificate_user(workspace: &Workspace<'_>, name: &str, role: &str) -> Result<PathBuf> {
    let user = format!("{name}-of-{}", workspace.namespace);
    let (mut params, key) = (CertificateParams::default(), KeyPair::generate()?);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user.as_str());
    let api = Api::<CertificateSigningRequest>::all(workspace.client.clone());
    let spec = CertificateSigningRequestSpec {
        request: k8s_openapi::ByteString(params.serialize_request(&key)?.pem()?.into_bytes()),
        signer_name: "kubernetes.io/kube-apiserver-client".to_owned(),
        usages: Some(vec!["client auth".to_owned()]),
        ..CertificateSigningRequestSpec::default()
    };
    let metadata = ObjectMeta { name: Some(user.clone()), ..ObjectMeta::default() };
    let request = CertificateSigningRequest { metadata, spec, status: None };
    api.create(&PostParams::default(), &request).await?;
    printed(workspace, &["certificate", "approve", &user]).await?;
    let certificate = eventually(PATIENCE, "the certificate is signed", async || {
        let status = api.get(&user).await?.status.unwrap_or_default();
        status.certificate.context("it is not signed yet")
    })
    .await?;
    bind(workspace, name, role, &format!("--user={user}")).await?;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let user = json!({
        "client-certificate-data": base64(&certificate.0), "client-key-data": base64(key.serialize_pem().as_bytes()),
    });
    workspace.control_plane.kubeconfig_for(&format!("{}-{name}", workspace.namespace), user)
}

/// The rules that the chart's ClusterRoles add to `view` and `edit`, as Roles of the workspace.
pub async fn roles(workspace: &Workspace<'_>) -> Result<()> {
    let rule = |group: &str, verbs: &[&str], resources: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        PolicyRule {
            api_groups: Some(vec![group.to_owned()]),
            resources: Some(texts(resources)),
            verbs: texts(verbs),
            ..PolicyRule::default()
        }
    };
    let (log, kinds, own) = ("log.bellhop.dev", "bellhop.dev", ["subscriptions", "workflowtriggers"]);
    let read = vec![rule(log, &["get", "list", "watch"], &["requests"]), rule(kinds, &["get", "list", "watch"], &own)];
    let work = [
        rule(log, &["create"], &["requests/replay", "subscriptions/send"]),
        rule(log, &["watch"], &["captures"]),
        rule(kinds, &["create", "update", "patch", "delete"], &own),
    ];
    let edit = read.iter().chain(&work).cloned().collect();
    for (name, rules) in [("viewer", read), ("editor", edit)] {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        workspace.api::<Role>().create(&PostParams::default(), &Role { metadata, rules: Some(rules) }).await?;
    }
    Ok(())
}

/// The path of a watch that ends after a second.
fn watch(namespace: &str, of: &str) -> String {
    format!("/apis/log.bellhop.dev/v1alpha1/namespaces/{namespace}/{of}watch=true&timeoutSeconds=1")
}

/// What a draft captures, as a resource of [`watch`].
const CAPTURES: &str = "captures?fieldSelector=metadata.name%3Dsketch&";

/// One who asks, and what they are answered to each question.
struct Row<'a> {
    who: &'a str,
    kubeconfig: &'a Path,
    reads: bool,
    /// Replays, sends and listens.
    works: bool,
}

#[tokio::test]
async fn ordinary_roles_decide_who_reads_replays_sends_and_listens() -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let (a, b) = (&Workspace::shared("log-a").await?, &Workspace::shared("log-b").await?);
    for workspace in [a, b] {
        roles(workspace).await?;
        workspace.connect("acme-web", "review").await?;
        workspace.push("main", "a.txt").await?;
        workspace.runner.wait_for(1, PATIENCE).await?;
        let mut draft = workspace.trigger("sketch", "acme-web");
        draft["spec"]["mode"] = json!("Draft");
        workspace.create_trigger(draft).await?;
        workspace.trigger_is("sketch", "True", "Draft").await?;
    }
    let subscription = a.api::<Subscription>().get("acme-web").await?;
    let secret = forge(&callback_url(&subscription)?).await?;
    let refused = the_one(a, "outcome=Refused").await?;
    let (of_a, of_b) = (the_one(a, "outcome=Delivered").await?, the_one(b, "outcome=Delivered").await?);
    let viewer = token_user(a, "viewer", "viewer").await?;
    let editor = token_user(a, "editor", "editor").await?;
    let certified = certificate_user(a, "certified", "viewer").await?;
    let certified_editor = certificate_user(a, "certified-editor", "editor").await?;
    let nobody = token_user(a, "nobody", "no-such-role").await?;

    let rows = [
        Row { who: "viewer", kubeconfig: &viewer, reads: true, works: false },
        Row { who: "editor", kubeconfig: &editor, reads: true, works: true },
        Row { who: "certified", kubeconfig: &certified, reads: true, works: false },
        Row { who: "certified editor", kubeconfig: &certified_editor, reads: true, works: true },
        Row { who: "nobody", kubeconfig: &nobody, reads: false, works: false },
    ];
    let (ns_a, ns_b) = (a.namespace.as_str(), b.namespace.as_str());
    let [watch_a, watch_b] = [ns_a, ns_b].map(|namespace| watch(namespace, "requests?"));
    let [listen_a, listen_b] = [ns_a, ns_b].map(|namespace| watch(namespace, CAPTURES));
    for row in rows {
        let ask = async |args: &[&str]| kubectl(a, Some(row.kubeconfig), args).await;
        let questions: [(&[&str], bool); 14] = [
            (&["-n", ns_a, "get", RESOURCE], row.reads),
            (&["-n", ns_a, "get", RESOURCE, &of_a], row.reads),
            (&["-n", ns_a, "get", RESOURCE, &of_a, "-o", "yaml"], row.reads),
            (&["-n", ns_b, "get", RESOURCE], false),
            (&["-n", ns_b, "get", RESOURCE, &of_b], false),
            // A name of the other workspace's log, asked for in one's own.
            (&["-n", ns_a, "get", RESOURCE, &of_b], false),
            (&["get", RESOURCE, "-A"], false),
            (&["-n", ns_a, "delete", RESOURCE, &of_a], false),
            (&["-n", ns_a, "label", RESOURCE, &of_a, "a=b"], false),
            (&["get", "--raw", &watch_a], row.reads),
            (&["get", "--raw", &watch_b], false),
            (&["get", "--raw", "/apis/log.bellhop.dev/v1alpha1/requests?watch=true&timeoutSeconds=1"], false),
            (&["get", "--raw", &listen_a], row.works),
            (&["get", "--raw", &listen_b], false),
        ];
        for (args, expected) in questions {
            let answer = ask(args).await?;
            ensure!(answer.is_ok() == expected, "{}: {args:?}: {answer:?}", row.who);
            ensure!(!format!("{answer:?}").contains(ns_b) || !expected, "{}: {args:?}: {answer:?}", row.who);
        }
        let follow = ["--request-timeout=3s", "-n", ns_b, "get", RESOURCE, "-w"];
        ensure!(ask(&follow).await?.is_err(), "{}: follows the other workspace", row.who);
        let before = a.runner.count();
        let done = replay(a, Some(row.kubeconfig), ns_a, &of_a, "review").await?;
        ensure!(done.is_ok() == row.works, "{}: {done:?}", row.who);
        if row.works {
            // A delivery that is pending cannot be replayed once more.
            a.runner.wait_for(before + 1, PATIENCE).await?;
            the_state(a, &of_a, "Delivered").await?;
        }
        let sent = send(a, Some(row.kubeconfig), ns_a, "acme-web").await?;
        ensure!(sent.is_ok() == row.works, "{}: {sent:?}", row.who);
        let sent = send(a, Some(row.kubeconfig), ns_b, "acme-web").await?;
        ensure!(sent.as_ref().is_err_and(|why| why.contains("Forbidden")), "{}: {sent:?}", row.who);
        for (namespace, name) in [(ns_b, &of_b), (ns_a, &of_b)] {
            let done = replay(a, Some(row.kubeconfig), namespace, name, "review").await?;
            ensure!(done.is_err(), "{}: {namespace}: {done:?}", row.who);
        }
    }
    a.runner.wait_for(5, PATIENCE).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!((a.runner.count(), b.runner.count()) == (5, 1), "only the editors have replayed and sent");
    let story = kubectl(a, Some(&viewer), &["-n", ns_a, "get", RESOURCE, &refused, "-o", "json"]).await?;
    let story: Value = serde_json::from_str(&story.map_err(anyhow::Error::msg)?)?;
    let headers = story["received"]["headers"].as_array().context("headers")?;
    ensure!(headers.contains(&json!({"name": "authorization", "value": "***"})), "{story}");
    ensure!(!story.to_string().contains(&secret), "a secret is shown: {story}");
    Ok(())
}

/// The sample of the Gitea plugin takes the way of a push, without Gitea.
#[tokio::test]
async fn a_sample_that_is_sent_fires_its_trigger() -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let workspace = &Workspace::shared("log-send").await?;
    workspace.connect("acme-web", "review").await?;
    let mut other = workspace.trigger("only-release", "acme-web");
    other["spec"]["parameters"] = json!({"branches": ["release/*"]});
    workspace.create_trigger(other).await?;
    workspace.trigger_is("only-release", "True", "Bound").await?;
    roles(workspace).await?;
    let editor = token_user(workspace, "jane", "editor").await?;
    let namespace = workspace.namespace.as_str();
    let mut names = Vec::new();
    for count in 1..=2 {
        let answer = send(workspace, Some(&editor), namespace, "acme-web").await?.map_err(anyhow::Error::msg)?;
        ensure!(answer["kind"] == "Send" && answer["status"]["unsigned"].is_null(), "{answer}");
        names.push(answer["status"]["request"].as_str().context("a name")?.to_owned());
        let runs = workspace.runner.wait_for(count, PATIENCE).await?;
        ensure!(runs[count - 1].header("ce-trigger") == Some("review"), "{runs:?}");
    }
    ensure!(names[0] != names[1], "the second one is not taken for a repetition");
    the_state(workspace, &names[0], "Delivered").await?;
    let story = printed(workspace, &["-n", namespace, "get", RESOURCE, &names[0], "-o", "json"]).await?;
    let story: Value = serde_json::from_str(&story)?;
    ensure!(story["note"] == format!("sent by system:serviceaccount:{namespace}:jane"), "{story}");
    ensure!(story["verification"] == json!({"verified": true}), "{story}");
    ensure!(story["events"][0]["variables"]["pusher"] == "jane" && story["events"][0]["notes"].is_null(), "{story}");
    let triggers = story["events"][0]["triggers"].as_array().context("triggers")?;
    let release = triggers.iter().find(|trigger| trigger["name"] == "only-release").context("the trigger")?;
    ensure!(release["fired"] == false, "{release}");
    let missing = send(workspace, Some(&editor), namespace, "acme-wbe").await?;
    ensure!(missing.as_ref().is_err_and(|why| why.contains("NotFound") && why.contains("Ready")), "{missing:?}");
    // The resource of the other group is the one that kubectl means.
    let subscriptions = printed(workspace, &["-n", namespace, "get", "subscriptions", "-o", "name"]).await?;
    ensure!(subscriptions == "subscription.bellhop.dev/acme-web\n", "{subscriptions}");
    workspace.collect(shared().await).await
}

/// Waits until the request of this name has this outcome.
async fn the_state(workspace: &Workspace<'_>, name: &str, outcome: &str) -> Result<()> {
    eventually(PATIENCE, &format!("{name} is {outcome}"), async || {
        let args = ["-n", &workspace.namespace, "get", RESOURCE, name, "-o", "jsonpath={.outcome}"];
        let found = printed(workspace, &args).await?;
        ensure!(found == outcome, "{found}");
        Ok(())
    })
    .await
}

/// What is not the front proxy is nobody, whatever it says; and who is nobody to the API server is nobody here.
#[tokio::test]
async fn who_goes_past_the_api_server_or_is_anonymous_is_refused() -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let workspace = &Workspace::shared("log-forged").await?;
    let pki = workspace.control_plane.kubeconfig().parent().context("it is in a folder")?.join("pki");
    let read = |name: &str| std::fs::read_to_string(pki.join(name));
    let identity = |certificate: &str, key: &str| reqwest::Identity::from_pem(format!("{key}{certificate}").as_bytes());
    let own = rcgen::generate_simple_self_signed(["front-proxy".to_owned()])?;
    let clients = [
        ("without a certificate", None, 401),
        (
            "with a certificate that it made itself",
            Some(identity(&own.cert.pem(), &own.signing_key.serialize_pem())?),
            401,
        ),
        (
            "with a certificate of the cluster",
            Some(identity(&read("kubelet-client.crt")?, &read("kubelet-client.key")?)?),
            401,
        ),
        // That this test says anything: with this one, it is the front proxy.
        ("with the front proxy's", Some(identity(&read("front-proxy.crt")?, &read("front-proxy.key")?)?), 200),
    ];
    let base = format!("{}/apis/log.bellhop.dev/v1alpha1", shared().await.internal_url());
    let paths = ["", "/requests", &format!("/namespaces/{}/requests", workspace.namespace)];
    for (who, identity, expected) in clients {
        let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true);
        let client = identity.into_iter().fold(client, |client, identity| client.identity(identity)).build()?;
        for path in paths {
            let asked = client.get(format!("{base}{path}")).header("x-remote-user", "admin");
            let asked = asked.header("x-remote-group", "system:masters").bearer_auth("anything").send().await?;
            ensure!(asked.status().as_u16() == expected, "{who}: {path}: {}", asked.status());
        }
    }
    // The API server itself, without anything that says who asks.
    let (namespace, name) = (workspace.namespace.as_str(), format!("0-{}", uuid::Uuid::new_v4()));
    let base = workspace.control_plane.url().context("the cluster is one of the tests")?;
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build()?;
    let own = format!("/apis/log.bellhop.dev/v1alpha1/namespaces/{namespace}");
    let questions = [
        client.get(format!("{base}/apis/log.bellhop.dev/v1alpha1/requests")),
        client.get(format!("{base}{own}/requests")),
        client.get(format!("{base}{own}/requests/{name}")),
        client.get(format!("{base}{}", watch(namespace, "requests?"))),
        client.get(format!("{base}{}", watch(namespace, CAPTURES))),
        client.post(format!("{base}{own}/requests/{name}/replay")).body(r#"{"kind": "Replay"}"#),
        client.post(format!("{base}{own}/subscriptions/acme-web/send")).body(r#"{"kind": "Send"}"#),
    ];
    for question in questions {
        let (answer, asked) = (question.try_clone().context("its body is there")?.send().await?, question.build()?);
        let said = (answer.status().as_u16(), answer.text().await?);
        ensure!(said.0 == 403 && said.1.contains("system:anonymous"), "{} {}: {said:?}", asked.method(), asked.url());
    }
    Ok(())
}
