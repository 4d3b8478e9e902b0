//! The private keys that all gateways of a cluster have: agreed on through etcd, sealed with the secret that all of them are
//! configured with.

use crate::cluster::etcd::Members;
use crate::cluster::registry::blocking;
use crate::cluster::{ClusterError, secrets};
use crate::config::Config;
use crate::exchange_log::{key, pseudonym};
use crate::keyfile::{SharedSecrets, Vault};
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

/// The name of the log's key.
pub(super) const LOG_KEY: &str = "log";

/// Secrets in etcd.
pub struct EtcdSecrets {
    members: Arc<Members>,
    vault: Vault,
    tasks: Handle,
}

impl EtcdSecrets {
    /// Requests are sent on this runtime, while the caller's thread waits: another one.
    pub fn new(members: Arc<Members>, vault: Vault, tasks: Handle) -> Self {
        EtcdSecrets { members, vault, tasks }
    }

    /// Runs a request to its end, and waits for it. [`ErrorKind::TimedOut`]: it may succeed later.
    pub(super) fn wait<V: Send + 'static>(
        &self,
        request: impl Future<Output = std::result::Result<V, ClusterError>> + Send + 'static,
    ) -> Result<V> {
        blocking::wait(&self.tasks, request).map_err(|error| {
            let kind = if error.may_pass() { ErrorKind::TimedOut } else { ErrorKind::Other };
            Error::new(kind, error.to_string())
        })
    }
}

impl SharedSecrets for EtcdSecrets {
    fn agree(&self, name: &str, secret: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let (members, own) = (self.members.clone(), name.to_owned());
        let sealed = self.vault.seal_text(name, secret)?;
        let there = self.wait(async move { secrets::agree(&members, &own, sealed).await })?;
        self.vault.open_text(name, &there)
    }

    fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let (members, own) = (self.members.clone(), name.to_owned());
        let there = self.wait(async move { secrets::get(&members, &own).await })?;
        there.map(|sealed| self.vault.open_text(name, &sealed)).transpose()
    }

    fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let (members, prefix) = (self.members.clone(), prefix.to_owned());
        self.wait(async move { secrets::names(&members, &prefix).await })
    }
}

/// Puts the private keys of a data folder where the gateways find them that will have the same log and registry: the log's,
/// those that sign tokens, those of the pseudonyms. Repeating it does no harm.
///
/// # Errors
/// A key cannot be read, etcd does not respond, or it has another key of this name.
pub fn share_keys(config: &Config, shared: &dyn SharedSecrets) -> Result<()> {
    let share = |name: &str, path: &Path| {
        let own = config.vault.read(path)?;
        match *shared.agree(name, &own)? == *own {
            true => Ok(()),
            false => Err(Error::other(format!("{}: other gateways have another key in its place", path.display()))),
        }
    };
    share(LOG_KEY, &key::path(&config.data))?;
    let signing = config.data.join("keys").join("signing");
    for (folder, ending, prefix) in
        [(signing, ".pem", "signing"), (pseudonym::folder(&config.data), ".key", "pseudonyms")]
    {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let file = entry?.file_name();
            if let Some(name) = file.to_str().and_then(|file| file.strip_suffix(ending)) {
                share(&format!("{prefix}/{name}"), &folder.join(&file))?;
            }
        }
    }
    Ok(())
}
