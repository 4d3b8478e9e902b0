//! The methods of the service: each reads or changes by one call of the registry, in the caller's name.

use super::api::admin_service_server::AdminService;
use super::messages::{
    client_message, client_state, failed, grant_message, invalid, issue_failed, key_message, refused,
    revocation_message, size, staff_message, token_message, violated,
};
use super::{Admin, AdminResult, api, can, changes, check, drift, last_use, notices, preview, rules};
use super::{ClientDraft, GrantDraft};
use crate::identity::principal::Principal;
use crate::issuer::{HandIssue, Issuer, KeyAlgorithm};
use crate::registry::{
    ClientFilter, GrantFilter, GrantState, ListPage, Page, RegistryError, Store, TokenFilter, TokenState,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl AdminService for Admin {
    async fn add_client(&self, request: Request<api::AddClientRequest>) -> AdminResult<api::Client> {
        self.write(request, &rules::ADD_CLIENT, |_, store, message| {
            let api::AddClientRequest { id, agency, contact, names } = message;
            let client = ClientDraft { id, agency, contact, names }.check().map_err(violated)?;
            store.add_client(&client).map_err(failed)?;
            Ok(client_message(client))
        })
        .await
    }

    async fn change_client(&self, request: Request<api::ChangeClientRequest>) -> AdminResult<api::Client> {
        self.write(request, &rules::CHANGE_CLIENT, |_, store, message| {
            let api::ChangeClientRequest { id, agency, contact, names } = message;
            let before = store.client(&id).map_err(failed)?;
            let client = ClientDraft { id, agency, contact, names }.over(before).map_err(violated)?;
            let outcome = store.change_client(&client).map_err(failed)?;
            let now = store.client(&client.id).map_err(failed)?;
            Ok(api::Client { pending_change: changes::waits(&outcome), ..client_message(now) })
        })
        .await
    }

    async fn suspend_client(&self, request: Request<api::ClientId>) -> AdminResult<api::Client> {
        self.write(request, &rules::SUSPEND_CLIENT, |_, store, message| {
            store.suspend_client(&message.id, true).map_err(failed)?;
            Ok(client_message(store.client(&message.id).map_err(failed)?))
        })
        .await
    }

    async fn resume_client(&self, request: Request<api::ClientId>) -> AdminResult<api::Client> {
        self.write(request, &rules::RESUME_CLIENT, |_, store, message| {
            let outcome = store.resume_client(&message.id).map_err(failed)?;
            let now = store.client(&message.id).map_err(failed)?;
            Ok(api::Client { pending_change: changes::waits(&outcome), ..client_message(now) })
        })
        .await
    }

    async fn retire_client(&self, request: Request<api::ClientId>) -> AdminResult<api::Client> {
        self.write(request, &rules::RETIRE_CLIENT, |_, store, message| {
            store.retire_client(&message.id).map_err(failed)?;
            Ok(client_message(store.client(&message.id).map_err(failed)?))
        })
        .await
    }

    async fn get_client(&self, request: Request<api::ClientId>) -> AdminResult<api::Client> {
        self.read(request, &rules::GET_CLIENT, |_, store, message| {
            Ok(client_message(store.client(&message.id).map_err(failed)?))
        })
        .await
    }

    async fn list_clients(&self, request: Request<api::ListClientsRequest>) -> AdminResult<api::ListClientsResponse> {
        self.read(request, &rules::LIST_CLIENTS, |_, store, message| {
            let api::ListClientsRequest { agency, page_size, page_token, state } = message;
            let filter = ClientFilter { agency: &agency, state: client_state(state)? };
            let page = Page { after: &page_token, max: size(page_size), filter };
            let ListPage { records, next } = store.clients(page).map_err(failed)?;
            let clients = records.into_iter().map(client_message).collect();
            Ok(api::ListClientsResponse { clients, next_page_token: next })
        })
        .await
    }

    async fn add_grant(&self, request: Request<api::AddGrantRequest>) -> AdminResult<api::Grant> {
        self.write(request, &rules::ADD_GRANT, |admin, store, message| {
            let draft = GrantDraft {
                client: message.client,
                scopes: message.scopes,
                purposes: message.purposes,
                fields: message.fields,
                rate: message.rate,
                burst: message.burst,
                daily_quota: message.daily_quota,
                not_before: message.not_before,
                not_after: message.not_after,
                legal_basis: message.legal_basis,
                networks: message.networks,
            };
            let grant = draft.check(&admin.contracts.load()).map_err(violated)?;
            store.add_grant(&grant).map_err(failed)?;
            Ok(grant_message(store.grant(&grant.id).map_err(failed)?))
        })
        .await
    }

    async fn change_grant(&self, request: Request<api::ChangeGrantRequest>) -> AdminResult<api::Grant> {
        let change =
            |admin: &Admin, store: &dyn Store, message| changes::change_grant(store, &admin.contracts.load(), message);
        self.write(request, &rules::CHANGE_GRANT, change).await
    }

    async fn approve_grant(&self, request: Request<api::GrantId>) -> AdminResult<api::Grant> {
        self.write(request, &rules::APPROVE_GRANT, |_, store, message| {
            store.approve_grant(&message.id).map_err(failed)?;
            Ok(grant_message(store.grant(&message.id).map_err(failed)?))
        })
        .await
    }

    async fn withdraw_grant(&self, request: Request<api::GrantId>) -> AdminResult<api::Grant> {
        self.write(request, &rules::WITHDRAW_GRANT, |_, store, message| {
            store.withdraw_grant(&message.id).map_err(failed)?;
            Ok(grant_message(store.grant(&message.id).map_err(failed)?))
        })
        .await
    }

    async fn get_grant(&self, request: Request<api::GrantId>) -> AdminResult<api::Grant> {
        self.read(request, &rules::GET_GRANT, |_, store, message| {
            Ok(grant_message(store.grant(&message.id).map_err(failed)?))
        })
        .await
    }

    async fn list_grants(&self, request: Request<api::ListGrantsRequest>) -> AdminResult<api::ListGrantsResponse> {
        self.read(request, &rules::LIST_GRANTS, |_, store, message| {
            let api::ListGrantsRequest { client, pending, page_size, page_token } = message;
            let filter = GrantFilter { state: pending.then_some(GrantState::Pending) };
            let page = Page { after: &page_token, max: size(page_size), filter };
            let ListPage { records, next } = store.grants(named(&client), page).map_err(failed)?;
            let grants = records.into_iter().map(grant_message).collect();
            Ok(api::ListGrantsResponse { grants, next_page_token: next })
        })
        .await
    }

    async fn issue_token(&self, request: Request<api::IssueTokenRequest>) -> AdminResult<api::IssueTokenResponse> {
        self.write(request, &rules::ISSUE_TOKEN, |admin, store, message| {
            let api::IssueTokenRequest { client, certificate, scopes, lifetime_s, starts_in_s } = message;
            let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
            let chain = read.ok().filter(|chain| !chain.is_empty());
            let vietnamese = "phải là chứng thư số ở định dạng PEM";
            let chain = chain.ok_or_else(|| invalid("certificate", "must be a certificate (PEM)", vietnamese))?;
            changes::must_be_anothers(store.actor(), &chain)?;
            let usual = admin.config.tokens.lifetime;
            let lifetime = if lifetime_s == 0 { usual } else { Duration::from_secs(lifetime_s.into()) };
            let starts_in = Duration::from_secs(starts_in_s.into());
            let hand = HandIssue { scopes, chain, lifetime, starts_in };
            let issuer = Issuer::new(store, admin.config.issuer_settings());
            let (token, record) = issuer.issue_by_hand(&client, hand, &admin.config.tls).map_err(issue_failed)?;
            Ok(api::IssueTokenResponse { token, record: Some(token_message(record)) })
        })
        .await
    }

    async fn revoke_token(&self, request: Request<api::TokenId>) -> AdminResult<api::Token> {
        self.write(request, &rules::REVOKE_TOKEN, |admin, store, message| {
            // Begun first: the gateway may decide by it before the store has returned.
            admin.revocations.begin(&message.id, Instant::now());
            let revoked = store.revoke_token(&message.id);
            revoked.inspect_err(|_| admin.revocations.cancel(&message.id)).map_err(failed)?;
            Ok(revocation_message(store.token(&message.id).map_err(failed)?, &admin.revocations))
        })
        .await
    }

    async fn revoke_client_tokens(
        &self,
        request: Request<api::ClientId>,
    ) -> AdminResult<api::RevokeClientTokensResponse> {
        self.write(request, &rules::REVOKE_CLIENT_TOKENS, |_, store, message| {
            let revoked = store.revoke_client_tokens(&message.id).map_err(failed)?;
            Ok(api::RevokeClientTokensResponse { revoked: u32::try_from(revoked).unwrap_or(u32::MAX) })
        })
        .await
    }

    async fn get_token(&self, request: Request<api::TokenId>) -> AdminResult<api::Token> {
        self.read(request, &rules::GET_TOKEN, |admin, store, message| {
            Ok(revocation_message(store.token(&message.id).map_err(failed)?, &admin.revocations))
        })
        .await
    }

    async fn list_tokens(&self, request: Request<api::ListTokensRequest>) -> AdminResult<api::ListTokensResponse> {
        self.read(request, &rules::LIST_TOKENS, |_, store, message| {
            let api::ListTokensRequest { client, in_force, page_size, page_token } = message;
            let filter = TokenFilter { state: in_force.then_some(TokenState::InForce) };
            let page = Page { after: &page_token, max: size(page_size), filter };
            let ListPage { records, next } = store.tokens(named(&client), page).map_err(failed)?;
            let tokens = records.into_iter().map(token_message).collect();
            Ok(api::ListTokensResponse { tokens, next_page_token: next })
        })
        .await
    }

    async fn rotate_key(&self, request: Request<api::RotateKeyRequest>) -> AdminResult<api::Key> {
        self.write(request, &rules::ROTATE_KEY, |admin, store, message| {
            let algorithm = match message.algorithm.as_str() {
                "" | "ES256" => KeyAlgorithm::Es256,
                "EdDSA" => KeyAlgorithm::Eddsa,
                _ => return Err(invalid("algorithm", "must be ES256 or EdDSA", "phải là ES256 hoặc EdDSA")),
            };
            let key = Issuer::new(store, admin.config.issuer_settings())
                .rotate_key(algorithm, message.now)
                .map_err(issue_failed)?;
            Ok(key_message(&key, &store.keys().map_err(failed)?))
        })
        .await
    }

    async fn retire_key(&self, request: Request<api::KeyId>) -> AdminResult<api::Key> {
        self.write(request, &rules::RETIRE_KEY, |_, store, message| {
            let kid = message.kid;
            store.retire_key(&kid).map_err(failed)?;
            let keys = store.keys().map_err(failed)?;
            let found = keys.iter().find(|key| key.kid == kid);
            Ok(key_message(found.ok_or_else(|| failed(RegistryError::Unknown("key", kid)))?, &keys))
        })
        .await
    }

    async fn list_keys(&self, request: Request<api::ListKeysRequest>) -> AdminResult<api::ListKeysResponse> {
        self.read(request, &rules::LIST_KEYS, |_, store, _| {
            let keys = store.keys().map_err(failed)?;
            Ok(api::ListKeysResponse { keys: keys.iter().map(|key| key_message(key, &keys)).collect() })
        })
        .await
    }

    async fn add_staff(&self, request: Request<api::AddStaffRequest>) -> AdminResult<api::Staff> {
        self.write(request, &rules::ADD_STAFF, |_, store, message| changes::add_staff(store, message)).await
    }

    async fn change_staff(&self, request: Request<api::ChangeStaffRequest>) -> AdminResult<api::Staff> {
        self.write(request, &rules::CHANGE_STAFF, |_, store, message| changes::change_staff(store, message)).await
    }

    async fn list_pending_changes(
        &self,
        request: Request<api::ListPendingChangesRequest>,
    ) -> AdminResult<api::ListPendingChangesResponse> {
        self.read(request, &rules::LIST_PENDING_CHANGES, |_, store, message| changes::list(store, &message)).await
    }

    async fn approve_change(
        &self,
        request: Request<api::ApproveChangeRequest>,
    ) -> AdminResult<api::ApproveChangeResponse> {
        self.write(request, &rules::APPROVE_CHANGE, |_, store, message| changes::approve(store, &message.id)).await
    }

    async fn reject_change(
        &self,
        request: Request<api::RejectChangeRequest>,
    ) -> AdminResult<api::RejectChangeResponse> {
        self.write(request, &rules::REJECT_CHANGE, |_, store, message| changes::reject(store, &message.id)).await
    }

    async fn remove_staff(&self, request: Request<api::StaffId>) -> AdminResult<api::Staff> {
        self.write(request, &rules::REMOVE_STAFF, |_, store, message| {
            let id = message.id;
            let found = store.staff().map_err(failed)?.into_iter().find(|staff| staff.id == id);
            store.remove_staff(&id).map_err(failed)?;
            Ok(staff_message(found.ok_or_else(|| failed(RegistryError::Unknown("member of staff", id)))?))
        })
        .await
    }

    async fn can_i(&self, mut request: Request<api::CanIRequest>) -> AdminResult<api::CanIResponse> {
        if let Some((client, address)) = self.client(&request) {
            let message = request.get_mut();
            if !message.client.is_empty() && message.client != client {
                return Err(failed(RegistryError::Unknown("client", std::mem::take(&mut message.client))));
            }
            // From where it asks: a thief of its key learns nothing about the networks of its grants.
            (message.client, message.address) = (client.clone(), address.to_string());
            let (admin, message) = (self.clone(), request.into_inner());
            let run = move || can::can_i(&admin.contracts.load(), admin.store.as_ref(), message);
            return self.work.clients.run(&client, run).await.map_err(refused)?.map(Response::new);
        }
        self.read(request, &rules::CAN_I, |admin, store, message| can::can_i(&admin.contracts.load(), store, message))
            .await
    }

    async fn check_source(&self, request: Request<api::SourceId>) -> AdminResult<api::CheckSourceResponse> {
        let rule = &rules::CHECK_SOURCE;
        let actor = self.actor(&request, rule).await?;
        let caller = Principal::of(request.extensions());
        let (Some(checker), Some(door), Some(caller)) = (&self.checker, &self.door, caller) else {
            return Err(Status::failed_precondition("only a running gateway can check: ask it with --remote"));
        };
        let source = request.into_inner().id;
        let checked = check::check((checker, &self.checks), (door, &caller, &actor), (rule.event, source));
        checked.await.map(Response::new)
    }

    async fn set_notice(&self, request: Request<api::SetNoticeRequest>) -> AdminResult<api::Notice> {
        self.write(request, &rules::SET_NOTICE, |admin, store, message| {
            notices::set(store, &admin.contracts.load(), message)
        })
        .await
    }

    async fn clear_notice(&self, request: Request<api::SourceId>) -> AdminResult<api::Notice> {
        self.write(request, &rules::CLEAR_NOTICE, |_, store, message| notices::clear(store, message.id)).await
    }

    async fn list_notices(&self, request: Request<api::ListNoticesRequest>) -> AdminResult<api::ListNoticesResponse> {
        self.read(request, &rules::LIST_NOTICES, |_, store, _| notices::list(store)).await
    }

    async fn list_last_use(&self, request: Request<api::ListLastUseRequest>) -> AdminResult<api::ListLastUseResponse> {
        self.read(request, &rules::LIST_LAST_USE, |admin, _, message| {
            last_use::list(&admin.opener, &admin.last_uses, message)
        })
        .await
    }

    async fn preview_grant_change(
        &self,
        request: Request<api::ChangeGrantRequest>,
    ) -> AdminResult<api::PreviewGrantChangeResponse> {
        self.read(request, &rules::PREVIEW_GRANT_CHANGE, |admin, store, message| {
            preview::preview(&admin.opener, store, &admin.contracts.load(), message)
        })
        .await
    }

    async fn list_drift(&self, request: Request<api::ListDriftRequest>) -> AdminResult<api::ListDriftResponse> {
        let list = |admin: &Admin, _: &dyn Store, message| {
            drift::list((&admin.config.data, &admin.config.vault), &admin.contracts.load(), &message)
        };
        self.read(request, &rules::LIST_DRIFT, list).await
    }

    async fn get_overview(&self, request: Request<api::GetOverviewRequest>) -> AdminResult<api::GetOverviewResponse> {
        self.read(request, &rules::GET_OVERVIEW, |admin, _, _| {
            let overview = admin.overview.as_ref();
            overview
                .map(|of| of())
                .ok_or_else(|| Status::failed_precondition("only a running gateway can say: ask it with --remote"))
        })
        .await
    }

    async fn get_cluster(&self, request: Request<api::GetClusterRequest>) -> AdminResult<api::GetClusterResponse> {
        self.actor(&request, &rules::GET_CLUSTER).await?;
        match (&self.cluster, &self.door) {
            (Some(cluster), _) => Ok(Response::new(cluster().await)),
            (None, Some(_)) => Err(Status::failed_precondition("this gateway is alone: it has no [cluster]")),
            (None, None) => Err(Status::failed_precondition("only a running gateway can say: ask it with --remote")),
        }
    }

    async fn list_staff(&self, request: Request<api::ListStaffRequest>) -> AdminResult<api::ListStaffResponse> {
        self.read(request, &rules::LIST_STAFF, |_, store, _| {
            let staff = store.staff().map_err(failed)?;
            Ok(api::ListStaffResponse { staff: staff.into_iter().map(staff_message).collect() })
        })
        .await
    }
}

/// Returns a name if it is given.
fn named(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
