//! `source`: sources at a running gateway: checks on demand, and maintenance notices.

use super::CliError;
use super::audit::local_time;
use super::output::{Output, time};
use super::session::{ConnectionArgs, Session};
use crate::admin::api;
use clap::{Args, Subcommand};

#[derive(Args)]
pub struct SourceArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: SourceCommand,
}

#[derive(Subcommand)]
enum SourceCommand {
    /// Check whether each address of a source can be reached now; only at a running gateway (`--remote`).
    Check {
        /// The source's id.
        id: String,
    },
    /// Tell callers of a source's maintenance.
    #[command(subcommand)]
    Notice(NoticeCommand),
}

#[derive(Subcommand)]
enum NoticeCommand {
    /// Set a source's notice in place of its present one: announced a day before, over by itself.
    Set {
        /// The source's id.
        id: String,
        /// When the maintenance starts, in Vietnam time (2026-11-28T22:00); now by default.
        #[arg(long, value_parser = local_time)]
        from: Option<i64>,
        /// When it ends.
        #[arg(long, value_parser = local_time)]
        to: i64,
        /// What callers read, in Vietnamese.
        #[arg(long, value_name = "TEXT")]
        vi: String,
        /// The same in English.
        #[arg(long, value_name = "TEXT", default_value = "")]
        en: String,
    },
    /// Remove a source's notice.
    Clear {
        /// The source's id.
        id: String,
    },
    /// List the notices.
    List,
}

pub fn run(args: SourceArgs, output: Output) -> Result<(), CliError> {
    let session = args.connection.open()?;
    match args.command {
        SourceCommand::Check { .. } if session.is_local() => {
            let needed = "only a running gateway checks its sources: give --remote or a profile; on its own host, `doctor` \
                          reaches every address";
            Err(CliError::Usage(needed.into()))
        }
        SourceCommand::Check { id } => check(&session, id, output),
        SourceCommand::Notice(command) => notice(&session, command, output),
    }
}

fn check(session: &Session, id: String, output: Output) -> Result<(), CliError> {
    let checks = session.change(session.admin().check_source(api::SourceId { id }))?.checks;
    output.messages(&checks, &["address", "hub", "state", "duration"], |check| {
        let state = if check.reachable { "reachable".to_owned() } else { check.fault.clone() };
        let duration = format!("{:.1} ms", check.duration_us as f64 / 1_000.0);
        vec![check.address.clone(), check.hub.clone(), state, duration]
    })
}

fn notice(session: &Session, command: NoticeCommand, output: Output) -> Result<(), CliError> {
    match command {
        NoticeCommand::Set { id, from, to, vi, en } => {
            let seconds = |us: i64| us.div_euclid(1_000_000);
            let (starts, ends) = (from.map_or(0, seconds), seconds(to));
            let request = api::SetNoticeRequest { source: id, starts, ends, text_vi: vi, text_en: en };
            let notice = session.change(session.admin().set_notice(request))?;
            output.message(&notice, || {
                format!("callers of {} are told: from {} to {}", notice.source, time(notice.starts), time(notice.ends))
            })
        }
        NoticeCommand::Clear { id } => {
            let notice = session.change(session.admin().clear_notice(api::SourceId { id }))?;
            output.message(&notice, || format!("removed the notice of {}", notice.source))
        }
        NoticeCommand::List => {
            let notices = session.read(session.admin().list_notices(api::ListNoticesRequest {}))?.notices;
            output.messages(&notices, &["source", "from", "to", "vi", "en"], |one| {
                vec![one.source.clone(), time(one.starts), time(one.ends), one.text_vi.clone(), one.text_en.clone()]
            })
        }
    }
}
