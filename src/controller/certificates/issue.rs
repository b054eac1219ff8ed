//! Makes authorities and certificates.

use super::plan::Step;
use super::{Certificate, Former, Identity, Lives, Period, SERVER_NAME};
use crate::controller::installation::random_secret;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// The name of the internal listener's certificate.
const CONTROLLER: &str = "Bellhop controller";
/// How far the beginning of a certificate lies in the past: clocks of a cluster may differ.
const SKEW: Duration = Duration::from_secs(300);

/// Carries out a step at `now` (Unix seconds). [`Step::Keep`] gives what is stored.
///
/// # Errors
/// A name is neither a DNS name nor an address, or a stored key cannot be read.
pub fn carry_out(
    step: Step,
    stored: Option<Identity>,
    names: &BTreeSet<String>,
    now: i64,
    lives: Lives,
) -> Result<Identity, rcgen::Error> {
    let (Some(mut stored), false) = (stored, step == Step::RenewAll) else { return all(names, now, lives) };
    match step {
        Step::Keep(_) | Step::RenewAll => {}
        Step::RenewLeaf(names) => {
            stored.leaf = leaf(CONTROLLER, &stored.authority, &names, now, lives.leaf)?;
            stored.ingress = Some(ingress(&stored.authority, now, lives.leaf)?);
            stored.names = names;
            stored.former.retain(|former| former.until > now);
        }
        Step::RenewAuthority => {
            let before = std::mem::replace(&mut stored.authority, authority(now, lives.authority)?);
            stored.former.retain(|former| former.until > now);
            stored.former.push(Former { pem: before.pem, until: before.period.until });
        }
    }
    Ok(stored)
}

fn all(names: &BTreeSet<String>, now: i64, lives: Lives) -> Result<Identity, rcgen::Error> {
    let authority = authority(now, lives.authority)?;
    let leaf = leaf(CONTROLLER, &authority, names, now, lives.leaf)?;
    let ingress = Some(ingress(&authority, now, lives.leaf)?);
    Ok(Identity { authority, former: Vec::new(), leaf, names: names.clone(), key: random_secret(), ingress })
}

/// The certificate of every replica of the ingress.
fn ingress(authority: &Certificate, now: i64, life: Duration) -> Result<Certificate, rcgen::Error> {
    leaf("Bellhop ingress", authority, &[SERVER_NAME.to_owned()].into(), now, life)
}

fn authority(now: i64, life: Duration) -> Result<Certificate, rcgen::Error> {
    let (key, period) = (KeyPair::generate()?, Period::new(now, life));
    let pem = authority_params(period).self_signed(&key)?.pem();
    Ok(Certificate { pem, key: key.serialize_pem(), period })
}

