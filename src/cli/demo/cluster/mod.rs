//! `demo --cluster`: three members of etcd and three gateways on this machine. A gateway that was alone becomes the first of
//! three, with its log and its registry; then each member and each gateway is killed in turn while systems call, and the
//! three logs are compared with what was answered.

mod load;
mod processes;

use super::participants::Participants;
use super::{DemoArgs, TourLine, print_lines};
use crate::cli::cluster::begin_before_serving;
use crate::cli::output::{Output, print_json};
use crate::cli::{CliError, sandbox};
use crate::config::Config;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::{Kind, LogError, key, verify};
use crate::pki::client_uri;
use crate::sandbox::folder::DevFolder;
use crate::sandbox::{Sandbox, SandboxConfig};
use crate::server::Gateway;
use load::Calls;
use processes::{Process, SITES, find_etcd, free_ports, gateway, members};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Callers of each gateway.
const CALLERS: usize = 2;
/// Calls go on for this long between two faults.
const BETWEEN: Duration = Duration::from_millis(1_500);
/// How long all gateways may take to answer again after a fault.
const AGAIN_WITHIN: Duration = Duration::from_secs(60);
/// How long the sites may take to store the same.
const ALIKE_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Everything that runs during the tour.
struct Province {
    folder: DevFolder,
    sandbox: Sandbox,
    members: Vec<Process>,
    gateways: Vec<Process>,
    configs: Vec<PathBuf>,
    bases: Vec<String>,
    _throw_away: Option<tempfile::TempDir>,
}

