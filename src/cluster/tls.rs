//! Whom a request over TLS trusts.
//!
//! Purpose: one rustls configuration per way to trust. May touch: rustls, the system's certificates.
//! Must never: trust more than was asked for, or show what it was given as certificates, which may be a key.

use std::fmt;
use std::sync::Arc;

use hyper_rustls::{ConfigBuilderExt, FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Whom to trust. By default whom the system trusts, under the name in the address.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// Certificates of authorities in PEM, instead of the system's.
    authorities: Option<Arc<[u8]>>,
    server_name: Option<String>,
    everybody: bool,
}

impl Trust {
    /// Trusts these authorities (PEM; nothing: the system's) to speak for this name (nothing: the address's).
    pub fn new(authorities: Option<&[u8]>, server_name: Option<&str>) -> Self {
        Self {
            authorities: authorities.map(Arc::from),
            server_name: server_name.map(ToOwned::to_owned),
            everybody: false,
        }
    }

    /// Trusts whoever answers.
    pub fn everybody() -> Self {
        Self { everybody: true, ..Self::default() }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A reference to the wrong key of a Secret would make it a private key.
        let authorities = self.authorities.as_ref().map(|_| "***");
        f.debug_struct("Trust")
            .field("authorities", &authorities)
            .field("server_name", &self.server_name)
            .field("everybody", &self.everybody)
            .finish()
    }
}

/// Why it is not known whom to trust.
#[derive(thiserror::Error, Debug)]
pub enum TrustError {
    /// The system has no authorities.
    #[error("no root certificates found on this system; name the authority with tls.caSecretRef")]
    NoRoots,
    /// Not certificates.
    #[error("what tls.caSecretRef names holds no certificate in PEM")]
    NotPem,
    /// Not the name of a server.
    #[error("tls.serverName is neither a name nor an address")]
    Name,
    /// TLS cannot be used at all.
    #[error("TLS cannot be used")]
    Tls(#[source] rustls::Error),
}

/// Connections that trust like this.
pub(super) fn connector(trust: &Trust) -> Result<HttpsConnector<HttpConnector>, TrustError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Tls)?;
    let config = match &trust.authorities {
        _ if trust.everybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Everybody(provider)))
        }
        Some(pem) => builder.with_root_certificates(roots(pem)?),
        None => builder.with_native_roots().map_err(|_| TrustError::NoRoots)?,
    };
    let connector = HttpsConnectorBuilder::new().with_tls_config(config.with_no_client_auth()).https_only();
    let connector = match &trust.server_name {
        None => connector,
        Some(name) => {
            let name = ServerName::try_from(name.clone()).map_err(|_| TrustError::Name)?;
            connector.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
    };
    Ok(connector.enable_http1().build())
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| TrustError::NotPem)?;
        roots.add(certificate).map_err(|_| TrustError::NotPem)?;
    }
    if roots.is_empty() { Err(TrustError::NotPem) } else { Ok(roots) }
}

/// Trusts any certificate; that its owner holds its key is still checked.
#[derive(Debug)]
struct Everybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Everybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
