//! OAuth 2.0 with the external system: where a person consents, and the requests for tokens (RFC 6749, 7009, 7636).
//!
//! The crate `oauth2` makes the requests and reads the answers. They go through [`Client`], so that the rules for
//! addresses, limits and redirects hold here too, and the plugin says where the tokens are in an answer.

mod outcome;
mod revocation;
mod sender;

pub(super) use sender::error_of;

use super::{BudgetKey, CallFailure, Client};
use crate::api::ClientAuthentication;
use crate::plugin::{CallError, HttpCall, HttpResponse, OAuth2, Plugin, Secret, Token};
use crate::telemetry::Metrics;
use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, TokenUrl,
};
use outcome::token;
use sender::Sender;
use serde_json::{Map, Value};
use std::time::Duration;
use url::Url;

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
