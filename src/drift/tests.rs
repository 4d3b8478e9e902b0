//! Counting, bounds, and what is kept.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::contract::ContractSet;
use crate::keyfile::Vault;
use crate::registry::sqlite::FILE;
use std::sync::{Arc, LazyLock};

fn operation(name: &str) -> Arc<Operation> {
    static SET: LazyLock<ContractSet> = LazyLock::new(|| ContractSet::embedded().unwrap());
    SET.operation(&format!("/ndxp.{name}")).unwrap().clone()
}

fn parcel() -> Arc<Operation> {
    operation("land.v1.LandService/GetParcel")
}

fn added(path: &str) -> Drift {
    Drift { kind: DriftKind::Added, field: String::new(), path: path.to_owned(), described: "", found: "text" }
}

fn key(data: &Path) -> AdminEventKey {
    AdminEventKey::make(&data.join(FILE), &Vault::default()).unwrap()
}

fn kept(data: &Path) -> Vec<(String, String, u64, i64, i64)> {
    let state = file::load(data, Some(&key(data))).unwrap();
    let all = state.operations.values().flat_map(|kept| &kept.paths);
    all.map(|one| (one.kind.clone(), one.path.clone(), one.responses, one.first_s, one.last_s)).collect()
}

#[test]
fn answers_are_counted_by_path_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let table = DriftTable::new(data, Some(key(data)), DriftMetrics::default());
    table.note(&parcel(), DriftPolicy::Warn, &[], 99);
    table.keep(data, 99, true).unwrap();
    assert!(!data.join("state").exists(), "without drift nothing is written");
    table.note(&parcel(), DriftPolicy::Warn, &[added("a"), Drift::of_field(DriftKind::Dropped, "address")], 100);
    table.keep(data, 100, false).unwrap();
    table.note(&parcel(), DriftPolicy::Warn, &[added("a")], 101);
    table.keep(data, 101, false).unwrap();
    assert_eq!(kept(data)[0], ("added".into(), "a".into(), 1, 100, 100), "counts alone can wait some seconds");
    table.keep(data, 101, true).unwrap();
    assert_eq!(kept(data)[0], ("added".into(), "a".into(), 2, 100, 101));
    assert_eq!(kept(data)[1].0, "dropped");
    let again = DriftTable::new(data, Some(key(data)), DriftMetrics::default());
    assert!(again.fresh(102).is_empty(), "nothing was seen by this process");
    again.note(&parcel(), DriftPolicy::Pass, &[added("a")], 200);
    assert!(again.fresh(200).is_empty(), "a policy to pass tells nobody");
    // Another process, which is being taken over, still counts.
    table.note(&parcel(), DriftPolicy::Warn, &[added("a")], 150);
    assert!(table.fresh(150).contains("land") && table.fresh(150 + 2 * FRESH_S).is_empty());
    table.keep(data, 150, true).unwrap();
    again.keep(data, 200, true).unwrap();
    assert_eq!(kept(data)[0], ("added".into(), "a".into(), 4, 100, 200));
    let state = file::load(data, Some(&key(data))).unwrap();
    let of = &state.operations["ndxp.land.v1.LandService/GetParcel"];
    assert_eq!(
        (of.about.source.as_str(), of.about.contract.as_str(), of.about.protocol.as_str()),
        ("land", "v1", "X-Road REST")
    );
}

#[test]
fn the_paths_of_a_source_that_sends_ever_new_names_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let (metrics, mut registry) = (DriftMetrics::default(), prometheus_client::registry::Registry::default());
    registry.register("drift", "drift", metrics.family().clone());
    let table = DriftTable::new(data, Some(key(data)), metrics);
    for number in 0..1_000 {
        table.note(&parcel(), DriftPolicy::Warn, &[added(&format!("x{number}")), added("x0")], 100);
    }
    table.note(&operation("land.v1.LandService/ListParcelsByOwner"), DriftPolicy::Warn, &[added("y")], 100);
    table.keep(data, 100, true).unwrap();
    let state = file::load(data, Some(&key(data))).unwrap();
    let of = &state.operations["ndxp.land.v1.LandService/GetParcel"];
    assert_eq!((of.paths.len(), of.beyond), (MAX_PATHS, 1_000 - MAX_PATHS as u64));
    assert_eq!(
        of.paths.iter().find(|one| one.path == "x0").unwrap().responses,
        1_001,
        "what is known is still counted"
    );
    assert_eq!(state.operations.len(), 2, "another operation has room of its own");
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let series = text.lines().filter(|line| line.starts_with("drift_total{")).count();
    assert_eq!(series, MAX_PATHS + 2, "and one for the others");
    // The whole table is bounded as well, and so is the file.
    for operation in ContractSet::embedded().unwrap().operations() {
        for number in 0..MAX_PATHS {
            table.note(operation, DriftPolicy::Pass, &[added(&format!("{number}{}", "z".repeat(190)))], 100);
        }
    }
    table.keep(data, 100, true).unwrap();
    assert_eq!(kept(data).len(), MAX_ALL);
    assert!(std::fs::metadata(data.join("state/drift.json")).unwrap().len() < 1 << 20);
}

#[test]
fn what_was_not_seen_for_long_is_forgotten_and_then_new_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let table = DriftTable::new(data, Some(key(data)), DriftMetrics::default());
    table.note(&parcel(), DriftPolicy::Warn, &[added("a"), added("b")], 100);
    table.keep(data, 100, true).unwrap();
    let later = 100 + FORGOTTEN_AFTER_S;
    table.note(&parcel(), DriftPolicy::Warn, &[added("b")], later);
    table.keep(data, later, true).unwrap();
    assert_eq!(kept(data), [("added".into(), "b".into(), 1, later, later)]);
    table.note(&parcel(), DriftPolicy::Warn, &[added("a")], later + 1);
    table.keep(data, later + 1, false).unwrap();
    assert_eq!(kept(data)[0], ("added".into(), "a".into(), 1, later + 1, later + 1));
}

#[test]
fn a_file_that_cannot_be_read_or_written_costs_no_count() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    std::fs::create_dir(data.join("state")).unwrap();
    std::fs::write(data.join("state/drift.json"), "{").unwrap();
    assert!(file::load(data, Some(&key(data))).is_err());
    let table = DriftTable::new(data, Some(key(data)), DriftMetrics::default());
    table.note(&parcel(), DriftPolicy::Warn, &[added("a")], 100);
    let nowhere = data.join("state/drift.json");
    assert!(table.keep(&nowhere, 100, true).is_err(), "no folder can be there");
    table.keep(data, 100, true).unwrap();
    assert_eq!(kept(data), [("added".into(), "a".into(), 1, 100, 100)]);
}
