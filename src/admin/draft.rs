//! Clients, people and grants as requested, checked before they are made. The same for the service and the command line.

use crate::access::check_purpose_rule;
use crate::contract::ContractSet;
use crate::contract::formats::{Format, check, expectation};
use crate::contract::options::DataClass;
use crate::contract::validate::Violation;
use crate::pki::{client_uri, staff_uri};
use crate::registry::name::{MAX_NAMES, is_name};
use crate::registry::{Client, Grant, Network, Role, Staff, canonical_name, is_id, now};
use crate::web::INTROSPECT;

/// How long a grant is in force by default: a year.
const DEFAULT_VALID_S: i64 = 365 * 86_400;
/// Default calls a second.
const DEFAULT_RATE: u32 = 50;

fn wrong(field: &str, description: impl Into<String>, vietnamese: impl Into<String>) -> Violation {
    Violation::new(field, description).in_vietnamese(vietnamese)
}

fn check_id(id: &str) -> Result<(), Violation> {
    let expected = "must be 1 to 64 lower-case letters, digits, hyphens or dots";
    let vietnamese = "phải gồm 1 đến 64 chữ thường không dấu, chữ số, dấu gạch nối hoặc dấu chấm";
    if is_id(id) { Ok(()) } else { Err(wrong("id", expected, vietnamese)) }
}

/// Checks certificate names; an empty list means the usual one.
fn check_names(names: Vec<String>, usual: String) -> Result<Vec<String>, Violation> {
    let names = if names.is_empty() { vec![usual] } else { names };
    if names.len() > MAX_NAMES {
        return Err(wrong("names", format!("must be {MAX_NAMES} at most"), format!("tối đa {MAX_NAMES} tên")));
    }
    match names.iter().find(|name| !is_name(name)) {
        Some(_) => {
            let vietnamese = "phải là tên DNS hoặc URI trong SAN của chứng thư số, tối đa 512 byte";
            let expected = "must be DNS names or URIs of at most 512 bytes, as in the certificate's SAN";
            Err(wrong("names", expected, vietnamese))
        }
        None => Ok(names.iter().map(|name| canonical_name(name)).collect()),
    }
}

/// A client to be registered.
#[derive(Debug, Clone, Default)]
pub struct ClientDraft {
    /// Id.
    pub id: String,
    /// Agency code.
    pub agency: String,
    /// The contact.
    pub contact: String,
    /// Certificate names; none: `spiffe://…/client/<id>`.
    pub names: Vec<String>,
}

impl ClientDraft {
    /// Checks a new client.
    ///
    /// # Errors
    /// The first violation.
    pub fn check(self) -> Result<Client, Violation> {
        check_id(&self.id)?;
        check_agency(&self.agency)?;
        let names = check_names(self.names, client_uri(&self.id))?;
        Ok(Client {
            id: self.id,
            agency: self.agency,
            contact: self.contact,
            names,
            created: now(),
            ..Client::default()
        })
    }

    /// Applies the draft to a client; unset fields stay.
    ///
    /// # Errors
    /// The first violation.
    pub fn over(self, mut client: Client) -> Result<Client, Violation> {
        if !self.agency.is_empty() {
            check_agency(&self.agency)?;
            client.agency = self.agency;
        }
        if !self.contact.is_empty() {
            client.contact = self.contact;
        }
        if !self.names.is_empty() {
            client.names = check_names(self.names, String::new())?;
        }
        Ok(client)
    }
}

fn check_agency(agency: &str) -> Result<(), Violation> {
    let vietnamese = "phải là mã định danh cơ quan, ví dụ H49, H49.12 hoặc 000.00.12.H49";
    let fault = || wrong("agency", format!("must be {}", expectation(Format::AgencyCode)), vietnamese);
    check(Format::AgencyCode, agency).map_err(|_| fault())
}

/// A person to be registered.
#[derive(Debug, Clone, Default)]
pub struct StaffDraft {
    /// Id.
    pub id: String,
    /// Their roles.
    pub roles: Vec<Role>,
    /// Certificate names; none: `spiffe://…/staff/<id>`.
    pub names: Vec<String>,
}

impl StaffDraft {
    /// Checks a new person.
    ///
    /// # Errors
    /// The first violation.
    pub fn check(self) -> Result<Staff, Violation> {
        check_id(&self.id)?;
        if self.roles.is_empty() {
            return Err(wrong("roles", "at least one is needed", "cần ít nhất một vai trò"));
        }
        let names = check_names(self.names, staff_uri(&self.id))?;
        Ok(Staff { id: self.id, roles: self.roles, names })
    }
}

