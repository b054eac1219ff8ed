//! Calls to the external system, as values: somebody else carries them out.

use super::Plugin;
use super::cel::value::{from_json, record, string};
use super::cel::{Data, Expression, Variables};
use super::context::{CallContext, Credentials, Given};
use super::error::CallError;
use super::secret::Secret;
use super::template::{Template, Values};
use crate::api::{BodyEncoding, Method};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use std::fmt;
use url::Url;

/// One HTTP call to make. It must not be redirected to another origin.
#[derive(Clone)]
pub struct HttpCall {
    /// The method.
    pub method: http::Method,
    /// The URL; its origin is one of the plugin's allowed origins. It may hold a credential.
    pub url: Url,
    /// The headers; values that involve credentials are marked sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Bytes>,
}

impl fmt::Debug for HttpCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("HttpCall")
            .field("method", &self.method)
            // Some systems want the token in the path, others in the query.
            .field("origin", &self.url.origin().ascii_serialization())
            .field("headers", &names)
            .field("body_bytes", &self.body.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}

/// A compiled call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) field: String,
    pub(crate) method: Method,
    pub(crate) url: Template,
    /// Other URLs, by the parameter that a Subscription has then.
    pub(crate) url_with: Vec<(String, Template)>,
    pub(crate) headers: Vec<(HeaderName, Expression)>,
    pub(crate) body: Option<Expression>,
    pub(crate) encoding: BodyEncoding,
    pub(crate) success: Option<Expression>,
    /// Whether the call makes or rewrites a webhook, and so may hold the callback secret.
    pub(crate) making: bool,
}

impl Call {
    /// The expressions that make the call.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.headers.iter().map(|(_, expression)| expression).chain(&self.body)
    }

    /// Where the call goes with these parameters.
    fn url(&self, parameters: &Map<String, Value>) -> &Template {
        let set = |name: &str| parameters.get(name).is_some_and(|value| !value.is_null());
        self.url_with.iter().find(|(name, _)| set(name)).map_or(&self.url, |(_, template)| template)
    }

    /// Whether every URL of the call holds this variable, or its headers or body do.
    pub(crate) fn uses(&self, variable: &str) -> bool {
        let everywhere = self.url.uses(variable) && self.url_with.iter().all(|(_, template)| template.uses(variable));
        everywhere || self.expressions().any(|expression| expression.uses(variable))
    }

    /// Whether the call holds the callback secret.
    pub(crate) fn tells_secret(&self) -> bool {
        self.expressions().any(|expression| expression.mentions("callback.secret"))
    }
}

/// Compiled `spec.authorization.apiKey`.
#[derive(Debug)]
pub(crate) struct ApiKey {
    pub(crate) keys: Vec<String>,
    pub(crate) headers: Vec<(HeaderName, Expression)>,
}

impl Plugin {
    /// A call with its values.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) fn make(&self, call: &Call, context: &CallContext<'_>) -> Result<HttpCall, CallError> {
        self.make_page(call, context, &Value::Null)
    }

    /// A call with its values, `page` among them.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) fn make_page(
        &self,
        call: &Call,
        context: &CallContext<'_>,
        page: &Value,
    ) -> Result<HttpCall, CallError> {
        let credentials = self.credentials(context.credentials)?;
        let template = call.url(context.parameters);
        let url = template.expand(&values(context, &credentials, page))?;
        self.check_origin(template.field(), &url, context.parameters)?;

        if call.tells_secret() && context.callback_secret.expose_str().is_none_or(str::is_empty) {
            let problem = "there is no callback secret".to_owned();
            return Err(CallError::InvalidBody { field: call.field.clone(), problem });
        }
        let given = Given::new(context, call.making);
        let page = from_json(page);
        let variables = given.variables().with("page", &page);

        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let body = call.body.as_ref().map(|body| write_body(body, call.encoding, &variables)).transpose()?;
        if let Some((content_type, _)) = &body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        add_headers(&mut headers, &call.headers, &variables)?;
        if let Some((credentials, proofs)) = &credentials {
            let fields = credentials.iter().map(|(name, value)| (*name, string(*value)));
            let credentials: Data = record(fields);
            let variables =
                Variables::default().with("parameters", &given.parameters).with("credentials", &credentials);
            add_headers(&mut headers, proofs, &variables)?;
        }
        let body = body.map(|(_, body)| body);
        Ok(HttpCall { method: http_method(call.method), url, headers, body })
    }

    /// Refuses a URL, the value of `field`, whose origin is not allowed for these parameters.
    ///
    /// # Errors
    /// [`CallError::OriginNotAllowed`].
    pub(crate) fn check_origin(
        &self,
        field: &str,
        url: &Url,
        parameters: &Map<String, Value>,
    ) -> Result<(), CallError> {
        let mut allowed = Vec::with_capacity(self.origins.len());
        for origin in &self.origins {
            // An origin of parameters that are not set allows nothing.
            let Ok(origin) = origin.expand(&Values::new(parameters)).map(|url| url.origin()) else {
                continue;
            };
            if origin == url.origin() {
                return Ok(());
            }
            allowed.push(origin.ascii_serialization());
        }
        let origin = url.origin().ascii_serialization();
        Err(CallError::OriginNotAllowed { field: field.to_owned(), origin, allowed })
    }

    /// The credentials that a callback secret may be taken from, as expressions see them.
    pub(crate) fn secret_credentials(credentials: &Credentials) -> Data {
        let text = |secret: &Secret| secret.expose_str().map(string);
        match credentials {
            Credentials::ApiKey(values) => {
                record(values.iter().filter_map(|(key, value)| Some((key.clone(), text(value)?))))
            }
            Credentials::AccessToken { client_secret, .. } => {
                record(text(client_secret).map(|secret| (CLIENT_SECRET.to_owned(), secret)))
            }
            Credentials::None => record([] as [(String, Data); 0]),
        }
    }

    /// The credentials by the names that expressions use, and the headers that they go into.
    fn credentials<'a>(&'a self, credentials: &'a Credentials) -> Result<Option<Proof<'a>>, CallError> {
        let usable = |name: &str, secret: Option<&'a Secret>| {
            let text = secret.and_then(Secret::expose_str).filter(|text| !text.is_empty());
            text.ok_or_else(|| CallError::MissingCredential(name.to_owned()))
        };
        match (credentials, &self.api_key, &self.oauth2) {
            (Credentials::ApiKey(values), Some(method), _) => {
                let fields = method.keys.iter().map(|key| Ok((key.as_str(), usable(key, values.get(key))?)));
                Ok(Some((fields.collect::<Result<_, CallError>>()?, &method.headers)))
            }
            (Credentials::AccessToken { token, .. }, _, Some(method)) => {
                Ok(Some((vec![(ACCESS_TOKEN, usable(ACCESS_TOKEN, Some(token))?)], &method.headers)))
            }
            (Credentials::None, None, None) => Ok(None),
            (Credentials::None, Some(method), _) => Err(CallError::MissingCredential(method.keys.join(", "))),
            (Credentials::None, None, Some(_)) => Err(CallError::MissingCredential(ACCESS_TOKEN.to_owned())),
            (Credentials::ApiKey(_), None, _) => Err(CallError::NoSuchCall("authorization.apiKey")),
            (Credentials::AccessToken { .. }, _, None) => Err(CallError::NoSuchCall("authorization.oauth2")),
        }
    }
}

