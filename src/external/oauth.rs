//! OAuth 2.0 with the external system: where a person consents, and the requests for tokens (RFC 6749, 7009, 7636).
//!
//! The crate `oauth2` makes the requests and reads the answers. They go through [`Client`], so that the rules for
//! addresses, limits and redirects hold here too, and the plugin says where the tokens are in an answer.

use super::{BudgetKey, CallFailure, Client};
use crate::api::ClientAuthentication;
use crate::plugin::{CallError, HttpCall, HttpResponse, OAuth2, Plugin, Secret, Token, redact, words};
use crate::telemetry::Metrics;
use futures::future::BoxFuture;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use oauth2::basic::{BasicClient, BasicErrorResponseType, BasicTokenResponse};
use oauth2::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet,
    EndpointSet, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, TokenResponse,
    TokenUrl,
};
use serde_json::{Map, Value, json};
use std::time::Duration;
use url::Url;

/// The longest `error` of an answer that is taken for one; those of RFC 6749 have 25 characters at most.
const MAX_ERROR: usize = 64;

/// Why there is no token. The messages are for people and hold no secret.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The external system does not take the code or the refresh token, and will not take it later.
    #[error("{0}")]
    GrantRefused(String),
    /// The external system does not know the client, or not with this secret, or does not let it do this.
    #[error("{0}")]
    ClientRefused(String),
    /// Bellhop's rules do not allow the request; nothing was sent.
    #[error("{0}")]
    Forbidden(String),
    /// Anything else; another attempt may succeed.
    #[error("{message}")]
    Failed {
        /// What happened.
        message: String,
        /// How long the external system wants to be left alone.
        retry_after: Option<Duration>,
    },
}

/// An OAuth client, and the Subscription's parameters, from which its external system follows.
#[derive(Clone, Copy)]
pub struct OAuthClient<'a> {
    /// The plugin, which has the URLs.
    pub plugin: &'a Plugin,
    /// The Subscription's parameters.
    pub parameters: &'a Map<String, Value>,
    /// The client's id.
    pub id: &'a str,
    /// The client's secret.
    pub secret: &'a Secret,
    /// Where the external system sends a browser back to.
    pub redirect_url: &'a Url,
    /// Where its requests are counted.
    pub metrics: &'a Metrics,
}

/// What is exchanged for a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exchanged {
    Code,
    RefreshToken,
    Nothing,
}

impl Exchanged {
    /// What the request is called in metrics.
    fn call(self) -> &'static str {
        match self {
            Exchanged::Code => "oauth2.code",
            Exchanged::RefreshToken => "oauth2.refresh",
            Exchanged::Nothing => "oauth2.clientCredentials",
        }
    }
}

type Configured = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// A new verifier for PKCE.
pub fn new_verifier() -> String {
    PkceCodeChallenge::new_random_sha256().1.into_secret()
}

impl<'a> OAuthClient<'a> {
    /// Where a person consents. `state` comes back with the answer; `verifier` binds the code to whoever has it.
    ///
    /// # Errors
    /// The plugin has no OAuth, or the URL cannot be made of the parameters; see [`CallError`].
    pub fn authorization_url(&self, state: &str, verifier: Option<&str>) -> Result<Url, CallError> {
        let oauth2 = self.oauth2()?;
        let url = AuthUrl::from_url(self.plugin.authorization_url(self.parameters)?);
        let client = BasicClient::new(ClientId::new(self.id.to_owned()))
            .set_auth_uri(url)
            .set_redirect_uri(RedirectUrl::from_url(self.redirect_url.clone()));
        let mut request = client.authorize_url(|| CsrfToken::new(state.to_owned()));
        if let Some(verifier) = verifier {
            let verifier = PkceCodeVerifier::new(verifier.to_owned());
            request = request.set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
        }
        if let Some(scope) = scope(oauth2) {
            // Not `add_scope`, which knows no other separator than the space.
            request = request.add_extra_param("scope", scope);
        }
        for (name, value) in &oauth2.authorize_parameters {
            request = request.add_extra_param(name.as_str(), value.as_str());
        }
        Ok(request.url().0)
    }

