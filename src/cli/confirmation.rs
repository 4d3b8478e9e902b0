//! What cannot be undone: on a terminal, a command first says what it will stop, and asks; `--dry-run` only says it. A script is not asked.

use super::output::{Output, counted, print_json, time};
use super::session::{PAGE, Session};
use super::{CliError, last_use};
use crate::admin::api;
use crate::registry::now;
use clap::Args;
use serde_json::json;
use std::io::{IsTerminal, Write};

/// How much is asked before a command that cannot be undone.
#[derive(Args, Clone, Copy, Default)]
pub struct Confirmation {
    /// Say what it would stop, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask, on a terminal either.
    #[arg(long, short = 'y', conflicts_with = "dry_run")]
    yes: bool,
}

impl Confirmation {
    /// Returns whether to do it. `stops` finds out what it will stop, one line each; it is asked only where somebody reads it.
    ///
    /// # Errors
    /// The person at the terminal says no; those of `stops`.
    pub fn permits(
        self,
        act: &str,
        stops: impl FnOnce() -> Result<Vec<String>, CliError>,
        output: Output,
    ) -> Result<bool, CliError> {
        if self.dry_run {
            let stops = stops()?;
            match output {
                Output::Json => print_json(&json!({ "dry_run": true, "act": act, "stops": stops }))?,
                Output::Human => {
                    anstream::println!("would {act}:");
                    stops.iter().for_each(|line| anstream::println!("  {line}"));
                    anstream::println!("nothing was changed");
                }
            }
            return Ok(false);
        }
        if self.yes || !std::io::stdin().is_terminal() {
            return Ok(true);
        }
        let mut terminal = std::io::stderr();
        anstream::eprintln!("this will {act}:");
        stops()?.iter().for_each(|line| anstream::eprintln!("  {line}"));
        write!(terminal, "It cannot be undone. Go on? [y/N] ")?;
        terminal.flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" | "c" | "có" => Ok(true),
            _ => Err(CliError::Failed("nothing was changed".to_owned())),
        }
    }
}

/// When an object was last used, in words.
fn last_used(session: &Session, object: &str) -> Result<String, CliError> {
    Ok(match last_use::last(session, object)? {
        None => "when it was last used is not found out yet".to_owned(),
        Some(0) => "not used within the last 90 days".to_owned(),
        Some(at) => format!("last used {}", time(at)),
    })
}

/// Returns how many tokens are in force: of a client, or of all.
fn tokens_in_force(session: &Session, client: &str) -> Result<usize, CliError> {
    let tokens = session.pages(
        usize::MAX,
        |_| true,
        |page_token| {
            let mut admin = session.admin();
            let client = client.to_owned();
            async move {
                let request = api::ListTokensRequest { client, in_force: true, page_size: PAGE, page_token };
                let page = admin.list_tokens(request).await?.into_inner();
                Ok((page.tokens, page.next_page_token))
            }
        },
    )?;
    Ok(tokens.len())
}

/// Returns the grants of a client that are in force.
fn grants_in_force(session: &Session, client: &str) -> Result<Vec<api::Grant>, CliError> {
    let in_force = |grant: &api::Grant| {
        let is_approved = !grant.needs_approval || !grant.approved_by.is_empty();
        !grant.withdrawn && is_approved && (grant.not_before..grant.not_after).contains(&now())
    };
    session.pages(usize::MAX, in_force, |page_token| {
        let mut admin = session.admin();
        let client = client.to_owned();
        async move {
            let request = api::ListGrantsRequest { client, pending: false, page_size: PAGE, page_token };
            let page = admin.list_grants(request).await?.into_inner();
            Ok((page.grants, page.next_page_token))
        }
    })
}

/// What ends with a client, or with all of its tokens.
pub fn of_client(session: &Session, id: &str, with_grants: bool) -> Result<Vec<String>, CliError> {
    let client = session.read(session.admin().get_client(api::ClientId { id: id.to_owned() }))?;
    let mut lines = vec![
        format!("client {id} of agency {}", client.agency),
        format!("{} in force", counted(tokens_in_force(session, id)? as u64, "token", "tokens")),
    ];
    if with_grants {
        let granted = grants_in_force(session, id)?;
        let scopes: Vec<&str> = granted.iter().flat_map(|grant| grant.scopes.iter().map(String::as_str)).collect();
        lines.push(format!("{} in force ({})", counted(granted.len() as u64, "grant", "grants"), scopes.join(", ")));
    }
    lines.push(last_used(session, &format!("client:{id}"))?);
    Ok(lines)
}

/// What ends with a grant.
pub fn of_grant(session: &Session, id: &str) -> Result<Vec<String>, CliError> {
    let grant = session.read(session.admin().get_grant(api::GrantId { id: id.to_owned() }))?;
    let others = grants_in_force(session, &grant.client)?;
    let others = others.iter().filter(|other| other.id != grant.id).count();
    Ok(vec![
        format!("grant {id} of client {}: {}", grant.client, grant.scopes.join(", ")),
        format!("the client keeps {} in force", counted(others as u64, "other grant", "other grants")),
        last_used(session, &format!("grant:{id}"))?,
    ])
}

/// What ends with a token.
pub fn of_token(session: &Session, id: &str) -> Result<Vec<String>, CliError> {
    let token = session.read(session.admin().get_token(api::TokenId { id: id.to_owned() }))?;
    let others = tokens_in_force(session, &token.client)?;
    Ok(vec![
        format!("token {id} of client {}, good until {}", token.client, time(token.expires)),
        format!("the client has {} in force, this one included", counted(others as u64, "token", "tokens")),
    ])
}

/// What ends with a signing key.
pub fn of_key(session: &Session, kid: &str) -> Result<Vec<String>, CliError> {
    let keys = session.read(session.admin().list_keys(api::ListKeysRequest {}))?.keys;
    let key = keys.iter().find(|key| key.kid == kid);
    let key = key.ok_or_else(|| CliError::Failed(format!("there is no key {kid}: keys list")))?;
    Ok(vec![
        format!("key {kid} of {}", time(key.created)),
        format!(
            "every token that it has signed, of {} in force",
            counted(tokens_in_force(session, "")? as u64, "token", "tokens")
        ),
    ])
}

/// What ends with a person.
pub fn of_person(session: &Session, id: &str) -> Result<Vec<String>, CliError> {
    let staff = session.read(session.admin().list_staff(api::ListStaffRequest {}))?.staff;
    let person = staff.iter().find(|person| person.id == id);
    let person = person.ok_or_else(|| CliError::Failed(format!("there is no {id} among the staff: staff list")))?;
    let roles: Vec<&str> = person.roles().map(|role| role.as_str_name()).collect();
    let roles = roles.join(", ").to_lowercase();
    let waiting = session.read(session.admin().list_pending_changes(api::ListPendingChangesRequest::default()))?;
    let own = waiting.changes.iter().filter(|change| change.requested_by.ends_with(&format!(":{id}"))).count();
    Ok(vec![
        format!("{id} with the roles {roles}, and the sessions at the console"),
        format!("{} of theirs waiting for approval", counted(own as u64, "change", "changes")),
    ])
}
