//! A province and ten times its size: the gateway with 100,000 clients of 10 grants each. Start time, memory, cost of a
//! decision, time until a change takes effect, tokens at `/oauth2/token`, and full handshakes with client certificate and
//! revocation list. `cargo bench --bench province`; other servers' handshakes in the same rounds: `-- NAME=ADDRESS=PID …`
//! (with the certificates of `--pki DIR`). Figures in docs/performance.md.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use ndxp_gateway::access::limits::GrantLimits;
use ndxp_gateway::access::token::TokenChecker;
use ndxp_gateway::access::{CallMetadata, decide};
use ndxp_gateway::config::Config;
use ndxp_gateway::contract::{ContractSet, Operation};
use ndxp_gateway::identity::{Certificate, Peer, Thumbprint, tls};
use ndxp_gateway::issuer::{IssueRequest, Issuer, KeyAlgorithm};
use ndxp_gateway::pki::{CertificateRole, client_uri};
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::registry::{Snapshot, Store, now};
use ndxp_gateway::sandbox::folder::DevFolder;
use rustls::crypto::aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[path = "filled/registry.rs"]
mod filled;
use filled::{GRANTS, fill};

const HANDSHAKES: usize = 1_500;
const ISSUING: Duration = Duration::from_secs(5);
const SYSTEM: &str = "client-000000";

/// CPU time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = after[11].parse::<u64>().unwrap() + after[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn rss_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn decisions(store: &SqliteStore, config: &Config, clients: usize) {
    let began = Instant::now();
    let snapshot = Snapshot::read(store).unwrap();
    println!("  registry read and put together in this process: {:?}", began.elapsed());
    let contracts = ContractSet::embedded().unwrap();
    let operations = contracts.operations();
    let issuer = Issuer::new(store, config.issuer_settings());
    let signer = issuer.signer(snapshot.signing(now()).unwrap()).unwrap();
    let tokens = TokenChecker::new(&config.tokens.issuer, &config.tokens.audience, 30);
    let limits = GrantLimits::default();
    let calls: Vec<_> = (0..1_000)
        .map(|number| {
            let id = format!("client-{:06}", number * 7_919 % clients);
            let thumbprint = Thumbprint::of(id.as_bytes());
            let view = snapshot.client(&id).unwrap();
            let lifetime = Duration::from_secs(3_600);
            let request = IssueRequest { scopes: vec![], certificate: thumbprint, lifetime, starts_in: Duration::ZERO };
            let token = issuer.sign(&signer, &issuer.prepare(view, request).unwrap()).unwrap();
            let mut headers = http::HeaderMap::new();
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
            headers.insert("ndxp-purpose", http::HeaderValue::from_static("1.004222"));
            headers.insert("ndxp-official", http::HeaderValue::from_static("022080990129"));
            let scope = &view.grants[number % GRANTS].scopes[0];
            let operation = *operations.iter().find(|operation| operation.scope == *scope).unwrap();
            let (x5t, names) = (thumbprint.base64url(), vec![client_uri(&id)]);
            let (chain, key, ends) = (vec![], [0; 32], vec![i64::MAX]);
            let certificate = Arc::new(Certificate { chain, thumbprint, key, x5t, names, ends });
            let address = "10.20.30.40:1".parse().unwrap();
            (Peer { certificate, address }, headers, operation)
        })
        .collect();
    let decision = |(peer, headers, operation): &(Peer, http::HeaderMap, &Arc<Operation>)| {
        let at = now();
        let client = peer.identify(&snapshot).unwrap();
        let token = tokens.authenticate(headers, peer, &client, &snapshot, at).unwrap();
        let said = CallMetadata::read(headers).unwrap();
        let grant = decide(operation, &client, &token.scopes, &said, peer.address.ip(), at).unwrap();
        limits.take(&grant, Instant::now(), at).unwrap()
    };
    calls.iter().for_each(|call| assert!(decision(call).rate > 0));
    let mut rounds: Vec<Duration> = (0..50)
        .map(|_| {
            let began = Instant::now();
            calls.iter().for_each(|call| assert!(std::hint::black_box(decision(call)).rate > 0));
            began.elapsed() / calls.len() as u32
        })
        .collect();
    rounds.sort();
    println!("  decision (identity, token kept, purpose, grant, rate): median {:?}, best {:?}", rounds[25], rounds[0]);
    store.suspend_client(SYSTEM, true).unwrap();
    let began = Instant::now();
    let next = snapshot.follow(store).unwrap().unwrap();
    println!("  a change is followed in {:?}", began.elapsed());
    assert!(next.client(SYSTEM).unwrap().client.suspended);
    store.suspend_client(SYSTEM, false).unwrap();
}

/// The gateway's own binary, on one core if `taskset` exists.
fn serve(folder: &DevFolder) -> (Child, Duration, String) {
    let began = Instant::now();
    let mut child = Command::new("taskset")
        .args(["-c", "0", env!("CARGO_BIN_EXE_ndxp-gateway"), "serve", "--config"])
        .arg(folder.gateway_config())
        .env("NDXP_LOG", "error")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, began.elapsed(), line)
}

fn address(line: &str, before: &str) -> SocketAddr {
    let rest = line.split_once(before).unwrap_or_else(|| panic!("{line}")).1;
    let end = rest.find([',', ' ', '\n']).unwrap_or(rest.len());
    rest[..end].parse().unwrap()
}

