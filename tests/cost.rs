//! What a precision costs is what its decoder keeps, reads and multiplies.

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use reprocheck::{
    model::{
        Checkpoint, Config, Cost, Decoder,
        decoder::{Span, Wanted},
        embedded::MODELS,
    },
    numerics::{
        Numerics,
        block::BlockFormat,
        kernel::{At, Encoding, End, Fast, Kernel, Op, Packed, Source, Step, Workers},
        order::{Launch, Order},
        precision::{Bits, PRECISIONS, Precision, Product, Scaled, Site, Storage},
    },
};
use tempfile::TempDir;

use crate::{
    stored,
    support::{fixture, fixtures},
};

const ONE: NonZeroUsize = NonZeroUsize::MIN;
/// Outputs that stand side by side in the fast kernel, and terms that its integer products take at once.
const PANEL: usize = 32;
const QUAD: usize = 4;

fn precision(name: &str) -> Precision {
    name.parse().unwrap()
}

fn plain(precision: Precision) -> Numerics {
    Numerics::new(precision, Order::SEQUENTIAL, ONE).unwrap()
}

fn cost(checkpoint: &Checkpoint, name: &str, batch: usize) -> Cost {
    Cost::of(checkpoint, plain(precision(name)), NonZeroUsize::new(batch).unwrap()).unwrap()
}

/// Every model of the fixtures, and those of the binary.
fn models() -> Vec<Checkpoint> {
    let folders = fixtures().into_iter().map(|folder| Checkpoint::open(&folder).unwrap());
    folders.chain(MODELS.iter().map(|entry| Checkpoint::embedded(entry).unwrap())).collect()
}

/// All weights of a layer's products, and of the table.
fn weights(config: &Config) -> (u64, u64) {
    let Config { width, inner_width, heads, kv_heads, head_width, vocabulary, .. } = *config;
    let queries = heads * head_width;
    let layer = width * (queries + 2 * kv_heads * head_width) + queries * width + 3 * width * inner_width;
    (layer as u64, (vocabulary * width) as u64)
}

#[test]
fn in_one_format_a_cost_is_what_anybody_works_out_from_the_shape() {
    for checkpoint in models() {
        let config = &checkpoint.config;
        let (layer, table) = weights(config);
        let (layers, queries) = (config.layers as u64, (config.heads * config.head_width) as u64);
        let context = config.positions.min(1024) as u64;
        let (linear, attention) = (layers * layer + table, layers * 2 * queries * context);
        // What is not in a product with weights: the table of tokens where it is not the head, norms and biases.
        let vectors = checkpoint.parameters() - linear - if config.tied { 0 } else { table };
        for (name, bytes) in [("fp32", 4), ("bf16", 2), ("fp16-acc16", 2), ("cast:e4m3", 1)] {
            let cache = layers * 2 * (config.kv_heads * config.head_width) as u64 * bytes;
            for batch in [1, 3, 8] {
                let read = (bytes * (linear + vectors)).div_ceil(batch);
                let expected = Cost {
                    weight_bytes: bytes * checkpoint.parameters(),
                    cache_bytes: cache,
                    context,
                    linear_macs: linear,
                    attention_macs: attention,
                    operations: 2 * (linear + attention),
                    ace: (8 * bytes).pow(2) * (linear + attention),
                    moved_bytes: read + bytes * config.width as u64 + cache * context,
                };
                assert_eq!(cost(&checkpoint, name, batch as usize), expected, "{} {name}", checkpoint.name);
            }
        }
    }
}

/// The fast kernel, and what it packs and multiplies.
struct Watched {
    inner: Fast,
    packed: Mutex<Vec<(At, usize, usize, usize)>>,
    /// With weights, and in attention.
    multiplied: [AtomicU64; 2],
}

impl Watched {
    fn new(precision: Precision) -> Watched {
        Watched::of(plain(precision))
    }

    fn of(numerics: Numerics) -> Watched {
        let inner = Fast::new(numerics).unwrap();
        Watched { inner, packed: Mutex::default(), multiplied: Default::default() }
    }
}

impl Kernel for Watched {
    type Weights = Packed;

    fn numerics(&self) -> Numerics {
        self.inner.numerics()
    }

    fn workers(&self) -> &Workers {
        self.inner.workers()
    }

    fn pack(&self, at: At, columns: usize, depth: usize, source: &mut dyn Source) -> Packed {
        let packed = self.inner.pack(at, columns, depth, source);
        self.packed.lock().unwrap().push((at, columns, depth, packed.bytes()));
        packed
    }

    fn push(&self, weights: &mut Packed, end: End<'_>) {
        self.inner.push(weights, end);
    }

