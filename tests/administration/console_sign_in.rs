//! Signing in at the console as an attacker tries it: ten thousand times, with a planted session, to somewhere else.

use crate::browser::{Browser, staffed};
use crate::support::{Stage, ops_text, until};
use std::time::Instant;

/// Sign-ins in the log: succeeded, refused.
fn entries(stage: &Stage) -> (usize, usize) {
    let all = stage.entries();
    let of = |refused: bool| {
        all.iter().filter(|one| one.entry.event == "console.sign_in" && one.entry.reason.is_empty() != refused).count()
    };
    (of(false), of(true))
}

fn session(browser: &Browser) -> String {
    let cookie = browser.cookies.iter().find(|(name, _)| name == "__Host-ndxp-console");
    cookie.map_or(String::new(), |(_, value)| value.clone())
}

/// Makes that many attempts with one certificate, on four connections: counts by status.
async fn attempts(stage: &Stage, id: Option<&str>, each: usize) -> Vec<(u16, usize)> {
    let attempts = (0..4).map(|_| async {
        let mut browser = Browser::new(stage, id).await;
        let mut statuses = Vec::new();
        for _ in 0..each {
            statuses.push(browser.send("POST", "/console/sign-in", "", &[]).await.status);
        }
        statuses
    });
    let mut all = futures_util::future::join_all(attempts).await.concat();
    all.sort_unstable();
    let mut counts: Vec<(u16, usize)> = Vec::new();
    for status in all {
        match counts.last_mut() {
            Some((last, count)) if *last == status => *count += 1,
            _ => counts.push((status, 1)),
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_attempts_leave_few_entries_and_block_nobody_else() {
    let stage = staffed();
    let began = Instant::now();
    let stranger = attempts(&stage, Some("stranger"), 2_500).await;
    // Thirty at once and one a second are checked; the others are refused.
    let bound = 31 + began.elapsed().as_secs() as usize;
    let [(403, looked), (429, waits)] = stranger[..] else { panic!("{stranger:?}") };
    assert!(looked <= bound && looked + waits == 10_000, "{stranger:?} within {bound}");
    stage.settle();
    assert!(entries(&stage).1 <= bound, "{:?}", entries(&stage));
    // An attempt without a certificate leaves nothing behind.
    assert_eq!(attempts(&stage, None, 25).await, [(401, 100)]);
    // Others can sign in meanwhile; repeated sign-ins have one entry each, and one session per browser.
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let began = Instant::now();
    let own = attempts(&stage, Some("lan"), 50).await;
    let bound = 30 + began.elapsed().as_secs() as usize;
    let [(303, begun), (429, waits)] = own[..] else { panic!("{own:?}") };
    assert!(begun <= bound && begun + waits == 200, "{own:?} within {bound}");
    assert_eq!(lan.get("/console/").await.status, 200, "each browser has one session, whatever it tries");
    until("the entries", || entries(&stage).0 == begun + 1);
    let page = ops_text(&stage, "/metrics");
    let refused =
        page.lines().find(|line| line.starts_with("ndxp_control_work_refused_total{pool=\"console_sign_in\"}"));
    assert!(refused.is_some_and(|line| !line.ends_with(" 0")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_session_is_not_accepted() {
    let stage = staffed();
    let mut attacker = Browser::signed_in(&stage, "lan").await;
    // One that the attacker made up, and the attacker's own.
    for planted in ["an-invented-session".to_owned(), session(&attacker)] {
        let mut victim = Browser::new(&stage, Some("minh")).await;
        victim.cookies.push(("__Host-ndxp-console".into(), planted.clone()));
        assert_eq!(victim.get("/console/").await.to(), "/console/sign-in", "it is no session here");
        assert_eq!(victim.send("POST", "/console/sign-in", "", &[]).await.status, 303);
        let own = session(&victim);
        assert!(own != planted && own.len() >= 43, "a value that nobody knew before");
        assert!(victim.get("/console/").await.text.contains("minh"));
        // On the attacker's certificate, the victim's is not valid either.
        let mut thief = Browser::new(&stage, Some("lan")).await;
        thief.cookies.push(("__Host-ndxp-console".into(), own));
        assert_eq!(thief.get("/console/").await.to(), "/console/sign-in");
    }
    assert_eq!(attacker.get("/console/").await.to(), "/console/sign-in", "the one that was planted has ended");
    // A second sign-in in one browser makes a new session, and the earlier one ends.
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let first = session(&lan);
    assert_eq!(lan.send("POST", "/console/sign-in", "", &[]).await.status, 303);
    assert_ne!(session(&lan), first);
    let mut old = Browser::new(&stage, Some("lan")).await;
    old.cookies.push(("__Host-ndxp-console".into(), first));
    assert_eq!(old.get("/console/").await.to(), "/console/sign-in");
    assert_eq!(lan.get("/console/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_redirects_to_another_site() {
    let stage = staffed();
    let elsewhere = "https://evil.example/console/";
    for query in ["next=https://evil.example", "return_to=//evil.example", "redirect_uri=https%3A%2F%2Fevil.example"] {
        let mut lan = Browser::new(&stage, Some("lan")).await;
        assert_eq!(lan.get(&format!("/console/clients?{query}")).await.to(), "/console/sign-in");
        let more = [("referer", elsewhere), ("x-forwarded-host", "evil.example"), ("forwarded", "host=evil.example")];
        let page = lan.send("POST", &format!("/console/sign-in?{query}"), query, &more).await;
        assert_eq!((page.status, page.to()), (303, "/console/"));
    }
    let mut lan = Browser::signed_in(&stage, "lan").await;
    for referer in [
        elsewhere,
        "//evil.example/console/",
        "https://localhost//evil.example",
        "https://localhost/console//evil.example",
        "https://localhost/\\evil.example",
        "https://localhost/console/../..//evil.example",
        "javascript:alert(1)",
        "https://localhost/console@evil.example",
    ] {
        let page = lan.send("POST", "/console/language/vi", "", &[("referer", referer)]).await;
        let to = page.to().to_owned();
        assert!(to.starts_with("/console/") && !to.contains("//") && !to.contains("evil"), "{referer}: {to}");
    }
    // A page of another site signs nobody in.
    for foreign in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("origin", "null")] {
        let mut lan = Browser::new(&stage, Some("lan")).await;
        assert_eq!(lan.send("POST", "/console/sign-in", "", &[foreign]).await.status, 403, "{foreign:?}");
        assert!(session(&lan).is_empty());
    }
}
