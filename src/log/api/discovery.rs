//! What kubectl and the API server ask first: which kinds there are. Documents that never change.

use super::accept::Form;
use super::{CAPTURE, CAPTURES, GROUP, KIND, RESOURCE, SUBSCRIPTIONS, VERSION};
use serde_json::{Value, json};

/// Content type of an aggregated discovery document, without its version.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList;v=";

/// `/apis`, in the form that was asked for, and its content type.
pub fn groups(form: Form) -> (String, Value) {
    match form {
        Form::Discovery(version) => (format!("{AGGREGATED}{version}"), aggregated(version)),
        Form::Objects | Form::Table => {
            let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [in_list()]});
            ("application/json".to_owned(), list)
        }
    }
}

/// `/apis/<group>`.
pub fn group() -> Value {
    let mut group = in_list();
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    group
}

fn in_list() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

/// `/apis/<group>/<version>`.
pub fn resources() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [
            {
                "name": RESOURCE, "singularName": "request", "namespaced": true, "kind": KIND, "shortNames": ["req"],
                "verbs": ["get", "list", "watch"],
            },
            {
                "name": format!("{RESOURCE}/replay"), "singularName": "", "namespaced": true, "kind": "Replay",
                "verbs": ["create"],
            },
            {
                "name": CAPTURES, "singularName": "capture", "namespaced": true, "kind": CAPTURE, "verbs": ["watch"],
            },
            {
                "name": format!("{SUBSCRIPTIONS}/send"), "singularName": "", "namespaced": true, "kind": "Send",
                "verbs": ["create"],
            },
        ],
    })
}

fn aggregated(version: &str) -> Value {
    let kind = |kind: &str| json!({"group": GROUP, "version": VERSION, "kind": kind});
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": [{"metadata": {"name": GROUP}, "versions": [{
            "version": VERSION, "freshness": "Current",
            "resources": [{
                "resource": RESOURCE, "responseKind": kind(KIND), "scope": "Namespaced", "singularResource": "request",
                "verbs": ["get", "list", "watch"], "shortNames": ["req"],
                "subresources": [{"subresource": "replay", "responseKind": kind("Replay"), "verbs": ["create"]}],
            }, {
                "resource": CAPTURES, "responseKind": kind(CAPTURE), "scope": "Namespaced",
                "singularResource": "capture", "verbs": ["watch"],
            }, {
                // Not a resource itself: as the API server has it of one that has only something below it.
                "resource": SUBSCRIPTIONS, "responseKind": {"group": "", "version": "", "kind": ""},
                "scope": "Namespaced", "singularResource": "", "verbs": [],
                "subresources": [{"subresource": "send", "responseKind": kind("Send"), "verbs": ["create"]}],
            }],
        }]}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_discovery_say_the_same() {
        let (content_type, all) = groups(Form::Discovery("v2"));
        assert_eq!(content_type, "application/json;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList;v=v2");
        let version = &all["items"][0]["versions"][0];
        let (new, old) = (&version["resources"][0], resources());
        assert_eq!(new["resource"], old["resources"][0]["name"]);
        assert_eq!(new["verbs"], old["resources"][0]["verbs"]);
        assert_eq!(new["shortNames"], old["resources"][0]["shortNames"]);
        assert_eq!(new["subresources"][0]["verbs"], old["resources"][1]["verbs"]);
        assert_eq!(version["resources"][1]["resource"], old["resources"][2]["name"]);
        let below = &version["resources"][2]["subresources"][0];
        assert_eq!((&below["verbs"], &below["responseKind"]["kind"]), (&old["resources"][3]["verbs"], &json!("Send")));
        assert_eq!(group()["preferredVersion"]["version"], version["version"]);
        assert_eq!(groups(Form::Objects).1["groups"][0]["name"], all["items"][0]["metadata"]["name"]);
    }
}
