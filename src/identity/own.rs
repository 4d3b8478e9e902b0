//! Whether clients can trust the gateway's own certificate.

use super::files::{TlsFault, TlsFiles, certificates, fault};
use super::refused::plain;
use rustls_pki_types::{CertificateDer, ServerName};
use std::path::PathBuf;
use webpki::EndEntityCert;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The parts of the gateway's own chain that are checked repeatedly.
#[derive(Debug)]
pub(super) struct OwnChain {
    file: PathBuf,
    /// Subject, beginning and end of each certificate.
    chain: Vec<(String, i64, i64)>,
    /// Faults that do not depend on time.
    always: Vec<String>,
}

impl OwnChain {
    /// Reads the chain.
    pub(super) fn load(files: &TlsFiles) -> Result<Self, TlsFault> {
        let (file, mut chain) = (files.certificate.clone(), Vec::new());
        let all = certificates(&file)?;
        for (at, der) in all.iter().enumerate() {
            let wrong = |error: String| fault(&file, format!("certificate {}: {error}", at + 1));
            let (_, read) = X509Certificate::from_der(der).map_err(|error| wrong(error.to_string()))?;
            let validity = read.validity();
            let (begins, ends) = (validity.not_before.timestamp(), validity.not_after.timestamp());
            chain.push((plain(&read.subject().to_string(), 200), begins, ends));
        }
        let place = file.display();
        let always = all.first().map(|own| unusable(own, &files.names)).unwrap_or_default();
        let always = always.into_iter().map(|what| format!("{place}: the gateway's certificate {what}")).collect();
        Ok(OwnChain { file, chain, always })
    }

    /// Returns the present faults.
    pub(super) fn faults(&self, now: i64) -> Vec<String> {
        let mut faults = self.always.clone();
        for (subject, begins, ends) in &self.chain {
            let what = match (*begins > now, *ends < now) {
                (true, _) => "is not valid yet",
                (_, true) => "has expired",
                _ => continue,
            };
            faults.push(format!(
                "{}: the gateway's certificate {subject} {what}: no client believes it",
                self.file.display()
            ));
        }
        faults
    }
}

/// Returns why no client that uses one of these names can trust a certificate, at any time.
fn unusable(der: &CertificateDer<'_>, names: &[String]) -> Vec<String> {
    let Ok((_, read)) = X509Certificate::from_der(der) else { return Vec::new() };
    let mut faults = Vec::new();
    if let Ok(Some(usage)) = read.extended_key_usage()
        && !usage.value.server_auth
        && !usage.value.any
    {
        faults.push("is not for a server (extended key usage serverAuth)".to_owned());
    }
    let is_name = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
    let has_names = match read.subject_alternative_name() {
        Ok(Some(all)) => all.value.general_names.iter().any(is_name),
        _ => false,
    };
    if !has_names {
        faults.push("has no DNS name or address (subjectAltName) by which it can be called".to_owned());
        return faults;
    }
    let Ok(own) = EndEntityCert::try_from(der) else { return faults };
    for name in names {
        let fits =
            ServerName::try_from(name.as_str()).is_ok_and(|name| own.verify_is_valid_for_subject_name(&name).is_ok());
        if !fits {
            faults.push(format!("is not for {name}, by which clients call the gateway (tls.names)"));
        }
    }
    faults
}
