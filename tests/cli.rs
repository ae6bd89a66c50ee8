//! The binary as a user meets it: what it prints, what it complains of, and with which exit code it ends.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use half::f16;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};
use reprocheck::{
    cell::{AXES, ENGINES},
    model::embedded::MODELS,
    numerics::{format::Format, order::ORDERS, precision::PRECISIONS},
};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_reprocheck");

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn run(arguments: &[&str], stdin: impl Into<Vec<u8>>) -> Ran {
    let output = assert_cmd::Command::new(BINARY).args(arguments).write_stdin(stdin).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("nothing kills the program");
    let ran = Ran { code, out: text(output.stdout), err: text(output.stderr) };
    assert!(!ran.err.contains("panicked") && !ran.out.contains("panicked"), "{arguments:?}: {}", ran.err);
    ran
}

/// What it prints when all is well.
fn held(arguments: &[&str]) -> String {
    let ran = run(arguments, "");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
    ran.out
}

/// What it complains of when the usage is wrong.
fn refused(arguments: &[&str]) -> String {
    let ran = run(arguments, "");
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}: {}", ran.err);
    assert!(!ran.err.is_empty(), "{arguments:?}");
    ran.err
}

/// The bits of each answer. The value beside them must say the same.
fn answers(arguments: &[&str], lines: &[Value]) -> Vec<u32> {
    let stdin: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let ran = run(&[&["dot"], arguments].concat(), stdin);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
    let bits: Vec<_> = ran.out.lines().map(answer).collect();
    assert_eq!(bits.len(), lines.len(), "{arguments:?}");
    bits
}

fn answer(line: &str) -> u32 {
    let answer: Value = serde_json::from_str(line).unwrap();
    let bits = answer["bits"].as_str().unwrap();
    assert_eq!((bits.len(), answer.as_object().unwrap().len()), (10, 2), "{line}");
    let bits = u32::from_str_radix(bits.strip_prefix("0x").unwrap(), 16).unwrap();
    let value = f32::from_bits(bits);
    if value.is_finite() {
        // Not by way of `Value`, which reads numbers fast rather than exactly.
        let number = line.split_once("\"value\":").unwrap().1.strip_suffix('}').unwrap();
        assert_eq!(number.parse::<f64>().unwrap().to_bits(), f64::from(value).to_bits(), "{line}");
    } else {
        assert_eq!(answer["value"], Value::Null, "{line}");
    }
    bits
}

#[track_caller]
fn dot(name: &str, line: &str, expected: u32) {
    let mut parts = name.split(' ');
    let (numerics, more) = (parts.next().unwrap(), parts.collect::<Vec<_>>());
    let (precision, order) = numerics.split_once('/').unwrap();
    let arguments = [&["--precision", precision, "--order", order], &*more].concat();
    let got = answers(&arguments, &[serde_json::from_str(line).unwrap()])[0];
    assert_eq!(got, expected, "{name} of {line}: {got:#010x}, must be {expected:#010x}");
}

// -------------------------------------------------------------------------------------------- list, explain

#[test]
fn the_lists_hold_every_row_and_fit_a_terminal() {
    for (what, names) in [
        ("precisions", PRECISIONS.iter().map(|entry| entry.name).collect::<Vec<_>>()),
        ("orders", ORDERS.iter().map(|entry| entry.name).collect()),
        ("axes", AXES.iter().map(|entry| entry.name).collect()),
        ("engines", ENGINES.iter().map(|entry| entry.name).collect()),
        ("models", MODELS.iter().map(|entry| entry.name).collect()),
    ] {
        let out = held(&["list", what]);
        for name in names {
            let rows = out.lines().filter(|line| line.split(' ').next() == Some(name)).count();
            assert_eq!(rows, 1, "{name}");
        }
        for line in out.lines() {
            assert!(line.chars().count() <= 80, "{line}");
            assert_eq!(line, line.trim_end());
        }
    }
    // Nothing is lost where a sentence breaks, and no line begins deeper than the others.
    let out = held(&["list", "orders"]);
    let words: Vec<_> = out.split_whitespace().collect();
    for entry in ORDERS {
        let sentence: Vec<_> = entry.sentence.split_whitespace().collect();
        assert!(words.windows(sentence.len()).any(|window| window == sentence), "{}", entry.name);
    }
    let column = out.lines().next().unwrap().find("how it adds").unwrap();
    for line in out.lines().filter(|line| line.starts_with(' ')) {
        assert_eq!(line.find(|c| c != ' '), Some(column), "{line}");
    }
    let out = held(&["list", "models"]);
    for entry in MODELS {
        assert!(out.contains(&entry.digest[..12]) && out.contains("603,648 parameters"), "{out}");
    }
}

#[test]
fn explain_order_draws_the_tree() {
    let out = held(&["explain", "order", "pairwise"]);
    // The only word that depends on the machine.
    let (before, after) = out.split_once("kernel (").unwrap();
    let (_, after) = after.split_once(',').unwrap();
    assert_eq!(
        format!("{before}kernel (ISA,{after}"),
        "\
pairwise: a balanced tree: the first half of the terms, the second half, then their sum
Found in NumPy's sum, tree reductions on GPUs.

terms   8
depth   3 additions for the deepest term
launch  does not depend on it: this is the tree in any batch, on any number of threads
tree    (((0+1)+(2+3))+((4+5)+(6+7)))

0 ─┐
1 ─┴─┐
2 ─┐ │
3 ─┴─┴─┐
4 ─┐   │
5 ─┴─┐ │
6 ─┐ │ │
7 ─┴─┴─┴──

Masks sent through this machine's kernel (ISA, fp32) reveal the same tree.
"
    );
}

#[test]
fn every_order_is_explained_under_every_launch() {
    for entry in ORDERS {
        let name = entry.example.to_string();
        for (terms, rows, threads) in
            [("1", "1", "1"), ("2", "3", "1"), ("9", "4", "2"), ("64", "5", "7"), ("300", "9", "4096")]
        {
            let launch = ["--terms", terms, "--rows", rows, "--threads", threads];
            let out = held(&[&["explain", "order", &name], &launch[..]].concat());
            assert!(out.starts_with(&format!("{name}: {}\n", entry.sentence)), "{out}");
            assert!(out.contains(&format!("\nterms   {terms}\n")), "{out}");
            assert_eq!(out.contains("DEPENDS"), entry.example.depends_on_launch(), "{out}");
            assert_eq!(out.contains("reveal the same tree"), terms != "300", "{out}");
        }
    }
    let tree = |arguments: &[&str]| {
        let out = held(&[&["explain", "order"], arguments].concat());
        out.lines().find_map(|line| line.strip_prefix("tree    ").map(str::to_owned)).unwrap()
    };
    assert_eq!(tree(&["split-k:rows", "--terms", "5", "--rows", "2"]), "(((0+1)+2)+(3+4))");
    assert_eq!(tree(&["split-k:rows", "--terms", "5", "--rows", "3"]), "(((0+1)+(2+3))+4)");
    assert_eq!(tree(&["split-k:rows", "--terms", "4", "--threads", "2"]), "(((0+1)+2)+3)");
    assert_eq!(tree(&["split-k:threads", "--terms", "4", "--threads", "2"]), "((0+1)+(2+3))");
    assert_eq!(tree(&["lanes:2", "--terms", "4", "--rows", "9"]), "((0+2)+(1+3))");
    assert_eq!(tree(&["exact", "--terms", "3"]), "(0+1+2)");
    let out = held(&["explain", "order", "split-k:rows", "--rows", "4", "--terms", "2"]);
    assert!(out.contains("this is the tree for 4 rows and 1 thread\n"), "{out}");
    assert!(out.contains("depth   1 addition for the deepest term\n"), "{out}");
}

