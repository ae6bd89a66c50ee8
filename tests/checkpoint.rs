//! Checkpoints: what is read from good ones, and the sentence for every way in which one can be bad.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use proptest::prelude::*;
use reprocheck::{
    digest::Digest,
    model::{
        Checkpoint, CheckpointError, Config,
        checkpoint::Origin,
        config::Architecture,
        embedded::MODELS,
        hub::{Check, HubSettings, Snapshot, SnapshotFile},
        tokenizer::Tokenizer,
    },
    numerics::{activation::Activation, rotary::Scaling},
    source::Blame as _,
};
use serde_json::{Value, json};

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("checkpoint-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn with(self, name: &str, bytes: impl AsRef<[u8]>) -> Folder {
        fs::write(self.0.join(name), bytes).unwrap();
        self
    }

    fn without(self, name: &str) -> Folder {
        fs::remove_file(self.0.join(name)).unwrap();
        self
    }

    fn open(&self) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open(&self.0)
    }

    /// The sentence, `DIR` for this folder.
    fn refused(&self) -> String {
        self.said(&self.open().expect_err("it must not open"))
    }

    fn said(&self, error: &CheckpointError) -> String {
        error.to_string().replace(self.0.to_str().unwrap(), "DIR")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The type, the shape and the bytes of a tensor.
type Stored = (&'static str, Vec<usize>, Vec<u8>);

const VOCABULARY: usize = 6;

/// A Qwen2 of one layer.
fn config() -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": VOCABULARY,
        "hidden_size": 4,
        "intermediate_size": 3,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
    })
}