/// What an authority is called follows from its period, so that nothing has to be read out of its certificate.
fn authority_params(period: Period) -> CertificateParams {
    let mut params = base(period, &format!("Bellhop authority {}", period.from));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(
    common_name: &str,
    authority: &Certificate,
    names: &BTreeSet<String>,
    now: i64,
    life: Duration,
) -> Result<Certificate, rcgen::Error> {
    let mut period = Period::new(now, life);
    // Nothing believes a certificate whose authority is over.
    period.until = period.until.min(authority.period.until);
    let mut params = base(period, common_name);
    params.subject_alt_names = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let issuer = Issuer::new(authority_params(authority.period), KeyPair::from_pem(&authority.key)?);
    let pem = params.signed_by(&key, &issuer)?.pem();
    Ok(Certificate { pem, key: key.serialize_pem(), period })
}

fn base(period: Period, common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let at = |seconds: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    params.not_before = at(period.from) - SKEW;
    params.not_after = at(period.until);
    params
}

#[cfg(test)]
mod tests {
    use super::super::plan::plan;
    use super::*;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use std::sync::Arc;

    const LIVES: Lives = Lives { authority: Duration::from_secs(9_000), leaf: Duration::from_secs(900) };
    const START: i64 = 1_800_000_000;

    fn names() -> BTreeSet<String> {
        ["bellhop-controller.bellhop-system.svc", "127.0.0.1"].map(str::to_owned).into()
    }

    /// Whether a client that trusts `bundle` believes the certificate for `name` at `now`.
    fn believed(bundle: &str, identity: &Identity, name: &str, now: i64) -> bool {
        shown(bundle, &identity.leaf, name, now)
    }

    fn shown(bundle: &str, leaf: &Certificate, name: &str, now: i64) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let leaf = CertificateDer::from_pem_slice(leaf.pem.as_bytes()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now as u64));
        verifier.verify_server_cert(&leaf, &[], &ServerName::try_from(name.to_owned()).unwrap(), &[], now).is_ok()
    }

    #[test]
    fn a_certificate_is_believed_for_its_names_and_its_time() {
        let made = carry_out(Step::RenewAll, None, &names(), START, LIVES).unwrap();
        let ask = |name: &str, now: i64| believed(&made.bundle(), &made, name, now);
        assert!(ask("bellhop-controller.bellhop-system.svc", START) && ask("127.0.0.1", START + 899));
        assert!(!ask("bellhop-controller.other.svc", START) && !ask("127.0.0.2", START));
        assert!(!ask("127.0.0.1", START + 901) && !ask("127.0.0.1", START - 400));
        let ingress = made.ingress.as_ref().unwrap();
        assert!(shown(&made.bundle(), ingress, SERVER_NAME, START + 899));
        assert!(!shown(&made.bundle(), ingress, "127.0.0.1", START) && !ask(SERVER_NAME, START));
        let other = carry_out(Step::RenewAll, None, &names(), START, LIVES).unwrap();
        assert!(!believed(&other.bundle(), &made, "127.0.0.1", START));
        assert_ne!(made.key, other.key);
        assert!(carry_out(Step::RenewAll, None, &["ä".to_owned()].into(), START, LIVES).is_err());
    }

    /// Simulates several lives of the authority. Whoever knows only what was published at the step before believes the
    /// certificate of now, and the other way round: at no moment is anybody left out.
    #[test]
    fn a_rotation_leaves_nobody_out() {
        let (mut now, mut stored) = (START, carry_out(Step::RenewAll, None, &names(), START, LIVES).unwrap());
        let key = stored.key.clone();
        let (mut authorities, mut leaves) = (0, 0);
        while now < START + 30_000 {
            let step = plan(now, Some(&stored), &names());
            match &step {
                Step::Keep(pause) => {
                    now += pause.as_secs().max(1) as i64;
                    continue;
                }
                Step::RenewLeaf(_) => leaves += 1,
                Step::RenewAuthority => authorities += 1,
                Step::RenewAll => panic!("at {now} everything was made anew"),
            }
            let next = carry_out(step, Some(stored.clone()), &names(), now, LIVES).unwrap();
            for (bundle, identity) in [(stored.bundle(), &next), (next.bundle(), &stored), (next.bundle(), &next)] {
                assert!(believed(&bundle, identity, "127.0.0.1", now), "at {now}");
                assert!(shown(&bundle, identity.ingress.as_ref().unwrap(), SERVER_NAME, now), "at {now}");
            }
            assert!(next.former.len() <= 1, "at {now}: {}", next.former.len());
            stored = next;
        }
        assert!(authorities >= 4 && leaves > 30, "{authorities} {leaves}");
        assert_eq!(stored.key, key);
    }

    #[test]
    fn a_leaf_does_not_outlive_its_authority() {
        let lives = Lives { authority: Duration::from_secs(100), leaf: Duration::from_secs(900) };
        let made = carry_out(Step::RenewAll, None, &names(), START, lives).unwrap();
        assert_eq!(made.leaf.period.until, made.authority.period.until);
    }
}
