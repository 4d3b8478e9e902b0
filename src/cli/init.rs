//! `init`: a production folder by a few questions, or by options alone: configuration with comments, examples of hubs and sources, units
//! of systemd, the gateway's own keys, the first two people. It overwrites nothing.

use super::output::Output;
use super::session::{ConnectionArgs, local};
use super::{CliError, keys};
use crate::admin::StaffDraft;
use crate::config::Config;
use crate::registry::now;
use crate::sandbox::folder::examples;
use crate::server::check_tls;
use clap::Args;
use serde_json::json;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

const TEMPLATE: &str = include_str!("../../deploy/init/gateway.toml");
const NAMES: &str = include_str!("../../seeds/names.toml");
/// The folder of the package's configuration, and the unit that the package installs for it.
const PACKAGED: (&str, &str) = ("/etc/ndxp", "/usr/lib/systemd/system/ndxp-gateway.service");
/// The account of the package's unit.
const ACCOUNT: &str = "ndxp";
const UNITS: [(&str, &str); 2] = [
    ("ndxp-gateway.service", include_str!("../../deploy/systemd/ndxp-gateway.service")),
    ("ndxp-gateway.socket", include_str!("../../deploy/systemd/ndxp-gateway.socket")),
];

#[derive(Args)]
pub struct InitArgs {
    /// The folder of the configuration.
    #[arg(long, default_value = "/etc/ndxp", value_name = "DIR")]
    folder: PathBuf,
    /// The folder of registry, log and keys: for the gateway's account alone.
    #[arg(long, default_value = "/var/lib/ndxp", value_name = "DIR")]
    data: PathBuf,
    /// This gateway's name in the log (`qn-dc1`). What is not given is asked for on a terminal.
    #[arg(long)]
    node: Option<String>,
    /// The host name by which callers reach it.
    #[arg(long)]
    host: Option<String>,
    /// The log's name; the host's with `/log` by default.
    #[arg(long)]
    origin: Option<String>,
    /// The gateway's certificate chain (PEM).
    #[arg(long, value_name = "FILE")]
    certificate: Option<String>,
    /// Its private key (PEM); the certificate's path with `.key` by default.
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// The CA of clients and staff (PEM).
    #[arg(long, value_name = "FILE")]
    client_ca: Option<String>,
    /// Its revocation list: a file, or an http(s) URL at which it is published.
    #[arg(long, value_name = "FILE|URL")]
    crl: Option<String>,
    /// The first administrator's id (`spiffe://…/staff/<id>` in their certificate).
    #[arg(long, value_name = "ID", requires = "approver")]
    administrator: Option<String>,
    /// The first approver's id: another person's.
    #[arg(long, value_name = "ID", requires = "administrator")]
    approver: Option<String>,
}

/// Returns what was given, else what a person answers, else the default.
fn asked(given: Option<&String>, question: &str, option: &str, default: &str) -> Result<String, CliError> {
    let answer = match given {
        Some(given) => given.clone(),
        None if std::io::stdin().is_terminal() => {
            let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
            anstream::print!("{question}{shown}: ");
            std::io::stdout().flush()?;
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            line.trim().to_owned()
        }
        None => String::new(),
    };
    let answer = if answer.is_empty() { default.to_owned() } else { answer };
    let plain = |c: char| !c.is_control() && c != '"' && c != '\\';
    if answer.is_empty() || !answer.chars().all(plain) {
        return Err(CliError::Usage(format!("{option}: {question}: give it, without quotes and backslashes")));
    }
    Ok(answer)
}

/// The answers, by the template's names.
fn answers(args: &InitArgs) -> Result<Vec<(&'static str, String)>, CliError> {
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let node = asked(args.node.as_ref(), "This gateway's name in the log", "--node", &own)?;
    let host = asked(args.host.as_ref(), "The host name by which callers reach it", "--host", "")?;
    let origin = asked(args.origin.as_ref(), "The log's name", "--origin", &format!("{host}/log"))?;
    let certificate = asked(args.certificate.as_ref(), "Its certificate (PEM)", "--certificate", "pki/gateway.pem")?;
    let key = Path::new(&certificate).with_extension("key").display().to_string();
    let key = asked(args.key.as_ref(), "Its private key (PEM)", "--key", &key)?;
    let client_ca = asked(args.client_ca.as_ref(), "The CA of clients and staff (PEM)", "--client-ca", "pki/ca.pem")?;
    let crl = asked(args.crl.as_ref(), "Its revocation list (file or URL)", "--crl", "pki/ca.crl")?;
    let option = if crl.starts_with("http://") || crl.starts_with("https://") { "crl_url" } else { "crl" };
    let data = std::path::absolute(&args.data)?.display().to_string();
    Ok(vec![
        ("node", node),
        ("data", data),
        ("host", host),
        ("origin", origin),
        ("certificate", certificate),
        ("key", key),
        ("client_ca", client_ca),
        ("revocation", format!("{option} = \"{crl}\"")),
    ])
}

