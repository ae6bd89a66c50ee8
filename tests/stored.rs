//! Weights as a GGUF file stores them: the precision `gguf` keeps their blocks, and has the bits of `fp32`.

use std::{fs, num::NonZeroUsize, path::Path};

use reprocheck::{
    engine::{Engine, Prompt, lab::Lab},
    model::Checkpoint,
    numerics::{
        Numerics,
        block::BlockFormat,
        format::Format,
        kernel::{
            At, Definition, Encoding, Fast, Faulty, Isa, Job, Kernel, KernelFault, Op, Source, Step, matmul,
        },
        order::{Launch, Order},
        pairs,
        precision::{Precision, Site},
    },
};
use tempfile::TempDir;

use crate::support::{
    Logits,
    gguf::{File, Tensor, Value},
    request,
};

/// Numbers from a seed: xorshift.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Everything that weights are stored in.
fn encodings() -> Vec<Encoding> {
    let values = [Format::F32, Format::F16, Format::BF16].map(Encoding::Values);
    values.into_iter().chain(BlockFormat::ALL.iter().map(|&format| Encoding::Blocks(format))).collect()
}

/// What GGUF calls it.
fn kind(encoding: Encoding) -> u32 {
    match encoding {
        Encoding::Values(Format::F32) => 0,
        Encoding::Values(Format::F16) => 1,
        Encoding::Values(_) => 30,
        Encoding::Blocks(format) => {
            (0..64).find(|&kind| BlockFormat::of_ggml_type(kind) == Some(format)).unwrap()
        }
    }
}

/// So many weights, none of them large.
fn bytes(encoding: Encoding, weights: usize, random: &mut Random) -> Vec<u8> {
    let format = match encoding {
        Encoding::Blocks(format) => format,
        Encoding::Values(format) => {
            let unit = |random: &mut Random| (random.word() >> 40) as f32 / (1 << 24) as f32 - 0.5;
            let codes = (0..weights).map(|_| format.encode(format.round(unit(random))));
            return codes.flat_map(|code| code.to_le_bytes()[..encoding.bytes()].to_vec()).collect();
        }
    };
    let halves: &[usize] = match format {
        BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 | BlockFormat::Iq4Nl => &[0],
        BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
        BlockFormat::Q2K => &[80, 82],
        BlockFormat::Q3K => &[108],
        BlockFormat::Q6K => &[208],
    };
    let mut bytes: Vec<u8> =
        (0..weights / format.values() * format.bytes()).map(|_| random.word() as u8).collect();
    for block in bytes.chunks_exact_mut(format.bytes()) {
        for &at in halves {
            // Of either sign, near 2^-10.
            let code = 0x1000 | random.word() as u16 & 0x87FF;
            block[at..][..2].copy_from_slice(&code.to_le_bytes());
        }
    }
    bytes
}

/// The outputs of a matrix, each in an encoding of its own.
struct Outputs {
    depth: usize,
    outputs: Vec<(Encoding, Vec<u8>)>,
}

impl Outputs {
    fn new(encodings: impl IntoIterator<Item = Encoding>, depth: usize, random: &mut Random) -> Outputs {
        let outputs = encodings.into_iter().map(|encoding| (encoding, bytes(encoding, depth, random)));
        Outputs { depth, outputs: outputs.collect() }
    }

    fn terms(&self, output: usize) -> Vec<f32> {
        let (encoding, bytes) = &self.outputs[output];
        let mut terms = vec![0.0; self.depth];
        match encoding {
            Encoding::Blocks(format) => format.dequantize(bytes, &mut terms),
            Encoding::Values(format) => {
                for (term, code) in terms.iter_mut().zip(bytes.chunks(encoding.bytes())) {
                    let code = code.iter().rev().fold(0, |code, &byte| code << 8 | u32::from(byte));
                    *term = format.decode(code);
                }
            }
        }
        terms
    }

