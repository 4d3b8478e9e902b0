//! A raw TLS server: it responds with given bytes and records its requests.

use ndxp_gateway::identity::tls;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A response: status, headers, body.
#[derive(Debug, Clone, Default)]
pub struct Wire {
    status: u64,
    headers: Vec<(String, String)>,
    echoed: Vec<String>,
    body: Vec<u8>,
}

impl Wire {
    /// From a fixture's `http`.
    pub fn of(http: &Value, body: &[u8]) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let texts = |value: &Value| value.as_array().map(|all| all.iter().map(text).collect()).unwrap_or_default();
        let headers = http["headers"].as_object().into_iter().flatten();
        let mut headers: Vec<_> = headers.map(|(name, value)| (name.clone(), text(value))).collect();
        let present: Vec<String> = texts(&http["headers_present"]);
        headers.extend(present.into_iter().map(|name| (name, String::new())));
        Wire {
            status: http["status"].as_u64().unwrap(),
            headers,
            echoed: texts(&http["headers_echoed"]),
            body: body.to_vec(),
        }
    }

    /// Nothing readable: for tests that check only requests.
    pub fn nothing() -> Self {
        Wire { status: 500, ..Wire::default() }
    }
}

/// A received request.
#[derive(Debug, Clone)]
pub struct Heard {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Heard {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Starts the server; it runs until the runtime ends.
pub struct Raw {
    answer: Arc<Mutex<Wire>>,
    heard: Arc<Mutex<Option<Heard>>>,
}

impl Raw {
    pub fn serve(listener: std::net::TcpListener, pki: &Path) -> Self {
        Self::with(listener, tls::plain_server_config(&pki.join("sandbox.pem"), &pki.join("sandbox.key")).unwrap())
    }

    /// Starts one that requires a certificate of the province's CA.
    pub fn demanding(listener: std::net::TcpListener, pki: &Path) -> Self {
        let mut config = crate::support::sandbox_config(pki);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self::with(listener, config)
    }

    fn with(listener: std::net::TcpListener, config: rustls::ServerConfig) -> Self {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let raw = Raw { answer: Arc::default(), heard: Arc::default() };
        let (answer, heard) = (raw.answer.clone(), raw.heard.clone());
        listener.set_nonblocking(true).unwrap();
        tokio::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, heard) = (acceptor.clone(), answer.clone(), heard.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let Some(request) = read(&mut stream).await else { return };
                    let bytes = match request.path.as_str() {
                        "/token" => {
                            json_answer(&json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 3600 }))
                        }
                        "/login" => {
                            json_answer(&json!({ "session": "9b1c7d4e0f4a4f0e8c5d000000009905", "error_code": 0 }))
                        }
                        _ => {
                            let bytes = written(&answer.lock().unwrap(), &request);
                            heard.lock().unwrap().replace(request);
                            bytes
                        }
                    };
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        raw
    }

    pub fn set(&self, answer: Wire) {
        *self.answer.lock().unwrap() = answer;
        *self.heard.lock().unwrap() = None;
    }

