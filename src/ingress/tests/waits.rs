//! The handshakes that docs/plugins.md lists, by the plugins of the catalogue and, where it has none, by those of that page:
//! answered while the disk stands still, while it is full, and in time while the controller does not answer.

use super::*;
use crate::api::{TriggerPlugin, TriggerPluginSpec};
use crate::ingress::handshake::DEADLINE;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::collections::BTreeMap;
use std::path::Path;

/// What a system asks, and what it is to be told.
struct Question {
    /// The system's name in the table.
    system: &'static str,
    /// The plugin of the catalogue; none: that of the page.
    plugin: Option<&'static str>,
    request: Request<Body>,
    status: u16,
    /// A header, and its value.
    header: Option<(&'static str, &'static str)>,
    body: String,
}

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The systems of the table, with how long each waits, if that is said in seconds.
fn table() -> BTreeMap<String, Option<Duration>> {
    let page = file("docs/plugins.md");
    let (_, table) = page.split_once("| System | Question | Asked | Waits |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let seconds = |text: &str| text.strip_suffix(" s")?.parse().ok().map(Duration::from_secs);
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        (cells[1].to_owned(), seconds(cells[4]))
    })
    .collect()
}

fn catalogue() -> BTreeMap<String, TriggerPluginSpec> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/bellhop-plugins/plugins");
    let plugins = std::fs::read_dir(folder).unwrap().map(|entry| {
        let plugin: TriggerPlugin =
            serde_saphyr::from_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        (plugin.metadata.name.unwrap(), plugin.spec)
    });
    plugins.collect()
}

/// A plugin with the handshakes that the page shows, and the one that it describes alone.
fn of_the_page() -> TriggerPluginSpec {
    let page = file("docs/plugins.md");
    let (_, block) = page.split_once("```yaml\nhandshakes:\n").unwrap();
    let mut callback: Value =
        serde_saphyr::from_str(&format!("handshakes:\n{}", block.split_once("```").unwrap().0)).unwrap();
    let handshakes = callback["handshakes"].as_array_mut().unwrap();
    handshakes.push(json!({"when": "request.method == 'HEAD'", "answer": {"status": 200}}));
    let mut spec = serde_json::to_value(plugin_spec()).unwrap();
    spec["callback"]["handshakes"] = json!(handshakes);
    serde_json::from_value(spec).unwrap()
}

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

/// A request with a body in JSON, signed over a version, the time and itself, as Slack and Zoom do.
fn signed_v0(vendor: &str, body: &str) -> Request<Body> {
    let time = now_millis() / 1000;
    let request = Request::post("/hooks/token-1").header("content-type", "application/json");
    let request = request.header(format!("{vendor}-request-timestamp"), time);
    let signature = format!("v0={}", sign(format!("v0:{time}:{body}").as_bytes()));
    request.header(format!("{vendor}-signature"), signature).body(body.to_owned().into()).unwrap()
}

fn signed_by_discord(body: &'static str) -> Request<Body> {
    let time = (now_millis() / 1000).to_string();
    let signature = hex::encode(key().sign(format!("{time}{body}").as_bytes()));
    let request = Request::post("/hooks/token-1").header("content-type", "application/json");
    request.header("x-signature-timestamp", time).header("x-signature-ed25519", signature).body(body.into()).unwrap()
}

