//! Input from auditors, witnesses and other machines: receipts, policies, cosignatures, requests to a witness, bundles, lists of
//! pruned bundles. Never a panic; bytes are canonical exactly if decoding and encoding returns them unchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ndxp_gateway::exchange_log::cosignature::{Policy, WitnessKey};
use ndxp_gateway::exchange_log::note::{Note, signature_line};
use ndxp_gateway::exchange_log::pruned::Pruned;
use ndxp_gateway::exchange_log::receipt::Receipt;
use ndxp_gateway::exchange_log::tiles::{decode_bundle, decode_tile};
use ndxp_gateway::exchange_log::{Entry, canonical};
use ndxp_gateway::witness::request::AddCheckpoint;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(canonical::kind(bytes), Entry::from_bytes(bytes).map(|entry| entry.kind));
    let width = bytes.first().map_or(1, |byte| usize::from(*byte) + 1);
    let _ = decode_bundle(bytes, width, Path::new("bundle"));
    let _ = decode_tile(bytes, width, Path::new("tile"));
    let text = String::from_utf8_lossy(bytes);
    if let Ok(policy) = Policy::parse(&text) {
        let _ = policy.quorum(&text, &(1..=u64::MAX));
    }
    if let Ok(note) = Note::parse(&text) {
        let lines: String = note.signatures.iter().map(|one| signature_line(one.name, one.id, &one.bytes)).collect();
        assert_eq!(format!("{}\n{lines}", note.text), text, "a note has one form");
    }
    let _ = WitnessKey::parse(&text);
    let _ = Receipt::parse(&text);
    if let Some(request) = AddCheckpoint::parse(&text) {
        assert_eq!(AddCheckpoint::parse(&request.to_text()).as_ref(), Some(&request));
    }
    let _ = Pruned::parse(&text);
});
