//! Points at which tests abort the process, to see what a crash leaves there (`tests/log/log_faults.rs`). Builds
//! without debug assertions have none.

/// Aborts the process at the point that `NDXP_CRASH_AT` names, optionally only at the n-th time (`journal.written:3`).
#[cfg(debug_assertions)]
pub(crate) fn crash_point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("NDXP_CRASH_AT").ok()?;
        let (name, time) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), time.parse().ok()?))
    });
    if let Some((wanted, time)) = wanted
        && wanted == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *time
    {
        std::process::abort();
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
pub(crate) fn crash_point(_name: &str) {}
