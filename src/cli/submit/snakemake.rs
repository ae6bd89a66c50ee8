//! Snakemake: a workflow of a rule for the parts and one that joins them.

use std::fmt::Write as _;

use super::{Jobs, Script, Step, What, quoted};

/// A text of Python; what JSON escapes in one, Python does.
fn literal(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

fn done(what: What, index: &str) -> String {
    match what {
        What::Part => format!("part-{index}.done"),
        What::Reference | What::Merge => format!("{}.done", what.name()),
    }
}

pub(super) fn scripts(jobs: &Jobs) -> Vec<Script> {
    let mut text = format!(
        "# A run of reprocheck in parts. Started again, it goes on where it was.\n\
         workdir: {}\n\n\
         rule all:\n    input: {}\n",
        literal(&jobs.folder()),
        literal(&done(What::Merge, ""))
    );
    let mut before = None;
    for step in &jobs.steps {
        text.push_str(&rule(jobs, step, before));
        before = Some(step.what);
    }
    vec![Script { name: "Snakefile".to_owned(), text }]
}

fn rule(jobs: &Jobs, step: &Step, before: Option<What>) -> String {
    let resources = &jobs.resources;
    let mut text = format!("\nrule {}:\n", step.what.name());
    let mut line = |line: String| writeln!(text, "    {line}").expect("a text takes all");
    match before {
        Some(What::Part) => {
            let each = done(What::Part, "{part}");
            line(format!("input: expand({}, part=range(1, {} + 1))", literal(&each), jobs.parts));
        }
        Some(before) => line(format!("input: {}", literal(&done(before, "")))),
        None => {}
    }
    line(format!("output: touch({})", literal(&done(step.what, "{part}"))));
    if step.what != What::Merge {
        line(format!("threads: {}", resources.cpus));
        line("retries: 2".to_owned());
        let mut asked = Vec::new();
        asked.extend(resources.memory.map(|memory| format!("mem_mb={}", memory.0)));
        asked.extend(resources.time.map(|time| format!("runtime={}", time.0)));
        asked.extend(resources.queue.as_ref().map(|queue| format!("slurm_partition={}", literal(queue))));
        if !asked.is_empty() {
            line(format!("resources: {}", asked.join(", ")));
        }
    }
    // Snakemake puts a value where braces stand, and one brace where two do.
    let braces = |text: &str| text.replace('{', "{{").replace('}', "}}");
    let command = braces(&step.command("\0", jobs.parts)).replace('\0', "{wildcards.part}");
    line(format!("shell: {}", literal(&format!("cd {} && exec {command}", braces(&quoted(&jobs.here))))));
    text
}

pub(super) fn commands(jobs: &Jobs) -> String {
    let file = quoted(&format!("{}/Snakefile", jobs.folder()));
    format!("snakemake --snakefile {file} --cores all --keep-going --rerun-incomplete\n")
}
