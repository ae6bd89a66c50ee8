//! From suites and a model to what the model is asked.

use std::collections::BTreeMap;

use super::RunFailure;
use crate::{
    cell::Asking,
    engine::{self, Prompt, Request},
    model::{Subject, chat::Message},
    numerics::choice::Choice,
    plan::{self, Generation, Plan},
    record::Asked,
    suite::{Suite, item, question::Question, style::Style},
};

/// How each suite of a plan is asked of a model.
pub(super) fn asked(plan: &Plan, subject: &Subject<'_>) -> Result<Vec<Asked>, RunFailure> {
    let of_suite = |asked: &plan::Asked| {
        Ok(Asked {
            name: asked.suite.name.clone(),
            version: asked.suite.version,
            items: asked.items,
            item_seed: asked.item_seed,
            style: style(asked, subject)?,
            shots: asked.shots,
        })
    };
    plan.suites.iter().map(of_suite).collect()
}

/// The style that the file asks for, or the one that suits the model.
fn style(asked: &plan::Asked, subject: &Subject<'_>) -> Result<Style, RunFailure> {
    let (suite, model) = (&asked.suite, subject.name);
    let styles = suite.styles();
    let style = match asked.style {
        Some(style) => style,
        None if subject.is_compact => Style::Compact,
        None if subject.chat.is_some() && styles.contains(&Style::Chat) => Style::Chat,
        None => Style::Completion,
    };
    let refused = |sentence: String| Err(RunFailure::Question(sentence));
    if !styles.contains(&style) {
        return refused(format!(
            "{} is not asked in the {style} style, and that is what `{model}` knows: leave the suite out, or set `style`",
            suite.name
        ));
    }
    if style == Style::Chat && subject.chat.is_none() {
        return refused(format!(
            "{} is asked as a chat, and `{model}` has no chat template: set style = \"completion\"",
            suite.name
        ));
    }
    if subject.is_compact && style != Style::Compact {
        return refused(format!(
            "{} is asked in the {style} style, and `{model}` knows the compact one alone: take `style` out",
            suite.name
        ));
    }
    Ok(style)
}

/// Every question of these suites, in their order, each asked as it says.
pub(super) fn questions<'a>(
    suites: impl IntoIterator<Item = &'a Suite, IntoIter: 'a>,
    asked: &'a [Asked],
    generation: &'a Generation,
    subject: &'a Subject<'a>,
) -> impl Iterator<Item = Result<Question, RunFailure>> + 'a {
    let of_suite = move |(suite, asked): (&'a Suite, &'a Asked)| {
        let shown = move |item: item::Item| {
            Some((suite.asked(&item, asked.item_seed, asked.style, asked.shots)?, item))
        };
        let items = suite.items(asked.item_seed).filter_map(shown).take(asked.items as usize);
        items.map(move |(shown, item)| (suite, asked.style, shown, item))
    };
    suites.into_iter().zip(asked).flat_map(of_suite).zip(0..).map(
        move |((suite, style, shown, item), number)| {
            question(generation, subject, suite, style, &shown, item, number)
        },
    )
}

fn question(
    generation: &Generation,
    subject: &Subject<'_>,
    suite: &Suite,
    style: Style,
    shown: &item::Asked,
    item: item::Item,
    number: u64,
) -> Result<Question, RunFailure> {
    let wrong = |error: &dyn std::fmt::Display| RunFailure::Question(format!("{}: {error}", item.id));
    let (prompt, add_special) = prompt(subject, style, shown).map_err(|error| wrong(&error))?;
    let tokenizer = subject.tokenizer.ok_or_else(|| {
        let name = subject.name;
        RunFailure::Question(format!("{name} has no tokenizer.json, and questions are texts: add the file"))
    })?;
    let tokens = tokenizer.encode(&prompt, add_special).map_err(|error| wrong(&error))?;
    let limit = suite.limits.of(style).unwrap_or_default();
    let max_new_tokens = generation.max_new_tokens.unwrap_or(limit);
    let request = Request {
        prefill_chunk: None,
        asking: Asking::default(),
        max_new_tokens,
        stop_tokens: Vec::new(),
        stop_strings: Vec::new(),
        choice: Choice::Greedy,
        candidates: generation.candidates,
    };
    // What no engine could read is said before any runs.
    let asked = Prompt { item: number, tokens, replay: None };
    engine::check(std::slice::from_ref(&asked), &request, subject.vocabulary, subject.positions)
        .map_err(|error| wrong(&error))?;
    Ok(Question {
        item: number,
        suite: suite.name.clone(),
        id: item.id,
        stratum: item.problem.stratum,
        cluster: item.problem.cluster,
        prompt,
        tokens: asked.tokens,
        max_new_tokens,
        stop: suite.stop(style).iter().map(|stop| (*stop).to_owned()).collect(),
        answer: item.problem.answer,
        read_as: suite.read_as(style),
    })
}

/// The text that a model reads, and whether its tokenizer is to add special tokens.
fn prompt(
    subject: &Subject<'_>,
    style: Style,
    shown: &item::Asked,
) -> Result<(String, bool), Box<dyn std::error::Error>> {
    let template = match (subject.chat, style) {
        (Some(template), Style::Chat) => template,
        _ => return Ok((shown.text(), true)),
    };
    let turns = |(question, answer): &(String, String)| {
        [Message::new("user", question), Message::new("assistant", answer)]
    };
    let mut messages: Vec<_> = shown.shots.iter().flat_map(turns).collect();
    messages.push(Message::new("user", &shown.prompt));
    Ok((template.render(&messages, true, &BTreeMap::new())?, false))
}
