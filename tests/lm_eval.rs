//! A run as files of lm-evaluation-harness: our own reader reads them back, and results are what their samples say.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::world::World;
use reprocheck::{
    cell::Cell,
    digest::Digest,
    engine::environment::Environment,
    numerics::choice::Candidate,
    record::{About, Asked, Done, Elapsed, Failed, Record},
    run::{
        export::{Exported, lm_eval},
        review::review,
    },
    store::{
        run::{Locked, RunError},
        trace::Writer,
    },
    suite::{
        answer::{Answer, Kind},
        load::{self, Format, Loaded, lm_eval_hash},
        question::Question,
        score::{Outcome, Scores},
        style::Style,
    },
    trace::{Finish, Launches, Sample, Seen, Sight, Step, Token},
};
use serde_json::{Value, value::RawValue};
use tempfile::TempDir;

/// Six cells, of which some get the same trace.
const MATRIX: &str = r#"
[reference]
precision = "fp32"

[matrix]
precision = ["fp32", "bf16", "fp16"]
batch     = [1, 4]
"#;

/// Two suites, the second with a name that is none for a file.
const PLAIN: &str = "carry_chain";
const ODD: &str = "späte: \"suite\"\u{2028}/%";
const DATE: &str = "1970-01-01T00-00-00.000000";

/// Whatever ends a line, a text, a markup or a terminal's patience.
const WICKED: &str = "\u{202e}\u{2066}12\u{2028}\u{2029}\u{85}\u{b}\u{c}\r\n\0\u{1b}[31m\u{7f}\"\\\\u2028</script>{{x}}\u{feff}é😀";

fn question(item: u64) -> Question {
    let plain = item < 5;
    Question {
        item,
        suite: if plain { PLAIN } else { ODD }.to_owned(),
        id: format!("item-{item}"),
        stratum: format!("of {}", item % 2),
        cluster: item.is_multiple_of(2).then(|| WICKED.to_owned()),
        prompt: format!("Question: {item}? {WICKED}\nAnswer:"),
        tokens: vec![1],
        max_new_tokens: if plain { 24 } else { 1024 },
        stop: if plain { vec!["\n".to_owned(), "Question:".to_owned()] } else { Vec::new() },
        answer: if plain { Answer::integer(12) } else { Answer::new(Kind::Fraction, "3/4") },
        read_as: if plain { Style::Completion } else { Style::Chat },
    }
}

/// What stands under an item: right under both filters, one or none, cut or not.
fn text(item: u64, variant: usize) -> (String, Finish) {
    let texts = [
        " 12",
        "about 12 or so",
        WICKED,
        "",
        "It is 12",
        "Answer: 6/8",
        "so \\boxed{3/4} it is",
        "[invalid]",
    ];
    let finish = if item == 4 { Finish::Length } else { Finish::Stop };
    (texts[(item as usize + variant) % texts.len()].to_owned(), finish)
}

const ITEMS: u64 = 11;

struct Made {
    folder: TempDir,
    about: About,
    questions: Vec<Question>,
    cells: Vec<Cell>,
}

/// Which text the cell of a number wrote, if it has run: the last two have not, and the third wrote the second one's.
const VARIANTS: [Option<usize>; 6] = [Some(0), Some(3), Some(3), Some(1), None, None];

impl Made {
    fn new(change: impl FnOnce(&mut About)) -> Made {
        Made::of((0..ITEMS).map(question).collect(), change)
    }

    fn of(questions: Vec<Question>, change: impl FnOnce(&mut About)) -> Made {
        let folder = tempfile::tempdir().unwrap();
        let count = questions.len() as u64;
        let mut about = World::new(MATRIX).about(count);
        let asked = |name: &str, version, style, shots| Asked {
            name: name.to_owned(),
            version,
            items: 99,
            item_seed: 7,
            style,
            shots,
        };
        about.suites = vec![asked(PLAIN, 1, Style::Completion, 2), asked(ODD, 3, Style::Chat, 0)];
        change(&mut about);
        let locked = Locked::new(folder.path()).unwrap();
        let draft = locked.draft(questions.iter().cloned().map(Ok::<_, RunError>)).unwrap();
        about.items = draft.items;
        locked.begin(about.clone(), draft, None).unwrap();
        drop(locked);
        let made = Made { cells: about.cells.clone(), folder, about, questions };
        assert_eq!(made.cells.len(), VARIANTS.len());
        for (number, variant) in VARIANTS.iter().enumerate() {
            if let Some(variant) = variant {
                made.add(number, &|question| made.scored(question, *variant), count);
            }
        }
        let sentence = "the engine \u{1b}[31m could not".to_owned();
        made.record(&Record::Failed(Failed { cell: made.cells[5], sentence }.into()));
        made
    }

