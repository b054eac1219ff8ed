//! Systems that run workflows, as far as their documentation says how they answer the request that starts one: what they
//! take, and with which status they refuse the rest. The sources are named in `examples/runners`.

use serde_json::Value;

use crate::runner::Recorded;

/// A system, and the example that sends to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Dify, `workflows/run`.
    Dify,
    /// Argo Workflows, the events endpoint.
    ArgoEvents,
    /// Argo Workflows, the submission of a WorkflowTemplate.
    ArgoSubmit,
    /// Tekton Triggers, an EventListener without interceptors.
    Tekton,
    /// n8n, a Webhook node with "Header Auth".
    N8n,
    /// Windmill, a script.
    Windmill,
    /// Kestra, a Webhook trigger.
    Kestra,
    /// GitHub Actions, `workflow_dispatch`.
    GithubActions,
}

/// What a system answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: &'static str,
}

/// An answer, and whether the request started a workflow.
type Outcome = Result<Answer, Answer>;

impl System {
    /// All of them.
    pub const ALL: [System; 8] = [
        System::Dify,
        System::ArgoEvents,
        System::ArgoSubmit,
        System::Tekton,
        System::N8n,
        System::Windmill,
        System::Kestra,
        System::GithubActions,
    ];

    /// Name of the example in `examples/runners`, and of its trigger.
    pub fn name(self) -> &'static str {
        match self {
            System::Dify => "dify",
            System::ArgoEvents => "argo-events",
            System::ArgoSubmit => "argo-submit",
            System::Tekton => "tekton",
            System::N8n => "n8n",
            System::Windmill => "windmill",
            System::Kestra => "kestra",
            System::GithubActions => "github-actions",
        }
    }

    /// The Secret that the example names, with its keys; nothing where the system asks for none.
    pub fn secret(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            System::Dify => Some(("dify", &["key"])),
            System::ArgoEvents | System::ArgoSubmit => Some(("argo", &["token"])),
            System::Tekton => None,
            System::N8n => Some(("n8n", &["token"])),
            System::Windmill => Some(("windmill", &["token"])),
            System::Kestra => Some(("kestra", &["user", "password"])),
            System::GithubActions => Some(("github-actions", &["token"])),
        }
    }

    /// The status for credentials that are wrong.
    pub fn refusal(self) -> Option<u16> {
        match self {
            System::Tekton => None,
            System::N8n => Some(403),
            _ => Some(401),
        }
    }

    /// What the system answers to a request. `credential` is what it knows: the token, or `user:password` in base64.
    pub fn answer(self, request: &Recorded, credential: &str) -> Answer {
        let outcome = match self {
            System::Dify => dify(request, credential),
            System::ArgoEvents => argo_events(request, credential),
            System::ArgoSubmit => argo_submit(request, credential),
            System::Tekton => tekton(request),
            System::N8n => n8n(request, credential),
            System::Windmill => windmill(request, credential),
            System::Kestra => kestra(request, credential),
            System::GithubActions => github_actions(request, credential),
        };
        outcome.unwrap_or_else(|refusal| refusal)
    }
}

fn refused(status: u16, body: &'static str) -> Answer {
    Answer { status, body }
}

fn started(status: u16, body: &'static str) -> Outcome {
    Ok(Answer { status, body })
}

fn called(request: &Recorded, path: &str) -> Result<(), Answer> {
    if request.path != path {
        return Err(refused(404, "not found"));
    }
    if request.method == "POST" { Ok(()) } else { Err(refused(405, "method not allowed")) }
}

