//! Connections that come by way of load balancers (PROXY protocol, version 2): their owners, and the peers for which they count.

use crate::support::{Actor, Stage, UNIT, files};
use ndxp_gateway::exchange_log::Kind;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A PROXY header (version 2) of TCP over IPv4 from this peer.
pub fn proxy_header(peer: [u8; 4], port: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(peer);
    header.extend([127, 0, 0, 1]);
    header.extend(port.to_be_bytes());
    header.extend(7_443u16.to_be_bytes());
    header
}

/// A connection from one of the machine's own addresses that starts with these bytes.
pub async fn from(own: &str, to: SocketAddr, begin: &[u8]) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{own}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    stream.write_all(begin).await.unwrap();
    stream
}

/// A call on a connection: status and exchange id, or `None` if the connection failed.
pub async fn call_on(stage: &Stage, actor: &Actor, id: &str, stream: TcpStream) -> Option<(String, String)> {
    let own = files(&stage.folder, id);
    let stream = crate::support::secured(stream, &own.ca, Some((&own.certificate, &own.key)), &[b"h2"]).await.ok()?;
    let (mut send, connection) = h2::client::handshake(stream).await.ok()?;
    tokio::spawn(connection);
    let request = http::Request::post(format!("https://localhost{UNIT}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("ndxp-purpose", crate::support::PURPOSE)
        .header("authorization", format!("Bearer {}", actor.token));
    let (answer, mut body) = send.send_request(request.body(()).unwrap(), false).ok()?;
    let message = actor.encode(UNIT, &json!({ "unitCode": "1057000" }));
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(&message);
    body.send_data(framed.into(), true).ok()?;
    let answer = answer.await.ok()?;
    let text = |headers: &http::HeaderMap, name: &str| {
        headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let (exchange, in_head) = (text(answer.headers(), "ndxp-exchange-id"), text(answer.headers(), "grpc-status"));
    let mut answer = answer.into_body();
    while let Some(data) = answer.data().await {
        let _ = answer.flow_control().release_capacity(data.ok()?.len());
    }
    let trailers = answer.trailers().await.ok()?.unwrap_or_default();
    Some((in_head + &text(&trailers, "grpc-status"), exchange))
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_behind_a_balancer_limits_networks_and_the_log_see_the_real_peer() {
    let stage = Stage::prepared(&|folder| {
        crate::support::edit(&folder.gateway_config(), |text| {
            text.replacen(
                "[listen]\n",
                "[listen]\nproxy_protocol_from = [\"127.0.0.2\"]\nmax_connections_per_peer = 3\n",
                1,
            )
        });
    });
    stage.client("shop");
    let network = ndxp_gateway::registry::Network::parse("10.20.0.0/16").unwrap();
    stage.grant("shop", &["*"], |grant| grant.networks = vec![network]);
    let shop = stage.actor("shop");
    let grpc = stage.gateway.as_ref().unwrap().address;
    let header = proxy_header([10, 20, 0, 7], 50_000);
    let (status, exchange) = call_on(&stage, &shop, "shop", from("127.0.0.2", grpc, &header).await).await.unwrap();
    assert_eq!(status, "0");
    assert_eq!(stage.entry(&exchange).entry.peer, "10.20.0.7:50000");
    // From another network, by the balancer's header, and directly: no grant; the log has the real peer.
    let other = from("127.0.0.2", grpc, &proxy_header([10, 21, 0, 7], 50_000)).await;
    let (status, exchange) = call_on(&stage, &shop, "shop", other).await.unwrap();
    assert_eq!((status.as_str(), stage.entry(&exchange).entry.peer.as_str()), ("7", "10.21.0.7:50000"));
    let (status, exchange) = call_on(&stage, &shop, "shop", from("127.0.0.1", grpc, b"").await).await.unwrap();
    assert!(status == "7" && stage.entry(&exchange).entry.peer.starts_with("127.0.0.1:"));
    // Required from the balancer, refused from others, and of version 2 alone.
    assert!(call_on(&stage, &shop, "shop", from("127.0.0.2", grpc, b"").await).await.is_none());
    assert!(call_on(&stage, &shop, "shop", from("127.0.0.1", grpc, &header).await).await.is_none());
    let first = b"PROXY TCP4 10.20.0.7 127.0.0.1 50000 7443\r\n";
    assert!(call_on(&stage, &shop, "shop", from("127.0.0.2", grpc, first).await).await.is_none());
    // Connections are bounded by real peer: three of one, and another's are accepted.
    let mut open = Vec::new();
    for _ in 0..3 {
        let own = files(&stage.folder, "shop");
        let stream = from("127.0.0.2", grpc, &proxy_header([10, 20, 9, 9], 50_000)).await;
        open.push(
            crate::support::secured(stream, &own.ca, Some((&own.certificate, &own.key)), &[b"h2"]).await.unwrap(),
        );
    }
    let fourth = from("127.0.0.2", grpc, &proxy_header([10, 20, 9, 9], 50_000)).await;
    assert!(call_on(&stage, &shop, "shop", fourth).await.is_none());
    let header = proxy_header([10, 20, 9, 8], 50_000);
    assert!(call_on(&stage, &shop, "shop", from("127.0.0.2", grpc, &header).await).await.is_some());
    // The HTTPS port as well.
    let https = stage.gateway.as_ref().unwrap().https.unwrap();
    for (begin, answered) in [(header.as_slice(), true), (b"", false)] {
        let own = files(&stage.folder, "shop");
        let stream = from("127.0.0.2", https, begin).await;
        let stream = crate::support::secured(stream, &own.ca, Some((&own.certificate, &own.key)), &[b"http/1.1"]).await;
        assert_eq!(stream.is_ok(), answered);
    }
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_probes_are_counted_and_not_logged() {
    let stage = Stage::prepared(&|folder| {
        crate::support::edit(&folder.gateway_config(), |text| {
            text.replacen("[listen]\n", "[listen]\nproxy_protocol_from = [\"127.0.0.2\"]\n", 1)
        });
    });
    let grpc = stage.gateway.as_ref().unwrap().address;
    let https = stage.gateway.as_ref().unwrap().https.unwrap();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for _ in 0..20 {
        drop(from("127.0.0.1", grpc, b"").await);
        drop(from("127.0.0.2", grpc, local).await);
        drop(from("127.0.0.1", https, b"").await);
    }
    let probes = || {
        let text = crate::support::ops_text(&stage, "/metrics");
        let line = text.lines().find(|line| line.starts_with("ndxp_probes_total ")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    crate::support::until("all probes counted", || probes() == 60);
    assert!(!stage.entries().iter().any(|one| one.entry.kind() == Kind::Connection), "a probe is in the log");
    crate::support::until("the disk looked at", || {
        let text = crate::support::ops_text(&stage, "/metrics");
        text.contains("ndxp_disk_days_remaining 3650") && !text.contains("ndxp_disk_free_bytes 0\n")
    });
    assert!(crate::support::ops_text(&stage, "/readyz").contains("200 OK"));
}

/// Behind two balancers, with few connections per peer and short timeouts.
fn balanced() -> Stage {
    Stage::prepared(&|folder| {
        crate::support::edit(&folder.gateway_config(), |text| {
            let keys = "proxy_protocol_from = [\"127.0.0.2\", \"127.0.0.3\"]\nmax_connections_per_peer = 3\n\
                        handshake_timeout_ms = 5000\n";
            text.replacen("[listen]\n", &format!("[listen]\n{keys}"), 1)
        });
    })
}

/// Whether the gateway sends anything, or closes the connection, before the peer has sent any TLS bytes.
async fn is_turned_away(stream: &mut TcpStream, within: u64) -> bool {
    tokio::time::timeout(Duration::from_millis(within), stream.read(&mut [0; 16])).await.is_ok()
}

fn refused(stage: &Stage, cause: &str) -> u64 {
    let text = crate::support::ops_text(stage, "/metrics");
    let line = format!("ndxp_handshakes_refused_total{{cause=\"{cause}\"}} ");
    text.lines().find_map(|one| one.strip_prefix(&line)).map_or(0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_silent_connections_behind_a_balancer_count_for_the_real_peer() {
    let stage = balanced();
    let gateway = stage.gateway.as_ref().unwrap();
    let (grpc, https) = (gateway.address, gateway.https.unwrap());
    let (silent, other) = (proxy_header([10, 20, 9, 9], 50_000), proxy_header([10, 20, 9, 8], 50_000));
    for port in [grpc, https] {
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut stream = from("127.0.0.2", port, &silent).await;
            assert!(!is_turned_away(&mut stream, 100).await, "it may wait");
            held.push(stream);
        }
        let before = refused(&stage, "too_many");
        // By way of another balancer, too.
        for balancer in ["127.0.0.2", "127.0.0.3"] {
            assert!(is_turned_away(&mut from(balancer, port, &silent).await, 2_000).await, "a fourth one");
        }
        assert!(!is_turned_away(&mut from("127.0.0.2", port, &other).await, 100).await, "another peer's");
        assert_eq!(refused(&stage, "too_many"), before + 2);
        // Their end makes room.
        drop(held);
        let mut again = from("127.0.0.2", port, &silent).await;
        let began = std::time::Instant::now();
        while is_turned_away(&mut again, 100).await {
            assert!(began.elapsed() < Duration::from_secs(3), "their places do not come back");
            again = from("127.0.0.2", port, &silent).await;
        }
    }
    // A timeout is reported with its real peer.
    let mut stream = from("127.0.0.2", grpc, &proxy_header([10, 20, 7, 7], 50_000)).await;
    assert!(is_turned_away(&mut stream, 8_000).await);
    let by =
        |peer: &str, cause: &str| stage.entries().iter().any(|one| one.entry.peer == peer && one.entry.cause == cause);
    // Nobody waits for such entries.
    crate::support::until("entries of the real peers", || {
        by("10.20.7.7:50000", "timeout") && by("10.20.9.9:50000", "too_many")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_half_a_header_counts_for_its_balancer_and_blocks_nobody_else() {
    let stage = balanced();
    let shop = stage.system("shop");
    let grpc = stage.gateway.as_ref().unwrap().address;
    let header = proxy_header([10, 20, 0, 7], 50_000);
    let mut held = Vec::new();
    // The maximum of a balancer's connections without a complete header.
    for _ in 0..64 {
        held.push(from("127.0.0.2", grpc, &header[..20]).await);
    }
    assert!(!is_turned_away(held.last_mut().unwrap(), 100).await);
    assert!(is_turned_away(&mut from("127.0.0.2", grpc, &header[..20]).await, 2_000).await, "one too many");
    // By way of another balancer, and directly.
    let other = from("127.0.0.3", grpc, &header).await;
    assert_eq!(call_on(&stage, &shop, "shop", other).await.unwrap().0, "0");
    assert_eq!(call_on(&stage, &shop, "shop", from("127.0.0.1", grpc, b"").await).await.unwrap().0, "0");
    // Completed ones are served, and make room for others.
    let mut newest = held.pop().unwrap();
    newest.write_all(&header[20..]).await.unwrap();
    assert_eq!(call_on(&stage, &shop, "shop", newest).await.unwrap().0, "0");
    // The others time out, and the balancer is named.
    assert!(is_turned_away(held.last_mut().unwrap(), 8_000).await);
    crate::support::until("all of them over", || refused(&stage, "timeout") == 63);
    crate::support::until("their entries", || stage.entries().iter().any(|one| one.entry.cause == "timeout"));
    let timeouts = stage.entries().into_iter().filter(|one| one.entry.cause == "timeout");
    assert!(timeouts.into_iter().all(|one| one.entry.peer.starts_with("127.0.0.2:")));
    let again = from("127.0.0.2", grpc, &header).await;
    assert_eq!(call_on(&stage, &shop, "shop", again).await.unwrap().0, "0");
}
