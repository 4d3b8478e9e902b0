//! A folder of contracts: its files, and the errors of the proto compiler.

use super::ContractFault;
use miette::Diagnostic;
use prost_reflect::DescriptorPool;
use protox::file::{ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver};
use std::path::Path;

/// The contracts' files in a folder and those below it, by their path from `root`.
pub(super) fn list_protos(root: &Path, folder: &Path, found: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list_protos(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto")
            && let Ok(relative) = path.strip_prefix(root)
        {
            found.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Compiles these files of a folder, with all their imports.
pub(super) fn compile_folder(folder: &Path, names: &[String]) -> Result<DescriptorPool, Vec<ContractFault>> {
    let whole = |reason: String| vec![ContractFault { file: folder.display().to_string(), line: 0, reason }];
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(folder.to_owned()));
    resolver
        .add(DescriptorSetFileResolver::decode(crate::contract::EMBEDDED).map_err(|error| whole(error.to_string()))?);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    let mut faults = Vec::new();
    for name in names {
        if let Err(error) = compiler.open_file(name) {
            faults.extend(compile_faults(folder, name, &error));
        }
    }
    if faults.is_empty() { Ok(compiler.descriptor_pool()) } else { Err(in_order(faults)) }
}

/// Sorts faults by file and line, each once: two operations may use the faulty message.
pub(super) fn in_order(mut faults: Vec<ContractFault>) -> Vec<ContractFault> {
    faults.sort_by(|a, b| (&a.file, a.line, &a.reason).cmp(&(&b.file, b.line, &b.reason)));
    faults.dedup();
    faults
}

/// Earlier names of contract options, and their present names: the refusal of an old name gives the new one.
const RENAMED: [(&str, &str); 10] = [
    ("answer_root", "response_root"),
    ("answer", "response"),
    ("answer_namespace", "response_namespace"),
    ("max_answer_subjects", "max_response_subjects"),
    ("place", "location"),
    ("letters", "case"),
    ("letters_setting", "case_setting"),
    ("unread_into", "unparsed_into"),
    ("words", "message_contains"),
    ("words_at", "message_path"),
];

/// Returns the first option with an old name from a line on; protox only reports that the value of an option is
/// invalid.
fn renamed_option(text: &str, line: u32, reason: &str) -> Option<String> {
    if !reason.contains("'ndxp.contract.v1.") {
        return None;
    }
    let first = usize::try_from(line).ok()?.saturating_sub(1);
    text.lines().enumerate().skip(first).find_map(|(at, line)| {
        let code = line.split("//").next().unwrap_or_default();
        let named = |name: &str| {
            code.match_indices(name).any(|(at, _)| {
                let before = code.get(..at).and_then(|before| before.chars().next_back());
                let after = code.get(at + name.len()..).unwrap_or_default().trim_start();
                before.is_none_or(|c| c.is_whitespace() || c == '{') && after.starts_with([':', '{'])
            })
        };
        let (old, new) = RENAMED.iter().find(|(old, _)| named(old))?;
        Some(format!("{old} (line {}) is called {new} now", at + 1))
    })
}

/// Returns all errors of protox in a file, with lines in place of its offsets.
fn compile_faults(folder: &Path, name: &str, error: &protox::Error) -> Vec<ContractFault> {
    let name = error.file().unwrap_or(name);
    let detailed = format!("{error:?}");
    let line = detailed
        .split_once(&format!("{name}:"))
        .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .unwrap_or(0);
    let path = folder.join(name);
    let text = std::fs::read(&path).unwrap_or_default();
    let file = path.display().to_string();
    let reason = |line: u32, reason: String| match renamed_option(&String::from_utf8_lossy(&text), line, &reason) {
        Some(renamed) => format!("{reason}: {renamed}"),
        None => reason,
    };
    let mut faults = vec![ContractFault { file: file.clone(), line, reason: reason(line, error.to_string()) }];
    for further in error.related().into_iter().flatten() {
        let offset = further.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
        let before = offset.and_then(|offset| text.get(..offset));
        let line = before.map_or(0, |before| 1 + before.iter().filter(|byte| **byte == b'\n').count());
        let line = u32::try_from(line).unwrap_or(0);
        faults.push(ContractFault { file: file.clone(), line, reason: reason(line, further.to_string()) });
    }
    faults
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::contract::ContractSet;

    /// Returns the faults of a contract with this operation and this option of its request's field.
    fn faults(operation: &str, field: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            r#"syntax = "proto3"; package old.v1; import "ndxp/contract/v1/contract.proto";
            service S {{
              option (ndxp.contract.v1.source) = {{ id: "old" name: "Old" owner: "x" }};
              rpc Get(R) returns (R) {{
                option idempotency_level = NO_SIDE_EFFECTS;
                option (ndxp.contract.v1.operation) = {{ scope: "old:read" data_class: OPEN {operation} }};
              }}
            }}
            message R {{ string a = 1 [(ndxp.contract.v1.field) = {{ {field} }}]; }}"#
        );
        std::fs::write(folder.path().join("old.proto"), text).unwrap();
        match ContractSet::with_folder(folder.path()) {
            Ok(_) => String::new(),
            Err(faults) => faults.iter().map(|fault| format!("{fault}\n")).collect(),
        }
    }

    #[test]
    fn an_option_of_an_earlier_version_is_refused_with_its_name_now() {
        let rest = r#"rest: { get: "/a" }"#;
        assert_eq!(faults(&format!(r#"{rest} response_root: "data""#), r#"case: UPPER location: QUERY"#), "");
        let root = faults(&format!(r#"{rest} answer_root: "data""#), "");
        assert!(root.contains("answer_root (line 6) is called response_root now"), "{root}");
        let soap = faults(r#"soap: { request: "Get" namespace: "urn:x" answer: "Got" }"#, "");
        assert!(soap.contains("answer (line 6) is called response now"), "{soap}");
        let field = faults(rest, "letters: UPPER");
        assert!(field.contains("letters (line 9) is called case now"), "{field}");
        let unknown = faults(rest, "colour: 1");
        assert!(!unknown.is_empty() && !unknown.contains("is called"), "{unknown}");
    }
}
