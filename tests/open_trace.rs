//! Engines beside each other on the same tokens, and the open traces that anyone can write.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tempfile::TempDir;

const CELL: &str = "lab/fp32/sequential/t1/b1";
const FILE: &str = "lab_fp32_sequential_t1_b1";

struct Place(TempDir);

impl Place {
    /// A folder with prompts for the model in the binary.
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("tokens.jsonl", "{\"text\": \"12+34=\"}\n{\"item\": \"b\", \"text\": \"777*3=\"}\n");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    fn call(&self, arguments: &[&str]) -> (i32, String, String) {
        let program = env!("CARGO_BIN_EXE_reprocheck");
        let Output { status, stdout, stderr } =
            Command::new(program).arg("parity").args(arguments).current_dir(self.0.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// Compares cells of the model in the binary.
    fn cells(&self, arguments: &[&str]) -> (i32, String, String) {
        self.call(&[arguments, &["--model", "qwen", "--tokens", "tokens.jsonl", "--keep", "kept"]].concat())
    }

    /// Two traces of the same cell: `kept/FILE` and `other`.
    fn twice(&self) -> [String; 2] {
        assert_eq!(self.cells(&[CELL]).0, 0);
        for ending in ["jsonl", "safetensors"] {
            let kept = self.path(&format!("kept/{FILE}.{ending}"));
            fs::copy(kept, self.path(&format!("other.{ending}"))).unwrap();
        }
        [format!("kept/{FILE}.jsonl"), "other.jsonl".to_owned()]
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Writes a trace that shows the best tokens alone: the rows of one item whose prompt is token 1.
    fn top(&self, name: &str, tokens: &[u32], rows: &[[(i64, f32); 2]]) {
        let head =
            json!({ "open-trace": 1, "shows": "top", "environment": { "engine": "a server", "facts": {} } });
        let item = json!({ "item": "0", "prompt": [1], "tokens": tokens });
        self.write(&format!("{name}.jsonl"), format!("{head}\n{item}\n"));
        let (size, shape) = (rows.len() * 2, [rows.len(), 2]);
        let header = json!({
            "numbers": { "dtype": "F32", "shape": shape, "data_offsets": [0, 4 * size] },
            "tokens": { "dtype": "I64", "shape": shape, "data_offsets": [4 * size, 12 * size] },
        });
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.extend(rows.as_flattened().iter().flat_map(|(_, number)| number.to_le_bytes()));
        bytes.extend(rows.as_flattened().iter().flat_map(|(token, _)| token.to_le_bytes()));
        self.write(&format!("{name}.safetensors"), bytes);
    }
}

#[test]
fn cells_of_other_sums_are_apart_and_a_cell_is_not_apart_from_itself() {
    let place = Place::new();
    let (code, out, err) = place.cells(&[CELL, "lab/fp32/exact/t1/b2", CELL]);
    assert_eq!(code, 1, "{out}{err}");
    for line in [
        "DIFFERS: A and B",
        "set apart by order sequential and exact, batch 1 and 2",
        "the first other number: item 0, after 0 tokens, token ",
        "holds: A and C",
        "one cell, twice",
    ] {
        assert!(out.contains(line), "{line} is not in\n{out}");
    }
    assert!(out.lines().all(|line| line.trim_end() == line && line.chars().count() <= 80), "{out}");
    let (code, out, _) = place.cells(&[CELL, "lab/bf16/sequential/t1/b1", "--format", "json"]);
    let pair = &serde_json::from_str::<Value>(&out).unwrap()[0];
    assert_eq!((code, &pair["items"], &pair["parted"]), (1, &json!(2), &json!(0)));
    let [mean, most] =
        [&pair["mean_divergence"], &pair["divergence"]["value"]].map(|kl| kl.as_f64().unwrap());
    assert!(0.0 < mean && mean <= most && most < 0.1, "{mean} {most}");
    // Within limits that are wide enough it holds.
    let wide = [CELL, "lab/bf16/sequential/t1/b1", "--max-kl", "0.1", "--max-flip-rate", "0.5"];
    assert_eq!(place.cells(&wide).0, 0);
}

#[test]
fn a_cell_reads_what_it_wrote_and_shows_the_same() {
    let place = Place::new();
    let [kept, _] = place.twice();
    // Its tokens are given now, and were chosen then.
    let (code, out, err) = place.call(&[&kept, CELL, "--model", "qwen"]);
    assert!(code == 0 && out.contains("holds: A and B"), "{out}{err}");
    let (code, out, _) = place.call(&[&kept, "candle/fp32/t1/b1", "--model", "qwen", "--max-kl", "1e-6"]);
    assert!(code == 0 && out.contains("engine: reprocheck 0.2.0 | candle 0.11.1"), "{out}");
}

#[test]
fn one_step_in_one_row_of_a_trace_is_found_in_its_place() {
    let place = Place::new();
    let [kept, other] = place.twice();
    let same = place.call(&[&kept, &other]);
    assert!(same.0 == 0 && same.1.contains("holds: A and B"), "{}{}", same.1, same.2);
    let items = &place.lines("other.jsonl")[1..];
    let (item, after) = (&items[1], 2);
    let row = item["rows"][after].as_u64().unwrap() as usize;
    let path = place.path("other.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let rows: usize = items.iter().map(|item| item["rows"].as_array().unwrap().len()).sum();
    let width = (bytes.len() - header) / 4 / rows;
    let at = header + (row * width + 3) * 4;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
    let (code, out, _) = place.call(&[&kept, &other]);
    assert_eq!(code, 1);
    assert!(out.contains("the first other number: item b, after 2 tokens, token 3\n"), "{out}");
    assert!(out.contains("the most steps of f32: 1, item b, after 2 tokens, token 3\n"), "{out}");
    assert_eq!(place.call(&[&kept, &other, "--max-ulp", "1"]).0, 0);
    assert_eq!(place.call(&[&kept, &other, "--max-ulp", "0"]).0, 1);
}

#[test]
fn what_is_not_shown_is_never_the_same() {
    let place = Place::new();
    let [kept, other] = place.twice();
    let text = fs::read_to_string(place.path(&other)).unwrap();
    let first = "\"rows\":[0,";
    assert!(text.contains(first));
    place.write(&other, text.replacen(first, "\"rows\":[null,", 1));
    let (code, out, _) = place.call(&[&kept, &other]);
    assert!(code == 3 && out.contains("UNKNOWN: A and B"), "{out}");
    // An item that is missing.
    let lines: Vec<_> = text.lines().collect();
    place.write(&other, lines[..2].join("\n"));
    let (code, out, _) = place.call(&[&kept, &other]);
    assert!(code == 3 && out.contains("1 of the items are of one of them alone"), "{out}");
    // An item whose tokens part: what follows is not compared.
    let mut items: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = items[1]["tokens"].as_array_mut().unwrap().last_mut().unwrap();
    *last = json!(last.as_u64().unwrap() + 1);
    place.write(&other, items.iter().map(|item| format!("{item}\n")).collect::<String>());
    let (code, out, _) = place.call(&[&kept, &other]);
    assert!(code == 3 && out.contains("1 of the items part"), "{out}");
    // The best tokens alone.
    let row = [(7, -0.5), (8, -1.5)];
    place.top("a", &[7, 7], &[row, row]);
    place.top("b", &[7, 7], &[row, row]);
    let (code, out, _) = place.call(&["a.jsonl", "b.jsonl"]);
    assert!(code == 3 && out.contains("the best tokens alone are compared"), "{out}");
    assert_eq!(place.call(&["a.jsonl", "b.jsonl", "--max-kl", "1"]).0, 3);
    assert_eq!(place.call(&["a.jsonl", "b.jsonl", "--max-flip-rate", "0"]).0, 0);
    place.top("b", &[7, 7], &[row, [(8, -0.5), (7, -1.5)]]);
    assert_eq!(place.call(&["a.jsonl", "b.jsonl", "--max-flip-rate", "0.4"]).0, 1);
    assert_eq!(place.call(&["a.jsonl", "b.jsonl", "--max-kl", "0.01"]).0, 1);
}

#[test]
fn items_that_part_are_compared_up_to_where_they_do() {
    let place = Place::new();
    let row = [(7, -0.5), (8, -1.5)];
    place.top("a", &[7, 7, 7], &[row, row, row]);
    place.top("b", &[7, 8, 7], &[row, row, [(9, -0.1), (8, -3.0)]]);
    let (code, out, _) = place.call(&["a.jsonl", "b.jsonl", "--format", "json"]);
    let pair = &serde_json::from_str::<Value>(&out).unwrap()[0];
    assert_eq!((code, &pair["parted"], &pair["places"], &pair["same"]), (3, &json!(1), &json!(2), &json!(2)));
}

#[test]
fn a_wrong_trace_is_told_with_its_line_and_the_way_out() {
    let place = Place::new();
    let [kept, _] = place.twice();
    let lines = fs::read_to_string(place.path(&kept)).unwrap();
    let (head, rest) = lines.split_once('\n').unwrap();
    let item = rest.lines().next().unwrap();
    let numbers = fs::read(place.path(&format!("kept/{FILE}.safetensors"))).unwrap();
    let told = |text: &str, numbers: &[u8], expected: &str| {
        place.write("wrong.jsonl", text);
        place.write("wrong.safetensors", numbers);
        let (code, _, err) = place.call(&["wrong.jsonl", &kept]);
        assert!(code == 2 && err.contains(expected), "{expected} is not said: {err}");
    };
    let told_of = |text: &str, expected: &str| told(text, &numbers, expected);
    told_of("", "wrong.jsonl:1: there is no line: begin with");
    told_of(item, "an open trace begins with a line such as");
    told_of(&head.replacen(":1", ":2", 1), "version 2 of the format, and 1 is read here");
    told_of(&head.replacen("logits", "everything", 1), "unknown variant `everything`");
    told_of(&format!("{head}\n{{}}"), "wrong.jsonl:2: missing field `item`");
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut line = serde_json::from_str(item).unwrap();
        edit(&mut line);
        format!("{head}\n{line}\n")
    };
    told_of(&edited(&|line| line["rows"] = json!([0])), "1 rows for");
    told_of(&edited(&|line| line["rows"][0] = json!(99_999)), "row 99999 of wrong.safetensors, which has");
    told_of(&edited(&|line| line["prompt"] = json!([])), "a prompt of no tokens");
    told_of(&edited(&|line| line["prompt"] = json!([1])), "have read nothing in common");
    told_of(&format!("{head}\n{item}\n{item}\n"), "wrong.jsonl:3: item 0 again");
    let lines = &lines;
    told(lines, &numbers[..numbers.len() - 1], "wrong.safetensors: it ends after");
    told(lines, &numbers[..4], "wrong.safetensors: it ends after 4 bytes");
    told(
        lines,
        &[&u64::MAX.to_le_bytes()[..], &numbers[8..]].concat(),
        "its header has 18446744073709551615 bytes",
    );
    let mut renamed = numbers.clone();
    let at = renamed.windows(7).position(|word| word == b"numbers").unwrap();
    renamed[at] = b'N';
    told(lines, &renamed, "there is no tensor `numbers` [rows, width] in F32");
    let mut broken = numbers.clone();
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    told(lines, &broken, "holds NaN at");
    fs::remove_file(place.path("wrong.safetensors")).unwrap();
    let (code, _, err) = place.call(&["wrong.jsonl", &kept]);
    assert!(code == 2 && err.contains("with NAME.safetensors beside it"), "{err}");
}

#[test]
fn what_cannot_be_compared_is_said_before_anything_runs() {
    let place = Place::new();
    for (arguments, expected) in [
        (&[CELL][..], "one side is compared with nothing"),
        (&[CELL, "lab/fp32/exact/t1/b1"], "needs a model: name it with --model"),
        (&[CELL, CELL, "--model", "qwen"], "nothing says what lab/fp32/sequential/t1/b1 is to read"),
        (&[CELL, "no/cell"], "no/cell is neither a cell nor a trace NAME.jsonl"),
        (&[CELL, "none.jsonl"], "cannot read none.jsonl"),
        (&[CELL, CELL, "--max-kl=-1"], "write a number from 0 up"),
    ] {
        let (code, _, err) = place.call(arguments);
        assert!(code == 2 && err.contains(expected), "{arguments:?}: {err}");
    }
    for (tokens, expected) in [
        ("", "tokens.jsonl has no line"),
        (
            "{\"prompt\": [1], \"text\": \"1\"}",
            "tokens.jsonl:1: give either a `prompt` of tokens or a `text`",
        ),
        ("\n[]", "tokens.jsonl:2: "),
        ("{\"prompt\": [99999]}", "99999"),
    ] {
        place.write("tokens.jsonl", tokens);
        let (code, _, err) = place.cells(&[CELL]);
        assert!(code == 2 && err.contains(expected), "{tokens}: {err}");
    }
}