#[test]
fn an_order_is_explained_over_the_groups_that_a_precision_adds_exactly() {
    let explained = |order: &str, precision: &str, terms: &str| {
        held(&["explain", "order", order, "--precision", precision, "--terms", terms])
    };
    let out = explained("sequential", "nvfp4", "40");
    assert!(out.contains("\ngroup   16 terms are added exactly; times their scales"), "{out}");
    assert!(out.contains("depth   3 additions for the deepest term\n"), "{out}");
    assert!(out.contains("+15)+(16+"), "{out}");
    assert!(out.contains(", nvfp4) reveal the same tree.\n"), "{out}");
    let out = explained("pairwise", "w8a8", "3");
    assert!(
        out.contains("\ngroup   all terms are added exactly: there is no other order to show\n"),
        "{out}"
    );
    assert!(out.contains("tree    (0+1+2)\n"), "{out}");
    // What adds every term in the order's way has no groups, and what leaves no room for masks says so.
    assert_eq!(
        explained("pairwise", "bf16", "9").replace("bf16", "fp32"),
        explained("pairwise", "fp32", "9")
    );
    let out = explained("pairwise", "cast:e2m1", "9");
    assert!(out.contains("\nNothing was revealed: masks do not fit 9 terms of cast:e2m1: "), "{out}");
    assert!(
        refused(&["explain", "order", "pairwise", "--precision", "bf61"]).contains("did you mean `bf16`?")
    );
}

#[test]
fn every_precision_is_explained() {
    let names = PRECISIONS.iter().map(|entry| entry.example.to_string());
    for name in names.chain(["lmul:m=4,scope=attention".to_owned(), "cast:e2m1".to_owned()]) {
        let out = held(&["explain", "precision", &name]);
        let entry = name.parse::<reprocheck::numerics::precision::Precision>().unwrap().entry();
        assert!(
            out.starts_with(&format!("{name}: {}\nRounds: {}.\n", entry.sentence, entry.rounds)),
            "{out}"
        );
        for heading in ["\nlinear layers\n", "\nattention\n", "\nlogits\n", "\nrelative error of one product"]
        {
            assert!(out.contains(heading), "{out}");
        }
        assert!(entry.parameters.iter().all(|parameter| out.contains(parameter)), "{out}");
    }
    let out = held(&["explain", "precision", "lmul"]);
    assert!(out.contains("L-Mul, offset 0x3f780000, correction 2^-4"), "{out}");
}

#[test]
fn a_wrong_name_ends_with_a_suggestion() {
    for (wrong, right) in [
        ("bf61", "bf16"),
        ("FP32", "fp32"),
        ("cast", "cast:e4m3"),
        ("cast:eXmY", "cast:e4m3"),
        ("lmull:m=4", "lmul"),
    ] {
        for arguments in
            [&["explain", "precision", wrong][..], &["dot", "--order", "exact", "--precision", wrong]]
        {
            let err = refused(arguments);
            assert!(err.contains(&format!("did you mean `{right}`?")), "{err}");
            assert!(err.contains("reprocheck list precisions"), "{err}");
        }
    }
    for (wrong, right) in [("pairwize", "pairwise"), ("split_k:4", "split-k"), ("Kahan", "kahan")] {
        for arguments in [&["explain", "order", wrong][..], &["dot", "--precision", "fp32", "--order", wrong]]
        {
            let err = refused(arguments);
            assert!(err.contains(&format!("did you mean `{right}`?")), "{err}");
            assert!(err.contains("reprocheck list orders"), "{err}");
        }
    }
    assert!(refused(&["explain", "order", "lanes"]).contains("write `lanes:16`"));
    assert!(refused(&["explain", "precision", "lmul:m=24"]).contains("from 1 to 23"));
    assert!(refused(&["explain", "precision", "cast:e9m3"]).contains("choose 2 to 8"));
    assert!(refused(&["explain", "precision", "cast:e2m1,saturate=no"]).contains("let it saturate"));
}

#[test]
fn wrong_usage_says_what_would_be_right() {
    for (arguments, hint) in [
        (&["list"][..], "precisions|orders|axes|engines|suites|models"),
        (&["list", "foo"], "possible values: precisions, orders, axes, engines, suites, models"),
        (&["lst"], "'list'"),
        (&["explain", "bf16"], "order|precision|suite"),
        (&["suite"], "show|export"),
        (&["suite", "show"], "<NAME>"),
        (&["suite", "show", "carry_chian"], "did you mean `carry_chain`?"),
        (&["suite", "show", "divmod", "--style", "caht"], "write `chat`"),
        (&["suite", "show", "nupa_core", "--style", "compact"], "choose one of completion, chat"),
        (&["suite", "show", "divmod", "--shots", "33"], "33 is not in 0..=32"),
        (&["suite", "export", "./nothing"], "a suite is a folder with a suite.toml, or a file of JSON lines"),
        (&["explain", "orders"], "'order'"),
        (&["dot"], "--precision <PRECISION>"),
        (&["dot", "--precision", "fp32"], "--order <ORDER>"),
        (&["dot", "--precision", "fp32", "--order", "exact", "--rows", "0"], "a number from 1 up"),
        (&["dot", "--precision", "fp32", "--order", "exact", "--threads", "-1"], "'-1'"),
        (&["explain", "order", "exact", "--terms", "0"], "from 1 to 4096"),
        (&["explain", "order", "exact", "--terms", "4097"], "from 1 to 4096"),
        (&["explain", "order", "exact", "--rows", "x"], "from 1 to 4096"),
    ] {
        let err = refused(arguments);
        assert!(err.contains(hint), "{arguments:?}: {err}");
    }
}

