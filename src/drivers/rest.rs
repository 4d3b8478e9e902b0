//! REST/JSON.

use super::connection::SourceConnection;
use super::credentials::Proof;
use super::http::{HttpResponse, status_error};
use super::open_data::{self, CacheableResponse, OpenData};
use super::reading::{EvaluatedResponse, evaluate, read_list, read_one};
use super::{
    Call, CallerFault, CredentialLocation, Driver, PageLimiter, Protocol, Requested, SourceError, SourceRequest,
    SourceResponse, by_meaning, unfit,
};
use crate::contract::map::{self, outcome, request};
use crate::contract::operation::{Operation, Paging, Polling, RestBinding, TemplatePart};
use crate::contract::plan::{FieldKind, WirePath};
use crate::contract::settings::CallContext;
use crate::contract::{Binding, CallShape};
use crate::contract::{json, text};
use crate::percent;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use prost_reflect::DynamicMessage;
use serde_json::Value;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// REST/JSON, with credentials in headers, or at the root of a body that has one.
pub const PROTOCOL: Protocol = Protocol {
    name: "rest",
    credentials: credential_locations,
    driver: |connection| Box::new(RestDriver::new(connection)),
};

fn credential_locations(operation: &Operation) -> &'static [CredentialLocation] {
    let Binding::Rest(binding) = &operation.binding else { return &[] };
    // A body that is one field's value, perhaps a bare list, has no root to add credentials to.
    let is_value = operation.request.fields.iter().any(|field| {
        let is_part = matches!(field.kind, FieldKind::Message(_)) && !field.list;
        !is_part && field.names.iter().any(|name| name.parts.is_empty())
    });
    match binding.query_by_default || is_value {
        true => &[CredentialLocation::Header],
        false => &[CredentialLocation::Header, CredentialLocation::JsonBody],
    }
}

/// REST/JSON towards one source.
pub struct RestDriver {
    inner: Arc<RestDriverState>,
}

struct RestDriverState {
    connection: Arc<SourceConnection>,
    open_data: OpenData,
}

impl RestDriver {
    /// A driver for a connection.
    pub fn new(connection: Arc<SourceConnection>) -> Self {
        RestDriver { inner: Arc::new(RestDriverState { connection, open_data: OpenData::new() }) }
    }
}

impl Driver for RestDriver {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<SourceResponse, SourceError>> {
        let inner = self.inner.clone();
        Box::pin(async move { inner.call(call).await })
    }
}

/// One operation's call, kept for the requests of a stream.
struct Ask {
    operation: Arc<Operation>,
    message: DynamicMessage,
    context: Arc<CallContext>,
    turns: Option<Arc<dyn PageLimiter>>,
}

impl RestDriverState {
    async fn call(self: Arc<Self>, call: Call) -> Result<SourceResponse, SourceError> {
        let SourceRequest::One { message, .. } = call.request else {
            return Err(SourceError::protocol("REST takes no stream"));
        };
        let ask = Ask { operation: call.operation, message, context: call.context, turns: call.page_limiter };
        match (ask.operation.shape, &ask.operation.polling, &ask.operation.paging) {
            (CallShape::ServerStream, Some(polling), _) => {
                let polling = polling.clone();
                self.poll(ask, polling).await
            }
            (CallShape::ServerStream, None, Some(paging)) => {
                let paging = paging.clone();
                self.pages(ask, paging).await
            }
            (CallShape::ServerStream, None, None) => {
                let (judged, fresh) = self.document(&ask, &[]).await?;
                let messages = read_list(&ask.operation, &judged, &ask.context)?;
                self.open_data.keep(fresh);
                Ok(SourceResponse::Stream(stream::iter(messages.into_iter().map(Ok)).boxed()))
            }
            _ => {
                let (judged, fresh) = self.document(&ask, &[]).await?;
                let message = read_one(&ask.operation, &judged, &ask.context)?;
                self.open_data.keep(fresh);
                Ok(SourceResponse::One(message))
            }
        }
    }

    /// One request and its judged answer, with fresh credentials once if they are refused.
    async fn document(
        &self,
        ask: &Ask,
        extra: &[(&str, String)],
    ) -> Result<(EvaluatedResponse, Option<CacheableResponse>), SourceError> {
        let Binding::Rest(binding) = &ask.operation.binding else {
            return Err(SourceError::protocol("no REST binding"));
        };
        let prepare = || {
            let OutgoingRequest { path, headers, body } = wire_request(ask, binding, &self.connection, extra)?;
            Ok((path, (headers, body)))
        };
        let send = |path, (headers, body), proof| async move {
            let wire = OutgoingRequest { path, headers, body };
            let (answer, fresh) = self.exchange(binding, wire, proof, &ask.context).await?;
            Ok((judged(&ask.operation, answer)?, fresh))
        };
        self.connection.authorized(&ask.context.sent, prepare, send).await
    }

