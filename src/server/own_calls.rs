//! Limits of the calls of the gateway's own services (health, reflection, administration, audit). They are admitted
//! beside the exchanges ([`crate::guard::Admission::admit_own`]), so each kind has a separate share here, by
//! certificate and in all: a response that its caller does not read holds its permit until the caller is cut off. While
//! a worker is late, each certificate has a rate for all of them, too.

use crate::identity::Thumbprint;
use crate::shares::{Share, ShareError, ShareLimits, ShareMetrics, ShareRate, Shares};
use crate::status::{Reason, Refusal};
use crate::telemetry::Metrics;
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::time::Duration;

/// Kinds of calls with separate limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnService {
    /// `grpc.health.v1.Health`, except `Watch`.
    Health,
    /// `grpc.health.v1.Health/Watch`: a stream without an end.
    HealthWatch,
    /// Both versions of it.
    Reflection,
    /// `ndxp.admin.v1`.
    Administration,
    /// `ndxp.audit.v1`, except what clients call.
    Audit,
    /// `GetReceipt` and `GetOwnUse`, which every client may call: they take no permit of the auditors.
    Receipts,
    /// `CanI`, which every client may call about itself: it takes no permit of the administrators' other calls.
    Questions,
}

/// Retry delay for a caller with too many calls in flight.
const RETRY: Duration = Duration::from_millis(500);

impl OwnService {
    const ALL: [OwnService; 7] = [
        OwnService::Health,
        OwnService::HealthWatch,
        OwnService::Reflection,
        OwnService::Administration,
        OwnService::Audit,
        OwnService::Receipts,
        OwnService::Questions,
    ];

    /// Returns the service of a path; `None` if it is not one of these services'.
    pub(super) fn of(path: &str) -> Option<Self> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        match (service, method) {
            ("grpc.health.v1.Health", "Watch") => Some(OwnService::HealthWatch),
            ("grpc.health.v1.Health", _) => Some(OwnService::Health),
            ("ndxp.admin.v1.AdminService", "CanI") => Some(OwnService::Questions),
            ("ndxp.admin.v1.AdminService", _) => Some(OwnService::Administration),
            ("ndxp.audit.v1.AuditService", "GetReceipt" | "GetOwnUse") => Some(OwnService::Receipts),
            ("ndxp.audit.v1.AuditService", _) => Some(OwnService::Audit),
            (other, _) if other.starts_with("grpc.reflection.") => Some(OwnService::Reflection),
            _ => None,
        }
    }

    /// Whether registered clients call its methods: these are served on the HTTPS port, too.
    pub(super) fn is_for_clients(self) -> bool {
        matches!(self, OwnService::Receipts | OwnService::Questions)
    }

    /// Longest message of a request, in bytes: its names and lists at their own limits, and as much again.
    pub(super) fn max_message(self) -> usize {
        match self {
            OwnService::Health | OwnService::HealthWatch | OwnService::Receipts => 1 << 10,
            OwnService::Reflection | OwnService::Questions => 4 << 10,
            OwnService::Audit => 16 << 10,
            OwnService::Administration => 128 << 10,
        }
    }

    /// Limits of its calls in flight, from the headers to the end of the response.
    fn limits(self) -> ShareLimits {
        let limits = |total, per_holder, per_second, burst| ShareLimits {
            total,
            per_owner: per_holder,
            has_headroom: 0,
            rate: Some(ShareRate { per_second, burst }),
        };
        match self {
            OwnService::Health => limits(1_024, 64, 200, 400),
            OwnService::HealthWatch => limits(256, 4, 20, 100),
            OwnService::Reflection => limits(64, 4, 20, 100),
            OwnService::Administration => limits(256, 32, 500, 1_000),
            OwnService::Audit => limits(256, 32, 200, 400),
            OwnService::Receipts => limits(256, 8, 200, 400),
            OwnService::Questions => limits(256, 8, 20, 100),
        }
    }

    fn label(self) -> &'static str {
        match self {
            OwnService::Health => "health",
            OwnService::HealthWatch => "watch",
            OwnService::Reflection => "reflection",
            OwnService::Administration => "admin",
            OwnService::Audit => "audit",
            OwnService::Receipts => "receipts",
            OwnService::Questions => "questions",
        }
    }
}

/// A call's permit; released when dropped.
pub(super) type OwnCallPermit = Share<Thumbprint>;

/// What one certificate may begin while a worker is late: a fifth of what the worker accepts then of all
/// ([`crate::guard::Admission::admit_own`]), so that no caller takes it from everybody.
const UNDER_DELAY: ShareRate = ShareRate { per_second: 100, burst: 0 };

/// Permits for calls of the gateway's own services, by certificate, for all workers.
#[derive(Debug)]
pub(super) struct OwnCallPermits {
    services: [Arc<Shares<Thumbprint>>; OwnService::ALL.len()],
    /// A rate alone, of all services together.
    under_delay: Arc<Shares<Thumbprint>>,
    refused: [Counter; OwnService::ALL.len()],
}

impl OwnCallPermits {
    /// Makes permits that are counted in these metrics.
    pub(super) fn new(metrics: &Metrics) -> Self {
        let (total, rate) = (usize::MAX, Some(UNDER_DELAY));
        let limits = ShareLimits { total, per_owner: total, has_headroom: 0, rate };
        OwnCallPermits {
            services: OwnService::ALL.map(|of| Shares::new(of.limits(), metrics.own_calls(of.label()))),
            under_delay: Shares::new(limits, ShareMetrics::default()),
            refused: OwnService::ALL.map(|of| metrics.own_calls(of.label()).refused),
        }
    }