#[test]
fn help_is_shown_when_asked_for_and_when_nothing_is() {
    for arguments in [&[][..], &["explain"]] {
        assert!(refused(arguments).contains("Usage: reprocheck"));
    }
    for verb in [&[][..], &["list"], &["explain"], &["explain", "order"], &["explain", "precision"], &["dot"]]
    {
        assert!(held(&[verb, &["--help"]].concat()).contains("Usage: reprocheck"));
        let version = held(&[verb, &["--version"]].concat());
        assert!(version.ends_with(&format!(" {}\n", env!("CARGO_PKG_VERSION"))), "{version}");
    }
    // The form of a line stands nowhere else.
    let help = held(&["dot", "--help"]);
    assert!(help.contains(r#"{"a":[1,2],"b":[3,"0x3f800000"],"c":0}"#), "{help}");
}

#[test]
fn a_beginner_gets_a_matrix_file_that_plans_and_a_workflow_and_loses_nothing() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().to_str().unwrap();
    let said = held(&["init", folder, "--model", "./a \"b\""]);
    assert_eq!(said.matches("wrote ").count(), 3, "{said}");
    let matrix = place.path().join("ci.toml");
    let matrix = matrix.to_str().unwrap();
    let plan: Value = serde_json::from_str(&held(&["plan", "--matrix", matrix, "--format", "json"])).unwrap();
    assert_eq!(plan["model"], "./a \"b\"");
    assert_eq!((plan["cells"].as_array().unwrap().len(), plan["gates"].as_array().unwrap().len()), (25, 3));
    let schema = std::fs::read_to_string(place.path().join("matrix.schema.json")).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&schema).unwrap(),
        serde_json::from_str::<Value>(&held(&["schema"])).unwrap()
    );
    // What is commented out is a gate, too.
    let text = std::fs::read_to_string(matrix).unwrap();
    let (_, end) = text.split_once("# [[gate]]").unwrap();
    let gate = format!("[[gate]]{}", end.replace("\n# ", "\n"));
    std::fs::write(place.path().join("more.toml"), format!("{text}\n{gate}")).unwrap();
    let more = place.path().join("more.toml");
    assert!(held(&["plan", "--matrix", more.to_str().unwrap()]).contains("gate: as approved"));
    // Nothing is written over, and then nothing is written at all.
    std::fs::remove_file(place.path().join("matrix.schema.json")).unwrap();
    assert!(refused(&["init", folder]).contains("ci.toml is there already: nothing was written"));
    assert!(!place.path().join("matrix.schema.json").exists());
    let other = tempfile::tempdir().unwrap();
    held(&["init", other.path().to_str().unwrap(), "--ci", "gitlab"]);
    let job = std::fs::read_to_string(other.path().join("reprocheck.gitlab-ci.yml")).unwrap();
    assert!(
        job.contains(concat!("--tag v", env!("CARGO_PKG_VERSION"), "\n")) && !job.contains("VERSION"),
        "{job}"
    );
    let cluster = tempfile::tempdir().unwrap();
    let said = held(&["init", cluster.path().to_str().unwrap(), "--ci", "slurm"]);
    let matrix = cluster.path().join("ci.toml");
    let matrix = matrix.to_str().unwrap();
    assert!(said.ends_with(&format!("next: reprocheck submit slurm --matrix {matrix}\n")), "{said}");
    let jobs = held(&["submit", "slurm", "--matrix", matrix, "--out", "r", "--print"]);
    assert!(jobs.contains("#SBATCH --array=1-4\n") && jobs.contains("#SBATCH --time=120\n"), "{jobs}");
}

#[test]
fn shells_and_man_know_every_verb() {
    let help = held(&["--help"]);
    let verbs: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .filter_map(|line| line.split(' ').next())
        .filter(|verb| !["help", ""].contains(verb) && !verb.starts_with('-'))
        .collect();
    assert!(verbs.len() > 12, "{verbs:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = held(&["completions", shell]);
        for verb in &verbs {
            assert!(script.contains(verb), "{shell} does not know {verb}");
        }
    }
    let place = tempfile::tempdir().unwrap();
    held(&["man", "--out", place.path().to_str().unwrap()]);
    for verb in &verbs {
        let page = std::fs::read_to_string(place.path().join(format!("reprocheck-{verb}.1"))).unwrap();
        assert!(page.contains(&format!("reprocheck\\-{verb}")), "{verb}: {page:.300}");
    }
    assert_eq!(held(&["man"]), std::fs::read_to_string(place.path().join("reprocheck.1")).unwrap());
    assert!(!place.path().join("reprocheck-engine-worker.1").exists());
}

#[test]
fn a_job_learns_which_parts_there_are() {
    let matrix = concat!(env!("CARGO_MANIFEST_DIR"), "/suites/smoke.toml");
    let plan = ["plan", "--matrix", matrix, "--format", "github", "--parts"];
    let outputs = held(&[&plan[..], &["2"]].concat());
    assert_eq!(outputs, "parts=[\"1/2\",\"2/2\"]\ncells=5\nsamples=240\n");
    let refused = assert_cmd::Command::new(BINARY).args([&plan[..], &["0"]].concat()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("write a number from 1 to 10000"));
}

// ------------------------------------------------------------------------------------------------------ suites

#[test]
fn every_suite_is_listed_explained_and_shown_in_all_its_styles() {
    let list = held(&["list", "suites"]);
    for (name, _) in reprocheck::suite::embedded::SUITES {
        assert!(list.contains(name), "{list}");
        let explained = held(&["explain", "suite", name]);
        for part in ["version 1: ", "where it comes from", "strata ", "for example"] {
            assert!(explained.contains(part), "{explained}");
        }
        assert!(explained.lines().all(|line| line.chars().count() <= 80), "{explained}");
        for style in ["completion", "chat"] {
            let shown = held(&["suite", "show", name, "--style", style, "--n", "3", "--shots", "1"]);
            assert_eq!(shown.matches(&format!("{name}-v1-s0-")).count(), 3, "{shown}");
        }
    }
}

#[test]
fn an_export_is_the_same_every_time_and_its_first_lines_are_those_of_a_shorter_one() {
    let export = |count| held(&["suite", "export", "expr_chain", "--n", count, "--seed", "7"]);
    let (more, fewer) = (export("40"), export("10"));
    assert_eq!(more, export("40"));
    assert!(more.starts_with(&fewer) && fewer.lines().count() == 10);
    for line in more.lines() {
        let item: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((item["suite"].as_str(), item["seed"].as_u64()), (Some("expr_chain"), Some(7)));
        assert!(item["prompt"]["compact"].as_str().unwrap().ends_with('='));
    }
    // As many as the suite has for most purposes.
    assert_eq!(held(&["suite", "export", "expr_chain"]).lines().count(), 448);
    // Only those with such a prompt.
    let compact = held(&["suite", "export", "list_stats", "--style", "compact", "--n", "50"]);
    assert!(compact.lines().all(|line| line.contains("\"compact\":")), "{compact}");
}

#[test]
fn an_export_for_another_harness_is_a_task_and_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("new");
    let arguments = ["suite", "export", "tok_chunk", "--n", "6", "--shots", "2", "--lm-eval"];
    let said = held(&[&arguments[..], &[inside.to_str().unwrap()]].concat());
    let [lines, task]: [&str; 2] = said.lines().collect::<Vec<_>>().try_into().unwrap();
    let task = std::fs::read_to_string(task).unwrap();
    for part in
        ["task: reprocheck_tok_chunk_completion\n", "doc_to_text: prompt\n", &format!("test: {lines:?}\n")]
    {
        assert!(task.contains(part), "{task}");
    }
    let lines = std::fs::read_to_string(lines).unwrap();
    assert_eq!(lines.lines().count(), 6);
    let item: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(item["prompt"].as_str().unwrap().matches("\n\n").count(), 2, "{item}");
}

