//! Signing in at the console by OpenID: at an honest provider with every kind of key, at one that lies in each way, and as somebody tries
//! who means no good.

use crate::browser::{Browser, Page, staffed_by};
use crate::openid_provider::{Answer, CALLBACK, CLIENT, Lie, OpenIdProvider, SECRET, Signed};
use crate::support::{Stage, edit, lay, ops_text, show, until};
use jsonwebtoken::Algorithm;
use ndxp_gateway::config::Config;
use ndxp_gateway::exchange_log::Entry;
use ndxp_gateway::registry::{Store, now};
use ndxp_gateway::sandbox::folder::DevFolder;
use serde_json::json;
use std::time::Instant;

const COOKIE: &str = "__Host-ndxp-openid";
const SESSION: &str = "__Host-ndxp-console";

/// The table of the configuration.
fn table(issuer: &str) -> String {
    format!(
        "\n[web.openid]\nname = \"SSO Quảng Ninh\"\nissuer = \"{issuer}\"\nclient_id = \"{CLIENT}\"\n\
         client_secret = {{ file = \"openid.secret\" }}\nredirect_uri = \"{CALLBACK}\"\nscopes = [\"profile\"]\n\
         ca = \"pki/ca.pem\"\n"
    )
}

fn configured(folder: &DevFolder, table: &str) {
    std::fs::write(folder.path.join("openid.secret"), format!("{SECRET}\n")).unwrap();
    edit(&folder.gateway_config(), |text| text + table);
}

/// A gateway of lan, minh and others, with a provider.
async fn stage() -> (Stage, OpenIdProvider) {
    // The provider's certificate is of the gateway's folder, and the gateway's configuration has the provider's address.
    let place = tempfile::tempdir().unwrap();
    let folder = DevFolder::with_free_ports(&place.path().join("dev")).unwrap();
    let provider = OpenIdProvider::start(&folder.path.join("pki")).await;
    let ca = folder.path.join("pki/ca.pem");
    let stage = staffed_by(&|own| {
        std::fs::copy(&ca, own.path.join("pki/provider.pem")).unwrap();
        configured(own, &table(&provider.issuer).replace("pki/ca.pem", "pki/provider.pem"));
    });
    (stage, provider)
}

fn cookie(browser: &Browser, name: &str) -> Option<String> {
    let found = browser.cookies.iter().find(|(known, value)| known == name && !value.is_empty());
    found.map(|(_, value)| value.clone())
}

/// Goes to the provider and comes back.
async fn sign_in(browser: &mut Browser, provider: &OpenIdProvider, person: &str) -> Page {
    let there = browser.get("/console/openid").await;
    assert_eq!(there.status, 303, "{}", there.text);
    let back = provider.sign_in(there.to(), person);
    browser.get(&back).await
}

async fn signed_in(stage: &Stage, provider: &OpenIdProvider, person: &str) -> Browser {
    let mut browser = Browser::new(stage, None).await;
    let page = sign_in(&mut browser, provider, person).await;
    assert_eq!(page.status, 200, "{person}: {}", page.text);
    browser
}