    fn scored(&self, question: &Question, variant: usize) -> (String, Finish, Scores) {
        let (text, finish) = text(question.item, variant);
        let scores = question.score(&text, finish == Finish::Length);
        (text, finish, scores)
    }

    /// Gives a cell a trace of so many items.
    fn add(
        &self,
        number: usize,
        wrote: &dyn Fn(&Question) -> (String, Finish, Scores),
        items: u64,
    ) -> Digest {
        let mut writer = Writer::new(self.folder.path(), Sight::Logits).unwrap();
        for item in 0..items {
            let other = Question { item, ..self.questions[0].clone() };
            let (text, finish, scores) = wrote(self.questions.get(item as usize).unwrap_or(&other));
            let step = |(at, byte): (usize, u8)| Step {
                token: Token {
                    id: byte.into(),
                    seen: Seen::Logits {
                        digest: Digest::of(&[at as u8, byte]),
                        candidates: vec![Candidate { token: byte.into(), logit: 1.0 }],
                        margin: f32::INFINITY,
                        probability: 0.5,
                    },
                },
                rows: Some(1),
            };
            let sample = Sample {
                item,
                prompt: vec![1],
                steps: text.bytes().enumerate().map(step).collect(),
                text,
                finish,
                launch: None,
            };
            writer.add(&sample, scores).unwrap();
        }
        let written = writer.finish(self.folder.path()).unwrap();
        let done = Done {
            cell: self.cells[number],
            trace: written.digest,
            root: written.root,
            launches: Launches::default(),
            unlike_copies: 0,
            environment: Environment { engine: "lab".to_owned(), facts: BTreeMap::new() },
            cost: None,
            elapsed: Elapsed { milliseconds: 0, tokens: 0 },
        };
        self.record(&Record::Done(Box::new(done)));
        written.digest
    }

    fn record(&self, record: &Record) {
        Locked::new(self.folder.path()).unwrap().record(record).unwrap();
    }

    fn export(&self) -> (TempDir, Result<Exported, RunError>) {
        let out = tempfile::tempdir().unwrap();
        let exported = lm_eval(self.folder.path(), &out.path().join("new"));
        (out, exported)
    }

    fn of_suite(&self, suite: &str) -> Vec<&Question> {
        self.questions.iter().filter(|question| question.suite == suite).collect()
    }
}

/// The names of both tasks, as everything has them.
fn tasks() -> [(&'static str, String); 2] {
    let odd = "reprocheck_späte%3A%20%22suite%22%E2%80%A8%2F%25_chat".to_owned();
    [(PLAIN, "reprocheck_carry_chain_completion".to_owned()), (ODD, odd)]
}

fn samples(folder: &Path, task: &str) -> String {
    fs::read_to_string(folder.join(format!("samples_{task}_{DATE}.jsonl"))).unwrap()
}

fn results(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join(format!("results_{DATE}.json"))).unwrap()).unwrap()
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn our_own_reader_reads_back_every_output_every_answer_and_what_became_of_it() {
    let made = Made::new(|_| ());
    let (_out, exported) = made.export();
    let exported = exported.unwrap();
    assert_eq!(exported.written.iter().map(|(cell, _)| *cell).collect::<Vec<_>>(), made.cells[..4]);
    let mut seen = Vec::new();
    for ((_, folder), variant) in exported.written.iter().zip(VARIANTS) {
        for (suite, task) in tasks() {
            let text = samples(folder, &task);
            let first_line = text.lines().next().unwrap();
            assert_eq!(Format::recognize(first_line), Ok(Format::LmEval));
            let read = load::load(Format::LmEval, "samples", text.as_bytes()).unwrap();
            let asked = made.of_suite(suite);
            assert_eq!(read.len(), asked.len());
            for (found, question) in read.into_iter().zip(asked) {
                let Loaded { id, stratum, cluster, prompt, answer, finished, .. } = found;
                assert_eq!(
                    (&id, stratum.as_ref(), &cluster),
                    (&question.id, Some(&question.stratum), &question.cluster)
                );
                assert_eq!((prompt.as_ref(), &answer), (Some(&question.prompt), &question.answer));
                let (text, _, scores) = made.scored(question, variant.unwrap());
                let finished = finished.unwrap();
                assert_eq!(finished.output, text);
                let [strict, flexible] = &finished.filters[..] else {
                    panic!("{} filters", finished.filters.len())
                };
                for (name, found, score) in
                    [("strict-match", strict, scores.strict), ("flexible-extract", flexible, scores.flexible)]
                {
                    assert_eq!(found.filter.as_deref(), Some(name));
                    assert_eq!(found.correct, Some(score.outcome == Outcome::Correct));
                    assert_eq!(found.extracted.as_deref(), score.answer.as_deref().or(Some("[invalid]")));
                    seen.push((name, score.outcome));
                }
            }
        }
    }
    // The texts are such that much becomes of them.
    for (name, outcome) in [
        ("strict-match", Outcome::Correct),
        ("strict-match", Outcome::NoAnswer),
        ("strict-match", Outcome::Truncated),
        ("flexible-extract", Outcome::Correct),
        ("flexible-extract", Outcome::Wrong),
    ] {
        assert!(seen.contains(&(name, outcome)), "{name} {outcome}");
    }
}

