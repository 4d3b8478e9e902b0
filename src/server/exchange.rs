//! One exchange, top to bottom, composed in this one place:
//!
//! identity → access (token) → route → access (grant, rate) → contract → guard → adapter → source, and back: keep the granted fields →
//! exchange log (durable) → response.

pub(in crate::server) mod attempt;
pub(in crate::server) mod authorization;
pub(in crate::server) mod context;
pub(in crate::server) mod dispatch;
pub(in crate::server) mod form;
pub(in crate::server) mod protocol;
pub(in crate::server) mod record;
pub(in crate::server) mod response;
pub(in crate::server) mod stream;

use super::shared::{Route, Routes, Shared};
use crate::access::{self, CallMetadata};
use crate::contract::fields::{self, Disclosed};
use crate::contract::settings::{CallContext, SentFlag};
use crate::contract::{CallShape, validate};
use crate::deadline::{CallTime, DeadlineOwner};
use crate::drivers::{Call, PageLimiter, SourceRequest, SourceResponse};
use crate::exchange_log::Kind;
use crate::frame::FrameReader;
use crate::guard::Permit;
use crate::identity::Peer;
use crate::registry;
use crate::status::{Reason, Refusal};
use crate::telemetry::Stage;
use arc_swap::ArcSwap;
use authorization::{AdmittedBy, AuthorizationWatch};
use bytes::Bytes;
use context::ExchangeContext;
use dispatch::{PagePermits, dispatch};
use form::{CallForm, CallProtocol, RequestBody};
use http::{HeaderMap, Request, Response};
use record::ExchangeRecord;
use response::ResponseBody;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Serves exchanges on one worker.
pub struct Exchange {
    /// Shared by all workers.
    pub shared: Arc<Shared>,
    /// This worker's own routes.
    pub routes: ArcSwap<Routes>,
}

/// The state of a call that may be dispatched to its source.
pub(super) struct Admitted {
    pub route: Route,
    /// The rights by which it was admitted; they may be revoked, or expire, while it runs.
    pub standing: AuthorizationWatch,
    pub context: Arc<CallContext>,
    /// Its deadline, by its operation and by its caller.
    pub time: CallTime,
}

impl Exchange {
    /// Serves one call, in whichever form it came. In every case an entry is durable before this returns a response.
    pub async fn serve(
        &self,
        peer: &Arc<Peer>,
        request: Request<RequestBody>,
        arrived: Instant,
        form: CallForm,
    ) -> Response<ResponseBody> {
        let mut record = ExchangeRecord::arrive(&self.shared, peer, arrived);
        record.context.form = form;
        let id = record.context.id();
        let (head, body) = request.into_parts();
        record.context.begin_trace(&head.headers);
        let admitted = self.admit(peer, &head, (arrived, form), &id, &mut record.context).await;
        record.context.enter(Stage::Request);
        // Before the source is asked: nothing may leave without an entry.
        let admitted = admitted.and_then(|admitted| match self.shared.log.admits() {
            Err(_) if !record.context.spools => Err(Reason::ExchangeLogUnavailable.into()),
            _ => Ok(admitted),
        });
        let result = match admitted {
            Ok(admitted) if admitted.route.operation.shape == CallShape::ServerStream => {
                // Boxed: most calls have one response and need no memory for a stream's state.
                return match Box::pin(self.open_stream(admitted, body, &mut record)).await {
                    Ok(source) => Box::pin(stream::respond(source, record)).await,
                    Err(refusal) => refuse(by_encoding(refusal, &head.headers, form), &mut record).await,
                };
            }
            Ok(admitted) => self.call(admitted, body, &mut record).await,
            Err(refusal) => Err(refusal),
        };
        let logged = match result {
            Ok(message) => record.close(None).await.map(|index| (index, message)),
            Err(refusal) => return refuse(by_encoding(refusal, &head.headers, form), &mut record).await,
        };
        match logged.and_then(|(index, message)| Ok((index, message, record.context.salts()?))) {
            Ok((index, message, salts)) => {
                let mut head = response::head(&id);
                response::put_entry(head.headers_mut(), index, &salts, record.context.remaining());
                response::put_maintenance(head.headers_mut(), record.context.notice());
                head.headers_mut().extend(std::mem::take(&mut record.context.response_metadata));
                response::unary(head, &message)
            }
            Err(refusal) => response::refused(&record.context.refusal(refusal), &id),
        }
    }

