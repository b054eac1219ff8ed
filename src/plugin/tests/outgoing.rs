//! What is sent to runners.

use super::*;
use crate::api::Runner;

fn runner(spec: Value) -> Runner {
    let mut all = json!({"url": "https://runner.example/"});
    all.as_object_mut().unwrap().extend(object(spec));
    serde_json::from_value(all).unwrap()
}

fn facts(variables: &Value) -> Facts<'_> {
    Facts { id: uuid::Uuid::nil(), item: 2, attempt: 3, ..super::facts(variables) }
}

fn render(spec: Value, credentials: &[(&str, &str)]) -> Result<Rendered, String> {
    let outgoing = Outgoing::compile(&runner(spec), None).map_err(|mistakes| join(&mistakes))?;
    let credentials = credentials.iter().map(|(key, value)| ((*key).to_owned(), Secret::from(*value))).collect();
    outgoing.render(&facts(&json!({"ref": "main", "id": 7})), &credentials).map_err(|error| error.to_string())
}

fn request(spec: Value, credentials: &[(&str, &str)]) -> (http::Method, http::HeaderMap, String) {
    match render(spec, credentials).unwrap() {
        Rendered::Request(method, headers, body) => (method, headers, String::from_utf8(body.to_vec()).unwrap()),
        Rendered::Event(..) | Rendered::Object(_) => panic!("it is a request"),
    }
}

#[test]
fn a_request_is_made_of_everything_that_is_known() {
    let body = "{'inputs': variables, 'user': subscription.namespace, 'trigger': trigger.name, 'event': event.name, \
                'item': event.item, 'plugin': subscription.plugin, 'at': event.time, 'n': delivery.attempt}";
    let (method, headers, body) = request(
        json!({
            "request": {"body": body}, "credentials": {"secretRef": {"name": "dify"}},
            "headers": {"Authorization": "'Bearer ' + credentials.token", "x-workflow": "trigger.workflow"},
        }),
        &[("token", "hunter2")],
    );
    assert_eq!(method, http::Method::POST);
    assert_eq!(headers["authorization"], "Bearer hunter2");
    assert!(headers["authorization"].is_sensitive() && !headers["x-workflow"].is_sensitive());
    assert_eq!(headers["content-type"], "application/json");
    let expected = json!({
        "inputs": {"ref": "main", "id": 7}, "user": "team-a", "trigger": "review", "event": "push", "item": 2,
        "plugin": "gitea", "at": "2023-11-14T22:13:20.123Z", "n": 3,
    });
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);

    let form = json!({"request": {"method": "PUT", "encoding": "form", "body": "{'ref': variables.ref, 'n': [1, 2]}"}});
    let (method, headers, body) = request(form, &[]);
    assert_eq!((method, body.as_str()), (http::Method::PUT, "n=1&n=2&ref=main"));
    assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
    let own = json!({"request": {"body": "1"}, "headers": {"content-type": "'application/vnd.example+json'"}});
    assert_eq!(request(own, &[]).1["content-type"], "application/vnd.example+json");
    let (method, headers, body) = request(json!({"request": {"method": "GET"}}), &[]);
    assert_eq!((method, headers.len(), body.as_str()), (http::Method::GET, 0, ""));
}

#[test]
fn what_cannot_be_made_shows_no_secret() {
    let credentials = json!({"secretRef": {"name": "dify"}});
    let failing = |header: &str, value: &str| {
        render(json!({"credentials": credentials, "headers": {"x-a": header}}), &[("token", value)]).unwrap_err()
    };
    let text = failing("'a' + credentials.token", "hunter2\nx-evil: 1");
    assert!(
        text.contains("spec.runner.headers.x-a") && text.contains("line break") && !text.contains("hunter2"),
        "{text}"
    );
    let text = failing("credentials.token.substring(100)", "hunter2");
    assert!(!text.contains("hunter2"), "{text}");
    let text = failing("credentials.token", "");
    assert!(text.contains("the key token"), "{text}");
    let long = "x".repeat(5000);
    assert!(failing("credentials.token", &long).contains("4096 bytes"));
    let missing = render(json!({"request": {"body": "variables.nothing"}}), &[]).unwrap_err();
    assert!(missing.contains("spec.runner.request.body") && missing.contains("no such key: nothing"), "{missing}");
    // A key that is computed from the event is not among those that are read.
    let computed = json!({
        "credentials": credentials, "headers": {"x-a": "credentials.token + credentials[variables.ref]"},
    });
    assert!(render(computed, &[("token", "t"), ("main", "hunter2")]).unwrap_err().contains("no such key"));
}

