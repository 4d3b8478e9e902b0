//! `serve`: the gateway, until a signal ends it.

use super::{CliError, ConfigFile, runtime};
use crate::server::Gateway;
use tokio::signal::unix::{SignalKind, signal};

pub fn run(args: &ConfigFile) -> Result<(), CliError> {
    let config = args.load()?;
    let gateway = Gateway::start(config)?;
    tracing::info!(address = %gateway.address, "the gateway answers");
    let https = gateway.https.map(|https| format!(", HTTPS on https://{https}")).unwrap_or_default();
    anstream::println!(
        "gRPC on {}{https}{}",
        gateway.address,
        match gateway.ops {
            Some(ops) => format!(", health and metrics on http://{ops}"),
            None => String::new(),
        }
    );
    wait_for_end()?;
    tracing::info!("the gateway ends: calls under way finish");
    gateway.stop();
    Ok(())
}

/// Waits for SIGINT or SIGTERM.
pub(super) fn wait_for_end() -> Result<(), CliError> {
    runtime()?.block_on(ended())
}

/// The same within a runtime.
pub(super) async fn ended() -> Result<(), CliError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
