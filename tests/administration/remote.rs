//! Remote commands: two people, two certificates, one gateway; and local commands, for the folder's owner only.

mod profiles;

use crate::support::Stage;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::pki::{CertificateRole, DEFAULT_DAYS, Pki};
use serde_json::Value;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

/// A folder with the profiles of the people who use the command line.
struct Desk<'s> {
    stage: &'s Stage,
    home: tempfile::TempDir,
}

impl<'s> Desk<'s> {
    /// With a certificate and a profile for each of these people with these roles.
    fn with(stage: &'s Stage, people: &[(&str, &str)]) -> Self {
        let desk = Desk { stage, home: tempfile::tempdir().unwrap() };
        for name in ["chief", "second"] {
            desk.certificate(name);
        }
        desk.local(&["staff", "bootstrap", "--administrator", "chief", "--approver", "second"]).ok();
        stage.settle();
        for (name, role) in people {
            desk.certificate(name);
            let asked = desk.local(&["--output", "json", "staff", "add", name, "--role", role]).json();
            let base = stage.base();
            let second = ["--remote", &base, "--ca", "pki/ca.pem", "--certificate", "pki/second.pem"];
            let approve = ["change", "approve", asked["pending_change"].as_str().unwrap()];
            desk.run(&[&approve[..], &second].concat()).ok();
            desk.profile(name).ok();
        }
        stage.settle();
        desk
    }

    fn certificate(&self, name: &str) {
        self.stage.folder.pki().issue(name, &CertificateRole::Staff(name.into()), DEFAULT_DAYS).unwrap();
    }

    fn profile(&self, name: &str) -> Told {
        let certificate = format!("pki/{name}.pem");
        let base = self.stage.base();
        let files = ["--remote", &base, "--ca", "pki/ca.pem", "--certificate", &certificate];
        self.run(&[&["profile", "add", name][..], &files].concat())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"));
        command.args(args).current_dir(&self.stage.folder.path).env("XDG_CONFIG_HOME", self.home.path());
        for name in ["NDXP_CONFIG", "NDXP_PROFILE", "NDXP_REMOTE", "NDXP_CA", "NDXP_CERTIFICATE", "NDXP_KEY"] {
            command.env_remove(name);
        }
        command.env("NDXP_LOG", "error");
        command
    }

    fn run(&self, args: &[&str]) -> Told {
        Told { args: args.join(" "), output: self.command(args).output().unwrap() }
    }

    /// As a person with a profile.
    fn by(&self, name: &str, args: &[&str]) -> Told {
        self.run(&[args, &["--profile", name]].concat())
    }

    fn local(&self, args: &[&str]) -> Told {
        self.run(&[args, &["--config", "gateway.toml"]].concat())
    }
}

struct Told {
    args: String,
    output: Output,
}

