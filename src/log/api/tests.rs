//! The API as the API server's front proxy sees it, in front of replicas that are plain routers.

use super::front_proxy::FrontProxy;
use super::front_proxy::tests::{Authority, told};
use super::*;
use crate::log::model::Version;
use axum::extract::{Path, RawQuery};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use k8s_openapi::api::authorization::v1::SubjectAccessReviewSpec;
use serde_json::json;
use std::sync::OnceLock;
use tokio::sync::watch as channel;
use tower::ServiceExt;
use uuid::Uuid;

const ONE: &str = "0-00000000-0000-0000-0000-000000000001";
const BASE: &str = "/apis/log.bellhop.dev/v1alpha1";

/// The version of the request with this number, which was received in that second.
fn version(number: u32) -> Version {
    let millis = 1_700_000_000_000 + u64::from(number) * 1000;
    Version::new(millis, Uuid::from_u128(number.into()), millis)
}

fn request(number: u32, namespace: &str) -> Value {
    json!({
        "apiVersion": "log.bellhop.dev/v1alpha1", "kind": "Request",
        "metadata": {
            "name": format!("0-00000000-0000-0000-0000-00000000000{number}"), "namespace": namespace,
            "resourceVersion": version(number).to_string(), "creationTimestamp": "2026-03-01T12:00:00Z",
        },
        "subscription": {"name": "web", "plugin": "gitea"}, "outcome": "Delivered", "answer": {"status": 200},
        "events": [{"name": "push", "triggers": [{"name": "build", "fired": true}]}],
    })
}

