//! Latency of the console's pages with a big log and many clients: `cargo bench --bench console [-- --entries 1000000]`, by default 10
//! million entries and 10,000 clients. One session, one connection, page after page, like a browser; a page's time is measured from its
//! request to its last byte, TLS included, after the gateway has compared the registry with the log. Figures in docs/performance.md.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use ndxp_gateway::audit::index::rebuild;
use ndxp_gateway::config::Config;
use ndxp_gateway::exchange_log::{LogPaths, Pipeline, key};
use ndxp_gateway::identity::tls;
use ndxp_gateway::issuer::{Issuer, KeyAlgorithm};
use ndxp_gateway::keyfile::Vault;
use ndxp_gateway::pki::{CertificateRole, staff_uri};
use ndxp_gateway::registry::{Staff, Store};
use ndxp_gateway::sandbox::folder::DevFolder;
use ndxp_gateway::server::registry_path;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

#[path = "filled/entries.rs"]
mod entries;
#[path = "filled/registry.rs"]
mod filled;
use entries::{entry, hash};

/// Number of requests per page.
const TIMES: u64 = 100;
const CLIENTS: usize = 10_000;
/// Entries per write: most of a journal segment.
const BATCH: usize = 100_000;
/// The person who signs in: administrator and auditor.
const PERSON: &str = "lan";

/// A page's name, and its path for the nth request.
type PageOf = (&'static str, fn(u64) -> String);
type BoxedPage = (&'static str, Box<dyn Fn(u64) -> String>);

/// The pages, by the number of the request: filters and ids differ between requests.
const PAGES: [PageOf; 12] = [
    ("overview", |_| "/console/".into()),
    ("clients", |_| "/console/clients".into()),
    ("a client", |n| format!("/console/clients/client-{:06}", n * 97 % 10_000)),
    ("grants", |_| "/console/grants".into()),
    ("a client's grants", |n| format!("/console/grants?client=client-{:06}", n * 97 % 10_000)),
    ("a new grant", |_| "/console/grants/add".into()),
    ("tokens", |_| "/console/tokens".into()),
    ("approvals", |_| "/console/approvals".into()),
    ("newest exchanges", |_| "/console/exchanges".into()),
    ("exchanges of a client", |n| format!("/console/exchanges?client=system-{:03}", n % 300)),
    ("exchanges of a client and a source", |n| {
        format!("/console/exchanges?client=system-{:03}&source=source{}", n % 300, n % 10)
    }),
    ("exchanges of a dossier", |n| format!("/console/exchanges?purpose={}", entry(n * 31).purpose)),
];

/// Writes that many entries with the folder's own key, and their index.
fn grow(config: &Config, to: u64) {
    let signer = key::read(&config.data, &Vault::default(), &config.log.origin).unwrap();
    let (pipeline, mut journal) = Pipeline::open(LogPaths::new(&config.data), signer).unwrap();
    for from in (0..to).step_by(BATCH) {
        let batch = (from..(from + BATCH as u64).min(to)).map(|number| entry(number).to_bytes()).collect();
        pipeline.write(&mut journal, batch).unwrap();
        pipeline.seal().unwrap();
    }
    drop((pipeline, journal));
    rebuild(&config.data, &Vault::default(), |_, _| {}).unwrap();
}

/// One person with both roles; without an approver there is no first person.
fn staff(store: &dyn Store, data: &Path) {
    let person = |id: &str| Staff { id: id.into(), roles: vec![], names: vec![staff_uri(id)] };
    store.bootstrap(&person(PERSON), &person("minh")).unwrap();
    let sql = rusqlite::Connection::open(registry_path(data)).unwrap();
    sql.execute("UPDATE staff SET roles = '[\"administrator\",\"auditor\"]' WHERE id = ?1", [PERSON]).unwrap();
}

/// The gateway's process, until it is dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Serving {
    /// CPU time that the process has used, all of its threads together.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // After the name, which is in parentheses: the 12th and 13th field are user and system time, in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
    }

    /// Waits until the gateway is at rest: after its start it compares the registry with the log, which takes as long as the log is big.
    fn wait_for_rest(&self) {
        let (began, mut quiet) = (Instant::now(), 0);
        while quiet < 5 {
            assert!(began.elapsed() < Duration::from_secs(900), "it does not come to rest");
            let before = self.cpu();
            std::thread::sleep(Duration::from_secs(1));
            quiet = if self.cpu() - before <= Duration::from_millis(50) { quiet + 1 } else { 0 };
        }
        println!("at rest after {:.0?}, {:.0?} of CPU", began.elapsed(), self.cpu());
    }
}

