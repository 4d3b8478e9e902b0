//! The body of `add-checkpoint`.

use crate::exchange_log::checkpoint::decimal;
use crate::exchange_log::tree::Hash;
use crate::hex::hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Longest consistency proof (C2SP tlog-witness).
const MAX_PROOF: usize = 63;

/// A log's request to a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size of the last checkpoint that the witness has signed, as far as the log knows.
    pub old: u64,
    /// The proof that the new tree begins with that one.
    pub proof: Vec<Hash>,
    /// The new checkpoint, a signed note.
    pub note: String,
}

impl AddCheckpoint {
    /// Returns its text.
    pub fn to_text(&self) -> String {
        let proof: String = self.proof.iter().map(|hash| format!("{}\n", STANDARD.encode(hash))).collect();
        format!("old {}\n{proof}\n{}", self.old, self.note)
    }

    /// Parses its text; `None` if it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, note) = text.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let old = decimal(lines.next()?.strip_prefix("old ")?)?;
        let proof = lines.map(|line| STANDARD.decode(line).ok()?.try_into().ok()).collect::<Option<Vec<Hash>>>()?;
        (proof.len() <= MAX_PROOF).then(|| AddCheckpoint { old, proof, note: note.to_owned() })
    }
}

/// Returns the path at which a witness shows its newest checkpoint of the log with this origin to monitors, below its
/// monitoring prefix.
pub fn checkpoint_path(origin: &str) -> String {
    let name = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, origin.as_bytes());
    format!("/{}/checkpoint", hex(name.as_ref()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received_and_nothing_else() {
        let request = AddCheckpoint { old: 20, proof: vec![[7; 32], [9; 32]], note: "a\n1\nb\n\n— a x\n".into() };
        assert_eq!(AddCheckpoint::parse(&request.to_text()).unwrap(), request);
        let first = AddCheckpoint { old: 0, proof: vec![], ..request };
        assert_eq!(AddCheckpoint::parse(&first.to_text()).unwrap(), first);
        for bad in
            ["", "old 1", "old 01\n\na", "old x\n\na", "new 1\n\na", "old 1\nAAA\n\na", "old -1\n\na", "old 1\r\n\n\na"]
        {
            assert_eq!(AddCheckpoint::parse(bad), None, "{bad}");
        }
    }
}
