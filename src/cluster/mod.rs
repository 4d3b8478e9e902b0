//! The exchange log over etcd: many gateways write, one of them at a time seals, and no answered exchange is lost when a
//! machine or a data centre is.
//!
//! The life of a batch: [`BatchWriter`] numbers it and makes it durable on the gateway's own disk and by a conditional put
//! in etcd, in parallel; when both are done, its responses may be sent → the elected [`ClusterSealer`] collects the
//! batches that are present at one revision, in the order of their modification revisions, and computes the next tree →
//! one transaction moves the checkpoint, if nobody else has moved it ([`commit`]) → a majority of the members confirms
//! it, and only now the signed checkpoint leaves the process → each site stores the tiles → batches that a majority of
//! the sites stores are deleted ([`reclaim`]).
//!
//! Order of the files, lowest first: values ([`keys`], [`batch`], [`peaks`], [`state`], [`left`], [`sealing`], [`highest`], encoded by
//! `codec`), the contracts with etcd ([`member`]) and the own disk ([`own_disk`]), the failover ([`members`]), guards
//! ([`guard`], [`version`], [`pressure`]), the steps ([`writer`], [`election`], [`collect`], [`commit`], [`reclaim`],
//! [`retirement`]), what joins them ([`sealer`], [`site`]), what follows a restore of etcd ([`epoch`]), and how a log that one
//! gateway has written alone comes here and goes back ([`adoption`]), and what an operator looks at ([`status`],
//! [`report`]). Nothing here opens a socket but [`etcd`]; nothing reads a clock but through [`Timers`]. So
//! `simulator/cluster` runs this source over a simulated etcd by seed.
//!
//! [`registry`] keeps one state of clients, grants and staff for all gateways beside it, over the same members and values.
//!
//! Bounds: a batch has at most 128 kB of entries and 4,096 of them; a writer has at most 8 in flight; a sealing takes at
//! most 512 batches of 100 writers; a term remembers 1,024 sealings that no majority stores yet; the sealed state has the
//! writers that run, and those that have ended until a majority stores what they have written.

pub mod adoption;
pub mod batch;
mod codec;
pub mod collect;
pub mod commit;
pub mod election;
pub mod epoch;
#[cfg(not(simulator))]
pub mod etcd;
pub mod guard;
pub mod highest;
pub mod keys;
pub mod left;
pub mod member;
pub mod members;
pub mod own_disk;
pub mod peaks;
pub mod pressure;
pub mod reclaim;
pub mod registry;
pub mod report;
pub mod retirement;
pub mod sealer;
pub mod sealing;
pub mod secrets;
pub mod site;
pub mod state;
pub mod status;
pub mod timers;
pub mod version;
pub mod writer;

pub use keys::{GatewayName, Incarnation};
pub use members::EtcdMembers;
pub use sealer::ClusterSealer;
pub use timers::Timers;
pub use writer::BatchWriter;

