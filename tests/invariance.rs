//! What may not move a bit, does not: the batch, its grouping, threads, chunks of the prompt, the cache, the vectors.

use std::num::NonZeroUsize;

use crate::functions::ROUGH;
use crate::support::{Logits, facts, fixed_prompts, fixture, fixtures, request};
use proptest::{prelude::*, test_runner::TestCaseError};
use reprocheck::{
    cell::program,
    digest::Digest,
    engine::{Engine, Prompt, Request, in_groups, lab::Lab},
    model::{
        Checkpoint, Decoder,
        decoder::{Span, Wanted},
        embedded::MODELS,
    },
    numerics::{
        Numerics,
        functions::Functions,
        kernel::{Definition, Fast, Kernel},
        kv::Kv,
        order::Order,
        pairs,
        precision::{PRECISIONS, Precision, Scaled},
    },
    trace::{Finish, Sample},
};

const NEW_TOKENS: usize = 6;

fn numerics(precision: Precision, order: Order, threads: usize) -> Numerics {
    Numerics::new(precision, order, NonZeroUsize::new(threads).unwrap()).unwrap()
}

/// Precisions under which a row's bits do not depend on its batch.
pub(crate) fn invariant_precisions() -> Vec<Precision> {
    let more = ["lmul:m=4,scope=attention", "cast:e3m2,round=zero"].map(|name| name.parse().unwrap());
    let examples = PRECISIONS.iter().map(|entry| entry.example);
    examples.filter(|precision| !matches!(precision, Precision::Int8(_))).chain(more).collect()
}

pub(crate) fn invariant_orders(precision: Precision) -> impl Iterator<Item = Order> {
    let of_table = pairs().into_iter().filter_map(move |(own, order)| (own == precision).then_some(order));
    of_table.filter(|order| !order.depends_on_launch())
}

/// Formats of keys and values, each in a precision and an order.
pub(crate) fn kept() -> Vec<(Precision, Order, Kv)> {
    let names = Kv::NAMES.into_iter().chain(["bfp12:8", "bfp12:8,k-sort", "int4:8,k-sort"]);
    let kvs = names.map(|name| name.parse::<Kv>().unwrap());
    let at = [
        (Precision::Fp32, Order::SEQUENTIAL),
        (Precision::Bf16, "exact".parse().unwrap()),
        (Precision::Fp16, "dpbf16".parse().unwrap()),
        (Precision::Bf16, Order::PAIRWISE),
    ];
    kvs.zip(at.into_iter().cycle()).map(|(kv, (precision, order))| (precision, order, kv)).collect()
}

/// Ranks that share a model, each in a precision and an order.
pub(crate) fn shared() -> Vec<Numerics> {
    let at = [
        "fp32/sequential/t1/tp2",
        "bf16/pairwise/t1/tp4/ring:bf16",
        "bf16/exact/t1/tp2/one-shot:bf16",
        "w8a8/lanes:16/t1/tp4/one-shot",
        "fp8/kahan/t1/tp2/tree:bf16",
        "fp16/blocks:64/t1/kv:int8/tp4/ring:f16",
        "lmul/neumaier/t1/tp4/tree:f16",
        "map:bf16;output=fp32;down@0=w8a16/dpbf16/t1/tp4/ring",
    ];
    at.map(|name| name.parse().unwrap()).into()
}

/// Forms of attention that do not follow the launch, each in a precision and an order.
fn attending() -> Vec<Numerics> {
    let at = [
        "fp32/sequential/t1/two-pass",
        "fp32/sequential/t1/online:4",
        "bf16/pairwise/t1/online:5",
        "bf16/exact/t1/kv:int8/split-kv:3",
        "fp16/lanes:4/t1/split-kv:4+online:3",
        "bf16/mma:h100/t1/online:16",
        "fp16/dpbf16/t1/kv:bf16/split-kv:2+online:5",
        "fp8/kahan/t1/online:1/tp2/ring/fn:poly:5",
        "lmul:scope=everything/sequential/t1/split-kv:5",
        "cast:e4m3/blocks:64/t1/two-pass/fn:libm",
        "map:bf16;softmax=fp32;context@0=fp16/neumaier/t1/online:7",
    ];
    at.map(|name| name.parse().unwrap()).into()
}

