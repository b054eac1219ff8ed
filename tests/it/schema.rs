//! What the API server itself refuses, and that `crds/` and the schema for editors are what the types say.

use crate::support::Workspace;
use anyhow::{Result, ensure};
use bellhop::api::{all_crds, to_yaml, trigger_plugin_schema};
use kube::ResourceExt;
use serde_json::json;

#[test]
fn the_files_in_crds_are_what_the_types_say() {
    for crd in all_crds() {
        let name = format!("crds/{}.yaml", crd.name_any());
        let file = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&name));
        assert!(
            file.as_deref().is_ok_and(|file| file == to_yaml(&crd).unwrap()),
            "{name} is not what the types say; `make crds` writes it"
        );
    }
}

#[test]
fn the_schema_for_editors_is_what_the_types_say() {
    let expected = serde_json::to_string_pretty(&trigger_plugin_schema()).unwrap() + "\n";
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/triggerplugin.schema.json");
    let same = std::fs::read_to_string(file).is_ok_and(|file| file == expected);
    assert!(same, "docs/triggerplugin.schema.json is not what the types say; `make crds` writes it");
}

/// With all that may be chosen: `kubectl explain` shows nothing else of it.
#[test]
fn every_field_is_described() {
    fn walk(schema: &serde_json::Value, path: &str, silent: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let description = property["description"].as_str().unwrap_or_default();
            if description.is_empty() {
                silent.push(path.clone());
            }
            for choices in [&property["enum"], &property["items"]["enum"]] {
                let choices = choices.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
                // A method of HTTP needs no description.
                let choices = choices.filter(|_| !path.ends_with(".method"));
                let unsaid = choices.filter(|choice| !description.contains(&format!("`{choice}`")));
                silent.extend(unsaid.map(|choice| format!("{path}: {choice}")));
            }
            walk(property, &path, silent);
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                walk(&schema[inner], path, silent);
            }
        }
    }
    let mut silent = Vec::new();
    for crd in all_crds() {
        let version = serde_json::to_value(&crd.spec.versions[0]).expect("a version is JSON");
        walk(&version["schema"]["openAPIV3Schema"], &crd.spec.names.kind, &mut silent);
    }
    assert!(silent.is_empty(), "fields and choices without a description: {silent:#?}");
}

/// What an author without the documentation asks for.
#[tokio::test]
async fn kubectl_explains_how_callbacks_are_verified() -> Result<()> {
    let workspace = Workspace::shared("explained").await?;
    let explain = async |path: &str| {
        let field = format!("triggerplugin.spec.callback.verification{path}");
        // The lines are wrapped.
        let text = workspace.control_plane.kubectl(&["explain", &field]).await?;
        anyhow::Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    for (path, words) in [
        ("", &["HMAC (RFC 2104)", "`{header: x-gitlab-token}`", "`whsec_` and base64", "No check"][..]),
        (".hmac", &["`sha1`", "`base64url`", "Left out: the raw body", "Exactly one of"]),
        (".hmac.signed", &["urlWithQuery", "sorted by name", "with this name of the form"]),
        (".hmac.timestamp", &["`rfc3339`", "in the past or in the future"]),
        (".publicKey.algorithm", &["32 bytes", "SubjectPublicKeyInfo"]),
        (".jwt", &["the token must have `exp`", "`ES256`"]),
    ] {
        let text = explain(path).await?;
        for word in words {
            ensure!(text.contains(word), "{path}: {word:?} is not in {text}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn exactly_one_authorization_is_set() -> Result<()> {
    let workspace = Workspace::shared("one-method").await?;
    for authorization in
        [json!({}), json!({"apiKey": {"secretRef": {"name": "a"}}, "manual": {}}), json!({"apiKey": {}})]
    {
        let mut object = workspace.subscription("acme-web");
        object["spec"]["authorization"] = authorization.clone();
        let api = kube::Api::<kube::api::DynamicObject>::namespaced_with(
            workspace.client.clone(),
            &workspace.namespace,
            &kube::api::ApiResource::erase::<bellhop::api::Subscription>(&()),
        );
        let error = api.create(&Default::default(), &serde_json::from_value(object)?).await.unwrap_err().to_string();
        ensure!(error.contains("exactly one of apiKey, oauth2 and manual") || error.contains("secretRef"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_trigger_names_exactly_one_runner() -> Result<()> {
    let workspace = Workspace::shared("one-runner").await?;
    let mut object = workspace.trigger("review", "acme-web");
    object["spec"]["runner"]["service"] = json!({"name": "runner", "port": 80});
    let error = workspace.create_trigger(object).await.unwrap_err().to_string();
    ensure!(error.contains("exactly one of service, url and resource"), "{error}");
    Ok(())
}

#[tokio::test]
async fn kubectl_shows_what_a_person_looks_for() -> Result<()> {
    let workspace = Workspace::shared("columns").await?;
    workspace.connect("acme-web", "review").await?;
    let table = workspace.control_plane.kubectl(["-n", &workspace.namespace, "get", "bellhop"]).await?;
    for word in ["PLUGIN", "METHOD", "READY", "REASON", "WORKFLOWS", "apiKey", "Bound", "push"] {
        ensure!(table.contains(word), "no {word} in\n{table}");
    }
    let wide = workspace.control_plane.kubectl(["-n", &workspace.namespace, "get", "bsub", "-o", "wide"]).await?;
    ensure!(wide.contains("/hooks/"), "{wide}");
    Ok(())
}
