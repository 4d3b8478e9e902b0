//! Access: may this client make this call? A token is verified once and then cached ([`token`]); the decision itself is a plain function
//! over values ([`decide`]), with rates and quotas beside it ([`limits`]).

pub mod handshakes;
pub mod limits;
pub mod reads;
pub mod refusals;
pub(crate) mod rules;
pub mod sites;
pub mod staff;
pub mod token;
pub mod used_quotas;

use crate::contract::Operation;
use crate::contract::fields::Mask;
use crate::contract::formats::{self, Format};
use crate::contract::options::DataClass;
use crate::contract::validate::Violation;
use crate::registry::{ClientView, GrantView, Granted};
use crate::status::{Reason, Refusal};
use http::HeaderName;
use std::net::IpAddr;
use std::sync::Arc;

/// The caller's metadata. Parsed once: every value here is valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallMetadata {
    /// `ndxp-purpose`: a procedure code or a dossier number.
    pub purpose: Option<String>,
    /// `ndxp-official`: the acting official's id.
    pub official: Option<String>,
}

static PURPOSE: HeaderName = HeaderName::from_static("ndxp-purpose");
static OFFICIAL: HeaderName = HeaderName::from_static("ndxp-official");

impl CallMetadata {
    /// Reads the metadata. A malformed value is refused before it can reach the log: it might be anything.
    ///
    /// # Errors
    /// The refusal names the first such value.
    pub fn read(headers: &http::HeaderMap) -> Result<Self, Refusal> {
        let mut violations = Vec::new();
        let mut text = |name: &HeaderName, fits: &dyn Fn(&str) -> bool, expected: &str| {
            let mut values = headers.get_all(name).iter();
            let value = values.next()?;
            match value.to_str().ok().filter(|text| fits(text) && values.next().is_none()) {
                Some(text) => Some(text.to_owned()),
                None => {
                    violations.push(Violation::new(format!("metadata {name}"), format!("must be {expected}")));
                    None
                }
            }
        };
        let fits_purpose = |text: &str| {
            formats::check(Format::ProcedureCode, text).is_ok() || formats::check(Format::DossierNumber, text).is_ok()
        };
        let fits_official = |text: &str| text.len() <= 64 && formats::check(Format::Code, text).is_ok();
        let said = CallMetadata {
            purpose: text(&PURPOSE, &fits_purpose, "one procedure code or dossier number"),
            official: text(&OFFICIAL, &fits_official, "one official's id: letters, digits and . - _ /"),
        };
        if violations.is_empty() { Ok(said) } else { Err(Refusal::fields(violations)) }
    }
}

/// The rules of a decision, in their order. The entry names the rule that refuses; the caller gets less if the rule
/// would disclose what others are granted, or from which networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessRule {
    /// The token carries the operation's scope.
    TokenScope,
    /// A grant has the operation's scope.
    Scope,
    /// If the operation is sensitive: a second person approved one of those.
    Approval,
    /// One of those is in force.
    Period,
    /// One of those may be used from the caller's address.
    Network,
    /// The operation requires a purpose, and has one.
    PurposeGiven,
    /// The operation requires the acting official's id, and has one.
    OfficialGiven,
    /// One of those grants covers the purpose.
    Purpose,
}

impl AccessRule {
    /// Returns its name in the entry.
    pub fn as_str(self) -> &'static str {
        match self {
            AccessRule::TokenScope => "token-scope",
            AccessRule::Scope => "scope",
            AccessRule::Approval => "approval",
            AccessRule::Period => "period",
            AccessRule::Network => "network",
            AccessRule::PurposeGiven => "purpose-given",
            AccessRule::OfficialGiven => "official-given",
            AccessRule::Purpose => "purpose",
        }
    }

    /// Returns the reason for the caller.
    pub fn reason(self) -> Reason {
        match self {
            AccessRule::TokenScope
            | AccessRule::Scope
            | AccessRule::Approval
            | AccessRule::Period
            | AccessRule::Network => Reason::ScopeNotGranted,
            AccessRule::PurposeGiven => Reason::PurposeRequired,
            AccessRule::OfficialGiven => Reason::OfficialRequired,
            AccessRule::Purpose => Reason::PurposeNotGranted,
        }
    }
}

/// Maximum number of grants that a refusal names.
const MAX_NAMED: usize = 3;

