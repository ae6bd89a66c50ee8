//! From questions to a calibration: the model answers them, and every value is looked at that its products with weights read.

use std::{collections::BTreeMap, num::NonZeroUsize};

use sha2::{Digest as _, Sha256};

use super::{RunFailure, groups::Layout, questions, request};
use crate::{
    cause::watch::{Seen, Watch},
    cell::{
        Cell, Compute,
        calibration::{self, FORM, Header},
    },
    digest::Digest,
    engine::{Engine as _, EngineError, Prompt, lab::Lab},
    model::{Checkpoint, Subject, decoder},
    numerics::{
        Numerics,
        kernel::{At, Fast, Kernel, Step},
        order::Order,
        precision::{Channels, Precision},
        smooth::{Smoothed, Transform},
    },
    plan::Plan,
    record::PROGRAM,
    suite::question::Question,
};

/// How many rows of a product say which divisors lose least.
pub const ROWS: usize = 32;

/// The matrix file of the one cell that is looked at.
pub fn matrix(precision: Precision, suites: &[String], items: u64, seed: u64, batch: usize) -> String {
    format!(
        "suites = {suites:?}\nitems = {items}\nitem-seed = {seed}\n\n[matrix]\nprecision = [\"{precision}\"]\nbatch = [{batch}]\n"
    )
}

/// Has the cell of a plan answer its questions, and gives the text of the file that says what its products read. `watch` is told how
/// many of how many questions are answered.
///
/// # Errors
///
/// When a question cannot be asked, or the model does not answer.
pub fn calibrate(
    checkpoint: &Checkpoint,
    subject: &Subject<'_>,
    plan: &Plan,
    threads: NonZeroUsize,
    transform: Option<Transform>,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<String, RunFailure> {
    let refused = |sentence: &str| RunFailure::Question(sentence.to_owned());
    let cell = *plan.cells.first().ok_or_else(|| refused("there is no cell"))?;
    let Compute::Lab(numerics) = cell.compute else { return Err(refused("the cell is not one of the lab")) };
    if numerics.minds_its_rows() {
        let sentence = "looks at all rows of a call at once, so what is measured would follow the batch: take another precision";
        return Err(refused(&format!("{} {sentence}", numerics.precision())));
    }
    let asked = questions::asked(plan, subject)?;
    let questions: Vec<Question> =
        questions::questions(plan.made_of(), &asked, &plan.generation, subject).collect::<Result<_, _>>()?;
    let failed = |error| RunFailure::Engine { cell: Box::new(cell), error };
    let kernel = fast(numerics.on_threads(threads)).map_err(failed)?;
    let kept = if transform == Some(Transform::Outliers) { ROWS } else { 0 };
    let mut lab = Lab::on(checkpoint, Watch::new(kernel, kept)).map_err(failed)?;
    answer(&mut lab, cell, plan, subject, &questions, watch).map_err(failed)?;

    let seen = lab.decoder().kernel().take();
    drop(lab);
    let places = channels(checkpoint, &seen, transform, threads).map_err(failed)?;
    let mut hasher = Sha256::new();
    for question in &questions {
        hasher.update(serde_json::to_vec(question).map_err(|error| refused(&error.to_string()))?);
        hasher.update(b"\n");
    }
    let first = asked.first();
    let header = Header {
        form: FORM,
        program: PROGRAM.to_owned(),
        model: subject.name.to_owned(),
        digest: subject.digest,
        layers: checkpoint.config.layers,
        suites: asked.iter().map(|asked| asked.name.clone()).collect(),
        items: first.map_or(0, |asked| asked.items),
        seed: first.map_or(0, |asked| asked.item_seed),
        questions: Digest(hasher.finalize().into()),
        tokens: seen.values().map(|seen| seen.count).max().unwrap_or(0),
        numerics: format!("{}/{}", numerics.precision(), numerics.order()),
        transform: transform.map(|transform| transform.to_string()),
    };
    let written = calibration::written(&header, places.iter().map(|(layer, step, of)| (*layer, *step, of)));
    written.map_err(|error| refused(&error.to_string()))
}

fn fast(numerics: Numerics) -> Result<Fast, EngineError> {
    Fast::new(numerics)
        .map_err(|error| EngineError::Environment(format!("cannot start threads: {error}; ask for fewer")))
}

fn answer<K: Kernel>(
    lab: &mut Lab<'_, K>,
    cell: Cell,
    plan: &Plan,
    subject: &Subject<'_>,
    questions: &[Question],
    watch: &mut dyn FnMut(usize, usize),
) -> Result<(), EngineError> {
    let mut layout = Layout::default();
    questions.iter().for_each(|question| layout.add(question));
    let mut samples = Vec::new();
    for group in layout.groups(cell.serving.grouping, cell.serving.batch) {
        let of = |item: &u64| &questions[*item as usize];
        let prompt = |item: &u64| Prompt { item: *item, tokens: of(item).tokens.clone(), replay: None };
        let prompts: Vec<Prompt> = group.iter().map(prompt).collect();
        lab.generate(&prompts, &request(cell, of(&group[0]), &plan.generation, subject), &mut samples)?;
        watch(samples.len(), questions.len());
    }
    Ok(())
}

/// The channels of every product of a model, of which this was seen, with their divisors where a transform finds some.
///
/// # Errors
///
/// When a product was not seen, or its weights cannot be read.
pub fn channels(
    checkpoint: &Checkpoint,
    seen: &BTreeMap<At, Seen>,
    transform: Option<Transform>,
    threads: NonZeroUsize,
) -> Result<Vec<(usize, Step, Channels)>, EngineError> {
    let unsupported = |sentence: String| EngineError::Unsupported(sentence);
    let numerics = Numerics::new(Precision::Fp32, Order::SEQUENTIAL, threads);
    let kernel = fast(numerics.map_err(|error| unsupported(error.to_string()))?)?;
    let mut places = Vec::new();
    for layer in 0..checkpoint.config.layers {
        for step in Step::PRODUCTS {
            let at = At::layer(layer, step);
            let seen =
                seen.get(&at).ok_or_else(|| unsupported(format!("{at} read nothing: ask questions")))?;
            let mut channels = seen.channels.clone();
            if let Some(transform) = transform.filter(|_| Step::BEHIND_NORMS.contains(&step)) {
                let (rows, weights) = (seen.rows(), decoder::weights(checkpoint, layer, step)?);
                let smoothed =
                    Smoothed { kernel: &kernel, channels: &channels, rows: &rows, weights: &weights };
                channels.smooth = Some(kernel.workers().within(|| smoothed.by(transform)));
            }
            places.push((layer, step, channels));
        }
    }
    Ok(places)
}
