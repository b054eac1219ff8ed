//! Wrong values are refused with words that say what is right; and what the chart says of its values is true.

use crate::support::{PUBLIC_URL, file, lint, read, read_yaml, template_text};
use serde_json::Value;

const KEY: &str = "YTJGb2FXeGhhMlZ5ZEhsMWFXOXdZWE5rWm1kb2FtdHM=";

#[test]
fn both_charts_pass_the_strict_lint() {
    lint("bellhop", &[PUBLIC_URL]).unwrap();
    // As it is in the repository, without a public URL.
    lint("bellhop", &[]).unwrap();
    lint("bellhop-plugins", &[]).unwrap();
    // The lint looks at all.
    let error = lint("bellhop", &["--set=mode=neither"]).unwrap_err();
    assert!(error.contains("/mode"), "{error}");
}

#[test]
fn wrong_values_are_refused_with_what_is_right() {
    let table: &[(&[&str], &str)] = &[
        (&[], "publicURL is required"),
        (&["--set=publicURL=hooks.example.com"], "expected http:// or https://, a host"),
        (&["--set=publicURL=ftp://hooks.example.com"], "expected http:// or https://, a host"),
        (&["--set=publicURL=https://hooks.example.com/?a=b"], "expected http:// or https://, a host"),
        (&["--set=publicURL=https://user@hooks.example.com"], "expected http:// or https://, a host"),
        (&["--set=publicURL=7"], "at '/publicURL': got number, want string"),
        (&[PUBLIC_URL, "--set=replicaCount=2"], "additional properties 'replicaCount' not allowed"),
        (
            &[PUBLIC_URL, "--set=ingress.replicaCount=2"],
            "at '/ingress': additional properties 'replicaCount' not allowed",
        ),
        (&[PUBLIC_URL, "--set=ingress.spool.kind=x"], "at '/ingress/spool': additional properties 'kind' not allowed"),
        (&[PUBLIC_URL, "--set=ingress.replicas=two"], "at '/ingress/replicas': got string, want integer"),
        (&[PUBLIC_URL, "--set=ingress.replicas=0"], "at '/ingress/replicas': minimum"),
        (&[PUBLIC_URL, "--set=mode=all"], "value must be one of 'distributed', 'standalone'"),
        (&[PUBLIC_URL, "--set=watchNamespaces=team-a"], "at '/watchNamespaces': got string, want array"),
        (&[PUBLIC_URL, "--set=watchNamespaces={Team_A}"], "at '/watchNamespaces/0'"),
        (&[PUBLIC_URL, "--set=ingress.requestTimeout=15"], "at '/ingress/requestTimeout'"),
        (&[PUBLIC_URL, "--set=image.digest=latest"], "at '/image/digest'"),
        (&[PUBLIC_URL, "--set=allowAddresses={10.0.0.1}"], "at '/allowAddresses/0'"),
        (&[PUBLIC_URL, "--set=admission=true"], "at '/admission': got boolean, want object"),
        (&[PUBLIC_URL, "--set=controller.externalCallsPerSecond=0"], "at '/controller/externalCallsPerSecond'"),
        (&[PUBLIC_URL, "--set=controller.certificateLife=90d"], "at '/controller/certificateLife'"),
        (&[PUBLIC_URL, "--set=ingressNamespace=bellhop-system"], "it must be another one"),
        (&[PUBLIC_URL, "--set=ingress.spool.size=2Gi"], "the volume has to be a tenth larger"),
        (
            &["--set=publicURL=https://example.com/bellhop,kubernetesIngress.enabled=true"],
            "use a publicURL without a path, or httpRoute",
        ),
        (&[PUBLIC_URL, "--set=httpRoute.enabled=true"], "httpRoute.parentRefs is empty"),
        (&[PUBLIC_URL, "--set=installationKey.value=c2hvcnQ="], "base64 of at least 32 bytes"),
        (
            &[PUBLIC_URL, "--set=caCertificates.configMap=a,caCertificates.secret=b"],
            "set configMap or secret, not both",
        ),
    ];
    for (args, expected) in table {
        match template_text("bellhop", "bellhop", args) {
            Ok(_) => panic!("{args:?} is taken"),
            Err(error) => assert!(error.contains(expected), "{args:?}: {error}"),
        }
    }
    let error = template_text("bellhop-plugins", "plugins", &["--set=plugins={nonesuch}"]).unwrap_err();
    assert!(error.contains("at '/plugins/0': value must be one of") && error.contains("'gitea', 'github'"), "{error}");
}

