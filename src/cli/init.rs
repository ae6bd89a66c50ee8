//! `reprocheck init`: a commented matrix file to begin with, and a workflow that gates by it.

use std::{io::Write, path::PathBuf};

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use super::{Ended, Exit};
use crate::{plan::keys, store};

const MATRIX: &str = include_str!("init/ci.toml");
const GITHUB: &str = include_str!("init/github.yml");
const GITLAB: &str = include_str!("init/gitlab.yml");
const CLUSTER: &str = include_str!("init/cluster.toml");

/// Write a commented matrix file to begin with, its schema, and a workflow that gates by it
#[derive(Args, Debug)]
pub(super) struct Init {
    /// Where to
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The model that the matrix file names: `qwen`, a folder, a file of GGUF, or `owner/name[@revision]` on the Hub
    #[arg(long, value_name = "MODEL", default_value = "qwen")]
    model: String,
    /// Whose workflow to write
    #[arg(long, default_value = "github")]
    ci: Ci,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Ci {
    Github,
    Gitlab,
    /// A cluster: what a part of a run asks it for
    Slurm,
    None,
}

impl Init {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let schema = serde_json::to_string_pretty(&keys::schema()).expect("a schema is JSON") + "\n";
        // What JSON escapes in a text, TOML does.
        let model = serde_json::to_string(&self.model).expect("a text is JSON");
        let of_this_version = |workflow: &str| workflow.replace("VERSION", env!("CARGO_PKG_VERSION"));
        let mut files =
            vec![("ci.toml", MATRIX.replacen("MODEL", &model, 1)), ("matrix.schema.json", schema)];
        match self.ci {
            Ci::Github => files.push((".github/workflows/reprocheck.yml", of_this_version(GITHUB))),
            Ci::Gitlab => files.push(("reprocheck.gitlab-ci.yml", of_this_version(GITLAB))),
            Ci::Slurm => files[0].1.push_str(CLUSTER),
            Ci::None => {}
        }
        let paths = files.iter().map(|(name, _)| self.folder.join(name));
        if let Some(there) = paths.into_iter().find(|path| path.exists()) {
            return Err(Ended::usage(anyhow!(
                "{} is there already: nothing was written; remove it, or name another folder",
                there.display()
            )));
        }
        for (name, text) in files {
            let path = self.folder.join(name);
            store::write(&path, text.as_bytes()).map_err(Ended::environment)?;
            writeln!(out, "wrote {}", path.display())?;
        }
        let next = if self.ci == Ci::Slurm { "submit slurm" } else { "run" };
        writeln!(out, "next: reprocheck {next} --matrix {}", self.folder.join("ci.toml").display())?;
        Ok(Exit::Held)
    }
}
