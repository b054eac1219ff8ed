//! Tests of the whole engine: specs in, calls, events and refusals out.

mod answers;
mod calls;
mod captures;
mod catalogue;
mod definitions;
mod handshakes;
mod mistakes;
mod oauth2;
mod outgoing;
mod page;
mod pagination;
mod promises;
mod recorded;
mod resource;
mod shown;
mod signatures;
mod signing;
mod steps;
mod tokens;
mod triggers;
mod verification;

use super::*;
use crate::api::TriggerPluginSpec;
use serde_json::json;

/// A small plugin that is right in every part.
pub(crate) fn spec() -> Value {
    json!({
        "displayName": "Example",
        "allowedOrigins": ["{+parameters.baseURL}"],
        "parameters": {
            "type": "object",
            "required": ["baseURL"],
            "properties": {
                "baseURL": {"type": "string", "format": "uri"},
                "owner": {"type": "string"},
                "page": {"type": "integer"},
                "path": {"type": "string"},
                "tags": {"type": "array", "items": {"type": "string"}}
            }
        },
        "authorization": {"apiKey": {"keys": ["token"], "headers": {"authorization": "'token ' + credentials.token"}}},
        "webhook": {
            "verify": {"method": "GET", "url": "{+parameters.baseURL}/user", "account": "response.body.login"},
            "find": {
                "method": "GET", "url": "{+parameters.baseURL}/{parameters.owner}/hooks{?parameters.page}",
                "items": "response.body", "match": "item.url == callback.url", "id": "string(item.id)"
            },
            "create": {
                "method": "POST", "url": "{+parameters.baseURL}/{parameters.owner}/hooks",
                "body": "{'url': callback.url, 'secret': callback.secret, 'events': events}",
                "capture": {"id": "string(response.body.id)"}
            },
            "update": {
                "method": "PATCH", "url": "{+parameters.baseURL}/{parameters.owner}/hooks/{webhook.id}",
                "body": "{'id': webhook.id, 'secret': callback.secret}"
            },
            "delete": {"method": "DELETE", "url": "{+parameters.baseURL}/{parameters.owner}/hooks/{webhook.id}"}
        },
        "callback": {
            "verification": [{"hmac": {"header": "X-Signature", "algorithm": "sha256", "encoding": "hex"}}],
            "event": "request.headers['x-event']",
            "deliveryID": "request.headers['x-delivery']"
        },
        "events": [
            {
                "name": "push", "title": "Push",
                "parameters": {
                    "branches": {"schema": {"type": "array", "items": {"type": "string"}}, "match": "glob(value, body.branch)"},
                    "bot": {"schema": {"type": "boolean", "default": false}, "match": "body.bot == value"}
                },
                "variables": {
                    "branch": {"type": "string", "value": "body.branch"},
                    "id": {"type": "integer", "value": "body.id"},
                    "commits": {"type": "array", "value": "body.commits"}
                }
            },
            {"name": "pull_request", "title": "Pull request"}
        ]
    })
}

/// The spec with one value replaced; `pointer` is a JSON pointer to something that is there.
pub(crate) fn with(pointer: &str, value: Value) -> Value {
    let mut spec = spec();
    match spec.pointer_mut(pointer) {
        Some(place) => *place = value,
        None => {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name.to_owned(), value);
        }
    }
    spec
}

/// An event with these variables, as a runner is told of it: the first of its request, at the first attempt.
pub(crate) fn facts(variables: &Value) -> Facts<'_> {
    Facts {
        variables,
        id: uuid::Uuid::from_u128(6),
        event: "push",
        item: 0,
        type_: "dev.bellhop.gitea.push",
        time: "2023-11-14T22:13:20.123Z",
        namespace: "team-a",
        subscription: "acme-web",
        plugin: "gitea",
        trigger: "review",
        workflow: "w",
        attempt: 1,
    }
}

