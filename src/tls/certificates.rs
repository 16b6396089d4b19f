//! Certificates of an authority that both hosts trust, where a site has one.
//!
//! A peer's certificate must be of that authority, in its time, and for one of the names of the configuration: an authority of a whole company
//! has signed for others than the hosts of this cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, Connection, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::{Error, provider, unusable};
use crate::config::Security;

/// Where they are, and which names peers have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// The authority's certificates, PEM.
    pub(crate) authority: PathBuf,
    /// This host's certificate and those between it and the authority's, PEM.
    pub(crate) certificate: PathBuf,
    /// Its key, PEM.
    pub(crate) key: PathBuf,
    /// What the authority has revoked, PEM; may be none.
    pub(crate) revoked: Option<PathBuf>,
    /// Names, one of which a peer's certificate must be for.
    pub(crate) names: Vec<String>,
}

impl Security {
    /// Whether hosts are known by certificates, and by which.
    pub(crate) fn certificates(&self) -> Result<Option<Files>, String> {
        let Security { authority, certificate, key, revoked, names, .. } = self;
        match (authority, certificate, key) {
            (None, None, None) if revoked.is_none() && names.is_empty() => Ok(None),
            (Some(authority), Some(certificate), Some(key)) if !names.is_empty() => Ok(Some(Files {
                authority: authority.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
                revoked: revoked.clone(),
                names: names.clone(),
            })),
            _ => Err("with certificates, authority, certificate, key and names must all be set; else none of them, nor revoked".into()),
        }
    }
}

pub(super) fn client(files: &Files) -> Result<ClientConfig, Error> {
    let verifier = WebPkiServerVerifier::builder_with_provider(files.roots()?.into(), provider());
    let verifier = verifier.with_crls(files.revocations()?).build();
    let verifier = verifier.map_err(|error| unusable(&files.authority, error))?;
    let (chain, key) = files.own()?;
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OneOf { names: files.server_names()?, verifier }))
        .with_client_auth_cert(chain, key)
        .map_err(|error| unusable(&files.certificate, error))
}

pub(super) fn server(files: &Files) -> Result<ServerConfig, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(files.roots()?.into(), provider());
    let verifier = verifier.with_crls(files.revocations()?).build();
    let verifier = verifier.map_err(|error| unusable(&files.authority, error))?;
    let verifier = Arc::new(OneOf { names: files.server_names()?, verifier });
    let (chain, key) = files.own()?;
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&files.certificate, error))
}

/// Which of the names the client has.
pub(super) fn of_peer(files: &Files, connection: &Connection) -> Result<String, Error> {
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or(Error::Tls(rustls::Error::NoCertificatesPresented))?;
    Ok(name_of(certificate, &files.server_names()?)?)
}

fn name_of(certificate: &CertificateDer<'_>, names: &[ServerName<'_>]) -> Result<String, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let name = names.iter().find(|name| rustls::client::verify_server_name(&parsed, name).is_ok());
    name.map(|name| name.to_str().into_owned()).ok_or(CertificateError::NotValidForName.into())
}

impl Files {
    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authority)? {
            roots.add(certificate).map_err(|error| unusable(&self.authority, error))?;
        }
        Ok(roots)
    }

    fn own(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unusable(&self.key, error))?;
        Ok((certificates(&self.certificate)?, key))
    }

    fn revocations(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        let Some(file) = &self.revoked else { return Ok(Vec::new()) };
        let lists = CertificateRevocationListDer::pem_file_iter(file).and_then(Iterator::collect);
        lists.map_err(|error| unusable(file, error))
    }

    fn server_names(&self) -> Result<Vec<ServerName<'static>>, Error> {
        let name = |name: &String| {
            ServerName::try_from(name.clone()).map_err(|_| unusable(Path::new(name), "it is no host's name or address"))
        };
        self.names.iter().map(name).collect()
    }
}

pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let found = found.map_err(|error| unusable(file, error))?;
    if found.is_empty() { Err(unusable(file, "there is no certificate in it")) } else { Ok(found) }
}

/// Accepts who has one of the names.
#[derive(Debug)]
struct OneOf<Verifier: ?Sized> {
    names: Vec<ServerName<'static>>,
    verifier: Arc<Verifier>,
}

impl ClientCertVerifier for OneOf<dyn ClientCertVerifier> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.verifier.verify_client_cert(certificate, others, now)?;
        name_of(certificate, &self.names).map(|_| verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl ServerCertVerifier for OneOf<WebPkiServerVerifier> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut last = CertificateError::NotValidForName.into();
        for name in &self.names {
            match self.verifier.verify_server_cert(certificate, others, name, ocsp, now) {
                Ok(verified) => return Ok(verified),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
