//! `reprocheck submit`: a run in parts, as jobs of a scheduler.

mod kubernetes;
mod slurm;
mod snakemake;

use std::{
    fmt::Write as _,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use super::{
    Ended, Exit,
    plan::{MOST_PARTS, Matrix},
    run, up_to,
};
use crate::{
    cell::{Axis, Cell, Setting},
    plan::{
        Plan,
        cluster::{Limit, Memory},
    },
    store,
};

/// Write the jobs of a run in parts for a scheduler: a job for every part, and one that joins them and judges
#[derive(Args, Debug)]
pub(super) struct Submit {
    /// Whose jobs
    scheduler: Scheduler,
    /// The model, as `reprocheck run` takes it; the matrix file's where it is left out
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    matrix: Matrix,
    /// Where results go, on a disk that all parts share [default: results/MODEL-MATRIX]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Divide by what the cells of this finished run took
    #[arg(long, value_name = "RUN")]
    like: Option<PathBuf>,
    /// Into how many parts; `parts` of the matrix file's [cluster] where it is left out
    #[arg(long, value_name = "N", value_parser = up_to(MOST_PARTS))]
    parts: Option<usize>,
    /// The queue, which Slurm calls a partition
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// How much memory a part may take, such as 64G
    #[arg(long, value_name = "SIZE")]
    memory: Option<Memory>,
    /// How long a part may take, such as 12h
    #[arg(long, value_name = "TIME")]
    time: Option<Limit>,
    /// How many processors a part computes on [default: the most threads of a cell]
    #[arg(long, value_name = "N", value_parser = up_to(usize::MAX))]
    cpus: Option<usize>,
    /// The image that has this program, for kubernetes
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The claim of a volume that holds this folder, for kubernetes
    #[arg(long, value_name = "NAME")]
    claim: Option<String>,
    /// Submit them; slurm alone
    #[arg(long, conflicts_with = "print")]
    go: bool,
    /// Print them, and write nothing
    #[arg(long)]
    print: bool,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Scheduler {
    /// An array job, and a job that waits for it
    Slurm,
    /// An Indexed Job, and a Job for when it is done
    Kubernetes,
    /// A workflow, for any executor of Snakemake
    Snakemake,
}

/// What is to run, for whichever scheduler.
struct Jobs {
    /// Where it is submitted from: what names of files start at.
    here: String,
    /// The folder of the run, in full.
    out: String,
    /// Into how many parts.
    parts: usize,
    resources: Resources,
    /// In the order in which they run; each waits for the one before.
    steps: Vec<Step>,
}

struct Resources {
    queue: Option<String>,
    memory: Option<Memory>,
    time: Option<Limit>,
    cpus: usize,
}

/// One thing to run, once or once for every part.
struct Step {
    what: What,
    program: String,
    arguments: Vec<Argument>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// What all parts read where answers are replayed.
    Reference,
    /// A part; there are as many as there are parts.
    Part,
    /// Joins what is there, whether or not all parts came to their end.
    Merge,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Reference => "reference",
            What::Part => "part",
            What::Merge => "merge",
        }
    }
}

enum Argument {
    Text(String),
    /// Which part it is: `I/N`.
    Part,
}

/// A file of the jobs, and what is in it.
struct Script {
    name: String,
    text: String,
}

/// A word for a shell, whatever is in it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl Step {
    /// The command for a shell, where `index` is a shell's text for the number of the part.
    fn command(&self, index: &str, parts: usize) -> String {
        let mut command = quoted(&self.program);
        for argument in &self.arguments {
            match argument {
                Argument::Text(text) => write!(command, " {}", quoted(text)),
                Argument::Part => write!(command, " {index}/{parts}"),
            }
            .expect("a text takes all");
        }
        command
    }
}

impl Jobs {
    /// Where scripts and what jobs say lie.
    fn folder(&self) -> String {
        format!("{}/jobs", self.out)
    }
}

/// On how many threads a cell computes, as far as it says.
fn threads(cell: &Cell) -> usize {
    match cell.get(Axis::Threads) {
        Setting::Threads(threads) => threads.get(),
        _ => 1,
    }
}

/// A path that every script and scheduler can hold.
fn written(path: &Path) -> Result<String, Ended> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    text.map(str::to_owned).ok_or_else(|| {
        Ended::usage(anyhow!(
            "{path:?} cannot stand in a script: give the file or folder a name of plain text"
        ))
    })
}

/// From here, in full. What is there already may be anything.
fn in_full(path: &Path) -> Result<PathBuf, Ended> {
    std::path::absolute(path).map_err(|error| {
        Ended::environment(anyhow!(
            "cannot tell where {} lies ({error}): give its path from /",
            path.display()
        ))
    })
}

