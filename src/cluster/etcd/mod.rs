//! One member of a real etcd, by gRPC: one channel, which connects by itself again. No balancer chooses between members:
//! [`EtcdMembers`](super::EtcdMembers) does.

mod access;
mod wire;

pub use access::EtcdAccess;

use super::keys::prefix_end;
use super::member::{
    EtcdMember, KeyValue, MemberStatus, RangePage, RangeRead, ResponseHeader, Txn, TxnCondition, TxnOperation,
    TxnOutcome,
};
use super::timers::RuntimeTimers;
use super::{ClusterError, EtcdMembers};
use access::MemberAddress;
use futures_util::stream::{self, StreamExt};
use prost::Message;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::client::Grpc;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use wire::{
    CREATE, CompactionRequest, DeleteRangeRequest, EQUAL, EmptyMessage, EtcdCompare, EtcdHeader, EtcdKeyValue,
    EtcdOperation, EtcdTarget, LESS, LeaseGrantRequest, LeaseRequest, LeaseResponse, MOD, PutRequest, RangeRequest,
    RangeResponse, RequestOp, StatusResponse, TxnRequest, TxnResponse, VALUE, WatchCreateRequest, WatchRequest,
    WatchResponse,
};

/// Maximum bytes of a response: four times a page of batches. tonic's default of 4 MB is less than what a limit of etcd's
/// own may return.
const MAX_RESPONSE: usize = 8 << 20;
/// How often an idle connection is probed, and how long for the response is waited.
const KEEPALIVE: Duration = Duration::from_secs(1);

/// The members of a real etcd.
pub type Members = EtcdMembers<EtcdChannel, RuntimeTimers>;

/// A connection to one member ([`EtcdAccess::channels`]).
#[derive(Debug, Clone)]
pub struct EtcdChannel(Channel);

impl EtcdChannel {
    /// A connection to this member. It is made at the first request, and again after it has ended.
    fn new(member: Arc<MemberAddress>, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        let endpoint = Endpoint::from(member.uri.clone())
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        let connect = move |_: Uri| {
            let (member, tls) = (member.clone(), tls.clone());
            async move { member.connect(tls).await }
        };
        EtcdChannel(endpoint.connect_with_connector_lazy(tower::service_fn(connect)))
    }

    async fn client(&self) -> Result<Grpc<Channel>, ClusterError> {
        let mut client = Grpc::new(self.0.clone()).max_decoding_message_size(MAX_RESPONSE);
        client.ready().await.map_err(|error| ClusterError::OutcomeUnknown(error.to_string()))?;
        Ok(client)
    }

    async fn unary<Q, R>(&self, path: &'static str, message: Q) -> Result<R, ClusterError>
    where
        Q: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let (mut client, path) = (self.client().await?, PathAndQuery::from_static(path));
        let response = client.unary(with_leader(message), path, ProstCodec::<Q, R>::default()).await;
        response.map(tonic::Response::into_inner).map_err(|status| error(&status))
    }

    /// Opens a stream with one message.
    async fn streaming<Q, R>(&self, path: &'static str, message: Q) -> Result<OpenStream<R>, ClusterError>
    where
        Q: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let (mut client, path) = (self.client().await?, PathAndQuery::from_static(path));
        let (requests, closed) = oneshot::channel::<Infallible>();
        let messages = stream::iter([message]).chain(stream::pending()).take_until(closed);
        let response = client.streaming(with_leader(messages), path, ProstCodec::<Q, R>::default()).await;
        let responses = response.map_err(|status| error(&status))?.into_inner();
        Ok(OpenStream { responses, _requests: requests })
    }
}

/// A stream whose both sides end when it is dropped. The side of the requests stays open until then, since etcd may end without
/// a response where it has ended; it has to be ended itself, since HTTP/2 resets no stream whose other side is still written:
/// etcd would go on to watch for it, and both would keep it as long as the connection.
struct OpenStream<R> {
    responses: Streaming<R>,
    _requests: oneshot::Sender<Infallible>,
}