/// Checks that certificate, key and CA are there, before anything is written: a configuration without them is none.
fn must_exist(folder: &Path, answers: &[(&'static str, String)]) -> Result<(), CliError> {
    let needed = answers.iter().filter(|(name, _)| ["certificate", "key", "client_ca"].contains(name));
    let missing = needed.map(|(_, path)| folder.join(path)).filter(|path| !path.exists());
    let missing: Vec<String> = missing.map(|path| path.display().to_string()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let remedy = "put them in place first, or name them: --certificate, --key, --client-ca";
    Err(CliError::Usage(format!("{} is not there: {remedy}", missing.join(", "))))
}

/// Writes a file that is not there yet.
fn new_file(path: &Path, text: &str) -> Result<(), CliError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let made = std::fs::File::options().write(true).create_new(true).open(path);
    made.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))
}

pub fn run(args: &InitArgs, output: Output) -> Result<(), CliError> {
    let file = std::path::absolute(&args.folder)?.join("gateway.toml");
    if file.exists() {
        let reason = "is there already: init overwrites nothing; change it by hand, or choose another --folder";
        return Err(CliError::Usage(format!("{} {reason}", file.display())));
    }
    let packaged = is_packaged(&file);
    if packaged && rustix::process::geteuid().is_root() && uzers::get_user_by_name(ACCOUNT).is_some() {
        let remedy = format!("runuser -u {ACCOUNT} -- ndxp-gateway init");
        return Err(CliError::Usage(format!("the keys must be the gateway's account's, not root's: {remedy}")));
    }
    let answers = answers(args)?;
    must_exist(file.parent().unwrap_or(Path::new(".")), &answers)?;
    let text =
        answers.iter().fold(TEMPLATE.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value));
    let mut written = lay(&file, &text, &args.data, packaged)?;
    let config = Config::load(&file)?;
    let connection = ConnectionArgs::local(file.clone());
    let verifier = keys::make_keys(&connection)?;
    if let (Some(administrator), Some(approver)) = (&args.administrator, &args.approver) {
        let draft = |id: &str| StaffDraft { id: id.to_owned(), ..StaffDraft::default() };
        local::bootstrap(&connection, draft(administrator), draft(approver))?;
    }
    written.insert(0, file.clone());
    let next = next_steps(&config, args.administrator.is_some(), &file, packaged);
    let value = json!({ "written": written, "vkey": verifier, "next": next });
    output.result(&value, || {
        let files: String = written.iter().map(|file| format!("wrote {}\n", file.display())).collect();
        let steps: String = (1..).zip(&next).map(|(number, step)| format!("\n  {number}. {step}")).collect();
        format!(
            "{files}the log's public key, for auditors and witnesses:\n  {verifier}\nback up {} and keys/acts.key apart from the \
             log\nnext:{steps}",
            crate::exchange_log::key::path(&config.data).display()
        )
    })
}

/// Whether the installed package has the units for this configuration: then another copy of them would only hide its next ones.
fn is_packaged(file: &Path) -> bool {
    let (folder, unit) = PACKAGED;
    file.parent() == Some(Path::new(folder)) && Path::new(unit).exists()
}

/// Lays the files beside the configuration. Names that are there already are somebody's own.
fn lay(file: &Path, text: &str, data: &Path, packaged: bool) -> Result<Vec<PathBuf>, CliError> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let data = std::path::absolute(data)?.display().to_string();
    let program = std::env::current_exe()?.display().to_string();
    let mut files = vec![(folder.join("names.toml"), NAMES.to_owned())];
    files.retain(|(path, _)| !path.exists());
    files.extend(examples().map(|(name, text)| (folder.join(format!("{name}.example")), text)));
    for (name, unit) in UNITS.into_iter().filter(|_| !packaged) {
        let unit = unit.replace("/etc/ndxp/gateway.toml", &file.display().to_string());
        let unit = unit.replace("/etc/ndxp/environment", &folder.join("environment").display().to_string());
        let unit = unit.replace("/usr/bin/ndxp-gateway", &program).replace("/var/lib/ndxp", &data);
        files.push((folder.join("units").join(name), unit));
    }
    std::fs::create_dir_all(folder.join("contracts"))?;
    for (path, text) in &files {
        new_file(path, text)?;
    }
    // Last: where it is there, the rest is.
    new_file(file, text)?;
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

/// What remains to be done, in order.
fn next_steps(config: &Config, people: bool, file: &Path, packaged: bool) -> Vec<String> {
    let name = file.display();
    let mut steps = Vec::new();
    let faults = match check_tls(config) {
        Ok(gate) => gate.faults(now()),
        Err(error) => vec![error.to_string()],
    };
    steps.extend(faults.into_iter().map(|fault| format!("mend: {fault}")));
    steps.push("rename the examples of your hubs and sources to .toml, and fill them in".to_owned());
    if !people {
        steps.push(format!("staff bootstrap --administrator ID --approver ID --config {name}"));
    }
    steps.push(format!("keys rotate --config {name}"));
    steps.push(format!("doctor --config {name}"));
    let enable = "systemctl enable --now ndxp-gateway.socket ndxp-gateway";
    steps.push(match packaged {
        true => enable.to_owned(),
        false => format!("install the units: cp units/* /etc/systemd/system/, {enable}"),
    });
    steps
}
