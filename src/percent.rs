//! Percent-encoding (RFC 3986, section 2.1).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_decode_str, utf8_percent_encode};

/// Everything but unreserved characters (section 2.3), so that no value can reach another path or parameter.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text with everything encoded but unreserved characters.
pub fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// The text that was encoded. A `%` without two digits stays as it is, and what is no UTF-8 is replaced.
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
