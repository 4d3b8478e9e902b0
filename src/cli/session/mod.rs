//! Sessions: how a command reaches the registry and the log. Remotely, over mTLS with the person's own certificate, or
//! locally, in the process, as the owner of the data folder. Both use `ndxp.admin.v1` and `ndxp.audit.v1` by the
//! generated clients, so that every rule and every line of output exists once.

pub mod local;
mod profiles;
mod refusal;

use super::output::bar;
use super::{CliError, runtime};
use crate::admin::JUSTIFICATION;
use crate::admin::api::admin_service_client::AdminServiceClient;
use crate::audit::service::api::audit_service_client::AuditServiceClient;
use crate::caller::{CallerError, CallerFiles, GatewayClient, MAX_MESSAGE};
use crate::config::Config;
use crate::keyfile::Vault;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use clap::Args;
use http::{HeaderValue, Request as HttpRequest, Response as HttpResponse};
use indicatif::ProgressDrawTarget;
pub use profiles::{Profile, Profiles, check_url};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt};

/// Carries a request to the services and the response back.
pub type Transport = BoxCloneSyncService<HttpRequest<Body>, HttpResponse<Body>, BoxError>;

/// Number of records in a page of a listing: as many as the services return.
pub const PAGE: u32 = 1_000;
/// Maximum retries of a page, and the longest wait before one.
const MAX_WAITS: usize = 20;
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The default configuration file of the gateway.
const CONFIG: &str = "gateway.toml";

/// Selects the gateway and the actor. Without any of these: the active profile, or else gateway.toml here, locally.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Gateway and acting person")]
pub struct ConnectionArgs {
    /// A profile of `profile add`: address and certificate together [env: NDXP_PROFILE].
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// The address of the gateway's gRPC port, https://HOST:PORT; with --certificate [env: NDXP_REMOTE].
    #[arg(long, global = true, value_name = "URL")]
    remote: Option<String>,
    /// With --remote: the CA of the gateway (PEM) [env: NDXP_CA].
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// With --remote: your own certificate (PEM), which identifies the actor [env: NDXP_CERTIFICATE].
    #[arg(id = "own_certificate", long = "certificate", alias = "own-certificate", global = true, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// With --remote: its key (PEM); the certificate's path with `.key` by default [env: NDXP_KEY].
    #[arg(id = "own_key", long = "key", global = true, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Work locally with this configuration, as the system's user who owns the data folder: for bootstrapping and
    /// emergencies [env: NDXP_CONFIG].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Your reason, in your own words (at most 500 characters): it is logged with the event.
    #[arg(long, global = true, value_name = "TEXT")]
    why: Option<String>,
    #[arg(long = "as", global = true, hide = true, value_name = "NAME")]
    actor: Option<String>,
}

/// The target of a command.
pub enum SessionTarget {
    /// A running gateway, with a certificate.
    Remote(RemoteGateway),
    /// In the process, with this configuration.
    Local(PathBuf),
}