impl Submit {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let plan = self.matrix.plan()?;
        let jobs = self.jobs(&plan)?;
        if self.go && self.scheduler != Scheduler::Slurm {
            return Err(Ended::usage(anyhow!(
                "--go submits to slurm alone: leave it out, and type the commands that are then shown"
            )));
        }
        let scripts = match self.scheduler {
            Scheduler::Slurm => slurm::scripts(&jobs)?,
            Scheduler::Kubernetes => {
                let missing = |option: &str| Ended::usage(anyhow!("kubernetes needs {option}: add it"));
                let image = self.image.as_deref().ok_or_else(|| missing("--image IMAGE"))?;
                let claim = self.claim.as_deref().ok_or_else(|| missing("--claim NAME"))?;
                kubernetes::scripts(&jobs, image, claim)?
            }
            Scheduler::Snakemake => snakemake::scripts(&jobs),
        };
        if self.print {
            for script in scripts {
                writeln!(out, "# {}/{}", jobs.folder(), script.name)?;
                writeln!(out, "{}", script.text)?;
            }
            return Ok(Exit::Held);
        }
        for script in &scripts {
            let path = Path::new(&jobs.folder()).join(&script.name);
            store::write(&path, script.text.as_bytes()).map_err(Ended::environment)?;
            writeln!(out, "wrote {}", path.display())?;
        }
        if self.go {
            return slurm::submit(&jobs, out);
        }
        let commands = match self.scheduler {
            Scheduler::Slurm => slurm::commands(&jobs),
            Scheduler::Kubernetes => kubernetes::commands(&jobs),
            Scheduler::Snakemake => snakemake::commands(&jobs),
        };
        write!(out, "\ntype, to begin and to go on:\n\n{commands}")?;
        Ok(Exit::Held)
    }

    fn jobs(&self, plan: &Plan) -> Result<Jobs, Ended> {
        let cluster = &plan.cluster;
        let model = self.matrix.model(self.model.as_deref(), plan)?;
        let here = in_full(Path::new("."))?;
        let folder = run::folder(self.out.as_deref(), model, &self.matrix.name());
        let out = written(&in_full(&folder)?)?;
        let parts = self.parts.or(cluster.parts.map(|parts| parts as usize)).ok_or_else(|| {
            Ended::usage(anyhow!(
                "no number of parts is given: add --parts N, or parts = N to [cluster] of {}",
                self.matrix.file.display()
            ))
        })?;
        // An image has a program of its own.
        let program = match self.scheduler {
            Scheduler::Kubernetes => "reprocheck".to_owned(),
            Scheduler::Slurm | Scheduler::Snakemake => written(&super::program()?)?,
        };
        let mut common = vec!["run".to_owned()];
        if let Some(model) = &self.model {
            common.extend(["--model".to_owned(), written(Path::new(model))?]);
        }
        common.extend(["--matrix".to_owned(), written(&self.matrix.file)?]);
        if let Some(profile) = &self.matrix.profile {
            common.extend(["--profile".to_owned(), written(Path::new(profile))?]);
        }
        common.extend(["--out".to_owned(), out.clone(), "--resume".to_owned()]);
        if let Some(like) = &self.like {
            common.extend(["--like".to_owned(), written(like)?]);
        }
        let texts = |texts: &[String]| texts.iter().cloned().map(Argument::Text).collect::<Vec<_>>();
        let text = |text: &str| Argument::Text(text.to_owned());
        let step = |what, arguments| Step { what, program: program.clone(), arguments };
        let mut steps = Vec::new();
        let mut part = texts(&common);
        part.extend([text("--part"), Argument::Part]);
        if plan.generation.replay {
            let mut reference = texts(&common);
            reference.extend([text("--part"), text("reference")]);
            steps.push(step(What::Reference, reference));
            part.extend([text("--reference"), Argument::Text(format!("{out}/part-reference"))]);
        }
        steps.push(step(What::Part, part));
        steps.push(step(What::Merge, vec![text("merge"), Argument::Text(out.clone())]));
        let resources = Resources {
            queue: self.queue.clone().or_else(|| cluster.queue.clone()),
            memory: self.memory.or(cluster.memory),
            time: self.time.or(cluster.time),
            cpus: self
                .cpus
                .or(cluster.cpus.map(|cpus| cpus as usize))
                .or_else(|| plan.cells.iter().map(threads).max())
                .unwrap_or(1),
        };
        Ok(Jobs { here: written(&here)?, out, parts, resources, steps })
    }
}
