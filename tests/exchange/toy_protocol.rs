//! A protocol of the tests' own, as `docs/adding-a-protocol.md` says: one file, registered, serves calls of a real gateway with
//! mapping, credentials, guard and log.

use crate::support::{Actor, Stage, breaker, sandbox_acceptor, show};
use futures_util::future::BoxFuture;
use ndxp_gateway::config::Config;
use ndxp_gateway::contract::Binding;
use ndxp_gateway::contract::json;
use ndxp_gateway::contract::map::request::{Layout, write};
use ndxp_gateway::contract::settings::CallContext;
use ndxp_gateway::drivers::connection::SourceConnection;
use ndxp_gateway::drivers::credentials::Proof;
use ndxp_gateway::drivers::registry::{DuplicateProtocol, register};
use ndxp_gateway::drivers::{
    Call, CallerFault, CredentialLocation, Driver, GatewayFault, HubFault, Protocol, SourceError, SourceFault,
    SourceRequest, SourceResponse, evaluate, read_one,
};
use rustls::pki_types::ServerName;
use serde_json::{Value, json as value};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// Lines over TLS. A request is a line for each credential (`name: value`), then `VERB {…}`; the response is `CODE rest`.
const LINES: Protocol = Protocol {
    name: "lines",
    credentials: |_| &[CredentialLocation::Header],
    driver: |connection| Box::new(LinesDriver(connection)),
};

struct LinesDriver(Arc<SourceConnection>);

impl Driver for LinesDriver {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<SourceResponse, SourceError>> {
        let connection = self.0.clone();
        Box::pin(async move {
            let (SourceRequest::One { message, .. }, Binding::Other(binding)) = (call.request, &call.operation.binding)
            else {
                return Err(SourceError::internal("lines take one message"));
            };
            let (operation, context) = (&call.operation, &call.context);
            let verb = binding.options.get("verb").map_or("GET", String::as_str);
            let prepare = || {
                let wire = write(operation, &message, Layout::default(), context, &connection.settings)?;
                Ok((verb.to_owned(), Value::Object(wire.body)))
            };
            let send = |verb: String, body: Value, proof: Proof| {
                let connection = &connection;
                async move { evaluate(operation, exchange(connection, context, &verb, &body, &proof).await?, None) }
            };
            let judged = connection.authorized(&context.sent, prepare, send).await?;
            Ok(SourceResponse::One(read_one(operation, &judged, context)?))
        })
    }
}

/// Sends the lines of one request, and reads the response line.
async fn exchange(
    connection: &SourceConnection,
    context: &CallContext,
    verb: &str,
    body: &Value,
    proof: &Proof,
) -> Result<Value, SourceError> {
    let unreachable = |_| SourceError::from(HubFault::Unreachable("no connection"));
    let broken = |_| SourceError::broken("the connection was closed");
    let address: http::Uri = connection.address.parse().map_err(|_| SourceError::internal("its address is no URI"))?;
    let host = address.host().unwrap_or_default().to_owned();
    let tcp = TcpStream::connect((host.as_str(), address.port_u16().unwrap_or(443))).await.map_err(unreachable)?;
    let name = ServerName::try_from(host).map_err(|_| SourceError::internal("its address names no host"))?;
    let tls = TlsConnector::from(Arc::new(connection.tls.clone()));
    let mut stream = BufReader::new(tls.connect(name, tcp).await.map_err(unreachable)?);
    let mut lines = String::new();
    for (name, value) in &proof.headers {
        lines.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or_default()));
    }
    lines.push_str(&format!("{verb} {body}\n"));
    context.sent.mark();
    stream.write_all(lines.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let (mut line, limit) = (String::new(), connection.max_response);
    (&mut stream).take(limit as u64 + 1).read_line(&mut line).await.map_err(broken)?;
    if line.len() > limit {
        return Err(SourceError::unreadable("the response is larger than the limit"));
    }
    let (code, rest) = line.trim_end().split_once(' ').ok_or_else(|| SourceError::protocol("no code"))?;
    match code {
        "OK" => json::parse(rest.as_bytes()).map_err(|_| SourceError::protocol("the response is no JSON")),
        "NONE" => Err(CallerFault::NotFound(code.to_owned()).into()),
        "DENIED" => Err(GatewayFault::CredentialsRefused(code.to_owned()).into()),
        "BUSY" => {
            let retry_after = rest.parse().ok().map(Duration::from_secs);
            Err(SourceFault::Busy { code: code.to_owned(), retry_after }.into())
        }
        _ => Err(SourceError::protocol("an unknown code")),
    }
}

