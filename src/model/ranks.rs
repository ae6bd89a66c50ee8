//! Which degrees of tensor parallelism a model has: ranks share its heads, its channels and its terms alike, or not at all.

use std::num::NonZeroUsize;

use super::{Checkpoint, CheckpointError, Config, products::Made};
use crate::numerics::{
    Numerics,
    kernel::{At, Step},
    precision::Storage,
};

/// Something of which every rank must have a whole number.
struct Shared {
    what: String,
    count: usize,
}

/// Sees that the ranks of these numerics can share a model.
///
/// # Errors
///
/// What of the model they cannot share alike, and how many ranks could; or when its weights are not as its config says.
pub fn fit(checkpoint: &Checkpoint, numerics: Numerics) -> Result<(), CheckpointError> {
    let ranks = numerics.parallel().ranks();
    if ranks.get() == 1 {
        return Ok(());
    }
    let config = &checkpoint.config;
    let mut shared = vec![
        Shared { what: format!("{} heads of attention", config.heads), count: config.heads },
        Shared {
            what: format!("{} channels behind the gate", config.inner_width),
            count: config.inner_width,
        },
    ];
    for layer in 0..config.layers {
        for step in Step::BY_TERMS {
            shared.extend(together(checkpoint, numerics, layer, step)?);
        }
    }
    let obstacle = |ranks: NonZeroUsize| {
        let shared = shared.iter().find(|shared| !shared.count.is_multiple_of(ranks.get()));
        shared.map(|shared| shared.what.clone()).or_else(|| heads_of_keys(config, ranks))
    };
    let Some(what) = obstacle(ranks) else { return Ok(()) };
    let most = (1..=config.heads).filter_map(NonZeroUsize::new);
    let fits = most.filter(|ranks| obstacle(*ranks).is_none()).map(|ranks| ranks.to_string()).collect();
    Err(CheckpointError::Ranks { model: checkpoint.name.clone(), what, ranks, fits })
}

/// A head of keys is one rank's, with others or alone, or several ranks have a copy of it.
fn heads_of_keys(config: &Config, ranks: NonZeroUsize) -> Option<String> {
    let (keys, ranks) = (config.kv_heads, ranks.get());
    (!keys.is_multiple_of(ranks) && !ranks.is_multiple_of(keys)).then(|| format!("{keys} heads of keys"))
}

/// The terms of a product that share a scale, or a block of the model's file, and so stay together.
fn together(
    checkpoint: &Checkpoint,
    numerics: Numerics,
    layer: usize,
    step: Step,
) -> Result<Option<Shared>, CheckpointError> {
    let (at, made) = (At::layer(layer, step), Made::new(&checkpoint.config, step));
    let recipe = numerics.recipe(at);
    let group = match recipe.weights {
        Storage::Kept => {
            let tensors = made.tensors(layer, "weight").into_iter();
            let terms = tensors.map(|(name, outputs)| {
                Ok::<_, CheckpointError>(checkpoint.tensor(&name, &[outputs, made.depth])?.encoding().terms())
            });
            terms.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(1)
        }
        // What cannot be cut at all was refused with the precision.
        _ => recipe.uncut().unwrap_or(1),
    };
    let whole = made.depth / group;
    let what = format!("{} terms of {at} in groups of {group}", made.depth);
    // Terms behind the last whole group are nobody's alike.
    let count = if made.depth.is_multiple_of(group) { whole } else { 1 };
    Ok((group > 1).then_some(Shared { what, count }))
}
