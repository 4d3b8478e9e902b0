//! Records issued tokens: many in one transaction, each before it is returned to its client.

use crate::registry::{RegistryError, Store, TokenRecord};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use tokio::sync::oneshot;

/// Tokens that may wait to be recorded: a second at 4,000 a second.
const MAX_WAITING: usize = 4_096;

type PendingRecord = (TokenRecord, oneshot::Sender<bool>);

/// The thread that records.
pub(super) struct Recorder(SyncSender<PendingRecord>);

impl Recorder {
    pub(super) fn start(store: Arc<dyn Store>) -> std::io::Result<Self> {
        let (sender, waiting) = sync_channel::<PendingRecord>(MAX_WAITING);
        let run = move || {
            while let Ok(first) = waiting.recv() {
                let batch: Vec<PendingRecord> = std::iter::once(first).chain(waiting.try_iter()).collect();
                let (records, replies): (Vec<TokenRecord>, Vec<oneshot::Sender<bool>>) = batch.into_iter().unzip();
                let result: Result<(), RegistryError> = store.add_tokens(&records);
                if let Err(error) = &result {
                    tracing::error!(%error, tokens = records.len(), "issued tokens could not be recorded");
                }
                for replies in replies {
                    // A dropped receiver got no token.
                    let _ = replies.send(result.is_ok());
                }
            }
        };
        std::thread::Builder::new().name("token-recorder".into()).spawn(run)?;
        Ok(Recorder(sender))
    }

    /// Records a token; true when it is on disk.
    pub(super) async fn record(&self, record: TokenRecord) -> bool {
        let (replies, recorded) = oneshot::channel();
        self.0.try_send((record, replies)).is_ok() && recorded.await.unwrap_or(false)
    }
}
