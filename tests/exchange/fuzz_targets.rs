//! Every fuzz target is built and run over the fixtures and over what a fuzzer has found (`fuzz/findings`).

use std::path::{Path, PathBuf};

/// Replaces libFuzzer's macro: the target becomes a function.
macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $body:block) => {
        pub fn run($bytes: &[u8]) $body
    };
}
pub(crate) use fuzz_target;

macro_rules! targets {
    ($($name:ident $file:literal),+ $(,)?) => {
        $(#[allow(unused_attributes, unused_imports)]
        #[path = $file]
        mod $name;)+

        const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name::run)),+];
    };
}

targets! {
    answer "../../fuzz/fuzz_targets/answer.rs",
    cluster "../../fuzz/fuzz_targets/cluster.rs",
    frame "../../fuzz/fuzz_targets/frame.rs",
    json "../../fuzz/fuzz_targets/json.rs",
    log "../../fuzz/fuzz_targets/log.rs",
    multipart "../../fuzz/fuzz_targets/multipart.rs",
    notes "../../fuzz/fuzz_targets/notes.rs",
    proxy "../../fuzz/fuzz_targets/proxy.rs",
    request "../../fuzz/fuzz_targets/request.rs",
    xml "../../fuzz/fuzz_targets/xml.rs",
}

/// Every file below a folder, in order; none if the folder is missing.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    if folder.is_dir() {
        crate::privacy::files(folder, &mut all);
    }
    all.sort();
    all
}

#[test]
fn every_fuzz_target_passes_its_seed_inputs_and_findings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fixtures: Vec<Vec<u8>> =
        files(&root.join("tests/fixtures")).iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(fixtures.len() > 100);
    for (name, run) in TARGETS {
        for bytes in &fixtures {
            // A multipart target reads the media type from the first line.
            let inputs = match *name {
                "multipart" => vec![[b"text/xml; charset=utf-8\n", bytes.as_slice()].concat()],
                _ => vec![bytes.clone(), bytes[..bytes.len() / 2].to_vec(), bytes[..bytes.len().min(40)].to_vec()],
            };
            inputs.iter().for_each(|input| run(input));
        }
        for finding in files(&root.join("fuzz/findings").join(name)) {
            run(&std::fs::read(finding).unwrap());
        }
    }
    // Each file of a target is one of these.
    let known: Vec<String> = TARGETS.iter().map(|(name, _)| format!("{name}.rs")).collect();
    for file in files(&root.join("fuzz/fuzz_targets")) {
        assert!(known.contains(&file.file_name().unwrap().to_string_lossy().into_owned()), "{}", file.display());
    }
}
