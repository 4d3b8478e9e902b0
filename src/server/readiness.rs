//! What keeps a gateway from doing its work, by part: `/readyz` names it, the metric `ndxp_faults` counts it, and the log reports when it
//! appears and disappears.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// A part of the gateway that may be at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// Certificates, CAs and revocation lists in force.
    Tls,
    /// Their files, if they were rejected when they changed.
    TlsFiles,
    /// The registry, if its changes cannot be followed: revocations and suspensions do not take effect.
    Registry,
    /// Admin events, if they do not get into the exchange log.
    AdminEvents,
    /// The comparison of the registry with the log, if it fails: the gateway cannot check whether the file was edited.
    Comparison,
    /// Contracts, entries of sources and hubs, and names, if they were rejected when they changed: what was loaded before stays in
    /// force, so the gateway stays ready.
    Configuration,
    /// The log's tiles in the object store, if they are not this log's. The log itself is in order, so the gateway stays ready.
    ObjectStore,
    /// The object store, if it is away: what is missing there is uploaded later, so the gateway stays ready.
    ObjectStoreAccess,
}

impl Component {
    /// Every part.
    pub const ALL: [Component; 8] = [
        Component::Tls,
        Component::TlsFiles,
        Component::Registry,
        Component::AdminEvents,
        Component::Comparison,
        Component::Configuration,
        Component::ObjectStore,
        Component::ObjectStoreAccess,
    ];

    /// Its name in the metric.
    pub fn label(self) -> &'static str {
        match self {
            Component::Tls => "tls",
            Component::TlsFiles => "tls_files",
            Component::Registry => "registry",
            Component::AdminEvents => "admin_events",
            Component::Comparison => "registry_comparison",
            Component::Configuration => "configuration",
            Component::ObjectStore => "object_store",
            Component::ObjectStoreAccess => "object_store_access",
        }
    }

    /// Returns whether a fault of this part makes the gateway not ready.
    fn is_needed(self) -> bool {
        !matches!(self, Component::Configuration | Component::ObjectStore | Component::ObjectStoreAccess)
    }
}

/// The present faults. Each thread of the control plane writes those of its own parts.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<BTreeMap<Component, Vec<String>>>);

impl Readiness {
    /// Sets the faults of a part; none: it is in order.
    pub fn set(&self, part: Component, faults: Vec<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.insert(part, faults.clone()).unwrap_or_default();
        drop(all);
        for fault in faults.iter().filter(|fault| !before.contains(fault)) {
            let state = if part.is_needed() { "not ready" } else { "ready all the same" };
            match part {
                Component::ObjectStoreAccess => tracing::warn!(part = part.label(), "{state}: {fault}"),
                _ => tracing::error!(part = part.label(), "{state}: {fault}"),
            }
        }
        if faults.is_empty() && !before.is_empty() {
            tracing::info!(part = part.label(), "in order again");
        }
    }

    /// Returns the faults that make the gateway not ready.
    pub fn faults(&self) -> Vec<String> {
        self.of(Component::is_needed)
    }

    /// Returns the faults with which the gateway is ready all the same: an operator must look.
    pub fn warnings(&self) -> Vec<String> {
        self.of(|part| !part.is_needed())
    }

    fn of(&self, which: impl Fn(Component) -> bool) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(part, _)| which(**part)).flat_map(|(_, faults)| faults).cloned().collect()
    }

    /// Returns whether a part is at fault.
    pub fn is_at_fault(&self, part: Component) -> bool {
        self.count(part) > 0
    }

    /// Returns the number of a part's faults.
    pub fn count(&self, part: Component) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&part).map_or(0, Vec::len)
    }
}

/// For readiness: the days that remain, if they are fewer than configured.
#[derive(Debug)]
pub struct DaysRemaining(AtomicU32);

impl Default for DaysRemaining {
    fn default() -> Self {
        DaysRemaining(AtomicU32::new(u32::MAX))
    }
}

impl DaysRemaining {
    /// Returns the line of `/readyz`.
    pub(super) fn line(&self) -> Option<String> {
        let days = self.0.load(Ordering::Relaxed);
        (days != u32::MAX).then(|| format!("the disk of the data folder is full in about {days} days\n"))
    }

    /// Sets the days that remain; `None`: more than configured.
    pub(super) fn set(&self, days: Option<u32>) {
        self.0.store(days.unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}
