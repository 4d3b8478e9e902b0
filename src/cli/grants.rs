//! `grant`: the rights of a client.

use super::changes::pending_notice;
use super::confirmation::{self, Confirmation};
use super::output::{Output, duration, time};
use super::session::{ConnectionArgs, PAGE, Session};
use super::{CliError, client_name, last_use};
use crate::admin::api;
use crate::registry::{GrantState, now};
use clap::{Args, Subcommand};
use std::time::Duration;

#[derive(Args)]
pub struct GrantArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: GrantCommand,
}

#[derive(Subcommand)]
enum GrantCommand {
    /// Grant scopes, purposes and fields to a client.
    Add(Box<AddGrant>),
    /// Approve a grant on sensitive data, remotely with your own certificate; not one that you requested.
    Approve {
        /// Its id.
        id: String,
    },
    /// List grants, including pending and withdrawn ones.
    List {
        /// The client's id.
        #[arg(long)]
        client: Option<String>,
        /// Only those in this state.
        #[arg(long, value_enum)]
        state: Option<GrantState>,
        /// Only those in force that end within this time: 30d.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        ends_within: Option<Duration>,
        /// Only those in force that no call has used for so long, at most 90d.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        unused: Option<Duration>,
    },
    /// Show one grant: what it allows, who requested it, who approved it.
    Show {
        /// Its id.
        id: String,
    },
    /// Change a grant; options that are not given stay the same. A restriction is in force at once; new rights on
    /// sensitive data wait for an approver.
    Change(Box<ChangeGrant>),
    /// Withdraw a grant: it ends within a second.
    Withdraw {
        /// Its id.
        id: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

#[derive(Args)]
struct AddGrant {
    /// The client's id.
    #[arg(long)]
    client: String,
    /// A scope (`population:read`), `*` for every scope of every contract, or `gateway:introspect`.
    #[arg(long = "scope", required = true)]
    scopes: Vec<String>,
    /// A purpose: `procedure:CODE`, `dossier:AGENCY`, or `*`.
    #[arg(long = "purpose")]
    purposes: Vec<String>,
    /// A response field by path (`name.given`), or `*` for all.
    #[arg(long = "field", required = true)]
    fields: Vec<String>,
    /// Calls a second.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Burst above that rate.
    #[arg(long, default_value_t = 50)]
    burst: u32,
    /// Calls a day; 0: no quota.
    #[arg(long, default_value_t = 0)]
    daily_quota: u64,
    /// Time from now until it is in force.
    #[arg(long, default_value = "0s", value_parser = duration)]
    starts_in: Duration,
    /// How long it is in force.
    #[arg(long, default_value = "365d", value_parser = duration)]
    valid: Duration,
    /// Legal basis (căn cứ pháp lý).
    #[arg(long)]
    legal_basis: String,
    /// A network that calls may come from (`10.20.0.0/16`); any by default.
    #[arg(long = "network")]
    networks: Vec<String>,
}

#[derive(Args)]
struct ChangeGrant {
    /// Its id.
    id: String,
    /// A scope, replacing the previous ones.
    #[arg(long = "scope")]
    scopes: Vec<String>,
    /// A purpose, replacing the previous ones.
    #[arg(long = "purpose")]
    purposes: Vec<String>,
    /// A response field by path, replacing the previous ones.
    #[arg(long = "field")]
    fields: Vec<String>,
    /// Calls a second.
    #[arg(long)]
    rate: Option<u32>,
    /// Burst above that rate.
    #[arg(long)]
    burst: Option<u32>,
    /// Calls a day; 0: no quota.
    #[arg(long)]
    daily_quota: Option<u64>,
    /// Time from now until it is in force.
    #[arg(long, value_parser = duration)]
    starts_in: Option<Duration>,
    /// How long from now it is in force.
    #[arg(long, value_parser = duration)]
    valid: Option<Duration>,
    /// Legal basis (căn cứ pháp lý).
    #[arg(long)]
    legal_basis: Option<String>,
    /// A network that calls may come from, replacing the previous ones.
    #[arg(long = "network")]
    networks: Vec<String>,
    /// Calls may come from anywhere.
    #[arg(long, conflicts_with = "networks")]
    any_network: bool,
}

impl From<ChangeGrant> for api::ChangeGrantRequest {
    fn from(change: ChangeGrant) -> Self {
        let from_now = |duration: Duration| now().saturating_add(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX));
        api::ChangeGrantRequest {
            id: change.id,
            scopes: change.scopes,
            purposes: change.purposes,
            fields: change.fields,
            rate: change.rate,
            burst: change.burst,
            daily_quota: change.daily_quota,
            not_before: change.starts_in.map(from_now),
            not_after: change.valid.map(from_now),
            legal_basis: change.legal_basis,
            networks: change.networks,
            any_network: change.any_network,
        }
    }
}

impl From<AddGrant> for api::AddGrantRequest {
    fn from(add: AddGrant) -> Self {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let not_before = now().saturating_add(seconds(add.starts_in));
        let not_after = not_before.saturating_add(seconds(add.valid));
        let AddGrant { client, scopes, purposes, fields, rate, burst, daily_quota, legal_basis, networks, .. } = add;
        api::AddGrantRequest {
            client,
            scopes,
            purposes,
            fields,
            rate,
            burst,
            daily_quota,
            not_before,
            not_after,
            legal_basis,
            networks,
        }
    }
}

pub fn run(args: GrantArgs, output: Output) -> Result<(), CliError> {
    let session = args.connection.open()?;
    match args.command {
        GrantCommand::Add(add) => {
            let client = add.client.clone();
            let added = session.change(session.admin().add_grant(api::AddGrantRequest::from(*add)));
            let grant = added.map_err(|error| client_name::suggested(&session, Some(&client), error))?;
            output.message(&grant, || {
                let wait = if state(&grant) == GrantState::Pending {
                    "; it works when another person has approved it"
                } else {
                    ""
                };
                format!("granted {} to {}: {}{wait}", grant.id, grant.client, grant.scopes.join(" "))
            })
        }
        GrantCommand::List { client, state, ends_within, unused } => {
            let mut grants = list(&session, client.clone(), state)?;
            if let (true, Some(client)) = (grants.is_empty(), &client) {
                client_name::check(&session, client)?;
            }
            if let Some(within) = ends_within {
                let until = now().saturating_add(i64::try_from(within.as_secs()).unwrap_or(i64::MAX));
                grants.retain(|grant| self::state(grant) == GrantState::InForce && grant.not_after <= until);
            }
            if let Some(for_long) = unused {
                grants.retain(|grant| self::state(grant) == GrantState::InForce);
                let object = |grant: &api::Grant| format!("grant:{}", grant.id);
                let found = last_use::unused(&session, &grants.iter().map(object).collect::<Vec<_>>(), for_long)?;
                grants.retain(|grant| found.contains(&object(grant)));
            }
            print_list(&grants, output)
        }
        GrantCommand::Show { id } => {
            let grant = session.read(session.admin().get_grant(api::GrantId { id }))?;
            output.message(&grant, || details(&grant))
        }
        GrantCommand::Approve { id } => {
            let grant = session.change(session.admin().approve_grant(api::GrantId { id }))?;
            output.message(&grant, || format!("approved {} of {}", grant.id, grant.client))
        }
        GrantCommand::Change(change) => {
            let grant = session.change(session.admin().change_grant(api::ChangeGrantRequest::from(*change)))?;
            let waits = pending_notice(&grant.pending_change);
            output.message(&grant, || format!("changed {} of {}{waits}", grant.id, grant.client))
        }
        GrantCommand::Withdraw { id, confirmation } => {
            if !confirmation.permits(&format!("withdraw {id}"), || confirmation::of_grant(&session, &id), output)? {
                return Ok(());
            }
            let grant = session.change(session.admin().withdraw_grant(api::GrantId { id }))?;
            output.message(&grant, || format!("withdrew {} of {}", grant.id, grant.client))
        }
    }
}

/// Returns grants of one client or of all, in one state or in any.
pub fn list(
    session: &Session,
    client: Option<String>,
    wanted: Option<GrantState>,
) -> Result<Vec<api::Grant>, CliError> {
    let (client, pending) = (client.unwrap_or_default(), wanted == Some(GrantState::Pending));
    let fits = |grant: &api::Grant| wanted.is_none_or(|wanted| state(grant) == wanted);
    session.pages(usize::MAX, fits, |page_token| {
        let mut admin = session.admin();
        let (client, page_size) = (client.clone(), PAGE);
        async move {
            let request = api::ListGrantsRequest { client, pending, page_size, page_token };
            let page = admin.list_grants(request).await?.into_inner();
            Ok((page.grants, page.next_page_token))
        }
    })
}

fn state(grant: &api::Grant) -> GrantState {
    match grant {
        api::Grant { withdrawn: true, .. } => GrantState::Withdrawn,
        grant if grant.needs_approval && grant.approved_by.is_empty() => GrantState::Pending,
        grant if (grant.not_before..grant.not_after).contains(&now()) => GrantState::InForce,
        _ => GrantState::OutOfTime,
    }
}

fn state_text(grant: &api::Grant) -> &'static str {
    match state(grant) {
        GrantState::Withdrawn => "withdrawn",
        GrantState::Pending => "waits for approval",
        GrantState::InForce => "in force",
        GrantState::OutOfTime => "out of its time",
    }
}