    /// Returns a permit for one call of a certificate; `is_late`: a delay persists at its worker.
    ///
    /// # Errors
    /// `TOO_MANY_WATCHES` or `RATE_LIMITED` if the certificate has too many or makes them too fast,
    /// `GATEWAY_OVERLOADED` if all together have too many; each has a retry delay.
    pub(super) fn begin(&self, service: OwnService, by: &Thumbprint, is_late: bool) -> Result<OwnCallPermit, Refusal> {
        if is_late {
            self.under_delay.take(by, 1).map_err(|error| {
                self.refused[service as usize].inc();
                refused(service, error)
            })?;
        }
        self.services[service as usize].take(by, 1).map_err(|error| refused(service, error))
    }
}

fn refused(service: OwnService, error: ShareError) -> Refusal {
    let (reason, wait) = match error {
        ShareError::OwnerFull(_) if service == OwnService::HealthWatch => (Reason::TooManyWatches, RETRY),
        ShareError::OwnerFull(_) => (Reason::RateLimited, RETRY),
        ShareError::TooFast(wait) => (Reason::RateLimited, wait),
        ShareError::Full(_) => (Reason::GatewayOverloaded, RETRY),
    };
    let detail = format!("calls of the service {}: {error}", service.label());
    Refusal { retry_after: Some(wait), ..Refusal::with(reason, detail) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn d1_paths_belong_to_one_service_or_to_none() {
        for (path, service) in [
            ("/grpc.health.v1.Health/Check", Some(OwnService::Health)),
            ("/grpc.health.v1.Health/Watch", Some(OwnService::HealthWatch)),
            ("/grpc.health.v1.Health/watch", Some(OwnService::Health)),
            ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Some(OwnService::Reflection)),
            ("/ndxp.audit.v1.AuditService/GetReceipt", Some(OwnService::Receipts)),
            ("/ndxp.audit.v1.AuditService/GetReceipts", Some(OwnService::Audit)),
            ("/ndxp.audit.v1.AuditService/GetOwnUse", Some(OwnService::Receipts)),
            ("/ndxp.admin.v1.AdminService/CanI", Some(OwnService::Questions)),
            ("/ndxp.admin.v1.AdminService/", Some(OwnService::Administration)),
            ("/ndxp.admin.v1.AdminService", None),
            ("ndxp.admin.v1.AdminService/AddClient", None),
            ("/ndxp.land.v1.LandService/GetParcel", None),
        ] {
            assert_eq!(OwnService::of(path), service, "{path}");
        }
        for (place, service) in OwnService::ALL.into_iter().enumerate() {
            assert_eq!(service as usize, place);
        }
    }

    #[test]
    fn d1_a_certificate_s_watches_and_all_together_are_bounded_and_other_calls_go_on() {
        let metrics = Metrics::default();
        let calls = OwnCallPermits::new(&metrics);
        let by = |number: usize| Thumbprint::of(&number.to_be_bytes());
        let mut held: Vec<_> = (0..4).map(|_| calls.begin(OwnService::HealthWatch, &by(0), false).unwrap()).collect();
        let refusal = calls.begin(OwnService::HealthWatch, &by(0), false).unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after), (Reason::TooManyWatches, Some(RETRY)));
        assert!(calls.begin(OwnService::Health, &by(0), false).is_ok());
        held.pop();
        held.push(calls.begin(OwnService::HealthWatch, &by(0), false).unwrap());
        held.extend((4..256).map(|number| calls.begin(OwnService::HealthWatch, &by(number / 4), false).unwrap()));
        assert_eq!(
            calls.begin(OwnService::HealthWatch, &by(1_000), false).unwrap_err().reason,
            Reason::GatewayOverloaded
        );
        let text = metrics.text();
        assert!(text.contains("ndxp_own_calls{service=\"watch\"} 256"), "{text}");
        assert!(text.contains("ndxp_own_calls_refused_total{service=\"watch\"} 2"), "{text}");
        drop(held);
        assert!(calls.begin(OwnService::HealthWatch, &by(1_000), false).is_ok());
    }

    #[test]
    fn d1_clients_receipts_take_no_place_of_the_auditors() {
        let calls = OwnCallPermits::new(&Metrics::default());
        let by = |number: usize| Thumbprint::of(&number.to_be_bytes());
        let _receipts: Vec<_> =
            (0..256).map(|number| calls.begin(OwnService::Receipts, &by(number / 8), false).unwrap()).collect();
        assert_eq!(calls.begin(OwnService::Receipts, &by(99), false).unwrap_err().reason, Reason::GatewayOverloaded);
        assert!(
            calls.begin(OwnService::Audit, &by(99), false).is_ok()
                && calls.begin(OwnService::Audit, &by(0), false).is_ok()
        );
    }

    #[test]
    fn d1_while_a_worker_is_late_one_certificate_leaves_most_of_the_share_to_the_others() {
        let metrics = Metrics::default();
        let calls = OwnCallPermits::new(&metrics);
        let by = |number: usize| Thumbprint::of(&number.to_be_bytes());
        let begun = (0..1_000).filter(|_| calls.begin(OwnService::Receipts, &by(0), true).is_ok()).count();
        // Its rate, and what came back while this ran.
        assert!((100..300).contains(&begun), "{begun}");
        let refusal = calls.begin(OwnService::Receipts, &by(0), true).unwrap_err();
        assert_eq!(refusal.reason, Reason::RateLimited);
        assert!(refusal.retry_after.is_some());
        assert!(calls.begin(OwnService::Receipts, &by(1), true).is_ok(), "another one is not refused");
        assert!(calls.begin(OwnService::Receipts, &by(0), false).is_ok(), "nor this one when no delay persists");
        let counted = format!("ndxp_own_calls_refused_total{{service=\"receipts\"}} {}\n", 1_001 - begun);
        assert!(metrics.text().contains(&counted), "{counted}");
    }
}
