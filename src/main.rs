//! The command line of the NDXP gateway.

#![forbid(unsafe_code)]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // The allocator asks for huge pages, and idle connections touch little of what they hold: 47 kB each become 30. Where the
    // kernel has no such switch, nothing is lost.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    ndxp_gateway::cli::run()
}
