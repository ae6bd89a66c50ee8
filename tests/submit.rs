//! Jobs for schedulers: what is written holds whatever files are called, others read it, and Snakemake runs it.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_reprocheck");

const MATRIX: &str = "suites = [\"carry_chain\"]\nitems = 4\n[reference]\nprecision = \"fp32\"\norder = \"sequential\"\n\
                      [matrix]\nprecision = \"bf16\"\norder = \"sequential\"\nbatch = [1, 2]\nthreads = [1, 3]\n\
                      [cluster]\nmemory = \"2G\"\ntime = \"2h\"\nparts = 3\n[profile.night.cluster]\ntime = \"1d\"\n\
                      [[gate]]\nname = \"g\"\nvary = \"batch\"\nrequire = \"bits\"\n";

fn submit(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.current_dir(folder).env_remove("CI").arg("submit").args(arguments);
    command.output().unwrap()
}

/// What it prints when all is well.
fn held(folder: &Path, arguments: &[&str]) -> String {
    let ran = submit(folder, arguments);
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// What it complains of, and with which exit code.
fn refused(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let ran = submit(folder, arguments);
    (ran.status.code().unwrap(), String::from_utf8(ran.stderr).unwrap())
}

fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("m.toml"), MATRIX).unwrap();
    place
}

#[test]
fn an_option_wins_over_the_profile_and_that_over_the_file() {
    let place = place();
    let print = |more: &[&str]| {
        held(
            place.path(),
            &[&["slurm", "--model", "qwen", "--matrix", "m.toml", "--out", "o", "--print"], more].concat(),
        )
    };
    let file = print(&[]);
    for line in ["--array=1-3", "--mem=2048M", "--time=120", "--cpus-per-task=3", "--requeue"] {
        assert!(file.contains(&format!("#SBATCH {line}\n")), "{line}: {file}");
    }
    assert!(!file.contains("--partition="), "{file}");
    let profile = print(&["--profile", "night"]);
    assert!(profile.contains("--time=1440\n") && profile.contains("--mem=2048M\n"), "{profile}");
    let options = ["--profile", "night", "--time", "90m", "--queue", "long", "--parts", "5", "--cpus", "8"];
    let option = print(&options);
    for line in ["--array=1-5", "--time=90", "--cpus-per-task=8", "--partition=\"long\""] {
        assert!(option.contains(&format!("#SBATCH {line}\n")), "{line}: {option}");
    }
    assert!(!place.path().join("o").exists(), "what is printed is not written");
}

#[test]
fn what_cannot_be_submitted_is_told_with_the_way_out() {
    let place = place();
    let call = |arguments: &[&str]| {
        refused(place.path(), &[arguments, &["--model", "qwen", "--matrix", "m.toml", "--out", "o"]].concat())
    };
    for (arguments, expected) in [
        (&["kubernetes"] as &[&str], "kubernetes needs --image IMAGE: add it"),
        (&["kubernetes", "--image", "i"], "kubernetes needs --claim NAME: add it"),
        (&["snakemake", "--go"], "--go submits to slurm alone: leave it out"),
    ] {
        let (code, said) = call(arguments);
        assert_eq!(code, 2, "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!place.path().join("o").exists(), "{arguments:?}: nothing is written");
    }
    let (code, said) = call(&["slurm", "--memory", "lots"]);
    assert!(code == 2 && said.contains("write it as 512M, 64G or 2T"), "{said}");
    let outside = [
        "kubernetes",
        "--image",
        "i",
        "--claim",
        "c",
        "--model",
        "qwen",
        "--matrix",
        "m.toml",
        "--out",
        "/o",
    ];
    let (code, said) = refused(place.path(), &outside);
    assert!(code == 2 && said.contains("name a folder in there with --out"), "{said}");
    // No Slurm on this path.
    let ran = Command::new(BINARY)
        .current_dir(place.path())
        .env("PATH", place.path())
        .args(["submit", "slurm", "--go", "--model", "qwen", "--matrix", "m.toml", "--out", "o"])
        .output()
        .unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(4), "{said}");
    assert!(
        said.contains("sbatch does not take ") && said.contains("go where Slurm's commands are"),
        "{said}"
    );
}

/// The matrix with answers that are replayed, so that there is a reference to wait for.
fn replayed() -> String {
    MATRIX.replace("[reference]", "[generate]\nreplay = true\n[reference]")
}

