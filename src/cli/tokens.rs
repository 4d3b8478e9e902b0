//! `token`: access tokens.

use super::confirmation::{self, Confirmation};
use super::output::{Output, duration, seconds, time};
use super::session::{ConnectionArgs, PAGE};
use super::{CliError, client_name, token_fetch};
use crate::admin::api;
use crate::keyfile::NewFile;
use crate::registry::{TokenState, now};
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Args)]
pub struct TokenArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Issue an access token, bound to a client's certificate.
    Issue(Box<IssueToken>),
    /// Fetch a client's own token by its certificate (--ca, --certificate), as provincial systems do; with --keep, renew it in time.
    Fetch(token_fetch::FetchToken),
    /// List issued tokens, newest first.
    List {
        /// The client's id.
        #[arg(long)]
        client: Option<String>,
        /// Only those in this state.
        #[arg(long, value_enum)]
        state: Option<TokenState>,
        /// Maximum number of tokens.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Show one issued token.
    Show {
        /// Its id (`jti`).
        id: String,
    },
    /// Revoke a token, or all of a client's: calls with it are refused within a second.
    #[command(group = clap::ArgGroup::new("which").required(true).args(["id", "client"]))]
    Revoke {
        /// Its id (`jti`).
        id: Option<String>,
        /// All tokens of this client.
        #[arg(long)]
        client: Option<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

#[derive(Args)]
struct IssueToken {
    /// The client's id.
    #[arg(long)]
    client: String,
    /// The client's certificate (PEM): the token is valid only on connections with it.
    #[arg(id = "client_certificate", long = "certificate", value_name = "FILE")]
    certificate: PathBuf,
    /// With --remote: your own certificate (PEM), since --certificate is the client's here.
    // The same argument as the connection's, under a name that is free here.
    #[arg(id = "own_certificate", long = "own-certificate", value_name = "FILE", help_heading = HEADING)]
    own: Option<PathBuf>,
    /// Scopes to carry; by default all that are granted.
    #[arg(long = "scope")]
    scopes: Vec<String>,
    /// Its lifetime, at most `tokens.max_lifetime_s`; `tokens.lifetime_s` by default.
    #[arg(long, value_parser = duration)]
    lifetime: Option<Duration>,
    /// Time from now until it is valid.
    #[arg(long, default_value = "0s", value_parser = duration)]
    starts_in: Duration,
    /// File for the token (readable only by its owner); printed by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Overwrite an existing file of that name.
    #[arg(long, requires = "out")]
    force: bool,
}

/// The heading of the connection's arguments.
const HEADING: &str = "Gateway and acting person";

fn state(token: &api::Token) -> TokenState {
    match token {
        api::Token { revoked: true, .. } => TokenState::Revoked,
        token if token.expires <= now() => TokenState::Expired,
        _ => TokenState::InForce,
    }
}

fn state_text(token: &api::Token) -> &'static str {
    match state(token) {
        TokenState::Revoked => "revoked",
        TokenState::Expired => "expired",
        TokenState::InForce => "in force",
    }
}

fn print_tokens(tokens: &[api::Token], output: Output) -> Result<(), CliError> {
    let header = ["token", "client", "state", "issued", "expires", "scopes"];
    output.messages_with(tokens, &header, &["issued", "scopes"], |token| {
        let (issued, expires) = (time(token.issued), time(token.expires));
        let scopes = token.scopes.join("\n");
        vec![token.id.clone(), token.client.clone(), state_text(token).into(), issued, expires, scopes]
    })
}

pub fn run(args: TokenArgs, output: Output) -> Result<(), CliError> {
    if let TokenCommand::Fetch(fetch) = &args.command {
        return token_fetch::run(fetch, &args.connection.caller_files()?, output);
    }
    let session = args.connection.open()?;
    match args.command {
        TokenCommand::Issue(issue) => {
            let IssueToken { client, certificate, scopes, lifetime, starts_in, out, force, own: _ } = *issue;
            let pem = |error: std::io::Error| CliError::Usage(format!("{}: {error}", certificate.display()));
            let certificate = std::fs::read_to_string(&certificate).map_err(pem)?;
            let out = out.map(|file| begin(&file, force).map(|new| (file, new))).transpose()?;
            let lifetime_s = lifetime.map_or(0, seconds);
            let starts_in_s = seconds(starts_in);
            let request =
                api::IssueTokenRequest { client: client.clone(), certificate, scopes, lifetime_s, starts_in_s };
            let issued = session.change(session.admin().issue_token(request));
            let issued = issued.map_err(|error| client_name::suggested(&session, Some(&client), error))?;
            let record = issued.record.clone().unwrap_or_default();
            match out {
                Some((file, new)) => {
                    let write = || new.file()?.write_all(issued.token.as_bytes());
                    write().and_then(|()| new.keep()).map_err(|error| {
                        let (file, id) = (file.display(), &record.id);
                        CliError::Failed(format!("{file}: {error}; the token is lost: ndxp-gateway token revoke {id}"))
                    })?;
                    output.message(&record, || {
                        format!("issued {} until {} to {}", record.id, time(record.expires), file.display())
                    })
                }
                None => output.message(&issued, || issued.token.clone()),
            }
        }
        // Returned from above.
        TokenCommand::Fetch(_) => Ok(()),
        TokenCommand::List { client, state: wanted, limit } => {
            let (client, in_force) = (client.unwrap_or_default(), wanted == Some(TokenState::InForce));
            let fits = |token: &api::Token| wanted.is_none_or(|wanted| state(token) == wanted);
            let tokens = session.pages(limit, fits, |page_token| {
                let mut admin = session.admin();
                let (client, page_size) = (client.clone(), PAGE);
                async move {
                    let request = api::ListTokensRequest { client, in_force, page_size, page_token };
                    let page = admin.list_tokens(request).await?.into_inner();
                    Ok((page.tokens, page.next_page_token))
                }
            })?;
            if tokens.is_empty() && !client.is_empty() {
                client_name::check(&session, &client)?;
            }
            print_tokens(&tokens, output)
        }
        TokenCommand::Show { id } => {
            print_tokens(&[session.read(session.admin().get_token(api::TokenId { id }))?], output)
        }
        TokenCommand::Revoke { id: Some(id), confirmation, .. } => {
            if !confirmation.permits(&format!("revoke {id}"), || confirmation::of_token(&session, &id), output)? {
                return Ok(());
            }
            let token = session.change(session.admin().revoke_token(api::TokenId { id }))?;
            output.message(&token, || format!("revoked {}", token.id))
        }
        TokenCommand::Revoke { client, confirmation, .. } => {
            let id = client.unwrap_or_default();
            let act = format!("revoke every token of {id}");
            let suggested = |error| client_name::suggested(&session, Some(&id), error);
            let stops = || confirmation::of_client(&session, &id, false);
            if !confirmation.permits(&act, stops, output).map_err(suggested)? {
                return Ok(());
            }
            let request = api::ClientId { id: id.clone() };
            let done = session.change(session.admin().revoke_client_tokens(request)).map_err(suggested)?;
            output.message(&done, || format!("revoked every token of {id}; {} were in force", done.revoked))
        }
    }
}

/// Begins a token's file: a file that cannot be written must show before there is a token.
fn begin(file: &Path, force: bool) -> Result<NewFile, CliError> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let named = |error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
    let begun = std::fs::create_dir_all(folder).map_err(named).and_then(|()| NewFile::create(file, force));
    begun.map_err(|error| CliError::Usage(error.to_string()))
}
