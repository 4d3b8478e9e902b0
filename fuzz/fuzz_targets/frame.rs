//! gRPC frames: never a panic, never more than the limit.
#![no_main]

use bytes::Bytes;
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use ndxp_gateway::frame::FrameReader;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(async {
        let mut reader = FrameReader::new(Full::new(Bytes::copy_from_slice(bytes)), 64);
        while let Ok(Some(message)) = reader.next().await {
            assert!(message.len() <= 64);
        }
    });
});
