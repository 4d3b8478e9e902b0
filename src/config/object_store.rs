//! `[log.object_store]`: where the log's tiles go.

use super::{Table, endpoint};
use crate::identity::tls;
use crate::tile_store::ObjectStoreSettings;
use std::path::Path;

/// `client_ca`: who is believed where nothing else is said.
pub(super) fn read(table: &Table<'_>, client_ca: Option<&Path>) -> Option<ObjectStoreSettings> {
    let endpoint = table.parsed("endpoint", "https://s3.quangninh.gov.vn:9000", |text| endpoint::read(text, "a store"));
    let bucket = table.parsed("bucket", "ndxp-log", bucket);
    let prefix = table.text("prefix").unwrap_or_default();
    let prefix = prefix_of(&prefix).map_err(|reason| table.fault("prefix", reason)).ok();
    let region = table.text("region").unwrap_or_else(|| "us-east-1".to_owned());
    let region = plain(&region).map_err(|reason| table.fault("region", reason)).ok();
    let access_key_id = table.parsed("access_key_id", "ndxp-gateway", plain);
    let secret_access_key = table.secret("secret_access_key");
    let ca = table.path("ca");
    if let Some(ca) = ca.as_deref().or(client_ca) {
        tls::client_config(ca, None, &[]).map_err(|fault| table.fault("ca", fault)).ok()?;
    }
    Some(ObjectStoreSettings {
        endpoint: endpoint?,
        bucket: bucket?,
        prefix: prefix?,
        region: region?,
        access_key_id: access_key_id?,
        secret_access_key: secret_access_key?,
        ca,
    })
}

/// Accepts the name of a bucket in any region of any store.
fn bucket(text: &str) -> Result<String, String> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let ends = text.trim_matches(['-', '.']).len() == text.len();
    if (3..=63).contains(&text.len()) && text.bytes().all(is_inner) && ends {
        return Ok(text.to_owned());
    }
    Err("must be the name of a bucket: 3 to 63 small letters, digits, - and .".to_owned())
}

/// Accepts folders, without a slash at begin and end; none is all of the bucket.
fn prefix_of(text: &str) -> Result<String, String> {
    let is_part = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(is_plain)
    };
    if text.is_empty() || text.len() <= 200 && text.split('/').all(is_part) {
        return Ok(text.to_owned());
    }
    Err("must be folders of letters, digits, -, _ and ., such as logs/quangninh".to_owned())
}

fn plain(text: &str) -> Result<String, String> {
    if (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        return Ok(text.to_owned());
    }
    Err("must be 1 to 128 characters of ASCII without spaces and /".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_store_are_its_own() {
        assert!(bucket("ndxp-log").is_ok() && bucket("a.b").is_ok());
        for wrong in ["", "ab", "Log", "-log", "log-", "a/b", "a b"] {
            assert!(bucket(wrong).is_err(), "{wrong}");
        }
        assert!(prefix_of("").is_ok() && prefix_of("logs/quang_ninh").is_ok());
        for wrong in ["/logs", "logs/", "a//b", "a/../b", ".", "a b", "a?b", "\u{1ea1}"] {
            assert!(prefix_of(wrong).is_err(), "{wrong}");
        }
        assert!(plain("us-east-1").is_ok());
        for wrong in ["", "a b", "a/b", "a\n"] {
            assert!(plain(wrong).is_err(), "{wrong}");
        }
    }
}
