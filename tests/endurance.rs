//! Servers for long: a run of one that is killed goes on as if nothing had been, a report of one needs none, a key is nowhere, and
//! ten thousand requests lose no answer and take no more memory than one thousand.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use reprocheck::numerics::random::Stream;
use serde_json::Value;

use crate::serving::{COMPANY, KEY, Mood, Place, Stub, continuation, files, said, vocabulary, wait_until};

const SAME: &str = "vary = \"concurrency\"\nrequire = \"top\"";
const EVERY: &str = "text,json,markdown,html,svg,junit,sarif,github,csv,lm-eval";

/// What a run leaves behind that is the same whenever it is made: all but how long cells took, and what servers said.
fn left(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = files(folder).into_iter().map(|path| {
        let name = path.strip_prefix(folder).unwrap().display().to_string();
        (name, fs::read(path).unwrap())
    });
    names.filter(|(name, _)| !name.starts_with("cells/") && !name.starts_with("servers/")).collect()
}

/// Every answer takes a while: eight of them alone, and two groups.
fn slow(stub: &Stub) -> Place {
    let place = Place::new(&stub.url(), COMPANY, SAME);
    let matrix = fs::read_to_string(place.path().join("ci.toml")).unwrap();
    fs::write(place.path().join("ci.toml"), matrix.replace("items = 4", "items = 8")).unwrap();
    place
}

#[test]
fn a_run_of_a_server_that_is_killed_at_any_moment_is_resumed_to_the_same_report() {
    const ROUNDS: usize = 8;
    let stub = Stub::new(Mood::Honest);
    let place = slow(&stub);
    let start = Instant::now();
    assert_eq!(place.run().0, 0);
    let takes = start.elapsed();
    let whole = left(&place.path().join("out"));
    assert!(whole.contains_key("report.json"), "{:?}", whole.keys());
    let mut stream = Stream::new(30, 0);
    let (mut killed, mut within) = (0, 0);
    for round in 0..ROUNDS {
        fs::remove_dir_all(place.path().join("out")).unwrap();
        let mut run = place.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(takes.mul_f64(0.9 * stream.unit()));
        // SIGKILL: nothing in the program can do anything about it.
        run.kill().unwrap();
        killed += usize::from(!run.wait().unwrap().success());
        // What the server still does for a run that is gone would count as somebody else's.
        thread::sleep(Duration::from_millis(50));
        wait_until("the server has nothing to do", || stub.counts.0.lock().unwrap().busy == 0);
        let resumed = place.command().arg("--resume").output().unwrap();
        let err = String::from_utf8(resumed.stderr).unwrap();
        assert_eq!(resumed.status.code(), Some(0), "round {round}: {err}");
        within += usize::from(err.contains(" goes on after "));
        let found = left(&place.path().join("out"));
        assert!(found == whole, "round {round}: {:?}", found.keys());
    }
    assert!(killed >= ROUNDS / 2 && within >= 1, "{killed} of {ROUNDS} were killed, {within} within a cell");
}

#[test]
fn a_report_of_a_server_is_made_again_byte_for_byte_where_there_is_none() {
    let stub = Stub::new(Mood::LeavesOut);
    let place = Place::new(&stub.url(), COMPANY, "vary = \"concurrency\"\nrequire = \"tokens\"");
    let run = place.command().args(["--format", EVERY]).output().unwrap();
    assert_eq!(run.status.code(), Some(0));
    let answers = stub.counts.0.lock().unwrap().answers;
    // Nothing is left to ask.
    let resumed = place.command().args(["--resume", "--format", EVERY]).output().unwrap();
    assert_eq!((resumed.status.code(), &resumed.stdout), (Some(0), &run.stdout));
    assert_eq!(stub.counts.0.lock().unwrap().answers, answers);
    stub.close();
    let written = left(&place.path().join("out"));
    let (code, _) = said(place.path(), &["report", "out", "--format", EVERY, "--out", "again"]);
    assert_eq!(code, 0);
    let again = left(&place.path().join("again"));
    assert!(again.len() >= 12, "{:?}", again.keys());
    for (name, bytes) in &again {
        assert!(written.get(name) == Some(bytes), "{name} is another");
    }
    for (format, file) in [("json", "report.json"), ("markdown", "report.md"), ("text", "report.txt")] {
        let output = Command::new(env!("CARGO_BIN_EXE_reprocheck"))
            .args(["report", "out", "--format", format])
            .current_dir(place.path())
            .output();
        assert!(output.unwrap().stdout == written[file], "{format}");
    }
}

/// Whatever of a key nobody else would write.
const TELLS: &str = "that+nobody";

#[track_caller]
fn tells_nothing(mood: Mood, what: &str, bytes: &[u8]) {
    let tells = bytes.windows(TELLS.len()).any(|window| window == TELLS.as_bytes());
    assert!(!tells, "{mood:?}: {what}: {}", String::from_utf8_lossy(bytes));
}

