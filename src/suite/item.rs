//! The items of a suite: problems with a number, and how each is asked.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use super::{
    Source, Suite,
    answer::Kind,
    compact,
    draw::Draw,
    problem::{Generator, Problem},
    style::Style,
};

/// One problem of a suite.
#[derive(Clone, PartialEq, Debug)]
pub struct Item {
    /// Its place in the suite.
    pub index: u64,
    /// Its name among all items of all suites.
    pub id: String,
    /// Was there no draw that had not come up before?
    pub duplicate: bool,
    /// What is asked.
    pub problem: Problem,
}

/// What a model is shown: questions with their answers, if any, and a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Questions, each with its answer: turns of a chat, or text before the prompt.
    pub shots: Vec<(String, String)>,
    /// The question.
    pub prompt: String,
}

impl Asked {
    /// All of it as one text.
    pub fn text(&self) -> String {
        let shots = self.shots.iter().map(|(question, answer)| format!("{question}{answer}\n\n"));
        shots.chain([self.prompt.clone()]).collect()
    }
}

/// So often is a group drawn anew whose questions came up before.
const ATTEMPTS: u32 = 64;
/// The first number of the groups that shots are drawn from, in units of all cells: no suite has so many items.
const SHOTS: u64 = 1 << 32;
/// Between the shots of one group and those of the next.
const MOST_SHOTS: u64 = 64;

impl Suite {
    /// The items of a seed, one after the other. A suite that was brought ends; any other goes on for ever.
    pub fn items(&self, seed: u64) -> Box<dyn Iterator<Item = Item> + '_> {
        match &self.source {
            Source::Brought { items, .. } => Box::new(items.iter().cloned()),
            Source::Generated { generator, .. } => Box::new(self.generated(&**generator, seed)),
        }
    }

    fn generated<'a>(&'a self, generator: &'a dyn Generator, seed: u64) -> impl Iterator<Item = Item> + 'a {
        let fixed = generator.fixed();
        let mut seen: HashSet<_> = fixed.iter().map(key).collect();
        let cells = generator.cells() as u64;
        // Where a cell has run dry there is little left to find: each time half as many attempts are made.
        let mut patience = vec![ATTEMPTS; generator.cells()];
        let groups = (0..).flat_map(move |group| {
            let cell = (group % cells) as usize;
            let mut problems = Vec::new();
            let mut fresh = false;
            for attempt in 0..patience[cell] {
                problems = generator.draw(cell, &mut self.draw(seed, group, attempt));
                fresh = problems.iter().all(|problem| !seen.contains(&key(problem)));
                if fresh {
                    break;
                }
            }
            if !fresh {
                patience[cell] = (patience[cell] / 2).max(1);
            }
            seen.extend(problems.iter().map(key));
            problems.into_iter().map(move |problem| (!fresh, problem))
        });
        let fixed = fixed.into_iter().map(|problem| (false, problem));
        fixed.chain(groups).zip(0..).map(move |((duplicate, problem), index)| {
            let id = format!("{}-v{}-s{seed}-{index:06}", self.name, self.version);
            Item { index, id, duplicate, problem }
        })
    }

    /// The problems of a group as first drawn, whether or not they came up before; the groups of a cell are as many
    /// apart as there are cells. A suite that was brought has none.
    pub fn drawn(&self, seed: u64, group: u64) -> Vec<Problem> {
        match &self.source {
            Source::Brought { .. } => Vec::new(),
            Source::Generated { generator, .. } => {
                let cell = (group % generator.cells() as u64) as usize;
                generator.draw(cell, &mut self.draw(seed, group, 0))
            }
        }
    }

    /// Among how many cells its groups take turns; a suite that was brought has none.
    pub fn cells(&self) -> usize {
        match &self.source {
            Source::Brought { .. } => 0,
            Source::Generated { generator, .. } => generator.cells(),
        }
    }

    fn draw(&self, seed: u64, group: u64, attempt: u32) -> Draw {
        Draw::new(&self.name, self.version, seed, group, attempt)
    }

    /// How an item is asked, if the suite has such a form of it: after so many others of its kind, which never are items
    /// themselves.
    pub fn asked(&self, item: &Item, seed: u64, style: Style, shots: usize) -> Option<Asked> {
        self.limits.of(style)?;
        let prompt = item.problem.prompt(style)?;
        let shots = match &self.source {
            Source::Generated { generator, .. } => self.drawn_shots(&**generator, item, seed, shots),
            Source::Brought { shots: brought, .. } => brought.iter().take(shots).cloned().collect(),
        };
        let shots = shots.iter().filter_map(|shot| Some((shot.prompt(style)?, shot.shown(style)))).collect();
        Some(Asked { shots, prompt })
    }

    /// Others of the same cell, from groups that are no items.
    fn drawn_shots(&self, generator: &dyn Generator, item: &Item, seed: u64, shots: usize) -> Vec<Problem> {
        let (cells, size) = (generator.cells() as u64, generator.group() as u64);
        let Some(drawn) = item.index.checked_sub(generator.fixed().len() as u64) else { return Vec::new() };
        let (group, member) = (drawn / size, (drawn % size) as usize);
        let candidates = (0..MOST_SHOTS).map(|number| {
            let group = (SHOTS + group / cells * MOST_SHOTS + number) * cells + group % cells;
            generator.draw((group % cells) as usize, &mut self.draw(seed, group, 0)).swap_remove(member)
        });
        candidates.filter(|shot| shot.question != item.problem.question).take(shots).collect()
    }
}

/// What two items must not share. So much of a digest that no two questions have it in common by chance.
fn key(problem: &Problem) -> [u8; 16] {
    let digest = Sha256::digest(&problem.question);
    *digest.first_chunk().expect("a digest has 32 bytes")
}

impl Problem {
    /// The text that a model is to continue.
    pub fn prompt(&self, style: Style) -> Option<String> {
        let question = &self.question;
        match style {
            Style::Compact => self.compact.as_ref().map(|compact| compact.prompt.clone()),
            Style::Completion => {
                Some(self.completion.clone().unwrap_or_else(|| format!("Question: {question}\nAnswer:")))
            }
            Style::Chat => Some(match &self.request {
                Some(request) if request.is_empty() => question.clone(),
                Some(request) => format!("{question}\n\n{request}"),
                None => format!("{question}\n\n{}", request(self.answer.kind)),
            }),
        }
    }

    /// What a model without fault writes, as far as its style says.
    pub fn shown(&self, style: Style) -> String {
        let answer = self.shown.as_ref().unwrap_or(&self.answer.text);
        match (style, &self.compact) {
            (Style::Compact, Some(steps)) => format!("{}{}{answer}", steps.scratchpad, compact::ANSWER),
            (Style::Compact, None) => answer.clone(),
            (Style::Completion, _) => format!(" {answer}"),
            (Style::Chat, _) => format!("Answer: {answer}"),
        }
    }
}

/// How a chat is asked for an answer that can be found.
fn request(kind: Kind) -> String {
    let (answer, meaning) = match kind {
        Kind::Integer => ("N", "N is the final answer, a whole number"),
        Kind::Digits => ("N", "N is the final answer, all its digits"),
        Kind::Fraction | Kind::Irreducible => ("N/D", "N/D is the final answer, a fraction in lowest terms"),
        Kind::List => ("[...]", "the brackets hold the final answer, separated by commas"),
        _ => ("X", "X is the final answer"),
    };
    format!(
        "Solve it step by step. The last line of your response must be \"Answer: {answer}\", where {meaning}."
    )
}
