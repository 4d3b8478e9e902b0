//! Rights that are used, and rights that are not: when each was used last, what a change of a grant would refuse before it is saved,
//! wrong forms of clients and tokens, and what a revocation has done.

use crate::browser::{Browser, staffed};
use crate::support::{Stage, VERIFY};
use ndxp_gateway::registry::{Store, now};
use ndxp_gateway::sandbox::samples::samples;

async fn look_up(stage: &Stage, client: &str, times: usize) {
    let all = samples(&stage.sandbox.province);
    let sample = all.iter().find(|one| format!("/{}", one.operation) == VERIFY).unwrap();
    stage.client(client);
    stage.grant(client, &["population:verify"], |_| ());
    stage.settle();
    let system = stage.actor(client);
    for _ in 0..times {
        assert_eq!(system.call(VERIFY, sample.requests[0].clone()).await.reason(), "", "{client}");
    }
}

fn row<'p>(page: &'p str, text: &str) -> &'p str {
    page.split("<tr>").find(|row| row.contains(text)).unwrap_or_else(|| panic!("{text}: {page}"))
}

/// A page, once everything on it is looked up.
async fn looked_up(browser: &mut Browser, path: &str) -> String {
    for _ in 0..100 {
        let page = browser.get(path).await.text;
        if !page.contains("being looked up") && !page.contains("≥") {
            return page;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{path} never says when all of it was used last");
}

/// The grant by which a client called.
fn grant_of(stage: &Stage, client: &str) -> String {
    stage.settle();
    let used = stage.entries().into_iter().find(|one| one.entry.client == client && !one.entry.grant.is_empty());
    used.unwrap().entry.grant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_say_when_each_right_was_used_last_and_the_overview_counts_those_that_nobody_uses() {
    let stage = staffed();
    look_up(&stage, "portal", 1).await;
    let unused = stage.grant("kho", &["population:verify"], |grant| grant.not_before = now() - 100 * 86_400);
    let young = stage.grant("kho", &["population:verify"], |_| ());
    stage.settle();
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let grants = looked_up(&mut lan, "/console/grants").await;
    let (none, used) = ("not in the last 90 days", "(UTC+7)</div></td></tr>");
    assert!(row(&grants, &unused).contains(none) && row(&grants, &young).contains(none), "{grants}");
    assert!(row(&grants, &grant_of(&stage, "portal")).contains(used), "{grants}");
    let clients = looked_up(&mut lan, "/console/clients").await;
    assert!(row(&clients, "/console/clients/portal").contains(used), "{clients}");
    assert!(row(&clients, "/console/clients/kho").contains(none), "{clients}");
    let tokens = looked_up(&mut lan, "/console/tokens?client=portal").await;
    assert!(!row(&tokens, "/console/clients/portal").contains(none), "{tokens}");
    // A grant that is young has not been unused for long.
    let card = |page: &str| {
        page.split("grants unused for 90 days").next().unwrap().rsplit("<strong>").next().unwrap().to_owned()
    };
    let page = looked_up(&mut lan, "/console/").await;
    assert!(card(&page).starts_with("1<"), "{}", card(&page));
    // Once somebody uses it, it is used.
    let kho = stage.actor("kho");
    let all = samples(&stage.sandbox.province);
    let sample = all.iter().find(|one| format!("/{}", one.operation) == VERIFY).unwrap();
    assert_eq!(kho.call(VERIFY, sample.requests[0].clone()).await.reason(), "");
    let page = looked_up(&mut lan, "/console/").await;
    assert!(card(&page).starts_with("0<"), "{}", card(&page));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_grant_says_what_it_would_have_refused_before_it_is_saved() {
    let stage = staffed();
    look_up(&stage, "portal", 3).await;
    let id = grant_of(&stage, "portal");
    let before = stage.store.grant(&id).unwrap();
    let here = format!("/console/grants/{id}/change");
    let scopes = before.scopes.join("\n");
    let form = |changed: &[(&'static str, &str)]| -> Vec<(String, String)> {
        let own = [
            ("scope", scopes.as_str()),
            ("purpose", "*"),
            ("field", "*"),
            ("legal_basis", "NĐ 278/2025"),
            ("rate", "50"),
            ("burst", "50"),
            ("step", "look"),
        ];
        let mut all: Vec<(String, String)> =
            own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for (name, value) in changed {
            all.retain(|(known, _)| known != name);
            all.push(((*name).to_owned(), (*value).to_owned()));
        }
        all
    };
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let looked = async |lan: &mut Browser, changed: &[(&'static str, &str)]| {
        let fields = form(changed);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        lan.submit(&here, &here, &fields).await
    };
    let fact = |name: &str, count: u64| format!("<dt>{name}</dt><dd>{count}</dd>");
    for (changed, rule, refused) in [
        (("rate", "7"), None, 0),
        (("purpose", "procedure:9.999999"), Some("… for their purpose"), 3),
        (("network", "192.0.2.0/24"), Some("… for their network"), 3),
        (("scope", "catalogue:read"), Some("… for their scope"), 3),
        (("daily_quota", "2"), Some("… for the daily quota"), 1),
    ] {
        let page = looked(&mut lan, &[changed]).await;
        assert_eq!(page.status, 200, "{changed:?}: {}", page.text);
        let wanted = [fact("Exchanges by this grant", 3), fact("Would have been refused", refused)];
        for fact in wanted.into_iter().chain(rule.map(|rule| fact(rule, refused))) {
            assert!(page.text.contains(&fact), "{changed:?} {fact}: {}", page.text);
        }
        assert!(!page.text.contains("Not complete"), "{}", page.text);
    }
    // Fewer fields refuse nothing, and say which are missing.
    let page = looked(&mut lan, &[("field", "matched_at")]).await;
    if page.status == 200 {
        assert!(page.text.contains(&fact("Would have been refused", 0)), "{}", page.text);
    }
    // A wrong form is said at its place, and looking changes nothing.
    let wrong = looked(&mut lan, &[("field", "no.such.field")]).await;
    assert!(wrong.status == 400 && wrong.text.contains("class=\"fault\""), "{}", wrong.text);
    assert_eq!(stage.store.grant(&id).unwrap().purposes, before.purposes);
    // What another grant of the client admits is not refused.
    stage.grant("portal", &["population:verify"], |_| ());
    stage.settle();
    let page = looked(&mut lan, &[("scope", "catalogue:read")]).await;
    assert!(page.text.contains(&fact("Would have been refused", 0)), "{}", page.text);
    // Then it is saved by the other button; an approver does neither.
    let mut minh = Browser::signed_in(&stage, "minh").await;
    let refused = minh.submit("/console/", &here, &[("step", "look"), ("legal_basis", "x")]).await;
    assert!(refused.status == 403 && refused.text.contains("ROLE_MISSING"), "{}", refused.text);
    let saved = looked(&mut lan, &[("purpose", "procedure:9.999999"), ("step", "")]).await;
    assert_eq!((saved.status, saved.to()), (303, format!("/console/grants/{id}").as_str()), "{}", saved.text);
    assert_eq!(stage.store.grant(&id).unwrap().purposes, ["procedure:9.999999"]);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_client_or_a_token_is_said_at_its_field_and_nothing_is_lost() {
    let stage = staffed();
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let beside = |text: &str, name: &str| {
        let field = text.split(&format!("name=\"{name}\"")).nth(1).unwrap();
        field.split("<label").next().unwrap().contains("class=\"fault\"")
    };
    let client = |agency: &'static str, id: &'static str| {
        [("id", id), ("agency", agency), ("contact", "Phòng <b>CNTT</b>"), ("certificate", ""), ("step", "register")]
    };
    let wrong = lan.submit("/console/clients/register", "/console/clients", &client("nowhere", "cong")).await;
    assert!(wrong.status == 400 && beside(&wrong.text, "agency") && !beside(&wrong.text, "id"), "{}", wrong.text);
    assert!(wrong.text.contains("value=\"cong\"") && wrong.text.contains("Phòng &lt;b&gt;CNTT"), "{}", wrong.text);
    let wrong = lan.submit("/console/clients/register", "/console/clients", &client("H49", "Cổng <1>")).await;
    assert!(wrong.status == 400 && beside(&wrong.text, "id"), "{}", wrong.text);
    let pem = [("id", "cong"), ("agency", "H49"), ("certificate", "x")];
    let wrong = lan.submit("/console/clients/register", "/console/clients", &pem).await;
    assert!(wrong.status == 400 && beside(&wrong.text, "certificate"), "{}", wrong.text);
    assert!(stage.store.client("cong").is_err());
    // A token: its certificate, and a number that is none.
    for (fields, name) in [
        ([("client", "kho"), ("certificate", "no certificate"), ("hours", "1")], "certificate"),
        ([("client", "kho"), ("certificate", "x"), ("hours", "many")], "hours"),
    ] {
        let page = lan.submit("/console/tokens", "/console/tokens", &fields).await;
        assert!(page.status == 400 && beside(&page.text, name), "{name}: {}", page.text);
        assert!(page.text.contains("<details open>") && page.text.contains("value=\"kho\""), "{}", page.text);
    }
    assert!(!lan.get("/console/tokens").await.text.contains("class=\"fault\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_says_how_long_it_took_and_how_many_streams_it_ended() {
    const WATCH: &str = "/ndxp.criminalrecord.v1.CriminalRecordService/WatchRequest";
    let stage = staffed();
    let system = stage.system("portal");
    // A request that stays as it is: its stream goes on.
    let number = stage.sandbox.province.dossiers[29].number.clone();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = system.start(WATCH, serde_json::json!({ "dossierNumber": number })).await;
        assert!(stream.next().await.unwrap().is_some());
        streams.push(stream);
    }
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let tokens = lan.get("/console/tokens?client=portal").await.text;
    let id = tokens.split("/console/tokens/").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert!(!lan.get(&format!("/console/tokens/{id}")).await.text.contains("In force here after"));
    let revoked = lan.submit("/console/tokens", &format!("/console/tokens/{id}/revoke"), &[]).await;
    assert_eq!(revoked.to(), format!("/console/tokens/{id}"), "{}", revoked.text);
    for stream in &mut streams {
        while stream.next().await.unwrap().is_some() {}
    }
    let page = lan.get(&format!("/console/tokens/{id}/live")).await.text;
    assert!(page.contains("it ended</dt><dd>2</dd>") && !page.contains("<html"), "{page}");
    let took = page.split("In force here after</dt><dd>").nth(1).unwrap().split("</dd>").next().unwrap();
    let digits: String = took.split('.').next().unwrap().chars().filter(char::is_ascii_digit).collect();
    assert!(took.contains("ms") && digits.parse::<u64>().is_ok_and(|ms| ms < 5_000), "{took}");
    assert_eq!(lan.get("/console/tokens/none").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_changed_by_form_and_a_new_name_of_one_with_sensitive_rights_waits() {
    let stage = staffed();
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let to = "/console/clients/kho/change";
    let fields = |agency: &'static str, names: &'static str| {
        [("agency", agency), ("contact", "0203 <i>1</i>"), ("name", names), ("justification", "Đổi máy chủ")]
    };
    let wrong = lan.submit(to, to, &fields("không", "kho.example")).await;
    assert!(
        wrong.status == 400 && wrong.text.contains("an agency code") && wrong.text.contains("value=\"không\""),
        "{}",
        wrong.text
    );
    let done = lan.submit(to, to, &fields("H49.9", "kho.example\nspiffe://qn/kho")).await;
    assert_eq!(done.to(), "/console/clients/kho", "{}", done.text);
    let client = stage.store.client("kho").unwrap();
    assert_eq!((client.agency.as_str(), client.names.len()), ("H49.9", 2));
    let page = lan.get("/console/clients/kho").await.text;
    assert!(page.contains("0203 &lt;i&gt;1&lt;/i&gt;") && page.contains("Sở Nông nghiệp và Môi trường"), "{page}");
    // With a right that needs approval, a new name waits for another person.
    stage.grant("kho", &["civilstatus:record"], |grant| grant.needs_approval = true);
    let waits = lan.submit(to, to, &fields("H49.9", "thief.example")).await;
    assert_eq!(waits.to(), "/console/approvals", "{}", waits.text);
    assert_eq!(stage.store.client("kho").unwrap().names.len(), 2);
    stage.verify();
}
