//! `certs`: a development CA.

use super::output::{Output, time};
use super::{CliError, ConfigFile, output};
use crate::config::Config;
use crate::pki::{self, DEFAULT_DAYS, Ending, Pki, Role, WARN_DAYS};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum CertsCommand {
    /// Make a CA and an empty revocation list.
    Init(Folder),
    /// Make a key and a certificate.
    Issue {
        #[command(flatten)]
        folder: Folder,
        /// Name of the files and of the subject; for a client, its id.
        name: String,
        /// For a server: its DNS names and addresses; without, the certificate is a client's.
        #[arg(long = "server", value_name = "NAME")]
        names: Vec<String>,
        /// For somebody who administers.
        #[arg(long, conflicts_with = "names")]
        staff: bool,
        /// How long it is valid, in days.
        #[arg(long, default_value_t = DEFAULT_DAYS)]
        days: u64,
    },
    /// Tell of certificates: names, end, serial, thumbprint; without files, of everything that the gateway's configuration
    /// names (its own, the sources' and hubs', CAs and revocation lists) when it ends.
    Show {
        /// Certificates (PEM).
        files: Vec<PathBuf>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Put a certificate on the revocation list; gateways take the list over by themselves.
    Revoke {
        #[command(flatten)]
        folder: Folder,
        /// The certificate (PEM).
        file: PathBuf,
    },
}

#[derive(Args)]
pub struct Folder {
    /// Folder of the CA.
    #[arg(long, default_value = "pki", value_name = "DIR")]
    folder: PathBuf,
}

/// One line of `certs show` without files.
#[derive(serde::Serialize)]
struct End {
    file: PathBuf,
    #[serde(flatten)]
    ending: Ending,
    soon: bool,
}

fn show_ends(config: &Config, output: Output) -> Result<(), CliError> {
    let mut files = config.tls.files();
    files.extend(config.catalogue()?.files);
    // One file may be named along several ways.
    let mut files: Vec<PathBuf> = files.into_iter().map(|file| file.canonicalize().unwrap_or(file)).collect();
    files.sort();
    files.dedup();
    let now = crate::registry::now();
    let ends = |file: PathBuf| {
        let endings = pki::endings(&file);
        endings.into_iter().map(move |ending| End { file: file.clone(), soon: ending.is_near(now), ending })
    };
    let mut all: Vec<End> = files.into_iter().flat_map(ends).collect();
    all.sort_by_key(|end| end.ending.at);
    output.records(&all, &["ends", "days left", "what", "file"], |end| {
        let days = (end.ending.at - now).div_euclid(86_400);
        let left = if end.soon { format!("{days}: renew it") } else { days.to_string() };
        vec![time(end.ending.at), left, end.ending.what.clone(), end.file.display().to_string()]
    })
}

pub fn run(command: CertsCommand, output: Output) -> Result<(), CliError> {
    match command {
        CertsCommand::Init(Folder { folder }) => {
            let pki = Pki::at(&folder);
            pki.init()?;
            let files = [pki.ca(), pki.crl()];
            output.result(&files, || format!("made {} and {}", files[0].display(), files[1].display()))
        }
        CertsCommand::Issue { folder, name, names, staff, days } => {
            let role = match (staff, names.is_empty()) {
                (true, _) => Role::Staff(name.clone()),
                (false, true) => Role::Client(name.clone()),
                (false, false) => Role::Server(names),
            };
            let (certificate, key) = Pki::at(&folder.folder).issue(&name, &role, days)?;
            let files = [&certificate, &key];
            output.result(&files, || format!("made {} and {}", certificate.display(), key.display()))
        }
        CertsCommand::Show { files, config } if files.is_empty() => show_ends(&config.load()?, output),
        CertsCommand::Show { files, .. } => {
            let infos: Vec<_> = files.iter().map(|file| pki::show(file)).collect::<Result<_, _>>()?;
            let now = crate::registry::now();
            output.records(&infos, &["file", "subject", "names", "valid until", "serial", "thumbprint"], |info| {
                let left = (info.not_after - now) / 86_400;
                let end = match left {
                    ..0 => format!("{} (expired)", time(info.not_after)),
                    left if left < WARN_DAYS => format!("{} ({left} days left)", time(info.not_after)),
                    _ => time(info.not_after),
                };
                let file = info.file.display().to_string();
                let names = info.names.join("\n");
                vec![file, info.subject.clone(), names, end, info.serial.clone(), info.thumbprint.clone()]
            })
        }
        CertsCommand::Revoke { folder, file } => {
            let info = Pki::at(&folder.folder).revoke(&file)?;
            output.result(&info, || format!("revoked {} (serial {})", output::short(&info.subject), info.serial))
        }
    }
}
