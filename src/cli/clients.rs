//! `client` and `grant`: who may call, and what they may do.

use super::output::{Output, duration, time};
use super::{CliError, ConfigFile};
use crate::admin::{ClientDraft, GrantDraft};
use crate::contract::formats::is_within;
use crate::registry::{Client, ClientState, Grant, GrantState, Page, Store, now};
use clap::{Args, Subcommand};
use std::time::Duration;

#[derive(Args)]
pub struct ClientArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    command: ClientCommand,
}

#[derive(Subcommand)]
enum ClientCommand {
    /// Register a provincial system.
    Add {
        /// Its id: lower-case letters, digits, hyphens, dots.
        id: String,
        /// Its agency code (mã định danh), such as H49.12.
        #[arg(long)]
        agency: String,
        /// Whom to call when something is wrong.
        #[arg(long, default_value = "")]
        contact: String,
        /// Names in its certificate; `spiffe://…/client/<id>` unless said.
        #[arg(long = "name", value_name = "URI|DNS")]
        names: Vec<String>,
    },
    /// Change a client's agency, contact or certificate names; what is not said stays.
    Change {
        /// Its id.
        id: String,
        /// Its agency code (mã định danh).
        #[arg(long, default_value = "", hide_default_value = true)]
        agency: String,
        /// Whom to call when something is wrong.
        #[arg(long, default_value = "", hide_default_value = true)]
        contact: String,
        /// Names in its certificate, in place of the ones before.
        #[arg(long = "name", value_name = "URI|DNS")]
        names: Vec<String>,
    },
    /// List clients.
    List {
        /// Only those of this agency and the ones below it.
        #[arg(long)]
        agency: Option<String>,
        /// Only those that stand there.
        #[arg(long, value_enum)]
        state: Option<ClientState>,
    },
    /// Show one client with its grants.
    Show {
        /// Its id.
        id: String,
    },
    /// Suspend a client: none of its calls passes from within a second on.
    Suspend {
        /// Its id.
        id: String,
    },
    /// Let a suspended client call again.
    Resume {
        /// Its id.
        id: String,
    },
    /// End a client for good, with its grants and tokens; its id and names stay taken.
    Retire {
        /// Its id.
        id: String,
    },
}

fn print_clients(clients: &[Client], output: Output) -> Result<(), CliError> {
    output.records(clients, &["client", "agency", "state", "names", "contact", "since"], |client| {
        let state = format!("{:?}", client.state()).to_lowercase();
        let names = client.names.join("\n");
        vec![client.id.clone(), client.agency.clone(), state, names, client.contact.clone(), time(client.created)]
    })
}

pub fn run_client(args: ClientArgs, output: Output) -> Result<(), CliError> {
    let (_, store) = args.config.registry()?;
    match args.command {
        ClientCommand::Add { id, agency, contact, names } => {
            let client = ClientDraft { id, agency, contact, names }.check()?;
            store.add_client(&client)?;
            output.result(&client, || format!("registered {} ({})", client.id, client.names.join(", ")))
        }
        ClientCommand::Change { id, agency, contact, names } => {
            let before = store.client(&id)?;
            let client = ClientDraft { id, agency, contact, names }.over(before)?;
            store.change_client(&client)?;
            output.result(&client, || format!("changed {} ({}, {})", client.id, client.agency, client.names.join(", ")))
        }
        ClientCommand::List { agency, state } => {
            let fits = |client: &Client| {
                agency.as_ref().is_none_or(|agency| is_within(agency, &client.agency))
                    && state.is_none_or(|state| client.state() == state)
            };
            print_clients(&store.clients(Page { fits: &fits, ..Page::ALL })?, output)
        }
        ClientCommand::Show { id } => {
            let client = store.client(&id)?;
            let grants = store.grants(Some(&id), Page::ALL)?;
            match output {
                Output::Human => {
                    print_clients(&[client], output)?;
                    print_grants(&grants, output)
                }
                Output::Json => super::output::print_json(&serde_json::json!({ "client": client, "grants": grants })),
            }
        }
        ClientCommand::Retire { id } => {
            store.retire_client(&id)?;
            output.result(&id, || format!("retired {id}: its grants are withdrawn, its tokens refused"))
        }
        ClientCommand::Suspend { id } => {
            store.suspend_client(&id, true)?;
            output.result(&id, || format!("suspended {id}"))
        }
        ClientCommand::Resume { id } => {
            store.suspend_client(&id, false)?;
            output.result(&id, || format!("resumed {id}"))
        }
    }
}

#[derive(Args)]
pub struct GrantArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    command: GrantCommand,
}

#[derive(Subcommand)]
enum GrantCommand {
    /// Grant scopes, purposes and fields to a client.
    Add(AddGrant),
    /// Approve a grant on sensitive data; not by who asked for it.
    Approve {
        /// Its id.
        id: String,
    },
    /// List grants, those that wait for approval and those withdrawn included.
    List {
        /// Whose.
        #[arg(long)]
        client: Option<String>,
        /// Only those that stand there.
        #[arg(long, value_enum)]
        state: Option<GrantState>,
    },
    /// Show one grant: what it allows, who asked for it, who approved it.
    Show {
        /// Its id.
        id: String,
    },
    /// Withdraw a grant: gone within a second.
    Withdraw {
        /// Its id.
        id: String,
    },
}

