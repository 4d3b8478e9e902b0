//! No name and no id of any person is in the data folder, in clear or in a form that could be recovered by guessing.

use crate::support::{CITIZEN, Stage, approved_grant, audit_cli};
use aws_lc_rs::digest::{SHA256, digest};
use ndxp_gateway::exchange_log::Kind;
use ndxp_gateway::exchange_log::pseudonym::{PersonKind, Pseudonyms, folder};
use ndxp_gateway::sandbox::province::{Person, Province};
use ndxp_gateway::sandbox::samples::samples;
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Every file below a folder.
pub fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Every name and id of the sandbox's people, enterprises and officials.
pub(super) fn seeded(province: &Province) -> HashSet<String> {
    let mut names = HashSet::new();
    for person in &province.people {
        names.extend([person.citizen_id.clone(), person.insurance_number.clone(), person.full_name()]);
        names.extend([person.full_name().to_uppercase(), person.phone.clone(), person.card_number()]);
        names.extend(person.old_id.clone());
    }
    names.extend(province.enterprises.iter().flat_map(|one| [one.code.clone(), one.name.clone()]));
    names.extend(province.officials.iter().map(|one| one.code.clone()));
    names
}

/// Whether a digit is behind the point of a number: one with digits on both sides, and nothing but digits up to here.
fn is_decimal(run: &[u8], at: usize) -> bool {
    let point = run[..at].iter().rposition(|byte| !byte.is_ascii_digit());
    let is_point = |point: usize| run[point] == b'.' && point > 0 && run[point - 1].is_ascii_digit();
    run[at].is_ascii_digit() && point.is_some_and(is_point)
}

/// The first of these names in some bytes. Decimals are none: 0.022100000000000002 s is nobody's telephone.
pub(super) fn found<'b>(bytes: &'b [u8], names: &HashSet<String>) -> Option<&'b str> {
    let lengths: HashSet<usize> = names.iter().map(String::len).collect();
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut from = 0;
    // Every run of printable text, so that a search of thousands of names stays quick.
    while let Some(start) = bytes[from..end].iter().position(|byte| *byte >= 0x20).map(|step| from + step) {
        let stop = bytes[start..end].iter().position(|byte| *byte < 0x20).map_or(end, |step| start + step);
        for length in &lengths {
            let run = &bytes[start..stop];
            let texts = run.windows(*length).enumerate().filter(|(at, _)| !is_decimal(run, *at));
            let mut texts = texts.filter_map(|(_, window)| std::str::from_utf8(window).ok());
            if let Some(text) = texts.find(|text| names.contains(*text)) {
                return Some(text);
            }
        }
        from = stop;
    }
    None
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
    // Stopped and sealed, so that everything is in the files.
    tokio::task::block_in_place(|| stage.gateway.take().unwrap().stop());

    let names = seeded(&stage.sandbox.province);
    let mut all = Vec::new();
    files(&stage.data(), &mut all);
    assert!(all.len() > 8, "{all:?}");
    for file in all {
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(found(&bytes, &names), None, "{}", file.display());
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
        let pseudonyms =
            entry.subjects.iter().chain(&entry.response_subjects).chain(&entry.official).map(|one| one.value.clone());
        for value in pseudonyms.chain([entry.request_commitment.clone(), entry.response_commitment.clone()]) {
            assert!(!guesses.contains(&value), "entry {} can be guessed back", found.index);
        }
    }
}