#[test]
fn every_bad_line_of_a_file_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.jsonl");
    let text = "{\"question\": \"1 + 1?\", \"answer\": 2}\n{\"question\": \"2 + 2?\"}\n{\"question\": 3, \"answer\": [}\n";
    std::fs::write(&file, text).unwrap();
    let err = refused(&["suite", "show", file.to_str().unwrap()]);
    let file = file.display();
    assert!(err.contains(&format!("{file}:2: `answer`: is missing: every line needs it")), "{err}");
    assert!(err.contains(&format!("{file}:3:28: is not JSON (")), "{err}");
}

// -------------------------------------------------------------------------------------------------- dot: bits

#[test]
fn orders_differ_where_additions_cancel() {
    let far = r#"{"a":[1e8,1,-1e8],"b":[1,1,1]}"#;
    dot("fp32/sequential", far, 0);
    dot("fp32/reversed", far, 0);
    dot("fp32/pairwise", far, 0);
    dot("fp32/lanes:2", far, 0x3F80_0000);
    dot("fp32/kahan", far, 0);
    dot("fp32/neumaier", far, 0x3F80_0000);
    dot("fp32/exact", far, 0x3F80_0000);
    let near = r#"{"a":[1,1e8,-1e8,1],"b":[1,1,1,1]}"#;
    dot("fp32/sequential", near, 0x3F80_0000);
    dot("fp32/reversed", near, 0x3F80_0000);
    dot("fp32/pairwise", near, 0);
    dot("fp32/lanes:2", near, 0);
    dot("fp32/blocks:1", near, 0x3F80_0000);
    dot("fp32/blocks:2", near, 0);
    dot("fp32/split-k:2", near, 0);
    dot("fp32/split-k:4", near, 0x3F80_0000);
    dot("fp32/neumaier", near, 0x4000_0000);
    dot("fp32/exact", near, 0x4000_0000);
}

#[test]
fn a_split_follows_the_launch_that_it_names() {
    let line = r#"{"a":[1,1e8,-1e8,1],"b":[1,1,1,1]}"#;
    dot("fp32/split-k:rows", line, 0x3F80_0000);
    dot("fp32/split-k:rows --rows 2", line, 0);
    dot("fp32/split-k:rows --rows 4", line, 0x3F80_0000);
    dot("fp32/split-k:rows --rows 18446744073709551615", line, 0x3F80_0000);
    dot("fp32/split-k:rows --threads 2", line, 0x3F80_0000);
    dot("fp32/split-k:threads --threads 2", line, 0);
    dot("fp32/split-k:threads --rows 2", line, 0x3F80_0000);
}

#[test]
fn exact_rounds_once_and_breaks_ties_by_what_lies_far_below() {
    let tie = r#"{"a":[1,5.9604644775390625e-8],"b":[1,1]}"#;
    // 2^-60 more than halfway.
    let above = r#"{"a":[1,5.9604644775390625e-8,"0x21800000"],"b":[1,1,1]}"#;
    dot("fp32/exact", tie, 0x3F80_0000);
    dot("fp32/exact", above, 0x3F80_0001);
    dot("fp32/sequential", above, 0x3F80_0000);
}

#[test]
fn a_step_of_a_running_sum_is_fused() {
    // (1 + 2^-12)^2 - 1 = 2^-11 + 2^-24, and 2^-11 if the product rounds first.
    let line = r#"{"a":["0x3f800800"],"b":["0x3f800800"],"c":-1}"#;
    dot("fp32/sequential", line, 0x3A00_0400);
    dot("fp32/kahan", line, 0x3A00_0000);
    dot("fp32/exact", line, 0x3A00_0400);
}

