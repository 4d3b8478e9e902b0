//! Conversions of rows to their records.

use super::super::lists::Lists;
use super::super::{Client, Grant, GrantView, MaintenanceNotice, Network, SigningKey, Staff, TokenRecord};
use rusqlite::Row;

pub(super) fn list(texts: &[String]) -> String {
    serde_json::Value::from(texts.to_vec()).to_string()
}

pub(super) fn read_list(row: &Row<'_>, column: &str) -> rusqlite::Result<Vec<String>> {
    Ok(serde_json::from_str(&row.get::<_, String>(column)?).unwrap_or_default())
}

pub(super) fn read_client(row: &Row<'_>) -> rusqlite::Result<Client> {
    Ok(Client {
        id: row.get("id")?,
        agency: row.get("agency")?,
        contact: row.get("contact")?,
        names: read_list(row, "names")?,
        suspended: row.get("suspended")?,
        created: row.get("created")?,
        retired: row.get("retired")?,
        tokens_from: row.get("tokens_from")?,
    })
}

pub(super) fn read_staff(row: &Row<'_>) -> rusqlite::Result<Staff> {
    let roles = serde_json::from_str(&row.get::<_, String>("roles")?).unwrap_or_default();
    Ok(Staff { id: row.get("id")?, roles, names: read_list(row, "names")? })
}

/// The columns that [`read_view`] takes, in its order.
pub(super) const VIEW: &str =
    "client, id, scopes, purposes, fields, networks, rate, burst, daily_quota, not_before, not_after,
     approved_by IS NOT NULL";

/// The end of a grant that must not work.
const NEVER: i64 = 0;

/// Returns a grant's networks; `None` if one of them cannot be read. No network at all means any, so an unreadable one
/// must not be skipped.
fn networks(texts: &[String]) -> Option<Vec<Network>> {
    texts.iter().map(|text| Network::parse(text).ok()).collect()
}

/// Reads a grant as calls see it, and its client. By position, and without copying known lists: a million of them are
/// read.
pub(super) fn read_view<'r>(row: &'r Row<'_>, lists: &mut Lists) -> rusqlite::Result<(&'r str, GrantView)> {
    let text = |at: usize| Ok::<_, rusqlite::Error>(row.get_ref(at)?.as_str()?);
    let networks = match text(5)? {
        "[]" => Some(Vec::new()),
        some => Some(lists.of(some)).filter(|texts| !texts.is_empty()).and_then(|texts| networks(&texts)),
    };
    let not_after = if networks.is_some() { row.get(10)? } else { NEVER };
    if networks.is_none() {
        tracing::error!(grant = text(1)?, "a grant's networks cannot be read: it is not in force");
    }
    let view = GrantView {
        id: text(1)?.into(),
        scopes: lists.of(text(2)?),
        purposes: lists.of(text(3)?),
        fields: lists.of(text(4)?),
        networks: networks.unwrap_or_default(),
        rate: row.get(6)?,
        burst: row.get(7)?,
        daily_quota: row.get::<_, i64>(8)?.unsigned_abs(),
        not_before: row.get(9)?,
        not_after,
        approved: row.get(11)?,
    };
    Ok((text(0)?, view))
}

pub(super) fn read_grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    let texts: Option<Vec<String>> = serde_json::from_str(&row.get::<_, String>("networks")?).ok();
    let networks = texts.and_then(|texts| networks(&texts));
    Ok(Grant {
        id: row.get("id")?,
        client: row.get("client")?,
        scopes: read_list(row, "scopes")?,
        purposes: read_list(row, "purposes")?,
        fields: read_list(row, "fields")?,
        rate: row.get("rate")?,
        burst: row.get("burst")?,
        daily_quota: row.get::<_, i64>("daily_quota")?.unsigned_abs(),
        not_before: row.get("not_before")?,
        not_after: row.get("not_after")?,
        legal_basis: row.get("legal_basis")?,
        requested_by: row.get("requested_by")?,
        requester: serde_json::from_str(&row.get::<_, String>("requester")?).ok(),
        approved_by: row.get("approved_by")?,
        needs_approval: row.get("needs_approval")?,
        // Treated as withdrawn if its networks cannot be read.
        withdrawn: row.get("withdrawn")? || networks.is_none(),
        networks: networks.unwrap_or_default(),
    })
}

pub(super) fn read_token(row: &Row<'_>) -> rusqlite::Result<TokenRecord> {
    Ok(TokenRecord {
        id: row.get("id")?,
        client: row.get("client")?,
        scopes: read_list(row, "scopes")?,
        certificate: row.get("certificate")?,
        issued: row.get("issued")?,
        starts: row.get("starts")?,
        expires: row.get("expires")?,
        revoked: row.get("revoked")?,
    })
}

pub(super) fn read_notice(row: &Row<'_>) -> rusqlite::Result<MaintenanceNotice> {
    Ok(MaintenanceNotice {
        source: row.get("source")?,
        starts: row.get("starts")?,
        ends: row.get("ends")?,
        text_vi: row.get("text_vi")?,
        text_en: row.get("text_en")?,
    })
}

pub(super) fn read_key(row: &Row<'_>) -> rusqlite::Result<SigningKey> {
    Ok(SigningKey {
        kid: row.get("kid")?,
        algorithm: row.get("algorithm")?,
        public_pem: row.get("public_pem")?,
        created: row.get("created")?,
        signs_from: row.get("signs_from")?,
        trusted_until: row.get("believed_until")?,
    })
}
