//! What is rendered, for a matrix of values: every rendering is held against the same rules.

use crate::support::{
    PUBLIC_URL, bellhop, file, find, items, kind, name, namespace, pod_templates, read, read_yaml, strings, template,
    title,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const KEY: &str = "YTJGb2FXeGhhMlZ5ZEhsMWFXOXdZWE5rWm1kb2FtdHM=";

/// Values that change what is rendered, each to be combined with both modes.
pub const VARIANTS: [(&str, &[&str]); 18] = [
    ("defaults", &[]),
    ("replicas", &["--set=controller.replicas=2,ingress.replicas=3"]),
    ("one ingress", &["--set=ingress.replicas=1"]),
    ("narrow", &["--set=watchNamespaces={team-a,team-b}"]),
    ("emptyDir", &["--set=ingress.spool.type=emptyDir"]),
    ("storage", &["--set=ingress.spool.storageClass=fast,ingress.spool.size=20Gi,ingress.spool.bytes=10737418240"]),
    (
        "Ingress",
        &["--set=kubernetesIngress.enabled=true,kubernetesIngress.className=nginx,kubernetesIngress.tlsSecret=tls"],
    ),
    ("HTTPRoute", &["--set=httpRoute.enabled=true,httpRoute.parentRefs[0].name=public"]),
    (
        "monitoring",
        &[
            "--set=monitoring.serviceMonitor.enabled=true,monitoring.prometheusRule.enabled=true,monitoring.dashboard.enabled=true",
        ],
    ),
    (
        "little",
        &[
            "--set=networkPolicy.enabled=false,podDisruptionBudget.enabled=false,uninstallNotice.enabled=false,crds.install=false,createIngressNamespace=false",
        ],
    ),
    ("key", &["--set=installationKey.value=YTJGb2FXeGhhMlZ5ZEhsMWFXOXdZWE5rWm1kb2FtdHM="]),
    ("authorities in a ConfigMap", &["--set=caCertificates.configMap=company-ca"]),
    (
        "authorities in a Secret, and more",
        &[
            "--set=caCertificates.secret=company-ca,extraEnv[0].name=A,extraEnv[0].value=b,extraVolumes[0].name=more,extraVolumes[0].emptyDir.medium=Memory,extraVolumeMounts[0].name=more,extraVolumeMounts[0].mountPath=/more",
        ],
    ),
    (
        "network",
        &[
            "--set=ingress.service.type=NodePort,ingress.service.nodePort=30080,allowAddresses={10.1.0.0/16,fd00::/64},allowRunnerOrigins={https://dify.example.com},networkPolicy.monitoringFrom=null",
        ],
    ),
    ("nobody is asked", &["--set=admission.enabled=false,requestLog.enabled=false,userRoles.enabled=false"]),
    ("asked by few", &["--set=networkPolicy.apiServerFrom[0].ipBlock.cidr=10.0.0.1/32,watchNamespaces={team-a}"]),
    ("the cluster as a runner", &["--set=resourceRunners.enabled=true,resourceRunners.namespaces={team-a,team-b}"]),
    (
        "image and places",
        &[
            "--set=image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef,imagePullSecrets[0].name=pull,controller.nodeSelector.a=b,ingress.tolerations[0].operator=Exists,podLabels.team=platform,podAnnotations.note=x,commonLabels.cost=1x,log.format=text",
        ],
    ),
];

/// Names and renderings of all variants in both modes.
fn matrix() -> Vec<(String, Vec<Value>)> {
    let mut all = Vec::new();
    for mode in ["distributed", "standalone"] {
        for (name, args) in VARIANTS {
            let mode_arg = format!("--set=mode={mode}");
            all.push((format!("{mode}, {name}"), bellhop(&[&[mode_arg.as_str()], args].concat())));
        }
    }
    let long = "a-release-name-of-exactly-fifty-three-characters-long";
    assert_eq!(long.len(), 53, "Helm takes no longer one");
    let monitoring =
        "--set=monitoring.serviceMonitor.enabled=true,monitoring.dashboard.enabled=true,watchNamespaces={team-a}";
    all.push(("a long name".to_owned(), template("bellhop", long, &[PUBLIC_URL, monitoring])));
    all
}

fn labels_match(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("a selector");
    !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn every_rendering_keeps_the_rules() {
    let all = matrix();
    for (variant, objects) in &all {
        let mut seen = BTreeSet::new();
        for object in objects {
            let title = title(object);
            assert!(seen.insert(title.clone()), "{variant}: {title} is rendered twice");
            assert!(!name(object).is_empty() && name(object).len() <= 63, "{variant}: the name of {title}");
            let labels =
                object["metadata"]["labels"].as_object().unwrap_or_else(|| panic!("{variant}: {title} has no labels"));
            assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm", "{variant}: {title}");
            for (key, value) in labels {
                assert!(value.as_str().is_some_and(|value| value.len() <= 63), "{variant}: {title}: label {key}");
            }
            let cluster_scoped = [
                "Namespace",
                "CustomResourceDefinition",
                "ClusterRole",
                "ClusterRoleBinding",
                "ValidatingWebhookConfiguration",
                "APIService",
            ]
            .contains(&kind(object));
            assert_eq!(namespace(object).is_none(), cluster_scoped, "{variant}: {title} has the wrong scope");
        }
        references_lead_somewhere(variant, objects);
        pods_are_restricted(variant, objects);
    }
}

/// Selectors find pods, accounts exist, and roles too.
fn references_lead_somewhere(variant: &str, objects: &[Value]) {
    let pods = pod_templates(objects);
    let finds_a_pod = |selector: &Value| pods.iter().any(|(_, pod)| labels_match(selector, &pod["metadata"]["labels"]));
    for object in objects {
        let title = title(object);
        match kind(object) {
            "Service" => {
                let selector = &object["spec"]["selector"];
                assert!(finds_a_pod(selector), "{variant}: {title} selects nothing");
                for port in items(&object["spec"]["ports"]) {
                    let is_there = pods
                        .iter()
                        .filter(|(_, pod)| labels_match(selector, &pod["metadata"]["labels"]))
                        .all(|(_, pod)| {
                            items(&pod["spec"]["containers"][0]["ports"])
                                .iter()
                                .any(|p| p["name"] == port["targetPort"])
                        });
                    assert!(is_there, "{variant}: {title}: port {}", port["name"]);
                }
            }
            "PodDisruptionBudget" => {
                assert!(finds_a_pod(&object["spec"]["selector"]["matchLabels"]), "{variant}: {title} selects nothing");
                // With minAvailable, a single replica could never be drained.
                assert_eq!(object["spec"]["maxUnavailable"], 1, "{variant}: {title}");
                assert_eq!(object["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow", "{variant}: {title}");
            }
            "NetworkPolicy" => {
                assert!(
                    finds_a_pod(&object["spec"]["podSelector"]["matchLabels"]),
                    "{variant}: {title} selects nothing"
                );
                assert_eq!(object["spec"]["policyTypes"], json!(["Ingress", "Egress"]), "{variant}: {title}");
            }
            "Deployment" | "StatefulSet" => {
                let pod = &object["spec"]["template"];
                let selector = &object["spec"]["selector"]["matchLabels"];
                assert!(labels_match(selector, &pod["metadata"]["labels"]), "{variant}: {title}");
                // It can never be changed, so it holds nothing that changes.
                let stable = ["app.kubernetes.io/component", "app.kubernetes.io/instance", "app.kubernetes.io/name"];
                assert!(selector.as_object().unwrap().keys().eq(stable), "{variant}: {title}: {selector}");
                let spread = items(&pod["spec"]["topologySpreadConstraints"]);
                assert_eq!(spread.len(), 2, "{variant}: {title}");
                for constraint in spread {
                    assert!(labels_match(&constraint["labelSelector"]["matchLabels"], &pod["metadata"]["labels"]));
                }
            }
            "RoleBinding" | "ClusterRoleBinding" => {
                let role = &object["roleRef"];
                let is_role =
                    |o: &Value| kind(o) == role["kind"] && name(o) == role["name"] && namespace(o) == namespace(object);
                // Every cluster has this one.
                let is_known = role["name"] == "extension-apiserver-authentication-reader";
                assert!(is_known || objects.iter().any(is_role), "{variant}: {title} binds a role that is not there");
                for subject in items(&object["subjects"]) {
                    let is_account = |o: &Value| kind(o) == "ServiceAccount" && name(o) == subject["name"];
                    assert!(objects.iter().any(is_account), "{variant}: {title} binds to nobody");
                }
            }
            "ValidatingWebhookConfiguration" => {
                for webhook in items(&object["webhooks"]) {
                    let service = &webhook["clientConfig"]["service"];
                    let target = find(objects, "Service", service["name"].as_str().unwrap());
                    assert_eq!(namespace(target), service["namespace"].as_str(), "{variant}");
                    assert_eq!(target["spec"]["ports"][0]["port"], service["port"], "{variant}");
                    // What does not answer holds up nobody, and a rendering tool has no authority to compare.
                    assert_eq!(webhook["failurePolicy"], "Ignore", "{variant}");
                    assert_eq!(webhook["sideEffects"], "None", "{variant}");
                    assert!(webhook["clientConfig"]["caBundle"].is_null(), "{variant}");
                    assert!(service["path"].is_null(), "{variant}: the controller writes it");
                }
            }
            "Ingress" | "HTTPRoute" => {
                let text = object.to_string();
                assert!(text.contains("hooks.example.com"), "{variant}: {text}");
                assert!(text.contains("/hooks") && text.contains("/oauth"), "{variant}: {text}");
                assert!(text.contains("bellhop-ingress"), "{variant}: {text}");
            }
            _ => {}
        }
    }
    for (object, pod) in pods {
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap();
        let _ = find(objects, "ServiceAccount", account);
        let account_rights = objects
            .iter()
            .filter(|o| kind(o) == "ClusterRoleBinding")
            .any(|binding| items(&binding["subjects"]).iter().any(|subject| subject["name"] == account));
        assert!(account_rights, "{variant}: {} has no rights", title(object));
    }
}

/// The Pod Security level `restricted`, and what Bellhop asks of itself besides.
fn pods_are_restricted(variant: &str, objects: &[Value]) {
    for (object, pod) in pod_templates(objects) {
        let title = format!("{variant}: {}", title(object));
        let spec = &pod["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{title}");
        assert_eq!(spec["securityContext"]["runAsUser"], 65532, "{title}");
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{title}");
        for forbidden in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
            assert!(spec[forbidden].is_null(), "{title}: {forbidden}");
        }
        assert_eq!(spec["enableServiceLinks"], false, "{title}");
        for volume in items(&spec["volumes"]) {
            let kinds: Vec<&String> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
            assert!(
                kinds.iter().all(|kind| ["configMap", "secret", "emptyDir"].contains(&kind.as_str())),
                "{title}: {volume}"
            );
        }
        let containers = items(&spec["containers"]);
        assert_eq!(containers.len(), 1, "{title}");
        let container = &containers[0];
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false, "{title}");
        assert_eq!(security["readOnlyRootFilesystem"], true, "{title}");
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{title}");
        assert!(container["resources"]["requests"]["memory"].is_string(), "{title}");
        assert!(container["resources"]["requests"]["cpu"].is_string(), "{title}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{title}");
        if kind(object) != "Job" {
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                assert_eq!(container[probe]["httpGet"]["port"], "private", "{title}: {probe}");
            }
            assert_eq!(object["spec"]["revisionHistoryLimit"], 3, "{title}");
        }
        for variable in items(&container["env"]) {
            let source = &variable["valueFrom"];
            assert!(
                source.is_null() || source["fieldRef"].is_object(),
                "{title}: {variable} is a secret in an environment"
            );
        }
        assert!(!pod.to_string().contains(KEY), "{title}: the installation key is in the pod");
    }
}

