//! Gives a token back (RFC 7009).

use super::outcome::failed;
use super::{Client, OAuthClient, TokenError, forbidden, text};
use crate::api::ClientAuthentication;
use crate::plugin::{HttpCall, OAuth2, Secret};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};

impl OAuthClient<'_> {
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
