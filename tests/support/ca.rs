//! CAs of clients with their certificates and revocation lists, and a small server that publishes lists.

use super::{Stage, edit, ops_text, until};
use ndxp_gateway::caller::CallerFiles;
use ndxp_gateway::pki::client_uri;
use ndxp_gateway::sandbox::folder::DevFolder;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

pub const HOUR: Duration = Duration::from_secs(3_600);

/// A CA of clients.
pub struct Ca {
    pub issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

pub fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    /// Makes a root. Two with one name have different keys.
    pub fn root(name: &str) -> Self {
        Self::root_with(name, |_| {})
    }

    pub fn root_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (pair, mut params) = (KeyPair::generate().unwrap(), ca_params(name));
        change(&mut params);
        let pem = params.self_signed(&pair).unwrap().pem();
        Ca { issuer: Issuer::new(params, pair), pem }
    }

    /// Loads the development CA of a folder.
    pub fn of_folder(folder: &DevFolder) -> Self {
        let pki = folder.path.join("pki");
        let key = KeyPair::from_pem(&std::fs::read_to_string(pki.join("ca.key")).unwrap()).unwrap();
        let pem = std::fs::read_to_string(pki.join("ca.pem")).unwrap();
        Ca { issuer: Issuer::new(ca_params("NDXP gateway development CA"), key), pem }
    }

    /// Makes an intermediate CA below this one.
    pub fn below(&self, name: &str, serial: u64) -> Self {
        self.below_with(name, serial, |_| {})
    }

    pub fn below_with(&self, name: &str, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (pair, mut params) = (KeyPair::generate().unwrap(), ca_params(name));
        params.serial_number = Some(serial.into());
        change(&mut params);
        let pem = params.signed_by(&pair, &self.issuer).unwrap().pem();
        Ca { issuer: Issuer::new(params, pair), pem }
    }

    /// Issues a certificate of the client `clerk`; `above` follows it in the chain.
    pub fn client(&self, folder: &DevFolder, name: &str, serial: u64, above: &str) -> CallerFiles {
        self.client_with(folder, name, serial, above, |_| {})
    }

    pub fn client_with(
        &self,
        folder: &DevFolder,
        name: &str,
        serial: u64,
        above: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CallerFiles {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::URI(client_uri("clerk").try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial.into());
        params.not_before = (SystemTime::now() - HOUR).into();
        params.not_after = (SystemTime::now() + HOUR).into();
        change(&mut params);
        let pair = KeyPair::generate().unwrap();
        let files = super::files(folder, name);
        std::fs::write(&files.certificate, params.signed_by(&pair, &self.issuer).unwrap().pem() + above).unwrap();
        std::fs::write(&files.key, pair.serialize_pem()).unwrap();
        files
    }

    /// Signs a list with this number that revokes these serial numbers.
    pub fn list(&self, number: u64, revoked: &[u64]) -> String {
        self.list_with(number, revoked, |_| {})
    }

    pub fn list_with(
        &self,
        number: u64,
        revoked: &[u64],
        change: impl FnOnce(&mut CertificateRevocationListParams),
    ) -> String {
        self.list_made(number, revoked, change).pem().unwrap()
    }

    pub fn list_made(
        &self,
        number: u64,
        revoked: &[u64],
        change: impl FnOnce(&mut CertificateRevocationListParams),
    ) -> rcgen::CertificateRevocationList {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: SystemTime::now().into(),
            reason_code: None,
            invalidity_date: None,
        });
        let mut params = CertificateRevocationListParams {
            this_update: (SystemTime::now() - HOUR).into(),
            next_update: (SystemTime::now() + 24 * HOUR).into(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        change(&mut params);
        params.signed_by(&self.issuer).unwrap()
    }
}

/// An expired list.
pub fn over(params: &mut CertificateRevocationListParams) {
    params.next_update = (SystemTime::now() - HOUR / 2).into();
}

/// Makes these CAs the folder's client CAs, with their lists in `pki/ca.crl`.
pub fn lay_cas(folder: &DevFolder, cas: &[&Ca], lists: &str) {
    std::fs::write(clients(folder), cas.iter().map(|ca| ca.pem.as_str()).collect::<String>()).unwrap();
    edit(&folder.gateway_config(), |text| {
        text.replace("client_ca = \"pki/ca.pem\"", "client_ca = \"pki/clients.pem\"")
    });
    std::fs::write(crl(folder), lists).unwrap();
}

/// The file of the clients' CAs, if [`lay_cas`] has written one.
pub fn clients(folder: &DevFolder) -> PathBuf {
    folder.path.join("pki/clients.pem")
}

/// The file of revocation lists.
pub fn crl(folder: &DevFolder) -> PathBuf {
    folder.path.join("pki/ca.crl")
}

/// Runs `config check` on a folder: exit code and output.
pub fn check(folder: &DevFolder) -> (i32, String) {
    let config = folder.gateway_config();
    let done = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"))
        .args(["config", "check", "--config"])
        .arg(config)
        .output()
        .unwrap();
    (done.status.code().unwrap(), String::from_utf8_lossy(&done.stderr).into_owned())
}

/// Waits until the gateway is not ready and readiness reports this.
pub fn unready(stage: &Stage, reason: &str) {
    until(reason, || ops_text(stage, "/readyz").contains(reason));
    assert!(ops_text(stage, "/readyz").starts_with("HTTP/1.1 503"), "{}", ops_text(stage, "/readyz"));
}

pub fn ready(stage: &Stage) {
    until("ready", || ops_text(stage, "/readyz").starts_with("HTTP/1.1 200"));
}

/// Publishes the content of the slot, and counts the requests.
pub async fn publish(slot: Arc<Mutex<Vec<u8>>>) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ca.crl", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (slot, count) = (slot.clone(), count.clone());
            let service = hyper::service::service_fn(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                let body = http_body_util::Full::new(bytes::Bytes::from(slot.lock().unwrap().clone()));
                async move { Ok::<_, std::convert::Infallible>(http::Response::new(body)) }
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    (url, asked)
}
