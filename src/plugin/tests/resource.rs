//! What is made where the runner is the cluster.

use super::*;
use crate::api::Runner;
use uuid::Uuid;

fn job() -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"labels": {"app": "review"}, "annotations": {}},
        "spec": {
            "backoffLimit": 0,
            "template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "alpine", "env": [{"name": "REF"}, {"name": "BY", "value": "x"}]}],
            }},
        },
    })
}

fn runner(manifest: Value, fields: Value) -> Runner {
    let spec = json!({"resource": {"serviceAccountName": "workflows", "manifest": manifest, "fields": fields}});
    serde_json::from_value(spec).unwrap()
}

fn render(manifest: Value, fields: Value, variables: Value) -> Result<Value, String> {
    let outgoing = Outgoing::compile(&runner(manifest, fields), None).map_err(|mistakes| join(&mistakes))?;
    match outgoing.render(&facts(&variables), &Default::default()).map_err(|error| error.to_string())? {
        Rendered::Object(object) => Ok(object),
        Rendered::Event(..) | Rendered::Request(..) => panic!("it is an object"),
    }
}

fn mistakes(manifest: Value, fields: Value) -> String {
    join(&Outgoing::compile(&runner(manifest, fields), None).unwrap_err())
}

#[test]
fn fields_are_filled_and_the_rest_stays() {
    let fields = json!([
        {"path": "/spec/template/spec/containers/0/env/0/value", "value": "variables.ref"},
        {"path": "/spec/backoffLimit", "value": "size(variables.commits)"},
        {"path": "/spec/template/spec/containers/0/args", "value": "variables.commits"},
        {"path": "/metadata/annotations/example.com~1by", "value": "subscription.namespace + '/' + trigger.workflow"},
        {"path": "/metadata/labels/tilde~0", "value": "event.name"},
    ]);
    let object = render(job(), fields, json!({"ref": "refs/heads/main", "commits": ["a", "b"]})).unwrap();
    let container = &object["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["env"], json!([{"name": "REF", "value": "refs/heads/main"}, {"name": "BY", "value": "x"}]));
    assert_eq!((&container["args"], &container["image"]), (&json!(["a", "b"]), &json!("alpine")));
    assert_eq!(object["spec"]["backoffLimit"], 2);
    assert_eq!(object["metadata"]["annotations"], json!({"example.com/by": "team-a/w"}));
    assert_eq!(object["metadata"]["labels"], json!({"app": "review", "tilde~": "push"}));
    assert_eq!(render(job(), json!([]), json!({})).unwrap(), job());
}

#[test]
fn what_comes_from_an_event_is_a_value_and_nothing_else() {
    let hostile = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": "kube-system"}});
    let text = "\"}]}}, \"kind\": \"Secret\", {{workflow.name}} ${HOME} variables.ref";
    let fields = json!([
        {"path": "/spec/template/spec/containers/0/env/0/value", "value": "variables.text"},
        {"path": "/spec/suspend", "value": "variables.object"},
    ]);
    let object = render(job(), fields, json!({"text": text, "object": hostile})).unwrap();
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"], text);
    assert_eq!(object["spec"]["suspend"], hostile);
    let identity =
        ObjectIdentity { namespace: "team-a", trigger: "review", uid: Uuid::from_u128(1), event: Uuid::from_u128(6) };
    let complete = identity.complete(object).unwrap();
    assert_eq!((&complete["apiVersion"], &complete["kind"]), (&json!("batch/v1"), &json!("Job")));
    assert_eq!(complete["metadata"]["namespace"], "team-a");
    assert!(identity.made(&complete));
}

#[test]
fn an_event_makes_one_object_and_another_event_another() {
    let (uid, event) = (Uuid::from_u128(1), Uuid::from_u128(6));
    let identity = |trigger: &'static str, uid, event| ObjectIdentity { namespace: "team-a", trigger, uid, event };
    let name = identity("review", uid, event).name();
    assert_eq!(name, identity("review", uid, event).name());
    assert!(name.starts_with("review-") && name.len() == 27, "{name}");
    assert_ne!(name, identity("review", uid, Uuid::from_u128(7)).name());
    assert_ne!(name, identity("review", Uuid::from_u128(2), event).name());
    let long = identity("on-every-push.of-the-repository.with-a-name-that-has-no-end", uid, event).name();
    assert!(long.len() <= 51 && !long.contains('.') && long.starts_with("on-every-push-of-the-repositor-"), "{long}");
    let bare = identity("review", uid, event).complete(json!({"apiVersion": "v1", "kind": "Pod"})).unwrap();
    let expected = json!({
        "name": name, "namespace": "team-a", "annotations": {"bellhop.dev/trigger": "review"},
        "labels": {"bellhop.dev/event-id": event.to_string(), "bellhop.dev/trigger-uid": uid.to_string()},
    });
    assert_eq!(bare["metadata"], expected);
    assert!(!identity("review", uid, Uuid::from_u128(7)).made(&bare));
    assert!(!identity("review", Uuid::from_u128(2), event).made(&bare));
}

#[test]
fn objects_are_bounded() {
    let large =
        render(job(), json!([{"path": "/spec/x", "value": "variables.text"}]), json!({"text": "x".repeat(300_000)}));
    let identity = ObjectIdentity { namespace: "n", trigger: "t", uid: Uuid::nil(), event: Uuid::nil() };
    let problem = identity.complete(large.unwrap()).unwrap_err();
    assert!(problem.contains("at most 262144"), "{problem}");
    let mut manifest = job();
    manifest["spec"]["note"] = json!("x".repeat(70_000));
    assert!(mistakes(manifest, json!([])).contains("at most 65536"));
    let many: Vec<Value> = (0..65).map(|n| json!({"path": format!("/spec/f{n}"), "value": "1"})).collect();
    assert!(mistakes(job(), json!(many)).contains("spec.runner.resource.fields: has 65 entries; at most 64"));
}

#[test]
fn mistakes_name_their_field() {
    let in_env = |rest: &str| format!("/spec/template/spec/containers/0/env/{rest}");
    let (beyond, zero, next) = (in_env("2/value"), in_env("00/value"), in_env("-"));
    for (path, value, field, problem) in [
        ("spec", "1", "path", "does not begin with a slash"),
        ("/apiVersion", "'v1'", "path", "the same for every event"),
        ("/kind", "'Pod'", "path", "the same for every event"),
        ("/metadata", "variables", "path", "single labels and annotations"),
        ("/metadata/name", "'x'", "path", "single labels and annotations"),
        ("/metadata/namespace", "'x'", "path", "single labels and annotations"),
        ("/metadata/labels", "{}", "path", "single labels and annotations"),
        ("/metadata/labels/bellhop.dev~1event-id", "'x'", "path", "single labels and annotations"),
        ("/metadata/ownerReferences/0", "{}", "path", "single labels and annotations"),
        ("/spec/templates/spec", "1", "path", "the manifest has no /spec/templates"),
        (beyond.as_str(), "'x'", "path", "a list with 2 entries"),
        (zero.as_str(), "'x'", "path", "a list with 2 entries"),
        (next.as_str(), "'x'", "path", "a list with 2 entries"),
        ("/spec/backoffLimit/x", "1", "path", "neither a map nor a list"),
        ("/spec/a~2b", "1", "path", "a tilde is written ~0"),
        ("/spec/x", "variables.", "value", "1:"),
        ("/spec/x", "credentials.token", "value", "unknown variable `credentials`"),
        ("/spec/x", "event.nam", "value", "did you mean `name`?"),
    ] {
        let text = mistakes(job(), json!([{"path": "/spec/first", "value": "1"}, {"path": path, "value": value}]));
        let field = format!("spec.runner.resource.fields[1].{field}");
        assert!(text.contains(&field) && text.contains(problem), "{path} {value}: {text}");
    }
    let twice = json!([
        {"path": "/spec/template", "value": "{}"}, {"path": "/spec/broken", "value": "("},
        {"path": "/spec/template/spec", "value": "{}"},
    ]);
    let text = mistakes(job(), twice);
    assert!(text.contains("fields[1].value") && text.contains("fields[2].path"), "{text}");
    assert!(text.contains("is filled by fields[0] too"), "{text}");
}

#[test]
fn a_manifest_says_neither_its_name_nor_where_it_is() {
    for (field, value, problem) in [
        ("name", json!("x"), "manifest.metadata.name: leave it out; the name is derived"),
        ("generateName", json!("x-"), "manifest.metadata.generateName: leave it out"),
        (
            "namespace",
            json!("kube-system"),
            "manifest.metadata.namespace: leave it out; the object is made in the namespace",
        ),
        ("ownerReferences", json!([]), "manifest.metadata.ownerReferences: leave it out"),
        ("finalizers", json!(["x"]), "manifest.metadata.finalizers: leave it out"),
        ("labels", json!({"bellhop.dev/event-id": "x"}), "bellhop.dev/event-id: what begins with bellhop.dev/"),
        ("labels", json!(["x"]), "manifest.metadata.labels: must be a map of texts"),
        ("annotations", json!({"a": 1}), "manifest.metadata.annotations: must be a map of texts"),
    ] {
        let mut manifest = job();
        manifest["metadata"][field] = value;
        let text = mistakes(manifest, json!([]));
        assert!(text.contains(problem), "{field}: {text}");
    }
    for (field, value) in [
        ("apiVersion", json!("v1/../../x")),
        ("apiVersion", json!("a/b/v1")),
        ("apiVersion", json!("../v1")),
        ("apiVersion", json!("")),
        ("apiVersion", json!(1)),
        ("kind", json!("job")),
        ("kind", json!("Job/status")),
        ("kind", Value::Null),
    ] {
        let mut manifest = job();
        manifest[field] = value.clone();
        let text = mistakes(manifest, json!([]));
        assert!(text.contains(&format!("spec.runner.resource.manifest.{field}: is {value}")), "{text}");
    }
    let mut bare = job();
    bare.as_object_mut().unwrap().remove("metadata");
    assert!(Outgoing::compile(&runner(bare, json!([])), None).is_ok());
}

#[test]
fn what_is_about_http_is_left_out_beside_it() {
    for (field, value) in [
        ("format", json!("Binary")),
        ("headers", json!({"x": "'y'"})),
        ("request", json!({})),
        ("credentials", json!({"secretRef": {"name": "s"}})),
        ("signature", json!({"secretRef": {"name": "s"}})),
    ] {
        let mut spec = json!({"resource": {"serviceAccountName": "workflows", "manifest": job()}});
        spec[field] = value;
        let text = join(&Outgoing::compile(&serde_json::from_value(spec).unwrap(), None).unwrap_err());
        assert!(text.contains(&format!("spec.runner.{field}: is about HTTP")), "{text}");
    }
}

#[test]
fn an_expression_that_fails_for_an_event_makes_nothing() {
    let fields = json!([{"path": "/spec/x", "value": "variables.nothing"}]);
    let text = render(job(), fields, json!({"ref": "main"})).unwrap_err();
    assert!(text.contains("spec.runner.resource.fields[0].value") && text.contains("no such key"), "{text}");
}
