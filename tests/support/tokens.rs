//! Tokens as the store has them.

use ndxp_gateway::registry::{TokenRecord, now};
use std::ops::Range;

/// Tokens of one client, valid for an hour each, that expired that many days ago; each number has its own id.
pub fn ended(client: &str, numbers: Range<usize>, days: i64) -> Vec<TokenRecord> {
    let issued = now() - days * 86_400 - 3_600;
    numbers
        .map(|number| {
            let mut random = [0; 10];
            random[2..].copy_from_slice(&(number as u64).to_be_bytes());
            let id = uuid::Builder::from_unix_timestamp_millis((issued * 1_000).unsigned_abs(), &random);
            TokenRecord {
                id: id.into_uuid().to_string(),
                client: client.into(),
                scopes: vec!["budgetunit:read".into()],
                certificate: String::new(),
                issued,
                starts: issued,
                expires: issued + 3_600,
                revoked: false,
            }
        })
        .collect()
}
