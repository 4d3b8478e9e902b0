//! `client` and `grant`: who may call, and what they may do.

use super::output::{Output, duration, time};
use super::{CliError, ConfigFile};
use crate::admin::GrantDraft;
use crate::contract::formats::{Format, check, expectation};
use crate::pki::client_uri;
use crate::registry::{Client, Grant, Store, check_id, now};
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
    /// List clients.
    List,
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
}

pub fn run_client(args: ClientArgs, output: Output) -> Result<(), CliError> {
    let (_, store) = args.config.registry()?;
    match args.command {
        ClientCommand::Add { id, agency, contact, names } => {
            check_id("a client's id", &id)?;
            check(Format::AgencyCode, &agency)
                .map_err(|_| CliError::Usage(format!("--agency must be {}", expectation(Format::AgencyCode))))?;
            let names = if names.is_empty() { vec![client_uri(&id)] } else { names };
            let client = Client { id, agency, contact, names, suspended: false, created: now() };
            store.add_client(&client)?;
            output.result(&client, || format!("registered {} ({})", client.id, client.names.join(", ")))
        }
        ClientCommand::List => {
            let clients = store.load()?.clients;
            output.records(&clients, &["client", "agency", "state", "names", "contact", "since"], |client| {
                let state = if client.suspended { "suspended" } else { "active" };
                let names = client.names.join("\n");
                let since = time(client.created);
                vec![client.id.clone(), client.agency.clone(), state.into(), names, client.contact.clone(), since]
            })
        }
        ClientCommand::Show { id } => {
            let loaded = store.load()?;
            let client = loaded.clients.into_iter().find(|client| client.id == id);
            let client = client.ok_or_else(|| CliError::Failed(format!("there is no client {id:?}")))?;
            if output == Output::Human {
                anstream::println!("{} ({}), {}", client.id, client.agency, client.names.join(", "));
                let state = if client.suspended { "suspended" } else { "active" };
                anstream::println!("{state} since {}; contact: {}", time(client.created), client.contact);
            }
            let grants: Vec<Grant> = loaded.grants.into_iter().filter(|grant| grant.client == id).collect();
            match output {
                Output::Human => print_grants(&grants, output),
                Output::Json => super::output::print_json(&serde_json::json!({ "client": client, "grants": grants })),
            }
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
        GrantCommand::List { client } => {
            let mut grants = store.all_grants()?;
            grants.retain(|grant| client.as_ref().is_none_or(|client| grant.client == *client));
            print_grants(&grants, output)
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
        let until = now().saturating_add(i64::try_from(self.valid.as_secs()).unwrap_or(i64::MAX));
        GrantDraft {
            client: self.client,
            scopes: self.scopes,
            purposes: self.purposes,
            fields: self.fields,
            rate: self.rate,
            burst: self.burst,
            daily_quota: self.daily_quota,
            not_before: 0,
            not_after: until,
            legal_basis: self.legal_basis,
            networks: self.networks,
        }
    }
}

fn print_grants(grants: &[Grant], output: Output) -> Result<(), CliError> {
    let header =
        ["grant", "client", "state", "scopes", "purposes", "fields", "rate+burst", "a day", "until", "legal basis"];
    let now = now();
    output.records(grants, &header, |grant| {
        let quota = if grant.daily_quota == 0 { "no quota".to_owned() } else { grant.daily_quota.to_string() };
        vec![
            grant.id.clone(),
            grant.client.clone(),
            match grant {
                Grant { withdrawn: true, .. } => "withdrawn".into(),
                Grant { needs_approval: true, approved_by: None, .. } => "waits for approval".into(),
                grant if grant.in_force(now) => "in force".into(),
                _ => "out of its time".into(),
            },
            grant.scopes.join("\n"),
            grant.purposes.join("\n"),
            grant.fields.join("\n"),
            format!("{}+{}", grant.rate, grant.burst),
            quota,
            time(grant.not_after),
            grant.legal_basis.clone(),
        ]
    })
}
