//! Least privilege: what the rendered roles say, and what the API server makes of them.

use crate::support::{PUBLIC_URL, bellhop, chart, cluster, helm_on, items, kind, name, namespace, strings};
use anyhow::{Result, ensure};
use bellhop_harness::eventually;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// `account | scope | group/resource | verbs`, of every rule that is bound to anybody.
fn table(objects: &[Value]) -> BTreeSet<String> {
    let mut table = BTreeSet::new();
    for binding in objects.iter().filter(|object| kind(object).ends_with("RoleBinding")) {
        let role = &binding["roleRef"];
        let rendered = objects
            .iter()
            .find(|o| kind(o) == role["kind"] && name(o) == role["name"] && namespace(o) == namespace(binding));
        // The one role that every cluster has.
        let reader = json!({"rules": [{
            "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["extension-apiserver-authentication"],
            "verbs": ["get", "list", "watch"],
        }]});
        let rules = match rendered {
            Some(role) => items(&role["rules"]),
            None if role["name"] == "extension-apiserver-authentication-reader" => items(&reader["rules"]),
            None => panic!("there is no role for {binding}"),
        };
        for subject in items(&binding["subjects"]) {
            assert_eq!(subject["kind"], "ServiceAccount", "{binding}");
            assert_eq!(subject["namespace"], "bellhop-system", "{binding}");
            for rule in rules {
                let known = ["apiGroups", "resources", "resourceNames", "verbs"];
                assert!(rule.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{rule}");
                for group in strings(&rule["apiGroups"]) {
                    for resource in strings(&rule["resources"]) {
                        let mut verbs = strings(&rule["verbs"]);
                        verbs.sort();
                        let account = subject["name"].as_str().unwrap();
                        let scope = namespace(binding).unwrap_or("*");
                        let names = match strings(&rule["resourceNames"]).join(",") {
                            names if names.is_empty() => names,
                            names => format!("[{names}]"),
                        };
                        table.insert(format!("{account} | {scope} | {group}/{resource}{names} | {}", verbs.join(",")));
                    }
                }
            }
        }
    }
    table
}

/// What the controller's work needs everywhere, and in Bellhop's own namespaces.
const CONTROLLER: [(&str, &str, &str); 12] = [
    ("*", "bellhop.dev/triggerplugins", "get,list,patch,watch"),
    ("*", "bellhop.dev/triggerplugins/status", "patch"),
    ("*", "/namespaces", "get"),
    ("*", "admissionregistration.k8s.io/validatingwebhookconfigurations[bellhop]", "get,list,patch,watch"),
    ("*", "apiregistration.k8s.io/apiservices[v1alpha1.log.bellhop.dev]", "get,list,patch,watch"),
    ("*", "authorization.k8s.io/subjectaccessreviews", "create"),
    ("kube-system", "/configmaps[extension-apiserver-authentication]", "get,list,watch"),
    ("bellhop-system", "/secrets", "create,delete,get,list,update,watch"),
    ("bellhop-system", "/configmaps", "create,delete,get,list,patch,update,watch"),
    ("bellhop-system", "coordination.k8s.io/leases", "create,get,update"),
    ("bellhop-system", "discovery.k8s.io/endpointslices", "get,list,watch"),
    ("bellhop-ingress", "/secrets", "create,delete,get,list,patch,watch"),
];
/// What it needs in workspaces.
const CONTROLLER_IN_WORKSPACES: [(&str, &str); 7] = [
    ("bellhop.dev/subscriptions", "get,list,patch,watch"),
    ("bellhop.dev/subscriptions/status", "patch"),
    ("bellhop.dev/workflowtriggers", "get,list,watch"),
    ("bellhop.dev/workflowtriggers/status", "patch"),
    ("/secrets", "create,get,list,update,watch"),
    ("/services", "list,watch"),
    ("events.k8s.io/events", "create,patch"),
];
const INGRESS: [(&str, &str, &str); 2] =
    [("*", "bellhop.dev/triggerplugins", "get,list,watch"), ("bellhop-ingress", "/secrets", "get,list,watch")];
const INGRESS_IN_WORKSPACES: [(&str, &str); 1] = [("bellhop.dev/workflowtriggers", "get,list,watch")];

fn expected(controller: &str, ingress: &str, workspaces: &[&str]) -> BTreeSet<String> {
    let mut table = BTreeSet::new();
    for (account, own, theirs) in [
        (controller, &CONTROLLER[..], &CONTROLLER_IN_WORKSPACES[..]),
        (ingress, &INGRESS[..], &INGRESS_IN_WORKSPACES[..]),
    ] {
        for (scope, resource, verbs) in own {
            table.insert(format!("{account} | {scope} | {resource} | {verbs}"));
        }
        for scope in workspaces {
            for (resource, verbs) in theirs {
                table.insert(format!("{account} | {scope} | {resource} | {verbs}"));
            }
        }
    }
    if !workspaces.contains(&"*") {
        // Where events about TriggerPlugins go.
        table.insert(format!("{controller} | default | events.k8s.io/events | create,patch"));
    }
    table
}

#[test]
fn each_account_has_exactly_its_rights() {
    let (controller, ingress, standalone) = ("bellhop-controller", "bellhop-ingress", "bellhop-standalone");
    assert_eq!(table(&bellhop(&[])), expected(controller, ingress, &["*"]));
    let narrow = "--set=watchNamespaces={team-a,team-b}";
    assert_eq!(table(&bellhop(&[narrow])), expected(controller, ingress, &["team-a", "team-b"]));
    assert_eq!(table(&bellhop(&["--set=mode=standalone"])), expected(standalone, standalone, &["*"]));
    let both = table(&bellhop(&["--set=mode=standalone", narrow]));
    assert_eq!(both, expected(standalone, standalone, &["team-a", "team-b"]));
    // The one right that is given for named namespaces alone, and only if it is asked for.
    let mut makes = expected(controller, ingress, &["*"]);
    let listed = "--set=resourceRunners.namespaces={team-a,team-b}";
    assert_eq!(table(&bellhop(&[listed])), makes, "it is not switched on");
    assert_eq!(table(&bellhop(&["--set=resourceRunners.enabled=true"])), makes, "no namespace is listed");
    for namespace in ["team-a", "team-b"] {
        makes.insert(format!("{controller} | {namespace} | /serviceaccounts | get,impersonate"));
    }
    assert_eq!(table(&bellhop(&[listed, "--set=resourceRunners.enabled=true"])), makes);
    let mut unasked = expected(controller, ingress, &["*"]);
    unasked.retain(|rule| !rule.contains("validatingwebhookconfigurations"));
    assert_eq!(table(&bellhop(&["--set=admission.enabled=false"])), unasked);
    let mut unread = expected(controller, ingress, &["*"]);
    unread
        .retain(|rule| !["apiservices", "subjectaccessreviews", "kube-system"].iter().any(|word| rule.contains(word)));
    assert_eq!(table(&bellhop(&["--set=requestLog.enabled=false"])), unread);
}

#[test]
fn roles_that_nobody_has_are_not_rendered() {
    for args in [&[][..], &["--set=watchNamespaces={team-a}"], &["--set=mode=standalone"]] {
        let objects = bellhop(args);
        let count = |what: &str| objects.iter().filter(|object| kind(object) == what).count();
        // One binding gives a role that every cluster has.
        assert_eq!(count("Role") + 1, count("RoleBinding"), "{args:?}");
        // Two are for users: they become part of Kubernetes' own.
        assert_eq!(count("ClusterRole"), 4, "{args:?}");
        assert_eq!(count("ClusterRoleBinding"), 2, "{args:?}");
        assert!(count("Role") >= 3, "{args:?}");
    }
}

/// One question: verb, `resource[.group][/subresource]`, namespace (`""` is the whole cluster), and the answer.
type Question<'a> = (&'a str, &'a str, &'a str, bool);

