//! Local sessions: the services run in the command's own process, over the data folder, for bootstrapping and
//! emergencies. Only the folder's owner may use them, and the log records this with the system's user.

use super::{ConnectionArgs, Transport};
use crate::admin::{self, Admin, AdminServiceServer, BootstrapError, StaffDraft};
use crate::audit::service::{Audit, AuditServiceServer};
use crate::cli::CliError;
use crate::config::Config;
use crate::keyfile::Vault;
use crate::registry::sqlite::SqliteStore;
use crate::registry::{Actor, Staff};
use crate::server::registry_path;
use arc_swap::ArcSwap;
use http::Request;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt};

/// A user of the system, as the log names them: `root(0)`.
fn user(uid: u32) -> String {
    // A user without a name in the system is identified by the number alone.
    let name = uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned());
    format!("{}({uid})", name.unwrap_or_default())
}

/// Returns the actor, if they own the folder. A folder that does not exist yet belongs to the owner of the folder
/// around it.
pub fn owner(data: &Path) -> Result<Actor, CliError> {
    let own = rustix::process::geteuid().as_raw();
    let whole = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let there = whole.ancestors().find_map(|path| Some((path, std::fs::metadata(path).ok()?)));
    let Some((path, metadata)) = there else {
        return Err(CliError::Usage(format!("{}: there is no such folder", data.display())));
    };
    if metadata.uid() != own {
        return Err(CliError::Failed(format!(
            "{} belongs to {}, and you are {}: work from afar with your own certificate (--profile or --remote), or, in \
             an emergency, as its owner",
            path.display(),
            user(metadata.uid()),
            user(own)
        )));
    }
    Ok(Actor::local())
}

/// Registers the first administrator and approver, in a local session.
pub fn bootstrap(
    connection: &ConnectionArgs,
    administrator: StaffDraft,
    approver: StaffDraft,
) -> Result<[Staff; 2], CliError> {
    let config = connection.local_config("the first people are registered on the gateway's own host")?;
    let who = owner(&config.data)?;
    let store = SqliteStore::open_with(&registry_path(&config.data), &config.vault)?.acting_as(who);
    admin::bootstrap(&store, administrator, approver).map_err(|error| match error {
        BootstrapError::Invalid(violation) => violation.into(),
        BootstrapError::Registry(error) => error.into(),
    })
}

/// Returns `ndxp.admin.v1` over the registry of this configuration, and the actor.
pub fn service(config: &Path) -> Result<(Transport, String), CliError> {
    let config = Config::load(config)?;
    let who = owner(&config.data)?;
    let store = SqliteStore::open_with(&registry_path(&config.data), &config.vault)?.acting_as(who.clone());
    let contracts = Arc::new(ArcSwap::from_pointee(config.contracts()?));
    let service = AdminServiceServer::new(Admin::local(Arc::new(config), Arc::new(store), contracts));
    let actor = who.clone();
    let acting = move |mut request: Request<Body>| {
        request.extensions_mut().insert(actor.clone());
        request
    };
    let transport = service.map_request(acting).map_err(|never| -> BoxError { match never {} });
    Ok((BoxCloneSyncService::new(transport), named(&who)))
}

/// Returns `ndxp.audit.v1` over a data folder, and the actor. Requests that name a person are recorded in the registry
/// beside the log, which moves them into the log; a copy of a log has no registry.
pub fn audit(data: &Path, vault: &Vault) -> Result<(Transport, String), CliError> {
    let who = owner(data)?;
    let path = registry_path(data);
    let notes = path.exists().then(|| SqliteStore::open_with(&path, vault)).transpose()?;
    let notes = notes.map(|store| store.acting_as(who.clone()));
    let service = AuditServiceServer::new(Audit::local(data, notes, vault)?);
    let same = |request: Request<Body>| request;
    let transport = service.map_request(same).map_err(|never| -> BoxError { match never {} });
    Ok((BoxCloneSyncService::new(transport), named(&who)))
}

/// `USER(UID)`, for messages to the user.
fn named(actor: &Actor) -> String {
    let whole = actor.to_string();
    whole.strip_prefix("local:").unwrap_or(&whole).to_owned()
}
