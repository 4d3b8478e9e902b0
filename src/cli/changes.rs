//! `change`: what waits for a second person.

use super::CliError;
use super::output::{Output, time};
use super::session::{Connection, PAGE, Session};
use crate::admin::api;
use clap::{Args, Subcommand};
use serde_json::Value;
use std::collections::BTreeSet;

#[derive(Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: ChangeCommand,
}

#[derive(Subcommand)]
enum ChangeCommand {
    /// List what waits for a second person, grants included, and what would be different.
    List,
    /// Approve a change or a grant that another person asked for; with your own certificate only.
    Approve {
        /// Its id (`c-…` or `g-…`).
        id: String,
    },
    /// Reject a change, or take back one that you asked for; a grant that waits is withdrawn.
    Reject {
        /// Its id (`c-…` or `g-…`).
        id: String,
    },
}

pub fn run(args: ChangeArgs, output: Output) -> Result<(), CliError> {
    let session = args.connection.open()?;
    match args.command {
        ChangeCommand::List => {
            let header = ["change", "what", "of", "from", "to", "asked for by", "from where", "why", "ends"];
            output.messages(&list(&session)?, &header, row)
        }
        ChangeCommand::Approve { id } => {
            let approved = session.change(session.admin().approve_change(api::ApproveChangeRequest { id }))?;
            let change = approved.change.unwrap_or_default();
            output.message(&change, || format!("approved {}: {} {}", change.id, change.act, change.object))
        }
        ChangeCommand::Reject { id } => {
            let rejected = session.change(session.admin().reject_change(api::RejectChangeRequest { id }))?;
            let change = rejected.change.unwrap_or_default();
            output.message(&change, || format!("rejected {}: {} {}", change.id, change.act, change.object))
        }
    }
}

fn list(session: &Session) -> Result<Vec<api::PendingChange>, CliError> {
    session.pages(
        usize::MAX,
        |_| true,
        |page_token| {
            let mut admin = session.admin();
            async move {
                let request = api::ListPendingChangesRequest { page_size: PAGE, page_token };
                let page = admin.list_pending_changes(request).await?.into_inner();
                Ok((page.changes, page.next_page_token))
            }
        },
    )
}

fn row(change: &api::PendingChange) -> Vec<String> {
    let (before, after) = differences(&change.before, &change.after);
    let object = match &change.client {
        Some(client) if !change.object.starts_with("client:") => {
            format!("{}\nclient:{}\n{}", change.object, client.id, client.names.join("\n"))
        }
        _ => change.object.clone(),
    };
    let (why, ends) = (change.justification.clone(), time(change.ends));
    let who = change.requested_by.clone();
    vec![change.id.clone(), change.act.clone(), object, before, after, who, change.requester_address.clone(), why, ends]
}

/// The fields in which two records differ, as they were and as they are to be.
fn differences(before: &str, after: &str) -> (String, String) {
    let fields = |text: &str| match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (fields(before), fields(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name) && *name != "requester");
    let shown = |fields: &serde_json::Map<String, Value>, name: &String| {
        fields.get(name).map(|value| format!("{name}: {value}")).unwrap_or_default()
    };
    let (was, is): (Vec<_>, Vec<_>) = changed.map(|name| (shown(&before, name), shown(&after, name))).unzip();
    (was.join("\n"), is.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approver_sees_what_is_different() {
        let (was, is) = differences(r#"{"id":"a","names":["x"]}"#, r#"{"id":"a","names":["x","y"],"more":1}"#);
        assert_eq!((was.as_str(), is.as_str()), ("\nnames: [\"x\"]", "more: 1\nnames: [\"x\",\"y\"]"));
        assert_eq!(differences("null", r#"{"id":"a"}"#), (String::new(), "id: \"a\"".to_owned()));
    }
}
