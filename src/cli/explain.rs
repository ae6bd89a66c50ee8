//! `reprocheck explain`: what a name means, shown rather than told.

use std::{io::Write, num::NonZeroUsize, thread};

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::{Ended, Exit, named, plan::Matrix, progress::Readings, up_to};
use crate::{
    cell::map,
    numerics::{
        Numerics, Reduction,
        error::ProductError,
        functions::{Called, FUNCTIONS, Functions},
        kernel::{At, Fast},
        order::{Launch, Order, Rule},
        precision::{CodeSums, Precision, Product, Site, Storage},
        quantizer::{Quantizer, Side, Span},
        reveal::{RevealError, reveal},
        survey::{PARTS, Survey},
    },
    plan::{
        Plan,
        gate::{Comparison, Gate},
    },
    report::words::{grouped, plural, wrapped, wrapped_after},
    suite::{Suite, definition::Sizes},
};

#[derive(Subcommand, Debug)]
pub(super) enum Explain {
    /// Draw the tree by which an order adds
    Order(ExplainOrder),
    /// Print a precision's rounding points and the error of one product
    Precision(ExplainPrecision),
    /// Say what the elementary functions are that a model calls, and how far one is from the exact one over all inputs
    Functions(ExplainFunctions),
    /// Say what a gate of a matrix file compares, and when it holds
    Gate(ExplainGate),
    /// Say what a suite measures, where it comes from, and what its strata look like
    Suite(ExplainSuite),
}

#[derive(Args, Debug)]
pub(super) struct ExplainSuite {
    /// The suite, see `reprocheck list suites`, or a path with a slash to your own
    name: String,
}

#[derive(Args, Debug)]
pub(super) struct ExplainGate {
    /// Its name, or the number of its line; all gates where it is left out
    name: Option<String>,
    #[command(flatten)]
    matrix: Matrix,
}

#[derive(Args, Debug)]
pub(super) struct ExplainOrder {
    /// The order, see `reprocheck list orders`
    name: Order,
    /// How many terms
    #[arg(long, default_value = "8", value_parser = up_to(MOST_TERMS))]
    terms: usize,
    /// Whose products are added: some precisions add groups of them exactly first, and a matrix unit adds by what it multiplies.
    /// fp32 if left out, and fp16 for a matrix unit
    #[arg(long, value_parser = named::<Precision>)]
    precision: Option<Precision>,
    /// Rows of the call
    #[arg(long, default_value = "1", value_parser = up_to(MOST_TERMS))]
    rows: usize,
    /// Threads that share the call
    #[arg(long, default_value = "1", value_parser = up_to(MOST_TERMS))]
    threads: usize,
}

#[derive(Args, Debug)]
pub(super) struct ExplainFunctions {
    /// A setting of the axis `functions`, such as `poly:5` or `program:FILE`; all of them where it is left out
    #[arg(value_parser = named::<Functions>)]
    name: Option<Functions>,
    /// One of its functions, to be compared with the exact one over all 2^32 inputs, on all cores
    #[arg(value_parser = named::<Called>)]
    function: Option<Called>,
}

#[derive(Args, Debug)]
pub(super) struct ExplainPrecision {
    /// The precision, see `reprocheck list precisions`
    #[arg(value_parser = named::<Precision>)]
    name: Precision,
}

const MOST_TERMS: usize = 4096;
/// Wider pictures fit no terminal, and more probes take no moment.
const MOST_DRAWN: usize = 64;

impl Explain {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        match self {
            Explain::Order(order) => order.run(out),
            Explain::Precision(precision) => precision.run(out),
            Explain::Functions(functions) => functions.run(out),
            Explain::Gate(gate) => gate.run(out),
            Explain::Suite(suite) => suite.run(out),
        }
    }
}

