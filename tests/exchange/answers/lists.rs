//! Lists over several pages: they end OK only when they are whole, and drift in a later page or record is seen.

use super::{Raw, answer, call, call_with};
use ndxp_gateway::contract::drift::DriftPolicy;
use ndxp_gateway::drivers::credentials::Credentials;
use serde_json::{Value, json};

/// The rows of a list with the sent queries; `None` if it failed, and the cause.
async fn paged(pages: &[&str]) -> (Result<Vec<String>, String>, Vec<String>) {
    let raw = Raw::start().await;
    let adapter = raw.adapter(Credentials::None);
    pages.iter().for_each(|page| raw.says(answer("200", page)));
    let said = call(&adapter, "Rest/Pages", json!({})).await;
    let rows = said.result.map_err(|refusal| refusal.reason.as_str().to_owned());
    let rows =
        rows.map(|rows| rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect());
    let requests = raw.requests.lock().unwrap();
    let asked = |request: &Vec<u8>| {
        let text = String::from_utf8_lossy(request);
        let query = text.split_once('?').unwrap().1;
        query.split(' ').next().unwrap().to_owned()
    };
    (rows, requests.iter().map(asked).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn u6_a_list_ends_ok_only_if_it_is_complete() {
    let page = |ids: &[u32], rest: &str| {
        let rows: Vec<Value> = ids.iter().map(|id| json!({ "id": id.to_string() })).collect();
        format!("{{\"rows\": {}{rest}}}", Value::from(rows))
    };
    let ids = |ids: &[u32]| Ok(ids.iter().map(u32::to_string).collect::<Vec<_>>());
    let run = |pages: Vec<String>| async move { paged(&pages.iter().map(String::as_str).collect::<Vec<_>>()).await };
    // A source with pages of at most one row: the offset counts the received rows.
    let (rows, asked) = run(vec![page(&[1], ""), page(&[2], ""), page(&[], "")]).await;
    assert_eq!(rows, ids(&[1, 2]));
    assert_eq!(asked, ["offset=0&limit=2", "offset=1&limit=2", "offset=2&limit=2"]);
    // The total ends it without a further request.
    let (rows, asked) = run(vec![page(&[1, 2], ", \"total\": 3"), page(&[3], ", \"total\": 3")]).await;
    assert_eq!((rows, asked.len()), (ids(&[1, 2, 3]), 2));
    // A total that is just the first full page may be the page's.
    let (rows, _) = run(vec![page(&[1, 2], ", \"total\": 2"), page(&[3], ", \"total\": 1"), page(&[], "")]).await;
    assert_eq!(rows, ids(&[1, 2, 3]));
    let (rows, asked) = run(vec![page(&[1], ", \"more\": true"), page(&[2], ", \"more\": false")]).await;
    assert_eq!((rows, asked.len()), (ids(&[1, 2]), 2));
    // A source that ignores the limit, and one whose list grows while it is read.
    let (rows, asked) = run(vec![page(&[1, 2, 3], ", \"total\": 3")]).await;
    assert_eq!((rows, asked.len()), (ids(&[1, 2, 3]), 1));
    let grown = vec![page(&[1, 2], ", \"total\": 3"), page(&[3], ", \"total\": 4"), page(&[4], ", \"total\": 4")];
    let (rows, asked) = run(grown).await;
    assert_eq!((rows, asked.len()), (ids(&[1, 2, 3, 4]), 3));
    // The contract's code of absence after the last record is the end.
    let (rows, _) = run(vec![page(&[1, 2], ""), "{\"code\": \"NONE\"}".into()]).await;
    assert_eq!(rows, ids(&[1, 2]));
    for broken in [
        // The total announces more rows than there are.
        vec![page(&[1, 2], ", \"more\": true"), page(&[], ", \"more\": true")],
        vec![page(&[1, 2], ", \"total\": 5"), page(&[], ", \"total\": 5")],
        vec![page(&[1, 2], ", \"more\": false, \"total\": 5")],
        vec![page(&[1, 2], ", \"total\": 3"), page(&[3], ", \"total\": \"3 of 5\"")],
        // The same page again, and pages in a cycle until the total is reached.
        vec![page(&[1, 2], ""), page(&[1, 2], "")],
        vec![page(&[1, 2], ", \"total\": 5"), page(&[3, 4], ", \"total\": 5"), page(&[1, 2], ", \"total\": 5")],
        // More pages than the contract allows.
        vec![page(&[1], ""), page(&[2], ""), page(&[3], ""), page(&[4], "")],
        // An error instead of a page.
        vec![page(&[1, 2], ""), "{\"error\": \"x\"}".into()],
    ] {
        let (rows, _) = run(broken.clone()).await;
        assert_eq!(rows, Err("SOURCE_PROTOCOL_ERROR".to_owned()), "{broken:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_in_a_later_record_or_page_is_reported_and_refused_by_policy() {
    let raw = Raw::start().await;
    let adapter = raw.adapter(Credentials::None);
    let plain = r#"{"rows": [{"id": "1"}, {"id": "2"}]}"#;
    let soap = "RECORD(<rows><id>1</id></rows><rows><id>2</id><new>x</new></rows>)";
    let cases: [(&str, &[&str], &str); 4] = [
        // A later page, a later record of a page, of a list in one answer, and of a repeated element.
        ("Rest/Pages", &[plain, r#"{"rows": [{"id": "3", "new": "x"}]}"#, r#"{"rows": []}"#], "rows/new"),
        ("Rest/Pages", &[plain, r#"{"rows": [{"id": "3"}, {"id": "4", "new": "x"}]}"#, r#"{"rows": []}"#], "rows/new"),
        ("Rest/Rows", &[r#"{"rows": [{"id": "1"}, {"id": "2", "new": "x"}]}"#], "rows/new"),
        ("Soap/Get", &[soap], "Record/rows/new"),
    ];
    for (operation, pages, path) in cases {
        for policy in [DriftPolicy::Pass, DriftPolicy::Warn, DriftPolicy::Refuse] {
            raw.answers.lock().unwrap().clear();
            pages.iter().for_each(|page| raw.says(answer("200", page)));
            let said = call_with(&adapter, operation, json!({}), policy).await;
            let drift: Vec<&str> = said.notes.drift.iter().map(|one| one.path.as_str()).collect();
            assert_eq!(drift, [path], "{operation} {policy:?}: by path, once");
            match (policy, said.result) {
                (DriftPolicy::Refuse, Err(refusal)) => assert_eq!(refusal.reason.as_str(), "SOURCE_DRIFTED"),
                (DriftPolicy::Pass | DriftPolicy::Warn, Ok(_)) => {}
                (_, other) => panic!("{operation} {policy:?}: {other:?}"),
            }
        }
    }
}
