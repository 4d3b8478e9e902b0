//! Handshakes that explain themselves: each refused one with its cause, certificate and port in entry and metric; and a gateway that
//! reports what cannot work before a client is affected. Row T7 of the findings.

use crate::support::ca::{Ca, HOUR, check, lay_cas, over, unready};
use crate::support::{LIMIT, Stage, edit, ops_text, secured, until};
use ndxp_gateway::exchange_log::Entry;
use ndxp_gateway::identity::tls;
use ndxp_gateway::pki::CertificateRole;
use ndxp_gateway::sandbox::folder::DevFolder;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Two client CAs, one of them with an expired list, and an intermediate CA below the first without a list.
struct Cas {
    good: Ca,
    late: Ca,
    unlisted: Ca,
}

impl Cas {
    fn new() -> Self {
        let (good, late) = (Ca::root("good CA"), Ca::root("late CA"));
        let unlisted = good.below("unlisted CA", 5);
        Cas { good, late, unlisted }
    }

    fn lay(&self, folder: &DevFolder) {
        lay_cas(folder, &[&self.good, &self.late], &(self.good.list(1, &[13]) + &self.late.list_with(1, &[], over)));
        edit(&folder.gateway_config(), |text| text.replace("[listen]\n", "[listen]\nhandshake_timeout_ms = 6000\n"));
    }
}

/// The address of a stage's port, by the entry's name for it.
fn ports(stage: &Stage) -> [(&'static str, std::net::SocketAddr, &'static [u8]); 2] {
    let gateway = stage.gateway.as_ref().unwrap();
    [("grpc", gateway.address, b"h2"), ("https", gateway.https.unwrap(), b"http/1.1")]
}

/// Tries a handshake with this certificate; returns the received alert.
async fn alert(stage: &Stage, at: std::net::SocketAddr, name: Option<&str>, alpn: &[u8]) -> String {
    let own = name.map(|name| crate::support::files(&stage.folder, name));
    let own = own.as_ref().map(|files| (files.certificate.as_path(), files.key.as_path()));
    let stream = TcpStream::connect(at).await.unwrap();
    // With TLS 1.3, a client learns of its refusal when it reads.
    let refused = match secured(stream, &stage.folder.pki().ca(), own, &[alpn]).await {
        Err(error) => error,
        Ok(mut stream) => {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.ok();
            match tokio::time::timeout(LIMIT, stream.read(&mut [0; 1])).await.unwrap() {
                Err(error) => error,
                Ok(read) => return format!("passed, {read} bytes"),
            }
        }
    };
    refused.to_string()
}

fn refusals(stage: &Stage) -> Vec<Entry> {
    stage.entries().into_iter().map(|one| one.entry).filter(|entry| !entry.cause.is_empty()).collect()
}