impl ExplainOrder {
    fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let ExplainOrder { name: order, terms, precision, .. } = *self;
        let usual = if order.is_of_unit() { Precision::Fp16 } else { Precision::Fp32 };
        let precision = precision.unwrap_or(usual);
        let launch = Launch { rows: self.rows, threads: self.threads };
        let numerics = Numerics::new(precision, order, NonZeroUsize::MIN).map_err(Ended::usage)?;
        let at = At::alone(precision.own_site());
        let (entry, tree) = (order.entry(), numerics.tree(at, launch, terms));
        writeln!(out, "{order}: {}", entry.sentence)?;
        writeln!(out, "Found in {}.", entry.found_in)?;
        writeln!(out)?;
        writeln!(out, "terms   {}", grouped(terms as u64))?;
        let exact = numerics.recipe(at).exact_terms(terms);
        if exact >= terms.max(2) {
            writeln!(out, "group   all terms are added exactly: there is no other order to show")?;
        } else if exact > 1 {
            let exact = grouped(exact as u64);
            writeln!(
                out,
                "group   {exact} terms are added exactly; times their scales, that is a term of the order's"
            )?;
        }
        if let Rule::Unit(unit) = numerics.order_of(Reduction::Product(at)).rule() {
            writeln!(out, "block   {}", unit.sentence())?;
        }
        writeln!(out, "depth   {} for the deepest term", plural(tree.depth() as u64, "addition"))?;
        if order.depends_on_launch() {
            let Launch { rows, threads } = launch;
            writeln!(
                out,
                "launch  DEPENDS on it: this is the tree for {} and {}",
                plural(rows as u64, "row"),
                plural(threads as u64, "thread")
            )?;
        } else {
            writeln!(
                out,
                "launch  does not depend on it: this is the tree in any batch, on any number of threads"
            )?;
        }
        writeln!(out, "tree    {tree}")?;
        if terms > MOST_DRAWN {
            writeln!(out, "\nNo picture of more than {MOST_DRAWN} terms.")?;
            return Ok(Exit::Held);
        }
        writeln!(out, "\n{}", tree.picture().trim_end())?;

        let kernel = Fast::new(numerics).map_err(Ended::environment)?;
        let revealed = match reveal(&kernel, precision.own_site(), launch, terms) {
            Err(error @ RevealError::NoRoom { .. }) => {
                writeln!(out, "\nNothing was revealed: {error}.")?;
                return Ok(Exit::Held);
            }
            revealed => revealed.map_err(Ended::failed)?,
        };
        let expected = numerics.tree_seen_by_masks(at, launch, terms);
        if revealed != expected {
            let isa = kernel.isa();
            return Err(Ended::failed(anyhow!(
                "masks through the {isa} kernel reveal {revealed}, not the declared tree: please report this bug"
            )));
        }
        let isa = kernel.isa();
        writeln!(
            out,
            "\nMasks sent through this machine's kernel ({isa}, {precision}) reveal the same tree."
        )?;
        if expected != tree.canonical() {
            writeln!(out, "(To masks it looks flat: compensation brings back what each addition loses.)")?;
        }
        Ok(Exit::Held)
    }
}

