//! A tolerance: its limits hold elsewhere as often as they say, it sees what it says it sees, and its gate can be pasted.

use std::{fs, path::Path, process::Command, sync::LazyLock};

use reprocheck::{
    model::{Checkpoint, Subject, embedded::MODELS},
    plan::Plan,
    run::tolerance::{Tolerance, Wanted, matrix, tolerance, usual},
};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_reprocheck");

static CHECKPOINT: LazyLock<Checkpoint> = LazyLock::new(|| Checkpoint::embedded(&MODELS[0]).unwrap());

/// The null of a precision on short answers, under so many of its settings.
fn found(precision: &str, items: u64, part: usize, seed: u64, against: &[&str]) -> Tolerance {
    let text = matrix(
        precision.parse().unwrap(),
        "sequential".parse().unwrap(),
        &["divmod".to_owned()],
        items,
        [&[1, 4], &[1, 2]],
        None,
    );
    let plan = Plan::read(Path::new("m.toml"), &text, None).unwrap_or_else(|problems| panic!("{problems}"));
    let against: Vec<String> = against.iter().map(ToString::to_string).collect();
    let wanted = Wanted { rate: 1e-4, part: Some(part), seed, against: &against };
    tolerance(&CHECKPOINT, &Subject::of(&CHECKPOINT).unwrap(), &plan, wanted, &mut |_, _| {}).unwrap()
}

#[test]
fn the_half_that_is_held_out_has_no_part_in_the_limit() {
    // Where so few items tell, the limit is the largest of the one half. The largest of all is as often in the other, so that in eight
    // draws it is never there once in 256 times; and it would never be there if the limit had seen it.
    let beyond = |seed| {
        let found = found("bf16", 8, 2, seed, &[]);
        assert_eq!((found.items, found.clusters), ([4, 4], [4, 4]));
        assert!(found.limits.iter().all(|limited| limited.limit.above == 0 && limited.limit.rate > 0.1));
        found.limits[0].held_out.rows.hits
    };
    let hits: Vec<u64> = (0..8).map(beyond).collect();
    assert!(hits.iter().any(|hits| *hits > 0), "{hits:?}");
    assert!(hits.contains(&0), "{hits:?}");
}

#[test]
fn what_computes_alike_is_read_once_and_counted_as_often_as_it_stands_for() {
    let found = found("bf16", 4, 99, 0, &[]);
    // 14 orders in 2 batches on 2 thread counts, of which the reference stands for its own four; what has its bits is left out.
    let stands_for: u64 = found.null.iter().map(|setting| setting.stands_for).sum();
    assert!((48..=52).contains(&stands_for), "{stands_for}");
    assert!(found.null.len() <= 15 && found.null.len() >= 10, "{}", found.null.len());
    let rows: u64 = found.null.len() as u64 * found.tokens[0];
    assert_eq!(found.limits[0].limit.rows, rows);
    let names: Vec<_> = found.null.iter().map(|setting| setting.cell.to_string()).collect();
    assert!(names.iter().any(|name| name.contains("split-k:rows") && name.ends_with("b4")), "{names:?}");
}

#[test]
fn a_change_of_precision_is_told_at_once_and_another_order_never() {
    let found = found("bf16", 8, 3, 0, &["another-order", "cast:e4m3", "kv:cast:e4m3", "bf16"]);
    let [order, fp8, kv, same] = &found.powers[..] else { panic!("{:?}", found.unread) };
    assert_eq!((order.tokens, order.interval[1]), (None, None));
    assert!(order.moved.hits > 0 && order.auc < 0.9, "{order:?}");
    assert!(fp8.tokens.unwrap() <= 3 && fp8.auc > 0.95, "{fp8:?}");
    assert!(fp8.beyond.rate().unwrap() > 0.5 && fp8.curve.len() > 1, "{fp8:?}");
    assert!(kv.tokens >= fp8.tokens && kv.tokens.is_some(), "{kv:?}");
    assert_eq!((same.moved.hits, same.beyond.hits), (0, 0));
    assert!(same.auc <= 0.5 && same.tokens.is_none(), "what moves no bit is not farther than the null");
}

