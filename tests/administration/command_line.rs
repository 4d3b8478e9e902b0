//! The tasks of an administrator and an auditor on the command line, with the binary itself.

use crate::support::{Stage, edit, lay};
use ndxp_gateway::sandbox::folder::DevFolder;
use ndxp_gateway::sandbox::samples::{Sample, samples};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(args: &[&str], input: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"))
        .args(args)
        .current_dir(input)
        .env_remove("NDXP_CONFIG")
        .env("NDXP_LOG", "error")
        .output()
        .unwrap()
}

#[track_caller]
pub(crate) fn ok(args: &[&str], folder: &Path) -> String {
    let output = run(args, folder);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {out}{err}");
    out.into_owned()
}

#[track_caller]
pub(crate) fn fails(args: &[&str], folder: &Path, code: i32) -> String {
    let output = run(args, folder);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn from_an_empty_folder_to_an_audited_call_by_the_command_line_alone() {
    let stage = Stage::start();
    let folder = &stage.folder.path;
    ok(&["certs", "issue", "one-stop-shop", "--folder", "pki"], folder);
    assert!(ok(&["certs", "show", "pki/one-stop-shop.pem"], folder).contains("client/one-stop-shop"));
    ok(&["client", "add", "one-stop-shop", "--agency", "H49.12", "--contact", "02033"], folder);
    ok(
        &[
            "grant",
            "add",
            "--client",
            "one-stop-shop",
            "--scope",
            "population:verify",
            "--scope",
            "business:read",
            "--purpose",
            "procedure:1.004222",
            "--field",
            "*",
            "--legal-basis",
            "Nghị định 278/2025/NĐ-CP",
        ],
        folder,
    );
    let certificate = "pki/one-stop-shop.pem";
    ok(&["token", "issue", "--client", "one-stop-shop", "--certificate", certificate, "--out", "shop.jwt"], folder);
    assert!(ok(&["token", "list"], folder).contains("in force"));
    assert!(ok(&["keys", "list"], folder).contains("signs now"));
    stage.settle();

    let base = stage.base();
    let call = |operation: &str, data: &str, more: &[&str]| {
        let mut args = vec!["call", operation, "--to", &base, "--certificate", certificate];
        args.extend(["--token-file", "shop.jwt", "--data", data]);
        args.extend(more);
        run(&args, folder)
    };
    let find = |name: &str| -> Sample {
        samples(&stage.sandbox.province).into_iter().find(|one| one.operation.ends_with(name)).unwrap()
    };
    let verify = find("VerifyCitizen").requests[0].to_string();
    let said = ["--purpose", "1.004222", "--official", "022080990129"];
    let answer = call("PopulationService/VerifyCitizen", &verify, &said);
    assert_eq!(serde_json::from_slice::<Value>(&answer.stdout).unwrap(), json!({ "matched": true }), "{answer:?}");
    let refused = call("PopulationService/VerifyCitizen", &verify, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("PURPOSE_REQUIRED"), "{refused:?}");
    let wrong = call("PopulationService/VerifyCitizen", "{\"citizenId\": 1", &said);
    assert_eq!(wrong.status.code(), Some(2));

    // A batch, one row of which is wrong.
    let (one, two) = (&stage.sandbox.province.enterprises[0].code, &stage.sandbox.province.enterprises[1].code);
    std::fs::write(folder.join("codes.csv"), format!("enterprise_code\n{one}\n123\n{two}\n")).unwrap();
    let batch = run(
        &[
            "call",
            "BusinessService/GetEnterprise",
            "--to",
            &base,
            "--certificate",
            certificate,
            "--token-file",
            "shop.jwt",
            "--csv",
            "codes.csv",
        ],
        folder,
    );
    assert_eq!(batch.status.code(), Some(1));
    let text = String::from_utf8_lossy(&batch.stdout);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["responses"][0]["enterpriseCode"], json!(one));
    assert_eq!((&lines[1]["reason"], &lines[1]["row"]), (&json!("FIELD_INVALID"), &json!(2)));
    assert_eq!(lines[2]["responses"][0]["enterpriseCode"], json!(two));

    // The auditor.
    let person: Value = serde_json::from_str(&verify).unwrap();
    let found = ok(
        &["--output", "json", "audit", "search", "--subject", person["citizenId"].as_str().unwrap(), "--case", "12/KN"],
        folder,
    );
    let mut entries: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The last line shows up to which checkpoint that is complete.
    let complete = entries.pop().unwrap()["complete"].clone();
    assert!(complete["size"].as_u64() > Some(0) && complete["root"].as_str().map(str::len) == Some(64), "{complete}");
    assert_eq!(entries.len(), 1, "{found}");
    assert_eq!((&entries[0]["purpose"], &entries[0]["fields"]), (&json!("1.004222"), &json!(["matched"])));
    let shown = ok(&["audit", "show", entries[0]["exchange"].as_str().unwrap()], folder);
    assert!(shown.contains("\"complete\"") && shown.contains("\"newest\""));
    assert!(shown.contains("request_commitment") && !shown.contains(person["citizenId"].as_str().unwrap()));
    assert!(ok(&["audit", "search", "--reason", "PURPOSE_REQUIRED"], folder).contains("VerifyCitizen"));
    assert!(ok(&["audit", "verify"], folder).contains("verified"));
    let vkey = std::fs::read_to_string(stage.data().join("log/vkey")).unwrap();
    ok(&["audit", "verify", "--vkey", &vkey], folder);
    // A saved checkpoint binds the log from then on.
    let kept = std::fs::read_to_string(stage.data().join("log/checkpoint")).unwrap();
    std::fs::write(folder.join("kept"), &kept).unwrap();
    ok(&["audit", "verify", "--since", "kept"], folder);
    let root = kept.lines().nth(2).unwrap();
    let other = if root.starts_with('x') { "y" } else { "x" };
    std::fs::write(folder.join("forged"), kept.replacen(root, &format!("{other}{}", &root[1..]), 1)).unwrap();
    fails(&["audit", "verify", "--since", "forged"], folder, 1);
    fails(&["audit", "verify", "--vkey", &vkey.replacen("ndxp", "xdxp", 1)], folder, 2);
    // The well-formed key of another log (golang.org/x/mod/sumdb/note's example).
    let other = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    fails(&["audit", "verify", "--vkey", other], folder, 1);
    assert!(fails(&["audit", "show", "01a00000-0000-7000-8000-000000000000"], folder, 1).contains("no exchange"));

    // A receipt: verified without the log, and refused if any of it was changed.
    ok(&["audit", "prove", entries[0]["exchange"].as_str().unwrap(), "--out", "one.tlog-proof"], folder);
    let elsewhere = tempfile::tempdir().unwrap();
    let receipt = std::fs::read_to_string(folder.join("one.tlog-proof")).unwrap();
    let check = |text: &str, code: i32| {
        let file = elsewhere.path().join("receipt");
        std::fs::write(&file, text).unwrap();
        let output = run(&["audit", "verify", "--receipt", "receipt", "--vkey", &vkey], elsewhere.path());
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    };
    check(&receipt, 0);
    let index = entries[0]["index"].to_string();
    check(&receipt.replace(&format!("index {index}\n"), "index 0\n"), 1);
    let extra = receipt.lines().nth(1).unwrap();
    check(&receipt.replace(extra, &extra.replacen('C', "D", 1)), 1);
    check(receipt.rsplit_once('—').unwrap().0, 1);

    // The subject report, the statistics of a period, and the export.
    let owed =
        ok(&["--output", "json", "audit", "subject", person["citizenId"].as_str().unwrap(), "--case", "12/KN"], folder);
    let owed: Value = serde_json::from_str(&owed).unwrap();
    assert!(owed["complete"]["from_log"] == false && owed["complete"]["pruned"] == 0, "{owed}");
    let owed = &owed["entries"];
    assert_eq!(owed.as_array().unwrap().len(), 1);
    assert_eq!((&owed[0]["agency"], &owed[0]["fields"]), (&json!("H49.12"), &json!(["matched"])));
    assert!(
        ok(&["audit", "subject", person["citizenId"].as_str().unwrap(), "--case", "12/KN"], folder)
            .contains("VerifyCitizen")
    );
    // No hint after a search of the log itself.
    let none = ok(&["audit", "subject", "022000000000", "--case", "12/KN"], folder);
    assert!(
        none.starts_with("none\ncomplete up to the checkpoint of") && none.contains("from the log itself"),
        "{none}"
    );
    let whole =
        ok(&["audit", "subject", person["citizenId"].as_str().unwrap(), "--case", "12/KN", "--from-log"], folder);
    assert!(whole.contains("VerifyCitizen") && whole.contains("from the log itself"), "{whole}");
    let report: Value = serde_json::from_str(&ok(&["--output", "json", "audit", "report"], folder)).unwrap();
    let refused = |row: &&Value| row["outcome"] == "PURPOSE_REQUIRED" && row["exchanges"] == 1;
    assert_eq!(report["counts"].as_array().unwrap().iter().filter(refused).count(), 1, "{report}");
    assert_eq!(report["findings"], json!([]));
    let told = ok(&["audit", "report", "--days"], folder);
    assert!(told.contains("population") && told.contains("anomalies in this period"), "{told}");
    ok(&["audit", "export", "--source", "business", "--out", "business.csv"], folder);
    let exported = std::fs::read_to_string(folder.join("business.csv")).unwrap();
    let mut rows = csv::Reader::from_reader(exported.as_bytes());
    let rows: Vec<csv::StringRecord> = rows.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.iter().any(|cell| cell.contains("GetEnterprise"))), "{exported}");
    ok(&["audit", "export", "--out", "all.jsonl"], folder);
    let all = std::fs::read_to_string(folder.join("all.jsonl")).unwrap();
    let indexes: Vec<u64> =
        all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["index"].as_u64().unwrap()).collect();
    assert!(indexes.is_sorted() && indexes.len() as u64 == indexes.last().unwrap() + 1);
    fails(&["audit", "export", "--out", "all.xlsx"], folder, 2);
    // An export is verified with its proofs and the key only, and a changed one is rejected.
    ok(&["audit", "export", "--out", "all.parquet"], folder);
    ok(&["audit", "export", "--out", "all.csv"], folder);
    for name in ["all.jsonl", "all.csv", "all.parquet", "business.csv"] {
        for file in [name.to_owned(), format!("{name}.proofs")] {
            std::fs::copy(folder.join(&file), elsewhere.path().join(&file)).unwrap();
        }
        let verify = ["audit", "verify", "--export", name, "--vkey", &vkey];
        let output = run(&verify, elsewhere.path());
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
        if !name.ends_with("parquet") {
            crate::support::edit(&elsewhere.path().join(name), |text| text.replacen("H49.12", "H49.13", 1));
            assert_eq!(run(&verify, elsewhere.path()).status.code(), Some(1), "{name}");
        }
    }
    assert!(std::fs::read(folder.join("all.parquet")).unwrap().starts_with(b"PAR1"));
    // The index is rebuilt; searches find the same before and after.
    let searched = || {
        let found =
            ok(&["--output", "json", "audit", "search", "--client", "one-stop-shop", "--limit", "1000"], folder);
        found.lines().filter(|line| !line.starts_with("{\"complete\"")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = searched();
    let indexed: Value =
        serde_json::from_str(&ok(&["--output", "json", "audit", "index", "--rebuild"], folder)).unwrap();
    // Full bundles are in the index; searches read the others from the log.
    assert_eq!(indexed["indexed"], json!(indexed["sealed"].as_u64().unwrap() / 256 * 256));
    assert!(ok(&["audit", "status"], folder).contains("never verified"));
    assert!(ok(&["audit", "verify", "--index"], folder).contains("the search index is what the log says"));
    assert!(ok(&["audit", "status"], folder).contains("0 differences"));
    assert_eq!(searched(), before);
    assert!(ok(&["audit", "anomalies"], folder).contains("none"));
    // Its name in earlier versions.
    assert!(ok(&["audit", "odd"], folder).contains("none"));

    // Taken away again.
    let token = ok(&["--output", "json", "token", "list"], folder);
    let token: Value = serde_json::from_str(&token).unwrap();
    ok(&["token", "revoke", token[0]["id"].as_str().unwrap()], folder);
    ok(&["client", "suspend", "one-stop-shop"], folder);
    stage.settle();
    let refused = call("BusinessService/GetEnterprise", "{}", &[]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("CLIENT_SUSPENDED"), "{refused:?}");
    assert!(ok(&["client", "list"], folder).contains("suspended"));
}

#[test]
fn a_changed_byte_is_named_by_verify() {
    let mut stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for _ in 0..5 {
            actor.call(crate::support::UNIT, json!({ "unitCode": "1057000" })).await.ok();
        }
    });
    // While it runs, an admin event may still be sealed, which replaces the file that is changed below.
    drop((actor, runtime, stage.gateway.take()));
    crate::support::until("everything is sealed", || {
        let report =
            ndxp_gateway::exchange_log::verify::verify_data(&stage.data(), None, None, Default::default(), |_, _| {})
                .unwrap();
        report.tail == 0 && report.sealed >= 5
    });
    let bundles = stage.data().join("log/tile/entries/000.p");
    let bundle = std::fs::read_dir(&bundles).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    let told = fails(&["audit", "verify"], &stage.folder.path, 1);
    assert!(told.contains("not verified") && told.contains("000"), "{told}");
}

