//! The gateways of other sites read the log's files over HTTPS, and nothing else.

use crate::browser::Browser;
use crate::support::{Actor, Stage, UNIT, edit, files, until};
use http::StatusCode;
use ndxp_gateway::audit::remote_log::RemoteLogFiles;
use ndxp_gateway::exchange_log::LogError;
use ndxp_gateway::exchange_log::checkpoint::LogVerifier;
use ndxp_gateway::exchange_log::verify::{LogFiles, verify};
use ndxp_gateway::identity::tls;
use ndxp_gateway::pki::{CertificateRole, DEFAULT_DAYS, client_uri};
use ndxp_gateway::registry::{Client, Store, now};
use serde_json::json;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// A gateway with a log, which knows the gateway of one other site; two certificates of the province's CA.
fn stage() -> Stage {
    let names = format!("[log]\nsite_names = [\"{}\"]", client_uri("gateway-dc2"));
    let stage = Stage::prepared(&|folder| edit(&folder.gateway_config(), |text| text.replacen("[log]", &names, 1)));
    for id in ["gateway-dc2", "gateway-dc3"] {
        stage.folder.pki().issue(id, &CertificateRole::Client(id.into()), DEFAULT_DAYS).unwrap();
    }
    stage
}

fn remote(stage: &Stage, address: &str, id: Option<&str>) -> RemoteLogFiles {
    let own = files(&stage.folder, id.unwrap_or("nobody"));
    let shown = id.map(|_| (own.certificate.as_path(), own.key.as_path()));
    RemoteLogFiles::new(address, tls::client_config(&own.ca, shown, &[]).unwrap()).unwrap()
}

fn https(stage: &Stage) -> String {
    format!("https://{}", stage.gateway.as_ref().unwrap().https.unwrap())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_gateway_of_another_site_reads_the_log_and_verifies_it() {
    let stage = stage();
    let actor = stage.system("one-stop-shop");
    runtime().block_on(async { actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok() });
    stage.settle();
    let key = LogVerifier::parse(&std::fs::read_to_string(stage.data().join("log/vkey")).unwrap()).unwrap();
    let there = remote(&stage, &https(&stage), Some("gateway-dc2"));
    until("the exchange is sealed", || verify(&there, &key, Default::default(), |_, _| {}).unwrap().sealed >= 3);
    assert_eq!(there.read("tile/entries/x999/999").unwrap(), None);
    // Its names in the registry would be rights of two kinds in one certificate: neither is there then.
    let client = Client {
        id: "gateway-dc2".into(),
        agency: "H49.12".into(),
        contact: "hotro@quangninh.gov.vn".into(),
        names: vec![client_uri("gateway-dc2")],
        created: now(),
        ..Client::default()
    };
    stage.store.add_client(&client).unwrap();
    stage.settle();
    assert!(there.read("checkpoint").unwrap_err().to_string().contains("403"));
}

#[test]
fn others_do_not_read_the_log_and_a_site_reads_nothing_else() {
    let stage = stage();
    let actor = stage.system("one-stop-shop");
    for (id, wanted) in [
        (Some("gateway-dc3"), StatusCode::FORBIDDEN),
        (Some("one-stop-shop"), StatusCode::FORBIDDEN),
        (None, StatusCode::UNAUTHORIZED),
    ] {
        let refused = remote(&stage, &https(&stage), id).read("checkpoint").unwrap_err().to_string();
        assert!(refused.contains(wanted.as_str()), "{id:?}: {refused}");
    }
    runtime().block_on(async {
        let mut site = Browser::new(&stage, Some("gateway-dc2")).await;
        assert_eq!(site.get("/log/checkpoint").await.status, 200);
        for path in ["/log/vkey", "/log/../state/signed-checkpoint", "/log/tile/0/../../../keys/log.key"] {
            assert_eq!(site.get(path).await.status, 404, "{path}");
        }
        for (path, body) in [
            ("/oauth2/token", "grant_type=client_credentials&scope=budgetunit:read"),
            ("/oauth2/introspect", "token=x"),
            ("/console/sign-in", ""),
            ("/log/checkpoint", ""),
        ] {
            let status = site.send("POST", path, body, &[]).await.status;
            assert!((400..500).contains(&status), "{path}: {status}");
        }
        assert_ne!(site.get("/console/").await.status, 200);
        // Not with somebody else's token either.
        let site = Actor { token: actor.token.clone(), ..stage.with_token("gateway-dc2", "") };
        assert_eq!(site.call(UNIT, json!({ "unitCode": "1057000" })).await.reason(), "CLIENT_UNKNOWN");
        for method in ["ndxp.audit.v1.AuditService/GetCheckpoint", "ndxp.admin.v1.AdminService/ListClients"] {
            let staff = Actor { token: String::new(), ..site.clone() };
            let told = staff.raw(&format!("/{method}"), &[], vec![bytes::Bytes::new()]).await.unwrap();
            assert_eq!(told.reason(), "STAFF_UNKNOWN", "{method}");
        }
    });
}

/// A server that completes a handshake and reads the request, then does this.
fn server(stage: &Stage, then: impl Fn(&mut dyn Write) + Send + 'static) -> String {
    let pki = stage.folder.path.join("pki");
    let config = tls::plain_server_config(&pki.join("sandbox.pem"), &pki.join("sandbox.key")).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let config = std::sync::Arc::new(config);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            if stream.read(&mut [0; 4096]).is_ok() {
                then(&mut stream);
            }
        }
    });
    address
}

#[test]
fn a_site_that_hangs_or_sends_without_end_costs_a_bounded_time_and_memory() {
    let stage = stage();
    let silent = server(&stage, |_| std::thread::sleep(Duration::from_secs(60)));
    let began = Instant::now();
    let there = remote(&stage, &silent, None).within(Duration::from_millis(300));
    let error = there.read("checkpoint").unwrap_err();
    assert!(matches!(error, LogError::Io { .. }) && began.elapsed() < Duration::from_secs(10), "{error}");

    let endless = server(&stage, |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 x\r\n\r\n");
        while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
    });
    let error = remote(&stage, &endless, None).read("checkpoint").unwrap_err().to_string();
    assert!(error.contains("larger than the limit"), "{error}");
    // What is no task's thread may drop it, and so may a task.
    runtime().block_on(async { drop(remote(&stage, &endless, None)) });
}
