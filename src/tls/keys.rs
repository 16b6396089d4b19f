//! Keys without certificates (RFC 7250): whose are accepted.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, Connection, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};

use super::{Error, Fingerprint, Identity, Pins, provider};

/// Decides by the key alone.
#[derive(Clone)]
pub(super) struct Accepts(Arc<Decision>);

struct Decision {
    accepts: Box<dyn Fn(&Fingerprint) -> bool + Send + Sync>,
    refused: Mutex<Option<Fingerprint>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl std::fmt::Debug for Accepts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Accepts")
    }
}

impl Accepts {
    /// Those of the hosts that this one is paired with.
    pub(super) fn peers(state_dir: &std::path::Path) -> Result<Accepts, Error> {
        let pins = Pins::read(state_dir)?;
        Ok(Accepts::those(move |key| pins.find(key).is_some()))
    }

    pub(super) fn those(accepts: impl Fn(&Fingerprint) -> bool + Send + Sync + 'static) -> Accepts {
        let algorithms = provider().signature_verification_algorithms;
        Accepts(Arc::new(Decision { accepts: Box::new(accepts), refused: Mutex::default(), algorithms }))
    }

    /// The key that was not accepted.
    pub(super) fn refused(&self) -> Option<Fingerprint> {
        *self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, key: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let fingerprint = Fingerprint::of(key);
        if (self.0.accepts)(&fingerprint) {
            return Ok(());
        }
        *self.0.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(fingerprint);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.0.algorithms)
    }
}

/// What a client shows and accepts.
pub(super) fn client(identity: &Identity, accepts: &Accepts) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(accepts.clone()));
    Ok(builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity.certified()))))
}

/// What a server shows and accepts.
pub(super) fn server(identity: &Identity, accepts: &Accepts) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    let builder = builder.with_client_cert_verifier(Arc::new(accepts.clone()));
    Ok(builder.with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity.certified()))))
}

/// The key that the other side has proven to have.
pub(super) fn of_peer(connection: &Connection) -> Result<Fingerprint, Error> {
    let key = connection.peer_certificates().and_then(<[_]>::first);
    key.map(|key| Fingerprint::of(key)).ok_or(Error::Tls(rustls::Error::NoCertificatesPresented))
}

impl ServerCertVerifier for Accepts {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(key).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Accepts {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(key).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
