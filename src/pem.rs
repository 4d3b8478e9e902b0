//! PEM (RFC 7468), written; it is read by `rustls_pki_types`.

use ::pem::{EncodeConfig, LineEnding, Pem, encode_config};

/// DER as PEM, in lines of 64 characters.
pub fn encode(label: &str, der: &[u8]) -> String {
    encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

#[cfg(test)]
mod tests {
    #[test]
    fn der_stands_in_lines_of_64_characters() {
        let pem = super::encode("X509 CRL", &[0xff; 50]);
        let lines = ["-----BEGIN X509 CRL-----", &"/".repeat(64), "//8=", "-----END X509 CRL-----", ""];
        assert_eq!(pem, lines.join("\n"));
    }
}
