//! `serve`: the gateway, until a signal ends it.

use super::{CliError, ConfigFile, cluster, runtime};
use crate::exchange_log::key;
use crate::server::{Gateway, Sockets, StartError, take_over};
use clap::Args;
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Args)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Take over from the gateway that runs on the same data folder: open separate sockets beside its own, end it, and
    /// serve when its last call has ended, after `drain_timeout_ms` at the latest. (Under systemd, a restart of a
    /// socket-activated service does the same.)
    #[arg(long)]
    take_over: bool,
    /// First bring log and registry into the etcd of [cluster], as `cluster begin` does, if they are not there yet. With
    /// --take-over, calls that come meanwhile wait at the sockets: a gateway that runs alone becomes one of several.
    #[arg(long)]
    cluster_begin: bool,
    /// State that the system clock was ahead when the log's newest entries were written, and is right now: the gateway
    /// uses its time. Without this option, time continues from the newest entry, so that no expired right comes back.
    /// The gateway logs an entry.
    #[arg(long, alias = "clock-was-ahead")]
    clock_ahead: bool,
}

pub fn run(args: &ServeArgs) -> Result<(), CliError> {
    let config = args.config.load()?;
    // Before the other gateway ends: an etcd that is away, or holds another log, must show first.
    let begins = args.cluster_begin && cluster::is_to_begin(&config)?;
    let sockets = Sockets::handed_over(&config.listen, args.take_over)?;
    if args.take_over {
        // Anything that would prevent the start must show before the other gateway ends.
        config.catalogue()?;
        key::read(&config.data, &config.vault, &config.log.origin).map_err(StartError::from)?;
        take_over(&config.data, config.listen.drain_timeout + Duration::from_secs(10))?;
    }
    if begins {
        cluster::begin_before_serving(&config)?;
    }
    // Before it reports that it runs: a signal without a handler would kill it.
    let runtime = runtime()?;
    let (mut ends, _reload) =
        runtime.block_on(async { std::io::Result::Ok((EndSignals::listen()?, signal(SignalKind::hangup())?)) })?;
    let gateway = Gateway::start_at(config, sockets, args.clock_ahead)?;
    // There is no one to notify if systemd did not start this process.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    crate::server::watch(gateway.heartbeats())?;
    tracing::info!(address = %gateway.address, "the gateway accepts calls");
    let https = gateway.https.map(|https| format!(", HTTPS on https://{https}")).unwrap_or_default();
    anstream::println!(
        "gRPC on {}{https}{}",
        gateway.address,
        match gateway.operator_http {
            Some(address) => format!(", health and metrics on http://{address}"),
            None => String::new(),
        }
    );
    runtime.block_on(ends.wait());
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    tracing::info!("the gateway ends: calls under way finish");
    gateway.stop();
    Ok(())
}

/// SIGINT and SIGTERM.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    /// From here on they are caught; call it within a runtime.
    fn listen() -> std::io::Result<Self> {
        Ok(EndSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for SIGINT or SIGTERM.
pub(super) fn wait_for_end() -> Result<(), CliError> {
    runtime()?.block_on(ended())
}

/// The same within a runtime.
pub(super) async fn ended() -> Result<(), CliError> {
    EndSignals::listen()?.wait().await;
    Ok(())
}