impl ExplainPrecision {
    fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let precision = self.name;
        let entry = precision.entry();
        writeln!(out, "{precision}: {}", entry.sentence)?;
        writeln!(out, "Rounds: {}.", entry.rounds)?;
        if !entry.parameters.is_empty() {
            writeln!(out, "Parameters: {}.", entry.parameters.join(", "))?;
        }
        if let Precision::Map(map) = precision {
            writeln!(out, "\nplaces\n  {}", map::written(precision).trim_end().replace('\n', "\n  "))?;
            let parts: Vec<_> = map.parts().iter().skip(1).map(ToString::to_string).collect();
            let sentence = format!(
                "What follows is of {}; `reprocheck explain precision` says the same of {}.",
                map.base(),
                parts.join(", ")
            );
            writeln!(out, "\n{}", wrapped(&sentence, LINE))?;
        }
        for (site, name) in
            [(Site::Linear, "linear layers"), (Site::Attention, "attention"), (Site::Head, "logits")]
        {
            let recipe = precision.recipe(At::alone(site));
            let product = match recipe.product {
                Product::Fused => "fused multiply-add".to_owned(),
                Product::LMul(product) => format!(
                    "L-Mul, offset {:#010x}, correction 2^-{}",
                    product.offset(),
                    product.correction_exponent()
                ),
                Product::Int8(threshold) => {
                    format!("8-bit integers, fp16 from magnitude {} on", threshold.value())
                }
                Product::Scaled(_) => match recipe.code_sums() {
                    Some(CodeSums::InOrder) => {
                        "fused multiply-add of codes, their sum times both scales".to_owned()
                    }
                    Some(CodeSums::Groups) => {
                        "exact sums of each group's codes, times both scales".to_owned()
                    }
                    _ => "exact sum of codes, times both scales".to_owned(),
                },
            };
            writeln!(out, "\n{name}")?;
            let stored = recipe.stored_bits().map(|bits| format!("stored in {bits} bits"));
            let stored = stored.unwrap_or_else(|| "stored as in the model's file".to_owned());
            let right = match recipe.weights {
                Storage::Codes(quantizer) => quantizer.name(Side::Weights),
                weights => weights.format().to_string(),
            };
            let left = match recipe.product {
                Product::Scaled(quantizer) => quantizer.name(Side::Activations),
                _ => recipe.activations.to_string(),
            };
            writeln!(out, "  right side   {right}, {stored}")?;
            writeln!(out, "  left side    {left}")?;
            writeln!(out, "  product      {product}")?;
            writeln!(out, "  running sum  {}", recipe.sum)?;
            writeln!(out, "  result       {}", recipe.result)?;
        }
        let own = precision.recipe(At::alone(precision.own_site())).product;
        if let Product::Scaled(Quantizer { span: Span::Measured(_), .. }) = own {
            let sentence = "Every product has limits of its own, which its calibration says, so the error of one alone cannot be told.";
            writeln!(out, "\n{}", wrapped(sentence, LINE))?;
            return Ok(Exit::Held);
        }
        let errors = ProductError::of(precision).map_err(Ended::environment)?;
        writeln!(out, "\nrelative error of one product, x and y spread evenly over 1 to 2")?;
        writeln!(out, "                          mean   mean size     largest")?;
        for (name, error) in
            [("of the rounded factors", errors.of_rounded), ("of the factors", errors.of_given)]
        {
            writeln!(
                out,
                "{name:22} {:>+8.4} % {:>8.4} % {:>9.4} %",
                100.0 * error.mean,
                100.0 * error.mean_size,
                100.0 * error.largest
            )?;
        }
        if errors.scaled {
            writeln!(out, "(Codes are scaled by the largest entry that shares their scale, here 2.)")?;
        }
        Ok(Exit::Held)
    }
}

impl ExplainFunctions {
    fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        match (self.name, self.function) {
            (None, _) => {
                for entry in FUNCTIONS {
                    let sentence = wrapped(entry.sentence, LINE - 14).replace('\n', "\n              ");
                    writeln!(out, "{:<14}{sentence}", entry.name)?;
                }
            }
            (Some(functions), None) => {
                writeln!(out, "function   called by       under {functions}")?;
                for called in Called::ALL {
                    let meaning = match (functions.meaning(called), functions.program()) {
                        (None, _) => "exact".to_owned(),
                        (Some(_), Some(_)) => "a program".to_owned(),
                        (Some(meaning), None) => meaning,
                    };
                    writeln!(out, "{called:<10} {:<15} {meaning}", called.by())?;
                }
                let sentence = format!(
                    "Name a function behind it, as in `reprocheck explain functions {functions} exp`, to compare all its values with the exact \
                     ones."
                );
                writeln!(out, "\n{}", wrapped(&sentence, LINE))?;
            }
            (Some(functions), Some(called)) => {
                let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
                let mut progress = Readings::of("part");
                let survey = Survey::new(functions, called, threads, |done| progress.show(done, PARTS));
                drop(progress);
                surveyed(functions, called, &survey.map_err(Ended::environment)?, out)?;
            }
        }
        Ok(Exit::Held)
    }
}

