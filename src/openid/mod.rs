//! Has people sign in at an OpenID provider: the authorization code flow with PKCE (RFC 6749, RFC 7636, OpenID Connect Core 1.0), and who
//! the provider then says they are. Whatever the provider sends has a bound in bytes and in time, and nothing of it is believed before it
//! has been checked; nothing of it is in an error or a log line.
//!
//! 1. [`Provider::begin`]: where the browser goes, with what only this browser's cookie leads back to ([`attempts`]).
//! 2. The provider sends the browser back with a code.
//! 3. [`Provider::finish`]: the code and the verifier against an ID token ([`token`]), whose signature and claims are checked ([`id_token`])
//!    by the provider's public keys ([`keys`]). What the provider says of itself ([`metadata`]) is read when it is needed: the gateway
//!    starts without it.

pub mod attempts;
mod fetch;
mod id_token;
mod keys;
mod metadata;
mod token;

use crate::secret::Secret;
use attempts::{Attempt, secret};
use fetch::Fetch;
use id_token::Expected;
use keys::Keys;
use metadata::Metadata;
pub(crate) use metadata::is_https;
use oauth2::{CsrfToken, PkceCodeChallenge, PkceCodeVerifier, Scope};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long what the provider says of itself is used before it is read again.
const METADATA_AGE: Duration = Duration::from_secs(600);
/// How long after a failure the provider is not asked again.
const RETRY: Duration = Duration::from_secs(5);

/// What a gateway knows of its provider.
#[derive(Clone)]
pub struct OpenIdSettings {
    /// Its issuer identifier: an `https` URL, as each of its ID tokens has it.
    pub issuer: Arc<str>,
    /// What the button calls it.
    pub name: String,
    /// The gateway's own id at the provider.
    pub client_id: String,
    /// The gateway's secret there; `None` for a public client.
    pub client_secret: Option<Secret>,
    /// Where the provider sends browsers back to.
    pub redirect_uri: String,
    /// The claim of the ID token that is a staff id.
    pub claim: String,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// Tolerated clock skew, in seconds.
    pub leeway_s: u32,
    /// How the provider is reached: the CAs that its certificate must be of.
    pub tls: rustls::ClientConfig,
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident, $text:literal;)*) => {
        /// Why nobody has signed in: each with a constant text for entries and metrics, and nothing that anybody has sent.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum SignInError { $($(#[$doc])* $name,)* }

        impl SignInError {
            /// Its constant text.
            pub fn as_str(self) -> &'static str { match self { $(SignInError::$name => $text,)* } }
        }
    };
}

causes! {
    /// There is no random number to be had.
    Random, "no_random_numbers";
    /// The provider cannot be reached, or its certificate is of no CA that is believed.
    Unreachable, "provider_unreachable";
    /// The provider did not answer in time.
    Timeout, "provider_timeout";
    /// The provider's answer is larger than any honest one.
    TooLarge, "response_too_large";
    /// The provider answered another HTTP status than 200, a redirect included.
    Status, "http_status";
    /// What the provider says of itself cannot be used.
    Metadata, "provider_metadata";
    /// What the provider says of itself is another issuer's.
    MetadataIssuer, "metadata_issuer";
    /// The provider's keys cannot be read.
    Keys, "provider_keys";
    /// The answer came by way of another issuer (RFC 9207).
    ResponseIssuer, "response_issuer";
    /// The provider, or the person there, has refused.
    Refused, "provider_refused";
    /// The provider does not take the code.
    Code, "code_refused";
    /// The answer to the code is not what the protocol says.
    TokenResponse, "token_response";
    /// There is no ID token, or what is there is none.
    Malformed, "id_token_malformed";
    /// Its algorithm is not one of those that are taken, or not its key's.
    Algorithm, "algorithm";
    /// No key of the provider's is the one that it names.
    KeyUnknown, "key_unknown";
    /// The signature is wrong.
    Signature, "signature";
    /// It is another issuer's.
    Issuer, "issuer";
    /// It is for somebody else.
    Audience, "audience";
    /// It has ended.
    Expired, "expired";
    /// It is of the future, or says nothing of its time.
    IssuedAt, "issued_at";
    /// It is not the answer to this attempt.
    Nonce, "nonce";
    /// It belongs to another access token.
    AccessTokenHash, "access_token_hash";
    /// It has no such claim, or that is no text.
    Claim, "claim_missing";
}

impl std::fmt::Display for SignInError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for SignInError {}

/// Where a browser goes to sign in.
pub struct AuthorizationRequest {
    /// The address at the provider.
    pub address: String,
    /// What must come back with it, and what has been sent in secret.
    pub attempt: Attempt,
}

