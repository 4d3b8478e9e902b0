//! Calls of the HTTPS port over HTTP/1.1 (Connect, gRPC-Web, plain JSON): the same answers and refusals as by gRPC, streams and their
//! ends, commitments over the bytes as sent, malformed JSON and heads, bounds of bodies.

use crate::support::{Actor, CATALOGUE, PURPOSE, Stage, UNIT, VERIFY, files, secured, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use ndxp_gateway::exchange_log::entry::Entry;
use ndxp_gateway::exchange_log::pseudonym::commit;

use prost::Message;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tonic_types::pb;

const OFFICIAL: &str = "022080990129";

/// A system that speaks HTTP/1.1.
pub(super) struct System<'s> {
    pub(super) stage: &'s Stage,
    /// Whose certificate it shows, if any.
    pub(super) id: Option<&'s str>,
    pub(super) token: String,
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Connect's error code, and the reason of its details.
    pub(super) fn error(&self) -> (String, String) {
        let error = self.json();
        let reason = error["details"][0]["debug"]["reason"].as_str().unwrap_or_default();
        (error["code"].as_str().unwrap_or_default().to_owned(), reason.to_owned())
    }
}

impl System<'_> {
    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>(http_body::Frame::data(body.into()))]);
        self.stream(method, path, headers, StreamBody::new(chunks)).await
    }

    async fn stream<B>(&self, method: &str, path: &str, headers: &[(&str, &str)], body: B) -> Reply
    where
        B: http_body::Body<Data = Bytes, Error = std::io::Error> + Send + 'static,
    {
        let to = self.stage.gateway.as_ref().unwrap().https.unwrap();
        let own = files(&self.stage.folder, self.id.unwrap_or("nobody"));
        let shown = self.id.map(|_| (own.certificate.as_path(), own.key.as_path()));
        let stream = secured(TcpStream::connect(to).await.unwrap(), &own.ca, shown, &[b"http/1.1"]).await.unwrap();
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in [("ndxp-purpose", PURPOSE), ("ndxp-official", OFFICIAL)].iter().chain(headers) {
            request = request.header(*name, *value);
        }
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// A call by Connect, in JSON.
    pub(super) async fn call(&self, path: &str, message: impl ToString) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], message.to_string()).await
    }

    pub(super) fn entry(&self, reply: &Reply) -> Entry {
        self.stage.entry(reply.text("ndxp-exchange-id")).entry
    }
}

pub(super) fn system<'s>(stage: &'s Stage, actor: &Actor) -> System<'s> {
    System { stage, id: Some("one-stop-shop"), token: actor.token.clone() }
}

/// The frames of a body: flag and content of each.
pub(super) fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while !body.is_empty() {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        all.push((body[0], body[5..5 + length].to_vec()));
        body = &body[5 + length..];
    }
    all
}

pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], u32::try_from(message.len()).unwrap().to_be_bytes().as_slice(), message].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_gets_what_grpc_gets_and_its_entry_says_which_it_was() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let system = system(&stage, &actor);
    let request = json!({ "unitCode": "1057000" });
    let wanted = actor.call(UNIT, request.clone()).await.ok();
    let wanted_bytes = &wanted.answered.messages[0];
    let encoded = actor.encode(UNIT, &request);
    let framed = framed(&encoded);
    let text = Bytes::from(request.to_string());
    for (path, media_type, body, protocol) in [
        (UNIT, "application/json", text.clone(), "connect"),
        (UNIT, "application/proto", encoded.clone(), "connect"),
        (UNIT, "application/grpc-web+proto", framed.clone().into(), "grpc-web"),
        ("/v1/budgetunit/GetUnit", "application/json", text.clone(), "rest"),
    ] {
        let reply = system.send("POST", path, &[("content-type", media_type)], body.clone()).await;
        assert_eq!((reply.status, reply.text("content-type")), (200, media_type), "{reply:?}");
        let message = match media_type {
            "application/grpc-web+proto" => {
                let frames = frames(&reply.body);
                assert_eq!((frames.len(), frames[0].0, frames[1].0), (2, 0, 0x80));
                assert!(String::from_utf8_lossy(&frames[1].1).contains("grpc-status: 0\r\n"));
                frames[0].1.clone()
            }
            _ => reply.body.to_vec(),
        };
        if media_type == "application/json" {
            assert_eq!(reply.json(), wanted.messages[0], "{path}");
        } else {
            assert_eq!(message, wanted_bytes.to_vec(), "{media_type}");
        }
        let entry = system.entry(&reply);
        assert_eq!(
            (entry.protocol.as_str(), entry.reason.as_str(), entry.client.as_str()),
            (protocol, "", "one-stop-shop")
        );
        // What the caller has sent and received is what the log is bound to.
        let sent = if protocol == "grpc-web" { &encoded } else { &body };
        let salt =
            |name: &str| data_encoding::HEXLOWER.decode(reply.text(name).as_bytes()).unwrap().try_into().unwrap();
        assert_eq!(entry.request_commitment, commit(&salt("ndxp-request-salt"), sent), "{media_type}");
        assert_eq!(entry.response_commitment, commit(&salt("ndxp-response-salt"), &message), "{media_type}");
    }
    assert_eq!(stage.entry(&wanted.exchange()).entry.protocol, "");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_comes_in_envelopes_and_its_end_says_how_it_ended() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let system = system(&stage, &actor);
    let request = json!({ "code": "madantoc" });
    let wanted = actor.call(CATALOGUE, request.clone()).await.ok();
    assert!(wanted.messages.len() > 3);
    let body = framed(request.to_string().as_bytes());
    let json = [("content-type", "application/connect+json")];
    let reply = system.send("POST", CATALOGUE, &json, body).await;
    assert_eq!((reply.status, reply.text("content-type")), (200, "application/connect+json"));
    let mut envelopes = frames(&reply.body);
    let (flag, end) = envelopes.pop().unwrap();
    let end: Value = serde_json::from_slice(&end).unwrap();
    assert_eq!((flag, &end["error"]), (2, &Value::Null));
    assert!(end["metadata"]["ndxp-log-index"][0].as_str().unwrap().parse::<u64>().is_ok(), "{end}");
    let messages: Vec<Value> = envelopes.iter().map(|(_, one)| serde_json::from_slice(one).unwrap()).collect();
    assert_eq!(messages, wanted.messages);
    let entry = system.entry(&reply);
    assert_eq!((entry.protocol.as_str(), entry.response_messages), ("connect", messages.len() as u64));
    // A refusal before the first message is the stream's end.
    let body = framed(json!({ "code": "khongco" }).to_string().as_bytes());
    let reply = system.send("POST", CATALOGUE, &json, body).await;
    let envelopes = frames(&reply.body);
    let end: Value = serde_json::from_slice(&envelopes[0].1).unwrap();
    assert_eq!((reply.status, envelopes.len(), envelopes[0].0), (200, 1, 2));
    assert_eq!(end["error"]["code"], "not_found", "{end}");
    // By gRPC-Web, too; plain JSON has no streams, and says where they are.
    let body = framed(&actor.encode(CATALOGUE, &request));
    let reply = system.send("POST", CATALOGUE, &[("content-type", "application/grpc-web")], body).await;
    assert_eq!(frames(&reply.body).len(), wanted.messages.len() + 1);
    let reply = system
        .send("POST", "/v1/catalogue/StreamCatalogue", &[("content-type", "application/json")], request.to_string())
        .await;
    assert_eq!((reply.status, reply.json()["reason"].as_str()), (501, Some("PROTOCOL_UNSUPPORTED")), "{reply:?}");
    assert!(reply.json()["detail"].as_str().unwrap().contains("application/connect+json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_caller_disconnects_and_its_entry_says_so() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let system = system(&stage, &actor);
    let to = stage.gateway.as_ref().unwrap().https.unwrap();
    let own = files(&stage.folder, "one-stop-shop");
    let shown = Some((own.certificate.as_path(), own.key.as_path()));
    let stream = secured(TcpStream::connect(to).await.unwrap(), &own.ca, shown, &[b"http/1.1"]).await.unwrap();
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    // Longer than what sockets and windows take.
    let body = framed(json!({ "code": "mabuuchinhcap3" }).to_string().as_bytes());
    let request = Request::post(CATALOGUE)
        .header("host", "localhost")
        .header("content-type", "application/connect+json")
        .header("authorization", format!("Bearer {}", system.token));
    let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let id = response.headers()["ndxp-exchange-id"].to_str().unwrap().to_owned();
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    connection.abort();
    drop((sender, body));
    let ended =
        || stage.exchanges().into_iter().find(|entry| entry.id_text() == id && entry.total_us > 0 && entry.status != 0);
    until("the stream has ended", || ended().is_some());
    assert_eq!(ended().unwrap().reason, "CANCELLED_BY_CALLER");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_by_grpc_is_refused_here_with_its_reason_and_its_entry() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let good = system(&stage, &actor);
    let unit = json!({ "unitCode": "1057000" });
    let nobody = System { token: String::new(), ..system(&stage, &actor) };
    let reply = nobody.call(UNIT, &unit).await;
    assert_eq!((reply.status, reply.error()), (401, ("unauthenticated".into(), "TOKEN_MISSING".into())));
    assert_eq!(good.entry(&reply).reason, "TOKEN_MISSING");
    stage.system("other");
    let stolen = System { id: Some("other"), ..system(&stage, &actor) };
    let reply = stolen.call(UNIT, &unit).await;
    assert_eq!((reply.status, reply.error().1.as_str()), (401, "TOKEN_NOT_BOUND_TO_CERTIFICATE"));
    // Without a certificate there is nobody: that, too, is in the log.
    let bare = System { id: None, ..system(&stage, &actor) };
    let reply = bare.call(UNIT, &unit).await;
    assert_eq!((reply.status, reply.error().1.as_str()), (401, "CERTIFICATE_REQUIRED"));
    let logged = || stage.entries().iter().any(|found| found.entry.reason == "CERTIFICATE_REQUIRED");
    until("it is in the log", logged);
    // Purpose, scope, contract.
    stage.client("clerk");
    stage.grant("clerk", &["population:verify"], |grant| grant.purposes = vec!["procedure:1.001193".into()]);
    let clerk = stage.actor("clerk");
    let clerk = System { stage: &stage, id: Some("clerk"), token: clerk.token };
    let reply = clerk.call(UNIT, &unit).await;
    assert_eq!((reply.status, reply.error()), (403, ("permission_denied".into(), "SCOPE_NOT_GRANTED".into())));
    let reply = clerk.call(VERIFY, json!({ "citizenId": "022080990129" })).await;
    assert_eq!((reply.status, reply.error().1.as_str()), (403, "PURPOSE_NOT_GRANTED"));
    let reply = good.call(VERIFY, json!({ "citizenId": "12" })).await;
    assert_eq!((reply.status, reply.error()), (400, ("invalid_argument".into(), "FIELD_INVALID".into())));
    let violations =
        reply.json()["details"].as_array().unwrap().iter().find(|one| one["type"] == "google.rpc.BadRequest").cloned();
    assert_eq!(violations.unwrap()["debug"]["fieldViolations"][0]["field"], "citizen_id");
    let reply = good.call("/ndxp.population.v1.PopulationService/None", "{}").await;
    assert_eq!((reply.status, reply.error().1.as_str()), (501, "OPERATION_UNKNOWN"));
    // A detail's value is the message of its type.
    let value = reply.json()["details"][0]["value"].as_str().unwrap().to_owned();
    let info = pb::ErrorInfo::decode(STANDARD_NO_PAD.decode(value).unwrap().as_slice()).unwrap();
    assert_eq!(info.reason, "OPERATION_UNKNOWN");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_call_are_refused_with_a_reason_and_an_entry() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let system = system(&stage, &actor);
    let deep = format!("{}1{}", r#"{"unitCode":"#.repeat(100), "}".repeat(100));
    for body in [
        "",
        "{",
        "null and more",
        "[]",
        "\"text\"",
        r#"{"unitCode": "1057000"} {}"#,
        r#"{"unitCode": "1057000", "unitCode": "1057001"}"#,
        r#"{"unitCode": "1057000", "unit_code": "1057001"}"#,
        r#"{"unitCode": 1057000}"#,
        r#"{"unitCode": ["1057000"]}"#,
        r#"{"unitCode": "1057000", "more": 1}"#,
        r#"{"unitCode": "\ud800"}"#,
        "{\"unitCode\": \"\u{0}\"}",
        "{'unitCode': '1057000'}",
        r#"{"unitCode": NaN}"#,
        &deep,
    ] {
        let reply = system.call(UNIT, body).await;
        assert_eq!((reply.status, reply.error().1.as_str()), (400, "REQUEST_MALFORMED"), "{body}: {reply:?}");
        assert!(!reply.json()["message"].as_str().unwrap().contains("1057"), "{reply:?}");
        assert_eq!(system.entry(&reply).reason, "REQUEST_MALFORMED", "{body}");
    }
    let json = "application/json";
    for (method, headers, status, reason) in [
        ("POST", vec![("content-type", "text/plain")], 415, "PROTOCOL_UNSUPPORTED"),
        ("POST", vec![], 415, "PROTOCOL_UNSUPPORTED"),
        ("POST", vec![("content-type", "application/grpc")], 415, "PROTOCOL_UNSUPPORTED"),
        ("PUT", vec![("content-type", json)], 405, "PROTOCOL_UNSUPPORTED"),
        ("GET", vec![], 405, "PROTOCOL_UNSUPPORTED"),
        ("POST", vec![("content-type", json), ("content-encoding", "gzip")], 501, "ENCODING_UNSUPPORTED"),
        ("POST", vec![("content-type", json), ("connect-protocol-version", "2")], 400, "REQUEST_MALFORMED"),
        ("POST", vec![("content-type", json), ("connect-timeout-ms", "soon")], 400, "REQUEST_MALFORMED"),
        ("POST", vec![("content-type", json), ("connect-timeout-ms", "0")], 504, "CALLER_DEADLINE"),
    ] {
        for path in [UNIT, "/v1/budgetunit/GetUnit"] {
            let rest = path.starts_with("/v1");
            // Connect reads this unit by GET, too: `openapi` has the test.
            if rest && headers.iter().any(|(name, _)| name.starts_with("connect-")) || !rest && method == "GET" {
                continue;
            }
            let reply = system.send(method, path, &headers, r#"{"unitCode": "1057000"}"#).await;
            let told = if rest { reply.json()["reason"].as_str().unwrap().to_owned() } else { reply.error().1 };
            assert_eq!((reply.status, told.as_str()), (status, reason), "{method} {path} {headers:?}: {reply:?}");
            let entry = system.entry(&reply);
            let protocol = if rest { "rest" } else { "connect" };
            assert_eq!(
                (entry.reason.as_str(), entry.protocol.as_str()),
                (reason, protocol),
                "{method} {path} {headers:?}"
            );
            let allowed = if rest { "POST" } else { "GET, POST" };
            assert_eq!(reply.text("allow"), if status == 405 { allowed } else { "" });
        }
    }
    // What may be written otherwise may be.
    for body in ["\u{feff}{\"unit_code\": \"1057000\"}", r#"{"unitCode":"1057000"}"#] {
        assert_eq!(system.call(UNIT, body).await.status, 200, "{body}");
    }
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_bounded_whatever_it_announces() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let system = system(&stage, &actor);
    let large = format!(r#"{{"unitCode": "{}"}}"#, "1".repeat(5 << 20));
    let json = [("content-type", "application/json")];
    let announced = large.len().to_string();
    for headers in [&json[..], &[json[0], ("content-length", announced.as_str())]] {
        let reply = system.send("POST", UNIT, headers, large.clone()).await;
        assert_eq!((reply.status, reply.error().1.as_str()), (429, "MESSAGE_TOO_LARGE"), "{reply:?}");
    }
    // One that never ends waits no longer than its call may take.
    let chunks = futures_util::stream::unfold(0u8, |_| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Some((Ok(http_body::Frame::data(Bytes::from_static(b" "))), 0))
    });
    let headers = [json[0], ("connect-timeout-ms", "1000")];
    let reply = system.stream("POST", UNIT, &headers, StreamBody::new(chunks)).await;
    assert_eq!((reply.status, reply.error().1.as_str()), (504, "CALLER_DEADLINE"), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_json_has_problem_details_for_what_goes_wrong() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let system = system(&stage, &actor);
    let json = [("content-type", "application/json")];
    let reply = system.send("POST", "/v1/population/VerifyCitizen", &json, r#"{"citizenId": "12"}"#).await;
    let problem = reply.json();
    assert_eq!((reply.status, reply.text("content-type")), (400, "application/problem+json"));
    assert_eq!(
        (problem["type"].as_str(), problem["status"].as_u64()),
        (Some("urn:ndxp:reason:FIELD_INVALID"), Some(400))
    );
    assert_eq!((problem["fault"].as_str(), problem["code"].as_str()), (Some("caller"), Some("invalid_argument")));
    assert_eq!(problem["violations"][0]["field"], "citizen_id");
    assert_eq!(problem["exchangeId"].as_str(), Some(reply.text("ndxp-exchange-id")));
    for path in ["/v1/population/None", "/v1/none/VerifyCitizen", "/v1/population/verifycitizen"] {
        let reply = system.send("POST", path, &json, "{}").await;
        assert_eq!((reply.status, reply.json()["reason"].as_str()), (404, Some("OPERATION_UNKNOWN")), "{path}");
    }
    let nobody = System { token: String::new(), stage: &stage, id: Some("one-stop-shop") };
    let reply = nobody.send("POST", "/v1/budgetunit/GetUnit", &json, r#"{"unitCode": "1057000"}"#).await;
    assert_eq!((reply.status, reply.text("www-authenticate")), (401, "Bearer"));
    // A rate says when to come again, here as by Connect.
    stage.client("hasty");
    stage.grant("hasty", &["budgetunit:read"], |grant| (grant.rate, grant.burst) = (1, 0));
    let hasty = stage.actor("hasty");
    let hasty = System { stage: &stage, id: Some("hasty"), token: hasty.token };
    let unit = r#"{"unitCode": "1057000"}"#;
    // One a second: of several at once all but one are too many.
    let (began, send) = (Instant::now(), || hasty.send("POST", "/v1/budgetunit/GetUnit", &json, unit));
    let replies = futures_util::future::join_all((0..8).map(|_| send())).await;
    let served = replies.iter().filter(|reply| reply.status == 200).count() as u64;
    assert!((1..=2 + began.elapsed().as_secs()).contains(&served), "{served} in {:?}", began.elapsed());
    let refused = replies.iter().find(|reply| reply.status == 429);
    assert_eq!(refused.map(|reply| reply.text("retry-after")), Some("1"), "{replies:?}");
}