    fn apply(&self, at: At, launch: Launch, op: Op<'_, Packed>) {
        if let Op::Product(jobs) = &op {
            let macs = jobs.iter().map(|job| (job.activations.len() * job.weights.columns()) as u64).sum();
            let which = usize::from(at.site() == Site::Attention);
            self.multiplied[which].fetch_add(macs, Ordering::Relaxed);
        }
        self.inner.apply(at, launch, op);
    }
}

#[test]
fn the_decoder_multiplies_as_often_for_a_token_as_its_cost_says() {
    for checkpoint in models() {
        let decoder = Decoder::load(Watched::new(Precision::Fp32), &checkpoint).unwrap();
        let mut cache = decoder.cache();
        let mut read = |tokens: &[u32]| {
            decoder.forward(&mut [Span { cache: &mut cache, tokens, logits: Wanted::Last }]);
            decoder.kernel().multiplied.each_ref().map(|macs| macs.swap(0, Ordering::Relaxed))
        };
        read(&[1; 16]);
        let Cost { context, linear_macs, attention_macs, .. } = cost(&checkpoint, "fp32", 1);
        assert_eq!(read(&[2]), [linear_macs, attention_macs / context * 17], "{}", checkpoint.name);
    }
}

/// What else stands in the kernel's memory than the page counts: outputs and terms up to whole panels, formats in whole bytes,
/// and for L-Mul the magnitudes of every panel, three words each.
fn in_the_kernel(precision: Precision, at: At, columns: usize, depth: usize) -> usize {
    let recipe = precision.recipe(at);
    let (panels, bits) = (columns.div_ceil(PANEL), recipe.stored_bits().unwrap() as usize);
    let quads = (depth.next_multiple_of(QUAD), 4 * columns);
    let (depth, beside) = match (recipe.product, recipe.weights) {
        (_, Storage::Codes(_)) if precision == Precision::Scaled(Scaled::W8A8) => quads,
        (_, Storage::Codes(quantizer)) => {
            let shared = if quantizer.is_whole() { 0 } else { quantizer.scale_bytes() };
            let groups = depth.div_ceil(quantizer.group(depth));
            let rows = groups * (shared + usize::from(quantizer.zero)) + depth.div_ceil(8) * bits;
            // What multiplies a whole output is an f32, and where groups have scales there is one for all.
            let whole = if quantizer.is_whole() { 4 * columns } else { 4 };
            return PANEL * panels * rows + whole;
        }
        (Product::Int8(_) | Product::Scaled(_), _) => quads,
        (Product::LMul(_), _) => (depth, 12 * panels),
        (Product::Fused, _) => (depth, 0),
    };
    PANEL * panels * depth * bits / 8 + beside
}

#[test]
fn weights_take_what_the_kernel_packs_but_for_what_the_page_tells() {
    let mut whole = 0;
    for checkpoint in models() {
        let others = ["lmul:m=3", "cast:e2m3", "map:bf16;down@0=cast:e4m3;head=fp32"].map(precision);
        let all = PRECISIONS.iter().map(|entry| entry.example).chain(others);
        for precision in all.filter(|precision| *precision != Precision::Gguf) {
            let decoder = Decoder::load(Watched::new(precision), &checkpoint).unwrap();
            let packed = decoder.kernel().packed.lock().unwrap();
            let (mut bits, mut entries) = (0, 0);
            for &(at, columns, depth, bytes) in packed.iter() {
                let name = format!("{} {precision}: {at}", checkpoint.name);
                assert_eq!(bytes, in_the_kernel(precision, at, columns, depth), "{name}");
                let recipe = precision.recipe(at);
                let own @ Bits { code, scale, .. } = recipe.weight_bits().unwrap();
                bits += columns as u64 * own.of(depth);
                // Once, if two matrices are made of one table.
                entries += (columns * depth) as u64;
                let fills = columns.is_multiple_of(PANEL) && depth.is_multiple_of(QUAD) && code >= 8;
                let of_values = matches!(recipe.weights, Storage::Values(_));
                if fills && of_values && code.is_power_of_two() && !matches!(recipe.product, Product::LMul(_))
                {
                    whole += 1;
                    let own = u64::from(code) * depth as u64 + u64::from(scale);
                    assert_eq!(8 * bytes as u64, columns as u64 * own, "{name}");
                }
            }
            let is_twice = checkpoint.config.tied && packed.iter().any(|(at, ..)| at.step == Step::Embed);
            let tables = if is_twice { weights(&checkpoint.config).1 } else { 0 };
            let vectors = checkpoint.parameters() - (entries - tables);
            // Norms and biases: of one format, but for a map.
            let of_a_vector = u64::from(precision.vectors(At::layer(1, Step::Qkv)).bits());
            let expected = (bits + vectors * of_a_vector).div_ceil(8);
            let found = Cost::of(&checkpoint, plain(precision), ONE).unwrap().weight_bytes;
            match precision {
                // Vectors of places that have something of their own.
                Precision::Map(_) => assert!(found.abs_diff(expected) < 4 * vectors),
                _ => assert_eq!(found, expected, "{} {precision}", checkpoint.name),
            }
        }
    }
    assert!(whole > 100, "{whole} matrices are compared byte for byte");
}

