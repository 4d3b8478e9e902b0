//! An exchange as spans: a SERVER span for all of it, and below it one per reached stage. The source's stage is a CLIENT span, the parent
//! of the source's own spans. Attributes follow OpenTelemetry's semantic conventions for RPC, plus `ndxp.*`.

use super::context::ExchangeTrace;
use crate::telemetry::{EndedExchange, Stage};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> Option<KeyValue> {
    (!value.is_empty()).then(|| attribute(key, Value::StringValue(value.to_owned())))
}

/// Whether a status counts as a server error (semantic conventions for gRPC, server spans).
fn is_error(status: u32) -> bool {
    // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
    matches!(status, 2 | 4 | 12 | 13 | 14 | 15)
}

/// Spans of one exchange.
fn spans(trace: &ExchangeTrace, ended: &EndedExchange) -> impl Iterator<Item = Span> {
    let began = u64::try_from(ended.arrived_us).unwrap_or(0).saturating_mul(1_000);
    let whole = ended.stages.each().map(|(_, _, time)| time).sum::<std::time::Duration>();
    let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let (service, method) = ended.operation.rsplit_once('/').unwrap_or_default();
    let own = Span {
        trace_id: trace.trace.to_vec(),
        span_id: trace.span.to_vec(),
        parent_span_id: trace.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name: if ended.operation.is_empty() { "unknown operation".to_owned() } else { ended.operation.clone() },
        kind: SpanKind::Server as i32,
        start_time_unix_nano: began,
        end_time_unix_nano: began.saturating_add(nanos(whole)),
        attributes: [
            text("rpc.system", "grpc"),
            text("rpc.service", service),
            text("rpc.method", method),
            Some(attribute("rpc.grpc.status_code", Value::IntValue(ended.status.into()))),
            text("ndxp.exchange_id", &uuid::Uuid::from_bytes(ended.id).to_string()),
            text("ndxp.client", &ended.client),
            text("ndxp.source", &ended.source),
            text("ndxp.hub", &ended.hub),
            text("ndxp.reason", &ended.reason),
            text("ndxp.fault", &ended.fault),
        ]
        .into_iter()
        .flatten()
        .collect(),
        status: is_error(ended.status)
            .then(|| Status { message: ended.reason.clone(), code: StatusCode::Error as i32 }),
        ..Span::default()
    };
    let stages: Vec<Span> = ended
        .stages
        .each()
        .enumerate()
        .map(|(number, (stage, start, time))| {
            let start = began.saturating_add(nanos(start));
            let is_source = stage == Stage::Source;
            Span {
                trace_id: trace.trace.to_vec(),
                span_id: if is_source { trace.source.to_vec() } else { below(&trace.span, number) },
                parent_span_id: trace.span.to_vec(),
                name: stage.label().to_owned(),
                kind: if is_source { SpanKind::Client } else { SpanKind::Internal } as i32,
                start_time_unix_nano: start,
                end_time_unix_nano: start.saturating_add(nanos(time)),
                attributes: [
                    text("ndxp.source", if is_source { &ended.source } else { "" }),
                    is_source.then(|| attribute("ndxp.attempts", Value::IntValue(ended.attempts.into()))),
                ]
                .into_iter()
                .flatten()
                .collect(),
                ..Span::default()
            }
        })
        .collect();
    std::iter::once(own).chain(stages)
}

/// An id for a child span, used nowhere else.
fn below(span: &[u8; 8], number: usize) -> Vec<u8> {
    let number = u64::try_from(number).unwrap_or(0).wrapping_add(1);
    let id = u64::from_be_bytes(*span) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    id.max(1).to_be_bytes().to_vec()
}

/// Encodes a batch for a collector.
pub(super) fn request<'e>(
    node: &str,
    batch: impl Iterator<Item = (&'e ExchangeTrace, &'e EndedExchange)>,
) -> ExportTraceServiceRequest {
    let resource = [
        text("service.name", "ndxp-gateway"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", node),
    ];
    let resource = Resource { attributes: resource.into_iter().flatten().collect(), ..Resource::default() };
    let scope = InstrumentationScope { name: "ndxp_gateway".to_owned(), ..InstrumentationScope::default() };
    let spans = batch.flat_map(|(trace, ended)| spans(trace, ended)).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, schema_url: String::new() }];
    ExportTraceServiceRequest { resource_spans }
}
