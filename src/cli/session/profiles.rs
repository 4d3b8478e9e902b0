//! Profiles: the gateways that a person administers, each with its address and the person's certificate, in
//! `ndxp-gateway/profiles.toml` of the user's configuration folder (XDG base directories).

use super::RemoteGateway;
use crate::caller::CallerFiles;
use crate::cli::CliError;
use crate::config::{ConfigFault, Document, Table};
use crate::exchange_log::checkpoint::LogVerifier;
use crate::keyfile::write_private;
use crate::registry::is_id;
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One gateway, and the person's files for it.
#[derive(Debug, Clone, Serialize)]
pub struct Profile {
    /// The address of its gRPC port.
    pub remote: String,
    /// Its CA.
    pub ca: PathBuf,
    /// The person's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The address of its HTTPS port, for `audit verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The log's key, for `audit verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vkey: Option<String>,
}

impl Profile {
    /// Returns it as a remote gateway.
    pub fn remote(&self) -> RemoteGateway {
        let files = CallerFiles { ca: self.ca.clone(), certificate: self.certificate.clone(), key: self.key.clone() };
        RemoteGateway { url: self.remote.clone(), files, log: self.log.clone(), vkey: self.vkey.clone() }
    }

    fn read(table: &Table<'_>) -> Option<Self> {
        let url = |key: &str| {
            let text = table.text(key)?;
            check_url(&text).map_err(|reason| table.fault(key, reason)).ok()
        };
        let remote = table.parsed("remote", "https://gateway.example:7443", check_url);
        let ca = table.needed_path("ca", "ca.pem");
        let certificate = table.needed_path("certificate", "lan.pem");
        let key = table.path("key").or_else(|| certificate.as_ref().map(|path| path.with_extension("key")));
        let vkey = table.text("vkey").inspect(|key| {
            if let Err(error) = LogVerifier::parse(key) {
                table.fault("vkey", error);
            }
        });
        Some(Profile { log: url("log"), remote: remote?, ca: ca?, certificate: certificate?, key: key?, vkey })
    }
}

/// `https://host:port`, without a final slash.
pub fn check_url(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no address: write https://HOST:PORT");
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    let whole = uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty());
    if !whole || !uri.path().trim_end_matches('/').is_empty() || uri.query().is_some() {
        return Err(wrong());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Every profile of a user.
#[derive(Debug, Default, Serialize)]
pub struct Profiles {
    #[serde(skip)]
    file: PathBuf,
    /// The default profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// By name.
    pub profiles: BTreeMap<String, Profile>,
}

/// The file: in `$XDG_CONFIG_HOME`, or `~/.config`.
fn file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")))?;
    Some(base.join("ndxp-gateway").join("profiles.toml"))
}

impl Profiles {
    /// Reads the user's file; empty if there is none. All faults are reported together.
    pub fn load() -> Result<Self, CliError> {
        match file() {
            Some(file) => Ok(Self::read(&file)?),
            None => Ok(Profiles::default()),
        }
    }

