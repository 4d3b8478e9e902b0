//! Keys and values of a log over etcd: never a panic, and no batch that is larger than permitted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ndxp_gateway::cluster::batch::{EncodedBatch, MAX_BATCH_BYTES, WriterBatch};
use ndxp_gateway::cluster::highest::HighestSeen;
use ndxp_gateway::cluster::registry::change::decode_row;
use ndxp_gateway::cluster::state::SealedState;
use ndxp_gateway::cluster::{Incarnation, keys, left};

fuzz_target!(|bytes: &[u8]| {
    for bytes in [bytes.to_vec(), [b"ndxpbat2", bytes].concat(), [b"ndxpseal", bytes].concat()] {
        if let Ok(batch) = EncodedBatch::from_bytes(bytes.clone())
            && let Ok(read) = WriterBatch::decode(&bytes, &batch.writer, batch.seq)
        {
            assert!(read.entries.iter().map(Vec::len).sum::<usize>() <= MAX_BATCH_BYTES);
            assert_eq!(WriterBatch::decode(&read.encode().bytes, &batch.writer, batch.seq).ok(), Some(read));
        }
        if let Ok(state) = SealedState::decode(&bytes) {
            assert_eq!(state.encode(), bytes);
        }
        let _ = (left::present(&bytes), HighestSeen::decode(&bytes), keys::parse_batch_key(&bytes));
        let _ = (keys::parse_mark_key(&bytes), keys::parse_number(&bytes), decode_row(&bytes, &bytes));
        let _ = Incarnation::parse(&String::from_utf8_lossy(&bytes));
    }
});
