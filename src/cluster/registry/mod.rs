//! The registry over etcd: clients, grants, keys, staff, one state for all gateways.
//!
//! Each gateway keeps a replica in its own SQLite file, which calls and listings read as they always do. A change is judged
//! there, with every rule of the embedded registry, and rolled back; what it would change is put to etcd in one
//! transaction, if the registry is still the one that it was judged on ([`commit`]); then every gateway applies it
//! ([`follow`]). If another change was first, it is applied and the change is judged again: names stay unique, and the
//! second person another one, whatever gateways race.
//!
//! | key | value |
//! | --- | --- |
//! | `registry/version` | the [`RegistryHead`]: number and id of the last change |
//! | `registry/change/<number>` | the last [`JOURNAL`](follow::JOURNAL) changes, each as a whole: deletions are values here |
//! | `registry/row/<table>/<id>` | each row, for replicas that are too far behind |
//! | `log/registry.<incarnation>/<seq>` | the admin events of a change: a batch of the exchange log |
//!
//! **Admin events** enter the exchange log by the transaction of their change, as a batch of a writer that no gateway owns.
//! Its number and the hash before it are in the head, so there is one batch for each change, whichever gateway makes it and
//! whatever becomes of that gateway afterwards; the sealer collects it like any other.
//!
//! Bounds: [`MAX_ROWS`](change::MAX_ROWS) rows and [`MAX_BYTES`](change::MAX_BYTES) of them in a change, since etcd takes 128
//! operations and 1.5 MB in a transaction; more is refused with the numbers. Issued tokens
//! ([`issued`]) and the blocks of daily quotas ([`quota`]) have keys of their own, and do not wait for changes.

pub mod blocking;
pub mod change;
pub mod commit;
pub mod follow;
pub mod freshness;
pub mod import;
pub mod issued;
pub mod quota;
pub mod rates;
mod replica_state;

pub use blocking::BlockingCommits;
pub use change::{RegistryChange, RegistryHead, WRITER};
pub use follow::{ClusterRegistry, RegistrySettings};
pub use freshness::Freshness;
pub use import::RegistryImport;
pub use issued::IssuedTokens;
pub use quota::QuotaBlocks;
