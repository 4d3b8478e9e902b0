//! Cosignatures of witnesses (https://c2sp.org/tlog-cosignature; ML-DSA-44, and Ed25519), and the policy that sets how
//! many of them a checkpoint needs (https://c2sp.org/tlog-policy).

use super::checkpoint::{Checkpoint, CheckpointError, LogVerifier};
use super::note::{self, Note, NoteError, Signature, VerifierKey};
use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair, ML_DSA_44, ML_DSA_44_SIGNING, PqdsaKeyPair, UnparsedPublicKey,
};
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// Bytes of the time before each signature.
const TIME: usize = 8;
/// The beginning of the message that an ML-DSA-44 cosigner signs.
const SUBTREE_LABEL: &[u8; 12] = b"subtree/v1\n\0";
/// How far the clocks of a log, its witnesses and a verifier may differ, in seconds.
pub const CLOCK_SKEW: u64 = 300;

/// A witness's signature algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Signs the checkpoint's text.
    Ed25519,
    /// Signs origin, size and root, and its own name; resists quantum computers.
    MlDsa44,
}

impl Algorithm {
    /// Every algorithm, the one for new deployments first.
    pub const ALL: [Algorithm; 2] = [Algorithm::MlDsa44, Algorithm::Ed25519];

    /// Its signature type in signed notes.
    fn signature_type(self) -> u8 {
        match self {
            Algorithm::Ed25519 => 0x04,
            Algorithm::MlDsa44 => 0x06,
        }
    }

    /// Bytes of a public key and of a signature.
    fn lengths(self) -> (usize, usize) {
        match self {
            Algorithm::Ed25519 => (32, 64),
            Algorithm::MlDsa44 => (1_312, 2_420),
        }
    }

    /// Returns a new private key, as PKCS#8; `None` if the system has no random numbers.
    pub fn generate(self) -> Option<Vec<u8>> {
        match self {
            Algorithm::Ed25519 => super::checkpoint::LogSigner::generate(),
            Algorithm::MlDsa44 => {
                let pair = PqdsaKeyPair::generate(&ML_DSA_44_SIGNING).ok()?;
                Some(pair.to_pkcs8v1().ok()?.as_ref().to_vec())
            }
        }
    }

    /// Returns the message that is signed for a checkpoint with this complete text.
    fn message(self, name: &str, time: u64, text: &str, checkpoint: &Checkpoint) -> Option<Vec<u8>> {
        match self {
            Algorithm::Ed25519 => Some(format!("cosignature/v1\ntime {time}\n{text}").into_bytes()),
            Algorithm::MlDsa44 => {
                let mut message = SUBTREE_LABEL.to_vec();
                push_short(&mut message, name)?;
                message.extend(time.to_be_bytes());
                push_short(&mut message, &checkpoint.origin)?;
                message.extend(0_u64.to_be_bytes());
                message.extend(checkpoint.size.to_be_bytes());
                message.extend(checkpoint.root);
                Some(message)
            }
        }
    }
}

/// Appends 1 to 255 bytes after their length (RFC 8446, section 3.4).
fn push_short(message: &mut Vec<u8>, text: &str) -> Option<()> {
    message.push(u8::try_from(text.len()).ok().filter(|length| *length > 0)?);
    message.extend(text.as_bytes());
    Some(())
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    MlDsa44(PqdsaKeyPair),
}

/// Signs for a witness.
pub struct Cosigner {
    key: WitnessKey,
    pair: Pair,
}

