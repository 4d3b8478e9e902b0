//! A browser for the console's tests, and its users.

use crate::support::{Stage, files, secured};
use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use ndxp_gateway::pki::{CertificateRole as Certificate, DEFAULT_DAYS, staff_uri};
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::registry::{Actor, ChangeOutcome, Digest, Role, Staff, Store};
use ndxp_gateway::sandbox::folder::DevFolder;
use std::net::SocketAddr;
use tokio::net::TcpSocket;

/// A browser: one connection with a certificate or none, and its cookies.
pub struct Browser {
    sender: SendRequest<Full<Bytes>>,
    pub cookies: Vec<(String, String)>,
}

/// The response.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Page {
    pub fn to(&self) -> &str {
        self.headers.get(header::LOCATION).map_or("", |place| place.to_str().unwrap())
    }

    /// The CSRF token of the page's first form.
    pub fn token(&self) -> String {
        let (_, rest) = self.text.split_once("name=\"csrf\" value=\"").expect("a form with its token");
        rest.split('"').next().unwrap().to_owned()
    }
}

impl Browser {
    pub async fn new(stage: &Stage, id: Option<&str>) -> Self {
        Self::from(stage, id, 1).await
    }

    /// One at the address 127.0.0.`host`.
    pub async fn from(stage: &Stage, id: Option<&str>, host: u8) -> Self {
        Self::at(&stage.folder, stage.gateway.as_ref().unwrap().https.unwrap(), (id, host)).await
    }

    /// One that connects to this port, with the certificate of `id` if there is one, from the address 127.0.0.`host`.
    pub async fn at(folder: &DevFolder, to: SocketAddr, (id, host): (Option<&str>, u8)) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, host], 0).into()).unwrap();
        let own = files(folder, id.unwrap_or("nobody"));
        let shown = id.map(|_| (own.certificate.as_path(), own.key.as_path()));
        let stream = secured(socket.connect(to).await.unwrap(), &own.ca, shown, &[b"http/1.1"]).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Browser { sender, cookies: vec![("ndxp-language".into(), "en".into())] }
    }

    pub async fn send(&mut self, method: &str, path: &str, body: &str, more: &[(&str, &str)]) -> Page {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if method == "POST" && more.iter().all(|(name, _)| *name != "content-type") {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let request = request.header("cookie", cookies.join("; ")).body(Full::new(Bytes::from(body.to_owned())));
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request.unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        for set in head.headers.get_all(header::SET_COOKIE) {
            let (name, value) = set.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        let text = String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned();
        Page { status: head.status.as_u16(), headers: head.headers, text }
    }

    pub async fn get(&mut self, path: &str) -> Page {
        self.send("GET", path, "", &[]).await
    }

    /// Sends a form of the page at `from`, with that page's token.
    pub async fn submit(&mut self, from: &str, to: &str, fields: &[(&str, &str)]) -> Page {
        let token = self.get(from).await.token();
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("csrf", &token).extend_pairs(fields);
        self.send("POST", to, &form.finish(), &[]).await
    }

    pub async fn signed_in(stage: &Stage, id: &str) -> Self {
        let mut browser = Browser::new(stage, Some(id)).await;
        browser.sign_in().await;
        browser
    }

    pub async fn sign_in(&mut self) {
        let page = self.send("POST", "/console/sign-in", "", &[]).await;
        assert_eq!((page.status, page.to()), (303, "/console/"), "{}", page.text);
    }
}

impl Browser {
    /// A session of a client's developers.
    pub async fn of_client(stage: &Stage, id: &str) -> Self {
        let mut browser = Browser::new(stage, Some(id)).await;
        let page = browser.send("POST", "/console/sign-in", "", &[]).await;
        assert_eq!((page.status, page.to()), (303, "/console/own"), "{id}: {}", page.text);
        browser
    }
}

/// An administrator (lan), an approver (minh), an auditor (kiem), a client (kho), and a stranger with a certificate.
pub fn staffed() -> Stage {
    staffed_by(&|_| {})
}

/// The same in a folder that is changed before anything starts.
pub fn staffed_by(prepare: &dyn Fn(&DevFolder)) -> Stage {
    let stage = Stage::prepared(prepare);
    let person = |id: &str| Staff { id: id.into(), roles: vec![], names: vec![staff_uri(id)] };
    let roles = |id: &str, role| Staff { roles: vec![role], ..person(id) };
    stage.store.bootstrap(&roles("lan", Role::Administrator), &roles("minh", Role::Approver)).unwrap();
    for id in ["lan", "minh", "kiem", "stranger"] {
        stage.folder.pki().issue(id, &Certificate::Staff(id.into()), DEFAULT_DAYS).unwrap();
    }
    stage.client("kho");
    stage.settle();
    stage
}

/// Registers a person with one role, by two people.
pub fn registered(stage: &Stage, id: &str, role: Role) {
    let person = Staff { id: id.into(), roles: vec![role], names: vec![staff_uri(id)] };
    let asked = acting(stage, "lan", 10).add_staff(&person).unwrap();
    acting(stage, "minh", 20).approve_change(&asked.id).unwrap();
    stage.settle();
}

fn acting(stage: &Stage, id: &str, mark: u8) -> SqliteStore {
    let (thumbprint, key) = (Digest([mark; 32]), Digest([mark + 1; 32]));
    let (names, address) = (vec![staff_uri(id)], "192.0.2.1:1".into());
    stage.store.acting_as(Actor::Staff { id: id.into(), thumbprint, key, names, address })
}

/// Changes somebody's roles, by two people.
pub fn changed(stage: &Stage, person: &Staff) {
    let ChangeOutcome::PendingApproval(asked) = acting(stage, "lan", 10).change_staff(person).unwrap() else {
        panic!("a role waits for a second person")
    };
    acting(stage, "minh", 20).approve_change(&asked.id).unwrap();
    stage.settle();
}

/// An auditor, kiem.
pub fn auditor(stage: &Stage) {
    registered(stage, "kiem", Role::Auditor);
}
