//! A run in parts: how it is divided, what the parts add up to, and what becomes of one that is lost, damaged or of another mind.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use reprocheck::numerics::random::Stream;
use serde_json::Value;

use crate::run::{Place, Ran};

/// Seven cells, one of which takes as long as all others.
const MATRIX: &str = r#"
suites = ["carry_chain", "mul_ladder"]
items  = 9

[reference]
precision = "fp32"
order     = "exact"

[matrix]
precision = "bf16"
order     = ["sequential", "split-k:rows", "neumaier"]
batch     = [1, 4]

[[gate]]
name    = "batch"
where   = { order = ["sequential", "neumaier"] }
vary    = "batch"
require = "bits"

[[gate]]
name   = "rows"
where  = { order = "split-k:rows" }
vary   = "batch"
expect = "diverges"
"#;

impl Place {
    fn run_into(&self, out: &str, more: &[&str]) -> Ran {
        self.call(&[&["run", "--model", "qwen", "--matrix", "m.toml", "--out", out], more].concat())
    }

    /// Runs so many parts.
    fn parts(&self, out: &str, of: usize, more: &[&str]) {
        for part in 1..=of {
            let ran = self.run_into(out, &[&["--part", &format!("{part}/{of}")], more].concat());
            assert_eq!(ran.code, 0, "{}", ran.err);
            assert!(ran.out.contains(&format!("part {part}/{of} has run: `reprocheck merge {out}` joins")));
        }
    }

    /// What of which cells `plan` gives to each of so many parts: how many items of each.
    fn divided(&self, of: usize, more: &[&str]) -> Vec<Vec<(String, u64)>> {
        let of = of.to_string();
        let plan = ["plan", "--matrix", "m.toml", "--model", "qwen", "--format", "json", "--parts", &of];
        let ran = self.call(&[&plan[..], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let plan: Value = serde_json::from_str(&ran.out).unwrap();
        let stretch = |stretch: &Value| {
            (stretch["cell"].as_str().unwrap().to_owned(), stretch["items"].as_u64().unwrap())
        };
        let part = |part: &Value| part["cells"].as_array().unwrap().iter().map(stretch).collect();
        plan["parts"].as_array().unwrap().iter().map(part).collect()
    }
}

/// Folders below one, without those whose names begin with a dot.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn parts_in_one_folder_give_the_report_of_one_run_and_keep_each_trace_once() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run_into("one", &[]).code, 0);
    for of in [1, 2, 5, 40] {
        let (out, divided) = (format!("shared-{of}"), place.divided(of, &[]));
        // Every item of every cell is in one part.
        let items: u64 = divided.iter().flatten().map(|(_, items)| items).sum();
        assert_eq!(items, 7 * 18);
        let is_cut = divided.iter().flatten().any(|(_, items)| *items < 18);
        assert_eq!(is_cut, of > 1, "{divided:?}");
        place.parts(&out, of, &[]);
        let ran = place.call(&["merge", &out]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.err.contains("peak memory"), "{}", ran.err);
        assert!(place.report(&out) == place.report("one"), "{of}");
        assert_eq!(names(&place.path(&out).join("traces")), names(&place.path("one/traces")));
        assert!(!place.path(&out).join("part-1-of-40/traces").exists());
        // And again, and elsewhere.
        assert_eq!(place.call(&["merge", &out]).code, 0);
        let apart = format!("apart-{of}");
        let ran = place.call(&["merge", &out, "--out", &apart]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        for report in [place.report(&out), place.report(&apart)] {
            assert!(report == place.report("one"), "{of}");
        }
    }
}

#[test]
fn a_lost_part_is_missing_evidence_and_its_return_gives_the_report_of_one_run() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run_into("one", &[]).code, 0);
    place.parts("out", 3, &[]);
    assert_eq!(place.call(&["merge", "out"]).code, 0);
    fs::rename(place.path("out/part-2-of-3"), place.path("lost")).unwrap();
    let ran = place.call(&["merge", "out"]);
    assert_eq!(ran.code, 3, "{}", ran.out);
    for (cell, _) in &place.divided(3, &[])[1] {
        assert!(ran.out.contains(cell.as_str()), "{cell}: {}", ran.out);
    }
    assert_ne!(place.report("out"), place.report("one"));
    assert_eq!(place.run_into("out", &["--part", "2/3", "--resume"]).code, 0);
    assert_eq!(place.call(&["merge", "out"]).code, 0);
    assert!(place.report("out") == place.report("one"));
    // Whoever goes on with a part that is done answers nothing again.
    let ran = place.run_into("out", &["--part", "2/3", "--resume"]);
    assert!(!ran.err.contains(" s, ") || ran.err.contains(" 0 tokens"), "{}", ran.err);
}

