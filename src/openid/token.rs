//! The token request (RFC 6749, section 4.1.3), by the crate `oauth2`.

use super::fetch::Fetch;
use super::metadata::Metadata;
use super::{OpenIdSettings, SignInError};
use crate::secret::Secret;
use bytes::Bytes;
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, Client, ClientId, ClientSecret, EndpointNotSet, EndpointSet,
    ExtraTokenFields, HttpRequest, HttpResponse, PkceCodeVerifier, RedirectUrl, RequestTokenError,
    StandardRevocableToken, StandardTokenResponse, TokenResponse, TokenUrl,
};
use serde::{Deserialize, Serialize};
use std::pin::Pin;

/// The members that OpenID Connect adds to a token response.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct IdTokenField {
    id_token: String,
}

impl std::fmt::Debug for IdTokenField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(ID token)")
    }
}

impl ExtraTokenFields for IdTokenField {}

/// The `oauth2` client with OpenID Connect's response.
pub(super) type OpenIdClient = Client<
    BasicErrorResponse,
    StandardTokenResponse<IdTokenField, BasicTokenType>,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// The tokens of a redeemed code.
pub(super) struct Tokens {
    pub id_token: Secret,
    pub access_token: Secret,
}

/// Returns the client, with the authentication method of the provider's metadata.
///
/// # Errors
/// An endpoint or the redirect URI is not a URL.
pub(super) fn client(settings: &OpenIdSettings, metadata: &Metadata) -> Result<OpenIdClient, SignInError> {
    let wrong = |_| SignInError::Metadata;
    let client = Client::new(ClientId::new(settings.client_id.clone()))
        .set_auth_uri(AuthUrl::new(metadata.authorization_endpoint.clone()).map_err(wrong)?)
        .set_token_uri(TokenUrl::new(metadata.token_endpoint.clone()).map_err(wrong)?)
        .set_redirect_uri(RedirectUrl::new(settings.redirect_uri.clone()).map_err(wrong)?);
    let Some(secret) = &settings.client_secret else { return Ok(client) };
    let by = if metadata.wants_secret_in_body() { AuthType::RequestBody } else { AuthType::BasicAuth };
    Ok(client.set_auth_type(by).set_client_secret(ClientSecret::new(secret.reveal().to_owned())))
}

impl<'f> AsyncHttpClient<'f> for Fetch {
    type Error = SignInError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, SignInError>> + Send + 'f>>;

    fn call(&'f self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let response = self.send(request.map(Bytes::from)).await?;
            // A redirect would send the code and the secret elsewhere.
            let status = response.status();
            let said = status.is_success() || status.is_client_error();
            if said { Ok(response.map(Vec::from)) } else { Err(SignInError::Status) }
        })
    }
}

/// Redeems a code.
///
/// # Errors
/// The provider rejects the code, is unreachable, or its response is malformed.
pub(super) async fn redeem(
    settings: &OpenIdSettings,
    metadata: &Metadata,
    fetch: &Fetch,
    code: &str,
    verifier: &Secret,
) -> Result<Tokens, SignInError> {
    let client = client(settings, metadata)?;
    let request = client
        .exchange_code(AuthorizationCode::new(code.to_owned()))
        .set_pkce_verifier(PkceCodeVerifier::new(verifier.reveal().to_owned()));
    // What else these errors have is the provider's own text, which nobody else reads.
    let response = request.request_async(fetch).await.map_err(|error| match error {
        RequestTokenError::ServerResponse(_) => SignInError::Code,
        RequestTokenError::Request(error) => error,
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => SignInError::TokenResponse,
    })?;
    Ok(Tokens {
        id_token: Secret::new(response.extra_fields().id_token.as_str()),
        access_token: Secret::new(response.access_token().secret().as_str()),
    })
}