#[test]
fn bfloat16_rounds_what_comes_in_and_what_goes_out() {
    // 1 + 2^-8 and 1 + 3 * 2^-8 are ties.
    dot("bf16/sequential", r#"{"a":[1.00390625],"b":[1]}"#, 0x3F80_0000);
    dot("bf16/sequential", r#"{"a":[1.01171875],"b":[1]}"#, 0x3F82_0000);
    dot("bf16/sequential", r#"{"a":[1.004],"b":[1]}"#, 0x3F81_0000);
    dot("bf16/sequential", r#"{"a":[1,1],"b":[256,1]}"#, 0x4380_0000);
    dot("bf16/sequential", r#"{"a":[1,1,1],"b":[256,1,1]}"#, 0x4381_0000);
    dot("bf16-acc16/sequential", r#"{"a":[1,1,1],"b":[256,1,1]}"#, 0x4380_0000);
    dot("bf16-acc16/reversed", r#"{"a":[1,1,1],"b":[256,1,1]}"#, 0x4381_0000);
    dot("bf16-acc16/exact", r#"{"a":[1,1,1],"b":[256,1,1]}"#, 0x4381_0000);
}

#[test]
fn layercast_rounds_the_weights_only() {
    dot("layercast/sequential", r#"{"a":[1.00390625],"b":[1]}"#, 0x3F80_8000);
    dot("layercast/sequential", r#"{"a":[1],"b":[1.00390625]}"#, 0x3F80_0000);
}

#[test]
fn half_rounds_overflows_and_runs_out_of_bits() {
    dot("fp16/sequential", r#"{"a":[2048,1,1],"b":[1,1,1]}"#, 0x4500_2000);
    dot("fp16-acc16/sequential", r#"{"a":[2048,1,1],"b":[1,1,1]}"#, 0x4500_0000);
    dot("fp16-acc16/pairwise", r#"{"a":[2048,1,1],"b":[1,1,1]}"#, 0x4500_2000);
    dot("fp16/sequential", r#"{"a":[65519],"b":[1]}"#, 0x477F_E000);
    dot("fp16/sequential", r#"{"a":[65520],"b":[1]}"#, 0x7F80_0000);
    // In f32 the sum comes back; in half it is gone.
    dot("fp16/sequential", r#"{"a":[60000,60000,-60000],"b":[1,1,1]}"#, 0x476A_6000);
    dot("fp16-acc16/sequential", r#"{"a":[60000,60000,-60000],"b":[1,1,1]}"#, 0x7F80_0000);
}

#[test]
fn small_floats_saturate_or_do_not_as_told() {
    // 464 is halfway between the largest number and what would be the next.
    for (value, saturating, not) in [
        ("448", 0x43E0_0000, 0x43E0_0000),
        ("464", 0x43E0_0000, 0x43E0_0000),
        ("464.1", 0x43E0_0000, 0x7FC0_0000),
        ("-1e9", 0xC3E0_0000, 0x7FC0_0000),
    ] {
        let line = format!(r#"{{"a":[{value}],"b":[1]}}"#);
        dot("cast:e4m3/sequential", &line, saturating);
        dot("cast:e4m3,saturate=no/sequential", &line, not);
    }
    // The sum is wider than the result.
    dot("cast:e4m3/sequential", r#"{"a":[448,448,-448],"b":[1,1,1]}"#, 0x43E0_0000);
    dot("cast:e4m3/sequential", r#"{"a":[448,448],"b":[1,1]}"#, 0x43E0_0000);
    dot("cast:e5m2/sequential", r#"{"a":[1e6],"b":[1]}"#, 0x4760_0000);
    dot("cast:e5m2,saturate=no/sequential", r#"{"a":[1e6],"b":[1]}"#, 0x7F80_0000);
    dot("cast:e2m1/sequential", r#"{"a":[5],"b":[1]}"#, 0x4080_0000);
    dot("cast:e2m1,round=up/sequential", r#"{"a":[4.1],"b":[1]}"#, 0x40C0_0000);
    dot("cast:e2m1/sequential", r#"{"a":[100],"b":[1]}"#, 0x40C0_0000);
}

#[test]
fn lmul_gives_the_known_words() {
    dot("lmul/sequential", r#"{"a":[1],"b":[1]}"#, 0x3F88_0000);
    dot("lmul/sequential", r#"{"a":[3.6],"b":[2.1]}"#, 0x40F4_CCCC);
    dot("lmul/exact", r#"{"a":[3.6],"b":[2.1]}"#, 0x40F4_CCCC);
    dot("lmul:scope=attention/sequential", r#"{"a":[3.6],"b":[2.1]}"#, 0x40F4_CCCC);
    dot("lmul/sequential", r#"{"a":[-3.75],"b":[5]}"#, 0xC198_0000);
    dot("lmul/sequential", r#"{"a":[1.75],"b":[1.75]}"#, 0x4048_0000);
    dot("lmul:variant=formula/sequential", r#"{"a":[1.75],"b":[1.75]}"#, 0x4024_0000);
    dot("lmul:m=3/sequential", r#"{"a":[1],"b":[1]}"#, 0x3F90_0000);
    dot("lmul/pairwise", r#"{"a":[1,1],"b":[1,1],"c":1}"#, 0x4048_0000);
    dot("lmul/sequential", r#"{"a":[0,3],"b":[3,-0]}"#, 0);
    dot("lmul/sequential", r#"{"a":["0x7f800000"],"b":[1]}"#, 0x7FC0_0000);
}

#[test]
fn integers_are_what_a_second_hand_computes() {
    /// The codes in f64, where nothing near a tie is tried.
    fn codes(values: &[f64]) -> (Vec<i64>, f64) {
        let largest = values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        (values.iter().map(|value| (value / largest * 127.0).round() as i64).collect(), largest)
    }
    fn scaled(a: &[f64], b: &[f64]) -> f64 {
        let ((a, x), (b, y)) = (codes(a), codes(b));
        let sum: i64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        sum as f64 * x * y / 127.0 / 127.0
    }
    let vectors: [(&[f64], &[f64], f64); 4] = [
        (&[1.0], &[1.0], 0.0),
        (&[2.0, -1.25, 0.375], &[0.5, 0.75, -3.0], 0.0),
        (&[0.1875, 4.0, -5.5, 3.25], &[1.0, -2.125, 0.625, 0.25], 1.5),
        (&[-1.0, 1.0, 1.0, 0.0625, 2.75], &[7.0, 13.0, -21.0, 0.5, 1.75], -100.0),
    ];
    for (a, b, c) in vectors {
        let line = json!({"a": a, "b": b, "c": c}).to_string();
        let sum = scaled(a, b) + c;
        for order in ["sequential", "lanes:16", "exact"] {
            let expected = f16::from_f64(sum).to_f32().to_bits();
            dot(&format!("int8/{order}"), &line, expected);
            let expected = sum as f32;
            let got =
                answers(&["--precision", "w8a8", "--order", order], &[serde_json::from_str(&line).unwrap()])
                    [0];
            // The scales are f32: each may be wrong by half a unit in the last place.
            assert!(got.abs_diff(expected.to_bits()) <= 4, "{got:#010x} {:#010x}", expected.to_bits());
        }
    }
    // Scales of 1: exact by hand. 127 * 127 - 3 * 2 + 1 = 16124.
    dot("w8a8/exact", r#"{"a":[127,3,1],"b":[127,-2,1]}"#, 16124.0_f32.to_bits());
    dot("w8a8/exact", r#"{"a":[127,3.4,1],"b":[127,-2,1],"c":0.5}"#, 16124.5_f32.to_bits());
    // Ties go to even: 2.5 to 2, 3.5 to 4.
    dot("w8a8/exact", r#"{"a":[127,2.5,3.5],"b":[0,127,0]}"#, 254.0_f32.to_bits());
    dot("w8a8/exact", r#"{"a":[127,2.5,3.5],"b":[0,0,127]}"#, 508.0_f32.to_bits());
    // 8 is an outlier: it leaves the integers and takes the coarse weight along, 64 / 127 and not 0.5.
    let weight = f16::from_f64(64.0 / 127.0).to_f64();
    let (outlier, line) = (8.0 * weight, r#"{"a":[2,8],"b":[1,0.5]}"#);
    let inside = f16::from_f64(2.0).to_f64();
    dot("int8/sequential", line, f16::from_f64(inside + outlier).to_f32().to_bits());
    let together = f16::from_f64(scaled(&[2.0, 8.0], &[1.0, 0.5])).to_f32().to_bits();
    dot("int8:threshold=9/sequential", line, together);
    // The threshold itself is an outlier.
    dot("int8/sequential", r#"{"a":[6,0.01],"b":[1,1]}"#, f16::from_f64(6.01).to_f32().to_bits());
}

#[test]
fn a_sum_is_told_before_it_is_rounded_where_that_is_asked_for() {
    // As it was recorded of a GPU.
    let recorded = include_str!("gpu/recorded.txt").lines().find(|line| line.starts_with("h100 bf16 fp32 "));
    let [.., a, b, c, sum] = recorded.unwrap().split(' ').collect::<Vec<_>>()[..] else { unreachable!() };
    let words = |words: &str| words.split(',').map(|word| format!("0x{word:0<8}")).collect::<Vec<_>>();
    let line = json!({ "a": words(a), "b": words(b), "c": words(c)[0] });
    let arguments = ["dot", "--precision", "bf16", "--order", "mma:h100"];
    let ran = run(&[&arguments[..], &["--sum"]].concat(), line.to_string());
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(answer["sum"], words(sum)[0], "{}", ran.err);
    let bits = u32::from_str_radix(answer["bits"].as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap();
    let sum = u32::from_str_radix(&words(sum)[0][2..], 16).unwrap();
    assert_eq!(f32::from_bits(bits), Format::BF16.round(f32::from_bits(sum)));
    assert_eq!(answers(&arguments[1..], &[line]), [bits]);
}

#[test]
fn a_sum_begins_where_it_is_told() {
    for (order, _) in REFERENCES {
        let name = format!("fp32/{order}");
        dot(&name, r#"{"a":[1],"b":[1],"c":0.5}"#, 0x3FC0_0000);
        dot(&name, r#"{"a":[],"b":[],"c":0.5}"#, 0x3F00_0000);
        dot(&name, r#"{"a":[],"b":[]}"#, 0);
        dot(&name, r#"{"a":[2],"b":[3],"c":"0xc0c00000"}"#, 0);
    }
    // 1.00390625 rounds to 1 before anything is added to it.
    dot("bf16-acc16/sequential", r#"{"a":[],"b":[],"c":1.00390625}"#, 0x3F80_0000);
}

#[test]
fn zeros_keep_their_signs() {
    dot("fp32/sequential", r#"{"a":[],"b":[],"c":-0}"#, 0x8000_0000);
    dot("fp32/sequential", r#"{"a":[-0],"b":[1]}"#, 0);
    dot("fp32/sequential", r#"{"a":[-0.0],"b":[1],"c":"0x80000000"}"#, 0x8000_0000);
    dot("bf16/pairwise", r#"{"a":[-0e5],"b":[1],"c":-0.0}"#, 0x8000_0000);
}

#[test]
fn what_is_not_finite_comes_as_a_pattern_and_leaves_as_null() {
    dot("fp32/sequential", r#"{"a":["0x7f800000"],"b":[1]}"#, 0x7F80_0000);
    dot("fp32/sequential", r#"{"a":["0xFF800000"],"b":[1]}"#, 0xFF80_0000);
    dot("fp32/sequential", r#"{"a":["0x7f800000"],"b":[0]}"#, 0x7FC0_0000);
    dot("fp32/sequential", r#"{"a":["0x7f800000","0xff800000"],"b":[1,1]}"#, 0x7FC0_0000);
    for order in ["sequential", "pairwise", "kahan", "neumaier", "dpbf16", "exact"] {
        dot(&format!("fp32/{order}"), r#"{"a":["0xffc12345",1],"b":[1,1]}"#, 0x7FC0_0000);
        dot(&format!("bf16/{order}"), r#"{"a":[1],"b":[1],"c":"0x7f800001"}"#, 0x7FC0_0000);
    }
    dot("fp32/sequential", r#"{"a":[3.4028234663852886e38,1],"b":[2,1]}"#, 0x7F80_0000);
    dot("fp32/exact", r#"{"a":[3.4e38,3.4e38,-3.4e38],"b":[1,1,1]}"#, 3.4e38_f32.to_bits());
    dot("int8/sequential", r#"{"a":["0x7fc00000"],"b":[1]}"#, 0x7FC0_0000);
    dot("w8a8/sequential", r#"{"a":["0x7f800000"],"b":[1]}"#, 0x7FC0_0000);
}

#[test]
fn numbers_are_read_in_one_step() {
    // Just above halfway between 1 and the next f32: by way of f64 it would be the tie, and 1.
    dot("fp32/exact", r#"{"a":[1.00000005960464477540],"b":[1]}"#, 0x3F80_0001);
    dot("fp32/exact", r#"{"a":[1E2],"b":[1]}"#, 0x42C8_0000);
    dot("fp32/exact", r#"{"a":[1e-46,"0x00000001"],"b":[1,1]}"#, 1);
}

// ------------------------------------------------------------------------------- dot: orders, a second time

/// What an order means, written down a second time: terms, start, parts of the launch.
type Reference = fn(&[(f32, f32)], f32) -> f32;

const REFERENCES: &[(&str, Reference)] = &[
    ("sequential", running),
    ("reversed", |terms, start| running(&terms.iter().rev().copied().collect::<Vec<_>>(), start)),
    ("pairwise", halves),
    ("lanes:16", |terms, start| strided(terms, start, 16)),
    ("lanes:3", |terms, start| strided(terms, start, 3)),
    ("lanes:1", running),
    ("blocks:64", |terms, start| chunks(terms, start, 64)),
    ("blocks:5", |terms, start| chunks(terms, start, 5)),
    ("split-k:4", |terms, start| parts(terms, start, 4)),
    ("split-k:3", |terms, start| parts(terms, start, 3)),
    ("split-k:threads", |terms, start| parts(terms, start, THREADS)),
    ("split-k:rows", |terms, start| parts(terms, start, ROWS)),
    ("shuffled:7", |terms, start| running(&shuffled(terms, 7), start)),
    ("shuffled:0", |terms, start| running(&shuffled(terms, 0), start)),
    ("kahan", kahan),
    ("neumaier", neumaier),
    ("dpbf16", by_pairs),
    ("dpbf16-blocks:64", |terms, start| blocks_by_pairs(terms, start, 64)),
    ("dpbf16-blocks:5", |terms, start| blocks_by_pairs(terms, start, 5)),
    ("exact", exact),
];
const ROWS: usize = 5;
const THREADS: usize = 6;

fn running(terms: &[(f32, f32)], start: f32) -> f32 {
    terms.iter().fold(start, |sum, &(x, w)| x.mul_add(w, sum))
}

fn by_pairs(terms: &[(f32, f32)], start: f32) -> f32 {
    let pairs = terms.chunks(2).flat_map(|pair| pair.iter().rev());
    pairs.fold(flushed(start), |sum, &(x, w)| flushed(flushed(x).mul_add(flushed(w), sum)))
}

fn blocks_by_pairs(terms: &[(f32, f32)], start: f32, block: usize) -> f32 {
    let mut blocks = terms.chunks(block);
    let first = by_pairs(blocks.next().unwrap_or_default(), start);
    blocks.fold(first, |sum, block| sum + by_pairs(block, 0.0))
}

/// Zero instead of a subnormal number. Of a result this is all that VDPBF16PS does, but where it lies just below the normal
/// numbers.
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
}

fn halves(terms: &[(f32, f32)], start: f32) -> f32 {
    if terms.len() < 2 {
        return running(terms, start);
    }
    let (left, right) = terms.split_at(terms.len() / 2);
    halves(left, start) + halves(right, 0.0)
}

fn strided(terms: &[(f32, f32)], start: f32, lanes: usize) -> f32 {
    fn tree(sums: &[f32]) -> f32 {
        match sums {
            [sum] => *sum,
            sums => tree(&sums[..sums.len() / 2]) + tree(&sums[sums.len() / 2..]),
        }
    }
    let mut sums = vec![0.0; lanes.min(terms.len()).max(1)];
    sums[0] = start;
    for (k, &(x, w)) in terms.iter().enumerate() {
        sums[k % lanes] = x.mul_add(w, sums[k % lanes]);
    }
    tree(&sums)
}

fn chunks(terms: &[(f32, f32)], start: f32, block: usize) -> f32 {
    let mut blocks = terms.chunks(block);
    let first = running(blocks.next().unwrap_or_default(), start);
    blocks.fold(first, |sum, block| sum + running(block, 0.0))
}

fn parts(terms: &[(f32, f32)], start: f32, parts: usize) -> f32 {
    chunks(terms, start, terms.len().div_ceil(parts).max(1))
}

fn shuffled(terms: &[(f32, f32)], seed: u64) -> Vec<(f32, f32)> {
    let mut random = Random(seed);
    let mut terms = terms.to_vec();
    for left in (2..=terms.len()).rev() {
        let pick = (u128::from(random.word()) * left as u128) >> 64;
        terms.swap(left - 1, pick as usize);
    }
    terms
}

/// As in Kahan's note of 1965.
fn kahan(terms: &[(f32, f32)], start: f32) -> f32 {
    let (mut sum, mut lost) = (start, 0.0);
    for &(x, w) in terms {
        let y = x * w - lost;
        let t = sum + y;
        lost = (t - sum) - y;
        sum = t;
    }
    sum
}

/// As Neumaier printed it, with the question which operand is larger.
fn neumaier(terms: &[(f32, f32)], start: f32) -> f32 {
    let (mut sum, mut lost) = (start, 0.0);
    for &(x, w) in terms {
        let term = x * w;
        let t: f32 = sum + term;
        lost += if sum.abs() >= term.abs() { (sum - t) + term } else { (term - t) + sum };
        sum = t;
    }
    sum + lost
}

/// The rational sum, rounded to the nearest f32, ties to even.
fn exact(terms: &[(f32, f32)], start: f32) -> f32 {
    let rational = |value: f32| BigRational::from_float(value).unwrap();
    let sum = terms.iter().fold(rational(start), |sum, &(x, w)| sum + rational(x) * rational(w));
    if sum.is_zero() {
        return 0.0;
    }
    let power = |exponent: i32| BigRational::from_integer(BigInt::from(2)).pow(exponent);
    // The unit in the last place: the largest power that leaves at least 2^23 of them, but none too small.
    let mut exponent = 104;
    while exponent > -149 && sum.abs() < power(exponent + 23) {
        exponent -= 1;
    }
    let units = sum.abs() / power(exponent);
    let (whole, rest) = (units.floor().to_integer(), units.fract());
    let half = BigRational::new(BigInt::one(), BigInt::from(2));
    let up = rest > half || rest == half && whole.bit(0);
    let units = (whole + BigInt::from(u8::from(up))).to_f64().unwrap();
    let value = (units * f64::powi(2.0, exponent)) as f32;
    if sum.is_negative() { -value } else { value }
}

/// Numbers from a seed: SplitMix64.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A sign, all mantissa bits, and one of so many exponents below 1.
    fn value(&mut self, binades: u64) -> f32 {
        let word = self.word();
        let exponent = (126 - (word >> 32) % binades) as u32;
        f32::from_bits((word as u32 & 0x807F_FFFF) | (exponent << 23))
    }
}

#[test]
fn every_order_means_what_a_second_hand_wrote_down() {
    let mut random = Random(1965);
    let questions: Vec<(Vec<(f32, f32)>, f32)> = (0..300)
        .map(|case| {
            let (terms, binades) = (random.word() % 150, [1, 4, 20, 60][case % 4]);
            let terms = (0..terms).map(|_| (random.value(binades), random.value(binades))).collect();
            (terms, if case % 3 == 0 { 0.0 } else { random.value(binades) })
        })
        .collect();
    let pattern = |value: f32| format!("{:#010x}", value.to_bits());
    let lines: Vec<_> = questions
        .iter()
        .map(|(terms, start)| {
            let a: Vec<_> = terms.iter().map(|term| pattern(term.0)).collect();
            let b: Vec<_> = terms.iter().map(|term| pattern(term.1)).collect();
            if *start == 0.0 {
                json!({"a": a, "b": b})
            } else {
                json!({"a": a, "b": b, "c": pattern(*start)})
            }
        })
        .collect();
    let mut all = Vec::new();
    for (order, reference) in REFERENCES {
        let (rows, threads) = (ROWS.to_string(), THREADS.to_string());
        let arguments = ["--precision", "fp32", "--order", order, "--rows", &rows, "--threads", &threads];
        let got = answers(&arguments, &lines);
        let expected: Vec<_> =
            questions.iter().map(|(terms, start)| reference(terms, *start).to_bits()).collect();
        for (case, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_eq!(got, expected, "{order}, case {case}: {}", lines[case]);
        }
        all.push(expected);
    }
    // The questions tell all orders apart, but for the two names of a running sum.
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), REFERENCES.len() - 1);
    let family = |name: &'static str| name.split(':').next();
    // What a matrix unit means was written down by GPUs: those answers are in tests/gpu.
    for entry in ORDERS.iter().filter(|entry| !entry.example.is_of_unit()) {
        let has_another = REFERENCES.iter().any(|(name, _)| family(name) == family(entry.name));
        assert!(has_another, "{} has no second definition: give it one in REFERENCES", entry.name);
    }
}

// ------------------------------------------------------------------------------------------- dot: bad input

const FORM: &str = r#"{"a":[…],"b":[…],"c":0}; NaN and infinity are bit patterns such as "0x7f800000""#;

/// A line and what is said of it; `None` if it is answered, with a 2.
fn complaints(lines: &[(&[u8], Option<String>)]) {
    let stdin: Vec<u8> = lines.iter().flat_map(|(line, _)| [line, &b"\n"[..]].concat()).collect();
    let ran = run(&["dot", "--precision", "fp32", "--order", "exact"], stdin);
    let expected = lines.iter().enumerate().filter_map(|(index, (_, complaint))| {
        complaint.as_ref().map(|complaint| format!("error: line {}: {complaint}\n", index + 1))
    });
    assert_eq!(ran.err, expected.collect::<String>());
    let blank = |line: &[u8]| line.iter().all(u8::is_ascii_whitespace);
    let good = lines.iter().filter(|(line, complaint)| complaint.is_none() && !blank(line)).count();
    assert_eq!(ran.out, "{\"bits\":\"0x40000000\",\"value\":2.0}\n".repeat(good));
    assert_eq!(ran.code, if ran.err.is_empty() { 0 } else { 2 });
}

#[test]
fn blank_lines_are_skipped_and_the_last_needs_no_end() {
    complaints(&[
        (b"", None),
        (br#"{"a":[1],"b":[2]}"#, None),
        (b" \t\r", None),
        (b"{\"b\":[2],\"a\":[1],\"c\":0}\r", None),
        (b" {\"a\" : [ 1.0 ] , \"b\" : [ 20e-1 ]} ", None),
    ]);
    let ran = run(&["dot", "--precision", "fp32", "--order", "exact"], r#"{"a":[1],"b":[2]}"#);
    assert_eq!((ran.code, ran.out.lines().count()), (0, 1));
    let ran = run(&["dot", "--precision", "fp32", "--order", "exact"], "");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
}

#[test]
fn lines_that_are_not_the_form_are_reported_and_the_others_answered() {
    let form = |what: &str| Some(format!("{what}: write {FORM}"));
    complaints(&[
        (br#"{"a":[1],"b":[2]}"#, None),
        (b"x", form("does not begin with `{`")),
        (b"null", form("does not begin with `{`")),
        (b"[[1],[2],0]", form("does not begin with `{`")),
        (b"\xEF\xBB\xBF{}", form("does not begin with `{`")),
        (b"{}", form("missing field `a` at column 2")),
        (br#"{"a":[1]}"#, form("missing field `b` at column 9")),
        (
            br#"{"a":[1],"b":[2],"d":0}"#,
            form("unknown field `d`, expected one of `a`, `b`, `c` at column 20"),
        ),
        (
            br#"{"a":[1],"b":[2],"A":0}"#,
            form("unknown field `A`, expected one of `a`, `b`, `c` at column 20"),
        ),
        (br#"{"a":[1],"a":[1],"b":[2]}"#, form("duplicate field `a` at column 12")),
        (br#"{"a":1,"b":[2]}"#, form("invalid type: integer `1`, expected a sequence at column 6")),
        (br#"{"a":[1],"b":[2]"#, form("EOF while parsing an object at column 16")),
        (br#"{"a":[1],"b":[2]} {"#, form("trailing characters at column 19")),
        (br#"{"a":[NaN],"b":[2]}"#, form("expected value at column 7")),
        (br#"{"a":[.5],"b":[2]}"#, form("expected value at column 7")),
        (b"{\"a\":[1],\"b\":[\"\xFF\"]}", form("invalid unicode code point at column 16")),
        (br#"{"a":[1],"b":[2],"c":0}"#, None),
    ]);
}

#[test]
fn numbers_that_are_none_are_reported_with_their_place() {
    let neither =
        |what: &str| Some(format!("{what}, neither a number nor a bit pattern: write 1.5 or \"0x3fc00000\""));
    let large = |what: &str, infinity: &str| {
        Some(format!("{what}, beyond the largest f32: write \"{infinity}\" if you mean infinity"))
    };
    complaints(&[
        (br#"{"a":[null],"b":[2]}"#, neither("a[0] is null")),
        (br#"{"a":[1],"b":[2],"c":null}"#, neither("c is null")),
        (br#"{"a":[1],"b":[true]}"#, neither("b[0] is true")),
        (br#"{"a":[1,[1]],"b":[2,2]}"#, neither("a[1] is [1]")),
        (br#"{"a":[{}],"b":[2]}"#, neither("a[0] is {}")),
        (br#"{"a":["1.5"],"b":[2]}"#, neither("a[0] is \"1.5\"")),
        (br#"{"a":[""],"b":[2]}"#, neither("a[0] is \"\"")),
        (br#"{"a":["0x3f80000"],"b":[2]}"#, neither("a[0] is \"0x3f80000\"")),
        (br#"{"a":["0x3f8000000"],"b":[2]}"#, neither("a[0] is \"0x3f8000000\"")),
        (br#"{"a":["0X3f800000"],"b":[2]}"#, neither("a[0] is \"0X3f800000\"")),
        (br#"{"a":["0x+f800000"],"b":[2]}"#, neither("a[0] is \"0x+f800000\"")),
        ("{\"a\":[\"0xééaa\"],\"b\":[2]}".as_bytes(), neither("a[0] is \"0xééaa\"")),
        (br#"{"a":["\ud800"],"b":[2]}"#, neither("a[0] is \"\\ud800\"")),
        (br#"{"a":[1],"b":[2],"c":"-1"}"#, neither("c is \"-1\"")),
        (br#"{"a":[1e39],"b":[2]}"#, large("a[0] is 1e39", "0x7f800000")),
        (br#"{"a":[1,1],"b":[2,-1e999]}"#, large("b[1] is -1e999", "0xff800000")),
        (
            br#"{"a":[1,2],"b":[2]}"#,
            Some("`a` has 2 numbers and `b` has 1: give both the same length".into()),
        ),
        (br#"{"a":["0x3F800000"],"b":["0x40000000"],"c":"0x80000000"}"#, None),
    ]);
}

#[test]
fn sums_too_long_for_their_integers_are_refused() {
    let line = |terms: usize| format!("{}\n", json!({"a": vec![1; terms], "b": vec![1; terms]}));
    for precision in ["int8", "w8a8"] {
        let stdin = line(133_144) + &line(133_145);
        let ran = run(&["dot", "--precision", precision, "--order", "exact"], stdin);
        assert_eq!((ran.code, ran.out.lines().count()), (2, 1));
        assert!(ran.err.starts_with("error: line 2: `a` has 133145 numbers: "), "{}", ran.err);
    }
    let ran = run(&["dot", "--precision", "fp32", "--order", "exact"], line(200_000));
    assert_eq!(ran.out, "{\"bits\":\"0x48435000\",\"value\":200000.0}\n");
}

// ----------------------------------------------------------------------------------------------------- pipes

#[test]
fn each_answer_comes_before_the_next_question() {
    let mut child = Command::new(BINARY)
        .args(["dot", "--precision", "fp32", "--order", "exact"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || BufReader::new(stdout).lines().try_for_each(|line| sender.send(line.unwrap())));
    for _ in 0..3 {
        stdin.write_all(b"{\"a\":[1],\"b\":[2]}\n").unwrap();
        let answer = receiver.recv_timeout(Duration::from_secs(60));
        assert_eq!(answer.as_deref(), Ok(r#"{"bits":"0x40000000","value":2.0}"#));
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    for arguments in [
        &["dot", "--precision", "fp32", "--order", "exact"][..],
        &["list", "orders"],
        &["explain", "order", "pairwise", "--terms", "4096"],
        &["--help"],
    ] {
        let mut child = Command::new(BINARY)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut stdin = child.stdin.take().unwrap();
        // It may well be gone before it has read all this.
        let _ = stdin.write_all(&b"{\"a\":[1],\"b\":[2]}\n".repeat(50_000));
        drop(stdin);
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_machine_that_will_not_write_or_read_is_named() {
    let file = |path| std::fs::OpenOptions::new().write(path != "/").read(path == "/").open(path).unwrap();
    let full = Command::new(BINARY).args(["list", "orders"]).stdout(file("/dev/full")).output().unwrap();
    let err = String::from_utf8(full.stderr).unwrap();
    assert_eq!(full.status.code(), Some(4));
    assert!(err.starts_with("error: cannot write to standard output: "), "{err}");
    let arguments = ["dot", "--precision", "fp32", "--order", "exact"];
    let folder = Command::new(BINARY).args(arguments).stdin(file("/")).output().unwrap();
    let err = String::from_utf8(folder.stderr).unwrap();
    assert_eq!(folder.status.code(), Some(4));
    assert!(err.starts_with("error: cannot read standard input: "), "{err}");
}