impl Cosigner {
    /// Makes a cosigner from a PKCS#8 key; `None` if it is of another algorithm.
    pub fn from_pkcs8(name: &str, algorithm: Algorithm, pkcs8: &[u8]) -> Option<Self> {
        let pair = match algorithm {
            Algorithm::Ed25519 => Pair::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8).ok()?),
            Algorithm::MlDsa44 => Pair::MlDsa44(PqdsaKeyPair::from_pkcs8(&ML_DSA_44_SIGNING, pkcs8).ok()?),
        };
        let public = match &pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Pair::MlDsa44(pair) => pair.public_key().as_ref().to_vec(),
        };
        let key = VerifierKey { name: name.to_owned(), signature_type: algorithm.signature_type(), key: public };
        Some(Cosigner { key: WitnessKey { algorithm, key }, pair })
    }

    /// Returns what others need to check its cosignatures.
    pub fn key(&self) -> &WitnessKey {
        &self.key
    }

    /// Returns the signature line for a checkpoint with this complete text; `time` in Unix seconds. `None` if the
    /// message cannot be signed: the name or the origin is longer than 255 bytes.
    pub fn cosign(&self, text: &str, checkpoint: &Checkpoint, time: u64) -> Option<String> {
        let key = &self.key.key;
        let message = self.key.algorithm.message(&key.name, time, text, checkpoint)?;
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.sign(&message).as_ref().to_vec(),
            Pair::MlDsa44(pair) => {
                let mut signature = vec![0; self.key.algorithm.lengths().1];
                pair.sign(&message, &mut signature).ok()?;
                signature
            }
        };
        Some(note::signature_line(&key.name, key.id(), &[&time.to_be_bytes(), signature.as_slice()].concat()))
    }
}

/// A witness's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    algorithm: Algorithm,
    key: VerifierKey,
}

impl std::fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key.fmt(f)
    }
}

impl WitnessKey {
    /// Reads `name+hash+key`.
    ///
    /// # Errors
    /// [`CheckpointError::BadKey`].
    pub fn parse(vkey: &str) -> Result<Self, CheckpointError> {
        let key = VerifierKey::parse(vkey).ok_or(CheckpointError::BadKey)?;
        let of = |algorithm: &Algorithm| {
            algorithm.signature_type() == key.signature_type && algorithm.lengths().0 == key.key.len()
        };
        let algorithm = Algorithm::ALL.into_iter().find(of).ok_or(CheckpointError::BadKey)?;
        Ok(WitnessKey { algorithm, key })
    }

    /// Returns the lines of a note that are this witness's cosignatures, with their times (Unix seconds).
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] if a line under this key's name and id does not verify.
    pub fn find<'n>(&self, note: &Note<'n>, checkpoint: &Checkpoint) -> Result<Vec<(&'n str, u64)>, NoteError> {
        let verify = |one: &Signature<'_>| self.verifies(one, note.text, checkpoint).is_some();
        let own = note.signed_by(&self.key.name, self.key.id(), verify)?;
        Ok(own.into_iter().filter_map(|one| Some((one.line, time_of(one)?))).collect())
    }

    fn verifies(&self, signature: &Signature<'_>, text: &str, checkpoint: &Checkpoint) -> Option<()> {
        let (time, bytes) = (time_of(signature)?, &signature.bytes[TIME..]);
        let message = self.algorithm.message(&self.key.name, time, text, checkpoint)?;
        let verified = match self.algorithm {
            Algorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, &self.key.key).verify(&message, bytes),
            Algorithm::MlDsa44 => UnparsedPublicKey::new(&ML_DSA_44, &self.key.key).verify(&message, bytes),
        };
        verified.ok()
    }
}

/// Returns the time of a cosignature, in Unix seconds; `None` if it is too short, zero, or beyond 2^63.
fn time_of(signature: &Signature<'_>) -> Option<u64> {
    let time = u64::from_be_bytes(*signature.bytes.first_chunk::<TIME>()?);
    (1..=i64::MAX.unsigned_abs()).contains(&time).then_some(time)
}

/// Returns the times (Unix seconds) that a cosignature may have: not before the newest known entry of its tree, and not
/// in the future, by [`CLOCK_SKEW`] each.
pub fn plausible_times(newest_entry_us: i64, now: i64) -> RangeInclusive<u64> {
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    seconds(newest_entry_us / 1_000_000).saturating_sub(CLOCK_SKEW).max(1)..=seconds(now) + CLOCK_SKEW
}

/// A cosignature that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature<'n> {
    /// The witness's name in the policy.
    pub witness: String,
    /// The signature line, its final newline included.
    pub line: &'n str,
    /// When it was made, in Unix seconds.
    pub time: u64,
}