/// Name of an OAuth access token among the credentials.
pub(crate) const ACCESS_TOKEN: &str = "accessToken";
/// Name of the secret of an OAuth client among the credentials that a callback secret may be taken from.
pub(crate) const CLIENT_SECRET: &str = "clientSecret";

/// Credentials by name, and the headers that they go into.
type Proof<'a> = (Vec<(&'a str, &'a str)>, &'a [(HeaderName, Expression)]);

/// The values of a call's URL. Which of them a template may use was decided when it was compiled.
fn values<'a>(context: &CallContext<'a>, credentials: &Option<Proof<'_>>, page: &Value) -> Values<'a> {
    let mut values = Values::new(context.parameters);
    for (name, value) in credentials.iter().flat_map(|(fields, _)| fields) {
        values.set(format!("credentials.{name}"), *value);
    }
    for (name, value) in context.setup {
        values.set(format!("setup.{name}"), value.as_str());
    }
    if let Some(webhook) = context.webhook {
        for (name, value) in &webhook.values {
            values.set(format!("webhook.{name}"), value.as_str());
        }
        values.set("webhook.id", webhook.id.as_str());
    }
    values.set("callback.name", context.callback_name);
    values.set("event", context.event.map_or(Value::Null, Value::from));
    values.set("page", page.clone());
    values
}

/// Writes what `body` gives.
///
/// # Errors
/// [`CallError::Evaluation`]; [`CallError::InvalidBody`] if it cannot be written like that.
pub(crate) fn write_body(
    body: &Expression,
    encoding: BodyEncoding,
    variables: &Variables<'_>,
) -> Result<(&'static str, Bytes), CallError> {
    let json = body.json(variables)?;
    let fail = |problem: String| CallError::InvalidBody { field: body.field().to_owned(), problem };
    match encoding {
        BodyEncoding::Json => {
            let text = serde_json::to_vec(&json).map_err(|error| fail(error.to_string()))?;
            Ok(("application/json", text.into()))
        }
        BodyEncoding::Form => {
            let fields = json.as_object().ok_or_else(|| fail("a form's body must be a map".to_owned()))?;
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            for (name, value) in fields {
                let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                for value in values {
                    let text = match value {
                        Value::String(text) => text.clone(),
                        Value::Number(_) | Value::Bool(_) => value.to_string(),
                        _ => {
                            let problem = format!("the form's field {name} must be a scalar or a list of scalars");
                            return Err(fail(problem));
                        }
                    };
                    form.append_pair(name, &text);
                }
            }
            Ok(("application/x-www-form-urlencoded", form.finish().into()))
        }
    }
}

/// The method as the HTTP client knows it.
pub(crate) fn http_method(method: Method) -> http::Method {
    match method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Patch => http::Method::PATCH,
        Method::Delete => http::Method::DELETE,
    }
}

/// Adds the headers that these expressions give; values that involve credentials are marked sensitive.
///
/// # Errors
/// [`CallError::Evaluation`]; [`CallError::InvalidHeader`] if HTTP cannot carry a value.
pub(crate) fn add_headers(
    headers: &mut HeaderMap,
    expressions: &[(HeaderName, Expression)],
    variables: &Variables<'_>,
) -> Result<(), CallError> {
    for (name, expression) in expressions {
        let text = expression.text(variables)?;
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| CallError::InvalidHeader { field: expression.field().to_owned() })?;
        value.set_sensitive(expression.uses("credentials") || expression.uses("callback"));
        headers.insert(name.clone(), value);
    }
    Ok(())
}
