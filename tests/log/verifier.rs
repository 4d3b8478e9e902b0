//! `ndxp-verify`, on a machine that has the log's key and files alone: what was altered is named, whatever it is, and a wrong key or name
//! is told from an altered log by the exit code.

use crate::support::{Stage, UNIT, audit_cli, until};
use ndxp_gateway::exchange_log::reader::LogReader;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

const OTHER_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

/// Runs it in a folder, without a variable of its environment: exit code and output.
fn run(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ndxp-verify"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// What an auditor carries away: the key, an export, a receipt, a checkpoint, a copy of the log.
async fn carried(stage: &Stage) -> tempfile::TempDir {
    let actor = stage.system("one-stop-shop");
    let mut exchange = String::new();
    for _ in 0..3 {
        exchange = actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok().exchange();
    }
    let folder = tempfile::tempdir().unwrap();
    let to = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    until("it is sealed", || audit_cli(stage, &["prove", &exchange, "--out", &to("one.tlog-proof"), "--force"]).0);
    for form in ["jsonl", "csv", "parquet"] {
        let (done, _, error) =
            audit_cli(stage, &["export", "--client", "one-stop-shop", "--out", &to(&format!("e.{form}"))]);
        assert!(done, "{error}");
    }
    // Each of these is an event; sealing it replaces files.
    stage.settle();
    until("all is sealed", || {
        let reader = LogReader::open(&stage.data()).unwrap();
        reader.sealed() == reader.size()
    });
    for file in files(&stage.data().join("log")) {
        let copy = folder.path().join("log").join(file.strip_prefix(stage.data().join("log")).unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(&file, copy).unwrap();
    }
    std::fs::rename(folder.path().join("log/vkey"), folder.path().join("log.vkey")).unwrap();
    folder
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|one| one.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Alters a file for as long as `then` runs.
fn altered(file: &Path, alter: impl FnOnce(&mut Vec<u8>), then: impl FnOnce()) {
    let whole = std::fs::read(file).unwrap();
    let mut changed = whole.clone();
    alter(&mut changed);
    assert_ne!(whole, changed);
    std::fs::write(file, changed).unwrap();
    then();
    std::fs::write(file, whole).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_auditor_carries_away_is_verified_with_the_key_alone_and_an_altered_byte_is_named() {
    let stage = Stage::start();
    let folder = carried(&stage).await;
    let at = folder.path();
    let key = std::fs::read_to_string(at.join("log.vkey")).unwrap();
    let all: [&[&str]; 6] = [
        &["receipt", "one.tlog-proof"],
        &["export", "e.jsonl"],
        &["export", "e.csv"],
        &["export", "e.parquet"],
        &["checkpoint", "log/checkpoint"],
        &["log", "log"],
    ];
    for what in all {
        for given in ["log.vkey", key.trim()] {
            let (code, told) = run(at, &[&["--key", given][..], what].concat());
            assert!(code == 0 && told.contains("verified"), "{what:?}: {code} {told}");
        }
        let (code, told) = run(at, &[&["--output", "json", "--key", "log.vkey"][..], what].concat());
        let value: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}"));
        assert!(code == 0 && value["verified"] == true, "{what:?}: {told}");
        // Another log's key verifies nothing; without a key, nothing is verified.
        let (code, told) = run(at, &[&["--key", OTHER_KEY][..], what].concat());
        assert!(code == 1 && told.contains("not verified"), "{what:?}: {code} {told}");
        let (code, told) = run(at, what);
        assert!(code == 2 && told.contains("--key"), "{what:?}: {code} {told}");
    }
    let fails = |what: &[&str]| {
        let (code, told) = run(at, &[&["--key", "log.vkey"][..], what].concat());
        assert!(code == 1 && told.contains("not verified"), "{what:?}: {code} {told}");
    };
    let last = |bytes: &mut Vec<u8>| {
        let at = bytes.iter().rposition(u8::is_ascii_alphanumeric).unwrap();
        bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
    };
    for form in ["jsonl", "csv"] {
        altered(&at.join(format!("e.{form}")), last, || fails(&["export", &format!("e.{form}")]));
    }
    let root = |bytes: &mut Vec<u8>| {
        let line = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        bytes[line + 1] ^= 1;
    };
    altered(&at.join("log/checkpoint"), root, || {
        fails(&["checkpoint", "log/checkpoint"]);
        fails(&["log", "log"]);
    });
    altered(
        &at.join("one.tlog-proof"),
        |bytes| {
            let at = bytes.len() / 2;
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        },
        || fails(&["receipt", "one.tlog-proof"]),
    );
    let bundle = files(&at.join("log")).into_iter().find(|file| file.to_str().unwrap().contains("/entries/")).unwrap();
    altered(&bundle, |bytes| *bytes.last_mut().unwrap() ^= 1, || fails(&["log", "log"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_name_is_wrong_usage_and_an_older_checkpoint_must_be_of_the_same_log() {
    let stage = Stage::start();
    let folder = carried(&stage).await;
    let at = folder.path();
    for what in [["receipt", "none"], ["export", "none.csv"], ["checkpoint", "none"], ["log", "none"]] {
        let (code, told) = run(at, &[&["--key", "log.vkey"][..], &what].concat());
        assert!(code == 2 && told.contains("none"), "{what:?}: {code} {told}");
    }
    let (code, told) = run(at, &["--key", "no-such-file", "checkpoint", "log/checkpoint"]);
    assert!(code == 2 && told.contains("no-such-file"), "{told}");
    let since = ["--key", "log.vkey", "log", "log", "--since"];
    assert_eq!(run(at, &[&since[..], &["log/checkpoint"]].concat()).0, 0);
    // A policy that wants witnesses: nobody has cosigned this log.
    let witness = ["log/checkpoint", "one.tlog-proof"];
    let policy = format!("witness w {OTHER_KEY}\nquorum w\n");
    std::fs::write(at.join("policy"), policy).unwrap();
    for (what, file) in ["checkpoint", "receipt"].into_iter().zip(witness) {
        let (code, told) = run(at, &["--key", "log.vkey", "--policy", "policy", what, file]);
        assert!(code != 0 && !told.contains("\"verified\""), "{what}: {code} {told}");
    }
}
