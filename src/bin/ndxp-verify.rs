//! The verifier for those who do not run a gateway: receipts, exports, checkpoints and copies of logs, offline.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ndxp_gateway::cli::run_verifier()
}
