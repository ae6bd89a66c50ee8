//! Scripted engines: a gate is tried without a model, and no script shows more than it says.

use std::{fs, path::Path, process::Command};

use reprocheck::{
    engine::script::Script,
    suite::{Suite, style::Style},
};
use tempfile::TempDir;

const ITEMS: usize = 4;

/// Prompts of a suite with the right answers.
fn questions() -> Vec<(String, String)> {
    let suite = Suite::open("carry_chain").unwrap();
    let asked = suite.items(0).take(ITEMS).map(|item| {
        let shown = suite.asked(&item, 0, Style::Completion, 0).unwrap();
        (shown.text(), item.problem.answer.text.clone())
    });
    asked.collect()
}

/// The lines of a script that answers each prompt; `shown` adds what a token is chosen from.
fn script(
    answer: impl Fn(usize, &str) -> String,
    shown: impl Fn(usize, char) -> Option<(&'static str, f32)>,
) -> String {
    let mut lines = String::new();
    for (item, (prompt, right)) in questions().into_iter().enumerate() {
        let answer = answer(item, &right);
        let mut line = serde_json::json!({ "prompt": prompt, "answer": answer });
        for character in answer.chars() {
            let Some((key, logit)) = shown(item, character) else { continue };
            let row = serde_json::json!({ character.to_string(): logit, "x": -1.5 });
            match line[key].as_array_mut() {
                Some(rows) => rows.push(row),
                None => line[key] = serde_json::json!([row]),
            }
        }
        lines += &format!("{line}\n");
    }
    lines
}

fn right(_: usize, answer: &str) -> String {
    format!(" {answer}\n")
}

fn silent(_: usize, _: char) -> Option<(&'static str, f32)> {
    None
}

struct Place(TempDir);

impl Place {
    /// A folder with these scripts and a matrix that ends with this gate.
    fn new(scripts: &[(&str, &str)], matrix: &str, gate: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in scripts {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let text = format!(
            "model = \"none\"\nsuites = [\"carry_chain\"]\nitems = {ITEMS}\n\n[generate]\ncandidates = 2\n\n[matrix]\n{matrix}\n\n\
             [[gate]]\nname = \"tried\"\n{gate}\n"
        );
        fs::write(folder.path().join("ci.toml"), text).unwrap();
        Place(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        self.call(&[&["run", "--matrix", "ci.toml", "--out", "out"], arguments].concat())
    }

    fn call(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_reprocheck"))
            .args(arguments)
            .current_dir(self.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let all = text(output.stdout) + &text(output.stderr);
        // As one line, wherever it was broken for a terminal.
        (output.status.code().unwrap(), all.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

const TWO: &str = "engine = [\"script:before.jsonl\", \"script:after.jsonl\"]";

/// Runs two scripts under a gate that they must agree on this level.
fn two(before: &str, after: &str, gate: &str) -> (i32, String) {
    let scripts = [("before.jsonl", before), ("after.jsonl", after)];
    Place::new(&scripts, TWO, &format!("vary = [\"engine\"]\n{gate}")).run(&[])
}

#[test]
fn a_gate_on_answers_passes_and_fails_on_paper() {
    let before = script(right, silent);
    let (code, out) = two(&before, &before, "require = \"answers\"");
    assert_eq!(code, 0, "{out}");
    let wrong =
        |item: usize, answer: &str| if item == 2 { " 12345\n".to_owned() } else { right(item, answer) };
    let (code, out) = two(&before, &script(wrong, silent), "require = \"answers\"");
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("other answers than script:before.jsonl/b1 on 1 of 4 items"), "{out}");
    assert!(out.contains("12345"), "{out}");
}

#[test]
fn a_script_may_answer_otherwise_in_company() {
    let alone = script(right, silent);
    let together = "{\"batch\": 2, \"answer\": \" 7\\n\"}\n".to_owned() + &alone;
    let place = Place::new(
        &[("a.jsonl", &together)],
        "engine = [\"script:a.jsonl\"]\nbatch = [1, 2]",
        "vary = [\"batch\"]\nrequire = \"tokens\"",
    );
    let (code, out) = place.run(&[]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("script:a.jsonl/b2 has other tokens than script:a.jsonl/b1"), "{out}");
}

#[test]
fn a_gate_on_bits_passes_only_where_all_logits_are_shown() {
    let logits = |_: usize, _: char| Some(("logits", 2.5));
    let other = |item: usize, _: char| Some(("logits", if item == 1 { 2.25 } else { 2.5 }));
    let top = |_: usize, _: char| Some(("top", -0.25));
    let other_top = |item: usize, _: char| Some(("top", if item == 1 { -0.5 } else { -0.25 }));
    let bits = "require = \"bits\"";
    let [logits, other, top, other_top, tokens] = [
        script(right, logits),
        script(right, other),
        script(right, top),
        script(right, other_top),
        script(right, silent),
    ];
    for (before, after, expected) in [
        (&logits, &logits, 0),
        (&logits, &other, 1),
        // Equal as far as it is seen, which is not all.
        (&top, &top, 3),
        (&tokens, &tokens, 3),
        (&logits, &top, 3),
        (&logits, &tokens, 3),
        // What is seen to differ differs.
        (&top, &other_top, 1),
    ] {
        let (code, out) = two(before, after, bits);
        assert_eq!(code, expected, "{out}");
    }
    let (_, out) = two(&tokens, &tokens, bits);
    assert!(out.contains("shows tokens alone"), "{out}");
    let (code, out) = two(&tokens, &tokens, "require = \"tokens\"");
    assert_eq!(code, 0, "{out}");
}

#[test]
fn a_plan_is_measured_by_its_longest_prompt() {
    let all = script(right, silent);
    let lengths: Vec<_> = questions().iter().map(|(prompt, _)| prompt.len()).collect();
    let longest = *lengths.iter().max().unwrap();
    assert!(lengths[0] < longest, "the first would do as well: {lengths:?}");
    let (this, others): (Vec<_>, Vec<_>) =
        all.lines().zip(lengths).partition(|(_, length)| *length == longest);
    for (lines, refused) in [(this, false), (others, true)] {
        let lines: String = lines.into_iter().map(|(line, _)| format!("{line}\n")).collect();
        let gate = "against = \"baseline\"\nrequire = \"tokens\"";
        let place = Place::new(&[("a.jsonl", &lines)], "engine = [\"script:a.jsonl\"]", gate);
        let (code, out) = place.call(&["plan", "--matrix", "ci.toml", "--time"]);
        assert_eq!(code, 0, "{out}");
        assert_eq!(out.ends_with("1 of these cells cannot run here"), refused, "{out}");
    }
}

#[test]
fn a_script_that_has_changed_makes_another_run() {
    let before = script(right, silent);
    let place = Place::new(
        &[("before.jsonl", &before), ("after.jsonl", &before)],
        TWO,
        "vary = [\"engine\"]\nrequire = \"answers\"",
    );
    assert_eq!(place.run(&[]).0, 0);
    assert_eq!(place.run(&["--resume"]).0, 0);
    fs::write(place.path().join("after.jsonl"), before.replacen(' ', "  ", 1)).unwrap();
    let (code, out) = place.run(&["--resume"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("the script after.jsonl has been changed"), "{out}");
}

#[test]
fn a_prompt_without_an_answer_and_a_model_without_weights_are_sentences() {
    let first = script(right, silent).lines().next().unwrap().to_owned();
    let place = Place::new(
        &[("a.jsonl", &first)],
        "engine = [\"script:a.jsonl\"]",
        "against = \"baseline\"\nrequire = \"bits\"",
    );
    let (code, out) = place.run(&[]);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("a.jsonl has no answer to item 1 in calls of 1"), "{out}");
    let place = Place::new(&[], "batch = [1, 2]", "vary = [\"batch\"]\nrequire = \"bits\"");
    let (code, out) = place.run(&[]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("reads a model's weights, and `none` has none"), "{out}");
    assert!(!place.path().join("out").exists());
}

#[test]
fn everything_that_is_wrong_with_a_script_is_told_at_its_place() {
    for (text, sentence) in [
        ("", "a.jsonl: it has no lines: write one for each answer"),
        ("{\"answer\": 3}\n", "a.jsonl:1: invalid type: integer `3`, expected a string"),
        ("\n{\"answr\": \"3\"}\n", "a.jsonl:2: unknown field `answr`"),
        ("[1]\n", "a.jsonl:1: "),
        (
            "{\"answer\": \"3\"}\n{\"answer\": \"4\", \"top\": [{\"4\": -1}]}\n",
            "a.jsonl:2: this shows the best log-probabilities, not all logits, and line 1 tokens alone: show as much of every answer",
        ),
        (
            "{\"answer\": \"34\", \"top\": [{\"3\": -1}, {\"4\": -1, \"5\": -2}]}\n",
            "a.jsonl:1: `top` has another number of tokens than before: show as many of every token",
        ),
        (
            "{\"answer\": \"3\", \"top\": [{\"3\": -1}], \"logits\": [{\"3\": 1}]}\n",
            "a.jsonl:1: `logits` show all that `top` would: take one of them out",
        ),
        ("{\"answer\": \"3\", \"batch\": 0}\n", "a.jsonl:1: invalid value: integer `0`"),
    ] {
        let problems = Script::read("a.jsonl", text).unwrap_err().to_string();
        assert!(problems.contains(sentence), "{problems}");
    }
    // What only a tokenizer can tell is told when the engine opens.
    for (line, sentence) in [
        (
            "{\"answer\": \"34\", \"top\": [{\"3\": -1}]}",
            "a.jsonl, line 1: its answer has 2 tokens and it shows what 1 were chosen from",
        ),
        (
            "{\"answer\": \"3\", \"logits\": [{\"34\": -1}]}",
            "a.jsonl, line 1: `34` is 2 tokens of this model: name one token",
        ),
    ] {
        let place = Place::new(
            &[("a.jsonl", line)],
            "engine = [\"script:a.jsonl\"]",
            "against = \"baseline\"\nrequire = \"bits\"",
        );
        let (code, out) = place.run(&[]);
        assert_eq!(code, 3, "{out}");
        assert!(out.contains(sentence), "{out}");
    }
}
