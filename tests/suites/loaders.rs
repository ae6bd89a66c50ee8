//! Files of questions: good ones of every format, and the sentence for everything that can be wrong with one.

use reprocheck::suite::{
    answer::Kind,
    load::{Filtered, Format, Loaded, load, read},
};

fn loaded(format: Format, text: &str) -> Vec<Loaded> {
    load(format, "items.jsonl", text.as_bytes()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn refused(format: Format, bytes: &[u8]) -> String {
    load(format, "items.jsonl", bytes).unwrap_err().to_string()
}

/// The id, stratum, cluster, kind and text of every item.
fn shown(format: Format, text: &str) -> Vec<String> {
    let show = |item: &Loaded| {
        let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
        let (stratum, cluster) = (part(&item.stratum), part(&item.cluster));
        format!("{} {stratum} {cluster} {} {}", item.id, item.answer.kind, item.answer.text)
    };
    loaded(format, text).iter().map(show).collect()
}

const GSM8K: &str = r#####"{"question": "Ann has 3 pens and buys 9. How many?", "answer": "3 + 9 = <<3+9=12>>12\n#### 12"}
{"question": "A car costs 1200 and half as much.", "answer": "#### 7 is no answer.\n#### 1,800"}

{"question": "Plain?", "answer": 5, "extra": {"a": [1]}}
"#####;

#[test]
fn gsm8k_has_its_answer_behind_the_last_hashes() {
    let items = ["1 - - number 12", "2 - - number 1,800", "4 - - number 5"];
    assert_eq!(shown(Format::Gsm8k, GSM8K), items);
    assert_eq!(loaded(Format::Gsm8k, GSM8K)[0].question, "Ann has 3 pens and buys 9. How many?");
    assert!(loaded(Format::Gsm8k, GSM8K)[1].answer.is("1800.00").equal);
}

#[test]
fn instances_of_a_template_are_a_cluster() {
    let text = r#####"{"id": 7, "instance": 0, "question": "q", "answer": "#### 1"}
{"id": 7, "instance": 1, "question": "q", "answer": "#### 2"}"#####;
    assert_eq!(shown(Format::Gsm8k, text), ["7/0 - 7 number 1", "7/1 - 7 number 2"]);
}

#[test]
fn math_has_its_answer_alone_or_in_the_last_box() {
    let text = r#"{"problem": "p", "solution": "s", "answer": "\\frac{1}{2}", "subject": "Algebra", "level": 3, "unique_id": "test/1.json"}
{"problem": "p", "level": "Level 5", "type": "Geometry", "solution": "First $\\boxed{1}$, then $\\boxed{x^{2}}$."}
{"problem": "p", "answer": 17}"#;
    let items =
        ["test/1.json Algebra/3 - latex \\frac{1}{2}", "2 Geometry/5 - latex x^{2}", "3 - - latex 17"];
    assert_eq!(shown(Format::Math500, text), items);
}

#[test]
fn aime_has_a_number_in_either_form_and_case() {
    let text = r#"{"ID": "2024-I-1", "Problem": "p", "Solution": "s", "Answer": 34}
{"id": 61, "problem": "p", "answer": "034", "year": 2024, "url": "u"}
{"question": "p", "answer": "000"}"#;
    let items = ["2024-I-1 - - integer 34", "61 2024 - integer 34", "3 - - integer 0"];
    assert_eq!(shown(Format::Aime, text), items);
}

#[test]
fn our_own_lines_have_every_field() {
    let text = r#"{"id": "a", "prompt": "1+1=", "answer": "2", "kind": "integer", "stratum": "one", "cluster": 3, "output": "2\n", "correct": true}
{"question": "Which?", "answer": "B"}
{"question": "How many?", "answer": 12345678901234567890123456789, "output": null}
{"question": "Which?", "answer": "[1, 2]"}
{"question": "Which?", "answer": "\\sqrt{2}"}"#;
    let items = [
        "a one 3 integer 2",
        "2 - - label B",
        "3 - - number 12345678901234567890123456789",
        "4 - - list [1, 2]",
        "5 - - latex \\sqrt{2}",
    ];
    assert_eq!(shown(Format::Jsonl, text), items);
    let first = &loaded(Format::Jsonl, text)[0];
    assert_eq!((first.question.as_str(), first.prompt.as_deref()), ("1+1=", Some("1+1=")));
    let finished = first.finished.as_ref().unwrap();
    assert_eq!(finished.output, "2\n");
    assert_eq!(finished.filters, [Filtered { filter: None, extracted: None, correct: Some(true) }]);
    assert_eq!(loaded(Format::Jsonl, text)[2].finished, None);
}

const LM_EVAL: &str = r#####"{"doc_id": 0, "doc": {"question": "1+1?", "answer": "1+1\n#### 2"}, "target": "1+1\n#### 2", "arguments": {"gen_args_0": {"arg_0": "Question: 1+1?\nAnswer:", "arg_1": {"until": ["\n"], "temperature": 0.0}}}, "resps": [["It is 2."]], "filtered_resps": ["[invalid]"], "filter": "strict-match", "metrics": ["exact_match"], "doc_hash": "d", "prompt_hash": "p", "target_hash": "t", "exact_match": 0.0}
{"doc_id": 3, "doc": {"question": "1+2?"}, "target": "3", "arguments": {"gen_args_0": {"arg_0": "Question: 1+2?\nAnswer:", "arg_1": {}}}, "resps": [["3"]], "filtered_resps": ["3"], "filter": "strict-match", "metrics": ["exact_match"], "exact_match": 1.0}
{"doc_id": 0, "doc": {"question": "1+1?", "answer": "1+1\n#### 2"}, "target": "1+1\n#### 2", "arguments": {"gen_args_0": {"arg_0": "Question: 1+1?\nAnswer:", "arg_1": {}}}, "resps": [["It is 2."]], "filtered_resps": ["2"], "filter": "flexible-extract", "metrics": ["exact_match"], "exact_match": 1.0}
"#####;

#[test]
fn the_filters_of_a_document_are_one_item() {
    let items = loaded(Format::LmEval, LM_EVAL);
    assert_eq!(shown(Format::LmEval, LM_EVAL), ["0 - - number 2", "3 - - number 3"]);
    assert_eq!(items[0].question, "1+1?");
    assert_eq!(items[0].prompt.as_deref(), Some("Question: 1+1?\nAnswer:"));
    let finished = items[0].finished.as_ref().unwrap();
    assert_eq!(finished.output, "It is 2.");
    let filtered = |filter: &str, extracted: &str, correct| Filtered {
        filter: Some(filter.to_owned()),
        extracted: Some(extracted.to_owned()),
        correct: Some(correct),
    };
    let filters = [filtered("strict-match", "[invalid]", false), filtered("flexible-extract", "2", true)];
    assert_eq!(finished.filters, filters);
}

#[test]
fn older_logs_and_other_metrics_are_read_too() {
    let text = r#"{"doc_id": 0, "doc": {"q": 1}, "target": 143, "arguments": [["98 plus 45", {"until": []}]], "resps": [["143"]], "filtered_resps": [["143"]], "acc": true}
{"doc_id": 1, "doc": {}, "target": "0", "arguments": [["a", " x"], ["a", " y"]], "resps": [[["-0.5", "True"]], [["-1.5", "False"]]], "filtered_resps": [["-0.5", "True"], ["-1.5", "False"]], "filter": "none", "metrics": ["acc_norm", "acc"], "acc_norm": 0.5, "acc": 1.0}
{"doc_id": 2, "doc": {}, "target": "yes", "arguments": {"gen_args_0": {"arg_0": ["[{\"role\": \"user\"}]"]}}, "resps": [["a", "b"]], "filtered_resps": ["a"], "metrics": ["bleu"], "bleu": 3.5}"#;
    let items = loaded(Format::LmEval, text);
    let seen: Vec<_> = items
        .iter()
        .map(|item| {
            let finished = item.finished.as_ref().unwrap();
            let filtered = &finished.filters[0];
            (
                finished.output.as_str(),
                filtered.extracted.as_deref(),
                filtered.correct,
                item.prompt.as_deref().unwrap(),
            )
        })
        .collect();
    let choices = r#"[[["-0.5", "True"]], [["-1.5", "False"]]]"#;
    assert_eq!(
        seen,
        [
            ("143", Some("143"), Some(true), "98 plus 45"),
            (choices, None, Some(true), "a"),
            (r#"[["a", "b"]]"#, Some("a"), None, r#"[{"role": "user"}]"#),
        ]
    );
    assert_eq!(items[2].answer.kind, Kind::Label);
}

#[test]
fn blank_lines_and_ends_of_lines_do_not_matter() {
    let text = "\n\r\n{\"question\": \"q\", \"answer\": 1}\r\n  \n{\"question\": \"q\", \"answer\": 2}";
    assert_eq!(shown(Format::Jsonl, text), ["3 - - number 1", "5 - - number 2"]);
}

#[test]
fn every_problem_has_its_sentence() {
    use Format::{Aime, Gsm8k, Jsonl, LmEval, Math500};
    let rows: &[(Format, &[u8], &str)] = &[
        (Jsonl, b"", "items.jsonl: holds no questions: write one JSON object a line"),
        (Jsonl, b"\n \n", "items.jsonl: holds no questions: write one JSON object a line"),
        (Jsonl, b"[1]", "items.jsonl:1: is not a JSON object: write one object a line, `{` to `}`"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": 1", "items.jsonl:1:29: is not JSON (EOF while parsing an object): correct it there"),
        (Jsonl, b"\n{\"question\": \"q\" \"answer\": 1}", "items.jsonl:2:18: is not JSON (expected `,` or `}`): correct it there"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": 1} x", "items.jsonl:1:32: is not JSON (trailing characters): correct it there"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": 1}{}", "items.jsonl:1:31: is not JSON (trailing characters): correct it there"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": NaN}", "items.jsonl:1:29: is not JSON (expected value): correct it there"),
        (Jsonl, b"{\"question\": \"q\xff\", \"answer\": 1}", "items.jsonl:1:16: is not UTF-8: save the file as UTF-8"),
        (Jsonl, b"\xEF\xBB\xBF{\"question\": \"q\", \"answer\": 1}", "items.jsonl:1:1: begins with a byte order mark: save the file as UTF-8 without one"),
        (Jsonl, b"\xff\xfe{\0", "items.jsonl:1:1: is not UTF-8: save the file as UTF-8"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": 1, \"answer\": 2}", "items.jsonl:1: `answer`: stands there twice: leave one"),
        (Jsonl, b"{\"answer\": 1}", "items.jsonl:1: `question`: is missing: every line needs it, or a `prompt`"),
        (Jsonl, b"{\"question\": \"q\"}", "items.jsonl:1: `answer`: is missing: every line needs it"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": null}", "items.jsonl:1: `answer`: is missing: every line needs it"),
        (Jsonl, b"{\"question\": \" \", \"answer\": \"\"}", "items.jsonl:1: `question`: is empty: fill it in\nitems.jsonl:1: `answer`: is empty: fill it in"),
        (Jsonl, b"{\"question\": 3, \"answer\": [1]}", "items.jsonl:1: `question`: is a number: write a string\nitems.jsonl:1: `answer`: is a list: write a string or a number"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": true}", "items.jsonl:1: `answer`: is true or false: write a string or a number"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": \"\\ud800\"}", "items.jsonl:1: `answer`: is a string: write a string or a number"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": 1, \"correct\": 1, \"output\": \"\"}", "items.jsonl:1: `correct`: is a number: write true or false"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": 1, \"correct\": true}", "items.jsonl:1: `correct`: stands without an `output`: give what was found correct or not"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": 1, \"statum\": \"a\"}", "items.jsonl:1: `statum`: is not a field of this format: write `stratum`, or leave it out"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": 1, \"comment\": \"a\"}", "items.jsonl:1: `comment`: is not a field of this format: leave it out, or write one of id, prompt, question, answer, kind, stratum, cluster, output, correct"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": 1, \"kind\": \"interger\"}", "items.jsonl:1: `kind`: unknown kind of answer `interger`: write `integer`, or one of integer, digits, fraction, irreducible, decimal, scientific, label, list, latex, number, estimate"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": \"2.5\", \"kind\": \"integer\"}", "items.jsonl:1: `answer`: `2.5` is not an integer answer: correct it, or the kind"),
        (Jsonl, b"{\"question\": \"q\", \"answer\": \"...\", \"kind\": \"digits\"}", "items.jsonl:1: `answer`: `...` is not a digits answer: correct it, or the kind"),
        (Jsonl, b"{\"id\": 3, \"question\": \"q\", \"answer\": 1}\n\n{\"question\": \"q\", \"answer\": 1}", "items.jsonl:3: `id`: `3` is the id of line 1 too: give every question its own"),
        (Gsm8k, b"{\"question\": \"q\", \"answer\": \"so\\n#### \"}", "items.jsonl:1: `answer`: `` is not a number answer: correct it, or the kind"),
        (Gsm8k, b"{\"question\": \"q\", \"answer\": \"#### 5 or 6\"}", "items.jsonl:1: `answer`: `5 or 6` is not a number answer: correct it, or the kind"),
        (Math500, b"{\"problem\": \"p\", \"solution\": \"It is 5.\"}", "items.jsonl:1: `solution`: has no `\\boxed{\u{2026}}`: give the `answer`"),
        (Math500, b"{\"problem\": \"p\"}", "items.jsonl:1: `solution`: is missing: every line needs it"),
        (Aime, b"{\"problem\": \"p\", \"answer\": 1000}", "items.jsonl:1: `answer`: `1000` is not an answer of AIME: give a whole number from 0 to 999"),
        (Aime, b"{\"Problem\": \"p\", \"Answer\": \"-1\"}", "items.jsonl:1: `Answer`: `-1` is not an answer of AIME: give a whole number from 0 to 999"),
        (LmEval, b"{\"doc_id\": 0, \"target\": \"1\", \"arguments\": [], \"filtered_resps\": [\"1\"]}", "items.jsonl:1: `arguments`: holds no prompt: log the samples again with lm-eval 0.4 or later\nitems.jsonl:1: `resps`: is missing: every line needs it"),
        (LmEval, b"{\"doc_id\": 0, \"target\": \"1\", \"resps\": [[\"1\"]], \"filter\": \"a\"}\n{\"doc_id\": 0, \"target\": \"1\", \"resps\": [[\"2\"]], \"filter\": \"b\"}", "items.jsonl:2: `doc_id`: 0 has another prompt, target or output in line 1: give one file a run"),
        (LmEval, b"{\"doc_id\": 0, \"target\": \"1\", \"resps\": [[\"1\"]], \"filter\": \"a\"}\n{\"doc_id\": 0, \"target\": \"1\", \"resps\": [[\"1\"]], \"filter\": \"a\"}", "items.jsonl:2: `doc_id`: 0 has filter `a` twice, first in line 1 or later: give one file a run"),
    ];
    for (format, bytes, sentence) in rows {
        assert_eq!(refused(*format, bytes), *sentence);
    }
}

#[test]
fn all_problems_are_held_and_twenty_are_printed() {
    let errors = load(Format::Jsonl, "items.jsonl", "{\n".repeat(50).as_bytes()).unwrap_err();
    assert_eq!(errors.0.len(), 50);
    assert_eq!(errors.0[49].line, 50);
    let printed = errors.to_string();
    assert_eq!(printed.lines().count(), 21);
    assert!(printed.ends_with("\nand 30 more"), "{printed}");
}

#[test]
fn hostile_lines_are_refused_in_linear_time() {
    for line in [
        "[".repeat(1_000_000),
        format!("{{\"a\": {}", "[".repeat(1_000_000)),
        format!("{{{}", "\"a\": 1, ".repeat(200_000)),
    ] {
        assert!(load(Format::Jsonl, "items.jsonl", line.as_bytes()).is_err());
    }
    let many: String = (0..100_000).map(|at| format!("\"{at}\": 1, ")).collect();
    assert!(
        load(
            Format::Gsm8k,
            "items.jsonl",
            format!("{{{many}\"question\": \"q\", \"answer\": 1}}").as_bytes()
        )
        .is_ok()
    );
    let deep = format!(
        "{{\"doc_id\": 0, \"target\": 1, \"resps\": {0}1{1}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(load(Format::LmEval, "items.jsonl", deep.as_bytes()).is_ok());
}

#[test]
fn a_format_is_known_by_its_first_line() {
    let first = |text: &'static str| text.lines().next().unwrap();
    for (line, format) in [
        (first(GSM8K), Format::Gsm8k),
        (first(LM_EVAL), Format::LmEval),
        (r#"{"problem": "p", "answer": "5", "level": 3, "subject": "Algebra"}"#, Format::Math500),
        (r#"{"problem": "p", "solution": "s", "type": "Algebra", "level": "Level 1"}"#, Format::Math500),
        (r#"{"problem": "p", "answer": "034", "id": 1}"#, Format::Aime),
        (r#"{"ID": "2024-I-1", "Problem": "p", "Solution": "s", "Answer": 34}"#, Format::Aime),
        (r#"{"prompt": "p", "answer": "5"}"#, Format::Jsonl),
        (r#"{"question": "p", "answer": "5", "kind": "integer"}"#, Format::Jsonl),
    ] {
        assert_eq!(Format::recognize(line), Ok(format), "{line}");
    }
    for format in &Format::ALL {
        assert_eq!(format.to_string().parse(), Ok(*format));
    }
}

#[test]
fn a_format_that_cannot_be_known_is_to_be_named() {
    let sentence = |line: &str| Format::recognize(line).unwrap_err().to_string();
    assert_eq!(sentence("[]"), "the first line is not a JSON object: write one object a line");
    assert_eq!(
        sentence(r#"{"question": "q", "label": 1}"#),
        "the fields of the first line (`question`, `label`) do not tell the format: correct them, or name it in a \
         suite.toml beside the file, as `format`, one of gsm8k, math500, aime, jsonl, lm-eval"
    );
    assert_eq!(
        "gsm".parse::<Format>().unwrap_err().to_string(),
        "unknown format `gsm`: write `gsm8k`, or one of gsm8k, math500, aime, jsonl, lm-eval"
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let errors = read(std::path::Path::new("/nowhere/items.jsonl")).unwrap_err().to_string();
    assert!(errors.starts_with("/nowhere/items.jsonl: cannot be read ("), "{errors}");
    assert!(errors.ends_with("): check the path and who may read it"), "{errors}");
}