/// A remote gateway.
#[derive(Debug, Clone)]
pub struct RemoteGateway {
    /// Its gRPC port.
    pub url: String,
    /// The user's certificate, and the CA to trust.
    pub files: CallerFiles,
    /// Its HTTPS port, if a profile names it.
    pub log: Option<String>,
    /// The log's key, if a profile has it.
    pub vkey: Option<String>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl ConnectionArgs {
    /// Returns those of a local command with a configuration.
    pub fn local(config: PathBuf) -> Self {
        ConnectionArgs { config: Some(config), ..ConnectionArgs::default() }
    }

    /// Returns the CA and the certificate of the command line or the environment alone, for a client's own calls.
    pub fn caller_files(&self) -> Result<CallerFiles, CliError> {
        let given = |of: &Option<PathBuf>, name: &str| of.clone().or_else(|| variable(name).map(PathBuf::from));
        let needs = |what: &str| CliError::Usage(format!("this needs {what}"));
        let ca = given(&self.ca, "NDXP_CA").ok_or_else(|| needs("--ca, the gateway's CA"))?;
        let certificate = given(&self.certificate, "NDXP_CERTIFICATE");
        let certificate = certificate.ok_or_else(|| needs("--certificate, the client's own"))?;
        let key = given(&self.key, "NDXP_KEY").unwrap_or_else(|| certificate.with_extension("key"));
        Ok(CallerFiles { ca, certificate, key })
    }

    /// Returns the target: from the command line, else the environment, else the active profile, else local.
    pub fn target(&self) -> Result<SessionTarget, CliError> {
        if self.actor.is_some() || variable("NDXP_ACTOR").is_some() {
            return Err(CliError::Usage(
                "--as and NDXP_ACTOR are gone: from afar your certificate says who acts (--profile, see profile add), \
                 locally the system's user does"
                    .into(),
            ));
        }
        let named = [("--remote", self.remote.is_some()), ("--profile", self.profile.is_some())];
        let named: Vec<&str> = named
            .into_iter()
            .chain([("--config", self.config.is_some())])
            .filter(|one| one.1)
            .map(|one| one.0)
            .collect();
        if named.len() > 1 {
            return Err(CliError::Usage(format!("{} name different ways: give one of them", named.join(" and "))));
        }
        if let Some(url) = &self.remote {
            return self.remote(url);
        }
        let explicit = self.profile.is_some() || self.config.is_some();
        if let Some(url) = variable("NDXP_REMOTE").filter(|_| !explicit) {
            return self.remote(&url);
        }
        let files = [("--ca", &self.ca), ("--certificate", &self.certificate), ("--key", &self.key)];
        if let Some((name, _)) = files.into_iter().find(|(_, file)| file.is_some()) {
            return Err(CliError::Usage(format!("{name} goes with --remote; a profile names its own files")));
        }
        if let Some(config) = &self.config {
            return Ok(SessionTarget::Local(config.clone()));
        }
        if let Some(name) = self.profile.clone().or_else(|| variable("NDXP_PROFILE")) {
            return Ok(SessionTarget::Remote(Profiles::load()?.named(&name)?.remote()));
        }
        if let Some(config) = variable("NDXP_CONFIG") {
            return Ok(SessionTarget::Local(config.into()));
        }
        match Profiles::load()?.in_use()? {
            Some(profile) => Ok(SessionTarget::Remote(profile.remote())),
            None => Ok(SessionTarget::Local(CONFIG.into())),
        }
    }

    fn remote(&self, url: &str) -> Result<SessionTarget, CliError> {
        check_url(url).map_err(|reason| CliError::Usage(format!("--remote: {reason}")))?;
        let file = |given: &Option<PathBuf>, name: &str| given.clone().or_else(|| variable(name).map(PathBuf::from));
        let needs = |what: &str| CliError::Usage(format!("--remote needs {what}, or a profile: profile add --help"));
        let certificate = file(&self.certificate, "NDXP_CERTIFICATE").ok_or_else(|| needs("your --certificate"))?;
        let ca = file(&self.ca, "NDXP_CA").ok_or_else(|| needs("the gateway's --ca"))?;
        let key = file(&self.key, "NDXP_KEY").unwrap_or_else(|| certificate.with_extension("key"));
        let files = CallerFiles { ca, certificate, key };
        Ok(SessionTarget::Remote(RemoteGateway {
            url: url.trim_end_matches('/').to_owned(),
            files,
            log: None,
            vkey: None,
        }))
    }

    /// Returns the configuration, for commands that must run on the gateway's host; `why` is the reason in the error.
    pub fn local_config(&self, why: &str) -> Result<Config, CliError> {
        match self.target()? {
            SessionTarget::Local(config) => Ok(Config::load(&config)?),
            SessionTarget::Remote(_) => Err(CliError::Usage(format!("{why}: give its --config"))),
        }
    }

    /// Opens a session with `ndxp.admin.v1`.
    pub fn open(&self) -> Result<Session, CliError> {
        let session = match self.target()? {
            SessionTarget::Remote(remote) => Session::remote(&remote)?,
            SessionTarget::Local(config) => {
                let (transport, who) = local::service(&config)?;
                Session::local(transport, who)?
            }
        };
        match self.why.as_deref() {
            None | Some("") => Ok(session),
            Some(why) => session.because(why),
        }
    }

    /// Opens a session with `ndxp.audit.v1`; with a folder, over that folder.
    pub fn open_audit(&self, data: Option<&Path>) -> Result<Session, CliError> {
        let data = match (data, self.target()?) {
            (None, SessionTarget::Remote(remote)) => return Session::remote(&remote),
            (_, way) => data_of(data, way)?,
        };
        Session::audit_of(&data, &self.vault(&data))
    }

    /// Returns the data folder, for commands that only work on its files.
    pub fn data(&self, data: Option<&Path>) -> Result<PathBuf, CliError> {
        data_of(data, self.target()?)
    }

    /// Returns the vault of a data folder's keys: by the secret of the configuration, if that is this folder's.
    pub fn vault(&self, data: &Path) -> Vault {
        self.config_of(data).map(|config| config.vault).unwrap_or_default()
    }

    /// Returns the configuration, if it is that of this data folder.
    pub fn config_of(&self, data: &Path) -> Option<Config> {
        let Ok(SessionTarget::Local(config)) = self.target() else { return None };
        let same = |one: &Path| std::fs::canonicalize(one).ok() == std::fs::canonicalize(data).ok();
        Config::load(&config).ok().filter(|config| same(&config.data))
    }

    /// Returns the address of --remote on the command line itself.
    pub fn named_remote(&self) -> Option<&str> {
        self.remote.as_deref()
    }
}

/// Returns the given folder, or that of the configuration.
fn data_of(data: Option<&Path>, way: SessionTarget) -> Result<PathBuf, CliError> {
    match (data, way) {
        // An active profile is for commands that can run remotely.
        (Some(data), _) => Ok(data.to_owned()),
        (None, SessionTarget::Local(config)) => Ok(Config::load(&config)?.data),
        (None, SessionTarget::Remote(_)) => Err(CliError::Usage(
            "this works on the data folder itself: at the gateway's own host, as the folder's owner, with --config or --data"
                .into(),
        )),
    }
}

/// The services of one target.
pub struct Session {
    runtime: Runtime,
    transport: Transport,
    /// The actor's certificate in a remote session: errors name it.
    certificate: Option<PathBuf>,
    /// The actor in a local session, as the log names them.
    local: Option<String>,
    /// The log's key, if a profile has it.
    pub vkey: Option<String>,
}

impl Session {
    /// Opens a remote session.
    pub fn remote(remote: &RemoteGateway) -> Result<Self, CliError> {
        let caller = GatewayClient::new(&remote.url, &remote.files).map_err(|error| match error {
            CallerError::Tls(fault) => CliError::Usage(fault.to_string()),
            other => other.into(),
        })?;
        let transport = BoxCloneSyncService::new(caller.map_err(BoxError::from));
        let certificate = Some(remote.files.certificate.clone());
        Ok(Session { runtime: runtime()?, transport, certificate, local: None, vkey: remote.vkey.clone() })
    }

