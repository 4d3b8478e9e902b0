//! Compiles the embedded contracts with protox: no protoc is needed.
use std::path::{Path, PathBuf};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed=proto");
    let mut files = Vec::new();
    protos(root, &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Encoded by protox itself: re-encoding through prost would drop the contract options (extensions).
    std::fs::write(out.join("contracts.bin"), compiler.encode_file_descriptor_set())?;

    let only = |names: &[&str]| {
        let mut set = compiler.file_descriptor_set();
        set.file.retain(|file| names.contains(&file.name()));
        set
    };
    // Clients are generated too: the command line works by them, from afar and in the process. No transport of tonic's own.
    let services = || tonic_prost_build::configure().build_transport(false);
    // Messages know their full names, by which the command line finds their descriptors.
    let named = || {
        let mut config = prost_build::Config::new();
        config.enable_type_names();
        config
    };
    // First: entries are known here from their own module, and what is generated for them is written over below.
    services()
        .extern_path(".ndxp.log.v1", "crate::exchange_log::entry")
        .compile_fds(only(&["ndxp/log/v1/entry.proto", "ndxp/audit/v1/audit.proto"]))?;
    let options = ["ndxp/contract/v1/contract.proto", "ndxp/log/v1/entry.proto", "google/protobuf/descriptor.proto"];
    prost_build::Config::new().skip_debug(["ndxp.log.v1.Entry"]).compile_fds(only(&options))?;
    // A token must not be printed by accident.
    services()
        .skip_debug(["ndxp.admin.v1.IssueTokenResponse"])
        .compile_fds_with_config(only(&["ndxp/admin/v1/admin.proto"]), named())?;
    Ok(())
}

fn protos(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            protos(&path, found)?;
        } else if path.extension().is_some_and(|ext| ext == "proto") {
            found.push(path);
        }
    }
    Ok(())
}