#[test]
fn a_shell_reads_names_as_they_are_written() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("it's \"a\" $HOME `x` {y}");
    fs::create_dir(&folder).unwrap();
    let name = "m 'x' {z}.toml";
    fs::write(folder.join(name), replayed()).unwrap();
    held(&folder, &["slurm", "--model", "qwen", "--matrix", name, "--out", "o p"]);
    for script in ["reference", "part", "merge"] {
        let text = fs::read_to_string(folder.join(format!("o p/jobs/{script}.sh"))).unwrap();
        // The same words, shown and not run.
        let shown = text.replace("\nexec ", "\npwd; printf '%s\\n' ");
        assert_ne!(shown, text);
        let ran = Command::new("sh").arg("-c").arg(shown).env("SLURM_ARRAY_TASK_ID", "2").output().unwrap();
        let said = String::from_utf8(ran.stdout).unwrap();
        let words: Vec<_> = said.lines().collect();
        let out = folder.join("o p").display().to_string();
        let here = folder.display().to_string();
        let reference = format!("{out}/part-reference");
        let run = ["run", "--model", "qwen", "--matrix", name, "--out", &out, "--resume", "--part"];
        let expected: Vec<&str> = match script {
            "reference" => [&[here.as_str(), BINARY] as &[&str], &run, &["reference"]].concat(),
            "part" => {
                [&[here.as_str(), BINARY] as &[&str], &run, &["2/3", "--reference", &reference]].concat()
            }
            _ => vec![&here, BINARY, "merge", &out],
        };
        assert_eq!(words, expected, "{script}");
    }
}

#[test]
#[ignore = "needs the schemas that `.ci/kubernetes` fetches, in REPROCHECK_KUBERNETES"]
fn kubernetes_takes_what_is_written_for_it() {
    let python = env::var_os("REPROCHECK_KUBERNETES").expect("REPROCHECK_KUBERNETES=\"$(.ci/kubernetes)\"");
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("m.toml"), replayed()).unwrap();
    let arguments = [
        "kubernetes",
        "--model",
        "qwen",
        "--matrix",
        "m.toml",
        "--out",
        "$(o)",
        "--image",
        "i:1",
        "--claim",
        "c",
    ];
    held(place.path(), &arguments);
    // The first that knows all that is asked for, and the newest that the package has.
    let validate = |version: &str, path: &Path| {
        let mut command = Command::new(&python);
        command.args(["-m", "kubernetes_validate", "--strict", "-k", version]).arg(path).output().unwrap()
    };
    for name in ["reference", "part", "merge"] {
        let path = place.path().join(format!("$(o)/jobs/{name}.yaml"));
        for version in ["1.29", "1.37"] {
            let said = validate(version, &path);
            assert!(said.status.success(), "{name}: {said:?}");
        }
        let mut job: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let command = job["spec"]["template"]["spec"]["containers"][0]["command"][2].as_str().unwrap();
        assert!(!command.replace("$$", "").contains('$'), "Kubernetes puts nothing for a name: {command}");
        // What is wrong is seen.
        job["spec"]["backofLimit"] = 1.into();
        let wrong = place.path().join("wrong.yaml");
        fs::write(&wrong, job.to_string()).unwrap();
        assert!(!validate("1.29", &wrong).status.success(), "{name}");
    }
}

#[test]
#[ignore = "needs the Snakemake that `.ci/snakemake` fetches, in REPROCHECK_SNAKEMAKE"]
fn snakemake_runs_the_parts_and_the_report_has_the_bytes_of_one_run() {
    let snakemake = env::var_os("REPROCHECK_SNAKEMAKE").expect("REPROCHECK_SNAKEMAKE=\"$(.ci/snakemake)\"");
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("it's \"a\" {place}");
    fs::create_dir(&folder).unwrap();
    // Without threads beyond one, two parts run at once on two processors.
    fs::write(folder.join("m.toml"), replayed().replace("threads = [1, 3]", "threads = 1")).unwrap();
    let whole = Command::new(BINARY)
        .current_dir(&folder)
        .args(["run", "--model", "qwen", "--matrix", "m.toml", "--out", "whole"])
        .output()
        .unwrap();
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    held(&folder, &["snakemake", "--model", "qwen", "--matrix", "m.toml", "--out", "parts"]);
    let ran = Command::new(snakemake)
        .current_dir(place.path())
        .env("XDG_CACHE_HOME", place.path().join("cache"))
        .args(["--cores", "2", "--snakefile"])
        .arg(folder.join("parts/jobs/Snakefile"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let report = |run: &str| fs::read(folder.join(run).join("report.json")).unwrap();
    assert!(report("parts") == report("whole"), "{said}");
}
