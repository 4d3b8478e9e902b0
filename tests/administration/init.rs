//! `init` lays a folder that works once its certificates are in place, and overwrites nothing.

use ndxp_gateway::pki::{CertificateRole, DEFAULT_DAYS, Pki};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn run(args: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"));
    command.args(args).current_dir(folder).env_remove("NDXP_CONFIG").env("NDXP_LOG", "error");
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

#[track_caller]
fn ok(args: &[&str], folder: &Path) -> String {
    let output = run(args, folder);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_folder_is_laid_beside_its_certificates_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let init = ["init", "--folder", "etc", "--data", "lib", "--node", "qn-dc2", "--host", "localhost"];
    let refused = run(&init[..7], at);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--host"), "{refused:?}");
    assert!(!at.join("etc/gateway.toml").exists());
    // Without the certificates, nothing is written.
    let early = run(&init, at);
    assert!(String::from_utf8_lossy(&early.stderr).contains("etc/pki/gateway.pem"), "{early:?}");
    assert!(!at.join("etc").exists() && !at.join("lib").exists());
    let pki = Pki::at(&at.join("etc/pki"));
    pki.init().unwrap();
    pki.issue("gateway", &CertificateRole::Server(vec!["localhost".into()]), DEFAULT_DAYS).unwrap();
    let list = std::fs::read(pki.crl()).unwrap();
    std::fs::remove_file(pki.crl()).unwrap();
    let people = ["--administrator", "lan", "--approver", "minh"];
    let told = ok(&[&["--output", "json"][..], &init, &people].concat(), at);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(told["vkey"].as_str().unwrap().starts_with("localhost/log+"), "{told}");
    let steps = told["next"].to_string();
    assert!(steps.contains("mend: ") && steps.contains("ca.crl") && !steps.contains("staff bootstrap"), "{steps}");
    std::fs::write(pki.crl(), list).unwrap();
    assert_eq!(std::fs::metadata(at.join("lib")).unwrap().permissions().mode() & 0o077, 0);
    for name in ["hubs/ndxp.toml.example", "sources/land.toml.example", "units/ndxp-gateway.service", "names.toml"] {
        assert!(at.join("etc").join(name).exists(), "{name}");
    }
    let unit = std::fs::read_to_string(at.join("etc/units/ndxp-gateway.service")).unwrap();
    assert!(unit.contains(&format!("{}/etc/gateway.toml", at.display())), "{unit}");
    // Nothing of it is replaced.
    let before = std::fs::read_to_string(at.join("etc/gateway.toml")).unwrap();
    let again = run(&init, at);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert_eq!(std::fs::read_to_string(at.join("etc/gateway.toml")).unwrap(), before);
    // With the list in place, it is in order.
    ok(&["config", "check", "--config", "etc/gateway.toml"], at);
    ok(&["keys", "rotate", "--config", "etc/gateway.toml"], at);
    let staff = ok(&["--output", "json", "staff", "list", "--config", "etc/gateway.toml"], at);
    assert!(staff.contains("lan") && staff.contains("minh"), "{staff}");
}
