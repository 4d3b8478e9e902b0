//! `ndxp.admin.v1`: what administrators, approvers and operators do. Who calls is told by the certificate, what they may
//! do by their roles; a change and the note of it, which goes into the exchange log, are made together or not at all.

mod draft;
mod justification;
mod messages;

use crate::access::staff::StaffDoor;
use crate::config::Config;
use crate::contract::ContractSet;
use crate::contract::formats::is_within;
use crate::identity::{Peer, Thumbprint};
use crate::issuer::{IssueRequest, Issuer, KeyAlgorithm};
use crate::registry::{self, Actor, GrantState, Page, RegistryError, Role, Store, TokenState, now};
use crate::status::Reason;
use arc_swap::ArcSwap;
pub use draft::{ClientDraft, GrantDraft, StaffDraft};
use justification::justification;
use messages::{
    client_message, client_state, failed, grant_message, invalid, issue_failed, key_message, refused, role,
    staff_message, token_message, violated,
};
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

/// Records on a page where nothing else is said, and at most.
const PAGE: (u32, u32) = (100, 1_000);
/// Everybody who may read.
const ANY: &[Role] = &[Role::Administrator, Role::Approver, Role::Auditor, Role::Operator];
const ADMINISTRATOR: &[Role] = &[Role::Administrator];
/// Who may take away in an emergency.
const EMERGENCY: &[Role] = &[Role::Administrator, Role::Operator];

/// The service.
#[derive(Clone)]
pub struct Admin {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    contracts: Arc<ArcSwap<ContractSet>>,
    door: Option<StaffDoor>,
}

impl Admin {
    /// The service over a gateway's parts.
    pub fn new(
        config: Arc<Config>,
        store: Arc<dyn Store>,
        contracts: Arc<ArcSwap<ContractSet>>,
        door: StaffDoor,
    ) -> Self {
        Admin { config, store, contracts, door: Some(door) }
    }

    /// The service for the owner of the data folder, in their own process: each request has its [`Actor::Local`]
    /// as an extension, which nobody can send from outside.
    pub fn local(config: Arc<Config>, store: Arc<dyn Store>, contracts: Arc<ArcSwap<ContractSet>>) -> Self {
        Admin { config, store, contracts, door: None }
    }

    /// The store in the name of who asks and with their reason, where one of these roles is theirs.
    async fn acting<T>(
        &self,
        request: &Request<T>,
        act: &'static str,
        roles: &[Role],
    ) -> Result<Box<dyn Store>, Status> {
        let because = justification(request.metadata())?;
        if let Some(local @ Actor::Local { .. }) = request.extensions().get() {
            return self.store.named(local.clone(), &because).map_err(failed);
        }
        let (Some(door), Some(peer)) = (&self.door, request.extensions().get::<Arc<Peer>>()) else {
            return Err(refused(Reason::StaffUnknown.into()));
        };
        let staff = door.admit(peer, act, roles).await.map_err(refused)?;
        self.store.named(staff, &because).map_err(failed)
    }
}

type Told<T> = Result<Response<T>, Status>;

fn told<T>(message: T) -> Told<T> {
    Ok(Response::new(message))
}

/// How many records a page holds; one more is read, which tells whether another page follows.
fn size(asked: u32) -> usize {
    if asked == 0 { PAGE.0 as usize } else { asked.min(PAGE.1) as usize }
}

