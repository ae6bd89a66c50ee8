//! Runs from a matrix file to an exit code: what they say, and what a kill or a damage leaves.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use reprocheck::{
    cell::{Axis, Cell},
    numerics::random::Stream,
    plan::Plan,
    report::{FORMATS, Written},
};
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_reprocheck");

/// Five cells, whose batch moves the bits of one order.
const MATRIX: &str = r#"
suites = ["carry_chain", "mul_ladder"]
items  = 8

[reference]
precision = "fp32"
order     = "exact"

[matrix]
precision = "bf16"
order     = ["sequential", "split-k:rows"]
batch     = [1, 4]

[[gate]]
name    = "batch"
where   = { order = "sequential" }
vary    = "batch"
require = "bits"

[[gate]]
name   = "rows"
where  = { order = "split-k:rows" }
vary   = "batch"
expect = "diverges"
"#;

pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// How many cells it said had run. On a slow machine a log says more than that.
    fn cells(&self) -> usize {
        self.err.lines().filter(|line| line.contains(" s, ")).count()
    }
}

/// A folder with a matrix file, in which the program runs.
pub(crate) struct Place(pub(crate) TempDir);

impl Place {
    pub(crate) fn new(matrix: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("m.toml", matrix);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.current_dir(self.0.path()).env_remove("CI").args(arguments);
        command
    }

    fn ran(&self, command: &mut Command) -> Ran {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().expect("nothing kills the program");
        let ran = Ran { code, out: text(output.stdout), err: text(output.stderr) };
        assert!(!ran.err.contains("panicked"), "{command:?}: {}", ran.err);
        ran
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Ran {
        self.ran(&mut self.command(arguments))
    }

    /// A run of the matrix into `out`.
    fn run(&self, more: &[&str]) -> Ran {
        self.call(&[&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "out"], more].concat())
    }

    pub(crate) fn report(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name).join("report.json")).unwrap()
    }

    /// Every file of a run that is neither a report nor tells the time.
    fn files(&self, name: &str) -> Vec<PathBuf> {
        fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, files);
                } else if !path.file_name().unwrap().to_str().unwrap().starts_with(['.', 'r']) {
                    files.push(path);
                }
            }
        }
        let mut files = vec![self.path(name).join("run.json")];
        walk(&self.path(name), &mut files);
        files.sort();
        files
    }
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

fn outcomes(report: &Value) -> Vec<(&str, &str)> {
    let rulings = report["rulings"].as_array().unwrap().iter();
    rulings.map(|ruling| (ruling["gate"].as_str().unwrap(), ruling["outcome"].as_str().unwrap())).collect()
}

