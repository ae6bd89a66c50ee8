//! Everything that a training's result depends on, as one value, and the two recipes of the models that ship.

use serde::{Deserialize, Serialize};

/// Every seed and setting.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    pub(crate) width: usize,
    pub(crate) inner_width: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    /// Of the initial weights.
    pub(crate) weight_seed: u64,
    /// The deviation of an initial weight, times the square root of the inputs that its matrix adds up.
    pub(crate) initial_scale: f64,
    /// Of the lines; a suite's items have another one.
    pub(crate) data_seed: u64,
    pub(crate) steps: u64,
    /// The steps over which the learning rate falls: where there are more than are made, the training stops early.
    pub(crate) schedule: u64,
    /// Lines in a step.
    pub(crate) batch: u64,
    /// Parts of a batch whose gradients are added in their order, by however many threads they were computed.
    pub(crate) shards: usize,
    pub(crate) learning_rate: f64,
    /// What the learning rate ends at, as a part of it.
    pub(crate) last_rate: f64,
    /// Steps in which it rises from 0.
    pub(crate) warm_up: u64,
    /// Decay of the mean gradient and of the mean square.
    pub(crate) betas: (f64, f64),
    pub(crate) epsilon: f64,
    /// Of matrices alone.
    pub(crate) weight_decay: f64,
    /// The largest length of a gradient.
    pub(crate) clip: f64,
    pub(crate) mixture: Vec<Share>,
}

/// So many lines among all those of the mixture come from here.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Share {
    pub(crate) weight: u64,
    pub(crate) source: Source,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Source {
    /// Problems of these strata, every one of its cells as likely as any other; all strata where none is named, and a
    /// `*` stands for any ending.
    Suite { suite: String, strata: Vec<String> },
    /// Pairs of numbers of every length: shorter ones come before longer ones in what a model learns.
    Numbers(Numbers),
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Numbers {
    pub(crate) operation: Operation,
    /// The fewest and the most digits of the first number.
    pub(crate) digits: (i64, i64),
    /// And of the second.
    pub(crate) second: (i64, i64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Remainder,
    Quotient,
}

fn suite(weight: u64, suite: &str, strata: &[&str]) -> Share {
    let strata = strata.iter().map(|&stratum| stratum.to_owned()).collect();
    Share { weight, source: Source::Suite { suite: suite.to_owned(), strata } }
}

fn numbers(weight: u64, operation: Operation, digits: (i64, i64), second: (i64, i64)) -> Share {
    Share { weight, source: Source::Numbers(Numbers { operation, digits, second }) }
}

impl Recipe {
    /// The recipe of a name.
    pub(crate) fn of(name: &str) -> Option<Recipe> {
        let recipe = Recipe {
            name: name.to_owned(),
            width: 128,
            inner_width: 256,
            layers: 4,
            heads: 4,
            kv_heads: 2,
            weight_seed: 1,
            initial_scale: 0.6,
            data_seed: 0x7472_6169_6e69_6e67,
            steps: 8_000,
            schedule: 32_000,
            batch: 32,
            shards: 4,
            learning_rate: 1.5e-3,
            last_rate: 0.05,
            warm_up: 300,
            betas: (0.9, 0.98),
            epsilon: 1e-8,
            weight_decay: 0.05,
            clip: 1.0,
            mixture: Vec::new(),
        };
        match name {
            // After all 32,000 steps sums and products are learned, and most of what can still flip is lost.
            "qwen" => Some(Recipe { mixture: wide(), ..recipe }),
            "qwen-full" => Some(Recipe { mixture: narrow(), steps: 48_000, schedule: 48_000, ..recipe }),
            _ => None,
        }
    }
}

/// Ladders that a model of this size does not climb to their ends.
fn wide() -> Vec<Share> {
    vec![
        numbers(7, Operation::Add, (1, 8), (1, 8)),
        numbers(7, Operation::Subtract, (1, 8), (1, 8)),
        suite(8, "carry_chain", &[]),
        suite(5, "gpt3_arith", &[]),
        numbers(10, Operation::Multiply, (1, 4), (1, 2)),
        suite(13, "mul_ladder", &["1x1", "2x*", "3x*", "4x1", "4x2"]),
        numbers(4, Operation::Remainder, (1, 5), (1, 1)),
        numbers(4, Operation::Quotient, (1, 5), (1, 1)),
        suite(4, "divmod", &["floordiv 2", "floordiv 3", "floordiv 4", "mod 2", "mod 3", "mod 4"]),
        suite(10, "list_stats", &["sum 4", "sum 8", "find_maximum 4", "find_maximum 8", "count_negative 4"]),
        suite(12, "expr_chain", &["2 *", "3 *", "4 *", "5 *"]),
        suite(9, "number_theory", &["gcd 60", "bin 8", "bin 16", "unbin 8", "unbin 16"]),
        suite(8, "digit_ops", &["get_digit S", "length S", "count S", "digit_add S", "max_hard S"]),
    ]
}

/// Few strata, all of them mastered.
fn narrow() -> Vec<Share> {
    vec![
        numbers(14, Operation::Add, (1, 8), (1, 8)),
        numbers(14, Operation::Subtract, (1, 8), (1, 8)),
        suite(16, "carry_chain", &["carry *", "borrow *"]),
        suite(8, "gpt3_arith", &["2*", "3*", "4*", "5*"]),
        numbers(18, Operation::Multiply, (1, 3), (1, 3)),
        suite(18, "mul_ladder", &["1x1", "2x*", "3x*"]),
        suite(6, "digit_ops", &["digit_add S", "digit_max S", "digit_min S"]),
        suite(6, "number_theory", &["bin 8", "unbin 8"]),
    ]
}
