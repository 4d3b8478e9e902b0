//! `staff`: the people who administer.

use super::CliError;
use super::output::Output;
use super::session::Connection;
use crate::admin::api;
use crate::registry::Role;
use clap::{Args, Subcommand};

#[derive(Args)]
pub struct StaffArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: StaffCommand,
}

#[derive(Subcommand)]
enum StaffCommand {
    /// Register a person with their roles; they work with their own certificate.
    Add {
        /// Their id: lower-case letters, digits, hyphens, dots.
        id: String,
        /// A role.
        #[arg(long = "role", required = true, value_enum)]
        roles: Vec<Role>,
        /// Names in their certificate; `spiffe://…/staff/<id>` unless given.
        #[arg(long = "name", value_name = "URI|DNS")]
        names: Vec<String>,
    },
    /// List people and their roles.
    List,
    /// Take a person's roles away: within a second.
    Remove {
        /// Their id.
        id: String,
    },
}

fn role(role: &Role) -> i32 {
    let role = match role {
        Role::Administrator => api::Role::Administrator,
        Role::Approver => api::Role::Approver,
        Role::Auditor => api::Role::Auditor,
        Role::Operator => api::Role::Operator,
    };
    role.into()
}

fn roles(staff: &api::Staff) -> Vec<String> {
    staff.roles().map(|role| format!("{role:?}").to_lowercase()).collect()
}

fn described(staff: &api::Staff) -> String {
    format!("{}: {} ({})", staff.id, roles(staff).join(", "), staff.names.join(", "))
}

pub fn run(args: StaffArgs, output: Output) -> Result<(), CliError> {
    let session = args.connection.open()?;
    match args.command {
        StaffCommand::Add { id, roles, names } => {
            let request = api::AddStaffRequest { id, roles: roles.iter().map(role).collect(), names };
            let staff = session.change(session.admin().add_staff(request))?;
            output.message(&staff, || format!("registered {}", described(&staff)))
        }
        StaffCommand::List => {
            let staff = session.read(session.admin().list_staff(api::ListStaffRequest {}))?.staff;
            output.messages(&staff, &["person", "roles", "names"], |person| {
                vec![person.id.clone(), roles(person).join("\n"), person.names.join("\n")]
            })
        }
        StaffCommand::Remove { id } => {
            let staff = session.change(session.admin().remove_staff(api::StaffId { id }))?;
            output.message(&staff, || format!("removed {}", described(&staff)))
        }
    }
}
