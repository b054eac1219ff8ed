//! Carries out the requests of the crate `oauth2`, whatever form the external system has for its answers.

use super::{Client, Exchanged, OAuthClient, text};
use crate::external::CallFailure;
use crate::plugin::{HttpCall, HttpResponse, Secret, redact, words};
use futures::future::BoxFuture;
use http::StatusCode;
use http::header::AUTHORIZATION;
use oauth2::AsyncHttpClient;
use serde_json::{Value, json};
use url::Url;

/// The longest `error` of an answer that is taken for one; those of RFC 6749 have 25 characters at most.
const MAX_ERROR: usize = 64;

/// Carries out the requests of the crate.
pub(super) struct Sender<'a> {
    pub client: &'a OAuthClient<'a>,
    pub http: &'a Client,
    pub secrets: &'a [&'a Secret],
    pub exchanged: Exchanged,
}

impl<'c> AsyncHttpClient<'c> for Sender<'_> {
    type Error = NoToken;
    type Future = BoxFuture<'c, Result<oauth2::HttpResponse, NoToken>>;

    fn call(&'c self, request: oauth2::HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

impl Sender<'_> {
    /// Sends a token request of the crate, and gives it the answer in the form of RFC 6749, whatever form the external
    /// system has for it.
    async fn send(&self, request: oauth2::HttpRequest) -> Result<oauth2::HttpResponse, NoToken> {
        let (mut parts, body) = request.into_parts();
        let url: Url = parts.uri.to_string().parse().map_err(|_| NoToken::Unusable("the URL is none".to_owned()))?;
        let host = url.host_str().unwrap_or_default().to_owned();
        if let Some(value) = parts.headers.get_mut(AUTHORIZATION) {
            value.set_sensitive(true);
        }
        let call = HttpCall { method: parts.method, url, headers: parts.headers, body: Some(body.into()) };
        match self.client.send(self.http, self.exchanged.call(), call, self.secrets).await {
            Ok(response) => self.read(&host, &response),
            Err(CallFailure::Status { host, status, words, error: Some(error), .. }) if status < 429 => {
                Ok(refused(&error, &format!("{host} answered {status} {error}{words}")))
            }
            Err(failure) => Err(NoToken::Failed(failure)),
        }
    }

    fn read(&self, host: &str, response: &HttpResponse) -> Result<oauth2::HttpResponse, NoToken> {
        match self.client.plugin.token(response) {
            Ok(token) => {
                let mut answer = json!({"access_token": text(&token.access_token), "token_type": "bearer"});
                if let Some(refresh_token) = &token.refresh_token {
                    answer["refresh_token"] = text(refresh_token).into();
                }
                if let Some(expires_in) = token.expires_in {
                    answer["expires_in"] = expires_in.as_secs().into();
                }
                Ok(answer_with(StatusCode::OK, &answer))
            }
            // Some systems refuse with a status that means success.
            Err(error) => match error_of(&response.body) {
                Some(error) => {
                    let words = redact(&words(&response.body), self.secrets);
                    Ok(refused(&error, &format!("{host} answered {error}: {words}")))
                }
                None => Err(NoToken::Unusable(redact(&format!("{host}: {error}"), self.secrets))),
            },
        }
    }
}

/// What the crate is told when there is no answer that it could read.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoToken {
    #[error("{0}")]
    Failed(CallFailure),
    #[error("{0}")]
    Unusable(String),
}

fn refused(error: &str, message: &str) -> oauth2::HttpResponse {
    answer_with(StatusCode::BAD_REQUEST, &json!({"error": error, "error_description": message}))
}

fn answer_with(status: StatusCode, json: &Value) -> oauth2::HttpResponse {
    let mut response = oauth2::HttpResponse::new(json.to_string().into_bytes());
    *response.status_mut() = status;
    response
}

/// The `error` of an answer in JSON or form encoding, if it is one word, as RFC 6749, section 5.2, has it.
pub fn error_of(body: &[u8]) -> Option<String> {
    let error = match serde_json::from_slice::<Value>(body) {
        Ok(json) => json.get("error")?.as_str()?.to_owned(),
        Err(_) => url::form_urlencoded::parse(body).find(|(name, _)| name == "error")?.1.into_owned(),
    };
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    (!error.is_empty() && error.len() <= MAX_ERROR && error.chars().all(is_word)).then_some(error)
}
