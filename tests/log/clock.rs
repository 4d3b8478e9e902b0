//! A wall clock that is set back restores nothing: no quota, no expired right; also over a restart.

use crate::support::ca::Ca;
use crate::support::{Actor, Outside, Running, UNIT, add_client, add_grant, entries, exchanges, files, issue, until};
use ndxp_gateway::caller::GatewayClient;
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::server::registry_path;
use rustix::process::Signal;
use serde_json::json;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOUR: i64 = 3_600_000_000;
const CERTIFICATE_LIVES: Duration = Duration::from_secs(3_600);

/// A gateway with a wall clock that is set by a file.
fn start(outside: &Outside, clock: &Path, more: &[&str]) -> Running {
    let child = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"))
        .args(["serve", "--config", outside.folder.gateway_config().to_str().unwrap()])
        .args(more)
        .env("NDXP_CLOCK", clock)
        .env("NDXP_LOG", "error")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    assert!(running.first_line().starts_with("gRPC on"));
    running
}

fn end(mut gateway: Running) {
    gateway.signal(Signal::TERM);
    until("it ends", || gateway.0.try_wait().unwrap().is_some());
}

fn set(clock: &Path, by: i64) {
    let fresh = clock.with_extension("new");
    std::fs::write(&fresh, by.to_string()).unwrap();
    std::fs::rename(fresh, clock).unwrap();
}

/// The reason of this actor's call; empty for success.
fn call(actor: &Actor) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { actor.call(UNIT, json!({ "unitCode": "1057000" })).await.reason() })
}

