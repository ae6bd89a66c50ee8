//! What a training writes: checkpoints from which it goes on bit for bit, and the model in the layout that others read.

use std::{fs, path::Path};

use reprocheck::{digest::Digest, store};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};

use crate::{
    Failure, layout,
    network::{self, Parameter},
    optimizer::State,
    recipe::Recipe,
};

const CHECKPOINT: &str = "training.safetensors";
const RECIPE: &str = "recipe.json";

fn recipe_text(recipe: &Recipe) -> Result<Vec<u8>, Failure> {
    let mut text = serde_json::to_vec_pretty(recipe)?;
    text.push(b'\n');
    Ok(text)
}

/// Weights, moments and the number of steps in one file, which is whole or not there.
pub(crate) fn save(folder: &Path, recipe: &Recipe, state: &State) -> Result<(), Failure> {
    let kinds = [("value", &state.values), ("mean", &state.means), ("square", &state.squares)];
    let bytes = |values: &Vec<f32>| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let all = kinds.iter().flat_map(|(kind, lists)| {
        lists
            .iter()
            .enumerate()
            .map(move |(at, values)| (format!("{kind}.{at}"), values.len(), bytes(values)))
    });
    let all: Vec<_> = all.collect();
    let views =
        all.iter().map(|(name, count, bytes)| Ok((name, TensorView::new(Dtype::F32, vec![*count], bytes)?)));
    let views = views.collect::<Result<Vec<_>, Failure>>()?;
    let about = [("step".to_owned(), state.step.to_string())];
    store::write(&folder.join(RECIPE), &recipe_text(recipe)?)?;
    Ok(store::write(&folder.join(CHECKPOINT), &serialize(views, Some(about.into()))?)?)
}

/// Nobody loses hours of work to a forgotten option.
pub(crate) fn refuse_to_overwrite(folder: &Path) -> Result<(), Failure> {
    if folder.join(CHECKPOINT).exists() {
        let folder = folder.display();
        return Err(format!("{folder} holds a training: go on with --resume, or take another folder").into());
    }
    Ok(())
}

/// The last checkpoint of this very recipe.
pub(crate) fn load(folder: &Path, recipe: &Recipe) -> Result<State, Failure> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path)
            .map_err(|error| format!("cannot read {}: {error}; begin without --resume", path.display()))
    };
    if read(RECIPE)? != recipe_text(recipe)? {
        return Err(format!("{} holds another recipe: begin in another folder", folder.display()).into());
    }
    let bytes = read(CHECKPOINT)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)?;
    let step = header.metadata().as_ref().and_then(|about| about.get("step")?.parse().ok());
    let file = SafeTensors::deserialize(&bytes)?;
    let count = network::parameters(recipe).len();
    let lists = |kind: &str| {
        let list = |at| {
            let data = file.tensor(&format!("{kind}.{at}"))?.data();
            Ok(data.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect())
        };
        (0..count).map(list).collect::<Result<Vec<Vec<f32>>, Failure>>()
    };
    Ok(State {
        step: step.ok_or("the checkpoint does not say its step: begin without --resume")?,
        values: lists("value")?,
        means: lists("mean")?,
        squares: lists("square")?,
    })
}

/// Writes the model, its weights rounded to bfloat16; gives the digest of every file.
pub(crate) fn export(
    folder: &Path,
    recipe: &Recipe,
    parameters: &[Parameter],
    values: &[Vec<f32>],
) -> Result<Vec<(&'static str, Digest)>, Failure> {
    let files = [
        ("config.json", layout::config(recipe)),
        ("generation_config.json", layout::generation_config()),
        ("model.safetensors", layout::weights(&network::tensors(parameters, values))?),
        ("recipe.json", recipe_text(recipe)?),
        ("tokenizer.json", layout::tokenizer()),
        ("tokenizer_config.json", layout::tokenizer_config()),
    ];
    let written = files.map(|(name, bytes)| {
        store::write(&folder.join(name), &bytes)?;
        Ok((name, Digest::of(&bytes)))
    });
    written.into_iter().collect()
}

/// The digest of everything that a training goes on from.
pub(crate) fn digest(state: &State) -> Digest {
    let lists = [&state.values, &state.means, &state.squares];
    let values = lists.iter().copied().flatten().flatten();
    let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
    Digest::of(&bytes)
}
