//! `client`: systems that may call.

use super::confirmation::{self, Confirmation};
use super::output::{Output, duration, message_json, print_json, time};
use super::session::{ConnectionArgs, PAGE, Session};
use super::{CliError, client_name, grants, last_use};
use crate::admin::api;
use crate::registry::ClientState;
use clap::{Args, Subcommand};
use std::time::Duration;

#[derive(Args)]
pub struct ClientArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
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
        /// The contact for problems.
        #[arg(long, default_value = "")]
        contact: String,
        /// Names in its certificate; `spiffe://…/client/<id>` by default.
        #[arg(long = "name", value_name = "URI|DNS")]
        names: Vec<String>,
    },
    /// Change a client's agency, contact or certificate names; options that are not given stay the same.
    Change {
        /// Its id.
        id: String,
        /// Its agency code (mã định danh).
        #[arg(long, default_value = "", hide_default_value = true)]
        agency: String,
        /// The contact for problems.
        #[arg(long, default_value = "", hide_default_value = true)]
        contact: String,
        /// Names in its certificate, replacing the previous ones.
        #[arg(long = "name", value_name = "URI|DNS")]
        names: Vec<String>,
    },
    /// List clients.
    List {
        /// Only those of this agency and the ones below it.
        #[arg(long)]
        agency: Option<String>,
        /// Only those in this state.
        #[arg(long, value_enum)]
        state: Option<ClientState>,
        /// Only those without a call for so long, at most 90d.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        unused: Option<Duration>,
    },
    /// Show one client with its grants.
    Show {
        /// Its id.
        id: String,
    },
    /// Check whether a client's call would be admitted now; if not, show which rule refuses it, and what to do. Exit
    /// code 1 if it would not.
    CanI {
        /// Its id.
        id: String,
        /// The operation: `ndxp.population.v1.PopulationService/GetCitizen`.
        operation: String,
        /// With this purpose (`ndxp-purpose`).
        #[arg(long, default_value = "", hide_default_value = true)]
        purpose: String,
        /// On behalf of this official (`ndxp-official`).
        #[arg(long, default_value = "", hide_default_value = true)]
        official: String,
        /// From this address; by default the grants' networks are not checked.
        #[arg(long = "from", value_name = "ADDRESS", default_value = "", hide_default_value = true)]
        address: String,
    },
    /// Suspend a client: its calls are refused within a second.
    Suspend {
        /// Its id.
        id: String,
    },
    /// Let a suspended client call again. If it has a grant on sensitive data, another person must approve this.
    Resume {
        /// Its id.
        id: String,
    },
    /// Retire a client permanently, with its grants and tokens; its id and names stay reserved.
    Retire {
        /// Its id.
        id: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

fn state_text(client: &api::Client) -> &'static str {
    match (client.retired, client.suspended) {
        (true, _) => "retired",
        (false, true) => "suspended",
        (false, false) => "active",
    }
}

fn state_number(state: ClientState) -> i32 {
    let state = match state {
        ClientState::Active => api::ClientState::Active,
        ClientState::Suspended => api::ClientState::Suspended,
        ClientState::Retired => api::ClientState::Retired,
    };
    state.into()
}

fn print_clients(clients: &[api::Client], output: Output) -> Result<(), CliError> {
    let header = ["client", "agency", "state", "names", "contact", "since"];
    output.messages_with(clients, &header, &["contact", "since"], |client| {
        let (state, names) = (state_text(client).to_owned(), client.names.join("\n"));
        vec![client.id.clone(), client.agency.clone(), state, names, client.contact.clone(), time(client.created)]
    })
}

impl ClientCommand {
    /// The client that must be there.
    fn named(&self) -> Option<&str> {
        match self {
            ClientCommand::Add { .. } | ClientCommand::List { .. } => None,
            ClientCommand::Change { id, .. }
            | ClientCommand::Show { id }
            | ClientCommand::CanI { id, .. }
            | ClientCommand::Suspend { id }
            | ClientCommand::Resume { id }
            | ClientCommand::Retire { id, .. } => Some(id),
        }
    }
}

