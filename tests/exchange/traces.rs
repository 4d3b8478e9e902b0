//! Traces: at a real receiver of OTLP, with their caller's trace, at a source only where its entry says so; dropped and counted where
//! nobody takes them; no person in them.

use super::privacy::{found, seeded};
use super::source_fixtures::raw::{Raw, Wire};
use crate::support::grpc_source::{READ, Source, with_folder};
use crate::support::{Actor, Stage, UNIT, approved_grant, edit, ops_text, until};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ndxp_gateway::sandbox::folder::DevFolder;
use ndxp_gateway::sandbox::samples::samples;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A receiver of OTLP over gRPC.
#[derive(Clone, Default)]
struct Receiver {
    batches: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    refuses: bool,
}

impl tonic::server::UnaryService<ExportTraceServiceRequest> for Receiver {
    type Response = ExportTraceServiceResponse;
    type Future = std::future::Ready<Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<ExportTraceServiceRequest>) -> Self::Future {
        if self.refuses {
            return std::future::ready(Err(tonic::Status::unavailable("full")));
        }
        self.batches.lock().unwrap().push(request.into_inner());
        std::future::ready(Ok(tonic::Response::new(ExportTraceServiceResponse::default())))
    }
}

impl Receiver {
    /// Serves on its own port, which is returned.
    fn serve(&self) -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (port, receiver) = (listener.local_addr().unwrap().port(), self.clone());
        tokio::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let receiver = receiver.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let receiver = receiver.clone();
                        async move { Ok::<_, Infallible>(receiver.answer(request).await) }
                    });
                    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        port
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<tonic::body::Body> {
        assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        let codec = tonic_prost::ProstCodec::<ExportTraceServiceResponse, ExportTraceServiceRequest>::default();
        tonic::server::Grpc::new(codec).unary(self.clone(), request).await
    }

    fn spans(&self) -> Vec<Span> {
        let batches = self.batches.lock().unwrap();
        let scopes = batches.iter().flat_map(|batch| &batch.resource_spans).flat_map(|one| &one.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Waits for the spans of one exchange; its own is first.
    fn exchange(&self, id: &str) -> Vec<Span> {
        let mut own = Vec::new();
        until("the spans", || {
            let spans = self.spans();
            let Some(root) = spans.iter().find(|span| text(span, "ndxp.exchange_id") == id) else { return false };
            own = vec![root.clone()];
            own.extend(spans.iter().filter(|span| span.parent_span_id == root.span_id).cloned());
            true
        });
        own
    }
}

fn text(span: &Span, key: &str) -> String {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key);
    match attribute.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Attribute::StringValue(text)) => text,
        Some(Attribute::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn traced(folder: &DevFolder, port: u16, percent: u32) {
    let keys = format!("[telemetry.traces]\nendpoint = \"http://127.0.0.1:{port}\"\nsample_percent = {percent}\n");
    edit(&folder.gateway_config(), |text| format!("{text}\n{keys}"));
}

/// A gateway with a gRPC source, which gets the trace context if `carried`.
async fn stage(port: Option<u16>, percent: u32, carried: bool) -> (Stage, Arc<Source>, Actor) {
    with_folder("", None, &|folder| {
        if let Some(port) = port {
            traced(folder, port, percent);
        }
        if carried {
            edit(&folder.path.join("sources/bulk.toml"), |text| format!("trace_context = true\n{text}"));
        }
    })
    .await
}

/// A call with its caller's trace context.
async fn call(actor: &Actor, path: &str, traceparent: &str) -> String {
    let request = actor.encode(path, &json!({}));
    let metadata = [("ndxp-purpose", "1.004222"), ("traceparent", traceparent)];
    actor.raw(path, &metadata[..if traceparent.is_empty() { 1 } else { 2 }], vec![request]).await.unwrap().exchange()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_continues_its_caller_s_trace_to_the_collector_and_to_its_source() {
    let receiver = Receiver::default();
    let (stage, source, actor) = stage(Some(receiver.serve()), 0, true).await;
    let id = call(&actor, READ, &format!("00-{TRACE}-{PARENT}-01")).await;
    let spans = receiver.exchange(&id);
    let own = &spans[0];
    assert_eq!((hex(&own.trace_id), hex(&own.parent_span_id)), (TRACE.into(), PARENT.into()));
    assert_eq!((own.kind, own.name.as_str()), (SpanKind::Server as i32, READ.trim_start_matches('/')));
    let said = ["ndxp.client", "ndxp.source", "ndxp.reason", "rpc.grpc.status_code", "rpc.method"];
    assert_eq!(said.map(|key| text(own, key)), ["one-stop-shop", "bulk", "OK", "0", "Read"]);
    assert!(own.status.is_none() && own.end_time_unix_nano > own.start_time_unix_nano);
    let names: Vec<&str> = spans[1..].iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["access", "request", "guard", "source", "response", "log"]);
    for span in &spans[1..] {
        assert_eq!(span.trace_id, own.trace_id);
        assert!(span.start_time_unix_nano >= own.start_time_unix_nano, "{span:?}");
        assert!(span.end_time_unix_nano <= own.end_time_unix_nano + 1_000_000, "{span:?}");
    }
    // The source gets the span of its own stage.
    let at_source = spans.iter().find(|span| span.kind == SpanKind::Client as i32).unwrap();
    let sent = source.trace.lock().unwrap().clone().unwrap();
    assert_eq!(sent, format!("00-{TRACE}-{}-01", hex(&at_source.span_id)));
    // A trace that its caller does not sample is not recorded; the source still gets its context.
    let unrecorded = call(&actor, READ, &format!("00-{TRACE}-{PARENT}-00")).await;
    let sent = source.trace.lock().unwrap().clone().unwrap();
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"), "{sent}");
    // An invalid trace context is ignored, and at 0 % the call is not recorded.
    let malformed = call(&actor, READ, "00-zzzz-zzzz-01").await;
    let sent = source.trace.lock().unwrap().clone().unwrap();
    assert!(!sent.contains("zzzz") && !sent.contains(TRACE), "{sent}");
    // A call refused before its grant was found is not recorded, whatever its sampling flag.
    let recorded = format!("00-{TRACE}-{PARENT}-01");
    let stranger = actor.raw("/invented.v1.S/M", &[("traceparent", &recorded)], vec![]).await.unwrap().exchange();
    let last = call(&actor, READ, &format!("00-{TRACE}-{PARENT}-01")).await;
    receiver.exchange(&last);
    for none in [unrecorded, malformed, stranger] {
        assert!(receiver.spans().iter().all(|span| text(span, "ndxp.exchange_id") != none));
    }
    until("the count", || ops_text(&stage, "/metrics").contains("ndxp_traces_exported_total 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_trace_context_reaches_a_source_by_default() {
    let receiver = Receiver::default();
    let (_stage, source, actor) = stage(Some(receiver.serve()), 100, false).await;
    let id = call(&actor, READ, &format!("00-{TRACE}-{PARENT}-01")).await;
    assert_eq!(*source.trace.lock().unwrap(), None);
    assert_eq!(hex(&receiver.exchange(&id)[0].trace_id), TRACE);
    // Without its caller's trace context, it starts a trace.
    let id = call(&actor, READ, "").await;
    let own = receiver.exchange(&id).remove(0);
    assert!(own.parent_span_id.is_empty() && hex(&own.trace_id) != TRACE && own.trace_id.len() == 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_a_source_gets_its_caller_s_trace_context_if_its_entry_allows_it() {
    let (_stage, source, actor) = stage(None, 0, true).await;
    call(&actor, READ, &format!("00-{TRACE}-{PARENT}-01")).await;
    assert_eq!(source.trace.lock().unwrap().clone().unwrap(), format!("00-{TRACE}-{PARENT}-01"));
    call(&actor, READ, &format!("00-{}-{PARENT}-01", "0".repeat(32))).await;
    assert_eq!(*source.trace.lock().unwrap(), None, "it is no trace");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_it_is_a_header_of_the_request() {
    for carried in [false, true] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stage = Stage::prepared(&|folder| {
            edit(&folder.path.join("hubs/vdxp.toml"), |text| {
                let line = |line: &str| match line.starts_with("address = ") {
                    true => format!("address = \"https://{address}\""),
                    false => line.to_owned(),
                };
                text.lines().map(line).collect::<Vec<_>>().join("\n")
            });
            if carried {
                edit(&folder.path.join("sources/budgetunit.toml"), |text| format!("trace_context = true\n{text}"));
            }
        });
        let raw = Raw::serve(listener, &stage.folder.path.join("pki"));
        raw.set(Wire::nothing());
        stage.client("one-stop-shop");
        stage.grant("one-stop-shop", &["budgetunit:read"], |_| {});
        let actor = stage.actor("one-stop-shop");
        let request = actor.encode(UNIT, &json!({ "unitCode": "1057000" }));
        let sent = format!("00-{TRACE}-{PARENT}-01");
        let told =
            actor.raw(UNIT, &[("ndxp-purpose", "1.004222"), ("traceparent", &sent)], vec![request]).await.unwrap();
        let heard = raw.heard().unwrap_or_else(|| panic!("{:?}", told.answered.status));
        let header = heard.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("traceparent"));
        assert_eq!(header.map(|(_, value)| value.as_str()), carried.then_some(sent.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_collector_costs_traces_but_no_call() {
    let refusing = Receiver { refuses: true, ..Receiver::default() }.serve();
    // A port without a listener, and one that refuses.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for port in [silent.local_addr().unwrap().port(), refusing] {
        let (stage, _source, actor) = stage(Some(port), 100, false).await;
        let began = Instant::now();
        for _ in 0..20 {
            call(&actor, READ, "").await;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        until("traces are dropped and counted", || {
            let page = ops_text(&stage, "/metrics");
            let line = page.lines().find(|line| line.starts_with("ndxp_traces_dropped_total{cause=\"collector\"}"));
            line.is_some_and(|line| !line.ends_with(" 0"))
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_person_is_in_a_trace() {
    let receiver = Receiver::default();
    let port = receiver.serve();
    let stage = Stage::prepared(&|folder| traced(folder, port, 100));
    stage.client("one-stop-shop");
    approved_grant(&stage, "one-stop-shop", &["*"]);
    let actor = stage.actor("one-stop-shop");
    let mut last = String::new();
    for sample in samples(&stage.sandbox.province) {
        let path = format!("/{}", sample.operation);
        let metadata = [("ndxp-purpose", sample.purpose.as_str()), ("ndxp-official", sample.official.as_str())];
        let requests: Vec<_> = sample.requests.iter().map(|one| actor.encode(&path, one)).collect();
        last = actor.raw(&path, &metadata, requests).await.unwrap().ok().exchange();
    }
    let id = stage.sandbox.province.people[0].citizen_id.clone();
    actor.raw(&format!("/{id}"), &[("ndxp-purpose", &id), ("tracestate", &format!("a={id}"))], vec![]).await.unwrap();
    receiver.exchange(&last);
    until("every exchange", || {
        receiver.spans().iter().filter(|span| span.kind == SpanKind::Server as i32).count()
            > samples(&stage.sandbox.province).len()
    });
    let names = seeded(&stage.sandbox.province);
    for batch in receiver.batches.lock().unwrap().iter() {
        assert_eq!(found(format!("{batch:?}").as_bytes(), &names), None);
    }
}
