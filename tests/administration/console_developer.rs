//! The developers' pages, in a browser: the catalogue of operations, and whether a call would pass.

use crate::browser::{Browser, staffed};
use crate::support::{CITIZEN, UNIT, until};
use ndxp_gateway::contract::ContractSet;
use ndxp_gateway::registry::Store;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_has_a_page_with_its_fields_an_example_and_snippets() {
    let stage = staffed();
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let list = lan.get("/console/catalogue").await.text;
    for operation in ContractSet::embedded().unwrap().operations() {
        let path = format!("/console/catalogue/{}", operation.full_name);
        assert!(list.contains(&format!("href=\"{path}\"")), "{path}");
        let page = lan.get(&path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.text.contains("<summary>Python (grpcio)</summary>"), "{path}");
        let example = page.text.split("Example from the sandbox</h2>").nth(1).unwrap();
        assert!(example.starts_with("<pre"), "{path}: {example}");
        for field in operation.response_fields.paths().take(400) {
            assert!(page.text.contains(&format!("<code>{field}</code>")), "{path} {field}");
        }
    }
    let page = lan.get("/console/catalogue/ndxp.population.v1.PopulationService/GetCitizen").await.text;
    assert!(
        page.contains("Số định danh cá nhân.") && page.contains("Personal data") && page.contains("population:read")
    );
    // By source and by words.
    let land = lan.get("/console/catalogue?source=land").await.text;
    assert!(land.contains("ndxp.land.v1") && !land.contains("ndxp.population.v1"));
    let words = lan.get("/console/catalogue?words=h%E1%BB%99+gia").await.text;
    assert!(words.contains("GetHousehold") && !words.contains("/GetCitizen"), "{words}");
    for none in ["/console/catalogue/no.v1.Such/Thing", "/console/catalogue/%3Cb%3E/x"] {
        assert_eq!(lan.get(none).await.status, 404, "{none}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn may_i_shows_that_a_call_is_allowed_or_the_refusing_rule() {
    let stage = staffed();
    stage.system("one-stop-shop");
    let mut lan = Browser::signed_in(&stage, "lan").await;
    let operation = CITIZEN.trim_start_matches('/');
    let asked = |client: &str, more: &str| format!("/console/may-i?client={client}&operation={operation}{more}");
    let good = lan.get(&asked("one-stop-shop", "&purpose=1.004222&official=CB-1")).await;
    assert!(
        good.status == 200 && good.text.contains(">Allowed<") && good.text.contains("/console/grants/g-"),
        "{}",
        good.text
    );
    let purposeless = lan.get(&asked("one-stop-shop", "&official=CB-1")).await;
    assert!(
        purposeless.text.contains(">Refused<") && purposeless.text.contains("purpose-given"),
        "{}",
        purposeless.text
    );
    let without = lan.get(&asked("kho", "&purpose=1.004222&official=CB-1")).await;
    assert!(without.text.contains("<code>scope</code>") && without.text.contains("no grant has"), "{}", without.text);
    // The error is beside its field, and the input stays.
    let address = lan.get(&asked("one-stop-shop", "&address=%3Cscript%3E")).await;
    assert_eq!(address.status, 400);
    assert!(
        address.text.contains("must be an IP address") && address.text.contains("value=\"&lt;script&gt;\""),
        "{}",
        address.text
    );
    assert_eq!(lan.get(&asked("nobody", "")).await.status, 404);
    assert_eq!(lan.get("/console/may-i").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_s_developers_see_their_own_grants_calls_and_failures_and_nobody_else_s() {
    let stage = staffed();
    let (own, other) = (stage.system("one-stop-shop"), stage.system("registry-office"));
    own.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    let failed = own.call(UNIT, json!({ "unitCode": "9999999" })).await;
    assert_eq!(failed.reason(), "RECORD_NOT_FOUND");
    let foreign = other.call(UNIT, json!({ "unitCode": "8888888" })).await;
    let mut browser = Browser::of_client(&stage, "one-stop-shop").await;
    let page = browser.get("/console/own").await;
    assert_eq!(page.status, 200, "{}", page.text);
    let text = page.text;
    assert!(text.contains(&failed.exchange()) && text.contains("RECORD_NOT_FOUND"), "{text}");
    assert!(!text.contains(&foreign.exchange()) && !text.contains("registry-office"), "{text}");
    assert!(text.contains("budgetunit:read") && text.contains("BudgetUnitService/GetUnit"), "{text}");
    assert_eq!(browser.get("/console/catalogue").await.status, 200);
    // About itself only, whatever client is named.
    let operation = CITIZEN.trim_start_matches('/');
    let asked = format!("/console/may-i?client=registry-office&operation={operation}&purpose=1.004222&official=CB-1");
    let page = browser.get(&asked).await;
    assert!(page.status == 200 && page.text.contains(">Allowed<"), "{}", page.text);
    assert!(!page.text.contains("name=\"client\"") && !page.text.contains("/console/grants/"), "{}", page.text);
    // A suspended client's session ends at once.
    stage.store.suspend_client("one-stop-shop", true).unwrap();
    stage.settle();
    assert_eq!(browser.get("/console/own").await.to(), "/console/sign-in");
    stage.verify();
    until("it is in the log", || {
        stage
            .entries()
            .iter()
            .any(|one| one.entry.event == "console.sign_in" && one.entry.actor == "client:one-stop-shop")
    });
}
