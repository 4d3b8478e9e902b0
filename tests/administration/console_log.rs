//! The auditor's pages of the log itself: what comes in, what is unusual and who has looked into it, how far it is signed, what a hold
//! keeps, what an exchange was decided by, and exports.

use crate::browser::{Browser, Page, auditor, staffed};
use crate::support::{Stage, VERIFY, audit_cli, until};
use ndxp_gateway::exchange_log::checkpoint::LogVerifier;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::registry::Store;
use ndxp_gateway::sandbox::samples::samples;
use std::time::Duration;

const CLIENTS: [&str; 4] = ["one-stop-shop", "portal", "tax", "land"];

async fn look_up(stage: &Stage, clients: &[&str]) {
    let all = samples(&stage.sandbox.province);
    let sample = all.iter().find(|one| format!("/{}", one.operation) == VERIFY).unwrap();
    for id in clients {
        let system = if stage.store.client(id).is_ok() { stage.actor(id) } else { stage.system(id) };
        assert_eq!(system.call(VERIFY, sample.requests[0].clone()).await.reason(), "", "{id}");
    }
}

fn row<'p>(page: &'p Page, text: &str) -> &'p str {
    page.text.split("<tr>").find(|row| row.contains(text)).unwrap_or_else(|| panic!("{text}: {}", page.text))
}

fn value<'p>(page: &'p str, name: &str) -> &'p str {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
    rest.split('"').next().unwrap()
}

