//! Triggers: parameters, filters, mismatches and fan-out.

use super::*;
use crate::plugin::cel::value::to_json;

const SUBSCRIPTION: SubscriptionInfo<'static> = SubscriptionInfo { namespace: "team-a", name: "acme-web" };

fn read(plugin: &Plugin, event: &str, body: &Value) -> (Reading, Vec<Event>) {
    let pairs = headers(&[("X-Event", event), ("x-delivery", "d1"), ("x-list", "a"), ("X-List", "b")]);
    let reading =
        plugin.read(&CallbackRequest::stored("POST", "a=1&a=2&b=%20", &pairs, body.to_string().as_bytes())).unwrap();
    let events = plugin.events(&reading).unwrap();
    (reading, events)
}

fn matches(parameters: Value, filter: Option<&str>, body: &Value) -> Result<(), String> {
    let plugin = plugin();
    let trigger = plugin.compile_trigger("push", &object(parameters), filter).map_err(|mistake| mistake.to_string())?;
    let (reading, events) = read(&plugin, "push", body);
    let (variables, _) = plugin.variables(&reading, &events[0]);
    trigger.matches(&reading, &events[0], &variables, SUBSCRIPTION).map_err(|mismatch| mismatch.to_string())
}

#[test]
fn all_that_is_set_must_match() {
    let body = json!({"branch": "release/1", "bot": false, "id": 7, "commits": [1, 2]});
    assert_eq!(matches(json!({}), None, &body), Ok(()));
    assert_eq!(matches(json!({"branches": ["main", "release/*"]}), None, &body), Ok(()));
    assert_eq!(matches(json!({"branches": ["main"]}), None, &body).unwrap_err(), "parameter branches does not match");
    // A default counts as set, so that it can protect.
    assert_eq!(
        matches(json!({}), None, &json!({"branch": "x", "bot": true})).unwrap_err(),
        "parameter bot does not match"
    );
    assert_eq!(matches(json!({"bot": true}), None, &json!({"branch": "x", "bot": true})), Ok(()));
    assert_eq!(matches(json!({}), Some("variables.commits.size() > 1 && variables.id == 7"), &body), Ok(()));
    assert_eq!(
        matches(
            json!({}),
            Some(
                "event.name == 'push' && event.item == 0 && subscription.name == 'acme-web' && subscription.namespace == 'team-a'"
            ),
            &body
        ),
        Ok(())
    );
    assert_eq!(matches(json!({}), Some("variables.id > 7"), &body).unwrap_err(), "the filter is false");
}

#[test]
fn what_cannot_be_evaluated_does_not_match() {
    let body = json!({"bot": false});
    assert_eq!(
        matches(json!({"branches": ["main"]}), None, &body).unwrap_err(),
        "parameter branches cannot be evaluated: no such key: branch"
    );
    assert_eq!(
        matches(json!({}), None, &json!({})).unwrap_err(),
        "parameter bot cannot be evaluated: no such key: bot"
    );
    assert_eq!(
        matches(json!({}), Some("variables.commits[3] == 1"), &json!({"bot": false, "commits": []})).unwrap_err(),
        "the filter cannot be evaluated: index out of range: 3"
    );
    assert_eq!(
        matches(json!({}), Some("variables.id"), &json!({"bot": false, "id": 1})).unwrap_err(),
        "the filter is an int, not a bool"
    );
}

#[test]
fn mistakes_of_a_trigger() {
    let plugin = plugin();
    let mistake = |event: &str, parameters: Value, filter: Option<&str>| {
        plugin.compile_trigger(event, &object(parameters), filter).unwrap_err().to_string()
    };
    assert_eq!(
        mistake("pusk", json!({}), None),
        "spec.event: the plugin example has no event `pusk`; did you mean `push`?"
    );
    assert_eq!(
        mistake("push", json!({"branch": ["main"], "bot": "yes"}), None),
        "spec.parameters.branch: unknown parameter; did you mean `branches`? there are: bot, branches; \
         spec.parameters.bot: \"yes\" is not of type \"boolean\""
    );
    assert!(mistake("push", json!({"branches": ["a", 1]}), None).starts_with("spec.parameters.branches[1]: "));
    assert!(
        mistake("push", json!({}), Some("variables.comits.size() > 0"))
            .starts_with("spec.filter: 1:1: `variables` has no `comits`; did you mean `commits`?")
    );
    assert!(
        mistake("push", json!({}), Some("body.x == 1"))
            .contains("unknown variable `body`; here are: variables, event, subscription")
    );
    assert!(mistake("push", json!({}), Some("true &&")).starts_with("spec.filter: 1:8: "));
    assert!(mistake("push", json!({}), Some(" ")).contains("is empty"));
}

