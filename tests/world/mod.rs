//! Evidence that is made for the purpose: a matrix file's cells and gates, and whatever their traces shall hold.

#![allow(dead_code, reason = "no test needs all of it")]

use std::path::Path;

use reprocheck::{
    compare::Output,
    engine::environment::Environment,
    numerics::choice::Candidate,
    plan::Plan,
    record::{About, Asked, Model},
    report::{Missing, Report},
    suite::{
        answer::{Answer, Kind},
        question::Question,
        style::Style,
    },
    trace::{Digest, Launches, Token, chain},
    verdict::{
        Outcome, Ruling,
        evidence::{Evidence, Known},
        judge, worst,
    },
};

/// What a trace holds of an item: its tokens, each with what stands for its logits, and its answer, of which 1 is right.
pub(crate) type Made = (Vec<(u32, u8)>, u8);

/// Cells of which each has the trace of its number, unless they are the same; some have not run.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) traces: Vec<Option<usize>>,
    pub(crate) launches: Vec<Launches>,
    /// The text of every output, and of every token.
    pub(crate) text: String,
    /// What the model, the matrix file and every item are called.
    pub(crate) name: String,
}

const HEAD: &str = "suites = [\"carry_chain\"]\n";

impl World {
    /// Of a matrix without suites; every cell has a trace of its own and launches like no other.
    pub(crate) fn new(matrix: &str) -> World {
        let text = HEAD.to_owned() + matrix;
        let plan =
            Plan::read(Path::new("m.toml"), &text, None).unwrap_or_else(|problems| panic!("{problems}"));
        let launches = |at: usize| Launches {
            prefill_rows: at,
            decode_rows: at,
            chunks: at,
            threads: at,
            groups: Digest::of(&[at as u8]),
            tree: None,
        };
        let count = plan.cells.len();
        World {
            plan,
            traces: (0..count).map(Some).collect(),
            launches: (0..count).map(launches).collect(),
            text: String::new(),
            name: "m".to_owned(),
        }
    }

    pub(crate) fn about(&self, items: u64) -> About {
        About {
            matrix: format!("{}.toml", self.name),
            profile: None,
            model: Model {
                name: self.name.clone(),
                origin: "nowhere".to_owned(),
                architecture: "none".to_owned(),
                parameters: 0,
                digest: Digest::of(b"model"),
            },
            suites: vec![Asked {
                name: self.name.clone(),
                version: 1,
                items,
                item_seed: 0,
                style: Style::Compact,
                shots: 0,
            }],
            questions: items,
            items: Digest::of(b"items"),
            vocabulary: None,
            generation: self.plan.generation.clone(),
            reference: self.plan.reference,
            cells: self.plan.cells.clone(),
            beside: self.plan.beside.clone(),
            gates: self.plan.gates.clone(),
        }
    }

    /// What the run says.
    pub(crate) fn report(&self, items: u64, made: impl Fn(usize, u64) -> Made) -> Report {
        let evidence = self.evidence(items, made);
        let missing = self.plan.cells.iter().zip(&self.traces).filter(|(_, trace)| trace.is_none());
        let missing = missing.map(|(cell, _)| Missing { cell: *cell, reason: "it has not run".to_owned() });
        let text = |token: u32| format!("{}{token}", self.text);
        Report::new(&self.about(items), missing.collect(), &evidence, None, &text)
    }

    pub(crate) fn evidence(&self, items: u64, made: impl Fn(usize, u64) -> Made) -> Evidence {
        let about = self.about(items);
        let known = self.plan.cells.iter().zip(&self.traces).zip(&self.launches).filter_map(
            |((cell, trace), launches)| {
                Some(Known {
                    cell: *cell,
                    trace: (*trace)?,
                    root: Digest::of(&[(*trace)? as u8]),
                    launches: launches.clone(),
                    environment: Environment::here(),
                })
            },
        );
        let mut evidence = Evidence::new(&about, known.collect(), Digest::of(b"about"));
        let traces = self.traces.iter().flatten().max().map_or(0, |most| most + 1);
        for item in 0..items {
            let made: Vec<Made> = (0..traces).map(|trace| made(trace, item)).collect();
            let tokens: Vec<Vec<Token>> =
                made.iter().map(|(tokens, _)| tokens.iter().copied().map(token).collect()).collect();
            let outputs: Vec<_> = made
                .iter()
                .zip(&tokens)
                .map(|((_, answer), tokens)| Output {
                    tokens,
                    text: &self.text,
                    root: chain(tokens.iter().map(|token| (token.token, token.digest))),
                    answer: Some(["0", "1", "2"][usize::from(*answer)]),
                    correct: *answer == 1,
                    replayed: false,
                })
                .collect();
            evidence.add(&question(item, &self.name), &outputs);
        }
        evidence
    }

    pub(crate) fn rulings(&self, items: u64, made: impl Fn(usize, u64) -> Made) -> Vec<Ruling> {
        judge(&self.plan.gates, &self.evidence(items, made), None)
    }

    /// The outcome of the only gate.
    pub(crate) fn outcome(&self, items: u64, made: impl Fn(usize, u64) -> Made) -> Outcome {
        let rulings = self.rulings(items, made);
        assert_eq!(rulings.len(), 1);
        assert_eq!(worst(&rulings), rulings[0].outcome);
        assert_eq!(rulings[0].outcome == Outcome::Pass, rulings[0].findings.is_empty());
        rulings[0].outcome
    }
}

fn token((token, logits): (u32, u8)) -> Token {
    let candidate = |token, logit| Candidate { token, logit };
    Token {
        token,
        digest: Digest::of(&[logits]),
        candidates: vec![candidate(token, 2.0), candidate(token + 1, 1.0)],
        margin: 1.0,
        probability: 0.5,
    }
}

fn question(item: u64, suite: &str) -> Question {
    Question {
        item,
        suite: suite.to_owned(),
        id: format!("{suite}-{item}"),
        stratum: "all".to_owned(),
        cluster: None,
        prompt: format!("{suite}?"),
        tokens: vec![1],
        max_new_tokens: 3,
        stop: Vec::new(),
        answer: Answer::new(Kind::Integer, 1),
        read_as: Style::Compact,
    }
}