#[test]
fn a_key_goes_to_its_server_and_nowhere_else() {
    assert!(KEY.contains(TELLS));
    for mood in [Mood::Honest, Mood::Repeats, Mood::RepeatsInErrors, Mood::RepeatsInAnswers, Mood::Fails] {
        let stub = Stub::new(mood);
        let server = format!("{}\nkey-env = \"STUB_KEY\"", stub.url());
        let place = Place::new(&server, COMPANY, SAME);
        let run = place.command().args(["--format", EVERY]).output().unwrap();
        tells_nothing(mood, "run", &[run.stdout, run.stderr].concat());
        assert_eq!(stub.counts.0.lock().unwrap().key, Some(format!("Bearer {KEY}")));
        let told = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
            let output = command.args(arguments).current_dir(place.path()).env("STUB_KEY", KEY).output();
            let output = output.unwrap();
            tells_nothing(mood, &arguments.join(" "), &[output.stdout, output.stderr].concat());
        };
        for format in EVERY.split(',').filter(|format| !["svg", "lm-eval"].contains(format)) {
            told(&["report", "out", "--format", format]);
        }
        told(&["report", "out", "--format", EVERY, "--out", "again"]);
        told(&["diff", "out", "out", "--format", "json"]);
        fs::write(place.path().join("tokens.jsonl"), "{\"text\": \"12+34=\"}\n").unwrap();
        let parity = ["parity", "server:stub/n1", "server:stub/n2", "--model", "qwen", "--matrix", "ci.toml"];
        let traces = ["--tokens", "tokens.jsonl", "--max-new-tokens", "3", "--keep", "traces"];
        told(&[&parity[..], &traces].concat());
        told(&[&parity[..], &traces[..4], &["--format", "json"]].concat());
        let files = files(place.path());
        assert!(files.len() > 6, "{files:?}");
        for file in files {
            tells_nothing(mood, &file.display().to_string(), &fs::read(&file).unwrap());
        }
    }
    let stub = Stub::new(Mood::Honest);
    let server = format!("{}\nkey-env = \"REPROCHECK_NO_SUCH_VARIABLE\"", stub.url());
    let (code, out) = Place::new(&server, COMPANY, SAME).run();
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("REPROCHECK_NO_SUCH_VARIABLE, which is not set"), "{out}");
}

#[cfg(unix)]
#[test]
fn a_key_that_a_server_says_in_its_log_is_said_nowhere_else() {
    // Wherever a long line is cut.
    for before in [0, 150, 185, 190, 195, 199, 250] {
        let script = format!("printf '%{before}s' '' | tr ' ' x; printf '%s\\n' \"$STUB_KEY\"; exit 7");
        let server = format!("{}\nkey-env = \"STUB_KEY\"", crate::serving::shell(&script));
        let place = Place::new(&server, COMPANY, SAME);
        let (code, out) = place.run();
        assert_eq!(code, 4, "{out}");
        assert!(out.contains("its server has ended (exit status: 7)"), "{out}");
        for part in ["sk/a", TELLS] {
            assert!(!out.contains(part), "{before}: {out}");
        }
        for file in files(&place.path().join("out")) {
            if !file.ends_with("servers/stub.log") {
                tells_nothing(Mood::Honest, &file.display().to_string(), &fs::read(&file).unwrap());
            }
        }
    }
}

/// What a process took.
#[cfg(target_os = "linux")]
pub(crate) struct Took {
    /// The most memory at any moment, in KiB.
    pub(crate) memory: u64,
    /// Its own time and the system's for it, of all threads, in milliseconds.
    pub(crate) busy: u64,
    /// The bytes that it read, from wherever.
    pub(crate) read: u64,
}

/// Waits for its end. Once it has ended, its time is still told; its memory is that of a moment before.
#[cfg(target_os = "linux")]
pub(crate) fn took(mut child: Child) -> Took {
    let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap();
    let mut memory = 0;
    let (busy, read) = loop {
        let line = of("status").lines().find_map(|line| line.strip_prefix("VmHWM:").map(str::to_owned));
        if let Some(line) = line {
            memory = line.trim().trim_end_matches(" kB").parse().unwrap();
        }
        // Behind the name, which may hold anything.
        let stat = of("stat");
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        if fields[0] == "Z" {
            let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
            let read = of("io").lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok());
            break (10 * (ticks(11) + ticks(12)), read.expect("the system counts it"));
        }
        thread::sleep(Duration::from_millis(2));
    };
    child.wait().unwrap();
    Took { memory, busy, read }
}