    /// Decides identity, access and route: everything before the request is read.
    async fn admit(
        &self,
        peer: &Arc<Peer>,
        head: &http::request::Parts,
        (arrived, form): (Instant, CallForm),
        id: &str,
        exchange: &mut ExchangeContext,
    ) -> Result<Admitted, Refusal> {
        let now = registry::now();
        let registry = self.shared.registry.load_full();
        let routes = self.routes.load();
        let route = routes.find(head.uri.path());
        if let Some(route) = route {
            exchange.operation(route);
        }
        let timeout = form.call()?;

        peer.check_time(now)?;
        let client = peer.identify(&registry)?;
        exchange.client(&client);
        let token = self.shared.tokens.authenticate(&head.headers, peer, &client, &registry, now)?;
        exchange.token(&token);
        let route = route.ok_or(Reason::OperationUnknown)?;
        let said = CallMetadata::read(&head.headers)?;
        exchange.metadata(&said)?;
        let grant = access::decide(&route.operation, &client, &token.scopes, &said, peer.address.ip(), now)?;
        let mut left = self.shared.limits.take(&grant, Instant::now(), now)?;
        if let Some(cluster) = self.shared.cluster.as_ref().filter(|_| grant.daily_quota > 0) {
            left = cluster.take_quota(&grant, left, now).await?;
        }
        exchange.admitted(&grant, left);
        exchange.maintenance(registry.notice(&route.operation.source.id, now));
        let mask = routes.masks.of(&grant, &route.operation);
        let (operation, purpose) = (route.operation.clone(), said.purpose.clone());
        let admitted = AdmittedBy { peer: peer.clone(), token, grant, operation, purpose };

        Ok(Admitted {
            context: Arc::new(CallContext {
                official: said.official,
                agency: client.client.agency.clone(),
                purpose: said.purpose,
                exchange_id: id.to_owned(),
                traceparent: if route.trace_context { exchange.traceparent(&head.headers) } else { None },
                observed: Arc::default(),
                drift: route.drift,
                sent: SentFlag::default(),
            }),
            route: route.clone(),
            standing: AuthorizationWatch::new(&self.shared, admitted, mask, (registry, routes.generation)),
            time: CallTime::new(route.operation.timeout, timeout.map(|timeout| arrived + timeout.min(MAX_STREAM))),
        })
    }

    /// Serves a call with one response.
    async fn call(&self, admitted: Admitted, body: RequestBody, record: &mut ExchangeRecord) -> Result<Bytes, Refusal> {
        let Admitted { route, mut standing, context, time } = admitted;
        let operation = route.operation.clone();
        let (request, tally) = if operation.shape == CallShape::ClientStream {
            let (messages, tally) = stream::incoming(&self.shared, &operation, record, (standing.client(), body))?;
            (SourceRequest::Stream(messages), Some(tally))
        } else {
            (self.read_one(&route, (standing.client(), body), time, &mut record.context).await?, None)
        };
        record.context.enter(Stage::Guard);
        let permit = match tally {
            Some(_) => route.guard.admit_stream(standing.client())?,
            None => admit(&route, standing.client(), time).await?,
        };
        // The message, or the wait for a permit, may have taken long.
        in_time(time)?;
        standing.check()?;
        if operation.writes {
            record.note(Kind::Intent).await?;
            record.context.writes(&context.sent);
        }
        record.context.enter(Stage::Source);
        let (observed, exchange) = (context.observed.clone(), &mut record.context);
        let call =
            Call { operation: operation.clone(), request, context, until: None, page_limiter: None, stream_wait: None };
        let result = tokio::select! {
            result = dispatch(&self.shared, &route, call, time, permit, exchange) => result,
            taken = standing.revoked(over_by(time)) => Err(taken),
        };
        exchange.enter(Stage::Response);
        exchange.noticed(observed.snapshot());
        self.shared.drifted(&operation, route.drift, &observed);
        let result = match tally {
            Some(tally) => {
                let tally = stream::take_counts(&tally);
                let awaited = tally.awaited;
                exchange.request_stream(tally);
                // The caller used up the time: its next message did not arrive.
                result.map_err(|refusal| {
                    if refusal.reason == Reason::SourceTimeout && awaited {
                        timed_out(DeadlineOwner::Operation)
                    } else {
                        refusal
                    }
                })
            }
            None => result,
        };
        let SourceResponse::One(message) = result? else {
            return Err(Refusal::with(Reason::SourceProtocolError, "a stream where one message was expected"));
        };
        let mut disclosed = Disclosed::up_to(operation.max_response_subjects);
        standing.check()?;
        let kept = fields::keep(&operation.response_fields, standing.mask(), &message, &mut disclosed)
            .map_err(|garbled| Refusal::with(Reason::SourceProtocolError, garbled.to_string()))?;
        exchange.disclosed(&operation, &disclosed)?;
        let shown = |path: &str| operation.response_fields.allows(standing.mask(), path);
        response::put_notes(&mut exchange.response_metadata, &exchange.notes, shown);
        let kept = exchange.form.codec.encode(&operation, kept)?;
        exchange.response(&kept)?;
        Ok(kept)
    }