/// What the browser brings back (RFC 6749, section 4.1.2; RFC 9207).
#[derive(Debug, Default)]
pub struct Callback<'c> {
    /// The code.
    pub code: &'c str,
    /// The issuer, where the provider names it.
    pub issuer: Option<&'c str>,
    /// Whether the provider has refused.
    pub is_error: bool,
}

/// The provider's own words about itself, and when they were read or could not be.
#[derive(Default)]
struct Known {
    metadata: Option<(Arc<Metadata>, Instant)>,
    failed: Option<(SignInError, Instant)>,
}

/// A provider.
pub struct Provider {
    settings: OpenIdSettings,
    fetch: Fetch,
    known: Mutex<Known>,
    keys: Keys,
}

impl Provider {
    /// One of these settings. Nothing is sent yet.
    pub fn new(settings: OpenIdSettings) -> Self {
        let fetch = Fetch::new(settings.tls.clone());
        Provider { fetch, known: Mutex::default(), keys: Keys::default(), settings }
    }

    /// What is known of it without asking.
    pub fn settings(&self) -> &OpenIdSettings {
        &self.settings
    }

    /// Makes an attempt to sign in, with the address that its browser goes to. `language`: that of the pages, for the provider's own.
    ///
    /// # Errors
    /// The provider cannot be asked, or what it says cannot be used.
    pub async fn begin(&self, language: &str) -> Result<AuthorizationRequest, SignInError> {
        let metadata = self.metadata().await?;
        let (state, nonce) = (secret().ok_or(SignInError::Random)?, secret().ok_or(SignInError::Random)?);
        // 32 random bytes, as RFC 7636, section 4.1, recommends.
        let verifier = PkceCodeVerifier::new(secret().ok_or(SignInError::Random)?);
        let client = token::client(&self.settings, &metadata)?;
        let request = client
            .authorize_url(|| CsrfToken::new(state.clone()))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .add_scope(Scope::new("openid".to_owned()))
            .add_scopes(self.settings.scopes.iter().cloned().map(Scope::new))
            .add_extra_param("nonce", &nonce)
            .add_extra_param("ui_locales", language);
        let address = request.url().0.to_string();
        Ok(AuthorizationRequest {
            address,
            attempt: Attempt { state, nonce, verifier: Secret::new(verifier.secret().as_str()) },
        })
    }

    /// Returns who the provider says the person is: the claim of an ID token that answers this very attempt.
    ///
    /// # Errors
    /// The provider has refused, cannot be asked, or says something that is not to be believed.
    pub async fn finish(&self, attempt: &Attempt, callback: &Callback<'_>) -> Result<String, SignInError> {
        let metadata = self.metadata().await?;
        match callback.issuer {
            Some(issuer) if issuer != &*self.settings.issuer => return Err(SignInError::ResponseIssuer),
            None if metadata.authorization_response_iss_parameter_supported => return Err(SignInError::ResponseIssuer),
            _ => {}
        }
        if callback.is_error || callback.code.is_empty() {
            return Err(SignInError::Refused);
        }
        let tokens = token::redeem(&self.settings, &metadata, &self.fetch, callback.code, &attempt.verifier).await?;
        let header = id_token::header(&tokens.id_token)?;
        let keys = self.keys.of(&header, self.fetch.document(&metadata.jwks_uri)).await?;
        let expected = Expected {
            issuer: &self.settings.issuer,
            audience: &self.settings.client_id,
            nonce: &attempt.nonce,
            access_token: &tokens.access_token,
            claim: &self.settings.claim,
            leeway_s: i64::from(self.settings.leeway_s),
        };
        id_token::verify(&tokens.id_token, &header, &keys, &expected, crate::registry::now())
    }

    /// What the provider says of itself, read at most once in ten minutes; after a failure not for five seconds. Who comes meanwhile
    /// waits for the one request.
    async fn metadata(&self) -> Result<Arc<Metadata>, SignInError> {
        let mut known = self.known.lock().await;
        if let Some((metadata, _)) = known.metadata.as_ref().filter(|(_, read)| read.elapsed() < METADATA_AGE) {
            return Ok(metadata.clone());
        }
        if let Some((error, _)) = known.failed.filter(|(_, at)| at.elapsed() < RETRY) {
            return Err(error);
        }
        let issuer = &*self.settings.issuer;
        let read = self.fetch.document(&metadata::address(issuer)).await;
        match read.and_then(|bytes| Metadata::read(&bytes, issuer)) {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                *known = Known { metadata: Some((metadata.clone(), Instant::now())), failed: None };
                Ok(metadata)
            }
            Err(error) => {
                // At most once in five seconds.
                tracing::warn!(%error, "the OpenID provider cannot be used");
                known.failed = Some((error, Instant::now()));
                Err(error)
            }
        }
    }
}