/// The token of the next page: the last id of this one, so that pages hold still while records are added.
fn next_page<T>(found: &mut Vec<T>, size: usize, id: impl Fn(&T) -> &str) -> String {
    let more = found.len() > size;
    found.truncate(size);
    found.last().filter(|_| more).map(|last| id(last).to_owned()).unwrap_or_default()
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn add_client(&self, request: Request<api::AddClientRequest>) -> Told<api::Client> {
        let store = self.acting(&request, "client.add", ADMINISTRATOR).await?;
        let api::AddClientRequest { id, agency, contact, names } = request.into_inner();
        let client = ClientDraft { id, agency, contact, names }.check().map_err(violated)?;
        store.add_client(&client).map_err(failed)?;
        told(client_message(client))
    }

    async fn change_client(&self, request: Request<api::ChangeClientRequest>) -> Told<api::Client> {
        let store = self.acting(&request, "client.change", ADMINISTRATOR).await?;
        let api::ChangeClientRequest { id, agency, contact, names } = request.into_inner();
        let before = store.client(&id).map_err(failed)?;
        let client = ClientDraft { id, agency, contact, names }.over(before).map_err(violated)?;
        store.change_client(&client).map_err(failed)?;
        told(client_message(client))
    }

    async fn suspend_client(&self, request: Request<api::ClientId>) -> Told<api::Client> {
        let store = self.acting(&request, "client.suspend", EMERGENCY).await?;
        let id = request.into_inner().id;
        store.suspend_client(&id, true).map_err(failed)?;
        told(client_message(store.client(&id).map_err(failed)?))
    }

    async fn resume_client(&self, request: Request<api::ClientId>) -> Told<api::Client> {
        let store = self.acting(&request, "client.resume", ADMINISTRATOR).await?;
        let id = request.into_inner().id;
        store.suspend_client(&id, false).map_err(failed)?;
        told(client_message(store.client(&id).map_err(failed)?))
    }

    async fn retire_client(&self, request: Request<api::ClientId>) -> Told<api::Client> {
        let store = self.acting(&request, "client.retire", ADMINISTRATOR).await?;
        let id = request.into_inner().id;
        store.retire_client(&id).map_err(failed)?;
        told(client_message(store.client(&id).map_err(failed)?))
    }

    async fn get_client(&self, request: Request<api::ClientId>) -> Told<api::Client> {
        let store = self.acting(&request, "client.show", ANY).await?;
        told(client_message(store.client(&request.into_inner().id).map_err(failed)?))
    }

    async fn list_clients(&self, request: Request<api::ListClientsRequest>) -> Told<api::ListClientsResponse> {
        let store = self.acting(&request, "client.list", ANY).await?;
        let api::ListClientsRequest { agency, page_size, page_token, state } = request.into_inner();
        let (size, state) = (size(page_size), client_state(state)?);
        let fits = |client: &registry::Client| {
            (agency.is_empty() || is_within(&agency, &client.agency))
                && state.is_none_or(|state| client.state() == state)
        };
        let page = Page { after: &page_token, most: size + 1, fits: &fits };
        let mut found = store.clients(page).map_err(failed)?;
        let next_page_token = next_page(&mut found, size, |client| &client.id);
        told(api::ListClientsResponse { clients: found.into_iter().map(client_message).collect(), next_page_token })
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
        told(grant_message(store.grant(&grant.id).map_err(failed)?))
    }

    async fn approve_grant(&self, request: Request<api::GrantId>) -> Told<api::Grant> {
        let store = self.acting(&request, "grant.approve", &[Role::Approver]).await?;
        let id = request.into_inner().id;
        store.approve_grant(&id).map_err(failed)?;
        told(grant_message(store.grant(&id).map_err(failed)?))
    }

    async fn withdraw_grant(&self, request: Request<api::GrantId>) -> Told<api::Grant> {
        let store = self.acting(&request, "grant.withdraw", &[Role::Administrator, Role::Approver]).await?;
        let id = request.into_inner().id;
        store.withdraw_grant(&id).map_err(failed)?;
        told(grant_message(store.grant(&id).map_err(failed)?))
    }

    async fn get_grant(&self, request: Request<api::GrantId>) -> Told<api::Grant> {
        let store = self.acting(&request, "grant.show", ANY).await?;
        told(grant_message(store.grant(&request.into_inner().id).map_err(failed)?))
    }

    async fn list_grants(&self, request: Request<api::ListGrantsRequest>) -> Told<api::ListGrantsResponse> {
        let store = self.acting(&request, "grant.list", ANY).await?;
        let api::ListGrantsRequest { client, pending, page_size, page_token } = request.into_inner();
        let (size, now) = (size(page_size), now());
        let fits = |grant: &registry::Grant| !pending || grant.state(now) == GrantState::Pending;
        let page = Page { after: &page_token, most: size + 1, fits: &fits };
        let mut found = store.grants(named(&client), page).map_err(failed)?;
        let next_page_token = next_page(&mut found, size, |grant| &grant.id);
        told(api::ListGrantsResponse { grants: found.into_iter().map(grant_message).collect(), next_page_token })
    }

    async fn issue_token(&self, request: Request<api::IssueTokenRequest>) -> Told<api::IssueTokenResponse> {
        let store = self.acting(&request, "token.issue", ADMINISTRATOR).await?;
        let api::IssueTokenRequest { client, certificate, scopes, lifetime_s, starts_in_s } = request.into_inner();
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| invalid("certificate", "must be a certificate (PEM)"))?;
        let view = store.view(&client).map_err(failed)?;
        let usual = self.config.tokens.lifetime;
        let lifetime = if lifetime_s == 0 { usual } else { Duration::from_secs(lifetime_s.into()) };
        let starts_in = Duration::from_secs(starts_in_s.into());
        let request = IssueRequest { scopes, certificate: Thumbprint::of(&der), lifetime, starts_in };
        let issuer = Issuer::new(store.as_ref(), &self.config);
        let (token, record) = issuer.issue(&view, request).map_err(issue_failed)?;
        told(api::IssueTokenResponse { token, record: Some(token_message(record)) })
    }

    async fn revoke_token(&self, request: Request<api::TokenId>) -> Told<api::Token> {
        let store = self.acting(&request, "token.revoke", EMERGENCY).await?;
        let id = request.into_inner().id;
        store.revoke_token(&id).map_err(failed)?;
        told(token_message(store.token(&id).map_err(failed)?))
    }

    async fn revoke_client_tokens(&self, request: Request<api::ClientId>) -> Told<api::RevokeClientTokensResponse> {
        let store = self.acting(&request, "token.revoke", EMERGENCY).await?;
        let revoked = store.revoke_client_tokens(&request.into_inner().id).map_err(failed)?;
        told(api::RevokeClientTokensResponse { revoked: u32::try_from(revoked).unwrap_or(u32::MAX) })
    }

    async fn get_token(&self, request: Request<api::TokenId>) -> Told<api::Token> {
        let store = self.acting(&request, "token.show", ANY).await?;
        told(token_message(store.token(&request.into_inner().id).map_err(failed)?))
    }

    async fn list_tokens(&self, request: Request<api::ListTokensRequest>) -> Told<api::ListTokensResponse> {
        let store = self.acting(&request, "token.list", ANY).await?;
        let api::ListTokensRequest { client, in_force, page_size, page_token } = request.into_inner();
        let (size, now) = (size(page_size), now());
        let fits = |token: &registry::TokenRecord| !in_force || token.state(now) == TokenState::InForce;
        let page = Page { after: &page_token, most: size + 1, fits: &fits };
        let mut found = store.tokens(named(&client), page).map_err(failed)?;
        let next_page_token = next_page(&mut found, size, |token| &token.id);
        told(api::ListTokensResponse { tokens: found.into_iter().map(token_message).collect(), next_page_token })
    }

    async fn rotate_key(&self, request: Request<api::RotateKeyRequest>) -> Told<api::Key> {
        let store = self.acting(&request, "key.rotate", ADMINISTRATOR).await?;
        let algorithm = match request.into_inner().algorithm.as_str() {
            "" | "ES256" => KeyAlgorithm::Es256,
            "EdDSA" => KeyAlgorithm::Eddsa,
            _ => return Err(invalid("algorithm", "must be ES256 or EdDSA")),
        };
        let key = Issuer::new(store.as_ref(), &self.config).rotate(algorithm).map_err(issue_failed)?;
        told(key_message(key))
    }

    async fn retire_key(&self, request: Request<api::KeyId>) -> Told<api::Key> {
        let store = self.acting(&request, "key.retire", ADMINISTRATOR).await?;
        let kid = request.into_inner().kid;
        store.retire_key(&kid).map_err(failed)?;
        let found = store.keys().map_err(failed)?.into_iter().find(|key| key.kid == kid);
        told(key_message(found.ok_or_else(|| failed(RegistryError::Unknown("key", kid)))?))
    }

    async fn list_keys(&self, request: Request<api::ListKeysRequest>) -> Told<api::ListKeysResponse> {
        let store = self.acting(&request, "key.list", ANY).await?;
        let keys = store.keys().map_err(failed)?;
        told(api::ListKeysResponse { keys: keys.into_iter().map(key_message).collect() })
    }

    async fn add_staff(&self, request: Request<api::AddStaffRequest>) -> Told<api::Staff> {
        let store = self.acting(&request, "staff.add", ADMINISTRATOR).await?;
        let api::AddStaffRequest { id, roles, names } = request.into_inner();
        let roles: Vec<Role> = roles.into_iter().map(role).collect::<Result<_, _>>()?;
        let staff = StaffDraft { id, roles, names }.check().map_err(violated)?;
        store.add_staff(&staff).map_err(failed)?;
        told(staff_message(staff))
    }

    async fn remove_staff(&self, request: Request<api::StaffId>) -> Told<api::Staff> {
        let store = self.acting(&request, "staff.remove", ADMINISTRATOR).await?;
        let id = request.into_inner().id;
        let found = store.staff().map_err(failed)?.into_iter().find(|staff| staff.id == id);
        store.remove_staff(&id).map_err(failed)?;
        told(staff_message(found.ok_or_else(|| failed(RegistryError::Unknown("member of staff", id)))?))
    }

    async fn list_staff(&self, request: Request<api::ListStaffRequest>) -> Told<api::ListStaffResponse> {
        let store = self.acting(&request, "staff.list", ANY).await?;
        let staff = store.staff().map_err(failed)?;
        told(api::ListStaffResponse { staff: staff.into_iter().map(staff_message).collect() })
    }
}

/// A name that is given, or none.
fn named(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
