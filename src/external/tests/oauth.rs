//! Token requests against a server of the tests.

use super::*;
use crate::api::TriggerPluginSpec;
use crate::external::oauth::{OAuthClient, TokenError};
use crate::plugin::{Plugin, Token};
use crate::telemetry::Metrics;
use serde_json::{Map, Value, json};

/// An external system that answers every request in the same way, and a client of it.
struct World {
    plugin: Plugin,
    http: Client,
    metrics: Metrics,
    parameters: Map<String, Value>,
    secret: Secret,
    redirect_url: url::Url,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl World {
    /// `more` is merged into the plugin's `oauth2`.
    async fn answering(status: u16, body: &str, more: &Value) -> World {
        let answer = format!(
            "HTTP/1.1 {status} Answer\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let asked: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let requests = asked.clone();
        let server = Raw::speaking(move |head, mut stream| {
            let (answer, requests) = (answer.clone(), requests.clone());
            async move {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let mut form = vec![0; length.unwrap_or(0)];
                if stream.read_exact(&mut form).await.is_ok() {
                    requests.lock().unwrap().push((head, String::from_utf8(form).unwrap()));
                }
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        })
        .await;
        let base = server.url();
        let mut oauth2 = json!({
            "authorizationURL": format!("{base}/authorize"), "tokenURL": format!("{base}/token"),
            "revocationURL": format!("{base}/revoke"), "scopes": ["hooks", "read"],
        });
        for (key, value) in more.as_object().unwrap() {
            oauth2[key] = value.clone();
        }
        let spec: TriggerPluginSpec = serde_json::from_value(json!({
            "displayName": "Forge",
            "allowedOrigins": [base],
            "authorization": {"oauth2": oauth2},
            "webhook": {"create": {
                "method": "POST", "url": format!("{base}/hooks"), "body": "{'url': callback.url}",
                "capture": {"id": "string(response.body.id)"},
            }, "delete": {"method": "DELETE", "url": format!("{base}/hooks/{{webhook.id}}")}},
            "callback": {"verification": [{"none": {}}], "event": "body.event"},
            "events": [{"name": "push", "title": "Push"}],
        }))
        .unwrap();
        World {
            plugin: Plugin::compile("forge", &spec).unwrap_or_else(|wrong| panic!("{}", crate::plugin::join(&wrong))),
            http: client(&["127.0.0.0/8"]),
            metrics: Metrics::new(),
            parameters: Map::new(),
            secret: Secret::from("c1ient&secret"),
            redirect_url: "https://hooks.example.com/oauth/callback".parse().unwrap(),
            asked,
        }
    }

    fn client(&self) -> OAuthClient<'_> {
        OAuthClient {
            plugin: &self.plugin,
            parameters: &self.parameters,
            id: "the-id",
            secret: &self.secret,
            redirect_url: &self.redirect_url,
            metrics: &self.metrics,
        }
    }

    async fn refresh(&self) -> Result<Token, TokenError> {
        self.client().refresh(&self.http, &Secret::from("r3fresh")).await
    }

    #[track_caller]
    fn assert_counted(&self, call: &str, status: &str, times: u32) {
        let (text, labels) = (self.metrics.to_text(), format!(r#"call="{call}",status="{status}""#));
        let line = format!(r#"bellhop_external_calls_total{{plugin="forge",{labels}}} {times}"#);
        assert!(text.contains(&line), "no {line} in {text}");
    }
}

#[tokio::test]
async fn every_request_is_counted() {
    let world = World::answering(200, r#"{"access_token": "an-access"}"#, &json!({})).await;
    let (client, code) = (world.client(), Secret::from("the-c0de"));
    client.exchange(&world.http, &code, None).await.unwrap();
    world.refresh().await.unwrap();
    world.refresh().await.unwrap();
    client.client_credentials(&world.http).await.unwrap();
    assert!(client.revoke(&world.http, &code, "access_token").await.unwrap());
    for (call, times) in
        [("oauth2.code", 1), ("oauth2.refresh", 2), ("oauth2.clientCredentials", 1), ("oauth2.revoke", 1)]
    {
        world.assert_counted(call, "2xx", times);
    }
    assert_eq!(world.asked.lock().unwrap().len(), 5);
    let refusing = World::answering(400, r#"{"error": "invalid_grant"}"#, &json!({})).await;
    refusing.refresh().await.unwrap_err();
    refusing.assert_counted("oauth2.refresh", "4xx", 1);
    // What was never sent is no call.
    let mut forbidden = World::answering(200, "{}", &json!({})).await;
    forbidden.http = self::client(&[]);
    assert!(matches!(forbidden.refresh().await, Err(TokenError::Forbidden(_))));
    assert!(!forbidden.metrics.to_text().contains("oauth2.refresh"));
}

#[derive(Debug, PartialEq)]
enum Kind {
    Grant,
    Client,
    Transient,
}

async fn refused(status: u16, body: &str) -> (Kind, String) {
    let world = World::answering(status, body, &json!({})).await;
    let Err(error) = world.refresh().await else { panic!("{status} {body}: a token") };
    let message = error.to_string();
    assert!(!message.contains("r3fresh") && !message.contains("c1ient&secret"), "{message}");
    let kind = match error {
        TokenError::GrantRefused(_) => Kind::Grant,
        TokenError::ClientRefused(_) => Kind::Client,
        TokenError::Failed { .. } => Kind::Transient,
        TokenError::Forbidden(why) => panic!("{why}"),
    };
    (kind, message)
}

/// What ends a grant asks a person for a click, so nothing else may count as that.
#[tokio::test]
async fn a_refresh_that_fails_ends_the_grant_only_if_the_answer_says_so() {
    for (status, body, kind) in [
        (400, r#"{"error": "invalid_grant", "error_description": "the token r3fresh was used"}"#, Kind::Grant),
        (401, r#"{"error": "invalid_grant"}"#, Kind::Grant),
        (400, r#"{"error": "unauthorized_client"}"#, Kind::Grant),
        (400, r#"{"error": "bad_refresh_token"}"#, Kind::Grant),
        // With a status that means success, and as a form.
        (200, r#"{"error": "bad_refresh_token"}"#, Kind::Grant),
        (200, "error=invalid_grant&error_description=no", Kind::Grant),
        (401, r#"{"error": "invalid_client"}"#, Kind::Client),
        (401, "who are you?", Kind::Client),
        // Another attempt may succeed.
        (400, r#"{"error": "temporarily_unavailable"}"#, Kind::Transient),
        (400, r#"{"error": "invalid_request"}"#, Kind::Transient),
        (400, "not what was expected", Kind::Transient),
        (429, r#"{"error": "invalid_grant"}"#, Kind::Transient),
        (500, r#"{"error": "invalid_grant"}"#, Kind::Transient),
        (503, "", Kind::Transient),
        (200, "{}", Kind::Transient),
        (200, "<html>maintenance</html>", Kind::Transient),
    ] {
        let (found, message) = refused(status, body).await;
        assert_eq!(found, kind, "{status} {body}: {message}");
    }
}

#[tokio::test]
async fn scopes_are_joined_as_the_external_system_wants_them() {
    let scope = async |more: Value| {
        let world = World::answering(200, r#"{"access_token": "an-access"}"#, &more).await;
        let url = world.client().authorization_url("a-state", None).unwrap();
        let asked = url.query_pairs().find(|(name, _)| name == "scope").map(|(_, value)| value.into_owned());
        world.client().client_credentials(&world.http).await.unwrap();
        let (_, form) = world.asked.lock().unwrap().pop().unwrap();
        let form: Vec<_> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        let sent = form.into_iter().find(|(name, _)| name == "scope").map(|(_, value)| value);
        assert_eq!(asked, sent);
        asked
    };
    assert_eq!(scope(json!({})).await.as_deref(), Some("hooks read"));
    assert_eq!(scope(json!({"scopeSeparator": ","})).await.as_deref(), Some("hooks,read"));
    assert_eq!(scope(json!({"scopes": []})).await, None);
}

#[tokio::test]
async fn a_token_is_given_back_with_the_clients_proof() {
    let revoke =
        async |world: &World| world.client().revoke(&world.http, &Secret::from("r3fresh"), "refresh_token").await;
    let basic = World::answering(200, "", &json!({})).await;
    assert!(revoke(&basic).await.unwrap());
    let (head, form) = basic.asked.lock().unwrap().pop().unwrap();
    assert!(head.starts_with("POST /revoke "), "{head}");
    // Both parts are form-encoded before they are joined (RFC 6749, section 2.3.1).
    assert!(head.contains("authorization: Basic dGhlLWlkOmMxaWVudCUyNnNlY3JldA=="), "{head}");
    assert_eq!(form, "token=r3fresh&token_type_hint=refresh_token");
    let body = World::answering(200, "", &json!({"clientAuthentication": "body"})).await;
    assert!(revoke(&body).await.unwrap());
    let (head, form) = body.asked.lock().unwrap().pop().unwrap();
    assert!(!head.contains("authorization"), "{head}");
    assert!(form.ends_with("&client_id=the-id&client_secret=c1ient%26secret"), "{form}");
    // Where the plugin does not say how, nothing is asked.
    let silent = World::answering(200, "", &json!({"revocationURL": null})).await;
    assert!(!revoke(&silent).await.unwrap());
    assert!(silent.asked.lock().unwrap().is_empty());
    let failing = World::answering(503, "r3fresh", &json!({})).await;
    let error = revoke(&failing).await.unwrap_err();
    assert!(matches!(&error, TokenError::Failed { .. }) && !error.to_string().contains("r3fresh"), "{error}");
}