    /// Sends a further request of a stream, once it has a permit.
    async fn further(&self, ask: &Ask, extra: &[(&str, String)]) -> Result<EvaluatedResponse, SourceError> {
        let request = || -> Requested<'_> { Box::pin(async { Ok(self.document(ask, extra).await?.0) }) };
        match &ask.turns {
            Some(turns) => turns.run(&request).await,
            None => request().await,
        }
    }

    async fn exchange(
        &self,
        binding: &RestBinding,
        mut wire: OutgoingRequest,
        proof: Proof,
        context: &CallContext,
    ) -> Result<(HttpResponse, Option<CacheableResponse>), SourceError> {
        let key = binding.etag.then(|| open_data::key(&wire.path, &wire.headers));
        wire.headers.extend(proof.headers);
        add_trace(&mut wire.headers, context);
        let body = wire.body.take().map(|mut body| {
            // A bare list has no field for credentials in the body: they must be headers.
            if let Value::Object(fields) = &mut body {
                fields.extend(proof.body);
            }
            Bytes::from(body.to_string())
        });
        let (method, path, body) = (binding.method.clone(), wire.path, body.unwrap_or_default());
        let endpoint = &self.connection.endpoint;
        let Some(key) = key else {
            return Ok((endpoint.send_marking(method, &path, wire.headers, body, &context.sent).await?, None));
        };
        let send = |headers| {
            let (endpoint, path) = (endpoint.clone(), path.clone());
            async move { endpoint.send(method, &path, headers, body).await }
        };
        self.open_data.get(&key, wire.headers, send).await
    }

    async fn pages(self: Arc<Self>, ask: Ask, paging: Paging) -> Result<SourceResponse, SourceError> {
        // The first page is fetched before the stream begins, so that a failure is a plain status.
        let extra = if paging.offset.is_empty() { Vec::new() } else { window(&paging, 0) };
        let (judged, _) = self.document(&ask, &extra).await?;
        let mut list = Paged { paging, pages: 0, received: 0, first: None, seen: HashSet::new() };
        let page = list.read(&ask, &judged)?;
        let messages = stream::try_unfold((self, ask, list, page), |(inner, ask, mut list, mut page)| async move {
            loop {
                if let Some(message) = page.messages.pop_front() {
                    return Ok(Some((message, (inner, ask, list, page))));
                }
                if page.last {
                    return Ok(None);
                }
                let next = window(&list.paging, list.received);
                page = match inner.further(&ask, &next).await {
                    // Beyond the last record there is none: this is the contract's own sign.
                    Err(SourceError::Caller(CallerFault::NotFound(_))) => return Ok(None),
                    judged => list.read(&ask, &judged?)?,
                };
            }
        });
        Ok(SourceResponse::Stream(messages.boxed()))
    }

    async fn poll(self: Arc<Self>, ask: Ask, polling: Polling) -> Result<SourceResponse, SourceError> {
        let first = read_one(&ask.operation, &self.document(&ask, &[]).await?.0, &ask.context)?;
        let end = Instant::now() + polling.max;
        let watch = Watch { inner: self, ask, polling, end, first: Some(first), seen: None, ended: false };
        let messages = stream::try_unfold(watch, |mut watch| async move {
            let next = watch.next().await?;
            Ok(next.map(|message| (message, watch)))
        });
        Ok(SourceResponse::Stream(messages.boxed()))
    }
}

/// How long a source may fail before its watches end.
const TROUBLE: Duration = Duration::from_secs(30);

/// A watched state: polled repeatedly, and reported when it has changed.
struct Watch {
    inner: Arc<RestDriverState>,
    ask: Ask,
    polling: Polling,
    end: Instant,
    first: Option<Bytes>,
    seen: Option<String>,
    ended: bool,
}