    /// Serves a call with a response stream, up to the source's first response.
    async fn open_stream(
        &self,
        admitted: Admitted,
        body: RequestBody,
        record: &mut ExchangeRecord,
    ) -> Result<stream::OpenedStream, Refusal> {
        let Admitted { route, mut standing, context, time } = admitted;
        let request = self.read_one(&route, (standing.client(), body), time, &mut record.context).await?;
        record.context.enter(Stage::Guard);
        let stream_permit = route.guard.stream(standing.client())?;
        // The call's permit is for its first request only; each further request waits for one of its own.
        let permit = admit(&route, standing.client(), time).await?;
        in_time(time)?;
        standing.check()?;
        if route.operation.writes {
            record.note(Kind::Intent).await?;
            record.context.writes(&context.sent);
        }
        record.context.enter(Stage::Source);
        let operation = route.operation.clone();
        let (observed, exchange) = (context.observed.clone(), &mut record.context);
        let turns =
            PagePermits { guard: route.guard.clone(), client: standing.client().into(), operation: operation.clone() };
        let turns: Option<Arc<dyn PageLimiter>> = Some(Arc::new(turns));
        let call = Call { operation, request, context, until: None, page_limiter: turns, stream_wait: None };
        let begun = tokio::select! {
            begun = dispatch(&self.shared, &route, call, time, permit, exchange) => begun,
            taken = standing.revoked(over_by(time)) => Err(taken),
        };
        exchange.enter(Stage::Response);
        self.shared.drifted(&route.operation, route.drift, &observed);
        let begun = begun?;
        let messages = match begun {
            SourceResponse::Stream(messages) => messages,
            SourceResponse::One(message) => Box::pin(futures_util::stream::once(async { Ok(message) })),
        };
        Ok(stream::OpenedStream {
            drift: route.drift,
            operation: route.operation,
            standing,
            messages,
            observed,
            _permit: stream_permit,
            until: time.caller(),
        })
    }

    /// Reads, decodes and checks the one request message.
    async fn read_one(
        &self,
        route: &Route,
        (client, body): (&str, RequestBody),
        time: CallTime,
        exchange: &mut ExchangeContext,
    ) -> Result<SourceRequest, Refusal> {
        let operation = &route.operation;
        let mut request =
            FrameReader::new(body, self.shared.max_message).within(self.shared.message_memory.caller(client));
        let read = exchange.form.only(&mut request);
        let sent = time.wait(Instant::now()).bound(read).await.map_err(timed_out)??;
        let (message, bytes) = exchange.form.codec.decode(operation, &sent)?;
        exchange.request(operation, &message, &sent)?;
        let violations = validate::check(&operation.request, &message);
        if !violations.is_empty() {
            return Err(Refusal::fields(violations));
        }
        if exchange.is_purpose_missing(operation) {
            return Err(Reason::PurposeRequired.into());
        }
        Ok(SourceRequest::One { message, bytes })
    }
}

/// What a refusal of a compressed message says, where the protocol is gRPC's.
fn by_encoding(refusal: Refusal, headers: &HeaderMap, form: CallForm) -> Refusal {
    match form.protocol {
        CallProtocol::Grpc | CallProtocol::GrpcWeb => protocol::by_encoding(refusal, headers),
        // A stream of Connect that names a compression is no call, so a flag of one has none.
        CallProtocol::ConnectStream if form.fault.is_none() => protocol::by_encoding(refusal, &HeaderMap::new()),
        _ => refusal,
    }
}

/// Waits for a permit at the source.
async fn admit(route: &Route, client: &str, time: CallTime) -> Result<Permit, Refusal> {
    // A write with a shorter deadline than the operation's time would give its source less time as well: it does not
    // probe.
    let may_probe = |now| !route.operation.writes || time.source(now).owner == DeadlineOwner::Operation;
    route.guard.admit(client, time.wait(Instant::now()), may_probe).await
}

/// A call whose caller no longer waits is not dispatched: nothing is sent, and a write has no intent.
fn in_time(time: CallTime) -> Result<(), Refusal> {
    if time.is_over(Instant::now()) { Err(Reason::CallerDeadline.into()) } else { Ok(()) }
}

fn timed_out(whose: DeadlineOwner) -> Refusal {
    match whose {
        DeadlineOwner::Caller => Reason::CallerDeadline.into(),
        DeadlineOwner::Operation => Reason::RequestTimeout.into(),
    }
}

/// Returns when a call that is dispatched now is over, retries included: a right that ends later needs no timer.
fn over_by(time: CallTime) -> Option<Instant> {
    Some(time.source(Instant::now()).at + OTHER_TRIES)
}

/// Longest time that retries take beyond a call's deadline.
const OTHER_TRIES: Duration = Duration::from_secs(60);

/// Longest lifetime of a stream, whatever the caller requests: a day.
const MAX_STREAM: Duration = Duration::from_secs(86_400);

/// Refuses a call: its entry first, then its status. The entry of a call that was refused before its grant was known
/// may be suppressed.
async fn refuse(refusal: Refusal, record: &mut ExchangeRecord) -> Response<ResponseBody> {
    let (id, refusal) = (record.context.id(), record.context.refusal(refusal));
    match record.refuse(&refusal).await {
        Ok(index) => {
            let mut answer = response::refused(&refusal, &id);
            response::put_index(answer.headers_mut(), index);
            answer
        }
        Err(unlogged) => response::refused(&unlogged, &id),
    }
}
