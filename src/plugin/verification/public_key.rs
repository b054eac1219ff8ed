//! Signatures that are made with a private key of the external system.

use super::place::{Compiler, Place, Seen};
use super::signed::Signed;
use super::timestamp::Timestamp;
use super::{any_secret, decode};
use crate::api::{PublicKeyAlgorithm, PublicKeyVerification, SignatureEncoding};
use crate::plugin::error::Refusal;
use crate::plugin::secret::Secret;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};

/// What stands before the point of a P-256 key in a SubjectPublicKeyInfo (RFC 5480): the two identifiers, and that a bit
/// string of 66 bytes follows.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A compiled verification by a public key.
#[derive(Debug)]
pub(crate) struct PublicKeyVerifier {
    place: Place,
    algorithm: PublicKeyAlgorithm,
    encoding: SignatureEncoding,
    key_encoding: SignatureEncoding,
    pub(super) signed: Signed,
    timestamp: Option<Timestamp>,
}

impl PublicKeyVerifier {
    pub(super) fn compile(field: &str, settings: &PublicKeyVerification, compiler: &mut Compiler<'_>) -> Self {
        let timestamp = settings.timestamp.as_ref();
        let timestamp = timestamp.map(|timestamp| Timestamp::compile(field, timestamp, false, compiler));
        Self {
            place: compiler.place(field, settings.header.as_ref(), settings.query.as_ref(), settings.field.as_ref()),
            algorithm: settings.algorithm,
            encoding: settings.encoding,
            key_encoding: settings.key_encoding,
            signed: Signed::compile(field, &settings.signed, timestamp.as_ref(), compiler),
            timestamp,
        }
    }

    pub(super) fn verify(&self, seen: &Seen<'_>, secrets: &[&Secret]) -> Result<(), Refusal> {
        let value = self.place.read(seen)?;
        let signature = decode(self.encoding, &value).map_err(|problem| self.place.malformed(problem))?;
        let timestamp = self.timestamp.as_ref().map(|timestamp| timestamp.check(seen, |_| None)).transpose()?;
        let messages = self.signed.messages(seen, timestamp.as_deref())?;
        let messages: Vec<Vec<u8>> = messages.iter().map(|parts| parts.concat()).collect();
        let read = |secret: &Secret| decode(self.key_encoding, secret.expose().trim_ascii()).ok();
        let is_of = |message: &Vec<u8>, key: &[u8]| match self.algorithm {
            PublicKeyAlgorithm::Ed25519 => ed25519(key, message, &signature),
            PublicKeyAlgorithm::EcdsaP256Sha256 => p256(key, message, &signature),
        };
        let proves = |key: &Vec<u8>| messages.iter().any(|message| is_of(message, key));
        any_secret(secrets, || self.place.name(), read, proves)
    }
}

/// Whether this is the Ed25519 signature of the message; not if the key is none.
pub(super) fn ed25519(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

fn p256(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Some(point) = key.strip_prefix(&P256_SPKI) else { return false };
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
}
