//! Sign-ins at the console, by what people show and by what comes of it: both from lists of the gateway's own.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignInLabels {
    by: &'static str,
    outcome: &'static str,
}

/// Counts sign-ins.
#[derive(Debug, Clone, Default)]
pub struct SignInMetrics(Family<SignInLabels, Counter>);

impl SignInMetrics {
    /// Registers the counters.
    pub fn register(registry: &mut Registry) -> Self {
        let own = SignInMetrics::default();
        let help = "Attempts to sign in at the console, by certificate or OpenID, and by outcome";
        registry.register("console_sign_in_attempts", help, own.0.clone());
        own
    }

    /// Counts one.
    pub fn count(&self, by: &'static str, outcome: &'static str) {
        self.0.get_or_create(&SignInLabels { by, outcome }).inc();
    }
}
