//! Responses and requests of real shape (`tests/fixtures`, README there), through the real drivers and contracts against a raw TLS
//! server that serves each body byte by byte.

#[path = "../support/raw.rs"]
pub(super) mod raw;

use crate::privacy::texts;
use crate::support::{Actor, Stage, Told, approved_grant, edit, show};
use ndxp_gateway::config::Config;

use ndxp_gateway::exchange_log::pseudonym::{PersonKind, Pseudonyms, folder};
use raw::{Raw, Wire};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use unicode_normalization::UnicodeNormalization;

/// One fixture: a body and its expected result.
pub(super) struct Fixture {
    pub(super) name: String,
    pub(super) body: Vec<u8>,
    pub(super) expect: Value,
}

pub(super) fn fixtures(source: &str) -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(source);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let expectation = |file: &Path| file.to_str().unwrap().ends_with(".expect.json");
    let read = |file: &PathBuf| {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let expect = std::fs::read(file.with_file_name(format!("{name}.expect.json"))).unwrap();
        Fixture { name, body: std::fs::read(file).unwrap(), expect: serde_json::from_slice(&expect).unwrap() }
    };
    files.iter().filter(|file| !expectation(file)).map(read).collect()
}

/// A gateway whose hubs and sources are all the raw server.
pub(super) async fn stage(source: &str, settings: &[(&str, &str)], guard: &str) -> (Stage, Raw, Actor) {
    let (mut served, mut pki) = (None, PathBuf::new());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stage = {
        let point = |file: PathBuf| {
            edit(&file, |text| {
                let line = |line: &str| match line.starts_with("address = ") {
                    true => format!("address = \"https://{address}\""),
                    false => line.to_owned(),
                };
                text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
            });
        };
        let slot = std::sync::Mutex::new(&mut pki);
        Stage::prepared(&|folder| {
            **slot.lock().unwrap() = folder.path.join("pki");
            for hub in ["ndxp", "lgsp", "vdxp", "ndop"] {
                point(folder.path.join(format!("hubs/{hub}.toml")));
            }
            let file = folder.path.join(format!("sources/{source}.toml"));
            point(file.clone());
            edit(&file, |mut text| {
                for (name, value) in settings {
                    let kept = text.lines().filter(|line| !line.starts_with(&format!("{name} =")));
                    text = kept.collect::<Vec<_>>().join("\n") + "\n";
                    text.push_str(&format!("{name} = \"{value}\"\n"));
                }
                text + guard
            });
        })
    };
    served.replace(Raw::serve(listener, &pki));
    stage.client("one-stop-shop");
    approved_grant(&stage, "one-stop-shop", &["*"]);
    let actor = stage.actor("one-stop-shop");
    (stage, served.unwrap(), actor)
}

fn path(fixture: &Value) -> String {
    let (service, method) = fixture["operation"].as_str().unwrap().split_once('/').unwrap();
    format!("/ndxp.{}.v1.{service}/{method}", fixture["source"].as_str().unwrap())
}

/// The result of a fixture's call; an error if the contract has no such call.
pub(super) async fn told(actor: &Actor, fixture: &Fixture) -> Result<Told, String> {
    let expect = &fixture.expect;
    let path = path(expect);
    let operation = actor.contracts.operation(&path).ok_or_else(|| format!("no operation {path}"))?;
    let call = adapted(&path, expect["call"].clone());
    let request = prost_reflect::DynamicMessage::deserialize(operation.request.message.clone(), &call);
    let request = request.map_err(|error| format!("the call is none of the contract's: {error}"))?;
    let said = &expect["metadata"];
    let purpose = said["purpose"].as_str().unwrap_or("1.004222");
    let official = said["official"].as_str().unwrap_or("022080990129");
    let metadata = [("ndxp-purpose", purpose), ("ndxp-official", official)];
    let message = prost::Message::encode_to_vec(&request).into();
    Ok(actor.raw(&path, &metadata, vec![message]).await.unwrap())
}

