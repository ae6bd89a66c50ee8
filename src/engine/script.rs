//! A scripted engine: a file says what is answered, so that a gate is tried without a model, or on paper.
//!
//! Every line of the file is an object in JSON:
//!
//! | key | what it says |
//! |---|---|
//! | `prompt` | the whole text that is answered; without it any |
//! | `batch` | how many prompts must share the call for it; without it any number |
//! | `answer` | the text that follows |
//! | `logits` | for each token of the answer an object: the logits of tokens by their texts, minus infinity for all others |
//! | `top` | for each token of the answer an object: the log-probabilities of the best tokens by their texts |
//!
//! The first line that fits a prompt answers it. With `logits` a script shows as much as the lab does, with `top` as
//! much as many servers do, and without both nothing but tokens; it shows as much of every answer.

use std::{collections::BTreeMap, fs, num::NonZeroUsize, ops::Range, path::Path};

use serde::Deserialize;

use super::{
    Engine, EngineError, Observer, Prompt, Request, Row,
    ending::{Decode, Endings},
    environment::Environment,
};
use crate::{
    cell::{Compute, Name},
    digest::Digest,
    model::{Subject, tokenizer::Tokenizer},
    numerics::choice::Candidate,
    source::Problems,
    trace::{History, Launched, Sample, Seen, Sight, Step, Token},
};

/// What a file says, before any tokenizer has read it.
#[derive(Clone, Debug)]
pub struct Script {
    lines: Vec<Line>,
    sight: Sight,
    /// The digest of the file.
    pub digest: Digest,
}

/// Numbers of tokens by their texts.
type Shown = BTreeMap<String, f32>;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: Option<String>,
    batch: Option<NonZeroUsize>,
    answer: String,
    logits: Option<Vec<Shown>>,
    top: Option<Vec<Shown>>,
    /// Where it stands in the file, counted from 1.
    #[serde(skip)]
    number: usize,
}

impl Line {
    fn sight(&self) -> Sight {
        match (&self.logits, &self.top) {
            (Some(_), _) => Sight::Logits,
            (None, Some(_)) => Sight::Top,
            (None, None) => Sight::Tokens,
        }
    }

    fn shown(&self) -> &[Shown] {
        self.logits.as_deref().or(self.top.as_deref()).unwrap_or_default()
    }
}

impl Script {
    /// Reads the script of a name in a folder.
    ///
    /// # Errors
    ///
    /// When it is not there, or everything that is wrong with its lines.
    pub fn open(folder: &Path, name: Name) -> Result<Script, Problems> {
        let path = folder.join(name.as_str());
        let file = path.display().to_string();
        match fs::read_to_string(&path) {
            Ok(text) => Script::read(&file, &text),
            Err(error) => {
                let mut problems = Problems::new(&file, "");
                problems.add(None, format!("it cannot be read ({error}): put the script there"));
                Err(problems)
            }
        }
    }

    /// Reads a script; `file` is what problems call it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with its lines.
    pub fn read(file: &str, text: &str) -> Result<Script, Problems> {
        let mut problems = Problems::new(file, text);
        let mut lines: Vec<Line> = Vec::new();
        let mut end = 0;
        for (text, number) in text.split_inclusive('\n').zip(1..) {
            let span: Range<usize> = end..end + text.trim_end().len();
            end += text.len();
            if text.trim().is_empty() {
                continue;
            }
            let mut line: Line = match serde_json::from_str(text) {
                Ok(line) => line,
                Err(error) => {
                    let sentence = format!(
                        "{error}: write an object such as {{\"prompt\": \"12+34=\", \"answer\": \"46\"}}"
                    );
                    problems.add(span, sentence);
                    continue;
                }
            };
            line.number = number;
            if line.logits.is_some() && line.top.is_some() {
                problems.add(span.clone(), "`logits` show all that `top` would: take one of them out");
            }
            let sight = line.sight();
            if let Some(first) = lines.first().filter(|first| first.sight() != sight) {
                problems.add(
                    span.clone(),
                    format!(
                        "this shows {sight}, and line {} {}: show as much of every answer",
                        first.number,
                        first.sight()
                    ),
                );
            }
            let width = lines.iter().chain([&line]).flat_map(Line::shown).map(BTreeMap::len).next();
            if line.top.iter().flatten().any(|row| Some(row.len()) != width || row.is_empty()) {
                problems
                    .add(span, "`top` has another number of tokens than before: show as many of every token");
            }
            lines.push(line);
        }
        if text.trim().is_empty() {
            problems.add(None, "it has no lines: write one for each answer");
        }
        problems.none()?;
        let sight = lines.first().map_or(Sight::Tokens, Line::sight);
        Ok(Script { lines, sight, digest: Digest::of(text.as_bytes()) })
    }
}

/// An answer in tokens.
struct Answer {
    /// The tokens of its prompt, as tokenizers put special ones around it or do not; none for any.
    prompts: Option<[Vec<u32>; 2]>,
    batch: Option<NonZeroUsize>,
    tokens: Vec<u32>,
    /// Of each token, what is shown by the numbers of tokens.
    shown: Vec<Vec<Candidate>>,
}

/// The engine that answers what a script says.
pub struct Scripted<'a> {
    name: Name,
    sight: Sight,
    digest: Digest,
    answers: Vec<Answer>,
    tokenizer: &'a Tokenizer,
    vocabulary: usize,
    positions: usize,
}

