//! The gateway's own keys are made on command, and one that is gone is never replaced unasked.

use crate::support::{Running, lay, until};
use ndxp_gateway::sandbox::folder::DevFolder;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A command that ends: whether it succeeded, and what it said.
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

/// Why a gateway does not start.
fn refused(folder: &DevFolder) -> String {
    let mut gateway = Running::spawn(folder, &[]);
    assert_eq!(gateway.first_line(), "", "it starts");
    let mut said = String::new();
    gateway.0.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
    assert!(!gateway.0.wait().unwrap().success());
    said
}

/// Starts a gateway and ends it when it answers.
fn starts(folder: &DevFolder) {
    let mut gateway = Running::start(folder, &[]);
    gateway.signal(rustix::process::Signal::TERM);
    until("it ends", Duration::from_secs(20), || gateway.0.try_wait().unwrap().is_some());
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
    // A fresh folder: the command is named, and nothing is made before it was given.
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
    // Once more changes nothing.
    let (ok, again) = run(&folder, &["keys", "init"]);
    assert!(ok && again.contains("there already") && again.contains(&vkey), "{again}");
    // Lost beside its log: neither a start nor the command makes another.
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
fn l11_the_key_of_acts_comes_with_the_registry_and_is_replaced_on_command_only() {
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