#[derive(Args)]
struct AddGrant {
    /// Whose.
    #[arg(long)]
    client: String,
    /// A scope (`population:read`), `*` for every scope of every contract, or `gateway:introspect`.
    #[arg(long = "scope", required = true)]
    scopes: Vec<String>,
    /// A purpose: `procedure:CODE`, `dossier:AGENCY`, or `*`.
    #[arg(long = "purpose")]
    purposes: Vec<String>,
    /// An answer field by path (`name.given`), or `*` for all.
    #[arg(long = "field", required = true)]
    fields: Vec<String>,
    /// Calls a second.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Calls at once above that.
    #[arg(long, default_value_t = 50)]
    burst: u32,
    /// Calls a day; 0: no quota.
    #[arg(long, default_value_t = 0)]
    daily_quota: u64,
    /// How long from now it begins to be in force.
    #[arg(long, default_value = "0s", value_parser = duration)]
    starts_in: Duration,
    /// How long it is in force.
    #[arg(long, default_value = "365d", value_parser = duration)]
    valid: Duration,
    /// Legal basis (căn cứ pháp lý).
    #[arg(long)]
    legal_basis: String,
    /// A network that calls may come from (`10.20.0.0/16`); any unless said.
    #[arg(long = "network")]
    networks: Vec<String>,
}

pub fn run_grant(args: GrantArgs, output: Output) -> Result<(), CliError> {
    let (config, store) = args.config.registry()?;
    match args.command {
        GrantCommand::Add(add) => {
            let contracts = config.catalogue()?.contracts;
            let grant = add.draft().check(&contracts).map_err(CliError::Usage)?;
            store.add_grant(&grant)?;
            output.result(&grant, || {
                let wait = if grant.needs_approval { "; it works when another person has approved it" } else { "" };
                format!("granted {} to {}: {}{wait}", grant.id, grant.client, grant.scopes.join(" "))
            })
        }
        GrantCommand::List { client, state } => {
            let now = now();
            let fits = |grant: &Grant| state.is_none_or(|state| grant.state(now) == state);
            print_grants(&store.grants(client.as_deref(), Page { fits: &fits, ..Page::ALL })?, output)
        }
        GrantCommand::Show { id } => {
            let grant = store.grant(&id)?;
            output.result(&grant, || whole(&grant))
        }
        GrantCommand::Approve { id } => {
            store.approve_grant(&id)?;
            output.result(&id, || format!("approved {id}"))
        }
        GrantCommand::Withdraw { id } => {
            store.withdraw_grant(&id)?;
            output.result(&id, || format!("withdrew {id}"))
        }
    }
}

impl AddGrant {
    fn draft(self) -> GrantDraft {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let from = now().saturating_add(seconds(self.starts_in));
        let until = from.saturating_add(seconds(self.valid));
        GrantDraft {
            client: self.client,
            scopes: self.scopes,
            purposes: self.purposes,
            fields: self.fields,
            rate: self.rate,
            burst: self.burst,
            daily_quota: self.daily_quota,
            not_before: from,
            not_after: until,
            legal_basis: self.legal_basis,
            networks: self.networks,
        }
    }
}

fn state_text(grant: &Grant, now: i64) -> &'static str {
    match grant.state(now) {
        GrantState::Withdrawn => "withdrawn",
        GrantState::Pending => "waits for approval",
        GrantState::InForce => "in force",
        GrantState::OutOfTime => "out of its time",
    }
}

fn quota_text(grant: &Grant) -> String {
    if grant.daily_quota == 0 { "no quota".to_owned() } else { grant.daily_quota.to_string() }
}

fn print_grants(grants: &[Grant], output: Output) -> Result<(), CliError> {
    let header =
        ["grant", "client", "state", "scopes", "purposes", "fields", "rate+burst", "a day", "until", "legal basis"];
    let now = now();
    output.records(grants, &header, |grant| {
        vec![
            grant.id.clone(),
            grant.client.clone(),
            state_text(grant, now).into(),
            grant.scopes.join("\n"),
            grant.purposes.join("\n"),
            grant.fields.join("\n"),
            format!("{}+{}", grant.rate, grant.burst),
            quota_text(grant),
            time(grant.not_after),
            grant.legal_basis.clone(),
        ]
    })
}

/// Everything about one grant, a line each.
fn whole(grant: &Grant) -> String {
    let any = |texts: Vec<String>| if texts.is_empty() { "any".to_owned() } else { texts.join(", ") };
    let approved = match (&grant.approved_by, grant.needs_approval) {
        (Some(by), _) => by.clone(),
        (None, true) => "nobody yet".to_owned(),
        (None, false) => "needs no approval".to_owned(),
    };
    let lines = [
        ("grant", grant.id.clone()),
        ("client", grant.client.clone()),
        ("state", state_text(grant, now()).to_owned()),
        ("scopes", grant.scopes.join(", ")),
        ("purposes", grant.purposes.join(", ")),
        ("fields", grant.fields.join(", ")),
        ("networks", any(grant.networks.iter().map(ToString::to_string).collect())),
        ("calls a second", format!("{}, {} at once above that", grant.rate, grant.burst)),
        ("calls a day", quota_text(grant)),
        ("in force", format!("{} to {}", time(grant.not_before), time(grant.not_after))),
        ("legal basis", grant.legal_basis.clone()),
        ("asked for by", grant.requested_by.clone()),
        ("approved by", approved),
    ];
    lines.map(|(name, value)| format!("{name:<15} {value}")).join("\n")
}
