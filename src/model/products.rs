//! What the products with weights of a layer are made of: which tensors stand side by side, and how many terms each output has.

use super::Config;
use crate::numerics::kernel::Step;

/// The name of a tensor of a layer.
pub(super) fn in_layer(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.{part}")
}

/// What the matrix of a layer's product is made of.
pub(super) struct Made {
    /// The projections that stand side by side, each with its outputs.
    parts: Vec<(&'static str, usize)>,
    /// How many terms each output has.
    pub(super) depth: usize,
    /// Do they have biases?
    pub(super) bias: bool,
}

impl Made {
    pub(super) fn new(config: &Config, step: Step) -> Made {
        let (width, inner) = (config.width, config.inner_width);
        let (queries, keys) = (config.heads * config.head_width, config.kv_heads * config.head_width);
        let (parts, depth, bias) = match step {
            Step::Qkv => (
                vec![("self_attn.q_proj", queries), ("self_attn.k_proj", keys), ("self_attn.v_proj", keys)],
                width,
                config.qkv_bias,
            ),
            Step::Output => (vec![("self_attn.o_proj", width)], queries, config.output_bias),
            Step::GateUp => (vec![("mlp.gate_proj", inner), ("mlp.up_proj", inner)], width, config.mlp_bias),
            Step::Down => (vec![("mlp.down_proj", width)], inner, config.mlp_bias),
            other => unreachable!("{} multiplies no weights", other.name()),
        };
        Made { parts, depth, bias }
    }

    /// The names of its tensors of this kind.
    pub(super) fn tensors(&self, layer: usize, kind: &str) -> Vec<(String, usize)> {
        let name = |part: &str| in_layer(layer, &format!("{part}.{kind}"));
        self.parts.iter().map(|(part, outputs)| (name(part), *outputs)).collect()
    }
}
