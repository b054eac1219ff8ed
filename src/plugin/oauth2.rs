//! OAuth 2.0 (RFC 6749): where a token comes from, and what the answer says.

use super::Plugin;
use super::cel::value::{Parsed, string, to_json};
use super::cel::{Expression, Variables};
use super::error::{CallError, EvalError};
use super::request::first_values;
use super::response::{HttpResponse, words};
use super::secret::Secret;
use super::template::{Template, Values};
use super::webhook::of;
use crate::api::{ClientAuthentication, DefaultClient, OAuth2Grant};
use http::HeaderName;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use url::Url;

/// The longest life of a token that is believed: ten years, in seconds.
const LONGEST_LIFE: f64 = 315_360_000.0;

/// Compiled `spec.authorization.oauth2`.
#[derive(Debug)]
pub struct OAuth2 {
    /// Which grant is used.
    pub grant: OAuth2Grant,
    /// The scopes that are asked for.
    pub scopes: Vec<String>,
    /// What stands between two scopes.
    pub scope_separator: String,
    /// Whether the code is bound by PKCE with S256.
    pub pkce: bool,
    /// How the client proves itself.
    pub client_authentication: ClientAuthentication,
    /// Additional parameters of the authorization request; none of them is one that RFC 6749 or RFC 7636 defines.
    pub authorize_parameters: BTreeMap<String, String>,
    /// Additional parameters of token requests; none of them is one that RFC 6749 or RFC 7636 defines.
    pub token_parameters: BTreeMap<String, String>,
    /// The client that the administrator has registered.
    pub default_client: Option<DefaultClient>,
    pub(crate) authorization_url: Option<Template>,
    pub(crate) token_url: Template,
    pub(crate) revocation_url: Option<Template>,
    pub(crate) access_token: Expression,
    pub(crate) refresh_token: Expression,
    pub(crate) expires_in: Expression,
    pub(crate) headers: Vec<(HeaderName, Expression)>,
}

/// What a token response says (RFC 6749, section 5.1).
#[derive(Clone, Debug)]
pub struct Token {
    /// The access token; never empty.
    pub access_token: Secret,
    /// The refresh token; never empty. Where a refresh gives none, the old one stays good (section 6).
    pub refresh_token: Option<Secret>,
    /// The life of the access token; nothing if it is not said, or is 0.
    pub expires_in: Option<Duration>,
}

impl Plugin {
    /// How the plugin does OAuth 2.0; nothing if it does not.
    pub fn oauth2(&self) -> Option<&OAuth2> {
        self.oauth2.as_ref()
    }

    /// Where a person consents, without the parameters of the request.
    ///
    /// # Errors
    /// The plugin has none, the URL cannot be made, or its origin is not allowed.
    pub fn authorization_url(&self, parameters: &Map<String, Value>) -> Result<Url, CallError> {
        let template = self.method()?.authorization_url.as_ref();
        self.expand(template.ok_or(CallError::NoSuchCall("authorization.oauth2.authorizationURL"))?, parameters)
    }

    /// Where tokens are issued and refreshed.
    ///
    /// # Errors
    /// The plugin has none, the URL cannot be made, or its origin is not allowed.
    pub fn token_url(&self, parameters: &Map<String, Value>) -> Result<Url, CallError> {
        self.expand(&self.method()?.token_url, parameters)
    }

    /// Where a token is revoked; nothing if the external system cannot.
    ///
    /// # Errors
    /// The plugin has no OAuth, the URL cannot be made, or its origin is not allowed.
    pub fn revocation_url(&self, parameters: &Map<String, Value>) -> Result<Option<Url>, CallError> {
        self.method()?.revocation_url.as_ref().map(|template| self.expand(template, parameters)).transpose()
    }

