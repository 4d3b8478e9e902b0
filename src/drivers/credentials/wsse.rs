//! WS-Security UsernameToken with a password digest (OASIS Web Services Security UsernameToken Profile 1.1, section
//! 3.1): `Base64(SHA-1(nonce + created + password))`. SHA-1 is the profile's own choice; the transport is TLS.

use super::{Secret, nonce};
use crate::contract::xml;
use crate::drivers::SourceError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const WSSE: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
const WSU: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd";
const DIGEST: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0#PasswordDigest";
const BASE64: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#Base64Binary";

/// User and password.
#[derive(Debug)]
pub struct UsernameToken {
    /// User.
    pub username: String,
    /// Password.
    pub password: Secret,
}

impl UsernameToken {
    /// The `wsse:Security` block for one message.
    ///
    /// # Errors
    /// The gateway's ([`SourceError::Gateway`]) if the operating system has no random bytes.
    pub fn header(&self) -> Result<String, SourceError> {
        Ok(self.block(&nonce()?, &jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
    }

    fn block(&self, nonce: &[u8], created: &str) -> String {
        let mut user = String::new();
        xml::escape_into(&mut user, &self.username);
        format!(
            r#"<wsse:Security xmlns:wsse="{WSSE}" xmlns:wsu="{WSU}" soap:mustUnderstand="1"><wsse:UsernameToken><wsse:Username>{user}</wsse:Username><wsse:Password Type="{DIGEST}">{}</wsse:Password><wsse:Nonce EncodingType="{BASE64}">{}</wsse:Nonce><wsu:Created>{created}</wsu:Created></wsse:UsernameToken></wsse:Security>"#,
            digest(nonce, created, self.password.reveal()),
            STANDARD.encode(nonce),
        )
    }
}

/// The password digest.
pub fn digest(nonce: &[u8], created: &str, password: &str) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(nonce);
    context.update(created.as_bytes());
    context.update(password.as_bytes());
    STANDARD.encode(context.finish().as_ref())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_other_implementations() {
        // Worked out with Python: base64(sha1(b64decode("WScqanjCEAC4mQoBE07sAQ==") + "2003-07-16T01:24:32Z" + "IloveDogs"))
        let nonce = STANDARD.decode("WScqanjCEAC4mQoBE07sAQ==").unwrap();
        assert_eq!(digest(&nonce, "2003-07-16T01:24:32Z", "IloveDogs"), "cywFYG+KaPMK3PCWR+m+DWtqzac=");
    }
}