#[test]
fn all_configuration_errors_are_reported_with_file_and_line() {
    let (_dir, folder) = lay(&|_| {});
    let path = &folder.path;
    assert!(ok(&["config", "check"], path).contains("10 sources, 41 operations"));
    let shown: Value = serde_json::from_str(&ok(&["config", "show"], path)).unwrap();
    assert_eq!(shown["listen"]["max_message_bytes"], json!(4 << 20));
    let secret = std::fs::read_to_string(path.join("secrets/ndxp-consumer")).unwrap();
    assert!(!ok(&["config", "show"], path).contains(&secret));

    edit(&folder.gateway_config(), |text| {
        text.replace("node = ", "nod = ").replace("grpc = \"127.0.0.1:", "grpc = \"127.0.0.1;")
    });
    let told = fails(&["config", "check"], path, 2);
    for part in
        ["gateway.toml:2: nod: is not known; did you mean node?", "gateway.toml:1: node: is missing", "is no address"]
    {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    for (file, text, part) in [
        ("hubs/ndxp.toml", "hub = \"ndxp\"\naddress = \"http://x\"\n", "hubs/ndxp.toml:2: address: must be https://"),
        (
            "sources/business.toml",
            "source = \"busines\"\nhub = \"ndxp\"\n",
            "business.toml:1: source: no contract serves",
        ),
        (
            "sources/business.toml",
            "source = \"business\"\nhub = \"x\"\n",
            "business.toml:2: hub: there is no hub \"x\"",
        ),
        ("sources/land.toml", "source = \"land\"\nhub = \"vdxp\"\n", "land.toml:1: xroad: is missing"),
        (
            "sources/criminalrecord.toml",
            "source = \"criminalrecord\"\nhub = \"ndxp\"\n",
            "the contract needs ministry_id",
        ),
        (
            "sources/catalogue.toml",
            "source = \"catalogue\"\naddress = \"https://x\"\n[tls]\nca = \"../pki/ca.pem\"\n[credentials]\nkind = \"api-key\"\nheader = \"apikey\"\nkey = \"inline\"\n",
            "catalogue.toml:8: credentials.key: a secret is never in the file",
        ),
    ] {
        let (_dir, folder) = lay(&|_| {});
        std::fs::write(folder.path.join(file), text).unwrap();
        let told = fails(&["config", "check"], &folder.path, 2);
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}

#[test]
fn contracts_are_listed_shown_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let listed: Value = serde_json::from_str(&ok(&["--output", "json", "contract", "list"], folder.path())).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 41);
    let shown = ok(&["contract", "show", "PopulationService/GetCitizen"], folder.path());
    assert!(
        shown.contains("citizen_id: string, one of identity, 12 digits") && shown.contains("SoDinhDanh"),
        "{shown}"
    );
    std::fs::write(folder.path().join("x.proto"), "syntax = \"proto3\";\nmessage M { strin a = 1; }\n").unwrap();
    let told = fails(&["contract", "--contracts", ".", "check"], folder.path(), 2);
    assert!(told.contains("x.proto:2:"), "{told}");
    assert!(ok(&["--help"], folder.path()).contains("Exit codes"));
    fails(&["client"], folder.path(), 2);
}

