//! Pseudonyms and commitments, under keys that are stored apart from the log and can be destroyed by period.
//!
//! A period is a month. Its file `keys/<yyyy-MM>.key` holds 64 random bytes: a pseudonym key and a salt key. A
//! pseudonym is the first half of HMAC-SHA-256(pseudonym key, kind ‖ 0 ‖ id). A commitment is SHA-256(salt ‖ bytes).
//! The salt is the first 128 bits of HMAC-SHA-256(salt key, exchange id ‖ direction): fresh for each message and
//! indistinguishable from random without the key, so that one small file stands for all salts of the period. Destroying
//! the file makes the period's entries anonymous (except for callers who kept their salts) while every proof remains
//! valid.

use super::LogError;
use super::entry::Pseudonym;
use crate::keyfile::SharedSecrets;
use aws_lc_rs::hmac;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use zeroize::Zeroizing;

/// A message's salt, sent to the caller with the response.
pub type Salt = [u8; 16];

/// The message of an exchange that a salt belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The request.
    Request,
    /// The response.
    Response,
}

/// The kind of person that a pseudonym stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PersonKind {
    /// A person or enterprise that the exchange is about.
    Subject,
    /// The official who acts for the agency.
    Official,
}

/// The keys of one period.
pub struct PeriodKeys {
    period: String,
    pseudonym: hmac::Key,
    salt: hmac::Key,
}

/// All periods' keys, read from their folder as needed.
pub struct Pseudonyms {
    folder: PathBuf,
    current: RwLock<HashMap<String, Arc<PeriodKeys>>>,
    /// Periods with keys that this process made, not read.
    made: Mutex<HashSet<String>>,
    /// Where several gateways agree on them.
    shared: Option<Arc<dyn SharedSecrets>>,
}

/// Before the periods, in the names of shared keys.
const SHARED: &str = "pseudonyms/";

/// Bytes of a period's key file: a pseudonym key and a salt key.
const KEY_BYTES: usize = 64;

/// The digest that identifies a period's key.
fn digest(key: &[u8]) -> String {
    let bytes = [b"ndxp period key\0".as_slice(), key].concat();
    crate::hex::hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes).as_ref())
}

/// The period of a Unix time in microseconds, in Ho Chi Minh City.
pub fn period_of(time_us: i64) -> String {
    // Times out of range share one period.
    let time = jiff::Timestamp::from_microsecond(time_us).map(|time| crate::time_zone::HO_CHI_MINH.to_datetime(time));
    let (year, month) = time.ok().filter(|time| time.year() > 0).map_or((0, 0), |time| (time.year(), time.month()));
    format!("{year:04}-{month:02}")
}

/// Returns the folder of a data folder's keys: apart from the log, so that they can be destroyed separately.
pub fn folder(data: &Path) -> PathBuf {
    data.join("keys").join("pseudonyms")
}

/// Lists the faults of the keys below a folder: a key that is not the one that was made, or is missing (also if it was
/// destroyed on purpose), or has no mark. Changes nothing.
///
/// # Errors
/// The folder cannot be read.
pub fn check(folder: &Path) -> Result<Vec<String>, LogError> {
    let entries = std::fs::read_dir(folder).map_err(|error| LogError::io(folder, &error))?;
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let mut faults = Vec::new();
    let of = |ending: &'static str| names.iter().filter_map(move |name| name.strip_suffix(ending));
    for period in of(".key") {
        let read = |ending| std::fs::read(folder.join(format!("{period}.{ending}"))).map(Zeroizing::new);
        match (read("key"), read("made")) {
            (Ok(key), Ok(made)) if key.len() == KEY_BYTES && made.as_slice() == digest(&key).as_bytes() => {}
            (Ok(key), Err(_)) if key.len() == KEY_BYTES => {
                faults.push(format!("the key of {period} has no mark ({period}.made)"))
            }
            _ => faults.push(format!("the key of {period} is not the one that was made")),
        }
    }
    let gone = of(".made").filter(|period| !of(".key").any(|other| other == *period));
    faults.extend(gone.map(|period| format!("the key of {period} is gone: nobody of that period can be found")));
    faults.sort();
    Ok(faults)
}

/// Returns the periods with a key that was made, each with the SHA-256 of its mark, in order. Empty marks, of earlier
/// versions, are skipped until they are rewritten.
///
/// # Errors
/// The folder cannot be read.
pub fn marks(folder: &Path) -> Result<Vec<(String, String)>, LogError> {
    let fail = |error: std::io::Error| LogError::io(folder, &error);
    let mut marks = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let Some(period) = name.to_str().and_then(|name| name.strip_suffix(".made")) else { continue };
        let mark = std::fs::read(folder.join(&name)).map_err(fail)?;
        if !mark.is_empty() {
            marks.push((period.to_owned(), crate::hex::sha256(&mark)));
        }
    }
    marks.sort();
    Ok(marks)
}

