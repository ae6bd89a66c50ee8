//! Lets an engine read given tokens, and writes down what it shows before each of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::ParityError;
use crate::{
    cell::Cell,
    engine::{Engine, Observer, Prompt, Request},
    model::Subject,
    numerics::{apart::Row, choice::Choice},
    store::{
        StoreError,
        open::{Item, OpenTrace, OpenWriter, Shows},
    },
    trace::{Sample, Sight},
};

/// Tokens that every engine is to read.
#[derive(Clone, PartialEq, Debug)]
pub struct Given {
    /// The name of the item.
    pub item: String,
    /// Its prompt.
    pub prompt: Vec<u32>,
    /// What follows; nothing where the first engine is to choose it.
    pub tokens: Option<Vec<u32>>,
}

/// A line of a file of tokens. An item of an open trace is one, too.
#[derive(Deserialize)]
struct Line {
    item: Option<String>,
    prompt: Option<Vec<u32>>,
    text: Option<String>,
    tokens: Option<Vec<u32>>,
}

impl Given {
    /// What the items of a trace read.
    pub fn of(trace: &OpenTrace) -> Vec<Given> {
        let given = |Item { item, prompt, tokens, .. }: &Item| Given {
            item: item.clone(),
            prompt: prompt.clone(),
            tokens: Some(tokens.clone()),
        };
        trace.items.iter().map(given).collect()
    }

    /// Reads a file of JSON lines: each has a `prompt` of tokens, or a `text`, and may have the `tokens` that follow and the
    /// name of its `item`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or the first line that is wrong.
    pub fn read(path: &Path, subject: &Subject<'_>) -> Result<Vec<Given>, ParityError> {
        let wrong = |problem: String| ParityError::Given(format!("{}{problem}", path.display()));
        let text = fs::read_to_string(path)
            .map_err(|error| wrong(format!(" cannot be read ({error}): name a file of JSON lines")))?;
        let mut all = Vec::new();
        for (text, number) in text.lines().zip(1..) {
            let wrong = |problem: String| wrong(format!(":{number}: {problem}"));
            let is_head = number == 1 && text.contains("\"open-trace\"");
            if is_head || text.trim().is_empty() {
                continue;
            }
            let Line { item, prompt, text, tokens } = serde_json::from_str(text).map_err(|error| {
                wrong(format!("{error}: write an object such as {{\"prompt\": [1, 2], \"tokens\": [3]}}"))
            })?;
            let prompt = match (prompt, text, subject.tokenizer) {
                (Some(prompt), None, _) => prompt,
                (None, Some(text), Some(tokenizer)) => {
                    tokenizer.encode(&text, true).map_err(|error| wrong(error.to_string()))?
                }
                (None, Some(_), None) => {
                    let name = subject.name;
                    return Err(wrong(format!("{name} has no tokenizer: give the `prompt` as tokens")));
                }
                _ => return Err(wrong("give either a `prompt` of tokens or a `text`".to_owned())),
            };
            let item = item.unwrap_or_else(|| all.len().to_string());
            all.push(Given { item, prompt, tokens });
        }
        if all.is_empty() {
            return Err(wrong(" has no line: write one for each prompt".to_owned()));
        }
        Ok(all)
    }
}

/// Lets an engine read the tokens, in groups, and writes what it shows to an open trace. Where none are given it chooses the
/// best, up to so many, and what it chose is given from then on. An engine that shows the best tokens alone shows `top` of them.
///
/// # Errors
///
/// When the engine fails, shows no numbers, or the file cannot be written.
pub fn record(
    engine: &mut dyn Engine,
    cell: &Cell,
    given: &mut [Given],
    (max_new_tokens, top): (usize, usize),
    subject: &Subject<'_>,
    path: PathBuf,
) -> Result<(), ParityError> {
    let shows = match engine.sight() {
        Sight::Logits => Shows::Logits,
        Sight::Top => Shows::Top,
        Sight::Tokens | Sight::Text => return Err(ParityError::Blind(Box::new(*cell))),
    };
    let mut writer = OpenWriter::new(&path, shows, engine.about())?;
    let request = Request {
        prefill_chunk: cell.serving.prefill_chunk,
        asking: cell.serving.asking(),
        max_new_tokens,
        stop_tokens: subject.stop_tokens.to_vec(),
        stop_strings: Vec::new(),
        choice: Choice::Greedy,
        candidates: if shows == Shows::Top { top } else { 1 },
    };
    let together = cell.serving.together().get();
    for (group, first) in given.chunks_mut(together).zip((0..).step_by(together)) {
        let prompts = group.iter().zip(first..).map(|(given, item)| Prompt {
            item,
            tokens: given.prompt.clone(),
            replay: given.tokens.clone(),
        });
        let prompts: Vec<_> = prompts.collect();
        let mut group_seen = Group {
            writer: &mut writer,
            sees: shows,
            prompts: &prompts,
            first,
            rows: vec![Vec::new(); prompts.len()],
            samples: Vec::new(),
            failed: None,
        };
        engine
            .generate(&prompts, &request, &mut group_seen)
            .map_err(|error| ParityError::Engine { cell: Box::new(*cell), error })?;
        let Group { rows, mut samples, failed, .. } = group_seen;
        if let Some(error) = failed {
            return Err(error.into());
        }
        samples.sort_by_key(|sample| sample.item);
        for ((given, rows), sample) in group.iter_mut().zip(rows).zip(samples) {
            let tokens: Vec<u32> = sample.steps.iter().map(|step| step.token.id).collect();
            let rows = (0..tokens.len()).map(|place| rows.get(place).copied().flatten()).collect();
            writer.item(Item {
                item: given.item.clone(),
                prompt: given.prompt.clone(),
                tokens: tokens.clone(),
                rows,
            })?;
            given.tokens = Some(tokens);
        }
    }
    Ok(writer.finish()?)
}

/// What is seen of the items of a group.
struct Group<'g> {
    writer: &'g mut OpenWriter,
    sees: Shows,
    prompts: &'g [Prompt],
    /// The item of the first of them.
    first: u64,
    /// The number of the row that was shown before each token.
    rows: Vec<Vec<Option<u64>>>,
    samples: Vec<Sample>,
    failed: Option<StoreError>,
}

impl Group<'_> {
    fn add(&mut self, item: u64, place: usize, row: Row<'_>) {
        match self.writer.row(row) {
            Ok(row) => {
                let rows = &mut self.rows[(item - self.first) as usize];
                rows.resize(rows.len().max(place + 1), None);
                rows[place] = Some(row);
            }
            Err(error) => self.failed = Some(error),
        }
    }
}

impl Observer for Group<'_> {
    fn finished(&mut self, sample: Sample) {
        for (place, step) in sample.steps.iter().enumerate() {
            let best = step.token.candidates();
            if step.token.sight() == Sight::Top && !best.is_empty() {
                self.add(sample.item, place, Row::Top(best));
            }
        }
        self.samples.push(sample);
    }

    fn wants_logits(&self) -> bool {
        self.sees == Shows::Logits
    }

    fn logits(&mut self, item: u64, read: usize, logits: &[f32]) {
        // What was shown within the prompt stands before no token that is compared.
        if let Some(place) = read.checked_sub(self.prompts[(item - self.first) as usize].tokens.len()) {
            self.add(item, place, Row::Logits(logits));
        }
    }
}
