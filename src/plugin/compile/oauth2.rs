//! `spec.authorization.oauth2`.

use super::super::call::ACCESS_TOKEN;
use super::super::cel::Scope;
use super::super::oauth2::OAuth2;
use super::super::template::{Template, Values};
use super::{Compiler, Taken, response_scope};
use crate::api::{DefaultClient, OAuth2Grant, OAuth2Method};
use serde_json::Map;
use std::collections::BTreeMap;
use url::Url;

const FIELD: &str = "spec.authorization.oauth2";
/// Parameters of an authorization request that Bellhop sets (RFC 6749, section 4.1.1; RFC 7636, section 4.3).
const AUTHORIZE: &[&str] =
    &["response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method"];
/// Parameters of token requests that Bellhop sets (RFC 6749, sections 2.3.1, 4.1.3, 4.4.2 and 6; RFC 7636, section 4.5).
const TOKEN: &[&str] =
    &["grant_type", "client_id", "client_secret", "code", "code_verifier", "redirect_uri", "refresh_token", "scope"];

impl Compiler<'_> {
    pub(super) fn oauth2(&mut self, method: &OAuth2Method, origins: &[Template]) -> Option<OAuth2> {
        let parameters = self.parameter_names();
        let mut url =
            |name: &str, source: &str| self.keep(Template::compile(&format!("{FIELD}.{name}"), source, &parameters));
        let token_url = url("tokenURL", &method.token_url);
        let authorization_url = method.authorization_url.as_ref().map(|source| url("authorizationURL", source));
        let revocation_url = method.revocation_url.as_ref().map(|source| url("revocationURL", source));
        if method.grant == OAuth2Grant::AuthorizationCode && authorization_url.is_none() {
            self.mistake(
                format!("{FIELD}.authorizationURL"),
                "is missing; the grant authorizationCode needs the place where a person consents",
            );
        }
        self.scopes(method);
        self.defined("authorizeParameters", &method.authorize_parameters, AUTHORIZE);
        self.defined("tokenParameters", &method.token_parameters, TOKEN);
        if let Some(client) = &method.default_client {
            self.default_client(client, origins);
        }

        let scope = self.with_parameters(Scope::default().record("credentials", [ACCESS_TOKEN]));
        let headers = self.headers(&format!("{FIELD}.headers"), &method.headers, &scope, &Taken::default());
        let response = response_scope();
        let places = &method.token_response;
        let mut place = |name: &str, source: &Option<String>, default: &str| {
            let source = source.as_deref().unwrap_or(default);
            self.expression(&format!("{FIELD}.tokenResponse.{name}"), source, &response).confidential()
        };
        let access_token = place("accessToken", &places.access_token, "response.body.access_token");
        let refresh_token = place("refreshToken", &places.refresh_token, "response.body.?refresh_token");
        let expires_in = place("expiresIn", &places.expires_in, "response.body.?expires_in");
        Some(OAuth2 {
            grant: method.grant,
            scopes: method.scopes.clone(),
            scope_separator: method.scope_separator.clone(),
            pkce: method.pkce,
            client_authentication: method.client_authentication,
            authorize_parameters: method.authorize_parameters.clone(),
            token_parameters: method.token_parameters.clone(),
            default_client: method.default_client.clone(),
            authorization_url: authorization_url.flatten(),
            token_url: token_url?,
            revocation_url: revocation_url.flatten(),
            access_token,
            refresh_token,
            expires_in,
            headers,
        })
    }

    fn scopes(&mut self, method: &OAuth2Method) {
        let separator = &method.scope_separator;
        for (at, scope) in method.scopes.iter().enumerate() {
            let field = format!("{FIELD}.scopes[{at}]");
            if scope.is_empty() || scope.chars().any(|c| !c.is_ascii_graphic()) {
                self.mistake(field, format!("{scope:?} is no scope: printable ASCII without spaces, not empty"));
            } else if scope.contains(separator.as_str()) {
                self.mistake(field, format!("contains {separator:?}, the scopeSeparator; write one scope an entry"));
            }
        }
    }

    fn defined(&mut self, name: &str, parameters: &BTreeMap<String, String>, defined: &[&str]) {
        for parameter in parameters.keys().filter(|parameter| defined.contains(&parameter.as_str())) {
            self.mistake(format!("{FIELD}.{name}.{parameter}"), "Bellhop sets this parameter; leave it out");
        }
    }

    /// The origins of the default client are plain, and ones that something can be sent to.
    fn default_client(&mut self, client: &DefaultClient, origins: &[Template]) {
        let field = format!("{FIELD}.defaultClient");
        if client.secret_ref.name.is_empty() {
            self.mistake(format!("{field}.secretRef.name"), "is empty");
        }
        if client.origins.is_empty() {
            self.mistake(format!("{field}.origins"), "is empty; the client could be used nowhere");
        }
        let none = Map::new();
        let literal = origins.iter().all(Template::is_literal);
        let allowed: Vec<String> = origins
            .iter()
            .filter_map(|origin| origin.expand(&Values::new(&none)).ok())
            .map(|url| url.origin().ascii_serialization())
            .collect();
        for (at, origin) in client.origins.iter().enumerate() {
            let field = format!("{field}.origins[{at}]");
            let plain = Url::parse(origin).ok().filter(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.path() == "/"
                    && !origin.ends_with('/')
                    && url.query().is_none()
                    && url.fragment().is_none()
            });
            match plain.map(|url| url.origin().ascii_serialization()) {
                None => self.mistake(
                    field,
                    format!(
                        "{origin:?} is no origin; write scheme, host and port only, such as https://git.example.com"
                    ),
                ),
                Some(origin) if literal && !allowed.contains(&origin) => {
                    let problem =
                        format!("nothing is ever sent to {origin}; spec.allowedOrigins: {}", allowed.join(", "));
                    self.mistake(field, problem);
                }
                Some(_) => {}
            }
        }
    }
}
