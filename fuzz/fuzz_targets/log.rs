//! Files of the exchange log: journal segment, checkpoint, entry. Never a panic, and an entry is canonical or rejected.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ndxp_gateway::exchange_log::Entry;
use ndxp_gateway::exchange_log::checkpoint::LogVerifier;
use ndxp_gateway::exchange_log::disk::LocalDisk;
use ndxp_gateway::exchange_log::journal::read_segment;
use ndxp_gateway::exchange_log::segment::Reading;

fuzz_target!(|bytes: &[u8]| {
    if let Some(entry) = Entry::from_bytes(bytes) {
        assert_eq!(entry.to_bytes(), bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    if let Ok(verifier) = LogVerifier::parse(vkey) {
        let _ = verifier.check(&text);
    }
    let _ = LogVerifier::parse(&text);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    let reading = Reading { first: 0, before: None, from: 0, key: None, keyed_from: 0, start: None };
    let _ = read_segment(&LocalDisk, file.path(), reading);
});
