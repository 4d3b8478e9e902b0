//! `ndxp.admin.v1`: what administrators, approvers and operators do. Who calls is told by the certificate, what they may
//! do by their roles; a change and the note of it, which goes into the exchange log, are made together or not at all.

mod draft;

use crate::config::Config;
use crate::contract::ContractSet;
use crate::contract::formats::{Format, check, expectation, is_within};
use crate::contract::validate::Violation;
use crate::exchange_log::{Entry, ExchangeLog, Kind, entry};
use crate::identity::{Peer, Thumbprint};
use crate::issuer::{IssueError, IssueRequest, Issuer, KeyAlgorithm};
use crate::pki::{client_uri, staff_uri};
use crate::registry::{self, RegistryError, Role, Snapshot, Staff, Store, now};
use crate::status::{Reason, Refusal};
use arc_swap::ArcSwap;
pub use draft::GrantDraft;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Messages and service, as generated.
#[allow(missing_docs, clippy::all)]
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/ndxp.admin.v1.rs"));
}

use api::admin_service_server::AdminService;
pub use api::admin_service_server::AdminServiceServer;

/// Clients on a page where nothing else is said, and at most.
const PAGE: (u32, u32) = (100, 1_000);
/// Everybody who may read.
const ANY: &[Role] = &[Role::Administrator, Role::Approver, Role::Auditor, Role::Operator];
const ADMINISTRATOR: &[Role] = &[Role::Administrator];

/// The service.
#[derive(Clone)]
pub struct Admin {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    registry: Arc<ArcSwap<Snapshot>>,
    contracts: Arc<ArcSwap<ContractSet>>,
    log: ExchangeLog,
}

fn refused(refusal: Refusal) -> Status {
    refusal.to_status("")
}

fn invalid(field: &str, description: impl Into<String>) -> Status {
    refused(Refusal::fields(vec![Violation { field: field.into(), description: description.into() }]))
}

fn failed(error: RegistryError) -> Status {
    refused(match error {
        RegistryError::Unknown(..) => Refusal::with(Reason::ObjectUnknown, error.to_string()),
        RegistryError::Exists(..) => Refusal::with(Reason::ObjectExists, error.to_string()),
        RegistryError::Forbidden(rule) => Refusal::with(Reason::RoleMissing, rule),
        RegistryError::Invalid(what, rule) => {
            return invalid("id", format!("{what} must be {rule}"));
        }
        RegistryError::Store(_) => {
            tracing::error!(%error, "the registry failed");
            Reason::RegistryUnavailable.into()
        }
    })
}

impl Admin {
    /// The service over a gateway's parts.
    pub fn new(
        config: Arc<Config>,
        store: Arc<dyn Store>,
        registry: Arc<ArcSwap<Snapshot>>,
        contracts: Arc<ArcSwap<ContractSet>>,
        log: ExchangeLog,
    ) -> Self {
        Admin { config, store, registry, contracts, log }
    }

    /// The store in the name of who asks, where one of these roles is theirs. A refusal is in the log before it is told.
    async fn acting<T>(
        &self,
        request: &Request<T>,
        act: &'static str,
        roles: &[Role],
    ) -> Result<Box<dyn Store>, Status> {
        let peer = request.extensions().get::<Arc<Peer>>().cloned();
        let Some(peer) = peer else { return Err(refused(Reason::StaffUnknown.into())) };
        let staff = self.registry.load().staff_of(&peer.names).cloned();
        let refusal = match &staff {
            Some(staff) if staff.roles.iter().any(|role| roles.contains(role)) => {
                return Ok(self.store.named(&format!("staff:{}", staff.id)));
            }
            Some(_) => Refusal::from(Reason::RoleMissing),
            None => Reason::StaffUnknown.into(),
        };
        let entry = Entry {
            version: entry::VERSION,
            kind: Kind::Admin as i32,
            exchange_id: uuid::Uuid::now_v7().as_bytes().to_vec(),
            time_us: jiff::Timestamp::now().as_microsecond(),
            node: self.config.node.clone(),
            certificate: peer.thumbprint.0.to_vec(),
            peer: peer.address.to_string(),
            actor: staff.map(|staff| format!("staff:{}", staff.id)).unwrap_or_default(),
            act: act.to_owned(),
            status: refusal.reason.code() as u32,
            reason: refusal.reason.as_str().to_owned(),
            ..Entry::default()
        };
        let logged = self.log.append(&entry).await;
        Err(refused(logged.map_or_else(|_| Reason::ExchangeLogUnavailable.into(), |_| refusal)))
    }

