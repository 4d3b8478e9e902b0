//! The commands of docs/administration.md, run unchanged but for ports and the time that they wait.

use std::path::Path;
use std::process::Command;

/// Commands with what must be in their output, in order.
fn transcript() -> Vec<(String, Vec<String>)> {
    let text = include_str!("../../docs/administration.md");
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for block in text.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => steps.push((command.to_owned(), Vec::new())),
                None => steps.last_mut().unwrap().1.push(line.to_owned()),
            }
        }
    }
    steps
}

#[test]
fn the_documented_administration_works() {
    let folder = tempfile::tempdir().unwrap();
    let steps = transcript();
    assert!(steps.len() > 25);
    let mut script = String::from("set -e\nexec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n");
    for (number, (command, _)) in steps.iter().enumerate() {
        // The documented ports may be another's here: free ones, and the gateway's told by its configuration.
        let command = command.replace("sandbox init --folder dev", "sandbox init --folder dev --free-ports");
        let command =
            command.replace("https://localhost:7443", "$NDXP_GATEWAY").replace("https://localhost:8443", "$HTTPS");
        script.push_str(&format!("echo '@@{number}'\n"));
        match command.strip_suffix(" &") {
            Some(server) => {
                let ready = format!("grep -qE 'gRPC on|people in' server{number}.log");
                let waits = format!("for i in $(seq 600); do {ready} && break; sleep 0.1; done; {ready}");
                script.push_str(&format!("{server} > server{number}.log 2>&1 &\n{waits}\n"));
            }
            // A person waits a second; a busy machine may stand still for that long.
            None if command == "sleep 1" => script.push_str("sleep 4\n"),
            None => script.push_str(&format!("{command}\n")),
        }
        if number == 0 {
            for (name, key) in [("NDXP_GATEWAY", "grpc"), ("HTTPS", "https")] {
                let address = format!("sed -n 's/^{key} = \"127.0.0.1\\(.*\\)\"/\\1/p' dev/gateway.toml");
                script.push_str(&format!("export {name}=https://localhost$({address})\n"));
            }
        }
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_ndxp-gateway")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .arg("-c")
        .arg(script)
        .current_dir(&folder)
        .env("PATH", path)
        .env("NDXP_LOG", "warn")
        .env("XDG_CONFIG_HOME", folder.path().join("config"))
        .output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for (number, (command, expected)) in steps.iter().enumerate() {
        let (_, from) = text.split_once(&format!("@@{number}\n")).unwrap();
        let told = from.split("@@").next().unwrap();
        for part in expected {
            assert!(told.contains(part.as_str()), "{command}: {part:?} is not in {told}");
        }
    }
}
