//! Parse, run, print the error chain, exit code; nothing else.

use std::process::ExitCode;

use reprocheck::cli;

fn main() -> ExitCode {
    cli::main()
}
