//! `change`: changes that wait for a second person.

use super::CliError;
use super::output::{Output, message_json, print_json, time, timestamp};
use super::session::{ConnectionArgs, PAGE, Session};
use crate::admin::api;
use clap::{Args, Subcommand};
use serde_json::Value;
use std::collections::BTreeSet;

#[derive(Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: ChangeCommand,
}

#[derive(Subcommand)]
enum ChangeCommand {
    /// List changes and grants that wait for a second person, and their differences.
    List,
    /// Show one in full: the change, its requester, from where and why.
    Show {
        /// Its id (`c-…` or `g-…`).
        id: String,
    },
    /// Approve a change or a grant that another person requested; with your own certificate only.
    Approve {
        /// Its id (`c-…` or `g-…`).
        id: String,
    },
    /// Reject a change, or withdraw one that you requested; a pending grant is withdrawn.
    Reject {
        /// Its id (`c-…` or `g-…`).
        id: String,
    },
}

pub fn run(args: ChangeArgs, output: Output) -> Result<(), CliError> {
    let session = args.connection.open()?;
    match args.command {
        ChangeCommand::List => {
            let header = ["change", "event", "object", "requested by", "expires", "address", "reason", "from", "to"];
            let wide = ["expires", "address", "reason", "from", "to"];
            let changes = list(&session)?;
            match output {
                Output::Json => print_json(&changes.iter().map(change_json).collect::<Result<Vec<_>, _>>()?),
                Output::Human => output.messages_with(&changes, &header, &wide, row),
            }
        }
        ChangeCommand::Show { id } => {
            let change = list(&session)?.into_iter().find(|change| change.id == id);
            let change = change.ok_or_else(|| CliError::Failed(format!("OBJECT_UNKNOWN: nothing waits as {id:?}")))?;
            printed(&change, output, || details(&change))
        }
        ChangeCommand::Approve { id } => {
            let approved = session.change(session.admin().approve_change(api::ApproveChangeRequest { id }))?;
            let change = approved.change.unwrap_or_default();
            printed(&change, output, || format!("approved {}: {} {}", change.id, change.event, change.object))
        }
        ChangeCommand::Reject { id } => {
            let rejected = session.change(session.admin().reject_change(api::RejectChangeRequest { id }))?;
            let change = rejected.change.unwrap_or_default();
            printed(&change, output, || format!("rejected {}: {} {}", change.id, change.event, change.object))
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
    vec![
        change.id.clone(),
        change.event.clone(),
        object,
        who,
        ends,
        change.requester_address.clone(),
        why,
        before,
        after,
    ]
}

/// Everything about one change, a line each, then the differences.
fn details(change: &api::PendingChange) -> String {
    let holder = change.client.as_ref().map(|client| {
        let names = client.names.join(", ");
        format!("{} of {}, by the certificate of {names}", client.id, client.agency)
    });
    let address = Some(change.requester_address.clone()).filter(|address| !address.is_empty());
    let lines = [
        ("change", Some(change.id.clone())),
        ("event", Some(format!("{} {}", change.event, change.object))),
        ("holder", holder),
        ("requested by", Some(change.requested_by.clone())),
        ("from", address.or_else(|| Some("the gateway's own host".to_owned()))),
        ("certificate", Some(change.requester_certificate.clone()).filter(|text| !text.is_empty())),
        ("identity provider", Some(change.requester_identity_provider.clone()).filter(|text| !text.is_empty())),
        ("reason", Some(change.justification.clone()).filter(|text| !text.is_empty())),
        ("expires", Some(time(change.ends))),
    ];
    let lines = lines.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name:<13} {value}")));
    let (before, after) = differences(&change.before, &change.after);
    let part = |mark: &'static str, text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.is_empty()).map(|line| format!("{mark} {line}")).collect()
    };
    lines.chain(part("-", &before)).chain(part("+", &after)).collect::<Vec<_>>().join("\n")
}

/// Returns the notice for a pending change; empty if the change is made.
pub fn pending_notice(pending_change: &str) -> String {
    if pending_change.is_empty() {
        return String::new();
    }
    format!("; what gives more waits for another person: change approve {pending_change}")
}

fn printed(change: &api::PendingChange, output: Output, sentence: impl FnOnce() -> String) -> Result<(), CliError> {
    match output {
        Output::Json => print_json(&change_json(change)?),
        Output::Human => output.result(&(), sentence),
    }
}

/// A change as JSON: its records as objects, their times as everywhere else.
fn change_json(change: &api::PendingChange) -> Result<Value, CliError> {
    let mut value = message_json(change)?;
    for (name, record) in [("before", &change.before), ("after", &change.after)] {
        value[name] = fields(record).map_or(Value::Null, Value::Object);
    }
    Ok(value)
}

/// Fields of the registry's records that are Unix times in seconds.
const TIMES: [&str; 9] =
    ["created", "not_before", "not_after", "tokens_from", "issued", "starts", "expires", "ends", "signs_from"];

/// The fields of a record of the registry, times as RFC 3339 (null: none, or no end); `None` for no record.
fn fields(record: &str) -> Option<serde_json::Map<String, Value>> {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(record) else { return None };
    for (_, value) in fields.iter_mut().filter(|(name, _)| TIMES.contains(&name.as_str())) {
        if let Some(seconds) = value.as_i64() {
            *value = timestamp(seconds);
        }
    }
    Some(fields)
}

/// Returns the fields in which two records differ, before and after.
fn differences(before: &str, after: &str) -> (String, String) {
    let (before, after) = (fields(before).unwrap_or_default(), fields(after).unwrap_or_default());
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
        let (was, is) = differences(r#"{"not_after":1795878061}"#, r#"{"not_after":1795878062}"#);
        assert_eq!(
            (was.as_str(), is.as_str()),
            ("not_after: \"2026-11-28T22:01:01+07:00\"", "not_after: \"2026-11-28T22:01:02+07:00\"")
        );
    }
}