impl Told {
    fn out(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    fn err(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    #[track_caller]
    fn ok(&self) -> String {
        assert!(self.output.status.success(), "{}: {}{}", self.args, self.out(), self.err());
        self.out()
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Expects this exit code; returns the message.
    #[track_caller]
    fn failed(&self, code: i32) -> String {
        assert_eq!(self.output.status.code(), Some(code), "{}: {}{}", self.args, self.out(), self.err());
        self.err()
    }
}

#[test]
fn two_people_with_two_certificates_do_what_one_cannot() {
    let stage = Stage::start();
    let desk = Desk::with(&stage, &[("lan", "administrator"), ("minh", "approver"), ("hoa", "auditor")]);
    let shop = ["client", "add", "one-stop-shop", "--agency", "H49.12"];
    // The auditor cannot register; the administrator can, without the note about a local command.
    assert!(desk.by("hoa", &shop).failed(1).contains("ROLE_MISSING"));
    let added = desk.by("lan", &shop);
    assert!(
        added.ok().contains("registered one-stop-shop") && !added.err().contains("local command"),
        "{}",
        added.err()
    );
    let add = [
        "grant",
        "add",
        "--client",
        "one-stop-shop",
        "--purpose",
        "*",
        "--field",
        "*",
        "--legal-basis",
        "Luật Hộ tịch",
    ];
    let sensitive = [&add[..], &["--scope", "civilstatus:record"]].concat();
    let waiting = desk.by("lan", &[&["--output", "json"][..], &sensitive].concat()).json();
    let id = waiting["id"].as_str().unwrap();
    assert_eq!((&waiting["needs_approval"], &waiting["requested_by"]), (&Value::from(true), &Value::from("staff:lan")));
    assert!(desk.by("hoa", &["grant", "list", "--state", "pending"]).ok().contains(id));
    assert!(desk.by("lan", &["grant", "approve", id]).failed(1).contains("ROLE_MISSING"));
    assert!(desk.by("minh", &["grant", "approve", id]).ok().contains("approved g-"));
    let shown = desk.by("hoa", &["grant", "show", id]).ok();
    assert!(shown.contains("requested by    staff:lan") && shown.contains("approved by     staff:minh"), "{shown}");
    assert_eq!(desk.by("hoa", &["grant", "list", "--state", "pending"]).ok().trim(), "none");

    // An extension, or another certificate, waits; the second person sees all of it.
    assert!(!desk.by("lan", &["grant", "change", id, "--rate", "5"]).ok().contains("waits"));
    for (change, seen) in [
        (&["grant", "change", id, "--rate", "500"][..], "+ rate: 500"),
        (&["client", "change", "one-stop-shop", "--name", "shop.halong.gov.vn"], "shop.halong.gov.vn"),
    ] {
        let asked = desk.by("lan", &[&["--output", "json"][..], change, &["--why", "new server"]].concat()).json();
        let waiting = asked["pending_change"].as_str().unwrap();
        assert!(desk.by("hoa", &["change", "list"]).ok().contains(waiting));
        let shown = desk.by("minh", &["change", "show", waiting]).ok();
        assert!(shown.contains(seen) && shown.contains("staff:lan") && shown.contains("new server"), "{shown}");
        desk.by("lan", &["change", "approve", waiting]).failed(1);
        desk.local(&["change", "approve", waiting]).failed(1);
        assert!(desk.by("minh", &["change", "reject", waiting]).ok().contains("rejected"));
        assert!(desk.by("minh", &["change", "show", waiting]).failed(1).contains("OBJECT_UNKNOWN"));
    }

    // A token, with the client's certificate; the file is the owner's alone.
    stage.folder.pki().issue("one-stop-shop", &CertificateRole::Client("one-stop-shop".into()), DEFAULT_DAYS).unwrap();
    let issue = ["token", "issue", "--client", "one-stop-shop", "--certificate", "pki/one-stop-shop.pem"];
    assert!(desk.by("lan", &[&issue[..], &["--out", "shop.jwt"]].concat()).ok().contains("issued"));
    let mode = std::fs::metadata(stage.folder.path.join("shop.jwt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let base = stage.base();
    let by_hand = ["--remote", &base, "--ca", "pki/ca.pem", "--own-certificate", "pki/lan.pem"];
    let printed = desk.run(&[&issue[..], &by_hand, &["--lifetime", "60s"]].concat()).ok();
    assert_eq!(printed.trim().split('.').count(), 3, "{printed}");
    assert!(desk.by("lan", &[&issue[..], &["--scope", "land:read"]].concat()).failed(2).contains("land:read"));
    assert!(desk.by("hoa", &["token", "list", "--state", "in-force"]).ok().contains("civilstatus:record"));
    let revoked = desk.by("lan", &["token", "revoke", "--client", "one-stop-shop"]).ok();
    assert!(revoked.contains("2 were in force"), "{revoked}");

    // Keys, people, and the client's end.
    assert!(desk.by("lan", &["keys", "rotate"]).ok().contains("tokens are signed with"));
    assert_eq!(desk.by("hoa", &["--output", "json", "keys", "list"]).json().as_array().unwrap().len(), 2);
    let people = desk.by("hoa", &["--output", "json", "staff", "list"]).json();
    assert_eq!((&people[1]["id"], &people[1]["roles"]), (&"hoa".into(), &serde_json::json!(["auditor"])), "{people}");
    assert!(desk.by("lan", &["client", "change", "one-stop-shop", "--contact", "02033"]).ok().contains("changed"));
    assert!(desk.by("lan", &["client", "suspend", "one-stop-shop"]).ok().contains("suspended"));
    assert!(desk.by("hoa", &["client", "list", "--state", "suspended"]).ok().contains("one-stop-shop"));
    let waits = desk.by("lan", &["client", "resume", "one-stop-shop"]).ok();
    assert!(waits.contains("one-stop-shop stays suspended until another person agrees"), "{waits}");
    let change = waits.split_whitespace().find(|word| word.starts_with("c-")).unwrap().to_owned();
    desk.by("lan", &["change", "approve", &change]).failed(1);
    desk.by("minh", &["change", "approve", &change]).ok();
    assert!(!desk.by("hoa", &["client", "list", "--state", "suspended"]).ok().contains("one-stop-shop"));
    assert!(desk.by("minh", &["grant", "withdraw", id]).ok().contains("withdrew"));
    assert!(desk.by("lan", &["client", "retire", "one-stop-shop"]).ok().contains("retired"));
    let shown = desk.by("hoa", &["--output", "json", "client", "show", "one-stop-shop"]).json();
    assert_eq!((&shown["client"]["retired"], &shown["grants"][0]["withdrawn"]), (&true.into(), &true.into()));
    // Wrong arguments are named, and distinct from refusals.
    assert!(desk.by("lan", &["client", "add", "Größe", "--agency", "H49"]).failed(2).contains("id: must be"));
    assert!(desk.by("lan", &["client", "show", "nobody"]).failed(1).contains("OBJECT_UNKNOWN"));
    stage.verify();
}

/// A command of `audit`, in JSON.
fn json<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["--output", "json", "audit"][..], args].concat()
}

#[test]
fn an_auditor_does_remotely_what_the_owner_of_the_files_does() {
    let stage = Stage::start();
    let desk = Desk::with(&stage, &[("lan", "administrator"), ("hoa", "auditor")]);
    let shop = stage.system("one-stop-shop");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let samples = ndxp_gateway::sandbox::samples::samples(&stage.sandbox.province);
    let sample = samples.iter().find(|one| one.operation.ends_with("/VerifyCitizen")).unwrap();
    let person = sample.requests[0]["citizenId"].as_str().unwrap();
    let mut exchanges = Vec::new();
    runtime.block_on(async {
        for _ in 0..3 {
            exchanges.push(shop.call(crate::support::VERIFY, sample.requests[0].clone()).await.ok().exchange());
            shop.call(crate::support::UNIT, serde_json::json!({ "unitCode": "1057000" })).await.ok();
        }
    });
    let sealed = || LogReader::open(&stage.data()).unwrap();
    crate::support::until("everything is sealed", || sealed().sealed() == sealed().size());
    // Remote and local output are the same, for people and for scripts.
    let shop_only = ["--client", "one-stop-shop"];
    for command in [
        [&["search"][..], &shop_only].concat(),
        [&["search", "--limit", "2"][..], &shop_only].concat(),
        vec!["show", &exchanges[0]],
        vec!["show", "0"],
        vec!["report", "--days", "--client", "one-stop-shop"],
        // Figures that the gateway does not count are counted from the entries.
        vec!["report", "--scope", "population:verify"],
        vec!["anomalies", "--to", "2030-01-01", "--from", "2029-12-20"],
        vec!["prove", &exchanges[1]],
    ] {
        for args in [json(&command), [&["audit"][..], &command].concat()] {
            // An entry of the gateway itself (`log.file`) may come between the two: then both are repeated.
            let unmoved = |size: u64| sealed().size() == size && sealed().sealed() == size;
            let (afar, here) = (0..20)
                .find_map(|_| {
                    let before = sealed();
                    let told = (desk.by("hoa", &args).ok(), desk.local(&args).ok());
                    (before.sealed() == before.size() && unmoved(before.size())).then_some(told)
                })
                .expect("a time in which nothing is written");
            assert_eq!(afar, here, "{args:?}");
        }
    }
    let report = desk.by("hoa", &json(&["report", "--scope", "population:verify"])).json();
    assert_eq!((report["counts"].as_array().unwrap().len(), &report["counts"][0]["exchanges"]), (1, &Value::from(3)));
    // A subject report has its reason, is in the log with its requester, and exists as PDF.
    let asked = ["subject", person, "--case", "12/KN"];
    let owed = desk.by("hoa", &json(&asked)).json();
    let owed = &owed["entries"];
    assert_eq!((owed.as_array().unwrap().len(), &owed[0]["fields"]), (3, &serde_json::json!(["matched"])));
    assert_eq!(&desk.local(&json(&asked)).json()["entries"], owed);
    let paper = [&["audit"][..], &asked, &["--pdf", "report.pdf"]].concat();
    assert!(desk.by("hoa", &paper).ok().contains("3 entries in report.pdf"));
    assert!(std::fs::read(stage.folder.path.join("report.pdf")).unwrap().starts_with(b"%PDF-"));
    // What the citizen gets is another document; a letterhead without it, and both at once, are wrong usage.
    let sheet = [&["audit"][..], &asked, &["--sheet", "sheet.pdf", "--agency", "UBND tỉnh Quảng Ninh"]].concat();
    assert!(desk.by("hoa", &sheet).ok().contains("3 entries in sheet.pdf"));
    let read = |name: &str| std::fs::read(stage.folder.path.join(name)).unwrap();
    assert!(read("sheet.pdf").starts_with(b"%PDF-") && read("sheet.pdf") != read("report.pdf"));
    assert!(desk.by("hoa", &sheet).failed(1).contains("sheet.pdf"), "an existing file is overwritten");
    assert!(desk.by("hoa", &[&["audit"][..], &asked, &["--agency", "x"]].concat()).failed(2).contains("--sheet"));
    desk.by("hoa", &[&paper[..], &["--sheet", "other.pdf"]].concat()).failed(2);
    stage.settle();
    let noted = |actor: &str| {
        let entries = stage.entries();
        let found =
            entries.iter().filter(|one| one.entry.event == "audit.search" && one.entry.object == "reason:12/KN");
        found.filter(|one| one.entry.actor.starts_with(actor)).count()
    };
    // The search whose file exists already was not made.
    assert_eq!((noted("staff:hoa"), noted("local:")), (3, 1));
    assert!(desk.by("hoa", &["audit", "search", "--subject", person]).failed(2).contains("--case"));

    // An export is verified while it arrives, and anybody can verify it; so can a receipt.
    let out = ["audit", "export", "--client", "one-stop-shop", "--out"];
    assert!(desk.by("hoa", &[&out[..], &["afar.jsonl"]].concat()).ok().contains("6 entries in afar.jsonl"));
    desk.local(&[&out[..], &["here.jsonl"]].concat()).ok();
    let read = |name: &str| std::fs::read_to_string(stage.folder.path.join(name)).unwrap();
    assert_eq!(read("afar.jsonl"), read("here.jsonl"));
    let indexes: Vec<u64> = read("afar.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["index"].as_u64().unwrap())
        .collect();
    assert!(indexes.is_sorted());
    let vkey = read("data/log/vkey");
    desk.run(&["audit", "verify", "--export", "afar.jsonl", "--vkey", &vkey]).ok();
    desk.by("hoa", &["audit", "prove", &exchanges[2], "--out", "one.tlog-proof"]).ok();
    desk.run(&["audit", "verify", "--receipt", "one.tlog-proof", "--vkey", &vkey]).ok();

    // The complete log, by a profile with the HTTPS port and the log's key; another log's key is rejected.
    let https = format!("https://{}", stage.gateway.as_ref().unwrap().https.unwrap());
    let base = stage.base();
    let keep = |name: &str, more: &[&str]| {
        let files = ["--remote", &base, "--ca", "pki/ca.pem", "--certificate", "pki/hoa.pem"];
        desk.run(&[&["profile", "add", name][..], &files, more].concat()).ok();
    };
    assert!(desk.by("hoa", &["audit", "verify", "--vkey", &vkey]).failed(2).contains("--log"));
    keep("whole", &["--log", &https, "--vkey", &vkey]);
    let told = desk.by("whole", &["audit", "verify"]).ok();
    assert!(told.contains("verified") && !told.contains("give --vkey"), "{told}");
    let other = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    keep("wrong", &["--log", &https, "--vkey", other]);
    desk.by("wrong", &["audit", "verify"]).failed(1);
    assert!(desk.by("wrong", &[&out[..], &["wrong.jsonl"]].concat()).failed(1).contains("not verified"));

    // The log as it grows.
    let from = stage.entries().len().to_string();
    let mut tail = desk.command(
        &[&json(&["tail", "--client", "one-stop-shop", "--from-index"])[..], &[&from, "--profile", "hoa"]].concat(),
    );
    let mut tail = tail.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let last = runtime.block_on(async {
        shop.call(crate::support::UNIT, serde_json::json!({ "unitCode": "1057000" })).await.ok().exchange()
    });
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(tail.stdout.as_mut().unwrap()), &mut line).unwrap();
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["exchange"], Value::from(last));

    // Commands that need the files say so, and only an auditor reads.
    for local_only in [&["audit", "prune", "--archive", "archive"][..], &["audit", "index"]] {
        assert!(desk.by("hoa", local_only).failed(2).contains("data folder itself"), "{local_only:?}");
    }
    assert!(desk.by("lan", &["audit", "search"]).failed(1).contains("ROLE_MISSING"));
    assert!(
        desk.by("hoa", &["audit", "show", "01a00000-0000-7000-8000-000000000000"]).failed(1).contains("OBJECT_UNKNOWN")
    );
    assert!(desk.by("hoa", &["audit", "show", "x"]).failed(2).contains("neither"));
    stage.verify();
}

#[test]
fn the_reason_of_a_change_is_in_its_entry() {
    let stage = Stage::start();
    let desk = Desk::with(&stage, &[("lan", "administrator")]);
    desk.by("lan", &["client", "add", "a", "--agency", "H49", "--why", "Công văn 12/UBND-KSTT"]).ok();
    desk.local(&["client", "suspend", "a", "--why", "sự cố ngoài giờ"]).ok();
    desk.by("lan", &["client", "resume", "a"]).ok();
    let long = "ạ".repeat(501);
    assert!(desk.by("lan", &["client", "suspend", "a", "--why", &long]).failed(2).contains("500"));
    stage.settle();
    let entries = stage.entries();
    let why = |event: &str| entries.iter().find(|one| one.entry.event == event).unwrap().entry.justification.clone();
    assert_eq!(why("client.add"), "Công văn 12/UBND-KSTT");
    assert_eq!((why("client.suspend").as_str(), why("client.resume").as_str()), ("sự cố ngoài giờ", ""));
}

#[test]
fn remote_and_local_commands_have_the_same_output() {
    let stage = Stage::start();
    let desk = Desk::with(&stage, &[("lan", "administrator")]);
    desk.by("lan", &["client", "add", "one-stop-shop", "--agency", "H49.12"]).ok();
    for command in [
        &["client", "list"][..],
        &["client", "show", "one-stop-shop"],
        &["grant", "list"],
        &["keys", "list"],
        &["staff", "list"],
        &["token", "list"],
        &["contract", "drift"],
    ] {
        for output in ["json", "human"] {
            let args = [&["--output", output][..], command].concat();
            assert_eq!(desk.by("lan", &args).ok(), desk.local(&args).ok(), "{args:?}");
        }
    }
}

#[test]
fn long_lists_are_complete() {
    let stage = Stage::start();
    let desk = Desk::with(&stage, &[("hoa", "auditor")]);
    for number in 0..1_201 {
        let client = ndxp_gateway::registry::Client {
            id: format!("ward-{number:04}"),
            agency: "H49.40".into(),
            names: vec![ndxp_gateway::pki::client_uri(&format!("ward-{number:04}"))],
            ..Default::default()
        };
        ndxp_gateway::registry::Store::add_client(&stage.store, &client).unwrap();
    }
    let all = desk.by("hoa", &["--output", "json", "client", "list", "--agency", "H49.40"]).json();
    let ids: Vec<&str> = all.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), ids[0], ids[1_200]), (1_201, "ward-0000", "ward-1200"));
    assert!(ids.is_sorted());
}