fn sign_ins(stage: &Stage) -> Vec<Entry> {
    stage.entries().into_iter().map(|one| one.entry).filter(|entry| entry.event == "console.sign_in").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_of_the_provider_acts_in_their_own_name_with_each_signature_algorithm() {
    let (stage, provider) = stage().await;
    for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA] {
        provider.lie(Lie { signed: Signed::By(algorithm), ..Lie::default() });
        let mut lan = Browser::new(&stage, None).await;
        let page = lan.get("/console/sign-in").await;
        assert!(
            page.text.contains("href=\"/console/openid\"") && page.text.contains("SSO Quảng Ninh"),
            "{}",
            page.text
        );
        let page = sign_in(&mut lan, &provider, "lan").await;
        assert_eq!(page.status, 200, "{algorithm:?} {}", page.text);
        assert!(page.text.contains("http-equiv=\"refresh\" content=\"0; url=/console/\""), "{}", page.text);
        let set: Vec<&str> = page.headers.get_all("set-cookie").iter().map(|set| set.to_str().unwrap()).collect();
        assert!(
            set[0].starts_with(SESSION) && set[0].ends_with("; Path=/; Secure; HttpOnly; SameSite=Strict"),
            "{set:?}"
        );
        assert!(cookie(&lan, COOKIE).is_none(), "the attempt's cookie is gone");
        assert!(lan.get("/console/").await.text.contains("lan"));
    }
    // Also where the browser shows a certificate, which is then not what the session is of.
    let mut both = Browser::new(&stage, Some("stranger")).await;
    assert_eq!(sign_in(&mut both, &provider, "lan").await.status, 200);
    assert_eq!(both.get("/console/clients").await.status, 200);
    let done =
        both.submit("/console/clients/kho", "/console/clients/kho/suspend", &[("justification", "qua SSO")]).await;
    assert_eq!(done.status, 303, "{}", done.text);
    stage.settle();
    let entries: Vec<Entry> = stage.entries().into_iter().map(|one| one.entry).collect();
    let act = entries.iter().find(|entry| entry.event == "client.suspend").unwrap();
    assert_eq!((act.actor.as_str(), act.identity_provider.as_str()), ("staff:lan", provider.issuer.as_str()));
    assert!(act.certificate.is_empty() && act.peer.starts_with("127.0.0.1:") && act.justification == "qua SSO");
    let begun = sign_ins(&stage);
    assert!(begun.iter().all(|entry| entry.identity_provider == provider.issuer && entry.actor == "staff:lan"));
    assert_eq!((begun.len(), provider.asked("/jwks"), provider.asked("/.well-known/openid-configuration")), (5, 1, 1));
    // What a role may not do, it may not do this way either; and signing out ends the session.
    assert_eq!(both.get("/console/exchanges").await.status, 403);
    assert_eq!(both.submit("/console/", "/console/sign-out", &[]).await.to(), "/console/sign-in");
    assert_eq!(both.get("/console/").await.to(), "/console/sign-in");
    until("the entry of signing out", || {
        let out = |entry: &Entry| entry.event == "console.sign_out" && entry.identity_provider == provider.issuer;
        stage.entries().iter().any(|one| out(&one.entry))
    });
    let page = ops_text(&stage, "/metrics");
    assert!(page.contains("ndxp_console_sign_in_attempts_total{by=\"openid\",outcome=\"signed_in\"} 5"), "{page}");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_person_is_one_by_certificate_and_by_the_provider() {
    let (stage, provider) = stage().await;
    // An administrator asks by certificate; the same person may not approve when signed in by OpenID; others may.
    let approver = |id: &str| {
        let mut staff = stage.store.staff().unwrap().into_iter().find(|one| one.id == id).unwrap();
        staff.roles = vec![ndxp_gateway::registry::Role::Administrator, ndxp_gateway::registry::Role::Approver];
        staff
    };
    crate::browser::changed(&stage, &approver("lan"));
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let asked = [("id", "hoa"), ("role", "AUDITOR"), ("name", "spiffe://hoa.example/x")];
    let page = lan.submit("/console/staff", "/console/staff", &asked).await;
    assert_eq!(page.status, 303, "{}", page.text);
    stage.settle();
    let id = stage.store.pending_changes("", 9).unwrap()[0].id.clone();
    let mut vouched = signed_in(&stage, &provider, "lan").await;
    let path = format!("/console/approvals/{id}/approve");
    let token = vouched.get("/console/").await.token();
    let page = vouched.send("POST", &path, &format!("csrf={token}"), &[]).await;
    assert!((400..500).contains(&page.status), "{}: {}", page.status, page.text);
    assert_eq!(stage.store.pending_changes("", 9).unwrap().len(), 1, "it still waits");
    // And the other way about: what was asked for by the provider's word shows so, and another person approves it.
    let page =
        vouched.submit("/console/staff", "/console/staff", &[("id", "mai"), asked[1], ("name", "mai.example")]).await;
    assert_eq!(page.status, 303, "{}", page.text);
    stage.settle();
    let pending = stage.store.pending_changes("", 9).unwrap();
    let own = pending.iter().find(|one| one.object == "staff:mai").unwrap();
    assert_eq!(own.requester.as_ref().unwrap().provider(), provider.issuer);
    let path = format!("/console/approvals/{}/approve", own.id);
    assert!((400..500).contains(&lan.submit("/console/", &path, &[]).await.status), "the same person by certificate");
    let mut minh = signed_in(&stage, &provider, "minh").await;
    let page = minh.get("/console/approvals").await;
    assert!(page.text.contains(&provider.issuer), "{}", page.text);
    assert_eq!(minh.submit("/console/approvals", &path, &[]).await.status, 303);
    stage.settle();
    assert!(stage.store.staff().unwrap().iter().any(|one| one.id == "mai"));
}

/// A lie, and the cause that its refusal names.
fn lies() -> Vec<(&'static str, Lie)> {
    let claims = |claims| Lie { claims, ..Lie::default() };
    let signed = |signed| Lie { signed, ..Lie::default() };
    let token = |token| Lie { token, ..Lie::default() };
    let answer = |token_answer| Lie { token_answer, ..Lie::default() };
    vec![
        ("issuer", claims(|c| c["iss"] = "https://evil.example".into())),
        ("issuer", claims(|c| c["iss"] = json!([c["iss"].clone()]))),
        ("audience", claims(|c| c["aud"] = "another-client".into())),
        ("audience", claims(|c| c["aud"] = json!([CLIENT, "another-client"]))),
        ("audience", claims(|c| c["azp"] = "another-client".into())),
        ("expired", claims(|c| c["exp"] = (now() - 60).into())),
        ("expired", claims(|c| drop(c.as_object_mut().unwrap().remove("exp")))),
        ("issued_at", claims(|c| c["iat"] = (now() + 600).into())),
        ("issued_at", claims(|c| c["iat"] = (now() - 3_600).into())),
        ("issued_at", claims(|c| c["nbf"] = (now() + 600).into())),
        ("nonce", claims(|c| c["nonce"] = "another".into())),
        ("nonce", claims(|c| drop(c.as_object_mut().unwrap().remove("nonce")))),
        ("access_token_hash", claims(|c| c["at_hash"] = "77QmUPtjPfzWtF2AnpK9RQ".into())),
        ("claim_missing", claims(|c| drop(c.as_object_mut().unwrap().remove("sub")))),
        ("claim_missing", claims(|c| c["sub"] = "".into())),
        ("id_token_malformed", claims(|c| c["sub"] = json!(["lan"]))),
        ("claim_missing", claims(|c| c["sub"] = "l".repeat(200).into())),
        ("algorithm", signed(Signed::Not)),
        ("algorithm", signed(Signed::WithPublicKey)),
        ("signature", signed(Signed::ByAnother)),
        ("signature", signed(Signed::ThenChanged)),
        ("key_unknown", signed(Signed::ByUnknown)),
        ("key_unknown", signed(Signed::UnderAnotherName)),
        ("id_token_malformed", signed(Signed::Garbage)),
        ("token_response", token(|t| drop(t.as_object_mut().unwrap().remove("id_token")))),
        ("token_response", token(|t| t["id_token"] = json!({}))),
        ("token_response", answer(Answer::Status(200, "<html>"))),
        ("code_refused", answer(Answer::Status(400, r#"{"error":"invalid_grant"}"#))),
        ("http_status", answer(Answer::Status(500, "{}"))),
        ("http_status", answer(Answer::Redirect)),
        ("response_too_large", answer(Answer::Oversize)),
        ("provider_timeout", answer(Answer::Silence)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_lie_of_a_provider_is_refused_for_its_own_reason() {
    let (stage, provider) = stage().await;
    signed_in(&stage, &provider, "lan").await;
    let lies = lies();
    for (number, (cause, lie)) in lies.iter().enumerate() {
        provider.lie(lie.clone());
        // From several addresses: one address may only try so often.
        let mut browser = Browser::from(&stage, None, 2 + number as u8 / 10).await;
        let page = sign_in(&mut browser, &provider, "lan").await;
        let what = format!("{number} {cause}: {} {}", page.status, page.text);
        assert!([403, 503].contains(&page.status) && page.text.contains(&format!("Cause: {cause}")), "{what}");
        assert!(cookie(&browser, SESSION).is_none() && browser.get("/console/").await.to() == "/console/sign-in");
        assert!(!page.text.contains("Nguyễn") && !page.text.contains(SECRET), "{what}");
        let entry = sign_ins(&stage).pop().unwrap();
        let told =
            (entry.cause.as_str(), entry.reason.as_str(), entry.actor.as_str(), entry.identity_provider.as_str());
        assert_eq!(told, (*cause, "SIGN_IN_FAILED", "", provider.issuer.as_str()));
    }
    assert_eq!(sign_ins(&stage).len(), lies.len() + 1);
    assert_eq!(provider.asked("/jwks"), 1, "a key that nobody knows makes nobody ask at once again");
    // Who is vouched for and is nobody here: no other case, no blanks, no stranger.
    provider.lie(Lie::default());
    for person in ["LAN", "lan ", "Lan", "a-person-of-another-province", "staff:lan", "lаn"] {
        let page = sign_in(&mut Browser::from(&stage, None, 7).await, &provider, person).await;
        assert!(
            page.status == 403 && page.text.contains("nobody of the staff"),
            "{person}: {} {}",
            page.status,
            page.text
        );
        let entry = sign_ins(&stage).pop().unwrap();
        assert_eq!((entry.reason.as_str(), entry.actor.as_str()), ("STAFF_UNKNOWN", ""), "{person}");
    }
    let all = stage.entries().iter().map(|one| format!("{:?}", one.entry)).collect::<String>();
    assert!(!all.contains("another-province") && !all.contains(SECRET) && !all.contains("said-by-the-provider"));
    let page = ops_text(&stage, "/metrics");
    assert!(page.contains("ndxp_console_sign_in_attempts_total{by=\"openid\",outcome=\"nonce\"} 2"), "{page}");
    // And an honest one is believed.
    signed_in(&stage, &provider, "lan").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_says_of_itself_is_not_believed_for_long_if_it_is_wrong() {
    let metadata = |metadata| Lie { metadata, ..Lie::default() };
    let answer = |metadata_answer| Lie { metadata_answer, ..Lie::default() };
    for (cause, lie) in [
        ("metadata_issuer", metadata(|m| m["issuer"] = "https://evil.example".into())),
        ("provider_metadata", metadata(|m| m["token_endpoint"] = "http://localhost:1/token".into())),
        ("http_status", answer(Answer::Redirect)),
    ] {
        let (stage, provider) = stage().await;
        provider.lie(lie);
        let mut browser = Browser::new(&stage, None).await;
        for _ in 0..3 {
            let page = browser.get("/console/openid").await;
            assert!(page.status == 503 && page.text.contains(&format!("Cause: {cause}")), "{cause}: {}", page.text);
            assert!(cookie(&browser, COOKIE).is_none());
        }
        assert_eq!(provider.asked("/.well-known/openid-configuration"), 1, "{cause}: asked once in five seconds");
        assert_eq!(sign_ins(&stage).last().unwrap().cause, cause);
        // Certificates go on.
        Browser::signed_in(&stage, "lan").await;
    }
    // Keys that cannot be read, and a provider that has another CA than the one that is believed.
    let (stage, provider) = stage().await;
    provider.lie(Lie { keys_answer: Answer::Oversize, ..Lie::default() });
    let page = sign_in(&mut Browser::new(&stage, None).await, &provider, "lan").await;
    assert!(page.status == 503 && page.text.contains("Cause: response_too_large"), "{}", page.text);
    let other = staffed_by(&|own| configured(own, &table(&provider.issuer)));
    let page = Browser::new(&other, None).await.get("/console/openid").await;
    assert!(page.status == 503 && page.text.contains("Cause: provider_unreachable"), "{}", page.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_is_one_browser_s_and_good_for_once() {
    let (stage, provider) = stage().await;
    let refused = |page: &Page, cause: &str| {
        assert!(page.status == 403 && page.text.contains(&format!("Cause: {cause}")), "{cause}: {}", page.text);
    };
    let mut lan = Browser::new(&stage, None).await;
    let begun = lan.get("/console/openid").await;
    let set = begun.headers["set-cookie"].to_str().unwrap();
    assert!(set.starts_with(COOKIE) && set.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600"), "{set}");
    let (own, back) = (cookie(&lan, COOKIE).unwrap(), provider.sign_in(begun.to(), "lan"));
    // An attacker's own answer, opened in somebody else's browser: with no attempt there, and with one.
    let mut victim = Browser::new(&stage, None).await;
    refused(&victim.get(&back).await, "attempt_unknown");
    let there = victim.get("/console/openid").await;
    refused(&victim.get(&back).await, "attempt_unknown");
    assert!(cookie(&victim, SESSION).is_none());
    // What another site has sent there has not spent the victim's own attempt.
    let page = victim.get(&provider.sign_in(there.to(), "minh")).await;
    assert_eq!(page.status, 200, "{}", page.text);
    // Another state, none, two of them; and another issuer.
    let with = |from: &str, to: &str| back.replace(from, to);
    refused(&lan.get(&with("state=", "state=x")).await, "attempt_unknown");
    refused(&lan.get(&with("state=", "other=")).await, "attempt_unknown");
    refused(&lan.get(&format!("{back}&state=second")).await, "attempt_unknown");
    refused(&lan.get("/console/openid/callback").await, "attempt_unknown");
    assert_eq!(lan.get(&back).await.status, 200);
    assert!(lan.get("/console/").await.text.contains("lan"));
    // Once: neither again, nor with the cookie of before.
    refused(&lan.get(&back).await, "attempt_unknown");
    let mut thief = Browser::new(&stage, None).await;
    thief.cookies.push((COOKIE.into(), own));
    refused(&thief.get(&back).await, "attempt_unknown");
    // The provider's refusal, and an answer that came by way of another issuer (RFC 9207) or names none.
    for (from, to, cause) in [
        ("code=", "error=access_denied&code=", "provider_refused"),
        ("code=", "other=", "provider_refused"),
        ("iss=", "iss=https%3A%2F%2Fevil.example%2F", "response_issuer"),
        ("iss=", "other=", "response_issuer"),
    ] {
        let mut browser = Browser::new(&stage, None).await;
        let there = browser.get("/console/openid").await;
        let back = provider.sign_in(there.to(), "lan").replace(from, to);
        refused(&browser.get(&back).await, cause);
        refused(&browser.get(&back).await, "attempt_unknown");
    }
    // Nobody is sent there by another site, nor elsewhere afterwards.
    for foreign in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        assert_eq!(lan.send("GET", "/console/openid", "", &[foreign]).await.status, 403, "{foreign:?}");
    }
    let mut lan = Browser::new(&stage, None).await;
    let there = lan.get("/console/openid?next=https://evil.example&redirect_uri=https://evil.example").await;
    assert!(there.to().starts_with(&provider.issuer) && !there.to().contains("evil"));
    let page = lan.get(&format!("{}&next=//evil.example", provider.sign_in(there.to(), "lan"))).await;
    assert!(page.status == 200 && !page.text.contains("evil") && page.headers.get("location").is_none());
    // Signing in again ends the session that the browser had.
    let before = cookie(&lan, SESSION).unwrap();
    assert_eq!(sign_in(&mut lan, &provider, "minh").await.status, 200);
    let mut old = Browser::new(&stage, None).await;
    old.cookies.push((SESSION.into(), before));
    assert_eq!(old.get("/console/").await.to(), "/console/sign-in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_attempts_of_one_address_keep_nobody_else_out() {
    let (stage, provider) = stage().await;
    let mut waiting = Browser::from(&stage, None, 9).await;
    let there = waiting.get("/console/openid").await;
    let began = Instant::now();
    let floods = (0..4).map(|_| async {
        let mut browser = Browser::from(&stage, None, 2).await;
        let mut statuses = Vec::new();
        for number in 0..2_500 {
            browser.cookies.retain(|(name, _)| name != COOKIE);
            // Every other one comes back with what it has made up.
            let path = if number % 2 == 0 { "/console/openid" } else { "/console/openid/callback?state=x&code=y" };
            statuses.push(browser.get(path).await.status);
        }
        statuses
    });
    let statuses = futures_util::future::join_all(floods).await.concat();
    let bound = 62 + 2 * (began.elapsed().as_secs() as usize + 1);
    let looked_at = statuses.iter().filter(|status| **status != 429).count();
    assert!(looked_at <= bound && statuses.len() == 10_000, "{looked_at} within {bound}");
    assert!(statuses.iter().all(|status| [303, 403, 429].contains(status)));
    // Who had begun before goes on (on another connection: the one before was unused for long), and who comes now begins.
    let cookies = std::mem::take(&mut waiting.cookies);
    waiting = Browser::from(&stage, None, 9).await;
    waiting.cookies = cookies;
    assert_eq!(waiting.get(&provider.sign_in(there.to(), "lan")).await.status, 200);
    assert_eq!(sign_in(&mut Browser::from(&stage, None, 3).await, &provider, "minh").await.status, 200);
    let page = ops_text(&stage, "/metrics");
    let of = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    };
    assert!(of("ndxp_control_work_refused_total{pool=\"console_openid\"}") >= 10_000 - bound);
    assert!(of("ndxp_control_work_in_flight{pool=\"console_openid_attempts\"}") <= 100);
    assert_eq!(of("ndxp_control_work_in_flight{pool=\"console_openid\"}"), 0);
    assert!(provider.asked("/.well-known/openid-configuration") == 1 && provider.asked("/token") == 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_staff_have_no_session_any_more() {
    let (stage, provider) = stage().await;
    crate::browser::auditor(&stage);
    let mut kiem = signed_in(&stage, &provider, "kiem").await;
    assert_eq!(kiem.get("/console/exchanges").await.status, 200);
    stage.store.remove_staff("kiem").unwrap();
    stage.settle();
    assert_eq!(kiem.get("/console/exchanges").await.to(), "/console/sign-in");
    assert_eq!(sign_in(&mut kiem, &provider, "kiem").await.status, 403);
}

#[test]
fn a_configuration_that_cannot_work_says_so_with_its_line_and_what_to_do() {
    let good = table("https://sso.example");
    let faults = |table: &str, more: &dyn Fn(&DevFolder)| {
        let (_dir, folder) = lay(&|folder| {
            configured(folder, table);
            more(folder);
        });
        Config::load(&folder.gateway_config()).err().map(show).unwrap_or_default()
    };
    let none = |_: &DevFolder| {};
    assert_eq!(faults(&good, &none), "");
    for (from, to, says) in [
        ("https://sso.example", "http://sso.example", "web.openid.issuer: must be the provider's issuer"),
        ("issuer = \"https://sso.example\"\n", "", "web.openid.issuer: is missing"),
        ("client_id = \"ndxp-gateway\"\n", "", "web.openid.client_id: is missing"),
        ("{ file = \"openid.secret\" }", "\"in-clear\"", "a secret is never in the file"),
        ("openid.secret", "none.secret", "none.secret"),
        ("/console/openid/callback", "/elsewhere", "web.openid.redirect_uri: must be https://"),
        ("[\"profile\"]", "[\"a b\"]", "web.openid.scopes: a scope must be"),
        ("ca = \"pki/ca.pem\"", "ca = \"pki/none.pem\"", "web.openid.ca:"),
        ("name = \"SSO Quảng Ninh\"", "name = \"\"", "web.openid.name:"),
        ("scopes", "leeway_s = 301\nscopes", "web.openid.leeway_s: must be a whole number from 0 to 300"),
        ("scopes", "claims = \"x\"\nscopes", "did you mean claim?"),
        ("[web.openid]", "[web]\nconsole = false\n[web.openid]", "web.openid: is for signing in at the console"),
    ] {
        let said = faults(&good.replace(from, to), &none);
        assert!(said.contains(says) && said.contains("gateway.toml:"), "{from} {to}: {said}");
    }
    let without = |folder: &DevFolder| {
        edit(&folder.gateway_config(), |text| {
            text.lines().filter(|line| !line.starts_with("https =")).collect::<Vec<_>>().join("\n")
        });
    };
    assert!(faults(&good, &without).contains("add listen.https"), "{}", faults(&good, &without));
}