    /// The last request, except those for tokens and sessions.
    pub fn heard(&self) -> Option<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

fn json_answer(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn written(answer: &Wire, request: &Heard) -> Vec<u8> {
    let mut out =
        format!("HTTP/1.1 {} x\r\ncontent-length: {}\r\nconnection: close\r\n", answer.status, answer.body.len());
    // X-Road names the responding service: `/r1/INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE`.
    let service = request.path.split('/').skip(2).take(5).collect::<Vec<_>>().join("/");
    for (name, value) in &answer.headers {
        let value = if value.is_empty() { &service } else { value };
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    for name in &answer.echoed {
        out.push_str(&format!("{name}: {}\r\n", request.header(name).unwrap_or("")));
    }
    [out.as_bytes(), b"\r\n", &answer.body].concat()
}

async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<Heard> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut part).await.ok()? {
            0 => return None,
            count => bytes.extend_from_slice(&part[..count]),
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs =
        query.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (decoded(name), decoded(value)));
    let query = pairs.collect();
    let mut request = Heard { method, path: path.to_owned(), query, headers, body: bytes[head + 4..].to_vec() };
    let length: usize = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while request.body.len() < length {
        match stream.read(&mut part).await.ok()? {
            0 => return None,
            count => request.body.extend_from_slice(&part[..count]),
        }
    }
    Some(request)
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let hex: Vec<u8> = bytes.by_ref().take(2).collect();
            out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}

/// The differences between a request and the source's expectation.
pub fn differences(heard: Option<&Heard>, expect: &Value, wanted: &[u8]) -> Vec<String> {
    let Some(heard) = heard else { return vec!["nothing was sent".to_owned()] };
    let http = &expect["http"];
    let mut found = Vec::new();
    if http["method"] != heard.method.as_str() {
        found.push(format!("{} was sent", heard.method));
    }
    if http["path"].as_str().is_some_and(|path| path != heard.path) {
        found.push(format!("sent to {}", heard.path));
    }
    for (name, value) in http["headers"].as_object().into_iter().flatten() {
        let came = heard.header(name).map(|text| text.split(';').next().unwrap_or("").trim());
        if came != value.as_str() {
            found.push(format!("header {name}: {came:?}, not {value}"));
        }
    }
    for name in http["headers_present"].as_array().into_iter().flatten() {
        if heard.header(name.as_str().unwrap()).is_none() {
            found.push(format!("no header {name}"));
        }
    }
    found.extend(if wanted.trim_ascii_start().starts_with(b"<") {
        xml_differs(&heard.body, wanted)
    } else {
        json_differs(heard, expect, wanted)
    });
    found
}

/// By element order, names, namespaces and texts; `MaYeuCau` is new for each call.
fn xml_differs(came: &[u8], wanted: &[u8]) -> Option<String> {
    use ndxp_gateway::contract::xml::{Element, parse};
    fn lines(element: &Element, depth: usize, out: &mut Vec<String>) {
        let text = match element.name.as_str() {
            "MaYeuCau" => {
                format!("({} characters)", if element.text.trim().len() <= 40 { "at most 40" } else { "too many" })
            }
            _ => element.text.trim().to_owned(),
        };
        // An empty header counts as none.
        if element.name == "Header" && element.children.is_empty() {
            return;
        }
        out.push(format!("{}{{{}}}{} {text}", " ".repeat(depth), element.namespace, element.name));
        element.children.iter().for_each(|child| lines(child, depth + 1, out));
    }
    let all = |bytes: &[u8]| {
        let mut out = Vec::new();
        parse(bytes).map(|root| lines(&root, 0, &mut out)).ok()?;
        Some(out)
    };
    let (came, wanted) = (all(came), all(wanted));
    (came != wanted || wanted.is_none()).then(|| format!("wanted {wanted:#?}\ncame {came:#?}"))
}

/// Compares JSON as values: empty values may be missing, and so may those that the fixture names.
fn json_differs(heard: &Heard, expect: &Value, wanted: &[u8]) -> Option<String> {
    let wanted: Value = serde_json::from_slice(wanted).unwrap();
    if wanted.get("query").is_some() {
        let query: Vec<Value> = heard.query.iter().map(|(name, value)| json!([name, value])).collect();
        let varies = |pair: &Value| expect["varies"].as_array().is_some_and(|names| names.contains(&pair[0]));
        let fixed = |pairs: &[Value]| pairs.iter().filter(|pair| !varies(pair)).cloned().collect::<Vec<_>>();
        let same = heard.path == wanted["path"].as_str().unwrap()
            && fixed(&query) == fixed(wanted["query"].as_array().unwrap());
        return (!same).then(|| format!("{} {query:?} was sent", heard.path));
    }
    let Ok(came) = serde_json::from_slice::<Value>(&heard.body) else { return Some("no JSON was sent".to_owned()) };
    let varies = expect["varies"].to_string();
    let (came, wanted) = (pruned(&came, &varies), pruned(&wanted, &varies));
    (came != wanted).then(|| format!("wanted {wanted}\n   came {came}"))
}

fn pruned(value: &Value, varies: &str) -> Value {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| !varies.contains(name.as_str()));
            kept.map(|(name, value)| (name.clone(), pruned(value, varies))).filter(|(_, value)| !empty(value)).collect()
        }
        // A list with nulls in its rows keeps them: they have a meaning there.
        Value::Array(items) => items.iter().map(|item| pruned(item, varies)).collect(),
        // A document inside a text.
        Value::String(text) if text.starts_with('{') => {
            serde_json::from_str(text).map_or(value.clone(), |inner| pruned(&inner, varies))
        }
        other => other.clone(),
    }
}