#[test]
fn an_unknown_certificate_is_refused_with_a_reason() {
    let stage = Stage::start();
    stage.client("one-stop-shop");
    let desk = Desk::with(&stage, &[("lan", "administrator")]);
    let base = stage.base();
    let with = |ca: &str, certificate: &str| {
        desk.run(&["client", "list", "--remote", &base, "--ca", ca, "--certificate", certificate])
    };
    with("pki/ca.pem", "pki/lan.pem").ok();
    // A provincial system's certificate, and a person's who is not registered.
    desk.certificate("visitor");
    for certificate in ["pki/one-stop-shop.pem", "pki/visitor.pem"] {
        let told = with("pki/ca.pem", certificate).failed(1);
        assert!(told.contains("STAFF_UNKNOWN") && told.contains(certificate) && told.contains("staff add"), "{told}");
    }
    // Another CA's certificate, and a revoked one.
    let other = tempfile::tempdir().unwrap();
    let pki = Pki::at(other.path());
    pki.init().unwrap();
    let (foreign, _) = pki.issue("lan", &CertificateRole::Staff("lan".into()), DEFAULT_DAYS).unwrap();
    let told = with("pki/ca.pem", foreign.to_str().unwrap()).failed(1);
    assert!(told.contains("refused the certificate"), "{told}");
    // A gateway with another CA is not trusted, and nothing is sent.
    let told = with(pki.ca().to_str().unwrap(), "pki/lan.pem").failed(3);
    assert!(told.contains("cannot be believed") && told.contains("--ca"), "{told}");
    // Missing and wrong files are named.
    assert!(with("pki/ca.pem", "pki/nobody.pem").failed(2).contains("pki/nobody.pem"));
    assert!(with("gateway.toml", "pki/lan.pem").failed(2).contains("gateway.toml"));
    assert!(desk.run(&["client", "list", "--remote", &base, "--ca", "pki/ca.pem"]).failed(2).contains("--certificate"));
}

