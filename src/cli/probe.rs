//! `probe`: whether the gateway of this machine is alive, or ready, for supervisors that run a command (containers, Kubernetes, balancers'
//! agents): one request to its HTTP of health and metrics.

use super::output::Output;
use super::{CliError, ConfigFile};
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest text that is shown of the reply: the reasons why it is not ready.
const MAX_TEXT: usize = 16 << 10;

#[derive(Args)]
pub struct ProbeArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Where it serves health and metrics; `listen.operator_http` of the configuration by default.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<SocketAddr>,
    /// Succeed only if it is ready for calls (`/readyz`), not as soon as it is alive (`/healthz`).
    #[arg(long)]
    ready: bool,
    /// Longest time that the probe takes.
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = super::output::duration)]
    timeout: Duration,
}

/// The status and the text of one GET.
async fn get(to: SocketAddr, path: &str) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", to.to_string()).header("connection", "close");
    let (head, body) = sender.send_request(request.body(Empty::<Bytes>::new())?).await?.into_parts();
    let text = Limited::new(body, MAX_TEXT).collect().await?.to_bytes();
    Ok((head.status, String::from_utf8_lossy(&text).trim().to_owned()))
}

/// Fails with what the gateway says, or with why it says nothing.
pub fn run(args: &ProbeArgs, output: Output) -> Result<(), CliError> {
    let to = match args.to {
        Some(to) => to,
        None => args.config.load()?.listen.operator_http.ok_or_else(|| {
            let remedy = "set listen.operator_http, or say where: --to ADDRESS";
            CliError::Usage(format!("{}: it serves no health: {remedy}", args.config.config.display()))
        })?,
    };
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let probed = super::runtime()?.block_on(async { tokio::time::timeout(args.timeout, get(to, path)).await });
    let failed = |why: String| CliError::Failed(format!("http://{to}{path}: {why}"));
    let (status, text) = match probed {
        Ok(Ok(probed)) => probed,
        Ok(Err(error)) => return Err(failed(format!("{error}: does the gateway run? (`doctor` says more)"))),
        Err(_) => return Err(failed(format!("no reply within {:?}", args.timeout))),
    };
    if status != StatusCode::OK {
        return Err(failed(format!("{}: {text}", status.as_u16())));
    }
    output.result(&json!({ "status": status.as_u16(), "text": text }), || text.clone())
}