async fn may(client: &kube::Client, account: &str, of: &str, question: &Question<'_>) -> Result<bool> {
    let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{of}")];
    allowed(client, &format!("system:serviceaccount:{of}:{account}"), &groups, question, None).await
}

/// Whether a user may do it; to the object of this name, if there is one.
async fn allowed(
    client: &kube::Client,
    user: &str,
    groups: &[String],
    question: &Question<'_>,
    object: Option<&str>,
) -> Result<bool> {
    let (verb, what, namespace, _) = *question;
    let (resource, subresource) = what.split_once('/').map_or((what, None), |(r, s)| (r, Some(s.to_owned())));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let review = SubjectAccessReview {
        metadata: ObjectMeta::default(),
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            groups: Some([groups, &["system:authenticated".to_owned()]].concat()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                namespace: Some(namespace.to_owned()),
                name: object.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        status: None,
    };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// An installation of the chart with its own namespaces; what is asked about it.
struct Installation {
    system: String,
    published: String,
    team: String,
    other: String,
}

/// The release whose rights concerning the request log are asked for.
const WITH_LOG: &str = "wide";

async fn install(release: &str, args: &[&str]) -> Result<Installation> {
    let cluster = cluster().await;
    let system = cluster.create_namespace("system").await?;
    let team = cluster.create_namespace("team").await?;
    let other = cluster.create_namespace("other").await?;
    let published = format!("{system}-routes");
    let narrow = format!("watchNamespaces={{{team}}}");
    let args: Vec<String> = args.iter().map(|arg| arg.replace("watchNamespaces=TEAM", &narrow)).collect();
    let (path, namespace) = (chart("bellhop"), format!("--set=ingressNamespace={published},crds.install=false"));
    let mut all = vec!["install", release, &path, "--namespace", &system, "--no-hooks", PUBLIC_URL, &namespace];
    if release == WITH_LOG {
        // There is one APIService of the name in a cluster.
        all.push("--set=requestLog.enabled=true");
    }
    all.extend(args.iter().map(String::as_str));
    helm_on(cluster, &all).await?;
    if release == WITH_LOG {
        // Nobody answers behind it, and then no namespace of the cluster could be deleted.
        cluster.kubectl(["delete", "apiservice", "v1alpha1.log.bellhop.dev"]).await?;
    }
    Ok(Installation { system, published, team, other })
}

async fn ask(installation: &Installation, account: &str, questions: &[Question<'_>]) -> Result<()> {
    let client = cluster().await.client().await?;
    let mut wrong = Vec::new();
    for question in questions {
        if may(&client, account, &installation.system, question).await? != question.3 {
            wrong.push(question);
        }
    }
    assert!(wrong.is_empty(), "the API server says otherwise of {account}: {wrong:?}");
    Ok(())
}

/// What no account of Bellhop may do, wherever it works.
fn forbidden<'a>(i: &'a Installation) -> Vec<Question<'a>> {
    vec![
        ("delete", "secrets", &i.team, false),
        ("patch", "secrets", &i.team, false),
        ("get", "secrets", "kube-system", false),
        ("create", "pods", &i.team, false),
        ("create", "pods", &i.system, false),
        ("create", "pods/exec", &i.system, false),
        ("get", "pods", &i.team, false),
        ("create", "subscriptions.bellhop.dev", &i.team, false),
        ("update", "subscriptions.bellhop.dev", &i.team, false),
        ("delete", "subscriptions.bellhop.dev", &i.team, false),
        ("patch", "workflowtriggers.bellhop.dev", &i.team, false),
        ("create", "triggerplugins.bellhop.dev", "", false),
        ("delete", "triggerplugins.bellhop.dev", "", false),
        ("create", "namespaces", "", false),
        ("list", "namespaces", "", false),
        ("delete", "namespaces", "", false),
        ("create", "serviceaccounts/token", &i.system, false),
        ("create", "roles.rbac.authorization.k8s.io", &i.system, false),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", "", false),
        ("impersonate", "serviceaccounts", &i.system, false),
        ("patch", "customresourcedefinitions.apiextensions.k8s.io", "", false),
        // Of the one that has the release's name, see below.
        ("patch", "validatingwebhookconfigurations.admissionregistration.k8s.io", "", false),
        ("create", "validatingwebhookconfigurations.admissionregistration.k8s.io", "", false),
        ("patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", false),
        ("get", "configmaps", &i.team, false),
        ("create", "services", &i.team, false),
        ("get", "configmaps", "kube-system", false),
        ("update", "leases.coordination.k8s.io", "kube-system", false),
        ("list", "nodes", "", false),
        // Requests are told to users, and it asks nobody for them by itself.
        ("get", "requests.log.bellhop.dev", &i.team, false),
        ("create", "requests.log.bellhop.dev/replay", &i.team, false),
        ("create", "subscriptions.log.bellhop.dev/send", &i.team, false),
        ("watch", "captures.log.bellhop.dev", &i.team, false),
        ("patch", "apiservices.apiregistration.k8s.io", "", false),
        ("create", "apiservices.apiregistration.k8s.io", "", false),
    ]
}

/// What the controller may do, in Bellhop's namespaces.
fn controllers<'a>(i: &'a Installation) -> Vec<Question<'a>> {
    vec![
        ("watch", "triggerplugins.bellhop.dev", "", true),
        ("patch", "triggerplugins.bellhop.dev", "", true),
        ("patch", "triggerplugins.bellhop.dev/status", "", true),
        ("get", "namespaces", &i.team, true),
        ("create", "secrets", &i.system, true),
        ("update", "secrets", &i.system, true),
        ("delete", "secrets", &i.system, true),
        ("update", "configmaps", &i.system, true),
        ("delete", "configmaps", &i.system, true),
        ("update", "leases.coordination.k8s.io", &i.system, true),
        ("watch", "endpointslices.discovery.k8s.io", &i.system, true),
        ("patch", "secrets", &i.published, true),
        ("delete", "secrets", &i.published, true),
        ("create", "events.events.k8s.io", "default", true),
        ("watch", "subscriptions.bellhop.dev", &i.team, true),
        ("patch", "subscriptions.bellhop.dev", &i.team, true),
        ("patch", "subscriptions.bellhop.dev/status", &i.team, true),
        ("list", "workflowtriggers.bellhop.dev", &i.team, true),
        ("patch", "workflowtriggers.bellhop.dev/status", &i.team, true),
        ("get", "secrets", &i.team, true),
        ("watch", "secrets", &i.team, true),
        ("create", "secrets", &i.team, true),
        ("update", "secrets", &i.team, true),
        ("list", "services", &i.team, true),
        ("watch", "services", &i.team, true),
        ("create", "events.events.k8s.io", &i.team, true),
    ]
}