impl<R> OpenStream<R> {
    async fn message(&mut self) -> Result<Option<R>, ClusterError> {
        self.responses.message().await.map_err(|status| error(&status))
    }
}

/// A member without a leader refuses such a request at once, instead of letting it wait.
fn with_leader<Q>(message: Q) -> Request<Q> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

/// What a failure says about the request. Only what is known to have had no effect is not an unknown outcome.
fn error(status: &Status) -> ClusterError {
    let (code, text) = (status.code(), status.message());
    let unknown = || ClusterError::OutcomeUnknown(format!("{code:?}: {text}"));
    match code {
        Code::OutOfRange if text.contains("compacted") => ClusterError::Compacted,
        Code::OutOfRange if text.contains("future revision") => ClusterError::FutureRevision,
        Code::ResourceExhausted if text.contains("space exceeded") => ClusterError::NoSpace,
        Code::NotFound if text.contains("lease not found") => ClusterError::LeaseExpired,
        Code::Unavailable if text.contains("etcdserver: no leader") || never_sent(status) => ClusterError::NoQuorum,
        // Users or roles were changed while the request was under way.
        Code::InvalidArgument if text.contains("revision of auth store is old") => unknown(),
        Code::InvalidArgument
        | Code::NotFound
        | Code::OutOfRange
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => ClusterError::Refused(format!("{code:?}: {text}{}", what_to_do(text))),
        _ => unknown(),
    }
}

/// What an administrator does where etcd does not let this gateway do something.
fn what_to_do(text: &str) -> &'static str {
    let rights =
        ": deploy/cluster/roles.sh creates the user of the certificate's common name, with the role \"gateway\"";
    let known = [
        ("permission denied", rights),
        ("user name not found", rights),
        ("user name is empty", ": the certificate has no common name, by which etcd knows its user"),
    ];
    known.iter().find(|(reason, _)| text.contains(reason)).map_or("", |(_, advice)| advice)
}

