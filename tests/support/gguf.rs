//! Files of GGUF, written key by key, so that a test can say what is in them, and what is wrong with them.

use reprocheck::{
    model::{Checkpoint, config::Architecture},
    numerics::rotary::{Rotary, Scaling},
};

/// A file before it is written.
#[derive(Clone, Default)]
pub(crate) struct File {
    pub(crate) keys: Vec<(String, Value)>,
    pub(crate) tensors: Vec<Tensor>,
}

/// A value as the format types it.
#[derive(Clone)]
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    /// A type number, and the bytes behind it.
    Raw(u32, Vec<u8>),
}

/// A tensor, with its lengths in ggml's order: that of a row first.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) lengths: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) bytes: Vec<u8>,
    /// Where it is said to begin, if not where it does.
    pub(crate) offset: Option<u64>,
}

pub(crate) const ALIGNMENT: usize = 32;

pub(crate) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Value {
    fn bytes(&self) -> (u32, Vec<u8>) {
        let list = |kind: u32, length: usize, items: Vec<u8>| {
            (9, [&kind.to_le_bytes()[..], &(length as u64).to_le_bytes(), &items].concat())
        };
        match self {
            Value::U32(value) => (4, value.to_le_bytes().to_vec()),
            Value::F32(value) => (6, value.to_le_bytes().to_vec()),
            Value::Bool(value) => (7, vec![u8::from(*value)]),
            Value::Text(value) => (8, text(value)),
            Value::Texts(texts) => list(8, texts.len(), texts.iter().flat_map(|one| text(one)).collect()),
            Value::I32s(values) => {
                list(5, values.len(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            Value::Raw(kind, bytes) => (*kind, bytes.clone()),
        }
    }
}

impl File {
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        match self.keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.to_owned(), value)),
        }
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).expect(name)
    }

    /// Everything before the tensors' values.
    pub(crate) fn head(&self) -> Vec<u8> {
        let counts = [self.tensors.len() as u64, self.keys.len() as u64];
        let mut bytes = [b"GGUF".as_slice(), &3_u32.to_le_bytes()].concat();
        bytes.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
        for (key, value) in &self.keys {
            let (kind, value) = value.bytes();
            bytes.extend([text(key), kind.to_le_bytes().to_vec(), value].concat());
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            bytes.extend(text(&tensor.name));
            bytes.extend((tensor.lengths.len() as u32).to_le_bytes());
            bytes.extend(tensor.lengths.iter().flat_map(|length| length.to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(tensor.offset.unwrap_or(offset).to_le_bytes());
            offset += tensor.bytes.len().next_multiple_of(ALIGNMENT) as u64;
        }
        bytes
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        for tensor in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            bytes.extend(&tensor.bytes);
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    /// A model of the Hugging Face layout as llama.cpp's converter writes it, its values in F32.
    pub(crate) fn of(checkpoint: &Checkpoint) -> File {
        let config = &checkpoint.config;
        let mut file = File::default();
        let name = config.architecture.name();
        file.set("general.architecture", Value::Text(name.to_owned()));
        for (key, value) in [
            ("block_count", config.layers),
            ("context_length", config.positions),
            ("embedding_length", config.width),
            ("feed_forward_length", config.inner_width),
            ("attention.head_count", config.heads),
            ("attention.head_count_kv", config.kv_heads),
            ("attention.key_length", config.head_width),
            ("attention.value_length", config.head_width),
            ("rope.dimension_count", config.head_width),
        ] {
            file.set(&format!("{name}.{key}"), Value::U32(value as u32));
        }
        file.set(&format!("{name}.attention.layer_norm_rms_epsilon"), Value::F32(config.epsilon));
        file.set(&format!("{name}.rope.freq_base"), Value::F32(config.rope_theta as f32));
        match config.rope_scaling {
            Scaling::None => {}
            Scaling::Linear { factor } => {
                file.set(&format!("{name}.rope.scaling.type"), Value::Text("linear".to_owned()));
                file.set(&format!("{name}.rope.scaling.factor"), Value::F32(factor as f32));
            }
            scaling @ Scaling::Llama3 { .. } => {
                let frequencies = |scaling| Rotary::new(config.head_width, config.rope_theta, scaling);
                let (plain, stretched) = (frequencies(Scaling::None), frequencies(scaling));
                let factors = plain.frequencies().iter().zip(stretched.frequencies());
                let factors = factors.map(|(plain, stretched)| plain / stretched);
                file.push("rope_freqs.weight", &[config.head_width / 2], factors);
            }
            Scaling::Yarn { .. } => unreachable!("no test asks for it"),
        }
        for (tensor, shape) in config.tensors() {
            let mut rows = checkpoint.tensor(&tensor, &shape).unwrap();
            let width = *shape.last().unwrap();
            let mut values = vec![0.0; shape.iter().product()];
            values.chunks_exact_mut(width).for_each(|row| rows.next_row(row).unwrap());
            let mut rows: Vec<&[f32]> = values.chunks_exact(width).collect();
            let turns = tensor.contains("q_proj.weight") || tensor.contains("k_proj.weight");
            if config.architecture == Architecture::Llama && turns {
                // Each head's first half and its second, row by row in turn.
                let head = |rows: &[_]| -> Vec<_> {
                    let (first, second) = rows.split_at(rows.len() / 2);
                    first.iter().zip(second).flat_map(|(a, b)| [*a, *b]).collect()
                };
                rows = rows.chunks_exact(config.head_width).flat_map(head).collect();
            }
            file.push(&name_in_gguf(&tensor), &shape, rows.concat());
        }
        file
    }

    fn push(&mut self, name: &str, shape: &[usize], values: impl IntoIterator<Item = f32>) {
        self.tensors.push(Tensor {
            name: name.to_owned(),
            lengths: shape.iter().rev().map(|&length| length as u64).collect(),
            kind: 0,
            bytes: values.into_iter().flat_map(f32::to_le_bytes).collect(),
            offset: None,
        });
    }
}

/// What llama.cpp calls a tensor.
pub(crate) fn name_in_gguf(tensor: &str) -> String {
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    names.iter().fold(tensor.to_owned(), |name, (theirs, gguf)| name.replace(theirs, gguf))
}
