//! Where the members are and how connections to them are made: TCP, and TLS with this gateway's certificate.
//!
//! A connection counts as made when the member has accepted the certificate. With TLS 1.3 a client's handshake ends before
//! the server has looked at its certificate, so the refusal would otherwise arrive in place of a response, and nobody could
//! say whether the request was carried out.

use super::super::ClusterError;
use super::EtcdChannel;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ProtocolVersion;
use rustls_pki_types::ServerName;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Uri;
use tower::ServiceExt;

/// How long a connection may take: the name, TCP and TLS.
const CONNECT: Duration = Duration::from_secs(1);
/// How long is waited for the first that a member sends after its handshake. etcd sends session tickets at once; who sends
/// nothing is given the requests then, as without this wait.
const ACCEPTED_WITHIN: Duration = Duration::from_millis(300);

/// The members of a cluster, the own data centre's first, and TLS towards them.
#[derive(Debug, Clone)]
pub struct EtcdAccess {
    members: Vec<Arc<MemberAddress>>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// The address of a member, and why it cannot be reached.
#[derive(Debug)]
pub(super) struct MemberAddress {
    pub(super) uri: Uri,
    /// Of the last attempt to connect, if it has failed.
    fault: Mutex<Option<String>>,
}

impl EtcdAccess {
    /// Members by their URLs: `https://host:port` with TLS (its ALPN is `h2`), `http://host:port` without.
    ///
    /// # Errors
    /// [`ClusterError::Malformed`] if a URL is not of this form, or needs TLS and there is none, or the reverse.
    pub fn new(urls: &[String], tls: Option<rustls::ClientConfig>) -> Result<Self, ClusterError> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = |url: &String| match url.parse::<Uri>() {
            Ok(uri) if uri.scheme_str() == Some(scheme) && uri.host().is_some() => {
                Ok(Arc::new(MemberAddress { uri, fault: Mutex::new(None) }))
            }
            _ => Err(ClusterError::malformed(url, format!("the address of a member must be {scheme}://host:port"))),
        };
        Ok(EtcdAccess { members: urls.iter().map(address).collect::<Result<_, _>>()?, tls: tls.map(Arc::new) })
    }

    /// A connection to each member, made at its first request. Called within a runtime.
    pub fn channels(&self) -> Vec<EtcdChannel> {
        self.members.iter().map(|member| EtcdChannel::new(member.clone(), self.tls.clone())).collect()
    }

    /// Why members cannot be reached, each with its address; nothing of those whose last connection was made.
    pub fn faults(&self) -> Vec<String> {
        let fault = |member: &Arc<MemberAddress>| member.fault().as_ref().map(|why| format!("{}: {why}", member.uri));
        self.members.iter().filter_map(fault).collect()
    }

    /// Why each member cannot be reached, in their order; `None` where the last connection was made.
    pub fn member_faults(&self) -> Vec<Option<String>> {
        self.members.iter().map(|member| member.fault().clone()).collect()
    }
}

impl MemberAddress {
    /// Connects to the member.
    ///
    /// # Errors
    /// The reason, which is also said in the program's own log when it is another one than before.
    pub(super) async fn connect(&self, tls: Option<Arc<rustls::ClientConfig>>) -> io::Result<TokioIo<Connection>> {
        let made = match tokio::time::timeout(CONNECT, open(&self.uri, tls)).await {
            Ok(made) => made,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection within a second")),
        };
        self.note(made.as_ref().err().map(reasons));
        made.map(TokioIo::new)
    }

    fn note(&self, fault: Option<String>) {
        let mut known = self.fault();
        match (&*known, &fault) {
            (before, Some(why)) if before.as_ref() != Some(why) => {
                tracing::warn!(member = %self.uri, reason = why, "no connection to a member of etcd");
            }
            (Some(_), None) => tracing::info!(member = %self.uri, "connected to this member of etcd again"),
            _ => {}
        }
        *known = fault;
    }

    fn fault(&self) -> MutexGuard<'_, Option<String>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What HTTP needs of a connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A connection with or without TLS.
pub(super) type Connection = Box<dyn Duplex>;

async fn open(uri: &Uri, tls: Option<Arc<rustls::ClientConfig>>) -> io::Result<Connection> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let tcp = connector.oneshot(uri.clone()).await.map_err(io::Error::other)?.into_inner();
    let Some(tls) = tls else { return Ok(Box::new(tcp)) };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    accepted(TlsConnector::from(tls).connect(name, tcp).await?).await
}

/// Waits until the member has accepted the certificate: it sends something, or its refusal.
async fn accepted(stream: TlsStream<TcpStream>) -> io::Result<Connection> {
    let is_mutual = stream.get_ref().1.protocol_version() != Some(ProtocolVersion::TLSv1_3);
    let mut stream = BufReader::new(stream);
    if !is_mutual {
        let first = poll_fn(|context| {
            let polled = Pin::new(&mut stream).poll_fill_buf(context).map_ok(|bytes| !bytes.is_empty());
            let tickets = stream.get_ref().get_ref().1.tls13_tickets_received();
            if polled.is_pending() && tickets > 0 { Poll::Ready(Ok(true)) } else { polled }
        });
        match tokio::time::timeout(ACCEPTED_WITHIN, pin!(first)).await {
            Ok(Ok(false)) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closes the connection")),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(true)) | Err(_) => {}
        }
    }
    Ok(Box::new(stream))
}

/// An error with what it comes from.
fn reasons(error: &io::Error) -> String {
    let first: &(dyn Error + 'static) = error;
    let mut texts: Vec<String> =
        std::iter::successors(Some(first), |error| (*error).source()).map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}
