//! The resources that one caller can take from all others: everything that it can make grow has a bound, and each bound is reached
//! here.

use crate::support::{Actor, LIMIT, Outside, Running, Stage, Told, UNIT, add_client, add_grant, files, issue};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use ndxp_gateway::audit::service::api::{
    GetReceiptRequest, GetReceiptResponse, SearchRequest, get_receipt_request::Of,
};
use ndxp_gateway::exchange_log::receipt::Receipt;
use ndxp_gateway::exchange_log::{Entry, Kind};
use ndxp_gateway::pki::{CertificateRole as PkiRole, DEFAULT_DAYS};
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::server::registry_path;
use prost::Message;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const RECEIPT: &str = "/ndxp.audit.v1.AuditService/GetReceipt";
const SEARCH: &str = "/ndxp.audit.v1.AuditService/Search";

async fn unit(actor: &Actor) -> Told {
    actor.call(UNIT, json!({ "unitCode": "1057000" })).await
}

async fn receipt(actor: &Actor, of: Of) -> Told {
    let request: Bytes = GetReceiptRequest { of: Some(of) }.encode_to_vec().into();
    actor.raw(RECEIPT, &[], vec![request]).await.unwrap()
}

/// The receipt of an exchange as soon as it is sealed: the gateway waits for that too, but not as long as a busy disk may take.
async fn sealed_receipt(actor: &Actor, of: Of) -> Told {
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        let told = receipt(actor, of.clone()).await;
        if told.reason() != "OBJECT_UNKNOWN" {
            return told.ok();
        }
        assert!(
            asked.elapsed() > Duration::from_millis(2_500),
            "the gateway waits three seconds: {:?}",
            asked.elapsed()
        );
        assert!(began.elapsed() < LIMIT, "no receipt of {of:?}");
    }
}

fn of(told: &Told) -> Of {
    Of::ExchangeId(told.exchange())
}

fn parsed(told: &Told) -> Receipt {
    let message = GetReceiptResponse::decode(told.answered.messages[0].clone()).unwrap();
    Receipt::parse(&message.receipt).unwrap()
}

/// A registered auditor's connection, without a token.
fn auditor(outside: &Outside, id: &str) -> Actor {
    let store = SqliteStore::open(&registry_path(&outside.config.data)).unwrap();
    outside.folder.pki().issue(id, &PkiRole::Staff(id.into()), DEFAULT_DAYS).unwrap();
    crate::support::add_auditor(&store, id);
    let base = format!("https://{}", outside.config.listen.grpc);
    let caller = ndxp_gateway::caller::GatewayClient::new(&base, &files(&outside.folder, id)).unwrap();
    Actor { caller, token: String::new(), contracts: outside.contracts.clone() }
}

