//! A session, as the Public Service Portal has it: a login call returns an id that goes into every body. It expires
//! without notice, so a refusal causes one new login.

use super::Secret;
use super::cached::CachedSecret;
use crate::contract::json;
use crate::contract::map::scalar_text;
use crate::drivers::http::{HttpEndpoint, status_error};
use crate::drivers::{GatewayFault, SourceError};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use std::sync::Arc;

/// The login, with the cached session.
#[derive(Debug)]
pub struct LoginSession {
    account: Arc<Account>,
    field: String,
    kept: CachedSecret,
}

/// The account, and the path of its login.
#[derive(Debug)]
struct Account {
    login_path: String,
    username: String,
    password: Secret,
}

impl LoginSession {
    /// Makes a login at `login_path`; the id goes into the body's `field`.
    pub fn new(login_path: String, username: String, password: Secret, field: String) -> Self {
        LoginSession {
            account: Arc::new(Account { login_path, username, password }),
            field,
            kept: CachedSecret::default(),
        }
    }

    /// The body field that takes the id.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Returns the session's id and its epoch; logs in if there is no session.
    ///
    /// # Errors
    /// The error of the login's call, by whose fault it is.
    pub async fn id(&self, endpoint: &HttpEndpoint) -> Result<(Secret, u64), SourceError> {
        let login = || {
            let (account, endpoint) = (self.account.clone(), endpoint.clone());
            async move { Ok((account.login(&endpoint).await?, None)) }
        };
        self.kept.get(endpoint.base(), login).await
    }

    /// Drops the session of this epoch; a newer one stays.
    pub fn drop_id(&self, epoch: u64) {
        self.kept.forget(epoch);
    }
}

impl Account {
    async fn login(&self, endpoint: &HttpEndpoint) -> Result<Secret, SourceError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = serde_json::json!({ "username": self.username, "password": self.password.reveal() });
        let answer = endpoint.send(Method::POST, &self.login_path, headers, Bytes::from(body.to_string())).await?;
        if let Some(error) = status_error(answer.status, &answer.headers) {
            return Err(error);
        }
        let answer =
            json::parse(&answer.body).map_err(|_| SourceError::protocol("the login's response is not JSON"))?;
        match answer.get("session").and_then(scalar_text) {
            Some(id) if !id.trim().is_empty() => Ok(Secret::new(id.trim())),
            _ => Err(GatewayFault::CredentialsRefused("login".into()).into()),
        }
    }
}
