//! Cosignatures of witnesses (https://c2sp.org/tlog-cosignature, Ed25519), and the policy that says how many make a
//! checkpoint count (https://c2sp.org/tlog-policy).

use super::checkpoint::{CheckpointError, LogVerifier, key_id, open_vkey};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;

/// Signature type of Ed25519 cosignatures in signed notes.
const COSIGNATURE_V1: u8 = 4;
/// Key id, time and signature.
const LENGTH: usize = 4 + 8 + 64;

fn message(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// Signs for a witness.
pub struct Cosigner {
    name: String,
    pair: Ed25519KeyPair,
}

impl Cosigner {
    /// A cosigner from a PKCS#8 key.
    pub fn from_pkcs8(name: &str, pkcs8: &[u8]) -> Option<Self> {
        Some(Cosigner { name: name.to_owned(), pair: Ed25519KeyPair::from_pkcs8(pkcs8).ok()? })
    }

    /// What others need to check its cosignatures, as `name+hash+key`.
    pub fn vkey(&self) -> String {
        WitnessKey { name: self.name.clone(), key: self.pair.public_key().as_ref().to_vec() }.to_string()
    }

    /// The signature line for a checkpoint's text, which ends with a line break; `time` in seconds.
    pub fn cosign(&self, text: &str, time: u64) -> String {
        let signature = self.pair.sign(message(time, text).as_bytes());
        let id = key_id(&self.name, COSIGNATURE_V1, self.pair.public_key().as_ref());
        let bytes = [id.as_slice(), &time.to_be_bytes(), signature.as_ref()].concat();
        format!("— {} {}\n", self.name, STANDARD.encode(bytes))
    }
}

/// A witness's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    key: Vec<u8>,
}

impl std::fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = crate::hex::hex(&key_id(&self.name, COSIGNATURE_V1, &self.key));
        write!(f, "{}+{id}+{}", self.name, STANDARD.encode([&[COSIGNATURE_V1], self.key.as_slice()].concat()))
    }
}

impl WitnessKey {
    /// Reads `name+hash+key`.
    pub fn parse(vkey: &str) -> Result<Self, CheckpointError> {
        let (name, key) = open_vkey(vkey, COSIGNATURE_V1)?;
        Ok(WitnessKey { name, key })
    }

    /// The line of a note that is this witness's valid cosignature, and its time in seconds.
    pub fn find<'n>(&self, text: &str, signatures: &'n str) -> Option<(&'n str, u64)> {
        let id = key_id(&self.name, COSIGNATURE_V1, &self.key);
        signatures.lines().find_map(|line| {
            let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
            let bytes = STANDARD.decode(signature).ok()?;
            if name != self.name || bytes.len() != LENGTH || bytes[..4] != id {
                return None;
            }
            let time = u64::from_be_bytes(bytes[4..12].try_into().ok()?);
            let key = UnparsedPublicKey::new(&ED25519, &self.key);
            key.verify(message(time, text).as_bytes(), &bytes[12..]).ok().map(|()| (line, time))
        })
    }
}

/// A witness of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Its name in the policy.
    pub name: String,
    /// Its key.
    pub key: WitnessKey,
    /// Where it takes checkpoints (the submission prefix), where it is to be asked.
    pub url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    least: usize,
    members: Vec<String>,
}

/// Which cosignatures make a checkpoint count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Logs whose checkpoints count; none: any that is known otherwise.
    pub logs: Vec<LogVerifier>,
    /// Witnesses.
    pub witnesses: Vec<Witness>,
    groups: Vec<Group>,
    quorum: Option<String>,
}

impl Policy {
    /// Reads a policy file; an error says in which line and why.
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
                    if policy.witnesses.iter().any(|other| other.key.key == key.key) {
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

    /// Whether any cosignature is needed.
    pub fn needs_witnesses(&self) -> bool {
        self.quorum.is_some()
    }

    /// The valid cosignatures of a note by witnesses of this policy: name in the policy, line, time in seconds.
    pub fn cosignatures<'n>(&self, note: &'n str) -> Vec<(&str, &'n str, u64)> {
        let Some((text, signatures)) = note.split_once("\n\n") else { return Vec::new() };
        let text = format!("{text}\n");
        let found = |one: &Witness| one.key.find(&text, signatures);
        self.witnesses.iter().filter_map(|one| found(one).map(|(line, time)| (one.name.as_str(), line, time))).collect()
    }

    /// Whether a note has the cosignatures that make it count.
    pub fn holds(&self, note: &str) -> bool {
        let Some(quorum) = &self.quorum else { return true };
        let mut holds: HashMap<&str, bool> = self.witnesses.iter().map(|one| (one.name.as_str(), false)).collect();
        holds.extend(self.cosignatures(note).into_iter().map(|(name, _, _)| (name, true)));
        // Groups name only what stands above them.
        for group in &self.groups {
            let count = group.members.iter().filter(|member| holds.get(member.as_str()) == Some(&true)).count();
            holds.insert(&group.name, count >= group.least);
        }
        holds.get(quorum.as_str()) == Some(&true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::checkpoint::LogSigner;

    fn cosigner(name: &str) -> Cosigner {
        Cosigner::from_pkcs8(name, &LogSigner::generate().unwrap()).unwrap()
    }

    /// The example of the specification: its lines have the form that is read here.
    #[test]
    fn a_cosignature_has_the_form_of_the_specification() {
        let line = "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==";
        let bytes = STANDARD.decode(line.rsplit(' ').next().unwrap()).unwrap();
        assert_eq!((bytes.len(), u64::from_be_bytes(bytes[4..12].try_into().unwrap())), (LENGTH, 1_679_315_147));
        assert_eq!(cosigner("w").cosign("a\n1\nb\n", 7).len(), "— w \n".len() + LENGTH.div_ceil(3) * 4);
    }

    #[test]
    fn a_quorum_holds_by_its_witnesses_and_nothing_else() {
        let signer = LogSigner::from_pkcs8("log.test/a", &LogSigner::generate().unwrap()).unwrap();
        let [x1, x2, y1, other] = ["x1", "x2", "y1", "x1"].map(cosigner);
        let text = format!(
            "# two data centres\nlog {}\nwitness X1 {} https://x1/\nwitness X2 {}\nwitness Y1 {}\n\
             group X 1 X1 X2\ngroup both all X Y1\nquorum both\n",
            signer.verifier(),
            x1.vkey(),
            x2.vkey(),
            y1.vkey()
        );
        let policy = Policy::parse(&text).unwrap();
        assert_eq!(policy.witnesses[0].url.as_deref(), Some("https://x1"));
        let note = signer.sign(5, &[1; 32]);
        let body = format!("{}\n", note.split_once("\n\n").unwrap().0);
        let with = |lines: &[String]| format!("{note}{}", lines.concat());
        let cosign = |by: &Cosigner| by.cosign(&body, 9);
        assert!(policy.holds(&with(&[cosign(&x2), cosign(&y1)])));
        for lines in [vec![], vec![cosign(&x1), cosign(&x2)], vec![cosign(&y1)], vec![cosign(&other), cosign(&y1)]] {
            assert!(!policy.holds(&with(&lines)));
        }
        let moved = y1.cosign(&body.replace("\n5\n", "\n6\n"), 9);
        assert!(!policy.holds(&with(&[cosign(&x1), moved])));
        assert!(Policy::parse("quorum none").unwrap().holds(&note));
        for bad in ["", "quorum X", "witness a b", "group g 1 x\nquorum g", "quorum none\nquorum none", "log x"] {
            assert!(Policy::parse(bad).is_err(), "{bad}");
        }
    }
}