#[test]
fn results_are_the_means_of_the_samples_and_what_a_report_says() {
    let made = Made::new(|_| ());
    let (_out, exported) = made.export();
    let report = review(made.folder.path(), None).unwrap().report;
    let mut told_apart = false;
    for (cell, folder) in exported.unwrap().written {
        let results = results(&folder);
        let row = report.cells.iter().find(|row| row.cell == cell).unwrap();
        assert_eq!(results["results"].as_object().unwrap().len(), 2);
        for (suite, task) in tasks() {
            let found = &results["results"][&task];
            let mut means = Vec::new();
            for filter in ["strict-match", "flexible-extract"] {
                let lines = samples(&folder, &task);
                let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
                let of_filter = lines.filter(|line| line["filter"] == filter);
                let hits: Vec<_> = of_filter.map(|line| line["exact_match"].as_f64().unwrap()).collect();
                let count = hits.len() as f64;
                let mean = hits.iter().sum::<f64>() / count;
                let squares = hits.iter().map(|hit| (hit - mean) * (hit - mean)).sum::<f64>();
                let error = (squares / (count - 1.0)).sqrt() / count.sqrt();
                assert_eq!(found[format!("exact_match,{filter}")], Value::from(mean));
                let written = found[format!("exact_match_stderr,{filter}")].as_f64().unwrap();
                assert!((written - error).abs() < 1e-12, "{written} {error}");
                assert_eq!(found["sample_len"], hits.len());
                assert_eq!(results["n-samples"][&task]["original"], hits.len());
                assert_eq!(results["n-samples"][&task]["effective"], hits.len());
                means.push(mean);
            }
            assert_eq!(row.suites[suite].right.rate(), Some(means[0]));
            told_apart |= means[0] != means[1];
        }
    }
    assert!(told_apart);
}

#[test]
fn every_text_is_there_bit_for_bit_in_the_order_and_under_the_hashes_of_the_harness() {
    let made = Made::new(|_| ());
    let (_out, exported) = made.export();
    for ((_, folder), variant) in exported.unwrap().written.into_iter().zip(VARIANTS) {
        for (suite, task) in tasks() {
            let written = samples(&folder, &task);
            assert!(!written.contains(['\u{85}', '\u{2028}', '\u{2029}', '\r', '\0', '\u{1b}']));
            let asked = made.of_suite(suite);
            let mut all = String::new();
            let lines: Vec<_> = written.lines().collect();
            assert_eq!(lines.len(), 2 * asked.len());
            for (at, line) in lines.iter().enumerate() {
                let question = asked[at % asked.len()];
                let raw: BTreeMap<&str, &RawValue> = serde_json::from_str(line).unwrap();
                let sample: Value = serde_json::from_str(line).unwrap();
                let filter = if at < asked.len() { "strict-match" } else { "flexible-extract" };
                assert_eq!(
                    (&sample["filter"], &sample["doc_id"]),
                    (&filter.into(), &(at % asked.len()).into())
                );
                let text = text(question.item, variant.unwrap()).0;
                assert_eq!(sample["resps"], serde_json::json!([[text]]));
                let request = &sample["arguments"]["gen_args_0"];
                assert_eq!(request["arg_0"], *question.prompt);
                assert_eq!(request["arg_1"]["until"], serde_json::json!(question.stop));
                assert_eq!(request["arg_1"]["max_gen_toks"], question.max_new_tokens);
                assert_eq!(request["arg_1"]["do_sample"], false);
                assert_eq!(sample["target"], *question.answer.text);
                let doc = &sample["doc"];
                assert_eq!((&doc["suite"], &doc["seed"]), (&suite.into(), &7.into()));
                assert_eq!(doc["prompt"], *question.prompt);
                assert_eq!(doc["target_type"], question.answer.kind.to_string());
                let hashes = [
                    lm_eval_hash(raw["doc"]).unwrap(),
                    Digest::of(question.prompt.as_bytes()).to_string(),
                    Digest::of(question.answer.text.as_bytes()).to_string(),
                ];
                for (name, hash) in ["doc_hash", "prompt_hash", "target_hash"].into_iter().zip(&hashes) {
                    assert_eq!(sample[name], **hash);
                    all += hash;
                }
                let metrics = sample["metrics"].as_array().unwrap();
                assert!(metrics.iter().all(|metric| sample[metric.as_str().unwrap()].is_f64()));
            }
            assert_eq!(results(&folder)["task_hashes"][&task], Digest::of(all.as_bytes()).to_string());
        }
    }
}