#[test]
fn a_missing_gateway_has_its_own_exit_code() {
    let stage = Stage::start();
    let desk = Desk::with(&stage, &[("lan", "administrator")]);
    let with = |url: &str| {
        desk.run(&["client", "list", "--remote", url, "--ca", "pki/ca.pem", "--certificate", "pki/lan.pem"])
    };
    let told = with("https://127.0.0.1:1").failed(3);
    assert!(told.contains("https://127.0.0.1:1 cannot be reached") && told.contains("does it run"), "{told}");
    for wrong in ["http://localhost:7443", "localhost:7443", "https://localhost/x"] {
        assert!(with(wrong).failed(2).contains("write https://HOST:PORT"), "{wrong}");
    }
}

#[test]
fn only_the_owner_of_the_data_folder_works_locally() {
    let stage = Stage::start();
    let desk = Desk::with(&stage, &[("lan", "administrator"), ("hoa", "auditor")]);
    let added = desk.local(&["client", "add", "one-stop-shop", "--agency", "H49.12"]);
    added.ok();
    assert!(added.err().contains("local command by "), "{}", added.err());
    let read = desk.local(&["client", "list"]);
    assert!(read.ok().contains("one-stop-shop") && read.err().is_empty(), "{}", read.err());
    // The system determines the acting person, not the environment.
    let uid = rustix::process::geteuid().as_raw();
    let mut lying = desk.command(&["client", "suspend", "one-stop-shop", "--config", "gateway.toml"]);
    lying.env("USER", "lan").env("SUDO_USER", "lan").env("LOGNAME", "lan");
    assert!(lying.output().unwrap().status.success());
    stage.settle();
    let entries = stage.entries();
    for event in ["client.add", "client.suspend"] {
        let actor = &entries.iter().find(|one| one.entry.event == event).unwrap().entry.actor;
        assert!(actor.starts_with("local:") && actor.ends_with(')') && !actor.contains("lan"), "{event}: {actor}");
    }
    // The old option for the acting person is removed, and its error has a remedy.
    assert!(desk.local(&["client", "list", "--as", "lan"]).failed(2).contains("--profile"));
    let mut old = desk.command(&["client", "list", "--config", "gateway.toml"]);
    let old = Told { args: "NDXP_ACTOR".into(), output: old.env("NDXP_ACTOR", "lan").output().unwrap() };
    assert!(old.failed(2).contains("NDXP_ACTOR"));
    if uid != 0 {
        return;
    }
    // Even root is refused if the folder belongs to somebody else; remotely nothing changes.
    let data = stage.data();
    chown(&data, Some(12_345), None).unwrap();
    for args in
        [&["client", "list"][..], &["client", "suspend", "one-stop-shop"], &["token", "list"], &["keys", "rotate"]]
    {
        let told = desk.local(args).failed(1);
        assert!(told.contains("belongs to ") && told.contains("(12345)") && told.contains("--profile"), "{told}");
    }
    assert!(desk.by("hoa", &["client", "list"]).ok().contains("one-stop-shop"));
    chown(&data, Some(uid), None).unwrap();
    desk.local(&["client", "list"]).ok();
}

