//! A source's connection: its addresses, its hub, its credentials.

use super::credentials::{Credentials, Proof};
use super::http::HttpEndpoint;
use super::{GatewayFault, SourceError};
use crate::contract::settings::{SentFlag, Settings};
use crate::http2::client::Keepalive;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// An X-Road identifier of a subsystem: instance, member class, member code, subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XRoadMember {
    /// Instance ("VN").
    pub instance: String,
    /// Member class ("GOV").
    pub class: String,
    /// Member code.
    pub member: String,
    /// Subsystem code.
    pub subsystem: String,
}

impl XRoadMember {
    /// Reads `VN/GOV/H49/GATEWAY`.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [instance, class, member, subsystem] = parts.as_slice() else { return None };
        let plain =
            |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        parts.iter().all(plain).then(|| XRoadMember {
            instance: (*instance).to_owned(),
            class: (*class).to_owned(),
            member: (*member).to_owned(),
            subsystem: (*subsystem).to_owned(),
        })
    }

    /// The form in `X-Road-OAuth2Client` and in REST paths.
    pub fn path(&self) -> String {
        format!("{}/{}/{}/{}", self.instance, self.class, self.member, self.subsystem)
    }
}

/// The X-Road side of a connection.
#[derive(Debug, Clone)]
pub struct XRoadIds {
    /// The gateway's own subsystem.
    pub client: XRoadMember,
    /// The subsystem that provides the services.
    pub service: XRoadMember,
    /// The acting user if the caller named none (`userId` is optional in the protocol).
    pub user: Option<String>,
    /// How the request hash of REST responses is treated.
    pub request_hash: RequestHash,
}

/// How the request hash of X-Road REST is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestHash {
    /// A response to a request other than ours is refused.
    #[default]
    Check,
    /// It is only recorded in the log: something between the gateway and its security server changes headers.
    Keep,
}

/// Where and how one source is reached. Rebuilt at each reload; calls in flight keep the one that they began with.
pub struct SourceConnection {
    /// The source's id.
    pub source: String,
    /// The hub's id; `None` if the source is reached directly.
    pub hub: Option<String>,
    /// The HTTP side (REST, SOAP, X-Road).
    pub endpoint: HttpEndpoint,
    /// The hub or source itself, without the entry's `path`: the origin of tokens and sessions.
    pub login: HttpEndpoint,
    /// Address for gRPC.
    pub address: String,
    /// Pings towards a gRPC source.
    pub keepalive: Keepalive,
    /// Number of open connections to a gRPC source.
    pub open: Arc<AtomicUsize>,
    /// TLS towards the source.
    pub tls: rustls::ClientConfig,
    /// Credentials: the source's own, or the hub's; one token of the hub serves all its sources.
    pub credentials: Arc<Credentials>,
    /// `[settings]` that the contract's fills name.
    pub settings: Settings,
    /// `[xroad]`.
    pub xroad: Option<XRoadIds>,
    /// Largest response in bytes.
    pub max_response: usize,
}

impl SourceConnection {
    /// Returns the proof for one request to `path` below the endpoint.
    async fn prove(&self, path: &str) -> Result<Proof, SourceError> {
        self.credentials.prove(&self.login, &self.endpoint, path).await.map_err(SourceError::of_login)
    }

    /// Sends a request with credentials, and once more if the source refuses them and newer ones are available.
    /// `prepare` builds the request and returns its path below the endpoint; `send` sends it to that path with the
    /// proof, and judges its response.
    ///
    /// # Errors
    /// Those of `prepare` and `send`, and of the token endpoint or login of the credentials.
    pub async fn authorized<R, T, F>(
        &self,
        sent: &SentFlag,
        prepare: impl Fn() -> Result<(String, R), SourceError>,
        send: impl Fn(String, R, Proof) -> F,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let mut renewed = false;
        loop {
            // A request that was refused because of its credentials was not processed.
            sent.withdraw();
            let (path, request) = prepare()?;
            let proof = self.prove(&path).await?;
            let epoch = proof.epoch();
            let result = send(path, request, proof).await;
            let refused = matches!(result, Err(SourceError::Gateway(GatewayFault::CredentialsRefused(_))));
            if !refused || std::mem::replace(&mut renewed, true) || !self.credentials.refused(epoch) {
                return result;
            }
        }
    }
}