/// What the ingress may do, and what besides it may not.
fn ingresses<'a>(i: &'a Installation) -> Vec<Question<'a>> {
    vec![
        ("watch", "triggerplugins.bellhop.dev", "", true),
        ("watch", "workflowtriggers.bellhop.dev", &i.team, true),
        ("get", "secrets", &i.published, true),
        ("list", "secrets", &i.published, true),
        ("watch", "secrets", &i.published, true),
        ("create", "secrets", &i.published, false),
        ("patch", "secrets", &i.published, false),
        ("delete", "secrets", &i.published, false),
        ("get", "secrets", &i.system, false),
        ("list", "secrets", &i.system, false),
        ("get", "secrets", &i.team, false),
        ("list", "secrets", &i.team, false),
        ("create", "secrets", &i.team, false),
        ("update", "secrets", &i.team, false),
        ("list", "secrets", "", false),
        ("get", "configmaps", &i.system, false),
        ("get", "leases.coordination.k8s.io", &i.system, false),
        ("get", "subscriptions.bellhop.dev", &i.team, false),
        ("patch", "triggerplugins.bellhop.dev", "", false),
        ("patch", "workflowtriggers.bellhop.dev/status", &i.team, false),
        ("create", "events.events.k8s.io", &i.team, false),
        ("get", "namespaces", &i.team, false),
        ("list", "services", &i.team, false),
        ("get", "endpointslices.discovery.k8s.io", &i.system, false),
    ]
}

