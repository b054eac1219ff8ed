//! The callback secret itself, sent with each request.

use super::BASE64_KEY;
use super::place::{Compiler, Place, Seen};
use crate::api::TokenVerification;
use crate::plugin::error::Refusal;
use crate::plugin::secret::Secret;
use base64::Engine as _;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use subtle::ConstantTimeEq;

/// A compiled token.
#[derive(Debug)]
pub(crate) struct TokenVerifier {
    pub(super) place: Place,
    pub(super) prefix: String,
    pub(super) basic: bool,
}

impl TokenVerifier {
    pub(super) fn compile(field: &str, settings: &TokenVerification, compiler: &mut Compiler<'_>) -> Self {
        if settings.basic && !settings.prefix.is_empty() {
            compiler
                .mistake(&format!("{field}.prefix"), "`basic` says what stands before the credentials; leave it out");
        }
        if settings.basic && settings.field.is_some() {
            compiler.mistake(&format!("{field}.basic"), "credentials in a body would be shown with it; set `header`");
        }
        let place = compiler.place(field, settings.header.as_ref(), settings.query.as_ref(), settings.field.as_ref());
        Self { place, prefix: settings.prefix.clone(), basic: settings.basic }
    }

    /// Where the token stands.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn verify(&self, seen: &Seen<'_>, secrets: &[&Secret]) -> Result<(), Refusal> {
        let value = self.place.read(seen)?;
        let token = if self.basic { self.password(&value)? } else { Cow::Borrowed(self.after_prefix(&value)?) };
        if token.is_empty() {
            return Err(self.place.malformed("is empty"));
        }
        // Digests have one length, so the comparison tells nothing of the secret's.
        let found = Sha256::digest(&token);
        let is = |secret: &&Secret| bool::from(found.as_slice().ct_eq(Sha256::digest(secret.expose()).as_slice()));
        if secrets.iter().any(is) { Ok(()) } else { Err(Refusal::Mismatch(self.place.name())) }
    }

    fn after_prefix<'a>(&self, value: &'a [u8]) -> Result<&'a [u8], Refusal> {
        let wrong = || self.place.malformed(format!("does not begin with {}", self.prefix));
        value.strip_prefix(self.prefix.as_bytes()).ok_or_else(wrong)
    }

    fn password(&self, value: &[u8]) -> Result<Cow<'static, [u8]>, Refusal> {
        let is_scheme = |scheme: &[u8]| scheme.eq_ignore_ascii_case(b"basic ");
        let credentials = value.split_at_checked(6).filter(|(scheme, _)| is_scheme(scheme)).map(|(_, rest)| rest);
        let credentials = credentials.ok_or_else(|| self.place.malformed("has no Basic credentials"))?;
        let decoded = BASE64_KEY.decode(credentials.trim_ascii()).map_err(|_| self.place.malformed("is not base64"))?;
        let colon = decoded.iter().position(|byte| *byte == b':');
        let colon = colon.ok_or_else(|| self.place.malformed("has no password"))?;
        Ok(Cow::Owned(decoded[colon + 1..].to_vec()))
    }
}
