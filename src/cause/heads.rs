//! Which head of attention what an operation gives belongs to.

use std::ops::Range;

use crate::{
    model::Config,
    numerics::kernel::{At, Attended, Job, Op, Step},
};

/// The heads of a model: how many of queries and of keys, and how wide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heads {
    heads: usize,
    kv_heads: usize,
    width: usize,
}

/// A part of what an operation gives: that of a head of queries, or what belongs to none of them.
pub type Part = Option<usize>;

impl Heads {
    /// Those of a model of this shape.
    pub fn of(config: &Config) -> Heads {
        Heads { heads: config.heads, kv_heads: config.kv_heads, width: config.head_width }
    }

    /// The parts into which what a step gives falls. Keys and values belong to no head: several heads of queries share them.
    pub fn parts(&self, step: Step) -> Vec<Part> {
        let heads = (0..self.heads).map(Some);
        match step {
            Step::Qkv => heads.chain([None]).collect(),
            Step::QueryNorm | Step::QueryRotation | Step::Scores | Step::Softmax | Step::Context => {
                heads.collect()
            }
            _ => vec![None],
        }
    }

    /// Of each output of an operation for so many tokens of one sequence, whose every piece is.
    pub(super) fn pieces<W>(&self, at: At, op: &Op<'_, W>, tokens: usize) -> Vec<Vec<(Range<usize>, Part)>> {
        let Heads { heads, kv_heads, width } = *self;
        let group = heads / kv_heads;
        let rows = |values: usize, count: usize, head: &dyn Fn(usize) -> Part| -> Vec<(Range<usize>, Part)> {
            let long = values.checked_div(count).unwrap_or(0);
            (0..count).map(|row| (row * long..(row + 1) * long, head(row))).collect()
        };
        match (at.step, op) {
            // As the tap has it: the queries of a head of keys stand together, token by token.
            (Step::Scores, Op::Product(jobs)) => {
                let of_job = |(kv_head, job): (usize, &Job<'_, W>)| {
                    rows(job.out.len(), job.rows, &|row| Some(kv_head * group + row % group))
                };
                jobs.iter().enumerate().map(of_job).collect()
            }
            (Step::Softmax, Op::Softmax { scores, seen, .. }) => {
                let head = |row: usize| Some(row / (tokens * group) * group + row % group);
                vec![rows(scores.len(), seen.len(), &head)]
            }
            (Step::Context, Op::Product(jobs)) => {
                let of_job = |(job, product): (usize, &Job<'_, W>)| {
                    rows(product.out.len(), product.rows, &|row| Some(job % kv_heads * group + row))
                };
                jobs.iter().enumerate().map(of_job).collect()
            }
            (Step::Context, Op::Attend { rows: all, .. }) => {
                let of_rows = |(job, own): (usize, &Attended<'_, W>)| {
                    rows(own.out.len(), own.rows, &|row| Some(job % kv_heads * group + row))
                };
                all.iter().enumerate().map(of_rows).collect()
            }
            (Step::Qkv, Op::Product(jobs)) => {
                let all = heads + 2 * kv_heads;
                let of_job = |job: &Job<'_, W>| {
                    rows(job.out.len(), job.out.len() / width, &|piece| {
                        Some(piece % all).filter(|head| *head < heads)
                    })
                };
                jobs.iter().map(of_job).collect()
            }
            (Step::QueryNorm, Op::Norm { out, .. }) => {
                vec![rows(out.len(), tokens * heads, &|piece| Some(piece % heads))]
            }
            (Step::QueryRotation, Op::Rotate { values, .. }) => {
                vec![rows(values.len(), tokens * heads, &|piece| Some(piece % heads))]
            }
            (_, Op::Product(jobs)) => jobs.iter().map(|job| vec![(0..job.out.len(), None)]).collect(),
            (_, Op::Lookup { out, .. } | Op::Norm { out, .. } | Op::Gate { out, .. }) => {
                vec![vec![(0..out.len(), None)]]
            }
            (_, Op::Attend { rows, .. }) => rows.iter().map(|own| vec![(0..own.out.len(), None)]).collect(),
            (_, Op::Softmax { scores, .. }) => vec![vec![(0..scores.len(), None)]],
            (_, Op::Rotate { values, .. }) => vec![vec![(0..values.len(), None)]],
            (_, Op::Add { stream, .. }) => vec![vec![(0..stream.len(), None)]],
        }
    }
}
