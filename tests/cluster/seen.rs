//! What administrators, operators and auditors see of a cluster, by `GetCluster` and on the console's page.

use crate::browser::Browser;
use crate::etcd::{LIMIT, MEMBERS};
use crate::province::{ADMINISTRATOR, APPROVER, Province};
use crate::support::{SECOND, files, until};
use ndxp_gateway::admin::api::{EtcdRole, GetClusterRequest, GetClusterResponse, RegistryChange};
use ndxp_gateway::caller::GatewayClient;
use prost::Message;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;

const PAGE: &str = "/console/cluster";

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros().try_into().unwrap()
}

/// What a gateway says of the cluster to a person.
fn cluster(runtime: &Runtime, province: &Province, at: usize, person: &str) -> Result<GetClusterResponse, String> {
    let base = format!("https://{}", province.gateway(at).address);
    runtime.block_on(async {
        let caller = GatewayClient::new(&base, &files(&province.folder, person)).unwrap();
        let request = GetClusterRequest {}.encode_to_vec().into();
        let answered = caller.call("/ndxp.admin.v1.AdminService/GetCluster", &[], vec![request]).await.unwrap();
        match answered.messages.first() {
            Some(message) => Ok(GetClusterResponse::decode(message.clone()).unwrap()),
            None => Err(answered.reason()),
        }
    })
}

fn change_of<'c>(seen: &'c GetClusterResponse, object: &str) -> Option<&'c RegistryChange> {
    seen.changes.iter().find(|change| change.objects.iter().any(|one| one == object))
}

#[test]
fn since_when_a_suspension_is_in_force_at_each_gateway_is_seen_and_what_is_lost_has_its_name() {
    // So long that the rest of the test goes on without a majority.
    let Some(mut province) = Province::start_with(20 * LIMIT, 2 * SECOND) else { return };
    let runtime = Runtime::new().unwrap();
    let seen = |province: &Province, at| cluster(&runtime, province, at, ADMINISTRATOR).unwrap();
    let names: Vec<String> = (1..=MEMBERS).map(|at| format!("qn-dc{at}")).collect();
    province.settle();

    let began_us = now_us();
    province.by(ADMINISTRATOR, 0, &["client", "suspend", "shop"]).unwrap();
    until("another gateway shows since when all apply it", || {
        let seen = seen(&province, 2);
        change_of(&seen, "client:shop").is_some_and(|change| {
            change.gateways.len() == MEMBERS && change.gateways.iter().all(|one| one.in_force && one.since_us > 0)
        })
    });
    let mut now = seen(&province, 2);
    // What a member or a busy machine does not tell in time is a fault of that moment.
    until("everything could be read, and there is a sealer", || {
        now = seen(&province, 2);
        now.faults.is_empty() && now.sealer.is_some()
    });
    let change = change_of(&now, "client:shop").unwrap();
    let found: Vec<&str> = change.gateways.iter().map(|one| one.gateway.as_str()).collect();
    assert_eq!((found, change.event > 0), (names.iter().map(String::as_str).collect(), true));
    let between = began_us..=now_us();
    assert!(change.gateways.iter().all(|one| between.contains(&one.since_us)), "{change:?} in {between:?}");
    assert_eq!(now.changes[0].number, change.number, "the newest comes first");

    assert_eq!((now.gateway.as_str(), now.faults.as_slice()), ("qn-dc3", &[] as &[String]));
    let roles: Vec<EtcdRole> = now.members.iter().map(|one| one.role()).collect();
    let of = |role| roles.iter().filter(|one| **one == role).count();
    assert_eq!((of(EtcdRole::Leader), of(EtcdRole::Follower)), (1, MEMBERS - 1), "{now:?}");
    assert!(
        now.members.iter().all(|one| one.version.starts_with("3.") && one.database_bytes > 0 && one.raft_index > 0)
    );
    assert!(now.sealer.as_ref().is_some_and(|sealer| names.contains(&sealer.gateway)), "{:?}", now.sealer);
    let size = province.settle();
    until("every site stores everything", || {
        let seen = seen(&province, 0);
        seen.checkpoint.is_some_and(|checkpoint| checkpoint.entries >= size)
            && seen.gateways.len() == MEMBERS
            && seen.gateways.iter().all(|one| one.entries >= size && one.entries_behind == 0 && one.changes_behind == 0)
    });

    // The page of yet another gateway; an approver sees neither.
    let mut browser_of_another = runtime.block_on(browser(&province, 1, ADMINISTRATOR));
    let whole = runtime.block_on(browser_of_another.get(PAGE)).text;
    assert!(whole.contains("aria-current=\"page\"") && whole.contains("hx-get=\"/console/cluster/live\""));
    let mut page = String::new();
    until("the page could read everything", || {
        page = runtime.block_on(browser_of_another.get("/console/cluster/live")).text;
        page.contains("Everything could be read")
    });
    assert!(!page.contains("<html"), "{page}");
    let row = page.split("<tr>").find(|row| row.contains("/console/clients/shop")).unwrap();
    assert!(row.contains("In force at every gateway") && names.iter().all(|name| row.contains(name)), "{row}");
    assert!(page.contains("Leader") && page.contains("Up to date"), "{page}");
    assert_eq!(cluster(&runtime, &province, 0, APPROVER).unwrap_err(), "ROLE_MISSING");
    runtime.block_on(async {
        let mut browser = browser(&province, 1, APPROVER).await;
        let refused = browser.get(PAGE).await;
        assert!(refused.status == 403 && !refused.text.contains("href=\"/console/cluster\""), "{}", refused.text);
    });

    // One member is lost: it has its name, and everything is still read.
    province.etcd.kill(2);
    until("the lost member is named", || {
        let seen = seen(&province, 0);
        let away: Vec<bool> = seen.members.iter().map(|one| !one.fault.is_empty()).collect();
        away == [false, false, true] && seen.faults.is_empty() && seen.checkpoint.is_some()
    });
    // So is the majority: the gateway says what it knows by itself, in bounded time.
    province.etcd.kill(1);
    until("what is not known is said", || {
        let began = Instant::now();
        let seen = seen(&province, 0);
        // The bound of two seconds, and a busy machine.
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        !seen.faults.is_empty() && seen.checkpoint.is_none()
    });
    let now = seen(&province, 0);
    let known: Vec<&str> = now.gateways.iter().map(|one| one.name.as_str()).collect();
    assert_eq!((known, now.gateways[0].entries >= size), (vec!["qn-dc1"], true), "{now:?}");
    (1..MEMBERS).for_each(|at| province.etcd.restart(at));
    until("everything is read again", || seen(&province, 0).faults.is_empty());
}

async fn browser(province: &Province, at: usize, person: &str) -> Browser {
    let mut browser = Browser::at(&province.folder, province.gateway(at).https.unwrap(), (Some(person), 1)).await;
    browser.sign_in().await;
    browser
}
