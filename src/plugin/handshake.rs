//! Requests by which an external system makes sure of a callback URL, and their answers.

use super::Plugin;
use super::answer::WrittenAnswer;
use super::captures::secret;
use super::cel::value::{null, string};
use super::cel::{Expression, Variables};
use super::error::EvalError;
use super::request::CallbackRequest;
use super::secret::Secret;
use super::verification::{Verifier, sign};
use crate::api::{HmacAlgorithm, HmacKey, SignatureEncoding};
use bytes::Bytes;
use http::HeaderMap;
use std::fmt;

/// Largest body of a handshake, in bytes: what is larger is read only after its sender is proven.
const LARGEST: usize = 64 * 1024;

/// Most characters of what is signed for everybody who asks.
const LONGEST_TOKEN: usize = 256;

/// A compiled handshake.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) when: Expression,
    pub(crate) verified: bool,
    pub(crate) secret: Option<Expression>,
    pub(crate) hmac: Option<HandshakeHmac>,
    pub(crate) answer: WrittenAnswer,
}

/// An HMAC in the answer.
#[derive(Debug)]
pub(crate) struct HandshakeHmac {
    pub(crate) of: Expression,
    pub(crate) algorithm: HmacAlgorithm,
    pub(crate) key: HmacKey,
    pub(crate) encoding: SignatureEncoding,
}

/// The answer to a handshake.
#[derive(Clone)]
pub struct HandshakeReply {
    /// Whether the request must be verified before it is answered.
    pub verified: bool,
    /// A callback secret that the external system has chosen; never empty. It must be stored before the answer is sent.
    pub secret: Option<Secret>,
    /// HTTP status, 200 to 299.
    pub status: u16,
    /// The headers, `content-type` among them if there is a body.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl fmt::Debug for HandshakeReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeReply")
            .field("verified", &self.verified)
            .field("secret", &self.secret)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Handshake {
    /// The expressions of the handshake.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let of = self.hmac.as_ref().map(|hmac| &hmac.of);
        [&self.when].into_iter().chain(&self.secret).chain(of).chain(self.answer.expressions())
    }

    /// Whether whoever asks has a token signed with the callback secret.
    pub(crate) fn signs_for_everybody(&self) -> bool {
        self.hmac.is_some() && !self.verified
    }

    /// `secret` is the one that an HMAC is made with.
    fn reply<'s>(
        &self,
        variables: Variables<'_>,
        secret: impl FnOnce() -> Option<&'s Secret>,
    ) -> Result<HandshakeReply, EvalError> {
        let hmac = match &self.hmac {
            Some(hmac) => string(hmac.text(&variables, self.verified, secret())?),
            None => null(),
        };
        self.answer(&variables.with("hmac", &hmac))
    }

    fn answer(&self, variables: &Variables<'_>) -> Result<HandshakeReply, EvalError> {
        let (headers, body) = self.answer.make(variables)?;
        let secret = self.secret.as_ref().map(|expression| secret(expression, variables)).transpose()?;
        Ok(HandshakeReply { verified: self.verified, secret, status: self.answer.status, headers, body })
    }
}

impl HandshakeHmac {
    fn text(&self, variables: &Variables<'_>, verified: bool, secret: Option<&Secret>) -> Result<String, EvalError> {
        let failed = |reason: &str| EvalError::new(self.of.field(), reason.to_owned());
        let message = self.of.text(variables)?;
        // Who may have anything signed could have a payload signed.
        if !verified && !is_token(&message) {
            return Err(failed("is no token of 1 to 256 characters of base64; nothing else is signed for everybody"));
        }
        let secret = secret.filter(|secret| !secret.is_empty()).ok_or_else(|| failed("there is no callback secret"))?;
        let signed = sign((self.algorithm, &self.key, self.encoding), secret, message.as_bytes());
        signed.ok_or_else(|| failed("the callback secret is not written as `key` says"))
    }
}

/// Whether a text is what systems make of random bytes. It has no braces, quotes, colons and points, so that it is no JSON
/// object, and not what any scheme with a timestamp signs. It can be a number or the name of a form's field, so what looks
/// like this proves no sender where anybody may have it signed.
pub(super) fn is_token(text: &str) -> bool {
    let digits = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    !digits.is_empty() && text.len() <= LONGEST_TOKEN && digits.bytes().all(is_digit)
}

impl Plugin {
    /// The answer to a request that is a handshake: that of the first whose `when` is true and whose answer can be made.
    /// Nothing, without a look at the request, if the plugin has no handshakes. `secrets` are the callback secrets, the
    /// current one first.
    pub fn handshake(&self, request: &CallbackRequest<'_>, secrets: &[Secret]) -> Option<HandshakeReply> {
        let handshakes = &self.callback.handshakes;
        if handshakes.is_empty() || request.body().len() > LARGEST {
            return None;
        }
        // A body that cannot be read is null: some systems send a challenge in the query and text in the body.
        let needs_body = handshakes.iter().flat_map(Handshake::expressions).any(|expression| expression.uses("body"));
        let field = self.callback.payload_field.as_deref();
        let body = if needs_body { request.parse_body(field).unwrap_or_else(|_| null()) } else { null() };
        let data = request.to_data();
        let variables = || Variables::default().with("request", &data).with("body", &body);
        let is = |handshake: &&Handshake| handshake.when.boolean(&variables()).unwrap_or(false);
        // While the secret is replaced, the external system knows the one that it signs with.
        let signs = |secret: &&Secret| self.verify(request, std::slice::from_ref(*secret)).is_ok();
        let secret = |handshake: &Handshake| {
            let found = secrets.iter().find(|secret| handshake.verified && signs(secret));
            found.or(secrets.first())
        };
        handshakes.iter().filter(is).find_map(|handshake| handshake.reply(variables(), || secret(handshake)).ok())
    }

    /// Names, in lower case, of the headers that carry a callback secret: in token verifications and in handshakes. They
    /// are never stored.
    pub fn secret_headers(&self) -> Vec<String> {
        let tokens = self.callback.verification.iter().flat_map(Verifier::secret_headers);
        let secrets = self.callback.handshakes.iter().filter_map(|handshake| handshake.secret.as_ref());
        tokens.chain(secrets.flat_map(Expression::headers).map(str::to_owned)).collect()
    }
}