fn authorized(request: &Recorded, scheme: &str, credential: &str) -> Result<(), Answer> {
    match request.header("authorization") == Some(&format!("{scheme} {credential}")) {
        true => Ok(()),
        false => Err(refused(401, r#"{"code": "unauthorized", "message": "Access token is invalid"}"#)),
    }
}

/// The body, which has to be a JSON object and to say so.
fn object(request: &Recorded, wrong: u16) -> Result<Value, Answer> {
    let said = request.header("content-type").is_some_and(|found| found.starts_with("application/json"));
    match request.json() {
        Ok(body) if said && body.is_object() => Ok(body),
        _ => Err(refused(wrong, "the body is no JSON object")),
    }
}

fn strings(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| fields.values().all(Value::is_string))
}

fn dify(request: &Recorded, key: &str) -> Outcome {
    called(request, "/v1/workflows/run")?;
    authorized(request, "Bearer", key)?;
    let body = object(request, 400)?;
    let mode = body["response_mode"].as_str().is_some_and(|mode| ["streaming", "blocking"].contains(&mode));
    let user = body["user"].as_str().is_some_and(|user| !user.is_empty());
    if !body["inputs"].is_object() || !mode || !user {
        return Err(refused(400, r#"{"code": "invalid_param", "message": "user is required in input form"}"#));
    }
    started(200, "data: {\"event\": \"workflow_started\"}\n\n")
}

fn argo_events(request: &Recorded, token: &str) -> Outcome {
    called(request, "/api/v1/events/team-a/push")?;
    authorized(request, "Bearer", token)?;
    object(request, 400)?;
    started(200, "{}")
}

fn argo_submit(request: &Recorded, token: &str) -> Outcome {
    called(request, "/api/v1/workflows/team-a/submit")?;
    authorized(request, "Bearer", token)?;
    let body = object(request, 400)?;
    let known = ["namespace", "resourceKind", "resourceName", "submitOptions"];
    let unknown = body.as_object().is_some_and(|fields| fields.keys().any(|field| !known.contains(&field.as_str())));
    if unknown || body["resourceKind"] != "WorkflowTemplate" {
        return Err(refused(400, r#"{"code": 3, "message": "unknown field or kind"}"#));
    }
    if body["resourceName"] != "review" {
        return Err(refused(404, r#"{"code": 5, "message": "workflowtemplates.argoproj.io not found"}"#));
    }
    let name = body["submitOptions"]["name"].as_str().unwrap_or_default();
    let named =
        name.len() <= 63 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let parameters = body["submitOptions"]["parameters"].as_array().cloned().unwrap_or_default();
    if !named || !parameters.iter().all(|parameter| parameter.as_str().is_some_and(|text| text.contains('='))) {
        return Err(refused(400, r#"{"code": 3, "message": "expected parameter of the form: NAME=VALUE"}"#));
    }
    started(200, r#"{"metadata": {"name": "review"}}"#)
}

fn tekton(request: &Recorded) -> Outcome {
    called(request, "/")?;
    object(request, 400)?;
    // To a CloudEvent it answers with one.
    if request.headers().any(|(name, _)| name.starts_with("ce-")) {
        return Err(refused(500, "a CloudEvent"));
    }
    started(
        202,
        r#"{"eventListener": "push", "namespace": "team-a", "eventID": "14a657c3-6816-45bf-b214-4afdaefc4ebd"}"#,
    )
}

fn n8n(request: &Recorded, token: &str) -> Outcome {
    called(request, "/webhook/push")?;
    if request.header("x-n8n-token") != Some(token) {
        return Err(refused(403, "Authorization data is wrong!"));
    }
    object(request, 400)?;
    started(200, r#"{"message": "Workflow was started"}"#)
}

fn windmill(request: &Recorded, token: &str) -> Outcome {
    called(request, "/api/w/team-a/jobs/run/p/f/ci/review")?;
    authorized(request, "Bearer", token)?;
    object(request, 400)?;
    started(201, "017e0ad5-f499-73b6-5488-92a61c5196dd")
}

fn kestra(request: &Recorded, login: &str) -> Outcome {
    authorized(request, "Basic", login)?;
    called(request, "/api/v1/main/executions/webhook/company.team/review/4wjtkzwVGBM9yKnjm3yv8r")?;
    object(request, 422)?;
    started(200, r#"{"tenantId": "main", "namespace": "company.team", "flowId": "review"}"#)
}

fn github_actions(request: &Recorded, token: &str) -> Outcome {
    authorized(request, "Bearer", token)?;
    called(request, "/repos/acme/web/actions/workflows/review.yaml/dispatches")?;
    if request.header("user-agent").is_none_or(str::is_empty) {
        return Err(refused(403, "Request forbidden by administrative rules."));
    }
    let body = object(request, 400)?;
    let inputs = body["inputs"].as_object().map_or(0, serde_json::Map::len);
    if !body["ref"].is_string() || inputs > 25 || !strings(&body["inputs"]) {
        return Err(refused(422, r#"{"message": "Invalid request."}"#));
    }
    if request.header("accept") != Some("application/vnd.github+json") {
        return Err(refused(415, "unsupported media type"));
    }
    started(204, "")
}
