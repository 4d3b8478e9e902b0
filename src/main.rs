//! The command line of the NDXP gateway.

#![forbid(unsafe_code)]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // The allocator requests huge pages, and idle connections touch little of their memory: 47 kB each become 30. If
    // the kernel does not have this switch, nothing is lost.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    ndxp_gateway::cli::run()
}
