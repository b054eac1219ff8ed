//! Standard Webhooks: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use super::hmac::matches;
use super::place::{Compiler, Seen};
use super::timestamp::Timestamp;
use super::{BASE64_KEY, any_secret, public_key};
use crate::api::StandardWebhooksVerification;
use crate::plugin::error::Refusal;
use crate::plugin::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use sha2::Sha256;
use std::borrow::Cow;

/// Most signatures that are looked at.
const SIGNATURES: usize = 32;

/// A compiled Standard Webhooks verification.
#[derive(Debug)]
pub(crate) struct StandardWebhooks {
    pub(super) id: String,
    pub(super) signature: String,
    pub(super) timestamp: Timestamp,
}

impl StandardWebhooks {
    pub(super) fn compile(field: &str, settings: &StandardWebhooksVerification, compiler: &mut Compiler<'_>) -> Self {
        let mut name =
            |end: &str| compiler.header(&format!("{field}.headerPrefix"), &format!("{}-{end}", settings.header_prefix));
        let timestamp = Timestamp::seconds_in(name("timestamp"), settings.tolerance);
        Self { id: name("id"), signature: name("signature"), timestamp }
    }

    pub(super) fn verify(&self, seen: &Seen<'_>, secrets: &[&Secret]) -> Result<(), Refusal> {
        let place = format!("the header {}", self.signature);
        let malformed = |problem: &str| Refusal::Malformed { place: place.clone(), problem: problem.to_owned() };
        let value = std::str::from_utf8(seen.header(&self.signature)?).map_err(|_| malformed("is no text"))?;
        let id = seen.header(&self.id)?;
        let (mut hmacs, mut asymmetric) = (Vec::new(), Vec::new());
        for entry in value.split(' ').take(SIGNATURES) {
            let Some((version, text)) = entry.split_once(',') else { continue };
            let Ok(signature) = STANDARD.decode(text) else { continue };
            match version {
                "v1" => hmacs.push(signature),
                "v1a" => asymmetric.push(signature),
                // Of a version that is not known yet.
                _ => {}
            }
        }
        if hmacs.is_empty() && asymmetric.is_empty() {
            return Err(malformed("has no signature v1 or v1a in it"));
        }
        let timestamp = self.timestamp.check(seen, |_| None)?;
        let parts: [Cow<'_, [u8]>; 5] = [id, b".", timestamp.as_bytes(), b".", seen.request.body()].map(Cow::Borrowed);
        let read = |secret: &Secret| {
            let text = secret.expose();
            let public = text.strip_prefix(b"whpk_");
            let key = public.or_else(|| text.strip_prefix(b"whsec_")).unwrap_or(text);
            let key = BASE64_KEY.decode(key).ok().filter(|key| !key.is_empty())?;
            Some((public.is_some(), key))
        };
        let proves = |(is_public, key): &(bool, Vec<u8>)| match is_public {
            false => matches::<Hmac<Sha256>>(key, &parts, &hmacs.iter().collect::<Vec<_>>()),
            true => {
                let message = parts.concat();
                asymmetric.iter().any(|signature| public_key::ed25519(key, &message, signature))
            }
        };
        any_secret(secrets, || place.clone(), read, proves)
    }
}
