//! The network: its parameters, its forward pass in candle, and the names that others know its weights by.

use std::{collections::BTreeMap, num::NonZeroU64, sync::Arc};

use candle_core::{Device, Tensor, Var};
use reprocheck::numerics::{
    functions::Functions,
    random::Stream,
    rotary::{Rotary, Scaling, Turn},
};

use crate::{
    Failure,
    attention::{Attention, HEAD, Heads, Turned},
    data::Line,
    layout,
    ops::{Cost, Gated, Norm},
    recipe::Recipe,
};

/// More positions than any line has.
const POSITIONS: usize = 1024;

/// One matrix, with as many rows as it has inputs, or one norm.
pub(crate) struct Parameter {
    pub(crate) shape: Vec<usize>,
    /// By how much its initial values deviate; norms begin at 1.
    deviation: Option<f64>,
    /// What its columns are to others: tensors, each with its number of outputs. Theirs have a row for each output.
    names: Vec<(String, usize)>,
}

impl Parameter {
    pub(crate) fn is_matrix(&self) -> bool {
        self.shape.len() == 2
    }

    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The embedding, which is the head too; of each layer the norm, the joint projection, the two norms of heads, the
/// output, the norm, gate with up, and down; the last norm.
const OF_LAYER: usize = 8;

pub(crate) fn parameters(recipe: &Recipe) -> Vec<Parameter> {
    let Recipe { width, inner_width, layers, heads, kv_heads, initial_scale, .. } = *recipe;
    let (queries, keys) = (heads * HEAD, kv_heads * HEAD);
    let norm =
        |name: String, width| Parameter { shape: vec![width], deviation: None, names: vec![(name, width)] };
    let matrix = |inputs: usize, scale: f64, names: Vec<(String, usize)>| Parameter {
        shape: vec![inputs, names.iter().map(|(_, outputs)| outputs).sum()],
        deviation: Some(scale / (inputs as f64).sqrt()),
        names,
    };
    // What is added to the residual stream is smaller, the more there is of it.
    let added = initial_scale / ((2 * layers) as f64).sqrt();
    let embedding = Parameter {
        shape: vec![layout::vocabulary(), width],
        deviation: Some(initial_scale / (width as f64).sqrt()),
        names: vec![("model.embed_tokens.weight".to_owned(), 0)],
    };
    let layers = (0..layers).flat_map(|layer| {
        let name = |name: &str| format!("model.layers.{layer}.{name}.weight");
        let projected = [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)];
        let projected = projected.map(|(part, outputs)| (name(&format!("self_attn.{part}")), outputs));
        let opened = ["gate_proj", "up_proj"].map(|part| (name(&format!("mlp.{part}")), inner_width));
        let of_layer: [Parameter; OF_LAYER] = [
            norm(name("input_layernorm"), width),
            matrix(width, initial_scale, projected.into()),
            norm(name("self_attn.q_norm"), HEAD),
            norm(name("self_attn.k_norm"), HEAD),
            matrix(queries, added, vec![(name("self_attn.o_proj"), width)]),
            norm(name("post_attention_layernorm"), width),
            matrix(width, initial_scale, opened.into()),
            matrix(inner_width, added, vec![(name("mlp.down_proj"), width)]),
        ];
        of_layer
    });
    let layers: Vec<_> = layers.collect();
    [embedding].into_iter().chain(layers).chain([norm("model.norm.weight".to_owned(), width)]).collect()
}

/// Matrices uniform around 0, norms 1.
pub(crate) fn initial(parameters: &[Parameter], seed: u64) -> Vec<Vec<f32>> {
    let initial = |(number, parameter): (u64, &Parameter)| {
        let mut stream = Stream::new(seed, number);
        let mut value = || match parameter.deviation {
            None => 1.0,
            Some(deviation) => (deviation * 12_f64.sqrt() * (stream.unit() - 0.5)) as f32,
        };
        (0..parameter.count()).map(|_| value()).collect()
    };
    (0..).zip(parameters).map(initial).collect()
}

/// The weights under the names and in the shapes of the files.
pub(crate) fn tensors(
    parameters: &[Parameter],
    values: &[Vec<f32>],
) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut tensors = BTreeMap::new();
    for (Parameter { shape, names, .. }, values) in parameters.iter().zip(values) {
        let mut first = 0;
        for (name, outputs) in names {
            let tensor = match shape[..] {
                // The embedding has a row for each token, here as there.
                [rows, width] if *outputs == 0 => (vec![rows, width], values.clone()),
                [inputs, all] => {
                    let columns = first..first + outputs;
                    let column = |column| (0..inputs).map(move |row| values[row * all + column]);
                    (vec![*outputs, inputs], columns.flat_map(column).collect())
                }
                _ => (shape.clone(), values.clone()),
            };
            tensors.insert(name.clone(), tensor);
            first += outputs;
        }
    }
    tensors
}