/// The variables that a command of the binary takes, by its help.
fn taken_by(command: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_bellhop")).args([command, "--help"]).output().unwrap();
    assert!(output.status.success(), "bellhop {command} --help: {}", String::from_utf8_lossy(&output.stderr));
    let help = String::from_utf8(output.stdout).unwrap();
    let found = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    found.map(str::to_owned).collect()
}

#[test]
fn every_process_takes_what_it_is_told_and_is_told_all_that_it_takes() {
    let all = [
        "--set=watchNamespaces={team-a},allowAddresses={10.0.0.0/8},allowRunnerOrigins={https://a.example.com},controller.externalCAFile=/ca.pem,resourceRunners.enabled=true,ingress.trustedProxies={10.0.0.0/8}",
    ];
    let standalone = bellhop(&[all[0], "--set=mode=standalone"]);
    let distributed = bellhop(&all);
    let mut commands = BTreeSet::new();
    for (_, pod) in pod_templates(&distributed).into_iter().chain(pod_templates(&standalone)) {
        let container = &pod["spec"]["containers"][0];
        let command = container["args"][0].as_str().unwrap();
        commands.insert(command);
        let told: BTreeSet<String> = items(&container["env"])
            .iter()
            .filter_map(|variable| variable["name"].as_str())
            .filter(|name| name.starts_with("BELLHOP_"))
            .map(str::to_owned)
            .collect();
        assert_eq!(told, taken_by(command), "bellhop {command}");
    }
    assert_eq!(commands, BTreeSet::from(["controller", "ingress", "run", "uninstall-notice"]));
}

