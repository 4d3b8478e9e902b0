//! Threads with a runtime of their own: a worker, the control plane and the HTTPS port never wait for one another.

use super::StartError;
use std::thread::JoinHandle;

/// Runs a future to its end on a new thread. The future is made there, so it need not be sent.
pub(super) fn spawn<F>(name: &str, make: impl FnOnce() -> F + Send + 'static) -> Result<JoinHandle<()>, StartError>
where
    F: Future<Output = ()>,
{
    let fail = |error: std::io::Error| StartError::Thread(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    let run = move || runtime.block_on(async move { make().await });
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(fail)
}
