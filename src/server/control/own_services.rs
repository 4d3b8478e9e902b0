//! Health, reflection, administration and audit, beside the exchanges. Health and reflection disclose no personal data
//! and are not logged; health is for every certificate of the CA, reflection for registered clients and staff. No
//! operation's deadline ends these calls, so a call begins only when its message is there.

use super::own_messages::OwnMessages;
use super::reflection::{DescribedFiles, Reflection};
use crate::access::refusals::{Identity, RefusalKind};
use crate::admin::{Admin, AdminServiceServer};
use crate::audit::service::{Audit, AuditServiceServer};
use crate::contract::ContractSet;
use crate::exchange_log::{Entry, Kind};
use crate::frame::HEADER;
use crate::identity::Peer;
use crate::identity::ends::expired;
use crate::identity::principal::Principal;
use crate::registry::{Role, now};
use crate::server::exchange::form::{CallForm, CallProtocol, RequestBody};
use crate::server::exchange::response::{self, ResponseBody};
use crate::server::own_calls::{OwnCallPermit, OwnService};
use crate::server::shared::Shared;
use crate::status::{Reason, Refusal};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response, Uri};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, BodyStream, Full, LengthLimitError, Limited, StreamBody};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::body::Body;
use tonic_health::pb::{FILE_DESCRIPTOR_SET as HEALTH, health_server::HealthServer};
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET as REFLECTION;
use tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET as REFLECTION_ALPHA;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

type Boxed = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// How long a message may take to arrive, after the call's headers, or after the previous message.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The gateway's own services, beside those of the contracts. Each one in this list is described by reflection.
const OWN: [&str; 5] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "ndxp.admin.v1.AdminService",
    "ndxp.audit.v1.AuditService",
];

/// Health and reflection over one set of contracts.
pub struct OwnServices {
    health: Boxed,
    reflection: Boxed,
    admin: Boxed,
    audit: Boxed,
    roles: MethodRoles,
    messages: OwnMessages,
}

impl OwnServices {
    /// Makes the services for a set of contracts; `None` if its files cannot be described (they have been compiled, so
    /// they can).
    pub fn new(health: &HealthReporter, admin: Admin, audit: Audit, contracts: &ContractSet) -> Option<Self> {
        let services = OWN.iter().map(|name| (*name).to_owned()).chain(contracts.services());
        let described = contracts
            .files()
            .iter()
            .map(|file| file.encode_to_vec())
            .try_fold(DescribedFiles::new(services), DescribedFiles::file)?;
        let described = [HEALTH, REFLECTION, REFLECTION_ALPHA].into_iter().try_fold(described, DescribedFiles::set)?;
        let service = HealthService::from_health_reporter(health.clone());
        let [for_health, for_admin, for_audit] =
            [OwnService::Health, OwnService::Administration, OwnService::Audit].map(OwnService::max_message);
        let admin_server = AdminServiceServer::new(admin.clone()).max_decoding_message_size(for_admin);
        let audit_server = AuditServiceServer::new(audit.clone()).max_decoding_message_size(for_audit);
        Some(OwnServices {
            health: BoxCloneSyncService::new(HealthServer::new(service).max_decoding_message_size(for_health)),
            admin: BoxCloneSyncService::new(admin_server),
            audit: BoxCloneSyncService::new(audit_server),
            reflection: BoxCloneSyncService::new(Reflection::server(described)),
            roles: MethodRoles { admin, audit },
            messages: OwnMessages::of(contracts),
        })
    }

    /// Serves one call of a service, with its permit, in the form that it came in.
    pub(in crate::server) async fn serve(
        &self,
        shared: &Arc<Shared>,
        peer: &Arc<Peer>,
        request: Request<RequestBody>,
        (service, call): (OwnService, OwnCallPermit),
        form: CallForm,
    ) -> Response<ResponseBody> {
        let right = ServiceAuthorization {
            shared: shared.clone(),
            peer: peer.clone(),
            changes: shared.registry_changed.subscribe(),
            needs: RequiredRight::of(service),
            _call: call,
        };
        let path = request.uri().path().to_owned();
        match self.begin(&right, request, (service, form)).await {
            Ok(answer) => {
                let answer = answer.map(|body| until_the_end(right, body));
                match form.protocol {
                    CallProtocol::Grpc => response::from_tonic(Ok(answer)),
                    _ => self.messages.response(&path, form.codec, answer).await,
                }
            }
            Err(refusal) => response::refused(&refusal, ""),
        }
    }

    /// Authorizes the caller first: a caller without the right sends no message.
    async fn begin(
        &self,
        right: &ServiceAuthorization,
        request: Request<RequestBody>,
        (service, form): (OwnService, CallForm),
    ) -> Result<Response<Body>, Refusal> {
        right.peer.check_time(now())?;
        let (mut head, body) = request.into_parts();
        let path = head.uri.path();
        self.roles.may_call(right, service, path.rsplit('/').next().unwrap_or_default()).await?;
        let mut tonic = match service {
            OwnService::Administration | OwnService::Questions => &self.admin,
            OwnService::Audit | OwnService::Receipts => &self.audit,
            OwnService::Health | OwnService::HealthWatch => &self.health,
            OwnService::Reflection => &self.reflection,
        }
        .clone();
        let body = match service {
            OwnService::Reflection => in_time(body),
            one_message => {
                let body = complete(body, one_message.max_message()).await?;
                Body::new(Full::new(self.messages.request(head.uri.path(), form, body)?))
            }
        };
        if service == OwnService::Reflection {
            // Older clients (grpcio-reflection among them) use v1alpha, which has the same messages.
            head.uri = reflection_path(head.uri);
        }
        head.extensions.insert(right.peer.clone());
        match tonic.ready().await {
            Ok(ready) => match ready.call(Request::from_parts(head, body)).await {
                Ok(answer) => Ok(answer),
                Err(never) => match never {},
            },
            Err(never) => match never {},
        }
    }
}

