//! What is said of objects, and that it is counted.

use super::judge::{judge_crowd, judge_subscription, judge_trigger};
use super::*;
use crate::api::TriggerPluginSpec;
use crate::plugin::Plugin;
use serde_json::{Value, json};

fn plugin() -> PluginState {
    let spec: TriggerPluginSpec = serde_json::from_value(json!({
        "displayName": "Forge",
        "allowedOrigins": ["https://forge.example"],
        "parameters": {"type": "object", "required": ["repository"], "properties": {"repository": {"type": "string"}}},
        "authorization": {"apiKey": {"keys": ["token"]}},
        "webhook": {"create": {
            "method": "POST", "url": "https://forge.example/hooks", "body": "{'url': callback.url}",
            "capture": {"id": "string(response.body.id)"},
        }, "delete": {"method": "DELETE", "url": "https://forge.example/hooks/{webhook.id}"}},
        "callback": {"verification": [{"token": {"header": "x-token"}}], "event": "request.headers['x-event']"},
        "events": [
            {"name": "push", "title": "Push",
             "parameters": {"branch": {"schema": {"type": "string"}, "match": "value == body.ref"}},
             "variables": {"ref": {"type": "string", "value": "body.ref"}}},
            {"name": "release", "title": "Release"},
        ],
    }))
    .unwrap();
    match Plugin::compile("forge", &spec) {
        Ok(plugin) => PluginState::Ready(Arc::new(plugin)),
        Err(mistakes) => panic!("{}", crate::plugin::join(&mistakes)),
    }
}

fn subscription(spec: Value) -> Subscription {
    let mut all = json!({
        "pluginRef": {"name": "forge"}, "parameters": {"repository": "web"},
        "authorization": {"apiKey": {"secretRef": {"name": "token"}}},
    });
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    let object = json!({
        "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription",
        "metadata": {"name": "web", "namespace": "team-a"}, "spec": all,
    });
    serde_json::from_value(object).unwrap()
}

fn trigger(spec: Value) -> WorkflowTrigger {
    let mut all = json!({
        "subscriptionRef": {"name": "web"}, "event": "push", "workflow": "w",
        "runner": {"url": "https://runner.example/"},
    });
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    let object = json!({
        "apiVersion": "bellhop.dev/v1alpha1", "kind": "WorkflowTrigger",
        "metadata": {"name": "t", "namespace": "team-a"}, "spec": all,
    });
    serde_json::from_value(object).unwrap()
}

#[track_caller]
fn assert_refused(verdict: &Verdict, words: &[&str]) {
    let Verdict::Refused(message) = verdict else { panic!("{verdict:?}") };
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[track_caller]
fn assert_warned(verdict: &Verdict, words: &[&str]) {
    let Verdict::Warned(message) = verdict else { panic!("{verdict:?}") };
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[tokio::test]
async fn every_answer_is_counted() {
    // An API server with nothing in it, and one that fails.
    let answering = |status: u16| {
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| async move {
            let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status,
                "reason": if status == 404 { "NotFound" } else { "InternalError" }, "message": "no"});
            let response = http::Response::builder().status(status);
            let body = axum::body::Body::from(body.to_string());
            Ok::<_, std::convert::Infallible>(response.body(body).unwrap())
        });
        Client::new(service, "default")
    };
    let metrics = Metrics::new();
    let ask = async |status: u16, kind: &str, object: Value| {
        let runners = Runners::new("cluster.local", &[]).unwrap();
        let namespaces = Scope::new(&[]);
        let admission = Admission::new(answering(status), "bellhop-system", namespaces, runners, 10, metrics.clone());
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "1", "kind": {"group": "bellhop.dev", "version": "v1alpha1", "kind": kind},
                "resource": {"group": "bellhop.dev", "version": "v1alpha1", "resource": "any"},
                "operation": "CREATE", "namespace": "team-a", "name": "web", "userInfo": {}, "object": object,
            },
        });
        admission.review(serde_json::from_value(review).unwrap()).await
    };
    let new = serde_json::to_value(subscription(json!({}))).unwrap();
    ask(404, "Subscription", new.clone()).await;
    ask(500, "Subscription", new.clone()).await;
    ask(404, "Secret", new).await;
    let text = metrics.to_text();
    for (kind, outcome) in [("Subscription", "warned"), ("Subscription", "unjudged"), ("other", "allowed")] {
        let line = format!(r#"bellhop_admissions_total{{kind="{kind}",outcome="{outcome}"}} 1"#);
        assert!(text.contains(&line), "no {line} in {text}");
    }
}

