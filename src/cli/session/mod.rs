//! How a command reaches the registry and the log: from afar, over mTLS with the person's own certificate, or locally, in
//! the process, as the owner of the data folder. Both ways speak `ndxp.admin.v1` and `ndxp.audit.v1` by the generated
//! clients, so that every rule and every line of output exists once.

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

/// What carries a request to the services and a response back.
pub type Transport = BoxCloneSyncService<HttpRequest<Body>, HttpResponse<Body>, BoxError>;

/// Records that a page of a listing holds: as many as the services give.
pub const PAGE: u32 = 1_000;
/// Maximum retries of a page, and the longest wait before one.
const MAX_WAITS: usize = 20;
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The gateway's configuration where nothing names another.
const CONFIG: &str = "gateway.toml";

/// Which gateway, and who acts. Without any of these: the profile in use, or else gateway.toml here, locally.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Which gateway, and who acts")]
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
    /// With --remote: your own certificate (PEM), which says who acts [env: NDXP_CERTIFICATE].
    #[arg(id = "own_certificate", long = "certificate", alias = "own-certificate", global = true, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// With --remote: its key (PEM); the certificate's path with `.key` unless given [env: NDXP_KEY].
    #[arg(id = "own_key", long = "key", global = true, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Works locally with this configuration, as the system's user who owns the data folder: for bootstrapping and
    /// emergencies [env: NDXP_CONFIG].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Why you do this, in your own words (at most 500 characters): it is logged with the event.
    #[arg(long, global = true, value_name = "TEXT")]
    why: Option<String>,
    #[arg(long = "as", global = true, hide = true, value_name = "NAME")]
    actor: Option<String>,
}

/// The way that a command takes.
pub enum SessionTarget {
    /// To a gateway that runs, with a certificate.
    Remote(RemoteGateway),
    /// In the process, with this configuration.
    Local(PathBuf),
}

/// A gateway from afar.
#[derive(Debug, Clone)]
pub struct RemoteGateway {
    /// Its gRPC port.
    pub url: String,
    /// Whose certificate, and whom it trusts.
    pub files: CallerFiles,
    /// Its HTTPS port, where a profile names it.
    pub log: Option<String>,
    /// The log's key, where a profile keeps it.
    pub vkey: Option<String>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl ConnectionArgs {
    /// The way: what the command line names, or else the environment, or else the profile in use, or else locally.
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

    /// The configuration, for what is done where it is, and why no other way does.
    pub fn local_config(&self, why: &str) -> Result<Config, CliError> {
        match self.target()? {
            SessionTarget::Local(config) => Ok(Config::load(&config)?),
            SessionTarget::Remote(_) => Err(CliError::Usage(format!("{why}: give its --config"))),
        }
    }

    /// A session with `ndxp.admin.v1`.
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

    /// A session with `ndxp.audit.v1`; with a folder, over that folder.
    pub fn open_audit(&self, data: Option<&Path>) -> Result<Session, CliError> {
        let data = match (data, self.target()?) {
            (None, SessionTarget::Remote(remote)) => return Session::remote(&remote),
            (_, way) => data_of(data, way)?,
        };
        let (transport, who) = local::audit(&data, &self.vault(&data))?;
        Session::local(transport, who)
    }

    /// The data folder, for what is done to its files alone.
    pub fn data(&self, data: Option<&Path>) -> Result<PathBuf, CliError> {
        data_of(data, self.target()?)
    }

    /// What seals the keys of a data folder: the secret of the configuration, where that is this folder's.
    pub fn vault(&self, data: &Path) -> Vault {
        self.config_of(data).map(|config| config.vault).unwrap_or_default()
    }

    /// The configuration, where it is that of this data folder.
    pub fn config_of(&self, data: &Path) -> Option<Config> {
        let Ok(SessionTarget::Local(config)) = self.target() else { return None };
        let same = |one: &Path| std::fs::canonicalize(one).ok() == std::fs::canonicalize(data).ok();
        Config::load(&config).ok().filter(|config| same(&config.data))
    }

    /// The address that --remote names on the command line itself.
    pub fn named_remote(&self) -> Option<&str> {
        self.remote.as_deref()
    }
}

/// The folder that is named, or that of the configuration.
fn data_of(data: Option<&Path>, way: SessionTarget) -> Result<PathBuf, CliError> {
    match (data, way) {
        // A profile in use is meant for what can be done from afar.
        (Some(data), _) => Ok(data.to_owned()),
        (None, SessionTarget::Local(config)) => Ok(Config::load(&config)?.data),
        (None, SessionTarget::Remote(_)) => Err(CliError::Usage(
            "this works on the data folder itself: at the gateway's own host, as the folder's owner, with --config or --data"
                .into(),
        )),
    }
}

/// The services, along one way.
pub struct Session {
    runtime: Runtime,
    transport: Transport,
    /// Who acts from afar: the certificate that errors name.
    certificate: Option<PathBuf>,
    /// Who acts locally, as the log names them.
    local: Option<String>,
    /// The log's key, where a profile keeps it.
    pub vkey: Option<String>,
}

impl Session {
    /// A session from afar.
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

    /// With a reason that goes along with each request.
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

    /// A client of `ndxp.admin.v1`.
    pub fn admin(&self) -> AdminServiceClient<Transport> {
        AdminServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// A client of `ndxp.audit.v1`.
    pub fn audit(&self) -> AuditServiceClient<Transport> {
        AuditServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Waits for a response; an error says what to do.
    pub fn read<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CliError> {
        self.block_on(async { call.await.map(Response::into_inner) })
    }

    /// Waits for the response to a change. One that was made locally is said to have been.
    pub fn change<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CliError> {
        let done = self.read(call)?;
        if let Some(local) = &self.local {
            anstream::eprintln!("local act of {local}: in the log as such");
        }
        Ok(done)
    }

    /// Waits for anything that the services say.
    pub fn block_on<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, CliError> {
        self.runtime.block_on(work).map_err(|status| refusal::explained(&status, self.certificate.as_deref()))
    }

    /// Reads a listing page by page, at most `limit` records that `fits` takes. `page` gives the records behind a page
    /// token and the token of the next page.
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
        // A single page is there at once.
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

/// Calls again when a bound of reads says when, as long as that is soon: whoever reads page after page meets it.
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

/// A path as an error names it.
fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| "your certificate".to_owned(), |path| format!("the certificate {}", path.display()))
}
