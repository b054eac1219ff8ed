use super::*;
use clap::Parser;

#[derive(Parser)]
struct Typed {
    #[command(flatten)]
    options: Options,
}

fn plugin() -> (Plugin, Parameters) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gitea-push/plugin.yaml");
    let resource: TriggerPlugin = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let plugin = Plugin::compile("gitea", &resource.spec).unwrap();
    (plugin, Parameters::new(resource.spec.parameters.as_ref()))
}

/// The manifest that these words give, or what is said instead.
fn manifest(words: &[&str]) -> Result<Value, String> {
    let (plugin, parameters) = plugin();
    let options = Typed::try_parse_from(["x", "gitea"].iter().chain(words)).map_err(|error| error.to_string())?.options;
    let draft = options.draft(&parameters).map_err(|error| error.to_string())?;
    draft.manifest(&plugin, &parameters, "team-a").map_err(|error| error.to_string())
}

const PLACE: [&str; 6] = ["-p", "baseURL=https://git.example.com", "-p", "owner=acme", "-p", "repository=on"];

fn with<'a>(words: &[&'a str]) -> Vec<&'a str> {
    PLACE.iter().chain(words).copied().collect()
}

#[test]
fn flags_make_a_manifest() {
    let made = manifest(&with(&["--name", "acme-web", "--api-key-secret", "gitea-token", "--event", "push"])).unwrap();
    let text = document(Format::Yaml, &made, &[]).unwrap();
    let again: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(again, made, "{text}");
    assert_eq!(
        made,
        json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription",
            "metadata": {"name": "acme-web", "namespace": "team-a"},
            "spec": {
                "pluginRef": {"name": "gitea"},
                "events": ["push"],
                "parameters": {"baseURL": "https://git.example.com", "owner": "acme", "repository": "on"},
                "authorization": {"apiKey": {"secretRef": {"name": "gitea-token"}}},
            },
        })
    );
    // kubectl reads YAML 1.1, in which a bare `on` is a truth value.
    assert!(text.contains("repository: \"on\"") || text.contains("repository: 'on'"), "{text}");
}

#[test]
fn methods_are_written_as_the_api_has_them() {
    let of = |words: &[&str]| manifest(&with(words)).unwrap()["spec"]["authorization"].clone();
    assert_eq!(of(&["--name", "a", "--oauth"]), json!({"oauth2": {}}));
    let client = json!({"oauth2": {"clientSecretRef": {"name": "mine"}}});
    assert_eq!(of(&["--name", "a", "--oauth", "--client-secret", "mine"]), client);
    assert_eq!(of(&["--name", "a", "--manual"]), json!({"manual": {}}));
    let secret = json!({"manual": {"secretRef": {"name": "s"}}});
    assert_eq!(of(&["--name", "a", "--manual", "--secret", "s"]), secret);
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let said = |words: &[&str]| manifest(words).unwrap_err();
    assert_eq!(
        said(&["-p", "owner=acme"]),
        "missing: --name NAME, --parameter baseURL=VALUE, one of --api-key-secret SECRET, --oauth and --manual"
    );
    assert!(said(&with(&["--name", "a", "--manual", "-p", "repositry=web"])).contains("did you mean `repository`?"));
    assert!(said(&with(&["--name", "a", "--manual", "--event", "pusch"])).contains("did you mean `push`?"));
    assert!(said(&with(&["--name", "a", "--manual", "--oauth"])).contains("cannot be used with"));
    assert!(said(&with(&["--name", "a", "--client-secret", "b"])).contains("--oauth"));
    assert_eq!(said(&["-p", "owner"]), "--parameter owner: write NAME=VALUE");
    assert_eq!(said(&["-p", "owner=a", "-p", "owner=b"]), "--parameter owner is given twice");
}

#[test]
fn values_become_what_the_schema_wants() {
    let read = |schema: Value, text: &str| parameters::read(schema.as_object().unwrap(), text);
    assert_eq!(read(json!({"type": "string"}), "12"), Ok(json!("12")));
    assert_eq!(read(json!({"type": "integer"}), "12"), Ok(json!(12)));
    assert_eq!(read(json!({"type": "boolean"}), "yes"), Err("`yes` is no boolean".to_owned()));
    assert_eq!(read(json!({"type": "array", "items": {"type": "string"}}), "a, b"), Ok(json!(["a", "b"])));
    assert_eq!(read(json!({"type": "array", "items": {"type": "integer"}}), "1,2"), Ok(json!([1, 2])));
    assert_eq!(read(json!({"type": "array"}), r#"["a,b"]"#), Ok(json!(["a,b"])));
    assert_eq!(read(json!({"enum": ["a", 1]}), "1"), Ok(json!(1)));
    assert_eq!(read(json!({"enum": ["a", "b"]}), "c"), Err("`c` is not one of a, b".to_owned()));
    assert_eq!(read(json!({}), "true"), Ok(json!(true)));
    assert_eq!(read(json!({}), "plain"), Ok(json!("plain")));
}

#[test]
fn what_comes_next_is_told() {
    let (plugin, _) = plugin();
    let next = |authorization| {
        let draft = Draft { name: Some("acme-web".to_owned()), authorization: Some(authorization), ..Draft::default() };
        super::next(&draft, &plugin, &["other".to_owned()], "team-a")
    };
    assert_eq!(
        next(json!({"apiKey": {"secretRef": {"name": "gitea-token"}}})),
        "It waits until there is the Secret gitea-token: kubectl create secret generic gitea-token -n team-a \
         --from-file=token=FILE && kubectl label secret gitea-token -n team-a bellhop.dev/credentials-for=gitea\n"
    );
    assert_eq!(next(json!({"apiKey": {"secretRef": {"name": "other"}}})), "");
    assert_eq!(next(json!({"oauth2": {}})), "Consent with: kubectl bellhop authorize acme-web -n team-a\n");
    assert!(next(json!({"manual": {}})).contains("kubectl get subscription.bellhop.dev acme-web -n team-a"));
}
