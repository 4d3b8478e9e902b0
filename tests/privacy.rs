//! No name and no id of anybody stands in the data folder, in clear or so that it could be guessed back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use aws_lc_rs::digest::{SHA256, digest};
use ndxp_gateway::sandbox::samples::samples;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use support::{Stage, approved_grant};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_personal_is_in_the_data_folder_in_clear_or_guessable() {
    let mut stage = Stage::start();
    stage.client("one-stop-shop");
    approved_grant(&stage, "one-stop-shop", &["*"]);
    let actor = stage.actor("one-stop-shop");
    for sample in samples(&stage.sandbox.province) {
        let path = format!("/{}", sample.operation);
        let metadata = [("ndxp-purpose", sample.purpose.as_str()), ("ndxp-official", sample.official.as_str())];
        let requests: Vec<_> = sample.requests.iter().map(|one| actor.encode(&path, one)).collect();
        actor.raw(&path, &metadata, requests).await.unwrap().ok();
    }
    // Ended and sealed, so that everything is in its files.
    tokio::task::block_in_place(|| stage.gateway.take().unwrap().stop());

    let mut names = HashSet::new();
    for person in &stage.sandbox.province.people {
        names.extend([person.citizen_id.clone(), person.insurance_number.clone(), person.full_name()]);
        names.extend([person.full_name().to_uppercase(), person.phone.clone(), person.card_number()]);
        names.extend(person.old_id.clone());
    }
    names.extend(stage.sandbox.province.enterprises.iter().flat_map(|one| [one.code.clone(), one.name.clone()]));
    names.extend(stage.sandbox.province.officials.iter().map(|one| one.code.clone()));
    let lengths: HashSet<usize> = names.iter().map(String::len).collect();
    let mut all = Vec::new();
    files(&stage.data(), &mut all);
    assert!(all.len() > 8, "{all:?}");
    for file in all {
        let bytes = std::fs::read(&file).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut from = 0;
        // Every run of printable text, so that a search of thousands of names stays quick.
        while let Some(start) = bytes[from..end].iter().position(|byte| *byte >= 0x20).map(|step| from + step) {
            let stop = bytes[start..end].iter().position(|byte| *byte < 0x20).map_or(end, |step| start + step);
            for length in &lengths {
                for window in bytes[start..stop].windows(*length) {
                    if let Ok(text) = std::str::from_utf8(window) {
                        assert!(!names.contains(text), "{} holds {text:?}", file.display());
                    }
                }
            }
            from = stop;
        }
    }

    // Without the keys: no field is the bare hash of an id, of an id with a likely salt, or of a whole request.
    let mut guesses: HashSet<Vec<u8>> = HashSet::new();
    for name in &names {
        let hash = digest(&SHA256, name.as_bytes());
        guesses.extend([hash.as_ref().to_vec(), hash.as_ref()[..16].to_vec()]);
    }
    for sample in samples(&stage.sandbox.province) {
        for request in &sample.requests {
            let bytes = actor.encode(&format!("/{}", sample.operation), request);
            guesses.insert(digest(&SHA256, &bytes).as_ref().to_vec());
            guesses.insert(digest(&SHA256, &[&[0; 16], bytes.as_ref()].concat()).as_ref().to_vec());
        }
    }
    for found in stage.entries() {
        let entry = found.entry;
        let pseudonyms = entry.subjects.iter().chain(&entry.official).map(|one| one.value.clone());
        for value in pseudonyms.chain([entry.request_commitment.clone(), entry.answer_commitment.clone()]) {
            assert!(!guesses.contains(&value), "entry {} can be guessed back", found.index);
        }
    }
}
