//! What llama.cpp calls the tensors that Hugging Face calls otherwise, and the one layout in which it differs.

use std::collections::BTreeMap;

use crate::model::{
    config::{Architecture, Config},
    weights::Place,
};

/// The angles' factors, which are no weight of any layer.
pub(in crate::model) const ROPE_FACTORS: &str = "rope_freqs.weight";

const MODEL: &[(&str, &str)] = &[
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Of every layer, without what follows the last dot.
const LAYER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The tensors by the names of Hugging Face; what is called by none of ours keeps its name.
pub(super) fn translated(places: BTreeMap<String, Place>, config: &Config) -> BTreeMap<String, Place> {
    let translate = |(name, mut place): (String, Place)| {
        if let Some((_, name)) = MODEL.iter().find(|(ours, _)| *ours == name) {
            return ((*name).to_owned(), place);
        }
        let Some((layer, part, kind)) = parts(&name) else { return (name, place) };
        // llama.cpp turns neighbors, Hugging Face the halves of a head; its converter moves Llama's rows to suit.
        if config.architecture == Architecture::Llama
            && matches!(part, "self_attn.q_proj" | "self_attn.k_proj")
        {
            place.paired = Some(config.head_width);
        }
        (format!("model.layers.{layer}.{part}.{kind}"), place)
    };
    places.into_iter().map(translate).collect()
}

/// `blk.LAYER.PART.KIND`, the part in the words of Hugging Face.
fn parts(name: &str) -> Option<(&str, &'static str, &str)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let (_, part) = LAYER.iter().find(|(ours, _)| *ours == part)?;
    Some((layer, part, kind))
}

/// What llama.cpp calls a tensor that Hugging Face calls so.
pub(super) fn in_file(tensor: &str) -> String {
    let of_layer = || {
        let (layer, rest) = tensor.strip_prefix("model.layers.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let (ours, _) = LAYER.iter().find(|(_, theirs)| *theirs == part)?;
        Some(format!("blk.{layer}.{ours}.{kind}"))
    };
    match MODEL.iter().find(|(_, theirs)| *theirs == tensor) {
        Some((ours, _)) => (*ours).to_owned(),
        None => of_layer().unwrap_or_else(|| tensor.to_owned()),
    }
}
