//! The storage that makes batches of entries durable. Every response relies on its contract.

use super::LogError;

/// A storage to which one thread writes batches, one after the other.
///
/// # The contract
/// - **Durable**: when [`append`](Storage::append) returns `Ok`, every entry of the batch survives a crash of the
///   process and of the machine, with its index. Only then do its appenders get the index, and only then may responses
///   be sent.
/// - **Complete order**: entries have consecutive indexes in the order of the batches, from the index that `append`
///   returns. An index that was returned is never given to another entry, and never skipped.
/// - **Failed**: when `append` returns an error, its appenders get the error and nothing of the batch counts. Its
///   indexes are used again. `append` may be called again at once, and must succeed as soon as the cause is gone; the
///   storage is not restarted. Entries of a failed batch may appear after a crash (they reached the disk, their
///   acknowledgement did not): that is an entry too many, never one too few.
/// - **Recovered**: after a crash, everything that was acknowledged is found again; an unfinished write is truncated.
///   Damage to acknowledged entries is an error that names file and offset, and is never truncated.
///
/// The implementation here is [`Journal`](super::journal::Journal): a local disk, one `fdatasync` a batch. An
/// implementation on a quorum of machines has the same contract.
pub trait Storage: Send {
    /// Makes a batch (not empty) durable, and returns the index of its first entry.
    ///
    /// # Errors
    /// [`LogError`] if it is not durable: see *Failed* above.
    fn append(&mut self, batch: &[Vec<u8>]) -> Result<u64, LogError>;
}
