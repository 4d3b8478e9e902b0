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
    /// Their files, which were not taken when they changed.
    TlsFiles,
    /// The registry, whose changes cannot be followed: what is revoked or suspended does not come into force.
    Registry,
    /// The events of administrators, which do not get into the exchange log.
    AdminEvents,
    /// The comparison of the registry with the log, which fails: nobody can say whether its file was edited.
    Comparison,
}

impl Component {
    /// Every part.
    pub const ALL: [Component; 5] =
        [Component::Tls, Component::TlsFiles, Component::Registry, Component::AdminEvents, Component::Comparison];

    /// Its name in the metric.
    pub fn label(self) -> &'static str {
        match self {
            Component::Tls => "tls",
            Component::TlsFiles => "tls_files",
            Component::Registry => "registry",
            Component::AdminEvents => "admin_events",
            Component::Comparison => "registry_comparison",
        }
    }
}

/// What is wrong at this moment. Written by the threads of the control plane, each its own parts.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<BTreeMap<Component, Vec<String>>>);

impl Readiness {
    /// Says what is wrong with a part; nothing: it is in order.
    pub fn set(&self, part: Component, faults: Vec<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.insert(part, faults.clone()).unwrap_or_default();
        drop(all);
        for fault in faults.iter().filter(|fault| !before.contains(fault)) {
            tracing::error!(part = part.label(), "not ready: {fault}");
        }
        if faults.is_empty() && !before.is_empty() {
            tracing::info!(part = part.label(), "in order again");
        }
    }

    /// Everything that is wrong.
    pub fn faults(&self) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().flatten().cloned().collect()
    }

    /// Whether a part is at fault.
    pub fn is_at_fault(&self, part: Component) -> bool {
        self.count(part) > 0
    }

    /// How much is wrong with a part.
    pub fn count(&self, part: Component) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&part).map_or(0, Vec::len)
    }
}

/// For readiness: whole days that are left, where they are fewer than configured.
#[derive(Debug)]
pub struct DaysRemaining(AtomicU32);

impl Default for DaysRemaining {
    fn default() -> Self {
        DaysRemaining(AtomicU32::new(u32::MAX))
    }
}

impl DaysRemaining {
    /// As a line of `/readyz`.
    pub(super) fn line(&self) -> Option<String> {
        let days = self.0.load(Ordering::Relaxed);
        (days != u32::MAX).then(|| format!("the disk of the data folder is full in about {days} days\n"))
    }

    /// So many are left; `None`: more than are configured.
    pub(super) fn set(&self, days: Option<u32>) {
        self.0.store(days.unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}
