//! What administrators do, at random, with few names so that they get into each other's way.

use crate::registry::sqlite::SqliteStore;
use crate::registry::{
    Actor, Client, Digest, Grant, GrantFilter, GrantState, MaintenanceNotice, Page, RegistryError, Role, Staff, Store,
    TokenRecord, now,
};

/// The members of staff: each may ask and approve.
pub const PEOPLE: [&str; 4] = ["lan", "minh", "hoa", "duc"];
/// A time that is not reached.
const FAR: i64 = 1 << 40;

/// One change that somebody asks for.
#[derive(Debug, Clone)]
pub enum Operation {
    AddClient { id: String, name: String },
    ChangeClient { id: String, name: String },
    Suspend { id: String, suspended: bool },
    Retire { id: String },
    AddGrant { id: String, client: String, needs_approval: bool },
    WidenGrant { id: String, field: String },
    WithdrawGrant { id: String },
    ApproveGrant { id: String },
    ApproveChange { id: String },
    RejectChange { id: String },
    RevokeToken { id: String, client: String },
    SetNotice { source: String, text: String },
    ClearNotice { source: String },
    PutRoles { id: String, roles: Vec<Role> },
    AddPerson { id: String, roles: Vec<Role> },
    Bootstrap { administrator: String, approver: String },
}

/// Somebody's actor: the same person through whichever gateway.
pub fn person(id: &str) -> Actor {
    let names = vec![format!("spiffe://a.vn/{id}")];
    let digest = Digest([id.as_bytes()[0]; 32]);
    Actor::Staff { id: id.into(), thumbprint: digest, key: digest, names, address: "127.0.0.1:1".into() }
}

/// The record of a token that a client has fetched.
pub fn token(id: String) -> TokenRecord {
    let scopes = vec!["population:read".into()];
    TokenRecord { id, client: "client1".into(), scopes, expires: FAR, ..TokenRecord::default() }
}

/// A member of staff as registered.
pub fn staff(id: &str, roles: Vec<Role>) -> Staff {
    Staff { id: id.into(), roles, names: vec![format!("spiffe://a.vn/{id}")] }
}

/// Draws a number below another one.
pub type Draw<'d> = &'d dyn Fn(u64) -> u64;

/// One of these, if there is any.
fn one(below: Draw<'_>, of: Vec<String>) -> String {
    of.get(below(of.len() as u64) as usize).cloned().unwrap_or_else(|| "none".into())
}

/// How the first people come to have both roles, as the rules want it: who asks for what. What waits then is approved by
/// [`PEOPLE`]'s second.
pub fn first_steps() -> Vec<(&'static str, Operation)> {
    let both = || vec![Role::Administrator, Role::Approver];
    let [lan, minh, hoa, duc] = PEOPLE;
    vec![
        (lan, Operation::Bootstrap { administrator: lan.into(), approver: minh.into() }),
        (lan, Operation::AddPerson { id: hoa.into(), roles: both() }),
        (lan, Operation::AddPerson { id: duc.into(), roles: both() }),
        (lan, Operation::PutRoles { id: lan.into(), roles: both() }),
        (lan, Operation::PutRoles { id: minh.into(), roles: both() }),
    ]
}

