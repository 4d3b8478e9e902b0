//! The faults that `simulator/mutants.sh` and `simulator/cluster/mutants.sh` put back still have their place in the source: a patch
//! that does not apply any more is found here within a second, and not at the end of CI.

use std::path::Path;

/// The parts of a patch: a file, and the lines that it must have there one after the other.
fn hunks(patch: &str) -> Vec<(String, String)> {
    let (mut file, mut hunks): (String, Vec<(String, String)>) = (String::new(), Vec::new());
    for line in patch.lines() {
        if let Some(name) = line.strip_prefix("--- a/") {
            file = name.split_whitespace().next().unwrap_or_default().to_owned();
        } else if line.starts_with("@@") {
            hunks.push((file.clone(), String::new()));
        } else if let (Some((_, lines)), Some(kept)) = (hunks.last_mut(), line.strip_prefix([' ', '-']))
            && !line.starts_with("---")
        {
            lines.push_str(kept);
            lines.push('\n');
        } else if let (Some((_, lines)), "") = (hunks.last_mut(), line) {
            lines.push('\n');
        }
    }
    hunks
}

#[test]
fn every_mutant_applies_to_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = 0;
    let folders = ["simulator/mutants", "simulator/cluster/mutants"];
    for entry in folders.iter().flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap()) {
        let path = entry.unwrap().path();
        for (file, lines) in hunks(&std::fs::read_to_string(&path).unwrap()) {
            let text = std::fs::read_to_string(root.join(&file)).unwrap();
            assert!(text.contains(&lines), "{}: {file} has this no more:\n{lines}", path.display());
            found += 1;
        }
    }
    assert!(found >= 14, "{found}");
}

#[test]
fn a_hunk_has_the_kept_and_removed_lines() {
    let patch = "--- a/src/x.rs\n+++ b/src/x.rs\n@@ -1,3 +1,3 @@\n one\n-two\n+three\n\n four\n@@ -9 +9 @@\n-five\n";
    let expected = [("src/x.rs", "one\ntwo\n\nfour\n"), ("src/x.rs", "five\n")];
    assert_eq!(hunks(patch), expected.map(|(file, lines)| (file.to_owned(), lines.to_owned())));
}
