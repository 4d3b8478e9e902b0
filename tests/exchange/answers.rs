//! Malformed and unusual responses, as bytes on the wire, and the required result of each: `tests/exchange/answers/*.txt`, one table a
//! kind, through the real drivers from a TLS server that sends what a row says. Credentials on the wire
//! (`tests/exchange/answers/credentials.rs`), lists of several pages (`tests/exchange/answers/lists.rs`).

use base64::Engine;
use futures_util::StreamExt;
use ndxp_gateway::contract::ContractSet;
use ndxp_gateway::contract::drift::DriftPolicy;
use ndxp_gateway::contract::notes::Notes;
use ndxp_gateway::contract::settings::CallContext;
use ndxp_gateway::drivers::connection::{RequestHash, SourceConnection, XRoadIds, XRoadMember};
use ndxp_gateway::drivers::credentials::{Credentials, Secret};
use ndxp_gateway::drivers::http::HttpEndpoint;
use ndxp_gateway::drivers::{Adapter, Call, SourceError, SourceRequest, SourceResponse};
use ndxp_gateway::identity::tls;
use ndxp_gateway::status::Refusal;
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod credentials;
mod lists;

static CONTRACTS: LazyLock<ContractSet> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("odd.proto"), include_str!("answers/odd.proto")).unwrap();
    ContractSet::with_folder(folder.path()).unwrap()
});

/// A TLS server that sends prepared bytes and records its requests.
struct Raw {
    address: String,
    answers: Arc<Mutex<VecDeque<Vec<u8>>>>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
    tls: rustls::ClientConfig,
}

impl Raw {
    async fn start() -> Self {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, key.cert.pem()).unwrap();
        let client = tls::client_config(&ca, None, &[]).unwrap();
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (answers, requests) = (Arc::<Mutex<VecDeque<Vec<u8>>>>::default(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let (queue, seen) = (answers.clone(), requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, queue, seen) = (acceptor.clone(), queue.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let request = read_request(&mut stream).await;
                    let answer = queue.lock().unwrap().pop_front().unwrap_or_default();
                    let answer = with_hashes(answer, &request);
                    seen.lock().unwrap().push(request);
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Raw { address, answers, requests, tls: client }
    }

    fn adapter(&self, credentials: Credentials) -> Adapter {
        self.adapter_of(credentials, RequestHash::Check)
    }

    fn adapter_of(&self, credentials: Credentials, request_hash: RequestHash) -> Adapter {
        let endpoint = HttpEndpoint::new(&self.address, self.tls.clone(), 1 << 20);
        let member = |text: &str| XRoadMember::parse(text).unwrap();
        Adapter::new(Arc::new(SourceConnection {
            source: "odd".into(),
            hub: None,
            endpoint: endpoint.clone(),
            login: endpoint,
            address: self.address.clone(),
            keepalive: Default::default(),
            open: Arc::default(),
            tls: self.tls.clone(),
            credentials: Arc::new(credentials),
            settings: Default::default(),
            xroad: Some(XRoadIds {
                client: member("VN/GOV/H49/GW"),
                service: member("VN/GOV/SRC/SUB"),
                user: None,
                request_hash,
            }),
            max_response: 1 << 20,
        }))
    }

    fn says(&self, answer: Vec<u8>) {
        self.answers.lock().unwrap().push_back(answer);
    }
}

/// Replaces `{HASH}` by X-Road's request hash, computed from the request's bytes as a security server's Jetty reads them (PR-REST,
/// section 4.3), and `{HASH-AS-SENT}` by the hash with the names as sent.
fn with_hashes(answer: Vec<u8>, request: &[u8]) -> Vec<u8> {
    let Ok(mut text) = String::from_utf8(answer.clone()) else { return answer };
    for (mark, jetty) in [("{HASH}", true), ("{HASH-AS-SENT}", false)] {
        if text.contains(mark) {
            text = text.replace(mark, &hash_on_the_wire(request, jetty));
        }
    }
    if text.contains("{SOAP-HASH}") {
        text = text.replace("{SOAP-HASH}", &hash_of_the_body(request));
    }
    text.into_bytes()
}

/// The `requestHash` of PR-MESS, section 2.2.
fn hash_of_the_body(request: &[u8]) -> String {
    let end = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, &request[end + 4..]);
    base64::engine::general_purpose::STANDARD.encode(digest.as_ref())
}

fn hash_on_the_wire(request: &[u8], jetty: bool) -> String {
    let sha = |bytes: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, bytes).as_ref().to_vec();
    let end = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let (head, body) = (std::str::from_utf8(&request[..end]).unwrap(), &request[end + 4..]);
    let mut lines = head.split("\r\n");
    let [method, target, _] = lines.next().unwrap().split(' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
    let mut covered = format!("{method}\r\n{target}\r\n");
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let name = match name {
            "host" | "content-length" | "user-agent" => continue,
            "accept" if jetty => "Accept",
            "accept-encoding" if jetty => "Accept-Encoding",
            "authorization" if jetty => "Authorization",
            "content-type" if jetty => "Content-Type",
            other => other,
        };
        covered += &format!("{name}:{value}\r\n");
    }
    let head = sha(format!("{covered}x-road-request-id:R7\r\n").as_bytes());
    let whole = if body.is_empty() { head } else { sha(&[head, sha(body)].concat()) };
    base64::engine::general_purpose::STANDARD.encode(whole)
}