fn threads(gateway: &Running) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", gateway.0.id())).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_the_caller_of_an_exchange_gets_its_receipt_as_soon_as_it_is_sealed() {
    let stage = Stage::start();
    let (shop, _other) = (stage.system("shop"), stage.system("other"));
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let told = unit(&shop).await.ok();
        let began = Instant::now();
        let by_id = sealed_receipt(&shop, of(&told)).await;
        fastest = fastest.min(began.elapsed());
        let index: u64 = told.answered.text("ndxp-log-index").parse().unwrap();
        assert_eq!(parsed(&by_id).index, index);
        assert_eq!(parsed(&receipt(&shop, Of::Index(index)).await.ok()), parsed(&by_id));
    }
    assert!(fastest < Duration::from_secs(2), "{fastest:?}");
    // A refused one is an exchange, too.
    let told = shop.raw(UNIT, &[], vec![Bytes::from_static(b"nonsense")]).await.unwrap();
    assert_eq!(told.reason(), "REQUEST_MALFORMED");
    sealed_receipt(&shop, of(&told)).await;
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_an_unknown_exchange_and_another_s_are_refused_alike() {
    let stage = Stage::start();
    let (shop, other) = (stage.system("shop"), stage.system("other"));
    let told = unit(&other).await.ok();
    sealed_receipt(&other, of(&told)).await;
    let unknown = Of::ExchangeId(uuid::Uuid::now_v7().to_string());
    let index = told.answered.text("ndxp-log-index").parse().unwrap();
    let mut seen = Vec::new();
    for one in [of(&told), unknown, Of::Index(index), Of::Index(1 << 40), Of::ExchangeId(uuid::Uuid::nil().to_string())]
    {
        let began = Instant::now();
        let told = receipt(&shop, one.clone()).await;
        let took = began.elapsed();
        seen.push((told.code(), told.reason(), told.answered.status.message().to_owned()));
        // At a multiple of a quarter second, not earlier: a busy machine misses the first, and may be late.
        let after = (took + Duration::from_millis(10)).as_millis();
        assert!(after >= 250 && after % 250 < 210, "{one:?}: {took:?}");
    }
    assert_eq!(seen[0].1, "OBJECT_UNKNOWN");
    assert!(seen.iter().all(|one| one == &seen[0]), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_requests_for_unknown_receipts_take_no_threads_memory_or_capacity_of_others() {
    let outside = Outside::new();
    let lan = auditor(&outside, "lan");
    let store = SqliteStore::open(&registry_path(&outside.config.data)).unwrap();
    add_client(&store, &outside.folder, "other");
    add_grant(&store, &outside.contracts, "other", &["*"], |_| {});
    let token = issue(&store, &outside.config, &outside.folder, "other", Duration::from_secs(3_600), Duration::ZERO);
    let gateway = Running::start(&outside.folder, &[]);
    let actor = outside.actor();
    let told = unit(&actor).await.ok();
    sealed_receipt(&actor, of(&told)).await;
    let (memory, most_threads) = (crate::support::memory(&gateway, "VmRSS"), threads(&gateway) + 24);
    let end = Instant::now() + Duration::from_secs(3);
    let flood = join_all((0..8).map(|_| async {
        let actor = outside.actor();
        let (mut limited, mut unknown) = (0, 0);
        while Instant::now() < end {
            let asked = (0..40).map(|_| receipt(&actor, Of::ExchangeId(uuid::Uuid::now_v7().to_string())));
            for told in join_all(asked).await {
                match told.reason().as_str() {
                    "RATE_LIMITED" => limited += 1,
                    "OBJECT_UNKNOWN" => unknown += 1,
                    other => panic!("{other}: {}", told.answered.status.message()),
                }
            }
        }
        (limited, unknown)
    }));
    let base = format!("https://{}", outside.config.listen.grpc);
    let caller = ndxp_gateway::caller::GatewayClient::new(&base, &files(&outside.folder, "other")).unwrap();
    let other = Actor { caller, token, contracts: outside.contracts.clone() };
    let others = async {
        while Instant::now() < end {
            let began = Instant::now();
            sealed_receipt(&other, of(&unit(&other).await.ok())).await;
            let search: Bytes = SearchRequest { page_size: 10, ..SearchRequest::default() }.encode_to_vec().into();
            lan.raw(SEARCH, &[], vec![search]).await.unwrap().ok();
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
            assert!(threads(&gateway) <= most_threads, "{} threads", threads(&gateway));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (seen, ()) = tokio::join!(flood, others);
    let (limited, unknown) = seen.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    // Four at once, a quarter second each.
    assert!(limited > 0 && (1..=4 * 16).contains(&unknown), "{limited} limited, {unknown} unknown");
    let after = crate::support::memory(&gateway, "VmRSS");
    assert!(after < memory + 64 * 1_024, "memory grew from {memory} to {after} kB");
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_an_auditor_reads_within_bounds_and_unread_streams_hold_no_thread() {
    let outside = Outside::new();
    let (lan, hoa) = (auditor(&outside, "lan"), auditor(&outside, "hoa"));
    let gateway = Running::start(&outside.folder, &[]);
    let actor = outside.actor();
    for _ in 0..20 {
        unit(&actor).await.ok();
    }
    let before = threads(&gateway);
    let open = |auditor: &Actor, path: &str| {
        let (caller, path) = (auditor.caller.clone(), format!("/ndxp.audit.v1.AuditService/{path}"));
        async move { caller.start(&path, &[], vec![Bytes::new()], None).await.unwrap() }
    };
    let mut held = Vec::new();
    for number in 0..6 {
        let mut stream = open(&lan, "Tail").await;
        let first = tokio::time::timeout(Duration::from_millis(300), stream.next()).await;
        if number < 4 {
            assert!(!matches!(first, Ok(Err(_))), "stream {number} goes on");
            held.push(stream);
        } else {
            assert!(matches!(first, Ok(Ok(None)) | Ok(Err(_))), "stream {number} is one too many");
            use tonic_types::StatusExt;
            assert_eq!(stream.end().1.get_details_error_info().unwrap().reason, "RATE_LIMITED");
        }
    }
    // Another client has its own share, and other reads continue.
    let mut others = open(&hoa, "Export").await;
    assert!(others.next().await.unwrap().is_some());
    let search: Bytes = SearchRequest::default().encode_to_vec().into();
    lan.raw(SEARCH, &[], vec![search]).await.unwrap().ok();
    assert!(threads(&gateway) <= before + 8, "{} threads, {before} before", threads(&gateway));
    // A finished one releases its permit.
    drop(held.pop());
    drop(held.pop());
    let freed = Instant::now();
    while !open(&lan, "Export").await.next().await.is_ok_and(|first| first.is_some()) {
        assert!(freed.elapsed() < Duration::from_secs(3), "its places do not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Makes that many calls, some concurrently, each refused for one of these reasons; one that a busy gateway sheds is
/// repeated.
async fn refused(actor: &Actor, path: &str, metadata: &[(&str, &str)], calls: usize, reasons: &[&str]) {
    let mut done = 0;
    while done < calls {
        for told in join_all((0..20.min(calls - done)).map(|_| actor.raw(path, metadata, vec![Bytes::new()]))).await {
            let reason = told.unwrap().reason();
            if reason != "GATEWAY_OVERLOADED" {
                assert!(reasons.contains(&reason.as_str()), "{reason}");
                done += 1;
            }
        }
    }
}

/// Matching entries, and the refusals that they count.
fn told_of(stage: &Stage, fits: impl Fn(&Entry) -> bool) -> (usize, u64) {
    let entries = stage.entries();
    let fitting = entries.iter().filter(|one| fits(&one.entry));
    fitting.fold((0, 0), |(entries, told), one| (entries + 1, told + 1 + one.entry.suppressed))
}

/// The entries that one identity may write in some seconds, with a burst; and one with the number of the others.
fn bounded(entries: usize, began: Instant) -> bool {
    entries as u64 <= 60 + began.elapsed().as_secs() + 3
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_refusals_of_one_identity_are_bounded_and_counted_and_granted_calls_are_unaffected() {
    let mut stage = Stage::start();
    let began = Instant::now();
    // An unregistered certificate of the CA; a client without a token; one without a grant for the operation; one
    // beyond its rate.
    stage.folder.pki().issue("stranger", &PkiRole::Client("stranger".into()), DEFAULT_DAYS).unwrap();
    let stranger = stage.with_token("stranger", "");
    stage.client("tokenless");
    stage.client("narrow");
    stage.grant("narrow", &["catalogue:read"], |_| {});
    stage.client("fast");
    stage.grant("fast", &["*"], |grant| (grant.rate, grant.burst) = (1, 1));
    let (narrow, fast, shop) = (stage.actor("narrow"), stage.actor("fast"), stage.system("shop"));
    let tokenless = stage.with_token("tokenless", "");
    let purpose = [("ndxp-purpose", crate::support::PURPOSE)];
    refused(&stranger, UNIT, &purpose, 500, &["CLIENT_UNKNOWN"]).await;
    refused(&stranger, "/no.Such/Operation", &purpose, 100, &["CLIENT_UNKNOWN"]).await;
    refused(&tokenless, UNIT, &purpose, 500, &["TOKEN_MISSING"]).await;
    refused(&narrow, UNIT, &purpose, 500, &["SCOPE_NOT_GRANTED"]).await;
    refused(&fast, UNIT, &purpose, 500, &["RATE_LIMITED", "FIELD_INVALID"]).await;
    // Admitted, although refused afterwards: each has its entry.
    refused(&shop, UNIT, &purpose, 500, &["FIELD_INVALID"]).await;
    let metrics = crate::support::ops_text(&stage, "/metrics");
    let suppressed = metrics.lines().find(|line| line.starts_with("ndxp_refusals_suppressed_total{kind=\"exchange\"}"));
    let suppressed: u64 = suppressed.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(suppressed > 1_000, "{suppressed}");
    drop(stage.gateway.take());
    let of = |client: &'static str| move |entry: &Entry| entry.client == client && entry.kind() == Kind::Exchange;
    let unknown = |entry: &Entry| entry.reason == "CLIENT_UNKNOWN";
    let stranger = told_of(&stage, unknown);
    assert!(bounded(stranger.0, began) && stranger.1 == 600, "{stranger:?}");
    for client in ["tokenless", "narrow"] {
        let told = told_of(&stage, of(client));
        assert!(bounded(told.0, began) && told.1 == 500, "{client}: {told:?}");
    }
    let limited = told_of(&stage, |entry| of("fast")(entry) && entry.grant.is_empty());
    let admitted = told_of(&stage, |entry| of("fast")(entry) && !entry.grant.is_empty());
    assert!(bounded(limited.0, began) && limited.1 + admitted.1 == 500, "{limited:?} {admitted:?}");
    assert_eq!(told_of(&stage, of("shop")), (500, 500));
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_few_refusals_have_an_entry_each_also_while_another_identity_exceeds_its_bound() {
    let stage = Stage::start();
    stage.client("tokenless");
    stage.client("polite");
    stage.settle();
    let purpose = [("ndxp-purpose", crate::support::PURPOSE)];
    refused(&stage.with_token("tokenless", ""), UNIT, &purpose, 400, &["TOKEN_MISSING"]).await;
    let polite = stage.with_token("polite", "nonsense");
    for _ in 0..20 {
        let told = polite.raw(UNIT, &purpose, vec![Bytes::new()]).await.unwrap();
        let index: u64 = told.answered.text("ndxp-log-index").parse().unwrap();
        let entry = stage.entry(&told.exchange());
        assert_eq!((entry.index, entry.entry.reason.as_str()), (index, "TOKEN_MALFORMED"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_refused_staff_and_refused_token_requests_are_bounded_too() {
    let mut stage = Stage::start();
    let began = Instant::now();
    stage.client("shop");
    stage.settle();
    let shop = stage.with_token("shop", "");
    refused(&shop, "/ndxp.admin.v1.AdminService/ListClients", &[], 300, &["STAFF_UNKNOWN"]).await;
    refused(&shop, SEARCH, &[], 300, &["STAFF_UNKNOWN"]).await;
    let own = files(&stage.folder, "shop");
    let https = stage.gateway.as_ref().unwrap().https.unwrap();
    let body = "grant_type=client_credentials&scope=land:read";
    let request = format!(
        "POST /oauth2/token HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let stream = tokio::net::TcpStream::connect(https).await.unwrap();
    let mut stream =
        crate::support::secured(stream, &own.ca, Some((&own.certificate, &own.key)), &[b"http/1.1"]).await.unwrap();
    let mut bytes = vec![0; 65_536];
    // Fewer than a client may make at once (tokens.fetches_per_s).
    for _ in 0..150 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let read = stream.read(&mut bytes).await.unwrap();
        assert!(String::from_utf8_lossy(&bytes[..read]).contains("invalid_scope"));
    }
    drop(stage.gateway.take());
    let staff = told_of(&stage, |entry| entry.reason == "STAFF_UNKNOWN");
    assert!(bounded(staff.0, began) && staff.1 == 600, "{staff:?}");
    let tokens = told_of(&stage, |entry| entry.event == "token.fetch");
    assert!(bounded(tokens.0, began) && tokens.1 == 150, "{tokens:?}");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_metadata_beyond_the_limit_is_refused_as_grpc_does_and_is_in_the_log() {
    let stage = Stage::start();
    let shop = stage.system("shop");
    let request = vec![shop.encode(UNIT, &json!({ "unitCode": "1057000" }))];
    let with = |bytes: usize| {
        let (shop, request) = (shop.clone(), request.clone());
        async move {
            let filler = "a".repeat(bytes / 4);
            let mut metadata = vec![("ndxp-purpose", crate::support::PURPOSE)];
            metadata.extend(["x-one", "x-two", "x-three", "x-four"].map(|name| (name, filler.as_str())));
            shop.raw(UNIT, &metadata, request).await.unwrap()
        }
    };
    // Beside the token and everything else, 10 kB more are accepted.
    with(10 << 10).await.ok();
    for kilobytes in [16, 40, 64, 100] {
        let told = with(kilobytes << 10).await;
        assert_eq!((told.code(), told.reason().as_str()), (tonic::Code::ResourceExhausted, "METADATA_TOO_LARGE"));
        assert_eq!(stage.entry(&told.exchange()).entry.reason, "METADATA_TOO_LARGE");
    }
    // At the gateway's own services too, and the connection continues.
    let filler = "a".repeat(40 << 10);
    let health = shop.raw("/grpc.health.v1.Health/Check", &[("x-one", &filler)], vec![Bytes::new()]).await.unwrap();
    assert_eq!(health.reason(), "METADATA_TOO_LARGE");
    with(0).await.ok();
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_many_calls_with_large_metadata_are_bounded_in_memory() {
    let outside = Outside::new();
    let gateway = Running::start(&outside.folder, &[]);
    let actor = outside.actor();
    unit(&actor).await.ok();
    let before = crate::support::memory(&gateway, "VmRSS");
    let filler = "a".repeat(30 << 10);
    let metadata = ["x-one", "x-two", "x-three", "x-four"].map(|name| (name, filler.as_str()));
    for _ in 0..3 {
        for told in join_all((0..60).map(|_| actor.raw(UNIT, &metadata, vec![Bytes::new()]))).await {
            // A machine that is busy with other suites may shed some of them before.
            let reason = told.unwrap().reason();
            assert!(["METADATA_TOO_LARGE", "GATEWAY_OVERLOADED"].contains(&reason.as_str()), "{reason}");
        }
    }
    let after = crate::support::memory(&gateway, "VmRSS");
    assert!(after < before + 96 * 1_024, "memory grew from {before} to {after} kB");
}

type Dawdling = (h2::client::ResponseFuture, h2::SendStream<Bytes>);

/// A call's headers and the first bytes of a large message whose rest does not arrive.
async fn dawdle(send: &mut h2::client::SendRequest<Bytes>, actor: &Actor) -> Dawdling {
    let request = http::Request::post(format!("https://localhost{UNIT}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("ndxp-purpose", crate::support::PURPOSE)
        .header("authorization", format!("Bearer {}", actor.token));
    *send = send.clone().ready().await.unwrap();
    let (answer, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
    let four_megabytes = [&[0][..], &(4u32 << 20).to_be_bytes()].concat();
    body.send_data(four_megabytes.into(), false).unwrap();
    (answer, body)
}

/// Whether a worker refused a call for its queue: with 32 calls in flight it may, on a busy machine.
fn is_admission_s(status: &tonic::Status) -> bool {
    use tonic_types::StatusExt;
    let overloaded = status.get_details_error_info().is_some_and(|info| info.reason == "GATEWAY_OVERLOADED");
    overloaded && !status.message().contains("large messages")
}

/// Dawdling calls until this many more megabytes are held; one that a busy worker refuses is tried again. All begin before the
/// first reaches its operation's timeout.
async fn dawdle_until(
    send: &mut h2::client::SendRequest<Bytes>,
    actor: &Actor,
    held: impl Fn() -> usize,
    more: usize,
) -> Vec<Dawdling> {
    let (all, mut calls) = (held() + more, Vec::new());
    for _ in 0..10 {
        for _ in 0..(all - held()) / 4 {
            calls.push(dawdle(send, actor).await);
        }
        let sent = calls.len();
        for _ in 0..200 {
            calls.retain_mut(|(answer, _)| {
                let refused = answer.now_or_never().map(|refused| refused.unwrap());
                let status = refused.map(|refused| tonic::Status::from_header_map(refused.headers()).unwrap());
                assert!(status.as_ref().is_none_or(is_admission_s), "{status:?}");
                status.is_none()
            });
            let missing = all - held();
            if missing == 0 {
                return calls;
            }
            if missing == 4 * (sent - calls.len()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    panic!("{} of {all} MB of large messages were taken", held());
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_one_client_s_large_messages_leave_room_for_another_s() {
    let stage = Stage::start();
    let (shop, other) = (stage.system("shop"), stage.system("other"));
    let connect = |id: &'static str| {
        let (own, address) = (files(&stage.folder, id), stage.gateway.as_ref().unwrap().address);
        async move {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let own_files = Some((own.certificate.as_path(), own.key.as_path()));
            let stream = crate::support::secured(stream, &own.ca, own_files, &[b"h2"]).await.unwrap();
            let (send, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            send
        }
    };
    let held = || {
        let text = crate::support::ops_text(&stage, "/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix("ndxp_large_message_bytes ")).unwrap().to_owned();
        line.parse::<usize>().unwrap() >> 20
    };
    // Alone it may have half of the memory, 256 MB in all; one sixty-fourth is one message.
    let mut first = connect("shop").await;
    let answers = dawdle_until(&mut first, &shop, held, 128).await;
    let mut tries = 0..10;
    let (beyond, _body, status) = loop {
        tries.next().expect("a worker that is not refusing calls for its queue");
        let (beyond, body) = dawdle(&mut first, &shop).await;
        let beyond = beyond.await.unwrap();
        let status = tonic::Status::from_header_map(beyond.headers()).unwrap();
        if !is_admission_s(&status) {
            break (beyond, body, status);
        }
    };
    use tonic_types::StatusExt;
    assert_eq!(status.get_details_error_info().unwrap().reason, "RATE_LIMITED");
    assert!(status.get_details_retry_info().is_some());
    // Small calls of the same client, and another client's large ones, continue.
    unit(&shop).await.ok();
    let mut second = connect("other").await;
    let others = dawdle_until(&mut second, &other, held, 64).await;
    assert_eq!(stage.entry(beyond.headers()["ndxp-exchange-id"].to_str().unwrap()).entry.reason, "RATE_LIMITED");
    // A cancelled call releases its memory.
    drop((first, second, answers, others, _body, beyond));
    crate::support::until("all of it back", || held() == 0);
}
