//! The alerts, the dashboard and docs/operation.md use metrics that exist.

use super::*;
use crate::exchange_log::Entry;
use crate::guard::{Guard, GuardSettings};
use std::path::Path;

/// Gives every metric at least one series: a family without one is not on the page.
fn page() -> String {
    let metrics = Metrics::default();
    let operation = metrics.exchanges.of("land", "a.B/C");
    operation.count(&Entry { source: "land".into(), fault: "source".into(), reason: "R".into(), ..Entry::default() });
    metrics.drift.of("land", "a.B/C", "field", "added").inc();
    metrics.ends([(Path::new("a.pem"), "certificate", 1)].into_iter());
    metrics.list_fetched("http://ca/crl", true);
    metrics.faults("tls", 0);
    metrics.reads_refused("tiles").inc();
    metrics.refusal_suppressed("exchange");
    metrics.shadowed("land", "a.B/C", Some(&BTreeSet::from(["field".to_owned()])));
    metrics.registry(&Snapshot::default(), 0);
    let _ = (metrics.work("oauth"), metrics.own_calls("health"));
    metrics.oauth().limited("token");
    metrics.witnesses.responded("first", true, 1);
    metrics.sources.guard("land", &Guard::new("land", GuardSettings::default()));
    metrics.sources.connections("land", 0);
    metrics.sources.endpoint("land", "https://a", true);
    metrics.text()
}

/// The names under which Prometheus stores the series of an OpenMetrics page, and the names of its families.
fn names(page: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split_once(' '));
    let (mut series, mut families) = (BTreeSet::new(), BTreeSet::new());
    for (name, kind) in types {
        families.insert(name.to_owned());
        let endings: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        series.extend(endings.iter().map(|ending| format!("{name}{ending}")));
    }
    (series, families)
}

/// Metric names in any text.
fn used(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("ndxp_")).map(str::to_owned).collect()
}

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

#[test]
fn every_metric_of_the_alerts_and_the_dashboard_exists_and_the_docs_have_every_one() {
    let (series, families) = names(&page());
    for path in ["deploy/prometheus/ndxp.rules.yml", "deploy/grafana/ndxp-gateway.json"] {
        let used = used(&file(path));
        assert!(used.len() > 20, "{path}");
        let unknown: Vec<_> = used.difference(&series).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
    // Every metric of an alert or panel is documented.
    let handbook = used(&file("docs/operation.md"));
    let told = |name: &String| handbook.contains(name) || handbook.contains(&format!("{name}_total"));
    let untold: Vec<_> = families.iter().filter(|name| !told(name)).collect();
    assert!(untold.is_empty(), "docs/operation.md: {untold:?}");
    let invented = used("rate(ndxp_nobody_counts_this_total[5m])");
    assert_eq!(invented.difference(&series).count(), 1, "an unknown name is found");
}