fn ready(outside: &Outside) -> String {
    let mut stream = std::net::TcpStream::connect(outside.config.listen.operator_http.unwrap()).unwrap();
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Registers a client with a quota of two calls a day; returns the function that reconnects it.
fn limited(outside: &Outside) -> impl Fn() -> Actor {
    let Outside { folder, config, contracts, .. } = outside;
    let store = SqliteStore::open(&registry_path(&config.data)).unwrap();
    add_client(&store, folder, "limited");
    add_grant(&store, contracts, "limited", &["*"], |grant| grant.daily_quota = 2);
    let token = issue(&store, config, folder, "limited", Duration::from_secs(86_000), Duration::ZERO);
    move || {
        let caller = GatewayClient::new(&format!("https://{}", config.listen.grpc), &files(folder, "limited")).unwrap();
        Actor { caller, token: token.clone(), contracts: contracts.clone() }
    }
}

#[test]
fn l11_a_clock_that_is_set_back_restores_no_quota_and_no_expired_right() {
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    let outside = Outside::new();
    let Outside { folder, config, .. } = &outside;
    let limited = limited(&outside);
    let clock = folder.path.join("clock");
    set(&clock, 0);
    let gateway = start(&outside, &clock, &[]);
    let (limited_now, other) = (limited(), outside.actor());
    assert_eq!([call(&limited_now), call(&limited_now), call(&limited_now)], ["", "", "QUOTA_EXCEEDED"]);
    assert!(!ready(&outside).contains("clock"));
    // Yesterday, and 1970.
    for back in [-24 * HOUR, -56 * 8_766 * HOUR] {
        set(&clock, back);
        assert_eq!(call(&limited_now), "QUOTA_EXCEEDED", "{back}");
        assert_eq!(call(&other), "", "who has a right goes on");
        let told = ready(&outside);
        assert!(told.starts_with("HTTP/1.1 200") && told.contains("clock was set back"), "{told}");
    }
    // A token ends by a clock that is ahead, and does not live again when that is set right.
    set(&clock, 2 * HOUR);
    assert_eq!(call(&other), "TOKEN_EXPIRED");
    set(&clock, 0);
    assert_eq!(call(&other), "TOKEN_EXPIRED");
    end(gateway);
    // An entry has the time at which its event happened, and the registry's of before the start may follow those of the gateway.
    let all: Vec<_> = entries(&config.data).into_iter().map(|found| found.entry).collect();
    let told: Vec<_> = all.iter().map(|entry| (entry.time_us, &entry.event, &entry.reason)).collect();
    assert!(all.iter().all(|entry| entry.time_us >= began), "one is from before the test's start, {began}: {told:?}");
    let calls: Vec<_> = exchanges(&config.data).iter().map(|entry| entry.time_us).collect();
    assert!(calls.is_sorted() && calls.len() == 9, "calls one after another go back in time: {told:?}");
    // Nor over a restart.
    let gateway = start(&outside, &clock, &[]);
    assert_eq!(call(&outside.actor()), "TOKEN_EXPIRED");
    assert!(ready(&outside).contains("clock was set back"));
    end(gateway);
    // The operator states that the clock was ahead: time follows the clock again, with an entry, and the day's calls still count.
    let gateway = start(&outside, &clock, &["--clock-ahead"]);
    assert_eq!([call(&outside.actor()), call(&limited())], ["", "QUOTA_EXCEEDED"]);
    assert!(!ready(&outside).contains("clock"));
    end(gateway);
    let all = entries(&config.data);
    let told: Vec<_> = all.iter().filter(|found| found.entry.event == "clock.correct").collect();
    assert!(told.len() == 1 && told[0].entry.actor.starts_with("local:"), "{told:?}");
    // And from then on.
    let gateway = start(&outside, &clock, &[]);
    assert_eq!([call(&outside.actor()), call(&limited())], ["", "QUOTA_EXCEEDED"]);
    end(gateway);
}

/// Earlier, the handshake used the wall clock: an expired certificate was accepted again, and its connection ended only afterwards.
#[test]
fn l11_an_expired_certificate_is_refused_at_the_handshake_although_the_clock_was_set_back() {
    let outside = Outside::new();
    let Outside { folder, config, contracts, .. } = &outside;
    let soon = |params: &mut rcgen::CertificateParams| {
        params.not_after = (std::time::SystemTime::now() + CERTIFICATE_LIVES).into();
    };
    let brief = Ca::of_folder(folder).client_with(folder, "brief", 77, "", soon);
    let knock = || {
        let caller = GatewayClient::new(&format!("https://{}", config.listen.grpc), &brief).unwrap();
        let actor = Actor { caller, token: String::new(), contracts: contracts.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let message = actor.encode(UNIT, &json!({ "unitCode": "1057000" }));
        runtime.block_on(async { actor.raw(UNIT, &[], vec![message]).await.map(|told| told.code()).ok() })
    };
    let refused = || {
        let of = |reason: &str| {
            let ended = entries(&config.data).into_iter().map(|found| found.entry);
            ended.filter(|entry| entry.cause == "expired" && entry.reason == reason).count()
        };
        (of("HANDSHAKE_FAILED"), of("CERTIFICATE_REVOKED"))
    };
    let clock = folder.path.join("clock");
    set(&clock, 0);
    let gateway = start(&outside, &clock, &[]);
    assert_eq!((knock(), refused()), (Some(tonic::Code::Unauthenticated), (0, 0)), "its certificate is in order");
    for (times, by) in [(1, 2 * HOUR), (2, 0), (3, -24 * HOUR)] {
        set(&clock, by);
        assert_eq!(knock(), None, "{by}");
        until("it is refused", || refused().0 == times);
        assert_eq!(refused(), (times, 0), "{by}");
    }
    assert_eq!(call(&outside.actor()), "TOKEN_EXPIRED", "who has a certificate goes on");
    end(gateway);
}

/// The usage of quotas is in a file that the folder's owner can edit: it used to be trusted.
#[test]
fn l11_an_edit_of_the_usage_restores_no_quota() {
    let outside = Outside::new();
    let Outside { folder, config, .. } = &outside;
    let limited = limited(&outside);
    let called = || call(&limited());
    let (clock, file) = (folder.path.join("clock"), config.data.join("usage.sqlite"));
    set(&clock, 0);
    let gateway = start(&outside, &clock, &[]);
    assert_eq!([called(), called(), called()], ["", "", "QUOTA_EXCEEDED"]);
    end(gateway);
    let own = std::fs::read(&file).unwrap();
    let edit = "UPDATE usage SET used = 0; UPDATE kept SET until_us = until_us + 3600000000";
    for edited in [true, false] {
        std::fs::write(&file, &own).unwrap();
        if edited {
            rusqlite::Connection::open(&file).unwrap().execute_batch(edit).unwrap();
        } else {
            std::fs::remove_file(&file).unwrap();
        }
        let gateway = start(&outside, &clock, &[]);
        assert_eq!(called(), "QUOTA_EXCEEDED", "edited: {edited}");
        end(gateway);
    }
}
