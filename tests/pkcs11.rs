//! Signing keys in an HSM: SoftHSM2 (Debian's `softhsm2`) behind PKCS#11, the binary as its user runs it.
#![cfg(feature = "pkcs11")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {told}");
    output
}

fn gateway(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"));
    command.args(arguments).current_dir(folder).env("SOFTHSM2_CONF", folder.join("softhsm2.conf"));
    command
}

/// A server that is ended with the test.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it did not start");
        Running(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tokens_are_signed_by_a_key_that_never_leaves_the_module() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    std::fs::create_dir_all(folder.join("tokens")).unwrap();
    std::fs::write(
        folder.join("softhsm2.conf"),
        format!("directories.tokendir = {}\n", folder.join("tokens").display()),
    )
    .unwrap();
    run(Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "ndxp", "--pin", "428571", "--so-pin", "142857"])
        .env("SOFTHSM2_CONF", folder.join("softhsm2.conf")));
    run(&mut gateway(folder, &["sandbox", "init", "--folder", "dev", "--free-ports"]));
    let config = folder.join("dev/gateway.toml");
    std::fs::write(folder.join("dev/secrets/pin"), "428571\n").unwrap();
    let hsm = format!("\n[keys.pkcs11]\nmodule = \"{MODULE}\"\ntoken = \"ndxp\"\npin = {{ file = \"secrets/pin\" }}\n");
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + &hsm).unwrap();
    let ask = |arguments: &[&str]| {
        run(gateway(folder, arguments).env("NDXP_CONFIG", &config));
    };
    let refused =
        gateway(folder, &["keys", "rotate", "--algorithm", "eddsa"]).env("NDXP_CONFIG", &config).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ES256"), "{refused:?}");
    ask(&["keys", "rotate"]);
    assert!(!folder.join("dev/data/keys/signing").exists(), "the private key is in no file");
    ask(&["certs", "issue", "shop", "--folder", "dev/pki"]);
    ask(&["client", "add", "shop", "--agency", "H49.12"]);
    ask(&["grant", "add", "--client", "shop", "--scope", "budgetunit:read", "--field", "*", "--legal-basis", "x"]);
    ask(&["token", "issue", "--client", "shop", "--certificate", "dev/pki/shop.pem", "--out", "shop.jwt"]);
    let _sandbox = Running::start(gateway(folder, &["sandbox", "--config", "dev/sandbox.toml"]));
    let _gateway = Running::start(gateway(folder, &["serve", "--config", "dev/gateway.toml"]));
    let text = std::fs::read_to_string(&config).unwrap();
    let port = text.split("grpc = \"").nth(1).unwrap().split('"').next().unwrap().rsplit(':').next().unwrap();
    let told = run(gateway(folder, &["call", "BudgetUnitService/GetUnit", "--data", "{\"unitCode\": \"1057000\"}"])
        .env("NDXP_GATEWAY", format!("https://localhost:{port}"))
        .env("NDXP_CA", folder.join("dev/pki/ca.pem"))
        .env("NDXP_CERTIFICATE", folder.join("dev/pki/shop.pem"))
        .env("NDXP_CONFIG", &config)
        .env("NDXP_TOKEN_FILE", folder.join("shop.jwt")));
    assert!(String::from_utf8_lossy(&told.stdout).contains("Quảng Ninh"), "{told:?}");
    // A wrong PIN is told as such, and nothing is signed.
    std::fs::write(folder.join("dev/secrets/pin"), "000000\n").unwrap();
    let denied = gateway(folder, &["token", "issue", "--client", "shop", "--certificate", "dev/pki/shop.pem"])
        .env("NDXP_CONFIG", &config)
        .output()
        .unwrap();
    assert!(!denied.status.success() && !String::from_utf8_lossy(&denied.stderr).contains("000000"), "{denied:?}");
}
