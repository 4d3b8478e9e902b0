//! Tiles of the exchange log in an S3-compatible object store: a copy of what is under the published checkpoint, which
//! anybody with read access to the bucket can verify without a gateway.
//!
//! A tile never changes, so it is put only where no object is (`If-None-Match: *`); an object of its name with other
//! bytes is an alarm, and is never overwritten. `checkpoint` is put last, over the one that was read (`If-Match`): what
//! it needs is there. Several sites may write to one bucket, since their tiles are the same.

mod s3;
#[cfg(test)]
mod tests;
mod tiles;
mod uploader;

pub use s3::{ObjectStoreSettings, connect};
pub use uploader::Uploader;

use crate::exchange_log::LogError;

/// The reason that the log is not copied to the store.
#[derive(Debug, thiserror::Error)]
pub enum TileStoreError {
    /// The log cannot be read.
    #[error("the log cannot be read for it: {0}")]
    Log(#[from] LogError),
    /// The store does not do what it is asked for. The detail is for the log: it may differ each time.
    #[error("{reason}")]
    Unavailable {
        /// What it does instead.
        reason: &'static str,
        /// What it returned.
        detail: String,
    },
    /// An object has other bytes than this log.
    #[error("its object {0} is not this log's: it is not overwritten, and nothing is uploaded while it is there")]
    Different(String),
    /// The checkpoint is not one of this log.
    #[error("its checkpoint {0}: nothing is uploaded while it is there")]
    Foreign(String),
    /// The settings make no client.
    #[error("its settings are not usable: {0}")]
    Settings(String),
}

impl TileStoreError {
    /// Returns whether the store holds what nobody who may write there has written.
    pub fn is_alarm(&self) -> bool {
        matches!(self, TileStoreError::Different(_) | TileStoreError::Foreign(_))
    }
}

impl From<object_store::Error> for TileStoreError {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error;
        let reason = match &error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => "it refuses this gateway's key",
            Error::NotFound { .. } => "it has no such bucket",
            Error::NotImplemented { .. } | Error::NotSupported { .. } => "it has no conditional writes",
            _ => "it cannot be reached, or fails",
        };
        TileStoreError::Unavailable { reason, detail: error.to_string() }
    }
}