#[test]
fn a_subscription_is_judged_by_its_plugin() {
    let judge = |spec: Value| judge_subscription(&subscription(spec), &plugin());
    assert_eq!(judge(json!({})), Verdict::Fine);
    assert_refused(&judge(json!({"parameters": {"repo": "web"}})), &["spec.parameters.repo", "repository"]);
    assert_refused(&judge(json!({"events": ["pusch"]})), &["spec.events", "did you mean", "push"]);
    assert_eq!(judge(json!({"authorization": {"manual": {}}})), Verdict::Fine);
    assert_refused(&judge(json!({"authorization": {"oauth2": {}}})), &["spec.authorization.oauth2", "apiKey, manual"]);
    let missing = judge_subscription(&subscription(json!({})), &PluginState::NotFound);
    assert_warned(&missing, &["spec.pluginRef.name", "\"forge\""]);
    let broken = judge_subscription(&subscription(json!({})), &PluginState::Broken("it is wrong".into()));
    assert_warned(&broken, &["it is wrong"]);
}

#[test]
fn the_eleventh_is_refused_with_a_count_and_names() {
    let names: Vec<String> = (0..12).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let judge = |holders: usize, waiting: usize| {
        judge_crowd(10, "forge", "team-a", &names[..holders], &names[holders..holders + waiting])
    };
    assert_eq!(judge(9, 0), Verdict::Fine);
    assert_eq!(judge(4, 5), Verdict::Fine);
    for (holders, waiting) in [(10, 0), (4, 6), (0, 10)] {
        let words = ["10 of 10 Subscriptions of the plugin \"forge\" in the namespace team-a", "(s0, s1,", "s9)"];
        assert_refused(&judge(holders, waiting), &words);
    }
    assert_refused(&judge(10, 2), &["s9); 2 wait for one (s10, s11); delete one"]);
    // The cap was lowered.
    assert_refused(&judge_crowd(2, "forge", "team-a", &names[..3], &[]), &["3 of 2 ", "(s0, s1, s2)"]);
}

#[test]
fn a_trigger_is_judged_by_what_is_there() {
    let runners = Runners::new("cluster.local", &["https://runner.example".to_owned()]).unwrap();
    let there = subscription(json!({"events": ["push"]}));
    let judge = |spec: Value| judge_trigger(&trigger(spec), Some(&there), &plugin(), &runners, false);
    assert_eq!(judge(json!({"parameters": {"branch": "main"}, "filter": "variables.ref != ''"})), Verdict::Fine);
    assert_refused(&judge(json!({"event": "pusch"})), &["spec.event", "`pusch`", "did you mean `push`"]);
    let parameters = judge(json!({"parameters": {"brunch": "main"}}));
    assert_refused(&parameters, &["spec.parameters.brunch", "did you mean `branch`"]);
    assert_refused(&judge(json!({"filter": "variables.rev == ''"})), &["spec.filter", "ref"]);
    let runner = json!({"url": "https://runner.example/", "request": {"body": "{'ref': variables.rev}"}});
    assert_refused(&judge(json!({"runner": runner})), &["spec.runner.request.body", "1:9", "did you mean `ref`"]);
    assert_refused(&judge(json!({"event": "release"})), &["spec.event", "not among the events", "push"]);
    let elsewhere = json!({"url": "https://other.example/"});
    assert_warned(&judge(json!({"runner": elsewhere})), &["https://other.example"]);
    // A mistake that is refused is not hidden behind one that is not.
    assert_refused(&judge(json!({"runner": elsewhere, "event": "pusch"})), &["spec.event"]);
}

#[test]
fn what_is_not_there_yet_is_a_warning() {
    let runners = Runners::new("cluster.local", &["https://runner.example".to_owned()]).unwrap();
    let wrong = trigger(json!({"event": "pusch"}));
    let alone = judge_trigger(&wrong, None, &PluginState::NotFound, &runners, false);
    assert_warned(&alone, &["spec.subscriptionRef.name", "no Subscription \"web\""]);
    let there = subscription(json!({}));
    let without_plugin = judge_trigger(&wrong, Some(&there), &PluginState::NotFound, &runners, false);
    assert_warned(&without_plugin, &["spec.subscriptionRef.name", "\"web\"", "\"forge\""]);
}

#[test]
fn a_subscription_that_is_replaced_does_not_hold_up_its_trigger() {
    let runners = Runners::new("cluster.local", &["https://runner.example".to_owned()]).unwrap();
    let mut there = subscription(json!({"events": ["push"]}));
    let other = trigger(json!({"event": "release"}));
    assert_warned(&judge_trigger(&other, Some(&there), &plugin(), &runners, true), &["not among the events"]);
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
    there.metadata.deletion_timestamp = Some(now);
    assert_warned(&judge_trigger(&other, Some(&there), &plugin(), &runners, false), &["not among the events"]);
    // What the plugin does not have is wrong for every Subscription.
    let unknown = trigger(json!({"event": "pusch"}));
    assert_refused(&judge_trigger(&unknown, Some(&there), &plugin(), &runners, true), &["spec.event"]);
}

#[test]
fn an_update_that_leaves_the_spec_alone_is_not_judged() {
    let mut labelled = trigger(json!({}));
    labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    assert!(!is_news(&labelled, Some(&trigger(json!({})))));
    assert!(is_news(&labelled, Some(&trigger(json!({"event": "release"})))) && is_news(&labelled, None));
}
