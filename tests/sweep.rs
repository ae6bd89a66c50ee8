//! A sweep: its ladders are precisions, its rows are what the report of its run says, and its sentences name the first steps.

use std::{fs, process::Command};

use reprocheck::{
    numerics::precision::Precision,
    run::sweep::{Along, Moved, Row, Scope, Sweep, ladder},
    stats::proportion::Proportion,
};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_reprocheck");

#[test]
fn every_step_of_a_ladder_is_a_precision_of_its_own() {
    for along in Along::ALL {
        for scope in [Scope::All, Scope::Linear] {
            let steps = ladder(along, scope);
            let mut found = Vec::new();
            for step in &steps {
                let precision: Precision = step.precision.parse().unwrap_or_else(|error| panic!("{error}"));
                assert!(!found.contains(&precision), "{}", step.precision);
                found.push(precision);
            }
            assert!(steps.len() >= 6, "{along}");
        }
    }
    assert_eq!(ladder(Along::Mantissa, Scope::Head)[15].precision, "map:fp32;head=cast:e8m1");
}

/// A step of which so many of a hundred tokens and of ten texts move.
fn row(width: &str, tokens: u64, texts: u64) -> Row {
    let share = |hits, of| Proportion { hits, of };
    Row {
        width: width.to_owned(),
        precision: "fp32".to_owned(),
        weights: None,
        logits: share(100, 100),
        tokens: share(tokens, 100),
        tokens_interval: None,
        texts: share(texts, 10),
        texts_interval: None,
        divergence: None,
    }
}

#[test]
fn the_first_step_that_moves_something_is_told_with_the_one_before_it() {
    let rows = vec![row("m3", 0, 0), row("m2", 1, 1), row("m1", 0, 0)];
    let sweep = Sweep { along: Along::Mantissa, scope: Scope::All, rows };
    let first = |moved| {
        let (before, first) = sweep.first(moved)?;
        Some((before.map(|row| row.width.as_str()), first.width.as_str()))
    };
    assert_eq!(first(Moved::Logits), Some((None, "m3")));
    assert_eq!(first(Moved::Tokens), Some((Some("m3"), "m2")));
    let still = Sweep { rows: vec![row("m3", 0, 0)], ..sweep };
    assert!(still.first(Moved::Texts).is_none());
}

#[test]
fn of_each_number_of_bits_the_nearest_split_is_told() {
    let step = |width: &str, weights, divergence| Row {
        weights: Some(weights),
        divergence: Some(divergence),
        ..row(width, 1, 1)
    };
    let rows = vec![step("e2m5", 8, 0.3), step("e4m3", 8, 0.1), step("e5m2", 8, 0.2), step("e2m1", 4, 0.9)];
    let sweep = Sweep { along: Along::Split, scope: Scope::All, rows };
    let best: Vec<_> = sweep.best_splits().iter().map(|row| row.width.as_str()).collect();
    assert_eq!(best, ["e4m3", "e2m1"]);
    assert!(Sweep { along: Along::Bits, ..sweep }.best_splits().is_empty());
}

#[test]
fn a_sweep_says_what_the_report_of_its_run_says_and_draws_it() {
    let folder = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str], code: i32| {
        let said = Command::new(BINARY).args(arguments).current_dir(&folder).output().unwrap();
        assert_eq!(said.status.code(), Some(code), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    };
    let sweep = ["sweep", "--axis", "bits", "--suites", "divmod", "--items", "8", "--out", "run"];
    let found = said(&[&sweep[..], &["--format", "json", "--figure", "sweep.svg"]].concat(), 0);
    let found: Value = serde_json::from_str(&found).unwrap();
    // Without a gate nothing is asked to hold.
    let report: Value = serde_json::from_str(&said(&["report", "run", "--format", "json"], 3)).unwrap();
    let rows = found["rows"].as_array().unwrap();
    let widths: Vec<_> = rows.iter().map(|row| row["width"].as_str().unwrap()).collect();
    assert_eq!(widths, ["int8", "int7", "int6", "int5", "int4", "int3", "int2"]);
    for row in rows {
        let precision = row["precision"].as_str().unwrap();
        let cell = report["cells"].as_array().unwrap().iter().find(|cell| {
            let name = cell["cell"].as_str().unwrap();
            name.split('/').nth(1).unwrap().parse::<Precision>().unwrap() == precision.parse().unwrap()
        });
        let against = &cell.unwrap()["against"];
        let misses = |share: &Value| share["of"].as_u64().unwrap() - share["hits"].as_u64().unwrap();
        assert_eq!(row["tokens"]["hits"], misses(&against["best"]), "{precision}");
        assert_eq!(row["texts"]["hits"], misses(&against["items"]["tokens"]), "{precision}");
        assert_eq!(row["divergence"], against["divergence"], "{precision}");
    }
    // Two bits are too few, and eight are nearly enough.
    let of = |at: usize, name: &str| rows[at][name].as_f64().unwrap();
    assert!(of(6, "divergence") > 100.0 * of(0, "divergence") && of(0, "divergence") > 0.0);
    assert!(of(6, "weights") < of(0, "weights"));
    let figure = fs::read_to_string(folder.path().join("sweep.svg")).unwrap();
    assert!(figure.contains("What each width moves") && figure.contains("int8"), "{figure}");
    let sentence = found["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("Logits move first at int8 ("), "{sentence}");
    // What has run is there, and is read again.
    let text = said(&[&sweep[..], &["--resume"]].concat(), 0);
    assert!(text.contains("mean KL") && text.contains("reprocheck report run"), "{text}");
}

#[test]
fn a_ladder_without_a_place_is_refused_with_the_reason() {
    for (axis, scope) in [("bits", "attention"), ("block", "head")] {
        let arguments =
            ["sweep", "--axis", axis, "--scope", scope, "--items", "1", "--out", "/dev/null/none"];
        let said = Command::new(BINARY).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(2), "{error}");
        assert!(error.contains(&format!("move nothing at `{scope}`")), "{error}");
    }
}