    fn client(&self, store: &dyn Store, id: &str) -> Result<Response<api::Client>, Status> {
        let found = store.load().map_err(failed)?.clients.into_iter().find(|client| client.id == id);
        let found = found.ok_or_else(|| failed(RegistryError::Unknown("client", id.to_owned())))?;
        Ok(Response::new(client_message(found)))
    }

    fn grant(&self, store: &dyn Store, id: &str) -> Result<Response<api::Grant>, Status> {
        let found = store.all_grants().map_err(failed)?.into_iter().find(|grant| grant.id == id);
        let found = found.ok_or_else(|| failed(RegistryError::Unknown("grant", id.to_owned())))?;
        Ok(Response::new(grant_message(found)))
    }

    fn key(&self, store: &dyn Store, kid: &str) -> Result<Response<api::Key>, Status> {
        let found = store.load().map_err(failed)?.keys.into_iter().find(|key| key.kid == kid);
        let found = found.ok_or_else(|| failed(RegistryError::Unknown("key", kid.to_owned())))?;
        Ok(Response::new(key_message(found)))
    }
}

fn client_message(client: registry::Client) -> api::Client {
    let registry::Client { id, agency, contact, names, suspended, created } = client;
    api::Client { id, agency, contact, names, suspended, created }
}

fn grant_message(grant: registry::Grant) -> api::Grant {
    api::Grant {
        id: grant.id,
        client: grant.client,
        scopes: grant.scopes,
        purposes: grant.purposes,
        fields: grant.fields,
        rate: grant.rate,
        burst: grant.burst,
        daily_quota: grant.daily_quota,
        not_before: grant.not_before,
        not_after: grant.not_after,
        legal_basis: grant.legal_basis,
        networks: grant.networks.iter().map(ToString::to_string).collect(),
        requested_by: grant.requested_by,
        approved_by: grant.approved_by.unwrap_or_default(),
        needs_approval: grant.needs_approval,
        withdrawn: grant.withdrawn,
    }
}

fn token_message(token: registry::TokenRecord) -> api::Token {
    let registry::TokenRecord { id, client, scopes, issued, starts, expires, revoked, .. } = token;
    api::Token { id, client, scopes, issued, starts, expires, revoked }
}

fn key_message(key: registry::SigningKey) -> api::Key {
    let registry::SigningKey { kid, algorithm, created, believed_until, .. } = key;
    api::Key { kid, algorithm, created, believed_until }
}

fn staff_message(staff: Staff) -> api::Staff {
    let role = |role: &Role| match role {
        Role::Administrator => api::Role::Administrator as i32,
        Role::Approver => api::Role::Approver as i32,
        Role::Auditor => api::Role::Auditor as i32,
        Role::Operator => api::Role::Operator as i32,
    };
    api::Staff { roles: staff.roles.iter().map(role).collect(), id: staff.id, names: staff.names }
}

fn role(number: i32) -> Result<Role, Status> {
    match api::Role::try_from(number) {
        Ok(api::Role::Administrator) => Ok(Role::Administrator),
        Ok(api::Role::Approver) => Ok(Role::Approver),
        Ok(api::Role::Auditor) => Ok(Role::Auditor),
        Ok(api::Role::Operator) => Ok(Role::Operator),
        Ok(api::Role::Unspecified) | Err(_) => Err(invalid("roles", "must be roles of the contract")),
    }
}

fn issue_failed(error: IssueError) -> Status {
    match error {
        IssueError::Registry(error) => failed(error),
        IssueError::NotGranted { .. } | IssueError::TooLong => invalid("scopes", error.to_string()),
        IssueError::Suspended(_) => refused(Reason::ClientSuspended.into()),
        IssueError::NoKey | IssueError::Key { .. } => {
            tracing::error!(%error, "no token could be issued");
            refused(Refusal::with(Reason::RegistryUnavailable, "no signing key can be used"))
        }
    }
}

