//! Compiles the definition of an entry, as the gateway's own build does.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rustc-cfg=simulator");
    println!("cargo::rerun-if-changed=../proto/ndxp/log/v1/entry.proto");
    let mut compiler = protox::Compiler::new(["../proto"])?;
    compiler.open_file("ndxp/log/v1/entry.proto")?;
    prost_build::Config::new().skip_debug(["ndxp.log.v1.Entry"]).compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