fn counted(stage: &Stage, cause: &str) -> u64 {
    let metrics = ops_text(stage, "/metrics");
    let line =
        metrics.lines().find(|line| line.starts_with(&format!("ndxp_handshakes_refused_total{{cause=\"{cause}\"}}")));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Waits for the newest entry of a cause at a port, and its count.
fn entry(stage: &Stage, cause: &str, port: &str, counted_before: u64) -> Entry {
    until(cause, || counted(stage, cause) > counted_before);
    let found = || refusals(stage).into_iter().rfind(|entry| entry.cause == cause && entry.listener == port);
    until(cause, || found().is_some());
    found().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn t7_each_refused_certificate_is_reported_with_its_cause_on_both_ports() {
    let cas = Cas::new();
    let stage = Stage::prepared(&|folder| cas.lay(folder));
    let stranger = Ca::root("good CA");
    let folder = &stage.folder;
    let past = |params: &mut CertificateParams| params.not_after = (SystemTime::now() - HOUR / 2).into();
    let ahead = |params: &mut CertificateParams| params.not_before = (SystemTime::now() + HOUR / 2).into();
    let server =
        |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    cas.good.client_with(folder, "in-order", 1, "", |_| {});
    stranger.client_with(folder, "foreign", 2, "", |_| {});
    cas.good.client_with(folder, "over", 3, "", past);
    cas.good.client_with(folder, "early", 4, "", ahead);
    cas.good.client_with(folder, "revoked", 13, "", |_| {});
    cas.unlisted.client_with(folder, "unlisted", 6, &cas.unlisted.pem, |_| {});
    cas.late.client_with(folder, "late", 7, "", |_| {});
    cas.good.client_with(folder, "server", 8, "", server);
    let issuer_of = |name: &str| match name {
        "unlisted" => "CN=unlisted CA",
        "late" => "CN=late CA",
        _ => "CN=good CA",
    };
    for (port, at, alpn) in ports(&stage) {
        assert!(alert(&stage, at, Some("in-order"), alpn).await.starts_with("passed"));
        for (name, serial, cause, told) in [
            ("foreign", "02", "unknown_issuer", "UnknownCA"),
            ("over", "03", "expired", "CertificateExpired"),
            ("early", "04", "not_yet_valid", "CertificateExpired"),
            ("revoked", "0d", "revoked", "CertificateRevoked"),
            ("unlisted", "06", "no_revocation_list", "UnknownCA"),
            ("late", "07", "revocation_list_out_of_date", "UnknownCA"),
            ("server", "08", "wrong_usage", "UnsupportedCertificate"),
        ] {
            let before = counted(&stage, cause);
            let heard = alert(&stage, at, Some(name), alpn).await;
            assert!(heard.contains(told), "{name} at {port}: {heard}");
            let entry = entry(&stage, cause, port, before);
            assert_eq!(entry.certificate_subject, format!("CN={name}"));
            assert_eq!(entry.certificate_serial, serial);
            assert_eq!(entry.certificate_issuer, issuer_of(name));
            assert_eq!((entry.reason.as_str(), entry.certificate.len()), ("HANDSHAKE_FAILED", 32));
        }
    }
    // A client without one is refused at the gRPC port, and gets the public documents at the other.
    let [(_, grpc, h2), (_, https, http)] = ports(&stage);
    let heard = alert(&stage, grpc, None, h2).await;
    assert!(heard.contains("CertificateRequired"), "{heard}");
    let without = entry(&stage, "no_certificate", "grpc", 0);
    assert!(without.certificate_subject.is_empty() && without.certificate.is_empty());
    assert!(alert(&stage, https, None, http).await.starts_with("passed"));
    assert_eq!(counted(&stage, "no_certificate"), 1);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn t7_handshakes_without_a_certificate_are_distinguished() {
    let cas = Cas::new();
    let stage = Stage::prepared(&|folder| cas.lay(folder));
    cas.good.client_with(&stage.folder, "in-order", 1, "", |_| {});
    let [(_, grpc, _), (_, https, _)] = ports(&stage);
    for (port, at) in [("grpc", grpc), ("https", https)] {
        let before = counted(&stage, "not_tls");
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        entry(&stage, "not_tls", port, before);

        let before = counted(&stage, "no_common_version");
        let roots = tls::roots(&stage.folder.pki().ca()).unwrap();
        let old = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(old));
        let stream = TcpStream::connect(at).await.unwrap();
        assert!(connector.connect("localhost".try_into().unwrap(), stream).await.is_err());
        entry(&stage, "no_common_version", port, before);

        let before = counted(&stage, "no_common_protocol");
        alert(&stage, at, Some("in-order"), b"spdy/3").await;
        entry(&stage, "no_common_protocol", port, before);

        // A client that does not trust the gateway sends an alert, and we record it.
        let before = counted(&stage, "peer_alert");
        let stream = TcpStream::connect(at).await.unwrap();
        let elsewhere = stage.folder.path.join("pki/clients.pem");
        assert!(secured(stream, &elsewhere, None, &[b"h2"]).await.is_err());
        entry(&stage, "peer_alert", port, before);
    }
    let before = counted(&stage, "timeout");
    let mut silent = TcpStream::connect(grpc).await.unwrap();
    entry(&stage, "timeout", "grpc", before);
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t7_control_characters_in_a_certificate_are_escaped() {
    let stage = Stage::start();
    let [(_, grpc, h2), _] = ports(&stage);
    // An unknown peer can write any text into its own certificate.
    let stranger = Ca::root("x\ny");
    let name = format!("shop\n\u{1b}[2J{}", "ế".repeat(3_000));
    stranger.client_with(&stage.folder, "steering", 1, "", |params| {
        params.distinguished_name.push(DnType::OrganizationName, name);
    });
    alert(&stage, grpc, Some("steering"), h2).await;
    let found = entry(&stage, "unknown_issuer", "grpc", 0);
    for text in [&found.certificate_subject, &found.certificate_issuer] {
        assert!(text.chars().count() <= 201 && !text.contains(char::is_control), "{text:?}");
    }
    assert!(found.certificate_subject.contains("shop"));
}

/// Replaces the gateway's own certificate.
fn own(folder: &DevFolder, change: impl FnOnce(&mut CertificateParams)) {
    let pki = folder.path.join("pki");
    let by = Ca::of_folder(folder);
    let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = (SystemTime::now() - HOUR).into();
    params.not_after = (SystemTime::now() + HOUR).into();
    change(&mut params);
    let pair = KeyPair::generate().unwrap();
    std::fs::write(pki.join("gateway.pem"), params.signed_by(&pair, &by.issuer).unwrap().pem()).unwrap();
    std::fs::write(pki.join("gateway.key"), pair.serialize_pem()).unwrap();
}

#[test]
fn t7_an_untrusted_certificate_of_our_own_is_reported_by_readiness_and_check() {
    let stage = Stage::start();
    let folder = &stage.folder;
    assert_eq!(check(folder).0, 0, "{}", check(folder).1);
    assert!(ops_text(&stage, "/readyz").starts_with("HTTP/1.1 200"));
    own(folder, |params| params.not_after = (SystemTime::now() - HOUR / 2).into());
    unready(&stage, "has expired");
    assert!(check(folder).1.contains("gateway.pem") && check(folder).0 == 2);
    own(folder, |params| params.not_before = (SystemTime::now() + HOUR / 2).into());
    unready(&stage, "is not valid yet");
    own(folder, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    unready(&stage, "is not for a server");
    own(folder, |params| params.subject_alt_names = vec![SanType::DnsName("elsewhere".try_into().unwrap())]);
    unready(&stage, "is not for 127.0.0.1");
    let (code, told) = check(folder);
    assert!(code == 2 && told.contains("is not for 127.0.0.1"), "{told}");
    own(folder, |_| {});
    until("ready", || ops_text(&stage, "/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(check(folder).0, 0);
}

#[test]
fn t7_the_faulty_file_is_named() {
    let (_dir, folder) = crate::support::lay(&|_| {});
    folder.pki().issue("other", &CertificateRole::Client("other".into()), 5).unwrap();
    let pki = folder.path.join("pki");
    let spoilt = |file: &str, with: &dyn Fn(&Path), key: &str| {
        let path = pki.join(file);
        let before = std::fs::read(&path).unwrap();
        with(&path);
        let (code, told) = check(&folder);
        assert!(code == 2 && told.contains(&path.display().to_string()) && told.contains(key), "{file}: {told}");
        std::fs::write(&path, before).unwrap();
    };
    let garbage =
        |path: &Path| std::fs::write(path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    spoilt("ca.pem", &garbage, "tls.client_ca");
    spoilt(
        "ca.pem",
        &|path| edit(path, |text| text + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        "certificate 2",
    );
    spoilt("gateway.pem", &garbage, "tls.certificate");
    spoilt(
        "gateway.key",
        &|path| {
            std::fs::copy(pki.join("other.key"), path).unwrap();
        },
        "is not the key of",
    );
    spoilt("gateway.key", &|path| std::fs::write(path, "").unwrap(), "tls.key");
    spoilt("ca.crl", &|path| std::fs::write(path, "").unwrap(), "no revocation list");
    // An expired CA beside the valid one.
    let bygone = Ca::root_with("bygone", |params| params.not_after = (SystemTime::now() - HOUR).into()).pem;
    spoilt("ca.pem", &|path| edit(path, |text| text + &bygone), "");
    assert_eq!(check(&folder).0, 0, "{}", check(&folder).1);
    std::fs::write(pki.join("clients.pem"), &bygone).unwrap();
    edit(&folder.gateway_config(), |text| {
        text.replace("client_ca = \"pki/ca.pem\"", "client_ca = \"pki/clients.pem\"")
    });
    let (code, told) = check(&folder);
    assert!(code == 2 && told.contains("has expired"), "{told}");
}

#[test]
fn t7_certs_show_reports_each_list() {
    let (_dir, folder) = crate::support::lay(&|_| {});
    folder.pki().issue("lost", &CertificateRole::Client("lost".into()), 5).unwrap();
    folder.pki().revoke(&crate::support::files(&folder, "lost").certificate).unwrap();
    let run = |args: &[&str]| {
        let command = [&["--output", "json", "certs", "show"], args].concat();
        let done = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway")).args(command).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice::<serde_json::Value>(&done.stdout).unwrap()
    };
    let file = folder.pki().crl();
    let shown = run(&[file.to_str().unwrap()]);
    let all = run(&["--config", folder.gateway_config().to_str().unwrap()]);
    let of_all = all.as_array().unwrap().iter().find(|row| row["list"].is_object()).unwrap();
    for list in [&shown[0], &of_all["list"]] {
        assert!(list["issuer"].as_str().unwrap().contains("development CA"), "{list}");
        assert_eq!(list["entries"], 1);
        assert!(!list["number"].as_str().unwrap().is_empty());
        // RFC 3339 in one zone: their order is that of the times.
        assert!(list["this_update"].as_str().unwrap() < list["next_update"].as_str().unwrap());
    }
}
