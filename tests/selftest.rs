//! Seeded faults: the shipped matrix sees every one by its observer, and says of another matrix what it would not see.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use reprocheck::run::selftest::FAULTS;
use serde_json::Value;

fn tried(args: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
    let output = command.args(["selftest", "--format", "json"]).args(args).output().unwrap();
    let found = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), found, String::from_utf8(output.stderr).unwrap())
}

/// What became of each fault, by its name.
fn fates(found: &Value) -> Vec<(&str, &str)> {
    let faults = found["faults"].as_array().unwrap().iter();
    faults.map(|fault| (fault["name"].as_str().unwrap(), fault["fate"].as_str().unwrap())).collect()
}

/// A file of the repository, with this in place of that.
fn changed(file: &str, changes: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    for (this, that) in changes {
        assert!(text.contains(this), "{file} has {this}");
        text = text.replace(this, that);
    }
    text
}

#[test]
fn every_fault_has_a_name_of_its_own_and_there_are_25_and_more() {
    let names: BTreeSet<_> = FAULTS.iter().map(|fault| fault.name).collect();
    assert!(names.len() == FAULTS.len() && names.len() >= 25, "{names:?}");
}

#[test]
fn the_shipped_matrix_sees_every_fault_by_its_observer() {
    let (code, found, err) = tried(&[]);
    assert_eq!((code, err.contains("error")), (Some(0), false), "{err}\n{found:#}");
    assert_eq!(
        (found["killed"].as_u64(), found["of"].as_u64()),
        (Some(FAULTS.len() as u64), Some(FAULTS.len() as u64))
    );
    for fault in found["faults"].as_array().unwrap() {
        // Both witnesses: its code ran, and something was another thing because of it.
        assert!(fault["ran"].as_u64() > Some(0) && fault["changed"].as_u64() > Some(0), "{fault:#}");
        assert!(!fault["seen_by"].as_array().unwrap().is_empty() && fault["lacks"].is_null(), "{fault:#}");
    }
}

#[test]
fn a_matrix_is_told_what_it_would_not_see() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("smoke.toml");
    fs::write(&file, changed("suites/smoke.toml", &[("items  = 24", "items  = 4")])).unwrap();
    let (code, found, err) = tried(&["--matrix", file.to_str().unwrap(), "--model", "qwen"]);
    assert_eq!(code, Some(3), "{err}\n{found:#}");
    let fates = fates(&found);
    let of = |name: &str| fates.iter().find(|fate| fate.0 == name).unwrap().1;
    // What shows on the batch is seen, and what changes all cells alike is not.
    for (name, fate) in [
        ("batch-order", "killed"),
        ("launch-ignored", "killed"),
        ("trace-cut", "killed"),
        ("dropped-term", "survived"),
        ("scale-of-neighbor", "survived"),
        ("lost-update", "wrong-reason"),
        ("thread-order", "idle"),
        ("stale-key", "idle"),
    ] {
        assert_eq!(of(name), fate, "{name}");
    }
    let lacks: Vec<_> =
        found["faults"].as_array().unwrap().iter().filter_map(|fault| fault["lacks"].as_str()).collect();
    for sentence in [
        "no gate sees that the last term of every sum is dropped: approve a run, and hold the next ones `against` the baseline",
        "it is not tried whether of every fourth key the one before stays in the cache, because no cell reads prompts in parts: vary \
         `prefill-chunk`",
    ] {
        assert!(lacks.contains(&sentence), "{lacks:#?}");
    }
}

#[test]
fn a_fault_that_another_gate_sees_is_killed_for_the_wrong_reason() {
    // Without its gate over batches only what was approved tells that a batch adds otherwise.
    let gate = "[[gate]]\nname    = \"the batch must not matter\"\nwhere   = { order = \"sequential\" }\nvary    = \"batch\"\nrequire = \"bits\"\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("without.toml");
    fs::write(&file, changed("suites/selftest.toml", &[(gate, "")])).unwrap();
    let (code, found, err) = tried(&["--matrix", file.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{err}");
    assert!(fates(&found).contains(&("batch-order", "wrong-reason")), "{found:#}");
}

#[test]
fn a_matrix_whose_gates_do_not_hold_without_a_fault_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("unsound.toml");
    let matrix = changed(
        "suites/smoke.toml",
        &[("items  = 24", "items  = 4"), ("expect = \"diverges\"", "require = \"bits\"")],
    );
    fs::write(&file, matrix).unwrap();
    let (code, found, err) = tried(&["--matrix", file.to_str().unwrap(), "--model", "qwen"]);
    assert_eq!((code, found), (Some(2), Value::Null));
    assert!(
        err.contains("without any fault gate `an order shaped by the rows must show up` is fail: ")
            && err.contains("mend the matrix first"),
        "{err}"
    );
}

#[test]
fn a_run_that_asks_for_it_has_the_score_in_its_report_and_a_fault_that_is_not_seen_leaves_it_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let changes =
        [("items  = 24", "items  = 2"), ("[matrix]", "[generate]\nmax-new-tokens = 12\n\n[matrix]")];
    let matrix = format!("selftest = true\n{}", changed("suites/smoke.toml", &changes));
    fs::write(folder.path().join("m.toml"), &matrix).unwrap();
    let call = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
        let output = command.args(args).current_dir(folder.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    const RUN: [&str; 7] = ["run", "--model", "qwen", "--matrix", "m.toml", "--out", "r"];
    let (code, out, err) = call(&RUN);
    assert_eq!(code, Some(3), "{out}{err}");
    assert!(out.contains("every seeded fault is seen"), "{out}");
    let report = || -> Value {
        let (_, out, _) = call(&["report", "r", "--format", "json"]);
        serde_json::from_str(&out).unwrap()
    };
    let rulings = report()["rulings"].as_array().unwrap().clone();
    let score = rulings.last().unwrap();
    assert_eq!(
        (&score["gate"], &score["outcome"]),
        (&"every seeded fault is seen".into(), &"unknown".into())
    );
    assert_eq!(score["comparisons"], FAULTS.len());
    let unseen = score["findings"].as_array().unwrap();
    assert_eq!(score["held"].as_u64().unwrap() as usize + unseen.len(), FAULTS.len());
    assert!(unseen.iter().any(|finding| {
        finding["sentence"].as_str().unwrap().contains("the last term of every sum is dropped")
    }));
    assert!(rulings[..rulings.len() - 1].iter().all(|ruling| ruling["outcome"] == "pass"), "{rulings:?}");

    // It is known already, so that going on is quick and says the same.
    let (again, same, _) = call(&[&RUN[..], &["--resume"]].concat());
    assert_eq!((again, same), (Some(3), out));
    // A score that is not what was written is no score.
    let file = folder.path().join("r/selftest.json");
    let kept = fs::read_to_string(&file).unwrap();
    fs::write(&file, kept.replacen("\"of\"", "\"og\"", 1)).unwrap();
    let (code, _, err) = call(&["report", "r"]);
    assert!(
        code == Some(2) && err.contains("selftest.json") && err.contains("run with --selftest again"),
        "{code:?} {err}"
    );
    fs::write(&file, kept).unwrap();
    // Of other gates nothing is known.
    fs::write(
        folder.path().join("m.toml"),
        matrix.replace("selftest = true", "").replace("\"bits\"", "\"tokens\""),
    )
    .unwrap();
    let (code, out, err) = call(&[&RUN[..], &["--resume"]].concat());
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(!out.contains("every seeded fault is seen"), "{out}");
}