/// An ingress that has three requests of `team-a`, and tells one of another namespace with them.
fn ingress() -> Router {
    let list = async |Path(namespace): Path<String>, RawQuery(query): RawQuery| {
        let query = query.unwrap_or_default();
        let parameter = |name: &str| {
            url::form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        if parameter("listen").is_some() {
            assert_eq!(parameter("trigger").as_deref(), Some("sketch"));
            let mut captured = request(4, &namespace);
            captured["events"][0]["triggers"] = json!([{"name": "sketch", "fired": true, "captured": true}]);
            let told = [request(3, &namespace), captured].map(|request| json!({"type": "ADDED", "object": request}));
            let lines = [json!({"type": "BOOKMARK"})].into_iter().chain(told);
            return lines.map(|line| format!("{line}\n")).collect();
        }
        if let Some(since) = parameter("since") {
            // As the ingress does it: what was seen last once more, then what is new.
            let numbers = if since == version(3).to_string() { [3, 4] } else { [8, 8] };
            let lines = numbers.map(|number| json!({"type": "MODIFIED", "object": request(number, &namespace)}));
            return lines.into_iter().chain([json!({"type": "BOOKMARK"})]).map(|line| format!("{line}\n")).collect();
        }
        let limit = parameter("limit").unwrap().parse().unwrap();
        let before: Option<Version> = parameter("before").map(|before| before.parse().unwrap());
        let own = (1..=3).rev().filter(|number| before.is_none_or(|before| version(*number) < before));
        let mut items: Vec<_> = own.map(|number| request(number, &namespace)).collect();
        let next = (items.len() > limit).then(|| items[limit - 1]["metadata"]["resourceVersion"].clone());
        items.truncate(limit);
        items.extend((limit > 3).then(|| request(5, "team-b")));
        json!({"items": items, "next": next}).to_string()
    };
    let one = async |Path((namespace, id)): Path<(String, String)>| match id.ends_with('1') {
        true => request(1, &namespace).to_string().into_response(),
        false => StatusCode::NOT_FOUND.into_response(),
    };
    let replay = async |body: String| match body.contains("other") {
        true => (StatusCode::CONFLICT, json!({"error": "trigger: there is no \"other\""}).to_string()).into_response(),
        false => json!({"deliveries": [{"trigger": "build", "event": Uuid::nil()}]}).to_string().into_response(),
    };
    let send = async |Path((_, name)): Path<(String, String)>, body: String| {
        let wish: Value = serde_json::from_str(&body).unwrap();
        let event = &wish["spec"]["event"];
        match (name.as_str(), event == "push") {
            ("web", true) => (StatusCode::OK, json!({"request": ONE, "unsigned": wish["by"]}).to_string()),
            ("web", false) => (StatusCode::BAD_REQUEST, json!({"error": format!("no {event}")}).to_string()),
            _ => (StatusCode::NOT_FOUND, json!({"error": "not here"}).to_string()),
        }
    };
    Router::new()
        .route("/log/{namespace}/requests", get(list))
        .route("/log/{namespace}/requests/{id}", get(one))
        .route("/log/{namespace}/requests/{id}/replay", post(replay))
        .route("/log/{namespace}/subscriptions/{name}/send", post(send))
}

/// Reads all of `team-a`, and may do nothing else.
fn viewer(spec: SubjectAccessReviewSpec) -> bool {
    let what = spec.resource_attributes.unwrap();
    let reads = matches!(what.verb.as_deref(), Some("get" | "list" | "watch")) && what.subresource.is_none();
    let reads = reads && what.resource.as_deref() == Some("requests");
    spec.user.as_deref() == Some("jane") && reads && what.namespace.as_deref() == Some("team-a")
}

struct World {
    authority: Authority,
    router: Router,
}

impl World {
    fn new(may: fn(SubjectAccessReviewSpec) -> bool, ingress: Option<Router>) -> Self {
        let authority = Authority::new();
        let proxy = FrontProxy::read(&authority.config_map(&["front-proxy"])).unwrap();
        let here = Here::new(OnceLock::new());
        if let Some(ingress) = ingress {
            here.set(ingress).unwrap();
        }
        let review: Review = Arc::new(move |spec| Box::pin(async move { Ok(may(spec)) }));
        let (_, known) = channel::channel(Some(Arc::new(proxy)));
        Self { authority, router: router(Server::with(review, known, Replicas::Here(here))) }
    }

    /// What is answered to the front proxy, which asks for `jane`.
    async fn ask(&self, method: &str, path: &str, accept: &str, body: &str) -> Response {
        let mut request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
        *request.headers_mut() = told("jane", &["system:authenticated"]);
        request.headers_mut().insert(ACCEPT, accept.parse().unwrap());
        request.extensions_mut().insert(self.authority.shown("front-proxy"));
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        read(self.ask("GET", &format!("{BASE}{path}"), "application/json", "").await).await
    }
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test]
async fn a_reader_reads_their_namespace_and_nothing_else() {
    let world = World::new(viewer, Some(ingress()));
    let (status, list) = world.get("/namespaces/team-a/requests").await;
    assert_eq!((status, &list["kind"], names(&list).len()), (200, &json!("RequestList"), 3));
    assert_eq!(list["items"][0]["metadata"]["resourceVersion"], format!("0:{}", version(3)));
    assert_eq!(world.get(&format!("/namespaces/team-a/requests/{ONE}")).await.0, 200);
    for path in ["/requests", "/namespaces/team-b/requests", &format!("/namespaces/team-b/requests/{ONE}")] {
        let (status, refusal) = world.get(path).await;
        assert_eq!(
            (status, &refusal["kind"], &refusal["reason"]),
            (403, &json!("Status"), &json!("Forbidden")),
            "{path}"
        );
    }
    let replay = format!("{BASE}/namespaces/team-a/requests/{ONE}/replay");
    let (status, refusal) = read(world.ask("POST", &replay, "*/*", "").await).await;
    assert_eq!(status, 403);
    assert!(refusal["message"].as_str().unwrap().contains("cannot create resource \"requests/replay\""), "{refusal}");
}

#[tokio::test]
async fn pages_follow_each_other() {
    let world = World::new(viewer, Some(ingress()));
    let (_, first) = world.get("/namespaces/team-a/requests?limit=2").await;
    let rest = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = world.get(&format!("/namespaces/team-a/requests?limit=2&continue={rest}")).await;
    assert_eq!((names(&first).len(), names(&second)), (2, vec![ONE]));
    assert_eq!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    assert!(second["metadata"].get("continue").is_none());
    let (_, single) = world.get(&format!("/namespaces/team-a/requests?fieldSelector=metadata.name%3D{ONE}")).await;
    assert_eq!(names(&single), [ONE]);
    let (_, none) = world.get("/namespaces/team-a/requests?fieldSelector=outcome%3DRefused").await;
    assert!(names(&none).is_empty());
}

#[tokio::test]
async fn tables_are_given_to_those_who_ask() {
    let world = World::new(viewer, Some(ingress()));
    let path = format!("{BASE}/namespaces/team-a/requests");
    let (_, table) = read(world.ask("GET", &path, TABLE, "").await).await;
    assert_eq!((&table["kind"], table["rows"].as_array().unwrap().len()), (&json!("Table"), 3));
    let (_, table) = read(world.ask("GET", &format!("{path}/{ONE}"), TABLE, "").await).await;
    assert_eq!(table["rows"][0]["cells"][0], ONE);
    let (status, refusal) = read(world.ask("GET", &path, "application/yaml", "").await).await;
    assert_eq!((status, &refusal["reason"]), (406, &json!("NotAcceptable")));
}

#[tokio::test]
async fn watches_of_one_workspace_leave_places_for_others() {
    let everything = |_: SubjectAccessReviewSpec| true;
    let world = World::new(everything, Some(ingress()));
    let watch = async |namespace: &str| {
        let path = format!("{BASE}/namespaces/{namespace}/requests?watch=true&timeoutSeconds=5");
        world.ask("GET", &path, "application/json", "").await
    };
    let mut open = Vec::new();
    for _ in 0..MAX_WATCHES.each {
        open.push(watch("team-a").await);
    }
    assert!(open.iter().all(|response| response.status() == 200));
    let refused = watch("team-a").await;
    assert!(refused.headers().contains_key("retry-after"));
    let (status, refusal) = read(refused).await;
    assert_eq!((status, &refusal["reason"]), (429, &json!("TooManyRequests")), "{refusal}");
    assert_eq!(watch("team-b").await.status(), 200);
    drop(open);
    assert_eq!(watch("team-a").await.status(), 200);
}

#[tokio::test]
async fn the_first_list_of_a_watch_waits_for_its_turn() {
    let server = Server::with(Arc::new(|_| Box::pin(async { Ok(true) })), channel::channel(None).1, {
        let here = Here::new(OnceLock::new());
        here.set(ingress()).unwrap();
        Replicas::Here(here)
    });
    let turns = server.turns.acquire_many(u32::try_from(MAX_AT_ONCE).unwrap()).await.unwrap();
    let path = "/apis/log.bellhop.dev/v1alpha1/namespaces/team-a/requests";
    let Ok(Question::Watch(place, wanted, include)) = Question::parse(&Method::GET, path, "watch=true") else {
        panic!()
    };
    let source = watch::Source { replicas: server.replicas.clone(), turns: server.turns.clone() };
    let slot = server.watches.enter("team-a").unwrap();
    let lines = watch::watch(source, place, wanted, Form::Objects, include, slot).unwrap();
    let mut lines = std::pin::pin!(lines);
    let soon = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(soon, futures::StreamExt::next(&mut lines)).await.is_err(), "others are asking");
    drop(turns);
    assert!(futures::StreamExt::next(&mut lines).await.is_some());
}