fn client_tls(pki: &Path, hybrid: bool, alpn: &[u8]) -> rustls::ClientConfig {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = if hybrid { vec![X25519MLKEM768] } else { vec![X25519] };
    let file = |name: &str| pki.join(name);
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(tls::roots(&file("ca.pem")).unwrap())
        .with_client_auth_cert(
            tls::certificates(&file(&format!("{SYSTEM}.pem"))).unwrap(),
            tls::private_key(&file(&format!("{SYSTEM}.key"))).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// CPU microseconds of the server per full handshake: sequential, each connection closed at once. An error if the server
/// does not have the key exchange.
fn handshakes(config: rustls::ClientConfig, to: SocketAddr, pid: u32) -> String {
    let config = Arc::new(config);
    let before = cpu(pid);
    for _ in 0..HANDSHAKES {
        let mut socket = std::net::TcpStream::connect(to).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut connection = rustls::ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
        while connection.is_handshaking() {
            match connection.complete_io(&mut socket) {
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return "(not offered)".into(),
                other => drop(other.unwrap()),
            }
        }
        // Until the server has answered the preface (RFC 9113, section 3.4), it may not have checked our certificate yet.
        connection.writer().write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        while connection.process_new_packets().unwrap().plaintext_bytes_to_read() == 0 {
            connection.complete_io(&mut socket).unwrap();
        }
        connection.send_close_notify();
        let _ = connection.complete_io(&mut socket);
    }
    std::thread::sleep(Duration::from_millis(200));
    format!("{:.0} CPU us", (cpu(pid) - before).as_secs_f64() * 1e6 / HANDSHAKES as f64)
}

async fn issue_on(config: Arc<rustls::ClientConfig>, to: SocketAddr, until: Instant) -> u64 {
    let connector = tokio_rustls::TlsConnector::from(config);
    let socket = tokio::net::TcpStream::connect(to).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let stream = connector.connect("localhost".try_into().unwrap(), socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut count = 0;
    while Instant::now() < until {
        let request = http::Request::post("/oauth2/token")
            .header("host", "localhost")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from_static(b"grant_type=client_credentials")))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        answer.into_body().collect().await.unwrap();
        count += 1;
    }
    count
}

fn issuing(pki: &Path, to: SocketAddr, pid: u32) {
    let config = Arc::new(client_tls(pki, true, b"http/1.1"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (before, began) = (cpu(pid), Instant::now());
    let until = began + ISSUING;
    let all = runtime.block_on(async {
        futures_util::future::join_all((0..64).map(|_| tokio::spawn(issue_on(config.clone(), to, until)))).await
    });
    let count: u64 = all.into_iter().map(|one| one.unwrap()).sum();
    let (rate, each) =
        (count as f64 / began.elapsed().as_secs_f64(), (cpu(pid) - before).as_secs_f64() * 1e6 / count as f64);
    println!("  /oauth2/token, 64 keep-alive connections, one core: {rate:.0} a second, {each:.0} CPU us each");
}

fn main() {
    // `cargo bench` passes --bench; `cargo test --benches` does not, and measures nothing.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|one| one == "--bench") {
        return;
    }
    for clients in [10, 100_000] {
        println!("{clients} clients with {GRANTS} grants each");
        let dir = tempfile::tempdir().unwrap();
        let folder = DevFolder::with_free_ports(&dir.path().join("dev")).unwrap();
        let text = std::fs::read_to_string(folder.gateway_config()).unwrap();
        // One client fetches as fast as it can.
        let text = text.replace("audience = ", "fetches_per_s = 100000\naudience = ");
        std::fs::write(folder.gateway_config(), text).unwrap();
        folder.pki().issue(SYSTEM, &CertificateRole::Client(SYSTEM.into()), 30).unwrap();
        let config = Config::load(&folder.gateway_config()).unwrap_or_else(|faults| panic!("{faults:?}"));
        let store = fill(&config.data, clients);
        Issuer::new(&store, config.issuer_settings()).rotate(KeyAlgorithm::Es256).unwrap();
        decisions(&store, &config, clients);
        let (mut child, took, line) = serve(&folder);
        let pid = child.id();
        println!("  the gateway accepts calls after {took:?}, with {} MB resident", rss_mb(pid));
        let (grpc, https) = (address(&line, "gRPC on "), address(&line, "HTTPS on https://"));
        let pki = folder.path.join("pki");
        issuing(&pki, https, pid);
        let mut peers = vec![("gateway".to_owned(), grpc, pid, pki.clone())];
        let other_pki = arguments.iter().position(|one| one == "--pki").map(|at| arguments[at + 1].clone());
        for peer in arguments.iter().filter(|one| one.contains('=')) {
            let parts: Vec<&str> = peer.split('=').collect();
            let at = Path::new(other_pki.as_deref().expect("--pki DIR")).to_owned();
            peers.push((parts[0].to_owned(), parts[1].parse().unwrap(), parts[2].parse().unwrap(), at));
        }
        for round in 1..=3 {
            for (name, to, pid, pki) in &peers {
                let plain = handshakes(client_tls(pki, false, b"h2"), *to, *pid);
                let hybrid = handshakes(client_tls(pki, true, b"h2"), *to, *pid);
                println!("  round {round}, {name}: a handshake {plain} with X25519, {hybrid} with X25519MLKEM768");
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