#[test]
fn results_say_what_is_known_and_nothing_else() {
    let made = Made::new(|about| {
        about.model.name = "who/\"knows\"".to_owned();
        about.generation.choice = "sampled:seed=1,temperature=0.7,top-k=5".parse().unwrap();
        about.generation.max_new_tokens = Some(9);
    });
    let (_out, exported) = made.export();
    let (cell, folder) = &exported.unwrap().written[3];
    let results = results(folder);
    let [(_, plain), (_, odd)] = tasks();
    assert_eq!(cell.to_string(), "lab/bf16/sequential/t1/b4");
    assert_eq!(folder.file_name().unwrap(), "lab_bf16_sequential_t1_b4");
    let config = &results["config"];
    assert_eq!(config["model"], "reprocheck");
    assert_eq!(config["model_args"], serde_json::json!({ "pretrained": "who/\"knows\"", "cell": cell }));
    assert_eq!((&config["model_dtype"], &config["batch_size"]), (&"bf16".into(), &4.into()));
    assert_eq!(config["model_sha"], made.about.model.digest.to_string());
    let choice = serde_json::json!({ "do_sample": true, "temperature": 0.7, "top_k": 5, "top_p": 1.0, "max_gen_toks": 9 });
    assert_eq!(config["gen_kwargs"], choice);
    assert_eq!(results["model_name_sanitized"], "who__knows__");
    assert_eq!((&results["n-shot"][&plain], &results["n-shot"][&odd]), (&2.into(), &0.into()));
    assert_eq!((&results["versions"][&plain], &results["versions"][&odd]), (&1.into(), &3.into()));
    assert_eq!(results["higher_is_better"][&odd], serde_json::json!({ "exact_match": true }));
    assert_eq!(results["results"][&odd]["alias"], odd);
    let of_task = &results["configs"][&plain];
    assert_eq!(of_task["generation_kwargs"]["until"], serde_json::json!(["\n", "Question:"]));
    assert_eq!(of_task["generation_kwargs"]["max_gen_toks"], 24);
    assert_eq!(results["git_hash"], Value::Null);
    for unknown in ["date", "chat_template", "total_evaluation_time_seconds", "lm_eval_version"] {
        assert!(results.get(unknown).is_none(), "{unknown}");
    }
    // Where no suite is a chat, no template was applied, and that is known.
    let made = Made::of((0..5).map(question).collect(), |about| about.suites.truncate(1));
    let (_out, exported) = made.export();
    let results = self::results(&exported.unwrap().written[0].1);
    assert_eq!(results.get("chat_template"), Some(&Value::Null));
}

#[test]
fn one_item_has_no_standard_error() {
    let made = Made::of(vec![question(0)], |_| ());
    let (_out, exported) = made.export();
    let results = results(&exported.unwrap().written[0].1);
    let found = results["results"].as_object().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found["reprocheck_carry_chain_completion"]["exact_match_stderr,strict-match"], "N/A");
    assert_eq!(found["reprocheck_carry_chain_completion"]["exact_match,strict-match"], Value::from(1.0));
}

