//! Without a real etcd nothing opens a socket.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_REAL").is_none() {
        println!("cargo::rustc-cfg=simulator");
    }
}
