//! The conventions of the protocols that the gateway speaks: gRPC, HTTP, TLS.

use crate::support::{Actor, CITIZEN, ENTERPRISE, PURPOSE, Running, Stage, edit, files, lay, ops_text, secured, until};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use ndxp_gateway::frame::frame;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The response to one raw request on the gRPC port: its headers, and its trailers if there are any.
struct Raw {
    status: StatusCode,
    headers: HeaderMap,
    trailers: HeaderMap,
}

impl Raw {
    fn text(&self, name: &str) -> &str {
        let value = self.headers.get(name).or_else(|| self.trailers.get(name));
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

/// A request with this head and body on a connection of its own.
async fn raw(stage: &Stage, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Raw {
    let own = files(&stage.folder, "one-stop-shop");
    let stream = TcpStream::connect(stage.gateway.as_ref().unwrap().address).await.unwrap();
    let stream = secured(stream, &own.ca, Some((&own.certificate, &own.key)), &[b"h2"]).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(method).uri(format!("https://localhost{path}"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let mut send = send.ready().await.unwrap();
    let (answer, mut out) = send.send_request(request.body(()).unwrap(), body.is_empty()).unwrap();
    if !body.is_empty() {
        // A call refused by its headers may get a response before its body is sent.
        let _ = out.send_data(Bytes::copy_from_slice(body), true);
    }
    let (head, mut body) = answer.await.unwrap().into_parts();
    while let Some(data) = body.data().await {
        data.unwrap();
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    connection.abort();
    Raw { status: head.status, headers: head.headers, trailers }
}

/// A valid call, except for the given headers.
async fn enterprise(stage: &Stage, actor: &Actor, headers: &[(&str, &str)], flag: u8) -> Raw {
    let bearer = format!("Bearer {}", actor.token);
    let mut all = vec![("te", "trailers"), ("authorization", bearer.as_str()), ("ndxp-purpose", PURPOSE)];
    all.extend_from_slice(headers);
    let code = stage.sandbox.province.enterprises[0].code.clone();
    let mut body = frame(&actor.encode(ENTERPRISE, &json!({ "enterpriseCode": code }))).to_vec();
    body[0] = flag;
    raw(stage, "POST", ENTERPRISE, &all, &body).await
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

#[tokio::test(flavor = "multi_thread")]
async fn c_content_types_are_media_types_and_others_are_415() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC", "application/grpc; charset=utf-8"] {
        let told = enterprise(&stage, &actor, &[("content-type", kind)], 0).await;
        assert_eq!((told.status, told.text("grpc-status")), (StatusCode::OK, "0"), "{kind}");
    }
    // gRPC, so refused as gRPC does it.
    let told = enterprise(&stage, &actor, &[("content-type", "application/grpc+json")], 0).await;
    assert_eq!((told.status, told.text("grpc-status")), (StatusCode::OK, "12"));
    for kind in ["application/json", "application/grpc-web", "application/grpcx", "text/plain"] {
        let told = enterprise(&stage, &actor, &[("content-type", kind)], 0).await;
        assert_eq!(told.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
        // It is an exchange like any other refused one.
        let entry = stage.entry(told.text("ndxp-exchange-id")).entry;
        assert_eq!(entry.reason, "PROTOCOL_UNSUPPORTED", "{kind}");
    }
    assert_eq!(enterprise(&stage, &actor, &[], 0).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    // The gateway's own services are no exception.
    for path in [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/ndxp.admin.v1.AdminService/ListClients",
    ] {
        let told = raw(&stage, "POST", path, &[("content-type", "application/json")], b"{}").await;
        assert_eq!(told.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path}");
        let told = raw(&stage, "GET", path, &[], b"").await;
        assert_eq!((told.status, told.text("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"), "{path}");
    }
    let told = raw(&stage, "GET", ENTERPRISE, &[GRPC], b"").await;
    assert_eq!((told.status, told.text("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
    let health = raw(&stage, "POST", "/grpc.health.v1.Health/Check", &[GRPC], &frame(b"")).await;
    assert_eq!((health.status, health.text("grpc-status")), (StatusCode::OK, "0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn c_a_malformed_timeout_is_refused_and_a_good_one_is_not() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    for timeout in ["5S", "99999999H", "20000000u"] {
        let told = enterprise(&stage, &actor, &[GRPC, ("grpc-timeout", timeout)], 0).await;
        assert_eq!(told.text("grpc-status"), "0", "{timeout}");
    }
    for timeout in ["5s", "5", "S", "-1S", "123456789m", "1.5S", ""] {
        let told = enterprise(&stage, &actor, &[GRPC, ("grpc-timeout", timeout)], 0).await;
        assert_eq!((told.status, told.text("grpc-status")), (StatusCode::OK, "3"), "{timeout:?}");
        assert_eq!(stage.entry(told.text("ndxp-exchange-id")).entry.reason, "REQUEST_MALFORMED", "{timeout:?}");
        let path = "/grpc.health.v1.Health/Check";
        let told = raw(&stage, "POST", path, &[GRPC, ("grpc-timeout", timeout)], &frame(b"")).await;
        assert_eq!(told.text("grpc-status"), "3", "{timeout:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c_a_compressed_message_is_refused_with_the_accepted_encodings() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let told = enterprise(&stage, &actor, &[GRPC, ("grpc-encoding", "gzip")], 1).await;
    assert_eq!((told.text("grpc-status"), told.text("grpc-accept-encoding")), ("12", "identity"));
    // Announced, but not used: in gRPC each message chooses.
    let told = enterprise(&stage, &actor, &[GRPC, ("grpc-encoding", "gzip")], 0).await;
    assert_eq!(told.text("grpc-status"), "0");
    // Marked as compressed without a compression: the caller is broken, and another encoding would not help.
    for headers in [vec![GRPC], vec![GRPC, ("grpc-encoding", "identity")]] {
        let told = enterprise(&stage, &actor, &headers, 1).await;
        assert_eq!((told.text("grpc-status"), told.text("grpc-accept-encoding")), ("13", ""));
        assert_eq!(stage.entry(told.text("ndxp-exchange-id")).entry.reason, "COMPRESSION_FLAG_INVALID");
    }
    // The gateway's own services return the same.
    let path = "/grpc.health.v1.Health/Check";
    let told = raw(&stage, "POST", path, &[GRPC, ("grpc-encoding", "gzip")], &[1, 0, 0, 0, 0]).await;
    assert_eq!((told.text("grpc-status"), told.text("grpc-accept-encoding")), ("12", "identity"));
}

/// How a peer's end of a TLS connection sees it end, after these bytes: in order (`close_notify`), or cut off.
async fn end(
    address: std::net::SocketAddr,
    stage: &Stage,
    protocols: &[&[u8]],
    sent: &[u8],
) -> std::io::Result<Vec<u8>> {
    let own = files(&stage.folder, "one-stop-shop");
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = secured(stream, &own.ca, Some((&own.certificate, &own.key)), protocols).await?;
    stream.write_all(sent).await?;
    stream.flush().await?;
    let mut heard = Vec::new();
    let until_end = stream.read_to_end(&mut heard);
    tokio::time::timeout(std::time::Duration::from_secs(40), until_end).await.expect("it is still open")?;
    Ok(heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn c_connections_of_the_grpc_port_end_in_order() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let grpc = stage.gateway.as_ref().unwrap().address;
    let http1: &[u8] = b"POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
    // Another protocol than agreed on, none agreed on, and a preface that never comes.
    let (refused, unnamed, idle) = tokio::join!(
        end(grpc, &stage, &[b"h2"], http1),
        end(grpc, &stage, &[], http1),
        end(grpc, &stage, &[b"h2"], b""),
    );
    refused.expect("a refused connection is cut off");
    unnamed.expect("a connection without ALPN is cut off");
    idle.expect("an idle connection is cut off");
    // None of ours: TLS itself reports it.
    let error = end(grpc, &stage, &[b"http/1.1", b"h3"], b"").await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    // Revoked while it is open.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let certificate = files(&stage.folder, "one-stop-shop").certificate;
    let revoke = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        stage.folder.pki().revoke(&certificate).unwrap();
    };
    let (revoked, ()) = tokio::join!(end(grpc, &stage, &[b"h2"], preface), revoke);
    revoked.expect("a revoked connection is cut off");
    drop(actor);
}

#[tokio::test(flavor = "multi_thread")]
async fn c_connections_of_the_https_port_end_in_order_and_use_the_negotiated_protocol() {
    let stage = Stage::start();
    let _actor = stage.system("one-stop-shop");
    let https = stage.gateway.as_ref().unwrap().https.unwrap();
    let get: &[u8] = b"GET /oauth2/jwks.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let (served, unnamed, not_h2, not_http1, idle_h2, idle_http1, half) = tokio::join!(
        end(https, &stage, &[b"http/1.1"], get),
        end(https, &stage, &[], get),
        end(https, &stage, &[b"h2"], get),
        end(https, &stage, &[b"http/1.1"], preface),
        end(https, &stage, &[b"h2"], preface),
        end(https, &stage, &[b"http/1.1"], b""),
        end(https, &stage, &[b"http/1.1"], b"GET /oauth2/jw"),
    );
    // Each was closed in order, whatever else was wrong.
    assert!(served.unwrap().starts_with(b"HTTP/1.1 200 "));
    assert!(unnamed.unwrap().starts_with(b"HTTP/1.1 200 "), "without ALPN it is HTTP/1.1");
    // A peer that negotiated one protocol and uses the other gets a response in the negotiated one.
    assert!(!not_h2.unwrap().starts_with(b"HTTP/1.1"));
    let told = not_http1.unwrap();
    assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 4"), "{told:?}");
    for end in [idle_h2, idle_http1, half] {
        end.unwrap();
    }
    let error = end(https, &stage, &[b"h3", b"spdy/3"], b"").await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

fn network(text: &str) -> ndxp_gateway::registry::Network {
    ndxp_gateway::registry::Network::parse(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn c_the_entry_has_the_refusing_rule_and_the_caller_does_not_see_it() {
    let stage = Stage::start();
    let named = |stage: &Stage, client: &str, change: &dyn Fn(&mut ndxp_gateway::registry::Grant)| {
        stage.client(client);
        let grant = stage.grant(client, &["business:read"], change);
        (grant, stage.actor(client))
    };
    let (elsewhere, far) = named(&stage, "far", &|grant| grant.networks = vec![network("10.20.0.0/16")]);
    let (here, near) = named(&stage, "near", &|grant| grant.networks = vec![network("127.0.0.0/8")]);
    let (other, purpose) = named(&stage, "purpose", &|grant| grant.purposes = vec!["procedure:9.999999".into()]);
    let code = json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code });
    let told = far.call(ENTERPRISE, code.clone()).await;
    assert_eq!(told.reason(), "SCOPE_NOT_GRANTED");
    assert!(
        !told.answered.status.message().contains("network") && !told.answered.status.message().contains(&elsewhere)
    );
    assert_eq!(stage.entry(&told.exchange()).entry.rule, format!("network {elsewhere}"));
    let told = near.call(ENTERPRISE, code.clone()).await.ok();
    let entry = stage.entry(&told.exchange()).entry;
    assert_eq!((entry.grant, entry.rule), (here, String::new()));
    let told = purpose.call(ENTERPRISE, code.clone()).await;
    assert_eq!(told.reason(), "PURPOSE_NOT_GRANTED");
    assert_eq!(stage.entry(&told.exchange()).entry.rule, format!("purpose {other}"));
    // The token lacks it, whatever the grants have.
    let told = near.call(CITIZEN, json!({ "citizenId": stage.sandbox.province.people[0].citizen_id })).await;
    assert_eq!(
        (told.reason().as_str(), stage.entry(&told.exchange()).entry.rule.as_str()),
        ("SCOPE_NOT_GRANTED", "token-scope")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn c_metrics_and_health_have_their_media_types() {
    let stage = Stage::start();
    let metrics = ops_text(&stage, "/metrics").to_ascii_lowercase();
    assert!(
        metrics.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{metrics}"
    );
    assert!(metrics.trim_end().ends_with("# eof"));
    assert!(ops_text(&stage, "/healthz").to_ascii_lowercase().contains("content-type: text/plain; charset=utf-8\r\n"));
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn c_the_data_folder_is_its_owner_s_whatever_the_umask() {
    let (_dir, folder) = lay(&|folder| {
        edit(&folder.gateway_config(), |text| text.replace("data = \"data\"", "data = \"data\"\n"));
    });
    let data = folder.path.join("data");
    // A folder with wide permissions is closed; nothing in it is for others, whatever the shell's umask.
    std::fs::create_dir_all(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut gateway = Running(
        std::process::Command::new("sh")
            .args(["-c", "umask 000; exec \"$0\" serve --config \"$1\"", env!("CARGO_BIN_EXE_ndxp-gateway")])
            .arg(folder.gateway_config())
            .env("NDXP_LOG", "warn")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap(),
    );
    assert!(gateway.first_line().starts_with("gRPC on"));
    assert_eq!(mode(&data), 0o700);
    let mut seen = 0;
    until("files in the folder", || data.join("registry.sqlite").exists());
    let mut folders = vec![data];
    while let Some(folder) = folders.pop() {
        for one in std::fs::read_dir(folder).unwrap() {
            let path = one.unwrap().path();
            assert_eq!(mode(&path) & 0o077, 0, "{}: {:o}", path.display(), mode(&path));
            seen += 1;
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    assert!(seen >= 5, "only {seen} files");
}
