//! A run in parts under a real Slurm, which `.ci/slurm` fetches: a node that is lost, a part that is put back and one that is
//! taken away cost no bit, and what is missing is never a pass.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_reprocheck");

/// Eight cells of one thread; where the batch moves bits, a gate asks for it.
fn matrix(items: u64) -> String {
    format!(
        "suites = [\"carry_chain\", \"mul_ladder\"]\nitems = {items}\n[reference]\nprecision = \"fp32\"\norder = \"sequential\"\n\
         [matrix]\nprecision = [\"fp32\", \"bf16\"]\norder = [\"sequential\", \"split-k:rows\"]\nbatch = [1, 4]\n\
         [[gate]]\nname = \"batch\"\nwhere = {{ order = \"sequential\" }}\nvary = \"batch\"\nrequire = \"bits\"\n\
         [[gate]]\nname = \"rows\"\nwhere = {{ order = \"split-k:rows\" }}\nvary = \"batch\"\nexpect = \"diverges\"\n"
    )
}

/// What a condition is waited for at most: a fault of the test, not its pace.
const PATIENCE: Duration = Duration::from_secs(240);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A Slurm of two nodes, which ends with this value.
struct Cluster {
    daemons: Child,
    folder: TempDir,
    slurm: PathBuf,
}

impl Cluster {
    fn start(slurm: &Path) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slurm/cluster");
        let mut daemons = Command::new(script)
            .args([slurm, folder.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(daemons.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Cluster { daemons, folder, slurm: slurm.to_owned() }
    }

    /// A program that reaches it.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let plugins = fs::read_to_string(self.folder.path().join("slurm.conf")).unwrap();
        let plugins = plugins.lines().find_map(|line| line.strip_prefix("PluginDir=")).unwrap().to_owned();
        let libraries = Path::new(&plugins).parent().unwrap().display().to_string();
        let bin = self.slurm.join("usr/bin");
        let path = format!("{}:{}", bin.display(), env::var("PATH").unwrap());
        let mut command = Command::new(program);
        command
            .env("PATH", path)
            .env("LD_LIBRARY_PATH", format!("{plugins}:{libraries}"))
            .env("SLURM_CONF", self.folder.path().join("slurm.conf"));
        command
    }

    fn say(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(self.slurm.join("usr/bin").join(program)).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }

    /// One value of what Slurm knows of a job.
    fn of_job(&self, job: &str, value: &str) -> String {
        let all = self.say("scontrol", &["--oneliner", "show", "job", job]);
        let found = all.split_whitespace().find_map(|word| word.strip_prefix(value)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {value}: {all}")).to_owned()
    }

    /// Waits for a job to come to its end, and tells its exit code.
    fn ended(&self, job: &str) -> String {
        until(&format!("job {job} ends"), || {
            !["PENDING", "RUNNING", "COMPLETING"].contains(&self.of_job(job, "JobState").as_str())
        });
        self.of_job(job, "ExitCode")
    }

    /// A machine that goes without a word: its daemon, and all that it runs.
    fn lose(&self, node: &str) {
        let conf = format!("SLURM_CONF={}", self.folder.path().join("slurm.conf").display());
        let name = format!("SLURMD_NODENAME={node}");
        let daemon = fs::read_to_string(self.folder.path().join(format!("{node}.pid"))).unwrap();
        let mut lost = BTreeSet::from([daemon.trim().to_owned()]);
        for process in fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()) {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            let has =
                |wanted: &str| environment.split(|byte| *byte == 0).any(|each| each == wanted.as_bytes());
            if has(&conf) && has(&name) {
                lost.insert(process.file_name().unwrap().to_str().unwrap().to_owned());
                // What keeps it for Slurm goes first.
                let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
                let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
                lost.extend(parent.filter(|parent| *parent != "1").map(str::to_owned));
            }
        }
        assert!(lost.len() >= 3, "a daemon, a step and its program: {lost:?}");
        assert!(Command::new("kill").arg("-9").args(&lost).status().unwrap().success());
        self.say("scontrol", &["update", &format!("nodename={node}"), "state=down", "reason=lost"]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.daemons.stdin.take());
        let _ = self.daemons.wait();
    }
}

fn reprocheck(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.current_dir(folder).env_remove("CI").args(arguments);
    command
}

/// Runs the whole on this machine, and tells how long that takes.
fn whole(folder: &Path, items: u64, out: &str) -> Duration {
    fs::write(folder.join("m.toml"), matrix(items)).unwrap();
    let begun = Instant::now();
    let ran =
        reprocheck(folder, &["run", "--model", "qwen", "--matrix", "m.toml", "--out", out]).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    begun.elapsed()
}

/// What a run is judged by, as it was written.
fn reports(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut reports: Vec<_> = fs::read_dir(run)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_stem().is_some_and(|stem| stem.to_string_lossy().starts_with("report")))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    reports.sort();
    reports
}

