//! XML of a source: never a panic, and what was read is read the same after it was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ndxp_gateway::contract::xml;

fuzz_target!(|bytes: &[u8]| {
    let Ok(element) = xml::parse(bytes) else { return };
    let value = element.into_value();
    let mut text = String::new();
    xml::write_root(&mut text, "root", None, &value);
    assert!(xml::parse(text.as_bytes()).is_ok());
});
