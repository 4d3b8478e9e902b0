//! `contract drift`: where sources' responses differ from their contracts, and a report for the operators of the
//! sources.

use super::output::{Output, message_json, print_json, time, timestamp};
use super::session::ConnectionArgs;
use super::{CliError, suggestion};
use crate::admin::api::{Drift, DriftKind, ListDriftRequest, ListDriftResponse, UnlistedDrift};
use clap::Args;
use serde_json::Value;

#[derive(Args)]
pub struct DriftArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Only drift of this source.
    #[arg(long, value_name = "ID")]
    source: Option<String>,
    /// As a report for the operators of the sources: Markdown, or JSON with --output json. Contains no value of any
    /// response.
    #[arg(long)]
    report: bool,
}

pub fn run(args: DriftArgs, output: Output) -> Result<(), CliError> {
    let session = args.connection.open()?;
    let hint = args.source.as_deref().and_then(suggestion::hint_source);
    let request = ListDriftRequest { source: args.source.unwrap_or_default() };
    let found = session.read(session.admin().list_drift(request))?;
    if args.report {
        return match output {
            Output::Json => print_json(&report_json(&found)?),
            Output::Human => {
                anstream::print!("{}", report(&found));
                Ok(())
            }
        };
    }
    let header = ["source", "operation", "kind", "path", "responses", "last seen", "since", "types"];
    output.messages_with(&found.drift, &header, &["since", "types"], row)?;
    if matches!(output, Output::Human) {
        if let (true, Some(hint)) = (found.drift.is_empty(), hint) {
            anstream::eprintln!("{hint}");
        }
        found.unlisted.iter().for_each(|one| anstream::println!("{}", beyond(one)));
    }
    Ok(())
}

fn row(drift: &Drift) -> Vec<String> {
    vec![
        drift.source.clone(),
        method(&drift.operation),
        kind(drift),
        drift.path.clone(),
        drift.responses.to_string(),
        time(drift.last_seen),
        time(drift.first_seen),
        types(drift),
    ]
}

/// The method of an operation's full name.
fn method(operation: &str) -> String {
    operation.rsplit('/').next().unwrap_or_default().to_owned()
}

fn kind(drift: &Drift) -> String {
    drift.kind().as_str_name().to_ascii_lowercase().replace('_', " ")
}

fn types(drift: &Drift) -> String {
    match (drift.described.as_str(), drift.found.as_str()) {
        ("", found) => found.to_owned(),
        (described, found) => format!("{found} in place of {described}"),
    }
}

fn beyond(one: &UnlistedDrift) -> String {
    format!("{}: {} responses with paths beyond the bound", method(&one.operation), one.responses)
}

/// Describes each kind, in Vietnamese and in English.
fn meaning(kind: DriftKind) -> &'static str {
    match kind {
        DriftKind::Added => "trường mới (added)",
        DriftKind::Missing => "thiếu trường (missing)",
        DriftKind::Retyped => "đổi kiểu dữ liệu (retyped)",
        DriftKind::UnknownCode => "mã ngoài danh mục (unknown code)",
        DriftKind::Dropped => "giá trị không đọc được (unreadable)",
        DriftKind::Unspecified => "khác (other)",
    }
}

/// A report in Markdown, a section for each source.
fn report(found: &ListDriftResponse) -> String {
    let now = time(crate::registry::now());
    let mut out = format!(
        "# Khác biệt giữa dữ liệu trả về và mô tả kết nối\n\nDifferences between responses and contracts, {now}. Báo cáo chỉ nêu \
         tên trường, không có giá trị nào của phản hồi. The report names fields only; it contains no value of any response.\n"
    );
    if found.drift.is_empty() && found.unlisted.is_empty() {
        out.push_str("\nKhông có khác biệt. None.\n");
    }
    for source in &found.sources {
        out.push_str(&format!("\n## {}\n\n{}. {}\n", source.name_vi, source.name, source.owner));
        let mut above = "";
        for drift in found.drift.iter().filter(|drift| drift.source == source.id) {
            if drift.operation != above {
                above = &drift.operation;
                let (protocol, contract) = (&drift.protocol, &drift.contract);
                out.push_str(&format!("\n### {} ({protocol}, contract {contract})\n\n", drift.operation));
                out.push_str("| Đường dẫn (path) | Khác biệt (kind) | Kiểu (types) | Từ (since) | Gần nhất (last) | Số phản hồi (responses) |\n");
                out.push_str("| --- | --- | --- | --- | --- | --- |\n");
            }
            let (since, last) = (time(drift.first_seen), time(drift.last_seen));
            let (kind, types, responses) = (meaning(drift.kind()), types(drift), drift.responses);
            out.push_str(&format!("| `{}` | {kind} | {types} | {since} | {last} | {responses} |\n", drift.path));
        }
        for one in found.unlisted.iter().filter(|one| one.source == source.id) {
            out.push_str(&format!("\n{}\n", beyond(one)));
        }
    }
    out
}

/// The same as JSON.
fn report_json(found: &ListDriftResponse) -> Result<Value, CliError> {
    let mut value = message_json(found)?;
    value["time"] = timestamp(crate::registry::now());
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::DriftSource;

    #[test]
    fn a_report_says_whose_answers_differ_where_how_and_since_when() {
        let drift = Drift {
            source: "land".into(),
            operation: "ndxp.land.v1.LandService/GetParcel".into(),
            protocol: "X-Road REST".into(),
            contract: "v1".into(),
            kind: DriftKind::Retyped as i32,
            path: "ThuaDat/SoTo".into(),
            described: "text".into(),
            found: "number".into(),
            first_seen: 1_795_748_400,
            last_seen: 1_795_748_401,
            responses: 12,
            ..Drift::default()
        };
        let unlisted = UnlistedDrift { source: "land".into(), operation: drift.operation.clone(), responses: 3 };
        let source =
            DriftSource {
                id: "land".into(), name_vi: "Đất đai".into(), owner: "MAE".into(), ..DriftSource::default()
            };
        let found = ListDriftResponse { drift: vec![drift], unlisted: vec![unlisted], sources: vec![source] };
        let text = report(&found);
        for part in [
            "## Đất đai",
            "MAE",
            "### ndxp.land.v1.LandService/GetParcel (X-Road REST, contract v1)",
            "| `ThuaDat/SoTo` | đổi kiểu dữ liệu (retyped) | number in place of text | 2026-11-27",
            "| 12 |",
            "3 responses",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        let none = report(&ListDriftResponse::default());
        assert!(none.contains("None.") && !none.contains("##"), "{none}");
    }
}
