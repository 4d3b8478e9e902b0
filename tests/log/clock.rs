//! A wall clock that is set back gives nobody anything twice: no quota, no right that has ended; also over a restart.

use crate::support::{Actor, Outside, Running, UNIT, add_client, add_grant, entries, files, issue, until};
use ndxp_gateway::caller::GatewayClient;
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::server::registry_path;
use rustix::process::Signal;
use serde_json::json;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const HOUR: i64 = 3_600_000_000;

/// A gateway whose wall clock is set by a file.
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
    until("it ends", Duration::from_secs(20), || gateway.0.try_wait().unwrap().is_some());
}

fn set(clock: &Path, by: i64) {
    let fresh = clock.with_extension("new");
    std::fs::write(&fresh, by.to_string()).unwrap();
    std::fs::rename(fresh, clock).unwrap();
}

/// What a call of this actor is told: its reason; empty where it is answered.
fn call(actor: &Actor) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { actor.call(UNIT, json!({ "unitCode": "1057000" })).await.reason() })
}

fn ready(outside: &Outside) -> String {
    let mut stream = std::net::TcpStream::connect(outside.config.listen.ops.unwrap()).unwrap();
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn l11_a_clock_that_is_set_back_gives_no_quota_and_no_ended_right_back() {
    let outside = Outside::new();
    let Outside { folder, config, contracts, .. } = &outside;
    let store = SqliteStore::open(&registry_path(&config.data)).unwrap();
    add_client(&store, folder, "limited");
    add_grant(&store, contracts, "limited", &["*"], |grant| grant.daily_quota = 2);
    let token = issue(&store, config, folder, "limited", Duration::from_secs(86_000), Duration::ZERO);
    drop(store);
    let limited = || {
        let caller = GatewayClient::new(&format!("https://{}", config.listen.grpc), &files(folder, "limited")).unwrap();
        Actor { caller, token: token.clone(), contracts: contracts.clone() }
    };
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
    let times: Vec<i64> = entries(&config.data).iter().map(|found| found.entry.time_us).collect();
    assert!(times.windows(2).all(|pair| pair[1] > pair[0] - 60_000_000), "no entry is from before: {times:?}");
    // Nor over a restart.
    let gateway = start(&outside, &clock, &[]);
    assert_eq!(call(&outside.actor()), "TOKEN_EXPIRED");
    assert!(ready(&outside).contains("clock was set back"));
    end(gateway);
    // Whoever runs it says that the clock was ahead: time is what it shows, that is an entry, and the day's calls still count.
    let gateway = start(&outside, &clock, &["--clock-was-ahead"]);
    assert_eq!([call(&outside.actor()), call(&limited())], ["", "QUOTA_EXCEEDED"]);
    assert!(!ready(&outside).contains("clock"));
    end(gateway);
    let all = entries(&config.data);
    let told: Vec<_> = all.iter().filter(|found| found.entry.act == "clock.correct").collect();
    assert!(told.len() == 1 && told[0].entry.actor.starts_with("local:"), "{told:?}");
    // And from then on.
    let gateway = start(&outside, &clock, &[]);
    assert_eq!([call(&outside.actor()), call(&limited())], ["", "QUOTA_EXCEEDED"]);
    end(gateway);
}
