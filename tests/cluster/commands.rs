//! The commands themselves: a gateway that runs alone becomes one of several while calls go on, and one alone again.

use crate::etcd::EtcdCluster;
use crate::support::{
    Actor, CITIZEN, PURPOSE, Running, add_client, approved, edit, exchanges, files, issue, lay, make_key, show, until,
};
use ndxp_gateway::caller::GatewayClient;
use ndxp_gateway::config::Config;
use ndxp_gateway::exchange_log::verify::verify_data;
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::sandbox::folder::DevFolder;
use ndxp_gateway::sandbox::samples::{OFFICIAL, samples};
use ndxp_gateway::sandbox::{Sandbox, SandboxConfig};
use ndxp_gateway::server::registry_path;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// One after the other, a call at a time.
struct Calls {
    over: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<(Vec<String>, Vec<String>)>,
}

impl Calls {
    fn start(actor: Actor, request: Value) -> Self {
        let (over, count): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let (stop, answered) = (over.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (mut ok, mut failed) = (Vec::new(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let metadata = [("ndxp-purpose", PURPOSE), ("ndxp-official", OFFICIAL)];
                let message = vec![actor.encode(CITIZEN, &request)];
                match runtime.block_on(actor.raw(CITIZEN, &metadata, message)) {
                    Ok(told) if told.answered.status.code() == tonic::Code::Ok => {
                        ok.push(told.exchange());
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    // Before the first gateway is there.
                    _ if ok.is_empty() => {}
                    Ok(told) => failed.push(format!("{:?}", told.answered.status)),
                    Err(error) => failed.push(error.to_string()),
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            (ok, failed)
        });
        Calls { over, count, thread }
    }

    fn more(&self, what: &str, number: usize) {
        let before = self.count.load(Ordering::Relaxed);
        until(what, || self.count.load(Ordering::Relaxed) >= before + number);
    }

    fn end(self) -> (Vec<String>, Vec<String>) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn gateway(folder: &DevFolder, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"));
    command.args(arguments).current_dir(&folder.path).env("NDXP_LOG", "warn");
    command.env("XDG_CONFIG_HOME", folder.path.join("home"));
    command
}

fn json(folder: &DevFolder, arguments: &[&str]) -> Result<Value, String> {
    let output = gateway(folder, &[&["--output", "json"], arguments].concat()).output().unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn terminate(mut running: Running) {
    assert!(Command::new("kill").arg(running.0.id().to_string()).status().unwrap().success());
    assert!(running.0.wait().unwrap().success());
}

/// A folder with a client that may call; `alone.toml` and `cluster.toml`.
fn folder(etcd: &EtcdCluster) -> (tempfile::TempDir, DevFolder, Actor) {
    let (dir, folder) = lay(&|_| {});
    let secret = folder.path.join("secrets/keys");
    std::fs::write(&secret, "0123456789abcdef".repeat(4)).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let urls: Vec<String> = etcd.client_urls().iter().map(|url| format!("\"{url}\"")).collect();
    let keys = "[keys]\nencryption_secret = { file = \"secrets/keys\" }\n";
    let cluster = format!("{keys}[cluster]\netcd = [{}]\nrefuse_after_ms = 10000\n", urls.join(", "));
    for (name, more) in [("alone.toml", keys), ("cluster.toml", &cluster)] {
        let file = folder.path.join(name);
        std::fs::copy(folder.gateway_config(), &file).unwrap();
        edit(&file, |text| format!("{text}\n{more}"));
    }
    let config = Config::load(&folder.path.join("alone.toml")).map_err(show).unwrap();
    let store = SqliteStore::open_with(&registry_path(&config.data), &config.vault).unwrap();
    make_key(&store, &config);
    let contracts = config.catalogue().map_err(show).unwrap().contracts;
    add_client(&store, &folder, "shop");
    approved(&store, &contracts, "shop", &["*"]);
    let token = issue(&store, &config, &folder, "shop", Duration::from_secs(3_600), Duration::ZERO);
    let base = format!("https://{}", config.listen.grpc);
    let caller = GatewayClient::new(&base, &files(&folder, "shop")).unwrap();
    (dir, folder, Actor { caller, token, contracts })
}

#[test]
fn a_gateway_goes_into_the_cluster_while_calls_go_on_and_out_again() {
    let Some(etcd) = EtcdCluster::empty() else { return };
    let (_dir, folder, actor) = folder(&etcd);
    let sandbox = Sandbox::start(SandboxConfig::load(&folder.sandbox_config()).map_err(show).unwrap()).unwrap();
    let request = samples(&sandbox.province).into_iter().find(|one| one.operation.ends_with("GetCitizen")).unwrap();
    let serve = |config: &str, more: &[&str]| {
        Running(gateway(&folder, &[&["serve", "--config", config], more].concat()).spawn().unwrap())
    };
    // A gateway that is to join has no keys yet: they come from etcd.
    std::fs::copy(folder.path.join("cluster.toml"), folder.path.join("joins.toml")).unwrap();
    edit(&folder.path.join("joins.toml"), |text| text.replace("data = \"data\"", "data = \"joins\""));
    std::fs::create_dir(folder.path.join("joins")).unwrap();
    json(&folder, &["config", "check", "--config", "joins.toml"]).unwrap();
    let doctor = || {
        let output = gateway(&folder, &["--output", "json", "doctor", "--config", "joins.toml"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let is_empty = |found: &str| found.contains("come from etcd") && found.contains("holds no log");
    until("the members have elected, and hold no log", || is_empty(&doctor()));
    let alone = serve("alone.toml", &[]);
    let calls = Calls::start(actor, request.requests[0].clone());
    calls.more("a gateway that runs alone responds", 20);
    let status = || json(&folder, &["cluster", "status", "--config", "cluster.toml"]);
    until("its status says so", || status().unwrap_err().contains("holds no log"));
    let refused = json(&folder, &["cluster", "begin", "--config", "alone.toml"]).unwrap_err();
    assert!(refused.contains("has no [cluster]"), "{refused}");
    let refused = json(&folder, &["cluster", "begin", "--config", "cluster.toml"]).unwrap_err();
    assert!(refused.contains("open in another process"), "{refused}");

    let together = serve("cluster.toml", &["--take-over", "--cluster-begin"]);
    let mut alone = alone;
    assert!(alone.0.wait().unwrap().success(), "the one that ran alone has ended by itself");
    calls.more("a gateway of a cluster responds", 50);
    let mut found = Value::Null;
    until("its site is known, and every member and the sealer", || {
        // A member that does not answer in time is not told.
        found = status().unwrap_or_default();
        let leads = |member: &&Value| member["is_leader"] == true;
        let members = found["members"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        found["sites"][0]["site"] == "qn-dc1"
            && found["gateways"][0]["gateway"] == "qn-dc1"
            && found["log"]["sealer"] == "qn-dc1"
            && (members.len(), members.iter().filter(leads).count()) == (3, 1)
    });
    let status = found;
    until("doctor tells each member's version", || {
        let found = doctor();
        found.matches("version 3.").count() == 3 && !found.contains("holds no log")
    });
    assert!(status["log"]["sealed"].as_u64().unwrap() > 50 && status["log"]["epoch"] == 0, "{status}");
    assert_eq!(status["registry"]["change"], status["registry"]["change_here"], "{status}");
    let printed = gateway(&folder, &["cluster", "status", "--config", "cluster.toml"]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("leader") && printed.lines().all(|line| line.chars().count() <= 80), "{printed}");
    println!("{printed}");
    let (mut ok, failed) = calls.end();
    println!("{} calls succeeded, {} failed: {:?}", ok.len(), failed.len(), failed.first());
    terminate(together);

    // Out: it says what it stops, and does it.
    let plan = json(&folder, &["cluster", "leave", "--config", "cluster.toml", "--dry-run"]).unwrap();
    assert!(plan["stops"][0].as_str().unwrap().contains("every other gateway"), "{plan}");
    // The last calls may have ended less than a sealing before the gateway: it is started once more, without any.
    let left = loop {
        match json(&folder, &["cluster", "leave", "--config", "cluster.toml"]) {
            Ok(left) => break left,
            Err(refused) if refused.contains("gateway qn-dc1 runs") => continue,
            Err(refused) => assert!(refused.contains("batches") && refused.contains("start"), "{refused}"),
        }
        let together = serve("cluster.toml", &[]);
        let sealed = || {
            let status = json(&folder, &["cluster", "status", "--config", "cluster.toml"]).ok()?;
            (status["log"]["sealer"] == "qn-dc1").then(|| status["log"]["sealed"].as_u64().unwrap())
        };
        let mut last = None;
        until("everything is sealed", || {
            let before = std::mem::replace(&mut last, sealed());
            last.is_some() && before == last
        });
        terminate(together);
    };
    let refused = gateway(&folder, &["serve", "--config", "cluster.toml"]).output().unwrap();
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.contains("one gateway writes alone") || refused.contains("has left"), "{refused}");
    let alone = serve("alone.toml", &[]);
    let actor = again(&folder);
    let calls = Calls::start(actor, request.requests[0].clone());
    calls.more("it runs alone again", 20);
    let more = calls.end();
    terminate(alone);
    ok.extend(more.0);
    assert!(failed.is_empty(), "{failed:?}");

    let data = Config::load(&folder.path.join("alone.toml")).map_err(show).unwrap().data;
    let report = verify_data(&data, None, None, Default::default(), |_, _| {}).unwrap();
    assert!(report.sealed + report.tail > left["entries"].as_u64().unwrap());
    let mut there: BTreeMap<String, usize> = BTreeMap::new();
    exchanges(&data)
        .iter()
        .filter(|entry| entry.status == 0)
        .for_each(|entry| *there.entry(entry.id_text()).or_default() += 1);
    assert!(ok.iter().all(|id| there.get(id) == Some(&1)), "every answered exchange is there once");
}

/// The same client, with a connection of its own.
fn again(folder: &DevFolder) -> Actor {
    let config = Config::load(&folder.path.join("alone.toml")).map_err(show).unwrap();
    let store = SqliteStore::open_with(&registry_path(&config.data), &config.vault).unwrap();
    let contracts = config.catalogue().map_err(show).unwrap().contracts;
    let token = issue(&store, &config, folder, "shop", Duration::from_secs(3_600), Duration::ZERO);
    let caller = GatewayClient::new(&format!("https://{}", config.listen.grpc), &files(folder, "shop")).unwrap();
    Actor { caller, token, contracts }
}
