//! The generators: each a file, each a row here.

pub mod carry_chain;
pub mod digit_ops;
pub mod divmod;
pub mod exec_trace;
pub mod expr_chain;
mod expression;
pub mod gpt3_arith;
pub mod list_stats;
pub mod mul_ladder;
pub mod number_theory;
pub mod nupa_core;
pub mod perturb_num;
pub mod sequence_next;
pub mod street_approx;
pub mod template;
pub mod tok_chunk;
pub mod word_checklist;
pub mod word_symbolic;

use std::fmt::Display;

use serde::{Deserialize, de::DeserializeOwned};
use toml::Spanned;

use super::{
    Suite,
    definition::{DefinitionError, parameters, table},
    problem::Generator,
};

/// Makes a generator from the text of a suite's file.
type Make = fn(&str) -> Result<Box<dyn Generator>, DefinitionError>;

/// Every generator, by the name that a suite's file gives.
pub const GENERATORS: &[(&str, Make)] = &[
    ("carry_chain", make::<carry_chain::CarryChain>),
    ("digit_ops", make::<digit_ops::DigitOps>),
    ("divmod", make::<divmod::Divmod>),
    ("exec_trace", make::<exec_trace::ExecTrace>),
    ("expr_chain", make::<expr_chain::ExprChain>),
    ("gpt3_arith", make::<gpt3_arith::Gpt3Arith>),
    ("list_stats", make::<list_stats::ListStats>),
    ("mul_ladder", make::<mul_ladder::MulLadder>),
    ("number_theory", make::<number_theory::NumberTheory>),
    ("nupa_core", make::<nupa_core::NupaCore>),
    ("perturb_num", make::<perturb_num::PerturbNum>),
    ("sequence_next", make::<sequence_next::SequenceNext>),
    ("street_approx", make::<street_approx::StreetApprox>),
    ("tok_chunk", make::<tok_chunk::TokChunk>),
    ("word_checklist", word_checklist),
    ("word_symbolic", make::<word_symbolic::WordSymbolic>),
];

fn make<G: Generator + DeserializeOwned + 'static>(
    text: &str,
) -> Result<Box<dyn Generator>, DefinitionError> {
    Ok(Box::new(parameters::<G>(text)?))
}

/// Its templates are those of another suite.
fn word_checklist(text: &str) -> Result<Box<dyn Generator>, DefinitionError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        templates: Spanned<String>,
    }
    let (_, Parameters { templates }) = table(text)?;
    let wrong = |problem: String| DefinitionError::new(Some(templates.span()), problem);
    let (file, text) = Suite::file(templates.get_ref()).map_err(|error| wrong(error.to_string()))?;
    let (_, templates) =
        table(&text).map_err(|error| wrong(error.in_file(&file.display().to_string(), &text)))?;
    let generator = word_checklist::WordChecklist::new(templates);
    generator.check().map_err(wrong)?;
    Ok(Box::new(generator))
}

/// The generator of a name.
pub(super) fn find(name: &Spanned<String>) -> Result<(&'static str, Make), DefinitionError> {
    let known = GENERATORS.iter().find(|(known, _)| known == name.get_ref());
    known.copied().ok_or_else(|| {
        let names: Vec<_> = GENERATORS.iter().map(|(name, _)| *name).collect();
        let problem = format!("`{}` is not a generator: write one of {}", name.get_ref(), names.join(", "));
        DefinitionError::new(Some(name.span()), problem)
    })
}

/// From a number to another, both included: a parameter of many generators.
#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Range<T> {
    from: T,
    to: T,
}

impl<T: Copy + PartialOrd + Display + TryInto<usize>> Range<T> {
    /// How many numbers there are.
    fn count(self) -> usize {
        let number = |end: T| end.try_into().unwrap_or(0);
        number(self.to) - number(self.from) + 1
    }

    fn check(self, name: &str, low: T, high: T) -> Result<(), String> {
        if low <= self.from && self.from <= self.to && self.to <= high {
            return Ok(());
        }
        let Range { from, to } = self;
        Err(format!(
            "`{name}` goes from {from} to {to}: stay between {low} and {high}, the smaller number first"
        ))
    }
}