impl Pseudonyms {
    /// Opens the keys below `folder`, which is created.
    ///
    /// # Errors
    /// [`LogError::Io`] if the folder cannot be created.
    pub fn open(folder: &Path) -> Result<Self, LogError> {
        super::make_folder(folder)?;
        let (current, made) = (RwLock::default(), Mutex::default());
        Ok(Pseudonyms { folder: folder.to_owned(), current, made, shared: None })
    }

    /// Agrees on new keys with the other gateways of this log: a person has one pseudonym in a period.
    pub fn shared(self, secrets: Arc<dyn SharedSecrets>) -> Self {
        Pseudonyms { shared: Some(secrets), ..self }
    }

    /// Fetches the keys that other gateways have made, so that searches here find their entries, and agrees on that of a time
    /// ahead, so that no call waits for it. A key that was destroyed here is not fetched again.
    ///
    /// # Errors
    /// As for [`Pseudonyms::keys`]; the other gateways cannot be asked.
    pub fn keep_up(&self, ahead_us: i64) -> Result<(), LogError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let names = shared.names(SHARED).map_err(|error| LogError::io(&self.folder, &error))?;
        let is_period = |text: &&str| text.len() == 7 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        for period in names.iter().filter_map(|name| name.strip_prefix(SHARED)).filter(is_period) {
            let is_known = ["key", "made"].iter().any(|end| self.folder.join(format!("{period}.{end}")).exists());
            if !is_known {
                self.load_or_make(period)?;
            }
        }
        self.keys(ahead_us).map(drop)
    }

    /// Returns whether this process made the key of a period.
    pub fn made(&self, period: &str) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(period)
    }

    /// Returns the keys of the period of a time, and makes them if there are none yet.
    ///
    /// # Errors
    /// [`LogError::Io`] if they cannot be read or written; [`LogError::Corrupt`] if the key is not the one that was
    /// made, or is missing.
    pub fn keys(&self, time_us: i64) -> Result<Arc<PeriodKeys>, LogError> {
        let period = period_of(time_us);
        if let Some(keys) = self.current.read().ok().and_then(|known| known.get(&period).cloned()) {
            return Ok(keys);
        }
        let mut known = self.current.write().map_err(|_| LogError::Closed)?;
        if let Some(keys) = known.get(&period) {
            return Ok(keys.clone());
        }
        let keys = Arc::new(self.load_or_make(&period)?);
        known.insert(period, keys.clone());
        Ok(keys)
    }

    /// Returns the keys of every period that still has them, for searches by id.
    ///
    /// # Errors
    /// As for [`Pseudonyms::keys`].
    pub fn all(&self) -> Result<Vec<PeriodKeys>, LogError> {
        self.periods()?.iter().map(|period| self.load_or_make(period)).collect()
    }

    /// Returns the periods that still have keys, in order.
    ///
    /// # Errors
    /// [`LogError::Io`] if the folder cannot be read.
    pub fn periods(&self) -> Result<Vec<String>, LogError> {
        let entries = std::fs::read_dir(&self.folder).map_err(|error| LogError::io(&self.folder, &error))?;
        let mut periods: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".key").map(str::to_owned))
            .collect();
        periods.sort();
        Ok(periods)
    }

    fn load_or_make(&self, period: &str) -> Result<PeriodKeys, LogError> {
        let path = self.folder.join(format!("{period}.key"));
        let fail = |error: std::io::Error| LogError::io(&path, &error);
        // The mark records that this period had a key: a second key in its place would make the first one's entries
        // unfindable, unnoticed. It holds a digest of the key (which does not reveal the key): another key in its place
        // would find nobody either.
        let made = self.folder.join(format!("{period}.made"));
        let mark = |key: &[u8]| super::write_atomically(&made, digest(key).as_bytes());
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => {
                let bytes = Zeroizing::new(bytes);
                match std::fs::read(&made) {
                    Ok(marked) if marked == digest(&bytes).as_bytes() => {}
                    // Marks of earlier versions are empty.
                    Ok(marked) if marked.is_empty() && bytes.len() == KEY_BYTES => mark(&bytes)?,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound && bytes.len() == KEY_BYTES => {
                        mark(&bytes)?
                    }
                    Ok(_) => {
                        let reason = format!(
                            "is not the key that was made for this period (its digest is in {}): bring that one back, or nobody of \
                             the period is found",
                            made.display()
                        );
                        return Err(LogError::corrupt(&path, 0, reason));
                    }
                    Err(error) => return Err(fail(error)),
                }
                bytes
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if made.exists() {
                    let reason = format!(
                        "the key of this period was made before and is gone: bring it back, or, where it was destroyed on \
                         purpose and the period is not over, remove {} to begin another",
                        made.display()
                    );
                    return Err(LogError::corrupt(&path, 0, reason));
                }
                // One process at a time; the second one uses what the first has created.
                let lock = std::fs::File::create(self.folder.join(".making")).map_err(fail)?;
                lock.lock().map_err(fail)?;
                if path.exists() {
                    drop(lock);
                    return self.load_or_make(period);
                }
                let mut fresh = Zeroizing::new(vec![0; KEY_BYTES]);
                aws_lc_rs::rand::fill(&mut fresh).map_err(|_| LogError::corrupt(&path, 0, "no random numbers"))?;
                if let Some(shared) = &self.shared {
                    fresh = shared.agree(&format!("{SHARED}{period}"), &fresh).map_err(fail)?;
                }
                if fresh.len() != KEY_BYTES {
                    return Err(LogError::corrupt(&path, 0, "not 64 bytes"));
                }
                mark(&fresh)?;
                crate::keyfile::write_private(&path, &fresh).map_err(fail)?;
                super::sync_folder(&self.folder)?;
                self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(period.to_owned());
                fresh
            }
            Err(error) => return Err(fail(error)),
        };
        if bytes.len() != KEY_BYTES {
            return Err(LogError::corrupt(&path, 0, "not 64 bytes"));
        }
        Ok(PeriodKeys {
            period: period.to_owned(),
            pseudonym: hmac::Key::new(hmac::HMAC_SHA256, &bytes[..32]),
            salt: hmac::Key::new(hmac::HMAC_SHA256, &bytes[32..]),
        })
    }
}