async fn read_request(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if request.len() >= end + 4 + length.unwrap_or(0) {
                return request;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
            _ => return request,
        }
    }
}

/// The outcome of a call: messages or a refusal, and the reported drift.
struct Said {
    result: Result<Value, Refusal>,
    notes: Notes,
    /// Whether the source may have got the request.
    sent: bool,
}

async fn call(adapter: &Adapter, operation: &str, request: Value) -> Said {
    call_with(adapter, operation, request, DriftPolicy::Warn).await
}

async fn call_with(adapter: &Adapter, operation: &str, request: Value, drift: DriftPolicy) -> Said {
    let operation =
        CONTRACTS.operation(&format!("/odd.v1.{operation}")).unwrap_or_else(|| panic!("{operation}")).clone();
    let message = DynamicMessage::deserialize(operation.request.message.clone(), request).unwrap();
    let context = Arc::new(CallContext { exchange_id: "E1".into(), drift, ..CallContext::default() });
    let (observed, sent) = (context.observed.clone(), context.sent.clone());
    let request = SourceRequest::One { bytes: prost::Message::encode_to_vec(&message).into(), message };
    let descriptor = operation.response.message.clone();
    let read =
        |bytes: bytes::Bytes| serde_json::to_value(DynamicMessage::decode(descriptor.clone(), bytes).unwrap()).unwrap();
    let call = Call { operation, request, context, until: None, page_limiter: None, stream_wait: None };
    let result = match adapter.call(call).await {
        Ok(SourceResponse::One(bytes)) => Ok(read(bytes)),
        Ok(SourceResponse::Stream(messages)) => {
            let all: Vec<Result<_, SourceError>> = messages.collect().await;
            all.into_iter().map(|one| one.map(&read)).collect::<Result<Vec<_>, _>>().map(Value::from)
        }
        Err(error) => Err(error),
    };
    Said { result: result.map_err(Refusal::from), notes: observed.snapshot(), sent: sent.is_marked() }
}