impl<'a> Scripted<'a> {
    /// The script of this name, for a model whose tokens are these.
    ///
    /// # Errors
    ///
    /// When the model has no tokenizer, or its tokens are not those that the script shows.
    pub fn new(name: Name, script: &Script, subject: &Subject<'a>) -> Result<Scripted<'a>, EngineError> {
        let tokenizer = subject.tokenizer.ok_or_else(|| {
            EngineError::Unsupported(format!(
                "{name} answers in texts, and {} has no tokenizer: name another model, such as none",
                subject.name
            ))
        })?;
        let answers = script.lines.iter().map(|line| {
            let wrong = |sentence: String| EngineError::Unsupported(format!("{name}, line {}: {sentence}", line.number));
            let encode = |text: &str, special| {
                tokenizer.encode(text, special).map_err(|error| wrong(error.to_string()))
            };
            let prompts = match &line.prompt {
                Some(prompt) => Some([encode(prompt, false)?, encode(prompt, true)?]),
                None => None,
            };
            let tokens = encode(&line.answer, false)?;
            let shown = line.shown();
            if script.sight != Sight::Tokens && shown.len() != tokens.len() {
                return Err(wrong(format!(
                    "its answer has {} tokens and it shows what {} were chosen from: show one object for each token",
                    tokens.len(),
                    shown.len()
                )));
            }
            let of_row = |row: &Shown| {
                let mut best = Vec::new();
                for (text, &logit) in row {
                    match encode(text, false)?[..] {
                        [token] => best.push(Candidate { token, logit }),
                        ref tokens => {
                            return Err(wrong(format!(
                                "`{text}` is {} tokens of this model: name one token",
                                tokens.len()
                            )));
                        }
                    }
                }
                best.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token)));
                Ok(best)
            };
            let shown = shown.iter().map(of_row).collect::<Result<_, _>>()?;
            Ok(Answer { prompts, batch: line.batch, tokens, shown })
        });
        Ok(Scripted {
            name,
            sight: script.sight,
            digest: script.digest,
            answers: answers.collect::<Result<_, _>>()?,
            tokenizer,
            vocabulary: subject.vocabulary,
            positions: subject.positions,
        })
    }

    /// What answers a prompt that shares its call with so many.
    fn answer(&self, prompt: &Prompt, together: usize) -> Result<&Answer, EngineError> {
        let fits = |answer: &&Answer| {
            let is_asked = |prompts: &[Vec<u32>; 2]| prompts.contains(&prompt.tokens);
            answer.prompts.as_ref().is_none_or(is_asked)
                && answer.batch.is_none_or(|batch| batch.get() == together)
        };
        self.answers.iter().find(fits).ok_or_else(|| {
            EngineError::Unsupported(format!(
                "{} has no answer to item {} in calls of {together}, `{}`: add a line with this prompt, or one without any",
                self.name,
                prompt.item,
                self.tokenizer.decode(&prompt.tokens, true).escape_debug()
            ))
        })
    }

    /// A row of logits, of which these are not minus infinity.
    fn logits(&self, shown: &[Candidate]) -> Vec<f32> {
        let mut logits = vec![f32::NEG_INFINITY; self.vocabulary];
        for Candidate { token, logit } in shown {
            logits[*token as usize] = *logit;
        }
        logits
    }
}

impl Engine for Scripted<'_> {
    fn about(&self) -> Environment {
        let facts = [("digest".to_owned(), self.digest.to_string())].into();
        Environment { engine: Compute::Script(self.name).to_string(), facts }
    }

    fn sight(&self) -> Sight {
        self.sight
    }

    fn generate(
        &mut self,
        prompts: &[Prompt],
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        super::check(prompts, request, self.vocabulary, self.positions)?;
        let decode = |tokens: &[u32]| self.tokenizer.decode(tokens, true);
        let endings = Endings::new(request, Some(&decode as &Decode<'_>))?;
        let prefill = vec![prompts.iter().map(|prompt| prompt.tokens.len()).sum()];
        for prompt in prompts {
            if prompt.replay.is_some() {
                return Err(EngineError::Unsupported(format!(
                    "{} answers what it says and cannot be given tokens to read: take `replay` out",
                    self.name
                )));
            }
            let answer = self.answer(prompt, prompts.len())?;
            let mut ending = endings.begin(prompt);
            let mut steps = Vec::new();
            for (at, &id) in answer.tokens.iter().enumerate() {
                if ending.finish().is_some() {
                    break;
                }
                let read = prompt.tokens.len() + at;
                let step = match (self.sight, answer.shown.get(at)) {
                    (Sight::Logits, Some(shown)) => {
                        let logits = self.logits(shown);
                        if observer.wants_logits() {
                            observer.logits(prompt.item, read, &logits);
                        }
                        let row = Row::of(&logits, request.candidates);
                        let compute = Compute::Script(self.name);
                        row.step(&logits, (prompt.item, read), Some(id), request, prompts.len(), &compute)?
                    }
                    (Sight::Top, Some(shown)) => Step {
                        token: Token { id, seen: Seen::Top(shown.clone()) },
                        rows: Some(prompts.len()),
                    },
                    _ => Step { token: Token { id, seen: Seen::Nothing }, rows: Some(prompts.len()) },
                };
                ending.push(id);
                steps.push(step);
            }
            observer.chose(steps.len());
            observer.finished(Sample {
                item: prompt.item,
                prompt: prompt.tokens.clone(),
                steps,
                text: ending.text(),
                finish: ending.finish().unwrap_or(crate::trace::Finish::Stop),
                launch: Some(Launched {
                    prefill: prefill.clone(),
                    threads: Some(1),
                    has_unlike_copy: false,
                    history: History::default(),
                }),
            });
        }
        Ok(())
    }
}
