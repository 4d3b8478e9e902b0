//! What an operator looks at: the members, and what etcd holds of log and registry.

use super::ClusterError;
use super::adoption::{self, EtcdLog};
use super::keys::{self, GatewayName, SEALER, STORED};
use super::member::{EtcdMember, MemberStatus, RangeRead};
use super::members::EtcdMembers;
use super::registry::change::{RegistryHead, VERSION};
use super::report::{self, GatewayReport};
use super::timers::Timers;

/// What etcd holds, at about the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterOverview {
    /// The log.
    pub log: EtcdLog,
    /// The gateway that seals, if one is elected.
    pub sealer: Option<String>,
    /// How many entries each site stores.
    pub sites: Vec<(GatewayName, u64)>,
    /// What each gateway has said of itself last, whether it still runs or not.
    pub gateways: Vec<GatewayReport>,
    /// The last change of the registry, if there is one.
    pub registry: Option<RegistryHead>,
}

/// Returns what each member says of itself, in the order of the members.
pub async fn members<M: EtcdMember, T: Timers>(members: &EtcdMembers<M, T>) -> Vec<Result<MemberStatus, ClusterError>> {
    members.each(|member| member.status()).await
}

/// Reads what etcd holds.
///
/// # Errors
/// [`ClusterError::Malformed`]; as for [`EtcdMembers::range`].
pub async fn read<M: EtcdMember, T: Timers>(members: &EtcdMembers<M, T>) -> Result<ClusterOverview, ClusterError> {
    let log = adoption::present(members).await?;
    let sealer = members.range(&RangeRead::key(SEALER)).await?.entries.into_iter().next();
    let sealer = sealer.and_then(|entry| Some(String::from_utf8(entry.value).ok()?.split('.').next()?.to_owned()));
    let stored = members.range(&RangeRead::prefix(STORED)).await?.entries;
    let site = |key: &[u8], value: &[u8]| {
        let name = std::str::from_utf8(key.strip_prefix(STORED)?).ok().and_then(GatewayName::parse)?;
        Some((name, keys::parse_number(value)?))
    };
    let sites = stored.iter().filter_map(|entry| site(&entry.key, &entry.value)).collect();
    let head = members.range(&RangeRead::key(VERSION)).await?.entries.into_iter().next();
    let registry = head.map(|entry| RegistryHead::decode(&entry.value)).transpose()?;
    let gateways = report::all(members).await?;
    Ok(ClusterOverview { log, sealer, sites, gateways, registry })
}
