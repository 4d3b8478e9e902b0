//! `certs`: a development CA.

use super::output::{Output, time};
use super::{CliError, ConfigFile, output};
use crate::config::Config;
use crate::identity::cached_lists;
use crate::identity::list::{self, FileFault, ListInfo};
use crate::pki::{self, CertificateInfo, CertificateRole, DEFAULT_DAYS, Ending, Pki, WARN_CRL_DAYS, WARN_DAYS};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum CertsCommand {
    /// Make a CA and an empty revocation list.
    Init(CertificateFolder),
    /// Make a key and a certificate.
    Issue {
        #[command(flatten)]
        folder: CertificateFolder,
        /// Name of the files and of the subject; for a client, its id.
        name: String,
        /// For a server: its DNS names and addresses; without, the certificate is a client's.
        #[arg(long = "server", value_name = "NAME")]
        names: Vec<String>,
        /// For a member of staff.
        #[arg(long, conflicts_with = "names")]
        staff: bool,
        /// How long it is valid, in days.
        #[arg(long, default_value_t = DEFAULT_DAYS)]
        days: u64,
    },
    /// Show certificates: names, end, serial, thumbprint; without files, when everything in the gateway's configuration
    /// expires (its own certificate, the sources' and hubs', CAs and revocation lists).
    Show {
        /// Certificates (PEM) and revocation lists (PEM or DER).
        files: Vec<PathBuf>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Put a certificate on the revocation list; gateways load the list by themselves.
    Revoke {
        #[command(flatten)]
        folder: CertificateFolder,
        /// The certificate (PEM).
        file: PathBuf,
    },
}

#[derive(Args)]
pub struct CertificateFolder {
    /// Folder of the CA.
    #[arg(long, default_value = "pki", value_name = "DIR")]
    folder: PathBuf,
}

/// One line of `certs show` without files.
#[derive(serde::Serialize)]
struct CertificateEnd {
    file: PathBuf,
    #[serde(flatten)]
    ending: Ending,
    expiring: bool,
}

/// Describes an item that expires: of a list, what distinguishes it from others.
fn what(ending: &Ending) -> String {
    match &ending.list {
        None => ending.what.clone(),
        Some(list) => {
            let ListInfo { number, entries, this_update, .. } = list;
            format!("{}\nnumber {number}, {entries} revoked, of {}", ending.what, time(*this_update))
        }
    }
}

/// One row of `certs show` with files.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum CertificateRow {
    Certificate(CertificateInfo),
    List {
        file: PathBuf,
        #[serde(flatten)]
        list: ListInfo,
    },
}

/// A file's certificate, or its revocation lists.
fn shown(file: &Path) -> Result<Vec<CertificateRow>, CliError> {
    match list::read_file(file) {
        Err(FileFault::Empty | FileFault::Section(..) | FileFault::File(_)) => {
            Ok(vec![CertificateRow::Certificate(pki::show(file)?)])
        }
        Err(fault) => Err(CliError::Usage(format!("{}: {fault}", file.display()))),
        Ok(lists) => {
            Ok(lists.iter().map(|list| CertificateRow::List { file: file.to_owned(), list: list.into() }).collect())
        }
    }
}

fn cells(row: &CertificateRow, now: i64) -> Vec<String> {
    let end = |at: i64, warn_days: i64| match (at - now).div_euclid(86_400) {
        ..0 => format!("{} (expired)", time(at)),
        left if left < warn_days => format!("{} ({left} days left)", time(at)),
        _ => time(at),
    };
    match row {
        CertificateRow::Certificate(info) => {
            let (names, serial) = (info.names.join("\n"), info.serial.clone());
            let until = end(info.not_after, WARN_DAYS);
            vec![info.file.display().to_string(), info.subject.clone(), names, until, serial, info.thumbprint.clone()]
        }
        CertificateRow::List { file, list } => {
            let what = format!("revocation list of {}", list.issuer);
            let made = format!("{} revoked, of {}", list.entries, time(list.this_update));
            let until = end(list.next_update, WARN_CRL_DAYS);
            vec![file.display().to_string(), what, made, until, format!("number {}", list.number), String::new()]
        }
    }
}

fn show_ends(config: &Config, output: Output) -> Result<(), CliError> {
    let mut files = config.tls.files();
    files.extend(config.tls.published().map(cached_lists::cached).into_iter().flatten().map(|list| list.file));
    files.extend(config.catalogue()?.files);
    // Several paths may lead to one file.
    let mut files: Vec<PathBuf> = files.into_iter().map(|file| file.canonicalize().unwrap_or(file)).collect();
    files.sort();
    files.dedup();
    let now = crate::registry::now();
    let lists = |file: &PathBuf| list::read_file(file).unwrap_or_default();
    let ends = |file: PathBuf| {
        let endings =
            pki::expirations(&file).into_iter().chain(lists(&file).iter().map(Ending::of_list)).collect::<Vec<_>>();
        endings.into_iter().map(move |ending| CertificateEnd {
            file: file.clone(),
            expiring: ending.is_near(now),
            ending,
        })
    };
    let mut all: Vec<CertificateEnd> = files.into_iter().flat_map(ends).collect();
    all.sort_by_key(|end| end.ending.at);
    output.records(&all, &["expires", "days left", "kind", "file"], |end| {
        let days = (end.ending.at - now).div_euclid(86_400);
        let left = if end.expiring { format!("{days}: renew it") } else { days.to_string() };
        vec![time(end.ending.at), left, what(&end.ending), end.file.display().to_string()]
    })
}

pub fn run(command: CertsCommand, output: Output) -> Result<(), CliError> {
    match command {
        CertsCommand::Init(CertificateFolder { folder }) => {
            let pki = Pki::at(&folder);
            pki.init()?;
            let files = [pki.ca(), pki.crl()];
            output.result(&files, || format!("made {} and {}", files[0].display(), files[1].display()))
        }
        CertsCommand::Issue { folder, name, names, staff, days } => {
            let role = match (staff, names.is_empty()) {
                (true, _) => CertificateRole::Staff(name.clone()),
                (false, true) => CertificateRole::Client(name.clone()),
                (false, false) => CertificateRole::Server(names),
            };
            let (certificate, key) = Pki::at(&folder.folder).issue(&name, &role, days)?;
            let files = [&certificate, &key];
            output.result(&files, || format!("made {} and {}", certificate.display(), key.display()))
        }
        CertsCommand::Show { files, config } if files.is_empty() => show_ends(&config.load()?, output),
        CertsCommand::Show { files, .. } => {
            let rows: Vec<Vec<CertificateRow>> = files.iter().map(|file| shown(file)).collect::<Result<_, _>>()?;
            let rows: Vec<CertificateRow> = rows.into_iter().flatten().collect();
            let now = crate::registry::now();
            let header = ["file", "subject", "names", "valid until", "serial", "thumbprint"];
            output.records(&rows, &header, |row| cells(row, now))
        }
        CertsCommand::Revoke { folder, file } => {
            let info = Pki::at(&folder.folder).revoke(&file)?;
            output.result(&info, || format!("revoked {} (serial {})", output::short(&info.subject), info.serial))
        }
    }
}
