//! What clients call of the gateway's own services over the HTTPS port: receipts, their own use, and whether they may call.

use crate::support::{PURPOSE, Stage, UNIT};
use crate::web_calls::{Reply, System, system};
use ndxp_gateway::audit::service::api::{GetReceiptRequest, GetReceiptResponse, get_receipt_request::Of};
use ndxp_gateway::exchange_log::checkpoint::LogVerifier;
use ndxp_gateway::exchange_log::receipt::Receipt;
use prost::Message;
use serde_json::json;
use std::time::{Duration, Instant};

const RECEIPT: &str = "/ndxp.audit.v1.AuditService/GetReceipt";
const OWN_USE: &str = "/ndxp.audit.v1.AuditService/GetOwnUse";
const CAN_I: &str = "/ndxp.admin.v1.AdminService/CanI";

/// Asks for a receipt until the log has sealed its entry.
async fn receipt(system: &System<'_>, exchange: &str) -> Reply {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let reply = system.call(RECEIPT, json!({ "exchangeId": exchange })).await;
        if reply.status == 200 {
            return reply;
        }
        assert!(reply.status == 404 && Instant::now() < end, "{reply:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_without_grpc_gets_the_receipt_of_its_exchange_in_every_form() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let system = system(&stage, &actor);
    let called = system.call(UNIT, json!({ "unitCode": "1057000" })).await;
    let exchange = called.text("ndxp-exchange-id").to_owned();
    let reply = receipt(&system, &exchange).await;
    assert_eq!(reply.text("content-type"), "application/json");
    assert_eq!(reply.json()["index"].as_str().unwrap_or("0"), called.text("ndxp-log-index"));
    let vkey = std::fs::read_to_string(stage.data().join("log/vkey")).unwrap();
    let made = Receipt::parse(reply.json()["receipt"].as_str().unwrap()).unwrap();
    let (entry, _) = made.verify(&LogVerifier::parse(&vkey).unwrap()).unwrap();
    assert_eq!(entry.response_commitment, system.entry(&called).response_commitment);
    // The same as Protobuf, without and with gRPC-Web's frames.
    let encoded = GetReceiptRequest { of: Some(Of::ExchangeId(exchange.clone())) }.encode_to_vec();
    let wanted = |message: &[u8]| {
        let got = GetReceiptResponse::decode(message).unwrap();
        assert_eq!(Receipt::parse(&got.receipt).unwrap().index, made.index);
    };
    let reply = system.send("POST", RECEIPT, &[("content-type", "application/proto")], encoded.clone()).await;
    assert_eq!((reply.status, reply.text("content-type")), (200, "application/proto"), "{reply:?}");
    wanted(&reply.body);
    let framed = crate::web_calls::framed(&encoded);
    let reply = system.send("POST", RECEIPT, &[("content-type", "application/grpc-web+proto")], framed).await;
    let frames = crate::web_calls::frames(&reply.body);
    wanted(&frames[0].1);
    assert!(frames[1].0 == 0x80 && String::from_utf8_lossy(&frames[1].1).contains("grpc-status: 0\r\n"));
    // Nobody else gets it, by whatever certificate or none.
    stage.system("other");
    let other = System { stage: &stage, id: Some("other"), token: String::new() };
    let refused = other.call(RECEIPT, json!({ "exchangeId": exchange })).await;
    assert_eq!((refused.status, refused.error().0.as_str()), (404, "not_found"), "{refused:?}");
    let bare = System { stage: &stage, id: None, token: String::new() };
    let refused = bare.call(RECEIPT, json!({ "exchangeId": exchange })).await;
    assert_eq!((refused.status, refused.error().1.as_str()), (401, "CERTIFICATE_REQUIRED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_without_grpc_sees_its_own_use_and_whether_it_may_call() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let system = system(&stage, &actor);
    system.call(UNIT, json!({ "unitCode": "1057000" })).await;
    let reply = system.call(OWN_USE, "{}").await;
    assert_eq!((reply.status, reply.json()["client"].as_str()), (200, Some("one-stop-shop")), "{reply:?}");
    let ask = |operation: &str| json!({ "operation": operation, "purpose": PURPOSE, "official": "022080990129" });
    let allowed = system.call(CAN_I, ask(UNIT.trim_start_matches('/'))).await;
    assert_eq!(allowed.json()["allowed"], true, "{allowed:?}");
    stage.client("clerk");
    stage.grant("clerk", &["population:verify"], |_| ());
    let clerk = System { stage: &stage, id: Some("clerk"), token: stage.actor("clerk").token };
    let refused = clerk.call(CAN_I, ask(UNIT.trim_start_matches('/'))).await.json();
    // A field with its default is left out.
    assert_eq!((refused.get("allowed"), refused["reason"].as_str()), (None, Some("SCOPE_NOT_GRANTED")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_s_methods_are_not_on_the_https_port_and_what_is_no_call_is_refused() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let system = system(&stage, &actor);
    for method in
        ["ndxp.audit.v1.AuditService/Search", "ndxp.admin.v1.AdminService/ListClients", "grpc.health.v1.Health/Check"]
    {
        let reply = system.call(&format!("/{method}"), "{}").await;
        assert_eq!((reply.status, reply.error().1.as_str()), (501, "OPERATION_UNKNOWN"), "{method}: {reply:?}");
    }
    for body in ["", "{", r#"{"exchangeId": 1}"#, r#"{"exchangeId": "a", "exchangeId": "b"}"#, r#"{"other": "a"}"#] {
        let reply = system.call(RECEIPT, body).await;
        assert_eq!((reply.status, reply.error().1.as_str()), (400, "REQUEST_MALFORMED"), "{body}: {reply:?}");
    }
    let long = json!({ "exchangeId": "a".repeat(2_000) });
    let reply = system.call(RECEIPT, &long).await;
    assert_eq!((reply.status, reply.error().1.as_str()), (429, "MESSAGE_TOO_LARGE"), "{reply:?}");
    let reply = system.send("GET", RECEIPT, &[], "").await;
    assert_eq!((reply.status, reply.text("allow")), (405, "POST"), "{reply:?}");
    let reply = system.send("POST", RECEIPT, &[("content-type", "text/plain")], "{}").await;
    assert_eq!(reply.status, 415, "{reply:?}");
}