fn serve(folder: &DevFolder) -> (Serving, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"))
        .args(["serve", "--config"])
        .arg(folder.gateway_config())
        .env("NDXP_LOG", "off")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let rest = line.split_once("HTTPS on https://").unwrap_or_else(|| panic!("{line}")).1;
    (Serving(child), rest.split([',', ' ', '\n']).next().unwrap().parse().unwrap())
}

/// A browser with one connection and its cookies.
struct Browser {
    sender: SendRequest<Full<Bytes>>,
    cookies: Vec<String>,
}

impl Browser {
    async fn open(pki: &Path, to: SocketAddr) -> Self {
        let file = |name: &str| pki.join(name);
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(tls::roots(&file("ca.pem")).unwrap())
            .with_client_auth_cert(
                tls::certificates(&file(&format!("{PERSON}.pem"))).unwrap(),
                tls::private_key(&file(&format!("{PERSON}.key"))).unwrap(),
            )
            .unwrap();
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Browser { sender, cookies: Vec::new() }
    }

    async fn send(&mut self, method: &str, path: &str) -> (u16, Bytes) {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header(header::COOKIE, self.cookies.join("; ")).header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        self.sender.ready().await.unwrap();
        let (head, body) = self.sender.send_request(request.body(Full::default()).unwrap()).await.unwrap().into_parts();
        let set = head.headers.get_all(header::SET_COOKIE).iter();
        self.cookies.extend(set.map(|one| one.to_str().unwrap().split(';').next().unwrap().to_owned()));
        (head.status.as_u16(), body.collect().await.unwrap().to_bytes())
    }
}

async fn pages(serving: &Serving, pki: &Path, to: SocketAddr, entries: u64) {
    let mut browser = Browser::open(pki, to).await;
    let (status, page) = browser.send("POST", "/console/sign-in").await;
    assert_eq!(status, 303, "{}", String::from_utf8_lossy(&page));
    let mut pages: Vec<BoxedPage> = PAGES.into_iter().map(|(name, path)| (name, Box::new(path) as _)).collect();
    let id = move |n: u64| uuid::Uuid::from_slice(&entry(hash(n, 21) % entries).exchange_id).unwrap();
    pages.push(("an exchange", Box::new(move |n| format!("/console/exchanges/{}", id(n)))));
    pages.push(("a receipt", Box::new(move |n| format!("/console/exchanges/{}/receipt", hash(n, 21) % entries))));
    for (name, path) in pages {
        let (mut times, cpu) = (Vec::new(), serving.cpu());
        let mut bytes = 0;
        for number in 0..TIMES {
            let path = path(number);
            let mut began = Instant::now();
            let (mut status, mut page) = browser.send("GET", &path).await;
            // Nobody clicks that fast: reads of the log are limited by the second.
            while status == 429 {
                tokio::time::sleep(Duration::from_millis(500)).await;
                began = Instant::now();
                (status, page) = browser.send("GET", &path).await;
            }
            times.push(began.elapsed());
            assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&page));
            bytes = page.len();
        }
        times.sort();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        let cpu = (serving.cpu() - cpu) / TIMES as u32;
        let kb = bytes / 1_000;
        println!(
            "  {name}: median {:.1?}, p95 {:.1?}, longest {:.1?}, {cpu:.1?} of CPU each, {kb} kB",
            at(50),
            at(95),
            at(100)
        );
    }
}

fn main() {
    // `cargo bench` passes --bench; `cargo test --benches` does not, and measures nothing.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|one| one == "--bench") {
        return;
    }
    let entries =
        arguments.iter().position(|one| one == "--entries").map_or(10_000_000, |at| arguments[at + 1].parse().unwrap());
    let dir = tempfile::tempdir_in("target").unwrap();
    let folder = DevFolder::with_free_ports(&dir.path().join("dev")).unwrap();
    folder.pki().issue(PERSON, &CertificateRole::Staff(PERSON.into()), 30).unwrap();
    let config = Config::load(&folder.gateway_config()).unwrap_or_else(|faults| panic!("{faults:?}"));
    let store = filled::fill(&config.data, CLIENTS);
    staff(&store, &config.data);
    Issuer::new(&store, config.issuer_settings()).rotate(KeyAlgorithm::Es256).unwrap();
    let began = Instant::now();
    grow(&config, entries);
    println!(
        "{entries} entries, {CLIENTS} clients with {} grants each, made in {:.0?}",
        filled::GRANTS,
        began.elapsed()
    );
    let (serving, https) = serve(&folder);
    serving.wait_for_rest();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(900), pages(&serving, &folder.path.join("pki"), https, entries))
            .await
            .unwrap();
    });
}