    fn read(file: &Path) -> Result<Self, Vec<ConfigFault>> {
        let whole = |reason: String| vec![ConfigFault { file: file.display().to_string(), line: 0, reason }];
        let metadata = match std::fs::metadata(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Profiles { file: file.to_owned(), ..Profiles::default() });
            }
            Err(error) => return Err(whole(format!("cannot be read: {error}"))),
            Ok(metadata) => metadata,
        };
        let document = Document::open(file).map_err(|fault| vec![fault])?;
        let mut read = document.read(|table| {
            // Its owner decides which CA commands trust, and as whom they act.
            if metadata.mode() & 0o022 != 0 {
                table.fault("profiles", format!("others may change this file: chmod 600 {}", file.display()));
            }
            let mut profiles = BTreeMap::new();
            if let Some(all) = table.table("profiles") {
                for name in all.keys() {
                    if !is_id(&name) {
                        all.fault(&name, "is no name: 1 to 64 lower-case letters, digits, hyphens or dots");
                    }
                    if all.table(&name).is_some() {
                        profiles.extend(all.section(&name, Profile::read).map(|profile| (name, profile)));
                    }
                }
            }
            let default = table.text("default");
            if let Some(name) = default.as_ref().filter(|name| !profiles.contains_key(*name)) {
                table.fault("default", format!("there is no profile {name:?}: ndxp-gateway profile use NAME"));
            }
            Some(Profiles { file: PathBuf::new(), default, profiles })
        })?;
        read.file = file.to_owned();
        Ok(read)
    }

    /// Returns the path of the file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns one of them.
    pub fn named(&self, name: &str) -> Result<&Profile, CliError> {
        self.profiles.get(name).ok_or_else(|| {
            let known = self.profiles.keys().cloned().collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none yet; profile add makes one".to_owned() } else { known };
            CliError::Usage(format!("there is no profile {name:?}; known: {known}"))
        })
    }

    /// Returns the default profile.
    pub fn in_use(&self) -> Result<Option<&Profile>, CliError> {
        self.default.as_deref().map(|name| self.named(name)).transpose()
    }

    /// Writes the file atomically, readable only by the user.
    pub fn save(&self) -> Result<(), CliError> {
        if self.file.as_os_str().is_empty() {
            return Err(CliError::Usage("there is no place for profiles: set HOME or XDG_CONFIG_HOME".into()));
        }
        let text = toml::to_string(self).map_err(|error| CliError::Failed(error.to_string()))?;
        write_private(&self.file, text.as_bytes())
            .map_err(|error| CliError::Failed(format!("{}: {error}", self.file.display())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_profiles_is_checked_as_a_whole_with_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("profiles.toml");
        let text = "default = \"nobody\"\n\n[profiles.lan]\nremote = \"http://x\"\nca = \"ca.pem\"\n\n[profiles.minh]\n\
                    remote = \"https://gateway:7443\"\nca = \"ca.pem\"\ncertificat = \"minh.pem\"\n";
        std::fs::write(&file, text).unwrap();
        let faults = Profiles::read(&file).unwrap_err();
        let reported: Vec<(usize, &str)> = faults.iter().map(|fault| (fault.line, fault.reason.as_str())).collect();
        for (line, part) in [
            (1, "there is no profile \"nobody\""),
            (4, "profiles.lan.remote: \"http://x\" is no address: write https://HOST:PORT"),
            (3, "profiles.lan.certificate: is missing"),
            (10, "profiles.minh.certificat: is not known; did you mean certificate?"),
        ] {
            assert!(
                reported.iter().any(|(at, reason)| *at == line && reason.contains(part)),
                "{line} {part}: {reported:#?}"
            );
        }
    }

    #[test]
    fn what_is_saved_is_read_again_and_is_nobody_elses_to_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ndxp-gateway/profiles.toml");
        let mut profiles = Profiles::read(&file).unwrap();
        assert!(profiles.profiles.is_empty() && profiles.in_use().unwrap().is_none());
        let profile = Profile {
            remote: "https://localhost:7443".into(),
            ca: "/pki/ca.pem".into(),
            certificate: "/pki/lan.pem".into(),
            key: "/pki/lan.key".into(),
            log: None,
            vkey: None,
        };
        profiles.profiles.insert("lan".into(), profile);
        profiles.default = Some("lan".into());
        profiles.save().unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let again = Profiles::read(&file).unwrap();
        assert_eq!(again.in_use().unwrap().unwrap().certificate, Path::new("/pki/lan.pem"));
        assert!(again.named("minh").unwrap_err().to_string().contains("known: lan"));
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert!(Profiles::read(&file).unwrap_err()[0].reason.contains("chmod 600"));
    }

    #[test]
    fn an_address_is_https_host_and_port_and_nothing_else() {
        assert_eq!(check_url("https://gateway:7443/").unwrap(), "https://gateway:7443");
        for wrong in ["gateway:7443", "http://gateway:7443", "https://", "https://gateway/x", "https://gateway?x", ""] {
            assert!(check_url(wrong).is_err(), "{wrong:?}");
        }
    }
}
