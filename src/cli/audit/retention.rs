//! `audit prune` and `audit hold`.

use super::filter::{self, Filter};
use crate::audit::retention;
use crate::audit::service::api;
use crate::cli::CliError;
use crate::cli::output::{Output, bar, counted, entries, local, timestamp};
use crate::cli::session::Session;
use crate::exchange_log::pruned::PRUNE_EVENT;
use crate::keyfile::Vault;
use crate::registry::sqlite::SqliteStore;
use crate::time_zone::timestamp_text;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait until the event is under a checkpoint.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct PruneArgs {
    /// Prune entries older than this (`730d`): two years online is the default (docs/exchange-log.md).
    #[arg(long, default_value = "730d", value_parser = crate::cli::output::duration, conflicts_with = "before")]
    keep: Duration,
    /// Prune entries from before this time instead.
    #[arg(long, value_parser = filter::local_time)]
    before: Option<i64>,
    /// Folder for the bundles before they are deleted; it verifies with the log (audit verify --archive).
    #[arg(long, value_name = "DIR")]
    archive: PathBuf,
    /// Only report what would be pruned.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Subcommand)]
pub enum HoldCommand {
    /// Keep every matching entry, whatever its age, until the hold is released.
    Add(Box<Filter>),
    /// List the holds in force.
    List,
    /// Release a hold.
    Release {
        /// Its number.
        #[arg(value_parser = hold_number)]
        id: u64,
    },
}

fn hold_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "is no number of a hold: `ndxp-gateway audit hold list` lists them".to_owned())
}

pub fn prune(
    data: &Path,
    args: &PruneArgs,
    store: &SqliteStore,
    vault: &Vault,
    output: Output,
) -> Result<(), CliError> {
    let keep_us = i64::try_from(args.keep.as_micros()).unwrap_or(i64::MAX);
    let before = args.before.unwrap_or_else(|| jiff::Timestamp::now().as_microsecond().saturating_sub(keep_us));
    let progress = bar("looking through {bar:40} {pos}/{len} bundles")?;
    let plan = retention::plan(data, before, |done, of| {
        progress.set_length(of);
        progress.set_position(done);
    });
    progress.finish_and_clear();
    let plan = plan?;
    let value = json!({
        "pruned": if args.dry_run { 0 } else { plan.entries() }, "would_prune": plan.entries(), "bundles": plan.bundles(),
        "held_bundles": plan.held, "telling_bundles": plan.evidence_bundles, "archive": args.archive,
    });
    let kept = format!(
        "kept: {} by holds, {} as records of a pruning or a hold",
        counted(plan.held, "bundle", "bundles"),
        plan.evidence_bundles
    );
    if args.dry_run || plan.runs.is_empty() {
        let nothing = if plan.runs.is_empty() { "nothing is old enough: " } else { "" };
        return output.result(&value, || format!("{nothing}{} could be pruned; {kept}", entries(plan.entries())));
    }
    let progress = bar("archiving {bar:40} {pos}/{len} bundles, {per_sec}")?;
    progress.set_length(plan.bundles());
    let archived = retention::archive(data, &plan, &args.archive, |done| progress.inc(done));
    progress.finish_and_clear();
    archived?;
    retention::restate(data, &plan, store)?;
    plan.objects().try_for_each(|object| store.note(PRUNE_EVENT, object))?;
    let began = Instant::now();
    while !retention::is_logged(data, &plan)? || !retention::is_restated(data, &plan)? {
        if began.elapsed() > TOLD_WITHIN {
            let why = "nothing was pruned: the log does not record it yet. Is the gateway running? The archive is complete; try again";
            return Err(CliError::Failed(why.into()));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    retention::prune(data, &plan, vault)?;
    output.result(&value, || {
        format!(
            "{}, and in {}; {kept}",
            counted(plan.entries(), "entry is pruned", "entries are pruned"),
            args.archive.display()
        )
    })
}

/// What a hold's entries have in common, by the names of the options that placed it.
fn conditions(hold: &api::Hold) -> serde_json::Map<String, serde_json::Value> {
    let query = hold.query.clone().unwrap_or_default();
    let moment = |us: i64| if us == 0 { String::new() } else { timestamp_text(us.div_euclid(1_000_000)) };
    let texts = [
        ("client", query.client),
        ("agency", query.agency),
        ("source", query.source),
        ("operation", query.operation),
        ("scope", query.scope),
        ("outcome", query.outcome),
        ("purpose", query.purpose),
        ("from", moment(query.from_us)),
        ("to", moment(query.to_us)),
        ("exchange", query.exchange_id),
        ("event", query.event),
        ("grant", query.grant),
        ("token", query.token),
    ];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name, json!(text)));
    let people = [("subject", hold.by_subject), ("official", hold.by_official)];
    let people = people.into_iter().filter(|(_, given)| *given).map(|(name, given)| (name, json!(given)));
    texts.chain(people).map(|(name, value)| (name.to_owned(), value)).collect()
}

pub fn hold(session: &Session, command: &HoldCommand, output: Output) -> Result<(), CliError> {
    match command {
        HoldCommand::Add(filter) => {
            let case = filter.case.clone().ok_or_else(|| CliError::Usage("say why: --case NUMBER".into()))?;
            let request = api::PlaceHoldRequest { query: Some(filter.request()), case_number: case.clone() };
            let id = session.change(async { session.audit().place_hold(request).await })?.id;
            output.result(&json!({ "id": id, "case": case }), || format!("hold {id} is placed"))
        }
        HoldCommand::List => {
            let listed = session.read(async { session.audit().list_holds(api::ListHoldsRequest {}).await })?;
            let value = |hold: &api::Hold| {
                json!({
                    "id": hold.id, "case": hold.case_number, "by": hold.by, "since": timestamp(hold.since), "entries": hold.entries,
                    "counting": hold.counting, "conditions": conditions(hold),
                })
            };
            let holds: Vec<_> = listed.holds.iter().map(value).collect();
            output.records(&holds, &["hold", "case", "by", "since", "entries", "conditions"], |hold| {
                let text = |name: &str| hold[name].as_str().unwrap_or_default().to_owned();
                let more = if hold["counting"] == json!(true) { " or more" } else { "" };
                let since = local(&text("since"));
                let conditions = hold["conditions"].as_object().into_iter().flatten();
                let conditions =
                    conditions.map(|(name, value)| format!("{name} {}", value.as_str().unwrap_or("given")));
                let head = vec![hold["id"].to_string(), text("case"), text("by"), since];
                let entries = format!("{}{more}", hold["entries"]);
                head.into_iter().chain([entries, conditions.collect::<Vec<_>>().join("\n")]).collect()
            })
        }
        HoldCommand::Release { id } => {
            let request = api::ReleaseHoldRequest { id: *id };
            session.change(async { session.audit().release_hold(request).await })?;
            output.result(&json!({ "released": id }), || format!("hold {id} is released"))
        }
    }
}
