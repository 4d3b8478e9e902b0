//! The pools of the service's blocking work.

use crate::shares::{ShareMetrics, ShareRate};
use crate::work::{WorkLimits, WorkPool};

/// Reads in flight: a person may page through several listings at once; two of them run, each for as long as a page
/// takes (about 40 ms); the other threads are for other people.
const READS: WorkLimits = WorkLimits { running: 4, all: 64, each: 8, rate: None };
/// Changes in flight, which never wait for reads: the store makes one at a time.
const WRITES: WorkLimits = WorkLimits { running: 4, all: 64, each: 16, rate: None };

/// Clients' questions about themselves, apart from those of staff.
const CLIENTS: WorkLimits =
    WorkLimits { running: 1, all: 64, each: 4, rate: Some(ShareRate { per_second: 10, burst: 50 }) };

/// The pools of the service's blocking work.
#[derive(Clone)]
pub struct AdminWork {
    pub(super) reads: WorkPool,
    pub(super) writes: WorkPool,
    pub(super) clients: WorkPool,
}

impl AdminWork {
    /// Makes separate pools for reads, for changes, and for clients, counted in these metrics.
    pub fn new(reads: ShareMetrics, writes: ShareMetrics, clients: ShareMetrics) -> Self {
        AdminWork {
            reads: WorkPool::new(READS, reads),
            writes: WorkPool::new(WRITES, writes),
            clients: WorkPool::new(CLIENTS, clients),
        }
    }
}

impl Default for AdminWork {
    /// Makes pools without metrics.
    fn default() -> Self {
        AdminWork::new(ShareMetrics::default(), ShareMetrics::default(), ShareMetrics::default())
    }
}