    fn local(transport: Transport, who: String) -> Result<Self, CliError> {
        Ok(Session { runtime: runtime()?, transport, certificate: None, local: Some(who), vkey: None })
    }

    /// Opens a session with `ndxp.audit.v1` over a data folder.
    pub fn audit_of(data: &Path, vault: &Vault) -> Result<Self, CliError> {
        let (transport, who) = local::audit(data, vault)?;
        Session::local(transport, who)
    }

    /// Adds a reason to each request.
    fn because(self, why: &str) -> Result<Self, CliError> {
        // Binary metadata is base64 (gRPC over HTTP/2, "Requests"): reasons are in Vietnamese.
        let value = HeaderValue::try_from(STANDARD_NO_PAD.encode(why));
        let value = value.map_err(|error| CliError::Usage(format!("--why: {error}")))?;
        let with = move |mut request: HttpRequest<Body>| {
            request.headers_mut().insert(JUSTIFICATION, value.clone());
            request
        };
        Ok(Session { transport: BoxCloneSyncService::new(self.transport.map_request(with)), ..self })
    }

    /// Returns whether the services run in this process, beside no gateway.
    pub fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// A client of `ndxp.admin.v1`.
    pub fn admin(&self) -> AdminServiceClient<Transport> {
        AdminServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// A client of `ndxp.audit.v1`.
    pub fn audit(&self) -> AuditServiceClient<Transport> {
        AuditServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Waits for a response; an error states what to do.
    pub fn read<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CliError> {
        self.block_on(async { call.await.map(Response::into_inner) })
    }

    /// Waits for the response to a change. After a local change, a notice is printed.
    pub fn change<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CliError> {
        let done = self.read(call)?;
        if let Some(local) = &self.local {
            anstream::eprintln!("local command by {local}: the log records it as local");
        }
        Ok(done)
    }

    /// Waits for any work with the services.
    pub fn block_on<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, CliError> {
        self.runtime.block_on(work).map_err(|status| refusal::explained(&status, self.certificate.as_deref()))
    }

    /// Reads a listing page by page, at most `limit` records that `fits` accepts. `page` returns the records after a
    /// page token and the token of the next page.
    pub fn pages<T, F>(
        &self,
        limit: usize,
        fits: impl Fn(&T) -> bool,
        page: impl Fn(String) -> F,
    ) -> Result<Vec<T>, CliError>
    where
        F: Future<Output = Result<(Vec<T>, String), Status>>,
    {
        let progress = bar("{spinner} {pos} found")?;
        let (mut found, mut token) = (Vec::new(), String::new());
        // A single page comes at once.
        progress.set_draw_target(ProgressDrawTarget::hidden());
        loop {
            let (records, next) = self.block_on(patiently(|| page(token.clone())))?;
            found.extend(records.into_iter().filter(|one| fits(one)).take(limit - found.len()));
            if next.is_empty() || found.len() >= limit {
                break;
            }
            progress.set_draw_target(ProgressDrawTarget::stderr());
            progress.set_position(found.len() as u64);
            token = next;
        }
        progress.finish_and_clear();
        Ok(found)
    }
}

/// Retries a call that a limit of reads refused, if the retry delay is short: reading page after page reaches that
/// limit.
async fn patiently<T, F: Future<Output = Result<T, Status>>>(call: impl Fn() -> F) -> Result<T, Status> {
    for _ in 0..MAX_WAITS {
        let status = match call().await {
            Err(status) => status,
            done => return done,
        };
        let wait = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
        match wait.filter(|wait| status.code() == Code::ResourceExhausted && *wait <= MAX_WAIT) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(status),
        }
    }
    call().await
}

/// Formats a path for an error.
fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| "your certificate".to_owned(), |path| format!("the certificate {}", path.display()))
}
