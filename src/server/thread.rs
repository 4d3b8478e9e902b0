//! Threads with separate runtimes: a worker, the control plane and the HTTPS port never wait for one another.

use super::StartError;
use std::thread::JoinHandle;

/// Runs a future to its end on a new thread. The future is made there, so it need not be `Send`.
pub(super) fn spawn<F>(name: &str, make: impl FnOnce() -> F + Send + 'static) -> Result<JoinHandle<()>, StartError>
where
    F: Future<Output = ()>,
{
    let fail = |error: std::io::Error| StartError::Thread(error.to_string());
    // Wake-ups from another thread go first: they are the log's, which report that a response may be sent. By tokio's
    // default, a busy thread checks them only at every 31st turn, and finished responses pile up.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().global_queue_interval(1).build().map_err(fail)?;
    let run = move || runtime.block_on(async move { make().await });
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(fail)
}
