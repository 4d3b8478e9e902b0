//! `staff`: the people who administer.

use super::CliError;
use super::changes::pending_notice;
use super::confirmation::{self, Confirmation};
use super::output::Output;
use super::session::{ConnectionArgs, local};
use crate::admin::{StaffDraft, api};
use crate::registry::{Role, Staff};
use clap::{Args, Subcommand};

#[derive(Args)]
pub struct StaffArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: StaffCommand,
}

#[derive(Subcommand)]
enum StaffCommand {
    /// Register the first administrator and the first approver, two people: once, on the gateway's own host.
    Bootstrap {
        /// The administrator's id.
        #[arg(long, value_name = "ID")]
        administrator: String,
        /// A name in the administrator's certificate; `spiffe://…/staff/<id>` by default.
        #[arg(long = "administrator-name", value_name = "URI|DNS")]
        administrator_names: Vec<String>,
        /// The approver's id.
        #[arg(long, value_name = "ID")]
        approver: String,
        /// A name in the approver's certificate; `spiffe://…/staff/<id>` by default.
        #[arg(long = "approver-name", value_name = "URI|DNS")]
        approver_names: Vec<String>,
    },
    /// Request the registration of a person with their roles: an approver approves, then they work with their own
    /// certificate.
    Add {
        /// Their id: lower-case letters, digits, hyphens, dots.
        id: String,
        /// A role.
        #[arg(long = "role", required = true, value_enum)]
        roles: Vec<Role>,
        /// Names in their certificate; `spiffe://…/staff/<id>` by default.
        #[arg(long = "name", value_name = "URI|DNS")]
        names: Vec<String>,
    },
    /// Change a person's roles or certificate names; options that are not given stay the same. A new role or name waits
    /// for an approver.
    Change {
        /// Their id.
        id: String,
        /// A role, replacing the previous ones.
        #[arg(long = "role", value_enum)]
        roles: Vec<Role>,
        /// A name in their certificate, replacing the previous ones.
        #[arg(long = "name", value_name = "URI|DNS")]
        names: Vec<String>,
    },
    /// List people and their roles.
    List,
    /// Remove a person: their roles end within a second.
    Remove {
        /// Their id.
        id: String,
        #[command(flatten)]
        confirmation: Confirmation,
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
    if let StaffCommand::Bootstrap { administrator, administrator_names, approver, approver_names } = args.command {
        let draft = |id, names| StaffDraft { id, names, roles: Vec::new() };
        let (administrator, approver) = (draft(administrator, administrator_names), draft(approver, approver_names));
        let people = local::bootstrap(&args.connection, administrator, approver)?;
        let shown = |staff: &Staff| format!("{} ({})", staff.id, staff.names.join(", "));
        return output.result(&people, || {
            format!("registered the administrator {} and the approver {}", shown(&people[0]), shown(&people[1]))
        });
    }
    let session = args.connection.open()?;
    match args.command {
        // Returned from above.
        StaffCommand::Bootstrap { .. } => Ok(()),
        StaffCommand::Add { id, roles, names } => {
            let request = api::AddStaffRequest { id, roles: roles.iter().map(role).collect(), names };
            let staff = session.change(session.admin().add_staff(request))?;
            output.message(&staff, || {
                format!(
                    "requested {}\nan approver approves it: change approve {}",
                    described(&staff),
                    staff.pending_change
                )
            })
        }
        StaffCommand::Change { id, roles, names } => {
            let request = api::ChangeStaffRequest { id, roles: roles.iter().map(role).collect(), names };
            let staff = session.change(session.admin().change_staff(request))?;
            output.message(&staff, || format!("changed {}{}", described(&staff), pending_notice(&staff.pending_change)))
        }
        StaffCommand::List => {
            let staff = session.read(session.admin().list_staff(api::ListStaffRequest {}))?.staff;
            output.messages(&staff, &["person", "roles", "names"], |person| {
                vec![person.id.clone(), roles(person).join("\n"), person.names.join("\n")]
            })
        }
        StaffCommand::Remove { id, confirmation } => {
            if !confirmation.permits(&format!("remove {id}"), || confirmation::of_person(&session, &id), output)? {
                return Ok(());
            }
            let staff = session.change(session.admin().remove_staff(api::StaffId { id }))?;
            output.message(&staff, || format!("removed {}", described(&staff)))
        }
    }
}
