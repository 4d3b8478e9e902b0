//! Health, reflection, administration and audit, beside the exchanges. Health and reflection disclose nobody's data and are not
//! logged; health is for every certificate of the CA, reflection for registered clients and those who administer.

use super::answer::{self, AnswerBody};
use super::shared::Shared;
use crate::admin::{Admin, AdminServiceServer};
use crate::audit::service::{Audit, AuditServiceServer};
use crate::contract::ContractSet;
use crate::http2::Incoming;
use crate::identity::Peer;
use http::{Request, Response};
use prost_types::FileDescriptorSet;
use std::convert::Infallible;
use std::sync::Arc;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

type Boxed = BoxCloneSyncService<Request<Incoming>, Response<tonic::body::Body>, Infallible>;

/// Health and reflection over one set of contracts.
pub struct Infra {
    health: Boxed,
    reflection: Boxed,
    /// Older clients (grpcio-reflection among them) ask for v1alpha.
    reflection_alpha: Boxed,
    admin: Boxed,
    audit: Boxed,
}

impl Infra {
    /// Whether a path is one of these services'.
    pub fn serves(path: &str) -> bool {
        path.starts_with("/grpc.health.v1.Health/")
            || path.starts_with("/grpc.reflection.")
            || path.starts_with("/ndxp.admin.v1.AdminService/")
            || path.starts_with("/ndxp.audit.v1.AuditService/")
    }

    /// The services for a set of contracts; `None` where its files cannot be described (they have been compiled, so
    /// they can).
    pub fn new(health: &HealthReporter, admin: Admin, audit: Audit, contracts: &ContractSet) -> Option<Self> {
        let files = FileDescriptorSet {
            file: contracts.files().iter().map(|file| file.file_descriptor_proto().clone()).collect(),
        };
        let configured = || {
            let builder = tonic_reflection::server::Builder::configure().register_file_descriptor_set(files.clone());
            let own = ["grpc.health.v1.Health", "ndxp.admin.v1.AdminService", "ndxp.audit.v1.AuditService"];
            let builder = own.into_iter().fold(builder, |builder, name| builder.with_service_name(name));
            contracts.services().into_iter().fold(builder, |builder, name| builder.with_service_name(name))
        };
        let service = HealthService::from_health_reporter(health.clone());
        Some(Infra {
            health: BoxCloneSyncService::new(HealthServer::new(service)),
            admin: BoxCloneSyncService::new(AdminServiceServer::new(admin)),
            audit: BoxCloneSyncService::new(AuditServiceServer::new(audit)),
            reflection: BoxCloneSyncService::new(configured().build_v1().ok()?),
            reflection_alpha: BoxCloneSyncService::new(configured().build_v1alpha().ok()?),
        })
    }

    /// Serves one call.
    pub async fn serve(
        &self,
        shared: &Shared,
        peer: &Arc<Peer>,
        mut request: Request<Incoming>,
    ) -> Response<AnswerBody> {
        let path = request.uri().path();
        let service = if path.starts_with("/ndxp.admin.") {
            &self.admin
        } else if path.starts_with("/ndxp.audit.") {
            &self.audit
        } else if path.starts_with("/grpc.health.") {
            &self.health
        } else {
            let registry = shared.registry.load();
            if let (Err(refusal), None) = (peer.identify(&registry), registry.staff_of(&peer.certificate.names)) {
                return answer::refused(&refusal, "");
            }
            if path.starts_with("/grpc.reflection.v1alpha.") { &self.reflection_alpha } else { &self.reflection }
        };
        let mut service = service.clone();
        request.extensions_mut().insert(peer.clone());
        match service.ready().await {
            Ok(ready) => answer::from_tonic(ready.call(request).await),
            Err(never) => match never {},
        }
    }
}