/// All differences from a fixture's expectation.
pub(super) async fn faults(stage: &Stage, raw: &Raw, actor: &Actor, fixture: &Fixture) -> Vec<String> {
    let expect = &fixture.expect;
    let answers = expect["kind"] == "answer";
    raw.set(if answers { Wire::of(&expect["http"], &fixture.body) } else { Wire::nothing() });
    let told = match told(actor, fixture).await {
        Ok(told) => told,
        Err(fault) => return vec![fault],
    };
    let mut found = Vec::new();
    if answers {
        let accept = expect["expect"]["accept"].as_array().cloned().unwrap_or_else(|| vec![expect["expect"].clone()]);
        let proposed = expect["proposed"].as_array().cloned().unwrap_or_default();
        let wrong: Vec<String> = accept.iter().filter_map(|one| differs(&told, one, &proposed)).collect();
        if wrong.len() == accept.len() {
            found.push(wrong.join("; nor: "));
        }
        let never = expect["expect"]["never"].as_array().cloned().unwrap_or_default();
        found.extend(never.iter().filter(|one| holds_never(&told, one)).map(|one| format!("never: {one}")));
        found.extend(unnamed(stage, &told, expect));
    } else {
        found.extend(raw::differences(raw.heard().as_ref(), expect, &fixture.body));
    }
    found.extend(leaks(stage, &told, fixture));
    found
}

/// The missing part of an expected outcome; `None` if nothing is missing.
fn differs(told: &Told, expect: &Value, proposed: &[Value]) -> Option<String> {
    let status = format!("{:?}", told.code());
    let wanted = expect["status"].as_str().unwrap_or("OK");
    let same = status.eq_ignore_ascii_case(&wanted.replace('_', ""));
    let reason = expect["reason"].as_str().unwrap_or("");
    if !same || reason != told.reason() {
        return Some(format!("{wanted} {reason} wanted, {status} {} {:?} came", told.reason(), told.answered.status));
    }
    if let Some(code) = expect["source_code"].as_str()
        && source_code(told) != code
    {
        return Some(format!("source code {code} wanted, {:?} came", source_code(told)));
    }
    let messages: Vec<Value> = told.messages.iter().map(plain).collect();
    let wanted: Vec<Value> = match (expect.get("message"), expect.get("messages")) {
        (Some(one), _) => vec![one.clone()],
        (None, Some(several)) => several.as_array().unwrap().clone(),
        (None, None) => return None,
    };
    let wanted: Vec<Value> = wanted.iter().map(without_empty).collect();
    let messages: Vec<Value> = match proposed.iter().find_map(|path| path.as_str()?.strip_suffix(".*")) {
        // Any other content of this structure is accepted.
        Some(open) => messages.iter().zip(&wanted).map(|(came, wanted)| narrowed(came, wanted, open)).collect(),
        None => messages,
    };
    (messages != wanted).then(|| format!("wanted {}\n   came {}", Value::from(wanted), Value::from(messages)))
}

/// A response whose structure `open` has only the expected fields.
fn narrowed(came: &Value, wanted: &Value, open: &str) -> Value {
    let mut came = came.clone();
    if let (Some(Value::Object(fields)), Some(Value::Object(known))) = (came.get_mut(open), wanted.get(open)) {
        fields.retain(|name, _| known.contains_key(name));
    }
    came
}

fn source_code(told: &Told) -> String {
    use tonic_types::StatusExt;
    let info = told.answered.status.get_details_error_info();
    info.and_then(|info| info.metadata.get("source_code").cloned()).unwrap_or_default()
}

fn holds_never(told: &Told, never: &Value) -> bool {
    match never["status"].as_str() {
        Some(status) => format!("{:?}", told.code()).eq_ignore_ascii_case(status),
        None => told.messages.iter().any(|one| ndxp_gateway::sandbox::samples::holds(&plain(one), &never["message"])),
    }
}

/// A message with the contract's own names, 64-bit numbers as numbers, without empty values.
fn plain(value: &Value) -> Value {
    fn walk(value: &Value, values: bool) -> Value {
        match value {
            Value::Object(fields) => {
                let name = |key: &str| if values { key.to_owned() } else { snake(key) };
                fields.iter().map(|(key, value)| (name(key), walk(value, key == "values"))).collect()
            }
            Value::Array(items) => items.iter().map(|item| walk(item, false)).collect(),
            // Texts are the source's own; their meaning is compared.
            Value::String(text) => json!(text.nfc().collect::<String>()),
            other => other.clone(),
        }
    }
    without_empty(&walk(value, false))
}