/// Chooses what somebody asks for, of what they see at their gateway.
pub fn choose(below: Draw<'_>, store: &SqliteStore, count: &str) -> Result<Operation, RegistryError> {
    let of = |kind: &str, end: u64| format!("{kind}{}", below(end));
    let grants = |state| -> Result<String, RegistryError> {
        let page = Page { after: "", max: 50, filter: GrantFilter { state: Some(state) } };
        Ok(one(below, store.grants(None, page)?.iter().map(|grant| grant.id.clone()).collect()))
    };
    let waiting = || -> Result<String, RegistryError> {
        Ok(one(below, store.pending_changes("", 50)?.into_iter().map(|change| change.id).collect()))
    };
    let (id, name) = (of("client", 12), of("name", 8));
    Ok(match below(24) {
        0..=3 => Operation::AddClient { id, name },
        4..=5 => Operation::ChangeClient { id, name },
        6 => Operation::Suspend { id, suspended: below(2) == 0 },
        7 if below(8) == 0 => Operation::Retire { id },
        7..=9 => {
            let needs_approval = below(2) == 0;
            // Its time is in its id.
            let id = format!("g-{}", uuid::Uuid::now_v7().simple());
            Operation::AddGrant { id, client: of("client", 12), needs_approval }
        }
        10 => Operation::WidenGrant { id: grants(GrantState::InForce)?, field: format!("field{count}") },
        11 => Operation::WithdrawGrant { id: grants(GrantState::InForce)? },
        12..=14 => Operation::ApproveGrant { id: grants(GrantState::Pending)? },
        15..=17 => Operation::ApproveChange { id: waiting()? },
        18 => Operation::RejectChange { id: waiting()? },
        19..=20 => Operation::RevokeToken { id: format!("token{count}"), client: id },
        21 => Operation::SetNotice { source: of("source", 3), text: format!("text{count}") },
        22 => Operation::ClearNotice { source: of("source", 3) },
        _ => {
            let roles = match below(4) {
                0 => vec![Role::Administrator],
                1 => vec![Role::Approver],
                _ => vec![Role::Administrator, Role::Approver],
            };
            Operation::PutRoles { id: PEOPLE[below(4) as usize].into(), roles }
        }
    })
}

impl Operation {
    /// The token that it revokes.
    pub fn revokes(&self) -> Option<&str> {
        match self {
            Operation::RevokeToken { id, .. } => Some(id),
            _ => None,
        }
    }

    /// Asks a store for it.
    pub fn perform(&self, store: &dyn Store) -> Result<(), RegistryError> {
        match self {
            Operation::AddClient { id, name } => store.add_client(&client(id, name)),
            Operation::ChangeClient { id, name } => store.change_client(&client(id, name)).map(drop),
            Operation::Suspend { id, suspended } => store.suspend_client(id, *suspended),
            Operation::Retire { id } => store.retire_client(id),
            Operation::AddGrant { id, client, needs_approval } => store.add_grant(&Grant {
                id: id.clone(),
                client: client.clone(),
                scopes: vec!["population:read".into()],
                fields: vec!["name".into()],
                not_after: FAR,
                needs_approval: *needs_approval,
                ..Grant::default()
            }),
            Operation::WidenGrant { id, field } => {
                let mut grant = store.grant(id)?;
                grant.fields.push(field.clone());
                store.change_grant(&grant).map(drop)
            }
            Operation::WithdrawGrant { id } => store.withdraw_grant(id),
            Operation::ApproveGrant { id } => store.approve_grant(id),
            Operation::ApproveChange { id } => store.approve_change(id).map(drop),
            Operation::RejectChange { id } => store.reject_change(id).map(drop),
            Operation::RevokeToken { id, client } => store.revoke_shown_token(&TokenRecord {
                id: id.clone(),
                client: client.clone(),
                expires: FAR,
                ..TokenRecord::default()
            }),
            Operation::SetNotice { source, text } => store.set_notice(&MaintenanceNotice {
                source: source.clone(),
                starts: 1,
                ends: FAR,
                text_vi: text.clone(),
                text_en: text.clone(),
            }),
            Operation::ClearNotice { source } => store.clear_notice(source).map(drop),
            Operation::PutRoles { id, roles } => store.change_staff(&staff(id, roles.clone())).map(drop),
            Operation::AddPerson { id, roles } => store.add_staff(&staff(id, roles.clone())).map(drop),
            Operation::Bootstrap { administrator, approver } => {
                store.bootstrap(&staff(administrator, Vec::new()), &staff(approver, Vec::new()))
            }
        }
    }
}

fn client(id: &str, name: &str) -> Client {
    let names = vec![format!("{name}.example")];
    Client { id: id.into(), agency: "H49".into(), names, created: now(), ..Client::default() }
}