#[test]
fn another_event_does_not_match() {
    let plugin = plugin();
    let trigger = plugin.compile_trigger("push", &Map::new(), None).unwrap();
    let (reading, events) = read(&plugin, "ping", &json!({}));
    assert_eq!(events[0].name.as_deref(), Ok("ping"));
    assert_eq!(plugin.variables(&reading, &events[0]), (Map::new(), vec![]));
    let mismatch = trigger.matches(&reading, &events[0], &Map::new(), SUBSCRIPTION).unwrap_err();
    assert_eq!(mismatch.to_string(), "the event is `ping`, not `push`");
}

#[test]
fn variables_have_their_type() {
    let plugin = plugin();
    let variables = |body: Value| {
        let (reading, events) = read(&plugin, "push", &body);
        let (values, notes) = plugin.variables(&reading, &events[0]);
        (Value::Object(values), notes.iter().map(VariableNote::to_string).collect::<Vec<_>>())
    };
    let good = json!({"branch": "main", "id": u64::MAX, "commits": [{"id": 1_u64 << 60}]});
    assert_eq!(variables(good.clone()), (good, vec![]));
    assert_eq!(variables(json!({"branch": null, "id": null, "commits": null})).1, Vec::<String>::new());
    let (values, notes) = variables(json!({"branch": 1, "id": 1.5}));
    assert_eq!(values, json!({"branch": null, "id": null, "commits": null}));
    assert_eq!(
        notes,
        [
            "variable branch: is a number, not of type string",
            "variable commits: cannot be evaluated: no such key: commits",
            "variable id: is a number, not of type integer",
        ]
    );
}

#[test]
fn a_variable_that_does_not_fit_its_schema_arrives_with_a_note() {
    let items =
        json!({"type": "array", "value": "body.commits", "schema": {"items": {"required": ["id"]}, "maxItems": 3}});
    let plugin = compile(with("/events/0/variables/commits", items)).unwrap();
    let commits = |commits: Value| {
        let (reading, events) = read(&plugin, "push", &json!({"branch": "main", "id": 1, "commits": commits}));
        let (values, notes) = plugin.variables(&reading, &events[0]);
        assert_eq!(values["commits"], commits);
        notes.iter().map(VariableNote::to_string).collect::<Vec<_>>()
    };
    assert_eq!(commits(json!([{"id": 1}])), Vec::<String>::new());
    assert_eq!(commits(json!(null)), Vec::<String>::new());
    let note = "variable commits: does not fit its schema: value[1].id: is required";
    assert_eq!(commits(json!([{"id": 1}, {}])), [note]);
    assert_eq!(commits(json!([{"id": 1}, {}, {}, {}])).len(), 1);
}

