//! Certificates that end soon are told of: in the log once a day, and as a metric all the time.

use super::shared::Shared;
use crate::config::Config;
use crate::pki;
use crate::registry::now;
use std::time::{Duration, Instant};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(3_600);
/// How often the same warning is repeated.
const REPEAT: Duration = Duration::from_secs(86_400);
/// How long ahead it is warned.
const AHEAD_S: i64 = 30 * 86_400;

/// When the files were looked at, and when it was warned.
#[derive(Default)]
pub(super) struct Expiry {
    looked: Option<Instant>,
    warned: Option<Instant>,
}

impl Expiry {
    /// Looks at the certificates where it is time to.
    pub(super) fn look(&mut self, config: &Config, shared: &Shared) {
        let at = Instant::now();
        if self.looked.is_some_and(|last| at.duration_since(last) < EVERY) {
            return;
        }
        self.looked = Some(at);
        let warn = self.warned.is_none_or(|last| at.duration_since(last) >= REPEAT);
        for (name, file) in [("gateway", &config.tls.certificate), ("client_ca", &config.tls.client_ca)] {
            // A file that cannot be read was told of when it was loaded.
            let Ok(info) = pki::show(file) else { continue };
            shared.metrics.certificate_ends(name, info.not_after);
            let left = info.not_after - now();
            if left < AHEAD_S && warn {
                self.warned = Some(at);
                tracing::warn!(file = %file.display(), days = left.div_euclid(86_400), "a certificate ends soon: renew it");
            }
        }
    }
}
