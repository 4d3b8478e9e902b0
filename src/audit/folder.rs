//! The files of a data folder beside the log: `audit verify` compares each with what the log records of it, with the
//! key that authenticates it, or with the file that it belongs to. [`crate::exchange_log::verify`] checks the log
//! itself, [`super::replay`] the registry, [`super::index`] the index.
//!
//! Files that a gateway rebuilds by itself (`keys/index.key`, `state/acts.json`, `state/intents-ended`,
//! `state/index-verified.json`, the index) may be missing; an existing one must be the gateway's own.

use super::logged_files::FileDifference;
use super::{AuditError, index, logged_state, periods, scan};
use crate::exchange_log::checkpoint::{LogSigner, LogVerifier};
use crate::exchange_log::file_events::FileEvent;
use crate::exchange_log::{LogPaths, pseudonym, reader};
use crate::keyfile::Vault;
use crate::registry::sqlite::{FILE, FileRecord, RegistryFile};
use crate::registry::{AdminEventKey, state_file, usage};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The expected state of a data folder, beside its log.
#[derive(Debug, Default)]
pub struct Expected<'e> {
    /// The witnesses in the configuration, as text; `None`: the configuration is not available.
    pub policy: Option<Option<&'e str>>,
    /// Whether signing keys of tokens are in a hardware module and not in files.
    pub hsm: bool,
    /// Whether the gateway has run with revocation lists, so that it recorded them.
    pub revocation: bool,
}

/// A file that differs from its expected state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderFault {
    /// The file, by its path in the data folder.
    pub file: PathBuf,
    /// The fault, and how to fix it.
    pub what: String,
    /// Whether it may be intentional: a period's key that was destroyed.
    pub is_warning: bool,
}

impl std::fmt::Display for FolderFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

/// Longest search for people of a period without a key; if it is not finished by then, they count as named.
const LOOKED_FOR: Duration = Duration::from_secs(60);
const REVOCATION: &str = "state/revocation.json";

fn fault(file: impl Into<PathBuf>, what: impl Into<String>) -> FolderFault {
    FolderFault { file: file.into(), what: what.into(), is_warning: false }
}

/// Checks a data folder with a verified log: `verifier` is its key, `admin_events` are those in its entries. Checks
/// twice if there is a fault: a running gateway may be about to write the file.
///
/// # Errors
/// The log or the registry cannot be read.
pub fn check(
    data: &Path,
    vault: &Vault,
    expected: &Expected<'_>,
    (verifier, admin_events): (&LogVerifier, &[FileEvent]),
    pause: impl FnOnce(),
) -> Result<Vec<FolderFault>, AuditError> {
    let folder = FolderCheck { data, vault, expected, verifier };
    let first = folder.faults(Some(admin_events))?;
    if first.iter().all(|fault| fault.is_warning) {
        return Ok(first);
    }
    pause();
    let again = folder.faults(None)?;
    Ok(first.into_iter().filter(|fault| again.contains(fault)).collect())
}

struct FolderCheck<'f> {
    data: &'f Path,
    vault: &'f Vault,
    expected: &'f Expected<'f>,
    verifier: &'f LogVerifier,
}