#[tokio::test]
async fn a_watch_begins_where_the_list_ended() {
    let world = World::new(viewer, Some(ingress()));
    let watch = async |query: &str, accept: &str, lines: usize| {
        let path = format!("{BASE}/namespaces/team-a/requests?watch=true&timeoutSeconds=5{query}");
        let mut body = world.ask("GET", &path, accept, "").await.into_body();
        let (mut seen, mut read) = (Vec::new(), String::new());
        while seen.len() < lines {
            let frame = body.frame().await.expect("the watch goes on").unwrap().into_data().unwrap();
            read.push_str(std::str::from_utf8(&frame).unwrap());
            while let Some((line, rest)) = read.split_once('\n') {
                seen.push(serde_json::from_str::<Value>(line).unwrap());
                read = rest.to_owned();
            }
        }
        seen
    };
    let after = watch(&format!("&resourceVersion=0:{}", version(3)), "application/json", 1).await;
    assert_eq!(after[0]["object"]["metadata"]["resourceVersion"], format!("0:{}", version(4)));
    // Without a version, what there is comes first, the oldest first.
    let all = watch("", TABLE, 4).await;
    let versions: Vec<_> = all.iter().map(|line| line["object"]["metadata"]["resourceVersion"].clone()).collect();
    assert_eq!(versions, [1, 2, 3, 4].map(|number| format!("0:{}", version(number))));
    assert!(all.iter().all(|line| line["type"] == "ADDED" && line["object"]["kind"] == "Table"), "{all:?}");
    let (status, _) = world.get("/namespaces/team-a/requests?watch=true&resourceVersion=17").await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_draft_listens_while_its_captures_are_followed() {
    let path =
        format!("{BASE}/namespaces/team-a/captures?watch=true&fieldSelector=metadata.name%3Dsketch&timeoutSeconds=5");
    let world = World::new(|_| true, Some(ingress()));
    let mut body = world.ask("GET", &path, "*/*", "").await.into_body();
    let (mut lines, mut read) = (Vec::<Value>::new(), String::new());
    while lines.len() < 2 {
        let frame = body.frame().await.expect("it goes on").unwrap().into_data().unwrap();
        read.push_str(std::str::from_utf8(&frame).unwrap());
        while let Some((line, rest)) = read.split_once('\n') {
            lines.push(serde_json::from_str(line).unwrap());
            read = rest.to_owned();
        }
    }
    assert_eq!((&lines[0]["type"], &lines[0]["object"]["metadata"]["annotations"]), (&json!("BOOKMARK"), &Value::Null));
    assert_eq!((&lines[1]["type"], &lines[1]["object"]["kind"]), (&json!("ADDED"), &json!("Capture")), "{lines:?}");
    assert!(lines[1]["object"]["metadata"]["name"].as_str().unwrap().ends_with('4'), "the third was not captured");
    // Who may read may not listen, and without an ingress nobody does.
    let world = World::new(viewer, Some(ingress()));
    let (status, refusal) = crate::log::api::tests::read(world.ask("GET", &path, "*/*", "").await).await;
    assert_eq!(status, 403, "{refusal}");
    assert!(refusal["message"].as_str().unwrap().contains("cannot watch resource \"captures\""), "{refusal}");
    let starting = World::new(|_| true, None);
    assert_eq!(crate::log::api::tests::read(starting.ask("GET", &path, "*/*", "").await).await.0, 503);
}

#[tokio::test]
async fn a_replay_says_what_is_delivered_again() {
    let world = World::new(|_| true, Some(ingress()));
    let path = format!("{BASE}/namespaces/team-a/requests/{ONE}/replay");
    let body = json!({"kind": "Replay", "spec": {"trigger": "build"}}).to_string();
    let (status, replay) = read(world.ask("POST", &path, "*/*", &body).await).await;
    assert_eq!((status, &replay["status"]["deliveries"][0]["trigger"]), (201, &json!("build")));
    let body = json!({"spec": {"trigger": "other"}}).to_string();
    let (status, refusal) = read(world.ask("POST", &path, "*/*", &body).await).await;
    assert_eq!((status, &refusal["message"]), (409, &json!("trigger: there is no \"other\"")));
    let large = "x".repeat(100_000);
    assert_eq!(read(world.ask("POST", &path, "*/*", &large).await).await.0, 413);
}

#[tokio::test]
async fn who_may_send_learns_which_request_it_became() {
    let path = |name: &str| format!("{BASE}/namespaces/team-a/subscriptions/{name}/send");
    let body = |event: &str| json!({"kind": "Send", "spec": {"event": event}}).to_string();
    let world = World::new(|_| true, Some(ingress()));
    let (status, sent) = read(world.ask("POST", &path("web"), "*/*", &body("push")).await).await;
    assert_eq!((status, &sent["status"]), (201, &json!({"request": ONE, "unsigned": "jane"})), "{sent}");
    let (status, refusal) = read(world.ask("POST", &path("web"), "*/*", &body("pull")).await).await;
    assert_eq!((status, &refusal["message"]), (400, &json!("no \"pull\"")));
    let (status, refusal) = read(world.ask("POST", &path("other"), "*/*", &body("push")).await).await;
    assert_eq!((status, &refusal["details"]["name"]), (404, &json!("other")), "{refusal}");
    let (status, refusal) = read(world.ask("POST", &path("web"), "*/*", "{\"spec\": {\"evnt\": \"a\"}}").await).await;
    assert!(status == 400 && refusal["message"].as_str().unwrap().contains("evnt"), "{refusal}");
    // Who may read may not send.
    let world = World::new(viewer, Some(ingress()));
    let (status, refusal) = read(world.ask("POST", &path("web"), "*/*", &body("push")).await).await;
    let expected = "subscriptions.log.bellhop.dev \"web\" is forbidden: User \"jane\" cannot create resource \
                    \"subscriptions/send\" in API group \"log.bellhop.dev\" in the namespace \"team-a\"";
    assert_eq!((status, &refusal["message"]), (403, &json!(expected)));
    let starting = World::new(|_| true, None);
    assert_eq!(read(starting.ask("POST", &path("web"), "*/*", &body("push")).await).await.0, 503);
}

#[tokio::test]
async fn what_is_not_there_is_said_in_words() {
    let world = World::new(viewer, Some(ingress()));
    for (name, status, word) in [
        ("0-00000000-0000-0000-0000-000000000002", 404, "not in the log"),
        ("web", 404, "names of requests are like"),
        ("7-00000000-0000-0000-0000-000000000001", 503, "replica 7 of the ingress keeps this request"),
    ] {
        let (code, refusal) = world.get(&format!("/namespaces/team-a/requests/{name}")).await;
        assert!(code == status && refusal["message"].as_str().unwrap().contains(word), "{code}: {refusal}");
    }
    let starting = World::new(viewer, None);
    assert_eq!(starting.get("/namespaces/team-a/requests").await.0, 503);
}

#[tokio::test]
async fn nobody_but_the_front_proxy_is_answered() {
    let world = World::new(|_| true, Some(ingress()));
    let paths = ["/apis", "/apis/log.bellhop.dev", BASE, "/openapi/v2", &format!("{BASE}/namespaces/team-a/requests")];
    for path in paths {
        for shown in [None, Some(world.authority.shown("somebody")), Some(Authority::new().shown("front-proxy"))] {
            let mut request = Request::get(path).body(Body::empty()).unwrap();
            *request.headers_mut() = told("admin", &["system:masters"]);
            if let Some(shown) = shown {
                request.extensions_mut().insert(shown);
            }
            let (status, refusal) = read(world.router.clone().oneshot(request).await.unwrap()).await;
            assert_eq!((status, &refusal["reason"]), (401, &json!("Unauthorized")), "{path}");
        }
        assert_eq!(read(world.ask("GET", path, "*/*", "").await).await.0, 200, "{path}");
    }
}
