//! A hub with several endpoints: calls are spread over them, and an endpoint that disappears or hangs affects no caller.

use crate::support::{Actor, ENTERPRISE, Stage, edit, until};
use ndxp_gateway::sandbox::ports::Ports;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A relay to a hub's port, which can go down and come back.
struct Relay {
    port: Ports,
    address: SocketAddr,
    to: Option<SocketAddr>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Forwards everything; if `to` is `None`, accepts connections and sends nothing.
    async fn start(port: Ports, to: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port.iter().next().unwrap())).await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            let mut passing = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                passing.spawn(async move {
                    match to {
                        Some(to) => {
                            let mut onward = TcpStream::connect(to).await.unwrap();
                            let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
                        }
                        None => std::future::pending().await,
                    }
                    drop(stream);
                });
            }
        });
        Relay { port, address, to, connections, task }
    }

    /// The port refuses, and every connection ends.
    async fn stop(self) -> (Ports, Option<SocketAddr>) {
        self.task.abort();
        let _ = self.task.await;
        (self.port, self.to)
    }
}

/// The entry of the hub NDXP, and where the hub is.
fn hub_of(stage: &Stage) -> (PathBuf, SocketAddr) {
    let file = stage.folder.path.join("hubs/ndxp.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let hub = text.split("https://").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    (file, hub)
}

/// A stage with two relays to the hub NDXP, the second of which may hang; `guard` applies to the source.
async fn balanced(guard: &str, hangs: bool) -> (Stage, Relay, Relay) {
    let stage = Stage::start();
    let (file, hub) = hub_of(&stage);
    let one = Relay::start(Ports::take(1).unwrap(), Some(hub)).await;
    let other = Relay::start(Ports::take(1).unwrap(), (!hangs).then_some(hub)).await;
    let list = format!("[\"https://{}\", \"https://{}\"]", one.address, other.address);
    edit(&file, |text| text.replace(&format!("\"https://{hub}\""), &list));
    edit(&stage.folder.path.join("sources/business.toml"), |text| format!("{text}\n[guard]\n{guard}\n"));
    stage.gateway.as_ref().unwrap().reload().unwrap();
    (stage, one, other)
}

fn is_up(stage: &Stage, address: SocketAddr, up: bool) -> bool {
    let line = format!("ndxp_endpoint_up{{source=\"business\",address=\"https://{address}\"}} {}", u8::from(up));
    crate::support::ops_text(stage, "/metrics").contains(&line)
}

async fn calls(actor: &Actor, request: &Value, count: usize) {
    let all = (0..count).map(|_| async { actor.call(ENTERPRISE, request.clone()).await.ok() });
    futures_util::future::join_all(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_balanced_and_a_failed_endpoint_costs_no_read_and_returns() {
    let (stage, one, other) = balanced("retry_budget_percent = 100", false).await;
    let actor = stage.system("one-stop-shop");
    let request = json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code });
    calls(&actor, &request, 20).await;
    assert!(one.connections.load(Ordering::Relaxed) > 0 && other.connections.load(Ordering::Relaxed) > 0);
    assert!(is_up(&stage, one.address, true) && is_up(&stage, other.address, true));

    let address = other.address;
    let (port, hub) = other.stop().await;
    let began = Instant::now();
    while !is_up(&stage, address, false) {
        calls(&actor, &request, 4).await;
        assert!(began.elapsed() < Duration::from_secs(15));
    }
    // From then on it is not used.
    calls(&actor, &request, 20).await;
    let exchanges = stage.exchanges();
    assert!(exchanges.iter().rev().take(20).all(|entry| entry.attempts == 0));
    assert!(exchanges.iter().any(|entry| entry.attempts == 2));

    let other = Relay::start(port, hub).await;
    until("it is reached again", || is_up(&stage, address, true));
    drop(other);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_read_is_hedged_at_the_other_endpoint() {
    let (stage, one, other) = balanced("hedge_ms = 150\nretry_budget_percent = 100", true).await;
    let actor = stage.system("one-stop-shop");
    let request = json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code });
    let mut hedged = 0;
    // The endpoint is chosen at random: one of that many calls meets the hanging one.
    for _ in 0..40 {
        if hedged > 0 {
            break;
        }
        let began = Instant::now();
        let told = actor.call(ENTERPRISE, request.clone()).await.ok();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        hedged += usize::from(stage.entry(&told.exchange()).entry.attempts == 2);
    }
    assert!(hedged > 0 && other.connections.load(Ordering::Relaxed) > 0);
    // The health checks detect that it hangs.
    until("it is left alone", || is_up(&stage, other.address, false));
    let told = actor.call(ENTERPRISE, request).await.ok();
    assert_eq!(stage.entry(&told.exchange()).entry.attempts, 0);
    drop(one);
    stage.verify();
}

#[tokio::test]
async fn wrong_addresses_are_reported_with_their_line() {
    let stage = Stage::start();
    for (address, reason) in [
        ("[]", "one address, or a list"),
        ("[\"https://a\", \"https://a\"]", "one address, or a list"),
        ("[\"https://a\", \"http://b\"]", "must be https://"),
        ("[1]", "a list of texts"),
    ] {
        edit(&stage.folder.path.join("hubs/ndop.toml"), |text| {
            let line = text.lines().find(|line| line.starts_with("address")).unwrap().to_owned();
            text.replace(&line, &format!("address = {address}"))
        });
        let told = stage.gateway.as_ref().unwrap().reload().unwrap_err().to_string();
        assert!(told.contains("ndop.toml:3") && told.contains(reason), "{address}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_revocation_list_leaves_the_connections_to_sources_as_they_are() {
    let stage = Stage::start();
    let (file, hub) = hub_of(&stage);
    let relay = Relay::start(Ports::take(1).unwrap(), Some(hub)).await;
    edit(&file, |text| text.replace(&hub.to_string(), &relay.address.to_string()));
    stage.gateway.as_ref().unwrap().reload().unwrap();
    let (actor, other) = (stage.system("one-stop-shop"), stage.system("land-office"));
    let request = json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code });
    for actor in [&actor, &other, &actor] {
        actor.call(ENTERPRISE, request.clone()).await.ok();
    }
    let opened = relay.connections.load(Ordering::Relaxed);
    stage.folder.pki().revoke(&crate::support::files(&stage.folder, "land-office").certificate).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    // Not by calls: one that is at its source when its caller is disconnected takes its connection to the source along (HTTP/1.1).
    while other.raw("/grpc.health.v1.Health/Check", &[], vec![bytes::Bytes::new()]).await.is_ok() {
        assert!(Instant::now() < end, "it is still let in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    actor.call(ENTERPRISE, request.clone()).await.ok();
    assert_eq!(relay.connections.load(Ordering::Relaxed), opened);
    // As a reload of all would not.
    stage.gateway.as_ref().unwrap().reload().unwrap();
    actor.call(ENTERPRISE, request).await.ok();
    assert!(relay.connections.load(Ordering::Relaxed) > opened);
}
