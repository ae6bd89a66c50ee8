//! What a cell answered, as lm-evaluation-harness writes it down: a file of results, and one of samples for each suite.

use std::{num::NonZeroUsize, ops::Range};

use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};
use sha2::{Digest as _, Sha256};

use crate::{
    cell::{Axis, Cell, Compute},
    digest::Digest,
    numerics::choice::Choice,
    record::{About, Asked},
    stats::proportion::Proportion,
    suite::{
        export::task_name, extract::Filter, load::lm_eval_hash, question::Question, score::Score,
        style::Style,
    },
};

/// What stands in the names of files where the harness has the time. Its tools sort files by this, as text, and others
/// read it as a date, so it has to be one; and a file that holds the time is never written twice. The beginning of
/// Unix time is what reads as no time at all, and whatever the harness itself adds to a folder is newer.
const DATE: &str = "1970-01-01T00-00-00.000000";
/// Its only metric. Ours is no comparison of texts: `6/8` may be `3/4`.
const METRIC: &str = "exact_match";
/// What the harness has for an answer that a filter did not find.
const NOTHING: &str = "[invalid]";
/// What it has for a standard error that there is not.
const NO_ERROR: &str = "N/A";

/// A suite of a run, as a task of the harness.
pub struct Task {
    /// The numbers of its questions.
    pub items: Range<u64>,
    asked: Asked,
    name: String,
    until: Vec<String>,
    max_new_tokens: usize,
    digest: Sha256,
}

/// How a prompt is continued, in the harness's words.
#[derive(Serialize)]
struct Generation<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<&'a [String]>,
    do_sample: bool,
    temperature: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<NonZeroUsize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_gen_toks: Option<usize>,
}