type Told<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AdminService for Admin {
    async fn add_client(&self, request: Request<api::AddClientRequest>) -> Told<api::Client> {
        let store = self.acting(&request, "client.add", ADMINISTRATOR).await?;
        let api::AddClientRequest { id, agency, contact, names } = request.into_inner();
        registry::check_id("a client's id", &id).map_err(failed)?;
        check(Format::AgencyCode, &agency)
            .map_err(|_| invalid("agency", format!("must be {}", expectation(Format::AgencyCode))))?;
        let names = if names.is_empty() { vec![client_uri(&id)] } else { names };
        let client = registry::Client { id, agency, contact, names, suspended: false, created: now() };
        store.add_client(&client).map_err(failed)?;
        Ok(Response::new(client_message(client)))
    }

    async fn suspend_client(&self, request: Request<api::ClientId>) -> Told<api::Client> {
        let store = self.acting(&request, "client.suspend", &[Role::Administrator, Role::Operator]).await?;
        let id = request.into_inner().id;
        store.suspend_client(&id, true).map_err(failed)?;
        self.client(store.as_ref(), &id)
    }

    async fn resume_client(&self, request: Request<api::ClientId>) -> Told<api::Client> {
        let store = self.acting(&request, "client.resume", ADMINISTRATOR).await?;
        let id = request.into_inner().id;
        store.suspend_client(&id, false).map_err(failed)?;
        self.client(store.as_ref(), &id)
    }

    async fn list_clients(&self, request: Request<api::ListClientsRequest>) -> Told<api::ListClientsResponse> {
        let store = self.acting(&request, "client.list", ANY).await?;
        let api::ListClientsRequest { agency, page_size, page_token } = request.into_inner();
        let size = if page_size == 0 { PAGE.0 } else { page_size.min(PAGE.1) } as usize;
        let below = |code: &str| agency.is_empty() || is_within(&agency, code);
        // Ordered by id, and the token is the last id of the page before: pages hold still while clients are added.
        let mut found = store.load().map_err(failed)?.clients;
        found.retain(|client| client.id > page_token && below(&client.agency));
        let more = found.len() > size;
        found.truncate(size);
        let next_page_token = found.last().filter(|_| more).map(|client| client.id.clone()).unwrap_or_default();
        let clients = found.into_iter().map(client_message).collect();
        Ok(Response::new(api::ListClientsResponse { clients, next_page_token }))
    }

    async fn add_grant(&self, request: Request<api::AddGrantRequest>) -> Told<api::Grant> {
        let store = self.acting(&request, "grant.add", ADMINISTRATOR).await?;
        let asked = request.into_inner();
        let draft = GrantDraft {
            client: asked.client,
            scopes: asked.scopes,
            purposes: asked.purposes,
            fields: asked.fields,
            rate: asked.rate,
            burst: asked.burst,
            daily_quota: asked.daily_quota,
            not_before: asked.not_before,
            not_after: asked.not_after,
            legal_basis: asked.legal_basis,
            networks: asked.networks,
        };
        let grant = draft.check(&self.contracts.load()).map_err(|wrong| invalid("grant", wrong))?;
        store.add_grant(&grant).map_err(failed)?;
        self.grant(store.as_ref(), &grant.id)
    }

    async fn approve_grant(&self, request: Request<api::GrantId>) -> Told<api::Grant> {
        let store = self.acting(&request, "grant.approve", &[Role::Approver]).await?;
        let id = request.into_inner().id;
        store.approve_grant(&id).map_err(failed)?;
        self.grant(store.as_ref(), &id)
    }

    async fn withdraw_grant(&self, request: Request<api::GrantId>) -> Told<api::Grant> {
        let store = self.acting(&request, "grant.withdraw", &[Role::Administrator, Role::Approver]).await?;
        let id = request.into_inner().id;
        store.withdraw_grant(&id).map_err(failed)?;
        self.grant(store.as_ref(), &id)
    }

    async fn list_grants(&self, request: Request<api::ListGrantsRequest>) -> Told<api::ListGrantsResponse> {
        let store = self.acting(&request, "grant.list", ANY).await?;
        let api::ListGrantsRequest { client, pending } = request.into_inner();
        let mut found = store.all_grants().map_err(failed)?;
        found.retain(|grant| {
            let waits = grant.needs_approval && grant.approved_by.is_none() && !grant.withdrawn;
            (client.is_empty() || grant.client == client) && (!pending || waits)
        });
        Ok(Response::new(api::ListGrantsResponse { grants: found.into_iter().map(grant_message).collect() }))
    }

    async fn issue_token(&self, request: Request<api::IssueTokenRequest>) -> Told<api::IssueTokenResponse> {
        let store = self.acting(&request, "token.issue", ADMINISTRATOR).await?;
        let api::IssueTokenRequest { client, certificate, scopes, lifetime_s } = request.into_inner();
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| invalid("certificate", "must be a certificate (PEM)"))?;
        let registry = Snapshot::new(store.load().map_err(failed)?);
        let view = registry.client(&client).ok_or_else(|| failed(RegistryError::Unknown("client", client.clone())))?;
        let lifetime = Duration::from_secs(if lifetime_s == 0 { 3_600 } else { lifetime_s.into() });
        let request = IssueRequest { scopes, certificate: Thumbprint::of(&der), lifetime, starts_in: Duration::ZERO };
        let issuer = Issuer::new(store.as_ref(), &self.config);
        let (token, record) = issuer.issue(view, request).map_err(issue_failed)?;
        Ok(Response::new(api::IssueTokenResponse { token, record: Some(token_message(record)) }))
    }

    async fn revoke_token(&self, request: Request<api::TokenId>) -> Told<api::Token> {
        let store = self.acting(&request, "token.revoke", &[Role::Administrator, Role::Operator]).await?;
        let id = request.into_inner().id;
        store.revoke_token(&id).map_err(failed)?;
        let found = store.tokens(None).map_err(failed)?.into_iter().find(|token| token.id == id);
        let found = found.ok_or_else(|| failed(RegistryError::Unknown("token", id)))?;
        Ok(Response::new(token_message(found)))
    }

    async fn revoke_client_tokens(&self, request: Request<api::ClientId>) -> Told<api::RevokeClientTokensResponse> {
        let store = self.acting(&request, "token.revoke", &[Role::Administrator, Role::Operator]).await?;
        let id = request.into_inner().id;
        let mut revoked = 0;
        let tokens = store.tokens(Some(&id)).map_err(failed)?;
        for token in tokens.iter().filter(|token| !token.revoked && token.expires > now()) {
            store.revoke_token(&token.id).map_err(failed)?;
            revoked += 1;
        }
        Ok(Response::new(api::RevokeClientTokensResponse { revoked }))
    }

    async fn list_tokens(&self, request: Request<api::ListTokensRequest>) -> Told<api::ListTokensResponse> {
        let store = self.acting(&request, "token.list", ANY).await?;
        let api::ListTokensRequest { client, in_force } = request.into_inner();
        let client = Some(client).filter(|client| !client.is_empty());
        let mut found = store.tokens(client.as_deref()).map_err(failed)?;
        found.retain(|token| !in_force || !token.revoked && token.expires > now());
        Ok(Response::new(api::ListTokensResponse { tokens: found.into_iter().map(token_message).collect() }))
    }

    async fn rotate_key(&self, request: Request<api::RotateKeyRequest>) -> Told<api::Key> {
        let store = self.acting(&request, "key.rotate", ADMINISTRATOR).await?;
        let algorithm = match request.into_inner().algorithm.as_str() {
            "" | "ES256" => KeyAlgorithm::Es256,
            "EdDSA" => KeyAlgorithm::Eddsa,
            _ => return Err(invalid("algorithm", "must be ES256 or EdDSA")),
        };
        let key = Issuer::new(store.as_ref(), &self.config).rotate(algorithm).map_err(issue_failed)?;
        Ok(Response::new(key_message(key)))
    }

    async fn retire_key(&self, request: Request<api::KeyId>) -> Told<api::Key> {
        let store = self.acting(&request, "key.retire", ADMINISTRATOR).await?;
        let kid = request.into_inner().kid;
        store.retire_key(&kid).map_err(failed)?;
        self.key(store.as_ref(), &kid)
    }

    async fn list_keys(&self, request: Request<api::ListKeysRequest>) -> Told<api::ListKeysResponse> {
        let store = self.acting(&request, "key.list", ANY).await?;
        let keys = store.load().map_err(failed)?.keys;
        Ok(Response::new(api::ListKeysResponse { keys: keys.into_iter().map(key_message).collect() }))
    }

    async fn add_staff(&self, request: Request<api::AddStaffRequest>) -> Told<api::Staff> {
        let store = self.acting(&request, "staff.add", ADMINISTRATOR).await?;
        let api::AddStaffRequest { id, roles, names } = request.into_inner();
        registry::check_id("a person's id", &id).map_err(failed)?;
        let roles: Vec<Role> = roles.into_iter().map(role).collect::<Result<_, _>>()?;
        if roles.is_empty() {
            return Err(invalid("roles", "at least one is needed"));
        }
        let names = if names.is_empty() { vec![staff_uri(&id)] } else { names };
        let staff = Staff { id, roles, names };
        store.add_staff(&staff).map_err(failed)?;
        Ok(Response::new(staff_message(staff)))
    }

    async fn remove_staff(&self, request: Request<api::StaffId>) -> Told<api::Staff> {
        let store = self.acting(&request, "staff.remove", ADMINISTRATOR).await?;
        let id = request.into_inner().id;
        let found = store.load().map_err(failed)?.staff.into_iter().find(|staff| staff.id == id);
        store.remove_staff(&id).map_err(failed)?;
        let found = found.ok_or_else(|| failed(RegistryError::Unknown("member of staff", id)))?;
        Ok(Response::new(staff_message(found)))
    }

    async fn list_staff(&self, request: Request<api::ListStaffRequest>) -> Told<api::ListStaffResponse> {
        let store = self.acting(&request, "staff.list", ANY).await?;
        let staff = store.load().map_err(failed)?.staff;
        Ok(Response::new(api::ListStaffResponse { staff: staff.into_iter().map(staff_message).collect() }))
    }
}
