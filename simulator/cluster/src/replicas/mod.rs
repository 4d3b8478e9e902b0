//! The registry over etcd by seed: three gateways whose replicas are real files with the rules of the real registry
//! (`src/registry/sqlite`), over the simulated etcd. `docs/cluster-simulator.md`.

mod final_state;
mod gateway;
mod operations;
mod promises;
mod scenario;

pub use scenario::run;
