//! Items as JSON, and as a task of lm-evaluation-harness.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};

use super::{Suite, item::Item, problem::Problem, question::Question, style::Style};
use crate::digest::Digest;

/// An item as a line of JSON. Whatever a prompt adds comes last, and a [`Question`] does not know all of it.
#[derive(Serialize)]
struct Document<'a> {
    suite: &'a str,
    version: u32,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    id: &'a str,
    stratum: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operands: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<&'a str>,
    target: &'a str,
    target_type: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

/// A document with how it is asked, in every style that it has.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    document: Document<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scratchpad: Option<&'a str>,
    prompt: ByStyle<String>,
    max_new_tokens: ByStyle<usize>,
    stop: ByStyle<&'static [&'static str]>,
}

#[derive(Serialize)]
struct ByStyle<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    compact: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat: Option<T>,
}

impl<T> ByStyle<T> {
    fn of(value: impl Fn(Style) -> Option<T>) -> ByStyle<T> {
        ByStyle {
            compact: value(Style::Compact),
            completion: value(Style::Completion),
            chat: value(Style::Chat),
        }
    }
}

/// A document with the one prompt that another harness shows.
#[derive(Serialize)]
struct Task<'a> {
    #[serde(flatten)]
    document: Document<'a>,
    prompt: &'a str,
}

fn line(record: &impl Serialize) -> String {
    serde_json::to_string(record).expect("a record holds nothing but texts and numbers")
}

/// What a suite that is asked in one style is called as a task of lm-evaluation-harness.
pub fn task_name(suite: &str, style: Style) -> String {
    format!("reprocheck_{suite}_{style}")
}

impl Question {
    /// Its line in the task that [`Suite::task_line`] writes, as far as it knows that, with the prompt that a model really
    /// read. Version and seed are those of its suite.
    pub fn document(&self, version: u32, seed: u64) -> Box<RawValue> {
        let document = Document {
            suite: &self.suite,
            version,
            seed,
            index: None,
            id: &self.id,
            stratum: &self.stratum,
            cluster: self.cluster.as_deref(),
            task: None,
            operands: None,
            question: None,
            target: &self.answer.text,
            target_type: self.answer.kind.to_string(),
            duplicate: false,
        };
        to_raw_value(&Task { document, prompt: &self.prompt })
            .expect("a document holds nothing but texts and numbers")
    }
}

impl Suite {
    fn document<'a>(&'a self, item: &'a Item, seed: u64) -> Document<'a> {
        let Problem { stratum, task, cluster, operands, question, answer, .. } = &item.problem;
        Document {
            suite: &self.name,
            version: self.version,
            seed,
            index: Some(item.index),
            id: &item.id,
            stratum,
            cluster: cluster.as_deref(),
            task: Some(task),
            operands: Some(operands),
            question: Some(question),
            target: &answer.text,
            target_type: answer.kind.to_string(),
            duplicate: item.duplicate,
        }
    }

    /// An item as one line of JSON, without the newline: what it is, and how it is asked in every style.
    pub fn record(&self, item: &Item, seed: u64, shots: usize) -> String {
        // A style that the item lacks has neither a limit nor a stop.
        let asked = |style| self.asked(item, seed, style, shots);
        let if_asked = |style| asked(style).map(|_| style);
        line(&Record {
            document: self.document(item, seed),
            scratchpad: item.problem.compact.as_ref().map(|compact| compact.scratchpad.as_str()),
            prompt: ByStyle::of(|style| Some(asked(style)?.text())),
            max_new_tokens: ByStyle::of(|style| self.limits.of(if_asked(style)?)),
            stop: ByStyle::of(|style| Some(self.stop(if_asked(style)?))),
        })
    }

    /// An item as one line of JSON for lm-evaluation-harness, if it has this style.
    pub fn task_line(&self, item: &Item, seed: u64, style: Style, shots: usize) -> Option<String> {
        let prompt = self.asked(item, seed, style, shots)?.text();
        Some(line(&Task { document: self.document(item, seed), prompt: &prompt }))
    }

    /// The task of lm-evaluation-harness that reads such lines from a file.
    pub fn task_file(&self, style: Style, lines: &str) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let stops: Vec<_> = self.stop(style).iter().map(|stop| quoted(stop)).collect();
        let most = self.limits.of(style).unwrap_or_default();
        format!(
            "\
# Made by `reprocheck suite export {name} --style {style} --lm-eval`. To run it:
#   lm_eval --tasks {task} --include_path . --log_samples --output_path OUT --model …{template}
# Its metric compares texts, and its flexible filter knows whole numbers and decimals only: score the samples it logs
# for fractions, lists and estimates.
task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {lines}
test_split: test
output_type: generate_until
doc_to_text: prompt
doc_to_target: target
target_delimiter: \" \"
num_fewshot: 0
generation_kwargs:
  until: [{stops}]
  do_sample: false
  temperature: 0.0
  max_gen_toks: {most}
filter_list:
{filters}metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    regexes_to_ignore: [\",\", \"\\\\$\", \"\\\\.$\"]
metadata:
  version: {version}
",
            name = self.name,
            task = task_name(&self.name, style),
            lines = quoted(lines),
            stops = stops.join(", "),
            filters = filters(style),
            version = self.version,
            template = if style == Style::Chat { " --apply_chat_template" } else { "" },
        )
    }

    /// Of so many items of a seed in one style: documents, prompts and answers, each by its digest.
    pub fn digest(&self, seed: u64, style: Style, count: usize) -> Digest {
        let mut all = Sha256::new();
        let items = self.items(seed).filter_map(|item| Some((self.asked(&item, seed, style, 0)?, item)));
        for (asked, item) in items.take(count) {
            let document = line(&self.document(&item, seed));
            for text in [&document, &asked.text(), &item.problem.shown(style)] {
                all.update(Sha256::digest(text));
            }
        }
        Digest(all.finalize().into())
    }
}

/// What finds the answer in a text, by regular expressions: less than our own extraction, and the same on ordinary
/// texts.
fn filters(style: Style) -> &'static str {
    match style {
        Style::Compact => {
            r#"  - name: strict-match
    filter:
      - function: regex
        regex_pattern: ">([^>\n]*)$"
        group_select: -1
      - function: take_first
"#
        }
        Style::Completion => {
            r#"  - name: strict-match
    filter:
      - function: regex
        regex_pattern: "^\\s*([^\\n]+)"
        group_select: 0
      - function: take_first
  - name: flexible-extract
    filter:
      - function: regex
        regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"
        group_select: -1
      - function: take_first
"#
        }
        Style::Chat => {
            r#"  - name: strict-match
    filter:
      - function: regex
        regex_pattern: "(?i)answer\\s*(?:is|:)\\s*([^\\n]+)"
        group_select: -1
      - function: take_first
  - name: flexible-extract
    filter:
      - function: regex
        regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"
        group_select: -1
      - function: take_first
"#
        }
    }
}
