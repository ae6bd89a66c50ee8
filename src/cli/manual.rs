//! `reprocheck completions` and `man`: what shells and `man` know of the command line, made from the command line itself.

use std::{io::Write, path::PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Ended, Exit};
use crate::store;

/// The completions of a shell: bash, elvish, fish, powershell or zsh
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// For which shell
    shell: Shell,
}

/// The manual: a page for the program, or one for every verb in a folder
#[derive(Args, Debug)]
pub(super) struct Man {
    /// Write a page for every verb to this folder, such as ~/.local/share/man/man1
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Completions {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let mut command = Cli::command();
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        out.write_all(&script)?;
        Ok(Exit::Held)
    }
}

impl Man {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let Some(folder) = &self.out else {
            clap_mangen::Man::new(Cli::command()).render(out)?;
            return Ok(Exit::Held);
        };
        let mut command = Cli::command();
        // So that each knows its whole name.
        command.build();
        let mut pages = vec![command];
        while let Some(command) = pages.pop() {
            pages.extend(
                command
                    .get_subcommands()
                    .filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
                    .cloned(),
            );
            let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
            let path = folder.join(format!("{name}.1"));
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            store::write(&path, &page).map_err(Ended::environment)?;
            writeln!(out, "wrote {}", path.display())?;
        }
        Ok(Exit::Held)
    }
}