#[test]
fn values_at_the_edge_are_taken() {
    let table: &[&[&str]] = &[
        &["--set=publicURL=http://[2001:db8::1]:8080"],
        &["--set=publicURL=https://example.com/bellhop/"],
        &[PUBLIC_URL, "--set=ingress.spool.size=2360Mi"],
        &[PUBLIC_URL, "--set=ingress.requestTimeout=1m30s"],
        &[PUBLIC_URL, "--set-string=installationKey.value=", "--set=global.anything=1"],
        &[PUBLIC_URL, "--set-string", &format!("installationKey.value={KEY}")],
    ];
    for args in table {
        template_text("bellhop", "bellhop", args).unwrap_or_else(|error| panic!("{args:?}: {error}"));
    }
}

/// Every setting, down to where the schema lets the user write what Kubernetes takes.
fn settings(values: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
    let known = schema["properties"].as_object();
    match (values.as_object(), known) {
        (Some(values), Some(known)) => {
            assert_eq!(schema["additionalProperties"], Value::Bool(false), "{path}: unknown settings are not refused");
            let mut names: Vec<&String> = known.keys().filter(|name| *name != "global").collect();
            let mut given: Vec<&String> = values.keys().collect();
            names.sort();
            given.sort();
            assert_eq!(names, given, "schema and values.yaml differ at {path:?}");
            for (name, value) in values {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                settings(value, &known[name], &path, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn every_value_is_in_the_schema_and_in_the_readme() {
    for (chart, least) in [("bellhop", 60), ("bellhop-plugins", 3)] {
        let values = read_yaml(&format!("charts/{chart}/values.yaml"));
        let schema = serde_json::from_str(&read(&format!("charts/{chart}/values.schema.json"))).unwrap();
        let mut all = Vec::new();
        settings(&values, &schema, "", &mut all);
        assert!(all.len() >= least, "{chart}: only {} settings", all.len());
        let readme = read(&format!("charts/{chart}/README.md"));
        let missing: Vec<_> = all.iter().filter(|path| !readme.contains(&format!("| `{path}` |"))).collect();
        assert!(missing.is_empty(), "charts/{chart}/README.md has no row for {missing:?}");
        let documented: Vec<&str> =
            readme.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let unknown: Vec<_> = documented.iter().filter(|path| !all.iter().any(|known| known == *path)).collect();
        assert!(unknown.is_empty(), "charts/{chart}/README.md has rows for {unknown:?}");
    }
}

#[test]
fn the_files_of_the_charts_are_those_of_the_repository() {
    let same = |one: &str, other: &str| assert_eq!(read(one), read(other), "{one} is not {other}; copy it");
    let mut crds = 0;
    for entry in std::fs::read_dir(file("crds")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        same(&format!("charts/bellhop/files/crds/{name}"), &format!("crds/{name}"));
        crds += 1;
    }
    assert_eq!(crds, std::fs::read_dir(file("charts/bellhop/files/crds")).unwrap().count(), "a file too many");
    for plugin in ["gitea", "github"] {
        same(&format!("charts/bellhop-plugins/plugins/{plugin}.yaml"), &format!("examples/{plugin}-push/plugin.yaml"));
    }
    for chart in ["bellhop", "bellhop-plugins"] {
        let metadata = read_yaml(&format!("charts/{chart}/Chart.yaml"));
        assert_eq!(
            metadata["appVersion"],
            env!("CARGO_PKG_VERSION"),
            "{chart}: appVersion is not the version of Bellhop"
        );
    }
}
