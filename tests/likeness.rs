//! Engines that nobody looks into: one that is an order of the lab in disguise is named, and one that is none is not.

use std::{fs, path::Path, process::Command};

use reprocheck::{
    model::{
        Checkpoint, Decoder,
        decoder::{Span, Wanted},
        embedded::MODELS,
    },
    numerics::kernel::Fast,
    suite::{Suite, style::Style},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const ITEMS: usize = 12;

/// How much a script shows.
#[derive(Clone, Copy, PartialEq)]
enum Shows {
    Logits,
    Top,
    Tokens,
}

/// A script that answers as the lab does under these numerics, one prompt at a time.
fn script(numerics: &str, shows: Shows) -> String {
    let checkpoint = Checkpoint::embedded(&MODELS[0]).unwrap();
    let tokenizer = checkpoint.tokenizer.as_ref().unwrap();
    let decoder = Decoder::load(Fast::new(numerics.parse().unwrap()).unwrap(), &checkpoint).unwrap();
    let vocabulary = 0..checkpoint.config.vocabulary as u32;
    let names: Vec<String> = vocabulary.map(|token| tokenizer.decode(&[token], false)).collect();
    let suite = Suite::open("mul_ladder").unwrap();
    let shown = |item| Some(suite.asked(&item, 0, Style::Compact, 0)?.text());
    let mut lines = String::new();
    for text in suite.items(0).filter_map(shown).take(ITEMS) {
        let mut cache = decoder.cache();
        let mut read = tokenizer.encode(&text, true).unwrap();
        let (mut answer, mut rows) = (String::new(), Vec::new());
        while rows.len() < 60 {
            let span = Span { cache: &mut cache, tokens: &read, logits: Wanted::Last };
            let logits = decoder.forward(&mut [span]);
            let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            if names[best] == "\n" {
                break;
            }
            read = vec![best as u32];
            answer += &names[best];
            rows.push(logits);
        }
        let mut line = json!({ "prompt": text, "answer": answer });
        match shows {
            Shows::Logits => {
                let row =
                    |logits: &Vec<f32>| names.iter().cloned().zip(logits.iter().map(|l| json!(l))).collect();
                line["logits"] = Value::Array(rows.iter().map(|logits| Value::Object(row(logits))).collect());
            }
            Shows::Top => line["top"] = rows.iter().map(|logits| top(logits, &names)).collect(),
            Shows::Tokens => {}
        }
        lines += &format!("{line}\n");
    }
    lines
}

/// The best five log-probabilities, by the functions of this machine.
fn top(logits: &[f32], names: &[String]) -> Value {
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - highest).exp()).sum();
    let mut best: Vec<usize> = (0..logits.len()).collect();
    best.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let best = best.into_iter().take(5);
    let shown = best.map(|token| {
        let log = (f64::from(logits[token]) - highest - sum.ln()) as f32;
        (names[token].clone(), json!(log))
    });
    Value::Object(shown.collect())
}

struct Place(TempDir);