pub fn run(args: &DemoArgs, output: Output) -> Result<(), CliError> {
    let say = |text: &str| {
        if output == Output::Human {
            anstream::println!("{text}");
        }
    };
    let began = Instant::now();
    let program = find_etcd(args.etcd.as_deref())?;
    let mut province = Province::lay(args, &program)?;
    say(&format!("sandbox: {}", sandbox::describe(&province.sandbox.province)));
    let config = Config::load(&province.configs[0])?;
    let clients = province.begin(&config, &say)?;
    say(&format!("three gateways with one log: {}", province.bases.join(" ")));
    let calls = Arc::new(Calls::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let callers: Vec<_> =
        clients.into_iter().map(|(to, client)| runtime.spawn(calls.clone().make(client, to))).collect();
    let mut lines = vec![province.without_faults(&calls)?];
    for at in 0..SITES {
        lines.push(province.kill_member(at, &calls)?);
    }
    for at in 0..SITES {
        lines.push(province.kill_gateway(at, &calls)?);
    }
    calls.end();
    // Each ends after its present call, which is bounded.
    runtime.block_on(futures_util::future::join_all(callers));
    let (report, compared) = province.compare(&config, &calls)?;
    lines.push(compared);
    let misses = lines.iter().filter(|line| !line.ok).count();
    let (answered, _, refused) = calls.counts();
    if output == Output::Human {
        print_lines(&["what", "happens", "expected", "result", "ms"], &lines);
    }
    let summary = format!(
        "{answered} calls answered, {refused} refused meanwhile, {} log entries verified at each of {SITES} gateways (root {}…), {:.1} s; {}",
        report.sealed,
        &report.root[..16],
        began.elapsed().as_secs_f64(),
        if misses == 0 { "nothing answered is lost".to_owned() } else { format!("{misses} missed") }
    );
    match output {
        Output::Human => say(&summary),
        Output::Json => print_json(&json!({
            "steps": lines.iter().map(TourLine::json).collect::<Vec<_>>(),
            "answered": answered, "refused": refused,
            "log": { "sealed": report.sealed, "root": report.root },
            "missed": misses,
        }))?,
    }
    match misses {
        0 => Ok(()),
        _ => Err(CliError::Failed(format!("{misses} of the demo's steps went otherwise"))),
    }
}

impl Province {
    /// Lays the folder with a configuration for each gateway, and starts the sandbox.
    fn lay(args: &DemoArgs, program: &Path) -> Result<Self, CliError> {
        let (folder, throw_away) = super::lay_folder(args)?;
        let sandbox = Sandbox::start(SandboxConfig::load(&folder.sandbox_config())?)?;
        let secret: String = (0..64).map(|_| fastrand::digit(16)).collect();
        crate::keyfile::write_private(&folder.path.join("secrets/cluster"), secret.as_bytes())?;
        let (members, urls) = members(program, &folder.path)?;
        let ports = free_ports(2 * SITES)?;
        let (grpc, https) = ports.split_at(SITES);
        let text = std::fs::read_to_string(folder.gateway_config())?;
        let (mut gateways, mut configs, mut bases) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..SITES {
            let file = folder.path.join(format!("gateway{}.toml", at + 1));
            let others = (0..SITES).filter(|other| *other != at).map(|other| https[other]);
            let of = GatewayFile { at, grpc: grpc[at], https: https[at], others: others.collect(), members: &urls };
            std::fs::write(&file, of.text(&text))?;
            gateways.push(gateway(&format!("gateway{}", at + 1), grpc[at], &file, &folder.path)?);
            configs.push(file);
            bases.push(format!("https://127.0.0.1:{}", grpc[at]));
        }
        Ok(Province { folder, sandbox, members, gateways, configs, bases, _throw_away: throw_away })
    }

    /// A gateway that was alone becomes the first of three. Returns the callers of each.
    fn begin(&mut self, config: &Config, say: &impl Fn(&str)) -> Result<Vec<(usize, super::DemoClient)>, CliError> {
        let alone = Gateway::start(Config { cluster: None, ..config.clone() })?;
        let participants = Participants::enter(config, &self.folder, &format!("https://{}", alone.address), false)?;
        let callers = (0..SITES * CALLERS).map(|number| {
            let to = number % SITES;
            Ok((to, participants.actor(&self.bases[to], "one-stop-shop")?))
        });
        let callers = callers.collect::<Result<_, CliError>>()?;
        drop(participants);
        alone.stop();
        self.members.iter_mut().try_for_each(Process::spawn)?;
        self.members.iter_mut().try_for_each(Process::wait_until_started)?;
        // The members elect their first leader in a second or two.
        let began = Instant::now();
        while let Err(error) = begin_before_serving(config) {
            if began.elapsed() > AGAIN_WITHIN {
                return Err(error);
            }
            std::thread::sleep(BETWEEN);
        }
        say("a gateway that was alone has brought its log and its registry into etcd: it is the first of three");
        self.gateways.iter_mut().try_for_each(Process::spawn)?;
        self.gateways.iter_mut().try_for_each(Process::wait_until_started)?;
        Ok(callers)
    }

    fn without_faults(&self, calls: &Calls) -> Result<TourLine, CliError> {
        let began = Instant::now();
        let again = self.answer_again(calls, 0..SITES)?;
        std::thread::sleep(BETWEEN);
        let (answered, ..) = calls.counts();
        Ok(line("all", "run", "all answer", again.map(|_| format!("{answered} calls answered")), began))
    }

    /// A member is killed while systems call; it comes back.
    fn kill_member(&mut self, at: usize, calls: &Calls) -> Result<TourLine, CliError> {
        let (began, before) = (Instant::now(), calls.counts());
        self.members[at].kill();
        let again = self.answer_again(calls, 0..SITES)?;
        let took = began.elapsed();
        std::thread::sleep(BETWEEN);
        self.members[at].spawn()?;
        self.members[at].wait_until_started()?;
        std::thread::sleep(BETWEEN);
        let result = again.map(|_| faults(before, calls.counts()));
        Ok(TourLine { elapsed: took, ..line(&self.members[at].name, "is killed", "all answer again", result, began) })
    }

    /// A gateway is killed while systems call; it comes back with everything.
    fn kill_gateway(&mut self, at: usize, calls: &Calls) -> Result<TourLine, CliError> {
        let (began, before) = (Instant::now(), calls.counts());
        self.gateways[at].kill();
        let others = self.answer_again(calls, (0..SITES).filter(|other| *other != at))?;
        let took = began.elapsed();
        self.gateways[at].spawn()?;
        self.gateways[at].wait_until_started()?;
        let back = self.answer_again(calls, 0..SITES)?;
        std::thread::sleep(BETWEEN);
        let result = others.and(back).map(|_| faults(before, calls.counts()));
        Ok(TourLine { elapsed: took, ..line(&self.gateways[at].name, "is killed", "the others answer", result, began) })
    }

    /// Waits until each of these gateways has answered a call that began after this; the reason if one does not.
    fn answer_again(
        &self,
        calls: &Calls,
        gateways: impl IntoIterator<Item = usize>,
    ) -> Result<Result<(), String>, CliError> {
        let (began, before) = (Instant::now(), calls.counts().1);
        for at in gateways {
            // One call of each caller may have begun before.
            while calls.counts().1[at] <= before[at] + CALLERS as u64 {
                if began.elapsed() > AGAIN_WITHIN {
                    return Ok(Err(format!("{} does not answer", self.gateways[at].name)));
                }
                std::thread::sleep(PAUSE);
            }
        }
        Ok(Ok(()))
    }

    /// Verifies the three logs, and looks for every answered exchange in each.
    fn compare(&self, config: &Config, calls: &Calls) -> Result<(verify::Report, TourLine), CliError> {
        let began = Instant::now();
        let key = key::read(&config.data, &config.vault, &config.log.origin)?.verifier();
        let answered = calls.exchanges();
        let data =
            self.configs.iter().map(|file| Ok(Config::load(file)?.data)).collect::<Result<Vec<_>, CliError>>()?;
        let fail = |error: LogError| CliError::Failed(format!("the log is not verified: {error}"));
        let sizes =
            || data.iter().map(|data| LogReader::open(data).map(|log| log.sealed())).collect::<Result<Vec<_>, _>>();
        let mut before = sizes().map_err(fail)?;
        loop {
            std::thread::sleep(BETWEEN);
            let now = sizes().map_err(fail)?;
            let alike = now == before && now.windows(2).all(|pair| pair[0] == pair[1]);
            if alike || began.elapsed() > ALIKE_WITHIN {
                break;
            }
            before = now;
        }
        let mut reports = Vec::new();
        let mut wrong = 0;
        for data in &data {
            reports.push(verify::verify_data(data, None, Some(&key), Default::default(), |_, _| {}).map_err(fail)?);
            let mut found: BTreeMap<String, u64> = BTreeMap::new();
            let count = |entry: &crate::exchange_log::Entry| entry.kind() == Kind::Exchange;
            LogReader::open(data)
                .and_then(|log| {
                    log.newest_first(u64::MAX, |one| {
                        if count(&one.entry) {
                            *found.entry(one.entry.id_text()).or_default() += 1;
                        }
                        true
                    })
                })
                .map_err(fail)?;
            wrong += answered.iter().filter(|id| found.get(*id) != Some(&1)).count();
        }
        let alike = reports.windows(2).all(|pair| (pair[0].sealed, &pair[0].root) == (pair[1].sealed, &pair[1].root));
        let result = match (alike, wrong) {
            (true, 0) => Ok(format!("each of {} answered calls once in each log", answered.len())),
            (true, wrong) => Err(format!("{wrong} answered calls are not in a log exactly once")),
            (false, _) => Err("the logs differ".to_owned()),
        };
        let line = line("auditor", "compares the logs", "nothing lost", result, began);
        reports.pop().map(|report| (report, line)).ok_or_else(|| CliError::Failed("no log".into()))
    }
}

/// One gateway's configuration.
struct GatewayFile<'f> {
    at: usize,
    grpc: u16,
    https: u16,
    others: Vec<u16>,
    members: &'f [String],
}

