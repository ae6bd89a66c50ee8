//! Kubernetes: an Indexed Job with a pod for every part, and a Job that joins them.

use std::fmt::Write as _;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::{Ended, Jobs, Script, Step, What, quoted};

/// How many seconds a pod that has to go is given: the items in flight take some.
const NOTICE: u64 = 120;

pub(super) fn scripts(jobs: &Jobs, image: &str, claim: &str) -> Result<Vec<Script>, Ended> {
    if jobs.here.contains(':') {
        return Err(Ended::usage(anyhow!(
            "{} has a colon, and no volume is mounted there: go to another folder",
            jobs.here
        )));
    }
    // Where the claim is mounted is where this is submitted from: names of files are the same there.
    if !jobs.out.starts_with(&format!("{}/", jobs.here.trim_end_matches('/'))) {
        return Err(Ended::usage(anyhow!(
            "{} is not in {}, which is what the claim {claim} is mounted as: name a folder in there with --out",
            jobs.out,
            jobs.here
        )));
    }
    Ok(jobs.steps.iter().map(|step| script(jobs, step, image, claim)).collect())
}

/// What a Job is called: letters, digits and `-`, and not too many.
fn name(jobs: &Jobs, what: What) -> String {
    let folder = jobs.out.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let plain: String =
        folder.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(30).collect();
    format!("reprocheck-{}-{}", plain.trim_matches('-'), what.name()).replace("--", "-")
}

fn script(jobs: &Jobs, step: &Step, image: &str, claim: &str) -> Script {
    let resources = &jobs.resources;
    // Indices count from 0. Kubernetes reads `$(…)` itself, and takes `$$` for `$`.
    let command = step.command("\"$((JOB_COMPLETION_INDEX + 1))\"", jobs.parts);
    let command = format!("exec {command}").replace('$', "$$");
    let mut asked = json!({});
    let mut limits = json!({});
    if step.what != What::Merge {
        asked["cpu"] = json!(resources.cpus.to_string());
        if let Some(memory) = resources.memory {
            asked["memory"] = json!(format!("{}Mi", memory.0));
            limits["memory"] = asked["memory"].clone();
        }
    }
    let mut pod = json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": NOTICE,
        "containers": [{
            "name": "reprocheck",
            "image": image,
            "command": ["/bin/sh", "-c", command],
            "workingDir": jobs.here,
            "resources": { "requests": asked, "limits": limits },
            "volumeMounts": [{ "name": "run", "mountPath": jobs.here }],
        }],
        "volumes": [{ "name": "run", "persistentVolumeClaim": { "claimName": claim } }],
    });
    if let Some(time) = resources.time.filter(|_| step.what != What::Merge) {
        pod["activeDeadlineSeconds"] = json!(time.0 * 60);
    }
    let mut job = json!({ "template": { "spec": pod } });
    match step.what {
        What::Part => {
            job["completionMode"] = json!("Indexed");
            job["completions"] = json!(jobs.parts);
            job["parallelism"] = json!(jobs.parts);
            job["backoffLimitPerIndex"] = json!(2);
        }
        What::Reference => job["backoffLimit"] = json!(2),
        What::Merge => job["backoffLimit"] = json!(0),
    }
    if step.what != What::Merge {
        // A pod that its node lost is no try.
        job["podFailurePolicy"] = json!({ "rules": [
            { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
        ] });
    }
    let named = json!({ "name": name(jobs, step.what) });
    let job: Value = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": named, "spec": job });
    // YAML reads JSON.
    Script { name: format!("{}.yaml", step.what.name()), text: format!("{job:#}\n") }
}

pub(super) fn commands(jobs: &Jobs) -> String {
    let mut text = String::new();
    for step in &jobs.steps {
        let file = quoted(&format!("{}/{}.yaml", jobs.folder(), step.what.name()));
        // It makes what is not there, and makes anew what is.
        writeln!(text, "kubectl replace --force -f {file}").expect("a text takes all");
        if step.what != What::Merge {
            let job = name(jobs, step.what);
            writeln!(text, "kubectl wait --for=condition=complete --timeout=-1s job/{job}")
                .expect("a text takes all");
        }
    }
    text.push_str(
        "\nKubernetes lets no Job wait for another, so `kubectl wait` does. It does not end where a part has failed for good: end \
         it then with Ctrl-C, and create the last one all the same; its report says what is missing.\n",
    );
    text
}