impl FolderCheck<'_> {
    fn faults(&self, admin_events: Option<&[FileEvent]>) -> Result<Vec<FolderFault>, AuditError> {
        let mut faults = Vec::new();
        faults.extend(self.policy());
        self.names(&mut faults);
        // A copy of a log has no registry and none of the gateway's own keys.
        let is_gateway_s = [FILE, "keys/acts.key", "keys/log.key"].iter().any(|file| self.data.join(file).exists());
        if is_gateway_s && !self.data.join(FILE).exists() {
            faults.push(fault(
                FILE,
                "is missing: put it back before a start, otherwise the gateway starts with an empty registry",
            ));
        }
        let key = if is_gateway_s { self.keys(&mut faults) } else { None };
        faults.extend(self.pseudonyms());
        if is_gateway_s {
            self.unfound(&mut faults)?;
        }
        if self.data.join(FILE).exists() {
            self.signing_keys(&mut faults);
        }
        let logged = logged_state::logged_state_with(self.data, key.as_ref(), admin_events)?;
        let of = |file: &'static str| move |what: String| fault(file, what);
        match logged.faults_of_holds(self.data) {
            Ok(wrong) => faults.extend(wrong.into_iter().map(of("state/holds.json"))),
            Err(error) => faults.push(fault("state/holds.json", error.to_string())),
        }
        match logged.fault_of_alarm(self.data) {
            Ok(wrong) => faults.extend(wrong.map(of("state/fork-alarm.json"))),
            Err(error) => faults.push(fault("state/fork-alarm.json", error.to_string())),
        }
        if is_gateway_s {
            let known: Vec<PathBuf> = faults.iter().map(|fault| fault.file.clone()).collect();
            let differences = logged.files().differences(self.data).into_iter();
            let of = |one: FileDifference| FolderFault { is_warning: one.is_warning, ..fault(one.file, one.what) };
            faults.extend(differences.map(of).filter(|fault| !known.contains(&fault.file)));
            let fetched = names_in(&self.data.join("state")).into_iter().filter(|name| is_fetched(name));
            for file in fetched.map(|name| format!("state/{name}")).filter(|file| logged.files().last(file).is_none()) {
                let what = "is a revocation list that the log does not record: it was never in force here, or only under an earlier version";
                faults.push(FolderFault { is_warning: true, ..fault(file, what) });
            }
        }
        Ok(faults)
    }

    /// The configuration decides which witnesses count, not the file beside the log.
    fn policy(&self) -> Option<FolderFault> {
        let configured = self.expected.policy?;
        let there = match std::fs::read_to_string(LogPaths::new(self.data).tiles.join(reader::POLICY_FILE)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Some(fault("log/policy", error.to_string())),
        };
        let what =
            "is not the policy of the configuration (log.witness_policy): the gateway writes it at its next start";
        (there.as_deref() != configured).then(|| fault("log/policy", what))
    }

    /// Checks the keys of the log and of events, and what the latter authenticates; returns that key.
    fn keys(&self, faults: &mut Vec<FolderFault>) -> Option<AdminEventKey> {
        const LOG_KEY: &str = "keys/log.key";
        let read = self.vault.read(&self.data.join(LOG_KEY));
        // The key has exactly its own length: nothing follows it.
        let is_whole = |bytes: &[u8]| bytes.get(1).is_some_and(|length| bytes.len() == 2 + usize::from(*length));
        let signer = |bytes: &[u8]| LogSigner::from_pkcs8(self.verifier.origin(), bytes).filter(|_| is_whole(bytes));
        match read.map(|bytes| signer(&bytes)) {
            Ok(Some(signer)) if signer.verifier().to_string() == self.verifier.to_string() => {}
            Ok(Some(_)) => {
                faults.push(fault(LOG_KEY, "is not the key of this log: put the right one back before a start"))
            }
            Ok(None) => faults.push(fault(LOG_KEY, "is not a key: put it back before a start")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                faults.push(fault(LOG_KEY, "is missing: put it back, or start a new log under a new origin"));
            }
            Err(error) => faults.push(fault(LOG_KEY, error.to_string())),
        }
        if index::is_record_foreign(self.data, self.vault) {
            let what =
                "was not written with keys/index.key: one of the two was changed; audit verify --index rewrites it";
            faults.push(fault("state/index-verified.json", what));
        }
        match AdminEventKey::read(&self.data.join(FILE), self.vault) {
            Ok(Some(key)) => {
                let what = "was not written with keys/acts.key: one of the two was changed; it counts for nothing, and a start writes it \
                            anew";
                let own = |path: PathBuf| path.strip_prefix(self.data).unwrap_or(&path).to_owned();
                faults.extend(scan::foreign(self.data, &key).into_iter().map(|path| fault(own(path), what)));
                self.vouched(&key, faults);
                Some(key)
            }
            Ok(None) => {
                faults.push(fault(
                    "keys/acts.key",
                    "is missing or not a key: admin events that wait for the log are not accepted without it",
                ));
                None
            }
            Err(error) => {
                faults.push(fault("keys/acts.key", error.to_string()));
                None
            }
        }
    }

    /// Checks the records of revocation lists, quotas and drift: no entry of the log covers their content.
    fn vouched(&self, key: &AdminEventKey, faults: &mut Vec<FolderFault>) {
        let known = [
            (
                REVOCATION,
                "was not written with keys/acts.key: one of the two was changed, so that nobody knows whether revocation lists went \
                 back; compare the lists with what their CAs publish, then remove it",
            ),
            (
                "state/drift.json",
                "was not written with keys/acts.key: one of the two was changed; it is ignored, and drift counts start again",
            ),
        ];
        for (file, what) in known {
            if state_file::is_foreign(&self.data.join(file), key) {
                faults.push(fault(file, what));
            }
        }
        if self.expected.revocation && !self.data.join(REVOCATION).exists() {
            let what = "is missing: nobody knows whether revocation lists went back; compare them with what their CAs publish (a start \
                        takes those that are there for the first)";
            faults.push(fault(REVOCATION, what));
        }
        match usage::is_foreign(&self.data.join(usage::FILE), key) {
            Ok(false) => {}
            Ok(true) => {
                let what = "was not written with keys/acts.key: one of the two was changed; it counts for nothing, and a start counts \
                            the day's calls from the log";
                faults.push(fault(usage::FILE, what));
            }
            Err(error) => faults.push(fault(usage::FILE, error.to_string())),
        }
    }

    /// A key of pseudonyms that is not the one that was made is a fault; a missing one may have been destroyed on
    /// purpose.
    fn pseudonyms(&self) -> Vec<FolderFault> {
        let folder = pseudonym::folder(self.data);
        if !folder.exists() {
            return Vec::new();
        }
        let found = pseudonym::check(&folder).unwrap_or_else(|error| vec![error.to_string()]);
        let of = |what: String| {
            let is_warning = what.contains(" is gone");
            FolderFault { file: "keys/pseudonyms".into(), what, is_warning }
        };
        found.into_iter().map(of).collect()
    }

    /// Finds periods in which the log names people by keys that are missing together with their marks: a proper
    /// destruction leaves the mark.
    fn unfound(&self, faults: &mut Vec<FolderFault>) -> Result<(), AuditError> {
        let folder = pseudonym::folder(self.data);
        let known = names_in(&folder).iter().filter_map(|name| Some(name.rsplit_once('.')?.0.to_owned())).collect();
        let reader = reader::LogReader::open(self.data)?;
        let index = index::SearchIndex::read(self.data, self.vault);
        let until = Instant::now() + LOOKED_FOR;
        for period in periods::unknown(&reader, index.as_ref(), &known, (None, None), until)? {
            let what = format!(
                "the log names people by the key of {period}, which is missing: nobody of that period can be found; put it back"
            );
            faults.push(fault("keys/pseudonyms", what));
        }
        Ok(())
    }

    /// Checks that each signing key of tokens belongs to its public key in the registry.
    fn signing_keys(&self, faults: &mut Vec<FolderFault>) {
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        let mut take = |record| {
            if let FileRecord::Complete(object, record) = record
                && let Some(kid) = object.strip_prefix("key:")
            {
                let record: Value = serde_json::from_str(&record).unwrap_or_default();
                known.insert(kid.to_owned(), record["public_pem"].as_str().unwrap_or_default().to_owned());
            }
        };
        let read = RegistryFile::open(&self.data.join(FILE)).and_then(|file| file.records(&mut take));
        if let Err(error) = read {
            return faults.push(fault(FILE, error.to_string()));
        }
        let folder = self.data.join("keys/signing");
        let path = |kid: &str| PathBuf::from(format!("keys/signing/{kid}.pem"));
        for (kid, public) in known.iter().filter(|_| !self.expected.hsm) {
            let text = match self.vault.read(&self.data.join(path(kid))) {
                Ok(text) => text,
                Err(error) => {
                    faults.push(fault(path(kid), format!("{error}: no token is signed with it")));
                    continue;
                }
            };
            let pair = std::str::from_utf8(&text).ok().and_then(|text| rcgen::KeyPair::from_pem(text).ok());
            let is_own = |pair: &rcgen::KeyPair| {
                pair.public_key_pem() == *public && pair.serialize_pem().as_bytes() == text.as_slice()
            };
            if !pair.as_ref().is_some_and(is_own) {
                faults.push(fault(
                    path(kid),
                    "is not the key with this id in the registry: put it back, or create a new one",
                ));
            }
        }
        for name in names_in(&folder) {
            if !name.strip_suffix(".pem").is_some_and(|kid| known.contains_key(kid)) && !is_unfinished(&name) {
                faults.push(fault(format!("keys/signing/{name}"), "is not a key in the registry: remove it"));
            }
        }
    }

    /// Finds files that a gateway does not write; verification of the log and the journal reports those among their
    /// files.
    fn names(&self, faults: &mut Vec<FolderFault>) {
        const KNOWN: [(&str, &[&str]); 3] = [
            ("keys", &["log.key", "acts.key", "index.key", ".making", "pseudonyms", "signing"]),
            (
                "state",
                &[
                    "signed-checkpoint",
                    "fork-alarm.json",
                    "gateway",
                    "holds.json",
                    "acts.json",
                    "drift.json",
                    "intents-ended",
                    "index-verified.json",
                    "revocation.json",
                ],
            ),
            ("index", &["log.sqlite", "log.sqlite-wal", "log.sqlite-shm"]),
        ];
        for (folder, known) in KNOWN {
            for name in names_in(&self.data.join(folder)) {
                let fetched = folder == "state" && is_fetched(&name);
                if !known.contains(&name.as_str()) && !fetched && !is_unfinished(&name) {
                    faults.push(fault(
                        format!("{folder}/{name}"),
                        "is not a file of a gateway: investigate it, then remove it",
                    ));
                }
            }
        }
        let making = std::fs::metadata(self.data.join("keys/.making")).map_or(0, |found| found.len());
        if making > 0 {
            faults.push(fault("keys/.making", "has contents that no gateway wrote: remove them"));
        }
    }
}

/// Returns whether this is the name of an unfinished file that a crash left, or of the previous version of a replaced
/// file.
fn is_unfinished(name: &str) -> bool {
    Path::new(name).extension().and_then(|end| end.to_str()).is_some_and(|end| end.starts_with("new"))
}

/// Returns whether a file below `state` is a cached revocation list.
fn is_fetched(name: &str) -> bool {
    name.starts_with("fetched") && name.ends_with(".crl")
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