/// Whether no connection was made.
fn never_sent(status: &Status) -> bool {
    let first: Option<&(dyn Error + 'static)> = status.source();
    std::iter::successors(first, |error| (*error).source()).any(|error| error.is::<ConnectError>())
}

fn header(header: Option<EtcdHeader>) -> ResponseHeader {
    let EtcdHeader { cluster_id: cluster, member_id: member, revision } = header.unwrap_or_default();
    ResponseHeader { cluster, member, revision }
}

fn key_value(entry: EtcdKeyValue) -> KeyValue {
    let EtcdKeyValue { key, create_revision: created, mod_revision: modified, value, lease } = entry;
    KeyValue { key, value, created, modified, lease }
}

fn compare(condition: &TxnCondition) -> EtcdCompare {
    let mut range_end = Vec::new();
    let (result, target, key, with) = match condition {
        TxnCondition::CreatedAt(key, at) => (EQUAL, CREATE, key, EtcdTarget::CreateRevision(*at)),
        TxnCondition::ModifiedAt(key, at) => (EQUAL, MOD, key, EtcdTarget::ModRevision(*at)),
        TxnCondition::ValueBelow(key, bound) => (LESS, VALUE, key, EtcdTarget::Value(bound.clone())),
        TxnCondition::NoneIn(from, end) => {
            range_end.clone_from(end);
            (EQUAL, CREATE, from, EtcdTarget::CreateRevision(0))
        }
    };
    EtcdCompare { result, target, key: key.clone(), range_end, with: Some(with) }
}

fn operation(operation: &TxnOperation) -> RequestOp {
    let request = match operation.clone() {
        TxnOperation::Put(key, value, lease) => EtcdOperation::Put(PutRequest { key, value, lease }),
        TxnOperation::Get(key) => EtcdOperation::Range(RangeRequest { key, ..RangeRequest::default() }),
        TxnOperation::DeleteRange(key, range_end) => EtcdOperation::DeleteRange(DeleteRangeRequest { key, range_end }),
    };
    RequestOp { request: Some(request) }
}

impl EtcdMember for EtcdChannel {
    async fn transact(&self, txn: &Txn) -> Result<TxnOutcome, ClusterError> {
        let request = TxnRequest {
            compare: txn.conditions.iter().map(compare).collect(),
            success: txn.then.iter().map(operation).collect(),
            failure: txn.otherwise.iter().map(operation).collect(),
        };
        let response: TxnResponse = self.unary("/etcdserverpb.KV/Txn", request).await?;
        let ranges = response.responses.into_iter().filter_map(|response| response.range);
        let found = ranges.map(|range| range.kvs.into_iter().next().map(key_value)).collect();
        Ok(TxnOutcome { header: header(response.header), succeeded: response.succeeded, found })
    }

    async fn range(&self, read: &RangeRead) -> Result<RangePage, ClusterError> {
        let RangeRead { from: key, end: range_end, limit, revision, keys_only } = read.clone();
        let request = RangeRequest { key, range_end, limit, revision, keys_only };
        let response: RangeResponse = self.unary("/etcdserverpb.KV/Range", request).await?;
        let entries = response.kvs.into_iter().map(key_value).collect();
        Ok(RangePage { header: header(response.header), entries, has_more: response.more })
    }

    async fn grant_lease(&self, time: Duration) -> Result<i64, ClusterError> {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let request = LeaseGrantRequest { ttl: i64::try_from(seconds.max(2)).unwrap_or(i64::MAX) };
        let response: LeaseResponse = self.unary("/etcdserverpb.Lease/LeaseGrant", request).await?;
        Ok(response.id)
    }

    async fn renew_lease(&self, lease: i64) -> Result<(), ClusterError> {
        let request = LeaseRequest { id: lease };
        let mut responses: OpenStream<LeaseResponse> =
            self.streaming("/etcdserverpb.Lease/LeaseKeepAlive", request).await?;
        match responses.message().await? {
            Some(response) if response.ttl > 0 => Ok(()),
            Some(_) => Err(ClusterError::LeaseExpired),
            None => Err(ClusterError::OutcomeUnknown("the stream has ended".into())),
        }
    }

    async fn revoke_lease(&self, lease: i64) -> Result<(), ClusterError> {
        let revoked: Result<EmptyMessage, _> =
            self.unary("/etcdserverpb.Lease/LeaseRevoke", LeaseRequest { id: lease }).await;
        revoked.map(drop)
    }

    async fn wait_for_change(&self, prefix: &[u8], after: i64) -> Result<(), ClusterError> {
        let (key, range_end) = (prefix.to_vec(), prefix_end(prefix));
        let create = Some(WatchCreateRequest { key, range_end, start_revision: after + 1 });
        let request = WatchRequest { create };
        let mut responses: OpenStream<WatchResponse> = self.streaming("/etcdserverpb.Watch/Watch", request).await?;
        loop {
            match responses.message().await? {
                Some(response) if response.compact_revision > 0 => return Err(ClusterError::Compacted),
                Some(response) if !response.events.is_empty() => return Ok(()),
                Some(response) if !response.canceled => {}
                _ => return Err(ClusterError::OutcomeUnknown("the watch has ended".into())),
            }
        }
    }

    async fn status(&self) -> Result<MemberStatus, ClusterError> {
        let response: StatusResponse = self.unary("/etcdserverpb.Maintenance/Status", EmptyMessage {}).await?;
        Ok(MemberStatus {
            header: header(response.header),
            version: response.version,
            applied_index: response.raft_applied_index,
            leader: response.leader,
            bytes: response.db_size.unsigned_abs(),
            bytes_in_use: response.db_size_in_use.unsigned_abs(),
            alarms: response.errors,
        })
    }

    async fn compact(&self, revision: i64) -> Result<(), ClusterError> {
        let compacted: Result<EmptyMessage, _> =
            self.unary("/etcdserverpb.KV/Compact", CompactionRequest { revision }).await;
        compacted.map(drop)
    }
}
