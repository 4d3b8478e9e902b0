//! What a package installs beside the binary: completions for shells, and pages for man(1), both made from the command line itself.

use super::CliError;
use clap::Args;
use std::path::PathBuf;

/// Which shell.
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell that reads them, such as `ndxp-gateway completions bash > /etc/bash_completion.d/ndxp-gateway`.
    shell: clap_complete::Shell,
}

/// Prints the completions of a shell.
pub fn run_completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "ndxp-gateway", &mut text);
    match std::io::Write::write_all(&mut std::io::stdout(), &text) {
        // Its reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Where the pages go.
#[derive(Args)]
pub struct ManArgs {
    /// An existing folder, such as /usr/local/share/man/man1.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes one page for each command.
pub fn run_man(args: &ManArgs) -> Result<(), CliError> {
    let failed = |error| CliError::Failed(format!("{} cannot be written: {error}", args.folder.display()));
    clap_mangen::generate_to(super::command(), &args.folder).map_err(failed)
}
