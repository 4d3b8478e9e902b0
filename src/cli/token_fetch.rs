//! `token fetch`: a client's own token from the gateway's token endpoint: OAuth 2.0 client credentials over mutual TLS (RFC 6749, section
//! 4.4; RFC 8705), once or for as long as it is needed.

use super::output::{Output, time, timestamp};
use super::session::check_url;
use super::{CliError, runtime};
use crate::caller::CallerFiles;
use crate::drivers::http::HttpEndpoint;
use crate::drivers::{HubFault, SourceError};
use crate::identity::tls;
use crate::keyfile::write_private;
use crate::registry::now;
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The token endpoint's path.
const PATH: &str = "/oauth2/token";
/// Longest wait for its response.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest response, in bytes.
const MAX_RESPONSE: usize = 64 << 10;
/// Longest pause after a failure.
const MAX_PAUSE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct FetchToken {
    /// The gateway's HTTPS port, https://HOST:PORT.
    #[arg(long, value_name = "URL", value_parser = check_url)]
    from: String,
    /// Scopes to carry; by default all that are granted.
    #[arg(long = "scope")]
    scopes: Vec<String>,
    /// File for the token (readable only by its owner), replaced in one step; printed by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Stay until Ctrl-C, and put a new token into the file when two thirds of its lifetime are over.
    #[arg(long, requires = "out")]
    keep: bool,
}

/// The endpoint's response (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct Fetched {
    access_token: String,
    expires_in: u64,
    #[serde(default)]
    scope: String,
}

/// An error response (RFC 6749, section 5.2).
#[derive(Deserialize)]
struct Refused {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// Why there is no token.
enum FetchError {
    /// The endpoint refuses: trying again changes nothing.
    Refused(CliError),
    /// No connection, no response, or a failure of the gateway's.
    Failed(CliError),
}

impl From<FetchError> for CliError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Refused(error) | FetchError::Failed(error) => error,
        }
    }
}

pub fn run(args: &FetchToken, files: &CallerFiles, output: Output) -> Result<(), CliError> {
    let config = tls::client_config(&files.ca, Some((&files.certificate, &files.key)), &[])
        .map_err(|fault| CliError::Usage(fault.to_string()))?;
    let endpoint = HttpEndpoint::new(&args.from, config, MAX_RESPONSE);
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .extend_pairs((!args.scopes.is_empty()).then(|| ("scope", args.scopes.join(" "))))
        .finish();
    runtime()?.block_on(async {
        let fetched = fetch(&endpoint, &body).await?;
        let Some(file) = &args.out else {
            let (token, expires_in, scope) = (&fetched.access_token, fetched.expires_in, &fetched.scope);
            let value = json!({ "token": token, "expires_in": expires_in, "scope": scope });
            return output.result(&value, || fetched.access_token.clone());
        };
        keep(file, &fetched, output)?;
        if !args.keep {
            return Ok(());
        }
        tokio::select! {
            ended = super::serve::ended() => ended,
            failed = renew(&endpoint, &body, file, fetched, output) => failed,
        }
    })
}

/// A failure of the connection, in words about a gateway: the endpoint's own are about sources.
fn explained(error: &SourceError) -> String {
    match error {
        SourceError::Hub(HubFault::Unreachable(reason)) => {
            format!(
                "the gateway cannot be reached: {reason}\n  does it run, and is this the address of its HTTPS port?"
            )
        }
        SourceError::Hub(HubFault::Broken(reason)) => format!("the connection to the gateway failed: {reason}"),
        other => other.to_string(),
    }
}

/// Writes a token to its file.
fn keep(file: &Path, fetched: &Fetched, output: Output) -> Result<(), CliError> {
    write_private(file, fetched.access_token.as_bytes())
        .map_err(|error| CliError::Failed(format!("{}: {error}", file.display())))?;
    let expires = now() + i64::try_from(fetched.expires_in).unwrap_or(i64::MAX / 2);
    let value = json!({ "file": file, "expires": timestamp(expires), "scope": fetched.scope });
    output.result(&value, || format!("a token until {} is in {}", time(expires), file.display()))
}

/// Renews the token until the endpoint refuses. While it fails, the present token stays in its file, and each try waits twice as long.
async fn renew(
    endpoint: &HttpEndpoint,
    body: &str,
    file: &Path,
    mut fetched: Fetched,
    output: Output,
) -> Result<(), CliError> {
    loop {
        tokio::time::sleep(Duration::from_secs(fetched.expires_in * 2 / 3).max(Duration::from_secs(1))).await;
        let mut pause = Duration::from_secs(1);
        fetched = loop {
            match fetch(endpoint, body).await {
                Ok(fetched) => break fetched,
                Err(FetchError::Refused(error)) => return Err(error),
                Err(FetchError::Failed(error)) => {
                    anstream::eprintln!("{error}; the next try is in {} s", pause.as_secs());
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(MAX_PAUSE);
                }
            }
        };
        keep(file, &fetched, output)?;
    }
}

async fn fetch(endpoint: &HttpEndpoint, body: &str) -> Result<Fetched, FetchError> {
    let failed = |reason: String| FetchError::Failed(CliError::Unreachable(format!("{}: {reason}", endpoint.base())));
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
    let sent = endpoint.send(Method::POST, PATH, headers, Bytes::from(body.to_owned()));
    let response = tokio::time::timeout(PATIENCE, sent).await;
    let response = response.map_err(|_| failed(format!("no response within {} s", PATIENCE.as_secs())))?;
    let response = response.map_err(|error| failed(explained(&error)))?;
    if response.status.is_success() {
        return serde_json::from_slice(&response.body).map_err(|_| failed("the response is no token".to_owned()));
    }
    let refused = match serde_json::from_slice(&response.body) {
        Ok(Refused { error, error_description }) => format!("{error}: {error_description}"),
        Err(_) => format!("HTTP {}", response.status),
    };
    match response.status.is_client_error() && response.status != http::StatusCode::TOO_MANY_REQUESTS {
        true => Err(FetchError::Refused(CliError::Failed(refused))),
        false => Err(failed(refused)),
    }
}