/// Asks a stub that many questions, 32 of them at a time, and looks whether each has its own answer.
#[cfg(target_os = "linux")]
fn asked(questions: usize) -> Took {
    let stub = Stub::new(Mood::Quick);
    let place =
        Place::new(&stub.url(), "concurrency = 32\nrepeat = [1, 2]", "vary = \"repeat\"\nrequire = \"top\"");
    let matrix = fs::read_to_string(place.path().join("ci.toml")).unwrap();
    let matrix = matrix.replace("items = 4", &format!("items = {}", questions / 2));
    fs::write(place.path().join("ci.toml"), matrix).unwrap();
    let run = place.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let took = took(run);
    assert_eq!(stub.counts.0.lock().unwrap().answers, questions as u64);
    let lines = |file: &Path| -> Vec<Value> {
        let text = fs::read_to_string(file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let numbers = |value: &Value| -> Vec<u64> {
        value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
    };
    let out = place.path().join("out");
    let asked = lines(&out.join("items.jsonl"));
    assert_eq!(asked.len(), questions / 2);
    let traces = files(&out.join("traces"));
    let samples: Vec<_> = traces.iter().filter(|path| path.ends_with("samples.jsonl")).collect();
    // Both cells have one trace.
    assert_eq!(samples.len(), 1);
    let given = lines(samples[0]);
    assert_eq!(given.len(), questions / 2);
    let (vocabulary, _) = vocabulary();
    for (question, sample) in asked.iter().zip(&given) {
        let own = continuation(&numbers(&question["tokens"]), 0, 3, vocabulary - 5);
        let kept = numbers(&sample["tokens"]);
        assert!(!kept.is_empty() && own.starts_with(&kept), "{question} {sample}");
    }
    took
}

#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_requests_lose_no_answer_and_take_no_more_memory_than_one_thousand() {
    let [few, many] = [1_000, 10_000].map(|questions| asked(questions).memory);
    // A few MiB: sizes of questions, and what an allocator keeps.
    assert!(many < few + 8 * 1024, "{few} KiB for a thousand, {many} KiB for ten thousand");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "a measurement: `cargo test --release --test all -- --ignored --nocapture endurance::`"]
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn what_a_request_costs() {
    let [few, many] = [1_000, 10_000].map(asked);
    let each = (many.busy - few.busy) as f64 / 9_000.0;
    println!("{} ms of 1,000 requests, {} ms of 10,000: {each:.3} ms each", few.busy, many.busy);
    println!("{} KiB of 1,000 requests, {} KiB of 10,000", few.memory, many.memory);
    assert!(each < 0.5, "{each} ms");
}

/// Whoever runs it leaves the machine alone meanwhile: `cargo test --release --test all -- --ignored --nocapture
/// endurance::a_run_of_a_real_model`.
#[cfg(unix)]
#[test]
#[ignore = "needs the real model: REPROCHECK_REAL_MODEL=\"$(.ci/model)\""]
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn a_run_of_a_real_model_costs_less_to_verify_by_a_draw_than_to_make() {
    let model = std::env::var("REPROCHECK_REAL_MODEL").expect("it names the file that `.ci/model` fetches");
    let place = tempfile::tempdir().unwrap();
    // The processor time of the program with these arguments, in seconds: what a shell tells of its children.
    let seconds = |arguments: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$0\" \"$@\" >said 2>&1; echo $?; times", env!("CARGO_BIN_EXE_reprocheck")]);
        let output = shell.args(arguments).current_dir(place.path()).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let said = fs::read_to_string(place.path().join("said")).unwrap();
        let lines: Vec<&str> = told.lines().collect();
        assert!(arguments[0] == "run" || lines[0] == "0", "{arguments:?}: {said}");
        let time = |time: &str| {
            let (minutes, seconds) = time.trim_end_matches('s').split_once('m').unwrap();
            60.0 * minutes.parse::<f64>().unwrap() + seconds.parse::<f64>().unwrap()
        };
        lines[2].split_whitespace().map(time).sum::<f64>()
    };
    for (precision, batch) in [("fp32", 1), ("fp32", 16), ("bf16", 1), ("bf16", 16)] {
        let matrix = format!(
            "style = \"chat\"\nsuites = [\"word_symbolic\"]\nitems = 16\n[generate]\nmax-new-tokens = 192\n[matrix]\n\
             precision = \"{precision}\"\norder = \"sequential\"\nbatch = {batch}\nthreads = 1\n"
        );
        fs::write(place.path().join("m.toml"), matrix).unwrap();
        let run = seconds(&["run", "--model", &model, "--matrix", "m.toml", "--out", "r", "--fresh"]);
        let [all, part] = ["100%", "5%"].map(|sample| seconds(&["verify", "r", "--sample", sample]));
        println!(
            "{precision}, batch {batch}: {run:.1} s of processor time, verified in {all:.1} s ({:.1} %), 5 % of it in {part:.1} s \
             ({:.1} %)",
            100.0 * all / run,
            100.0 * part / run
        );
        assert!(part < run, "{precision}, batch {batch}: {:.3} of the time", part / run);
    }
}