impl Watch {
    /// Returns the next state; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        while !self.ended {
            let message = match self.first.take() {
                Some(first) => first,
                None => match self.look().await? {
                    Some(message) => message,
                    None => return Ok(None),
                },
            };
            let state = watched(&self.ask.operation, &message, &self.polling.watch);
            if self.seen.as_ref() != Some(&state) {
                self.ended = self.polling.until.contains(&state);
                self.seen = Some(state);
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Returns the present state; `None` when it has been watched for long enough. The next poll makes up for one that
    /// fails.
    async fn look(&self) -> Result<Option<Bytes>, SourceError> {
        let began = Instant::now();
        while Instant::now() < self.end {
            tokio::time::sleep(self.polling.interval).await;
            match self.inner.further(&self.ask, &[]).await {
                Ok(judged) => return read_one(&self.ask.operation, &judged, &self.ask.context).map(Some),
                Err(error) if error.passes() && began.elapsed() < TROUBLE => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

struct ResponsePage {
    messages: VecDeque<Bytes>,
    last: bool,
}

/// A list that is fetched page by page, and its state.
struct Paged {
    paging: Paging,
    pages: u32,
    /// Records so far: sources may return smaller pages than requested.
    received: u64,
    /// The first record of the previous page.
    first: Option<Bytes>,
    /// A hash of each page so far, as many as the contract takes pages.
    seen: HashSet<u64>,
}

impl Paged {
    /// Reads a page. The list is complete if the source states it, or has no more records; a short page alone proves
    /// nothing.
    fn read(&mut self, ask: &Ask, judged: &EvaluatedResponse) -> Result<ResponsePage, SourceError> {
        let wrong = |what: &str| Err(SourceError::unreadable(what));
        let messages = read_list(&ask.operation, judged, &ask.context)?;
        self.pages += 1;
        self.received += messages.len() as u64;
        let Paging { total, more, .. } = &self.paging;
        // A value that is present, and is neither null nor a single value, is not understood.
        let said = |path: &Option<WirePath>, what: &str| {
            let found = path.as_ref().and_then(|path| map::lookup(&judged.document, &judged.document, path));
            let text = found.map(|value| map::scalar_text(value).ok_or_else(|| SourceError::unreadable(what)));
            text.transpose()
        };
        let total = match said(total, NO_TOTAL)? {
            Some(total) => match text::integer(total.trim()).and_then(|total| u64::try_from(total).ok()) {
                Some(total) => Some(total),
                None => return wrong(NO_TOTAL),
            },
            None => None,
        };
        let more = said(more, NO_FLAG)?.map(|more| more.trim().to_ascii_lowercase());
        let more = match more.as_deref() {
            None | Some("") => None,
            Some("true" | "1" | "y") => Some(true),
            Some("false" | "0" | "n") => Some(false),
            Some(_) => return wrong(NO_FLAG),
        };
        // A total that equals the first full page may be the page's own, and a total below the number of received
        // records certainly is.
        let full = self.pages == 1 && self.received == u64::from(self.paging.size) && !self.paging.offset.is_empty();
        let counted = total == Some(self.received) && !full;
        let last = match more {
            Some(more) => !more,
            None => counted || messages.is_empty(),
        };
        if total.is_some_and(|total| last && self.received < total) || (more == Some(true) && messages.is_empty()) {
            return wrong("the list ends before it is whole");
        }
        if !last && self.paging.offset.is_empty() {
            return match (total, more) {
                // Neither is given: the response is the complete list.
                (None, None) => Ok(ResponsePage { last: true, messages: messages.into() }),
                _ => wrong("the list ends before it is whole"),
            };
        }
        if !last && self.pages >= self.paging.max_pages {
            return wrong("the list has more pages than its contract takes");
        }
        // The previous page, or any earlier one: a source that repeats its pages reaches every total.
        let again = self.first.as_ref() == messages.first() || !self.seen.insert(hash_of(&messages));
        if !messages.is_empty() && again {
            return wrong("the source sends the same page again");
        }
        self.first = messages.first().cloned();
        Ok(ResponsePage { last, messages: messages.into() })
    }
}

const NO_TOTAL: &str = "the number of records in all is no number";
const NO_FLAG: &str = "the flag for more records is neither true nor false";

fn hash_of(messages: &[Bytes]) -> u64 {
    foldhash::fast::FixedState::default().hash_one(messages)
}

/// The entries of a list that make a page.
fn window(paging: &Paging, received: u64) -> Vec<(&str, String)> {
    vec![(&paging.offset, received.to_string()), (&paging.limit, paging.size.to_string())]
}

/// The watched field as text: an enum as its value's name.
fn watched(operation: &Operation, message: &Bytes, name: &str) -> String {
    let Some(plan) = operation.response.field(name) else { return String::new() };
    let Ok(message) = DynamicMessage::decode(operation.response.message.clone(), message.clone()) else {
        return String::new();
    };
    let value = message.get_field(&plan.field);
    match (&plan.kind, value.as_ref()) {
        (crate::contract::plan::FieldKind::Enum(values), prost_reflect::Value::EnumNumber(number)) => {
            values.iter().find(|value| value.number == *number).map(|value| value.name.clone()).unwrap_or_default()
        }
        (_, other) => other.to_string(),
    }
}

/// A request ready for the wire.
pub(super) struct OutgoingRequest {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Option<Value>,
}

fn wire_request(
    ask: &Ask,
    binding: &RestBinding,
    connection: &SourceConnection,
    extra: &[(&str, String)],
) -> Result<OutgoingRequest, SourceError> {
    outgoing(&ask.operation, &ask.message, &ask.context, binding, connection, extra)
}

/// Builds a request by its REST binding; X-Road REST uses it too.
pub(super) fn outgoing(
    operation: &Operation,
    message: &DynamicMessage,
    context: &CallContext,
    binding: &RestBinding,
    connection: &SourceConnection,
    extra: &[(&str, String)],
) -> Result<OutgoingRequest, SourceError> {
    let names: Vec<&str> = binding
        .template
        .iter()
        .filter_map(|part| if let TemplatePart::Name(name) = part { Some(name.as_str()) } else { None })
        .collect();
    let layout = request::Layout { path_names: &names, query: binding.query_by_default, body_root: &binding.body_root };
    let mut wire = request::write(operation, message, layout, context, &connection.settings)?;
    for (name, value) in extra {
        if binding.query_by_default {
            wire.query.push(((*name).to_owned(), value.clone()));
        } else {
            let value = value.parse::<i64>().map_or_else(|_| Value::from(value.clone()), Value::from);
            map::insert_at(&mut wire.body, &[(*name).to_owned()], value);
        }
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in &wire.headers {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| SourceError::internal("its contract names no header"))?;
        let value = HeaderValue::from_str(value).map_err(|_| unfit(name.as_str(), "it is not valid in a header"))?;
        headers.insert(name, value);
    }
    let body = (!binding.query_by_default).then(|| wire.document.take().unwrap_or(Value::Object(wire.body)));
    if body.is_some() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    }
    Ok(OutgoingRequest { path: fill_path(binding, &wire.path, &wire.query), headers, body })
}

fn fill_path(binding: &RestBinding, values: &[(String, String)], query: &[(String, String)]) -> String {
    let mut path = String::new();
    for part in &binding.template {
        match part {
            TemplatePart::Literal(text) => path.push_str(text),
            TemplatePart::Name(name) => {
                if let Some((_, value)) = values.iter().find(|(known, _)| known == name) {
                    path.extend(percent::encode(value));
                }
            }
        }
    }
    for (index, (name, value)) in query.iter().enumerate() {
        path.push(if index == 0 { '?' } else { '&' });
        path.extend(percent::encode(name));
        path.push('=');
        path.extend(percent::encode(value));
    }
    path
}

/// Passes the caller's trace on (W3C Trace Context).
pub(super) fn add_trace(headers: &mut HeaderMap, context: &CallContext) {
    if let Some(value) = context.traceparent.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert(HeaderName::from_static("traceparent"), value);
    }
}

/// Judges a response. HTTP's meaning comes first (RFC 9110, section 15); if that leaves open whether the source itself
/// responded, a failure code of its contract decides.
pub(super) fn judged(operation: &Operation, answer: HttpResponse) -> Result<EvaluatedResponse, SourceError> {
    let accepted = match &operation.binding {
        Binding::Rest(rest) | Binding::XRoadRest { rest, .. } => rest.accepted && answer.status == StatusCode::ACCEPTED,
        _ => false,
    };
    let Some(error) = status_error(answer.status, &answer.headers).filter(|_| !accepted) else {
        return evaluate(operation, parse_json(operation, &answer)?, None);
    };
    if matches!(answer.status.as_u16(), 400 | 404 | 409 | 410 | 422 | 500)
        && let Ok(document) = json::parse(&answer.body)
        && let Some((meaning, code)) = outcome::named_failure(&operation.outcome, &document)
    {
        return Err(by_meaning(meaning, code));
    }
    Err(error)
}

/// Reads a JSON response. An empty body is a response only if the status means that there is none, and the contract
/// expects none.
fn parse_json(operation: &Operation, answer: &HttpResponse) -> Result<Value, SourceError> {
    let empty = answer.body.iter().all(u8::is_ascii_whitespace);
    if empty
        && matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::ACCEPTED)
        && operation.response.fields.is_empty()
    {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    if empty {
        return Err(SourceError::protocol("the response is empty"));
    }
    json::parse(&answer.body).map_err(|error| match error {
        json::JsonError::Malformed => SourceError::protocol("the response is not JSON"),
        other => SourceError::protocol(other.to_string()),
    })
}
