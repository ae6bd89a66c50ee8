//! Models in files of GGUF: they are what their folders are, and a file that lies is told so.

use std::{collections::BTreeMap, fs, path::Path};

use reprocheck::{
    model::{Checkpoint, Config, chat::Message},
    numerics::{
        block::BlockFormat,
        rotary::{Rotary, Scaling},
    },
};
use tempfile::TempDir;

use crate::support::gguf::{ALIGNMENT, File, Tensor, Value};

fn fixture(name: &str) -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// What becomes of these bytes as a file.
fn opened(bytes: &[u8]) -> Result<Checkpoint, String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    let shown = path.display().to_string();
    Checkpoint::open(&path).map_err(|error| error.to_string().replace(&shown, "FILE"))
}

fn refused(file: &File) -> String {
    opened(&file.bytes()).expect_err("it is refused")
}

fn values(checkpoint: &Checkpoint, tensor: &str, shape: &[usize]) -> Vec<u32> {
    let mut rows = checkpoint.tensor(tensor, shape).unwrap();
    let mut values = vec![0.0; shape.iter().product()];
    values.chunks_exact_mut(*shape.last().unwrap()).for_each(|row| rows.next_row(row).unwrap());
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_file_holds_the_model_that_its_folder_holds() {
    for name in
        ["llama-linear", "llama-plain", "qwen2-tied", "qwen2-untied", "qwen3-tied", "qwen3-wide-heads"]
    {
        let folder = fixture(name);
        let file = opened(&File::of(&folder).bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        // A folder without a tokenizer has the special tokens of its family.
        let tokens = |config: &Config| Config {
            stop_tokens: Vec::new(),
            beginning_token: None,
            padding_token: None,
            ..config.clone()
        };
        assert_eq!(tokens(&file.config), tokens(&folder.config), "{name}");
        for (tensor, shape) in folder.config.tensors() {
            let (ours, theirs) = (values(&file, &tensor, &shape), values(&folder, &tensor, &shape));
            assert_eq!(ours, theirs, "{name}: {tensor}");
        }
        assert_eq!((file.stored(), file.is_gguf()), (vec!["F32".to_owned()], true));
        assert_eq!(file.parameters(), folder.parameters());
        assert_eq!(file.files().unwrap().len(), 1);
    }
}

#[test]
fn rows_of_every_block_format_are_what_their_blocks_are_worth() {
    let folder = fixture("llama-plain");
    // Only rows of a whole number of blocks: 256 is more than any of this model has.
    for &format in BlockFormat::ALL.iter().filter(|format| format.values() == 32) {
        let mut file = File::of(&folder);
        let tensor = file.tensor("blk.1.attn_q.weight");
        let [width, rows] = [tensor.lengths[0], tensor.lengths[1]].map(|length| length as usize);
        let size = width / format.values() * format.bytes();
        // The first bytes of a block are its scale: neither NaN nor infinite.
        let byte = |index: usize| if index % format.bytes() < 4 { 0x21 } else { (index * 37 % 251) as u8 };
        tensor.bytes = (0..rows * size).map(byte).collect();
        tensor.kind = (0..64).find(|&kind| BlockFormat::of_ggml_type(kind) == Some(format)).unwrap();
        let mut stored: Vec<Vec<u32>> = Vec::new();
        for row in tensor.bytes.chunks_exact(size) {
            let mut values = vec![0.0; width];
            format.dequantize(row, &mut values);
            stored.push(values.into_iter().map(f32::to_bits).collect());
        }
        let file = opened(&file.bytes()).unwrap();
        let head = folder.config.head_width;
        let found = values(&file, "model.layers.1.self_attn.q_proj.weight", &[rows, width]);
        for (row, found) in found.chunks_exact(width).enumerate() {
            // Row i of a head's halves stands at 2i and 2i + 1.
            let (block, half, pair) = (row / head, row % head / (head / 2), row % (head / 2));
            assert_eq!(found, stored[block * head + 2 * pair + half], "{format}: row {row}");
        }
        assert!(file.stored().contains(&format.to_string()), "{:?}", file.stored());
    }
}

#[test]
fn llama_3_stretches_positions_by_the_factors_of_its_formula_and_by_no_others() {
    let folder = fixture("llama-plain");
    // So that the longest waves are longer than the context.
    let (width, theta) = (folder.config.head_width, 500_000.0);
    let scaling = |original_positions| Scaling::Llama3 {
        factor: 32.0,
        low_frequency: 1.0,
        high_frequency: 4.0,
        original_positions,
    };
    let stretched_by = |scaling| {
        let frequencies = |scaling| Rotary::new(width, theta, scaling);
        let (plain, stretched) = (frequencies(Scaling::None), frequencies(scaling));
        let factors = plain.frequencies().iter().zip(stretched.frequencies()).map(|(one, other)| one / other);
        let mut file = File::of(&folder);
        file.set("llama.rope.freq_base", Value::F32(theta as f32));
        file.tensors.push(Tensor {
            name: "rope_freqs.weight".to_owned(),
            lengths: vec![(width / 2) as u64],
            kind: 0,
            bytes: factors.flat_map(f32::to_le_bytes).collect(),
            offset: None,
        });
        file
    };
    let config = opened(&stretched_by(scaling(8_192)).bytes()).unwrap().config;
    assert_eq!(config.rope_scaling, scaling(8_192));
    let config = opened(&stretched_by(Scaling::None).bytes()).unwrap().config;
    assert_eq!(config.rope_scaling, Scaling::None);
    assert_eq!(
        refused(&stretched_by(scaling(64))),
        "FILE: the tensor `rope_freqs.weight`: it stretches positions in another way than Llama 3 does: \
         fetch the file again, or choose another version of the model"
    );
}

/// A model of one layer, small enough to be tried a hundred thousand times.
fn small() -> File {
    let mut file = File::default();
    file.set("general.architecture", Value::Text("llama".to_owned()));
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 16),
        ("embedding_length", 4),
        ("feed_forward_length", 4),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
    ] {
        file.set(&format!("llama.{key}"), Value::U32(value));
    }
    file.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    let texts = |texts: &[&str]| Value::Texts(texts.iter().map(|&text| text.to_owned()).collect());
    file.set("tokenizer.ggml.model", Value::Text("gpt2".to_owned()));
    file.set("tokenizer.ggml.pre", Value::Text("gpt-2".to_owned()));
    file.set("tokenizer.ggml.tokens", texts(&["a", "b", "Ġ", "ab", "<|im_end|>", "<s>"]));
    file.set("tokenizer.ggml.token_type", Value::I32s(vec![1, 1, 1, 1, 3, 3]));
    file.set("tokenizer.ggml.merges", texts(&["a b"]));
    file.set("tokenizer.ggml.bos_token_id", Value::U32(5));
    file.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
    file.set("tokenizer.chat_template", Value::Text("{{ bos_token }}{{ messages[0].content }}".to_owned()));
    for (name, lengths) in [
        ("token_embd.weight", &[4, 6][..]),
        ("blk.0.attn_norm.weight", &[4]),
        ("blk.0.attn_q.weight", &[4, 4]),
        ("blk.0.attn_k.weight", &[4, 2]),
        ("blk.0.attn_v.weight", &[4, 2]),
        ("blk.0.attn_output.weight", &[4, 4]),
        ("blk.0.ffn_norm.weight", &[4]),
        ("blk.0.ffn_gate.weight", &[4, 4]),
        ("blk.0.ffn_up.weight", &[4, 4]),
        ("blk.0.ffn_down.weight", &[4, 4]),
        ("output_norm.weight", &[4]),
    ] {
        let size = lengths.iter().product::<u64>() as usize;
        file.tensors.push(Tensor {
            name: name.to_owned(),
            lengths: lengths.to_vec(),
            kind: 0,
            bytes: (0..size).flat_map(|index| (index as f32).to_le_bytes()).collect(),
            offset: None,
        });
    }
    file
}

