//! What an attacker or a broken source sends: a clear status, a log entry, the gateway unharmed.

use crate::support::{
    Actor, CATALOGUE, ENTERPRISE, HOUSEHOLD, OFFICIAL_OF, PARCEL, Stage, UNIT, VERIFY, files, secured, until,
};
use bytes::Bytes;
use ndxp_gateway::exchange_log::Kind;
use ndxp_gateway::sandbox::FaultKind;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn alive(stage: &Stage, actor: &Actor) {
    actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    stage.verify();
}

fn refused_connections(stage: &Stage, reason: &str) -> usize {
    let fits = |one: &ndxp_gateway::exchange_log::reader::Found| {
        one.entry.kind() == Kind::Connection && one.entry.reason == reason
    };
    stage.entries().iter().filter(|one| fits(one)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_is_refused_and_logged() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let address = stage.gateway.as_ref().unwrap().address;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 600], b"\x16\x03\x01\xff\xff", b""] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap();
    }
    // A connection without a byte has only probed the port.
    until("three refused handshakes", || refused_connections(&stage, "HANDSHAKE_FAILED") == 3);
    alive(&stage, &actor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_certificate_of_the_ca_is_refused() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let own = files(&stage.folder, "one-stop-shop");
    let nobody = ndxp_gateway::caller::GatewayClient::with_identity(&stage.base(), &own.ca, None).unwrap();
    assert!(nobody.call(UNIT, &[], vec![Bytes::new()]).await.is_err());
    let elsewhere = stage.folder.path.join("other-ca");
    std::fs::create_dir(&elsewhere).unwrap();
    let other = ndxp_gateway::pki::Pki::at(&elsewhere);
    other.init().unwrap();
    let role = ndxp_gateway::pki::CertificateRole::Client("one-stop-shop".into());
    let (certificate, key) = other.issue("one-stop-shop", &role, 30).unwrap();
    let stranger =
        ndxp_gateway::caller::GatewayClient::with_identity(&stage.base(), &own.ca, Some((&certificate, &key))).unwrap();
    assert!(stranger.call(UNIT, &[], vec![Bytes::new()]).await.is_err());
    until("both in the log", || refused_connections(&stage, "HANDSHAKE_FAILED") >= 2);
    // A server certificate is not valid for a client (extended key usage).
    let server = stage.folder.path.join("pki/gateway.pem");
    let key = server.with_extension("key");
    let wrong_use =
        ndxp_gateway::caller::GatewayClient::with_identity(&stage.base(), &own.ca, Some((&server, &key))).unwrap();
    assert!(wrong_use.call(UNIT, &[], vec![Bytes::new()]).await.is_err());
    alive(&stage, &actor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused_after_the_list_is_loaded() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let other = stage.system("laptop");
    alive(&stage, &other).await;
    stage.folder.pki().revoke(&files(&stage.folder, "laptop").certificate).unwrap();
    // The list is checked once a second; it applies to new connections.
    let end = std::time::Instant::now() + Duration::from_secs(5);
    loop {
        let fresh = stage.with_token("laptop", &other.token);
        let unit = fresh.encode(UNIT, &json!({ "unitCode": "1057000" }));
        if fresh.caller.call(UNIT, &[], vec![unit]).await.is_err() {
            break;
        }
        assert!(std::time::Instant::now() < end, "the revoked certificate still gets in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    alive(&stage, &actor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_on_the_grpc_port_is_refused_and_logged() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let own = files(&stage.folder, "one-stop-shop");
    let stream = TcpStream::connect(stage.gateway.as_ref().unwrap().address).await.unwrap();
    let mut stream = secured(stream, &own.ca, Some((&own.certificate, &own.key)), &[]).await.unwrap();
    stream.write_all(b"POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap();
    until("the refusal", || refused_connections(&stage, "PROTOCOL_UNSUPPORTED") == 1);
    alive(&stage, &actor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_messages_are_refused_with_a_reason() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let metadata = [("ndxp-purpose", "1.004222"), ("ndxp-official", "022080990129")];
    let large = Bytes::from(vec![0; (4 << 20) + 1]);
    let not_utf8 = Bytes::from_static(&[0x0a, 2, 0xff, 0xfe]);
    let unknown_field = {
        let mut bytes = actor.encode(ENTERPRISE, &json!({ "enterpriseCode": "0100109106" })).to_vec();
        bytes.extend_from_slice(&[0xfa, 0x7f, 1, b'x']);
        Bytes::from(bytes)
    };
    let cut = Bytes::from_static(&[0x0a, 200, b'x']);
    for (message, reason) in [
        (large, "MESSAGE_TOO_LARGE"),
        (not_utf8, "REQUEST_MALFORMED"),
        (unknown_field, "FIELD_INVALID"),
        (cut, "REQUEST_MALFORMED"),
    ] {
        let told = actor.raw(ENTERPRISE, &metadata, vec![message]).await.unwrap();
        assert_eq!(told.reason(), reason);
        assert_eq!(stage.entry(&told.exchange()).entry.reason, reason);
    }
    // Two messages for a unary call, none, and a compressed one.
    let one = actor.encode(ENTERPRISE, &json!({ "enterpriseCode": "0100109106" }));
    for messages in [vec![one.clone(), one.clone()], vec![]] {
        assert_eq!(actor.raw(ENTERPRISE, &metadata, messages).await.unwrap().reason(), "PROTOCOL_UNSUPPORTED");
    }
    alive(&stage, &actor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_returns_garbage_harms_nobody() {
    let stage = Stage::prepared(&|folder| {
        for source in ["business", "population", "insurance", "land", "budgetunit", "catalogue", "officials"] {
            crate::support::edit(&folder.path.join(format!("sources/{source}.toml")), |text| {
                let (top, tables) = text.split_once("\n[").map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
                let tables = tables.map(|rest| format!("\n[{rest}")).unwrap_or_default();
                format!("{top}\nmax_response_bytes = 1000000\n{tables}\n[guard]\nbreaker_window = 1000\n")
            });
        }
    });
    let actor = stage.system("one-stop-shop");
    let province = stage.sandbox.province.clone();
    let person = &province.people[0];
    let claim = json!({ "citizenId": person.citizen_id, "fullName": person.full_name(), "birthDate": { "year": person.birth.0 } });
    let calls = [
        ("business", ENTERPRISE, json!({ "enterpriseCode": province.enterprises[0].code })),
        ("population", VERIFY, claim),
        ("insurance", HOUSEHOLD, json!({ "insuranceNumber": person.insurance_number })),
        (
            "land",
            PARCEL,
            json!({ "communeCode": province.parcels[0].town.commune, "mapSheet": "1", "parcelNumber": "1" }),
        ),
        ("budgetunit", UNIT, json!({ "unitCode": "1057000" })),
        ("catalogue", CATALOGUE, json!({ "code": "madantoc" })),
        ("officials", OFFICIAL_OF, json!({ "citizenId": province.people[province.officials[0].person].citizen_id })),
    ];
    for kind in [FaultKind::Huge, FaultKind::Garbage, FaultKind::Inconsistent, FaultKind::WrongContentType] {
        for (source, path, request) in &calls {
            stage.sandbox.faults.set(source, kind);
            let told = actor.call(path, request.clone()).await;
            stage.sandbox.faults.clear(source);
            assert_eq!(told.reason(), "SOURCE_PROTOCOL_ERROR", "{source}, {kind:?}: {:?}", told.answered.status);
            assert_eq!(stage.entry(&told.exchange()).entry.reason, "SOURCE_PROTOCOL_ERROR");
        }
    }
    for kind in [FaultKind::Drip, FaultKind::HangBody, FaultKind::Hang] {
        for (source, path, request) in &calls {
            stage.sandbox.faults.set(source, kind);
            let message = actor.encode(path, request);
            let metadata = [("ndxp-purpose", "1.004222"), ("ndxp-official", "022080990129"), ("grpc-timeout", "400m")];
            let told = actor.raw(path, &metadata, vec![message]).await.unwrap();
            stage.sandbox.faults.clear(source);
            assert_eq!(told.reason(), "CALLER_DEADLINE", "{source}, {kind:?}: {:?}", told.answered.status);
        }
    }
    for (_, path, request) in &calls {
        actor.call(path, request.clone()).await.ok();
    }
    alive(&stage, &actor).await;
}