#[test]
fn numbers_stay_numbers() {
    // Not by --set, which reads numbers in another way than a file: there 26214400 becomes 2.62144e+07.
    let values = bellhop_harness::world::dir().join("numbers.yaml");
    std::fs::write(&values, "ingress: {bodyLimit: 26214400, spool: {bytes: 107374182400, size: 200Gi}}\n").unwrap();
    let objects = bellhop(&["--values", &values.to_string_lossy()]);
    let container = &find(&objects, "StatefulSet", "bellhop-ingress")["spec"]["template"]["spec"]["containers"][0];
    let env: BTreeMap<&str, &str> = items(&container["env"])
        .iter()
        .filter_map(|variable| Some((variable["name"].as_str()?, variable["value"].as_str()?)))
        .collect();
    assert_eq!(env["BELLHOP_SPOOL_BYTES"], "107374182400");
    assert_eq!(env["BELLHOP_SPOOL_BYTES_PER_SUBSCRIPTION"], "268435456");
    assert_eq!(env["BELLHOP_BODY_LIMIT"], "26214400");
    assert_eq!(env["BELLHOP_DRAIN_DELAY"], "5s");
}

#[test]
fn a_pod_has_time_to_drain_and_to_end() {
    for (delay, grace) in [("0", 55), ("5", 60), ("60", 115)] {
        let objects = bellhop(&[&format!("--set=ingress.drainDelaySeconds={delay}")]);
        let spec = &find(&objects, "StatefulSet", "bellhop-ingress")["spec"];
        assert_eq!(spec["template"]["spec"]["terminationGracePeriodSeconds"], grace);
        assert_eq!(spec["updateStrategy"]["type"], "RollingUpdate");
        let objects = bellhop(&[&format!("--set=controller.drainDelaySeconds={delay}")]);
        let spec = &find(&objects, "Deployment", "bellhop-controller")["spec"]["template"]["spec"];
        assert_eq!(spec["terminationGracePeriodSeconds"], grace - 25);
        let told = json!({"name": "BELLHOP_DRAIN_DELAY", "value": format!("{delay}s")});
        assert!(items(&spec["containers"][0]["env"]).contains(&told), "{spec}");
    }
}