/// `\n`, `\r`, `\x01`, `\u0301` (a character) and `\\` of a row.
fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let kind = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        let digits = |count: usize| u32::from_str_radix(&rest[at + 2..at + 2 + count], 16).unwrap();
        let used = match kind {
            b'n' => {
                out.push(b'\n');
                2
            }
            b'r' => {
                out.push(b'\r');
                2
            }
            b'x' => {
                out.push(digits(2) as u8);
                4
            }
            b'u' => {
                out.extend(char::from_u32(digits(4)).unwrap().to_string().bytes());
                6
            }
            b'\\' => {
                out.push(b'\\');
                2
            }
            other => {
                out.extend([b'\\', other]);
                2
            }
        };
        rest = &rest[at + used..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";

/// The parts of our request that a security server repeats (PR-MESS, section 2.2), with its own prefixes.
const XROAD_HEADER: &str = concat!(
    "<s:Header xmlns:x=\"http://x-road.eu/xsd/xroad.xsd\" xmlns:i=\"http://x-road.eu/xsd/identifiers\">",
    "<x:client i:objectType=\"SUBSYSTEM\"><i:xRoadInstance>VN</i:xRoadInstance><i:memberClass>GOV</i:memberClass>",
    "<i:memberCode>H49</i:memberCode><i:subsystemCode>GW</i:subsystemCode></x:client>",
    "<x:service i:objectType=\"SERVICE\"><i:xRoadInstance>VN</i:xRoadInstance><i:memberClass>GOV</i:memberClass>",
    "<i:memberCode>SRC</i:memberCode><i:subsystemCode>SUB</i:subsystemCode><i:serviceCode>get</i:serviceCode></x:service>",
    "<x:id>E1</x:id><x:protocolVersion>4.0</x:protocolVersion>",
    "<x:requestHash algorithmId=\"http://www.w3.org/2001/04/xmlenc#sha512\">{SOAP-HASH}</x:requestHash></s:Header>",
);

/// Expands the abbreviations of the tables.
fn expanded(body: &str) -> String {
    let envelope = |inner: &str| format!("<s:Envelope xmlns:s=\"{SOAP}\"><s:Body>{inner}</s:Body></s:Envelope>");
    let mut text = body.to_owned();
    while let Some(at) = text.find("RECORD(") {
        let end = at + text[at..].rfind(')').unwrap();
        // The last bracket that closes a record: the first one that follows the tag's end.
        let end = text[at..].find(">)").map_or(end, |found| at + found + 1);
        let inner = text[at + 7..end].to_owned();
        let record = format!("<o:GetResponse xmlns:o=\"urn:out\"><Record>{inner}</Record></o:GetResponse>");
        text.replace_range(at..=end, &envelope(&record));
    }
    while let Some(at) = text.find("XROAD(") {
        let end = text[at..].rfind(">)").map(|found| at + found + 1).unwrap();
        let inner = format!("{XROAD_HEADER}<s:Body>{}</s:Body>", &text[at + 6..end]);
        text.replace_range(at..=end, &format!("<s:Envelope xmlns:s=\"{SOAP}\">{inner}</s:Envelope>"));
    }
    for (name, wrap) in [("SOAP(", false), ("FAULT(", true)] {
        if let Some(inner) = text.strip_prefix(name).and_then(|rest| rest.strip_suffix(')')) {
            text = match wrap {
                true => {
                    envelope(&format!("<s:Fault><faultcode>{inner}</faultcode><faultstring>x</faultstring></s:Fault>"))
                }
                false => envelope(inner),
            };
        }
    }
    text
}

fn body_of(field: &str) -> Vec<u8> {
    let inner = |name: &str| field.strip_prefix(name).and_then(|rest| rest.strip_suffix(')'));
    if let Some(text) = inner("GZIP(") {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&unescaped(text)).unwrap();
        return gzip.finish().unwrap();
    }
    // A truncated download: the last bytes of the stream are missing.
    if let Some(text) = inner("GZIPCUT(") {
        let whole = body_of(&format!("GZIP({text})"));
        return whole[..whole.len() - 9].to_vec();
    }
    // Small on the wire, and twice as large as the limit.
    if let Some(text) = inner("BOMB(") {
        return body_of(&format!("GZIP({}{text})", " ".repeat(2 << 20)));
    }
    if let Some(text) = inner("GZIP2(") {
        let mut twice = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        twice.write_all(&body_of(&format!("GZIP({text})"))).unwrap();
        return twice.finish().unwrap();
    }
    if let Some(text) = inner("GZIP3(") {
        let mut thrice = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        thrice.write_all(&body_of(&format!("GZIP2({text})"))).unwrap();
        return thrice.finish().unwrap();
    }
    if let Some(text) = inner("ZLIB(") {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(&unescaped(text)).unwrap();
        return zlib.finish().unwrap();
    }
    if let Some(text) = inner("DEFLATE(") {
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        bare.write_all(&unescaped(text)).unwrap();
        return bare.finish().unwrap();
    }
    for (name, big) in [("UTF16LE(", false), ("UTF16BE(", true)] {
        if let Some(text) = inner(name) {
            let units: Vec<u16> = std::iter::once(0xfeff).chain(expanded(text).encode_utf16()).collect();
            return units.iter().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect();
        }
    }
    unescaped(&expanded(field))
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let (code, headers) = status.split_once(' ').unwrap_or((status, ""));
    let body = body_of(body);
    let mut out = format!("HTTP/1.1 {code} X\r\nconnection: close\r\n").into_bytes();
    // A row may state a wrong length; a value that is still to be computed has none.
    let own = headers.contains("content-length") || headers.contains("transfer-encoding");
    let open = body.windows(11).any(|window| window == b"{SOAP-HASH}");
    if !matches!(code, "204" | "304") && !own && !open {
        out.extend(format!("content-length: {}\r\n", body.len()).bytes());
    }
    for header in headers.split("; ").flat_map(joined).filter(|header| !header.is_empty()) {
        match header.as_str() {
            "XR" | "XR-NO-HASH" => {
                out.extend(
                    b"x-road-client: VN/GOV/H49/GW\r\nx-road-service: VN/GOV/SRC/SUB/get\r\nx-road-id: E1\r\nx-road-request-id: R7\r\n",
                );
                if header == "XR" && !headers.contains("x-road-request-hash") {
                    out.extend(b"x-road-request-hash: {HASH}\r\n");
                }
            }
            other => out.extend(format!("{other}\r\n").bytes()),
        }
    }
    out.extend(b"\r\n");
    if !matches!(code, "204" | "304") {
        out.extend(body);
    }
    out
}