#[test]
fn a_token_in_the_cache_takes_what_the_kernel_keeps_of_it() {
    for checkpoint in models() {
        let Config { layers, kv_heads, head_width, .. } = checkpoint.config;
        for entry in PRECISIONS.iter().filter(|entry| entry.example != Precision::Gguf) {
            let (precision, at) = (entry.example, At::layer(0, Step::Scores));
            let (kernel, recipe) = (Watched::new(precision), precision.recipe(at));
            let mut none = |_: usize, _: &mut [f32]| {};
            let mut keys = kernel.pack(at, 0, head_width, &mut none);
            let mut values = kernel.pack(At::layer(0, Step::Context), head_width, 0, &mut none);
            // As many as fill a panel of keys, and the rows that memory has room for: a quarter more each time.
            let (tokens, mut room) = (PANEL, 0);
            for token in 1..=tokens {
                kernel.push(&mut keys, End::Column(&vec![1.0; head_width]));
                kernel.push(&mut values, End::Row(&vec![1.0; head_width]));
                room = if token > room { token.max(room + usize::div_ceil(room, 4)) } else { room };
            }
            let panels = head_width.div_ceil(PANEL);
            let magnitudes = if let Product::LMul(_) = recipe.product { 12 } else { 0 };
            let key = (keys.bytes() - magnitudes) / tokens;
            let value = (values.bytes() - magnitudes * panels) / room * head_width / (PANEL * panels);
            assert_eq!(key, value, "{} {precision}", checkpoint.name);
            // Whole bytes where the format has fewer bits.
            let [kept, code] = [recipe.stored_bits(), recipe.weight_bits().map(|bits| bits.code)];
            let token = (layers * kv_heads * (key + value)) as u64 * u64::from(code.unwrap());
            let cost = Cost::of(&checkpoint, plain(precision), ONE).unwrap();
            assert_eq!(
                cost.cache_bytes,
                token.div_ceil(kept.unwrap().into()),
                "{} {precision}",
                checkpoint.name
            );
        }
    }
}

#[test]
fn a_token_kept_in_another_format_takes_the_bytes_that_it_costs() {
    let checkpoint = Checkpoint::embedded(&MODELS[0]).unwrap();
    let Config { layers, kv_heads, head_width, .. } = checkpoint.config;
    let cost = |numerics: Numerics| Cost::of(&checkpoint, numerics, ONE).unwrap();
    let same = plain(Precision::Bf16);
    for (name, bits_of_a_head) in [
        ("f16", 16 * 32),
        ("fp8", 8 * 32 + 32),
        ("int8", 8 * 32 + 32),
        ("int4", 4 * 32 + 32),
        ("int4:16", 4 * 32 + 2 * 32),
        ("bfp12:32", 4 * 32 + 8),
        ("bfp12:64", 4 * 32 + 8),
        ("bfp12:8,k-sort", 4 * 32 + 4 * 8),
    ] {
        let numerics = same.with_kv(name.parse().unwrap()).unwrap();
        let bytes = 2 * layers * kv_heads * bits_of_a_head / 8;
        assert_eq!(cost(numerics).cache_bytes, bytes as u64, "{name}");
        let kernel = Watched::of(numerics);
        let mut none = |_: usize, _: &mut [f32]| {};
        let mut keys = kernel.pack(At::layer(0, Step::Scores), 0, head_width, &mut none);
        let mut values = kernel.pack(At::layer(0, Step::Context), head_width, 0, &mut none);
        // As many as fill a panel, and twice that: codes have room for whole panels of tokens.
        for tokens in [PANEL, 2 * PANEL] {
            for _ in 0..PANEL {
                kernel.push(&mut keys, End::Column(&vec![1.0; head_width]));
                kernel.push(&mut values, End::Row(&vec![1.0; head_width]));
            }
            // Where blocks have scales there is an f32 beside them that multiplies all.
            let beside = if name.contains(':') { 4 } else { 0 };
            assert_eq!(keys.bytes() - beside, tokens * bits_of_a_head / 8, "{name}");
            if name != "f16" {
                assert_eq!(values.bytes(), keys.bytes(), "{name}");
            }
        }
    }
    // Nothing else of it costs another sum, but the bits of a factor and what is moved.
    let int4 = cost(same.with_kv("int4".parse().unwrap()).unwrap());
    let bf16 = cost(same);
    assert_eq!(bf16.ace - int4.ace, (16 - 4) * 16 * bf16.attention_macs);
    assert_eq!(bf16.moved_bytes - int4.moved_bytes, int4.context * (bf16.cache_bytes - int4.cache_bytes));
    assert_eq!(Cost { cache_bytes: 0, ace: 0, moved_bytes: 0, ..bf16 }, {
        Cost { cache_bytes: 0, ace: 0, moved_bytes: 0, ..int4 }
    });
}

