//! The auditors' pages, in a browser: people and the sheet that is handed over, statistics, holds, anomalies, and what is refused.

use crate::browser::{Browser, auditor, staffed};
use crate::support::{Stage, VERIFY};
use ndxp_gateway::sandbox::samples::samples;

/// A stage with one exchange about a person, whose id it returns.
async fn looked_up(stage: &Stage) -> String {
    let system = stage.system("one-stop-shop");
    let all = samples(&stage.sandbox.province);
    let sample = all.iter().find(|one| format!("/{}", one.operation) == VERIFY).unwrap();
    assert_eq!(system.call(VERIFY, sample.requests[0].clone()).await.reason(), "");
    let text = format!("{:?}", sample.requests[0]);
    let digits = text.split(|c: char| !c.is_ascii_digit()).find(|run| run.len() == 12);
    digits.expect("the sample names somebody").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_sees_charts_with_tables_and_errors_beside_their_fields() {
    let stage = staffed();
    auditor(&stage);
    looked_up(&stage).await;
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    for path in ["/console/statistics", "/console/statistics?exact=yes"] {
        let page = kiem.get(path).await;
        assert!(page.status == 200 && page.text.contains("<svg"), "{path}: {}", page.text);
        assert!(page.text.contains("<td data-label=\"Client\"><div>one-stop-shop</div></td>"), "{path}: {}", page.text);
        assert!(page.text.contains("complete up to") && !page.text.contains(" style="), "{path}");
    }
    let exact = kiem.get("/console/statistics?exact=yes").await.text;
    assert!(exact.contains("By purpose") && !kiem.get("/console/statistics").await.text.contains("By purpose"));
    // A single client; none; a period without exchanges.
    let none = kiem.get("/console/statistics?client=nobody").await;
    assert!(none.text.contains("No items") && !none.text.contains("<svg"), "{}", none.text);
    let past = kiem.get("/console/statistics?from=2020-01-01&to=2020-01-31").await;
    assert!(past.status == 200 && past.text.contains("No items"), "{}", past.text);
    for (path, error) in
        [("from=yesterday", "from-error"), ("to=2026-02-30", "to-error"), ("from=2099-01-01", "to-error")]
    {
        let page = kiem.get(&format!("/console/statistics?{path}")).await;
        assert_eq!(page.status, 400, "{path}");
        assert!(page.text.contains(&format!("id=\"{error}\"")) && page.text.contains("aria-invalid"), "{}", page.text);
    }
    let payload = kiem.get("/console/statistics?client=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E").await;
    assert!(!payload.text.contains("<script") && payload.text.contains("&lt;script&gt;"), "{}", payload.text);
    let mut lan = Browser::signed_in(&stage, "lan").await;
    for path in ["/console/statistics", "/console/statistics?exact=yes", "/console/people"] {
        let page = lan.get(path).await;
        assert!(page.status == 403 && page.text.contains("ROLE_MISSING"), "{path}: {}", page.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_citizen_gets_a_sheet_for_all_ids_and_no_id_is_in_an_address() {
    let stage = staffed();
    auditor(&stage);
    let id = looked_up(&stage).await;
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    let ids = format!("014055356620\r\n{id}");
    let head = [("agency", "Sở Tư pháp <b>"), ("place", "Quảng Ninh"), ("contact", "\"><script>alert(1)</script>")];
    let fields = |kind: &'static str, ids: &str| -> Vec<(String, String)> {
        let own = [("ids", ids), ("case", "12/KN"), ("as", kind)];
        own.iter().chain(&head).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let mut asked = async |fields: Vec<(String, String)>| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let page = kiem.submit("/console/people", "/console/people", &fields).await;
        assert_eq!(page.headers["cache-control"], "no-store");
        page
    };
    let page = asked(fields("page", &ids)).await;
    assert!(page.status == 200 && page.text.contains("Có 1 lượt tra cứu"), "{}", page.text);
    assert!(page.text.contains("H49") && page.text.contains("dân cư"), "{}", page.text);
    assert!(!page.text.contains("<script") && !page.text.contains("<b>"), "{}", page.text);
    let addresses = page.text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    assert!(addresses.into_iter().all(|address| !address.contains(&id)), "{}", page.text);
    for (kind, name) in [("pdf", "report.pdf"), ("sheet", "sheet.pdf")] {
        let pdf = asked(fields(kind, &ids)).await;
        assert!(pdf.status == 200 && pdf.text.starts_with("%PDF-"), "{kind}");
        assert!(pdf.headers["content-disposition"].to_str().unwrap().contains(name), "{kind}");
    }
    let json: serde_json::Value = serde_json::from_str(&asked(fields("json", &ids)).await.text).unwrap();
    assert_eq!(json["entries"].as_array().unwrap().len(), 1, "{json}");
    assert_eq!(json["entries"][0]["client"], "one-stop-shop");
    // Another person was not looked up, and the log itself confirms it.
    let other = asked(fields("json", "014055356620")).await;
    let other: serde_json::Value = serde_json::from_str(&other.text).unwrap();
    assert_eq!((other["entries"].as_array().unwrap().len(), &other["complete"]["from_log"]), (0, &true.into()));
    let other = asked(fields("page", "014055356620")).await;
    assert!(other.text.contains("Không có cơ quan nào tra cứu"), "{}", other.text);
    // Each search is an entry with its reason; an invalid one is reported beside its field, and is not a search.
    stage.verify();
    let searches = |stage: &Stage| stage.entries().iter().filter(|one| one.entry.event == "audit.search").count();
    let before = searches(&stage);
    assert!(stage.entries().iter().any(|one| one.entry.object == "reason:12/KN" && one.entry.actor == "staff:kiem"));
    for (name, value) in [("ids", ""), ("case", ""), ("case", "Nguyễn Văn A"), ("from", "x")] {
        let mut wrong = fields("pdf", &ids);
        wrong.retain(|(known, _)| known != name);
        wrong.push((name.to_owned(), value.to_owned()));
        let page = asked(wrong).await;
        assert_eq!(page.status, 400, "{name}={value}");
        assert!(page.text.contains(&format!("id=\"{name}-error\"")), "{name}: {}", page.text);
    }
    assert_eq!(searches(&stage), before);
    // Anybody but an auditor finds nothing by sending the form directly.
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let refused = lan.submit("/console/", "/console/people", &[("ids", &id), ("case", "12/KN")]).await;
    assert!(refused.status == 403 && !refused.text.contains("one-stop-shop"), "{}", refused.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_places_and_releases_a_hold_but_never_one_without_a_condition() {
    let stage = staffed();
    auditor(&stage);
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    let here = "/console/holds";
    let xss = "<script>alert(1)</script>";
    for (fields, error) in [
        (vec![("case", "VA-7")], "scope-error"),
        (vec![("case", ""), ("client", "kho")], "case-error"),
        (vec![("case", xss), ("client", xss)], "case-error"),
        (vec![("case", "VA-7"), ("client", "kho"), ("from", "x")], "from-error"),
        (vec![("case", "VA-7"), ("from", "2026-11-02"), ("to", "2026-11-01")], "to-error"),
    ] {
        let page = kiem.submit(here, here, &fields).await;
        assert_eq!(page.status, 400, "{fields:?}");
        assert!(page.text.contains(&format!("id=\"{error}\"")) && !page.text.contains("<script"), "{}", page.text);
    }
    assert!(kiem.get(here).await.text.contains("No items"));
    let placed = kiem.submit(here, here, &[("case", "VA-7"), ("client", "kho"), ("ids", "022080990129")]).await;
    assert_eq!((placed.status, placed.to()), (303, here), "{}", placed.text);
    let page = kiem.get(here).await;
    // Its conditions, but of people only that they were given.
    assert!(page.text.contains("Client: kho") && page.text.contains("given, not kept"), "{}", page.text);
    assert!(!page.text.contains("022080990129"), "{}", page.text);
    assert!(page.text.contains("VA-7") && page.text.contains("/console/holds/1/release"), "{}", page.text);
    // An administrator neither sees nor releases it.
    let mut lan = Browser::signed_in(&stage, "lan").await;
    assert_eq!(lan.get(here).await.status, 403);
    assert_eq!(lan.submit("/console/", "/console/holds/1/release", &[]).await.status, 403);
    assert!(kiem.get(here).await.text.contains("VA-7"));
    assert_eq!(kiem.submit(here, "/console/holds/7/release", &[]).await.status, 404);
    assert_eq!(kiem.submit(here, "/console/holds/x/release", &[]).await.status, 404);
    assert_eq!(kiem.submit(here, "/console/holds/1/release", &[]).await.to(), here);
    assert!(!kiem.get(here).await.text.contains("VA-7"));
    stage.verify();
    for event in ["log.hold", "log.release"] {
        let all = stage.entries();
        assert!(all.iter().any(|one| one.entry.event == event && one.entry.actor == "staff:kiem"), "{event}");
    }
    // Anomalies: a period that is too long is refused beside its field, one of a month is not.
    let long = kiem.get("/console/findings?from=2026-01-01&to=2026-11-01").await;
    assert!(long.status == 400 && long.text.contains("id=\"to-error\""), "{}", long.text);
    let month = kiem.get("/console/findings?from=2026-10-01&to=2026-10-31").await;
    assert!(month.status == 200 && month.text.contains("complete up to"), "{}", month.text);
    assert_eq!(lan.get("/console/findings").await.status, 403);
}