/// A media type's parameters belong to it.
fn joined(header: &str) -> Option<String> {
    Some(header.replace(";;", "; "))
}

/// The expected outcome of a row, and the actual one.
fn outcome(said: &Said) -> String {
    let mut text = match &said.result {
        Ok(message) => format!("OK {message}"),
        Err(refusal) => {
            let mut text = format!("{} {}", refusal.reason.as_str(), refusal.fault.as_str());
            if let Some(code) = refusal.source_code.as_deref().filter(|code| !matches!(*code, "empty" | "no record")) {
                text += &format!(" {code}");
            }
            if let Some(after) = refusal.retry_after {
                text += &format!(" retry {}", after.as_secs());
            }
            text
        }
    };
    if said.result.is_ok() {
        for path in &said.notes.dropped_fields {
            text += &format!(" ~dropped={path}");
        }
        for (path, code) in &said.notes.unknown_codes {
            text += &match code {
                Some(code) => format!(" ~codes={path}={code}"),
                None => format!(" ~codes={path}"),
            };
        }
        if !said.notes.xroad.request_hash.is_empty() {
            text += " ~hash";
        }
    }
    text
}

/// The same text for what means the same: JSON as it is written here.
fn normal(expected: &str) -> String {
    let Some(rest) = expected.strip_prefix("OK ") else { return expected.to_owned() };
    let (json, notes) =
        rest.split_once(" ~").map_or((rest, String::new()), |(json, notes)| (json, format!(" ~{notes}")));
    format!("OK {}{notes}", serde_json::from_str::<Value>(json).unwrap_or_else(|error| panic!("{expected}: {error}")))
}

