//! Keys and certificates, made and read.
//!
//! Purpose: the only place that knows X.509. May touch: randomness, and time that it is given.
//! Must never: do I/O, or put a key into an error.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use super::chain::{Authority, Key, Life, Serving};

/// So much earlier than now certificates begin to be valid: clocks differ.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// Why a certificate could not be made or read. No cause is told that could hold a key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeysError {
    /// It could not be made.
    #[error("failed to make a certificate for {name}")]
    Make {
        /// Whose.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A time that certificates cannot hold.
    #[error("{0} is no time that a certificate can hold")]
    Time(Timestamp),
    /// What is kept is no certificate with its key.
    #[error("what is kept is not a certificate with its key")]
    Unusable,
}

/// A new authority.
pub fn authority(life: &Life, now: Timestamp) -> Result<Authority, KeysError> {
    let name = format!("belay webhook authority of {now:.6}");
    let making = |source| KeysError::Make { name: name.clone(), source };
    let not_after = whole_second(now + life.authority);
    let key = KeyPair::generate().map_err(making)?;
    let params = authority_params(&name, now, not_after)?;
    let certificate = params.self_signed(&key).map_err(making)?.pem();
    Ok(Authority {
        name,
        made_at: now,
        not_after,
        trusted_at: None,
        certificate,
        key: Key(key.serialize_pem()),
    })
}

fn authority_params(
    name: &str,
    made_at: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, KeysError> {
    let mut params = params(name, made_at, not_after)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

fn params(name: &str, made_at: Timestamp, not_after: Timestamp) -> Result<CertificateParams, KeysError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + seconds(made_at - SKEW)?;
    params.not_after = epoch + seconds(not_after)?;
    Ok(params)
}

/// A new certificate for these host names or addresses.
pub fn serving(
    by: &Authority,
    names: &BTreeSet<String>,
    life: &Life,
    now: Timestamp,
) -> Result<Serving, KeysError> {
    let making = |source| KeysError::Make { name: names.iter().next().cloned().unwrap_or_default(), source };
    let not_after = whole_second(now + life.serving).min(by.not_after);
    let mut own = params("belay webhook", now, not_after)?;
    let hosts: Vec<String> = names.iter().cloned().collect();
    own.subject_alt_names = CertificateParams::new(hosts).map_err(making)?.subject_alt_names;
    own.use_authority_key_identifier_extension = true;
    own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(making)?;
    // The cause would not hold the key either, but it need not be tried.
    let signing = KeyPair::from_pem(&by.key.0).map_err(|_| KeysError::Unusable)?;
    let issuer = authority_params(&by.name, by.made_at, by.not_after)?;
    let certificate = own.signed_by(&key, &Issuer::from_params(&issuer, signing)).map_err(making)?.pem();
    Ok(Serving {
        issuer: by.name.clone(),
        names: names.clone(),
        made_at: now,
        not_after,
        certificate,
        key: Key(key.serialize_pem()),
    })
}

/// The certificate with its key as they are served.
pub fn certified(serving: &Serving) -> Result<Arc<CertifiedKey>, KeysError> {
    let certificate = CertificateDer::from_pem_slice(serving.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(serving.key.0.as_bytes());
    let (Ok(certificate), Ok(key)) = (certificate, key) else { return Err(KeysError::Unusable) };
    let certified = CertifiedKey::from_der(vec![certificate], key, &ring::default_provider());
    Ok(Arc::new(certified.map_err(|_| KeysError::Unusable)?))
}

/// Whether the authority can issue anything.
pub fn is_usable(authority: &Authority) -> bool {
    KeyPair::from_pem(&authority.key.0).is_ok()
        && CertificateDer::from_pem_slice(authority.certificate.as_bytes()).is_ok()
}

/// Certificates end on a whole second.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The time since the first moment of 1970, for the library that makes certificates, which holds years to 9999.
fn seconds(at: Timestamp) -> Result<std::time::Duration, KeysError> {
    match u64::try_from(at.as_second()) {
        Ok(seconds @ ..253_402_300_800) => Ok(std::time::Duration::from_secs(seconds)),
        _ => Err(KeysError::Time(at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    const NAME: &str = "belay-webhook.belay-system.svc";

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn names() -> BTreeSet<String> {
        [NAME.to_owned(), "127.0.0.1".to_owned()].into()
    }

    /// What a client that trusts these authorities says of a certificate.
    fn verified(trusted: &[&Authority], serving: &Serving, name: &str, at: Timestamp) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        for authority in trusted {
            roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
        }
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let certificate = certified(serving).unwrap().cert[0].clone();
        let at = std::time::Duration::from_secs(u64::try_from(at.as_second()).unwrap());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let at = UnixTime::since_unix_epoch(at);
        verifier.verify_server_cert(&certificate, &[], &name, &[], at).is_ok()
    }

    #[test]
    fn a_client_that_trusts_the_authority_trusts_what_it_issued_and_nothing_else() {
        let life = Life::default();
        let (ours, other) = (authority(&life, now()).unwrap(), authority(&life, now()).unwrap());
        let serving = serving(&ours, &names(), &life, now()).unwrap();
        assert!(verified(&[&ours], &serving, NAME, now()));
        assert!(verified(&[&other, &ours], &serving, "127.0.0.1", now()));
        assert!(!verified(&[&other], &serving, NAME, now()));
        assert!(!verified(&[&ours], &serving, "belay-webhook.elsewhere.svc", now()));
    }

    #[test]
    fn a_certificate_is_valid_for_its_life_and_for_a_clock_that_is_slow() {
        let life = Life::default();
        let ours = authority(&life, now()).unwrap();
        let serving = serving(&ours, &names(), &life, now()).unwrap();
        assert_eq!(serving.not_after, now() + SignedDuration::from_hours(30 * 24));
        assert_eq!(ours.not_after, now() + SignedDuration::from_hours(365 * 24));
        let second = SignedDuration::from_secs(1);
        assert!(verified(&[&ours], &serving, NAME, serving.not_after - second));
        assert!(!verified(&[&ours], &serving, NAME, serving.not_after + second));
        assert!(verified(&[&ours], &serving, NAME, now() - SignedDuration::from_mins(59)));
        assert!(!verified(&[&ours], &serving, NAME, now() - SignedDuration::from_mins(61)));
    }

    #[test]
    fn what_is_issued_ends_with_its_authority_at_the_latest() {
        let life = Life { authority: SignedDuration::from_hours(1), ..Life::default() };
        let ours = authority(&life, now()).unwrap();
        assert_eq!(serving(&ours, &names(), &life, now()).unwrap().not_after, ours.not_after);
    }

    #[test]
    fn a_broken_key_is_said_to_be_one_and_not_shown() {
        let life = Life::default();
        let mut ours = authority(&life, now()).unwrap();
        let mut own = serving(&ours, &names(), &life, now()).unwrap();
        own.key = Key("hidden".to_owned());
        assert!(matches!(certified(&own), Err(KeysError::Unusable)));
        ours.key = Key("hidden".to_owned());
        let error = serving(&ours, &names(), &life, now()).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hidden"));
    }

    #[test]
    fn a_certificate_with_the_key_of_another_is_not_served() {
        let life = Life::default();
        let ours = authority(&life, now()).unwrap();
        let mut one = serving(&ours, &names(), &life, now()).unwrap();
        one.key = serving(&ours, &names(), &life, now()).unwrap().key;
        assert!(matches!(certified(&one), Err(KeysError::Unusable)));
    }
}
