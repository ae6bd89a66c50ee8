//! The command line: words only, one file per verb.

mod dot;
mod explain;
mod list;

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// What can change the output of a language model, and by how much: proven bit by bit.
#[derive(Parser, Debug)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List what there is: precisions, orders
    List(list::List),
    /// Explain one order or one precision
    #[command(subcommand)]
    Explain(explain::Explain),
    Dot(dot::Dot),
}

/// Why the program ends, as its exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Exit {
    /// All is as it should be.
    Held = 0,
    /// Something does not hold.
    Failed = 1,
    /// The usage or the input is wrong.
    Usage = 2,
    /// The machine would not: files, threads.
    Environment = 4,
}

/// An error with the exit code that belongs to it.
#[derive(Debug)]
struct Ended {
    exit: Exit,
    error: anyhow::Error,
}

impl Ended {
    fn failed(error: impl Into<anyhow::Error>) -> Ended {
        Ended { exit: Exit::Failed, error: error.into() }
    }

    fn environment(error: impl Into<anyhow::Error>) -> Ended {
        Ended { exit: Exit::Environment, error: error.into() }
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::environment(error)
    }
}

/// Reads the arguments, runs the verb, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let ended = match cli.verb {
        Verb::List(list) => list.run(&mut out),
        Verb::Explain(explain) => explain.run(&mut out),
        Verb::Dot(dot) => dot.run(io::stdin().lock(), &mut out),
    };
    let ended = ended.and_then(|exit| Ok(out.flush().map(|()| exit)?));
    ExitCode::from(match ended {
        Ok(exit) => exit as u8,
        // Whoever reads our output has read enough.
        Err(ended) if is_broken_pipe(&ended.error) => Exit::Held as u8,
        Err(ended) => {
            complain(&format!("error: {:#}", ended.error));
            ended.exit as u8
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A line on stderr; if even that fails there is nobody left to tell.
fn complain(line: &dyn fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