/// A witness of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Its name in the policy.
    pub name: String,
    /// Its key.
    pub key: WitnessKey,
    /// The URL to which checkpoints are submitted (the submission prefix), if any.
    pub url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    least: usize,
    members: Vec<String>,
}

/// Defines which cosignatures a checkpoint needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Logs with checkpoints that count; none: any log that the verifier knows otherwise.
    pub logs: Vec<LogVerifier>,
    /// Witnesses.
    pub witnesses: Vec<Witness>,
    groups: Vec<Group>,
    quorum: Option<String>,
}

impl Policy {
    /// Parses a policy file.
    ///
    /// # Errors
    /// A line that is not valid in a policy, uses a name that is not defined above it, or exceeds a bound: its number,
    /// and the reason.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let (mut policy, mut quorum) = (Policy::default(), None);
        for (number, line) in text.lines().enumerate() {
            let wrong = |reason: String| (number + 1, reason);
            let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["log", vkey] | ["log", vkey, _] => {
                    let key = LogVerifier::parse(vkey).map_err(|error| wrong(format!("the log's key: {error}")))?;
                    policy.logs.push(key);
                }
                ["witness", name, vkey, rest @ ..] if rest.len() <= 1 => {
                    let key = WitnessKey::parse(vkey).map_err(|error| wrong(format!("the witness's key: {error}")))?;
                    policy.fresh(name).map_err(wrong)?;
                    if policy.witnesses.iter().any(|other| other.key.key.key == key.key.key) {
                        return Err(wrong("another witness has the same key".into()));
                    }
                    let url = rest.first().map(|url| url.trim_end_matches('/').to_owned());
                    policy.witnesses.push(Witness { name: (*name).into(), key, url });
                }
                ["group", name, least, members @ ..] if !members.is_empty() => {
                    policy.fresh(name).map_err(wrong)?;
                    let group = policy.group(name, least, members).map_err(wrong)?;
                    policy.groups.push(group);
                }
                ["quorum", name] if quorum.is_none() => {
                    if *name != "none" && !policy.knows(name) {
                        return Err(wrong(format!("there is no witness or group {name:?} above")));
                    }
                    quorum = Some((*name).to_owned());
                }
                _ => return Err(wrong("must be log, witness, group or quorum (c2sp.org/tlog-policy)".into())),
            }
        }
        let quorum = quorum.ok_or((text.lines().count(), "there is no quorum line".to_owned()))?;
        policy.quorum = (quorum != "none").then_some(quorum);
        Ok(policy)
    }

    fn knows(&self, name: &str) -> bool {
        self.witnesses.iter().any(|one| one.name == name) || self.groups.iter().any(|one| one.name == name)
    }

    fn fresh(&self, name: &str) -> Result<(), String> {
        if name == "none" || self.knows(name) { Err(format!("{name:?} is taken")) } else { Ok(()) }
    }

    fn group(&self, name: &str, least: &str, members: &[&str]) -> Result<Group, String> {
        let least = match least {
            "all" => members.len(),
            "any" => 1,
            number => number.parse().map_err(|_| format!("{number:?} must be all, any or a number"))?,
        };
        if !(1..=members.len()).contains(&least) {
            return Err(format!("{least} of {} members cannot be", members.len()));
        }
        for (place, member) in members.iter().enumerate() {
            let used = self.groups.iter().flat_map(|group| &group.members).any(|other| other == member);
            if !self.knows(member) {
                return Err(format!("there is no witness or group {member:?} above"));
            }
            if used || members[..place].contains(member) {
                return Err(format!("{member:?} is a member already"));
            }
        }
        Ok(Group { name: name.into(), least, members: members.iter().map(|&member| member.to_owned()).collect() })
    }

    /// Returns whether any cosignature is needed.
    pub fn needs_witnesses(&self) -> bool {
        self.quorum.is_some()
    }

    /// Returns the cosignatures of a checkpoint by witnesses of this policy, at these times (Unix seconds).
    ///
    /// # Errors
    /// The note is malformed, or a line under a witness's name and id does not verify.
    pub fn cosignatures<'n>(
        &self,
        note: &'n str,
        times: &RangeInclusive<u64>,
    ) -> Result<Vec<Cosignature<'n>>, CheckpointError> {
        let note = Note::parse(note)?;
        let checkpoint = Checkpoint::parse(note.text)?;
        let mut counted = Vec::new();
        for witness in &self.witnesses {
            let found = witness.key.find(&note, &checkpoint)?;
            if let Some((line, time)) = found.into_iter().find(|(_, time)| times.contains(time)) {
                counted.push(Cosignature { witness: witness.name.clone(), line, time });
            }
        }
        Ok(counted)
    }

    /// Returns the cosignatures of a checkpoint if they are enough; `None` if they are not.
    ///
    /// # Errors
    /// Those of [`Policy::cosignatures`].
    pub fn quorum<'n>(
        &self,
        note: &'n str,
        times: &RangeInclusive<u64>,
    ) -> Result<Option<Vec<Cosignature<'n>>>, CheckpointError> {
        let found = self.cosignatures(note, times)?;
        Ok(self.is_met(&found).then_some(found))
    }

    fn is_met(&self, found: &[Cosignature<'_>]) -> bool {
        let Some(quorum) = &self.quorum else { return true };
        let mut met: HashMap<&str, bool> = self.witnesses.iter().map(|one| (one.name.as_str(), false)).collect();
        met.extend(found.iter().map(|one| (one.witness.as_str(), true)));
        // Groups use only names that are defined above them.
        for group in &self.groups {
            let count = group.members.iter().filter(|member| met.get(member.as_str()) == Some(&true)).count();
            met.insert(&group.name, count >= group.least);
        }
        met.get(quorum.as_str()) == Some(&true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::checkpoint::LogSigner;

    fn cosigner(name: &str, algorithm: Algorithm) -> Cosigner {
        Cosigner::from_pkcs8(name, algorithm, &algorithm.generate().unwrap()).unwrap()
    }

    const ANY_TIME: RangeInclusive<u64> = 1..=u64::MAX;

    /// A signed checkpoint of this size.
    fn checkpoint(size: u64) -> (String, Checkpoint) {
        let signer = LogSigner::from_pkcs8("log.test/a", &LogSigner::generate().unwrap()).unwrap();
        let note = signer.sign(size, &[1; 32]);
        let checkpoint = Checkpoint::parse(Note::parse(&note).unwrap().text).unwrap();
        (note, checkpoint)
    }

    fn cosign(by: &Cosigner, note: &str, time: u64) -> String {
        let text = Note::parse(note).unwrap().text;
        by.cosign(text, &Checkpoint::parse(text).unwrap(), time).unwrap()
    }

    /// The example of the specification: its lines have the form that this module reads.
    #[test]
    fn a_cosignature_has_the_form_of_the_specification() {
        let line = "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
        let parsed = note::parse_signatures(line).unwrap().remove(0);
        assert_eq!((parsed.bytes.len(), time_of(&parsed)), (TIME + 64, Some(1_679_315_147)));
        let (note, _) = checkpoint(1);
        for (algorithm, length) in [(Algorithm::Ed25519, TIME + 64), (Algorithm::MlDsa44, TIME + 2_420)] {
            let line = cosign(&cosigner("w", algorithm), &note, 7);
            assert_eq!(note::parse_signatures(&line).unwrap()[0].bytes.len(), length);
        }
    }

    #[test]
    fn w_a_cosignature_of_each_algorithm_verifies_and_a_changed_one_spoils_the_note() {
        for algorithm in Algorithm::ALL {
            let (note, checkpoint) = checkpoint(5);
            let witness = cosigner("w.example/1", algorithm);
            let key = WitnessKey::parse(&witness.key().to_string()).unwrap();
            assert_eq!(&key, witness.key());
            let line = cosign(&witness, &note, 9);
            let whole = format!("{note}{line}");
            let find = |note: &str| key.find(&Note::parse(note).unwrap(), &checkpoint).map(|found| found.len());
            assert_eq!(find(&whole), Ok(1));
            // No other key's, and not of another time, tree or name.
            assert_eq!(find(&format!("{note}{}", cosign(&cosigner("w.example/1", algorithm), &note, 9))), Ok(0));
            let signature = note::parse_signatures(&line).unwrap().remove(0);
            for byte in [TIME - 1, TIME, signature.bytes.len() - 1] {
                let mut bytes = signature.bytes.clone();
                bytes[byte] ^= 1;
                let forged = note::signature_line(signature.name, signature.id, &bytes);
                assert_eq!(find(&format!("{note}{forged}")), Err(NoteError::BadSignature), "{byte}");
            }
            let other = Checkpoint { size: 6, ..checkpoint.clone() };
            let moved = whole.replacen("\n5\n", "\n6\n", 1);
            assert_eq!(key.find(&Note::parse(&moved).unwrap(), &other), Err(NoteError::BadSignature));
            let cut = note::signature_line(signature.name, signature.id, &signature.bytes[..TIME]);
            assert_eq!(find(&format!("{note}{cut}")), Err(NoteError::BadSignature));
        }
    }

    #[test]
    fn w_a_cosignature_counts_only_at_a_time_that_can_be() {
        let (note, _) = checkpoint(5);
        let witness = cosigner("w", Algorithm::MlDsa44);
        let policy = Policy::parse(&format!("witness w {}\nquorum w\n", witness.key())).unwrap();
        let times = plausible_times(2_000_000 * 1_000_000, 2_000_100);
        let counts = |time| {
            let cosigned = format!("{note}{}", cosign(&witness, &note, time));
            policy.quorum(&cosigned, &times).map(|found| found.map(|found| found.len()))
        };
        for time in [2_000_000, 2_000_000 - CLOCK_SKEW, 2_000_100 + CLOCK_SKEW] {
            assert!(counts(time).unwrap().is_some(), "{time}");
        }
        for time in [1, 2_000_000 - CLOCK_SKEW - 1, 2_000_101 + CLOCK_SKEW] {
            assert!(counts(time).unwrap().is_none(), "{time}");
        }
        assert_eq!(counts(0), Err(CheckpointError::BadSignature), "no time is no cosignature of a checkpoint");
        assert_eq!(counts(1 << 63), Err(CheckpointError::BadSignature));
        assert_eq!(*plausible_times(0, 0).start(), 1);
    }

    #[test]
    fn a_quorum_holds_by_its_witnesses_and_nothing_else() {
        let signer = LogSigner::from_pkcs8("log.test/a", &LogSigner::generate().unwrap()).unwrap();
        let [x1, y1, other] = ["x1", "y1", "x1"].map(|name| cosigner(name, Algorithm::Ed25519));
        let x2 = cosigner("x2", Algorithm::MlDsa44);
        let text = format!(
            "# two data centres\nlog {}\nwitness X1 {} https://x1/\nwitness X2 {}\nwitness Y1 {}\n\
             group X 1 X1 X2\ngroup both all X Y1\nquorum both\n",
            signer.verifier(),
            x1.key(),
            x2.key(),
            y1.key()
        );
        let policy = Policy::parse(&text).unwrap();
        assert_eq!(policy.witnesses[0].url.as_deref(), Some("https://x1"));
        let note = signer.sign(5, &[1; 32]);
        let cosign = |by: &Cosigner| cosign(by, &note, 9);
        let holds =
            |lines: &[String]| policy.quorum(&format!("{note}{}", lines.concat()), &ANY_TIME).unwrap().is_some();
        assert!(holds(&[cosign(&x2), cosign(&y1)]));
        for lines in [vec![], vec![cosign(&x1), cosign(&x2)], vec![cosign(&y1)], vec![cosign(&other), cosign(&y1)]] {
            assert!(!holds(&lines));
        }
        assert!(Policy::parse("quorum none").unwrap().quorum(&note, &ANY_TIME).unwrap().is_some());
        for bad in ["", "quorum X", "witness a b", "group g 1 x\nquorum g", "quorum none\nquorum none", "log x"] {
            assert!(Policy::parse(bad).is_err(), "{bad}");
        }
    }
}