/// Maps a path of either version of reflection to the newer version.
fn reflection_path(uri: Uri) -> Uri {
    match uri.path() {
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
            Uri::from_static("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        }
        _ => uri,
    }
}

/// The roles that each method requires.
struct MethodRoles {
    admin: Admin,
    audit: Audit,
}

impl MethodRoles {
    async fn may_call(&self, right: &ServiceAuthorization, service: OwnService, method: &str) -> Result<(), Refusal> {
        let caller = Principal::Certificate(right.peer.clone());
        match service {
            OwnService::Health | OwnService::HealthWatch => Ok(()),
            OwnService::Reflection => right.check(),
            OwnService::Administration | OwnService::Questions => self.admin.may_call(&caller, method).await,
            OwnService::Audit | OwnService::Receipts => self.audit.may_call(&caller, method).await,
        }
    }
}

/// The right by which a call is served; it may be revoked, or expire, during the call.
struct ServiceAuthorization {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    changes: watch::Receiver<()>,
    needs: RequiredRight,
    /// Held until the response has ended.
    _call: OwnCallPermit,
}

/// The required right, beside a certificate of the CA.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RequiredRight {
    Nothing,
    /// A registered client, or a member of staff.
    Identity,
    /// The role. Receipts, which clients get too, are no stream.
    Auditor,
}

impl RequiredRight {
    fn of(service: OwnService) -> Self {
        match service {
            OwnService::Health | OwnService::HealthWatch | OwnService::Administration | OwnService::Questions => {
                RequiredRight::Nothing
            }
            OwnService::Reflection => RequiredRight::Identity,
            OwnService::Audit | OwnService::Receipts => RequiredRight::Auditor,
        }
    }

    fn service(self) -> &'static str {
        match self {
            RequiredRight::Nothing => "health",
            RequiredRight::Identity => "reflection",
            RequiredRight::Auditor => "audit",
        }
    }
}

impl ServiceAuthorization {
    fn check(&self) -> Result<(), Refusal> {
        self.peer.check_time(now())?;
        let registry = self.shared.registry.load();
        let staff = registry.staff_of(&self.peer.certificate.names);
        match (self.needs, staff) {
            (RequiredRight::Nothing, _) | (RequiredRight::Identity, Some(_)) => Ok(()),
            (RequiredRight::Identity, None) => self.peer.identify(&registry).map(|_| ()),
            (RequiredRight::Auditor, Some(staff)) if staff.roles.contains(&Role::Auditor) => Ok(()),
            (RequiredRight::Auditor, Some(_)) => Err(Reason::RoleMissing.into()),
            (RequiredRight::Auditor, None) => {
                self.peer.identify(&registry).map(|_| ()).map_err(|_| Reason::StaffUnknown.into())
            }
        }
    }

    /// Waits until the right no longer holds.
    async fn revoked(&mut self) -> Refusal {
        loop {
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
                () = expired(self.peer.certificate.end()) => {}
            }
            if let Err(refusal) = self.check() {
                return refusal;
            }
        }
    }

    /// Writes an entry for a stream that ended in this way.
    fn note(&self, refusal: &Refusal) {
        let entry = Entry {
            certificate: self.peer.certificate.thumbprint.0.to_vec(),
            peer: self.peer.address.to_string(),
            event: "stream.end".into(),
            object: format!("service:{}", self.needs.service()),
            status: refusal.reason.code() as u32,
            reason: refusal.reason.as_str().to_owned(),
            ..Entry::begin(Kind::Admin, &self.shared.node)
        };
        let by = Identity::Certificate(self.peer.certificate.thumbprint);
        self.shared.refusals.note_detached(RefusalKind::Staff, by, entry);
    }
}

/// Returns a response that ends when its right ends or the gateway ends.
fn until_the_end(right: ServiceAuthorization, body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let frames = stream::unfold(Some((right, BodyStream::new(body))), |rest| async {
        let (mut right, mut body) = rest?;
        let shared = right.shared.clone();
        let next = tokio::select! {
            biased;
            refusal = right.revoked() => {
                right.note(&refusal);
                Err(refusal)
            }
            next = shared.unless_ending(body.next()) => next,
        };
        match next {
            Ok(next) => next.map(|frame| (frame, Some((right, body)))),
            Err(refusal) => Some((Ok(Frame::trailers(response::refusal_trailers(&refusal, ""))), None)),
        }
    });
    Body::new(StreamBody::new(frames))
}

/// Reads a request of one message of at most `limit` bytes.
async fn complete(body: RequestBody, limit: usize) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(MESSAGE_TIMEOUT, Limited::new(body, HEADER + limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Refusal::with(Reason::MessageTooLarge, format!("more than {limit} bytes")))
        }
        Ok(Err(_)) => Err(Reason::Cancelled.into()),
        Err(_) => Err(too_slow()),
    }
}

fn too_slow() -> Refusal {
    Refusal::with(Reason::RequestTimeout, format!("longest wait: {MESSAGE_TIMEOUT:?}"))
}

/// Returns a stream of messages that ends if the next one does not arrive in time.
fn in_time(body: RequestBody) -> Body {
    let frames = stream::unfold(Some(BodyStream::new(body)), |body| async {
        let mut body = body?;
        match tokio::time::timeout(MESSAGE_TIMEOUT, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(frame))) => Some((Ok(frame), Some(body))),
            Ok(Some(Err(_))) => Some((Err(Refusal::from(Reason::Cancelled).to_status("")), None)),
            // The rest is not read.
            Err(_) => None,
        }
    });
    Body::new(StreamBody::new(frames))
}
