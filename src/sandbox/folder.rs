//! A development folder: PKI, secrets, the log's key, the configurations of gateway and sandbox, created from `seeds/`.

use crate::exchange_log::key;
use crate::keyfile::{Vault, write_private};
use crate::pki::{CertificateRole, DEFAULT_DAYS, Pki, PkiError};
use crate::sandbox::ports::Ports;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::{Path, PathBuf};

/// Every file of `seeds/` from which a folder is created.
const FILES: [(&str, &str); 17] = [
    ("gateway.toml", include_str!("../../seeds/gateway.toml")),
    ("names.toml", include_str!("../../seeds/names.toml")),
    ("sandbox.toml", include_str!("../../seeds/sandbox.toml")),
    ("hubs/ndxp.toml", include_str!("../../seeds/hubs/ndxp.toml")),
    ("hubs/lgsp.toml", include_str!("../../seeds/hubs/lgsp.toml")),
    ("hubs/vdxp.toml", include_str!("../../seeds/hubs/vdxp.toml")),
    ("hubs/ndop.toml", include_str!("../../seeds/hubs/ndop.toml")),
    ("sources/population.toml", include_str!("../../seeds/sources/population.toml")),
    ("sources/publicservice.toml", include_str!("../../seeds/sources/publicservice.toml")),
    ("sources/business.toml", include_str!("../../seeds/sources/business.toml")),
    ("sources/insurance.toml", include_str!("../../seeds/sources/insurance.toml")),
    ("sources/civilstatus.toml", include_str!("../../seeds/sources/civilstatus.toml")),
    ("sources/criminalrecord.toml", include_str!("../../seeds/sources/criminalrecord.toml")),
    ("sources/land.toml", include_str!("../../seeds/sources/land.toml")),
    ("sources/catalogue.toml", include_str!("../../seeds/sources/catalogue.toml")),
    ("sources/budgetunit.toml", include_str!("../../seeds/sources/budgetunit.toml")),
    ("sources/officials.toml", include_str!("../../seeds/sources/officials.toml")),
];

/// Secrets shared by gateway and sandbox, new for each folder.
const SECRETS: [&str; 12] = [
    "ndxp-consumer",
    "ndxp-soap",
    "ndxp-api-key",
    "lgsp-consumer",
    "lgsp-access",
    "lgsp-secret",
    "vdxp-consumer",
    "ndop-consumer",
    "ndop-soap",
    "ndop-api-key",
    "publicservice",
    "catalogue",
];

/// The ports in the seeds.
const PORTS: [u16; 12] = [7443, 8443, 9464, 9500, 9501, 9502, 9503, 9504, 9511, 9512, 9513, 9514];

/// Returns the seeds' hubs and sources as examples of a production folder: file name and text, their addresses to be filled in.
pub fn examples() -> impl Iterator<Item = (&'static str, String)> {
    let entries = FILES.iter().filter(|(name, _)| name.starts_with("hubs/") || name.starts_with("sources/"));
    entries.map(|(name, text)| {
        let line = |line: &str| match line.starts_with("address = ") {
            true => "address = \"https://FILL-IN.example:443\"\n".to_owned(),
            false => format!("{line}\n"),
        };
        (*name, text.lines().map(line).collect())
    })
}

/// A development folder.
#[derive(Debug, Clone)]
pub struct DevFolder {
    /// Its path.
    pub path: PathBuf,
    _ports: Option<Ports>,
}

impl DevFolder {
    /// Creates a folder with the seeds' own ports.
    ///
    /// # Errors
    /// [`PkiError`] if a certificate cannot be created or a file cannot be written.
    pub fn create(path: &Path) -> Result<Self, PkiError> {
        Self::lay(path, &PORTS, None)
    }

    /// Creates a folder with ports that are free now, and that no other folder gets while this value lives: for concurrent
    /// demos and tests.
    ///
    /// # Errors
    /// [`PkiError`] as for [`DevFolder::create`], and if no ports are free.
    pub fn with_free_ports(path: &Path) -> Result<Self, PkiError> {
        let taken = Ports::take(PORTS.len() as u16);
        let taken = taken.map_err(|error| PkiError::File(path.to_owned(), error.to_string()))?;
        Self::lay(path, &taken.iter().collect::<Vec<_>>(), Some(taken))
    }

    fn lay(path: &Path, ports: &[u16], taken: Option<Ports>) -> Result<Self, PkiError> {
        let folder = DevFolder { path: path.to_owned(), _ports: taken };
        if folder.gateway_config().exists() {
            return Err(PkiError::Exists(folder.gateway_config()));
        }
        for below in ["hubs", "sources", "records", "contracts", "secrets", "pki"] {
            let below = path.join(below);
            std::fs::create_dir_all(&below).map_err(|error| PkiError::File(below, error.to_string()))?;
        }
        for (name, text) in FILES {
            let text = with_ports(text, ports);
            let file = path.join(name);
            std::fs::write(&file, text).map_err(|error| PkiError::File(file, error.to_string()))?;
        }
        for name in SECRETS.iter().chain(&["population"]) {
            let file = path.join("secrets").join(name);
            let secret = uuid::Uuid::new_v4().simple().to_string();
            // The catalogues' direct endpoint uses Basic (RFC 7617): the complete header value is the secret.
            let secret = match *name {
                "catalogue" => format!("Basic {}", STANDARD.encode(format!("quangninh:{secret}"))),
                _ => secret,
            };
            write_private(&file, secret.as_bytes()).map_err(|error| PkiError::File(file, error.to_string()))?;
        }
        let pki = folder.pki();
        pki.init()?;
        let local = || CertificateRole::Server(vec!["localhost".into(), "127.0.0.1".into()]);
        pki.issue("gateway", &local(), DEFAULT_DAYS)?;
        pki.issue("sandbox", &local(), DEFAULT_DAYS)?;
        pki.issue("to-sources", &CertificateRole::Client("gateway".into()), DEFAULT_DAYS)?;
        let data = path.join("data");
        key::make(&data, &Vault::default()).map_err(|error| PkiError::File(data, error.to_string()))?;
        Ok(folder)
    }

    /// Returns the path of the gateway's configuration.
    pub fn gateway_config(&self) -> PathBuf {
        self.path.join("gateway.toml")
    }

    /// Returns the path of the sandbox's configuration.
    pub fn sandbox_config(&self) -> PathBuf {
        self.path.join("sandbox.toml")
    }

    /// Returns the path of its CA.
    pub fn pki(&self) -> Pki {
        Pki::at(&self.path.join("pki"))
    }
}

/// Replaces the seeds' ports, each once: a new port may look like another seed's.
fn with_ports(text: &str, ports: &[u16]) -> String {
    const HOST: &str = "127.0.0.1:";
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(HOST) {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let seed = after[..digits].parse::<u16>().ok();
        let port = PORTS.iter().zip(ports).find(|(known, _)| Some(**known) == seed).map(|(_, port)| *port);
        out.push_str(before);
        out.push_str(HOST);
        out.push_str(&port.map_or_else(|| after[..digits].to_owned(), |port| port.to_string()));
        rest = &after[digits..];
    }
    out + rest
}
