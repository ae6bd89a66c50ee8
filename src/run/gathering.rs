//! A cell on its way to its trace: groups of samples in, in the order of the cell, whoever has answered them.

use std::path::Path;

use super::RunFailure;
use crate::{
    cell::{Cell, Compute},
    digest::Digest,
    model::Subject,
    numerics::{
        Numerics, Reduction,
        at::{At, Site},
        functions::Called,
        order::Launch,
    },
    record::{Done, Elapsed},
    store::{
        StoreError,
        partial::{Maker, Traits},
        trace::Writer,
    },
    suite::question::Question,
    trace::{Finish, Launches, Sample, Sight},
};

/// What is known of a cell so far.
pub(super) struct Gathering {
    writer: Writer,
    launches: Launches,
    unlike_copies: u64,
    tokens: u64,
}

impl Gathering {
    /// Of no group yet, written in a folder that nobody else writes to.
    pub(super) fn new(own: &Path, sight: Sight) -> Result<Gathering, StoreError> {
        let writer = Writer::new(own, sight)?;
        Ok(Gathering { writer, launches: Launches::none(), unlike_copies: 0, tokens: 0 })
    }

    /// Adds a group: its questions, and what was answered.
    pub(super) fn add(&mut self, group: &[Question], samples: &[Sample]) -> Result<(), StoreError> {
        self.launches.add(samples);
        let launched = samples.iter().filter_map(|sample| sample.launch.as_ref());
        self.unlike_copies += launched.filter(|launch| launch.has_unlike_copy).count() as u64;
        for (question, sample) in group.iter().zip(samples) {
            let scores = question.score(&sample.text, sample.finish == Finish::Length);
            self.writer.add(sample, scores)?;
        }
        self.tokens += samples.iter().map(|sample| sample.steps.len() as u64).sum::<u64>();
        Ok(())
    }

    /// Leaves the trace in a store, of what answered so, in so many milliseconds.
    pub(super) fn finish(self, store: &Path, maker: Maker, milliseconds: u64) -> Result<Done, StoreError> {
        let Gathering { writer, mut launches, unlike_copies, tokens } = self;
        let Maker { cell, environment, traits: Traits { sums, functions, cost }, .. } = maker;
        if let Compute::Lab(numerics) = cell.compute {
            launches.tree = Some(tree(sums, numerics, &launches));
            launches.functions = functions;
        }
        let written = writer.finish(store)?;
        Ok(Done {
            cell,
            trace: written.digest,
            root: written.root,
            launches,
            unlike_copies,
            environment,
            cost,
            elapsed: Elapsed { milliseconds, tokens },
        })
    }
}

/// What of a model stands with a cell that is done.
pub(super) fn traits(subject: &Subject<'_>, cell: Cell) -> Result<Traits, RunFailure> {
    let failed = |error: crate::engine::EngineError| RunFailure::Engine { cell: Box::new(cell), error };
    let functions = match cell.compute {
        Compute::Lab(numerics) => functions(subject, numerics),
        _ => None,
    };
    let cost = super::cost(subject, cell).map_err(failed)?;
    Ok(Traits { sums: subject.sums, functions, cost })
}

/// By which trees the sums of every length that the weights have are added in the largest of these launches.
pub(super) fn tree(sums: [usize; 4], numerics: Numerics, launches: &Launches) -> Digest {
    let threads = numerics.threads().get();
    let launch = |rows: Option<usize>| Launch { rows: rows.unwrap_or(1).max(1), threads };
    let largest = [launches.prefill_rows, launches.decode_rows].map(launch);
    // A matrix unit adds by the format of what it multiplies, and that may differ from place to place.
    let places = if numerics.order().is_of_unit() {
        numerics.products().collect()
    } else {
        vec![At::alone(Site::Linear)]
    };
    // The widths behind attention and behind the gate are those that ranks share.
    let [width, inner, heads, head] = sums;
    let ranks = numerics.parallel().ranks();
    let sums = [width, inner / ranks, heads / ranks, head];
    let orders = places.into_iter().map(|at| numerics.order_of(Reduction::Product(at)));
    let prints = orders.map(|order| sums.map(|terms| largest.map(|launch| order.fingerprint(terms, launch))));
    Digest::of(prints.collect::<Vec<_>>().as_flattened().as_flattened().as_flattened())
}

/// What the elementary functions are that the model calls; nothing where all of them are exact.
pub(super) fn functions(subject: &Subject<'_>, numerics: Numerics) -> Option<Digest> {
    let of_gates = subject.shape.and_then(|shape| shape.activation.called());
    let called = Called::BY_ALL.into_iter().chain(of_gates);
    let meanings: Vec<_> = called.map(|called| numerics.functions().meaning(called)).collect();
    let is_exact = meanings.iter().all(Option::is_none);
    (!is_exact).then(|| Digest::of(&serde_json::to_vec(&meanings).expect("texts are JSON")))
}
