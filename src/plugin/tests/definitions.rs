//! What events take from the plugin's definitions.

use super::*;

const SUBSCRIPTION: SubscriptionInfo<'static> = SubscriptionInfo { namespace: "team-a", name: "acme-web" };

fn shared() -> Value {
    with_all([
        (
            "/definitions",
            json!({
                "parameters": {
                    "globs": {"schema": {"type": "array", "items": {"type": "string"}}, "match": "glob(value, of)"},
                    "anyGlob": {"schema": {"type": "array", "items": {"type": "string"}},
                        "match": "of.exists(each, glob(value, each))"},
                    "human": {"schema": {"type": "boolean"}, "match": "body.bot != value"}
                },
                "sets": {
                    "action": {
                        "parameters": {"actions": {"use": "globs", "of": "body.action"}},
                        "variables": {"action": {"type": "string", "value": "body.action"}}
                    },
                    "who": {"variables": {"sender": {"type": "string", "value": "body.sender.login"}}}
                }
            }),
        ),
        (
            "/events",
            json!([
                {"name": "push", "title": "Push", "includes": ["who"],
                    "parameters": {
                        "branches": {"use": "globs", "of": "body.ref.substring(11)"},
                        "files": {"use": "anyGlob", "of": "body.commits.map(c, c.file)",
                            "schema": {"type": "array", "maxItems": 1}},
                        "human": {"use": "human"}
                    },
                    "variables": {"sender": {"type": "string", "value": "'always ' + body.sender.login"}}},
                {"name": "pull_request", "title": "Pull request", "includes": ["action", "who"]}
            ]),
        ),
    ])
}

fn fires(event: &str, parameters: Value, body: &Value) -> Result<Map<String, Value>, String> {
    let plugin = compile(shared()).unwrap();
    let pairs = headers(&[("X-Event", event)]);
    let text = body.to_string();
    let reading = plugin.read(&CallbackRequest::stored("POST", "", &pairs, text.as_bytes())).unwrap();
    let event = plugin.events(&reading).unwrap().remove(0);
    let (variables, notes) = plugin.variables(&reading, &event);
    assert_eq!(notes, []);
    let trigger = plugin
        .compile_trigger(event.name.as_deref().unwrap(), &object(parameters), None)
        .map_err(|mistake| mistake.to_string())?;
    trigger.matches(&reading, &event, &variables, SUBSCRIPTION).map_err(|mismatch| mismatch.to_string())?;
    Ok(variables)
}

#[test]
fn one_definition_is_about_what_each_parameter_says() {
    let push = json!({
        "ref": "refs/heads/main", "commits": [{"file": "a.md"}, {"file": "b.rs"}], "bot": false, "sender": {"login": "eve"}
    });
    let all = json!({"branches": ["ma*"], "files": ["*.rs"], "human": true});
    assert_eq!(Value::from(fires("push", all, &push).unwrap()), json!({"sender": "always eve"}));
    assert_eq!(fires("push", json!({"branches": ["v*"]}), &push).unwrap_err(), "parameter branches does not match");
    assert_eq!(fires("push", json!({"files": ["*.c"]}), &push).unwrap_err(), "parameter files does not match");
    assert_eq!(fires("push", json!({"human": false}), &push).unwrap_err(), "parameter human does not match");
    // A schema of the parameter's own narrows the definition's.
    let refused = fires("push", json!({"files": ["a", "b"]}), &push).unwrap_err();
    assert!(refused.contains("spec.parameters.files"), "{refused}");
    // What `of` cannot read does not match, and says so.
    let other = json!({"bot": false, "sender": {"login": "eve"}});
    assert_eq!(
        fires("push", json!({"branches": ["**"]}), &other).unwrap_err(),
        "parameter branches cannot be evaluated: no such key: ref"
    );
    let null = json!({"ref": null, "bot": false, "sender": {"login": "eve"}});
    assert!(fires("push", json!({"branches": ["**"]}), &null).unwrap_err().contains("cannot be evaluated"));
}

#[test]
fn an_event_has_what_its_sets_have() {
    let body = json!({"action": "opened", "sender": {"login": "eve"}});
    let variables = fires("pull_request", json!({"actions": ["open*"]}), &body).unwrap();
    assert_eq!(Value::from(variables), json!({"action": "opened", "sender": "eve"}));
    assert!(fires("pull_request", json!({"actions": ["closed"]}), &body).is_err());
}

#[test]
fn mistakes_name_the_field_where_they_are() {
    let set = |pointer: &str, value: Value| {
        let mut spec = shared();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[name] = value;
        compile(spec).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (pointer, value, expected) in [
        (
            "/events/0/parameters/branches/use",
            json!("glob"),
            "spec.events[0].parameters.branches.use: there is no definition `glob`; did you mean `globs`? there are: anyGlob, \
             globs, human",
        ),
        (
            "/events/0/parameters/branches/match",
            json!("true"),
            "spec.events[0].parameters.branches.match: the definition `globs` has it; leave out `match` or `use`",
        ),
        (
            "/events/0/parameters/branches/of",
            json!("bdy.ref"),
            "spec.events[0].parameters.branches.of: 1:1: unknown variable `bdy`; did you mean `body`?",
        ),
        (
            "/events/0/parameters/branches/of",
            Value::Null,
            "spec.events[0].parameters.branches.of: is missing; it says what the definition `globs` is about, such as \
             body.action",
        ),
        (
            "/events/0/parameters/human/of",
            json!("body"),
            "spec.events[0].parameters.human.of: the definition `human` does not mention `of`; leave it out",
        ),
        (
            "/events/0/parameters/human/use",
            Value::Null,
            "spec.events[0].parameters.human.schema: is missing; write it, or `use` a definition",
        ),
        (
            "/events/0/parameters/human",
            json!({"schema": {}, "match": "of"}),
            "spec.events[0].parameters.human.match: 1:1: unknown variable `of`",
        ),
        (
            "/events/0/parameters/human",
            json!({"schema": {}, "match": "true", "of": "body"}),
            "spec.events[0].parameters.human.of: belongs to `use`, which is not there",
        ),
        (
            "/events/1/includes",
            json!(["actions"]),
            "spec.events[1].includes[0]: there is no set `actions`; did you mean `action`? there are: action, who",
        ),
        (
            "/events/1/includes",
            json!(["who", "who"]),
            "spec.events[1].includes[1]: the variable `sender` is in the set `who` too; include one of them",
        ),
        // Once, whatever uses it; and if nothing does.
        (
            "/definitions/parameters/globs/match",
            json!("glob(valu, of)"),
            "spec.definitions.parameters.globs.match: 1:6: unknown variable `valu`; did you mean `value`?",
        ),
        (
            "/definitions/parameters/unused",
            json!({"schema": {"type": "integer", "default": "x"}, "match": "true"}),
            "spec.definitions.parameters.unused.schema.default: \"x\" is not of type \"integer\"",
        ),
        (
            "/definitions/sets/action/variables/action/value",
            json!("body."),
            "spec.definitions.sets.action.variables.action.value: 1:6: ",
        ),
        (
            "/definitions/sets/unused",
            json!({"parameters": {"x": {"use": "globs"}}}),
            "spec.definitions.sets.unused.parameters.x.of: is missing",
        ),
    ] {
        let found = set(pointer, value);
        assert_eq!(found.len(), 1, "{pointer}: {found:#?}");
        assert!(found[0].starts_with(expected), "{pointer}: {}", found[0]);
    }
}