/// Functions of every kind, each in a precision and an order.
pub(crate) fn called() -> Vec<Numerics> {
    let program = program::read("softmax.txt", ROUGH).unwrap();
    let all =
        Functions::NAMES.map(|name| name.parse().unwrap()).into_iter().chain([Functions::Program(program)]);
    let at = [
        (Precision::Fp32, Order::SEQUENTIAL),
        (Precision::Bf16, "exact".parse().unwrap()),
        (Precision::Fp16, Order::PAIRWISE),
    ];
    let pairs = all.zip(at.into_iter().cycle());
    pairs
        .map(|(functions, (precision, order))| numerics(precision, order, 2).with_functions(functions))
        .collect()
}

fn generate(
    checkpoint: &Checkpoint,
    numerics: Numerics,
    batch: usize,
    prompts: &[Prompt],
    request: &Request,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut lab = Lab::load(checkpoint, numerics).unwrap();
    in_groups(&mut lab, NonZeroUsize::new(batch).unwrap(), prompts, request, &mut samples).unwrap();
    samples
}

/// The digest after every token, as one pass without a cache gives it.
fn recomputed(checkpoint: &Checkpoint, numerics: Numerics, item: u64, tokens: Vec<u32>) -> Vec<Digest> {
    let vocabulary = checkpoint.config.vocabulary;
    let prompt = Prompt { item: 0, tokens, replay: None };
    let mut seen = Logits { items: vec![Vec::new()], samples: Vec::new() };
    Lab::load(checkpoint, numerics).unwrap().generate(&[prompt], &request(0), &mut seen).unwrap();
    assert_eq!(seen.samples.len(), 1, "item {item}");
    seen.items[0].chunks(vocabulary).map(Digest::of_logits).collect()
}

#[derive(Clone, Debug)]
struct Variation {
    batch: usize,
    threads: usize,
    chunk: Option<usize>,
    /// The prompts come in another order, and so in other company.
    rotation: usize,
}

fn variations() -> impl Strategy<Value = Vec<Variation>> {
    let variation =
        (prop::sample::select(vec![1_usize, 2, 3, 8]), 1_usize..=3, prop::option::of(1_usize..9), 0_usize..5);
    let variation =
        variation.prop_map(|(batch, threads, chunk, rotation)| Variation { batch, threads, chunk, rotation });
    prop::collection::vec(variation, 3)
}