/// Asks for the overview until the card of open anomalies shows a number.
async fn open_findings(kiem: &mut Browser, wanted: &str) {
    for _ in 0..100 {
        let page = kiem.get("/console/").await;
        let card = page
            .text
            .split("class=\"card\" href=\"/console/findings\"")
            .nth(1)
            .unwrap()
            .split("</a>")
            .next()
            .unwrap()
            .to_owned();
        if card.contains(&format!("<strong>{wanted}</strong>")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the overview never shows {wanted} open anomalies");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_anomaly_is_open_until_somebody_says_what_they_found_and_again_once_it_grows() {
    let stage = staffed();
    auditor(&stage);
    look_up(&stage, &CLIENTS).await;
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    let here = "/console/findings";
    let page = kiem.get(here).await;
    let found = row(&page, "One person, many clients").to_owned();
    assert!(found.contains("Not reviewed") && found.contains("4 clients"), "{found}");
    open_findings(&mut kiem, "1").await;
    let fields = |reason: &'static str, row: &str| {
        let own = ["id", "from", "to"].map(|name| (name, value(row, name).to_owned()));
        own.into_iter().chain([("reason", reason.to_owned())]).collect::<Vec<_>>()
    };
    let sent = async |kiem: &mut Browser, reason: &'static str, row: &str| {
        let fields = fields(reason, row);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        kiem.submit(here, here, &fields).await
    };
    // Without what was found out, nothing is marked, and what is missing is said at its field.
    let none = sent(&mut kiem, "", &found).await;
    assert!(none.status == 400 && none.text.contains("Write what was found out"), "{}", none.text);
    assert!(row(&kiem.get(here).await, "One person, many clients").contains("Not reviewed"));
    let marked = sent(&mut kiem, "Bốn sở cùng giải quyết một hồ sơ <b>", &found).await;
    assert!(marked.status == 303 && marked.to().starts_with("/console/findings?from="), "{}", marked.text);
    let page = kiem.get(marked.to()).await;
    let reviewed = row(&page, "One person, many clients").to_owned();
    assert!(reviewed.contains("Reviewed") && reviewed.contains("kiem"), "{reviewed}");
    assert!(
        reviewed.contains("Bốn sở cùng giải quyết một hồ sơ &lt;b&gt;") && !page.text.contains("<b>"),
        "{reviewed}"
    );
    open_findings(&mut kiem, "0").await;
    // The mark is an entry and nothing else: another process that reads the log has it, too.
    let (ok, told, _) = audit_cli(&stage, &["anomalies"]);
    assert!(ok && told.contains("staff:kiem") && told.contains("Bốn sở cùng"), "{told}");
    // The same anomaly with one more entry is another question.
    look_up(&stage, &["police"]).await;
    let page = kiem.get(here).await;
    let grown = row(&page, "One person, many clients");
    assert!(grown.contains("Not reviewed") && grown.contains("5 clients"), "{grown}");
    let late = sent(&mut kiem, "đã xem", &found).await;
    assert!(late.status == 404 && late.text.contains("newer entries"), "{}", late.text);
    // An administrator neither sees nor marks any.
    let mut lan = Browser::signed_in(&stage, "lan").await;
    assert!(!lan.get("/console/").await.text.contains(here));
    let refused = lan.submit("/console/", here, &[("id", value(&found, "id")), ("reason", "x")]).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    stage.verify();
    let reviews = stage.entries().into_iter().filter(|one| one.entry.event == "audit.review" && one.entry.status == 0);
    assert_eq!(reviews.count(), 1);
    // In Vietnamese, the words of the rule are Vietnamese.
    kiem.cookies.retain(|(name, _)| name != "ndxp-language");
    kiem.cookies.push(("ndxp-language".into(), "vi".into()));
    let page = kiem.get(here).await;
    assert!(row(&page, "Một người, nhiều hệ thống").contains("5 hệ thống tra cứu cùng một người"), "{}", page.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checkpoint_is_shown_and_taken_away_as_it_was_signed() {
    let stage = staffed();
    auditor(&stage);
    look_up(&stage, &CLIENTS[..1]).await;
    let reader = || LogReader::open(&stage.data()).unwrap();
    until("everything is sealed", || reader().sealed() == reader().size());
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    let page = kiem.get("/console/checkpoints").await;
    assert!(page.status == 200 && page.text.contains("policy names no witness"), "{}", page.text);
    let file = kiem.get("/console/checkpoints/text").await;
    assert!(file.headers["content-disposition"].to_str().unwrap().contains("checkpoint.txt"));
    let key = LogVerifier::parse(&reader().verifier().to_string()).unwrap();
    let checkpoint = key.check(&file.text).unwrap();
    assert!(checkpoint.size > 0 && page.text.contains(&key.to_string()), "{}", page.text);
    // There is no alarm to acknowledge; an administrator sees none of it.
    let none = kiem.submit("/console/", "/console/checkpoints/acknowledge", &[("id", "x"), ("reason", "x")]).await;
    assert_eq!(none.status, 404, "{}", none.text);
    let mut lan = Browser::signed_in(&stage, "lan").await;
    for path in ["/console/checkpoints", "/console/checkpoints/text", "/console/tail", "/console/tail/live"] {
        assert_eq!(lan.get(path).await.status, 403, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_entries_come_by_themselves_and_stand_still_on_demand() {
    let stage = staffed();
    auditor(&stage);
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    let page = kiem.get("/console/tail?client=portal").await;
    assert!(page.text.contains("hx-get=\"/console/tail/live?client=portal\" hx-trigger=\"every 1s\""), "{}", page.text);
    assert!(page.text.contains("No items"), "{}", page.text);
    // An exchange is there as soon as it has its response: before it is sealed.
    look_up(&stage, &["portal", "tax"]).await;
    let live = kiem.get("/console/tail/live?client=portal").await;
    assert!(live.text.contains("VerifyCitizen") && !live.text.contains("<html"), "{}", live.text);
    assert!(live.text.contains("portal") && !live.text.contains("tax"), "{}", live.text);
    let still = kiem.get("/console/tail?still=yes&client=portal").await;
    assert!(still.text.contains("VerifyCitizen") && !still.text.contains("hx-get"), "{}", still.text);
    assert!(!still.text.contains("<script") && still.text.contains("Go on updating"), "{}", still.text);
    // At most 40 entries, whatever there is.
    look_up(&stage, &["tax"; 45]).await;
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    let all = kiem.get("/console/tail/live?client=tax").await;
    assert_eq!(all.text.matches("<tr>").count(), 41, "{}", all.text);
    let payload = kiem.get("/console/tail?client=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E").await;
    assert!(!payload.text.contains("<script>alert"), "{}", payload.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_says_how_many_entries_it_keeps_and_counts_on() {
    let stage = staffed();
    auditor(&stage);
    look_up(&stage, &["portal", "portal", "tax"]).await;
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    let here = "/console/holds";
    for (case, client) in [("VA-7", "portal"), ("VA-8", "nobody")] {
        assert_eq!(kiem.submit(here, here, &[("case", case), ("client", client)]).await.to(), here);
    }
    let held = |page: &Page, case: &str, entries: u64| {
        let cell = format!("<td data-label=\"Entries\"><div>{entries}</div></td>");
        assert!(row(page, case).contains(&cell), "{case} {entries}: {}", page.text);
    };
    let page = kiem.get(here).await;
    held(&page, "VA-7", 2);
    held(&page, "VA-8", 0);
    look_up(&stage, &["portal"]).await;
    held(&kiem.get(here).await, "VA-7", 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_s_page_has_what_it_was_decided_by_and_where_its_time_went() {
    let stage = staffed();
    auditor(&stage);
    look_up(&stage, &["portal"]).await;
    let portal = stage.actor("portal");
    let refused = portal.call("/ndxp.land.v1.LandService/GetParcel", serde_json::json!({})).await;
    assert_ne!(refused.reason(), "");
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    let list = kiem.get("/console/exchanges?client=portal").await;
    let places: Vec<&str> =
        list.text.split("href=\"/console/exchanges/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let mut answered = None;
    for place in &places {
        let page = kiem.get(&format!("/console/exchanges/{place}")).await;
        assert!(page.text.contains("Decided by") && page.text.contains("Stages and their times"), "{}", page.text);
        if page.text.contains("VerifyCitizen") {
            answered = Some(page);
        }
    }
    let page = answered.unwrap();
    let grant = stage.entries().into_iter().find(|one| one.entry.client == "portal" && !one.entry.grant.is_empty());
    let grant = grant.unwrap().entry;
    for part in [
        format!("href=\"/console/grants/{}\"", grant.grant),
        grant.token,
        "Request arrived".into(),
        "At the source (attempts: 1)".into(),
        "Ended and logged".into(),
    ] {
        assert!(page.text.contains(&part), "{part}: {}", page.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_started_watched_and_taken_away_by_who_started_it() {
    let stage = staffed();
    auditor(&stage);
    look_up(&stage, &["portal", "portal", "tax"]).await;
    let reader = || LogReader::open(&stage.data()).unwrap();
    until("everything is sealed", || reader().sealed() == reader().size());
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    let here = "/console/exports";
    // The search hands its conditions on.
    let search = kiem.get("/console/exchanges?client=portal&subject=&outcome=OK").await.text;
    assert!(search.contains("href=\"/console/exports?client=portal&amp;outcome=OK\""), "{search}");
    assert!(kiem.get("/console/exports?client=portal").await.text.contains("name=\"client\" value=\"portal\""));
    let mut files = Vec::new();
    for format in ["csv", "parquet"] {
        let started = kiem.submit(here, here, &[("client", "portal"), ("outcome", "OK"), ("format", format)]).await;
        assert_eq!((started.status, started.to()), (303, here), "{}", started.text);
        let mut page = kiem.get("/console/exports/live").await;
        for _ in 0..100 {
            if !page.text.contains("Being written") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            page = kiem.get("/console/exports/live").await;
        }
        let row = page.text.split("<tr>").find(|row| row.contains(&format!("<div>{format}</div>"))).unwrap();
        assert!(row.contains("Complete") && row.contains("<td data-label=\"Entries\"><div>2</div>"), "{row}");
        files.push(row.split("href=\"").nth(1).unwrap().split('"').next().unwrap().to_owned());
    }
    let csv = kiem.get(&files[0]).await;
    assert!(csv.headers["content-disposition"].to_str().unwrap().contains(".csv"));
    let lines: Vec<&str> = csv.text.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("index,time,kind,exchange,"), "{}", csv.text);
    assert!(lines[1..].iter().all(|line| line.contains("portal") && line.contains("VerifyCitizen")), "{}", csv.text);
    assert!(kiem.get(&files[1]).await.text.starts_with("PAR1"));
    // The third waits until one is removed; a wrong moment and a person without a reason are said at their fields.
    let third = kiem.submit(here, here, &[("client", "tax"), ("format", "jsonl")]).await;
    assert!(third.status == 429 && third.text.contains("remove one"), "{}", third.text);
    for fields in [[("from", "yesterday"), ("format", "csv")], [("subject", "022055356620"), ("format", "csv")]] {
        let wrong = kiem.submit(here, here, &fields).await;
        assert!(wrong.status == 400 && wrong.text.contains("class=\"fault\""), "{}", wrong.text);
    }
    assert_eq!(kiem.submit(here, here, &[("format", "exe")]).await.status, 400);
    // Nobody else has them, whatever their role.
    crate::browser::registered(&stage, "hoa", ndxp_gateway::registry::Role::Auditor);
    let role = ndxp_gateway::pki::CertificateRole::Staff("hoa".into());
    stage.folder.pki().issue("hoa", &role, ndxp_gateway::pki::DEFAULT_DAYS).unwrap();
    let mut hoa = Browser::signed_in(&stage, "hoa").await;
    assert_eq!(hoa.get(&files[0]).await.status, 404);
    assert_eq!(hoa.submit(here, &format!("{}/remove", files[0]), &[]).await.status, 404);
    let mut lan = Browser::signed_in(&stage, "lan").await;
    assert_eq!((lan.get(here).await.status, lan.get(&files[0]).await.status), (403, 403));
    assert_eq!(kiem.submit(here, &format!("{}/remove", files[0]), &[]).await.to(), here);
    assert_eq!(kiem.get(&files[0]).await.status, 404);
    stage.verify();
    let started = stage.entries().into_iter().filter(|one| one.entry.event == "audit.start_export");
    let kept = started.filter(|one| one.entry.actor == "staff:kiem" && one.entry.object.starts_with("export:"));
    assert_eq!(kept.count(), 2);
}
