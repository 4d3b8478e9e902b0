//! A witness's configuration.

use crate::config::{ConfigFault, Document, Table};
use crate::exchange_log::checkpoint::LogVerifier;
use crate::keyfile::Vault;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Everything that `witness` needs, checked.
pub struct WitnessConfig {
    /// Its name in its key and in each cosignature, a schema-less URL.
    pub name: String,
    /// The address of its HTTPS port.
    pub listen: SocketAddr,
    /// The folder of its keys and of what it has signed.
    pub state: PathBuf,
    /// Certificate chain (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// The keys of the logs that it signs for; a log that changes its key has several of the same origin.
    pub logs: Vec<LogVerifier>,
    /// By the origin of each log, the folder in which a gateway of this site stores it: the witness signs only what is there.
    /// Empty: it signs without the entries.
    pub stores: BTreeMap<String, PathBuf>,
    /// Reads and writes its signing key.
    pub vault: Vault,
}

impl WitnessConfig {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// All faults together, with file, line and reason.
    pub fn load(file: &Path) -> Result<Self, Vec<ConfigFault>> {
        Document::open(file).map_err(|fault| vec![fault])?.read(read)
    }
}

fn read(table: &Table<'_>) -> Option<WitnessConfig> {
    let name = table.parsed("name", "witness.dc2.quangninh.gov.vn", crate::config::schemaless);
    let listen = table.parsed("listen", "0.0.0.0:8444", crate::config::address);
    let state = table.needed_path("state", "witness");
    let (certificate, key) = table.section("tls", |tls| {
        (tls.needed_path("certificate", "pki/witness.pem"), tls.needed_path("key", "pki/witness.key"))
    });
    let vault = table.section("keys", |keys| {
        if keys.has("encryption_secret") { crate::config::read_vault(keys) } else { Some(Vault::default()) }
    });
    let vkeys = table.texts("logs");
    if vkeys.is_empty() {
        table.fault("logs", "must list the key of each log that is witnessed: logs = [\"name+hash+key\"]");
    }
    let mut logs = Vec::new();
    for vkey in &vkeys {
        match LogVerifier::parse(vkey) {
            Ok(log) => logs.push(log),
            Err(error) => table.fault("logs", format!("{vkey:?}: {error}")),
        }
    }
    if let Some((_, twice)) = logs.iter().enumerate().find(|(at, log)| logs[..*at].contains(log)) {
        table.fault("logs", format!("{twice} is listed twice"));
    }
    let stores = read_stores(table, &logs);
    Some(WitnessConfig {
        name: name?,
        listen: listen?,
        state: state?,
        certificate: certificate?,
        key: key?,
        logs,
        stores,
        vault: vault?,
    })
}

/// Reads where the logs are stored. A key makes one statement about every log (C2SP tlog-cosignature): all of them, or none.
fn read_stores(table: &Table<'_>, logs: &[LogVerifier]) -> BTreeMap<String, PathBuf> {
    let origins: BTreeSet<&str> = logs.iter().map(LogVerifier::origin).collect();
    table.section("stores", |stores| {
        let names = stores.keys();
        for name in names.iter().filter(|name| !origins.contains(name.as_str())) {
            let known = origins.iter().copied().collect::<Vec<_>>().join(", ");
            stores.fault(name, format!("is the origin of no log that is listed in logs: {known}"));
        }
        for origin in origins.iter().filter(|origin| !names.is_empty() && !names.iter().any(|name| name == *origin)) {
            stores.fault(origin, "is missing: a witness that stores entries stores those of each of its logs");
        }
        let folder = |name: &String| Some((name.clone(), stores.needed_path(name, "/var/lib/ndxp/log")?));
        names.iter().filter_map(folder).collect()
    })
}