const CONTRACT: &str = r#"syntax = "proto3";
package ndxp.ledger.v1;
import "ndxp/contract/v1/contract.proto";
service LedgerService {
  option (ndxp.contract.v1.source) = {
    id: "ledger" name: "Ledger" name_vi: "Sổ cái" owner: "test"
    outcome: { code: "/result" success: "0" failure: { codes: ["7"] meaning: NOT_FOUND } absent_is_success: true }
  };
  rpc Get(Ask) returns (Account) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = {
      scope: "ledger:read" data_class: OPEN timeout_ms: 5000
      protocol: { name: "lines" options: { key: "verb" value: "FETCH" } }
      response_root: "account"
    };
  }
}
message Ask { string number = 1 [(ndxp.contract.v1.field) = { name: "soTaiKhoan" required: true }]; }
message Account { string owner = 1 [(ndxp.contract.v1.field) = { name: "chu" }]; }
"#;
const GET: &str = "/ndxp.ledger.v1.LedgerService/Get";

/// A source with a line protocol: its requests, and its next response.
#[derive(Default)]
struct Ledger {
    asked: Mutex<Vec<String>>,
    says: Mutex<String>,
    connections: AtomicUsize,
}

impl Ledger {
    async fn serve(self: Arc<Self>, listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor) {
        while let Ok((tcp, _)) = listener.accept().await {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let Ok(tls) = acceptor.accept(tcp).await else { continue };
            let mut stream = BufReader::new(tls);
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                let last = !line.contains(": ");
                self.asked.lock().unwrap().push(std::mem::take(&mut line).trim_end().to_owned());
                if last {
                    let says = self.says.lock().unwrap().clone();
                    let _ = stream.write_all(format!("{says}\n").as_bytes()).await;
                    let _ = stream.flush().await;
                    break;
                }
            }
        }
    }
}

fn speak_lines() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| register(LINES).unwrap());
}

