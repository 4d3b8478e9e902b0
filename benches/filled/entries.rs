//! Log entries like those of a province.

use ndxp_gateway::exchange_log::entry::Pseudonym;
use ndxp_gateway::exchange_log::{Entry, Kind};

pub fn hash(number: u64, salt: u64) -> u64 {
    let mut x = number.wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 31;
    x.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (x >> 29)
}

/// Entries like those of a province: 300 systems, 33 operations, a million people, 5,000 officials, one in 50 refused.
pub fn entry(number: u64) -> Entry {
    let person = |of: u64, most: u64| Pseudonym {
        key: "2026-11".into(),
        value: [hash(of % most, 1).to_be_bytes(), hash(of % most, 2).to_be_bytes()].concat(),
    };
    let refused = hash(number, 3).is_multiple_of(50);
    let client = hash(number, 4) % 300;
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id[8..].copy_from_slice(&hash(number, 5).to_be_bytes());
    Entry {
        version: 1,
        kind: Kind::Exchange as i32,
        exchange_id: id.to_vec(),
        time_us: 1_795_000_000_000_000 + number as i64 * 2_000,
        node: "qn-dc1".into(),
        client: format!("system-{client:03}"),
        agency: format!("H49.{}", client % 40),
        certificate: vec![7; 32],
        token: "019ab0c2-5a2e-7c11-9a1e-6d9c1f2b3a4d".into(),
        peer: "10.20.30.40:50123".into(),
        source: format!("source{}", hash(number, 6) % 10),
        operation: format!("ndxp.source.v1.SourceService/Operation{}", hash(number, 7) % 33),
        scope: format!("source:read{}", hash(number, 7) % 33),
        purpose: format!("H49.{}-251103-{:04}", client % 40, hash(number, 8) % 10_000),
        // One entry in a hundred names the same person.
        subjects: vec![if number % 100 == 99 { everybody() } else { person(hash(number, 9), 1_000_000) }],
        official: Some(person(hash(number, 10), 5_000)),
        fields: ["full_name", "birth_date", "permanent_address"].map(str::to_owned).to_vec(),
        request_commitment: vec![1; 32],
        response_commitment: vec![2; 32],
        status: if refused { 7 } else { 0 },
        reason: if refused { "PURPOSE_NOT_GRANTED".into() } else { String::new() },
        total_us: 2_000,
        source_us: 1_500,
        request_bytes: 60,
        response_bytes: 400,
        request_messages: 1,
        response_messages: 1,
        grant: "019ab0c2-5a2e-7c11-9a1e-6d9c1f2b3a4e".into(),
        grant_call: number % 1_000 + 1,
        ..Entry::default()
    }
}

/// The person in one entry of a hundred.
pub fn everybody() -> Pseudonym {
    Pseudonym { key: "2026-11".into(), value: vec![9; 16] }
}
