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