#[test]
fn the_gate_passes_on_the_null_and_fails_on_int8() {
    let folder = tempfile::tempdir().unwrap();
    let says = |arguments: &[&str]| {
        let said = Command::new(BINARY).args(arguments).current_dir(folder.path()).output().unwrap();
        (said.status.code().unwrap(), String::from_utf8(said.stdout).unwrap())
    };
    let arguments =
        ["--suites", "divmod", "--items", "64", "--part", "2", "--against", "int8", "--out", "t.toml"];
    let (code, said) = says(&[&["tolerance", "--precision", "bf16"][..], &arguments].concat());
    assert_eq!(code, 0, "{said}");
    let file = folder.path().join("t.toml");
    let mut text = fs::read_to_string(&file).unwrap();
    let (_, gate) = said.split_once("[[gate]]").unwrap();
    assert!(text.ends_with(gate), "what is shown is what is written: {gate}");
    // Beside the reference one order of the null, and int8.
    for (key, values) in [
        ("order     = [", "\"exact\""),
        ("batch", "1"),
        ("threads", "1"),
        ("precision = [", "[\"bf16\", \"int8\"]"),
    ] {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        let (name, _) = line.split_once('=').unwrap();
        text = text.replace(&line, &format!("{name}= {values}"));
    }
    fs::write(&file, &text).unwrap();
    let (code, report) =
        says(&["run", "--model", "qwen", "--matrix", "t.toml", "--out", "r", "--format", "json"]);
    assert_eq!(code, 1, "{report}");
    let report: Value = serde_json::from_str(&report).unwrap();
    let ruling = &report["rulings"][0];
    assert_eq!(
        (&ruling["gate"], &ruling["outcome"]),
        (&json!("within the tolerance of bf16"), &json!("fail"))
    );
    let findings = ruling["findings"].as_array().unwrap();
    assert_eq!((findings.len(), &ruling["comparisons"]), (1, &json!(2)), "the null holds: {findings:?}");
    let sentence = findings[0]["sentence"].as_str().unwrap();
    assert!(
        sentence.starts_with("rows of lab/int8/exact/t1/b1 and ") && sentence.contains("farther apart"),
        "{sentence}"
    );
}

#[test]
fn what_is_held_against_a_precision_can_differ_from_it() {
    let names = |precision: &str| usual(precision.parse().unwrap());
    assert_eq!(names("bf16").len(), 8 + 5);
    let has = |precision: &str, name: &str| names(precision).iter().any(|known| known == name);
    assert!(has("bf16", "rounding-toward-zero") && !has("fp16", "rounding-toward-zero"));
    assert!(has("fp16", "bf16-for-fp32") && !has("bf16", "bf16-for-fp32"));
    assert!(has("fp32", "int8") && !has("int8", "int8") && has("fp32", "kv:cast:e4m3"));
}

#[test]
fn what_is_no_change_is_refused_with_what_there_is() {
    let refuses = |arguments: &[&str]| {
        let said = Command::new(BINARY).arg("tolerance").args(arguments).output().unwrap();
        assert_eq!(said.status.code(), Some(2));
        String::from_utf8(said.stderr).unwrap()
    };
    let said = refuses(&["--precision", "bf16", "--against", "int9"]);
    assert!(
        said.contains("`int9` is not a fault (another-order, ") && said.contains("as a precision"),
        "{said}"
    );
    let said = refuses(&["--precision", "bf16", "--suites", "nope"]);
    assert!(said.contains("nope"), "{said}");
    let said = refuses(&["--precision", "bf16", "--suites", "divmod", "--items", "2", "--part", "1"]);
    assert!(said.contains("ask for more items"), "{said}");
    assert!(refuses(&["--precision", "bf16", "--rate", "0"]).contains("write a share above 0 and below 1"));
}