async fn table(text: &str, least: usize) {
    let raw = Raw::start().await;
    let adapter = raw.adapter(Credentials::None);
    let (mut rows, mut wrong) = (0, Vec::new());
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let fields: Vec<&str> = line.split(" | ").collect();
        let [operation, status, body, expected] = match fields[..] {
            [operation, status, expected] => [operation, status.trim_end_matches(" |"), "", expected],
            [operation, status, body, expected] => [operation, status, body, expected],
            _ => panic!("{line}"),
        };
        raw.answers.lock().unwrap().clear();
        raw.says(answer(status, body));
        let said = call(&adapter, operation, json!({ "name": "x" })).await;
        let got = outcome(&said);
        let expected = normal(expected);
        // Without a code in the row, any is accepted.
        let fits = got == expected
            || (!expected.starts_with("OK")
                && expected.split(' ').count() == 2
                && got.starts_with(&format!("{expected} ")));
        if !fits {
            let why = said.result.as_ref().err().map(|refusal| refusal.detail.clone()).unwrap_or_default();
            wrong.push(format!("{line}\n    got {got} ({why})"));
        }
        rows += 1;
    }
    assert!(wrong.is_empty(), "{} of {rows}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows >= least, "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn u1_no_record_follows_only_from_the_contract_s_codes() {
    table(include_str!("answers/absence.txt"), 70).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u1_u5_u6_verdicts_codes_writes_and_whole_lists() {
    table(include_str!("answers/verdicts.txt"), 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u3_u7_u11_values_are_those_of_the_source() {
    table(include_str!("answers/values.txt"), 105).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u8_documents_are_read_by_their_standards() {
    table(include_str!("answers/documents.txt"), 48).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_u10_http_and_x_road_errors_come_first() {
    table(include_str!("answers/http.txt"), 55).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_responses_are_mapped_or_rejected() {
    table(include_str!("answers/strangers.txt"), 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outsiders_responses_are_mapped_or_rejected() {
    table(include_str!("answers/outsiders.txt"), 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u2_texts_go_out_composed() {
    let raw = Raw::start().await;
    let adapter = raw.adapter(Credentials::None);
    for (given, sent) in
        [("Nguye\u{302}\u{303}n", "Nguy%E1%BB%85n"), ("Nguyễn", "Nguy%E1%BB%85n"), ("A\u{30a}", "%C3%85")]
    {
        raw.says(answer("200", "{\"text\": \"a\"}"));
        call(&adapter, "Rest/Plain", json!({ "name": given })).await.result.unwrap();
        let request = String::from_utf8(raw.requests.lock().unwrap().pop().unwrap()).unwrap();
        assert!(request.contains(&format!("?name={sent} ")), "{request}");
        assert!(request.to_ascii_lowercase().contains("accept-encoding: identity"), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u11_times_and_durations_are_sent_in_one_form() {
    let raw = Raw::start().await;
    let adapter = raw.adapter(Credentials::None);
    raw.says(answer("200", "{\"text\": \"a\"}"));
    let request = json!({ "clock": "08:30:00.500+00:00", "lasts": "PT36H" });
    call(&adapter, "Rest/Plain", request).await.result.unwrap();
    let sent = String::from_utf8(raw.requests.lock().unwrap().pop().unwrap()).unwrap();
    assert!(sent.contains("?clock=08%3A30%3A00.5Z&lasts=P1DT12H "), "{sent}");
    // An invalid one is not sent.
    for request in [json!({ "clock": "8:30" }), json!({ "lasts": "30" })] {
        assert!(call(&adapter, "Rest/Plain", request.clone()).await.result.is_err(), "{request}");
        assert!(raw.requests.lock().unwrap().is_empty(), "{request}");
    }
}

/// The credential's header is in the hash as well; if the entry states that something changes headers, any hash is accepted.
#[tokio::test(flavor = "multi_thread")]
async fn u4_the_request_hash_covers_every_header_unless_the_entry_says_keep() {
    const OTHERS: &str = "14sEri8SmLNy/DJyTob0ZddAskmdRy5ZUyhbr33iLkaA+gLpWcivUH16fzbuIs7hhs2AnA4lJDloyIihXMlVQA==";
    let raw = Raw::start().await;
    let key = || Credentials::ApiKey { header: http::HeaderName::from_static("apikey"), key: Secret::new("secret") };
    for (request_hash, hash, good) in [
        (RequestHash::Check, "{HASH}", true),
        (RequestHash::Check, OTHERS, false),
        (RequestHash::Keep, OTHERS, true),
        (RequestHash::Keep, "nonsense", false),
        (RequestHash::Keep, "", false),
    ] {
        for operation in ["Road/Get", "Road/Post"] {
            let adapter = raw.adapter_of(key(), request_hash);
            raw.says(answer(&format!("200 XR; x-road-request-hash: {hash}"), "{\"text\": \"a\"}"));
            let said = call(&adapter, operation, json!({ "name": "x" })).await;
            assert_eq!(said.result.is_ok(), good, "{request_hash:?} {hash} {operation}");
            let request = String::from_utf8(raw.requests.lock().unwrap().pop().unwrap()).unwrap();
            assert!(request.contains("apikey: secret"), "{request}");
        }
    }
}
