//! `[cluster]`: several gateways with one log and one registry, over etcd.

use super::{Table, endpoint};
use crate::cluster::GatewayName;
use crate::cluster::registry::WRITER;
use crate::contract::{CallShape, ContractSet, Operation};
use crate::identity::tls::{self, TlsFiles};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a gateway takes part in a cluster.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Its name in etcd, and that of its site: `node`.
    pub gateway: GatewayName,
    /// The members of etcd, that of the own data centre first.
    pub etcd: Vec<String>,
    /// TLS towards them; `None`: they are on this machine, and have none.
    pub tls: Option<rustls::ClientConfig>,
    /// Number of sites that store the log.
    pub sites: usize,
    /// The HTTPS ports of other sites' gateways, from which tiles are read.
    pub tiles: Vec<String>,
    /// TLS towards them.
    pub tiles_tls: rustls::ClientConfig,
    /// How old the view of the registry may be before calls are refused.
    pub max_view_age: Duration,
    /// The quota of etcd's database.
    pub etcd_quota: u64,
    /// How long calls wait for etcd before they are refused.
    pub refuse_after: Duration,
    /// How long a start waits for etcd.
    pub start_within: Duration,
    /// Maximum bytes of batches on the own disk.
    pub own_disk: u64,
    /// Operations (`source/Method`) that are answered from the own disk alone while no majority of etcd responds.
    pub spool: Vec<String>,
}

/// `node`, the gateway's own certificate and whether secrets are sealed come from the rest of the file.
pub(super) fn read(
    table: &Table<'_>,
    node: Option<&str>,
    own: Option<&TlsFiles>,
    seals: bool,
) -> Option<ClusterSettings> {
    let gateway = node.and_then(|node| own_name(table, node));
    if !seals {
        let what =
            "needs keys.encryption_secret, the same at every gateway: they share their keys through etcd, sealed by it";
        table.fault("etcd", what);
    }
    let etcd = members(table);
    let files = (table.path("ca"), table.path("certificate"), table.path("key"));
    let tls = etcd.as_deref().and_then(|etcd| match (etcd.iter().all(|url| url.starts_with("https:")), files) {
        (true, (Some(ca), Some(certificate), Some(key))) => {
            table.keep_private("key", &key);
            let config = tls::client_config(&ca, Some((&certificate, &key)), &[b"h2"]);
            config.map(Some).map_err(|fault| table.fault("certificate", fault)).ok()
        }
        (false, (None, None, None)) => Some(None),
        (true, _) => {
            table.fault(
                "ca",
                "needs ca, certificate and key: by which etcd's members are known, and this gateway to them",
            );
            None
        }
        (false, _) => {
            table.fault("ca", "is of no use for members without TLS");
            None
        }
    });
    let tiles_files = [table.path("tiles_ca"), table.path("tiles_certificate"), table.path("tiles_key")];
    let tiles_tls = own.and_then(|own| tiles_tls(table, tiles_files, own));
    let tiles = table.texts("tiles").into_iter().map(|url| other_site(table, &url)).collect::<Option<Vec<_>>>();
    let sites = table.number("sites", 3, 1..=60) as usize;
    let max_view_age = Duration::from_secs(table.number("max_view_age_s", 30, 2..=3_600));
    let etcd_quota = table.number("etcd_quota_mib", 4_096, 64..=8_192) << 20;
    let refuse_after = Duration::from_millis(table.number("refuse_after_ms", 900, 100..=60_000));
    let start_within = Duration::from_secs(table.number("start_within_s", 30, 1..=3_600));
    let spool = table.texts("spool");
    let own_disk = table.number("own_disk_mib", 16_384, 64..=1_048_576) << 20;
    let settings = ClusterSettings {
        gateway: gateway?,
        etcd: etcd?,
        tls: tls?,
        sites,
        tiles: tiles?,
        tiles_tls: tiles_tls?,
        max_view_age,
        etcd_quota,
        refuse_after,
        start_within,
        own_disk,
        spool,
    };
    seals.then_some(settings)
}

/// The name of the gateway is a part of keys in etcd.
fn own_name(table: &Table<'_>, node: &str) -> Option<GatewayName> {
    match GatewayName::parse(node) {
        Some(name) if node != WRITER => Some(name),
        _ => {
            let what = format!(
                "node = {node:?} cannot be a gateway of a cluster: lower-case letters, digits and hyphens, 32 at most, and not {WRITER:?}"
            );
            table.fault("etcd", what);
            None
        }
    }
}

/// An odd number of members, all with TLS or all on this machine.
fn members(table: &Table<'_>) -> Option<Vec<String>> {
    let example = "https://etcd.dc1:2379";
    let urls = table.text_or_texts("etcd", example)?;
    let checked: Result<Vec<String>, String> = urls.iter().map(|url| endpoint::read(url, "a member")).collect();
    let urls = checked.map_err(|reason| table.fault("etcd", reason)).ok()?;
    let mixed = urls.iter().any(|url| url.starts_with("https:")) && urls.iter().any(|url| url.starts_with("http:"));
    let fault = match urls.len() {
        _ if mixed => "must be all https, or all http on this machine",
        1 | 3 | 5 => return Some(urls),
        _ => "must name one, three or five members: an even number bears the loss of no more members than one fewer",
    };
    table.fault("etcd", fault);
    None
}

/// How this gateway is known to other sites: by its own certificate, unless another one is named.
fn tiles_tls(
    table: &Table<'_>,
    [ca, certificate, key]: [Option<PathBuf>; 3],
    own: &TlsFiles,
) -> Option<rustls::ClientConfig> {
    let ca = ca.unwrap_or_else(|| own.client_ca.clone());
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            table.keep_private("tiles_key", &key);
            (certificate, key)
        }
        (None, None) => (own.certificate.clone(), own.key.clone()),
        _ => {
            table.fault("tiles_certificate", "needs tiles_certificate and tiles_key, or neither");
            return None;
        }
    };
    let made = tls::client_config(&ca, Some((&certificate, &key)), &[]);
    made.map_err(|fault| table.fault("tiles_certificate", fault)).ok()
}

fn other_site(table: &Table<'_>, text: &str) -> Option<String> {
    let uri = text.parse::<http::Uri>().ok();
    let is_port = uri.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some() && uri.path() == "/");
    if !is_port {
        table.fault("tiles", format!("{text:?} must be https://host:port, the HTTPS port of another site's gateway"));
    }
    is_port.then(|| text.trim_end_matches('/').to_owned())
}

impl ClusterSettings {
    /// Returns the paths of the operations that may be answered without a majority.
    ///
    /// # Errors
    /// The reason that one of them cannot: it must be a read with one response.
    pub fn spooled(&self, contracts: &ContractSet) -> Result<HashSet<String>, String> {
        let named = |name: &String| {
            let is_it = |operation: &&&Arc<Operation>| format!("{}/{}", operation.source.id, operation.name) == *name;
            match contracts.operations().iter().find(is_it) {
                Some(operation) if operation.shape == CallShape::Unary && !operation.writes => {
                    Ok(operation.path.clone())
                }
                Some(_) => Err(format!("{name:?} writes, or is a stream: reads with one response can be spooled")),
                None => Err(format!("no contract has {name:?}: write source/Method, as budgetunit/GetUnit")),
            }
        };
        self.spool.iter().map(named).collect()
    }
}
