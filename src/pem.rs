//! PEM (RFC 7468), written; it is read by `rustls_pki_types`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// DER as PEM, in lines of 64 characters.
pub fn encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for at in (0..text.len()).step_by(64) {
        pem.push_str(&text[at..text.len().min(at + 64)]);
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}
