//! `token` and `keys`.

use super::output::{Output, duration, time};
use super::{CliError, ConfigFile};
use crate::identity::{Thumbprint, tls};
use crate::issuer::{IssueRequest, Issuer, KeyAlgorithm};
use crate::keyfile::write_private;
use crate::registry::{Page, Store, TokenRecord, TokenState, now};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
pub struct TokenArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Issue an access token, bound to a client's certificate.
    Issue {
        /// Whose.
        #[arg(long)]
        client: String,
        /// The client's certificate (PEM): the token is good on connections with it only.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// Scopes to carry; all that are granted unless said.
        #[arg(long = "scope")]
        scopes: Vec<String>,
        /// How long it lives, at most `tokens.max_lifetime_s`; `tokens.lifetime_s` unless said.
        #[arg(long, value_parser = duration)]
        lifetime: Option<Duration>,
        /// How long from now it begins to be valid.
        #[arg(long, default_value = "0s", value_parser = duration)]
        starts_in: Duration,
        /// File for the token (readable by its owner only); printed unless given.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List issued tokens, newest first.
    List {
        /// Whose.
        #[arg(long)]
        client: Option<String>,
        /// Only those that stand there.
        #[arg(long, value_enum)]
        state: Option<TokenState>,
        /// At most so many.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Show one issued token.
    Show {
        /// Its id (`jti`).
        id: String,
    },
    /// Revoke a token, or all of a client's: no call with it passes from within a second on.
    #[command(group = clap::ArgGroup::new("which").required(true).args(["id", "client"]))]
    Revoke {
        /// Its id (`jti`).
        id: Option<String>,
        /// All that this client has.
        #[arg(long)]
        client: Option<String>,
    },
}

fn state(token: &TokenRecord) -> &'static str {
    match token.state(now()) {
        TokenState::Revoked => "revoked",
        TokenState::Expired => "expired",
        TokenState::InForce => "in force",
    }
}

fn print_tokens(tokens: &[TokenRecord], output: Output) -> Result<(), CliError> {
    output.records(tokens, &["token", "client", "state", "issued", "expires", "scopes"], |token| {
        let (issued, expires) = (time(token.issued), time(token.expires));
        vec![token.id.clone(), token.client.clone(), state(token).into(), issued, expires, token.scopes.join("\n")]
    })
}

pub fn run_token(args: TokenArgs, output: Output) -> Result<(), CliError> {
    let (config, store) = args.config.registry()?;
    match args.command {
        TokenCommand::Issue { client, certificate, scopes, lifetime, starts_in, out } => {
            let chain = tls::certificates(&certificate).map_err(|fault| CliError::Usage(fault.to_string()))?;
            let view = store.view(&client)?;
            let issuer = Issuer::new(&store, &config);
            let lifetime = lifetime.unwrap_or(config.tokens.lifetime);
            let request = IssueRequest { scopes, certificate: Thumbprint::of(&chain[0]), lifetime, starts_in };
            let (token, record) = issuer.issue(&view, request)?;
            match out {
                Some(file) => {
                    write_private(&file, token.as_bytes())?;
                    output.result(&record, || {
                        format!("issued {} until {} to {}", record.id, time(record.expires), file.display())
                    })
                }
                None => {
                    let whole = serde_json::json!({ "token": token, "record": record });
                    output.result(&whole, || token.clone())
                }
            }
        }
        TokenCommand::List { client, state, limit } => {
            let now = now();
            let fits = |token: &TokenRecord| state.is_none_or(|state| token.state(now) == state);
            print_tokens(&store.tokens(client.as_deref(), Page { after: "", most: limit, fits: &fits })?, output)
        }
        TokenCommand::Show { id } => print_tokens(&[store.token(&id)?], output),
        TokenCommand::Revoke { id: Some(id), .. } => {
            store.revoke_token(&id)?;
            output.result(&id, || format!("revoked {id}"))
        }
        TokenCommand::Revoke { client, .. } => {
            let client = client.unwrap_or_default();
            let revoked = store.revoke_client_tokens(&client)?;
            output.result(&serde_json::json!({ "client": client, "revoked": revoked }), || {
                format!("revoked every token of {client}; {revoked} were in force")
            })
        }
    }
}

#[derive(Args)]
pub struct KeysArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// List signing keys.
    List,
    /// End the belief in a key at once, with all its tokens; rotate first.
    Retire {
        /// Its id.
        kid: String,
    },
    /// Make a new signing key; tokens of the older ones stay good until the last of them has expired.
    Rotate {
        /// Algorithm of the new key.
        #[arg(long, value_enum, default_value_t)]
        algorithm: KeyAlgorithm,
    },
}

pub fn run_keys(args: KeysArgs, output: Output) -> Result<(), CliError> {
    let (config, store) = args.config.registry()?;
    match args.command {
        KeysCommand::List => {
            let keys = store.keys()?;
            output.records(&keys, &["key", "algorithm", "made", "tokens are believed until"], |key| {
                let until = if key.believed_until == 0 { "signs now".to_owned() } else { time(key.believed_until) };
                vec![key.kid.clone(), key.algorithm.clone(), time(key.created), until]
            })
        }
        KeysCommand::Retire { kid } => {
            store.retire_key(&kid)?;
            output.result(&kid, || format!("retired {kid}: its tokens are refused from within a second on"))
        }
        KeysCommand::Rotate { algorithm } => {
            let issuer = Issuer::new(&store, &config);
            let key = issuer.rotate(algorithm)?;
            output.result(&key, || format!("tokens are signed with {} from now on", key.kid))
        }
    }
}
