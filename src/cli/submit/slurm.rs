//! Slurm: an array with a task for every part, and a job that joins them, however they end.

use std::{fmt::Write as _, io::Write, process::Command};

use anyhow::anyhow;

use super::{Ended, Exit, Jobs, Script, Step, What, quoted};

/// How many seconds before the end of its time a job is told to end: the items in flight take some.
const NOTICE: u64 = 120;

/// A value for a line of `#SBATCH`, which reads quotes and backslashes by itself.
fn valued(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

pub(super) fn scripts(jobs: &Jobs) -> Result<Vec<Script>, Ended> {
    if jobs.out.contains('\\') {
        // To Slurm it says that no `%` in the name of a log stands for anything.
        return Err(Ended::usage(anyhow!(
            "{} has a backslash, which Slurm reads: name another folder",
            jobs.out
        )));
    }
    Ok(jobs.steps.iter().map(|step| script(jobs, step)).collect())
}

fn script(jobs: &Jobs, step: &Step) -> Script {
    let name = step.what.name();
    let resources = &jobs.resources;
    let mut options = vec![format!("job-name=reprocheck-{name}")];
    let mut log = format!("{name}-%j.log");
    if step.what == What::Part {
        options.push(format!("array=1-{}", jobs.parts));
        log = format!("{name}-%a-%A.log");
    }
    options.push(format!("output={}", valued(&format!("{}/{log}", jobs.folder().replace('%', "%%")))));
    // A part that is begun again goes on, and so does its log.
    options.extend(["open-mode=append", "requeue"].map(str::to_owned));
    options.extend(resources.queue.as_ref().map(|queue| format!("partition={}", valued(queue))));
    if step.what != What::Merge {
        options.push(format!("cpus-per-task={}", resources.cpus));
        options.extend(resources.memory.map(|memory| format!("mem={}M", memory.0)));
        options.extend(resources.time.map(|time| format!("time={}", time.0)));
        options.push(format!("signal=B:TERM@{NOTICE}"));
    }
    let mut text = format!(
        "#!/bin/sh\n# {} of a run of reprocheck. Submitted again, it goes on where it was.\n",
        match step.what {
            What::Reference => "The reference",
            What::Part => "The parts",
            What::Merge => "The end",
        }
    );
    for option in options {
        writeln!(text, "#SBATCH --{option}").expect("a text takes all");
    }
    // `exec`: what Slurm signals is the program, which then ends the items in flight.
    write!(
        text,
        "cd {} || exit\nexec {}\n",
        quoted(&jobs.here),
        step.command("\"$SLURM_ARRAY_TASK_ID\"", jobs.parts)
    )
    .expect("a text takes all");
    Script { name: format!("{name}.sh"), text }
}

/// What `sbatch` is given for a step, behind the number of the job before it.
fn options(step: &Step, before: Option<&str>) -> Vec<String> {
    let mut options = vec!["--parsable".to_owned()];
    if let Some(before) = before {
        // A part that is lost is missing, which the end has to say; without a reference no part can begin.
        let (ends, or_never) = match step.what {
            What::Merge => ("afterany", None),
            What::Reference | What::Part => ("afterok", Some("--kill-on-invalid-dep=yes".to_owned())),
        };
        options.push(format!("--dependency={ends}:{before}"));
        options.extend(or_never);
    }
    options
}

fn path(jobs: &Jobs, step: &Step) -> String {
    format!("{}/{}.sh", jobs.folder(), step.what.name())
}

pub(super) fn commands(jobs: &Jobs) -> String {
    let mut text = String::new();
    let mut before: Option<What> = None;
    for step in &jobs.steps {
        let name = step.what.name();
        let job = before.map(|before| format!("\"${{{}%%;*}}\"", before.name()));
        let command =
            format!("sbatch {} {}", options(step, job.as_deref()).join(" "), quoted(&path(jobs, step)));
        match step.what {
            What::Merge => writeln!(text, "{command}"),
            What::Reference | What::Part => writeln!(text, "{name}=$({command})"),
        }
        .expect("a text takes all");
        before = Some(step.what);
    }
    text
}

/// Submits them, and says what comes next.
pub(super) fn submit(jobs: &Jobs, out: &mut impl Write) -> Result<Exit, Ended> {
    let mut before: Option<String> = None;
    for step in &jobs.steps {
        let path = path(jobs, step);
        let output = Command::new("sbatch").args(options(step, before.as_deref())).arg(&path).output();
        let refused = |reason: &str| {
            let submitted = match &before {
                Some(job) => format!("; job {job} is submitted, and `scancel {job}` takes it back"),
                None => String::new(),
            };
            Ended::environment(anyhow!(
                "sbatch does not take {path}: {}{submitted}; go where Slurm's commands are and mend what it says, or change \
                 what is asked for with --queue, --memory, --time or --cpus",
                reason.trim()
            ))
        };
        let output = output.map_err(|error| refused(&error.to_string()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        // With several clusters, the number and the name of one.
        let job = said.trim().split(';').next().unwrap_or_default();
        if !output.status.success() || job.is_empty() || !job.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused(&format!("{} {}", String::from_utf8_lossy(&output.stderr), said)));
        }
        writeln!(out, "job {job}: {}", step.what.name())?;
        before = Some(job.to_owned());
    }
    write!(
        out,
        "\n`squeue` shows them. What they say goes to {}; the report will be in {}.\nIf parts are lost, submit again with \
         the same command: what is done is not done again.\n",
        jobs.folder(),
        jobs.out
    )?;
    Ok(Exit::Held)
}
