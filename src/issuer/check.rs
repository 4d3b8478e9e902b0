//! Checks before a token is issued by hand, so that none is issued that would not work.

use super::{IssueError, IssueRequest, Issuer};
use crate::identity::tls::{self, TlsFiles};
use crate::identity::trust::Trust;
use crate::identity::{Certificate, Thumbprint};
use crate::registry::{Client, GrantFilter, GrantState, Page, TokenRecord, now};
use rustls_pki_types::CertificateDer;
use std::time::Duration;

/// Number of grants that an explanation names.
const NAMED: usize = 3;
/// Number of grants that are examined for one.
const LOOKED_AT: usize = 1_000;

/// A token that is requested by hand.
#[derive(Debug, Clone)]
pub struct HandIssue {
    /// Scopes to carry; none: all that are granted.
    pub scopes: Vec<String>,
    /// The client's certificate, and any between it and its CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its lifetime.
    pub lifetime: Duration,
    /// Time from now until it is valid.
    pub starts_in: Duration,
}

impl Issuer<'_> {
    /// Issues a token by hand, if a call with it would work now: see [`IssueError`].
    ///
    /// # Errors
    /// See [`IssueError`]; nothing is issued then.
    pub fn issue_by_hand(
        &self,
        client: &str,
        hand: HandIssue,
        tls: &TlsFiles,
    ) -> Result<(String, TokenRecord), IssueError> {
        let registered = self.store.client(client)?;
        if registered.retired {
            return Err(IssueError::Retired(client.to_owned()));
        }
        let HandIssue { scopes, chain, lifetime, starts_in } = hand;
        let own = chain.first().ok_or_else(|| IssueError::Certificate("there is none".into()))?;
        let certificate = Thumbprint::of(own);
        let view = self.store.view(client)?;
        let request = IssueRequest { scopes, certificate, lifetime, starts_in };
        let record = self.prepare(&view, request)?;
        if record.scopes.is_empty() {
            return Err(IssueError::NoScopeInForce { client: client.to_owned(), why: self.why_not(client, None) });
        }
        check_certificate(&registered, &chain, tls)?;
        self.must_name_nobody_else(client, &chain)?;
        let token = self.sign_now(&record)?;
        self.store.add_token(&record)?;
        Ok((token, record))
    }

    /// Refuses a certificate that also names somebody else: calls with it have no identity.
    fn must_name_nobody_else(&self, client: &str, chain: &[CertificateDer<'_>]) -> Result<(), IssueError> {
        let names = Certificate::of(chain).map(|certificate| certificate.names.clone()).unwrap_or_default();
        let own = format!("client:{client}");
        let others: Vec<String> = self.store.owners(&names)?.into_iter().filter(|holder| *holder != own).collect();
        if others.is_empty() {
            return Ok(());
        }
        let others = others.join(", ");
        Err(IssueError::Certificate(format!(
            "it names {others}, too: calls with it are refused (CERTIFICATE_AMBIGUOUS)"
        )))
    }

    /// Explains why no grant of a client is in force for a scope, or for any: which grant is pending, begins later, or
    /// has ended, and when.
    pub fn why_not(&self, client: &str, scope: Option<&str>) -> String {
        let now = now();
        let page = Page { after: "", max: LOOKED_AT, filter: GrantFilter::default() };
        let Ok(grants) = self.store.grants(Some(client), page) else { return "its grants cannot be read".into() };
        let mut found: Vec<(u8, String)> = grants
            .iter()
            .filter(|grant| scope.is_none_or(|scope| grant.scopes.iter().any(|one| one == scope)))
            .map(|grant| match grant.state(now) {
                GrantState::InForce => (9, format!("{} is in force", grant.id)),
                GrantState::Pending => (0, format!("{} waits for a second person's approval", grant.id)),
                GrantState::OutOfTime if grant.not_before > now => {
                    (1, format!("{} begins at {}", grant.id, time(grant.not_before)))
                }
                GrantState::OutOfTime => (2, format!("{} ended at {}", grant.id, time(grant.not_after))),
                GrantState::Withdrawn => (3, format!("{} was withdrawn", grant.id)),
            })
            .collect();
        found.sort();
        let named: Vec<String> = found.into_iter().take(NAMED).map(|(_, text)| format!("grant {text}")).collect();
        if named.is_empty() { "no grant has it".into() } else { named.join("; ") }
    }
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

/// Checks whether calls on a connection with this certificate would be the client's: by its names, its issuer, its
/// validity, and the revocation lists in the gateway's files.
fn check_certificate(client: &Client, chain: &[CertificateDer<'static>], tls: &TlsFiles) -> Result<(), IssueError> {
    let refuse = |why: String| Err(IssueError::Certificate(why));
    let Some(certificate) = Certificate::of(chain) else { return refuse("there is none".into()) };
    if !certificate.names.iter().any(|name| client.names.contains(name)) {
        let shown = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return refuse(format!(
            "it is not client {}'s: its names are {}, the client's {}",
            client.id,
            shown(&certificate.names),
            shown(&client.names)
        ));
    }
    let trust = match Trust::load(tls, None) {
        Ok(trust) => trust,
        Err(fault) => return refuse(format!("it cannot be checked: {fault}")),
    };
    let Some((own, above)) = chain.split_first() else { return refuse("there is none".into()) };
    match trust.verify(own, above, tls::unix_now()) {
        Ok(_) => Ok(()),
        Err(refused) => refuse(format!("connections with it are refused: {}", refused.cause.text())),
    }
}