/// Every text in a message.
pub(super) fn texts<'v>(value: &'v Value, found: &mut HashSet<&'v str>) {
    match value {
        Value::String(text) => drop(found.insert(text)),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| texts(field, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_every_person_in_a_response_is_in_its_entry() {
    let stage = Stage::start();
    stage.client("one-stop-shop");
    approved_grant(&stage, "one-stop-shop", &["*"]);
    let actor = stage.actor("one-stop-shop");
    let province = &stage.sandbox.province;
    let mut ids: HashSet<&str> = HashSet::new();
    for person in &province.people {
        ids.extend([person.citizen_id.as_str(), person.insurance_number.as_str()]);
        ids.extend(person.old_id.as_deref());
    }
    ids.extend(province.enterprises.iter().map(|one| one.code.as_str()));
    let mut others = 0;
    for sample in samples(province) {
        let path = format!("/{}", sample.operation);
        let metadata = [("ndxp-purpose", sample.purpose.as_str()), ("ndxp-official", sample.official.as_str())];
        let requests: Vec<_> = sample.requests.iter().map(|one| actor.encode(&path, one)).collect();
        let told = actor.raw(&path, &metadata, requests).await.unwrap().ok();
        let mut named = HashSet::new();
        told.messages.iter().for_each(|message| texts(message, &mut named));
        let entry = stage.entry(&told.exchange()).entry;
        let keys = Pseudonyms::open(&folder(&stage.data())).unwrap().keys(entry.time_us).unwrap();
        let known: Vec<_> = entry.subjects.iter().chain(&entry.response_subjects).collect();
        if entry.response_subjects_omitted > 0 {
            // A long list: up to the contract's bound, and the others counted.
            assert_eq!(entry.response_subjects.len(), stage.contracts.operation(&path).unwrap().max_response_subjects);
            continue;
        }
        for id in named.intersection(&ids) {
            let pseudonym = keys.pseudonym(PersonKind::Subject, id);
            assert!(known.contains(&&pseudonym), "{path} tells an id that its entry does not name");
        }
        assert!(entry.response_subjects.iter().all(|one| !entry.subjects.contains(one)), "{path} names somebody twice");
        others += entry.response_subjects.len();
    }
    assert!(others > 5, "spouses, households and owners are named: {others}");
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_a_subject_report_finds_every_lookup_by_any_of_the_ids() {
    let stage = Stage::start();
    let people = &stage.sandbox.province.people;
    let fits = |one: &&Person| one.spouse.is_some() && one.birth.1 > 0 && one.old_id.is_some();
    let person = people.iter().find(fits).unwrap();
    let spouse = &people[person.spouse.unwrap()];
    stage.client("one-stop-shop");
    approved_grant(&stage, "one-stop-shop", &["*"]);
    let (whole, narrow) = (stage.actor("one-stop-shop"), "narrow");
    stage.client(narrow);
    stage.grant(narrow, &["population:read"], |grant| grant.fields = vec!["name".into()]);
    let narrow = stage.actor(narrow);
    // The samples' own person: known by name and birth date, too.
    let sample =
        samples(&stage.sandbox.province).into_iter().find(|one| one.operation.ends_with("GetCitizen")).unwrap();
    assert_eq!(sample.requests[0]["citizenId"], person.citizen_id);
    let ask = |field: &str, id: &str| {
        let mut request = sample.requests[0].clone();
        request.as_object_mut().unwrap().remove("citizenId");
        request[field] = id.into();
        request
    };
    let by_name = narrow.call(CITIZEN, ask("citizenId", &person.citizen_id)).await.ok().exchange();
    let by_id = whole.call(CITIZEN, ask("citizenId", &person.citizen_id)).await.ok().exchange();
    let old = person.old_id.clone().unwrap();
    let by_old_id = narrow.call(CITIZEN, ask("oldCitizenId", &old)).await.ok().exchange();
    let found = |ids: &[&str]| {
        let (ok, told, error) = audit_cli(&stage, &[&["subject"], ids, &["--case", "1/CV-2026"]].concat());
        assert!(ok, "{error}");
        let rows: Value = serde_json::from_str(&told).unwrap();
        let mut all: Vec<_> = rows["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["exchange"].as_str().unwrap().to_owned())
            .collect();
        all.sort();
        all
    };
    let sorted = |mut all: Vec<&String>| {
        all.sort();
        all.into_iter().cloned().collect::<Vec<_>>()
    };
    // The spouse was disclosed only to the client that gets complete records.
    assert_eq!(found(&[&spouse.citizen_id]), std::slice::from_ref(&by_id));
    // A record also has the old id; a lookup by the old id that returned a name is found by that id.
    assert_eq!(found(&[&person.citizen_id]), sorted(vec![&by_name, &by_id]));
    assert_eq!(found(&[&old]), sorted(vec![&by_id, &by_old_id]));
    assert_eq!(found(&[&person.citizen_id, &old]), sorted(vec![&by_name, &by_id, &by_old_id]));

    // Without the period's key nothing could be found: an error names the period.
    let keys = folder(&stage.data());
    let file = std::fs::read_dir(&keys).unwrap().map(|file| file.unwrap().path());
    let file = file.into_iter().find(|file| file.extension().is_some_and(|end| end == "key")).unwrap();
    let period = file.file_stem().unwrap().to_str().unwrap().to_owned();
    let kept = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let (ok, _, error) = audit_cli(&stage, &["subject", &spouse.citizen_id, "--case", "1/CV-2026"]);
    assert!(!ok && error.contains("PSEUDONYM_KEY_MISSING") && error.contains(&period), "{error}");
    assert!(!file.exists(), "nobody puts another key in its place");
    std::fs::write(&file, kept).unwrap();
    assert_eq!(found(&[&spouse.citizen_id]), [by_id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_the_entry_of_a_stream_s_start_has_the_fields_that_it_may_return() {
    let stage = Stage::start();
    stage.client("clerk");
    stage.grant("clerk", &["business:read"], |grant| grant.fields = vec!["enterprise_code".into()]);
    let list = samples(&stage.sandbox.province).into_iter().find(|one| one.operation.ends_with("ListRegistrations"));
    let list = list.unwrap();
    let told = stage.actor("clerk").call(&format!("/{}", list.operation), list.requests[0].clone()).await.ok();
    let opening = stage
        .entries()
        .into_iter()
        .find(|one| one.entry.kind() == Kind::StreamOpened && one.entry.id_text() == told.exchange());
    assert_eq!(opening.unwrap().entry.fields, ["enterprise_code"]);
}
