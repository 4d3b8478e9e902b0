//! `cluster begin` and `cluster leave`.

use super::settings;
use crate::cli::CliError;
use crate::cli::confirmation::Confirmation;
use crate::cli::output::{Output, entries};
use crate::cli::session::local;
use crate::config::Config;
use crate::exchange_log::key;
use crate::migration::{MigratingGateway, MigrationError};
use crate::registry::sqlite::SqliteStore;
use crate::server::{EtcdSecrets, admin_entry, connect, other_sites, registry_path, share_keys};
use serde_json::json;
use std::sync::Arc;

impl From<MigrationError> for CliError {
    fn from(error: MigrationError) -> Self {
        CliError::Failed(error.to_string())
    }
}

/// Runs something with the gateway of this data folder, whose owner the user must be.
pub(super) fn migrate<T>(
    config: &Config,
    work: impl AsyncFnOnce(&MigratingGateway<'_>) -> Result<T, MigrationError>,
) -> Result<T, CliError> {
    let settings = settings(config)?;
    local::owner(&config.data)?;
    let signer = || key::read(&config.data, &config.vault, &config.log.origin);
    // A folder without its keys is not begun.
    signer()?;
    let store = SqliteStore::open_with(&registry_path(&config.data), &config.vault)?;
    let node = config.node.clone();
    // What is shared is waited for on this thread, while the other one sends it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let members = {
        let _here = runtime.enter();
        Arc::new(connect(settings)?)
    };
    let secrets = EtcdSecrets::new(members.clone(), config.vault.clone(), runtime.handle().clone());
    let share = || share_keys(config, &secrets);
    let gateway = MigratingGateway {
        data: &config.data,
        signer: &signer,
        store: &store,
        members,
        gateway: settings.gateway.clone(),
        entry: Arc::new(move |event| admin_entry(event, &node).to_bytes()),
        others: other_sites(settings)?,
        share_keys: &share,
    };
    Ok(runtime.block_on(work(&gateway))?)
}

/// Progress is for who waits, not a part of the result.
fn report(line: &str) {
    anstream::eprintln!("{line}");
}

pub(super) fn begin(config: &Config, output: Output) -> Result<(), CliError> {
    let size = migrate(config, async |gateway| gateway.begin(&mut report).await)?;
    let value = json!({ "entries": size, "gateway": config.node, "etcd": settings(config)?.etcd });
    output.result(&value, || {
        format!(
            "the log is in etcd from {} on, and so is the registry. Now:\n\
             1. start this gateway, with the same configuration;\n\
             2. at each other gateway, configure [cluster], the same log.origin and keys.encryption_secret and a node of its\n   \
                own; start it with an empty data folder: it fetches the rest;\n\
             3. watch `cluster status` until every site stores everything.",
            entries(size)
        )
    })
}

/// Whether log and registry of this folder are to be brought into etcd, which can take them.
pub fn is_to_begin(config: &Config) -> Result<bool, CliError> {
    settings(config)?;
    migrate(config, async |gateway| gateway.is_to_begin().await)
}

/// Brings them there; the log of the program has each step.
pub fn begin_before_serving(config: &Config) -> Result<(), CliError> {
    migrate(config, async |gateway| gateway.begin(&mut |line| tracing::info!("{line}")).await).map(drop)
}

pub(super) fn leave(config: &Config, confirmation: Confirmation, output: Output) -> Result<(), CliError> {
    let stops = || {
        Ok(vec![
            "every other gateway: it refuses calls until `cluster begin` was given here again".to_owned(),
            format!("the log's safety over several machines: {} alone has what comes from then on", config.node),
        ])
    };
    settings(config)?;
    if !confirmation.permits("take log and registry out of etcd", stops, output)? {
        return Ok(());
    }
    let size = migrate(config, async |gateway| gateway.leave(&mut report).await)?;
    output.result(&json!({ "entries": size, "gateway": config.node }), || {
        format!(
            "this folder writes alone from {} on. Remove [cluster] from {}, and start the gateway;\n\
             to go back, put it in again and give `cluster begin` here.",
            entries(size),
            config.file.display()
        )
    })
}