#[test]
fn a_file_brings_its_tokenizer_its_special_tokens_and_its_chat_template() {
    let model = opened(&small().bytes()).unwrap();
    let tokenizer = model.tokenizer.as_ref().unwrap();
    assert_eq!(tokenizer.encode("ab a<|im_end|>", true).unwrap(), [5, 3, 2, 0, 4]);
    assert_eq!((model.config.beginning_token, &*model.config.stop_tokens), (Some(5), &[4][..]));
    let prompt = model.chat.unwrap().render(&[Message::new("user", "b")], true, &BTreeMap::new());
    assert_eq!(prompt.unwrap(), "<s>b");
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_place() {
    let changed = |change: &dyn Fn(&mut File)| {
        let mut file = small();
        change(&mut file);
        refused(&file)
    };
    let key = |key: &'static str, value: Value| move |file: &mut File| file.set(key, value.clone());
    let tensor = |change: fn(&mut Tensor)| move |file: &mut File| change(file.tensor("blk.0.ffn_up.weight"));
    let cases: &[(String, &str)] = &[
        (opened(b"").unwrap_err(), "FILE does not begin as a GGUF file does: name one, or fetch it again"),
        (
            opened(b"PK\x03\x04....").unwrap_err(),
            "FILE does not begin as a GGUF file does: name one, or fetch it again",
        ),
        (
            opened(b"GGUF\x01\0\0\0").unwrap_err(),
            "FILE is of version 1 of GGUF, and versions 2 and 3 are read: convert the model again",
        ),
        (
            opened(
                &[b"GGUF\x03\0\0\0".as_slice(), &(1_u64 << 63).to_le_bytes(), &0_u64.to_le_bytes()].concat(),
            )
            .unwrap_err(),
            "FILE: at byte 24: the list of tensors should hold 9223372036854775808 entries, for which the 0 bytes that follow are too few: fetch the file again",
        ),
        (
            changed(&key("llama.context_length", Value::Raw(8, (1_u64 << 63).to_le_bytes().to_vec()))),
            "FILE: at byte 142: `llama.context_length` has 9223372036854775808 bytes, and no more than 16777216 are read: fetch the file again",
        ),
        (
            changed(&key("llama.context_length", Value::Raw(9, [&[4, 0, 0, 0][..], &[255; 8]].concat()))),
            "FILE: at byte 146: `llama.context_length` should hold 18446744073709551615 entries, for which the 1934 bytes that follow are too few: fetch the file again",
        ),
        (
            changed(&key("llama.context_length", Value::Raw(13, Vec::new()))),
            "FILE: at byte 130: `llama.context_length` is of the type 13, which there is not: fetch the file again",
        ),
        (
            changed(&key(
                "llama.context_length",
                Value::Raw(9, [9_u32.to_le_bytes().to_vec(), vec![0; 8]].concat()),
            )),
            "FILE: at byte 134: `llama.context_length` is a list of the type 9, which is not read: fetch the file again",
        ),
        (
            changed(&key("llama.use", Value::Raw(7, vec![2]))),
            "FILE: at byte 874: `llama.use` is 2, which is neither false nor true: fetch the file again",
        ),
        (
            changed(&|file: &mut File| file.keys.push(file.keys[0].clone())),
            "FILE: at byte 853: the key `general.architecture` stands there twice: fetch the file again",
        ),
        (
            changed(&|file: &mut File| file.tensors.push(file.tensors[0].clone())),
            "FILE: at byte 1489: the tensor `token_embd.weight` stands there twice: fetch the file again",
        ),
        (
            changed(&key("general.alignment", Value::U32(24))),
            "FILE: `general.alignment` is 24, and not a power of two from 8 up: fetch the file again",
        ),
        (
            changed(&key("general.architecture", Value::Text("mamba".to_owned()))),
            "FILE: `general.architecture` is \"mamba\", and the architectures that are known here are qwen2, qwen3, llama: choose one of those",
        ),
        (
            changed(&key("llama.block_count", Value::Text("many".to_owned()))),
            "FILE: `llama.block_count` is \"many\", and it should be a number: fetch the file again",
        ),
        (
            changed(&key("llama.block_count", Value::U32(0))),
            "FILE: `llama.block_count` is 0, and only whole numbers from 1 to 16384 make sense: see that the file is the one that belongs to the weights",
        ),
        (
            changed(&|file: &mut File| file.keys.retain(|(name, _)| name != "llama.embedding_length")),
            "FILE: `llama.embedding_length` is absent, and a model must say it: fetch the file again",
        ),
        (
            changed(&key("llama.expert_count", Value::U32(8))),
            "FILE: `llama.expert_count` is 8, and nothing but 0 is computed here: choose another model",
        ),
        (
            changed(&key("llama.attention.scale", Value::F32(0.5))),
            "FILE: `llama.attention.scale` is 0.5, and what that changes is not computed here: choose another model",
        ),
        (
            changed(&key("llama.rope.dimension_count", Value::U32(1))),
            "FILE: `llama.rope.dimension_count` is 1, and nothing but 2 is computed here: choose another model",
        ),
        (
            changed(&key("llama.rope.scaling.type", Value::Text("longrope".to_owned()))),
            "FILE: `llama.rope.scaling.type` is \"longrope\", and the types that are computed here are default, linear, llama3 and yarn: choose a model with one of those",
        ),
        (
            changed(&|file: &mut File| {
                let table = file.tensor("token_embd.weight");
                table.lengths = vec![4, 4];
                table.bytes.truncate(64);
            }),
            "FILE has the token \"<s>\" with the number 5, but the model has embeddings for 4 only: see that the tokenizer and config.json are of the same model",
        ),
        (
            changed(&key("tokenizer.ggml.pre", Value::Text("poro-chat".to_owned()))),
            "FILE: `tokenizer.ggml.pre` is \"poro-chat\", and how that cuts a text is not known; known here are default, gpt-2, phi-2, mpt, olmo, smollm, starcoder, refact, command-r, llama-bpe, llama-v3, llama3, dbrx, smaug-bpe, qwen2, deepseek-r1-qwen, qwen35, tekken, deepseek-coder: take the model in the layout of Hugging Face, which brings its tokenizer along",
        ),
        (
            changed(&key("split.count", Value::U32(3))),
            "FILE: `split.count` is 3, and a model in several files is not read: join them with llama-gguf-split --merge",
        ),
        (
            changed(&tensor(|tensor| tensor.kind = 16)),
            "FILE: the tensor `blk.0.ffn_up.weight`: it is stored in ggml's type 16, and those that are read are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL: fetch the file again, or choose another version of the model",
        ),
        (
            changed(&tensor(|tensor| tensor.kind = 2)),
            "FILE: the tensor `blk.0.ffn_up.weight`: its rows of 4 values are not made of blocks of 32, as Q4_0 has them: fetch the file again, or choose another version of the model",
        ),
        (
            changed(&tensor(|tensor| tensor.lengths = vec![1; 5])),
            "FILE: at byte 1346: the tensor `blk.0.ffn_up.weight` has 5 dimensions, and there are no more than 4: fetch the file again",
        ),
        (
            changed(&tensor(|tensor| tensor.lengths = vec![u64::MAX, u64::MAX])),
            "FILE: the tensor `blk.0.ffn_up.weight`: its shape is absurd: fetch the file again, or choose another version of the model",
        ),
        (
            changed(&tensor(|tensor| tensor.lengths = vec![8, 4])),
            "FILE: the tensor `blk.0.ffn_down.weight`: it overlaps with `blk.0.ffn_up.weight`: fetch the file again, or choose another version of the model",
        ),
        (
            changed(&tensor(|tensor| tensor.lengths = vec![4, 3])),
            "FILE: the tensor `blk.0.ffn_up.weight` has the shape [3, 4], but the model's config makes it [4, 4]: see that both are of the same model",
        ),
        (
            changed(&tensor(|tensor| tensor.offset = Some(4))),
            "FILE: the tensor `blk.0.ffn_up.weight`: it begins at 4, which is not a multiple of 32: fetch the file again, or choose another version of the model",
        ),
        (
            changed(&tensor(|tensor| tensor.offset = Some(0))),
            "FILE: the tensor `token_embd.weight`: it overlaps with `blk.0.ffn_up.weight`: fetch the file again, or choose another version of the model",
        ),
        (
            changed(&tensor(|tensor| tensor.offset = Some(1 << 40))),
            "FILE: the tensor `blk.0.ffn_up.weight`: it ends at byte 1099511629344, but the file has 2080: fetch the file again, or choose another version of the model",
        ),
        (
            changed(&tensor(|tensor| tensor.name = "blk.1.ffn_up.weight".to_owned())),
            "FILE: there is no tensor `blk.0.ffn_up.weight`: fetch the model again, or see that its config is its own",
        ),
        (
            changed(&|file: &mut File| {
                file.tensors.push(Tensor { name: "blk.0.ffn_up.bias".to_owned(), ..file.tensors[1].clone() })
            }),
            "the tensor `blk.0.ffn_up.bias` has no place in the llama of 1 layers that the model's config describes: see that both are of the same model",
        ),
        (
            opened(&[small().bytes(), vec![0; ALIGNMENT]].concat()).unwrap_err(),
            "FILE: at byte 2064: the last 48 bytes belong to no tensor: fetch the file again",
        ),
        (
            opened(&small().bytes()[..1_500]).unwrap_err(),
            "FILE: the tensor `blk.0.attn_k.weight`: it ends at byte 1728, but the file has 1500: fetch the file again, or choose another version of the model",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_tensor_is_called_as_its_file_calls_it() {
    for name in ["qwen2-untied", "qwen3-tied"] {
        let file = File::of(&fixture(name));
        for (index, Tensor { name, .. }) in file.tensors.iter().enumerate() {
            let mut without = file.clone();
            without.tensors.remove(index);
            // Two are not missed by their names: where there is no head the embedding is it, and it gives the vocabulary.
            if !["output.weight", "token_embd.weight"].contains(&name.as_str()) {
                assert!(refused(&without).contains(&format!("there is no tensor `{name}`")), "{name}");
            }
        }
    }
    let mut file = small();
    file.tensor("blk.0.ffn_up.weight").bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, file.bytes()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let mut rows = checkpoint.tensor("model.layers.0.mlp.up_proj.weight", &[4, 4]).unwrap();
    let error = rows.next_row(&mut [0.0; 4]).unwrap_err().to_string();
    assert!(error.contains("the tensor `blk.0.ffn_up.weight` holds NaN in row 0, column 0"), "{error}");
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let bytes = small().bytes();
    opened(&bytes).unwrap();
    for length in 0..bytes.len() - ALIGNMENT {
        assert!(opened(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn no_damage_makes_a_file_more_than_refused() {
    damage(20_000);
}

#[test]
#[ignore = "takes half a minute"]
fn no_damage_of_a_hundred_thousand_makes_a_file_more_than_refused() {
    damage(100_000);
}

fn damage(times: usize) {
    let file = small();
    let (bytes, head) = (file.bytes(), file.head().len());
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..times {
        let mut bytes = bytes.clone();
        for _ in 0..1 + random(3) {
            let at = random(head);
            match random(4) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = [0, 0xFF, 0x7F, 0x80][random(4)],
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random(256) as u8),
            }
        }
        fs::write(&path, &bytes).unwrap();
        match Checkpoint::open(&path) {
            // Whatever it is now, all of it can be read.
            Ok(checkpoint) => {
                opened += 1;
                for (tensor, shape) in checkpoint.config.tensors() {
                    values(&checkpoint, &tensor, &shape);
                }
            }
            Err(error) => {
                refused += 1;
                let error = error.to_string();
                assert!(error.contains(": ") && error.len() < 2_000, "{error}");
            }
        }
    }
    assert!(opened > times / 100 && refused > times / 2, "{opened} opened, {refused} refused");
}
