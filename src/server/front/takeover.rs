//! Takes over from a gateway that runs on the same data folder: sends it SIGTERM and waits for its end. Its calls in
//! flight finish; new connections wait at our sockets, which are open already.

use crate::exchange_log::{LockOwner, LogPaths};
use crate::server::StartError;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the other process is checked.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Sends SIGTERM to the gateway that has the data folder open, if any, and waits at most this long for its end. Returns
/// whether there was one.
///
/// # Errors
/// [`StartError::TakeOver`] if it cannot be signalled or does not end in time.
pub fn take_over(data: &Path, patience: Duration) -> Result<bool, StartError> {
    let paths = LogPaths::new(data);
    let Some(lock_owner) = LockOwner::of(&paths)? else { return Ok(false) };
    lock_owner.terminate().map_err(StartError::TakeOver)?;
    tracing::info!(pid = lock_owner.pid(), "the running gateway was told to stop");
    let end = Instant::now() + patience;
    while LockOwner::of(&paths)?.is_some() {
        if Instant::now() > end {
            return Err(StartError::TakeOver(format!("process {} did not end in time", lock_owner.pid())));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(true)
}