/// A decision against a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessDenied {
    /// The first rule that no grant passes.
    pub rule: AccessRule,
    /// The grants that passed every rule before, three at most.
    pub grants: Vec<String>,
}

impl AccessDenied {
    fn by<'g>(rule: AccessRule, grants: impl IntoIterator<Item = &'g Granted>) -> Self {
        AccessDenied { rule, grants: grants.into_iter().take(MAX_NAMED).map(|grant| grant.id.to_string()).collect() }
    }

    /// Returns the refusal for the caller, with the rule for the log.
    fn refusal(self, scope: &str) -> Refusal {
        let detail = match self.rule {
            AccessRule::TokenScope => format!("the token lacks {scope}"),
            AccessRule::Scope | AccessRule::Approval | AccessRule::Period | AccessRule::Network => scope.to_owned(),
            AccessRule::PurposeGiven | AccessRule::OfficialGiven | AccessRule::Purpose => String::new(),
        };
        let rule = [self.rule.as_str().to_owned()].into_iter().chain(self.grants).collect::<Vec<_>>().join(" ");
        Refusal { rule: Some(rule.into()), ..Refusal::with(self.rule.reason(), detail) }
    }
}

/// Finds the grant that allows the call: in force, for the operation's scope, from its networks, and for the purpose.
/// `token_scopes` are the token's scopes: both must allow the call.
///
/// # Errors
/// SCOPE_NOT_GRANTED, PURPOSE_REQUIRED, OFFICIAL_REQUIRED or PURPOSE_NOT_GRANTED: the rule that refuses the grant that
/// passes most rules.
pub fn decide(
    operation: &Operation,
    client: &Arc<ClientView>,
    token_scopes: &[String],
    said: &CallMetadata,
    from: IpAddr,
    now: i64,
) -> Result<Granted, Refusal> {
    if !token_scopes.contains(&operation.scope) {
        return Err(AccessDenied::by(AccessRule::TokenScope, []).refusal(&operation.scope));
    }
    // The first grant that is checked allows nearly every call.
    let mut fitting = client.granted(&operation.scope).filter(|grant| fits(grant, operation, said, Some(from), now));
    match fitting.next() {
        Some(grant) => Ok(grant),
        None => explain(operation, client, said, Some(from), now).map_err(|denied| denied.refusal(&operation.scope)),
    }
}

fn fits(grant: &Granted, operation: &Operation, said: &CallMetadata, from: Option<IpAddr>, now: i64) -> bool {
    let given = !(operation.purpose_required && said.purpose.is_none()
        || operation.official_required && said.official.is_none());
    grant.in_force(now) && is_approved(grant, operation) && is_within(grant, from) && given && is_for(grant, said)
}

/// A grant without approval dates from a time when the contract did not mark the operation as sensitive.
fn is_approved(grant: &GrantView, operation: &Operation) -> bool {
    grant.approved || operation.data_class < DataClass::Sensitive
}

/// Returns the fields of an operation's response that a grant allows: those that it names; sensitive fields only if a
/// second person approved it.
pub fn mask(grant: &GrantView, operation: &Operation) -> Mask {
    let named = operation.response_fields.mask(&grant.fields);
    if grant.approved { named } else { operation.response_fields.without_sensitive(named) }
}

fn is_within(grant: &Granted, from: Option<IpAddr>) -> bool {
    grant.networks.is_empty() || from.is_none_or(|from| grant.networks.iter().any(|network| network.has(from)))
}

fn is_for(grant: &Granted, said: &CallMetadata) -> bool {
    said.purpose.as_deref().is_none_or(|purpose| covers(&grant.purposes, purpose))
}

/// Makes the same decision rule by rule, to explain it. Without an address, every network matches.
///
/// # Errors
/// The first rule that no grant passes, with the grants that passed those before it.
pub fn explain(
    operation: &Operation,
    client: &Arc<ClientView>,
    said: &CallMetadata,
    from: Option<IpAddr>,
    now: i64,
) -> Result<Granted, AccessDenied> {
    let mut grants: Vec<Granted> = client.granted(&operation.scope).collect();
    if grants.is_empty() {
        return Err(AccessDenied::by(AccessRule::Scope, []));
    }
    narrow(&mut grants, AccessRule::Approval, |grant| is_approved(grant, operation))?;
    narrow(&mut grants, AccessRule::Period, |grant| grant.in_force(now))?;
    narrow(&mut grants, AccessRule::Network, |grant| is_within(grant, from))?;
    narrow(&mut grants, AccessRule::PurposeGiven, |_| !operation.purpose_required || said.purpose.is_some())?;
    narrow(&mut grants, AccessRule::OfficialGiven, |_| !operation.official_required || said.official.is_some())?;
    narrow(&mut grants, AccessRule::Purpose, |grant| is_for(grant, said))?;
    grants.into_iter().next().ok_or(AccessDenied { rule: AccessRule::Scope, grants: Vec::new() })
}