#[test]
fn legal_holds_are_placed_listed_and_released_remotely_only_by_an_auditor() {
    let stage = Stage::start();
    let desk = Desk::with(&stage, &[("hoa", "auditor"), ("lan", "administrator")]);
    let add = ["audit", "hold", "add", "--client", "shop", "--case", "12/TA"];
    assert!(desk.by("hoa", &add).ok().contains("hold 1 is placed"));
    let listed = desk.by("hoa", &["audit", "hold", "list"]).ok();
    assert!(listed.contains("12/TA") && listed.contains("hoa"), "{listed}");
    // The same holds are visible to the folder's owner; a person's are in their name, and need a reason.
    assert!(desk.local(&["audit", "hold", "list"]).ok().contains("12/TA"));
    assert!(desk.by("hoa", &["audit", "hold", "add", "--client", "shop"]).failed(2).contains("--case"));
    assert!(desk.by("hoa", &["audit", "hold", "add", "--case", "12/TA"]).failed(2).contains("must have a condition"));
    for refused in [&add[..], &["audit", "hold", "list"], &["audit", "hold", "release", "1"]] {
        assert!(desk.by("lan", refused).failed(1).contains("ROLE_MISSING"), "{refused:?}");
    }
    assert!(desk.by("hoa", &["audit", "hold", "release", "2"]).failed(1).contains("OBJECT_UNKNOWN"));
    desk.by("hoa", &["audit", "hold", "release", "1"]).ok();
    assert!(!desk.by("hoa", &["audit", "hold", "list"]).ok().contains("12/TA"));
    let admin_events: Vec<(String, String, String)> = stage
        .entries()
        .into_iter()
        .map(|one| one.entry)
        .filter_map(|entry| {
            ["log.hold", "log.release"].contains(&entry.event.as_str()).then_some((
                entry.event,
                entry.object,
                entry.actor,
            ))
        })
        .collect();
    assert_eq!(admin_events.len(), 2, "{admin_events:?}");
    assert!(
        admin_events[0].0 == "log.hold"
            && admin_events[0].1.starts_with("hold:1 reason:12/TA sha256:")
            && admin_events[0].2.contains("hoa"),
        "{admin_events:?}"
    );
    assert!(
        admin_events[1].0 == "log.release"
            && admin_events[1].1.starts_with("hold:1 sha256:")
            && admin_events[1].2.contains("hoa"),
        "{admin_events:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_asks_about_itself_and_a_refusal_as_json_has_its_parts() {
    let stage = Stage::start();
    stage.system("one-stop-shop");
    stage.client("other");
    let desk = Desk::with(&stage, &[("lan", "administrator")]);
    let base = stage.base();
    let own = |args: &[&str]| {
        let files = ["--remote", &base, "--ca", "pki/ca.pem", "--certificate", "pki/one-stop-shop.pem"];
        desk.run(&[args, &files[..]].concat())
    };
    // By the operation's short name, too.
    let asked = own(&["client", "can-i", "one-stop-shop", "BudgetUnitService/GetUnit"]).ok();
    assert!(asked.starts_with("yes"), "{asked}");
    let foreign = own(&["--output", "json", "client", "can-i", "other", "BudgetUnitService/GetUnit"]).failed(1);
    let refused: serde_json::Value = serde_json::from_str(foreign.trim()).unwrap();
    assert_eq!((refused["reason"].as_str(), refused["status"].as_str()), (Some("OBJECT_UNKNOWN"), Some("NotFound")));
    assert!(own(&["client", "list"]).failed(1).contains("STAFF_UNKNOWN"));
    // Who has not called, and what ends soon.
    let shop = stage.actor("one-stop-shop");
    shop.call(crate::support::UNIT, serde_json::json!({ "unitCode": "1057000" })).await.ok();
    let unused = desk.by("lan", &["client", "list", "--unused", "1d"]).ok();
    assert!(unused.contains("other") && !unused.contains("one-stop-shop"), "{unused}");
    assert!(desk.by("lan", &["client", "list", "--unused", "91d"]).failed(2).contains("at most 90d"));
    assert!(desk.by("lan", &["grant", "list", "--ends-within", "400d"]).ok().contains("one-stop-shop"));
    assert_eq!(desk.by("lan", &["grant", "list", "--ends-within", "1h"]).ok().trim(), "none");
    assert_eq!(desk.by("lan", &["grant", "list", "--unused", "1d"]).ok().trim(), "none");
    // A maintenance notice by the command line.
    let set = ["source", "notice", "set", "land", "--to", "2000-01-01T00:00", "--vi", "Bảo trì"];
    let refused = desk.by("lan", &[&["--output", "json"][..], &set].concat()).failed(2);
    let refused: serde_json::Value = serde_json::from_str(refused.trim()).unwrap();
    assert_eq!(refused["violations"][0]["field"], "ends", "{refused}");
    let end = jiff::Timestamp::from_second(ndxp_gateway::registry::now() + 50_000).unwrap();
    let end = end.strftime("%Y-%m-%dT%H:%M").to_string();
    let set = ["source", "notice", "set", "land", "--to", &end, "--vi", "Bảo trì", "--why", "Kế hoạch"];
    assert!(desk.by("lan", &set).ok().contains("callers of land are told"));
    assert!(desk.by("lan", &["source", "notice", "list"]).ok().contains("Bảo trì"));
    assert!(desk.by("lan", &["source", "check", "land"]).ok().contains("reachable"));
    desk.by("lan", &["source", "notice", "clear", "land"]).ok();
    assert!(desk.by("lan", &["source", "notice", "clear", "land"]).failed(1).contains("OBJECT_UNKNOWN"));
    // A call with a certificate that is revoked says so, not that a pipe broke.
    std::fs::write(stage.folder.path.join("shop.jwt"), &shop.token).unwrap();
    stage.folder.pki().revoke(&stage.folder.path.join("pki/one-stop-shop.pem")).unwrap();
    let unit = ["call", "BudgetUnitService/GetUnit", "--data", r#"{"unitCode":"1057000"}"#, "--to", &base];
    let files = ["--ca", "pki/ca.pem", "--certificate", "pki/one-stop-shop.pem", "--token-file", "shop.jwt"];
    let revoked = || desk.run(&[&unit[..], &files].concat()).err().to_lowercase().contains("revoked");
    crate::support::until("the revocation is in force and is named", revoked);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_fetches_its_token_and_has_it_renewed_in_time() {
    let stage = Stage::prepared(&|folder| {
        crate::support::edit(&folder.gateway_config(), |text| {
            text.replace("audience = ", "lifetime_s = 30\naudience = ")
        });
    });
    stage.system("one-stop-shop");
    let desk = Desk::with(&stage, &[("lan", "administrator")]);
    let https = format!("https://{}", stage.gateway.as_ref().unwrap().https.unwrap());
    let fetch = |id: &str, more: &[&str]| {
        let certificate = format!("pki/{id}.pem");
        let args = ["token", "fetch", "--from", &https, "--ca", "pki/ca.pem", "--certificate", &certificate];
        desk.run(&[&args[..], more].concat())
    };
    let token = fetch("one-stop-shop", &[]).ok();
    let actor = crate::support::Actor { token: token.trim().to_owned(), ..stage.actor("one-stop-shop") };
    actor.call(crate::support::UNIT, serde_json::json!({ "unitCode": "1057000" })).await.ok();
    // What is refused is refused for good, with the endpoint's own words; a file is the owner's alone.
    assert!(fetch("one-stop-shop", &["--scope", "no:such"]).failed(1).contains("invalid_scope"));
    assert!(fetch("lan", &[]).failed(1).contains("invalid_client"));
    assert!(fetch("one-stop-shop", &["--keep"]).failed(2).contains("--out"));
    let file = stage.folder.path.join("own.jwt");
    let args = ["token", "fetch", "--from", &https, "--ca", "pki/ca.pem", "--certificate", "pki/one-stop-shop.pem"];
    let mut kept = desk.command(&[&args[..], &["--out", "own.jwt", "--keep"]].concat()).spawn().unwrap();
    crate::support::until("the token is there", || file.exists());
    let first = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // At two thirds of its half minute.
    crate::support::until("it is renewed", || std::fs::read_to_string(&file).unwrap() != first);
    rustix::process::kill_process(rustix::process::Pid::from_child(&kept), rustix::process::Signal::TERM).unwrap();
    assert!(kept.wait().unwrap().success());
    stage.verify();
}
