//! The gateway's own keys are made only by command, and a lost one is never replaced without a command; a month's key of pseudonyms and
//! its mark cannot be replaced together unnoticed.

use crate::support::{self, Running, Stage, audit_cli, lay, show, until};
use ndxp_gateway::audit::logged_files::{digest_of, object};
use ndxp_gateway::config::Config;
use ndxp_gateway::exchange_log::clock;
use ndxp_gateway::exchange_log::pseudonym::{Pseudonyms, period_of};
use ndxp_gateway::sandbox::folder::DevFolder;
use ndxp_gateway::sandbox::samples::samples;
use ndxp_gateway::server::Gateway;
use std::io::Read;
use std::path::Path;
use std::process::Command;

/// Runs a command to its end: success and output.
fn run(folder: &DevFolder, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"))
        .args(arguments)
        .current_dir(&folder.path)
        .env_remove("NDXP_CONFIG")
        .env("NDXP_LOG", "error")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// The error with which a gateway fails to start.
fn refused(folder: &DevFolder) -> String {
    let mut gateway = Running::spawn(folder, &[]);
    assert_eq!(gateway.first_line(), "", "it starts");
    let mut said = String::new();
    gateway.0.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
    assert!(!gateway.0.wait().unwrap().success());
    said
}

/// Starts a gateway and stops it when it accepts calls.
fn starts(folder: &DevFolder) {
    let mut gateway = Running::start(folder, &[]);
    gateway.signal(rustix::process::Signal::TERM);
    until("it ends", || gateway.0.try_wait().unwrap().is_some());
}

fn files(data: &Path) -> Vec<String> {
    let listed = std::fs::read_dir(data).map(|all| all.map(|one| one.unwrap().file_name().into_string().unwrap()));
    listed.map_or_else(|_| Vec::new(), Iterator::collect)
}

#[test]
fn l11_a_gateway_makes_no_key_of_its_own_log() {
    let (_dir, folder) = lay(&|_| {});
    let data = folder.path.join("data");
    let key = data.join("keys/log.key");
    let laid = std::fs::read(&key).unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    // A new folder: the error names the command, and nothing is created before it is run.
    let told = refused(&folder);
    assert!(told.contains("keys/log.key is missing") && told.contains("ndxp-gateway keys init"), "{told}");
    assert_eq!(files(&data), [""; 0]);
    let (ok, told) = run(&folder, &["config", "check", "--config", "gateway.toml"]);
    assert!(!ok && told.contains("keys init"), "{told}");
    let (ok, told) = run(&folder, &["keys", "init"]);
    assert!(ok && told.contains("made"), "{told}");
    let made = std::fs::read(&key).unwrap();
    assert_ne!(made, laid);
    starts(&folder);
    let vkey = std::fs::read_to_string(data.join("log/vkey")).unwrap();
    assert!(told.contains(&vkey), "{told} {vkey}");
    // A second run changes nothing.
    let (ok, again) = run(&folder, &["keys", "init"]);
    assert!(ok && again.contains("there already") && again.contains(&vkey), "{again}");
    // Lost while its log exists: neither a start nor the command makes another.
    std::fs::rename(&key, folder.path.join("kept")).unwrap();
    let told = refused(&folder);
    assert!(told.contains("put its key back"), "{told}");
    let (ok, told) = run(&folder, &["keys", "init"]);
    assert!(!ok && told.contains("put the key back") && told.contains("log/checkpoint"), "{told}");
    assert!(!key.exists());
    std::fs::rename(folder.path.join("kept"), &key).unwrap();
    starts(&folder);
}

#[test]
fn l11_the_key_of_admin_events_is_made_with_the_registry_and_replaced_only_on_command() {
    let (_dir, folder) = lay(&|_| {});
    let key = folder.path.join("data/keys/acts.key");
    let add = |id| ["client", "add", id, "--agency", "H49.12"];
    assert!(run(&folder, &add("shop")).0, "a new registry gets its key");
    let first = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    for told in [run(&folder, &add("other")).1, refused(&folder)] {
        assert!(told.contains("acts.key is gone") && told.contains("keys init"), "{told}");
    }
    assert!(!key.exists());
    assert!(run(&folder, &["keys", "init"]).0);
    assert_ne!(std::fs::read(&key).unwrap(), first);
    assert!(run(&folder, &add("other")).0);
    starts(&folder);
}

/// Makes an exchange about a person: it creates the month's key if there is none.
fn exchange(stage: &Stage) {
    let samples = samples(&stage.sandbox.province);
    let request = samples.iter().find(|one| one.operation.ends_with("/VerifyCitizen")).unwrap().requests[0].clone();
    let shop = stage.actor("one-stop-shop");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { shop.call(support::VERIFY, request).await.ok() });
}

#[test]
fn l11_a_month_s_key_and_its_mark_cannot_be_replaced_together_undetected() {
    let mut stage = Stage::start();
    drop(stage.system("one-stop-shop"));
    let period = period_of(clock::now_us());
    let (key, mark) = (format!("keys/pseudonyms/{period}.key"), format!("keys/pseudonyms/{period}.made"));
    let data = stage.data();
    let of = |file: &str| std::fs::read(data.join(file)).unwrap();
    let is_stated = |stage: &Stage| {
        let now = digest_of(&data.join(&mark)).unwrap().map(|digest| object(&mark, &digest));
        stage.entries().iter().any(|one| Some(&one.entry.object) == now.as_ref())
    };
    let verify = |stage: &Stage| {
        let (content, _, told) = audit_cli(stage, &["verify"]);
        (content, told)
    };
    exchange(&stage);
    until("the log states the mark", || is_stated(&stage));
    stage.gateway.take().unwrap().stop();
    assert!(verify(&stage).0, "{:?}", verify(&stage));
    let own = (of(&key), of(&mark));
    // Another pair, whose key and mark go together.
    let folder = tempfile::tempdir().unwrap();
    Pseudonyms::open(folder.path()).unwrap().keys(clock::now_us()).unwrap();
    for (file, ending) in [(&key, "key"), (&mark, "made")] {
        std::fs::copy(folder.path().join(format!("{period}.{ending}")), data.join(file)).unwrap();
    }
    let (content, told) = verify(&stage);
    assert!(!content && told.contains(&mark) && told.contains("is not what entry"), "{told}");
    // A gateway that runs with it does not record it in the log.
    let config = stage.folder.gateway_config();
    let start = || Gateway::start(Config::load(&config).map_err(show).unwrap()).unwrap();
    stage.gateway = Some(start());
    until("it has looked", || {
        support::ops_text(&stage, "/metrics").lines().any(|line| line == "ndxp_registry_differences 0")
    });
    stage.gateway.take().unwrap().stop();
    assert!(!verify(&stage).0);
    // Removed together: a new one remains reported, with both entries.
    for file in [&key, &mark] {
        std::fs::remove_file(data.join(file)).unwrap();
    }
    let (content, told) = verify(&stage);
    assert!(!content && told.contains("keys/pseudonyms"), "{told}");
    stage.gateway = Some(start());
    exchange(&stage);
    until("the log states the new mark", || is_stated(&stage));
    stage.gateway.take().unwrap().stop();
    let (content, told) = verify(&stage);
    assert!(content && told.contains("was made anew") && told.contains("WARNING"), "{told}");
    // The first pair, restored, is the older one, which the log records as well.
    std::fs::write(data.join(&key), &own.0).unwrap();
    std::fs::write(data.join(&mark), &own.1).unwrap();
    let (content, told) = verify(&stage);
    assert!(!content && told.contains("is an older one"), "{told}");
}
