//! `keys`: the gateway's own keys, and those that sign tokens.

use super::CliError;
use super::confirmation::{self, Confirmation};
use super::output::{Output, time};
use super::session::{ConnectionArgs, local};
use crate::admin::api;
use crate::config::Config;
use crate::exchange_log::{LockOwner, LogPaths, key};
use crate::issuer::KeyAlgorithm;
use crate::keyfile::Vault;
use crate::registry::AdminEventKey;
use crate::server::registry_path;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
pub struct KeysArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Make the gateway's own keys, before its first start: the exchange log's, which signs its checkpoints, and the
    /// one that authenticates admin events on their way into the log. Prints the log's public key, for auditors and
    /// witnesses. Existing keys stay; if there is a log without its key, none is made.
    Init,
    /// Seal the keys that lie open: those of before `keys.encryption_secret` was configured. The gateway must not run.
    Seal,
    /// List signing keys of access tokens.
    List,
    /// End the trust in a key at once, with all its tokens; rotate first.
    Retire {
        /// Its id.
        kid: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Make a new signing key; tokens of older keys stay valid until the last of them has expired.
    Rotate {
        /// Algorithm of the new key.
        #[arg(long, value_enum, default_value_t)]
        algorithm: KeyAlgorithm,
        /// Sign with it at once, in an emergency: verifiers with cached keys refuse its tokens until the keys are fetched again. Without
        /// it, the new key is published first (`tokens.jwks_max_age_s`).
        #[arg(long)]
        now: bool,
    },
}

fn key_state(key: &api::Key) -> String {
    match key.state() {
        api::KeyState::KeyPublished => format!("published; signs from {}", time(key.signs_from)),
        api::KeyState::KeySigning => "signs now".to_owned(),
        api::KeyState::KeyReplaced => format!("replaced; its tokens are good until {}", time(key.trusted_until)),
        api::KeyState::KeyRetired | api::KeyState::Unspecified => "retired".to_owned(),
    }
}

/// Makes the missing ones of the gateway's own keys; returns whether the log's was missing, and its public half.
fn own_keys(connection: &ConnectionArgs) -> Result<(Config, bool, String), CliError> {
    let config = connection.local_config("keys are made on the gateway's own host")?;
    local::owner(&config.data)?;
    let made = key::make(&config.data, &config.vault)?;
    let verifier = key::read(&config.data, &config.vault, &config.log.origin)?.verifier().to_string();
    AdminEventKey::make(&registry_path(&config.data), &config.vault)?;
    Ok((config, made, verifier))
}

/// Makes the missing ones of the gateway's own keys; returns the log's public half.
pub fn make_keys(connection: &ConnectionArgs) -> Result<String, CliError> {
    own_keys(connection).map(|(_, _, verifier)| verifier)
}

fn init(connection: &ConnectionArgs, output: Output) -> Result<(), CliError> {
    let (config, made, verifier) = own_keys(connection)?;
    let path = key::path(&config.data);
    let value = json!({ "made": made, "log_key": path, "vkey": verifier });
    output.result(&value, || {
        let what = if made { "made" } else { "there already:" };
        format!(
            "{what} {}, to be backed up apart from the log; auditors and witnesses check with\n{verifier}",
            path.display()
        )
    })
}

/// Seals the private keys that lie open below the data folder: the log's, and those that sign tokens.
///
/// `keys/acts.key` stays: an open one is not used, since its codes are worth only as much as its secrecy was.
fn seal(connection: &ConnectionArgs, output: Output) -> Result<(), CliError> {
    let config = connection.local_config("keys are sealed on the gateway's own host")?;
    local::owner(&config.data)?;
    if !config.vault.seals() {
        return Err(CliError::Usage("configure keys.encryption_secret first: it is what keys are sealed with".into()));
    }
    if let Some(owner) = LockOwner::of(&LogPaths::new(&config.data))? {
        let runs = format!("the gateway of this folder runs (process {}): stop it, then seal its keys", owner.pid());
        return Err(CliError::Failed(runs));
    }
    let mut sealed = Vec::new();
    for file in open_keys(&config)? {
        let named = |error| CliError::Failed(format!("{}: {error}", file.display()));
        config.vault.seal(&file).map_err(named)?;
        sealed.push(file);
    }
    output.result(&json!({ "sealed": sealed }), || match sealed.as_slice() {
        [] => "every key is sealed already".to_owned(),
        some => {
            let files: Vec<String> = some.iter().map(|file| format!("sealed {}", file.display())).collect();
            format!("{}\nbackups of before hold open keys: replace or destroy them", files.join("\n"))
        }
    })
}

/// Returns the private keys below the data folder that lie open although the configuration has a secret to seal them.
pub fn open_keys(config: &Config) -> Result<Vec<PathBuf>, CliError> {
    if !config.vault.seals() {
        return Ok(Vec::new());
    }
    let signing = match std::fs::read_dir(config.issuer_settings().keys) {
        Ok(folder) => folder.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let signing = signing.into_iter().filter(|file| file.extension().is_some_and(|ending| ending == "pem"));
    let mut open = Vec::new();
    for file in std::iter::once(key::path(&config.data)).filter(|file| file.exists()).chain(signing) {
        let named = |error| CliError::Failed(format!("{}: {error}", file.display()));
        if !Vault::is_sealed(&file).map_err(named)? {
            open.push(file);
        }
    }
    open.sort_unstable();
    Ok(open)
}

pub fn run(args: KeysArgs, output: Output) -> Result<(), CliError> {
    match args.command {
        KeysCommand::Init => return init(&args.connection, output),
        KeysCommand::Seal => return seal(&args.connection, output),
        _ => {}
    }
    let session = args.connection.open()?;
    match args.command {
        // Returned from above.
        KeysCommand::Init | KeysCommand::Seal => Ok(()),
        KeysCommand::List => {
            let keys = session.read(session.admin().list_keys(api::ListKeysRequest {}))?.keys;
            output.messages(&keys, &["key", "algorithm", "created", "state"], |key| {
                vec![key.kid.clone(), key.algorithm.clone(), time(key.created), key_state(key)]
            })
        }
        KeysCommand::Retire { kid, confirmation } => {
            if !confirmation.permits(
                &format!("end the trust in key {kid}"),
                || confirmation::of_key(&session, &kid),
                output,
            )? {
                return Ok(());
            }
            let key = session.change(session.admin().retire_key(api::KeyId { kid }))?;
            output.message(&key, || format!("retired {}: its tokens are refused from within a second on", key.kid))
        }
        KeysCommand::Rotate { algorithm, now } => {
            let algorithm = match algorithm {
                KeyAlgorithm::Es256 => "ES256",
                KeyAlgorithm::Eddsa => "EdDSA",
            };
            let request = api::RotateKeyRequest { algorithm: algorithm.into(), now };
            let key = session.change(session.admin().rotate_key(request))?;
            if now {
                anstream::eprintln!("warning: verifiers with cached keys refuse the new tokens for a while");
            }
            output.message(&key, || match key.state() {
                api::KeyState::KeyPublished => {
                    format!("published {}: tokens are signed with it from {} on", key.kid, time(key.signs_from))
                }
                _ => format!("tokens are signed with {} from now on", key.kid),
            })
        }
    }
}