#[test]
fn parts_that_run_together_and_are_killed_at_any_moment_lose_nothing() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run_into("one", &[]).code, 0);
    let start = |part: usize| {
        let part = format!("{part}/3");
        let arguments =
            ["run", "--model", "qwen", "--matrix", "m.toml", "--out", "out", "--resume", "--part", &part];
        let mut command = place.command(&arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut stream = Stream::new(5, 0);
    let mut killed = 0;
    for try_number in 0..40 {
        let mut running: Vec<_> = (1..=3).map(start).collect();
        // Longer and longer, so that it comes to an end on any machine.
        let patience = Duration::from_millis(20 + (stream.unit() * 40.0 * f64::from(try_number)) as u64);
        std::thread::sleep(patience);
        let is_done = |child: &mut Child| child.try_wait().unwrap().is_some_and(|status| status.success());
        let done = running.iter_mut().map(is_done).filter(|done| *done).count();
        for child in &mut running {
            killed += usize::from(child.kill().is_ok());
            child.wait().unwrap();
        }
        if done == 3 {
            break;
        }
    }
    assert!(killed > 3, "{killed}");
    place.parts("out", 3, &["--resume"]);
    assert_eq!(place.call(&["merge", "out"]).code, 0);
    assert!(place.report("out") == place.report("one"));
    assert_eq!(names(&place.path("out/traces")), names(&place.path("one/traces")));
}

#[test]
fn what_parts_of_two_divisions_have_both_done_is_held_against_each_other() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run_into("one", &[]).code, 0);
    place.parts("out", 2, &[]);
    place.parts("out", 3, &[]);
    assert_eq!(place.call(&["merge", "out"]).code, 0);
    assert!(place.report("out") == place.report("one"));
    // What is done of a cut cell in one part is now what another seed would have drawn of the first group's last token.
    let cells = place.path("out/part-1-of-2/cells");
    let partial = names(&cells).into_iter().find(|name| name.ends_with(".partial")).expect("a cell is cut");
    let cell = partial.trim_end_matches(".partial").to_owned() + ".json";
    for part in ["part-1-of-3", "part-2-of-3", "part-3-of-3"] {
        let _ = fs::remove_file(place.path("out").join(part).join("cells").join(&cell));
    }
    let text = fs::read_to_string(cells.join(&partial)).unwrap();
    let content = |line: &str| {
        let start = line.find("\"content\":").unwrap() + "\"content\":".len();
        line[start..line.len() - 1].to_owned()
    };
    let spoiled = text.lines().map(|line| {
        let old = content(line);
        let at = old.find("\"id\":").unwrap() + "\"id\":".len();
        let end = at + old[at..].find([',', '}']).unwrap();
        let new = format!("{}77{}", &old[..at], &old[end..]);
        let digest = |content: &str| reprocheck::digest::Digest::of(content.as_bytes()).to_string();
        line.replace(&old, &new).replace(&digest(&old), &digest(&new)) + "\n"
    });
    fs::create_dir_all(place.path("out/part-9-of-9/cells")).unwrap();
    for file in ["run.json", "items.jsonl", "vocabulary.json", "part.json"] {
        fs::copy(place.path("out/part-1-of-2").join(file), place.path("out/part-9-of-9").join(file)).unwrap();
    }
    fs::write(place.path("out/part-9-of-9/cells").join(&partial), spoiled.collect::<String>()).unwrap();
    let ran = place.call(&["merge", "out"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("part-1-of-2 (") && ran.err.contains("part-9-of-9 ("), "{}", ran.err);
    assert!(!place.path("out/report.json").exists());
}

#[test]
fn the_cells_of_the_papers_protocol_go_round_the_parts() {
    let paper = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/suites/paper.toml")).unwrap();
    let divided = Place::new(&paper).divided(4, &[]);
    // 49 cells, one of which takes about three times as long as another.
    let counts: Vec<_> = divided.iter().map(Vec::len).collect();
    assert!(counts.iter().all(|count| (11..=14).contains(count)), "{counts:?}");
    // Two threads are reckoned to take less than one: each part has as many of these.
    let of_one: Vec<_> =
        divided.iter().map(|part| part.iter().filter(|(cell, _)| cell.contains("/t1/")).count()).collect();
    assert!(of_one.iter().all(|count| (4..=8).contains(count)), "{of_one:?}");
}