/// Submits the whole, and tells the numbers of the jobs: of the parts, and of their end.
fn submit(cluster: &Cluster, folder: &Path, out: &str) -> (String, String) {
    let arguments =
        ["submit", "slurm", "--model", "qwen", "--matrix", "m.toml", "--out", out, "--parts", "4", "--go"];
    let ran = cluster.command(BINARY).current_dir(folder).args(arguments).output().unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    let job = |name: &str| {
        let line = said.lines().find(|line| line.starts_with("job ") && line.ends_with(&format!(": {name}")));
        line.unwrap_or_else(|| panic!("{said}"))["job ".len()..].split(':').next().unwrap().to_owned()
    };
    (job("part"), job("merge"))
}

#[test]
#[ignore = "needs the Slurm that `.ci/slurm` fetches, in REPROCHECK_SLURM"]
fn a_node_that_is_lost_costs_time_and_no_bit_and_what_is_missing_is_not_a_pass() {
    let slurm = PathBuf::from(env::var_os("REPROCHECK_SLURM").expect("REPROCHECK_SLURM=\"$(.ci/slurm)\""));
    let place = tempfile::tempdir().unwrap();
    // Names that a shell, and Slurm itself, would read.
    let folder = place.path().join("it's a \"place\" $HOME 50%j");
    fs::create_dir(&folder).unwrap();
    let out = "a run's 1%";

    // So many items that a part takes some seconds, whatever the machine.
    let few = whole(&folder, 2, "few");
    let items = (2.0 * 16.0 / few.as_secs_f64()).ceil().clamp(8.0, 2000.0) as u64;
    whole(&folder, items, "whole");

    let cluster = Cluster::start(&slurm);
    let (parts, merge) = submit(&cluster, &folder, out);
    let part = |number: usize| format!("{parts}_{number}");
    let in_flight = |number: usize| {
        let cells = fs::read_dir(folder.join(format!("{out}/part-{number}-of-4/cells")));
        cells.is_ok_and(|cells| {
            cells.map(Result::unwrap).any(|cell| {
                cell.path().extension().is_some_and(|extension| extension == "partial")
                    && cell.metadata().is_ok_and(|of| of.len() > 0)
            })
        })
    };
    until("two parts are within a cell", || in_flight(1) && in_flight(2));
    cluster.say("scontrol", &["requeue", &part(1)]);
    cluster.say("scancel", &[&part(2)]);
    until("another part is within a cell", || in_flight(3));
    let node = cluster.of_job(&part(3), "BatchHost");
    cluster.lose(&node);

    // All but what was taken away comes to its end, on the node that is left.
    assert_eq!(cluster.ended(&merge), "3:0", "the end of parts of which one is missing");
    for number in [1, 3] {
        assert_eq!(cluster.of_job(&part(number), "JobState"), "COMPLETED");
        assert_eq!(cluster.of_job(&part(number), "Restarts"), "1");
    }
    assert_eq!(cluster.of_job(&part(2), "JobState"), "CANCELLED");
    let said = fs::read_to_string(folder.join(format!("{out}/jobs/merge-{merge}.log"))).unwrap();
    assert!(said.contains("UNKNOWN: ") && said.contains(" is missing: it has not run"), "{said}");
    assert!(!said.contains("PASS"), "{said}");
    let expected = reports(&folder.join("whole"));
    assert_ne!(reports(&folder.join(out)), expected);

    let (_, merge) = submit(&cluster, &folder, out);
    assert_eq!(cluster.ended(&merge), "0:0");
    let found = reports(&folder.join(out));
    let names =
        |reports: &[(String, Vec<u8>)]| reports.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    assert!(!expected.is_empty() && found == expected, "the bytes are those of one machine");
}
