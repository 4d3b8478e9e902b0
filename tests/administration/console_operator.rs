//! The pages of those who run the gateway, in a browser: live figures, sources, contracts, staff, keys; and every role at every route.

use crate::browser::{Browser, auditor, registered, staffed};
use crate::support::{Stage, VERIFY, until};
use ndxp_gateway::pki::{CertificateRole as Certificate, DEFAULT_DAYS};
use ndxp_gateway::registry::{Role, Store};
use ndxp_gateway::sandbox::samples::samples;

/// The router's own list: each path with its methods.
fn routes() -> Vec<(String, bool, bool)> {
    let source = std::fs::read_to_string("src/console/mod.rs").unwrap();
    let lines = source.split(".route(").skip(1).filter_map(|rest| {
        let (path, handlers) = rest.strip_prefix('"')?.split_once('"')?;
        let handlers = handlers.split(".route(").next()?.split(".with_state").next()?;
        (!path.contains('*')).then(|| (path.to_owned(), handlers.contains("get("), handlers.contains("post(")))
    });
    let found: Vec<_> = lines.collect();
    assert!(found.len() > 25, "{found:?}");
    found
}

/// A path of a route with unknown ids, so that nobody with the right changes anything.
fn filled(route: &str) -> String {
    let values = [
        ("{action}", "suspend"),
        ("{verdict}", "approve"),
        ("{locale}", "en"),
        ("{name}", "none"),
        ("{service}", "no.v1.S"),
        ("{method}", "M"),
    ];
    values.iter().fold(route.to_owned(), |path, (name, value)| path.replace(name, value)).replace("{id}", "none")
}

/// Who may send which form: everybody else is refused by the service. What is not in it is tried all the same, without this.
const FORMS: [(&str, &[&str]); 17] = [
    ("/console/clients", &["lan"]),
    ("/console/clients/{id}/change", &["lan"]),
    ("/console/clients/{id}/{action}", &["lan", "van"]),
    ("/console/grants", &["lan"]),
    ("/console/grants/{id}/withdraw", &["lan", "minh"]),
    ("/console/approvals/{id}/{verdict}", &["minh"]),
    ("/console/tokens", &["lan"]),
    ("/console/tokens/{id}/revoke", &["lan", "van"]),
    ("/console/staff", &["lan"]),
    ("/console/staff/{id}", &["lan"]),
    ("/console/staff/{id}/remove", &["lan"]),
    ("/console/keys/rotate", &["lan"]),
    ("/console/keys/{id}/retire", &["lan"]),
    ("/console/sources/{id}/check", &["lan", "van"]),
    ("/console/sources/{id}/notice", &["lan", "van"]),
    ("/console/sources/{id}/notice/clear", &["lan", "van"]),
    ("/console/sign-out", &["lan", "minh", "kiem", "van"]),
];
/// Pages that only some of the staff may read, besides the log's.
const READERS: [(&str, &[&str]); 2] =
    [("/console/cluster", &["lan", "kiem", "van"]), ("/console/cluster/live", &["lan", "kiem", "van"])];
