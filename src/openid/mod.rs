//! Sign-in at an OpenID provider: the authorization code flow with PKCE (RFC 6749, RFC 7636, OpenID Connect Core 1.0). Each response of
//! the provider is bounded in bytes and in time and validated before use; its content is in no error and no log line.
//!
//! The provider's metadata ([`metadata`]) is fetched on demand, so that the gateway starts without the provider.
//! 1. [`Provider::begin`]: the authorization URL, and the parameters that are kept under this browser's cookie ([`attempts`]).
//! 2. The provider redirects the browser back with a code.
//! 3. [`Provider::finish`]: exchanges code and verifier for an ID token ([`token`]), whose signature and claims are validated
//!    ([`id_token`]) with the provider's public keys ([`keys`]).

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

/// Cache lifetime of the metadata.
const METADATA_AGE: Duration = Duration::from_secs(600);
/// Time after a failed fetch without another attempt.
const RETRY: Duration = Duration::from_secs(5);

/// The settings of a provider.
#[derive(Clone)]
pub struct OpenIdSettings {
    /// The issuer identifier: an `https` URL, the `iss` of each of its ID tokens.
    pub issuer: Arc<str>,
    /// The provider's name on the button.
    pub name: String,
    /// The client id.
    pub client_id: String,
    /// The client secret; `None` for a public client.
    pub client_secret: Option<Secret>,
    /// The redirect URI.
    pub redirect_uri: String,
    /// The claim of the ID token that is a staff id.
    pub claim: String,
    /// The scopes requested beside `openid`.
    pub scopes: Vec<String>,
    /// Tolerated clock skew, in seconds.
    pub leeway_s: u32,
    /// TLS towards the provider: the CAs that may have issued its certificate.
    pub tls: rustls::ClientConfig,
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident, $text:literal;)*) => {
        /// Why a sign-in failed: each cause has a constant text for entries and metrics; none has anything that was received.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum SignInError { $($(#[$doc])* $name,)* }

        impl SignInError {
            /// The constant text.
            pub fn as_str(self) -> &'static str { match self { $(SignInError::$name => $text,)* } }
        }
    };
}

causes! {
    /// The system has no randomness.
    Random, "no_random_numbers";
    /// The provider is unreachable, or no configured CA has issued its certificate.
    Unreachable, "provider_unreachable";
    /// The provider timed out.
    Timeout, "provider_timeout";
    /// The response exceeds the size bound.
    TooLarge, "response_too_large";
    /// The HTTP status is not 200; redirects are not followed.
    Status, "http_status";
    /// The metadata is unusable.
    Metadata, "provider_metadata";
    /// The metadata is another issuer's.
    MetadataIssuer, "metadata_issuer";
    /// The key set is unreadable.
    Keys, "provider_keys";
    /// The response's `iss` is another issuer (RFC 9207, mix-up attack).
    ResponseIssuer, "response_issuer";
    /// The provider, or the person there, refused.
    Refused, "provider_refused";
    /// The provider rejected the code.
    Code, "code_refused";
    /// The token response is malformed.
    TokenResponse, "token_response";
    /// The ID token is missing or malformed.
    Malformed, "id_token_malformed";
    /// The algorithm is not accepted, or not that of the key.
    Algorithm, "algorithm";
    /// The key set does not contain the token's key.
    KeyUnknown, "key_unknown";
    /// The signature is invalid.
    Signature, "signature";
    /// `iss` is another issuer.
    Issuer, "issuer";
    /// `aud` or `azp` is another client.
    Audience, "audience";
    /// `exp` has passed.
    Expired, "expired";
    /// `iat` is missing, in the future or too old, or `nbf` is in the future.
    IssuedAt, "issued_at";
    /// `nonce` is another attempt's.
    Nonce, "nonce";
    /// `at_hash` is of another access token.
    AccessTokenHash, "access_token_hash";
    /// The staff claim is missing or not a text.
    Claim, "claim_missing";
}

impl std::fmt::Display for SignInError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for SignInError {}

/// An authorization request.
pub struct AuthorizationRequest {
    /// The URL for the browser.
    pub address: String,
    /// The parameters that the response must match, and the secrets.
    pub attempt: Attempt,
}

/// The authorization response (RFC 6749, section 4.1.2; RFC 9207).
#[derive(Debug, Default)]
pub struct Callback<'c> {
    /// The code.
    pub code: &'c str,
    /// The issuer, if the provider names it.
    pub issuer: Option<&'c str>,
    /// Whether it is an error response.
    pub is_error: bool,
}

/// The cached metadata, and when it was fetched or failed.
#[derive(Default)]
struct Known {
    metadata: Option<(Arc<Metadata>, Instant)>,
    failed: Option<(SignInError, Instant)>,
}

/// A client of an OpenID provider.
pub struct Provider {
    settings: OpenIdSettings,
    fetch: Fetch,
    known: Mutex<Known>,
    keys: Keys,
}

impl Provider {
    /// Returns a client with these settings. Nothing is fetched yet.
    pub fn new(settings: OpenIdSettings) -> Self {
        let fetch = Fetch::new(settings.tls.clone());
        Provider { fetch, known: Mutex::default(), keys: Keys::default(), settings }
    }

    /// Returns the settings.
    pub fn settings(&self) -> &OpenIdSettings {
        &self.settings
    }

    /// Creates an authorization request. `language`: the language of the pages, sent as `ui_locales`.
    ///
    /// # Errors
    /// The provider is unreachable, or its metadata is unusable.
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

    /// Redeems a code and returns the person: the staff claim of an ID token for this very attempt.
    ///
    /// # Errors
    /// The provider refused, is unreachable, or sent something invalid.
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

    /// Returns the metadata, fetched at most once in ten minutes; after a failure not for five seconds. Concurrent callers share one
    /// fetch.
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
