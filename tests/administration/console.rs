//! The console as its users and its attackers meet it: a browser's requests to the real HTTPS port, with the certificates of several
//! people.

use crate::browser::{Browser, auditor, staffed};
use crate::support::{CITIZEN, Stage, VERIFY, until};
use ndxp_gateway::exchange_log::key;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::receipt::Receipt;
use ndxp_gateway::keyfile::Vault;
use ndxp_gateway::pki::{CertificateRole as Certificate, DEFAULT_DAYS};
use ndxp_gateway::registry::Store;
use ndxp_gateway::sandbox::samples::samples;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_see_only_the_sign_in_page() {
    let stage = staffed();
    for (id, said) in
        [(None, "has not presented a client certificate"), (Some("stranger"), "does not belong to a registered member")]
    {
        let mut browser = Browser::new(&stage, id).await;
        for path in [
            "/console/",
            "/console/clients",
            "/console/exchanges",
            "/console/grants/add",
            "/console/clients/kho/suspend",
        ] {
            let page = browser.get(path).await;
            assert_eq!((page.status, page.to()), (303, "/console/sign-in"), "{id:?} {path}");
        }
        for path in
            ["/console/clients", "/console/clients/kho/suspend", "/console/approvals/x/approve", "/console/sign-out"]
        {
            let page = browser.send("POST", path, "csrf=x&id=y", &[]).await;
            assert_eq!((page.status, page.to()), (303, "/console/sign-in"), "{id:?} {path}");
        }
        let page = browser.get("/console/sign-in").await;
        assert!(page.status == 200 && page.text.contains(said), "{id:?}: {}", page.text);
        let refused = browser.send("POST", "/console/sign-in", "", &[]).await;
        assert!([401, 403].contains(&refused.status) && !refused.headers.contains_key("set-cookie"), "{id:?}");
    }
    assert!(!stage.store.client("kho").unwrap().suspended);
    // The sign-in with a certificate of nobody is a refusal in the log.
    stage.verify();
    let acts = stage.entries();
    let refused = acts.iter().filter(|found| found.entry.event == "console.sign_in" && !found.entry.reason.is_empty());
    assert_eq!(refused.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_invalid_on_another_certificate_and_ends_with_the_person_s_rights() {
    let stage = staffed();
    auditor(&stage);
    let mut lan = Browser::signed_in(&stage, "lan").await;
    assert!(lan.get("/console/").await.text.contains("lan"));
    // Only the cookie, with another person's certificate and without one.
    for id in [Some("minh"), Some("kho"), None] {
        let mut thief = Browser::new(&stage, id).await;
        thief.cookies = lan.cookies.clone();
        assert_eq!(thief.get("/console/").await.to(), "/console/sign-in", "{id:?}");
    }
    assert_eq!(lan.get("/console/").await.status, 200, "it goes on for its owner");
    // A cookie chosen by somebody else is not a session, and sign-in does not adopt it.
    let mut fixed = Browser::new(&stage, Some("minh")).await;
    fixed.cookies.push(("__Host-ndxp-console".into(), "chosen".into()));
    assert_eq!(fixed.get("/console/").await.to(), "/console/sign-in");
    fixed.send("POST", "/console/sign-in", "", &[]).await;
    assert!(fixed.cookies.iter().all(|(_, value)| value != "chosen"));
    // Signing out ends it at the server.
    let before = lan.cookies.clone();
    let out = lan.submit("/console/", "/console/sign-out", &[]).await;
    assert_eq!(out.to(), "/console/sign-in");
    lan.cookies = before;
    assert_eq!(lan.get("/console/").await.to(), "/console/sign-in");
    // A person who has left the staff.
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    assert_eq!(kiem.get("/console/exchanges").await.status, 200);
    stage.store.remove_staff("kiem").unwrap();
    stage.settle();
    assert_eq!(kiem.get("/console/exchanges").await.to(), "/console/sign-in");
    stage.verify();
    let acts = stage.entries();
    for act in ["console.sign_in", "console.sign_out"] {
        assert!(acts.iter().any(|found| found.entry.event == act && found.entry.actor == "staff:lan"), "{act}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_from_another_session_or_site_changes_nothing() {
    let stage = staffed();
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let mut minh = Browser::signed_in(&stage, "minh").await;
    let (own, other) = (lan.get("/console/").await.token(), minh.get("/console/").await.token());
    let suspend = "/console/clients/kho/suspend";
    let sent = |token: &str| format!("csrf={token}&justification=x");
    for (form, more) in [
        (sent(""), vec![]),
        (sent("invented"), vec![]),
        (sent(&other), vec![]),
        ("justification=x".to_owned(), vec![]),
        (sent(&own), vec![("origin", "https://elsewhere.example")]),
        (sent(&own), vec![("sec-fetch-site", "cross-site")]),
        (sent(&own), vec![("origin", "null")]),
    ] {
        assert_eq!(lan.send("POST", suspend, &form, &more).await.status, 403, "{form} {more:?}");
    }
    let wrong_type = lan.send("POST", suspend, &sent(&own), &[("content-type", "text/plain")]).await;
    assert!([400, 415].contains(&wrong_type.status), "{wrong_type:?}");
    let mut large = Browser::new(&stage, Some("lan")).await;
    large.cookies = lan.cookies.clone();
    assert_eq!(large.send("POST", suspend, &format!("csrf={own}&x={}", "y".repeat(300_000)), &[]).await.status, 413);
    assert!(!stage.store.client("kho").unwrap().suspended);
    // A link changes nothing: it shows what would stop.
    let shown = lan.get(suspend).await;
    assert!(shown.status == 200 && shown.text.contains("within one second"), "{}", shown.text);
    assert!(!stage.store.client("kho").unwrap().suspended);
    let good = lan
        .send("POST", suspend, &sent(&own), &[("origin", "https://localhost"), ("sec-fetch-site", "same-origin")])
        .await;
    assert_eq!((good.status, good.to()), (303, "/console/clients/kho"), "{}", good.text);
    assert!(stage.store.client("kho").unwrap().suspended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gets_its_first_token_through_two_people_s_browsers() {
    let stage = staffed();
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let mut minh = Browser::signed_in(&stage, "minh").await;
    stage.folder.pki().issue("new", &Certificate::Client("portal".into()), DEFAULT_DAYS).unwrap();
    let pem = std::fs::read_to_string(stage.folder.path.join("pki/new.pem")).unwrap();
    let fields = [("id", "portal"), ("agency", "H49.12"), ("contact", "Phòng CNTT <b>"), ("certificate", pem.as_str())];
    // Its names and expiry are shown first; nothing is saved yet.
    let shown = lan.submit("/console/clients/register", "/console/clients", &fields).await;
    assert!(
        shown.status == 200 && shown.text.contains("/client/portal") && shown.text.contains("UTC+7"),
        "{}",
        shown.text
    );
    assert!(stage.store.client("portal").is_err());
    let garbage = [("id", "portal"), ("agency", "H49.12"), ("certificate", "no certificate")];
    let garbage = lan.submit("/console/clients/register", "/console/clients", &garbage).await;
    assert!(garbage.text.contains("cannot be read"), "{}", garbage.text);
    let saved = [&fields[..], &[("step", "register"), ("justification", "Công văn 12/CV")]].concat();
    let saved = lan.submit("/console/clients/register", "/console/clients", &saved).await;
    assert_eq!((saved.status, saved.to()), (303, "/console/clients/portal"), "{}", saved.text);
    // The approver may not register.
    let refused = minh
        .submit("/console/", "/console/clients", &[("id", "other"), ("agency", "H49.12"), ("step", "register")])
        .await;
    assert!(refused.status == 403 && refused.text.contains("ROLE_MISSING"), "{}", refused.text);
    stage.settle();
    let grant = [
        ("client", "portal"),
        ("scope", "population:read"),
        ("purpose", "procedure:1.004222"),
        ("field", "*"),
        ("legal_basis", "NĐ 278/2025"),
        ("days", "30"),
        ("justification", "Công văn 12/CV"),
    ];
    let asked = lan.submit("/console/grants/add?client=portal", "/console/grants", &grant).await;
    assert_eq!(asked.status, 303, "{}", asked.text);
    let id = asked.to().rsplit('/').next().unwrap().to_owned();
    // It waits: the requester cannot approve it, and is not offered to.
    let desk = lan.get("/console/approvals").await;
    assert!(desk.text.contains(&id) && !desk.text.contains(&format!("{id}/approve")), "{}", desk.text);
    let own = lan.submit("/console/", &format!("/console/approvals/{id}/approve"), &[]).await;
    assert_eq!(own.status, 403, "{}", own.text);
    let desk = minh.get("/console/approvals").await;
    assert!(desk.text.contains("population:read") && desk.text.contains("NĐ 278/2025"), "{}", desk.text);
    let approved = minh
        .submit("/console/approvals", &format!("/console/approvals/{id}/approve"), &[("justification", "đủ căn cứ")])
        .await;
    assert_eq!(approved.to(), "/console/approvals", "{}", approved.text);
    stage.settle();
    let issued = [("client", "portal"), ("certificate", pem.as_str()), ("hours", "1")];
    let issued = lan.submit("/console/tokens", "/console/tokens", &issued).await;
    assert!(issued.status == 200 && issued.text.contains("eyJ"), "{}", issued.text);
    let token = issued
        .text
        .split("readonly")
        .nth(1)
        .unwrap()
        .split('>')
        .nth(1)
        .unwrap()
        .split('<')
        .next()
        .unwrap()
        .trim()
        .to_owned();
    stage.settle();
    let all = samples(&stage.sandbox.province);
    let sample = all.iter().find(|one| format!("/{}", one.operation) == CITIZEN).unwrap();
    std::fs::copy(stage.folder.path.join("pki/new.pem"), stage.folder.path.join("pki/portal.pem")).unwrap();
    std::fs::copy(stage.folder.path.join("pki/new.key"), stage.folder.path.join("pki/portal.key")).unwrap();
    let portal = stage.with_token("portal", &token);
    assert_eq!(portal.call(CITIZEN, sample.requests[0].clone()).await.reason(), "");
    // Text from outsiders is escaped on every page.
    for path in ["/console/clients", "/console/clients/portal"] {
        let page = lan.get(path).await;
        assert!(page.text.contains("Phòng CNTT &lt;b&gt;") && !page.text.contains("<b>"), "{path}");
    }
    // Revoked, it is refused.
    let record = &issued.text.split("<code>").nth(1).unwrap().split('<').next().unwrap();
    let revoked = lan.submit("/console/tokens", &format!("/console/tokens/{record}/revoke"), &[]).await;
    assert_eq!(revoked.to(), format!("/console/tokens/{record}"), "{}", revoked.text);
    stage.settle();
    // How long it took here; there was no call in flight.
    let page = lan.get(revoked.to()).await;
    let took = page.text.split("In force here after</dt><dd>").nth(1).unwrap().split("</dd>").next().unwrap();
    assert!(took.contains(" ms") && page.text.contains("it ended</dt><dd>0</dd>"), "{}", page.text);
    assert!(page.text.contains(&format!("hx-get=\"/console/tokens/{record}/live\"")), "{}", page.text);
    assert_eq!(portal.call(CITIZEN, sample.requests[0].clone()).await.reason(), "TOKEN_REVOKED");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_finds_an_exchange_sees_its_proof_and_downloads_its_receipt() {
    let stage = staffed();
    auditor(&stage);
    let system = stage.system("one-stop-shop");
    let all = samples(&stage.sandbox.province);
    let sample = all.iter().find(|one| format!("/{}", one.operation) == VERIFY).unwrap();
    assert_eq!(system.call(VERIFY, sample.requests[0].clone()).await.reason(), "");
    let reader = || LogReader::open(&stage.data()).unwrap();
    until("everything is sealed", || reader().sealed() == reader().size());
    let log = key::read(&stage.data(), &Vault::default(), "ndxp.quangninh.gov.vn/log").unwrap().verifier();
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    let found = kiem.get("/console/exchanges?client=one-stop-shop&operation=VerifyCitizen").await;
    let place = found.text.split("href=\"/console/exchanges/").nth(1).expect("an exchange").split('"').next().unwrap();
    assert!(found.text.contains("complete up to") && uuid::Uuid::parse_str(place).is_ok(), "{}", found.text);
    let one = kiem.get(&format!("/console/exchanges/{place}")).await;
    assert!(one.text.contains("Verified: the entry is in the checkpoint"), "{}", one.text);
    let receipt = one.text.split("href=\"/console/exchanges/").find(|rest| rest.contains("/receipt\"")).unwrap();
    let receipt = kiem.get(&format!("/console/exchanges/{}", receipt.split('"').next().unwrap())).await;
    assert!(receipt.headers["content-disposition"].to_str().unwrap().starts_with("attachment"));
    let (entry, _) = Receipt::parse(&receipt.text).unwrap().verify(&log).unwrap();
    assert_eq!(entry.operation, VERIFY.trim_start_matches('/'));
    // A search for a person needs a reason; without it there is no result.
    let nameless = kiem.get("/console/exchanges?subject=022199000123").await;
    assert_eq!(nameless.status, 400, "{}", nameless.text);
    assert_eq!(kiem.get("/console/exchanges?subject=022199000123&reason=CV-12").await.status, 200);
    // An administrator is not an auditor.
    let mut lan = Browser::signed_in(&stage, "lan").await;
    for path in ["/console/exchanges", &format!("/console/exchanges/{place}"), "/console/exchanges/0/receipt"] {
        assert_eq!(lan.get(path).await.status, 403, "{path}");
    }
    assert_eq!(kiem.get("/console/exchanges?from=yesterday").await.status, 400);
    assert_eq!(kiem.get("/console/exchanges/%2e%2e%2fcheckpoint").await.status, 400);
    assert_eq!(kiem.get("/console/../log/checkpoint").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_has_its_headers_and_language_and_the_console_can_be_off() {
    let stage = staffed();
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let pages = [
        "/console/",
        "/console/clients",
        "/console/clients/kho",
        "/console/grants",
        "/console/grants/add",
        "/console/tokens",
        "/console/approvals",
        "/console/nowhere",
        "/console/clients/none",
    ];
    for path in pages {
        let page = lan.get(path).await;
        let header = |name: &str| page.headers.get(name).map_or("", |value| value.to_str().unwrap());
        assert!(header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert!(header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert_eq!((header("cache-control"), header("x-content-type-options")), ("no-store", "nosniff"), "{path}");
        // Only pages with a live part have scripts, and these are the console's own files; no page has an inline script.
        let scripts = page.text.matches("<script").count();
        assert_eq!(scripts, page.text.matches("<script src=\"/console/script/").count(), "{path}");
        let allowed = header("content-security-policy").contains("script-src 'self'");
        assert!(allowed == (scripts > 0) && (scripts == 0 || path == "/console/"), "{path}");
        assert!(!header("content-security-policy").contains("unsafe"), "{path}");
        assert!(!page.text.contains(" style=") && !page.text.contains("onclick"), "{path}");
        assert!(page.text.contains("<html lang=\"en\">"), "{path}");
    }
    let set = lan
        .send("POST", "/console/language/vi", "", &[("referer", "https://localhost/console/clients?state=ACTIVE")])
        .await;
    assert_eq!(set.to(), "/console/clients?state=ACTIVE");
    let elsewhere = lan.send("POST", "/console/language/vi", "", &[("referer", "https://evil.example//x")]).await;
    assert_eq!(elsewhere.to(), "/console/");
    for path in pages {
        let page = lan.get(path).await;
        assert!(page.text.contains("<html lang=\"vi\">"), "{path}");
    }
    assert!(lan.get("/console/clients").await.text.contains("Mã định danh cơ quan"));
    drop(stage);
    let without = Stage::prepared(&|folder| {
        crate::support::edit(&folder.gateway_config(), |text| format!("{text}\n[web]\nconsole = false\n"));
    });
    let mut nobody = Browser::new(&without, None).await;
    assert_eq!(nobody.get("/console/").await.status, 404);
    assert_eq!(nobody.get("/oauth2/jwks.json").await.status, 200);
}