#[tokio::test]
async fn the_api_server_grants_each_account_what_it_needs_and_no_more() -> Result<()> {
    let wide = install("wide", &[]).await?;
    let everywhere =
        [("list", "subscriptions.bellhop.dev", "", true), ("list", "workflowtriggers.bellhop.dev", "", true)];
    let controller = [forbidden(&wide), controllers(&wide), everywhere.to_vec()].concat();
    // Secrets can be read everywhere: RBAC knows no labels, and which workspaces will have credentials is not known.
    let controller: Vec<_> =
        controller.into_iter().filter(|q| *q != ("get", "secrets", "kube-system", false)).collect();
    ask(&wide, "wide-bellhop-controller", &controller).await?;
    let client = cluster().await.client().await?;
    for verb in ["get", "list", "watch", "patch"] {
        let question = (verb, "validatingwebhookconfigurations.admissionregistration.k8s.io", "", true);
        let account = format!("system:serviceaccount:{}:wide-bellhop-controller", wide.system);
        assert!(allowed(&client, &account, &[], &question, Some("wide-bellhop")).await?, "{verb}");
        assert!(!allowed(&client, &account, &[], &question, Some("another")).await?, "{verb}");
    }
    let account = format!("system:serviceaccount:{}:wide-bellhop-controller", wide.system);
    for verb in ["get", "list", "watch", "patch"] {
        let question = (verb, "apiservices.apiregistration.k8s.io", "", true);
        assert!(allowed(&client, &account, &[], &question, Some("v1alpha1.log.bellhop.dev")).await?, "{verb}");
        assert!(!allowed(&client, &account, &[], &question, Some("v1.apps")).await?, "{verb}");
    }
    for verb in ["get", "list", "watch"] {
        let question = (verb, "configmaps", "kube-system", true);
        let object = "extension-apiserver-authentication";
        assert!(allowed(&client, &account, &[], &question, Some(object)).await?, "{verb}");
        assert!(!allowed(&client, &account, &[], &question, Some("coredns")).await?, "{verb}");
    }
    ask(&wide, "wide-bellhop-controller", &[("create", "subjectaccessreviews.authorization.k8s.io", "", true)]).await?;
    let ingress = [forbidden(&wide), ingresses(&wide)].concat();
    ask(&wide, "wide-bellhop-ingress", &ingress).await
}