fn snake(key: &str) -> String {
    key.chars()
        .flat_map(|c| c.is_ascii_uppercase().then_some('_').into_iter().chain([c.to_ascii_lowercase()]))
        .collect()
}

/// Numbers in one form; nothing that is null, empty, zero or false; sums in đồng as numbers.
fn without_empty(value: &Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    };
    match value {
        Value::Object(fields) => {
            let one = |(key, value): (&String, &Value)| {
                let value = match value {
                    Value::String(text) if key.ends_with("_vnd") => json!(text.parse::<i64>().unwrap()),
                    other => without_empty(other),
                };
                (key.clone(), value)
            };
            Value::Object(fields.iter().map(one).filter(|(_, value)| !empty(value)).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(without_empty).collect(),
        Value::Number(number) => match number.as_f64() {
            Some(whole) if whole.fract() == 0.0 => json!(whole as i64),
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

/// People whom the entry should name but does not.
fn unnamed(stage: &Stage, told: &Told, expect: &Value) -> Option<String> {
    let entry = stage.entry(&told.exchange()).entry;
    let keys = Pseudonyms::open(&folder(&stage.data())).unwrap().keys(entry.time_us).unwrap();
    let known: Vec<_> = entry.subjects.iter().chain(&entry.response_subjects).collect();
    let persons = expect["persons_in_answer"].as_array().cloned().unwrap_or_default();
    let named = |id: &Value| known.contains(&&keys.pseudonym(PersonKind::Subject, id.as_str().unwrap()));
    let missing = persons.iter().filter(|id| !named(id)).count();
    (missing > 0).then(|| format!("{missing} persons of the answer are not in the entry"))
}

/// Personal values of a fixture in the exchange's entry or in an error.
fn leaks(stage: &Stage, told: &Told, fixture: &Fixture) -> Option<String> {
    let mut values = HashSet::new();
    texts(&fixture.expect["call"], &mut values);
    texts(&fixture.expect["expect"], &mut values);
    let personal = |text: &&str| text.chars().count() > 8 && text.chars().any(|c| c == ' ' || c.is_ascii_digit());
    let entry = format!("{:?}", stage.entry(&told.exchange()).entry);
    let error = format!("{:?}", told.answered.status);
    let public = format!("{:?}", (&fixture.expect["metadata"], "1.004222"));
    let leaked = |text: &&&str| !public.contains(**text) && (entry.contains(**text) || error.contains(**text));
    let count = values.iter().filter(|text| personal(text)).filter(leaked).count();
    (count > 0).then(|| format!("{count} values stand in the entry or in the error"))
}

/// Calls of operations that no contract had when the fixtures were written, in the terms of the current contract.
fn adapted(path: &str, mut call: Value) -> Value {
    if path.ends_with("/AddRows") {
        let row = |row: &Value| {
            let values = row.as_object().unwrap().iter();
            let values = values.map(|(name, value)| (name.clone(), json!(value.as_str().unwrap_or(""))));
            json!({ "values": values.collect::<Map<_, _>>() })
        };
        call["rows"] = call["rows"].as_array().unwrap().iter().map(row).collect();
    }
    if path.ends_with("/RegisterJoined") {
        let whole =
            fixtures("civilstatus").into_iter().find(|one| one.name == "13-register-joined-birth-request").unwrap();
        let mut whole = whole.expect["call"].clone();
        for (name, value) in call.as_object().unwrap() {
            whole[name] = value.clone();
        }
        whole["record"] = form(&whole["record"]);
        call = whole;
    }
    call
}

/// The form of a joined birth, which the fixture has in the source's terms.
fn form(record: &Value) -> Value {
    const NAMES: [(&str, &str); 18] = [
        ("loaiDangKy", "registration_kind"),
        ("soLuongBanSao", "copies"),
        ("nksHoTen", "child_name"),
        ("nksGioiTinh", "child_gender"),
        ("nksNgaySinh", "child_birth_date"),
        ("nksNoiSinh", "child_birth_place"),
        ("nksQueQuan", "child_home_town"),
        ("nksDanToc", "child_ethnicity_code"),
        ("nksQuocTich", "child_nationality"),
        ("meHoTen", "mother_name"),
        ("meNgaySinh", "mother_birth_date"),
        ("meSoDDCN", "mother_citizen_id"),
        ("chaHoTen", "father_name"),
        ("chaNgaySinh", "father_birth_date"),
        ("chaSoDDCN", "father_citizen_id"),
        ("nycHoTen", "requester_name"),
        ("nycQuanHe", "requester_relation"),
        ("nycSoDDCN", "requester_citizen_id"),
    ];
    let value = |name: &str, value: &Value| match value {
        Value::Object(place) => json!({
            "province_code": place["maTinh"], "district_code": place["maHuyen"], "commune_code": place["maXa"],
            "detail": place["dcChiTiet"],
        }),
        Value::String(text) if name.ends_with("NgaySinh") => {
            let parts: Vec<i32> = text.split('.').rev().map(|part| part.parse().unwrap()).collect();
            let part = |place: usize| parts.get(place).copied().unwrap_or_default();
            json!({ "year": part(0), "month": part(1), "day": part(2) })
        }
        Value::String(text) if name == "nksGioiTinh" => json!(if text == "1" { "MALE" } else { "FEMALE" }),
        other => other.clone(),
    };
    let named =
        NAMES.iter().filter_map(|(source, ours)| Some(((*ours).to_owned(), value(source, record.get(source)?))));
    Value::Object(named.collect())
}

async fn every_fixture_of(source: &str, settings: &[(&str, &str)], count: usize) {
    let (stage, raw, actor) = stage(source, settings, "").await;
    let all = fixtures(source);
    assert_eq!(all.len(), count, "fixtures of {source}");
    let mut failed = Vec::new();
    for fixture in &all {
        let found = faults(&stage, &raw, &actor, fixture).await;
        if !found.is_empty() {
            failed.push(format!("{source}/{}:\n   {}", fixture.name, found.join("\n   ")));
        }
    }
    stage.verify();
    assert!(failed.is_empty(), "{} of {count} fail\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn population() {
    every_fixture_of("population", &[("account", "QUANGNINH_NDXP"), ("phone", "02033825566")], 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publicservice() {
    every_fixture_of("publicservice", &[("unit", "H49")], 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn business() {
    every_fixture_of("business", &[], 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn insurance() {
    every_fixture_of("insurance", &[], 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn civilstatus() {
    every_fixture_of("civilstatus", &[], 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn criminalrecord() {
    every_fixture_of("criminalrecord", &[("ministry_id", "49")], 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn land() {
    every_fixture_of("land", &[], 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn catalogue() {
    every_fixture_of("catalogue", &[], 7).await;
}

/// An enterprise's record is shared between agencies; a household business's belongs to its owner and is requested by the owner's id.
#[tokio::test(flavor = "multi_thread")]
async fn a_household_business_requires_a_purpose_and_an_enterprise_does_not() {
    let (stage, raw, actor) = stage("business", &[], "").await;
    let path = "/ndxp.business.v1.BusinessService/GetEnterprise";
    let all = fixtures("business");
    for (name, purpose, reason) in [
        ("01-enterprise-decimals", None, ""),
        ("04-household-business", None, "PURPOSE_REQUIRED"),
        ("04-household-business", Some("1.004222"), ""),
    ] {
        let fixture = all.iter().find(|one| one.name == name).unwrap();
        raw.set(Wire::of(&fixture.expect["http"], &fixture.body));
        let metadata: Vec<(&str, &str)> = purpose.map(|purpose| ("ndxp-purpose", purpose)).into_iter().collect();
        let request = actor.encode(path, &fixture.expect["call"]);
        let told = actor.raw(path, &metadata, vec![request]).await.unwrap();
        assert_eq!(told.reason(), reason, "{name}");
        assert_eq!(raw.heard().is_some(), reason.is_empty(), "{name}: refused before anything goes out");
    }
    stage.verify();
}

/// The connection entry selects how names are written; an invalid value is refused at load.
#[tokio::test(flavor = "multi_thread")]
async fn the_connection_entry_selects_the_letters_of_names() {
    let (_stage, raw, actor) = stage("population", &[("name_case", "upper")], "").await;
    let fixture = &fixtures("population").into_iter().find(|one| one.name == "11-lookup-request").unwrap();
    let path = path(&fixture.expect);
    raw.set(Wire::nothing());
    let request = actor.encode(&path, &fixture.expect["call"]);
    let said = |official| [("ndxp-purpose", "H49.12-261103-9051"), ("ndxp-official", official)];
    actor.raw(&path, &said("022080990129"), vec![request.clone()]).await.unwrap();
    let body = String::from_utf8(raw.heard().unwrap().body).unwrap();
    assert!(body.contains("<HoVaTen>VŨ QUANG THẮNG</HoVaTen>"), "{body}");
    // A dossier number is not a procedure code: the constant replaces it.
    assert!(body.contains("<MaDVC>VPCP</MaDVC>"), "{body}");
    // An official without a citizen id is refused before anything is sent, and the value is not repeated.
    raw.set(Wire::nothing());
    let told = actor.raw(&path, &said("QN000001"), vec![request]).await.unwrap();
    assert_eq!(told.reason(), "FIELD_INVALID");
    assert!(
        raw.heard().is_none() && told.answered.status.message().contains("ndxp-official"),
        "{:?}",
        told.answered.status
    );
}

/// The portal through a provincial LGSP is a second version of its contract, selected by the connection entry.
#[tokio::test(flavor = "multi_thread")]
async fn dossiers_are_sent_as_a_bare_list_through_an_lgsp_if_the_entry_requires_it() {
    let (stage, raw, actor) = stage("publicservice", &[], "").await;
    let contracts = stage.folder.path.join("contracts/ndxp/publicservice/v2");
    std::fs::create_dir_all(&contracts).unwrap();
    let text = include_str!("../../seeds/contracts/publicservice-v2.proto");
    std::fs::write(contracts.join("publicservice.proto"), text).unwrap();
    let entry = "source = \"publicservice\"\nhub = \"lgsp\"\ncontract = \"v2\"\n\n[settings]\nunit = \"H49\"\n";
    std::fs::write(stage.folder.path.join("sources/publicservice.toml"), entry).unwrap();
    stage.gateway.as_ref().unwrap().reload().unwrap();
    let config = Config::load(&stage.folder.gateway_config()).map_err(show).unwrap();
    let actor = Actor { contracts: config.catalogue().map_err(show).unwrap().contracts, ..actor };
    let all = fixtures("publicservice");
    let fixture = |name: &str| all.iter().find(|one| one.name == name).unwrap();
    let call = &fixture("12-sync-at-the-counter-request").expect["call"];
    let taken = fixture("02-sync-taken-text-zeros");
    raw.set(Wire::of(&taken.expect["http"], &taken.body));
    let told = actor.call("/ndxp.publicservice.v2.PublicServiceService/SyncDossiers", call.clone()).await.ok();
    assert_eq!(told.messages[0], json!({}));
    let heard = raw.heard().unwrap();
    let query: Vec<_> = heard.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(query, [("MaDinhDanhDV", "H49"), ("isUpdating", "False")]);
    let body: Value = serde_json::from_slice(&heard.body).unwrap();
    assert_eq!(body.as_array().unwrap().len(), 1);
    assert_eq!(body[0]["DinhDanhCHS"][0]["SoDinhDanh"], "022194990267");
    assert_eq!(stage.entry(&told.exchange()).entry.subjects.len(), 1, "the person is known to the log");
    // The other version is not served, and nothing is sent.
    raw.set(Wire::nothing());
    let told = actor.call("/ndxp.publicservice.v1.PublicServiceService/SyncDossiers", call.clone()).await;
    assert!(!told.reason().is_empty() && raw.heard().is_none(), "{}", told.reason());
}