#[test]
fn a_part_has_one_stretch_of_a_cell_however_many_parts_there_are() {
    let place = Place::new(&(MATRIX.replace("items  = 9", "items  = 4") + "[generate]\nreplay = true\n"));
    for of in 1..24 {
        let divided = place.divided(of, &[]);
        let items: u64 = divided.iter().flatten().map(|(_, items)| items).sum();
        assert_eq!(items, 6 * 8, "{of}: the reference is in none");
        for part in divided {
            let mut cells: Vec<_> = part.iter().map(|(cell, _)| cell).collect();
            cells.sort();
            cells.dedup();
            assert_eq!(cells.len(), part.len(), "{part:?}");
        }
    }
}

#[test]
fn what_is_not_what_was_written_counts_as_not_done() {
    let place = Place::new(MATRIX);
    place.parts("out", 2, &[]);
    let cut = |name: &String| name.ends_with(".partial");
    let cells = place.path("out/part-1-of-2/cells");
    let partial = names(&cells).into_iter().find(cut).expect("a cell is cut");
    flip(&cells.join(&partial));
    let ran = place.call(&["merge", "out"]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(
        ran.err.contains("not believed, so it counts as not done") && ran.err.contains(&partial),
        "{}",
        ran.err
    );
    // The part mends it.
    assert_eq!(place.run_into("out", &["--part", "1/2", "--resume"]).code, 0);
    assert_eq!(place.call(&["merge", "out"]).code, 0);
    let trace = place.path("out/traces").join(&names(&place.path("out/traces"))[0]);
    flip(&trace.join("samples.jsonl"));
    let ran = place.call(&["merge", "out"]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains("is not what was written there: its files have the digest"), "{}", ran.err);
    place.parts("out", 2, &["--resume"]);
    assert_eq!(place.call(&["merge", "out"]).code, 0);
}

#[test]
fn two_machines_that_disagree_about_a_cell_are_named_with_what_each_has() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run_into("one", &[]).code, 0);
    // A machine that is wrong: it has the trace of another cell, and seals it.
    assert_eq!(place.run_into("other", &[]).code, 0);
    let cells = |run: &str, cell: &str| place.path(run).join(format!("cells/lab_bf16_{cell}.json"));
    let wrong = fs::read_to_string(cells("other", "split-k~rows_t1_b4")).unwrap();
    let sound: Value =
        serde_json::from_str(&fs::read_to_string(cells("other", "sequential_t1_b4")).unwrap()).unwrap();
    let spoiled: Value = serde_json::from_str(&wrong).unwrap();
    let content = sound["content"].to_string();
    let [mut made, theirs] = [sound["content"]["done"].clone(), spoiled["content"]["done"].clone()];
    for field in ["trace", "root"] {
        made[field] = theirs[field].clone();
    }
    assert_ne!(serde_json::json!({ "done": made }).to_string(), content);
    // Sealed as the program seals it.
    let content = serde_json::json!({ "done": made }).to_string();
    let sealed = serde_json::json!({
        "form": sound["form"],
        "program": sound["program"],
        "sha256": reprocheck::digest::Digest::of(content.as_bytes()).to_string(),
        "content": made,
    });
    let text = sealed.to_string().replace(&format!("\"content\":{made}"), &format!("\"content\":{content}"));
    fs::write(cells("other", "sequential_t1_b4"), text).unwrap();
    assert_eq!(place.call(&["merge", "one", "other", "--out", "both"]).code, 1);
    let ran = place.call(&["merge", "one", "other", "--out", "both"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let root = |value: &Value| value["content"]["done"]["root"].as_str().unwrap()[..12].to_owned();
    for word in [
        "lab/bf16/sequential/t1/b4 ran in one (",
        &root(&sound),
        &root(&spoiled),
        "has other tokens or logits there",
    ] {
        assert!(ran.err.contains(word), "{word}: {}", ran.err);
    }
    assert!(!place.path("both/report.json").exists());
}

#[test]
fn the_reference_runs_once_and_others_take_it() {
    let replay = MATRIX.to_owned() + "[generate]\nreplay = true\n";
    let place = Place::new(&replay);
    assert_eq!(place.run_into("one", &[]).code, 0);
    assert_eq!(place.run_into("out", &["--part", "reference"]).code, 0);
    assert_eq!(names(&place.path("out/part-reference/cells")), ["lab_fp32_exact_t1_b1.json"]);
    for part in ["1/2", "2/2"] {
        let ran = place.run_into("out", &["--part", part, "--reference", "out/part-reference"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(!ran.err.contains("lab/fp32/exact"), "{}", ran.err);
    }
    assert_eq!(place.call(&["merge", "out"]).code, 0);
    assert!(place.report("out") == place.report("one"));
    // Of another run, of one that asks something else, and where there is none.
    let ran = place.run_into("third", &["--part", "1/2", "--reference", "one"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!ran.err.contains("lab/fp32/exact"), "{}", ran.err);
    fs::write(place.path("m.toml"), replay.replace("items  = 9", "items  = 8")).unwrap();
    let ran = place.run_into("fourth", &["--part", "1/2", "--reference", "one"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("the reference is not taken from one: it asks 9 of carry_chain"), "{}", ran.err);
    fs::write(place.path("m.toml"), "suites = [\"carry_chain\"]\nitems = 2\n[matrix]\n").unwrap();
    let ran = place.run_into("fifth", &["--part", "reference"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("m.toml names no reference"), "{}", ran.err);
}

#[test]
fn what_an_earlier_run_took_divides_the_next() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run_into("one", &[]).code, 0);
    // As if one cell had taken a minute, and all others next to nothing: it is cut in two.
    let slow = "lab/bf16/sequential/t1/b1";
    for name in names(&place.path("one/cells")) {
        let path = place.path("one/cells").join(&name);
        let text = fs::read_to_string(&path).unwrap();
        let start = text.find("\"content\":").unwrap() + "\"content\":".len();
        let content = &text[start..text.trim_end().len() - 1];
        let took = if name.contains("_sequential_t1_b1") { 60_000 } else { 1 };
        let at = content.find("\"milliseconds\":").unwrap() + "\"milliseconds\":".len();
        let end = at + content[at..].find(',').unwrap();
        let changed = format!("{}{took}{}", &content[..at], &content[end..]);
        let digest = |content: &str| reprocheck::digest::Digest::of(content.as_bytes()).to_string();
        let text = text.replace(content, &changed).replace(&digest(content), &digest(&changed));
        fs::write(&path, text).unwrap();
    }
    let of_slow = |divided: &[Vec<(String, u64)>]| -> Vec<u64> {
        let of = |part: &Vec<(String, u64)>| {
            part.iter().filter(|(cell, _)| cell == slow).map(|(_, items)| *items).sum()
        };
        divided.iter().map(of).collect()
    };
    assert!(of_slow(&place.divided(2, &[])).contains(&0));
    let slow = of_slow(&place.divided(2, &["--like", "one"]));
    assert!(slow.iter().all(|items| *items > 0), "{slow:?}");
    // Parts that are told so run so.
    place.parts("out", 2, &["--like", "one"]);
    assert_eq!(place.call(&["merge", "out"]).code, 0);
}

#[test]
fn what_cannot_be_joined_is_told() {
    let place = Place::new(MATRIX);
    assert_eq!(place.run_into("one", &[]).code, 0);
    let ran = place.call(&["merge", "one"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("one holds no parts, and no folder is named for the whole: add --out DIR"),
        "{}",
        ran.err
    );
    let ran = place.call(&["merge", "one", "--out", "./one/../one", "--fresh"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("one is one of the parts") && place.path("one/run.json").exists(),
        "{}",
        ran.err
    );
    place.parts("out", 2, &[]);
    let ran = place.call(&["merge", "out", "--out", "one"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("one holds a run already"), "{}", ran.err);
    fs::write(place.path("m.toml"), MATRIX.replace("items  = 9", "items  = 7")).unwrap();
    assert_eq!(place.run_into("other", &[]).code, 0);
    let ran = place.call(&["merge", "one", "other", "--out", "both"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("one and other are parts of different runs: it asks 9 of carry_chain"),
        "{}",
        ran.err
    );
    // A run begins anew without what other parts need.
    let before = names(&place.path("out/traces"));
    fs::write(place.path("m.toml"), MATRIX).unwrap();
    assert_eq!(place.run_into("out", &["--part", "1/2", "--fresh"]).code, 0);
    assert_eq!(names(&place.path("out/traces")), before);
    assert_eq!(place.call(&["merge", "out"]).code, 0);
}

#[test]
fn a_doctor_says_whether_a_folder_can_be_shared() {
    let place = Place::new(MATRIX);
    let ran = place.call(&["doctor", "--offline", "--cluster", "."]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for word in
        ["locks a file against a second process", "moves a folder in one step", "sbatch", "this program"]
    {
        assert!(ran.out.contains(word), "{word}: {}", ran.out);
    }
    assert_eq!(names(&place.path(".")), ["m.toml"]);
    let ran = place.call(&["doctor", "--offline", "--cluster", "nowhere"]);
    assert_eq!(ran.code, 4);
    assert!(ran.err.contains("nowhere cannot be shared (gives back what was written: "), "{}", ran.err);
}
