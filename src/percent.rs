//! Percent-encoding (RFC 3986, section 2.1).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_decode_str, utf8_percent_encode};

/// Everything except unreserved characters (section 2.3), so that no value can reach another path or parameter.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes everything except unreserved characters.
pub fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// Decodes a text. A `%` without two digits stays unchanged, and invalid UTF-8 is replaced.
pub fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_reserved_is_encoded_and_comes_back() {
        let text = "a-b.c_d~/?&=%+ Ừ";
        let encoded = super::encode(text).to_string();
        assert_eq!(encoded, "a-b.c_d~%2F%3F%26%3D%25%2B%20%E1%BB%AA");
        assert_eq!(super::decode(&encoded), text);
        assert_eq!(super::decode("100%zz%4"), "100%zz%4");
    }
}