#[test]
fn completions_and_manual_pages_are_of_the_command_line_itself() {
    let folder = tempfile::tempdir().unwrap();
    let script = ok(&["completions", "bash"], folder.path());
    assert!(["audit", "anomalies", "--output"].iter().all(|word| script.contains(word)), "{script}");
    std::fs::write(folder.path().join("completions"), &script).unwrap();
    let read = Command::new("bash").args(["-n", "completions"]).current_dir(folder.path()).status().unwrap();
    assert!(read.success(), "a shell reads it");
    ok(&["man", "."], folder.path());
    let page = std::fs::read_to_string(folder.path().join("ndxp-gateway-audit-search.1")).unwrap();
    assert!(page.starts_with(".ie") && page.contains(".SH SYNOPSIS"), "{page}");
    assert!(fails(&["man", "nowhere"], folder.path(), 1).contains("nowhere cannot be written"));
}

#[test]
fn a_script_reads_an_error_as_json() {
    let folder = tempfile::tempdir().unwrap();
    for (args, code) in [(&["config", "check"][..], 2), (&["man", "nowhere"], 1)] {
        let text = fails(&[&["--output", "json"], args].concat(), folder.path(), code);
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((error["exit_code"].as_i64(), error["error"].is_string()), (Some(code.into()), true), "{text}");
    }
}

