//! Faults between gateways and members, at random.

use crate::runtime::{Runtime, locked};
use crate::simulated::{MEMBERS, SimulatedEtcd};
use std::sync::Mutex;

/// Requests and responses are lost or late from now on, and watches lose what they should report.
pub fn harm_network(runtime: &Runtime, etcd: &Mutex<SimulatedEtcd>) {
    let (loss, delay) = (runtime.below(60), runtime.below(30));
    let mut etcd = locked(etcd);
    etcd.faults.loss = if loss < 5 { 0 } else { loss };
    etcd.faults.delay = if delay < 3 { 0 } else { delay };
    etcd.faults.watches = 3;
}

/// A gateway and a member cannot reach each other any more, or a member the others; or all of them can again.
pub fn cut(runtime: &Runtime, etcd: &Mutex<SimulatedEtcd>, gateways: usize) {
    let (machine, member) = (runtime.below(gateways as u64) as usize, some_member(runtime));
    let kind = runtime.below(6);
    let mut etcd = locked(etcd);
    let faults = &mut etcd.faults;
    match kind {
        0 => drop(faults.no_request.insert((machine, member))),
        1 => drop(faults.no_response.insert((machine, member))),
        2 => faults.no_request.extend((0..MEMBERS).map(|member| (machine, member))),
        3 => faults.no_response.extend((0..MEMBERS).map(|member| (machine, member))),
        4 => drop(faults.isolated.insert(member)),
        _ => {
            faults.no_request.clear();
            faults.no_response.clear();
            faults.isolated.clear();
        }
    }
}

/// A member is down from now on, or all of them are up.
pub fn stop_member(runtime: &Runtime, etcd: &Mutex<SimulatedEtcd>) {
    let (member, starts) = (some_member(runtime), runtime.one_in(2));
    let mut etcd = locked(etcd);
    if starts {
        etcd.faults.down.clear();
    } else {
        etcd.faults.down.insert(member);
    }
}

/// One of the members.
pub fn some_member(runtime: &Runtime) -> usize {
    runtime.below(MEMBERS as u64) as usize
}
