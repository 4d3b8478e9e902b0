//! `staff`: the people who administer.

use super::output::Output;
use super::{CliError, ConfigFile};
use crate::admin::StaffDraft;
use crate::registry::{Role, Store};
use clap::{Args, Subcommand};

#[derive(Args)]
pub struct StaffArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    command: StaffCommand,
}

#[derive(Subcommand)]
enum StaffCommand {
    /// Register a person with their roles; they work through `ndxp.admin.v1` with their own certificate.
    Add {
        /// Their id: lower-case letters, digits, hyphens, dots.
        id: String,
        /// A role.
        #[arg(long = "role", required = true, value_enum)]
        roles: Vec<Role>,
        /// Names in their certificate; `spiffe://…/staff/<id>` unless said.
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

pub fn run(args: StaffArgs, output: Output) -> Result<(), CliError> {
    let (_, store) = args.config.registry()?;
    match args.command {
        StaffCommand::Add { id, roles, names } => {
            let staff = StaffDraft { id, roles, names }.check()?;
            store.add_staff(&staff)?;
            output.result(&staff, || format!("registered {} ({})", staff.id, staff.names.join(", ")))
        }
        StaffCommand::List => {
            let staff = store.staff()?;
            output.records(&staff, &["person", "roles", "names"], |person| {
                let roles: Vec<String> = person.roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
                vec![person.id.clone(), roles.join("\n"), person.names.join("\n")]
            })
        }
        StaffCommand::Remove { id } => {
            store.remove_staff(&id)?;
            output.result(&id, || format!("removed {id}"))
        }
    }
}