fn surveyed(
    functions: Functions,
    called: Called,
    survey: &Survey,
    out: &mut impl Write,
) -> Result<(), Ended> {
    writeln!(out, "{called} of {functions} beside the exact one, over all 2^32 inputs\n")?;
    writeln!(out, "error, in ulp                  inputs         share")?;
    let all = survey.compared();
    for (bucket, count) in survey.errors.iter().enumerate().filter(|(_, count)| **count > 0) {
        let errors = match Survey::between(bucket) {
            (least, most) if least == most => grouped(least),
            (least, most) => format!("{} to {}", grouped(least), grouped(most)),
        };
        let share = 100.0 * *count as f64 / all as f64;
        writeln!(out, "{errors:<30} {:>13}  {share:>10.6} %", grouped(*count))?;
    }
    writeln!(out, "\nmean      {:.6} ulp", survey.sum as f64 / all as f64)?;
    let beside = |x: f32| {
        let (own, exact) = (functions.of(called, x), called.exact(x));
        format!("{own:e} ({:#010x}), exact {exact:e} ({:#010x})", own.to_bits(), exact.to_bits())
    };
    match survey.largest {
        (0, _) => writeln!(out, "largest   0 ulp")?,
        (error, bits) => {
            let x = f32::from_bits(bits);
            writeln!(out, "largest   {} ulp, at {x:e} ({bits:#010x})", grouped(error.into()))?;
            writeln!(out, "          {}", beside(x))?;
        }
    }
    let [lost, made] = survey.nan.map(grouped);
    writeln!(out, "NaN       {lost} where the exact one is a number, no NaN {made} where it is")?;
    writeln!(out, "zero      {} of the other sign", grouped(survey.zeros))?;
    match (survey.turns, survey.turn) {
        (None, _) => writeln!(out, "order     it rises and falls, so nothing is said of that")?,
        (Some(turns), Some(first)) => {
            let x = f32::from_bits(first);
            let places = plural(turns, "place");
            writeln!(out, "order     it turns back in {places}, the first behind {x:e} ({first:#010x})")?;
        }
        (Some(_), None) => writeln!(out, "order     it rises and falls as the exact one")?,
    }
    writeln!(out, "\nspecial values")?;
    let tiny = f32::from_bits(1);
    for x in [f32::NAN, f32::NEG_INFINITY, f32::MIN, -tiny, -0.0, 0.0, tiny, f32::MAX, f32::INFINITY] {
        writeln!(out, "  {x:>13e}  {}", beside(x))?;
    }
    Ok(())
}

/// So wide that text fits a terminal of 80 columns.
const WIDTH: usize = 78;
/// The columns themselves.
const LINE: usize = 80;

impl ExplainGate {
    fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let plan = self.matrix.plan()?;
        let asked = |gate: &&Gate| {
            self.name.as_ref().is_none_or(|name| gate.name == *name || gate.line.to_string() == *name)
        };
        let gates: Vec<_> = plan.gates.iter().filter(asked).collect();
        if gates.is_empty() {
            let names: Vec<_> =
                plan.gates.iter().map(|gate| format!("`{}` (line {})", gate.name, gate.line)).collect();
            let file = self.matrix.file.display();
            return Err(Ended::usage(match (&self.name, names.is_empty()) {
                (Some(name), false) => {
                    anyhow!("{file} has no gate `{name}`: name one of {}", names.join(", "))
                }
                _ => anyhow!("{file} has no gate: add a [[gate]]"),
            }));
        }
        for (number, gate) in gates.into_iter().enumerate() {
            if number > 0 {
                writeln!(out)?;
            }
            explain_gate(gate, &plan, out)?;
        }
        Ok(Exit::Held)
    }
}

