//! Taking over from a gateway that runs on the same data folder: it is asked to end, and waited for. Its calls under way finish;
//! who connects meanwhile waits at our sockets, which are open already.

use crate::exchange_log::{Holder, LogPaths};
use crate::server::StartError;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the other one is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Asks the gateway that has the data folder open, if any, to end (SIGTERM), and waits for it so long at most. True where
/// there was one.
pub fn take_over(data: &Path, patience: Duration) -> Result<bool, StartError> {
    let paths = LogPaths::new(data);
    let Some(holder) = Holder::of(&paths)? else { return Ok(false) };
    holder.terminate().map_err(StartError::TakeOver)?;
    tracing::info!(pid = holder.pid(), "the gateway that runs was asked to end");
    let end = Instant::now() + patience;
    while Holder::of(&paths)?.is_some() {
        if Instant::now() > end {
            return Err(StartError::TakeOver(format!("process {} did not end in time", holder.pid())));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(true)
}