#[test]
fn a_gguf_file_costs_its_own_bytes() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    let file = stored::model();
    std::fs::write(&path, file.bytes()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let all: usize = file.tensors.iter().map(|tensor| tensor.bytes.len()).sum();
    let gguf = cost(&checkpoint, "gguf", 1);
    assert_eq!(gguf.weight_bytes, all as u64);
    // Computed in f32, with its cache, and as often.
    let fp32 = cost(&checkpoint, "fp32", 1);
    assert_eq!(Cost { weight_bytes: 0, ace: 0, moved_bytes: 0, ..gguf }, {
        Cost { weight_bytes: 0, ace: 0, moved_bytes: 0, ..fp32 }
    });
    // A block's scales are among the bits of its weights.
    let of_weights: usize =
        file.tensors.iter().filter(|tensor| tensor.lengths.len() > 1).map(|tensor| tensor.bytes.len()).sum();
    let head = if checkpoint.config.tied { 0 } else { Encoding::Blocks(BlockFormat::Q6K).bytes() * 70 };
    let attention = 32 * 32 * gguf.attention_macs;
    assert_eq!(gguf.ace, 8 * 32 * (of_weights - head) as u64 + attention);
}

#[test]
fn bits_are_those_of_codes_and_of_what_stands_beside_them() {
    let bits = |name: &str, site| precision(name).recipe(At::alone(site));
    let linear = |name: &str| bits(name, Site::Linear);
    let of = |name: &str, values| linear(name).weight_bits().map(|bits| bits.of(values));
    assert_eq!([of("fp32", 64), of("cast:e2m3", 64), of("lmul:m=3", 64)], [2048, 384, 768].map(Some));
    assert_eq!([of("w8a8", 64), of("int8", 64), of("gguf", 64)], [Some(544), Some(544), None]);
    let scaled = ["w4a16", "w3a16:g64", "w8a16", "fp8", "mxfp4", "nvfp4", "scaled:w=int4-f16-g128-zero"];
    assert_eq!(scaled.map(|name| of(name, 128).unwrap()), [528, 416, 1040, 1056, 544, 576, 536]);
    let activations = ["layercast", "bf16", "int8", "w8a8", "lmul:m=3", "w4a16", "nvfp4", "w4a8-fp"];
    assert_eq!(activations.map(|name| linear(name).activation_bits()), [32, 16, 8, 8, 12, 16, 4, 8]);
    assert_eq!(bits("w8a8", Site::Attention).activation_bits(), 32);
    // Four bits, with a scale of sixteen for every 128: 4.125 a weight, and the last group is a group, too.
    let grouped = Bits { code: 4, scale: 16, shared_by: NonZeroUsize::new(128) };
    assert_eq!([128, 1024, 129].map(|values| grouped.of(values)), [528, 8 * 528, 516 + 32]);
}

#[test]
fn a_map_costs_what_each_of_its_places_does() {
    let checkpoint = fixture("qwen3-tied");
    let Config { width, inner_width, vocabulary, .. } = checkpoint.config;
    let of = |name: &str| cost(&checkpoint, name, 1);
    let (base, down) = (of("bf16"), of("map:bf16;down@1=cast:e4m3"));
    let matrix = (width * inner_width) as u64;
    assert_eq!(base.weight_bytes - down.weight_bytes, matrix);
    assert_eq!(base.moved_bytes - down.moved_bytes, matrix);
    assert_eq!(base.ace - down.ace, (16 * 16 - 8 * 8) * matrix);
    // The table is kept a second time, and is not read for it but for one row.
    let head = of("map:bf16;head=fp32");
    let table = (width * vocabulary) as u64;
    assert_eq!(head.weight_bytes - base.weight_bytes, 4 * table);
    assert_eq!(head.moved_bytes - base.moved_bytes, 2 * table);
    assert_eq!(head.ace - base.ace, (32 * 32 - 16 * 16) * table);
    // Attention alone: the cache, and nothing of the weights.
    let scores = of("map:bf16;scores,context=cast:e4m3");
    assert_eq!((scores.weight_bytes, 2 * scores.cache_bytes), (base.weight_bytes, base.cache_bytes));
    assert_eq!(base.ace - scores.ace, (16 * 16 - 8 * 8) * base.attention_macs);
}
