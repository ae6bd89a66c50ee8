//! How many of a suite's items the present weights get right, as the lab engine computes them.

use std::{num::NonZeroUsize, path::Path};

use reprocheck::{
    cell::Asking,
    engine::{Prompt, Request, in_groups, lab::Lab},
    model::Checkpoint,
    numerics::choice::Choice,
    suite::{Suite, item::Item, score::Outcome, style::Style},
    trace::Finish,
};

use crate::{
    Failure,
    data::token,
    recipe::{Recipe, Source},
};

/// Of the items, which are those of anybody who asks for no other seed.
const SEED: u64 = 0;
/// Items looked at for each one of a sample: many have no compact form.
const LOOKED_AT: usize = 12;

/// A stratum, how many of it are right, and how many there are.
pub(crate) type Stratum = (String, usize, usize);

/// Every suite of the recipe with its strata; `sample` items of each suite at most.
pub(crate) fn accuracy(
    folder: &Path,
    recipe: &Recipe,
    threads: NonZeroUsize,
    sample: usize,
) -> Result<Vec<(String, Vec<Stratum>)>, Failure> {
    let checkpoint = Checkpoint::open(folder)?;
    let mut lab = Lab::load(&checkpoint, format!("fp32/lanes:16/t{threads}").parse()?)?;
    let mut names: Vec<&str> = Vec::new();
    for share in &recipe.mixture {
        if let Source::Suite { suite, .. } = &share.source
            && !names.contains(&suite.as_str())
        {
            names.push(suite);
        }
    }
    let of_suite = |name: &str| Ok((name.to_owned(), strata(&mut lab, &Suite::open(name)?, sample)?));
    names.into_iter().map(of_suite).collect()
}

fn strata(lab: &mut Lab<'_>, suite: &Suite, sample: usize) -> Result<Vec<Stratum>, Failure> {
    let items = suite.items(SEED).take(sample * LOOKED_AT).filter(|item| item.problem.compact.is_some());
    let items: Vec<Item> = items.take(sample).collect();
    let prompts = items.iter().zip(0..).map(|(item, number)| {
        let prompt = item.problem.prompt(Style::Compact).expect("only those with a compact form are left");
        Prompt { item: number, tokens: prompt.chars().map(token).collect(), replay: None }
    });
    let request = Request {
        prefill_chunk: None,
        asking: Asking::default(),
        max_new_tokens: suite.limits.of(Style::Compact).unwrap_or_default(),
        stop_tokens: vec![token('\n')],
        stop_strings: Vec::new(),
        choice: Choice::Greedy,
        candidates: 2,
    };
    let mut samples = Vec::new();
    let together = NonZeroUsize::new(32).expect("32 is not 0");
    in_groups(lab, together, &prompts.collect::<Vec<_>>(), &request, &mut samples)?;
    let mut strata: Vec<Stratum> = Vec::new();
    for (item, sample) in items.iter().zip(&samples) {
        let score = suite.score(item, Style::Compact, &sample.text, sample.finish == Finish::Length).strict;
        let right = usize::from(score.outcome == Outcome::Correct);
        match strata.iter_mut().find(|(name, ..)| *name == item.problem.stratum) {
            Some((_, count, all)) => (*count, *all) = (*count + right, *all + 1),
            None => strata.push((item.problem.stratum.clone(), right, 1)),
        }
    }
    Ok(strata)
}
