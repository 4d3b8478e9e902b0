//! The registry over etcd by seed: three gateways whose replicas are real files with the rules of the real registry
//! (`src/registry/sqlite`), over the simulated etcd. `docs/cluster-simulator.md`.

mod final_state;
mod gateway;
#[cfg(not(simulator))]
pub mod load;
mod operations;
#[cfg(not(simulator))]
pub mod process;
mod promises;
#[cfg(not(simulator))]
pub mod real;
mod scenario;

pub use scenario::run;