/// Keeps the grants that pass a rule; returns an error if none does.
fn narrow(grants: &mut Vec<Granted>, rule: AccessRule, passes: impl Fn(&Granted) -> bool) -> Result<(), AccessDenied> {
    if !grants.iter().any(&passes) {
        return Err(AccessDenied::by(rule, grants.iter()));
    }
    grants.retain(passes);
    Ok(())
}

/// Checks whether the grant of an admitted call still covers it: it may have ended, or have been changed.
///
/// # Errors
/// SCOPE_NOT_GRANTED or PURPOSE_NOT_GRANTED, as the call would get now.
pub fn still_covers(
    grant: &GrantView,
    operation: &Operation,
    purpose: Option<&str>,
    from: IpAddr,
    now: i64,
) -> Result<(), Refusal> {
    if !grant.in_force(now) {
        return Err(Refusal::with(Reason::ScopeNotGranted, "the grant's time is over"));
    }
    if !is_approved(grant, operation) {
        return Err(Refusal::with(Reason::ScopeNotGranted, "the grant was changed"));
    }
    let network = grant.networks.is_empty() || grant.networks.iter().any(|network| network.has(from));
    if !network || !grant.scopes.contains(&operation.scope) {
        return Err(Refusal::with(Reason::ScopeNotGranted, "the grant was changed"));
    }
    if !purpose.is_none_or(|purpose| covers(&grant.purposes, purpose)) {
        return Err(Reason::PurposeNotGranted.into());
    }
    Ok(())
}

/// Returns whether a grant's purposes cover one.
pub fn covers(granted: &[String], purpose: &str) -> bool {
    granted.iter().any(|rule| match rule.split_once(':') {
        None => rule == "*",
        Some(("procedure", code)) => formats::is_within(code, purpose),
        Some(("dossier", agency)) => {
            let of = purpose.split('-').next().unwrap_or("");
            purpose.contains('-') && formats::is_within(agency, of)
        }
        Some(_) => false,
    })
}

/// Checks a rule of a grant's purposes.
///
/// # Errors
/// The text describes the form of a rule.
pub fn check_purpose_rule(rule: &str) -> Result<(), String> {
    let fits = match rule.split_once(':') {
        None => rule == "*",
        Some(("procedure", code)) => formats::check(Format::ProcedureCode, code).is_ok(),
        Some(("dossier", agency)) => formats::check(Format::AgencyCode, agency).is_ok(),
        Some(_) => false,
    };
    if fits { Ok(()) } else { Err(format!("{rule:?} must be *, procedure:CODE or dossier:AGENCY")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_is_covered_by_its_procedure_or_agency_only() {
        let rules = ["procedure:1.004873".to_owned(), "dossier:H49.12".to_owned()];
        for purpose in ["1.004873", "1.004873.000.00.00.H49", "H49.12-251103-0001", "H49.12.3-251103-0001"] {
            assert!(covers(&rules, purpose), "{purpose}");
        }
        for purpose in ["1.0048731", "1.004874", "H49.1-251103-0001", "H49.123-251103-0001", "H49.12", "*"] {
            assert!(!covers(&rules, purpose), "{purpose}");
        }
        assert!(covers(&["*".to_owned()], "1.004873") && !covers(&[], "1.004873"));
    }

    #[test]
    fn metadata_without_its_format_is_refused_whole() {
        let mut headers = http::HeaderMap::new();
        headers.insert("ndxp-purpose", http::HeaderValue::from_static("Nguyen Van An 022199000123"));
        headers.append("ndxp-official", http::HeaderValue::from_static("CB1"));
        headers.append("ndxp-official", http::HeaderValue::from_static("CB2"));
        let refusal = CallMetadata::read(&headers).err();
        assert_eq!(refusal.map(|refusal| refusal.violations.len()), Some(2));
    }
}