#[test]
fn a_missing_gateway_is_reported() {
    let (_dir, folder) = lay(&|folder: &DevFolder| {
        folder.pki().issue("a", &ndxp_gateway::pki::CertificateRole::Client("a".into()), 30).unwrap();
        std::fs::write(folder.path.join("a.jwt"), "a.b.c").unwrap();
    });
    let args = ["call", "BudgetUnitService/GetUnit", "--to", "https://127.0.0.1:1", "--certificate", "pki/a.pem"];
    let told = fails(&[&args[..], &["--token-file", "a.jwt"]].concat(), &folder.path, 3);
    assert!(told.contains("cannot be reached"), "{told}");
}

#[test]
fn the_demo_shows_everything_and_cleans_up() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"))
        .args(["--output", "json", "demo"])
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((told["operations"].as_array().unwrap().len(), &told["missed"]), (41, &json!(0)));
    // What is shown of the log is what happened: the receipt, the revocation in time, the altered byte by its bundle, the sheet.
    let proofs = told["proofs"].as_array().unwrap();
    let results: Vec<&str> = proofs.iter().map(|one| one["result"].as_str().unwrap()).collect();
    assert!(results[0].contains("signature and path verified"), "{results:?}");
    assert!(results[1].starts_with("TOKEN_REVOKED "), "{results:?}");
    assert!(results[2].contains(": entry "), "{results:?}");
    assert!(results[3].contains("exchanges about ") && results[3].contains("citizen-sheet.pdf"), "{results:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the throw-away folder is still there");
}

