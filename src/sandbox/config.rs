//! The sandbox's own configuration.

use super::hub::HubKeys;
use crate::config::{ConfigFault, Document, Table};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration of `sandbox`.
pub struct SandboxConfig {
    /// The seed that generates all records.
    pub seed: u64,
    /// Minimum number of people.
    pub people: usize,
    /// Address of fault control, plain HTTP on loopback.
    pub control: SocketAddr,
    /// Folder of recorded sources.
    pub records: Option<PathBuf>,
    /// The sandbox's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CA of the clients that may call the officials' database.
    pub client_ca: PathBuf,
    /// Hubs: id, address, keys.
    pub hubs: Vec<(String, SocketAddr, HubKeys)>,
    /// The portal's address and its login.
    pub publicservice: (SocketAddr, (String, String)),
    /// The catalogues' address and the value of `Authorization`.
    pub catalogue: (SocketAddr, String),
    /// The officials' address.
    pub officials: SocketAddr,
    /// The population database's direct endpoint: address, user and password of WS-Security.
    pub population: (SocketAddr, (String, String)),
}

impl SandboxConfig {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// All errors of the file, each with its line and remedy.
    pub fn load(file: &Path) -> Result<Self, Vec<ConfigFault>> {
        Document::open(file).map_err(|fault| vec![fault])?.read(read)
    }
}

fn address(table: &Table<'_>, key: &str, example: &str) -> Option<SocketAddr> {
    table.parsed(key, example, |text| match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        _ => Err("must be a loopback address: the sandbox is not a service for others".to_owned()),
    })
}

fn secret(table: &Table<'_>, key: &str) -> Option<String> {
    table.secret(key).map(|secret| secret.reveal().to_owned())
}

fn account(table: &Table<'_>) -> Option<(SocketAddr, (String, String))> {
    let listen = address(table, "listen", "127.0.0.1:9511");
    let username = table.needed("username", "quangninh");
    let password = secret(table, "password");
    Some((listen?, (username?, password?)))
}

fn read(table: &Table<'_>) -> Option<SandboxConfig> {
    let seed = table.number("seed", 22, 0..=u64::MAX);
    let people = table.number("people", 2_400, 2_000..=1_000_000) as usize;
    let control = address(table, "control", "127.0.0.1:9500");
    let records = table.path("records");
    let (certificate, key, client_ca) = table.section("tls", |tls| {
        let certificate = tls.needed_path("certificate", "pki/sandbox.pem");
        let key = tls.needed_path("key", "pki/sandbox.key");
        (certificate, key, tls.needed_path("client_ca", "pki/ca.pem"))
    });
    let hubs = table.section("hubs", |hubs| {
        let read = |id: String| {
            let (listen, keys) = hubs.section(&id, read_hub)?;
            Some((id, listen, keys))
        };
        hubs.keys().into_iter().map(read).collect::<Option<Vec<_>>>()
    });
    let sources = table.section("sources", |sources| {
        let publicservice = sources.section("publicservice", account);
        let population = sources.section("population", account);
        let catalogue = sources.section("catalogue", |source| {
            let listen = address(source, "listen", "127.0.0.1:9512");
            let basic = secret(source, "basic");
            Some((listen?, basic?))
        });
        let officials = sources.section("officials", |source| address(source, "listen", "127.0.0.1:9513"));
        Some((publicservice?, population?, catalogue?, officials?))
    });
    let (publicservice, population, catalogue, officials) = sources?;
    Some(SandboxConfig {
        seed,
        people,
        control: control?,
        records,
        certificate: certificate?,
        key: key?,
        client_ca: client_ca?,
        hubs: hubs?,
        publicservice,
        catalogue,
        officials,
        population,
    })
}

fn read_hub(table: &Table<'_>) -> Option<(SocketAddr, HubKeys)> {
    let listen = address(table, "listen", "127.0.0.1:9501");
    let consumer_key = table.needed("consumer_key", "quangninh");
    let consumer_secret = secret(table, "consumer_secret");
    let soap_user = table.needed("soap_user", "quangninh");
    let soap_secret = secret(table, "soap_secret");
    let api_key = secret(table, "api_key");
    let lgsp = table.table("lgsp").map(|lgsp| {
        let access = secret(&lgsp, "access_key");
        let key = secret(&lgsp, "secret_key");
        lgsp.refuse_unknown();
        access.zip(key)
    });
    let keys = HubKeys {
        consumer_key: consumer_key?,
        consumer_secret: consumer_secret?,
        soap_user: soap_user?,
        soap_secret: soap_secret?,
        api_key: api_key?,
        lgsp: lgsp.map_or(Some(None), |lgsp| lgsp.map(Some))?,
        xroad_clients: table.texts("xroad_clients"),
        token_lifetime: Duration::from_secs(table.number("token_life_s", 3_600, 1..=86_400)),
    };
    Some((listen?, keys))
}