/// The reason that a step of the log over etcd did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The request may have been carried out or not. Only the same request may be repeated.
    #[error("the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    /// The member has no leader, or no member responds: nothing was carried out by it.
    #[error("etcd has no quorum")]
    NoQuorum,
    /// The revision was compacted: the reader begins again at a newer one.
    #[error("etcd has compacted this revision")]
    Compacted,
    /// The member does not have the revision yet. A linearizable read of a revision that was seen never finds this, unless
    /// the member was rolled back.
    #[error("the revision is in the future")]
    FutureRevision,
    /// The database has reached its quota, and refuses every put.
    #[error("etcd's database has reached its quota")]
    NoSpace,
    /// The lease has expired.
    #[error("the lease has expired")]
    LeaseExpired,
    /// etcd refuses the request as such; repeating it is of no use.
    #[error("etcd refuses the request: {0}")]
    Refused(String),
    /// A member's version is too old for the log.
    #[error("member {member} runs etcd {version}: at least {} is needed", version::OLDEST)]
    VersionTooOld {
        /// The member's id.
        member: u64,
        /// What it runs.
        version: String,
    },
    /// The log was not begun in this etcd.
    #[error("this etcd holds no log: begin one, or restore it")]
    NoLog,
    /// The log has left this etcd: one gateway writes it alone now.
    #[error("the log has left this etcd: gateway {0} writes it alone since; `cluster begin` there brings it back")]
    Left(GatewayName),
    /// No registry was begun in this etcd.
    #[error("this etcd holds no registry: begin one, or restore it")]
    NoRegistry,
    /// etcd is behind what this gateway has seen, or another cluster.
    #[error("ETCD_ROLLED_BACK: {0}")]
    RolledBack(String),
    /// The members do not hold the same data.
    #[error("ETCD_DIVERGED: {0}")]
    Diverged(String),
    /// The checkpoint was not confirmed by a majority of the members.
    #[error("no majority of the members confirms the checkpoint")]
    NotConfirmed,
    /// Another sealer has moved the checkpoint, or was elected.
    #[error("the term of this sealer has ended")]
    TermEnded,
    /// The incarnation was used before: another has to be drawn.
    #[error("the incarnation {0} exists already")]
    IncarnationTaken(Incarnation),
    /// A key holds another batch than the one that was put.
    #[error("{key} holds another batch")]
    Conflict {
        /// The key.
        key: String,
    },
    /// A value is not what this program writes.
    #[error("{key}: {reason}")]
    Malformed {
        /// The key, or the name of the value.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A writer's batches do not follow each other.
    #[error("batch {seq} of {writer} does not follow the one before it")]
    ChainBroken {
        /// The writer.
        writer: Incarnation,
        /// The batch.
        seq: u64,
    },
    /// The batches wait for more room in etcd.
    #[error("EXCHANGE_LOG_UNAVAILABLE: {0}")]
    Overloaded(String),
    /// The gateway's own disk, or its tiles.
    #[error("the own disk: {0}")]
    OwnDisk(String),
    /// The checkpoint cannot be signed, or a witness does not respond.
    #[error("signing: {0}")]
    Signing(String),
}

impl ClusterError {
    /// Whether the error may pass by itself: the request is repeated, or the term ends and another begins. Anything else
    /// stops the log on this gateway until a person has looked.
    pub fn may_pass(&self) -> bool {
        match self {
            ClusterError::OutcomeUnknown(_)
            | ClusterError::NoQuorum
            | ClusterError::Compacted
            | ClusterError::FutureRevision
            | ClusterError::NoSpace
            | ClusterError::LeaseExpired
            | ClusterError::NotConfirmed
            | ClusterError::TermEnded
            | ClusterError::IncarnationTaken(_)
            | ClusterError::Overloaded(_)
            | ClusterError::Signing(_) => true,
            ClusterError::Refused(_)
            | ClusterError::VersionTooOld { .. }
            | ClusterError::NoLog
            | ClusterError::Left(_)
            | ClusterError::NoRegistry
            | ClusterError::RolledBack(_)
            | ClusterError::Diverged(_)
            | ClusterError::Conflict { .. }
            | ClusterError::Malformed { .. }
            | ClusterError::ChainBroken { .. }
            | ClusterError::OwnDisk(_) => false,
        }
    }

    /// The name of the state in which the log stops on this gateway, if the error [does not pass](Self::may_pass).
    pub fn state(&self) -> &'static str {
        match self {
            ClusterError::RolledBack(_) => "ETCD_ROLLED_BACK",
            ClusterError::Diverged(_) => "ETCD_DIVERGED",
            ClusterError::VersionTooOld { .. } => "ETCD_TOO_OLD",
            ClusterError::NoLog | ClusterError::NoRegistry => "ETCD_EMPTY",
            ClusterError::Refused(_) => "ETCD_REFUSES",
            ClusterError::Conflict { .. } | ClusterError::ChainBroken { .. } | ClusterError::Malformed { .. } => {
                "LOG_INCONSISTENT"
            }
            ClusterError::OwnDisk(_) => "OWN_DISK",
            _ => "UNAVAILABLE",
        }
    }

    fn malformed(key: impl Into<String>, reason: impl Into<String>) -> Self {
        ClusterError::Malformed { key: key.into(), reason: reason.into() }
    }
}
