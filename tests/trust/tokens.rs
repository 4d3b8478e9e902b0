//! Tokens: their maximum number, their rate, the cost of listings for others, and refusals at issue.

use crate::support::tokens::ended;
use crate::support::{SECOND, STALL, Stage, UNIT, edit, files, until};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use ndxp_gateway::admin::api;
use ndxp_gateway::caller::GatewayClient;
use ndxp_gateway::pki::{CertificateRole as Certificate, DEFAULT_DAYS, staff_uri};
use ndxp_gateway::registry::{Page, Role, Staff, Store, TokenFilter, TokenRecord, TokenState, now};
use prost::Message;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// A person who uses `ndxp.admin.v1`.
struct Person(GatewayClient);

impl Person {
    fn new(stage: &Stage, id: &str, roles: &[Role]) -> Self {
        stage.folder.pki().issue(id, &Certificate::Staff(id.into()), DEFAULT_DAYS).unwrap();
        let staff =
            |id: &str, roles: &[Role]| Staff { id: id.into(), roles: roles.to_vec(), names: vec![staff_uri(id)] };
        stage.store.bootstrap(&staff(id, roles), &staff("minh", &[])).unwrap();
        stage.settle();
        Person(GatewayClient::new(&stage.base(), &files(&stage.folder, id)).unwrap())
    }

    async fn ask<A: Message + Default>(&self, method: &str, request: impl Message) -> Result<A, String> {
        let path = format!("/ndxp.admin.v1.AdminService/{method}");
        let answered = self.0.call(&path, &[], vec![request.encode_to_vec().into()]).await.unwrap();
        match answered.messages.first() {
            Some(message) if answered.status.code() == tonic::Code::Ok => Ok(A::decode(message.clone()).unwrap()),
            _ => Err(format!("{} {}", answered.reason(), answered.status.message())),
        }
    }
}

/// A connection to the HTTPS port with a certificate.
async fn web(stage: &Stage, id: &str) -> SendRequest<Full<Bytes>> {
    let to = stage.gateway.as_ref().unwrap().https.unwrap();
    let own = files(&stage.folder, id);
    let stream = TcpStream::connect(to).await.unwrap();
    let stream =
        crate::support::secured(stream, &own.ca, Some((&own.certificate, &own.key)), &[b"http/1.1"]).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// The status, `Retry-After` and document of the response to a form.
async fn post(sender: &mut SendRequest<Full<Bytes>>, path: &str, form: &str) -> (u16, Option<u64>, Value) {
    let request = http::Request::post(path)
        .header("host", "localhost")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form.to_owned())))
        .unwrap();
    sender.ready().await.unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let wait = answer.headers().get("retry-after").map(|wait| wait.to_str().unwrap().parse().unwrap());
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, wait, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

