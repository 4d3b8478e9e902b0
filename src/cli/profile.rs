//! `profile`: the gateways that a person administers remotely.

use super::CliError;
use super::output::{Output, print_json};
use super::session::{Profile, Profiles, check_url};
use crate::exchange_log::checkpoint::LogVerifier;
use crate::identity::tls;
use crate::registry::is_id;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum ProfileCommand {
    /// Save a gateway's address and your certificate under a name: `--profile NAME`, or NDXP_PROFILE, uses them.
    Add(AddProfile),
    /// List profiles; the one in use is marked.
    List,
    /// Show one profile, and the name in its certificate.
    Show {
        /// Its name.
        name: String,
    },
    /// Remove a profile; its files stay.
    Remove {
        /// Its name.
        name: String,
    },
    /// Use a profile by default.
    Use {
        /// Its name.
        name: String,
    },
}

#[derive(Args)]
pub struct AddProfile {
    /// Its name: lower-case letters, digits, hyphens, dots.
    name: String,
    /// The address of the gateway's gRPC port, https://HOST:PORT.
    #[arg(long, value_name = "URL", value_parser = check_url)]
    remote: String,
    /// The CA of the gateway (PEM).
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Your own certificate (PEM).
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its key (PEM); the certificate's path with `.key` by default.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The address of the gateway's HTTPS port, for `audit verify`.
    #[arg(long, value_name = "URL", value_parser = check_url)]
    log: Option<String>,
    /// The log's key (`name+hash+key`), for `audit verify`.
    #[arg(long, value_name = "KEY")]
    vkey: Option<String>,
}

pub fn run(command: ProfileCommand, output: Output) -> Result<(), CliError> {
    let mut all = Profiles::load()?;
    match command {
        ProfileCommand::Add(add) => {
            let (name, profile) = add.checked()?;
            let sentence = format!("profile {name} is in {}", all.file().display());
            all.profiles.insert(name, profile.clone());
            all.save()?;
            output.result(&profile, || sentence)
        }
        ProfileCommand::List => {
            let rows: Vec<(&String, &Profile)> = all.profiles.iter().collect();
            if output == Output::Json {
                return print_json(&all);
            }
            output.records(&rows, &["profile", "in use", "gateway", "certificate"], |(name, profile)| {
                let used = if all.default.as_ref() == Some(*name) { "yes" } else { "" };
                let certificate = profile.certificate.display().to_string();
                vec![(*name).clone(), used.into(), profile.remote.clone(), certificate]
            })
        }
        ProfileCommand::Show { name } => {
            let profile = all.named(&name)?;
            output.result(profile, || described(&name, profile))
        }
        ProfileCommand::Remove { name } => {
            all.named(&name)?;
            all.profiles.remove(&name);
            all.default = all.default.filter(|used| *used != name);
            all.save()?;
            output.result(&name, || format!("forgot the profile {name}"))
        }
        ProfileCommand::Use { name } => {
            let gateway = all.named(&name)?.remote.clone();
            all.default = Some(name.clone());
            all.save()?;
            output.result(&name, || {
                format!("commands go to {gateway} by the profile {name}, where nothing names another")
            })
        }
    }
}

impl AddProfile {
    /// With absolute paths: a profile can be used in any folder. Unusable files are refused at once.
    fn checked(self) -> Result<(String, Profile), CliError> {
        if !is_id(&self.name) {
            let expected = "must be 1 to 64 lower-case letters, digits, hyphens or dots";
            return Err(CliError::Usage(format!("the profile's name {expected}")));
        }
        if let Some(key) = &self.vkey {
            LogVerifier::parse(key).map_err(|error| CliError::Usage(format!("--vkey: {error}")))?;
        }
        let key = self.key.unwrap_or_else(|| self.certificate.with_extension("key"));
        tls::client_config(&self.ca, Some((&self.certificate, &key)), &[])
            .map_err(|fault| CliError::Usage(fault.to_string()))?;
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))
        };
        let profile = Profile {
            remote: self.remote,
            ca: absolute(&self.ca)?,
            certificate: absolute(&self.certificate)?,
            key: absolute(&key)?,
            log: self.log,
            vkey: self.vkey,
        };
        Ok((self.name, profile))
    }
}

fn described(name: &str, profile: &Profile) -> String {
    // A certificate that was renewed elsewhere, or is missing, must not hide the rest.
    let person = match crate::pki::show(&profile.certificate) {
        Ok(info) => format!("{}, until {}", info.names.join(", "), super::output::time(info.not_after)),
        Err(error) => error.to_string(),
    };
    let lines = [
        ("profile", Some(name.to_owned())),
        ("gateway", Some(profile.remote.clone())),
        ("CA", Some(profile.ca.display().to_string())),
        ("certificate", Some(profile.certificate.display().to_string())),
        ("key", Some(profile.key.display().to_string())),
        ("person", Some(person)),
        ("log", profile.log.clone()),
        ("log's key", profile.vkey.clone()),
    ];
    let lines = lines.into_iter().filter_map(|(what, value)| value.map(|value| format!("{what:<12} {value}")));
    lines.collect::<Vec<_>>().join("\n")
}