fn quota_text(grant: &api::Grant) -> String {
    if grant.daily_quota == 0 { "no quota".to_owned() } else { grant.daily_quota.to_string() }
}

/// Grants as a table that fits a terminal: `grant show` has the rest.
pub fn print_list(grants: &[api::Grant], output: Output) -> Result<(), CliError> {
    let header = ["grant", "client", "state", "scopes", "purposes", "until"];
    output.messages_with(grants, &header, &["purposes", "until"], |grant| {
        vec![
            grant.id.clone(),
            grant.client.clone(),
            state_text(grant).into(),
            grant.scopes.join("\n"),
            grant.purposes.join("\n"),
            time(grant.not_after),
        ]
    })
}

/// Everything about one grant, a line each.
fn details(grant: &api::Grant) -> String {
    let any = |texts: &[String]| if texts.is_empty() { "any".to_owned() } else { texts.join(", ") };
    let approved = match (grant.approved_by.as_str(), grant.needs_approval) {
        ("", true) => "nobody yet",
        ("", false) => "needs no approval",
        (by, _) => by,
    };
    let lines = [
        ("grant", grant.id.clone()),
        ("client", grant.client.clone()),
        ("state", state_text(grant).to_owned()),
        ("scopes", grant.scopes.join(", ")),
        ("purposes", grant.purposes.join(", ")),
        ("fields", grant.fields.join(", ")),
        ("networks", any(&grant.networks)),
        ("calls a second", format!("{}, {} at once above that", grant.rate, grant.burst)),
        ("calls a day", quota_text(grant)),
        ("in force", format!("{} to {}", time(grant.not_before), time(grant.not_after))),
        ("legal basis", grant.legal_basis.clone()),
        ("requested by", grant.requested_by.clone()),
        ("approved by", approved.to_owned()),
    ];
    lines.map(|(name, value)| format!("{name:<15} {value}")).join("\n")
}
