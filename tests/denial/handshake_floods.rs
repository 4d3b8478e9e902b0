//! Handshakes without end, and handshakes that stand still in their first message: bounded, and nobody else's trouble.

use super::balancers::{call_on, from, proxy_header};
use crate::support::{Actor, Stage, edit, files, ops_text, secured};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A stage with these keys in `[listen]`.
fn stage(keys: &str) -> (Stage, Actor, SocketAddr) {
    let stage = Stage::prepared(&|folder| {
        edit(&folder.gateway_config(), |text| text.replacen("[listen]\n", &format!("[listen]\n{keys}\n"), 1));
    });
    let shop = stage.system("shop");
    let grpc = stage.gateway.as_ref().unwrap().address;
    (stage, shop, grpc)
}

fn refused(stage: &Stage, cause: &str) -> i64 {
    let line = format!("ndxp_handshakes_refused_total{{cause=\"{cause}\"}} ");
    let metrics = ops_text(stage, "/metrics");
    metrics.lines().find_map(|text| text.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
}

/// Makes that many handshakes without a certificate; returns how many the gateway started. A refusal may be counted after its peer has
/// seen it: then it is missing here, and the next flood has one more.
async fn flood(stage: &Stage, own: &str, to: SocketAddr, begin: &[u8], count: i64) -> i64 {
    let before = refused(stage, "too_many_handshakes");
    let ca = files(&stage.folder, "shop").ca;
    for _ in 0..count {
        drop(secured(from(own, to, begin).await, &ca, None, &[b"h2"]).await);
    }
    count - (refused(stage, "too_many_handshakes") - before)
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_handshakes_of_one_peer_are_bounded_and_others_connect() {
    let (stage, shop, grpc) = stage("handshakes_per_peer_s = 1\nmax_connections_per_peer = 10");
    let began = Instant::now();
    let begun = flood(&stage, "127.0.0.2", grpc, b"", 60).await;
    let at_most = 11 + i64::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!((11..=at_most).contains(&begun), "{begun} of {at_most}");
    // Another peer connects at the same time; the flooding one cannot use the other port either.
    let (status, _) = call_on(&stage, &shop, "shop", from("127.0.0.3", grpc, b"").await).await.unwrap();
    assert_eq!(status, "0");
    let https = stage.gateway.as_ref().unwrap().https.unwrap();
    assert!(flood(&stage, "127.0.0.2", https, b"", 20).await < 15);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_behind_a_balancer_the_real_peer_is_bounded() {
    let keys = "proxy_protocol_from = [\"127.0.0.2\"]\nhandshakes_per_peer_s = 1\nmax_connections_per_peer = 10";
    let (stage, shop, grpc) = stage(keys);
    let one = proxy_header([10, 20, 0, 7], 50_000);
    assert!(flood(&stage, "127.0.0.2", grpc, &one, 60).await < 40);
    // One a second is still let in.
    let (began, mut let_in) = (Instant::now(), 0);
    for _ in 0..8 {
        let_in += u64::from(call_on(&stage, &shop, "shop", from("127.0.0.2", grpc, &one).await).await.is_some());
    }
    assert!(let_in <= 2 + began.elapsed().as_secs(), "{let_in} in {:?}", began.elapsed());
    let other = proxy_header([10, 20, 0, 8], 50_000);
    let (status, _) = call_on(&stage, &shop, "shop", from("127.0.0.2", grpc, &other).await).await.unwrap();
    assert_eq!(status, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_unknown_peers_from_many_networks_block_no_peer_with_a_known_certificate() {
    let keys = "proxy_protocol_from = [\"127.0.0.2\"]\nhandshakes_s = 1";
    let (stage, shop, grpc) = stage(keys);
    let known = proxy_header([10, 20, 0, 7], 50_000);
    // The stage's own connections were unknown, too.
    let deadline = Instant::now() + Duration::from_secs(20);
    while call_on(&stage, &shop, "shop", from("127.0.0.2", grpc, &known).await).await.is_none() {
        assert!(Instant::now() < deadline, "a stranger comes in where none floods");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut begun = 0;
    for network in 0..40 {
        begun += flood(&stage, "127.0.0.2", grpc, &proxy_header([10, 21, network, 1], 50_000), 1).await;
    }
    assert!(begun < 30, "{begun}");
    for _ in 0..5 {
        let (status, _) = call_on(&stage, &shop, "shop", from("127.0.0.2", grpc, &known).await).await.unwrap();
        assert_eq!(status, "0");
    }
}

/// The first message of a handshake, in one record.
fn hello(length: usize) -> Vec<u8> {
    let mut hello = vec![22, 3, 1];
    hello.extend(u16::try_from((length + 4).min(16_384)).unwrap().to_be_bytes());
    hello.push(1);
    hello.extend(&u32::try_from(length).unwrap().to_be_bytes()[1..]);
    hello
}

/// Waits until the gateway has closed a connection; returns the time.
async fn closed(mut stream: TcpStream) -> Duration {
    let began = Instant::now();
    let mut scratch = [0; 64];
    let ends = async { while matches!(stream.read(&mut scratch).await, Ok(1..)) {} };
    tokio::time::timeout(Duration::from_secs(30), ends).await.expect("it is closed");
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_half_a_client_hello_times_out_and_an_oversized_one_is_refused_at_once() {
    let (stage, shop, grpc) = stage("handshake_timeout_ms = 60000");
    let https = stage.gateway.as_ref().unwrap().https.unwrap();
    for to in [grpc, https] {
        let before = refused(&stage, "hello_too_large");
        // Detected by its header.
        let took = closed(from("127.0.0.2", to, &hello((16 << 10) + 1)).await).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(refused(&stage, "hello_too_large"), before + 1);
    }
    let mut half = hello(16_000);
    half.resize(12_000, 7);
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(from("127.0.0.2", grpc, &half).await);
    }
    // Others connect meanwhile.
    let (status, _) = call_on(&stage, &shop, "shop", from("127.0.0.3", grpc, b"").await).await.unwrap();
    assert_eq!(status, "0");
    futures_util::future::join_all(held.into_iter().map(closed)).await;
    assert_eq!(refused(&stage, "timeout"), 200, "long before the handshake's own time");
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_a_fragmented_client_hello_is_accepted() {
    let (stage, shop, grpc) = stage("");
    // Its pieces go through a relay, a few bytes at a time.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let gateway = TcpStream::connect(grpc).await.unwrap();
        gateway.set_nodelay(true).unwrap();
        let ((mut from_client, mut to_client), (mut from_gateway, mut to_gateway)) =
            (client.into_split(), gateway.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut from_gateway, &mut to_client).await });
        let mut piece = [0; 400];
        while let Ok(read @ 1..) = from_client.read(&mut piece).await {
            to_gateway.write_all(&piece[..read]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let (status, _) = call_on(&stage, &shop, "shop", TcpStream::connect(relay).await.unwrap()).await.unwrap();
    assert_eq!(status, "0");
}
