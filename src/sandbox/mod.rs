//! The sandbox: the ten sources as real servers on loopback, behind hubs or with direct endpoints, over one generated
//! province. For development, demos and tests.

pub mod config;
pub mod faults;
pub mod folder;
pub mod http;
pub mod hub;
mod malformed_responses;
mod message;
pub mod ports;
pub mod province;
pub mod samples;
pub mod sources;

use crate::config::ConfigFault;
use crate::contract::ContractSet;
use crate::identity::tls::{self, TlsFault};
pub use config::SandboxConfig;
pub use faults::{Fault, FaultKind, Faults};
use http::{HttpReply, HttpRequest, Site};
use hub::Hub;
pub use province::Province;
use sources::Source;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Why a sandbox fails to start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The configuration.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<ConfigFault>),
    /// Certificates or keys.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// A port cannot be bound.
    #[error("{0} cannot be listened on: {1}")]
    Bind(SocketAddr, String),
    /// The contract of the gRPC source.
    #[error("the contract of the officials' database is missing")]
    Contract,
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(String),
}

/// A running sandbox; dropping it stops it.
pub struct Sandbox {
    /// The generated province.
    pub province: Arc<Province>,
    /// Fault injection.
    pub faults: Arc<Faults>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// A source with a direct endpoint: HTTP Basic, a WS-Security token, or a check in the source itself.
struct Direct {
    source: Arc<dyn Source>,
    door: DirectDoor,
    faults: Arc<Faults>,
}

enum DirectDoor {
    /// The source authenticates the caller itself.
    Own,
    /// HTTP Basic: the complete value of the header `Authorization`.
    Basic(String),
    /// WS-Security UsernameToken.
    UsernameToken(String, String),
}

impl Site for Direct {
    fn fault_target(&self, _: &HttpRequest) -> String {
        self.source.id().to_owned()
    }

    fn respond(&self, ask: &HttpRequest) -> HttpReply {
        let refused = self.faults.of(self.source.id()).kind == FaultKind::CredentialsRefused;
        let known = match &self.door {
            DirectDoor::Own => return self.source.respond(ask),
            DirectDoor::Basic(value) => ask.header("authorization") == Some(value),
            DirectDoor::UsernameToken(user, password) => match sources::population::Envelope::read(ask) {
                Ok(envelope) if !refused && envelope.username_token_holds(user, password) => true,
                Ok(envelope) => return envelope.reply(Err(("Client.Authentication", "Sai thông tin xác thực"))),
                Err(reply) => return reply,
            },
        };
        if known && !refused { self.source.respond(ask) } else { HttpReply::error(401, "invalid_credentials") }
    }
}

impl Sandbox {
    /// Starts a sandbox; when this returns, it accepts requests.
    ///
    /// # Errors
    /// [`SandboxError`] if an address cannot be bound or a certificate cannot be used.
    pub fn start(config: SandboxConfig) -> Result<Self, SandboxError> {
        let province = Arc::new(Province::new(config.seed, config.people));
        let faults = Arc::new(Faults::default());
        let contracts = ContractSet::embedded()
            .map_err(|faults| SandboxError::Config(faults.into_iter().map(ConfigFault::from).collect()))?;
        let officials = sources::officials::Officials::new(province.clone(), &contracts, faults.clone());
        let officials = Arc::new(officials.ok_or(SandboxError::Contract)?);
        let sites = sites(&config, &province, &faults);
        let plain = Arc::new(tls::plain_server_config(&config.certificate, &config.key)?);
        let mutual = tls::TlsFiles {
            certificate: config.certificate.clone(),
            key: config.key.clone(),
            client_ca: config.client_ca.clone(),
            revocation: tls::Revocation::Unchecked,
            names: Vec::new(),
            allow_tls12: true,
        };
        let mutual = Arc::new(tls::server_config(&mutual)?);

        let listeners = sites.into_iter().map(|(address, site)| Ok((bind(address)?, site)));
        let listeners: Vec<_> = listeners.collect::<Result<_, SandboxError>>()?;
        let (officials_at, control_at) = (bind(config.officials)?, bind(config.control)?);
        let stop = CancellationToken::new();
        let (stopped, shared) = (stop.clone(), faults.clone());
        let failed = |error: std::io::Error| SandboxError::Thread(error.to_string());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(failed)?;
        let run = move || {
            runtime.block_on(async move {
                for (listener, site) in listeners {
                    if let Ok(listener) = TcpListener::from_std(listener) {
                        tokio::spawn(http::serve(listener, plain.clone(), site, shared.clone()));
                    }
                }
                if let (Ok(officials_at), Ok(control_at)) =
                    (TcpListener::from_std(officials_at), TcpListener::from_std(control_at))
                {
                    tokio::spawn(officials.serve(officials_at, mutual));
                    tokio::spawn(faults::control(control_at, shared));
                }
                stopped.cancelled().await;
            });
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("sandbox".into()).spawn(run).map_err(failed)?;
        Ok(Sandbox { province, faults, stop, thread: Some(thread) })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> Result<std::net::TcpListener, SandboxError> {
    let fail = |error: std::io::Error| SandboxError::Bind(address, error.to_string());
    let listener = std::net::TcpListener::bind(address).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    Ok(listener)
}

/// Every HTTP address with its handler.
fn sites(config: &SandboxConfig, province: &Arc<Province>, faults: &Arc<Faults>) -> Vec<(SocketAddr, Arc<dyn Site>)> {
    let (publicservice_at, publicservice_user) = config.publicservice.clone();
    let (population_at, population_user) = config.population.clone();
    let population: Arc<dyn Source> = Arc::new(sources::population::Population { province: province.clone() });
    let catalogue: Arc<dyn Source> =
        Arc::new(sources::catalogue::Catalogues { province: province.clone(), added: Default::default() });
    let publicservice =
        sources::publicservice::PublicService::new(province.clone(), publicservice_user, faults.clone());
    let mut behind: Vec<Arc<dyn Source>> = vec![
        population.clone(),
        catalogue.clone(),
        Arc::new(sources::business::Business(province.clone())),
        Arc::new(sources::insurance::Insurance(province.clone())),
        Arc::new(sources::civilstatus::CivilStatus::new(province.clone())),
        Arc::new(sources::criminalrecord::CriminalRecord::new(province)),
        Arc::new(sources::land::Land(province.clone())),
        Arc::new(sources::budgetunit::BudgetUnits::new(province.clone())),
    ];
    for recorded in config.records.iter().flat_map(|folder| sources::recorded::Recorded::folder(folder)) {
        behind.push(Arc::new(recorded));
    }
    let behind = Arc::new(behind);
    let mut sites: Vec<(SocketAddr, Arc<dyn Site>)> = Vec::new();
    for (id, address, keys) in &config.hubs {
        sites.push((*address, Arc::new(Hub::new(id, keys.clone(), behind.clone(), faults.clone()))));
    }
    let mut direct = |address, source: Arc<dyn Source>, door| {
        sites.push((address, Arc::new(Direct { source, door, faults: faults.clone() }) as Arc<dyn Site>));
    };
    direct(publicservice_at, Arc::new(publicservice), DirectDoor::Own);
    direct(config.catalogue.0, catalogue, DirectDoor::Basic(config.catalogue.1.clone()));
    direct(population_at, population, DirectDoor::UsernameToken(population_user.0, population_user.1));
    sites
}