#[test]
fn a_request_can_carry_many_events() {
    let mut spec = with("/callback/items", json!("body.value"));
    spec["callback"]["event"] = json!("item.kind");
    spec["callback"]["deliveryID"] = json!("body.id");
    spec["events"][0]["variables"]["branch"]["value"] = json!("item.branch");
    let plugin = compile(spec).unwrap();
    assert!(plugin.event_needs_body() && plugin.delivery_id_needs_body());
    let body = json!({"id": "x", "value": [{"kind": "push", "branch": "a"}, {"kind": 7}, {}, {"kind": "push", "branch": "b"}]});
    let (reading, events) = read(&plugin, "ignored", &body);
    assert_eq!(events.iter().map(|event| event.item).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(events[0].name.as_deref(), Ok("push"));
    assert_eq!(events[1].name.as_ref().unwrap_err().to_string(), "spec.callback.event is an int, not a string");
    assert_eq!(
        events[2].name.as_ref().unwrap_err().to_string(),
        "spec.callback.event cannot be evaluated: no such key: kind"
    );
    assert_eq!(plugin.variables(&reading, &events[3]).0["branch"], json!("b"));
    assert_eq!(read(&plugin, "x", &json!({"value": []})).1.len(), 0);
    for wrong in [json!({}), json!({"value": 1}), json!({"value": null}), json!({"value": vec![0; 10_001]})] {
        let pairs = headers(&[]);
        let text = wrong.to_string();
        let reading = plugin.read(&CallbackRequest::stored("POST", "", &pairs, text.as_bytes())).unwrap();
        assert_eq!(plugin.events(&reading).unwrap_err().field, "spec.callback.items");
    }
}

fn reading(plugin: &Plugin, pairs: &[(&str, &str)], body: &str) -> (Reading, Vec<Event>) {
    let pairs = headers(pairs);
    let reading = plugin.read(&CallbackRequest::stored("POST", "", &pairs, body.as_bytes())).unwrap();
    let events = plugin.events(&reading).unwrap();
    (reading, events)
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_deref().unwrap()).collect()
}

#[test]
fn what_is_inside_of_a_message_can_be_read() {
    // A push of Google Cloud Pub/Sub, as of its documentation: the data is base64, and here JSON.
    let mut spec = with("/callback/items", json!("[json(base64.decode(body.message.data))]"));
    spec["callback"]["event"] = json!("item.kind");
    spec["callback"]["deliveryID"] = json!("body.message.messageId");
    spec["events"][0]["variables"]["branch"]["value"] = json!("item.branch");
    let plugin = compile(spec).unwrap();
    use base64::Engine as _;
    let push = |data: &str| {
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        json!({"subscription": "projects/p/subscriptions/s", "message": {"data": data, "messageId": "136969346945"}})
            .to_string()
    };
    let body = push(r#"{"kind": "push", "branch": "main"}"#);
    let (reading, events) = reading(&plugin, &[], &body);
    assert_eq!(names(&events), ["push"]);
    assert_eq!(plugin.variables(&reading, &events[0]).0["branch"], json!("main"));
    // What is no JSON inside is a request without events, with the reason.
    let body = push("hello");
    let reading = plugin.read(&CallbackRequest::stored("POST", "", &[], body.as_bytes())).unwrap();
    let error = plugin.events(&reading).unwrap_err();
    assert!(error.field == "spec.callback.items" && error.reason.contains("this is not JSON"), "{error}");
}

#[test]
fn cloud_events_come_in_three_forms() {
    let mut spec = with("/callback/items", json!("type(body) == list ? body : [body]"));
    spec["callback"]["event"] = json!("'ce-type' in request.headers ? request.headers['ce-type'] : item.type");
    spec["callback"]["itemID"] = json!(
        "'ce-id' in request.headers ? request.headers['ce-source'] + ' ' + request.headers['ce-id'] : item.source + ' ' + item.id"
    );
    let data = "'ce-type' in request.headers ? item.branch : item.data.branch";
    spec["events"][0]["variables"]["branch"]["value"] = json!(data);
    let plugin = compile(spec).unwrap();
    let event =
        |id: &str| json!({"specversion": "1.0", "type": "push", "source": "/s", "id": id, "data": {"branch": "main"}});
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-type", "push"),
        ("ce-source", "/s"),
        ("ce-id", "1"),
        ("content-type", "application/json"),
    ];
    let structured = [("content-type", "application/cloudevents+json; charset=utf-8")];
    let batch = [("content-type", "application/cloudevents-batch+json")];
    for (pairs, body, ids) in [
        (&binary[..], json!({"branch": "main"}), &["/s 1"][..]),
        (&structured, event("1"), &["/s 1"]),
        (&batch, json!([event("1"), event("2"), event("1")]), &["/s 1", "/s 2"]),
        (&batch, json!([]), &[]),
    ] {
        let (reading, events) = reading(&plugin, pairs, &body.to_string());
        assert_eq!(events.iter().filter_map(|event| event.own_id.as_deref()).collect::<Vec<_>>(), ids);
        assert!(names(&events).iter().all(|name| *name == "push"));
        for event in &events {
            assert_eq!(plugin.variables(&reading, event).0["branch"], json!("main"));
        }
    }
}