/// A grant as requested.
#[derive(Debug, Clone, Default)]
pub struct GrantDraft {
    /// The client's id.
    pub client: String,
    /// Scopes; `*` for every scope of every contract.
    pub scopes: Vec<String>,
    /// Purposes.
    pub purposes: Vec<String>,
    /// Response fields.
    pub fields: Vec<String>,
    /// Calls a second; 0: the default.
    pub rate: u32,
    /// Burst above that rate.
    pub burst: u32,
    /// Calls a day; 0: no quota.
    pub daily_quota: u64,
    /// From when, Unix time in seconds; 0: now.
    pub not_before: i64,
    /// Until when; 0: a year from its beginning.
    pub not_after: i64,
    /// Legal basis.
    pub legal_basis: String,
    /// Networks.
    pub networks: Vec<String>,
}

impl GrantDraft {
    /// Checks scopes, purposes, fields and networks.
    ///
    /// # Errors
    /// The first violation.
    pub fn check(self, contracts: &ContractSet) -> Result<Grant, Violation> {
        let operations = contracts.operations();
        let mut known: Vec<String> = operations.iter().map(|operation| operation.scope.clone()).collect();
        known.sort();
        known.dedup();
        let every = known.clone();
        known.push(INTROSPECT.to_owned());
        let mut named = std::collections::HashSet::new();
        let once = self.scopes.iter().filter(|scope| named.insert(*scope)).cloned().collect();
        let scopes = if self.scopes.iter().any(|scope| scope == "*") { every } else { once };
        if scopes.is_empty() {
            return Err(wrong("scopes", "a grant needs a scope", "cần ít nhất một phạm vi"));
        }
        if let Some(unknown) = scopes.iter().find(|scope| !known.contains(scope)) {
            let expected = format!("no contract has the scope {unknown:?}; known: {}", known.join(", "));
            let vietnamese = format!("không hợp đồng nào có phạm vi {unknown:?}; các phạm vi có: {}", known.join(", "));
            return Err(wrong("scopes", expected, vietnamese));
        }
        self.purposes.iter().try_for_each(|rule| {
            let vietnamese = format!("{rule:?} phải là *, procedure:MÃ_THỦ_TỤC hoặc dossier:MÃ_CƠ_QUAN");
            check_purpose_rule(rule).map_err(|expected| wrong("purposes", expected, vietnamese))
        })?;
        let in_scope: Vec<_> = operations.iter().filter(|operation| scopes.contains(&operation.scope)).collect();
        let has = |path: &String| path == "*" || in_scope.iter().any(|operation| operation.response_fields.has(path));
        if let Some(unknown) = self.fields.iter().find(|path| !has(path)) {
            let expected =
                format!("no response within these scopes has the field {unknown:?}: `contract show` lists them");
            let vietnamese = format!("không dịch vụ nào trong các phạm vi này trả về trường {unknown:?}");
            return Err(wrong("fields", expected, vietnamese));
        }
        if self.legal_basis.trim().is_empty() {
            return Err(wrong("legal_basis", "a grant needs its legal basis", "cần nêu căn cứ pháp lý"));
        }
        let network = |text: &String| {
            let vietnamese = format!("{text:?} không phải là mạng: viết như 10.20.0.0/16");
            Network::parse(text).map_err(|expected| wrong("networks", expected, vietnamese))
        };
        let networks = self.networks.iter().map(network).collect::<Result<Vec<_>, _>>();
        let not_before = if self.not_before == 0 { now() } else { self.not_before };
        let not_after = if self.not_after == 0 { not_before.saturating_add(DEFAULT_VALID_S) } else { self.not_after };
        if not_after <= not_before {
            let vietnamese = "quyền phải kết thúc sau khi bắt đầu";
            return Err(wrong("not_after", "a grant must end after its beginning", vietnamese));
        }
        Ok(Grant {
            id: format!("g-{}", uuid::Uuid::now_v7().simple()),
            client: self.client,
            needs_approval: in_scope.iter().any(|operation| {
                let fault = &operation.response_fields;
                operation.data_class >= DataClass::Sensitive || fault.discloses_sensitive(&fault.mask(&self.fields))
            }),
            scopes,
            purposes: self.purposes,
            fields: self.fields,
            rate: if self.rate == 0 { DEFAULT_RATE } else { self.rate },
            burst: self.burst,
            daily_quota: self.daily_quota,
            not_before,
            not_after,
            legal_basis: self.legal_basis,
            networks: networks?,
            ..Grant::default()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sensitive_fields_need_a_second_person_wherever_they_stand() {
        let contracts = ContractSet::embedded().unwrap();
        let needs = |scope: &str, fields: &[&str]| {
            let draft = GrantDraft {
                client: "c".into(),
                scopes: vec![scope.into()],
                fields: fields.iter().map(|field| (*field).to_owned()).collect(),
                legal_basis: "x".into(),
                ..GrantDraft::default()
            };
            draft.check(&contracts).unwrap().needs_approval
        };
        assert!(needs("population:read", &["*"]) && needs("population:read", &["religion_code"]));
        assert!(!needs("population:read", &["citizen_id", "name"]) && !needs("population:verify", &["*"]));
        assert!(needs("officials:read", &["salary_coefficient"]) && !needs("officials:read", &["full_name"]));
        assert!(needs("civilstatus:record", &["record"]), "the operation itself is sensitive");
    }
}