#[test]
fn the_spool_outlives_pod_release_and_mode() {
    let distributed = bellhop(&[]);
    let standalone = bellhop(&["--set=mode=standalone"]);
    let of = |objects: &[Value]| find(objects, "StatefulSet", "bellhop-ingress")["spec"].clone();
    let (distributed, standalone) = (of(&distributed), of(&standalone));
    assert_eq!(distributed["replicas"], 2);
    assert_eq!(standalone["replicas"], 1);
    // What the API server refuses to change.
    for fixed in ["selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy"] {
        assert!(!distributed[fixed].is_null(), "{fixed}");
        assert_eq!(distributed[fixed], standalone[fixed], "{fixed}");
    }
    assert_eq!(
        distributed["persistentVolumeClaimRetentionPolicy"],
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
    );
    assert_eq!(standalone["template"]["spec"]["containers"][0]["args"], json!(["run"]));

    let in_memory = of(&bellhop(&["--set=ingress.spool.type=emptyDir"]));
    assert!(in_memory["volumeClaimTemplates"].is_null());
    assert_eq!(in_memory["template"]["spec"]["volumes"][0], json!({"name": "spool", "emptyDir": {"sizeLimit": "3Gi"}}));
}

#[test]
fn a_path_of_the_public_url_is_taken_away_by_the_gateway() {
    let values =
        "--set=publicURL=https://example.com:8443/bellhop/,httpRoute.enabled=true,httpRoute.parentRefs[0].name=public";
    let objects = template("bellhop", "bellhop", &[values]);
    let route = &find(&objects, "HTTPRoute", "bellhop")["spec"];
    assert_eq!(route["hostnames"], json!(["example.com"]));
    assert_eq!(route["rules"][0]["matches"][0]["path"], json!({"type": "PathPrefix", "value": "/bellhop/hooks"}));
    let rewrite = json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/hooks"}});
    assert_eq!(route["rules"][0]["filters"][0]["urlRewrite"], rewrite);
    assert_eq!(route["rules"][0]["backendRefs"], json!([{"name": "bellhop-ingress", "port": 80}]));
    let pages = &route["rules"][1];
    assert_eq!(pages["matches"][0]["path"], json!({"type": "PathPrefix", "value": "/bellhop/oauth"}));
    assert_eq!(pages["filters"][0]["urlRewrite"]["path"]["replacePrefixMatch"], "/oauth");
    assert_eq!(pages["backendRefs"], route["rules"][0]["backendRefs"]);
}

