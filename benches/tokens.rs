//! A million tokens: the start time with that many expired ones, and the time until a revocation and a suspension take
//! effect while tokens are listed and 2,000 a second are issued. The gateway runs as a separate process.
//! `cargo bench --bench tokens [-- COUNT]`. Figures in docs/performance.md.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use ndxp_gateway::admin::api;
use ndxp_gateway::caller::GatewayClient;
use ndxp_gateway::config::Config;
use ndxp_gateway::contract::ContractSet;
use ndxp_gateway::pki::{CertificateRole as Certificate, DEFAULT_DAYS, staff_uri};
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::registry::{Page, Role, Staff, Store, TokenFilter, TokenState};
use ndxp_gateway::sandbox::folder::DevFolder;
use ndxp_gateway::sandbox::{Sandbox, SandboxConfig};
use ndxp_gateway::server::registry_path;
use prost::Message;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::tokens::ended;
use support::{Actor, Running, UNIT, add_client, add_grant, edit, files, issue, lay, make_key, show};
use tokio::net::TcpStream;

/// Tokens a second, by all connections together.
const ISSUED_PER_S: u32 = 2_000;
const CONNECTIONS: u32 = 16;
/// Number of timed revocations, and of timed suspensions.
const CHANGES: usize = 10;
const ENDED: &str = "archive";
const BUSY: &str = "busy";
const PERSON: &str = "lan";

/// A folder with clients whose tokens are revoked (`r-N`) and clients that are suspended (`s-N`).
struct Setup {
    folder: DevFolder,
    config: Config,
    contracts: ContractSet,
    store: SqliteStore,
    _sandbox: Sandbox,
    _dir: tempfile::TempDir,
}

impl Setup {
    fn new(count: usize) -> Self {
        let (dir, folder) = lay(&|folder| {
            edit(&folder.gateway_config(), |text| text.replace("audience = ", "fetches_per_s = 5000\naudience = "));
        });
        let sandbox = Sandbox::start(SandboxConfig::load(&folder.sandbox_config()).map_err(show).unwrap()).unwrap();
        let config = Config::load(&folder.gateway_config()).map_err(show).unwrap();
        let contracts = config.catalogue().map_err(show).unwrap().contracts;
        let store = SqliteStore::open(&registry_path(&config.data)).unwrap();
        make_key(&store, &config);
        let changed = (0..CHANGES).flat_map(|number| [format!("r-{number}"), format!("s-{number}")]);
        for id in changed.chain([BUSY.to_owned(), ENDED.to_owned()]) {
            add_client(&store, &folder, &id);
            add_grant(&store, &contracts, &id, &["budgetunit:read"], |_| {});
        }
        folder.pki().issue(PERSON, &Certificate::Staff(PERSON.into()), DEFAULT_DAYS).unwrap();
        let staff = |id: &str| Staff { id: id.into(), roles: vec![Role::Administrator], names: vec![staff_uri(id)] };
        store.bootstrap(&staff(PERSON), &Staff { roles: vec![], ..staff("minh") }).unwrap();
        let began = Instant::now();
        for from in (0..count).step_by(20_000) {
            store.add_tokens(&ended(ENDED, from..count.min(from + 20_000), 1)).unwrap();
        }
        println!("{count} ended tokens were recorded in {:.1?}", began.elapsed());
        Setup { folder, config, contracts, store, _sandbox: sandbox, _dir: dir }
    }

    fn base(&self) -> String {
        format!("https://{}", self.config.listen.grpc)
    }

    fn actor(&self, id: &str) -> Actor {
        let token = issue(&self.store, &self.config, &self.folder, id, Duration::from_secs(3_600), Duration::ZERO);
        let caller = GatewayClient::new(&self.base(), &files(&self.folder, id)).unwrap();
        Actor { caller, token, contracts: self.contracts.clone() }
    }

