//! Certificates and revocation lists that end soon are told of: in the log once a day, and as a metric all the time.

use super::shared::Shared;
use crate::pki::{self, Ending};
use crate::registry::now;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(600);
/// How often the same warning is repeated.
const REPEAT: Duration = Duration::from_secs(86_400);

/// When the files were looked at, and when it was warned.
#[derive(Default)]
pub(super) struct Expiry {
    looked: Option<(Instant, BTreeSet<PathBuf>)>,
    warned: Option<Instant>,
}

impl Expiry {
    /// Looks at the files where it is time to, or where they are others than before.
    pub(super) fn look(&mut self, files: &[PathBuf], shared: &Shared) {
        let at = Instant::now();
        let files: BTreeSet<PathBuf> = files.iter().cloned().collect();
        if self.looked.as_ref().is_some_and(|(last, known)| at.duration_since(*last) < EVERY && *known == files) {
            return;
        }
        let warn = self.warned.is_none_or(|last| at.duration_since(last) >= REPEAT);
        for file in &files {
            // A file that is no certificate is a key or a secret; one that cannot be read was told of when it was loaded.
            let Some(first) = pki::endings(file).into_iter().min_by_key(|ending| ending.at) else { continue };
            shared.metrics.ends(&file.display().to_string(), first.at);
            if first.is_near(now()) && warn {
                self.warned = Some(at);
                let Ending { what, at, .. } = first;
                let days = (at - now()).div_euclid(86_400);
                tracing::warn!(file = %file.display(), days, "{what} ends soon: renew it");
            }
        }
        self.looked = Some((at, files));
    }
}