    /// Exchanges the code that a browser has brought.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn exchange(&self, http: &Client, code: &Secret, verifier: Option<&str>) -> Result<Token, TokenError> {
        let oauth2 = self.oauth2().map_err(forbidden)?;
        let verifier_secret = verifier.map(Secret::from);
        let mut secrets = vec![self.secret, code];
        secrets.extend(&verifier_secret);
        let client = self.configured()?;
        let mut request = client.exchange_code(AuthorizationCode::new(text(code)));
        if let Some(verifier) = verifier {
            request = request.set_pkce_verifier(PkceCodeVerifier::new(verifier.to_owned()));
        }
        for (name, value) in &oauth2.token_parameters {
            request = request.add_extra_param(name.as_str(), value.as_str());
        }
        let sender = Sender { client: self, http, secrets: &secrets, exchanged: Exchanged::Code };
        token(request.request_async(&sender).await, Exchanged::Code)
    }

    /// Exchanges a refresh token. The answer may have another one, and then the old one is worth nothing.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn refresh(&self, http: &Client, refresh_token: &Secret) -> Result<Token, TokenError> {
        let oauth2 = self.oauth2().map_err(forbidden)?;
        let secrets = [self.secret, refresh_token];
        let (client, refresh_token) = (self.configured()?, RefreshToken::new(text(refresh_token)));
        let mut request = client.exchange_refresh_token(&refresh_token);
        for (name, value) in &oauth2.token_parameters {
            request = request.add_extra_param(name.as_str(), value.as_str());
        }
        let sender = Sender { client: self, http, secrets: &secrets, exchanged: Exchanged::RefreshToken };
        token(request.request_async(&sender).await, Exchanged::RefreshToken)
    }

    /// Gets a token for the client itself.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn client_credentials(&self, http: &Client) -> Result<Token, TokenError> {
        let oauth2 = self.oauth2().map_err(forbidden)?;
        let secrets = [self.secret];
        let client = self.configured()?;
        let mut request = client.exchange_client_credentials();
        if let Some(scope) = scope(oauth2) {
            request = request.add_extra_param("scope", scope);
        }
        for (name, value) in &oauth2.token_parameters {
            request = request.add_extra_param(name.as_str(), value.as_str());
        }
        let sender = Sender { client: self, http, secrets: &secrets, exchanged: Exchanged::Nothing };
        token(request.request_async(&sender).await, Exchanged::Nothing)
    }

    /// Revokes a token (RFC 7009); `false` if the plugin does not say where.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn revoke(&self, http: &Client, token: &Secret, hint: &str) -> Result<bool, TokenError> {
        let oauth2 = self.oauth2().map_err(forbidden)?;
        let Some(url) = self.plugin.revocation_url(self.parameters).map_err(forbidden)? else { return Ok(false) };
        let (headers, body) = self.revocation(oauth2, token, hint)?;
        // Not the crate's request, which speaks https only: whether http may be spoken is what `allowedOrigins` says.
        let call = HttpCall { method: Method::POST, url, headers, body: Some(body.into()) };
        match self.send(http, "oauth2.revoke", call, &[self.secret, token]).await {
            Ok(_) => Ok(true),
            Err(failure) => Err(failed(failure)),
        }
    }

    /// Carries out a request, which is counted under `name` if it was sent.
    async fn send(
        &self,
        http: &Client,
        name: &'static str,
        call: HttpCall,
        secrets: &[&Secret],
    ) -> Result<HttpResponse, CallFailure> {
        let result = http.send(call, secrets, &self.budget()).await;
        let status = match &result {
            Ok(response) => Some(response.status),
            Err(failure) => failure.status(),
        };
        if !matches!(&result, Err(failure) if failure.nothing_was_sent()) {
            self.metrics.external_call(self.plugin.name(), name, status);
        }
        result
    }

    /// The requests of one client count together.
    fn budget(&self) -> BudgetKey {
        BudgetKey::new(self.plugin.name(), [self.secret])
    }

    fn revocation(&self, oauth2: &OAuth2, token: &Secret, hint: &str) -> Result<(HeaderMap, String), TokenError> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", &text(token)).append_pair("token_type_hint", hint);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        match oauth2.client_authentication {
            ClientAuthentication::Basic => drop(headers.insert(AUTHORIZATION, self.basic()?)),
            ClientAuthentication::Body => {
                form.append_pair("client_id", self.id).append_pair("client_secret", &text(self.secret));
            }
        }
        Ok((headers, form.finish()))
    }

    fn oauth2(&self) -> Result<&'a OAuth2, CallError> {
        self.plugin.oauth2().ok_or(CallError::NoSuchCall("authorization.oauth2"))
    }

    fn configured(&self) -> Result<Configured, TokenError> {
        let oauth2 = self.oauth2().map_err(forbidden)?;
        let url = self.plugin.token_url(self.parameters).map_err(forbidden)?;
        Ok(BasicClient::new(ClientId::new(self.id.to_owned()))
            .set_client_secret(ClientSecret::new(text(self.secret)))
            .set_auth_type(match oauth2.client_authentication {
                ClientAuthentication::Basic => AuthType::BasicAuth,
                ClientAuthentication::Body => AuthType::RequestBody,
            })
            .set_redirect_uri(RedirectUrl::from_url(self.redirect_url.clone()))
            .set_token_uri(TokenUrl::from_url(url)))
    }

    /// As RFC 6749, section 2.3.1, has it: each part is form-encoded first.
    fn basic(&self) -> Result<HeaderValue, TokenError> {
        use base64::Engine;
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encode(self.id), encode(&text(self.secret)));
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        let value = HeaderValue::from_str(&format!("Basic {pair}"));
        let mut value = value.map_err(|_| TokenError::Forbidden("the client cannot be written".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Carries out the requests of the crate.
struct Sender<'a> {
    client: &'a OAuthClient<'a>,
    http: &'a Client,
    secrets: &'a [&'a Secret],
    exchanged: Exchanged,
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
enum NoToken {
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

type Outcome = Result<BasicTokenResponse, oauth2::basic::BasicRequestTokenError<NoToken>>;

fn token(outcome: Outcome, exchanged: Exchanged) -> Result<Token, TokenError> {
    let error = match outcome {
        Ok(token) => {
            return Ok(Token {
                access_token: Secret::from(token.access_token().secret().clone()),
                refresh_token: token.refresh_token().map(|token| Secret::from(token.secret().clone())),
                expires_in: token.expires_in(),
            });
        }
        Err(error) => error,
    };
    let response = match error {
        RequestTokenError::ServerResponse(response) => response,
        RequestTokenError::Request(NoToken::Failed(failure)) => return Err(failed(failure)),
        RequestTokenError::Request(NoToken::Unusable(message)) => {
            return Err(TokenError::Failed { message, retry_after: None });
        }
        // The answers are written above; their content is not for people.
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            return Err(TokenError::Failed { message: "the answer holds no token".to_owned(), retry_after: None });
        }
    };
    let message = response.error_description().cloned().unwrap_or_else(|| response.error().to_string());
    Err(match (response.error(), exchanged) {
        (BasicErrorResponseType::InvalidClient, _) => TokenError::ClientRefused(message),
        (BasicErrorResponseType::UnauthorizedClient, Exchanged::Code | Exchanged::Nothing) => {
            TokenError::ClientRefused(message)
        }
        (BasicErrorResponseType::InvalidGrant, _) => TokenError::GrantRefused(message),
        // What the client was allowed once and is not any more is the refresh token's end: Gitea says so of one that
        // was used before.
        (BasicErrorResponseType::UnauthorizedClient, Exchanged::RefreshToken) => TokenError::GrantRefused(message),
        // Errors that no RFC knows, such as `bad_refresh_token`.
        (BasicErrorResponseType::Extension(error), Exchanged::Code | Exchanged::RefreshToken)
            if error.contains("token") || error.contains("grant") || error.contains("code") =>
        {
            TokenError::GrantRefused(message)
        }
        _ => TokenError::Failed { message, retry_after: None },
    })
}

fn failed(failure: CallFailure) -> TokenError {
    match &failure {
        CallFailure::Forbidden(why) => TokenError::Forbidden(why.clone()),
        CallFailure::Status { status: 401, .. } => TokenError::ClientRefused(failure.to_string()),
        _ => TokenError::Failed { message: failure.to_string(), retry_after: failure.retry_after() },
    }
}

fn forbidden(error: CallError) -> TokenError {
    TokenError::Forbidden(error.to_string())
}

fn scope(oauth2: &OAuth2) -> Option<String> {
    (!oauth2.scopes.is_empty()).then(|| oauth2.scopes.join(&oauth2.scope_separator))
}

fn text(secret: &Secret) -> String {
    secret.expose_str().unwrap_or_default().to_owned()
}

/// The `error` of an answer in JSON or form encoding, if it is one word, as RFC 6749, section 5.2, has it.
pub(super) fn error_of(body: &[u8]) -> Option<String> {
    let error = match serde_json::from_slice::<Value>(body) {
        Ok(json) => json.get("error")?.as_str()?.to_owned(),
        Err(_) => url::form_urlencoded::parse(body).find(|(name, _)| name == "error")?.1.into_owned(),
    };
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    (!error.is_empty() && error.len() <= MAX_ERROR && error.chars().all(is_word)).then_some(error)
}
