//! A folder of contracts: its files, and what the compiler of protos says of them.

use super::ContractFault;
use miette::Diagnostic;
use prost_reflect::DescriptorPool;
use protox::file::{ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver};
use std::path::Path;

/// The contracts' files in a folder and those below it, by their path from `root`.
pub(super) fn list_protos(root: &Path, folder: &Path, found: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list_protos(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto")
            && let Ok(relative) = path.strip_prefix(root)
        {
            found.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Compiles these files of a folder, with all that they import.
pub(super) fn compile_folder(folder: &Path, names: &[String]) -> Result<DescriptorPool, Vec<ContractFault>> {
    let whole = |reason: String| vec![ContractFault { file: folder.display().to_string(), line: 0, reason }];
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(folder.to_owned()));
    resolver
        .add(DescriptorSetFileResolver::decode(crate::contract::EMBEDDED).map_err(|error| whole(error.to_string()))?);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    let mut faults = Vec::new();
    for name in names {
        if let Err(error) = compiler.open_file(name) {
            faults.extend(compile_faults(folder, name, &error));
        }
    }
    if faults.is_empty() { Ok(compiler.descriptor_pool()) } else { Err(in_order(faults)) }
}

/// By file and line, each once: two operations may have the message that is wrong.
pub(super) fn in_order(mut faults: Vec<ContractFault>) -> Vec<ContractFault> {
    faults.sort_by(|a, b| (&a.file, a.line, &a.reason).cmp(&(&b.file, b.line, &b.reason)));
    faults.dedup();
    faults
}

/// All that protox has found in a file. It says where by an offset; people want a line.
fn compile_faults(folder: &Path, name: &str, error: &protox::Error) -> Vec<ContractFault> {
    let name = error.file().unwrap_or(name);
    let detailed = format!("{error:?}");
    let line = detailed
        .split_once(&format!("{name}:"))
        .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .unwrap_or(0);
    let path = folder.join(name);
    let text = std::fs::read(&path).unwrap_or_default();
    let file = path.display().to_string();
    let mut faults = vec![ContractFault { file: file.clone(), line, reason: error.to_string() }];
    for further in error.related().into_iter().flatten() {
        let offset = further.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
        let before = offset.and_then(|offset| text.get(..offset));
        let line = before.map_or(0, |before| 1 + before.iter().filter(|byte| **byte == b'\n').count());
        let line = u32::try_from(line).unwrap_or(0);
        faults.push(ContractFault { file: file.clone(), line, reason: further.to_string() });
    }
    faults
}