fn questions() -> Vec<Question> {
    let empty = |request: http::request::Builder| request.body(Body::empty()).unwrap();
    let get = |query: &str| empty(Request::get(format!("/hooks/token-1?{query}")));
    let token = "qgg8vlvZRS6UYooatFL8Aw";
    let question = |system, plugin, request, body: &str| Question {
        system,
        plugin,
        request,
        status: 200,
        header: None,
        body: body.to_owned(),
    };
    let zoom = format!(r#"{{"event":"endpoint.url_validation","payload":{{"plainToken":"{token}"}}}}"#);
    let zoomed = json!({"plainToken": token, "encryptedToken": sign(token.as_bytes())}).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(token.as_bytes());
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, mac.finalize().into_bytes());
    let hook = empty(Request::post("/hooks/token-1").header("x-hook-secret", SECRET));
    let origin = empty(Request::options("/hooks/token-1").header("webhook-request-origin", "events.example"));
    vec![
        question(
            "Slack",
            Some("slack"),
            signed_v0("x-slack", r#"{"type":"url_verification","challenge":"3eZb"}"#),
            "3eZb",
        ),
        question("Zoom", Some("zoom"), signed_v0("x-zm", &zoom), &zoomed),
        question("Discord", Some("discord"), signed_by_discord(r#"{"type":1}"#), r#"{"type":1}"#),
        Question { status: 204, ..question("Discord", Some("discord"), signed_by_discord(r#"{"type":0}"#), "") },
        question("Microsoft Graph", Some("microsoft-graph"), get("validationToken=a%20b"), "a b"),
        Question { header: Some(("x-hook-secret", SECRET)), ..question("Asana", Some("asana"), hook, "") },
        question("Dropbox", None, get("challenge=c"), "c"),
        question(
            "X",
            None,
            get(&format!("crc_token={token}")),
            &json!({"response_token": format!("sha256={base64}")}).to_string(),
        ),
        question("Trello", None, empty(Request::head("/hooks/token-1")), ""),
        Question {
            header: Some(("webhook-allowed-origin", "events.example")),
            ..question("CloudEvents", Some("cloudevents"), origin, "")
        },
    ]
}

/// Serves this plugin, or that of the page.
fn serve_plugin(bench: &Bench, catalogue: &BTreeMap<String, TriggerPluginSpec>, plugin: Option<&str>) {
    let spec = plugin.map_or_else(of_the_page, |name| catalogue[name].clone());
    let secret = if plugin == Some("discord") { hex::encode(key().public_key()) } else { SECRET.to_owned() };
    bench.routes.update(|index| {
        index.apply_plugin("forge", &spec);
        index.apply_route(PublishedRoute { callback_secrets: vec![secret], ..published(1) });
    });
}

/// Asks everything, and holds it against what is expected.
async fn all_are_answered(bench: &Bench) {
    let catalogue = catalogue();
    for question in questions() {
        serve_plugin(bench, &catalogue, question.plugin);
        let response = router(bench.state.clone()).oneshot(question.request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let told = (parts.status.as_u16(), std::str::from_utf8(&body).unwrap());
        assert_eq!(told, (question.status, question.body.as_str()), "{}", question.system);
        if let Some((name, value)) = question.header {
            assert_eq!(parts.headers[name], value, "{}", question.system);
        }
    }
}

#[test]
fn every_handshake_of_the_catalogue_and_of_the_table_is_asked() {
    let (mut systems, mut asked) = (BTreeMap::new(), BTreeMap::new());
    for question in questions() {
        systems.insert(question.system.to_owned(), ());
        *asked.entry(question.plugin.unwrap_or_default().to_owned()).or_insert(0) += 1;
    }
    assert!(table().keys().eq(systems.keys()), "{:?}", table());
    for (name, spec) in catalogue() {
        let questions = asked.get(&name).copied().unwrap_or(0);
        assert_eq!(spec.callback.handshakes.len(), questions, "{name}");
    }
}

#[tokio::test]
async fn handshakes_are_answered_while_the_disk_stands_still() {
    let bench = Bench::new();
    let stalled = bench.spool.stall();
    let event = bench.status(good());
    tokio::select! {
        // It is asked first.
        biased;
        status = event => panic!("an event was answered, {status}, and is not on the disk"),
        () = all_are_answered(&bench) => {}
    }
    drop(stalled);
    serve_plugin(&bench, &BTreeMap::from([("forge".to_owned(), plugin_spec())]), Some("forge"));
    assert_eq!(bench.status(good()).await, StatusCode::OK, "the disk goes on");
}

#[tokio::test]
async fn handshakes_are_answered_while_the_disk_is_full() {
    let bench = Bench::with(crate::spool::Limits { max_bytes_per_subscription: 64 << 10, ..Default::default() });
    let mut number = 0;
    loop {
        let mut request = good();
        number += 1;
        request.headers_mut().insert("x-delivery", number.to_string().parse().unwrap());
        if bench.status(request).await == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
    }
    all_are_answered(&bench).await;
}

/// A handshake that brings a secret is not answered before that is stored; but the sender is told to come back before it
/// gives up.
#[tokio::test]
async fn who_brings_a_secret_is_told_to_come_back_while_the_controller_does_not_answer() {
    let silent = Router::new().route("/internal/secrets", axum::routing::post(std::future::pending::<StatusCode>));
    let mut bench = Bench::new();
    bench.state = Arc::new(Arc::into_inner(bench.state).unwrap().with_controller(Controller::Here(silent)));
    let (catalogue, table) = (catalogue(), table());
    let mut brought = 0;
    for question in questions() {
        let Some(spec) = question.plugin.map(|name| &catalogue[name]) else { continue };
        if !spec.callback.handshakes.iter().any(|handshake| handshake.secret.is_some()) {
            continue;
        }
        brought += 1;
        let wait = table[question.system].unwrap();
        assert!(DEADLINE < wait, "{} gives up after {wait:?}", question.system);
        serve_plugin(&bench, &catalogue, question.plugin);
        bench.routes.update(|index| index.apply_route(PublishedRoute { callback_secrets: Vec::new(), ..published(1) }));
        let (status, _, response) = bench.send(question.request).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{}", question.system);
        assert!(response.headers().contains_key("retry-after"), "{}", question.system);
    }
    assert_eq!(brought, 1, "Asana");
}