#[tokio::test]
async fn with_named_namespaces_the_others_are_closed() -> Result<()> {
    let narrow = install("narrow", &["--set=watchNamespaces=TEAM"]).await?;
    let closed: [Question; 10] = [
        ("list", "secrets", "", false),
        ("watch", "secrets", &narrow.other, false),
        ("list", "subscriptions.bellhop.dev", "", false),
        ("list", "workflowtriggers.bellhop.dev", "", false),
        ("get", "secrets", &narrow.other, false),
        ("get", "subscriptions.bellhop.dev", &narrow.other, false),
        ("patch", "subscriptions.bellhop.dev/status", &narrow.other, false),
        ("get", "workflowtriggers.bellhop.dev", &narrow.other, false),
        ("create", "events.events.k8s.io", &narrow.other, false),
        ("get", "secrets", "default", false),
    ];
    let controller = [forbidden(&narrow), controllers(&narrow), closed.to_vec()].concat();
    ask(&narrow, "narrow-bellhop-controller", &controller).await?;
    let ingress = [forbidden(&narrow), ingresses(&narrow), closed.to_vec()].concat();
    ask(&narrow, "narrow-bellhop-ingress", &ingress).await
}

/// What the controller does for an event: an object is made in the name of a ServiceAccount.
#[tokio::test]
async fn the_controller_acts_as_accounts_of_the_listed_namespaces_alone() -> Result<()> {
    let cluster = cluster().await;
    let team = cluster.create_namespace("listed").await?;
    let args = ["--set=admission.enabled=false,resourceRunners.enabled=true".to_owned()];
    let listed = format!("--set=resourceRunners.namespaces={{{team}}}");
    let makes = install("makes", &[args[0].as_str(), &listed]).await?;
    let questions = [
        ("impersonate", "serviceaccounts", team.as_str(), true),
        ("get", "serviceaccounts", &team, true),
        ("list", "serviceaccounts", &team, false),
        ("impersonate", "serviceaccounts", &makes.team, false),
        ("get", "serviceaccounts", &makes.team, false),
        ("impersonate", "serviceaccounts", "kube-system", false),
        ("impersonate", "users", "", false),
        ("impersonate", "groups", "", false),
        ("create", "jobs.batch", &team, false),
    ];
    let questions: Vec<Question<'_>> = questions.into_iter().collect();
    ask(&makes, "makes-bellhop-controller", &questions).await?;
    ask(&makes, "makes-bellhop-ingress", &[("impersonate", "serviceaccounts", &team, false)]).await?;

    // No group has to be named, and so none may be: the API server adds those of ServiceAccounts.
    for namespace in [&team, &makes.team] {
        cluster.kubectl(["-n", namespace, "create", "serviceaccount", "workflows"]).await?;
        let role = ["-n", namespace, "create", "role", "workflows", "--verb=create,get", "--resource=configmaps"];
        cluster.kubectl(role).await?;
        let account = format!("--serviceaccount={namespace}:workflows");
        cluster.kubectl(["-n", namespace, "create", "rolebinding", "workflows", "--role=workflows", &account]).await?;
    }
    let token = cluster.kubectl(["-n", &makes.system, "create", "token", "makes-bellhop-controller"]).await?;
    let kubeconfig = cluster.kubeconfig_for("makes-controller", json!({"token": token.trim()}))?;
    let create = async |who: &str, of: &str, kind: &str| {
        let user = format!("--as=system:serviceaccount:{of}:{who}");
        let mut command = cluster.kubectl_command(["-n", of, "create", kind, "made", &user]);
        command.env("KUBECONFIG", &kubeconfig);
        bellhop_harness::process::run(command).await.map_err(|error| format!("{error:#}"))
    };
    let made = create("workflows", &team, "configmap").await;
    ensure!(made.is_ok(), "{made:?}");
    for (who, of, kind, why) in [
        ("workflows", &team, "serviceaccount", "cannot create resource"),
        ("default", &team, "configmap", "cannot create resource"),
        ("workflows", &makes.team, "configmap", "cannot impersonate resource"),
    ] {
        let refused = create(who, of, kind).await.err().unwrap_or_default();
        ensure!(refused.contains(why), "{who} of {of}: {refused}");
    }
    // The namespace that comes later, as docs/runners.md has it.
    let role = ["create", "role", "bellhop-resource-runners", "--verb=get,impersonate", "--resource=serviceaccounts"];
    cluster.kubectl(["-n", &makes.team].into_iter().chain(role)).await?;
    let account = format!("--serviceaccount={}:makes-bellhop-controller", makes.system);
    let binding = ["create", "rolebinding", "bellhop-resource-runners", "--role=bellhop-resource-runners", &account];
    cluster.kubectl(["-n", &makes.team].into_iter().chain(binding)).await?;
    eventually(Duration::from_secs(30), "the new namespace works too", async || {
        create("workflows", &makes.team, "configmap").await.map(drop).map_err(anyhow::Error::msg)
    })
    .await
}