/// The spec with several values replaced or added.
pub(crate) fn with_all<const N: usize>(changes: [(&str, Value); N]) -> Value {
    changes.into_iter().fold(spec(), |mut spec, (pointer, value)| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[name] = value;
        spec
    })
}

pub(crate) fn compile(spec: Value) -> Result<Plugin, Vec<Mistake>> {
    let spec: TriggerPluginSpec = serde_json::from_value(spec).unwrap();
    Plugin::compile("example", &spec)
}

pub(crate) fn plugin() -> Plugin {
    compile(spec()).unwrap()
}

/// The plugin of an example.
pub(crate) fn example(folder: &str) -> Plugin {
    let path = format!("{}/examples/{folder}/plugin.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let resource: crate::api::TriggerPlugin =
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    Plugin::compile(resource.metadata.name.as_deref().unwrap(), &resource.spec)
        .unwrap_or_else(|mistakes| panic!("{path}: {mistakes:#?}"))
}

/// A JSON object.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// The headers of a stored request.
pub(crate) fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_plugin_can_be_shared() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Plugin>();
    shared::<Trigger>();
    shared::<Reading>();
    shared::<Event>();
    shared::<Secret>();
}

#[test]
fn events_are_pinned() {
    let plugin = plugin();
    assert_eq!(plugin.pin_events(None).unwrap(), ["push", "pull_request"]);
    let wanted = ["pull_request".to_owned(), "pull_request".to_owned()];
    assert_eq!(plugin.pin_events(Some(&wanted)).unwrap(), ["pull_request"]);
    let mistake = plugin.pin_events(Some(&["push".into(), "pull_requests".into()])).unwrap_err();
    assert_eq!(mistake.field, "spec.events[1]");
    assert!(mistake.problem.contains("did you mean `pull_request`?"), "{mistake}");
    assert!(
        mistake.problem.contains("kubectl get triggerplugin example -o jsonpath='{.spec.events[*].name}'"),
        "{mistake}"
    );
    let far = plugin.pin_events(Some(&["something_else_entirely".into()])).unwrap_err();
    assert!(!far.problem.contains("did you mean"), "{far}");
    assert_eq!(plugin.pin_events(Some(&[])).unwrap_err().field, "spec.events");
}

#[test]
fn parameters_are_checked() {
    let plugin = plugin();
    plugin.check_parameters(&object(json!({"baseURL": "https://x.example"}))).unwrap();
    let check = |value: Value| {
        let mistakes = plugin.check_parameters(&object(value)).unwrap_err();
        mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(check(json!({})), "spec.parameters.baseURL: is required");
    assert!(
        check(json!({"baseURL": "https://x.example", "owner": 7}))
            .starts_with("spec.parameters.owner: 7 is not of type")
    );
    assert!(check(json!({"baseURL": "no url"})).starts_with("spec.parameters.baseURL: "));
    let unknown = check(json!({"baseURL": "https://x.example", "ower": "a"}));
    assert!(unknown.starts_with("spec.parameters.ower: unknown parameter; did you mean `owner`?"), "{unknown}");
    assert!(check(json!({"baseURL": "https://x.example", "tags": ["a", 1]})).starts_with("spec.parameters.tags[1]: "));

    let mut none = spec();
    none.as_object_mut().unwrap().remove("parameters");
    none["allowedOrigins"] = json!(["https://x.example"]);
    none.as_object_mut().unwrap().remove("webhook");
    let none = compile(none).unwrap();
    none.check_parameters(&Map::new()).unwrap();
    let mistakes = none.check_parameters(&object(json!({"a": 1}))).unwrap_err();
    assert_eq!(mistakes[0].to_string(), "spec.parameters.a: unknown parameter; there are none");
    assert_eq!(none.offers(), ["manual"]);
    assert_eq!(plugin.offers(), ["apiKey", "manual"]);
    assert_eq!(plugin.credential_keys(), ["token"]);
}