fn read(config: &Value) -> Config {
    Config::read("config.json", config.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

/// Its tensors, every value another one.
fn tensors(config: &Value) -> BTreeMap<String, Stored> {
    let mut next = 0.0;
    let mut tensor = |shape: Vec<usize>| {
        let values = (0..shape.iter().product()).flat_map(|_| {
            next += 0.25;
            f32::to_le_bytes(next)
        });
        let values = values.collect();
        ("F32", shape, values)
    };
    read(config).tensors().map(|(name, shape)| (name, tensor(shape))).collect()
}

fn header_of(tensors: &BTreeMap<String, Stored>) -> (Value, Vec<u8>) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend(bytes);
    }
    (Value::Object(header), data)
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn file_of(tensors: &BTreeMap<String, Stored>) -> Vec<u8> {
    let (header, data) = header_of(tensors);
    safetensors(&header.to_string(), &data)
}

fn good() -> Folder {
    let config = config();
    Folder::new()
        .with("config.json", config.to_string())
        .with("model.safetensors", file_of(&tensors(&config)))
}

fn sharded() -> Folder {
    let mut first = tensors(&config());
    let second = first.split_off("model.layers.0.self_attn");
    let in_file = |tensors: &BTreeMap<String, Stored>, file: &str| -> Vec<_> {
        tensors.keys().map(|name| (name.clone(), Value::from(file))).collect()
    };
    let map = [in_file(&first, "a.safetensors"), in_file(&second, "b.safetensors")].concat();
    let index = json!({"metadata": {}, "weight_map": serde_json::Map::from_iter(map)});
    Folder::new()
        .with("config.json", config().to_string())
        .with("a.safetensors", file_of(&first))
        .with("b.safetensors", file_of(&second))
        .with("model.safetensors.index.json", index.to_string())
}

fn row(checkpoint: &Checkpoint, name: &str, shape: &[usize], row: usize) -> Vec<f32> {
    let mut tensor = checkpoint.tensor(name, shape).unwrap();
    let mut out = vec![0.0; *shape.last().unwrap()];
    for _ in 0..=row {
        tensor.next_row(&mut out).unwrap();
    }
    out
}

// ------------------------------------------------------------------------------------------------------ good files

#[test]
fn a_folder_opens_and_gives_its_rows() {
    let folder = good();
    let checkpoint = folder.open().unwrap();
    assert_eq!(checkpoint.origin, Origin::Folder(folder.0.clone()));
    assert_eq!(checkpoint.config, read(&config()));
    assert!(checkpoint.tokenizer.is_none() && checkpoint.chat.is_none());
    let tensors = tensors(&config());
    assert!(checkpoint.tensor_names().eq(tensors.keys()));
    for (name, (_, shape, bytes)) in &tensors {
        let values: Vec<_> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        for (number, expected) in values.chunks(*shape.last().unwrap()).enumerate() {
            assert_eq!(row(&checkpoint, name, shape, number), expected, "{name}");
        }
    }
    assert!(checkpoint.has("lm_head.weight") && !checkpoint.has("lm_head.bias"));
    let values: usize = tensors.values().map(|(_, _, bytes)| bytes.len() / 4).sum();
    assert_eq!(checkpoint.parameters(), values as u64);
}

#[test]
fn shards_are_one_model() {
    let (whole, parts) = (good(), sharded());
    let (whole, parts) = (whole.open().unwrap(), parts.open().unwrap());
    assert!(whole.tensor_names().eq(parts.tensor_names()));
    for (name, shape) in whole.config.tensors() {
        assert_eq!(row(&whole, &name, &shape, 0), row(&parts, &name, &shape, 0), "{name}");
    }
}

/// All 2^16 patterns, against the crate that others use.
#[test]
fn half_precisions_widen_exactly() {
    let shape = [1 << 8, 1 << 8];
    let finite = |exact: &dyn Fn(u16) -> f32| {
        (0..=u16::MAX).map(|bits| if exact(bits).is_finite() { bits } else { 0 }).collect::<Vec<_>>()
    };
    for (dtype, exact) in [
        ("BF16", &(|bits| half::bf16::from_bits(bits).to_f32()) as &dyn Fn(u16) -> f32),
        ("F16", &|bits| half::f16::from_bits(bits).to_f32()),
    ] {
        let patterns = finite(exact);
        let bytes = patterns.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let mut tensors = tensors(&config());
        tensors.insert("extra".to_owned(), (dtype, shape.to_vec(), bytes));
        let folder = good().with("model.safetensors", file_of(&tensors));
        let checkpoint = folder.open().unwrap();
        let mut tensor = checkpoint.tensor("extra", &shape).unwrap();
        let mut out = [0.0; 1 << 8];
        for patterns in patterns.chunks(out.len()) {
            tensor.next_row(&mut out).unwrap();
            let expected = patterns.iter().map(|&bits| exact(bits).to_bits());
            assert!(out.iter().map(|value| value.to_bits()).eq(expected), "{dtype}");
        }
    }
}

/// Longer than what is read at once, with rows across the cuts.
#[test]
fn long_tensors_come_in_the_right_order() {
    let (rows, columns) = (7, 100_003);
    let value = |at: usize| (at % 65_521) as f32;
    let bytes = (0..rows * columns).flat_map(|at| value(at).to_le_bytes()).collect();
    let mut tensors = tensors(&config());
    tensors.insert("extra".to_owned(), ("F32", vec![rows, columns], bytes));
    let folder = good().with("model.safetensors", file_of(&tensors));
    let checkpoint = folder.open().unwrap();
    let mut tensor = checkpoint.tensor("extra", &[rows, columns]).unwrap();
    let mut out = vec![0.0; columns];
    for row in 0..rows {
        tensor.next_row(&mut out).unwrap();
        assert!(
            out.iter().enumerate().all(|(column, &found)| found == value(row * columns + column)),
            "{row}"
        );
    }
}

#[test]
fn a_model_is_known_by_the_digests_of_its_files() {
    let folder = sharded().with("generation_config.json", "{}").with("unrelated.txt", "not read");
    let checkpoint = folder.open().unwrap();
    let mut lines = String::new();
    for file in checkpoint.files().unwrap() {
        let bytes = fs::read(folder.0.join(&file.name)).unwrap();
        assert_eq!((file.size, file.sha256), (bytes.len() as u64, Digest::of(&bytes)), "{}", file.name);
        lines += &format!("{}  {}\n", file.sha256, file.name);
    }
    let names: Vec<_> = checkpoint.files().unwrap().iter().map(|file| file.name.as_str()).collect();
    let expected = [
        "a.safetensors",
        "b.safetensors",
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
    ];
    assert_eq!(names, expected);
    assert_eq!(checkpoint.digest().unwrap(), Digest::of(lines.as_bytes()));
}

#[test]
fn what_the_hub_has_checked_is_not_hashed_again() {
    let folder = good();
    let size = fs::metadata(folder.0.join("model.safetensors")).unwrap().len();
    let file = |size| SnapshotFile {
        name: "model.safetensors".to_owned(),
        size,
        sha256: "ab".repeat(32),
        check: Check::Sha256,
    };
    let snapshot = |size| Snapshot {
        folder: folder.0.clone(),
        repo: "owner/name".to_owned(),
        revision: "main".to_owned(),
        commit: "c0".to_owned(),
        files: vec![file(size)],
    };
    let digest = |size| {
        let checkpoint = Checkpoint::from_snapshot(snapshot(size)).unwrap();
        assert_eq!(checkpoint.name, "owner/name@main");
        checkpoint.files().unwrap()[1].sha256.to_string()
    };
    assert_eq!(digest(size), "ab".repeat(32));
    assert_ne!(digest(size + 1), "ab".repeat(32));
}

// ---------------------------------------------------------------------------------------------- the embedded model

#[test]
fn every_embedded_model_opens_and_has_its_pinned_digest() {
    for entry in MODELS {
        let checkpoint = Checkpoint::embedded(entry).unwrap();
        assert_eq!(checkpoint.origin, Origin::Embedded);
        assert_eq!(checkpoint.digest().unwrap().to_string(), entry.digest, "{}", entry.name);
        let card = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/model/embedded")
            .join(entry.name)
            .join("README.md");
        let weights =
            &checkpoint.files().unwrap().iter().find(|file| file.name == "model.safetensors").unwrap();
        let line = format!("{}  model.safetensors", weights.sha256);
        assert!(
            fs::read_to_string(card).unwrap().contains(&line),
            "the card of {} is of another model",
            entry.name
        );
        let tokenizer = checkpoint.tokenizer.as_ref().unwrap();
        assert_eq!(tokenizer.len(), checkpoint.config.vocabulary);
        assert!(!checkpoint.config.stop_tokens.is_empty());
        for (name, shape) in checkpoint.config.tensors() {
            let mut tensor = checkpoint.tensor(&name, &shape).unwrap();
            let mut out = vec![0.0; *shape.last().unwrap()];
            for _ in 0..shape.iter().product::<usize>() / out.len() {
                tensor.next_row(&mut out).unwrap();
            }
        }
    }
}

#[test]
fn an_embedded_model_writes_with_the_characters_of_ascii() {
    let checkpoint = Checkpoint::embedded(&MODELS[0]).unwrap();
    // A newline ends a line of its training.
    assert_eq!(checkpoint.config.stop_tokens, [0, 1]);
    let tokenizer = checkpoint.tokenizer.unwrap();
    let text: String = std::iter::once('\n').chain(' '..='~').collect();
    let tokens = tokenizer.encode(&text, true).unwrap();
    assert!(tokens.iter().copied().eq(1..=96));
    assert_eq!(tokenizer.decode(&tokens, true), text);
    assert_eq!(tokenizer.encode("a<|endoftext|>", true).unwrap().last(), Some(&0));
    assert_eq!(
        (tokenizer.decode(&[0, 2], true), tokenizer.decode(&[0], false)),
        (" ".to_owned(), "<|endoftext|>".to_owned())
    );
    let error = tokenizer.encode("2\u{d7}2", true).unwrap_err().to_string();
    assert_eq!(
        error,
        "qwen/tokenizer.json in this binary cannot turn \"2\u{d7}2\" into tokens \
         (WordLevel error: Missing [UNK] token from the vocabulary): write it with other characters"
    );
}

// ----------------------------------------------------------------------------------------------------------- names

fn resolve(model: &str) -> Result<Checkpoint, CheckpointError> {
    let offline = |name: &str| (name == "HF_HUB_OFFLINE").then(|| "1".into());
    let settings = HubSettings::from_variables(offline, Some(env!("CARGO_TARGET_TMPDIR").into()));
    Checkpoint::resolve(model, &settings, &mut |_| {})
}

#[test]
fn a_model_is_named_in_three_ways() {
    assert_eq!(resolve("qwen").unwrap().origin, Origin::Embedded);
    let folder = good();
    let path = folder.0.to_str().unwrap();
    let checkpoint = resolve(path).unwrap();
    assert_eq!((checkpoint.name.as_str(), checkpoint.origin), (path, Origin::Folder(folder.0.clone())));
    assert!(matches!(resolve("owner/name@v1"), Err(CheckpointError::Hub(_))));
    for bare in ["src", "./src", "../nowhere", "/nowhere", "."] {
        assert!(
            !matches!(resolve(bare), Err(CheckpointError::Hub(_) | CheckpointError::Unknown { .. })),
            "{bare}"
        );
    }
}

#[test]
fn a_name_that_stands_for_nothing_gets_the_three_ways() {
    let ways = "write `qwen` or `qwen-full` for one in this binary, `./folder` or `./file.gguf` for files here, or `owner/name` for the Hugging Face Hub";
    for (name, suggestion) in
        [("qwem", "did you mean `qwen`? "), ("Qwen", "did you mean `qwen`? "), ("gpt", "")]
    {
        let expected = format!("there is no model `{name}`: {suggestion}{ways}");
        assert_eq!(resolve(name).unwrap_err().to_string(), expected);
    }
    assert_eq!(
        resolve("./nowhere").unwrap_err().to_string(),
        "there is no folder ./nowhere: name one that holds a model, or `owner/name` for the Hugging Face Hub"
    );
    assert_eq!(
        resolve("./Cargo.toml").unwrap_err().to_string(),
        "./Cargo.toml is not a folder: name the folder that holds the model's config.json, or a file that ends in .gguf"
    );
}

// ---------------------------------------------------------------------------------------------------- good configs

#[test]
fn absent_keys_have_the_values_of_the_family() {
    let of = |name| read(&json!({"model_type": name}));
    let (qwen2, qwen3, llama) = (of("qwen2"), of("qwen3"), of("llama"));
    assert_eq!(
        qwen2,
        Config {
            architecture: Architecture::Qwen2,
            vocabulary: 151_936,
            width: 4_096,
            inner_width: 22_016,
            layers: 32,
            heads: 32,
            kv_heads: 32,
            head_width: 128,
            epsilon: 1e-6,
            activation: Activation::Silu,
            rope_theta: 10_000.0,
            rope_scaling: Scaling::None,
            positions: 32_768,
            windows: vec![None; 32],
            tied: false,
            qkv_bias: true,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            stop_tokens: vec![],
            beginning_token: None,
            padding_token: None,
        }
    );
    let like_qwen2 =
        Config { architecture: Architecture::Qwen3, qkv_bias: false, qk_norm: true, ..qwen2.clone() };
    assert_eq!(qwen3, like_qwen2);
    assert_eq!(
        llama,
        Config {
            architecture: Architecture::Llama,
            vocabulary: 32_000,
            inner_width: 11_008,
            positions: 2_048,
            qkv_bias: false,
            stop_tokens: vec![2],
            beginning_token: Some(1),
            ..qwen2
        }
    );
    let narrow = |name| {
        read(
            &json!({"model_type": name, "hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 2}),
        )
    };
    assert_eq!(
        [narrow("qwen2"), narrow("qwen3"), narrow("llama")].map(|config| config.head_width),
        [8, 128, 8]
    );
    let llama = read(&json!({"model_type": "llama", "num_attention_heads": 8}));
    assert_eq!(llama.kv_heads, 8);
}

#[test]
fn heads_may_have_a_width_of_their_own() {
    let config = json!({"model_type": "qwen3", "hidden_size": 8, "num_attention_heads": 4, "num_key_value_heads": 2,
                        "head_dim": 6, "intermediate_size": 5, "num_hidden_layers": 1});
    let config = read(&config);
    let shapes: BTreeMap<_, _> = config.tensors().collect();
    for (name, shape) in [
        ("self_attn.q_proj.weight", &[24, 8][..]),
        ("self_attn.k_proj.weight", &[12, 8]),
        ("self_attn.v_proj.weight", &[12, 8]),
        ("self_attn.o_proj.weight", &[8, 24]),
        ("self_attn.q_norm.weight", &[6]),
        ("self_attn.k_norm.weight", &[6]),
        ("mlp.gate_proj.weight", &[5, 8]),
        ("mlp.up_proj.weight", &[5, 8]),
        ("mlp.down_proj.weight", &[8, 5]),
    ] {
        assert_eq!(shapes[&format!("model.layers.0.{name}")], shape, "{name}");
    }
}

#[test]
fn biases_stand_where_hugging_face_puts_them() {
    let biased = |name: &str, keys: Value| {
        let mut config = json!({"model_type": name, "num_hidden_layers": 1});
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let config = read(&config);
        let names = config.tensors().map(|(name, _)| name);
        names
            .filter_map(|name| Some(name.strip_suffix("_proj.bias")?.rsplit('.').next()?.to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(biased("qwen2", json!({})), ["q", "k", "v"]);
    assert_eq!(biased("qwen3", json!({})), Vec::<String>::new());
    assert_eq!(biased("qwen3", json!({"attention_bias": true})), ["q", "k", "v", "o"]);
    assert_eq!(biased("llama", json!({"attention_bias": true})), ["q", "k", "v", "o"]);
    assert_eq!(biased("llama", json!({"mlp_bias": true})), ["gate", "up", "down"]);
}

fn rope(keys: &Value) -> (f64, Scaling) {
    let mut config = config();
    config.as_object_mut().unwrap().remove("rope_theta");
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let config = read(&config);
    (config.rope_theta, config.rope_scaling)
}

#[test]
fn rotary_positions_are_read_in_both_layouts() {
    for (scaling, expected) in [
        (json!({"rope_type": "default"}), Scaling::None),
        (json!({"type": "linear", "factor": 2}), Scaling::Linear { factor: 2.0 }),
        (
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 8192}),
            Scaling::Llama3 {
                factor: 8.0,
                low_frequency: 1.0,
                high_frequency: 4.0,
                original_positions: 8192,
            },
        ),
        (
            json!({"rope_type": "yarn", "type": "yarn", "factor": 4.0}),
            Scaling::Yarn {
                factor: 4.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                // As many as the model has, where nothing is said.
                original_positions: 32,
                // Of Python: 0.1 * math.log(4.0) + 1.0
                attention: 1.138_629_436_111_989,
                truncate: true,
            },
        ),
        (
            json!({"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 16, "beta_fast": 24, "beta_slow": 2,
                   "mscale": 0.707, "mscale_all_dim": 1.0, "truncate": false, "attention_factor": null}),
            Scaling::Yarn {
                factor: 40.0,
                beta_fast: 24.0,
                beta_slow: 2.0,
                original_positions: 16,
                // (0.0707 * math.log(40.0) + 1.0) / (0.1 * math.log(40.0) + 1.0)
                attention: 0.921_042_355_316_339_9,
                truncate: false,
            },
        ),
    ] {
        assert_eq!(rope(&json!({"rope_theta": 5e5, "rope_scaling": scaling})), (5e5, expected));
        assert_eq!(rope(&json!({"rope_scaling": scaling})), (1e4, expected));
        let mut parameters = scaling;
        parameters["rope_theta"] = json!(1e6);
        assert_eq!(rope(&json!({"rope_parameters": parameters})), (1e6, expected));
        assert_eq!(rope(&json!({"rope_parameters": parameters, "rope_theta": 5e5})), (1e6, expected));
    }
    assert_eq!(rope(&json!({"rope_scaling": null, "rope_theta": 7})), (7.0, Scaling::None));
    let outside = json!({
        "original_max_position_embeddings": 4,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
    });
    assert!(matches!(rope(&outside).1, Scaling::Yarn { original_positions: 4, .. }));
    let given = json!({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5});
    assert!(matches!(rope(&json!({"rope_scaling": given})).1, Scaling::Yarn { attention: 1.5, .. }));
}

#[test]
fn windows_are_where_both_switch_and_layer_ask_for_them() {
    let windows = |keys: Value| {
        let mut config = json!({"model_type": "qwen2", "num_hidden_layers": 4});
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        read(&config).windows
    };
    let none = vec![None; 4];
    assert_eq!(windows(json!({"sliding_window": 8, "max_window_layers": 2})), none);
    assert_eq!(
        windows(json!({"use_sliding_window": true, "sliding_window": null, "max_window_layers": 2})),
        none
    );
    assert_eq!(windows(json!({"use_sliding_window": true, "sliding_window": 8})), none);
    let late = json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 2});
    assert_eq!(windows(late), [None, None, Some(8), Some(8)]);
    assert_eq!(windows(json!({"use_sliding_window": true, "max_window_layers": 0})), vec![Some(4096); 4]);
    let (full, sliding) = ("full_attention", "sliding_attention");
    let named = json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 0,
                       "layer_types": [sliding, full, sliding, full]});
    assert_eq!(windows(named), [Some(8), None, Some(8), None]);
}