impl<'a> Generation<'a> {
    fn new(choice: Choice, until: Option<&'a [String]>, max_gen_toks: Option<usize>) -> Generation<'a> {
        // With the digits of the f32, as the user wrote it.
        let digits = |value: f32| value.to_string().parse().expect("a number reads back");
        match choice {
            Choice::Greedy => Generation {
                until,
                do_sample: false,
                temperature: 0.0,
                top_k: None,
                top_p: None,
                max_gen_toks,
            },
            Choice::Sampled(sampling) => Generation {
                until,
                do_sample: true,
                temperature: digits(sampling.temperature()),
                top_k: sampling.top_k(),
                top_p: Some(digits(sampling.top_p())),
                max_gen_toks,
            },
        }
    }
}

// The harness's fields, in its order.

#[derive(Serialize)]
struct Sample<'a> {
    doc_id: u64,
    doc: &'a RawValue,
    target: &'a str,
    arguments: Requests<'a>,
    resps: [[&'a str; 1]; 1],
    filtered_resps: [&'a str; 1],
    filter: Filter,
    metrics: [&'static str; 1],
    #[serde(flatten)]
    hashes: Hashes,
    exact_match: f64,
}

#[derive(Serialize)]
struct Requests<'a> {
    gen_args_0: Request<'a>,
}

#[derive(Serialize)]
struct Request<'a> {
    arg_0: &'a str,
    arg_1: Generation<'a>,
}

#[derive(Serialize)]
struct Hashes {
    doc_hash: String,
    prompt_hash: Digest,
    target_hash: Digest,
}

impl Hashes {
    fn new(question: &Question, document: &RawValue) -> Hashes {
        Hashes {
            doc_hash: lm_eval_hash(document).expect("a flat document of Unicode texts has a hash"),
            prompt_hash: Digest::of(question.prompt.as_bytes()),
            target_hash: Digest::of(question.answer.text.as_bytes()),
        }
    }
}

impl Task {
    /// A suite as it was asked, by its first question.
    pub fn new(asked: &Asked, first: &Question) -> Task {
        Task {
            items: first.item..first.item + 1,
            asked: asked.clone(),
            name: in_file_names(&task_name(&asked.name, asked.style)),
            until: first.stop.clone(),
            max_new_tokens: first.max_new_tokens,
            digest: Sha256::new(),
        }
    }

    /// Is this question one of its suite's?
    pub fn has(&self, question: &Question) -> bool {
        self.asked.name == question.suite
    }

    /// Adds a question to its digest. The harness counts every one once for each filter: all under the first, then all
    /// under the next.
    pub fn add(&mut self, question: &Question) {
        let Hashes { doc_hash, prompt_hash, target_hash } = Hashes::new(question, &self.document(question));
        self.digest.update(format!("{doc_hash}{prompt_hash}{target_hash}"));
    }

    /// The file of its samples.
    pub fn file(&self) -> String {
        format!("samples_{}_{DATE}.jsonl", self.name)
    }

    /// A line of samples, with its newline: what one filter makes of the text that followed a question.
    pub fn sample(
        &self,
        choice: Choice,
        question: &Question,
        text: &str,
        filter: Filter,
        score: &Score,
    ) -> String {
        let document = self.document(question);
        let sample = Sample {
            doc_id: question.item - self.items.start,
            doc: &document,
            target: &question.answer.text,
            arguments: Requests {
                gen_args_0: Request {
                    arg_0: &question.prompt,
                    arg_1: Generation::new(choice, Some(&question.stop), Some(question.max_new_tokens)),
                },
            },
            resps: [[text]],
            filtered_resps: [score.answer.as_deref().unwrap_or(NOTHING)],
            filter,
            metrics: [METRIC],
            hashes: Hashes::new(question, &document),
            exact_match: f64::from(u8::from(score.is_correct())),
        };
        let mut line = serde_json::to_string(&sample).expect("a sample holds nothing but texts and numbers");
        // JSON lets these stand as they are, and many a reader of lines ends one there.
        for (ends_line, escape) in [('\u{85}', "\\u0085"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")] {
            if line.contains(ends_line) {
                line = line.replace(ends_line, escape);
            }
        }
        line.push('\n');
        line
    }

    fn document(&self, question: &Question) -> Box<RawValue> {
        question.document(self.asked.version, self.asked.item_seed)
    }

    /// Its figures: right answers under each filter.
    fn results(&self, right: &[Proportion]) -> Value {
        let mut results = Map::new();
        results.insert("alias".to_owned(), (*self.name).into());
        results.insert("name".to_owned(), (*self.name).into());
        results.insert("sample_len".to_owned(), self.len().into());
        for (filter, right) in Filter::ALL.iter().zip(right) {
            let error = right.standard_error().map_or(NO_ERROR.into(), Value::from);
            results.insert(format!("{METRIC},{filter}"), right.rate().into());
            results.insert(format!("{METRIC}_stderr,{filter}"), error);
        }
        results.into()
    }

    /// What its own file would say of it; nothing of how the harness makes prompts and compares answers, which it did not.
    fn config(&self, choice: Choice) -> Value {
        let Asked { version, item_seed, style, shots, .. } = self.asked;
        let filters: Vec<_> = Filter::ALL.iter().map(|filter| json!({ "name": filter })).collect();
        json!({
            "task": self.name,
            "doc_to_text": "prompt",
            "doc_to_target": "target",
            "num_fewshot": shots,
            "metric_list": [{ "metric": METRIC, "aggregation": "mean", "higher_is_better": true }],
            "output_type": "generate_until",
            "generation_kwargs":
                Generation::new(choice, Some(&self.until), Some(self.max_new_tokens)),
            "repeats": 1,
            "filter_list": filters,
            "metadata": { "version": version, "seed": item_seed, "style": style },
        })
    }

    fn len(&self) -> u64 {
        self.items.end - self.items.start
    }
}

/// The file of results.
pub fn results_file() -> String {
    format!("results_{DATE}.json")
}

/// The results of a cell: for each task how many answers are right of all, under each filter. What the harness would have
/// and nobody knows here is left out, and so is whatever tells time or machine.
pub fn results(about: &About, cell: Cell, tasks: &[(&Task, Vec<Proportion>)]) -> String {
    let by_task = |value: &dyn Fn(&Task) -> Value| {
        tasks.iter().map(|(task, _)| (task.name.clone(), value(task))).collect::<Map<_, _>>()
    };
    let figures: Map<_, _> =
        tasks.iter().map(|(task, right)| (task.name.clone(), task.results(right))).collect();
    let generation = &about.generation;
    let choice = cell.serving.choice(generation.choice);
    let device = match cell.compute {
        Compute::Lab(_) => "cpu".to_owned(),
        Compute::Candle(stock) => stock.device.to_string(),
        _ => "none".to_owned(),
    };
    let mut results = json!({
        "results": figures,
        "group_subtasks": {},
        "configs": by_task(&|task| task.config(choice)),
        "versions": by_task(&|task| task.asked.version.into()),
        "n-shot": by_task(&|task| task.asked.shots.into()),
        "higher_is_better": by_task(&|_| json!({ METRIC: true })),
        "n-samples": by_task(&|task| json!({ "original": task.len(), "effective": task.len() })),
        "config": {
            "model": "reprocheck",
            "model_args": { "pretrained": about.model.name, "cell": cell.to_string() },
            "model_num_parameters": about.model.parameters,
            "model_dtype": cell.get(Axis::Precision).to_string(),
            "model_sha": about.model.digest,
            "batch_size": cell.serving.batch,
            "batch_sizes": [],
            "device": device,
            "use_cache": null,
            "limit": null,
            "gen_kwargs": Generation::new(choice, None, generation.max_new_tokens),
            // It seeds every draw, and there are no other generators.
            "random_seed": cell.serving.seed,
        },
        "git_hash": null,
        "upper_git_hash": null,
        "task_hashes": by_task(&|task| Digest(task.digest.clone().finalize().into()).to_string().into()),
        "model_source": "reprocheck",
        "model_name": about.model.name,
        "model_name_sanitized": sanitized(&about.model.name),
        "system_instruction": null,
        "system_instruction_sha": null,
    });
    if tasks.iter().any(|(task, _)| task.asked.style == Style::Chat) {
        // Which template the model has a run does not say: `null` would be that it has none.
        results["fewshot_as_multiturn"] = true.into();
    } else {
        for field in ["chat_template", "chat_template_sha", "fewshot_as_multiturn"] {
            results[field] = Value::Null;
        }
    }
    let mut json = serde_json::to_string_pretty(&results).expect("results are JSON");
    json.push('\n');
    json
}

/// A name whose every other character is written as its bytes in hexadecimal, so that different names stay different. The
/// harness's tools look for a task's file by its name, so both must be the same.
fn in_file_names(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_alphanumeric() || "-_.".contains(c) {
            out.push(c);
        } else {
            out.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")));
        }
    }
    out
}

/// A model's name as the harness would call its folder.
fn sanitized(name: &str) -> String {
    let is_bad = |c: char| "\"<>:/|\\?*[]".contains(c);
    let mut out = String::new();
    let mut bad = false;
    for c in name.chars() {
        match is_bad(c) {
            false => out.push(c),
            true if !bad => out.push_str("__"),
            true => {}
        }
        bad = is_bad(c);
    }
    out
}
