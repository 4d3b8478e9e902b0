//! Back-pressure long before the quota: at the quota etcd refuses leases and every put, the sealer's own too, so nobody can
//! free space any more.

use super::ClusterError;
use super::member::EtcdMember;
use super::members::EtcdMembers;
use super::timers::Timers;
use std::time::Duration;

/// How often the bytes in use are read.
pub const MEASURE_EACH: Duration = Duration::from_secs(1);
/// The longest pause before a batch.
const MAX_DELAY: Duration = Duration::from_millis(200);

/// What the room in etcd permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Batches are written at once.
    None,
    /// Before each batch, the writer pauses: from a quarter of the quota on, the longer the less room there is.
    Slow(Duration),
    /// Nothing is accepted: half of the quota is in use.
    Refuse,
}

impl Pressure {
    /// The pressure at so many bytes in use.
    pub fn at(bytes_in_use: u64, quota: u64) -> Self {
        let (slow_from, refuse_from) = (quota / 4, quota / 2);
        if bytes_in_use >= refuse_from {
            return Pressure::Refuse;
        }
        match bytes_in_use.checked_sub(slow_from) {
            None => Pressure::None,
            Some(over) => {
                let share = over as f64 / (refuse_from - slow_from).max(1) as f64;
                Pressure::Slow(MAX_DELAY.mul_f64(share))
            }
        }
    }

    /// Reads the bytes in use from all members: the fullest one counts.
    ///
    /// # Errors
    /// [`ClusterError::NoQuorum`] if fewer than a majority respond.
    pub async fn measure<M: EtcdMember, T: Timers>(
        members: &EtcdMembers<M, T>,
        quota: u64,
    ) -> Result<Self, ClusterError> {
        let found: Vec<u64> = members
            .each(|member| member.status())
            .await
            .into_iter()
            .flatten()
            .map(|status| status.bytes_in_use)
            .collect();
        if found.len() < members.majority() {
            return Err(ClusterError::NoQuorum);
        }
        Ok(Pressure::at(found.into_iter().max().unwrap_or(0), quota))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_slow_down_at_a_quarter_and_end_at_half_of_the_quota() {
        assert_eq!(Pressure::at(999, 4000), Pressure::None);
        assert_eq!(Pressure::at(1000, 4000), Pressure::Slow(Duration::ZERO));
        assert_eq!(Pressure::at(1500, 4000), Pressure::Slow(MAX_DELAY / 2));
        assert_eq!(Pressure::at(2000, 4000), Pressure::Refuse);
        assert_eq!(Pressure::at(5, 0), Pressure::Refuse);
    }
}
