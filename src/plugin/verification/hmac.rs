//! HMAC (RFC 2104) of parts of a request.

use super::place::{Compiler, Place, Seen};
use super::signed::Signed;
use super::timestamp::Timestamp;
use super::{BASE64_KEY, any_secret, decode};
use crate::api::{HmacAlgorithm, HmacKey, HmacVerification, KeyEncoding, SignatureEncoding, SignatureList};
use crate::plugin::error::Refusal;
use crate::plugin::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use std::borrow::Cow;

/// Most entries of a list that are looked at: each costs a decoding, and a comparison for each secret.
const ENTRIES: usize = 32;

/// A compiled HMAC.
#[derive(Debug)]
pub(crate) struct HmacVerifier {
    pub(super) place: Place,
    pub(super) algorithm: HmacAlgorithm,
    pub(super) encoding: SignatureEncoding,
    pub(super) prefix: String,
    pub(super) list: Option<SignatureList>,
    pub(super) key: HmacKey,
    pub(super) signed: Signed,
    pub(super) timestamp: Option<Timestamp>,
    /// Whether the signature can be held against the raw body before the timestamp is looked for in it.
    proof_first: bool,
}

impl HmacVerifier {
    pub(super) fn compile(field: &str, settings: &HmacVerification, compiler: &mut Compiler<'_>) -> Self {
        let has_list = settings.list.is_some();
        let timestamp = settings.timestamp.as_ref();
        let in_body = timestamp.is_some_and(|timestamp| timestamp.field.is_some());
        let timestamp = timestamp.map(|timestamp| Timestamp::compile(field, timestamp, has_list, compiler));
        let signed = Signed::compile(field, &settings.signed, timestamp.as_ref(), compiler);
        Self {
            proof_first: in_body && settings.field.is_none() && signed.is_raw_body(),
            place: compiler.place(field, settings.header.as_ref(), settings.query.as_ref(), settings.field.as_ref()),
            algorithm: settings.algorithm,
            encoding: settings.encoding,
            prefix: settings.prefix.clone(),
            list: settings.list.clone(),
            key: settings.key.clone(),
            signed,
            timestamp,
        }
    }

    pub(super) fn verify(&self, seen: &Seen<'_>, secrets: &[&Secret]) -> Result<(), Refusal> {
        let value = self.place.read(seen)?;
        let entries = Entries::of(&value, self.list.as_ref()).ok_or_else(|| self.place.malformed("is no text"))?;
        let signatures = entries.signatures().map(|entry| self.signature(entry)).collect::<Vec<_>>();
        let readable: Vec<&Vec<u8>> = signatures.iter().flatten().collect();
        if readable.is_empty() {
            let refusal = signatures.into_iter().find_map(Result::err);
            return Err(refusal.unwrap_or_else(|| self.place.malformed("has no signature in it")));
        }
        let read_time = |seen: &Seen<'_>| {
            let timestamp = self.timestamp.as_ref();
            timestamp.map(|timestamp| timestamp.check(seen, |key| entries.element(key))).transpose()
        };
        if self.proof_first {
            self.prove(seen, None, &readable, secrets)?;
            return read_time(&seen.proven()).map(drop);
        }
        let timestamp = read_time(seen)?;
        self.prove(seen, timestamp.as_deref(), &readable, secrets)
    }

    /// Whether one of the signatures is right for what is signed.
    fn prove(
        &self,
        seen: &Seen<'_>,
        timestamp: Option<&str>,
        readable: &[&Vec<u8>],
        secrets: &[&Secret],
    ) -> Result<(), Refusal> {
        let messages = self.signed.messages(seen, timestamp)?;
        if messages.iter().any(|parts| seen.is_signed_for_everybody(&parts.concat())) {
            return Err(self.place.malformed("proves nothing: a handshake signs the same for everybody who asks"));
        }
        let is_of = |parts: &Vec<Cow<'_, [u8]>>, key: &[u8]| match self.algorithm {
            HmacAlgorithm::Sha1 => matches::<Hmac<Sha1>>(key, parts, readable),
            HmacAlgorithm::Sha256 => matches::<Hmac<Sha256>>(key, parts, readable),
            HmacAlgorithm::Sha512 => matches::<Hmac<Sha512>>(key, parts, readable),
        };
        let proves = |key: &Cow<'_, [u8]>| messages.iter().any(|parts| is_of(parts, key));
        any_secret(secrets, || self.place.name(), |secret| key(&self.key, secret), proves)
    }

    fn signature(&self, entry: &[u8]) -> Result<Vec<u8>, Refusal> {
        let proof = entry
            .strip_prefix(self.prefix.as_bytes())
            .ok_or_else(|| self.place.malformed(format!("does not begin with {}", self.prefix)))?;
        if proof.is_empty() {
            return Err(self.place.malformed("is empty"));
        }
        let signature = decode(self.encoding, proof).map_err(|problem| self.place.malformed(problem))?;
        let expected = match self.algorithm {
            HmacAlgorithm::Sha1 => 20,
            HmacAlgorithm::Sha256 => 32,
            HmacAlgorithm::Sha512 => 64,
        };
        if signature.len() != expected {
            let problem = format!("holds {} bytes instead of {expected}", signature.len());
            return Err(self.place.malformed(problem));
        }
        Ok(signature)
    }
}