#[test]
fn bench_reports_percentiles() {
    let stage = Stage::start();
    stage.system("one-stop-shop");
    std::fs::write(stage.folder.path.join("shop.jwt"), &stage.actor("one-stop-shop").token).unwrap();
    let base = stage.base();
    let bench = |more: &[&str]| {
        let mut args = vec![
            "--output",
            "json",
            "bench",
            "BudgetUnitService/GetUnit",
            "--to",
            &base,
            "--ca",
            "pki/ca.pem",
            "--certificate",
            "pki/one-stop-shop.pem",
            "--token-file",
            "shop.jwt",
            "--connections",
            "2",
            "--streams",
            "4",
            "--time",
            "1s",
            "--warmup",
            "200ms",
            "--data",
        ];
        args.extend(more);
        let output = run(&args, &stage.folder.path);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        (output.status.code(), told)
    };
    let (code, closed) = bench(&[r#"{"unitCode": "1057000"}"#]);
    assert_eq!((code, &closed["mode"], &closed["calls"]), (Some(0), &json!("closed"), &closed["outcomes"]["OK"]));
    assert!(closed["calls"].as_u64().unwrap() > 4, "{closed}");
    // At their scheduled times: some 60 a second, however slow the source is; a slow one is visible in their times.
    let (code, open) = bench(&[r#"{"unitCode": "1057000"}"#, "--rate", "60"]);
    assert_eq!((code, &open["mode"]), (Some(0), &json!("open")));
    assert!((55..=65).contains(&open["calls"].as_u64().unwrap()), "{open}");
    let latency = |told: &Value, name: &str| told["latency_us"][name].as_u64().unwrap();
    assert!(latency(&open, "p50") <= latency(&open, "p99") && latency(&open, "p99") <= latency(&open, "p100"));
    // Refusals are reported by reason; if no call succeeds, the command fails.
    let (code, refused) = bench(&[r#"{"unitCode": "x"}"#]);
    assert_eq!((code, &refused["answered"]), (Some(1), &json!(0)));
    assert!(refused["outcomes"]["InvalidArgument FIELD_INVALID"].as_u64().unwrap() > 0, "{refused}");
    stage.verify();
}

/// A demo that stays has a week in its log, whose two anomalies are found, and the people who sign in at its console.
#[test]
fn a_demo_that_stays_is_a_lived_in_province() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"))
        .args(["demo", "--stay"])
        .env_remove("NDXP_CONFIG")
        .env("NDXP_LOG", "error")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(demo.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let is_last = line.starts_with("health and metrics");
        lines.push(line);
        if is_last {
            break;
        }
    }
    let text = lines.join("\n");
    let (_, folder) = text.split_once("folder ").unwrap_or_else(|| panic!("{text}"));
    let folder = Path::new(folder.lines().next().unwrap());
    assert!(text.contains("everything as it should be") && text.contains("/console/ (its CA: "), "{text}");
    for person in ["lan", "minh", "kiem", "van"] {
        assert!(text.contains(&format!("{person}.p12")) && folder.join(format!("pki/{person}.pem")).exists(), "{text}");
    }
    let found = ok(&["--output", "json", "audit", "anomalies"], folder);
    let found: Value = serde_json::from_str(&found).unwrap();
    let findings = found.as_array().unwrap_or_else(|| panic!("{found}"));
    let rules: Vec<&str> = findings.iter().map(|one| one["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["UNUSUAL_HOUR", "MANY_PEOPLE_ONE_DOSSIER"], "{found}");
    let pid = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(demo.wait().unwrap().success());
    assert!(!folder.exists(), "its folder is gone with it");
}