#[test]
fn a_request_can_be_all_headers_and_a_form_can_hold_json() {
    // Google's channels have no body.
    let mut spec = with("/callback/event", json!("request.headers['x-goog-resource-state']"));
    spec["events"][0]["name"] = json!("exists");
    spec["events"][0]["variables"]["branch"]["value"] = json!("request.headers['x-goog-resource-uri']");
    let google = compile(spec).unwrap();
    let pairs = [("X-Goog-Resource-State", "exists"), ("X-Goog-Resource-URI", "https://example.com/files/1")];
    let (reading_, events) = reading(&google, &pairs, "");
    assert_eq!(names(&events), ["exists"]);
    assert_eq!(google.variables(&reading_, &events[0]).0["branch"], json!("https://example.com/files/1"));
    // Slack's interactions have a form with one field.
    let mut spec = with("/callback/formPayloadField", json!("payload"));
    spec["callback"]["event"] = json!("body.type");
    let slack = compile(spec).unwrap();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let (_, events) = reading(&slack, &form, "payload=%7B%22type%22%3A%22push%22%7D");
    assert_eq!(names(&events), ["push"]);
}

#[test]
fn ids_and_names_come_without_the_body_where_they_can() {
    let plugin = plugin();
    assert!(!plugin.event_needs_body() && !plugin.delivery_id_needs_body());
    let pairs = headers(&[("X-EVENT", "push"), ("X-Delivery", "d1")]);
    let broken = CallbackRequest::stored("POST", "", &pairs, b"not json");
    assert_eq!(plugin.event_from_headers(&broken).unwrap().as_deref(), Some("push"));
    assert_eq!(plugin.delivery_id(&broken).unwrap().as_deref(), Some("d1"));
    let none = headers(&[("x-delivery", "")]);
    let none = CallbackRequest::stored("POST", "", &none, b"{}");
    assert_eq!(plugin.delivery_id(&none).unwrap_err().to_string(), "spec.callback.deliveryID is an empty string");
    assert_eq!(
        plugin.event_from_headers(&none).unwrap_err().to_string(),
        "spec.callback.event cannot be evaluated: no such key: x-event"
    );
    let mut from_body = compile(with("/callback/deliveryID", json!("body.id"))).unwrap();
    assert!(from_body.delivery_id(&broken).unwrap_err().to_string().contains("the body is not JSON"));
    from_body = compile(with("/callback/event", json!("body.type"))).unwrap();
    assert_eq!(from_body.event_from_headers(&broken), Ok(None));
    let mut spec = spec();
    spec["callback"].as_object_mut().unwrap().remove("deliveryID");
    assert_eq!(compile(spec).unwrap().delivery_id(&broken), Ok(None));
}

#[test]
fn a_header_that_is_looked_up_directly_is_what_the_expression_gives() {
    let pairs = headers(&[("X-Event", "a"), ("x-event", "b")]);
    let request = CallbackRequest::stored("POST", "", &pairs, b"");
    for (source, direct) in [
        ("request.headers['x-event']", true),
        ("request.headers['x-event'] + ''", false),
        ("request.headers['X-Event']", false),
        ("request['headers']['x-event']", false),
    ] {
        let plugin = compile(with("/callback/event", json!(source))).unwrap();
        assert_eq!(plugin.callback.event.header().is_some(), direct, "{source}");
        let name = plugin.event_from_headers(&request);
        let reading = plugin.read(&request).unwrap();
        assert_eq!(name, plugin.events(&reading).unwrap().remove(0).name.map(Some), "{source}");
    }
}

#[test]
fn a_request_is_seen_the_same_way_everywhere() {
    let (reading, _) = read(&plugin(), "push", &json!({}));
    assert_eq!(
        to_json(reading.request.as_ref()).unwrap(),
        json!({
            "method": "POST",
            "query": {"a": "1", "b": " "},
            "headers": {"x-event": "push", "x-delivery": "d1", "x-list": "a, b"}
        })
    );
}