/// The value that carries the signature, and its entries where it is a list.
enum Entries<'a> {
    One(&'a [u8]),
    List(Vec<&'a str>, &'a SignatureList),
}

impl<'a> Entries<'a> {
    fn of(value: &'a [u8], list: Option<&'a SignatureList>) -> Option<Self> {
        let Some(list) = list else { return Some(Self::One(value)) };
        let text = std::str::from_utf8(value).ok()?;
        let entries = text.split(list.separator.as_str()).map(str::trim).filter(|entry| !entry.is_empty());
        Some(Self::List(entries.take(ENTRIES).collect(), list))
    }

    fn signatures(&self) -> Box<dyn Iterator<Item = &'a [u8]> + '_> {
        match self {
            Self::One(value) => Box::new(std::iter::once(*value)),
            Self::List(entries, list) => match &list.key {
                None => Box::new(entries.iter().map(|entry| entry.as_bytes())),
                Some(key) => Box::new(self.values(key).map(str::as_bytes)),
            },
        }
    }

    fn element(&self, key: &str) -> Option<&'a str> {
        self.values(key).next()
    }

    fn values(&self, key: &str) -> impl Iterator<Item = &'a str> {
        let (entries, list) = match self {
            Self::One(_) => (&[][..], None),
            Self::List(entries, list) => (entries.as_slice(), Some(*list)),
        };
        entries.iter().filter_map(move |entry| {
            let (name, value) = entry.split_once(list?.assignment.as_str())?;
            (name == key).then_some(value)
        })
    }
}

/// The bytes of the key that the secret holds; nothing if it cannot be read, or is empty.
pub(super) fn key<'a>(settings: &HmacKey, secret: &'a Secret) -> Option<Cow<'a, [u8]>> {
    let secret = secret.expose();
    let text = secret.strip_prefix(settings.prefix.as_bytes()).unwrap_or(secret);
    let key = match settings.encoding {
        KeyEncoding::Utf8 => Cow::Borrowed(text),
        KeyEncoding::Base64 => Cow::Owned(BASE64_KEY.decode(text).ok()?),
        KeyEncoding::Hex => Cow::Owned(hex::decode(text).ok()?),
    };
    (!key.is_empty()).then_some(key)
}

/// The HMAC of a message, as text; nothing if the secret holds no key.
pub(crate) fn sign(
    (algorithm, settings, encoding): (HmacAlgorithm, &HmacKey, SignatureEncoding),
    secret: &Secret,
    message: &[u8],
) -> Option<String> {
    let key = key(settings, secret)?;
    let code = match algorithm {
        HmacAlgorithm::Sha1 => code::<Hmac<Sha1>>(&key, message),
        HmacAlgorithm::Sha256 => code::<Hmac<Sha256>>(&key, message),
        HmacAlgorithm::Sha512 => code::<Hmac<Sha512>>(&key, message),
    }?;
    Some(match encoding {
        SignatureEncoding::Hex => hex::encode(code),
        SignatureEncoding::Base64 => STANDARD.encode(code),
        SignatureEncoding::Base64url => URL_SAFE_NO_PAD.encode(code),
    })
}

fn code<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let mac = <M as KeyInit>::new_from_slice(key).ok()?;
    Some(mac.chain_update(message).finalize().into_bytes().to_vec())
}

/// Whether any of the signatures is the HMAC of the parts.
pub(super) fn matches<M: Mac + KeyInit + Clone>(key: &[u8], parts: &[Cow<'_, [u8]>], signatures: &[&Vec<u8>]) -> bool {
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return false };
    parts.iter().for_each(|part| mac.update(part));
    signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
}