#[test]
fn network_policies_open_what_is_needed_and_nothing_else() {
    let objects = bellhop(&["--set=allowAddresses={10.1.0.0/16}"]);
    let controller = &find(&objects, "NetworkPolicy", "bellhop-controller")["spec"];
    let monitoring = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]);
    let labels = |component: &str| {
        json!({
            "app.kubernetes.io/name": "bellhop", "app.kubernetes.io/instance": "bellhop",
            "app.kubernetes.io/component": component,
        })
    };
    let internal = json!([{"port": "internal", "protocol": "TCP"}]);
    let from_ingress = json!({"from": [{"podSelector": {"matchLabels": labels("ingress")}}], "ports": internal});
    let from_monitoring = json!({"from": monitoring, "ports": [{"port": "private", "protocol": "TCP"}]});
    let from_api_server = json!({"ports": internal});
    assert_eq!(controller["ingress"], json!([from_api_server, from_ingress, from_monitoring]));
    let to_controller = json!({"to": [{"podSelector": {"matchLabels": labels("controller")}}], "ports": internal});
    let egress = &find(&objects, "NetworkPolicy", "bellhop-ingress")["spec"]["egress"];
    assert!(items(egress).contains(&to_controller), "{egress}");
    let of_controller =
        |args: &[&str]| find(&bellhop(args), "NetworkPolicy", "bellhop-controller")["spec"]["ingress"].clone();
    let unasked = of_controller(&["--set=admission.enabled=false,requestLog.enabled=false"]);
    assert_eq!(unasked, json!([from_ingress, from_monitoring]), "nobody asks but the ingress");
    for one in ["admission", "requestLog"] {
        let asked = of_controller(&[&format!("--set={one}.enabled=false")]);
        assert_eq!(asked[0], from_api_server, "without {one}");
    }
    let known = of_controller(&["--set=networkPolicy.apiServerFrom[0].ipBlock.cidr=10.0.0.1/32"]);
    assert_eq!(known[0], json!({"from": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": internal}));
    let blocks: Vec<&Value> =
        items(&controller["egress"]).iter().flat_map(|rule| items(&rule["to"])).map(|to| &to["ipBlock"]).collect();
    let public = blocks.iter().find(|block| block["cidr"] == "0.0.0.0/0").expect("the internet");
    for closed in ["10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8"] {
        assert!(strings(&public["except"]).contains(&closed), "{closed} is open to the controller");
    }
    assert!(blocks.iter().any(|block| block["cidr"] == "10.1.0.0/16"), "allowAddresses");

    let rules = items(&find(&objects, "NetworkPolicy", "bellhop-ingress")["spec"]["ingress"]);
    assert_eq!(rules[0], json!({"ports": [{"port": "http", "protocol": "TCP"}]}), "callbacks come from anywhere");
    for (rule, port, peers) in [(&rules[1], "log", 1), (&rules[2], "private", 2)] {
        assert_eq!(rule["ports"], json!([{"port": port, "protocol": "TCP"}]));
        assert_eq!(rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"], "controller");
        assert_eq!(items(&rule["from"]).len(), peers, "{port}");
    }
    assert_eq!(rules.len(), 3);

    // An empty list of peers would mean anybody.
    let objects = bellhop(&["--set=networkPolicy.monitoringFrom=null,mode=standalone"]);
    let rules = &find(&objects, "NetworkPolicy", "bellhop-ingress")["spec"]["ingress"];
    assert_eq!(rules, &json!([{"ports": [{"port": "http", "protocol": "TCP"}]}, from_api_server]));
}

#[test]
fn the_controller_is_asked_where_and_about_what_it_answers() {
    for (args, component) in [(&[][..], "controller"), (&["--set=mode=standalone"], "ingress")] {
        let objects = bellhop(args);
        let service = find(&objects, "Service", "bellhop-internal");
        assert_eq!(service["spec"]["selector"]["app.kubernetes.io/component"], component);
        let configuration = find(&objects, "ValidatingWebhookConfiguration", "bellhop");
        let asked: Vec<_> = items(&configuration["webhooks"])
            .iter()
            .map(|webhook| (&webhook["rules"][0]["resources"], &webhook["rules"][0]["operations"]))
            .collect();
        let (subscriptions, triggers) = (json!(["subscriptions"]), json!(["workflowtriggers"]));
        let (create, both) = (json!(["CREATE"]), json!(["CREATE", "UPDATE"]));
        assert_eq!(asked, [(&subscriptions, &create), (&triggers, &both)]);
        assert!(configuration["webhooks"][0]["namespaceSelector"].is_null());
        let told = |name_: &str| {
            let pods = pod_templates(&objects);
            let env = pods.iter().flat_map(|(_, pod)| items(&pod["spec"]["containers"][0]["env"]));
            env.filter(|variable| variable["name"] == name_).map(|v| v["value"].clone()).collect::<Vec<_>>()
        };
        // The name in the URL is one that the certificate is for.
        assert_eq!(told("BELLHOP_INTERNAL_NAMES"), ["bellhop-internal.bellhop-system.svc"]);
        assert_eq!(told("BELLHOP_ADMISSION_CONFIGURATION"), ["bellhop"]);
        let url = ["https://bellhop-internal.bellhop-system.svc:9443"];
        assert_eq!(told("BELLHOP_CONTROLLER_URL"), if component == "controller" { &url[..] } else { &[] });
    }
    let narrow = bellhop(&["--set=watchNamespaces={team-a,team-b}"]);
    let configuration = find(&narrow, "ValidatingWebhookConfiguration", "bellhop");
    for webhook in items(&configuration["webhooks"]) {
        let only = &webhook["namespaceSelector"]["matchExpressions"];
        let key = "kubernetes.io/metadata.name";
        assert_eq!(only, &json!([{"key": key, "operator": "In", "values": ["team-a", "team-b"]}]));
    }
    let without = bellhop(&["--set=admission.enabled=false"]);
    assert!(without.iter().all(|object| kind(object) != "ValidatingWebhookConfiguration"));
    assert!(!without.iter().any(|object| object.to_string().contains("BELLHOP_ADMISSION_CONFIGURATION")));
}

#[test]
fn the_api_server_passes_the_request_log_on_to_the_controller() {
    for (args, account) in [(&[][..], "bellhop-controller"), (&["--set=mode=standalone"], "bellhop-standalone")] {
        let objects = bellhop(args);
        let service = find(&objects, "APIService", "v1alpha1.log.bellhop.dev");
        let spec = &service["spec"];
        assert_eq!((&spec["group"], &spec["version"]), (&json!("log.bellhop.dev"), &json!("v1alpha1")));
        let to = json!({"name": "bellhop-internal", "namespace": "bellhop-system", "port": 9443});
        assert_eq!(spec["service"], to);
        // The controller puts its authority there; to trust anybody instead would give the users' names to anybody.
        assert!(spec["caBundle"].is_null() && spec["insecureSkipTLSVerify"].is_null());
        let told: Vec<_> = pod_templates(&objects)
            .iter()
            .flat_map(|(_, pod)| items(&pod["spec"]["containers"][0]["env"]))
            .filter(|variable| variable["name"] == "BELLHOP_LOG_API_SERVICE")
            .map(|variable| variable["value"].clone())
            .collect();
        assert_eq!(told, ["v1alpha1.log.bellhop.dev"]);
        let binding = find(&objects, "RoleBinding", "bellhop-authentication-reader");
        assert_eq!(binding["metadata"]["namespace"], "kube-system");
        assert_eq!(binding["roleRef"]["name"], "extension-apiserver-authentication-reader");
        assert_eq!(binding["subjects"][0]["name"], account);
    }
    let without = bellhop(&["--set=requestLog.enabled=false"]);
    assert!(without.iter().all(|object| kind(object) != "APIService"));
    for word in ["BELLHOP_LOG_API_SERVICE", "kube-system", "subjectaccessreviews", "apiservices"] {
        assert!(!without.iter().any(|object| object.to_string().contains(word)), "{word}");
    }
}

#[test]
fn what_must_not_get_lost_is_kept() {
    let objects = bellhop(&[&format!("--set=installationKey.value={KEY}")]);
    let mut kept: Vec<String> = objects
        .iter()
        .filter(|object| object["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep")
        .map(|object| format!("{} {}", kind(object), name(object)))
        .collect();
    kept.sort();
    assert_eq!(
        kept,
        [
            "CustomResourceDefinition subscriptions.bellhop.dev",
            "CustomResourceDefinition triggerplugins.bellhop.dev",
            "CustomResourceDefinition workflowtriggers.bellhop.dev",
            "Namespace bellhop-ingress",
            "Secret bellhop-installation-key",
        ]
    );
    assert_eq!(find(&objects, "Secret", "bellhop-installation-key")["data"]["key"], KEY);
    // Without a value, the chart has no Secret at all.
    assert!(bellhop(&[]).iter().all(|object| kind(object) != "Secret"));
}

#[test]
fn a_change_of_the_key_restarts_who_reads_it() {
    let annotations = |mode: &str, key: &str, what: &str, name_: &str| {
        let objects = bellhop(&[&format!("--set=mode={mode},installationKey.value={key}")]);
        find(&objects, what, name_)["spec"]["template"]["metadata"]["annotations"].clone()
    };
    let other = KEY.replace('Y', "Z");
    for (mode, what, name_) in
        [("distributed", "Deployment", "bellhop-controller"), ("standalone", "StatefulSet", "bellhop-ingress")]
    {
        let one = annotations(mode, KEY, what, name_);
        assert!(one["checksum/installation-key"].is_string(), "{mode}");
        assert_ne!(one, annotations(mode, &other, what, name_), "{mode}");
    }
    assert!(annotations("distributed", KEY, "StatefulSet", "bellhop-ingress").is_null(), "the ingress reads no key");
}

#[test]
fn the_chart_version_alone_restarts_nothing() {
    let changed = |objects: Vec<Value>| {
        pod_templates(&objects).iter().map(|(_, pod)| pod["metadata"].to_string()).collect::<Vec<_>>().join("\n")
    };
    let metadata = changed(bellhop(&[]));
    assert!(metadata.contains("app.kubernetes.io/component"), "{metadata}");
    assert!(!metadata.contains("helm.sh/chart") && !metadata.contains("kubernetes.io/version"), "{metadata}");
}

#[test]
fn the_notice_leaves_nothing_behind_and_cannot_hang() {
    let objects = bellhop(&[]);
    let job = find(&objects, "Job", "bellhop-uninstall-notice");
    let annotations = &job["metadata"]["annotations"];
    assert_eq!(annotations["helm.sh/hook"], "pre-delete");
    assert_eq!(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded,hook-failed");
    assert_eq!(annotations["helm.sh/hook-output-log-policy"], "hook-succeeded,hook-failed");
    assert_eq!(job["spec"]["activeDeadlineSeconds"], 120);
    assert!(job["spec"]["ttlSecondsAfterFinished"].is_number());
    assert_eq!(job["spec"]["template"]["spec"]["serviceAccountName"], "bellhop-controller");
    // All that the hook needs is part of the release, so there is one hook and no more.
    let hooks = objects.iter().filter(|object| object["metadata"]["annotations"]["helm.sh/hook"].is_string());
    assert_eq!(hooks.count(), 1);
    let without = bellhop(&["--set=uninstallNotice.enabled=false"]);
    assert!(without.iter().all(|object| kind(object) != "Job"));
}

#[test]
fn the_definitions_are_those_of_bellhop() {
    let objects = bellhop(&[]);
    for name in ["subscriptions", "triggerplugins", "workflowtriggers"] {
        let expected = read_yaml(&format!("crds/{name}.bellhop.dev.yaml"));
        let mut rendered = find(&objects, "CustomResourceDefinition", &format!("{name}.bellhop.dev")).clone();
        let metadata = rendered["metadata"].as_object_mut().unwrap();
        metadata.remove("labels");
        assert_eq!(metadata.remove("annotations").unwrap(), json!({"helm.sh/resource-policy": "keep"}));
        // As types: in a file, a number may be written in two ways.
        let definition = |value| serde_json::from_value::<CustomResourceDefinition>(value).unwrap();
        assert_eq!(definition(rendered), definition(expected), "{name}");
    }
}

#[test]
fn the_catalogue_renders_what_is_chosen_as_it_is_written() {
    let spec = |plugin: &str| read_yaml(&format!("examples/{plugin}-push/plugin.yaml"))["spec"].clone();
    let all = template("bellhop-plugins", "plugins", &[]);
    assert_eq!(all.iter().map(name).collect::<Vec<_>>(), ["gitea", "github"]);
    for plugin in &all {
        assert_eq!(plugin["spec"], spec(name(plugin)));
        assert_eq!(plugin["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
    let one = template("bellhop-plugins", "plugins", &["--set=plugins={github},keep=false"]);
    assert_eq!(one.iter().map(name).collect::<Vec<_>>(), ["github"]);
    assert!(one[0]["metadata"]["annotations"].is_null());
}

#[test]
fn every_plugin_of_the_catalogue_can_be_chosen() {
    let folder = std::fs::read_dir(file("charts/bellhop-plugins/plugins")).unwrap();
    let names: BTreeSet<String> = folder
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().strip_suffix(".yaml").unwrap().to_owned())
        .collect();
    let schema: Value = serde_json::from_str(&read("charts/bellhop-plugins/values.schema.json")).unwrap();
    let known: Vec<&str> = schema["properties"]["plugins"]["items"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert_eq!(known, names.iter().collect::<Vec<_>>(), "values.schema.json and the files");
    let readme = read("charts/bellhop-plugins/README.md");
    let chosen = names.iter().cloned().collect::<Vec<_>>().join(",");
    let all = template("bellhop-plugins", "plugins", &[&format!("--set=plugins={{{chosen}}}")]);
    assert_eq!(all.iter().map(|plugin| name(plugin).to_owned()).collect::<BTreeSet<_>>(), names);
    for plugin in &all {
        let name = name(plugin);
        assert!(readme.contains(&format!("- `{name}`: ")), "README.md of the chart does not list {name}");
        let written = read_yaml(&format!("charts/bellhop-plugins/plugins/{name}.yaml"));
        assert_eq!(plugin["spec"], written["spec"], "{name}");
        for field in ["initials", "documentationURL", "description"] {
            assert!(plugin["spec"][field].is_string() || ["gitea", "github"].contains(&name), "{name} has no {field}");
        }
    }
}

#[test]
fn the_image_is_named_by_tag_or_by_digest() {
    let image = |args: &[&str]| {
        let objects = bellhop(args);
        let images: BTreeSet<String> = pod_templates(&objects)
            .iter()
            .filter_map(|(_, pod)| pod["spec"]["containers"][0]["image"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(images.len(), 1, "{images:?}");
        images.into_iter().next().unwrap()
    };
    assert_eq!(image(&[]), format!("bellhop:{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(
        image(&["--set=image.repository=registry.example.com/bellhop,image.tag=main"]),
        "registry.example.com/bellhop:main"
    );
    let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    assert_eq!(image(&[&format!("--set=image.tag=main,image.digest={digest}")]), format!("bellhop@{digest}"));
}

#[test]
fn releases_of_other_names_do_not_meet() {
    let names = |release: &str| -> BTreeSet<String> {
        let objects = template(
            "bellhop",
            release,
            &[PUBLIC_URL, "--set=crds.install=false,createIngressNamespace=false,requestLog.enabled=true"],
        );
        objects.iter().map(title).collect()
    };
    let (one, other) = (names("one"), names("other"));
    assert!(one.contains("Deployment bellhop-system/one-bellhop-controller"), "{one:?}");
    let shared: Vec<_> = one.intersection(&other).collect();
    // What it is called says which group it serves, so the values say that one release can have it.
    assert_eq!(shared, ["APIService -/v1alpha1.log.bellhop.dev"]);
}

#[test]
fn the_gitops_examples_give_values_that_the_charts_take() {
    for (path, values, chart, expected) in [
        ("flux/bellhop/bellhop.yaml", "/spec/values", "bellhop", "Deployment"),
        ("flux/bellhop/plugins.yaml", "/spec/values", "bellhop-plugins", "TriggerPlugin"),
        ("argocd/applications/bellhop.yaml", "/spec/source/helm/valuesObject", "bellhop", "Deployment"),
        (
            "argocd/applications/bellhop-plugins.yaml",
            "/spec/source/helm/valuesObject",
            "bellhop-plugins",
            "TriggerPlugin",
        ),
    ] {
        let example = read_yaml(&format!("examples/gitops/{path}"));
        let values = example.pointer(values).unwrap_or_else(|| panic!("{path}: there is no {values}"));
        // JSON is YAML.
        let file = bellhop_harness::world::dir().join(format!("example-{}.yaml", path.replace('/', "-")));
        std::fs::write(&file, values.to_string()).unwrap();
        let objects = template(chart, chart, &["--values", &file.to_string_lossy()]);
        assert!(objects.iter().any(|object| kind(object) == expected), "{path}");
    }
}