const FETCH: &str = "grant_type=client_credentials";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_a_revocation_and_a_suspension_are_effective_within_a_second_while_tokens_are_listed_and_issued() {
    let stage = Arc::new(Stage::prepared(&|folder| {
        edit(&folder.gateway_config(), |text| text.replace("audience = ", "fetches_per_s = 5000\naudience = "));
    }));
    let (clerk, other, third) = (stage.system("clerk"), stage.system("other"), stage.system("third"));
    stage.client("busy");
    stage.grant("busy", &["budgetunit:read"], |_| {});
    let person = Arc::new(Person::new(&stage, "lan", &[Role::Administrator]));
    stage.store.add_tokens(&ended("busy", 0..100_000, 1)).unwrap();
    let (stop, listed, issued) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for (client, in_force) in [("", true), ("busy", true), ("busy", false), ("none", false)] {
        let (person, stop, listed) = (person.clone(), stop.clone(), listed.clone());
        load.spawn(async move {
            let mut token = String::new();
            while !stop.load(Ordering::Relaxed) {
                let request =
                    api::ListTokensRequest { client: client.into(), in_force, page_size: 1_000, page_token: token };
                let page: api::ListTokensResponse = person.ask("ListTokens", request).await.unwrap();
                token = page.next_page_token;
                listed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for _ in 0..8 {
        let (stage, stop, issued) = (stage.clone(), stop.clone(), issued.clone());
        load.spawn(async move {
            let mut sender = web(&stage, "busy").await;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(post(&mut sender, "/oauth2/token", FETCH).await.0, 200);
                issued.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while listed.load(Ordering::Relaxed) < 20 || issued.load(Ordering::Relaxed) < 50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ask = json!({ "unitCode": "1057000" });
    third.call(UNIT, ask.clone()).await.ok();
    let of = |id: &str| {
        let page = Page { after: "", max: 1, filter: TokenFilter { state: Some(TokenState::InForce) } };
        stage.store.tokens(Some(id), page).unwrap()[0].id.clone()
    };
    let token = of("clerk");
    for (actor, reason) in [(&clerk, "TOKEN_REVOKED"), (&other, "CLIENT_SUSPENDED")] {
        actor.call(UNIT, ask.clone()).await.ok();
        if reason == "TOKEN_REVOKED" {
            person.ask::<api::Token>("RevokeToken", api::TokenId { id: token.clone() }).await.unwrap();
        } else {
            person.ask::<api::Client>("SuspendClient", api::ClientId { id: "other".into() }).await.unwrap();
        }
        let began = Instant::now();
        while actor.call(UNIT, ask.clone()).await.reason() != reason {
            assert!(began.elapsed() < SECOND + STALL, "{reason} is not in force after a second");
        }
    }
    // Meanwhile calls continue.
    let began = Instant::now();
    third.call(UNIT, ask).await.ok();
    assert!(began.elapsed() < SECOND + STALL, "{:?}", began.elapsed());
    stop.store(true, Ordering::Relaxed);
    load.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_reads_calls_and_changes_do_not_wait_for_each_other_s_writers() {
    let stage = Stage::start();
    let clerk = stage.system("clerk");
    let person = Person::new(&stage, "lan", &[Role::Administrator]);
    // Another process has both files locked for writing, like a long batch.
    let hold = |name: &str| {
        let connection = rusqlite::Connection::open(stage.data().join(name)).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
    };
    let (registry, issued) = (hold("registry.sqlite"), hold("issued.sqlite"));
    let began = Instant::now();
    let page: api::ListTokensResponse = person.ask("ListTokens", api::ListTokensRequest::default()).await.unwrap();
    assert_eq!(page.tokens.len(), 1);
    person.ask::<api::Client>("GetClient", api::ClientId { id: "clerk".into() }).await.unwrap();
    clerk.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    assert!(began.elapsed() < SECOND + STALL, "{:?}", began.elapsed());
    drop(registry);
    // Tokens cannot be recorded, but a suspension is made and takes effect.
    person.ask::<api::Client>("SuspendClient", api::ClientId { id: "clerk".into() }).await.unwrap();
    let took = until("the suspension is in force", || {
        let told = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(clerk.call(UNIT, json!({ "unitCode": "1057000" })))
        });
        told.reason() == "CLIENT_SUSPENDED"
    });
    assert!(took < SECOND + STALL, "{took:?}");
    drop(issued);
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_client_fetches_tokens_at_its_rate_and_no_faster() {
    let stage = Stage::prepared(&|folder| {
        edit(&folder.gateway_config(), |text| {
            text.replace("audience = ", "fetches_per_s = 1\nquestions_per_s = 1\naudience = ")
        });
    });
    for id in ["greedy", "modest"] {
        stage.client(id);
        stage.grant(id, &["budgetunit:read"], |_| {});
    }
    stage.settle();
    let (mut greedy, mut modest) = (web(&stage, "greedy").await, web(&stage, "modest").await);
    let mut statuses = Vec::new();
    let mut last = Value::Null;
    for _ in 0..100 {
        let (status, wait, body) = post(&mut greedy, "/oauth2/token", FETCH).await;
        if status == 429 {
            assert_eq!(wait, Some(1), "Retry-After, in whole seconds");
            assert_eq!(body["error"], "temporarily_unavailable");
        }
        statuses.push(status);
        last = body;
    }
    let issued = statuses.iter().filter(|status| **status == 200).count();
    assert!((4..20).contains(&issued) && statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    assert!(last["access_token"].is_null());
    assert_eq!(post(&mut modest, "/oauth2/token", FETCH).await.0, 200, "each client has its own bucket");
    for path in ["/oauth2/introspect", "/oauth2/revoke"] {
        let mut limited = 0;
        for _ in 0..20 {
            limited += usize::from(post(&mut greedy, path, "token=x").await.0 == 429);
        }
        assert!(limited >= 12, "{path}: {limited}");
    }
    // Refusals are counted, and their entries are bounded.
    let entries = stage.entries();
    let refused: Vec<_> =
        entries.iter().filter(|one| one.entry.event == "token.fetch" && one.entry.status != 0).collect();
    assert!(!refused.is_empty() && refused.len() <= 75, "{}", refused.len());
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_long_expired_tokens_are_removed_and_others_stay() {
    let stage = Stage::prepared(&|folder| {
        edit(&folder.gateway_config(), |text| text.replace("audience = ", "keep_ended_days = 3\naudience = "));
    });
    let clerk = stage.system("clerk");
    let (old, young) = (ended("clerk", 0..1_200, 5), ended("clerk", 0..700, 2));
    // A running gateway checks once a minute; a starting one at once.
    let mut stage = stage;
    tokio::task::block_in_place(|| stage.gateway.take().unwrap().stop());
    stage.store.add_tokens(&old).unwrap();
    stage.store.add_tokens(&young).unwrap();
    stage.store.revoke_token(&old[0].id).unwrap();
    stage.store.revoke_token(&young[0].id).unwrap();
    let config =
        ndxp_gateway::config::Config::load(&stage.folder.gateway_config()).map_err(crate::support::show).unwrap();
    stage.gateway = Some(ndxp_gateway::server::Gateway::start(config).unwrap());
    until("the old ones are gone", || stage.store.token(&old[1_199].id).is_err());
    until("all of them", || stage.store.tokens(None, Page::ALL).unwrap().len() == 701);
    assert!(stage.store.token(&old[0].id).is_err() && stage.store.token(&young[0].id).unwrap().revoked);
    clerk.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_excess_expired_tokens_are_removed_oldest_first_and_valid_ones_stay() {
    let mut stage = Stage::prepared(&|folder| {
        edit(&folder.gateway_config(), |text| text.replace("audience = ", "max_ended = 1000\naudience = "));
    });
    let clerk = stage.system("clerk");
    tokio::task::block_in_place(|| stage.gateway.take().unwrap().stop());
    let (older, younger) = (ended("clerk", 0..700, 2), ended("clerk", 0..900, 1));
    stage.store.add_tokens(&older).unwrap();
    stage.store.add_tokens(&younger).unwrap();
    let config =
        ndxp_gateway::config::Config::load(&stage.folder.gateway_config()).map_err(crate::support::show).unwrap();
    stage.gateway = Some(ndxp_gateway::server::Gateway::start(config).unwrap());
    let kept = || stage.store.tokens(None, Page::ALL).unwrap();
    until("a thousand ended ones are left", || kept().len() == 1_001);
    let left = |some: &[TokenRecord]| some.iter().filter(|one| stage.store.token(&one.id).is_ok()).count();
    assert_eq!((left(&older), left(&younger)), (100, 900));
    clerk.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
}

/// The signing keys' states as an administrator sees them, oldest first.
async fn states(person: &Person) -> Vec<api::KeyState> {
    let listed: api::ListKeysResponse = person.ask("ListKeys", api::ListKeysRequest {}).await.unwrap();
    listed.keys.iter().map(api::Key::state).collect()
}

/// The key that a token was signed with.
fn kid(token: &str) -> String {
    use base64::Engine;
    let head = token.split('.').next().unwrap();
    let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(head).unwrap();
    serde_json::from_slice::<Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
}

fn pem(stage: &Stage, id: &str) -> String {
    std::fs::read_to_string(files(&stage.folder, id).certificate).unwrap()
}

fn issue(client: &str, certificate: String, scopes: &[&str]) -> api::IssueTokenRequest {
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    api::IssueTokenRequest { client: client.into(), certificate, scopes, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn t8_an_unusable_token_is_refused_at_issue_with_a_remedy() {
    let stage = Stage::start();
    let person = Person::new(&stage, "lan", &[Role::Administrator]);
    for id in ["waits", "later", "over", "works", "gone", "stopped", "none"] {
        stage.client(id);
    }
    let waiting = stage.grant("waits", &["population:read"], |grant| grant.needs_approval = true);
    let later = stage.grant("later", &["budgetunit:read"], |grant| grant.not_before = now() + 5_000);
    let over = stage.grant("over", &["budgetunit:read"], |grant| grant.not_after = now() - 1);
    for id in ["works", "gone", "stopped"] {
        stage.grant(id, &["budgetunit:read"], |_| {});
    }
    let ask = async |client: &str, certificate: &str, scopes: &[&str]| {
        let answer =
            person.ask::<api::IssueTokenResponse>("IssueToken", issue(client, pem(&stage, certificate), scopes));
        answer.await
    };
    for (client, scopes, grant, why) in [
        ("waits", &[][..], waiting.as_str(), "waits for a second person's approval"),
        ("waits", &["population:read"], &waiting, "waits for a second person's approval"),
        ("later", &[], &later, "begins at 20"),
        ("over", &[], &over, "ended at 20"),
        ("none", &[], "", "no grant has it"),
    ] {
        let refused = ask(client, client, scopes).await.err().unwrap();
        assert!(refused.contains(grant) && refused.contains(why), "{client}: {refused}");
    }
    // Another client's certificate, one of another CA, an expired one.
    let refused = ask("works", "later", &[]).await.err().unwrap();
    assert!(refused.contains("it is not client works's"), "{refused}");
    let foreign = {
        let mut params = rcgen::CertificateParams::default();
        let uri = ndxp_gateway::pki::client_uri("works");
        params.subject_alt_names = vec![rcgen::SanType::URI(uri.as_str().try_into().unwrap())];
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    };
    let refused =
        person.ask::<api::IssueTokenResponse>("IssueToken", issue("works", foreign, &[])).await.err().unwrap();
    assert!(refused.contains("connections with it are refused"), "{refused}");
    // A client that may not call gets none.
    stage.store.suspend_client("stopped", true).unwrap();
    stage.store.retire_client("gone").unwrap();
    assert!(ask("stopped", "stopped", &[]).await.err().unwrap().contains("CLIENT_SUSPENDED"));
    assert!(ask("gone", "gone", &[]).await.err().unwrap().contains("retired"));
    assert!(stage.store.tokens(None, Page::ALL).unwrap().is_empty(), "nothing was recorded");
    // And a valid request succeeds.
    let issued = ask("works", "works", &["budgetunit:read"]).await.unwrap();
    stage.settle();
    stage.with_token("works", &issued.token).call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    // `/oauth2/token` has its own error texts.
    let (status, _, body) = post(&mut web(&stage, "waits").await, "/oauth2/token", FETCH).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_scope")));
    assert!(body["error_description"].as_str().unwrap().contains("waits for a second person"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t8_scopes_are_a_set_and_a_token_fits_a_call_s_headers() {
    let stage = Stage::start();
    let person = Person::new(&stage, "lan", &[Role::Administrator]);
    stage.client("clerk");
    stage.grant("clerk", &["budgetunit:read", "business:read"], |_| {});
    let many = vec!["budgetunit:read"; 1_500];
    let request = issue("clerk", pem(&stage, "clerk"), &many);
    let issued: api::IssueTokenResponse = person.ask("IssueToken", request).await.unwrap();
    assert_eq!(issued.record.unwrap().scopes, ["budgetunit:read"]);
    assert!(issued.token.len() < 1_000, "{}", issued.token.len());
    stage.settle();
    stage.with_token("clerk", &issued.token).call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    let mut sender = web(&stage, "clerk").await;
    let form = format!("{FETCH}&scope={}", many.join("+"));
    let (status, _, body) = post(&mut sender, "/oauth2/token", &form).await;
    assert_eq!((status, &body["scope"]), (200, &json!("budgetunit:read")));
    // So many different ones that the token would not fit in a call.
    let long: Vec<String> = (0..400).map(|number| format!("made-up-for-this-test:{number}")).collect();
    stage.grant("clerk", &[], |grant| grant.scopes = long.clone());
    let all = issue("clerk", pem(&stage, "clerk"), &[]);
    let refused = person.ask::<api::IssueTokenResponse>("IssueToken", all).await.err().unwrap();
    assert!(refused.contains("name fewer scopes"), "{refused}");
    stage.settle();
    let (status, _, body) = post(&mut sender, "/oauth2/token", FETCH).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_scope")), "{body}");
    // The gRPC port accepts the longest issued token.
    let mut most = 400;
    let token = loop {
        let scopes: Vec<&str> =
            std::iter::once("budgetunit:read").chain(long[..most].iter().map(String::as_str)).collect();
        match person.ask::<api::IssueTokenResponse>("IssueToken", issue("clerk", pem(&stage, "clerk"), &scopes)).await {
            Ok(issued) => break issued.token,
            Err(_) => most -= 5,
        }
    };
    assert!(token.len() > 7_800, "{}", token.len());
    stage.with_token("clerk", &token).call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn t8_a_new_key_is_published_before_it_signs_and_a_retired_one_ends_at_once_for_cached_tokens() {
    use api::KeyState::{KeyPublished, KeyReplaced, KeyRetired, KeySigning};
    let stage = Stage::prepared(&|folder| {
        edit(&folder.gateway_config(), |text| text.replace("audience = ", "jwks_max_age_s = 12\naudience = "));
    });
    let person = Person::new(&stage, "lan", &[Role::Administrator]);
    let clerk = stage.system("clerk");
    let mut sender = web(&stage, "clerk").await;
    let fetch = async |sender: &mut SendRequest<Full<Bytes>>| {
        let (status, _, body) = post(sender, "/oauth2/token", FETCH).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    };
    assert_eq!(states(&person).await, [KeySigning], "the very first key signs at once");
    let first = fetch(&mut sender).await;
    clerk.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    let began = now();
    let second: api::Key = person.ask("RotateKey", api::RotateKeyRequest::default()).await.unwrap();
    assert!(second.signs_from >= began + 12 && second.state() == KeyPublished);
    stage.settle();
    assert_eq!(states(&person).await, [KeySigning, KeyPublished]);
    let request = http::Request::get("/oauth2/jwks.json").header("host", "localhost").body(Full::default()).unwrap();
    sender.ready().await.unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "public, max-age=12");
    let jwks: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 2, "it is published");
    assert_eq!(kid(&first), kid(&fetch(&mut sender).await), "and signs nothing yet");
    until("it signs", || now() > second.signs_from);
    let fetched = fetch(&mut sender).await;
    assert_eq!(kid(&fetched), second.kid);
    assert_eq!(states(&person).await, [KeyReplaced, KeySigning]);
    let later = stage.with_token("clerk", &fetched);
    later.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    clerk.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    // In an emergency, the next one signs at once; the retired one's tokens are refused, cached or not.
    let third: api::Key =
        person.ask("RotateKey", api::RotateKeyRequest { now: true, ..Default::default() }).await.unwrap();
    assert_eq!(third.state(), KeySigning);
    person.ask::<api::Key>("RetireKey", api::KeyId { kid: second.kid.clone() }).await.unwrap();
    stage.settle();
    assert_eq!(states(&person).await, [KeyReplaced, KeyRetired, KeySigning]);
    assert_eq!(later.call(UNIT, json!({ "unitCode": "1057000" })).await.reason(), "TOKEN_INVALID");
    assert_eq!(kid(&fetch(&mut sender).await), third.kid);
    clerk.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    // A key that expires by itself ends as precisely, without a change of the registry.
    let sql = rusqlite::Connection::open(stage.data().join("registry.sqlite")).unwrap();
    let ends = now() + 2;
    let set = sql.execute("UPDATE keys SET believed_until = ?1 WHERE kid = ?2", (ends, kid(&clerk.token))).unwrap();
    sql.execute("INSERT INTO changes (kind, id) VALUES ('keys', '')", []).unwrap();
    assert_eq!(set, 1);
    until("its tokens are refused", || {
        let told = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(clerk.call(UNIT, json!({ "unitCode": "1057000" })))
        });
        let refused = told.reason() == "TOKEN_INVALID";
        assert!(!refused || now() >= ends);
        refused
    });
    assert!(now() <= ends + 1 + STALL.as_secs() as i64, "within a second of its end");
    assert!(states(&person).await.starts_with(&[KeyRetired]));
}

#[tokio::test(flavor = "multi_thread")]
async fn t8_an_expired_token_is_refused_although_it_was_verified_before() {
    let stage = Stage::prepared(&|folder| {
        edit(&folder.gateway_config(), |text| text.replace("audience = ", "leeway_s = 0\naudience = "));
    });
    stage.client("clerk");
    stage.grant("clerk", &["budgetunit:read"], |_| {});
    stage.settle();
    let actor = stage.with_token("clerk", &stage.token("clerk", Duration::from_secs(5), Duration::ZERO));
    let ends = now() + 5;
    actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    until("it is refused", || {
        let begun = now();
        let told = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(actor.call(UNIT, json!({ "unitCode": "1057000" })))
        });
        let refused = told.reason() == "TOKEN_EXPIRED";
        assert!(refused || begun <= ends, "a call begun after its token's end is served");
        refused
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn t8_introspection_and_revocation_report_the_token_s_state() {
    let stage = Stage::start();
    stage.client("clerk");
    let grant = stage.grant("clerk", &["budgetunit:read"], |_| {});
    let other = stage.grant("clerk", &["land:read"], |_| {});
    let clerk = stage.actor("clerk");
    let ask = || json!({ "unitCode": "1057000" });
    clerk.call(UNIT, ask()).await.ok();
    let mut sender = web(&stage, "clerk").await;
    let form = format!("token={}", clerk.token);
    let scopes = async |sender: &mut SendRequest<Full<Bytes>>| {
        let (status, _, told) = post(sender, "/oauth2/introspect", &form).await;
        assert_eq!(status, 200);
        if told["active"] == json!(true) { told["scope"].as_str().unwrap().to_owned() } else { String::new() }
    };
    assert_eq!(scopes(&mut sender).await, "budgetunit:read land:read");
    // A scope whose grant has expired no longer belongs to the token; without any scope, it allows nothing.
    stage.store.withdraw_grant(&other).unwrap();
    stage.settle();
    assert_eq!(scopes(&mut sender).await, "budgetunit:read");
    stage.store.withdraw_grant(&grant).unwrap();
    stage.settle();
    assert_eq!(scopes(&mut sender).await, "");
    stage.grant("clerk", &["budgetunit:read"], |_| {});
    stage.settle();
    clerk.call(UNIT, ask()).await.ok();
    // A token whose record was lost can still be revoked: it is valid, and its owner presents it.
    let issued = rusqlite::Connection::open(stage.data().join("issued.sqlite")).unwrap();
    issued.execute("DELETE FROM tokens", []).unwrap();
    assert_eq!(post(&mut sender, "/oauth2/revoke", &form).await.0, 200);
    stage.settle();
    assert_eq!(clerk.call(UNIT, ask()).await.reason(), "TOKEN_REVOKED");
    // A token that nobody issued counts as revoked.
    assert_eq!(post(&mut sender, "/oauth2/revoke", "token=a.b.c").await.0, 200);
    // While the registry cannot be read, an unknown token cannot be classified: it is not reported as revoked.
    let registry = rusqlite::Connection::open(ndxp_gateway::server::registry_path(&stage.data())).unwrap();
    registry
        .execute_batch("UPDATE grants SET rate = -1; INSERT INTO changes (kind, id) VALUES ('nonsense', 'x')")
        .unwrap();
    let (status, _, told) = post(&mut sender, "/oauth2/revoke", "token=a.b.c").await;
    assert!(status >= 400 && told["error"] == json!("temporarily_unavailable"), "{status} {told}");
    registry.execute_batch("UPDATE grants SET rate = 1").unwrap();
    until("it is followed again", || crate::support::ops_text(&stage, "/readyz").starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_valid_issued_tokens_match_the_log() {
    let mut stage = Stage::start();
    stage.system("clerk");
    stage.token("clerk", Duration::from_secs(3_600), Duration::ZERO);
    let mut web = web(&stage, "clerk").await;
    let (status, _, fetched) = post(&mut web, "/oauth2/token", FETCH).await;
    assert!(status == 200 && fetched["access_token"].is_string());
    drop(web);
    until("the acts are in the log", || stage.store.admin_events().unwrap().is_empty());
    tokio::task::block_in_place(|| stage.gateway.take().unwrap().stop());
    let (data, file) = (stage.data(), stage.data().join("issued.sqlite"));
    let differing = || {
        let registry = ndxp_gateway::server::registry_path(&data);
        let mut replay = ndxp_gateway::audit::replay::Replay::default().with_issued_tokens();
        let found = replay.confirmed_differences(&data, &registry, || {}).unwrap();
        found.into_iter().map(|one| (one.object, one.field)).collect::<Vec<_>>()
    };
    assert_eq!(differing(), []);
    let fetch = stage.entries().into_iter().rfind(|one| one.entry.event == "token.fetch").unwrap();
    let issue = stage.entries().into_iter().find(|one| one.entry.event == "token.issue").unwrap();
    for object in [fetch.entry.object, issue.entry.object.split(' ').next().unwrap().to_owned()] {
        let id = object.strip_prefix("token:").unwrap();
        let hour_ago = now() - 3_600;
        for (edit, field) in [
            ("client = 'other'".to_owned(), "client"),
            ("scopes = '[]'".to_owned(), "scopes"),
            ("certificate = 'x'".to_owned(), "certificate"),
            ("issued = issued - 1".to_owned(), "issued"),
            ("starts = starts + 1".to_owned(), "starts"),
            ("expires = expires + 1".to_owned(), "expires"),
            // As if it had expired, so that its revocation would be removed.
            (format!("expires = {hour_ago}"), "expires"),
        ] {
            let sql = rusqlite::Connection::open(&file).unwrap();
            sql.execute_batch(&format!(
                "CREATE TEMP TABLE kept AS SELECT * FROM tokens; UPDATE tokens SET {edit} WHERE id = '{id}'"
            ))
            .unwrap();
            assert_eq!(differing(), [(object.clone(), field.to_owned())], "{edit}");
            sql.execute_batch("DELETE FROM tokens; INSERT INTO tokens SELECT * FROM kept; DROP TABLE kept").unwrap();
            assert_eq!(differing(), [], "{edit}");
        }
        let sql = rusqlite::Connection::open(&file).unwrap();
        let take = format!("CREATE TEMP TABLE kept AS SELECT * FROM tokens; DELETE FROM tokens WHERE id = '{id}'");
        sql.execute_batch(&take).unwrap();
        assert_eq!(differing(), [(object.clone(), String::new())], "it is gone");
        sql.execute_batch("DELETE FROM tokens; INSERT INTO tokens SELECT * FROM kept; DROP TABLE kept").unwrap();
        let invent = format!(
            "INSERT INTO tokens SELECT 'mine', client, scopes, certificate, issued, starts, expires FROM tokens WHERE id = '{id}'"
        );
        sql.execute(&invent, []).unwrap();
        assert_eq!(differing(), [("token:mine".to_owned(), String::new())]);
        sql.execute("DELETE FROM tokens WHERE id = 'mine'", []).unwrap();
    }
    // An expired one has no effect, whatever its row says.
    stage.store.add_tokens(&ended("clerk", 0..1, 2)).unwrap();
    assert_eq!(differing(), []);
    let (content, _, told) = crate::support::audit_cli(&stage, &["verify", "--registry"]);
    assert!(content, "{told}");
    rusqlite::Connection::open(&file).unwrap().execute("UPDATE tokens SET scopes = '[]'", []).unwrap();
    let (content, _, told) = crate::support::audit_cli(&stage, &["verify", "--registry"]);
    assert!(!content && told.contains("token:") && told.contains("scopes"), "{told}");
}