#[tokio::test]
async fn one_process_has_the_rights_of_both_and_no_more() -> Result<()> {
    let alone = install("alone", &["--set=mode=standalone", "--set=watchNamespaces=TEAM"]).await?;
    let allowed: Vec<_> = ingresses(&alone).into_iter().filter(|question| question.3).collect();
    let questions = [forbidden(&alone), controllers(&alone), allowed].concat();
    ask(&alone, "alone-bellhop-standalone", &questions).await
}

/// What the cluster's own roles let users do, once the chart is there.
#[tokio::test]
async fn the_clusters_own_roles_include_bellhops_kinds() -> Result<()> {
    let users = install("users", &["--set=admission.enabled=false"]).await?;
    let cluster = cluster().await;
    for role in ["view", "edit", "admin"] {
        let (role_arg, user) = (format!("--clusterrole={role}"), format!("--user={role}-of-team"));
        cluster.kubectl(["-n", &users.team, "create", "rolebinding", role, &role_arg, &user]).await?;
    }
    let client = cluster.client().await?;
    let (team, other) = (users.team.as_str(), users.other.as_str());
    let kinds = ["subscriptions.bellhop.dev", "workflowtriggers.bellhop.dev"];
    let answers = async |role: &str| -> Result<Vec<bool>> {
        let mut answers = Vec::new();
        for verb in ["get", "list", "watch", "create", "update", "patch", "delete"] {
            for kind in kinds {
                answers.push(allowed(&client, &format!("{role}-of-team"), &[], &(verb, kind, team, true), None).await?);
            }
        }
        Ok(answers)
    };
    // The controller manager puts the roles together.
    eventually(Duration::from_secs(60), "the roles are put together", async || {
        ensure!(answers("view").await? == [&[true; 6][..], &[false; 8]].concat(), "view: {:?}", answers("view").await?);
        for role in ["edit", "admin"] {
            ensure!(answers(role).await? == [true; 14], "{role}: {:?}", answers(role).await?);
        }
        Ok(())
    })
    .await?;
    let role = async |role: &str, verb: &str, what: &str, place: &str| {
        allowed(&client, &format!("{role}-of-team"), &[], &(verb, what, place, true), None).await
    };
    for verb in ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"] {
        let reads = matches!(verb, "get" | "list" | "watch");
        for name in ["view", "edit", "admin"] {
            assert_eq!(role(name, verb, "requests.log.bellhop.dev", team).await?, reads, "{name}: {verb}");
            assert!(!role(name, verb, "requests.log.bellhop.dev", other).await?, "{name}: {verb}");
            let replays = verb == "create" && name != "view";
            for work in ["requests.log.bellhop.dev/replay", "subscriptions.log.bellhop.dev/send"] {
                assert_eq!(role(name, verb, work, team).await?, replays, "{name}: {verb} {work}");
                assert!(!role(name, verb, work, other).await?, "{name}: {verb} {work}");
            }
            let listens = verb == "watch" && name != "view";
            assert_eq!(role(name, verb, "captures.log.bellhop.dev", team).await?, listens, "{name}: {verb}");
        }
    }
    let refused: [Question; 5] = [
        ("patch", "subscriptions.bellhop.dev/status", team, false),
        ("update", "workflowtriggers.bellhop.dev/status", team, false),
        ("create", "triggerplugins.bellhop.dev", "", false),
        ("get", "subscriptions.bellhop.dev", other, false),
        ("create", "workflowtriggers.bellhop.dev", other, false),
    ];
    for question in refused {
        for role in ["view", "edit", "admin"] {
            let answer = allowed(&client, &format!("{role}-of-team"), &[], &question, None).await?;
            assert!(!answer, "{role}: {question:?}");
        }
    }
    Ok(())
}