    /// Whether the administrator's client may be used with these parameters: every origin that sees its secret, or a
    /// token that was got with it, and that a Subscription has a say in, is one of those that the administrator listed.
    ///
    /// # Errors
    /// The plugin has no OAuth, or one of its URLs cannot be made or is not allowed.
    pub fn default_client_allowed(&self, parameters: &Map<String, Value>) -> Result<bool, CallError> {
        let method = self.method()?;
        let Some(client) = &method.default_client else { return Ok(false) };
        let listed: BTreeSet<String> =
            client.origins.iter().filter_map(|origin| Url::parse(origin).ok()).map(|url| ascii(&url)).collect();
        let mut used = vec![self.token_url(parameters)?];
        used.extend(method.authorization_url.is_some().then(|| self.authorization_url(parameters)).transpose()?);
        used.extend(self.revocation_url(parameters)?);
        // An origin whose parameters are not set allows nothing, so nothing is sent there.
        let chosen = self.origins.iter().filter(|origin| !origin.is_literal());
        used.extend(chosen.filter_map(|origin| origin.expand(&Values::new(parameters)).ok()));
        Ok(used.iter().all(|url| listed.contains(&ascii(url))))
    }

    /// What a token response says, in JSON or in form encoding.
    ///
    /// # Errors
    /// [`CallError::Unsuccessful`] where the answer carries an `error` although its status is 2xx, as GitHub's does;
    /// [`CallError::UnexpectedAnswer`] for another status and for whatever is not as expected. No message contains a
    /// token.
    pub fn token(&self, response: &HttpResponse) -> Result<Token, CallError> {
        let method = self.method()?;
        if !response.is_success() {
            return Err(response.unexpected("the status is not 2xx"));
        }
        let (body, error) = body(response);
        if let Some(words) = error {
            return Err(CallError::Unsuccessful { status: response.status, words });
        }
        let data = response.with_body(body);
        let variables = Variables::default().with("response", &data);
        let text = |expression: &Expression| -> Result<Option<Secret>, EvalError> {
            let value = expression.evaluate(&variables, |value| match to_json(value)? {
                Value::Null => Ok(None),
                Value::String(text) => Ok(Some(text).filter(|text| !text.is_empty())),
                _ => Err("is neither a string nor null".to_owned()),
            });
            value.map(|text| text.map(Secret::from))
        };
        let read = || -> Result<Token, EvalError> {
            let access_token = text(&method.access_token)?
                .ok_or_else(|| EvalError::new(method.access_token.field(), "gives no token"))?;
            Ok(Token {
                access_token,
                refresh_token: text(&method.refresh_token)?,
                expires_in: method.expires_in.evaluate(&variables, |value| life(&to_json(value)?))?,
            })
        };
        read().map_err(|error| of(response, &error))
    }

    fn method(&self) -> Result<&OAuth2, CallError> {
        self.oauth2.as_ref().ok_or(CallError::NoSuchCall("authorization.oauth2"))
    }

    fn expand(&self, template: &Template, parameters: &Map<String, Value>) -> Result<Url, CallError> {
        let url = template.expand(&Values::new(parameters))?;
        self.check_origin(template.field(), &url, parameters)?;
        Ok(url)
    }
}

fn ascii(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// `response.body` of a token response, and the words of an error in it.
fn body(response: &HttpResponse) -> (super::cel::Data, Option<String>) {
    if let Ok(Parsed(body)) = serde_json::from_slice::<Parsed>(&response.body) {
        let json: Option<Value> = serde_json::from_slice(&response.body).ok();
        let error = json.as_ref().and_then(|json| json.get("error"));
        let failed =
            error.is_some_and(|error| error.is_object() || error.as_str().is_some_and(|text| !text.is_empty()));
        return (body, failed.then(|| words(&response.body)));
    }
    let kind = response.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
        return (string(String::from_utf8_lossy(&response.body)), None);
    }
    let field = |name: &str| {
        url::form_urlencoded::parse(&response.body)
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    };
    let error = field("error").map(|error| field("error_description").unwrap_or(error));
    (first_values(&response.body), error.map(|text| words(text.as_bytes())))
}

/// A life in seconds, as a number or, in form encoding, as text.
fn life(value: &Value) -> Result<Option<Duration>, String> {
    let seconds = match value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Value::String(text) => text.trim().parse().unwrap_or(f64::NAN),
        _ => f64::NAN,
    };
    if seconds.is_nan() || seconds < 0.0 {
        return Err("is no number of seconds".to_owned());
    }
    Ok((seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(LONGEST_LIFE))))
}