    async fn web(&self) -> SendRequest<Full<Bytes>> {
        let own = files(&self.folder, BUSY);
        let stream = TcpStream::connect(self.config.listen.https.unwrap()).await.unwrap();
        let pair = Some((own.certificate.as_path(), own.key.as_path()));
        let stream = support::secured(stream, &own.ca, pair, &[b"http/1.1"]).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

async fn ask<A: Message + Default>(person: &GatewayClient, method: &str, request: impl Message) -> A {
    let path = format!("/ndxp.admin.v1.AdminService/{method}");
    let answered = person.call(&path, &[], vec![request.encode_to_vec().into()]).await.unwrap();
    assert_eq!(answered.status.code(), tonic::Code::Ok, "{method}: {} {:?}", answered.reason(), answered.status);
    A::decode(answered.messages[0].clone()).unwrap()
}

/// Pages through the tokens until it must stop; returns the time of each page.
async fn list(
    person: Arc<GatewayClient>,
    client: &'static str,
    in_force: bool,
    stop: Arc<AtomicBool>,
) -> Vec<Duration> {
    let (mut page_token, mut times) = (String::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let request = api::ListTokensRequest { client: client.into(), in_force, page_size: 1_000, page_token };
        let began = Instant::now();
        let page: api::ListTokensResponse = ask(&person, "ListTokens", request).await;
        times.push(began.elapsed());
        page_token = page.next_page_token;
    }
    times
}

/// Fetches tokens at its share of the rate.
async fn fetch(mut sender: SendRequest<Full<Bytes>>, issued: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let mut due = tokio::time::interval(Duration::from_secs(1) * CONNECTIONS / ISSUED_PER_S);
    while !stop.load(Ordering::Relaxed) {
        due.tick().await;
        let request = http::Request::post("/oauth2/token")
            .header("host", "localhost")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from_static(b"grant_type=client_credentials")))
            .unwrap();
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
        response.into_body().collect().await.unwrap();
        issued.fetch_add(1, Ordering::Relaxed);
    }
}

/// The time from the request of a change to the first call that is refused for it.
async fn until_refused(actor: &Actor, reason: &str, change: impl AsyncFnOnce()) -> Duration {
    let query = json!({ "unitCode": "1057000" });
    actor.call(UNIT, query.clone()).await.ok();
    let began = Instant::now();
    change().await;
    while actor.call(UNIT, query.clone()).await.reason() != reason {
        assert!(began.elapsed() < Duration::from_secs(30), "{reason} is not in force");
    }
    began.elapsed()
}

async fn changes_under_load(setup: &Setup) {
    let person = Arc::new(GatewayClient::new(&setup.base(), &files(&setup.folder, PERSON)).unwrap());
    let actors = |kind: &str| (0..CHANGES).map(|number| setup.actor(&format!("{kind}-{number}"))).collect::<Vec<_>>();
    let (revoked, suspended) = (actors("r"), actors("s"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (stop, issued) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut fetching = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        fetching.spawn(fetch(setup.web().await, issued.clone(), stop.clone()));
    }
    let listing: Vec<_> = [("", true), (ENDED, true), (ENDED, false), ("", false)]
        .map(|(client, in_force)| tokio::spawn(list(person.clone(), client, in_force, stop.clone())))
        .into();
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (mut revocations, mut suspensions) = (Vec::new(), Vec::new());
    for number in 0..CHANGES {
        let filter = TokenFilter { state: Some(TokenState::InForce) };
        let id =
            setup.store.tokens(Some(&format!("r-{number}")), Page { after: "", max: 1, filter }).unwrap()[0].id.clone();
        let revoke = async || drop(ask::<api::Token>(&person, "RevokeToken", api::TokenId { id }).await);
        revocations.push(until_refused(&revoked[number], "TOKEN_REVOKED", revoke).await);
        let client = api::ClientId { id: format!("s-{number}") };
        let suspend = async || drop(ask::<api::Client>(&person, "SuspendClient", client).await);
        suspensions.push(until_refused(&suspended[number], "CLIENT_SUSPENDED", suspend).await);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let rate = issued.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    fetching.join_all().await;
    let mut pages = Vec::new();
    for one in listing {
        pages.extend(one.await.unwrap());
    }
    println!("issued meanwhile: {rate:.0} a second");
    for (what, mut times) in [("revocation", revocations), ("suspension", suspensions), ("page of 1,000", pages)] {
        times.sort();
        let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{what}: median {middle:.1?}, longest {last:.1?} of {}", times.len());
    }
}

fn main() {
    // `cargo bench` passes --bench; `cargo test --benches` does not, and measures nothing.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|one| one == "--bench") {
        return;
    }
    let count = arguments.iter().find_map(|one| one.parse().ok()).unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let setup = Setup::new(count);
    for start in 1..=3 {
        let began = Instant::now();
        let running = Running::start(&setup.folder, &[]);
        println!("start {start}: the gateway listens after {:.1?}", began.elapsed());
        if start == 3 {
            runtime.block_on(changes_under_load(&setup));
        }
        running.kill();
    }
}