#[test]
fn equal_runs_give_equal_bytes_and_equal_traces_equal_samples() {
    let (one, other) = (Made::new(|_| ()), Made::new(|_| ()));
    let (one_out, exported) = one.export();
    let (other_out, _) = other.export();
    let written = files(one_out.path());
    assert_eq!(written, files(other_out.path()));
    assert_eq!(written.len(), 4 * 3);
    // Once more to the same place.
    lm_eval(one.folder.path(), &one_out.path().join("new")).unwrap();
    assert_eq!(written, files(one_out.path()));
    let folders: Vec<_> = exported.unwrap().written.into_iter().map(|(_, folder)| folder).collect();
    for (_, task) in tasks() {
        assert_eq!(samples(&folders[1], &task), samples(&folders[2], &task));
        assert_ne!(samples(&folders[0], &task), samples(&folders[1], &task));
    }
    assert_ne!(results(&folders[1]), results(&folders[2]));
}

#[test]
fn what_is_missing_is_told_and_what_replays_has_answered_nothing() {
    let made = Made::new(|_| ());
    let reasons = |exported: Exported| -> Vec<_> {
        exported.missing.into_iter().map(|missing| (missing.cell, missing.reason)).collect()
    };
    let (_out, exported) = made.export();
    let not = (made.cells[4], "it has not run".to_owned());
    let failed = (made.cells[5], "the engine \u{1b}[31m could not".to_owned());
    assert_eq!(reasons(exported.unwrap()), [not.clone(), failed.clone()]);
    let made = Made::new(|about| about.generation.replay = true);
    let (_out, exported) = made.export();
    let exported = exported.unwrap();
    let reference = made.about.reference.unwrap();
    assert_eq!(exported.written.iter().map(|(cell, _)| *cell).collect::<Vec<_>>(), [reference]);
    let reasons = reasons(exported);
    assert_eq!(reasons.len(), 5);
    assert!(reasons[0].1.contains("answered nothing itself"), "{reasons:?}");
    assert_eq!(reasons[3..], [not, failed]);
}

#[test]
fn a_damaged_trace_is_refused_and_one_that_is_forged_ends_the_export() {
    let made = Made::new(|_| ());
    let damaged = made.add(0, &|question| made.scored(question, 5), ITEMS);
    let file = made.folder.path().join("traces").join(damaged.to_string()).join("samples.jsonl");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("about 12", "about 13")).unwrap();
    let (out, exported) = made.export();
    let exported = exported.unwrap();
    assert_eq!(exported.written.len(), 3);
    assert_eq!(exported.missing[0].cell, made.cells[0]);
    assert!(exported.missing[0].reason.contains("is not what was written there"));
    assert!(files(out.path()).keys().all(|path| !path.to_string_lossy().contains("fp32_sequential_t1_b1/")));

    // Traces that are what was written, and lie all the same.
    let honest = |question: &Question| made.scored(question, 0);
    let praised = |question: &Question| {
        let (text, finish, mut scores) = honest(question);
        if question.item == 7 {
            scores.flexible.outcome = Outcome::Correct;
        }
        (text, finish, scores)
    };
    for (wrote, items, problem) in [
        (&praised as &dyn Fn(&Question) -> _, ITEMS, "item 7: its text is scored differently now"),
        (&honest, ITEMS - 1, "item 10: it ends before this"),
        (&honest, ITEMS + 1, "item 11: there is no such question"),
    ] {
        made.add(0, wrote, items);
        let (out, exported) = made.export();
        let error = exported.unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains("--resume"), "{error}");
        // No results without all of their samples, and nothing half-written.
        let left = files(out.path());
        let is_samples = |path: &PathBuf| path.to_string_lossy().ends_with(".jsonl");
        assert!(left.keys().all(is_samples), "{:?}", left.keys());
    }
}

#[test]
fn questions_that_belong_to_no_suite_of_the_run_are_refused() {
    let stray = |at: usize, change: &dyn Fn(&mut Question)| {
        let mut questions: Vec<_> = (0..ITEMS).map(question).collect();
        change(&mut questions[at]);
        let made = Made::of(questions, |_| ());
        made.export().1.unwrap_err().to_string()
    };
    let no_suite = "belongs to no suite that is asked there";
    assert!(stray(8, &|question| question.suite = "other".to_owned()).contains(no_suite));
    assert!(stray(8, &|question| question.suite = PLAIN.to_owned()).contains(no_suite));
    let error = stray(6, &|question| question.item = 2);
    assert!(error.contains("question 6 has the number 2"), "{error}");
}