fn holds(
    checkpoint: &Checkpoint,
    numerics: Numerics,
    prompts: &[Prompt],
    variations: &[Variation],
) -> Result<(), TestCaseError> {
    let alone = generate(checkpoint, numerics, 1, prompts, &request(NEW_TOKENS));
    for sample in &alone {
        let answer: Vec<_> = sample.steps.iter().map(|step| step.token.id).collect();
        let read = [&sample.prompt[..], &answer[..NEW_TOKENS - 1]].concat();
        let again = recomputed(checkpoint, numerics, sample.item, read);
        let steps: Vec<_> = sample.steps.iter().map(|step| step.token.digest().unwrap()).collect();
        prop_assert_eq!(&steps[..], &again[sample.prompt.len() - 1..], "{}: cache", numerics);
    }
    let alone = facts(alone);
    for variation in variations {
        let mut prompts = prompts.to_vec();
        let middle = variation.rotation % prompts.len();
        prompts.rotate_left(middle);
        let request =
            Request { prefill_chunk: variation.chunk.and_then(NonZeroUsize::new), ..request(NEW_TOKENS) };
        let together = facts(generate(
            checkpoint,
            numerics.on_threads(NonZeroUsize::new(variation.threads).unwrap()),
            variation.batch,
            &prompts,
            &request,
        ));
        prop_assert_eq!(&alone, &together, "{}: {:?}", numerics, variation);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sequence_has_the_same_bits_in_any_batch_on_any_threads_in_any_chunks_and_without_a_cache(
        lengths in prop::collection::vec(1_usize..20, 5),
        seed in any::<u64>(),
        variations in variations(),
    ) {
        for name in ["qwen3-wide-heads", "qwen2-window"] {
            let checkpoint = fixture(name);
            let vocabulary = checkpoint.config.vocabulary as u64;
            let prompts: Vec<_> = (0..).zip(&lengths).map(|(item, length)| {
                let token = |at: usize| ((seed >> 8).wrapping_mul(item * 31 + at as u64 + 1) % vocabulary) as u32;
                Prompt { item, tokens: (0..*length).map(token).collect(), replay: None }
            }).collect();
            for precision in invariant_precisions() {
                holds(&checkpoint, numerics(precision, Order::SEQUENTIAL, 1), &prompts, &variations)?;
            }
            for precision in [Precision::Fp32, Precision::Bf16] {
                for order in invariant_orders(precision) {
                    holds(&checkpoint, numerics(precision, order, 1), &prompts, &variations)?;
                }
            }
            for numerics in called() {
                holds(&checkpoint, numerics.alone(), &prompts, &variations)?;
            }
            for (precision, order, kv) in kept() {
                holds(&checkpoint, numerics(precision, order, 1).with_kv(kv).unwrap(), &prompts, &variations)?;
            }
            for numerics in shared().into_iter().chain(attending()) {
                holds(&checkpoint, numerics, &prompts, &variations)?;
            }
        }
    }
}

#[test]
fn the_fast_decoder_gives_the_bits_of_the_definition() {
    for name in ["qwen2-window", "qwen3-wide-heads", "llama-bias"] {
        let checkpoint = fixture(name);
        let prompts = fixed_prompts(&checkpoint);
        for (precision, order) in pairs() {
            let numerics = numerics(precision, order, 2);
            let definition = logits(Definition { numerics }, &checkpoint, &prompts);
            let fast = logits(Fast::new(numerics).unwrap(), &checkpoint, &prompts);
            assert_eq!(definition, fast, "{name}: {numerics}");
        }
        for numerics in called() {
            let definition = logits(Definition { numerics }, &checkpoint, &prompts);
            let fast = logits(Fast::new(numerics).unwrap(), &checkpoint, &prompts);
            assert_eq!(definition, fast, "{name}: {numerics}");
        }
        for (precision, order, kv) in kept() {
            let numerics = numerics(precision, order, 2).with_kv(kv).unwrap();
            let definition = logits(Definition { numerics }, &checkpoint, &prompts);
            let fast = logits(Fast::new(numerics).unwrap(), &checkpoint, &prompts);
            assert_eq!(definition, fast, "{name}: {numerics}");
        }
        let follows: [Numerics; 2] =
            ["bf16/split-k:threads/t2/tp2/ring", "fp32/split-k:rows/t2/tp4/one-shot"]
                .map(|name| name.parse().unwrap());
        for numerics in shared().into_iter().chain(follows) {
            let definition = logits(Definition { numerics }, &checkpoint, &prompts);
            let fast = logits(Fast::new(numerics).unwrap(), &checkpoint, &prompts);
            assert_eq!(definition, fast, "{name}: {numerics}");
        }
    }
}

#[test]
fn the_fast_decoder_attends_as_the_definition_does() {
    let follows: [Numerics; 2] =
        ["bf16/sequential/t2/split-kv:threads", "fp32/split-k:rows/t2/split-kv:rows+online:3"]
            .map(|name| name.parse().unwrap());
    for name in ["qwen2-window", "qwen3-wide-heads", "llama-bias"] {
        let checkpoint = fixture(name);
        let prompts = fixed_prompts(&checkpoint);
        for numerics in attending().into_iter().chain(follows) {
            let definition = logits(Definition { numerics }, &checkpoint, &prompts);
            let fast = logits(Fast::new(numerics).unwrap(), &checkpoint, &prompts);
            assert_eq!(definition, fast, "{name}: {numerics}");
        }
    }
}

#[test]
fn sorted_channels_move_no_bit_of_exact_sums_where_a_block_is_as_wide_as_the_head() {
    let of = |checkpoint: &Checkpoint, prompts: &[Prompt], order: &str, kv: &str| {
        let numerics =
            numerics(Precision::Fp32, order.parse().unwrap(), 1).with_kv(kv.parse().unwrap()).unwrap();
        logits(Fast::new(numerics).unwrap(), checkpoint, prompts)
    };
    let embedded = Checkpoint::embedded(&MODELS[0]).unwrap();
    // With norms of queries and keys and without, with biases, with every kind of angle.
    let fixtures = fixtures().into_iter().map(|folder| Checkpoint::open(&folder).unwrap());
    for checkpoint in fixtures.chain([embedded]) {
        let prompts = fixed_prompts(&checkpoint);
        let of = |order: &str, kv: &str| of(&checkpoint, &prompts, order, kv);
        let name = &checkpoint.name;
        for kv in ["int8", "bfp12", "fp8"] {
            let [plain, sorted] = ["", ",k-sort"].map(|sort| of("exact", &format!("{kv}:1024{sort}")));
            assert_eq!(plain, sorted, "{name} {kv}");
        }
        assert_ne!(of("sequential", "int8:1024"), of("sequential", "int8:1024,k-sort"), "{name}");
        if checkpoint.config.head_width > 8 {
            assert_ne!(of("exact", "bfp12:8"), of("exact", "bfp12:8,k-sort"), "{name}");
        }
    }
}

#[test]
fn a_format_that_holds_what_attention_multiplies_moves_no_bit_and_every_other_does() {
    let checkpoint = fixture("qwen3-wide-heads");
    let prompts = fixed_prompts(&checkpoint);
    // As long as a bf16 is neither large nor small it is an f16.
    let held = [
        (Precision::Bf16, vec!["same", "bf16", "f16"]),
        (Precision::Fp16, vec!["same", "f16"]),
        (Precision::Fp32, vec!["same"]),
    ];
    for (precision, held) in held {
        let plain = numerics(precision, Order::SEQUENTIAL, 1);
        let of = |numerics| logits(Fast::new(numerics).unwrap(), &checkpoint, &prompts);
        for name in Kv::NAMES {
            let other = plain.with_kv(name.parse().unwrap()).unwrap();
            assert_eq!(of(plain) == of(other), held.contains(&name), "{precision} {name}");
        }
    }
}

/// The bits of all logits of one call that reads every prompt, and of one more token each.
fn logits<K: Kernel>(kernel: K, checkpoint: &Checkpoint, prompts: &[Prompt]) -> Vec<u32> {
    let decoder = Decoder::load(kernel, checkpoint).unwrap();
    let mut caches: Vec<_> = prompts.iter().map(|_| decoder.cache()).collect();
    let mut all = Vec::new();
    for last in [false, true] {
        let mut spans: Vec<_> = caches
            .iter_mut()
            .zip(prompts)
            .map(|(cache, prompt)| {
                let tokens = if last { &prompt.tokens[..1] } else { &prompt.tokens };
                Span { cache, tokens, logits: if last { Wanted::Last } else { Wanted::All } }
            })
            .collect();
        all.extend(decoder.forward(&mut spans).into_iter().map(f32::to_bits));
    }
    all
}

/// Does an item's trace depend on the company it is in?
fn batch_moves_bits(checkpoint: &Checkpoint, numerics: Numerics) -> bool {
    let prompts = fixed_prompts(checkpoint);
    let in_batches_of = |batch| facts(generate(checkpoint, numerics, batch, &prompts, &request(NEW_TOKENS)));
    in_batches_of(1) != in_batches_of(4)
}

#[test]
fn int8_depends_on_the_company_that_its_outlier_columns_come_from_and_w8a8_does_not() {
    // The published threshold of 6 is rarely met by so small a model, so the test asks for one that is.
    let checkpoint = fixture("qwen3-untied-bias");
    let int8 = numerics("int8:threshold=2".parse().unwrap(), Order::SEQUENTIAL, 1);
    assert!(batch_moves_bits(&checkpoint, int8), "int8 has become batch-invariant: this pin must go");
    assert!(!batch_moves_bits(&checkpoint, numerics(Precision::Scaled(Scaled::W8A8), Order::SEQUENTIAL, 1)));
}

#[test]
fn an_order_shaped_by_the_rows_of_a_launch_moves_bits_with_the_batch() {
    let checkpoint = fixture("qwen3-untied-bias");
    let by_rows: Order = "split-k:rows".parse().unwrap();
    assert!(batch_moves_bits(&checkpoint, numerics(Precision::Fp32, by_rows, 1)));
    assert!(!batch_moves_bits(&checkpoint, numerics(Precision::Fp32, "split-k:4".parse().unwrap(), 1)));
}

#[test]
fn a_replay_meets_the_logits_that_generation_met_and_goes_on_past_a_divergence() {
    let checkpoint = fixture("llama-plain");
    let numerics = numerics(Precision::Bf16, Order::PAIRWISE, 1);
    let prompts = fixed_prompts(&checkpoint);
    let request = request(NEW_TOKENS);
    let own = generate(&checkpoint, numerics, 4, &prompts, &request);
    let given = |sample: &Sample| sample.steps.iter().map(|step| step.token.id).collect::<Vec<_>>();
    let replayed: Vec<_> = prompts
        .iter()
        .zip(&own)
        .map(|(prompt, sample)| Prompt { replay: Some(given(sample)), ..prompt.clone() })
        .collect();
    let again = generate(&checkpoint, numerics, 4, &replayed, &request);
    for (own, again) in own.iter().zip(&again) {
        assert_eq!(own.steps, again.steps);
        assert_eq!(again.finish, Finish::Replayed);
    }
    // Another token at first: from there on other logits, but the tokens go on as given.
    let other: Vec<_> = replayed
        .iter()
        .map(|prompt| {
            let mut tokens = prompt.replay.clone().unwrap();
            tokens[0] = (tokens[0] + 1) % checkpoint.config.vocabulary as u32;
            Prompt { replay: Some(tokens), ..prompt.clone() }
        })
        .collect();
    for (own, (other, prompt)) in
        own.iter().zip(generate(&checkpoint, numerics, 4, &other, &request).iter().zip(&other))
    {
        assert_eq!(own.steps[0].token.digest(), other.steps[0].token.digest());
        assert_ne!(own.steps[1].token.digest(), other.steps[1].token.digest());
        assert_eq!(Some(given(other)), prompt.replay);
    }
}

#[test]
fn threads_that_really_share_the_work_of_a_model_move_no_bit() {
    let checkpoint = fixture("qwen3-untied-bias");
    let vocabulary = checkpoint.config.vocabulary as u32;
    // Long enough together for a call to be worth sharing.
    let prompt = |item: u32| Prompt {
        item: u64::from(item),
        tokens: (0..120).map(|at| (item * 37 + at * at * 11 + at * 5) % vocabulary).collect(),
        replay: None,
    };
    let prompts: Vec<_> = (0..8).map(prompt).collect();
    let request = request(2);
    for order in ["sequential", "pairwise", "lanes:16", "exact"] {
        for precision in invariant_precisions() {
            let on = |threads| {
                let numerics = numerics(precision, order.parse().unwrap(), threads);
                let samples = generate(&checkpoint, numerics, 8, &prompts, &request);
                assert!(
                    samples.iter().all(|sample| sample.launch.as_ref().unwrap().threads == Some(threads)),
                    "{numerics}: idle threads"
                );
                facts(samples)
            };
            let alone = on(1);
            assert_eq!(alone, on(2), "{precision}/{order}");
            assert_eq!(alone, on(3), "{precision}/{order}");
        }
    }
}