impl GatewayFile<'_> {
    /// The folder's configuration with its own name, ports and data.
    fn text(&self, text: &str) -> String {
        let number = self.at + 1;
        let set = |line: &str| match line.split(" = ").next().unwrap_or_default() {
            "node" => format!("node = \"qn-dc{number}\""),
            // The first one was alone.
            "data" if self.at > 0 => format!("data = \"data{number}\""),
            "grpc" => format!("grpc = \"127.0.0.1:{}\"", self.grpc),
            "https" => format!("https = \"127.0.0.1:{}\"", self.https),
            "operator_http" => "operator_http = \"127.0.0.1:0\"".to_owned(),
            "origin" => format!("{line}\nsite_names = [\"{}\"]", client_uri("gateway")),
            _ => line.to_owned(),
        };
        let quoted = |texts: Vec<String>| texts.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(", ");
        // The own member first.
        let members = self.members.iter().cycle().skip(self.at).take(self.members.len()).cloned().collect();
        let tiles = self.others.iter().map(|port| format!("https://127.0.0.1:{port}")).collect();
        format!(
            "{}\n\n[keys]\nencryption_secret = {{ file = \"secrets/cluster\" }}\n\n[cluster]\netcd = [{}]\ntiles = [{}]\n\
             tiles_certificate = \"pki/to-sources.pem\"\ntiles_key = \"pki/to-sources.key\"\n",
            text.lines().map(set).collect::<Vec<_>>().join("\n"),
            quoted(members),
            quoted(tiles)
        )
    }
}

fn faults(before: (u64, [u64; SITES], u64), after: (u64, [u64; SITES], u64)) -> String {
    format!("{} calls answered, {} refused", after.0 - before.0, after.2 - before.2)
}

fn line(who: &str, does: &str, expected: &str, result: Result<String, String>, began: Instant) -> TourLine {
    let [source, operation, protocol] = [who, does, expected].map(str::to_owned);
    let (ok, result) = match result {
        Ok(result) => (true, result),
        Err(reason) => (false, reason),
    };
    TourLine { source, operation, protocol, result, elapsed: began.elapsed(), ok }
}