fn explain_gate(gate: &Gate, plan: &Plan, out: &mut impl Write) -> Result<(), Ended> {
    /// So many groups or cells are shown.
    const SHOWN: usize = 3;
    writeln!(out, "{} (line {})", gate.name, gate.line)?;
    let about = plan.cells.iter().filter(|cell| gate.filter.matches(cell));
    let compared: Vec<String> = match &gate.comparison {
        Comparison::Within(_) => {
            let groups = gate.groups(&plan.cells).into_iter().filter(|group| group.len() > 1);
            let names = |group: Vec<_>| group.iter().map(ToString::to_string).collect::<Vec<_>>();
            groups.map(names).map(|names| format!("{} with {}", names[1..].join(", "), names[0])).collect()
        }
        Comparison::Reference => {
            let references = plan.references();
            let pairs = about.filter_map(|cell| Some((cell, references.of(*cell)?)));
            pairs.map(|(cell, reference)| format!("{cell} with the reference, {reference}")).collect()
        }
        Comparison::Baseline => about.map(|cell| format!("{cell} with what was approved of it")).collect(),
    };
    writeln!(out, "\ncompares")?;
    for sentence in compared.iter().take(SHOWN) {
        writeln!(out, "{}", wrapped_after("  ", sentence, LINE))?;
    }
    if compared.len() > SHOWN {
        writeln!(out, "  and {} more", compared.len() - SHOWN)?;
    }
    writeln!(out, "\nholds if")?;
    for limit in &gate.limits {
        writeln!(out, "{}", wrapped_after("  ", &limit.sentence(), LINE))?;
    }
    let unknown = match &gate.comparison {
        Comparison::Within(_) => {
            "a cell has not run or does not show enough, or no launch on record differs along an axis that was to vary: then nothing \
             was tested"
        }
        Comparison::Reference => "a cell or the reference has not run, or does not show enough",
        Comparison::Baseline => {
            "a cell has not run, was never approved or does not show enough, or another machine's engine would be compared"
        }
    };
    writeln!(out, "\nis unknown, which never counts as a pass, if\n{}", wrapped_after("  ", unknown, LINE))?;
    Ok(())
}

impl ExplainSuite {
    fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let suite = Suite::open(&self.name)?;
        let Suite { name, version, title, measures, sources, .. } = &suite;
        writeln!(out, "{}\n", wrapped(&format!("{name}, version {version}: {title}"), WIDTH))?;
        let in_one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        writeln!(out, "{}", wrapped(&in_one_line(measures), WIDTH))?;
        if !sources.is_empty() {
            writeln!(out, "\nwhere it comes from")?;
        }
        for source in sources {
            let source = in_one_line(source);
            writeln!(out, "  {}", wrapped(&source, WIDTH - 2).replace('\n', "\n  "))?;
        }
        let Sizes { quick, std, full } = suite.sizes;
        writeln!(out, "\nmade by   {}", suite.maker())?;
        writeln!(out, "items     {} quick, {} std, {} full", grouped(quick), grouped(std), grouped(full))?;
        for style in suite.styles() {
            let most = suite.limits.of(style).unwrap_or_default();
            writeln!(out, "style     {style}, with up to {} new tokens", grouped(most as u64))?;
        }
        let strata = suite.strata(0);
        let named = wrapped(&format!("{}: {}", strata.len(), some_of(&strata)), WIDTH - 10);
        writeln!(out, "strata    {}", named.replace('\n', "\n          "))?;
        if let Some(item) = suite.items(0).next() {
            writeln!(out, "\nfor example")?;
            for line in item.problem.question.lines() {
                // What is short enough is left alone: it may be code.
                let line = if line.len() < WIDTH { line.to_owned() } else { wrapped(line, WIDTH - 2) };
                writeln!(out, "{}", format!("  {}", line.replace('\n', "\n  ")).trim_end())?;
            }
            writeln!(out, "  {}: {}", item.problem.answer.kind, item.problem.answer.text)?;
        }
        Ok(Exit::Held)
    }
}

/// The first and the last of a list that may be long.
fn some_of(names: &[String]) -> String {
    match names {
        [first @ .., last] if names.len() > 8 => format!("{}, ..., {last}", first[..6].join(", ")),
        _ => names.join(", "),
    }
}
