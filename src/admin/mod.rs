//! `ndxp.admin.v1`: the service of administrators, approvers and operators. The certificate identifies the caller, the
//! caller's roles give the rights; a change and its event, which goes into the exchange log, are written in one
//! transaction. No store is used on a thread that serves calls: see [`AdminWork`].

mod can;
mod changes;
mod check;
mod draft;
mod drift;
mod justification;
mod last_use;
mod messages;
mod methods;
mod notices;
mod preview;
mod rules;
mod work;

use crate::access::staff::{RoleRule, StaffAuthorizer};
use crate::audit::last_use::LastUses;
use crate::config::Config;
use crate::contract::ContractSet;
use crate::exchange_log::LogOpener;
use crate::identity::principal::Principal;
use crate::registry::{Actor, Store};
use crate::status::{Reason, Refusal};
use crate::telemetry::Revocations;
use crate::work::WorkPool;
use arc_swap::ArcSwap;
pub use changes::{BootstrapError, bootstrap};
use check::LastChecks;
pub use check::SourceChecker;
pub use draft::{ClientDraft, GrantDraft, StaffDraft};
use futures_util::future::BoxFuture;
pub use justification::JUSTIFICATION;
use justification::justification;
use messages::{failed, refused};
use std::net::IpAddr;
use std::sync::Arc;
use tonic::{Request, Response, Status};
pub use work::AdminWork;

/// Messages and service, as generated.
#[allow(missing_docs, clippy::all, clippy::missing_errors_doc)]
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/ndxp.admin.v1.rs"));
}

pub use api::admin_service_server::AdminServiceServer;

/// The service.
#[derive(Clone)]
pub struct Admin {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    contracts: Arc<ArcSwap<ContractSet>>,
    door: Option<StaffAuthorizer>,
    work: AdminWork,
    overview: Option<Overview>,
    cluster: Option<ClusterReader>,
    opener: Arc<LogOpener>,
    last_uses: Arc<LastUses>,
    revocations: Arc<Revocations>,
    checker: Option<SourceChecker>,
    checks: Arc<LastChecks>,
}

/// How the running gateway does, worked out where it is called.
pub type Overview = Arc<dyn Fn() -> api::GetOverviewResponse + Send + Sync>;

/// Reads how the gateways of a cluster do. Bounded in time and in number by who makes it: it does not run on a pool of the service.
pub type ClusterReader = Arc<dyn Fn() -> BoxFuture<'static, api::GetClusterResponse> + Send + Sync>;

impl Admin {
    /// Makes the service over a gateway's parts.
    pub fn new(
        config: Arc<Config>,
        store: Arc<dyn Store>,
        contracts: Arc<ArcSwap<ContractSet>>,
        door: StaffAuthorizer,
        work: AdminWork,
    ) -> Self {
        Admin { door: Some(door), work, ..Admin::local(config, store, contracts) }
    }

    /// Makes the service for the owner of the data folder, in their own process: each request has its [`Actor::Local`]
    /// as an extension, which nobody can send from outside.
    pub fn local(config: Arc<Config>, store: Arc<dyn Store>, contracts: Arc<ArcSwap<ContractSet>>) -> Self {
        Admin {
            opener: Arc::new(LogOpener::new(&config.data, &config.vault)),
            config,
            store,
            contracts,
            door: None,
            work: AdminWork::default(),
            overview: None,
            cluster: None,
            last_uses: Arc::default(),
            revocations: Arc::default(),
            checker: None,
            checks: Arc::default(),
        }
    }

    /// The same, of a gateway that runs: it says how it does.
    #[must_use]
    pub fn with_overview(self, overview: Overview) -> Self {
        Admin { overview: Some(overview), ..self }
    }

    /// The same, of a gateway that shares log and registry with others.
    #[must_use]
    pub fn with_cluster(self, cluster: ClusterReader) -> Self {
        Admin { cluster: Some(cluster), ..self }
    }

    /// The same, of a gateway that checks its sources on demand.
    #[must_use]
    pub fn with_checker(self, checker: SourceChecker) -> Self {
        Admin { checker: Some(checker), ..self }
    }

    /// The same, of a gateway that notes what revocations do.
    #[must_use]
    pub fn with_revocations(self, revocations: Arc<Revocations>) -> Self {
        Admin { revocations, ..self }
    }

    /// Reads for the caller, if one of the rule's roles is theirs.
    async fn read<T: Send + 'static, R: Send + 'static>(
        &self,
        request: Request<T>,
        rule: &'static RoleRule,
        read: impl FnOnce(&Admin, &dyn Store, T) -> Result<R, Status> + Send + 'static,
    ) -> AdminResult<R> {
        self.work(&self.work.reads, request, rule, read).await
    }

    /// Makes a change in the caller's name, if one of the rule's roles is theirs.
    async fn write<T: Send + 'static, R: Send + 'static>(
        &self,
        request: Request<T>,
        rule: &'static RoleRule,
        write: impl FnOnce(&Admin, &dyn Store, T) -> Result<R, Status> + Send + 'static,
    ) -> AdminResult<R> {
        self.work(&self.work.writes, request, rule, write).await
    }

    /// Runs blocking work off the thread that serves calls, with the store in the caller's name.
    async fn work<T: Send + 'static, R: Send + 'static>(
        &self,
        pool: &WorkPool,
        request: Request<T>,
        rule: &'static RoleRule,
        work: impl FnOnce(&Admin, &dyn Store, T) -> Result<R, Status> + Send + 'static,
    ) -> AdminResult<R> {
        let because = justification(request.metadata())?;
        let actor = self.actor(&request, rule).await?;
        let owner = actor.id().to_owned();
        let (admin, store) = (self.clone(), self.store.named(actor, &because).map_err(failed)?);
        let run = move || work(&admin, store.as_ref(), request.into_inner());
        pool.run(&owner, run).await.map_err(refused)?.map(Response::new)
    }

    /// Checks whether a caller may call a method, before its message is read.
    ///
    /// # Errors
    /// As [`StaffAuthorizer::admit`]; `OPERATION_UNKNOWN` if there is no such method.
    pub async fn may_call(&self, caller: &Principal, method: &str) -> Result<(), Refusal> {
        let rule = rules::of(method).ok_or(Reason::OperationUnknown)?;
        match &self.door {
            // A client may ask about itself.
            Some(door) if method == rules::CAN_I.method && door.client(caller).is_ok() => Ok(()),
            Some(door) => door.admit(caller, rule).await.map(|_| ()),
            None => Err(Reason::StaffUnknown.into()),
        }
    }

    /// Returns the id of the client whose certificate the caller has, if it is one's, and the caller's address.
    fn client<T>(&self, request: &Request<T>) -> Option<(String, IpAddr)> {
        let caller = Principal::of(request.extensions())?;
        Some((self.door.as_ref()?.client(&caller).ok()?.client.id.clone(), caller.address().ip()))
    }

    /// Returns the caller, if one of the rule's roles is theirs.
    async fn actor<T>(&self, request: &Request<T>, rule: &RoleRule) -> Result<Actor, Status> {
        // Never at a gateway's port, whatever a request contains: only in the process of the folder's owner.
        if let (None, Some(local @ Actor::Local { .. })) = (&self.door, request.extensions().get()) {
            return Ok(local.clone());
        }
        let (Some(door), Some(caller)) = (&self.door, Principal::of(request.extensions())) else {
            return Err(refused(Reason::StaffUnknown.into()));
        };
        door.admit(&caller, rule).await.map_err(refused)
    }
}

type AdminResult<T> = Result<Response<T>, Status>;
