//! `doctor` finds what keeps a gateway from its work, each with what to do, and nothing wrong where nothing is.

use crate::support::{Stage, edit};
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The findings as JSON, and the exit code.
fn doctor(folder: &Path, more: &[&str]) -> (Vec<Value>, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"))
        .args(["--output", "json", "doctor"])
        .args(more)
        .current_dir(folder)
        .env_remove("NDXP_CONFIG")
        .env("NDXP_LOG", "error")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let findings = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}"));
    (findings, output.status.code().unwrap())
}

/// The faults of a part.
fn faults(found: &[Value], part: &str) -> Vec<String> {
    let of = |one: &&Value| one["verdict"] == "fault" && one["part"] == part;
    found.iter().filter(of).map(|one| one["what"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_gateway_that_runs_well_has_no_fault() {
    let stage = Stage::start();
    stage.system("one-stop-shop");
    let (found, code) = doctor(&stage.folder.path, &[]);
    assert_eq!((code, found.iter().filter(|one| one["verdict"] == "fault").count()), (0, 0), "{found:?}");
    let part = |part: &str| found.iter().filter(|one| one["part"] == part).count();
    assert!(part("source") >= 10 && part("port") == 0, "its own ports are its own: {found:?}");
    let text = found.iter().map(Value::to_string).collect::<String>();
    assert!(text.contains("a gateway of this folder runs"), "{text}");
}

#[test]
fn each_fault_is_found_with_what_to_do() {
    let mut stage = Stage::start();
    stage.gateway.take().unwrap().stop();
    let folder = stage.folder.path.clone();
    let config = stage.folder.gateway_config();
    // A port that another process has.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let was = std::fs::read_to_string(&config).unwrap();
    let grpc = was.lines().find(|line| line.starts_with("grpc = ")).unwrap().to_owned();
    edit(&config, |text| text.replace(&grpc, &format!("grpc = \"{taken}\"")));
    // A data folder that others can read, and no key of the log.
    std::fs::set_permissions(folder.join("data"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(folder.join("data/keys/log.key"), folder.join("data/keys/gone")).unwrap();
    // A source that cannot be reached.
    edit(&folder.join("hubs/vdxp.toml"), |text| {
        let lines = text.lines().map(|line| match line.starts_with("address = ") {
            true => "address = \"https://127.0.0.1:1\"".to_owned(),
            false => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    });
    let (found, code) = doctor(&folder, &[]);
    assert_eq!(code, 1);
    assert!(faults(&found, "port").iter().any(|what| what.contains(&taken)), "{found:?}");
    assert!(faults(&found, "data folder").iter().any(|what| what.contains("mode 755")), "{found:?}");
    assert!(faults(&found, "keys").iter().any(|what| what.contains("log.key")), "{found:?}");
    let unreachable = faults(&found, "source");
    assert!(unreachable.iter().any(|what| what.contains("https://127.0.0.1:1: no connection")), "{found:?}");
    let every = found.iter().filter(|one| one["verdict"] == "fault").all(|one| one["remedy"] != "");
    assert!(every, "each fault says what to do: {found:?}");
    // A certificate that has ended, a list that fits no CA, an entry with a mistake: each by its file.
    stage.folder.pki().issue("ended", &ndxp_gateway::pki::CertificateRole::Client("ended".into()), 0).unwrap();
    edit(&config, |text| text.replace("pki/gateway.pem", "pki/ended.pem").replace("pki/gateway.key", "pki/ended.key"));
    edit(&folder.join("sources/land.toml"), |text| text + "nonsense = 1\n");
    let (found, code) = doctor(&folder, &["--offline"]);
    assert_eq!(code, 1);
    assert!(found.iter().all(|one| one["part"] != "source"), "{found:?}");
    assert!(faults(&found, "certificate").iter().any(|what| what.contains("ended.pem")), "{found:?}");
    assert!(faults(&found, "configuration").iter().any(|what| what.contains("land.toml:")), "{found:?}");
}