/// A stage with the source `ledger`, whose entry ends with these lines.
async fn stage(rest: &str) -> (Stage, Arc<Ledger>, Actor) {
    speak_lines();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stage = Stage::prepared(&|folder| {
        let contracts = folder.path.join("contracts/ndxp/ledger/v1");
        std::fs::create_dir_all(&contracts).unwrap();
        std::fs::write(contracts.join("ledger.proto"), CONTRACT).unwrap();
        std::fs::write(folder.path.join("secrets/ledger"), "a key of some length").unwrap();
        let entry = format!(
            "source = \"ledger\"\naddress = \"https://localhost:{port}\"\nmax_response_bytes = 1024\n\
             [tls]\nca = \"../pki/ca.pem\"\ncertificate = \"../pki/to-sources.pem\"\nkey = \"../pki/to-sources.key\"\n\
             [credentials]\nkind = \"api-key\"\nheader = \"x-key\"\n\
             key = {{ file = \"../secrets/ledger\" }}\n{rest}\n"
        );
        std::fs::write(folder.path.join("sources/ledger.toml"), entry).unwrap();
    });
    let ledger = Arc::new(Ledger::default());
    tokio::spawn(ledger.clone().serve(listener, sandbox_acceptor(&stage.folder.path.join("pki"))));
    let actor = stage.system("one-stop-shop");
    (stage, ledger, actor)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_driver_serves_calls_with_mapping_credentials_outcomes_and_log() {
    let (stage, ledger, actor) = stage("").await;
    *ledger.says.lock().unwrap() = r#"OK {"result": 0, "account": {"chu": "Nguyễn Văn A"}}"#.into();
    let told = actor.call(GET, value!({ "number": "0451" })).await.ok();
    assert_eq!(told.messages[0], value!({ "owner": "Nguyễn Văn A" }));
    let asked = ledger.asked.lock().unwrap().clone();
    assert_eq!(asked, ["x-key: a key of some length", r#"FETCH {"soTaiKhoan":"0451"}"#]);
    let entry = stage.entry(&told.exchange()).entry;
    assert_eq!((entry.source.as_str(), entry.reason.as_str(), entry.fields), ("ledger", "", vec!["owner".to_owned()]));
    // An invalid request does not reach it.
    assert_eq!(actor.call(GET, value!({})).await.reason(), "FIELD_INVALID");
    assert_eq!(ledger.connections.load(Ordering::Relaxed), 1);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_has_its_fault_and_the_breaker_counts_only_the_source_s() {
    let (stage, ledger, actor) = stage("[guard]\nattempts = 1\nbreaker_window = 20").await;
    let long = format!(r#"OK {{"account": {{"chu": "{}"}}}}"#, "x".repeat(2_000));
    for (says, reason, fault) in [
        ("NONE -", "RECORD_NOT_FOUND", "caller"),
        (r#"OK {"result": 7}"#, "RECORD_NOT_FOUND", "caller"),
        ("DENIED -", "SOURCE_CREDENTIALS_REFUSED", "gateway"),
        (r#"OK {"result": 8}"#, "SOURCE_FAILED", "source"),
        (r#"OK {"result": 0}"#, "SOURCE_PROTOCOL_ERROR", "source"),
        (long.as_str(), "SOURCE_PROTOCOL_ERROR", "source"),
    ] {
        says.clone_into(&mut ledger.says.lock().unwrap());
        for _ in 0..3 {
            let told = actor.call(GET, value!({ "number": "1" })).await;
            let entry = stage.entry(&told.exchange()).entry;
            assert_eq!((told.reason().as_str(), entry.fault.as_str()), (reason, fault), "{says:.40}");
        }
    }
    assert_eq!(breaker(&stage, "ledger"), 0, "the source responds");
    "BUSY 7".clone_into(&mut ledger.says.lock().unwrap());
    let busy = actor.call(GET, value!({ "number": "1" })).await;
    assert_eq!(busy.reason(), "SOURCE_UNAVAILABLE");
    let mut reasons = Vec::new();
    for _ in 0..40 {
        reasons.push(actor.call(GET, value!({ "number": "1" })).await.reason());
    }
    assert_eq!(reasons.last().map(String::as_str), Some("SOURCE_CIRCUIT_OPEN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_credentials_and_protocols_are_refused_at_load_with_file_and_line() {
    let (stage, ..) = stage("").await;
    let refused = |file: &str, from: &str, to: &str| {
        let path = stage.folder.path.join(file);
        let before = std::fs::read_to_string(&path).unwrap();
        assert!(before.contains(from), "{before}");
        std::fs::write(&path, before.replace(from, to)).unwrap();
        let config = Config::load(&stage.folder.gateway_config()).map_err(show).unwrap();
        let faults = config.catalogue().err().map(show).unwrap_or_default();
        std::fs::write(&path, before).unwrap();
        faults
    };
    let kind = "kind = \"api-key\"\nheader = \"x-key\"\nkey =";
    let session = "kind = \"session\"\nlogin_path = \"/\"\nusername = \"u\"\nfield = \"s\"\npassword =";
    let faults = refused("sources/ledger.toml", kind, session);
    assert!(faults.contains("ledger.toml:8: ") && faults.contains("these credentials are never sent"), "{faults}");
    let contract = "contracts/ndxp/ledger/v1/ledger.proto";
    let faults = refused(contract, "name: \"lines\"", "name: \"columns\"");
    assert!(faults.contains("ledger.toml:1: ") && faults.contains("protocol \"columns\""), "{faults}");
    for wrong in ["Lines", "", "rest"] {
        let faults = refused(contract, "name: \"lines\"", &format!("name: \"{wrong}\""));
        assert!(faults.contains("ledger.proto:9: ") && faults.contains(&format!("protocol {wrong:?}")), "{faults}");
    }
    assert_eq!(refused(contract, "FETCH", "GET"), "");
}

#[test]
fn a_protocol_s_name_is_registered_once() {
    speak_lines();
    assert_eq!(register(LINES), Err(DuplicateProtocol("lines")));
    assert_eq!(register(Protocol { name: "rest", ..LINES }), Err(DuplicateProtocol("rest")));
}