#[test]
fn a_run_ends_with_a_verdict_and_its_report_is_made_again_byte_for_byte() {
    let place = Place::new(MATRIX);
    let ran = place.run(&[]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.starts_with("PASS: all 2 gates hold\n"), "{}", ran.out);
    assert_eq!(ran.cells(), 5, "{}", ran.err);
    let report = place.report("out");
    let parsed = json(&report);
    assert_eq!(outcomes(&parsed), [("batch", "pass"), ("rows", "pass")]);
    assert_eq!(parsed["cells"].as_array().unwrap().len(), 5);
    assert_eq!(fs::read_to_string(place.path("out/report.txt")).unwrap(), ran.out);
    let again = place.call(&["report", "out"]);
    assert_eq!((again.code, &again.out), (0, &ran.out));
    let again = place.call(&["report", "out", "--format", "json"]);
    assert_eq!(again.out.as_bytes(), report);
    // The same work once more, elsewhere: the same report, and the same traces.
    let other = Place::new(MATRIX);
    assert_eq!(other.run(&["--format", "json"]).out.as_bytes(), report);
    let traces = |place: &Place| {
        let files = place.files("out").into_iter();
        let traces = files.filter(|path| path.starts_with(place.path("out/traces")));
        traces.map(|path| path.strip_prefix(place.0.path()).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(traces(&place), traces(&other));
    // Equal traces lie there once: the two of the sequential order are.
    assert_eq!(fs::read_dir(place.path("out/traces")).unwrap().count(), 4);
}

#[test]
fn a_plan_that_is_measured_says_how_long_it_takes() {
    let place = Place::new(MATRIX);
    let plan = |more: &[&str]| place.call(&[&["plan", "--matrix", "m.toml"], more].concat());
    let cells = plan(&[]).out;
    let measured = plan(&["--time", "--model", "qwen"]).out;
    let (begin, time) = measured.split_at(cells.len());
    assert_eq!(begin, cells);
    let assumed =
        " here, if every prompt is as long as its suite's longest and every answer as long as it may be\n";
    assert!(time.starts_with("about ") && time.ends_with(assumed), "{time}");
    let with_time = json(plan(&["--time", "--model", "qwen", "--format", "json"]).out.as_bytes());
    assert!(with_time["seconds"].is_u64());
    let ran = plan(&["--time"]);
    assert!(ran.code == 2 && ran.err.contains("no model is named"), "{}", ran.err);
    assert_eq!(plan(&["--model", "qwen"]).code, 2);
}

#[test]
fn a_report_fits_a_terminal_and_names_the_first_divergence() {
    let ran = Place::new(MATRIX).run(&[]);
    for line in ran.out.lines() {
        assert!(line.chars().count() <= 80 && line.trim_end() == line, "{line:?}");
    }
    assert!(!ran.out.contains('\u{1b}'));
    assert!(
        ran.out.contains("A  lab/bf16/split-k:rows/t1/b1\n  B  lab/bf16/split-k:rows/t1/b4\n"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("They differ in batch alone."), "{}", ran.out);
}

// --------------------------------------------------------------------------------------------------- exit codes

#[test]
fn a_gate_that_fails_is_exit_code_1() {
    let place = Place::new(&MATRIX.replace("expect = \"diverges\"", "require = \"bits\""));
    let ran = place.run(&[]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.starts_with("FAIL: 1 of 2 gates does not hold\n"), "{}", ran.out);
    assert!(ran.out.contains("lab/bf16/split-k:rows/t1/b4 has other bits than"), "{}", ran.out);
    // A strict expectation fails where cells agree.
    let place = Place::new(&MATRIX.replace("require = \"bits\"", "expect = \"diverges\""));
    let ran = place.run(&[]);
    assert_eq!(
        (ran.code, outcomes(&json(&place.report("out")))),
        (1, vec![("batch", "fail"), ("rows", "pass")])
    );
    assert!(ran.out.contains("on all 16 items, and should have others"), "{}", ran.out);
}

#[test]
fn what_is_wrong_with_the_usage_or_the_plan_is_exit_code_2() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run(&[]).code, 0);
    let before = place.report("out");
    let ran = place.run(&[]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert_eq!(
        ran.err,
        "error: out holds a run already: continue it with --resume, replace it with --fresh, or name another folder \
         with --out\n"
    );
    assert_eq!(place.report("out"), before);
    for (arguments, sentence) in [
        (&["report", "nowhere"][..], "there is no run in nowhere: name the folder that"),
        (&["run", "--model", "qwen", "--matrix", "none.toml"], "cannot read none.toml"),
        (&["run", "--matrix", "m.toml"], "no model is named: add --model qwen"),
        (&["run", "--model", "qwne", "--matrix", "m.toml"], "did you mean `qwen`?"),
        (&["run", "--model", "qwen", "--matrix", "m.toml", "--part", "4/3"], "`4/3` is not a part"),
        (&["run", "--model", "qwen", "--matrix", "m.toml", "--part", "0/3"], "`0/3` is not a part"),
        (
            &["run", "--model", "qwen", "--matrix", "m.toml", "--baseline", "none.json"],
            "cannot read none.json",
        ),
        (
            &["run", "--model", "qwen", "--matrix", "m.toml", "--baseline", "m.toml"],
            "m.toml is not a baseline",
        ),
        (&["run", "--model", "qwen", "--matrix", "m.toml", "--resume", "--fresh"], "cannot be used with"),
        (&["diff", "out", "nowhere"], "there is no run in nowhere"),
        (&["merge", "nowhere", "--out", "whole"], "there is no run in nowhere"),
    ] {
        let ran = place.call(arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(sentence), "{arguments:?}: {}", ran.err);
    }
    // Nobody asks a model what it cannot read.
    place.write("m.toml", "suites = [\"word_checklist\"]\nitems = 2\n[matrix]\nbatch = 1\n");
    let ran = place.run(&["--fresh"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("word_checklist is not asked in the compact style"), "{}", ran.err);
    assert_eq!(place.report("out"), before, "and what was there is there");
}

#[test]
fn what_nobody_can_tell_is_exit_code_3() {
    let sections = MATRIX.split("[[gate]]").next().unwrap();
    // Nothing was asked to hold.
    let ran = Place::new(sections).run(&[]);
    assert_eq!(ran.code, 3);
    assert!(
        ran.out.starts_with("UNKNOWN: the matrix has no gate, so nothing was asked to hold"),
        "{}",
        ran.out
    );
    // Too few items to tell.
    let drop = format!("{sections}[[gate]]\nagainst = \"reference\"\nmax-accuracy-drop = \"1pp\"\n");
    let ran = Place::new(&drop).run(&[]);
    assert_eq!(ran.code, 3);
    assert!(ran.out.starts_with("UNDECIDED: too few items to tell for 1 of 1 gate\n"), "{}", ran.out);
    assert!(
        ran.out.split_whitespace().collect::<Vec<_>>().join(" ").contains("items would decide it"),
        "{}",
        ran.out
    );
    // An axis that made no difference to what ran: one prompt at a time leaves nothing to group.
    let grouping = sections.replace("batch     = [1, 4]", "grouping = [\"in-order\", \"shuffled:3\"]")
        + "[[gate]]\nname = \"g\"\nvary = \"grouping\"\nrequire = \"bits\"\n";
    let place = Place::new(&grouping);
    let ran = place.run(&[]);
    assert_eq!((ran.code, outcomes(&json(&place.report("out")))), (3, vec![("g", "unknown")]));
    assert!(
        ran.out.contains("`grouping` was not exercised: the same prompts shared their calls"),
        "{}",
        ran.out
    );
    // With company it is tested, and holds.
    let ran =
        Place::new(&grouping.replace("[matrix]", "[matrix]\nbatch = 4").replace(", \"split-k:rows\"", ""))
            .run(&[]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    // A gate against a baseline that nobody named.
    let baseline = format!("{sections}[[gate]]\nagainst = \"baseline\"\nrequire = \"bits\"\n");
    let ran = Place::new(&baseline).run(&[]);
    assert_eq!(ran.code, 3);
    assert!(ran.out.contains("there is no baseline to hold it against"), "{}", ran.out);
}

#[test]
fn a_machine_that_will_not_is_exit_code_4() {
    let place = Place::new(MATRIX);
    place.write("file", "");
    let ran = place.call(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "file/out"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(
        ran.err.contains("cannot write file/out") && ran.err.contains("choose another place"),
        "{}",
        ran.err
    );
    // Two runs at once in one folder.
    let folder = place.path("out");
    fs::create_dir(&folder).unwrap();
    let lock = fs::File::create(folder.join(".lock")).unwrap();
    lock.lock().unwrap();
    let ran = place.run(&[]);
    assert_eq!(ran.code, 4);
    assert!(ran.err.contains("another process is writing to out"), "{}", ran.err);
    lock.unlock().unwrap();
    assert_eq!(place.run(&[]).code, 0);
}

#[test]
fn files_that_no_run_has_written_are_left_alone() {
    let place = Place::new(MATRIX);
    fs::create_dir_all(place.path("out/cells")).unwrap();
    place.write("out/cells/mine.txt", "mine");
    let ran = place.run(&["--fresh"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("out holds cells, which no run has written: name an empty folder"),
        "{}",
        ran.err
    );
    fs::remove_dir_all(place.path("out")).unwrap();
    assert_eq!(place.run(&[]).code, 0);
    // Nor does a run that replaces another one take more than that one wrote.
    place.write("out/mine.txt", "mine");
    place.write("out/cells/mine.txt", "mine");
    fs::create_dir(place.path("out/traces/mine")).unwrap();
    assert_eq!(place.run(&["--fresh"]).code, 0);
    for name in ["out/mine.txt", "out/cells/mine.txt", "out/traces/mine"] {
        assert!(place.path(name).exists(), "{name}");
    }
}

#[test]
fn a_run_that_goes_on_has_no_report_until_it_has_ended() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run(&[]).code, 0);
    // Nobody, whatever he may do, puts a file in the place of a folder that holds something.
    let cell = place.path("out/cells/lab_bf16_sequential_t1_b1.json");
    fs::remove_file(&cell).unwrap();
    fs::create_dir_all(cell.join("in the way")).unwrap();
    assert_eq!(place.run(&["--resume"]).code, 4);
    assert!(!place.path("out/report.json").exists() && !place.path("out/report.txt").exists());
    fs::remove_dir_all(&cell).unwrap();
    assert_eq!(place.call(&["report", "out"]).code, 3);
}

#[test]
fn orders_that_are_one_tree_under_two_names_prove_nothing() {
    let sections = MATRIX.split("[[gate]]").next().unwrap();
    let matrix = |orders: &str, more: &str| {
        sections.replace("[\"sequential\", \"split-k:rows\"]", orders).replace("batch     = [1, 4]", more)
    };
    let same = matrix("[\"sequential\", \"lanes:1\"]", "batch = 2")
        + "[[gate]]\nname = \"o\"\nvary = \"order\"\nrequire = \"bits\"\n";
    let ran = Place::new(&same).run(&[]);
    assert_eq!(ran.code, 3);
    assert!(ran.out.contains("`order` was not exercised: these names stand for one tree"), "{}", ran.out);
    // An order that follows the threads that were asked for has varied, although one of them did all the work.
    let threads = matrix("[\"split-k:threads\"]", "batch = 1\nthreads = [1, 2]");
    let gate = "[[gate]]\nname = \"t\"\nvary = \"threads\"\nexpect = \"diverges\"\n";
    let place = Place::new(&(threads + gate));
    assert_eq!(place.run(&[]).code, 0);
    assert_eq!(json(&place.report("out"))["axes"][0]["exercised"], 1);
}

#[test]
fn texts_without_an_answer_prove_nothing_about_answers() {
    let sections = MATRIX.split("[[gate]]").next().unwrap();
    let short = sections.to_owned()
        + "[generate]\nmax-new-tokens = 1\n[[gate]]\nagainst = \"reference\"\nrequire = \"answers\"\n";
    let ran = Place::new(&short).run(&[]);
    assert_eq!(ran.code, 3);
    let flat = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("no answer was found in any text of lab/fp32/exact/t1/b1 and"), "{flat}");
}

#[test]
fn a_report_is_written_down_in_every_format_that_is_asked_for() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run(&[]).code, 0);
    let ran = place.call(&["report", "out", "--format", "text,json"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("several formats go to files: say where with --out"), "{}", ran.err);
    let ran = place.call(&["report", "out", "--format", "jsno"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("there is no format `jsno`: did you mean `json`? write one of text, json"),
        "{}",
        ran.err
    );
    // How a file ends is not what its format is called.
    let ran = place.call(&["report", "out", "--format", "md"]);
    assert!(ran.err.contains("there is no format `md`: did you mean `markdown`?"), "{}", ran.err);
    let all: Vec<_> = FORMATS.iter().map(|format| format.name).collect();
    let all = all.join(",");
    let shown = place.call(&["report", "out", "--format", &all, "--out", "there"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    let mut files: Vec<_> = fs::read_dir(place.path("there"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut names: Vec<_> = FORMATS.iter().map(|format| format.file).collect();
    names.sort_unstable();
    assert_eq!(files, names);
    for format in FORMATS {
        assert!(format.file.starts_with("report."), "a run that goes on forgets its reports by their names");
        if !matches!(format.written, Written::Text(_)) {
            assert!(place.path("there").join(format.file).is_dir());
            continue;
        }
        let ran = place.call(&["report", "out", "--format", format.name]);
        assert_eq!(
            ran.out.as_bytes(),
            fs::read(place.path("there").join(format.file)).unwrap(),
            "{}",
            format.name
        );
    }
    assert_eq!(fs::read_to_string(place.path("there").join(FORMATS[0].file)).unwrap(), shown.out);
}

// ------------------------------------------------------------------------------------------- killed and damaged

/// Thirty runs, each killed at a moment of its own, and each resumed to the report of one that was left alone: most of
/// them within a cell, whose items that were done do not run again.
#[test]
fn a_run_killed_at_any_moment_is_resumed_to_the_same_report() {
    let matrix = MATRIX.replace("items  = 8", "items  = 12");
    let whole = Place::new(&matrix);
    let start = Instant::now();
    assert_eq!(whole.run(&[]).code, 0);
    let whole_takes = start.elapsed();
    let report = whole.report("out");
    let files: Vec<_> = whole.files("out").iter().map(|file| file.file_name().unwrap().to_owned()).collect();
    let mut stream = Stream::new(30, 0);
    let place = Place::new(&matrix);
    let (mut killed, mut early, mut within) = (0, 0, 0);
    for round in 0..30 {
        let _ = fs::remove_dir_all(place.path("out"));
        let mut child = place
            .command(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "out"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Not to the very end: how long a run takes depends on who else computes here.
        thread::sleep(Duration::from_secs_f64(0.8 * whole_takes.as_secs_f64() * stream.unit()));
        // SIGKILL: nothing in the program can do anything about it.
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        let is_begun = place.path("out/run.json").exists();
        early += u32::from(!is_begun);
        let ran = place.run(&["--resume"]);
        assert_eq!(ran.code, 0, "round {round}: {}", ran.err);
        assert!(place.report("out") == report, "round {round}");
        within += u32::from(ran.err.contains(" goes on after "));
        let names: Vec<_> =
            place.files("out").iter().map(|file| file.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, files, "round {round} leaves something behind");
    }
    assert!(
        killed >= 15 && early < 25 && within >= 8,
        "{killed} of 30 were killed before their end, {early} before their beginning, {within} within a cell"
    );
}

/// The same run again and again, and killed again and again: it comes to its end all the same.
#[test]
fn a_run_that_is_killed_before_every_cell_is_done_comes_to_its_end() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run(&[]).code, 0);
    let report = place.report("out");
    let _ = fs::remove_dir_all(place.path("out"));
    let partials = |place: &Place| {
        let lines =
            |path: PathBuf| fs::read(path).map_or(0, |bytes| bytes.iter().filter(|b| **b == b'\n').count());
        let names = ["fp32_exact_t1_b1", "bf16_sequential_t1_b1"];
        names
            .map(|name| lines(place.path(&format!("out/cells/lab_{name}.partial"))))
            .into_iter()
            .max()
            .unwrap()
    };
    for lines in [1, 4, 7, 10, 13] {
        let mut child = place
            .command(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "out", "--resume"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Whoever is too slow to see so many lines sees the end of the run.
        while partials(&place) < lines && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(place.run(&["--resume"]).code, 0);
    assert!(place.report("out") == report);
}

/// A run that was killed in its third cell, each of whose items is a line of its file.
fn within_a_cell(place: &Place) -> PathBuf {
    let partial = place.path("out/cells/lab_bf16_sequential_t1_b1.partial");
    let mut child = place
        .command(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "out"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while fs::read(&partial).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count()) < 4 {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    partial
}

#[test]
fn what_is_done_of_a_cell_is_believed_as_far_as_it_is_what_was_written() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run(&[]).code, 0);
    let report = place.report("out");
    fs::remove_dir_all(place.path("out")).unwrap();
    let partial = within_a_cell(&place);
    let good = fs::read(&partial).unwrap();
    let ends: Vec<_> = (1..).zip(&good).filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end).collect();
    let first = fs::read(place.path("out/cells/lab_fp32_exact_t1_b1.json")).unwrap();
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad
    };
    let text = String::from_utf8(good[..ends[3]].to_vec()).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let swapped = [lines[0], lines[2], lines[1]].concat();
    // Whoever writes a line anew may seal it anew, but not of another cell.
    for (bad, items, problem) in [
        (good[..ends[3]].to_vec(), 4, "items\n"),
        (good[..ends[2] + 10].to_vec(), 3, "its last line has no end"),
        (flipped(ends[1] + 9), 2, "it is not what was written"),
        (flipped(ends[1] + (ends[2] - ends[1]) / 2), 2, "it is not what was written"),
        (flipped(ends[2] - 1), 2, "it is not what was written"),
        (swapped.into_bytes(), 1, "its items do not share a call in this cell"),
        ([lines[0], lines[0]].concat().into_bytes(), 1, "its items do not share a call in this cell"),
        (
            text.replace("\"program\":\"reprocheck 0", "\"program\":\"reprocheck 9").into_bytes(),
            0,
            "9.2.0 wrote it",
        ),
        (first, 0, "it does not read"),
    ] {
        fs::write(&partial, &bad).unwrap();
        let _ = fs::remove_file(place.path("out/cells/lab_bf16_sequential_t1_b1.json"));
        let ran = place.run(&["--resume"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let said = format!("lab/bf16/sequential/t1/b1 goes on after {items} of 16 items");
        assert!(ran.err.contains(&said) && ran.err.contains(problem), "{problem}: {}", ran.err);
        assert!(place.report("out") == report, "{problem}");
        assert!(!partial.exists());
    }
    // Another cell's, and one that a kill left beside the cell itself.
    fs::write(&partial, &good[..ends[0]]).unwrap();
    assert_eq!(place.run(&["--resume"]).err, "5 of 5 cells are done already\n");
    assert!(!partial.exists());
    let other = place.path("out/cells/lab_bf16_split-k~rows_t1_b1");
    fs::remove_file(other.with_extension("json")).unwrap();
    fs::write(other.with_extension("partial"), &good[..ends[0]]).unwrap();
    let ran = place.run(&["--resume"]);
    assert!(ran.err.contains("goes on after 0 of 16 items: "), "{}", ran.err);
    assert!(
        ran.err.contains("it is about lab/bf16/sequential/t1/b1; the items from there on run again"),
        "{}",
        ran.err
    );
    assert!(place.report("out") == report);
    // One of a run that asks otherwise.
    fs::write(&partial, &good[..ends[0]]).unwrap();
    let file = place.path("out/cells/lab_bf16_sequential_t1_b1.json");
    fs::remove_file(&file).unwrap();
    place.write("m.toml", &MATRIX.replace("[matrix]", "[generate]\ncandidates = 3\n[matrix]"));
    assert_eq!(place.run(&["--fresh"]).code, 0);
    assert!(!partial.exists(), "a fresh run begins with nothing");
    fs::remove_file(&file).unwrap();
    fs::write(&partial, &good[..ends[0]]).unwrap();
    let ran = place.run(&["--resume"]);
    assert!(
        ran.err.contains("goes on after 0 of 16 items: ") && ran.err.contains("it is of another run"),
        "{}",
        ran.err
    );
}

/// One that has begun its first cell.
#[cfg(unix)]
fn begun(place: &Place) -> std::process::Child {
    let mut command = place.command(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "out"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while fs::read_dir(place.path("out/cells")).map_or(0, Iterator::count) == 0 {
        assert!(child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(2));
    }
    child
}

#[cfg(unix)]
fn signal(child: &std::process::Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn what_became_of_answers_adds_up() {
    let place = Place::new(&MATRIX.replace("items  = 8", "items  = 40"));
    assert_eq!(place.run(&[]).code, 0);
    let report: Value = serde_json::from_slice(&place.report("out")).unwrap();
    let count = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value}"));
    let mut changed = 0;
    for cell in report["cells"].as_array().unwrap() {
        let name = &cell["cell"];
        for (suite, row) in cell["suites"].as_object().unwrap() {
            let strata = row["strata"].as_array().unwrap();
            assert!(strata.len() > 1, "{name}: {suite} is a ladder");
            for part in ["hits", "of"] {
                let all = strata.iter().map(|stratum| count(&stratum["right"][part])).sum::<u64>();
                assert_eq!(all, count(&row["right"][part]), "{name}: {part} of {suite}");
            }
            let outcomes = row["outcomes"].as_object().unwrap();
            assert_eq!(outcomes.values().map(count).sum::<u64>(), 40);
            assert_eq!(count(&outcomes["correct"]), count(&row["right"]["hits"]));
            assert!(count(&row["flexible"]["hits"]) >= count(&row["right"]["hits"]));
            assert_eq!(row["digits"]["exact"]["of"], 40);
        }
        let Some(against) = cell["against"].as_object() else { continue };
        let moved = |from: &str, to: &str| {
            let rows = against["outcomes"].as_array().unwrap().iter();
            let rows = rows
                .filter(|row| (from, row["reference"] == "correct") == ("correct", true) || from.is_empty());
            rows.filter(|row| to.is_empty() || row["cell"] == to).map(|row| count(&row["items"])).sum::<u64>()
        };
        assert_eq!(moved("correct", ""), count(&against["paired"]["lost"]), "{name}");
        assert_eq!(moved("", "correct"), count(&against["paired"]["gained"]), "{name}");
        changed += moved("", "");
    }
    assert!(changed > 0, "some answer has changed");
    let bf16 = &report["precisions"][0];
    assert_eq!(
        (&bf16["cells"], &bf16["distinct"]),
        (&Value::from(4), &Value::from(3)),
        "the batch moves one order"
    );
    let digits = bf16["digits"].as_array().unwrap();
    let last = digits.iter().filter(|digit| digit["place"] == 0);
    let products = last.map(|digit| count(&digit["right"]["of"])).sum::<u64>();
    // What is multiplied by 0 or 1 says nothing of carries.
    assert!(
        products % 4 == 0 && (4 * 30..=4 * 40).contains(&products),
        "every product of four cells: {products}"
    );
}

#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_end_says_how_it_goes_on() {
    let matrix = MATRIX.replace("items  = 8", "items  = 32");
    let whole = Place::new(&matrix);
    assert_eq!(whole.run(&[]).code, 0);
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let place = Place::new(&matrix);
        let child = begun(&place);
        signal(&child, name);
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{said}");
        let sentence = "error: stopped as asked: what is done is safe, and --resume goes on with it\n";
        assert!(said.ends_with(sentence), "{said}");
        assert!(!place.path("out/report.json").exists());
        let ran = place.run(&["--resume"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(place.report("out") == whole.report("out"), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_second_signal_ends_a_run_at_once() {
    // One call for all items of a suite: whoever waits for it waits long.
    let matrix = "suites = [\"mul_ladder\"]\nitems = 1024\n[matrix]\nbatch = [1024]\n";
    // A cell has begun a little before its first call has, and who is asked in between ends right there.
    let is_in_flight = |child: &mut std::process::Child| {
        thread::sleep(Duration::from_millis(100));
        signal(child, "INT");
        thread::sleep(Duration::from_millis(50));
        child.try_wait().unwrap().is_none()
    };
    let mut tries = (0..10).map(|_| {
        let place = Place::new(matrix);
        let mut child = begun(&place);
        is_in_flight(&mut child).then_some((child, place))
    });
    let (child, _place) = tries.find_map(|tried| tried).expect("it waits for what is in flight");
    signal(&child, "INT");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(!said.contains("stopped as asked"), "{said}");
}

#[test]
fn a_store_with_a_flipped_byte_or_a_truncated_file_is_repaired_or_refused_and_never_trusted() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run(&[]).code, 0);
    let report = place.report("out");
    let files = place.files("out");
    assert_eq!(files.len(), 3 + 5 + 3 * 4, "{files:?}");
    let mut stream = Stream::new(1, 0);
    for file in files {
        let good = fs::read(&file).unwrap();
        let place_in = |stream: &mut Stream| (stream.unit() * good.len() as f64) as usize;
        let mut damages: Vec<Vec<u8>> = (0..3)
            .map(|_| {
                let mut bad = good.clone();
                bad[place_in(&mut stream)] ^= 1 << (stream.bits() % 7);
                bad
            })
            .collect();
        damages.push(good[..place_in(&mut stream)].to_vec());
        for bad in damages {
            fs::write(&file, &bad).unwrap();
            let ran = place.call(&["report", "out", "--format", "json"]);
            let name = file.display();
            let is_trusted = ran.code == 0;
            // What lies between the parts of a file says nothing.
            assert!(!is_trusted || ran.out.as_bytes() == report, "{name}: {}", ran.out);
            assert!(is_trusted || matches!(ran.code, 2 | 3), "{name}: {}", ran.err);
            let ran = place.run(&["--resume"]);
            match ran.code {
                0 => assert!(place.report("out") == report, "{name}"),
                code => {
                    // What all cells rest on is not made again over their heads.
                    assert_eq!(code, 2, "{name}: {}", ran.err);
                    assert!(ran.err.contains("--fresh"), "{name}: {}", ran.err);
                    fs::write(&file, &good).unwrap();
                }
            }
        }
        fs::write(&file, &good).unwrap();
    }
    assert_eq!(place.call(&["report", "out", "--format", "json"]).out.as_bytes(), report);
}

#[test]
fn a_cell_that_is_damaged_is_told_and_runs_again() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run(&[]).code, 0);
    let report = place.report("out");
    let cell = place.path("out/cells/lab_bf16_split-k~rows_t1_b4.json");
    let text = fs::read_to_string(&cell).unwrap();
    // A lie that reads well: other rows than really ran.
    fs::write(&cell, text.replace("\"decode_rows\":4", "\"decode_rows\":8")).unwrap();
    let ran = place.call(&["report", "out"]);
    assert_eq!(ran.code, 3);
    assert!(ran.out.starts_with("UNKNOWN: 1 of 5 cells is missing\n"), "{}", ran.out);
    let flat = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("b4.json: it is not what was written"), "{flat}");
    let ran = place.run(&["--resume"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.starts_with("lab/bf16/split-k:rows/t1/b4 runs again: out/cells/"), "{}", ran.err);
    assert!(ran.err.contains("4 of 5 cells are done already\n"), "{}", ran.err);
    assert_eq!(place.report("out"), report);
    // A cell under the name of another.
    fs::copy(place.path("out/cells/lab_bf16_sequential_t1_b1.json"), &cell).unwrap();
    let ran = place.run(&["--resume"]);
    assert!(ran.err.contains("it is about lab/bf16/sequential/t1/b1"), "{}", ran.err);
    assert_eq!(place.report("out"), report);
}

#[test]
fn another_plan_another_model_and_another_version_are_refused() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run(&[]).code, 0);
    for (from, to, sentence) in [
        ("items  = 8", "items  = 9", "it asks 8 of carry_chain, 8 of mul_ladder, not 9 of carry_chain"),
        ("items  = 8", "items  = 8\nitem-seed = 1", "it asks the same suites in another way"),
        ("batch     = [1, 4]", "batch     = [1, 2, 4]", "its matrix has no cell lab/bf16/sequential/t1/b2"),
        ("batch     = [1, 4]", "batch     = [1, 2]", "its matrix has the cell lab/bf16/sequential/t1/b4"),
        (
            "batch     = [1, 4]",
            "batch     = [4, 1]",
            "its reference is lab/fp32/exact/t1/b1, not lab/fp32/exact/t1/b4",
        ),
        (
            "[matrix]",
            "[generate]\nmax-new-tokens = 3\n[matrix]",
            "it continues prompts (max-new-tokens as a suite says",
        ),
        (
            "[matrix]",
            "[generate]\ncandidates = 3\n[matrix]",
            "candidates 5, replay false), not (max-new-tokens as a suite says, choice greedy, candidates 3",
        ),
    ] {
        place.write("m.toml", &MATRIX.replace(from, to));
        let ran = place.run(&["--resume"]);
        assert_eq!(ran.code, 2, "{to}: {}", ran.err);
        assert!(
            ran.err.contains("out holds another run: ") && ran.err.contains(sentence),
            "{to}: {}",
            ran.err
        );
    }
    place.write("m.toml", MATRIX);
    let ran = place.call(&["run", "--model", "qwen-full", "--matrix", "m.toml", "--out", "out", "--resume"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("its model is qwen (2ba6432c0eb7), not qwen-full ("), "{}", ran.err);
    // What must hold is judged afterwards, so it may change.
    place.write("m.toml", &MATRIX.replace("name    = \"batch\"", "name    = \"the batch\""));
    let ran = place.run(&["--resume"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, "5 of 5 cells are done already\n"));
    assert_eq!(outcomes(&json(&place.report("out")))[0], ("the batch", "pass"));
    // A store of another version.
    let run = place.path("out/run.json");
    let text = fs::read_to_string(&run).unwrap();
    for (from, to, sentence) in [
        (
            "\"form\":2",
            "\"form\":1",
            "in form 1, and can read it; this is reprocheck 0.2.0, which reads form 2",
        ),
        ("\"program\":\"reprocheck 0", "\"program\":\"reprocheck 9", "reprocheck 9.2.0 wrote it"),
    ] {
        assert!(text.contains(from), "{text}");
        fs::write(&run, text.replacen(from, to, 1)).unwrap();
        for arguments in [
            &["report", "out"][..],
            &["run", "--model", "qwen", "--matrix", "m.toml", "--out", "out", "--resume"],
        ] {
            let ran = place.call(arguments);
            assert_eq!(ran.code, 2);
            assert!(ran.err.contains(sentence) && ran.err.contains("--fresh"), "{}", ran.err);
        }
    }
    assert_eq!(place.run(&["--fresh"]).code, 0);
}

// ---------------------------------------------------------------------------------------------------- baselines

#[test]
fn what_was_approved_is_held_to_and_a_change_is_shown_before_it_is_written() {
    let gate = "\n[[gate]]\nname = \"approved\"\nagainst = \"baseline\"\nrequire = \"bits\"\n";
    let place = Place::new(&(MATRIX.to_owned() + gate));
    assert_eq!(place.run(&[]).code, 3);
    let ran = place.call(&["approve", "out"]);
    assert_eq!(ran.code, 0);
    assert!(
        ran.out.contains("+ lab/fp32/exact/t1/b1: ")
            && ran.out.ends_with("5 changes approved: baseline.json\n"),
        "{}",
        ran.out
    );
    let approved = fs::read_to_string(place.path("baseline.json")).unwrap();
    let ran = place.call(&["approve", "out"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "baseline.json is up to date: 5 cells\n"));
    let ran = place.run(&["--resume", "--baseline", "baseline.json"]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(ran.out.contains("approved: 5 of 5 comparisons"), "{}", ran.out);
    // Other bits than were approved, of a cell that has other tokens, and of one that is gone.
    let cells = json(approved.as_bytes())["cells"].clone();
    let cell = |name: &str| cells[name].clone();
    let mut other = json(approved.as_bytes());
    other["cells"]["lab/bf16/split-k:rows/t1/b1"] = cell("lab/fp32/exact/t1/b1");
    other["cells"].as_object_mut().unwrap().remove("lab/bf16/sequential/t1/b4");
    other["cells"]["lab/gone/sequential/t1/b1"] = cell("lab/fp32/exact/t1/b1");
    place.write("other.json", &other.to_string());
    let ran = place.call(&["report", "out", "--baseline", "other.json"]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("lab/bf16/split-k:rows/t1/b1 has other bits than were approved"), "{}", ran.out);
    assert!(ran.out.contains("the baseline does not have lab/bf16/sequential/t1/b4"), "{}", ran.out);
    let before = fs::read_to_string(place.path("other.json")).unwrap();
    let ran = place.ran(place.command(&["approve", "out", "--baseline", "other.json"]).env("CI", "true"));
    assert_eq!(ran.code, 1, "pending changes fail in CI");
    for line in [
        "~ lab/bf16/split-k:rows/t1/b1: other bits",
        "+ lab/bf16/sequential/t1/b4: ",
        "- lab/gone/sequential/t1/b1\n",
        "3 changes pending, and CI approves none",
    ] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    assert_eq!(fs::read_to_string(place.path("other.json")).unwrap(), before);
    assert_eq!(place.call(&["approve", "out", "--baseline", "other.json"]).code, 0);
    assert_eq!(fs::read_to_string(place.path("other.json")).unwrap(), approved);
    // A baseline of other questions proves nothing.
    place.write("m.toml", &(MATRIX.replace("items  = 8", "items  = 7") + gate));
    let ran = place.run(&["--fresh", "--baseline", "baseline.json"]);
    assert_eq!(ran.code, 3);
    assert!(ran.out.contains("the baseline is about something else"), "{}", ran.out);
    // Half a run is not approved.
    let ran = place.call(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "part", "--part", "1/2"]);
    assert_eq!(ran.code, 0);
    let ran = place.call(&["approve", "part/part-1-of-2"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("4 of its cells are missing"), "{}", ran.err);
}

#[test]
fn what_a_foreign_engine_did_elsewhere_is_no_evidence_here() {
    let place = Place::new(
        "suites = [\"carry_chain\"]\nitems = 4\n[matrix]\nengine = \"candle\"\n[[gate]]\nagainst = \"baseline\"\nrequire = \"bits\"\n",
    );
    assert_eq!(place.run(&[]).code, 3);
    assert_eq!(place.call(&["approve", "out"]).code, 0);
    let ran = place.call(&["report", "out", "--baseline", "baseline.json"]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    let approved = fs::read_to_string(place.path("baseline.json")).unwrap();
    place.write("baseline.json", &approved.replace("\"widest vectors\": \"", "\"widest vectors\": \"not "));
    let ran = place.call(&["report", "out", "--baseline", "baseline.json"]);
    assert_eq!(ran.code, 3);
    let flat = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        flat.contains("candle/fp32/t1/b1 was approved on another machine or version of its engine"),
        "{flat}"
    );
}

// --------------------------------------------------------------------------------------------------------- diff

#[test]
fn two_runs_and_two_cells_are_compared_where_they_part() {
    let (place, other) = (Place::new(MATRIX), Place::new(MATRIX));
    assert_eq!((place.run(&[]).code, other.run(&[]).code), (0, 0));
    let there = other.path("out");
    let there = there.to_str().unwrap();
    let ran = place.call(&["diff", "out", there]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(ran.out.starts_with("PASS: the bits of 5 cells are what they were\n"), "{}", ran.out);
    // Another machine has other bits in one cell: as if its kernel had the fault of another order.
    let cell = |name: &str| format!("out/cells/lab_bf16_split-k~rows_t1_{name}.json");
    let ran = place.call(&["diff", &cell("b1"), &cell("b4")]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.out.starts_with("Where two cells first part\n  A  lab/bf16/split-k:rows/t1/b1\n  B  lab"),
        "{}",
        ran.out
    );
    let flat = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("bit is number 2, found through 5 nodes of each tree."), "{flat}");
    assert!(flat.contains("lost and"), "{flat}");
    let ran = place.call(&["diff", &cell("b1"), &cell("b1")]);
    assert_eq!(ran.code, 0);
    // A run that lacks cells is not the same.
    let part = ["run", "--model", "qwen", "--matrix", "m.toml", "--out", "part", "--part", "1/2"];
    assert_eq!(place.call(&part).code, 0);
    let ran = place.call(&["diff", "out", "part/part-1-of-2"]);
    assert!(ran.out.starts_with("UNKNOWN: the bits of 1 cell are what they were, 2 of 2 gates are worse, 4 cells are not in both\n"), "{}", ran.out);
    assert!(
        ran.out.contains("lab/bf16/sequential/t1/b1 is missing: it is in the other run alone\n"),
        "{}",
        ran.out
    );
    assert_eq!(ran.code, 3);
    // Other questions cannot be compared, nor things of two kinds.
    place.write("m.toml", &MATRIX.replace("items  = 8", "items  = 7"));
    assert_eq!(place.call(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "seven"]).code, 0);
    let ran = place.call(&["diff", "out", "seven"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("out and seven cannot be compared: it asks 8 of carry_chain"), "{}", ran.err);
    let ran = place.call(&["diff", "out", &cell("b1")]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("are compared with their like"), "{}", ran.err);
    // Two models that are asked the same: where do they part, and is the one worse?
    place.write("m.toml", MATRIX);
    assert_eq!(place.call(&["run", "--model", "qwen-full", "--matrix", "m.toml", "--out", "full"]).code, 0);
    let ran = place.call(&["diff", "out", "full"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.starts_with("FAIL: 5 of 5 cells have other bits than before\n"), "{}", ran.out);
    assert!(ran.out.contains("and 2 more\n"), "{}", ran.out);
    assert!(ran.out.contains("  model: qwen (qwen3, 603,648 parameters) -> qwen-full"), "{}", ran.out);
}

#[test]
fn a_comparison_of_two_runs_is_written_in_every_format_that_one_run_is_enough_for() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run(&[]).code, 0);
    let full = ["run", "--model", "qwen-full", "--matrix", "m.toml", "--out", "full"];
    assert_eq!(place.call(&full).code, 0);
    let names: Vec<_> = FORMATS.iter().map(|format| format.name).filter(|name| *name != "lm-eval").collect();
    let ran = place.call(&["diff", "out", "full", "--format", &names.join(","), "--out", "change"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    for format in FORMATS.iter().filter(|format| format.name != "lm-eval") {
        assert!(place.path("change").join(format.file).exists(), "{}", format.name);
    }
    assert_eq!(ran.out, fs::read_to_string(place.path("change/report.txt")).unwrap());
    let report = json(&place.report("change"));
    assert_eq!(report["before"]["run"]["model"]["name"], "qwen");
    assert_eq!(report["run"]["model"]["name"], "qwen-full");
    assert_eq!(report["before"]["verdicts"], serde_json::json!(["pass", "pass"]));
    // Answers that two models share are few, and those that a model shares with itself are all.
    assert_eq!(place.call(&["diff", "out", "full", "--require", "answers"]).code, 1);
    assert_eq!(place.call(&["diff", "out", "out", "--require", "answers"]).code, 0);
    for (arguments, sentence) in [
        (&["diff", "out", "full", "--require", "word"][..], "write one of bits, tokens, answers"),
        (
            &["diff", "out", "full", "--format", "json,csv"],
            "several formats go to files: say where with --out",
        ),
        (&["diff", "out", "full", "--format", "svg"], "svg goes to several files: say where with --out"),
        (&["diff", "out", "full", "--format", "lm-eval", "--out", "x"], "ask `reprocheck report` for it"),
        (&["diff", "out", "full", "--open"], "--open writes the page: say where with --out"),
        (
            &[
                "diff",
                "out/cells/lab_fp32_exact_t1_b1.json",
                "out/cells/lab_fp32_exact_t1_b1.json",
                "--format",
                "json",
            ],
            "--require, --format, --out and --open are about two runs",
        ),
    ] {
        let ran = place.call(arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(sentence), "{arguments:?}: {}", ran.err);
    }
}

#[test]
fn figures_are_files_and_samples_are_logs_that_diff_reads() {
    let place = Place::new(MATRIX);
    let ran = place.run(&["--format", "svg,lm-eval"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let figures: Vec<_> = ran.out.lines().collect();
    assert_eq!(figures.len(), 7, "{}", ran.out);
    for figure in figures {
        assert!(fs::read_to_string(place.path(figure)).unwrap().starts_with("<svg "), "{figure}");
    }
    let cell = |name: &str| format!("out/report.lm-eval/{name}");
    let samples = |name: &str| {
        let entries = fs::read_dir(place.path(&cell(name))).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.map(|path| path.to_str().unwrap().to_owned()).collect();
        files.sort();
        files
    };
    let [one, other] = ["lab_bf16_sequential_t1_b1", "lab_fp32_exact_t1_b1"].map(samples);
    assert_eq!(one.len(), 3, "{one:?}");
    assert!(one[0].contains("/results_") && one[1].contains("/samples_"), "{one:?}");
    assert_eq!(place.call(&["diff", &one[1], &one[1]]).code, 0);
    let ran = place.call(&["diff", &one[2], &other[2]]);
    assert!(ran.out.starts_with("8 documents in both"), "{}{}", ran.out, ran.err);
    // Another run leaves none of them behind.
    assert_eq!(place.run(&["--fresh"]).code, 0);
    assert!(!place.path("out/report.figures").exists() && !place.path("out/report.lm-eval").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn the_page_is_opened_by_whatever_opens_pages() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::new(MATRIX);
    assert_eq!(place.run(&[]).code, 0);
    // What a desktop has, as a script that tells what it was given.
    let bin = place.path("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("xdg-open"), "#!/bin/sh\nprintf %s \"$1\" > opened.part && mv opened.part opened\n")
        .unwrap();
    fs::set_permissions(bin.join("xdg-open"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let ran = place.ran(place.command(&["report", "out", "--open"]).env("PATH", path));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let begin = Instant::now();
    while !place.path("opened").exists() {
        assert!(begin.elapsed() < Duration::from_secs(20), "nothing was opened");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(fs::read_to_string(place.path("opened")).unwrap(), "out/report.html");
    assert!(place.path("out/report.html").exists());
    // A machine without any says where the page is.
    let ran = place.ran(place.command(&["report", "out", "--open"]).env("PATH", "/nowhere"));
    assert_eq!(ran.code, 4);
    assert!(ran.err.contains("the page is out/report.html, open it by hand"), "{}", ran.err);
}

#[test]
fn two_logs_of_another_harness_are_compared_document_by_document() {
    let line = |id: u32, filter: &str, output: &str, found: &str, right: u8| {
        format!(
            "{{\"doc_id\":{id},\"doc\":{{\"question\":\"{id}?\"}},\"target\":\"{id}\",\"arguments\":{{\"gen_args_0\":{{\"arg_0\":\
             \"{id}?\"}}}},\"resps\":[[\"{output}\"]],\"filtered_resps\":[\"{found}\"],\"filter\":\"{filter}\",\"exact_match\":{right}.0}}\n"
        )
    };
    let place = Place::new("");
    let log = |outputs: [(&str, u8); 3]| -> String {
        let lines = (1..).zip(outputs).flat_map(|(id, (output, right))| {
            [line(id, "strict", output, output, right), line(id, "flexible", output, "x", right)]
        });
        lines.collect()
    };
    place.write("a.jsonl", &log([("1", 1), ("it is 2", 1), ("9", 0)]));
    place.write("b.jsonl", &log([("1", 1), ("it is 8", 0), ("9", 0)]));
    let ran = place.call(&["diff", "a.jsonl", "b.jsonl"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.starts_with("3 documents in both, of which 2 with the same output\n"), "{}", ran.out);
    assert!(
        ran.out.contains(
            "The first that differs is 2, after 6 characters\n  A  \"it is 2\"\n  B  \"it is 8\"\n"
        ),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains("strict: the same answer for 2 documents. 1 right answer lost and 0 gained of 3"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("flexible: the same answer for 3 documents."), "{}", ran.out);
    let ran = place.call(&["diff", "a.jsonl", "a.jsonl"]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    // A document that the other lacks, filters that the other lacks, other answers in the same text.
    place.write("b.jsonl", &line(1, "strict", "1", "1", 1));
    let ran = place.call(&["diff", "a.jsonl", "b.jsonl"]);
    assert!(ran.out.contains("2 documents in the first alone, 0 in the second"), "{}", ran.out);
    assert_eq!(ran.code, 3);
    place.write("a.jsonl", &line(1, "other", "1", "1", 1));
    let ran = place.call(&["diff", "a.jsonl", "b.jsonl"]);
    assert!(ran.out.contains("No filter is in both"), "{}", ran.out);
    assert_eq!(ran.code, 3);
    place.write("a.jsonl", &line(1, "strict", "1", "1", 0));
    assert_eq!(place.call(&["diff", "a.jsonl", "b.jsonl"]).code, 1);
    // Documents that were not the same to begin with.
    for (from, to, what) in [("1?", "2?", "prompt"), ("\"target\":\"1\"", "\"target\":\"2\"", "target")] {
        place.write("a.jsonl", &line(1, "strict", "1", "1", 1).replace(from, to));
        let ran = place.call(&["diff", "a.jsonl", "b.jsonl"]);
        assert_eq!(ran.code, 2, "{}", ran.out);
        assert!(ran.err.contains(&format!("document 1 has another {what} in the second log")), "{}", ran.err);
    }
}

// ------------------------------------------------------------------------------------------- what a cell can be

#[test]
fn a_cell_whose_engine_cannot_leaves_the_others_alone() {
    // Queries so large that their scores have no place in sixteen bits.
    let place =
        Place::new("suites = [\"carry_chain\"]\nitems = 4\n[matrix]\nprecision = [\"fp32\", \"fp16\"]\n");
    let model = place.path("model");
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/embedded/qwen")).unwrap()
    {
        let path = entry.unwrap().path();
        fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    let file = model.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    for (name, tensor) in &tensors {
        if name.contains("q_norm") || name.contains("k_norm") {
            let [start, end] =
                [0, 1].map(|at| 8 + header + tensor["data_offsets"][at].as_u64().unwrap() as usize);
            // 16384 in bf16.
            bytes[start..end]
                .chunks_exact_mut(2)
                .for_each(|weight| weight.copy_from_slice(&0x4680_u16.to_le_bytes()));
        }
    }
    fs::write(&file, bytes).unwrap();
    place.write("m.toml", "style = \"compact\"\nsuites = [\"carry_chain\"]\nitems = 4\n[matrix]\nprecision = [\"fp16\", \"fp32\"]\n");
    let ran = place.call(&["run", "--model", "./model", "--matrix", "m.toml", "--out", "out"]);
    assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("lab/fp16/sequential/t1/b1 could not run: item 0, after "), "{}", ran.err);
    assert!(ran.out.contains("lab/fp16/sequential/t1/b1 is missing: item 0, after "), "{}", ran.out);
    assert_eq!(json(&place.report("out"))["cells"].as_array().unwrap().len(), 1);
    let again = place.call(&["report", "out", "--format", "json"]);
    assert_eq!((again.code, again.out.as_bytes()), (3, &place.report("out")[..]));
}

#[test]
fn cells_that_read_what_the_reference_wrote_are_compared_at_every_token() {
    let place = Place::new(
        "suites = [\"mul_ladder\"]\nitems = 14\n[generate]\nreplay = true\n[reference]\nprecision = \"fp32\"\norder = \"exact\"\n[matrix]\nprecision = \
         \"lmul\"\ngrouping = [\"in-order\", \"shuffled:1\", \"by-length\"]\nbatch = 3\n[[gate]]\nvary = \"grouping\"\nrequire = \"bits\"\n\
         [[gate]]\nname = \"tokens\"\nagainst = \"reference\"\nrequire = \"tokens\"\n",
    );
    let ran = place.run(&[]);
    let report = json(&place.report("out"));
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert_eq!(outcomes(&report).iter().map(|(_, outcome)| *outcome).collect::<Vec<_>>(), ["pass", "fail"]);
    let cells = report["cells"].as_array().unwrap();
    let tokens: Vec<_> = cells.iter().map(|cell| cell["tokens"].as_u64().unwrap()).collect();
    assert!(tokens.iter().all(|count| *count == tokens[0]), "{tokens:?}");
    let against = &cells[1]["against"];
    // All of them, although some would have been chosen otherwise; and the answers are those of the reference.
    assert_eq!(against["places"]["of"].as_u64(), Some(tokens[0]));
    assert!(against["best"]["hits"].as_u64() < Some(tokens[0]), "{against}");
    assert_eq!(against["items"][2]["hits"], against["items"][2]["of"]);
    // A part that lacks the reference runs it, too.
    let ran = place.call(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "part", "--part", "2/4"]);
    assert_eq!((ran.code, ran.cells()), (0, 3), "{}", ran.err);
}

#[test]
fn seeds_draw_other_texts_and_the_same_seed_the_same_ones() {
    let place = Place::new(
        "suites = [\"carry_chain\"]\nitems = 6\n[generate]\nchoice = \"sampled:temperature=1.5\"\n[matrix]\nseed = [0, 1]\nrepeat = \
         2\n[[gate]]\nvary = \"repeat\"\nrequire = \"bits\"\n[[gate]]\nname = \"seeds\"\nvary = \"seed\"\nexpect = \"diverges\"\n",
    );
    let ran = place.run(&[]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(
        ran.out.contains("A  lab/fp32/sequential/t1/b1\n  B  lab/fp32/sequential/t1/b1/s1\n"),
        "{}",
        ran.out
    );
}

#[test]
fn a_cell_draws_as_its_axes_say_and_as_choice_says_where_they_say_nothing() {
    let head = "suites = [\"carry_chain\"]\nitems = 6\n[generate]\nchoice = ";
    let gates = "[[gate]]\nwhere = { top-k = 8 }\nvary = \"temperature\"\nexpect = \"diverges\"\n[[gate]]\nwhere = { temperature = 2 }\nvary = \"top-k\"\nexpect = \"diverges\"\n";
    let place = Place::new(&format!(
        "{head}\"sampled:top-p=0.9\"\n[matrix]\nengine = [\"lab\", \"candle\"]\ntemperature = [0.5, 2.0]\ntop-k = [1, 8, \
         \"all\"]\nseed = [0, 1]\n{gates}"
    ));
    let ran = place.run(&[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let trace = |out: &str, cell: &str| {
        let file = place.path(out).join("cells").join(format!("{}.json", cell.replace('/', "_")));
        let record = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let (_, digest) = record.split_once("\"trace\":\"").unwrap();
        digest[..64].to_owned()
    };
    // The same draws by another way to say so.
    for (out, choice) in [
        ("best", "greedy"),
        ("few", "sampled:temperature=2,top-k=8,top-p=0.9"),
        ("all", "sampled:temperature=0.5,top-p=0.9"),
    ] {
        place.write("m.toml", &format!("{head}\"{choice}\"\n[matrix]\nengine = [\"lab\", \"candle\"]\n"));
        let ran = place.call(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", out]);
        // Nothing is asked to hold.
        assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
    }
    for engine in ["lab/fp32/sequential/t1/b1", "candle/fp32/t1/b1"] {
        for (out, cells) in [
            ("best", vec!["T0.5/k1", "T0.5/k1/s1", "T2/k1", "T2/k1/s1"]),
            ("few", vec!["T2/k8"]),
            ("all", vec!["T0.5/kall"]),
        ] {
            for cell in cells {
                assert_eq!(trace("out", &format!("{engine}/{cell}")), trace(out, engine), "{cell}");
            }
        }
        assert_ne!(trace("out", &format!("{engine}/T2/k8/s1")), trace("few", engine));
    }
}

#[test]
fn the_stock_engine_is_a_cell_like_others() {
    let place = Place::new(
        "suites = [\"carry_chain\"]\nitems = 12\n[matrix]\nengine = [\"lab\", \"candle\"]\nbatch = [1, 3]\nthreads = 2\ngrouping = \
         \"by-length\"\n[[gate]]\nname = \"the lab\"\nwhere = { engine = \"lab\" }\nvary = \"batch\"\nrequire = \"bits\"\n[[gate]]\nname = \
         \"candle\"\nwhere = { engine = \"candle\" }\nvary = \"batch\"\nexpect = \"diverges\"\n[[gate]]\nname = \"both\"\nvary = \
         [\"engine\", \"order\"]\nrequire = \"answers\"\n",
    );
    let ran = place.run(&[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("candle/fp32/t2/b1/by-length"), "{}", ran.out);
}

#[test]
fn every_matrix_that_is_shipped_means_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
    let cells = |name: &str| -> Vec<Cell> {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).unwrap();
        let plan = Plan::read(&path, &text, None).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(!plan.gates.is_empty());
        plan.cells
    };
    assert_eq!(cells("smoke.toml").len(), 5);
    assert!(cells("ci.toml").len() > 50);
    // Twelve configurations of every precision, and the reference.
    let paper = cells("paper.toml");
    for precision in ["bf16", "fp16", "fp32", "layercast"] {
        let count = paper.iter().filter(|cell| cell.get(Axis::Precision).to_string() == precision);
        assert_eq!(count.count(), if precision == "fp32" { 13 } else { 12 });
    }
    // The same, and sixteen draws of each.
    assert_eq!(cells("paper-sampled.toml").len(), 16 * paper.len());
    let approximate = cells("approximate.toml");
    for precision in ["lmul", "int8", "w8a8", "cast:e4m3"] {
        let count =
            approximate.iter().filter(|cell| cell.get(Axis::Precision).to_string() == precision).count();
        assert_eq!(count, 12, "{precision}");
    }
    let place = Place::new("");
    let matrix = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    for name in ["smoke.toml", "candle.toml"] {
        let ran = place.call(&["run", "--model", "qwen", "--matrix", &matrix(name), "--out", name]);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    }
}