/// Routes that are the same for everybody.
const OPEN: [&str; 7] = [
    "/console",
    "/console/sign-in",
    "/console/openid",
    "/console/openid/callback",
    "/console/style.css",
    "/console/script/{name}",
    "/console/language/{locale}",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_gives_each_role_exactly_what_the_services_allow() {
    let stage = staffed();
    auditor(&stage);
    registered(&stage, "van", Role::Operator);
    stage.folder.pki().issue("van", &Certificate::Staff("van".into()), DEFAULT_DAYS).unwrap();
    for (route, _) in FORMS {
        assert!(routes().iter().any(|(known, _, post)| known == route && *post), "{route} is no form of the router");
    }
    let guarded: Vec<_> = routes().into_iter().filter(|(route, ..)| !OPEN.contains(&route.as_str())).collect();
    // A client's session has its own pages, and nothing else.
    let mut browser = Browser::of_client(&stage, "kho").await;
    let token = browser.get("/console/own").await.token();
    for (route, get, post) in &guarded {
        let path = filled(route);
        let own = ["/console/own", "/console/catalogue", "/console/may-i"].iter().any(|own| path.starts_with(own));
        if *get && own {
            assert!([200, 404].contains(&browser.get(&path).await.status), "{path}");
        } else if *get {
            assert_eq!(browser.get(&path).await.to(), "/console/own", "{path}");
        }
        if *post && route != "/console/sign-out" {
            let sent = browser.send("POST", &path, &format!("csrf={token}"), &[]).await;
            assert_eq!(sent.to(), "/console/own", "{path}");
        }
    }
    for id in [None, Some("stranger"), Some("kho")] {
        let mut browser = Browser::new(&stage, id).await;
        for (route, get, post) in &guarded {
            let path = filled(route);
            if *get {
                assert_eq!(browser.get(&path).await.to(), "/console/sign-in", "{id:?} {path}");
            }
            if *post {
                assert_eq!(browser.send("POST", &path, "csrf=x", &[]).await.to(), "/console/sign-in", "{id:?} {path}");
            }
        }
    }
    for id in ["lan", "minh", "kiem", "van"] {
        let mut browser = Browser::signed_in(&stage, id).await;
        let token = browser.get("/console/").await.token();
        for (route, get, post) in &guarded {
            let path = filled(route);
            if *get {
                let page = browser.get(&path).await;
                let readers = READERS.iter().find(|(known, _)| known == route).map(|(_, who)| who);
                let expected: &[u16] = match readers {
                    Some(who) if who.contains(&id) => &[200],
                    Some(_) => &[403],
                    None if route.starts_with("/console/exchanges") && id != "kiem" => &[403, 404],
                    None => &[200, 303, 400, 403, 404],
                };
                assert!(expected.contains(&page.status), "{id} {path}: {}", page.status);
            }
            if !*post || route == "/console/sign-out" {
                continue;
            }
            assert_eq!(browser.send("POST", &path, "csrf=wrong", &[]).await.status, 403, "{id} {path}");
            if let Some((_, who)) = FORMS.iter().find(|(known, _)| known == route) {
                // Nothing that would change anything: no existing id, role or algorithm.
                let page =
                    browser.send("POST", &path, &format!("csrf={token}&algorithm=none&step=register"), &[]).await;
                assert_eq!(page.text.contains("ROLE_MISSING"), !who.contains(&id), "{id} {path}: {}", page.text);
                assert!((400..500).contains(&page.status), "{id} {path}: {}", page.status);
            }
        }
    }
    stage.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_overview_and_a_source_s_page_show_recent_exchanges() {
    let stage = staffed();
    let system = stage.system("one-stop-shop");
    let all = samples(&stage.sandbox.province);
    let sample = all.iter().find(|one| format!("/{}", one.operation) == VERIFY).unwrap();
    for _ in 0..3 {
        assert_eq!(system.call(VERIFY, sample.requests[0].clone()).await.reason(), "");
    }
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let text = lan.get("/console/live").await.text;
    let row = |text: &str| {
        text.split("/console/sources/population\"").nth(1).unwrap().split("</tr>").next().unwrap().to_owned()
    };
    assert!(row(&text).contains(">3<") && row(&text).contains("Closed<") && row(&text).contains("0.0 %"), "{text}");
    assert!(text.contains("The gateway is ready") && !text.contains("<html"), "{text}");
    // An invalid call is the caller's fault, neither the source's nor the gateway's.
    let wrong = serde_json::json!({ "citizenId": "1" });
    assert_ne!(system.call(VERIFY, wrong).await.reason(), "");
    let page = lan.get("/console/sources/population").await;
    assert!(page.status == 200 && page.text.contains("FIELD_INVALID") && page.text.contains("Caller"), "{}", page.text);
    assert!(page.text.contains("hx-get=\"/console/sources/population/live\""));
    assert!(row(&lan.get("/console/live").await.text).contains(">4<"));
    assert_eq!(lan.get("/console/sources/none").await.status, 404);
    // A gateway that is alone says so, and its menu has no entry for a cluster.
    let alone = lan.get("/console/cluster").await.text;
    assert!(alone.contains("This gateway is alone") && !alone.contains("href=\"/console/cluster\""), "{alone}");
    let script = lan.get("/console/script/htmx.min.js").await;
    assert!(
        script.text.starts_with("var htmx=")
            && script.headers["content-type"].to_str().unwrap().starts_with("text/javascript")
    );
    assert_eq!(lan.get("/console/script/..%2fstyle.css").await.status, 404);
    // After the end of the session, the live part sends the browser to the sign-in page; without scripts it is redirected.
    lan.cookies.clear();
    let over = lan.send("GET", "/console/live", "", &[("hx-request", "true")]).await;
    assert_eq!((over.status, over.headers["hx-redirect"].to_str().unwrap()), (401, "/console/sign-in"));
    assert_eq!(lan.get("/console/live").await.to(), "/console/sign-in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calendar_has_certificates_of_the_gateway_that_end_soon() {
    let stage = Stage::prepared(&|folder| {
        for ending in ["pem", "key"] {
            std::fs::remove_file(folder.path.join(format!("pki/gateway.{ending}"))).unwrap();
        }
        folder.pki().issue("gateway", &Certificate::Server(vec!["localhost".into(), "127.0.0.1".into()]), 9).unwrap();
    });
    stage.client("kho");
    let person = |id: &str, role| ndxp_gateway::registry::Staff {
        id: id.into(),
        roles: vec![role],
        names: vec![ndxp_gateway::pki::staff_uri(id)],
    };
    stage.store.bootstrap(&person("lan", Role::Administrator), &person("minh", Role::Approver)).unwrap();
    stage.folder.pki().issue("lan", &Certificate::Staff("lan".into()), DEFAULT_DAYS).unwrap();
    stage.settle();
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let page = lan.get("/console/").await;
    let calendar = page.text.split_once("Expiring within 30 days").unwrap().1;
    assert!(calendar.contains("gateway.pem"), "{calendar}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staff_come_change_and_go_by_two_people_and_what_is_wrong_stands_beside_its_field() {
    let stage = staffed();
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let mut minh = Browser::signed_in(&stage, "minh").await;
    let wrong = lan.submit("/console/staff", "/console/staff", &[("id", "Bà <Hoa>"), ("role", "AUDITOR")]).await;
    assert!(wrong.status == 400 && wrong.text.contains("class=\"fault\""), "{}", wrong.text);
    assert!(
        wrong.text.contains("value=\"Bà &lt;Hoa&gt;\"") && wrong.text.contains("value=\"AUDITOR\" checked"),
        "{}",
        wrong.text
    );
    let none = lan.submit("/console/staff", "/console/staff", &[("id", "hoa")]).await;
    assert!(none.status == 400 && none.text.contains("at least one is needed"), "{}", none.text);
    let asked = lan
        .submit("/console/staff", "/console/staff", &[("id", "hoa"), ("role", "AUDITOR"), ("justification", "QĐ 7")])
        .await;
    assert_eq!((asked.status, asked.to()), (303, "/console/approvals"), "{}", asked.text);
    assert!(stage.store.staff().unwrap().iter().all(|one| one.id != "hoa"), "it waits");
    let desk = minh.get("/console/approvals").await.text;
    assert!(desk.contains("QĐ 7") && desk.contains("staff:hoa"), "{desk}");
    let change = desk.split("/console/approvals/").nth(1).unwrap().split('/').next().unwrap().to_owned();
    assert_eq!(lan.submit("/console/", &format!("/console/approvals/{change}/approve"), &[]).await.status, 403);
    assert_eq!(
        minh.submit("/console/approvals", &format!("/console/approvals/{change}/approve"), &[]).await.status,
        303
    );
    let hoa = || stage.store.staff().unwrap().into_iter().find(|one| one.id == "hoa");
    assert_eq!(hoa().unwrap().roles, [Role::Auditor]);
    // Another role waits, and the last administrator stays.
    let more = [("role", "AUDITOR"), ("role", "OPERATOR")];
    assert_eq!(lan.submit("/console/staff/hoa", "/console/staff/hoa", &more).await.to(), "/console/approvals");
    assert_eq!(hoa().unwrap().roles, [Role::Auditor]);
    assert_eq!(lan.submit("/console/staff/hoa", "/console/staff/lan/remove", &[]).await.status, 403);
    assert_eq!(lan.submit("/console/staff/hoa", "/console/staff/hoa/remove", &[]).await.to(), "/console/staff");
    assert!(hoa().is_none_or(|one| one.roles.is_empty()));
    // An approver is not offered it.
    assert!(!minh.get("/console/staff").await.text.contains("name=\"role\""));
    stage.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_made_and_retired_by_an_administrator() {
    let stage = staffed();
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let before = stage.store.keys().unwrap().len();
    let made = lan
        .submit("/console/keys", "/console/keys/rotate", &[("algorithm", "EdDSA"), ("justification", "định kỳ")])
        .await;
    assert_eq!(made.to(), "/console/keys", "{}", made.text);
    let keys = stage.store.keys().unwrap();
    assert_eq!(keys.len(), before + 1);
    let new = keys.iter().find(|key| key.algorithm == "EdDSA").unwrap();
    assert!(lan.get("/console/keys").await.text.contains(&new.kid));
    assert_eq!(lan.submit("/console/keys", "/console/keys/rotate", &[("algorithm", "RS256")]).await.status, 400);
    let gone = lan.submit("/console/keys", &format!("/console/keys/{}/retire", new.kid), &[]).await;
    assert_eq!(gone.to(), "/console/keys", "{}", gone.text);
    assert!(lan.get("/console/keys").await.text.contains("Retired"));
    stage.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_contracts_has_what_is_loaded_and_where_answers_differ() {
    let stage = staffed();
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let page = lan.get("/console/contracts").await;
    assert!(page.status == 200 && page.text.contains("ndxp/population/v1/population.proto"), "{}", page.text);
    let one = lan.get("/console/contracts?source=land").await;
    assert!(one.text.contains("land.proto") && !one.text.contains("population.proto"), "{}", one.text);
    let odd = lan.get("/console/contracts?source=%3Cscript%3Ealert(1)%3C%2Fscript%3E").await;
    assert!(odd.status == 200 && !odd.text.contains("<script>"), "{}", odd.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_s_extent_is_changed_and_more_of_it_waits_where_it_needs_approval() {
    let stage = staffed();
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let mut minh = Browser::signed_in(&stage, "minh").await;
    let grant = [
        ("client", "kho"),
        ("scope", "civilstatus:record"),
        ("purpose", "*"),
        ("field", "*"),
        ("legal_basis", "Luật Hộ tịch"),
        ("days", "30"),
    ];
    let id =
        lan.submit("/console/grants/add", "/console/grants", &grant).await.to().rsplit('/').next().unwrap().to_owned();
    let desk = minh.get("/console/approvals").await.text;
    assert!(desk.contains(&id) && desk.contains("Requested at</dt>"), "when it was asked for: {desk}");
    minh.submit("/console/approvals", &format!("/console/approvals/{id}/approve"), &[]).await;
    let to = format!("/console/grants/{id}/change");
    let form = lan.get(&to).await.text;
    assert!(form.contains("civilstatus:record</textarea>") && form.contains("value=\"Luật Hộ tịch\""), "{form}");
    let fields = |scope: &'static str, rate: &'static str| {
        [
            ("scope", scope),
            ("purpose", "*"),
            ("field", "*"),
            ("legal_basis", "Luật Hộ tịch"),
            ("rate", rate),
            ("burst", "0"),
            ("daily_quota", ""),
        ]
    };
    let less = lan.submit(&to, &to, &fields("civilstatus:record", "3")).await;
    assert_eq!(less.to(), format!("/console/grants/{id}"), "{}", less.text);
    assert_eq!(stage.store.grant(&id).unwrap().rate, 3);
    let more = lan.submit(&to, &to, &fields("civilstatus:record", "400")).await;
    assert_eq!(more.to(), "/console/approvals", "{}", more.text);
    assert_eq!(stage.store.grant(&id).unwrap().rate, 3, "it waits");
    let wrong = lan.submit(&to, &to, &fields("no such <scope>", "3")).await;
    assert!(
        wrong.status == 400 && wrong.text.contains("class=\"fault\"") && wrong.text.contains("no such &lt;scope&gt;"),
        "{}",
        wrong.text
    );
    let number = lan.submit(&to, &to, &fields("civilstatus:record", "many")).await;
    assert!(number.status == 400 && number.text.contains("whole number"), "{}", number.text);
    assert_eq!(minh.submit(&to, &to, &fields("civilstatus:record", "1")).await.status, 403);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_checked_on_demand_and_left_alone_in_between() {
    let stage = staffed();
    registered(&stage, "van", Role::Operator);
    stage.folder.pki().issue("van", &Certificate::Staff("van".into()), DEFAULT_DAYS).unwrap();
    let mut van = Browser::signed_in(&stage, "van").await;
    let page = van.submit("/console/sources/population", "/console/sources/population/check", &[]).await;
    assert!(page.status == 200 && page.text.contains("Result of the check"), "{}", page.text);
    assert!(page.text.contains(">Reached<") && !page.text.contains("Not reached"), "{}", page.text);
    let again = van.submit("/console/sources/population", "/console/sources/population/check", &[]).await;
    assert!(again.status == 429 && again.text.contains("RATE_LIMITED"), "{}", again.text);
    // Another source is not left alone, and who does not look after sources checks none.
    let mut minh = Browser::signed_in(&stage, "minh").await;
    assert!(!minh.get("/console/sources/land").await.text.contains("/check"));
    let refused = minh.submit("/console/", "/console/sources/land/check", &[]).await;
    assert!(refused.status == 403 && refused.text.contains("ROLE_MISSING"), "{}", refused.text);
    assert_eq!(van.submit("/console/sources/land", "/console/sources/none/check", &[]).await.status, 404);
    let other = van.submit("/console/sources/land", "/console/sources/land/check", &[]).await;
    assert!(other.status == 200 && other.text.contains(">Reached<"), "{}", other.text);
    stage.verify();
    let entries = stage.entries();
    let checks = entries.iter().filter(|one| one.entry.event == "source.check" && one.entry.status == 0);
    let checks: Vec<(&str, &str)> = checks.map(|one| (one.entry.actor.as_str(), one.entry.object.as_str())).collect();
    assert_eq!(checks, [("staff:van", "source:population"), ("staff:van", "source:land")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_maintenance_notice_is_set_by_form_and_reaches_callers() {
    let stage = staffed();
    registered(&stage, "van", Role::Operator);
    stage.folder.pki().issue("van", &Certificate::Staff("van".into()), DEFAULT_DAYS).unwrap();
    let system = stage.system("one-stop-shop");
    let mut van = Browser::signed_in(&stage, "van").await;
    let (page, to) = ("/console/sources/land", "/console/sources/land/notice");
    let fields = |ends: &'static str, text: &'static str| [("starts", ""), ("ends", ends), ("text_vi", text)];
    let good = van.submit(page, to, &fields("2026-01-01T00:00", "Bảo trì")).await;
    assert!(
        good.status == 400 && good.text.contains("is over already") | good.text.contains("after its start"),
        "{}",
        good.text
    );
    assert!(good.text.contains("value=\"2026-01-01T00:00\""), "the input stays: {}", good.text);
    van.cookies.retain(|(name, _)| name != "ndxp-language");
    van.cookies.push(("ndxp-language".into(), "vi".into()));
    let wrong = van.submit(page, to, &fields("2099-01-01T00:00", "Bảo trì")).await;
    assert!(wrong.status == 400 && wrong.text.contains("tối đa 31 ngày"), "{}", wrong.text);
    let wrong = van.submit(page, to, &fields("no time", "Bảo trì")).await;
    assert!(wrong.status == 400 && wrong.text.contains("không phải ngày giờ"), "{}", wrong.text);
    let end = jiff::Timestamp::from_second(ndxp_gateway::registry::now() + 10_800 + 25_200).unwrap();
    let end: &'static str = end.strftime("%Y-%m-%dT%H:%M").to_string().leak();
    let set = van.submit(page, to, &fields(end, "Bảo trì <b>đêm</b>")).await;
    assert_eq!(set.to(), "/console/sources/land#notice", "{}", set.text);
    let shown = van.get(page).await.text;
    assert!(shown.contains("Bảo trì &lt;b&gt;đêm&lt;/b&gt;") && shown.contains("Gỡ thông báo"), "{shown}");
    stage.settle();
    let parcel =
        samples(&stage.sandbox.province).into_iter().find(|one| one.operation.ends_with("LandService/GetParcel"));
    let parcel = parcel.unwrap();
    let metadata = [("ndxp-purpose", parcel.purpose.as_str()), ("ndxp-official", parcel.official.as_str())];
    let path = format!("/{}", parcel.operation);
    let message = system.encode(&path, &parcel.requests[0]);
    let told = system.raw(&path, &metadata, vec![message]).await.unwrap().ok();
    assert!(told.answered.text("ndxp-maintenance").contains("+07:00/"), "{:?}", told.answered.metadata);
    let cleared = van.submit(page, &format!("{to}/clear"), &[]).await;
    assert_eq!(cleared.to(), "/console/sources/land#notice", "{}", cleared.text);
    assert!(!van.get(page).await.text.contains("Gỡ thông báo"));
    stage.verify();
    until("both changes are in the log", || {
        let entries = stage.entries().into_iter().map(|one| one.entry.event);
        let events: Vec<String> = entries.filter(|event| event.starts_with("notice.")).collect();
        events == ["notice.set", "notice.clear"]
    });
}