#[test]
fn mistakes_of_a_runner_name_their_field() {
    let secret = json!({"secretRef": {"name": "s"}});
    for (spec, field, problem) in [
        (json!({"headers": {"Host": "'x'"}}), "spec.runner.headers.Host", "the HTTP client"),
        (json!({"headers": {"transfer-encoding": "'x'"}}), "spec.runner.headers.transfer-encoding", "the HTTP client"),
        (json!({"headers": {"Content-Length": "'1'"}}), "spec.runner.headers.Content-Length", "the HTTP client"),
        (json!({"headers": {"connection": "'x'"}}), "spec.runner.headers.connection", "the HTTP client"),
        (json!({"headers": {"CE-id": "'x'"}}), "spec.runner.headers.CE-id", "the CloudEvent sets"),
        (json!({"headers": {"content-type": "'x'"}}), "spec.runner.headers.content-type", "the CloudEvent sets"),
        (json!({"headers": {"Webhook-Id": "'x'"}}), "spec.runner.headers.Webhook-Id", "runner.signature"),
        (json!({"request": {}, "headers": {"webhook-signature": "'x'"}}), "spec.runner.headers", "runner.signature"),
        (json!({"headers": {"a b": "'x'"}}), "spec.runner.headers.a b", "no header name"),
        (json!({"headers": {"x-a": "'x'", "X-A": "'y'"}}), "spec.runner.headers.x-a", "there twice"),
        (json!({"headers": {"x": "variables."}}), "spec.runner.headers.x", "1:"),
        (json!({"headers": {"x": "request.headers"}}), "spec.runner.headers.x", "unknown variable `request`"),
        (json!({"headers": {"x": "event.nam"}}), "spec.runner.headers.x", "did you mean `name`?"),
        (json!({"headers": {"x": "credentials.a"}}), "spec.runner.credentials.secretRef", "is missing"),
        (json!({"credentials": secret}), "spec.runner.credentials", "no header uses them"),
        (
            json!({"credentials": secret, "headers": {"x": "credentials.a"}, "request": {"body": "credentials.a"}}),
            "spec.runner.request.body",
            "unknown variable `credentials`",
        ),
        (json!({"request": {"method": "GET", "body": "1"}}), "spec.runner.request.body", "a GET request has no body"),
        (json!({"format": "Structured", "request": {}}), "spec.runner.format", "leave it out"),
        (json!({"request": {"body": "variables.\nx +"}}), "spec.runner.request.body", "2:"),
    ] {
        let mistakes = Outgoing::compile(&runner(spec.clone()), None).unwrap_err();
        let text = join(&mistakes);
        assert!(mistakes.iter().any(|m| m.field.starts_with(field) && m.problem.contains(problem)), "{spec}: {text}");
    }
    let many: Map<String, Value> = (0..40).map(|n| (format!("x-{n}"), json!("'a'"))).collect();
    assert!(Outgoing::compile(&runner(json!({"headers": many})), None).unwrap_err()[0].problem.contains("at most 32"));
    // What belongs to a CloudEvent means nothing elsewhere.
    assert!(Outgoing::compile(&runner(json!({"request": {}, "headers": {"ce-id": "event.id"}})), None).is_ok());
}

#[test]
fn variables_are_those_of_the_event_where_they_are_known() {
    let mistyped = runner(json!({"request": {"body": "{'commits': variables.comits}"}}));
    let mistakes = plugin().compile_runner("push", &mistyped).unwrap_err();
    assert!(mistakes[0].problem.contains("did you mean `commits`?"), "{mistakes:?}");
    assert!(plugin().compile_runner("unknown", &mistyped).is_ok());
    assert!(Outgoing::compile(&mistyped, None).is_ok());
}

#[test]
fn only_the_keys_that_are_used_are_asked_for() {
    let spec = json!({
        "credentials": {"secretRef": {"name": "s"}},
        "headers": {"a": "credentials.user + credentials['pass-word']", "b": "credentials.user"},
    });
    let outgoing = Outgoing::compile(&runner(spec), None).unwrap();
    assert_eq!(outgoing.credential_keys().iter().collect::<Vec<_>>(), ["pass-word", "user"]);
    assert!(!format!("{outgoing:?}").contains("credentials"));
}

#[test]
fn no_plugin_has_the_name_that_is_for_runners() {
    let spec: TriggerPluginSpec = serde_json::from_value(spec()).unwrap();
    let mistakes = Plugin::compile("runners", &spec).unwrap_err();
    assert_eq!(mistakes[0].field, "metadata.name");
}