    fn pack<K: Kernel>(&mut self, kernel: &K) -> K::Weights {
        let (columns, depth) = (self.outputs.len(), self.depth);
        kernel.pack(weights_at(kernel), columns, depth, self)
    }
}

impl Source for Outputs {
    fn encoding(&self, output: usize) -> Encoding {
        self.outputs[output].0
    }

    fn values(&mut self, output: usize, terms: &mut [f32]) {
        terms.copy_from_slice(&self.terms(output));
    }

    fn blocks(&mut self, output: usize, bytes: &mut [u8], terms: &mut [f32]) {
        bytes.copy_from_slice(&self.outputs[output].1);
        self.values(output, terms);
    }
}

fn numerics(precision: Precision, order: Order, threads: usize) -> Numerics {
    Numerics::new(precision, order, NonZeroUsize::new(threads).unwrap()).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The bits of so many rows times the matrix.
fn product<K: Kernel>(
    kernel: &K,
    weights: &K::Weights,
    columns: usize,
    (rows, x): (usize, &[f32]),
    start: Option<&[f32]>,
) -> Vec<u32> {
    let mut out = vec![f32::NAN; rows * columns];
    let job = Job { activations: x, rows, weights, start, out: &mut out };
    let launch = Launch { rows, threads: kernel.numerics().threads().get() };
    kernel.apply(weights_at(kernel), launch, Op::Product(vec![job]));
    bits(&out)
}

/// The orders of the table that add products of f32.
fn of_fp32() -> impl Iterator<Item = Order> {
    pairs().into_iter().filter_map(|(precision, order)| (precision == Precision::Fp32).then_some(order))
}

/// Where a product is formed: at a place that ranks share, if there are any.
fn weights_at<K: Kernel>(kernel: &K) -> At {
    let by_ranks = At::layer(0, Step::Down);
    if kernel.numerics().ranks(by_ranks).is_some() { by_ranks } else { At::alone(Site::Linear) }
}

fn orders() -> Vec<Order> {
    let more = ["lanes:3", "blocks:5", "split-k:3", "shuffled:0"];
    of_fp32().chain(more.iter().map(|name| name.parse().unwrap())).collect()
}

#[test]
fn products_with_blocks_are_the_definition_of_fp32_in_every_order_on_every_instruction_set() {
    let mut random = Random(1);
    // Each encoding by itself; then panels of all of them side by side, and some that mix them.
    let mut matrices: Vec<_> = encodings()
        .into_iter()
        .map(|encoding| {
            Outputs::new(vec![encoding; 5], if encoding.terms() > 32 { 512 } else { 288 }, &mut random)
        })
        .collect();
    let panels = encodings().into_iter().flat_map(|encoding| [encoding; 32]);
    matrices.push(Outputs::new(panels, 512, &mut random));
    let mixed = (0..150).map(|output| encodings()[if output < 70 { 4 } else { output % 14 }]);
    matrices.push(Outputs::new(mixed, 256, &mut random));
    for outputs in &mut matrices {
        let (columns, depth) = (outputs.outputs.len(), outputs.depth);
        let mut values = |count: usize| -> Vec<f32> {
            (0..count).map(|_| (random.word() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
        };
        let (x, start) = (values(9 * depth), values(columns));
        // An encoding by itself meets some of the orders; the last two matrices meet all.
        for (index, order) in orders().into_iter().enumerate() {
            if columns == 5 && index % 5 != 0 {
                continue;
            }
            let definition = Definition { numerics: numerics(Precision::Fp32, order, 1) };
            let plain = outputs.pack(&definition);
            let kernels: Vec<_> = Isa::available()
                .into_iter()
                .map(|isa| Fast::on(isa, numerics(Precision::Gguf, order, 1)).unwrap())
                .collect();
            let packed: Vec<_> = kernels.iter().map(|kernel| outputs.pack(kernel)).collect();
            for (rows, start) in [(1, None), (1, Some(&start[..])), (3, None), (9, Some(&start[..]))] {
                if columns > 5 && rows == 9 && order != Order::SEQUENTIAL {
                    continue;
                }
                let x = (rows, &x[..rows * depth]);
                let expected = product(&definition, &plain, columns, x, start);
                for (kernel, packed) in kernels.iter().zip(&packed) {
                    let found = product(kernel, packed, columns, x, start);
                    assert_eq!(found, expected, "{} on {}, {rows} rows", kernel.numerics(), kernel.isa());
                }
            }
        }
    }
}

#[test]
fn threads_share_blocks_and_change_no_bit() {
    let mut random = Random(2);
    let q4_1 = Encoding::Blocks(BlockFormat::Q4_1);
    let q6_k = Encoding::Blocks(BlockFormat::Q6K);
    // Large enough to be worth sharing.
    let mut outputs =
        Outputs::new((0..451).map(|output| if output < 256 { q4_1 } else { q6_k }), 2560, &mut random);
    let x: Vec<f32> = (0..2560).map(|at| (at as f32 * 0.7).sin()).collect();
    let kernels =
        [1, 2, 3].map(|threads| Fast::new(numerics(Precision::Gguf, Order::SEQUENTIAL, threads)).unwrap());
    let [one, two, three] = kernels.map(|kernel| {
        let packed = outputs.pack(&kernel);
        let found = product(&kernel, &packed, 451, (1, &x), None);
        assert_eq!(kernel.workers().used(), kernel.workers().threads());
        found
    });
    assert_eq!((&one, &one), (&two, &three));
}

#[test]
fn ranks_have_whole_blocks_and_the_bits_of_the_definition_of_fp32() {
    let mut random = Random(5);
    let mixed = (0..150).map(|output| encodings()[if output < 70 { 4 } else { output % 14 }]);
    let mut outputs = Outputs::new(mixed, 1024, &mut random);
    let x: Vec<f32> = (0..3 * 1024).map(|at| (at as f32 * 0.9).sin()).collect();
    for rest in
        ["sequential/t1/tp2", "lanes:3/t1/tp4/ring", "pairwise/t2/tp4/one-shot:bf16", "exact/t1/tp2/tree:f16"]
    {
        let [fp32, gguf] = ["fp32", "gguf"].map(|name| format!("{name}/{rest}").parse::<Numerics>().unwrap());
        let definition = Definition { numerics: fp32 };
        let plain = outputs.pack(&definition);
        let expected = product(&definition, &plain, 150, (3, &x), None);
        for isa in Isa::available() {
            let kernel = Fast::on(isa, gguf).unwrap();
            let packed = outputs.pack(&kernel);
            assert_eq!(product(&kernel, &packed, 150, (3, &x), None), expected, "{gguf} on {isa}");
        }
    }
    let mut outputs = Outputs::new([Encoding::Blocks(BlockFormat::Q4K); 64], 1024, &mut random);
    let [whole, ranks] = ["", "/tp4"].map(|tp| {
        let kernel = Fast::new(format!("gguf/sequential/t1{tp}").parse().unwrap()).unwrap();
        outputs.pack(&kernel).bytes()
    });
    assert_eq!(whole, ranks);
}

#[test]
fn no_weight_takes_more_than_in_its_file() {
    let mut random = Random(3);
    let kernel = Fast::new(numerics(Precision::Gguf, Order::SEQUENTIAL, 1)).unwrap();
    for encoding in encodings() {
        let mut outputs = Outputs::new(vec![encoding; 64], 512, &mut random);
        let size = outputs.outputs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        assert_eq!(outputs.pack(&kernel).bytes(), size, "{encoding:?}");
        let fp32 = Fast::new(numerics(Precision::Fp32, Order::SEQUENTIAL, 1)).unwrap();
        assert_eq!(outputs.pack(&fp32).bytes(), 4 * 64 * 512, "{encoding:?}");
    }
}

#[test]
fn what_is_wrong_with_a_kernel_shows_in_blocks_too() {
    let mut random = Random(4);
    let mut outputs = Outputs::new([Encoding::Blocks(BlockFormat::Q5K); 40], 512, &mut random);
    let x: Vec<f32> = (0..512).map(|at| (at as f32 * 1.3).cos()).collect();
    let run = |fault, outputs: &mut Outputs| {
        let sound = numerics(Precision::Gguf, Order::SEQUENTIAL, 1);
        let kernel = Faulty::new(sound, fault, None, Fast::new).unwrap();
        let packed = outputs.pack(&kernel);
        let mut out = vec![0.0; 40];
        matmul(&kernel, Site::Linear, &x, 1, &packed, &mut out);
        bits(&out)
    };
    let of = |order, outputs: &mut Outputs| {
        let definition = Definition { numerics: numerics(Precision::Fp32, order, 1) };
        let packed = outputs.pack(&definition);
        product(&definition, &packed, 40, (1, &x), None)
    };
    let sound = of(Order::SEQUENTIAL, &mut outputs);
    let reversed = of(Order::REVERSED, &mut outputs);
    assert_ne!(sound, reversed);
    assert_eq!(run(KernelFault::AddsInAnotherOrder, &mut outputs), reversed);
    assert_ne!(run(KernelFault::DropsLastTerm, &mut outputs), sound);
}

/// A model of two layers that stores a matrix in each encoding, its keys beside its values in one panel.
pub(crate) fn model() -> File {
    let mut file = File::default();
    file.set("general.architecture", Value::Text("llama".to_owned()));
    for (key, value) in [
        ("block_count", 2),
        ("context_length", 64),
        ("embedding_length", 256),
        ("feed_forward_length", 512),
        ("attention.head_count", 32),
        ("attention.head_count_kv", 2),
        ("rope.dimension_count", 8),
    ] {
        file.set(&format!("llama.{key}"), Value::U32(value));
    }
    file.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    let mut random = Random(5);
    let mut push = |name: &str, lengths: &[u64], encoding| {
        file.tensors.push(Tensor {
            name: name.to_owned(),
            lengths: lengths.to_vec(),
            kind: kind(encoding),
            bytes: bytes(encoding, lengths.iter().product::<u64>() as usize, &mut random),
            offset: None,
        });
    };
    let f32 = Encoding::Values(Format::F32);
    push("token_embd.weight", &[256, 70], Encoding::Blocks(BlockFormat::Q6K));
    push("output_norm.weight", &[256], f32);
    let mut encodings = encodings().into_iter();
    for layer in 0..2 {
        for norm in ["attn_norm", "ffn_norm"] {
            push(&format!("blk.{layer}.{norm}.weight"), &[256], f32);
        }
        for (name, lengths) in [
            ("attn_q", [256, 256]),
            ("attn_k", [256, 16]),
            ("attn_v", [256, 16]),
            ("attn_output", [256, 256]),
            ("ffn_gate", [256, 512]),
            ("ffn_up", [256, 512]),
            ("ffn_down", [512, 256]),
        ] {
            push(&format!("blk.{layer}.{name}.weight"), &lengths, encodings.next().unwrap());
        }
    }
    file
}

fn opened(file: &File, folder: &TempDir) -> Checkpoint {
    let path = folder.path().join("model.gguf");
    fs::write(&path, file.bytes()).unwrap();
    Checkpoint::open(&path).unwrap()
}

fn prompts() -> Vec<Prompt> {
    let tokens = |item: u32| (0..4 * item + 1).map(|at| (at * 31 + item * 17) % 70).collect();
    (0..3).map(|item| Prompt { item: item.into(), tokens: tokens(item), replay: None }).collect()
}

/// The bits of all logits of these prompts, together or one after the other.
fn logits(engine: &mut dyn Engine, prompts: &[Prompt], together: bool) -> Vec<Vec<u32>> {
    let mut seen = Logits { items: vec![Vec::new(); prompts.len()], samples: Vec::new() };
    for group in prompts.chunks(if together { prompts.len() } else { 1 }) {
        engine.generate(group, &request(4), &mut seen).unwrap();
    }
    seen.items.iter().map(|logits| bits(logits)).collect()
}

#[test]
fn a_model_has_the_bits_of_fp32_in_every_order_batch_and_number_of_threads() {
    let folder = TempDir::new().unwrap();
    let checkpoint = opened(&model(), &folder);
    assert_eq!(checkpoint.stored().len(), 14, "{:?}", checkpoint.stored());
    let mut different = std::collections::HashSet::new();
    for order in of_fp32() {
        for (threads, together) in [(1, false), (2, true)] {
            let mut engines = [Precision::Fp32, Precision::Gguf]
                .map(|precision| Lab::load(&checkpoint, numerics(precision, order, threads)).unwrap());
            let [fp32, gguf] = engines.each_mut().map(|engine| logits(engine, &prompts(), together));
            assert!(fp32 == gguf, "{order}, {threads} threads, together: {together}");
            different.insert(fp32);
        }
    }
    assert!(different.len() > 5, "the orders differ, or nothing would be seen: {}", different.len());
}

#[test]
fn a_model_of_blocks_is_its_definition() {
    let folder = TempDir::new().unwrap();
    let checkpoint = opened(&model(), &folder);
    let numerics = numerics(Precision::Gguf, Order::SEQUENTIAL, 1);
    let mut defined = Lab::on(&checkpoint, Definition { numerics }).unwrap();
    let mut fast = Lab::load(&checkpoint, numerics).unwrap();
    assert_eq!(logits(&mut fast, &prompts(), true), logits(&mut defined, &prompts(), true));
}

#[test]
fn a_value_that_is_not_finite_is_found_in_blocks_as_well() {
    let folder = TempDir::new().unwrap();
    let mut file = model();
    let tensor = file.tensor("blk.0.attn_output.weight");
    assert_eq!(tensor.kind, 2, "its first two bytes are a scale");
    tensor.bytes[5 * 256 / 32 * 18 + 18..][..2].copy_from_slice(&0x7C00_u16.to_le_bytes());
    let checkpoint = opened(&file, &folder);
    let error = Lab::load(&checkpoint, numerics(Precision::Gguf, Order::SEQUENTIAL, 1)).unwrap_err();
    let sentence = error.to_string();
    assert!(sentence.contains("`blk.0.attn_output.weight` holds"), "{sentence}");
    assert!(sentence.contains("in row 5, column 32: "), "{sentence}");
}

#[test]
fn a_cell_that_keeps_blocks_is_refused_before_anything_runs_where_there_are_none() {
    let folder = TempDir::new().unwrap();
    let matrix = folder.path().join("ci.toml");
    fs::write(&matrix, "suites = [\"carry_chain\"]\nitems = 2\n[matrix]\nprecision = [\"fp32\", \"gguf\"]\n")
        .unwrap();
    let run = |arguments: &[&str]| {
        let program = Path::new(env!("CARGO_BIN_EXE_reprocheck"));
        let output = std::process::Command::new(program).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let out = folder.path().join("out");
    let [matrix, out_name] = [&matrix, &out].map(|path| path.to_str().unwrap());
    let (code, said) = run(&["run", "--model", "qwen", "--matrix", matrix, "--out", out_name]);
    let sentence = "error: lab/gguf/sequential/t1 keeps weights as a file of GGUF stores them, and qwen is not one: \
                    use fp32, or name such a file\n";
    assert_eq!((code, said.as_str()), (Some(2), sentence));
    assert!(!out.exists(), "nothing has run");
    for (engine, cell) in [("lab", "lab/gguf/sequential/t1"), ("candle", "candle/gguf/t1")] {
        let arguments =
            ["generate", "--model", "qwen", "--prompt", "1+2=", "--precision", "gguf", "--engine", engine];
        let (code, said) = run(&arguments);
        assert_eq!((code, said), (Some(2), sentence.replace("lab/gguf/sequential/t1", cell)));
    }
}