#[test]
fn special_tokens_come_from_the_generation_config_first() {
    let mut llama = read(&json!({"model_type": "llama", "eos_token_id": [9, 7, 9], "pad_token_id": -1}));
    assert_eq!(
        (&llama.stop_tokens[..], llama.beginning_token, llama.padding_token),
        (&[7, 9][..], Some(1), None)
    );
    llama.take_generation("g", br#"{"eos_token_id": 5, "pad_token_id": 3, "temperature": 0.6}"#).unwrap();
    assert_eq!(
        (&llama.stop_tokens[..], llama.beginning_token, llama.padding_token),
        (&[5][..], Some(1), Some(3))
    );
    llama.take_generation("g", br#"{"eos_token_id": null, "bos_token_id": 0}"#).unwrap();
    assert_eq!((&llama.stop_tokens[..], llama.beginning_token), (&[5][..], Some(0)));
    let folder = good().with("generation_config.json", r#"{"eos_token_id": [4, 2]}"#);
    assert_eq!(folder.open().unwrap().config.stop_tokens, [2, 4]);
}

#[test]
fn activations_are_known_by_all_their_names() {
    for (name, activation) in [
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
        ("gelu", Activation::Gelu),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("gelu_new", Activation::GeluTanh),
        ("relu", Activation::Relu),
    ] {
        assert_eq!(read(&json!({"model_type": "llama", "hidden_act": name})).activation, activation);
    }
}

// ----------------------------------------------------------------------------------------------------- bad configs

/// The sentence for a good config of that family with these keys.
fn config_refused(keys: &Value) -> String {
    let mut config = config();
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    Config::read("config.json", config.to_string().as_bytes()).expect_err(&keys.to_string()).to_string()
}

#[test]
fn absurd_sizes_are_named() {
    let same = "see that the file is the one that belongs to the weights";
    for (keys, problem) in [
        (
            json!({"hidden_size": 1_000_000_000_000_u64}),
            "`hidden_size` is 1000000000000, and only whole numbers from 1 to 1048576 make sense",
        ),
        (
            json!({"hidden_size": -4}),
            "`hidden_size` is -4, and only whole numbers from 1 to 1048576 make sense",
        ),
        (
            json!({"hidden_size": 4.5}),
            "`hidden_size` is 4.5, and only whole numbers from 1 to 1048576 make sense",
        ),
        (
            json!({"hidden_size": null}),
            "`hidden_size` is null, and only whole numbers from 1 to 1048576 make sense",
        ),
        (
            json!({"hidden_size": "4"}),
            "`hidden_size` is \"4\", and only whole numbers from 1 to 1048576 make sense",
        ),
        (
            json!({"intermediate_size": 0}),
            "`intermediate_size` is 0, and only whole numbers from 1 to 16777216 make sense",
        ),
        (
            json!({"num_hidden_layers": 0}),
            "`num_hidden_layers` is 0, and only whole numbers from 1 to 16384 make sense",
        ),
        (
            json!({"num_hidden_layers": 1_000_000_000}),
            "`num_hidden_layers` is 1000000000, and only whole numbers from 1 to 16384 make sense",
        ),
        (
            json!({"vocab_size": 4_294_967_297_u64}),
            "`vocab_size` is 4294967297, and only whole numbers from 1 to 4294967296 make sense",
        ),
        (
            json!({"vocab_size": 1e300}),
            "`vocab_size` is 1e+300, and only whole numbers from 1 to 4294967296 make sense",
        ),
        (
            json!({"num_attention_heads": 3, "num_key_value_heads": 3}),
            "`num_attention_heads` is 3, and a width of 4 cannot be shared among that many",
        ),
        (
            json!({"num_key_value_heads": 3}),
            "`num_key_value_heads` is 3, and 2 query heads cannot share that many",
        ),
        (
            json!({"head_dim": 3}),
            "`head_dim` is 3, and rotary positions turn pairs, which a head of width 3 is not made of",
        ),
        (
            json!({"num_attention_heads": 4}),
            "`num_attention_heads` is 4, and rotary positions turn pairs, which a head of width 1 is not made of",
        ),
        (
            json!({"max_position_embeddings": 1_u64 << 40}),
            "`max_position_embeddings` is 1099511627776, and only whole numbers from 1 to 2147483648 make sense",
        ),
        (
            json!({"rms_norm_eps": -1e-6}),
            "`rms_norm_eps` is -1e-6, and only numbers from 0e0 to 1e0 make sense",
        ),
        (
            json!({"rope_theta": 0}),
            "`rope_theta` is 0, and only numbers from 2.2250738585072014e-308 to 1e30 make sense",
        ),
        (json!({"tie_word_embeddings": 1}), "`tie_word_embeddings` is 1, and only true and false make sense"),
        (json!({"eos_token_id": [2, 6]}), "`eos_token_id` is 6, and a token is a number from 0 to 5"),
        (json!({"bos_token_id": "<s>"}), "`bos_token_id` is \"<s>\", and a token is a number from 0 to 5"),
        (
            json!({"layer_types": ["full_attention", "full_attention"]}),
            "`layer_types` is [\"full_attention\",\"full_attention\"], and only a list of 1 types makes sense, one for each layer",
        ),
        (
            json!({"layer_types": ["sliding_attention"]}),
            "`layer_types` is \"sliding_attention\", and no size of a window goes with it, or none is allowed",
        ),
        (
            json!({"use_sliding_window": true, "sliding_window": 0}),
            "`sliding_window` is 0, and only whole numbers from 1 to 2147483648 make sense",
        ),
        (
            json!({"mlp_bias": true}),
            "`mlp_bias` is true, and the feed-forward layers of qwen2 have no biases",
        ),
        (
            json!({"model_type": "llama"}),
            "`model_type` is \"llama\", and `architectures` says Qwen2ForCausalLM",
        ),
        (
            json!({"rope_scaling": "linear"}),
            "`rope_scaling` is \"linear\", and only an object with keys makes sense",
        ),
        (
            json!({"rope_scaling": {"type": "linear"}}),
            "`rope_scaling.factor` is absent, and only numbers from 1e-6 to 1e9 make sense",
        ),
        (
            json!({"rope_scaling": {"type": "linear", "factor": 0}}),
            "`rope_scaling.factor` is 0, and only numbers from 1e-6 to 1e9 make sense",
        ),
        (
            json!({"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"type": "linear", "factor": 3}}),
            "`rope_scaling` is {\"factor\":2,\"type\":\"linear\"}, and `rope_parameters` says something else",
        ),
        (
            json!({"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}}),
            "`rope_parameters.high_freq_factor` is 4, and `low_freq_factor` is 4, which must be less",
        ),
        (
            json!({"rope_parameters": {"rope_type": "yarn", "factor": 8, "beta_fast": 1, "beta_slow": 2}}),
            "`rope_parameters.beta_fast` is 1, and `beta_slow` is 2, which must not be more",
        ),
        (
            json!({"rope_parameters": {"rope_type": "yarn", "factor": 8, "rope_theta": 1}}),
            "`rope_parameters.rope_theta` is 1, and yarn divides by its logarithm",
        ),
    ] {
        assert_eq!(config_refused(&keys), format!("config.json: {problem}: {same}"));
    }
}

#[test]
fn what_is_not_computed_is_refused() {
    for (keys, sentence) in [
        (
            json!({"architectures": ["MistralForCausalLM"]}),
            "`architectures` is \"MistralForCausalLM\", and the architectures that are known here are \
             Qwen2ForCausalLM, Qwen3ForCausalLM, LlamaForCausalLM: choose one of those",
        ),
        (
            json!({"architectures": null, "model_type": "gpt2"}),
            "`model_type` is \"gpt2\", and the architectures that are known here are qwen2, qwen3, llama: choose one of those",
        ),
        (
            json!({"hidden_act": "quick_gelu"}),
            "`hidden_act` is \"quick_gelu\", and the activations that are computed here are silu, gelu, \
             gelu_pytorch_tanh and relu: choose a model with one of those",
        ),
        (
            json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2}}),
            "`rope_scaling.rope_type` is \"dynamic\", and the types that are computed here are default, linear, \
             llama3 and yarn: choose a model with one of those",
        ),
        (
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            "`rope_parameters.full_attention` is {\"rope_type\":\"default\"}, and rotary positions of the type \
             default have no such key: choose another model, or remove the key if it means nothing",
        ),
        (
            json!({"rope_scaling": {"type": "default", "mrope_section": [16, 24, 24]}}),
            "`rope_scaling.mrope_section` is [16,24,24], and rotary positions of the type default have no such key: \
             choose another model, or remove the key if it means nothing",
        ),
        (
            json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
            "`rope_parameters.partial_rotary_factor` is 0.5, and rotary positions on a part of a head are not \
             computed: choose another model, or remove the key if it means nothing",
        ),
        (
            json!({"quantization_config": {"bits": 4, "quant_method": "gptq", "desc_act": false, "group_size": 128}}),
            "`quantization_config` is {\"bits\":4,\"desc_act\":false,\"group_size\":128,\"quant_method\":\"…, and quantized \
             weights are not read: choose another model, or remove the key if it means nothing",
        ),
        (
            json!({"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}),
            "`auto_map` is {\"AutoModelForCausalLM\":\"modeling_x.X\"}, and code that comes with a model is not run: \
             choose another model, or remove the key if it means nothing",
        ),
        (
            json!({"layer_types": ["linear_attention"]}),
            "`layer_types` is \"linear_attention\", and the layers that are computed here are full_attention and \
             sliding_attention: choose a model without it",
        ),
        (
            json!({"is_causal": false}),
            "`is_causal` is false, and attention to later tokens is not computed: choose a model without it",
        ),
        (
            json!({"architectures": null, "model_type": "llama", "sliding_window": 4096}),
            "`sliding_window` is 4096, and llama has no sliding windows: choose another model, or remove the key if it \
             means nothing",
        ),
    ] {
        assert_eq!(config_refused(&keys), format!("config.json: {sentence}"));
    }
    for key in [
        "num_experts",
        "num_local_experts",
        "attn_logit_softcapping",
        "logits_scaling",
        "clip_qkv",
        "no_rope_layers",
    ] {
        assert!(config_refused(&json!({ key: [2] })).contains(&format!("config.json: `{key}` is [2], and ")));
    }
    let mut asks_for_nothing = config();
    for (key, value) in [
        ("num_experts", json!(0)),
        ("partial_rotary_factor", json!(1.0)),
        ("quantization_config", Value::Null),
    ] {
        asks_for_nothing[key] = value;
    }
    assert_eq!(read(&asks_for_nothing), read(&config()));
}

#[test]
fn texts_that_are_not_json_are_named() {
    for (name, bytes, sentence) in [
        (
            "config.json",
            "{\"model_type\": ",
            "DIR/config.json does not read (EOF while parsing a value at line 1 column 15): fetch it again",
        ),
        ("config.json", "[1]", "DIR/config.json is JSON, but not an object with keys: fetch it again"),
        (
            "config.json",
            "{}",
            "DIR/config.json: `architectures` is absent, and the architectures that are known here are Qwen2ForCausalLM, Qwen3ForCausalLM, LlamaForCausalLM: choose one of those",
        ),
        (
            "generation_config.json",
            "x",
            "DIR/generation_config.json does not read (expected value at line 1 column 1): fetch it again",
        ),
        (
            "generation_config.json",
            "{\"eos_token_id\": 6}",
            "DIR/generation_config.json: `eos_token_id` is 6, and a token is a number from 0 to 5: see that the file is the one that belongs to the weights",
        ),
        (
            "tokenizer.json",
            "x",
            "DIR/tokenizer.json does not read (expected value at line 1 column 1): fetch it again",
        ),
        (
            "tokenizer_config.json",
            "x",
            "DIR/tokenizer_config.json does not read (expected value at line 1 column 1): fetch it again",
        ),
        (
            "tokenizer_config.json",
            "{\"chat_template\": 1}",
            "DIR/tokenizer_config.json: `chat_template` is neither a text nor a list: fetch it again",
        ),
        (
            "tokenizer_config.json",
            "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"\"}]}",
            "DIR/tokenizer_config.json: no `chat_template` in its list is the default one: fetch it again",
        ),
    ] {
        assert_eq!(good().with(name, bytes).refused(), sentence);
    }
    let deep = "[".repeat(1_000_000);
    assert_eq!(
        good().with("config.json", deep).refused(),
        "DIR/config.json does not read (recursion limit exceeded at line 1 column 128): fetch it again"
    );
    assert_eq!(
        good().with("chat_template.jinja", [0xFF]).refused(),
        "DIR/chat_template.jinja: it is not UTF-8: fetch it again"
    );
}

// ------------------------------------------------------------------------------------------------------- bad files

#[test]
fn what_is_not_a_file_is_named() {
    let folder = Folder::new();
    assert_eq!(folder.refused(), "DIR holds no config.json: name a folder in the layout of Hugging Face");
    let folder = good().without("model.safetensors");
    assert_eq!(
        folder.refused(),
        "DIR holds neither `model.safetensors` nor `model.safetensors.index.json`: \
         name the folder of a model whose weights are in that format"
    );
    for name in ["config.json", "model.safetensors"] {
        let folder = good().without(name);
        fs::create_dir(folder.0.join(name)).unwrap();
        assert_eq!(folder.refused(), format!("DIR/{name} is not a file: put the model's file in its place"));
    }
    let folder = good();
    fs::File::create(folder.0.join("config.json")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(
        folder.refused(),
        "DIR/config.json has 1099511627776 bytes, and no more than 8388608 are read: put the model's own file in its place"
    );
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_named() {
    use std::os::unix::fs::symlink;
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let folder = good();
        let _ = fs::remove_file(folder.0.join(name));
        symlink("nowhere", folder.0.join(name)).unwrap();
        assert_eq!(
            folder.refused(),
            format!("DIR/{name} is a link to nothing: fetch the file again, or remove the link")
        );
        fs::remove_file(folder.0.join(name)).unwrap();
        symlink(name, folder.0.join(name)).unwrap();
        let refused = folder.refused();
        assert!(refused.starts_with(&format!("DIR/{name} cannot be read (")), "{refused}");
        assert!(refused.ends_with("): see that it is there and may be read"), "{refused}");
        assert!(folder.open().unwrap_err().is_environment());
    }
    // A good link is what caches are made of.
    let (folder, elsewhere) = (good(), good());
    let file = folder.0.join("model.safetensors");
    fs::remove_file(&file).unwrap();
    symlink(elsewhere.0.join("model.safetensors"), &file).unwrap();
    assert!(folder.open().is_ok());
}

#[test]
fn a_file_that_shrinks_while_it_is_open_is_named() {
    let folder = good();
    let checkpoint = folder.open().unwrap();
    let file = fs::File::options().write(true).open(folder.0.join("model.safetensors")).unwrap();
    let size = file.metadata().unwrap().len();
    file.set_len(size - 4).unwrap();
    let mut tensor = checkpoint.tensor("model.norm.weight", &[4]).unwrap();
    let error = CheckpointError::from(tensor.next_row(&mut [0.0; 4]).unwrap_err());
    let sentence = format!(
        "DIR/model.safetensors ends before byte {size}, which it had when it was opened: leave a model alone while it runs"
    );
    assert_eq!(folder.said(&error), sentence);
    assert_eq!(folder.said(&checkpoint.digest().unwrap_err()), sentence);
}

// ----------------------------------------------------------------------------------------------------- bad headers

fn header_refused(file: &[u8]) -> String {
    good().with("model.safetensors", file).refused()
}

#[test]
fn headers_that_lie_about_their_length_are_named() {
    let good = file_of(&tensors(&config()));
    for size in 0..8 {
        assert_eq!(
            header_refused(&good[..size]),
            format!(
                "DIR/model.safetensors has {size} bytes, too few for the header of a safetensors file: fetch it again"
            )
        );
    }
    let with_length = |length: u64| [&length.to_le_bytes(), &good[8..]].concat();
    for length in [100_000_001, u64::MAX] {
        assert_eq!(
            header_refused(&with_length(length)),
            format!(
                "DIR/model.safetensors announces a header of {length} bytes, and the format allows 100000000: \
                 it is not a safetensors file, so fetch the one that belongs there"
            )
        );
    }
    let left = good.len() - 8;
    for length in [left as u64 + 1, 100_000_000] {
        assert_eq!(
            header_refused(&with_length(length)),
            format!(
                "DIR/model.safetensors announces a header of {length} bytes, but only {left} follow: \
                 it is cut off or not a safetensors file, so fetch it again"
            )
        );
    }
    assert_eq!(
        header_refused(&with_length(5)),
        "DIR/model.safetensors has a header that does not read (EOF while parsing a string at line 1 column 5): fetch it again"
    );
    assert_eq!(
        header_refused(&with_length(0)),
        "DIR/model.safetensors has a header that does not read (EOF while parsing a value at line 1 column 0): fetch it again"
    );
}

#[test]
fn headers_that_lie_about_their_tensors_are_named() {
    let one = |name: &str, dtype: &str, shape: &str, offsets: &str| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let f32 = |name: &str, begin: u64, end: u64| {
        one(name, "F32", &format!("[{}]", end.saturating_sub(begin) / 4), &format!("[{begin},{end}]"))
    };
    for (entries, sentence) in [
        (vec![f32("a", 8, 4)], ": the tensor `a` ends at 4, before it begins at 8: fetch the file again"),
        (
            vec![f32("a", 0, 20)],
            ": the tensor `a` ends at 20, but there are only 16 bytes of values: the file is cut off, so fetch it again",
        ),
        (
            vec![f32("a", 0, u64::MAX)],
            ": the tensor `a` ends at 18446744073709551615, but there are only 16 bytes of values: the file is cut off, so fetch it again",
        ),
        (
            vec![f32("a", 0, 8), f32("b", 4, 16)],
            ": the tensors `a` and `b` overlap: write the file again with each on its own",
        ),
        (
            vec![f32("a", 0, 16), f32("b", 0, 16)],
            ": the tensors `a` and `b` overlap: write the file again with each on its own",
        ),
        (
            vec![f32("a", 0, 16), f32("b", 4, 8)],
            ": the tensors `a` and `b` overlap: write the file again with each on its own",
        ),
        (
            vec![f32("a", 4, 16)],
            ": the 4 bytes of values from 0 on belong to no tensor: fetch the file again",
        ),
        (
            vec![f32("a", 0, 4), f32("b", 8, 16)],
            ": the 4 bytes of values from 4 on belong to no tensor: fetch the file again",
        ),
        (vec![f32("a", 0, 8)], ": the 8 bytes of values from 8 on belong to no tensor: fetch the file again"),
        (vec![], ": the 16 bytes of values from 0 on belong to no tensor: fetch the file again"),
        (
            vec![one("a", "F32", "[5]", "[0,16]")],
            ": the tensor `a` has 16 bytes, but [5] in F32 takes 20: fetch the file again",
        ),
        (
            vec![one("a", "BF16", "[2,2]", "[0,16]")],
            ": the tensor `a` has 16 bytes, but [2, 2] in BF16 takes 8: fetch the file again",
        ),
        (
            vec![one("a", "F32", "[]", "[0,16]")],
            ": the tensor `a` has 16 bytes, but [] in F32 takes 4: fetch the file again",
        ),
        (
            vec![one("a", "F32", "[4294967296,4294967296]", "[0,16]")],
            ": the tensor `a` has the absurd shape [4294967296, 4294967296]: fetch the file again",
        ),
        (
            vec![one("a", "F4", "[33]", "[0,16]")],
            ": the tensor `a` has the absurd shape [33]: fetch the file again",
        ),
        (
            vec![one("a", "F32", "[-4]", "[0,16]")],
            " has a header that does not read (the tensor `a`: invalid value: integer `-4`, expected usize at line 1 column 31): fetch it again",
        ),
        (
            vec![one("a", "F33", "[4]", "[0,16]")],
            " has a header that does not read (the tensor `a`: unknown variant `F33`, expected one of `BOOL`, `F4`, `F6_E2M3`, \
             `F6_E3M2`, `U8`, `I8`, `F8_E5M2`, `F8_E4M3`, `F8_E8M0`, `F8_E4M3FNUZ`, `F8_E5M2FNUZ`, `I16`, `U16`, `F16`, `BF16`, \
             `I32`, `U32`, `F32`, `C64`, `F64`, `I64`, `U64` at line 1 column 19): fetch it again",
        ),
        (
            vec![one("a", "F32", "[1,1,1,1,1,1,1,1,4]", "[0,16]")],
            " has a header that does not read (the tensor `a`: invalid length 9, expected a list of at most 8 lengths at line 1 \
             column 47): fetch it again",
        ),
        (
            vec![f32("a", 0, 8), f32("a", 8, 16)],
            " has a header that does not read (the tensor `a` stands there twice at line 1 column 108): fetch it again",
        ),
        (
            vec!["\"a\":{\"dtype\":\"F32\",\"shape\":[4]}".to_owned()],
            " has a header that does not read (the tensor `a`: missing field `data_offsets` at line 1 column 32): fetch it again",
        ),
    ] {
        let header = format!("{{{}}}", entries.join(","));
        assert_eq!(
            header_refused(&safetensors(&header, &[0; 16])),
            format!("DIR/model.safetensors{sentence}")
        );
    }
}

#[test]
fn tensors_that_do_not_fit_the_config_are_named() {
    let refused = |change: &dyn Fn(&mut BTreeMap<String, Stored>), keys: Value| {
        let mut tensors = tensors(&config());
        change(&mut tensors);
        let mut config = config();
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        good().with("model.safetensors", file_of(&tensors)).with("config.json", config.to_string()).refused()
    };
    let nothing = json!({});
    let query = "model.layers.0.self_attn.q_proj.weight";
    assert_eq!(
        refused(&|tensors| drop(tensors.remove(query)), nothing.clone()),
        format!(
            "DIR/model.safetensors: there is no tensor `{query}`: fetch the model again, or see that its config is its own"
        )
    );
    assert_eq!(
        refused(&|_| (), json!({"vocab_size": 4_294_967_296_u64})),
        "DIR/model.safetensors: the tensor `model.embed_tokens.weight` has the shape [6, 4], but the model's config makes it \
         [4294967296, 4]: see that both are of the same model"
    );
    assert_eq!(
        refused(&|_| (), json!({"num_hidden_layers": 16_384})),
        "DIR/model.safetensors: there is no tensor `model.layers.1.input_layernorm.weight`: fetch the model again, or see \
         that its config is its own"
    );
    let foreign = "has no place in the qwen2 of 1 layers that the model's config describes: see that both are of the same model";
    for extra in ["model.layers.0.self_attn.o_proj.bias", "model.layers.1.input_layernorm.weight"] {
        let add = |tensors: &mut BTreeMap<String, Stored>| {
            drop(tensors.insert(extra.to_owned(), ("F32", vec![4], vec![0; 16])))
        };
        assert_eq!(refused(&add, nothing.clone()), format!("the tensor `{extra}` {foreign}"));
    }
    let as_integers = |tensors: &mut BTreeMap<String, Stored>| tensors.get_mut(query).unwrap().0 = "I32";
    assert_eq!(
        refused(&as_integers, nothing),
        format!(
            "DIR/model.safetensors: the tensor `{query}` is stored as I32, and only F32, BF16 and F16 are read: \
             choose a version of the model in one of those"
        )
    );
    assert_eq!(
        refused(&|_| (), json!({"tie_word_embeddings": true})),
        "`tie_word_embeddings` is true, but `lm_head.weight` is not `model.embed_tokens.weight`: set it to false to use both, \
         or remove the tensor"
    );
}

#[test]
fn tensors_that_do_no_harm_are_left_alone() {
    let mut tensors = tensors(&config());
    let embedding = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".to_owned(), embedding);
    tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), ("F32", vec![1], vec![0; 4]));
    tensors.insert("score.weight".to_owned(), ("I64", vec![1], vec![0; 8]));
    let mut config = config();
    config["tie_word_embeddings"] = json!(true);
    let folder = good().with("model.safetensors", file_of(&tensors)).with("config.json", config.to_string());
    assert!(folder.open().unwrap().config.tied);
}

#[test]
fn weights_that_are_not_numbers_are_named_with_their_place() {
    let name = "lm_head.weight";
    for (dtype, size, bad, shown) in [
        ("F32", 4, f32::NAN.to_bits(), "NaN"),
        ("F32", 4, 0xFF80_0000, "-inf"),
        ("BF16", 2, 0x7F80, "inf"),
        ("BF16", 2, 0xFFFF, "NaN"),
        ("F16", 2, 0x7C00, "inf"),
        ("F16", 2, 0x7C01, "NaN"),
        ("F16", 2, 0xFC00, "-inf"),
    ] {
        // In rows that are cut by the end of a piece as well.
        for (rows, columns, row, column) in
            [(VOCABULARY, 4, 3, 1), (3, 300_001, 0, 0), (3, 300_001, 1, 299_999), (3, 300_001, 2, 300_000)]
        {
            let mut bytes = vec![0; rows * columns * size];
            bytes[(row * columns + column) * size..][..size].copy_from_slice(&u32::to_le_bytes(bad)[..size]);
            let mut tensors = tensors(&config());
            let name = if columns == 4 { name } else { "extra" };
            tensors.insert(name.to_owned(), (dtype, vec![rows, columns], bytes));
            let folder = good().with("model.safetensors", file_of(&tensors));
            let checkpoint = folder.open().unwrap();
            let mut tensor = checkpoint.tensor(name, &[rows, columns]).unwrap();
            let mut out = vec![0.0; columns];
            for _ in 0..row {
                tensor.next_row(&mut out).unwrap();
            }
            let error = CheckpointError::from(tensor.next_row(&mut out).unwrap_err());
            assert_eq!(
                folder.said(&error),
                format!(
                    "DIR/model.safetensors: the tensor `{name}` holds {shown} in row {row}, column {column}: \
                     the weights are damaged, so fetch the file again or choose another version"
                )
            );
        }
    }
}

// ------------------------------------------------------------------------------------------------------ bad shards

#[test]
fn shards_that_are_missing_or_elsewhere_are_named() {
    assert_eq!(
        sharded().without("b.safetensors").refused(),
        "DIR/b.safetensors is missing, though DIR/model.safetensors.index.json names it: fetch the rest of the model"
    );
    let index = |tensor: &str, shard: &str| json!({"weight_map": {tensor: shard}}).to_string();
    for shard in ["../a.safetensors", "/etc/passwd", "x/a.safetensors", "..", ".", "", "x\\a", "C:a", "a\0"] {
        assert_eq!(
            sharded().with("model.safetensors.index.json", index("t", shard)).refused(),
            format!(
                "DIR/model.safetensors.index.json puts `t` into `{shard}`, which is not the plain name of a file beside it: \
                 do not use a model that reaches for other files"
            )
        );
    }
    for (text, why) in [
        ("x", "expected value at line 1 column 1"),
        ("{}", "missing field `weight_map` at line 1 column 2"),
        ("{\"weight_map\": {\"a\": 1}}", "invalid type: integer `1`, expected a string at line 1 column 22"),
    ] {
        assert_eq!(
            sharded().with("model.safetensors.index.json", text).refused(),
            format!("DIR/model.safetensors.index.json does not read ({why}): fetch it again")
        );
    }
}

#[test]
fn an_index_and_its_shards_must_agree() {
    let norm = "model.layers.0.self_attn.k_proj.bias";
    let change = |shard: &str, change: &dyn Fn(&mut BTreeMap<String, Stored>)| {
        let mut first = tensors(&config());
        let second = first.split_off("model.layers.0.self_attn");
        let mut tensors = if shard == "a.safetensors" { first } else { second };
        change(&mut tensors);
        sharded().with(shard, file_of(&tensors)).refused()
    };
    let way_out = "fetch both from the same place";
    assert_eq!(
        change("b.safetensors", &|tensors| drop(tensors.remove(norm))),
        format!(
            "DIR/b.safetensors lacks the tensor `{norm}`, which DIR/model.safetensors.index.json says is in it: {way_out}"
        )
    );
    // In both files.
    assert_eq!(
        change("a.safetensors", &|tensors| drop(
            tensors.insert(norm.to_owned(), ("F32", vec![2], vec![0; 8]))
        )),
        format!(
            "DIR/a.safetensors holds the tensor `{norm}`, which DIR/model.safetensors.index.json does not put there: {way_out}"
        )
    );
}

// -------------------------------------------------------------------------------------------------- bad tokenizers

/// Bytes as tokens, as GPT-2 and its heirs have them, with the number of the last token given.
fn byte_level(last: u32) -> Value {
    let mut vocabulary = serde_json::Map::new();
    for (id, letter) in ["a", "b", "Ġ", "Ã", "©"].iter().enumerate() {
        vocabulary.insert((*letter).to_owned(), json!(id));
    }
    vocabulary.insert("ab".to_owned(), json!(last));
    json!({
        "version": "1.0",
        "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": [["a", "b"]]},
    })
}

#[test]
fn a_tokenizer_that_does_not_fit_the_embedding_is_named() {
    assert!(good().with("tokenizer.json", byte_level(5).to_string()).open().unwrap().tokenizer.is_some());
    assert_eq!(
        good().with("tokenizer.json", byte_level(6).to_string()).refused(),
        "DIR/tokenizer.json has the token \"ab\" with the number 6, but the model has embeddings for 6 only: \
         see that the tokenizer and config.json are of the same model"
    );
    let mut added = byte_level(5);
    added["added_tokens"] = json!([{"id": 7, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                                    "normalized": false, "special": true}]);
    let refused = good().with("tokenizer.json", added.to_string()).refused();
    assert!(refused.starts_with("DIR/tokenizer.json has the token \"<end>\" with the number "), "{refused}");
}

/// Its library panics here.
#[test]
fn a_tokenizer_that_its_library_chokes_on_is_named() {
    let mut tokenizer = byte_level(5);
    tokenizer["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "?"});
    assert_eq!(
        good().with("tokenizer.json", tokenizer.to_string()).refused(),
        "DIR/tokenizer.json does not read (the library that reads it gave up on one of its parts): fetch it again"
    );
}

#[test]
fn a_tokenizer_that_rolls_dice_is_refused() {
    let mut random = byte_level(5);
    random["model"]["dropout"] = json!(0.5);
    assert_eq!(
        good().with("tokenizer.json", random.to_string()).refused(),
        "DIR/tokenizer.json: `dropout` is 0.5, so that a text has other tokens every time: set it to null"
    );
    random["model"]["dropout"] = json!(0.0);
    assert!(good().with("tokenizer.json", random.to_string()).open().is_ok());
}

#[test]
fn a_tokenizer_neither_cuts_nor_fills_and_splits_characters_into_bytes() {
    let tokenizer = Tokenizer::read("t", byte_level(5).to_string().as_bytes(), 6).unwrap();
    let tokens = tokenizer.encode("abé ab", true).unwrap();
    assert_eq!(tokens, [5, 3, 4, 2, 5]);
    assert_eq!(tokenizer.decode(&tokens, true), "abé ab");
    assert_eq!(tokenizer.decode(&tokens[..2], true), "ab\u{fffd}");
    assert_eq!(tokenizer.decode(&tokens[2..], true), "\u{fffd} ab");
    assert_eq!((tokenizer.token_to_id("ab"), tokenizer.token_to_id("x")), (Some(5), None));
    assert_eq!((tokenizer.id_to_token(3).as_deref(), tokenizer.id_to_token(6)), (Some("Ã"), None));
    // A token without a text, from the padding of an embedding.
    assert_eq!(tokenizer.decode(&[0, 99], true), "a");
}

// -------------------------------------------------------------------------------------------------- chat templates

#[test]
fn the_chat_template_is_found_where_it_stands() {
    use reprocheck::model::chat::Message;
    let chat = |folder: Folder| {
        let chat = folder.open().unwrap().chat?;
        Some(chat.render(&[Message::new("user", "Hi.")], false, &BTreeMap::new()).unwrap())
    };
    let settings = json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "{{ bos_token }}1{{ eos_token }}"});
    let list =
        json!({"chat_template": [{"name": "rag", "template": "0"}, {"name": "default", "template": "2"}]});
    assert_eq!(chat(good()), None);
    assert_eq!(chat(good().with("tokenizer_config.json", "{}")), None);
    assert_eq!(chat(good().with("tokenizer_config.json", settings.to_string())).unwrap(), "<s>1</s>");
    assert_eq!(chat(good().with("tokenizer_config.json", list.to_string())).unwrap(), "2");
    let both = good()
        .with("tokenizer_config.json", settings.to_string())
        .with("chat_template.jinja", "{{ bos_token }}3");
    assert_eq!(chat(both).unwrap(), "<s>3");
}

// ------------------------------------------------------------------------------------------------------- any bytes

/// What may happen to a file: some bytes are others, and it may end early.
fn damage(length: usize) -> impl Strategy<Value = (Vec<(usize, u8)>, usize)> {
    let bytes = proptest::collection::vec((0..length, any::<u8>()), 0..6);
    (bytes, prop_oneof![Just(length), 0..length])
}

fn damaged(good: &[u8], (bytes, end): &(Vec<(usize, u8)>, usize)) -> Vec<u8> {
    let mut bad = good.to_vec();
    for (at, byte) in bytes {
        bad[*at] = *byte;
    }
    bad.truncate(*end);
    bad
}

/// Opens it, and reads all that it promises; every error must come with a way out.
fn take(folder: &Folder) {
    let read = || {
        let checkpoint = folder.open()?;
        for (name, shape) in checkpoint.config.tensors() {
            let mut tensor = checkpoint.tensor(&name, &shape)?;
            let mut out = vec![0.0; *shape.last().unwrap()];
            for _ in 0..shape.iter().product::<usize>() / out.len() {
                tensor.next_row(&mut out)?;
            }
        }
        if let Some(tokenizer) = &checkpoint.tokenizer
            && let Ok(tokens) = tokenizer.encode("ab é\n", true)
        {
            tokenizer.decode(&tokens, false);
        }
        Ok::<_, CheckpointError>(())
    };
    if let Err(error) = read() {
        let sentence = folder.said(&error);
        assert!(sentence.contains(": ") && sentence.starts_with(['D', 't', '`']), "{sentence}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_weights_never_panic(damage in damage(file_of(&tensors(&config())).len())) {
        take(&good().with("model.safetensors", damaged(&file_of(&tensors(&config())), &damage)));
    }

    #[test]
    fn damaged_configs_never_panic(damage in damage(config().to_string().len())) {
        take(&good().with("config.json", damaged(config().to_string().as_bytes(), &damage)));
    }

    #[test]
    fn damaged_tokenizers_never_panic(damage in damage(byte_level(5).to_string().len())) {
        take(&good().with("tokenizer.json", damaged(byte_level(5).to_string().as_bytes(), &damage)));
    }

    #[test]
    fn sizes_never_make_memory(key in 0..6_usize, size in any::<u64>(), length in any::<u64>()) {
        const KEYS: [&str; 6] = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"];
        let mut config = config();
        config[KEYS[key]] = json!(size);
        take(&good().with("config.json", config.to_string()));
        config[KEYS[key]] = json!(size >> 44);
        take(&good().with("config.json", config.to_string()));
        let mut file = file_of(&tensors(&self::config()));
        file[..8].copy_from_slice(&length.to_le_bytes());
        take(&good().with("model.safetensors", &file));
        file[..8].copy_from_slice(&(length >> 38).to_le_bytes());
        take(&good().with("model.safetensors", file));
        // Far beyond what the tests need together, far below what any of these numbers asks for.
        #[cfg(target_os = "linux")]
        prop_assert!(most_memory() < 512 << 20, "{} bytes", most_memory());
    }
}

/// The most that this process has ever had in memory.
#[cfg(target_os = "linux")]
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