impl Place {
    /// A run of the lab in these orders beside a script.
    fn new(script: &str, orders: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.path().join("a.jsonl"), script).unwrap();
        let matrix = format!(
            "suites = [\"mul_ladder\"]\nitems = {ITEMS}\n[reference]\nengine = \"lab\"\n[matrix]\n\
             engine = [\"lab\", \"script:a.jsonl\"]\nprecision = [\"bf16\", \"fp32\"]\norder = {orders}\n\
             [[gate]]\nname = \"g\"\nagainst = \"reference\"\nrequire = \"bits\"\n"
        );
        fs::write(place.path().join("m.toml"), matrix).unwrap();
        let (code, _, err) = place.program(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "r"]);
        assert!(code == 1 || code == 3, "{code} {err}");
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn program(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
        let output = command.args(arguments).current_dir(self.path()).env("NO_COLOR", "1").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// What `bisect` says of the script beside the first cell of the lab.
    fn bisect(&self, arguments: &[&str]) -> String {
        let cells = ["bisect", "r", "lab/bf16/sequential/t1/b1", "script:a.jsonl/b1"];
        let (code, out, err) = self.program(&[&cells, arguments].concat());
        assert_eq!(code, 0, "{err}");
        assert!(out.lines().all(|line| arguments.contains(&"json") || line.chars().count() <= 80), "{out}");
        out
    }

    /// In JSON.
    fn likeness(&self, arguments: &[&str]) -> Value {
        let found: Value =
            serde_json::from_str(&self.bisect(&[&["--format", "json"], arguments].concat())).unwrap();
        assert_eq!(found["likenesses"].as_array().unwrap().len(), 1);
        assert_eq!(found["likenesses"][0]["cell"], "script:a.jsonl/b1");
        found["likenesses"][0].clone()
    }

    /// In text, as one line.
    fn said(&self, arguments: &[&str]) -> String {
        self.bisect(arguments).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

fn names(tried: &Value) -> Vec<&str> {
    tried["numerics"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

const ONE: &str = "\"sequential\"";
const FEW: &[&str] = &["--places", "40"];

#[test]
fn an_order_in_disguise_is_named_with_all_its_bits() {
    // In 16 bits two orders often have the same bits, so it takes more places.
    for (numerics, read) in [("fp32/lanes:8/t1", "40"), ("bf16/split-k:4/t1", "256")] {
        let place = Place::new(&script(numerics, Shows::Logits), ONE);
        let found = place.likeness(&["--places", read]);
        let (places, tried) = (&found["places"], found["tried"].as_array().unwrap());
        assert_eq!(places.to_string(), read);
        assert_eq!(found["numbers"].as_u64(), places.as_u64().map(|places| 5 * places));
        assert_eq!(names(&tried[0]), [numerics], "{found}");
        assert_eq!((&tried[0]["whole"], &tried[0]["same"]), (places, places));
        assert_eq!((&tried[0]["bits"], &tried[0]["divergence"]), (&json!(24.0), &json!(0.0)));
        assert!(tried[1..].iter().all(|other| other["whole"].as_u64() < places.as_u64()), "{found}");
        let said = place.said(&["--places", read]);
        let explained =
            format!("{numerics} explains it: it has all logits of all {places} places, bit for bit.");
        assert!(said.contains(&explained) && said.contains("No other that was tried has."), "{said}");
    }
}

#[test]
fn five_log_probabilities_are_enough_to_name_it() {
    for (numerics, read) in [("fp32/lanes:8/t1", "40"), ("bf16/split-k:4/t1", "256")] {
        let place = Place::new(&script(numerics, Shows::Top), ONE);
        let found = place.likeness(&["--places", read]);
        let tried = found["tried"].as_array().unwrap();
        assert_eq!(names(&tried[0]), [numerics], "{found}");
        assert_eq!((&tried[0]["whole"], &tried[0]["same"]), (&Value::Null, &found["places"]));
        assert!(tried[0]["bits"].as_f64() > Some(23.99), "{found}");
        assert!(tried[1]["same"].as_u64() < found["places"].as_u64(), "{found}");
        let said = place.said(&["--places", read]);
        assert!(
            said.contains(&format!("{numerics} explains it: it has every number that it shows at all")),
            "{said}"
        );
    }
}

#[test]
fn an_order_of_the_matrix_is_tried_with_the_launches_of_one_prompt_alone() {
    let numerics = "fp32/split-k:rows/t1";
    let place = Place::new(&script(numerics, Shows::Logits), "[\"sequential\", \"split-k:rows\"]");
    let found = place.likeness(FEW);
    assert_eq!(names(&found["tried"][0]), [numerics], "{found}");
    assert_eq!(found["tried"][0]["whole"], found["places"]);
    // Where it is not in the matrix nobody tries it.
    let place = Place::new(&script(numerics, Shows::Logits), ONE);
    let found = place.likeness(FEW);
    assert!(found["tried"][0]["whole"].as_u64() < found["places"].as_u64(), "{found}");
    assert!(place.said(FEW).contains("None has its bits "), "{found}");
}

#[test]
fn what_no_order_explains_is_told_apart_from_what_one_might() {
    // An order that nobody tries is as far from them as they are from one another.
    let place = Place::new(&script("fp32/shuffled:3/t1", Shows::Logits), ONE);
    let said = place.said(FEW);
    assert!(said.contains("None has its bits at any place. The nearest, fp32/"), "{said}");
    assert!(said.contains("its order may be all that sets it apart, and is not one of these"), "{said}");
    // Another rounding is farther.
    let place = Place::new(&script("cast:e8m10/sequential/t1", Shows::Logits), ONE);
    let said = place.said(FEW);
    assert!(said.contains("None has its bits "), "{said}");
    assert!(said.contains("so more than its order sets it apart"), "{said}");
    assert!(said.contains("Of other precisions, the nearest is "), "{said}");
}

#[test]
fn the_places_are_those_that_are_asked_for() {
    let place = Place::new(&script("fp32/lanes:8/t1", Shows::Top), ONE);
    let found = place.likeness(&["--places", "3"]);
    assert_eq!((&found["places"], &found["items"], &found["numbers"]), (&json!(3), &json!(1), &json!(15)));
    // How many are read at once moves nothing.
    let all = place.likeness(FEW);
    assert_eq!(place.likeness(&[FEW, &["--together", "7"]].concat()), all);
    let id = "mul_ladder-v1-s0-000002";
    let of_item = place.likeness(&["--item", id]);
    assert_eq!(of_item["items"], 1);
    assert_ne!(of_item["places"], all["places"]);
    assert!(place.said(&["--item", id]).contains(id));
    let cells = ["lab/bf16/sequential/t1/b1", "script:a.jsonl/b1"];
    let (code, _, err) = place.program(&[&["bisect", "r", "--item", "none"], &cells[..]].concat());
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("no item is called none"), "{err}");
}

#[test]
fn an_engine_that_shows_nothing_is_held_against_nothing() {
    let place = Place::new(&script("fp32/lanes:8/t1", Shows::Tokens), ONE);
    assert_eq!(place.likeness(&[])["tried"], json!([]));
    let said = place.said(&[]);
    assert!(said.contains("shows nothing of what its tokens were chosen from"), "{said}");
    // A cell with itself parts nowhere.
    let (code, out, err) = place.program(&["bisect", "r", "script:a.jsonl/b1", "script:a.jsonl/b1"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("Nowhere is script:a.jsonl/b1 seen to part from script:a.jsonl/b1."), "{out}");
}

#[test]
fn the_stock_engine_is_none_of_the_orders_and_its_precision_is_seen() {
    let place = Place(tempfile::tempdir().unwrap());
    let matrix = "suites = [\"mul_ladder\"]\nitems = 2\n[matrix]\nengine = [\"lab\", \"candle\"]\n\
                  precision = [\"fp32\", \"bf16\"]\n[[gate]]\nname = \"g\"\nvary = [\"engine\", \"order\"]\nrequire = \"bits\"\n";
    fs::write(place.path().join("m.toml"), matrix).unwrap();
    let (code, _, err) =
        place.program(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "r", "--bisect"]);
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("`reprocheck bisect` says which order and precision of the lab comes nearest"),
        "{err}"
    );
    for precision in ["fp32", "bf16"] {
        let lab = format!("lab/{precision}/sequential/t1/b1");
        let candle = format!("candle/{precision}/t1/b1");
        let (code, out, err) =
            place.program(&["bisect", "r", &lab, &candle, "--places", "32", "--format", "json"]);
        assert_eq!(code, 0, "{err}");
        let found: Value = serde_json::from_str(&out).unwrap();
        let likeness = &found["likenesses"][0];
        let tried = likeness["tried"].as_array().unwrap();
        assert!(names(&tried[0])[0].starts_with(precision), "{likeness}");
        assert_eq!(tried[0]["whole"], 0, "{likeness}");
        let of_other = tried.iter().find(|tried| !names(tried)[0].starts_with(precision)).unwrap();
        assert!(of_other["bits"].as_f64() < tried[0]["bits"].as_f64(), "{likeness}");
        // The best numbers of both, bit by bit.
        assert_eq!(tried[0]["bits_of_nearest"], 24.0);
    }
}
