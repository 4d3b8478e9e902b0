//! Witnesses beside a stage.

use super::Stage;
use ndxp_gateway::config::Config;
use ndxp_gateway::exchange_log::checkpoint::{LogSigner, LogVerifier};
use ndxp_gateway::keyfile::Vault;
use ndxp_gateway::server::Gateway;
use ndxp_gateway::witness::config::WitnessConfig;
use ndxp_gateway::witness::server::WitnessService;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The configuration of a witness of these logs, at a port or a free one.
pub fn config(name: &str, state: &Path, pki: &Path, logs: Vec<LogVerifier>, port: u16) -> WitnessConfig {
    WitnessConfig {
        name: name.into(),
        listen: format!("127.0.0.1:{port}").parse().unwrap(),
        state: state.to_owned(),
        certificate: pki.join("gateway.pem"),
        key: pki.join("gateway.key"),
        logs,
        stores: Default::default(),
        vault: Vault::default(),
    }
}

/// A witness that runs until it is dropped.
pub struct RunningWitness {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    pub port: u16,
}

impl RunningWitness {
    pub fn start(config: WitnessConfig) -> Self {
        let (stop, (told, bound)) = (CancellationToken::new(), std::sync::mpsc::channel());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            WitnessService::make_keys(&config).unwrap();
            let witness = Arc::new(WitnessService::open(&config).unwrap());
            let serve = witness.serve(&config, stopped, move |address| told.send(address.port()).unwrap());
            runtime.block_on(serve).unwrap();
        });
        RunningWitness { stop, port: bound.recv_timeout(Duration::from_secs(10)).unwrap(), thread: Some(thread) }
    }
}

impl Drop for RunningWitness {
    fn drop(&mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The log's key of a stage whose gateway is stopped.
pub fn log_signer(stage: &Stage) -> LogSigner {
    let key = Vault::default().read(&stage.data().join("keys/log.key")).unwrap();
    let vkey = std::fs::read_to_string(stage.data().join("log/vkey")).unwrap();
    LogSigner::from_pkcs8(LogVerifier::parse(&vkey).unwrap().origin(), &key).unwrap()
}

/// Restarts a stage's gateway with this policy.
pub fn with_policy(stage: &mut Stage, policy: &str) {
    std::fs::write(stage.folder.path.join("witnesses.policy"), policy).unwrap();
    const SETTINGS: &str = "[log]\nwitness_policy = \"witnesses.policy\"\nwitness_ca = \"pki/ca.pem\"\n";
    super::edit(&stage.folder.gateway_config(), |text| match text.contains(SETTINGS) {
        true => text,
        false => text.replacen("[log]\n", SETTINGS, 1),
    });
    let loaded = Config::load(&stage.folder.gateway_config()).map_err(super::show).unwrap();
    stage.gateway = Some(Gateway::start(loaded).unwrap());
}
