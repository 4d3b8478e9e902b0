//! The value of the key `checkpoint` after the log has left etcd: what was sealed until then, and which gateway writes the
//! log alone since. Every other gateway finds it in place of the sealed state, and stops.

use super::ClusterError;
use super::codec::{Decoder, Encoder};
use super::keys::GatewayName;
use super::state::SealedState;

/// Before the value: the format and its version.
const MAGIC: &[u8; 8] = b"ndxpleft";

/// A log that has left etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftLog {
    /// Who writes it alone since.
    pub gateway: GatewayName,
    /// What was sealed until then.
    pub state: SealedState,
}

impl LeftLog {
    /// Returns the value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.fixed(MAGIC).bytes(self.gateway.to_string().as_bytes()).fixed(&self.state.encode());
        out.0
    }

    /// Reads the value; `None` if the log has not left.
    ///
    /// # Errors
    /// [`ClusterError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, ClusterError> {
        let Some(rest) = bytes.strip_prefix(MAGIC) else { return Ok(None) };
        let mut decoder = Decoder(rest);
        let gateway = decoder.text().and_then(GatewayName::parse);
        let gateway =
            gateway.ok_or_else(|| ClusterError::malformed("checkpoint", "not in the form of a log that has left"))?;
        Ok(Some(LeftLog { gateway, state: SealedState::decode(decoder.0)? }))
    }
}

/// Reads the sealed state of a log that is here.
///
/// # Errors
/// [`ClusterError::Left`]; [`ClusterError::Malformed`].
pub fn present(bytes: &[u8]) -> Result<SealedState, ClusterError> {
    match LeftLog::decode(bytes)? {
        Some(left) => Err(ClusterError::Left(left.gateway)),
        None => SealedState::decode(bytes),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_has_left_is_read_back_and_never_taken_for_one_that_is_here() {
        let state = SealedState { note: "note".into(), ..SealedState::begin([9; 16]) };
        let left = LeftLog { gateway: GatewayName::parse("dc1").unwrap(), state: state.clone() };
        let bytes = left.encode();
        assert_eq!(LeftLog::decode(&bytes).unwrap(), Some(left.clone()));
        assert_eq!(present(&bytes), Err(ClusterError::Left(left.gateway)));
        assert_eq!((LeftLog::decode(&state.encode()).unwrap(), present(&state.encode()).unwrap()), (None, state));
        for length in MAGIC.len()..bytes.len() {
            assert!(LeftLog::decode(&bytes[..length]).is_err(), "{length}");
        }
    }
}