pub fn run(args: ClientArgs, output: Output) -> Result<(), CliError> {
    let session = args.connection.open()?;
    let named = args.command.named().map(str::to_owned);
    run_in(&session, args.command, output).map_err(|error| client_name::suggested(&session, named.as_deref(), error))
}

fn run_in(session: &Session, command: ClientCommand, output: Output) -> Result<(), CliError> {
    match command {
        ClientCommand::Add { id, agency, contact, names } => {
            let request = api::AddClientRequest { id, agency, contact, names };
            let client = session.change(session.admin().add_client(request))?;
            output.message(&client, || format!("registered {} ({})", client.id, client.names.join(", ")))
        }
        ClientCommand::Change { id, agency, contact, names } => {
            let request = api::ChangeClientRequest { id, agency, contact, names };
            let client = session.change(session.admin().change_client(request))?;
            output.message(&client, || match client.pending_change.as_str() {
                "" => format!("changed {} ({}, {})", client.id, client.agency, client.names.join(", ")),
                waiting => format!("the change of {} waits for another person: change approve {waiting}", client.id),
            })
        }
        ClientCommand::List { agency, state, unused } => {
            let (agency, state) = (agency.unwrap_or_default(), state.map_or(0, state_number));
            let mut clients = session.pages(
                usize::MAX,
                |_| true,
                |page_token| {
                    let mut admin = session.admin();
                    let (agency, page_size) = (agency.clone(), PAGE);
                    async move {
                        let request = api::ListClientsRequest { agency, page_size, page_token, state };
                        let page = admin.list_clients(request).await?.into_inner();
                        Ok((page.clients, page.next_page_token))
                    }
                },
            )?;
            if let Some(for_long) = unused {
                let object = |client: &api::Client| format!("client:{}", client.id);
                let found = last_use::unused(session, &clients.iter().map(object).collect::<Vec<_>>(), for_long)?;
                clients.retain(|client| found.contains(&object(client)));
            }
            print_clients(&clients, output)
        }
        ClientCommand::CanI { id, operation, purpose, official, address } => {
            let request = api::CanIRequest { client: id, operation, purpose, official, address, at: 0 };
            let verdict = session.read(session.admin().can_i(request))?;
            output.message(&verdict, || match verdict.allowed {
                true => format!("yes: {}", verdict.explanation),
                false => format!("no ({}, rule {}): {}", verdict.reason, verdict.rule, verdict.explanation),
            })?;
            // Printed already; scripts read the exit code.
            if verdict.allowed { Ok(()) } else { Err(CliError::Failed(String::new())) }
        }
        ClientCommand::Show { id } => {
            let client = session.read(session.admin().get_client(api::ClientId { id: id.clone() }))?;
            let grants = grants::list(session, Some(id), None)?;
            match output {
                Output::Human => {
                    print_clients(&[client], output)?;
                    grants::print_list(&grants, output)
                }
                Output::Json => {
                    let grants = grants.iter().map(message_json).collect::<Result<Vec<_>, _>>()?;
                    print_json(&serde_json::json!({ "client": message_json(&client)?, "grants": grants }))
                }
            }
        }
        ClientCommand::Retire { id, confirmation } => {
            let act = format!("retire {id} permanently");
            if !confirmation.permits(&act, || confirmation::of_client(session, &id, true), output)? {
                return Ok(());
            }
            let client = session.change(session.admin().retire_client(api::ClientId { id }))?;
            output.message(&client, || format!("retired {}: its grants are withdrawn, its tokens refused", client.id))
        }
        ClientCommand::Suspend { id } => {
            let client = session.change(session.admin().suspend_client(api::ClientId { id }))?;
            output.message(&client, || format!("suspended {}", client.id))
        }
        ClientCommand::Resume { id } => {
            let client = session.change(session.admin().resume_client(api::ClientId { id }))?;
            output.message(&client, || match client.pending_change.as_str() {
                "" => format!("resumed {}", client.id),
                waiting => {
                    format!("{} stays suspended until another person agrees: change approve {waiting}", client.id)
                }
            })
        }
    }
}