/// The parameters as candle has them, and what every batch needs.
pub(crate) struct Network {
    variables: Vec<Var>,
    shapes: Vec<Vec<usize>>,
    heads: usize,
    kv_heads: usize,
    layers: usize,
    turns: Arc<Vec<Turn>>,
}

impl Network {
    pub(crate) fn new(
        recipe: &Recipe,
        parameters: &[Parameter],
        values: &[Vec<f32>],
    ) -> Result<Network, Failure> {
        let rotary = Rotary::new(HEAD, 10_000.0, Scaling::None);
        let shapes: Vec<_> = parameters.iter().map(|parameter| parameter.shape.clone()).collect();
        let variables = shapes.iter().zip(values);
        let variables = variables.map(|(shape, values)| Var::from_slice(values, &shape[..], &Device::Cpu));
        Ok(Network {
            variables: variables.collect::<Result<_, _>>()?,
            shapes,
            heads: recipe.heads,
            kv_heads: recipe.kv_heads,
            layers: recipe.layers,
            turns: Arc::new((0..POSITIONS).map(|position| rotary.turn(Functions::Exact, position)).collect()),
        })
    }

    pub(crate) fn set(&self, values: &[Vec<f32>]) -> Result<(), Failure> {
        for ((variable, shape), values) in self.variables.iter().zip(&self.shapes).zip(values) {
            variable.set(&Tensor::from_slice(values, &shape[..], &Device::Cpu)?)?;
        }
        Ok(())
    }

    /// The logits of the rows asked for, among those of all tokens but the last of each line.
    pub(crate) fn logits(&self, lines: &[&[u32]], rows: &[u32]) -> candle_core::Result<Tensor> {
        let tokens: Vec<u32> = lines.iter().copied().flatten().copied().collect();
        let mut first = 0;
        let place = |line: &&[u32]| {
            first += line.len();
            (first - line.len(), line.len())
        };
        let heads = Heads {
            heads: self.heads,
            kv_heads: self.kv_heads,
            lines: lines.iter().map(place).collect(),
            turns: self.turns.clone(),
        };
        let count = tokens.len();
        let embedding = self.variables[0].as_tensor();
        let mut stream = embedding.index_select(&Tensor::from_vec(tokens, count, &Device::Cpu)?, 0)?;
        for layer in 0..self.layers {
            let of_layer = self.variables[1 + layer * OF_LAYER..].first_chunk::<OF_LAYER>();
            let [before, projection, queries, keys, output, between, opened, closed] =
                of_layer.expect("every layer has its parameters");
            let projected = stream.apply_op2(before, Norm)?.matmul(projection)?;
            let turned = projected.apply_op3(queries, keys, Turned(heads.clone()))?;
            stream = (stream + turned.apply_op1(Attention(heads.clone()))?.matmul(output)?)?;
            let inner = stream.apply_op2(between, Norm)?.matmul(opened)?;
            stream = (stream + inner.apply_op1(Gated)?.matmul(closed)?)?;
        }
        let last = self.variables.last().expect("the last norm is one");
        let rows = Tensor::from_slice(rows, rows.len(), &Device::Cpu)?;
        stream.index_select(&rows, 0)?.apply_op2(last, Norm)?.matmul(&embedding.t()?)
    }

    /// What the learned tokens of these lines cost, each times `weight`, and by how much every parameter moves it.
    pub(crate) fn gradients(
        &self,
        lines: &[&Line],
        weight: f32,
    ) -> candle_core::Result<(f32, Vec<Vec<f32>>)> {
        let read: Vec<_> = lines.iter().map(|line| &line.tokens[..line.tokens.len() - 1]).collect();
        let (mut rows, mut targets, mut first) = (Vec::new(), Vec::new(), 0);
        for line in lines {
            // The token after row r of a line is r + 1.
            rows.extend((line.prompt - 1..line.tokens.len() - 1).map(|row| (first + row) as u32));
            targets.extend(&line.tokens[line.prompt..]);
            first += line.tokens.len() - 1;
        }
        let cost = self.logits(&read, &rows)?.apply_op1(Cost { targets, weight })?;
        let found = cost.backward()?;
        let gradient = |variable: &Var| match found.get(variable) {
            Some(gradient) => gradient.flatten_all()?.to_vec1::<f32>(),
            None => candle_core::bail!("a parameter has no gradient: every one must take part"),
        };
        Ok((cost.to_scalar()?, self.variables.iter().map(gradient).collect::<candle_core::Result<_>>()?))
    }
}

/// So many learned tokens are in these lines.
pub(crate) fn learned(lines: &[Line]) -> Option<NonZeroU64> {
    NonZeroU64::new(lines.iter().map(|line| (line.tokens.len() - line.prompt) as u64).sum())
}