impl PeriodKeys {
    /// Returns the pseudonym of an id.
    pub fn pseudonym(&self, kind: PersonKind, id: &str) -> Pseudonym {
        let label: &[u8] = match kind {
            PersonKind::Subject => b"subject\0",
            PersonKind::Official => b"official\0",
        };
        let tag = hmac::sign(&self.pseudonym, &[label, id.as_bytes()].concat());
        Pseudonym { key: self.period.clone(), value: tag.as_ref()[..16].to_vec() }
    }

    /// Returns the salt of a message.
    pub fn salt(&self, exchange_id: &[u8; 16], direction: Direction) -> Salt {
        let tag = hmac::sign(&self.salt, &[exchange_id.as_slice(), &[direction as u8]].concat());
        let mut salt = [0; 16];
        salt.copy_from_slice(&tag.as_ref()[..16]);
        salt
    }
}

/// Returns the commitment to a message.
pub fn commit(salt: &Salt, bytes: &[u8]) -> Vec<u8> {
    let mut commitment = Commitment::new(salt);
    commitment.update(bytes);
    commitment.finish()
}

/// A commitment to a stream: its messages one after the other, each after its length, so that none can be moved.
pub struct Commitment(aws_lc_rs::digest::Context);

impl Commitment {
    /// Begins with the salt.
    pub fn new(salt: &Salt) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(salt);
        Commitment(context)
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds a message of a stream.
    pub fn message(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// The commitment.
    pub fn finish(self) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Secrets that two gateways share.
    #[derive(Default)]
    struct Agreed(Mutex<BTreeMap<String, Vec<u8>>>);

    impl SharedSecrets for Agreed {
        fn agree(&self, name: &str, secret: &[u8]) -> std::io::Result<Zeroizing<Vec<u8>>> {
            let mut all = self.0.lock().unwrap();
            Ok(Zeroizing::new(all.entry(name.to_owned()).or_insert_with(|| secret.to_vec()).clone()))
        }

        fn get(&self, name: &str) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
            Ok(self.0.lock().unwrap().get(name).cloned().map(Zeroizing::new))
        }

        fn names(&self, prefix: &str) -> std::io::Result<Vec<String>> {
            Ok(self.0.lock().unwrap().keys().filter(|name| name.starts_with(prefix)).cloned().collect())
        }
    }

    #[test]
    fn a_person_has_one_pseudonym_at_all_gateways_and_a_destroyed_key_does_not_come_back() {
        const MONTH_US: i64 = 31 * 86_400 * 1_000_000;
        let (folder, agreed) = (tempfile::tempdir().unwrap(), Arc::new(Agreed::default()));
        let open = |name: &str| Pseudonyms::open(&folder.path().join(name)).unwrap().shared(agreed.clone());
        let (one, other) = (open("one"), open("other"));
        let of = |keys: &Pseudonyms| keys.keys(0).unwrap().pseudonym(PersonKind::Subject, "012345678901");
        assert_eq!(of(&one), of(&other));
        // Another one's key of a later month is there before it is needed.
        one.keys(2 * MONTH_US).unwrap();
        other.keep_up(MONTH_US).unwrap();
        assert_eq!(other.periods().unwrap().len(), 3);
        std::fs::remove_file(folder.path().join("other/1970-01.key")).unwrap();
        open("other").keep_up(MONTH_US).unwrap();
        assert_eq!(other.periods().unwrap().len(), 2, "it was destroyed on purpose");
        // What is no period is no file's name.
        agreed.agree("pseudonyms/../../x", &[0; KEY_BYTES]).unwrap();
        other.keep_up(MONTH_US).unwrap();
    }
}
