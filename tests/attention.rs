//! Attention as it is computed: what every form is held to, what moves its bits, and what finds it as a cause.

use std::{collections::BTreeSet, fs, num::NonZeroUsize, path::Path};

use reprocheck::{
    cause::{
        passage::{Passage, Rows},
        search::Case,
        tap::{Parting, Reading, Tap, parting},
        transplant::{Donated, Transplant},
    },
    digest::Digest,
    engine::Prompt,
    model::{
        Checkpoint, Cost, Decoder,
        decoder::{Span, Wanted},
    },
    numerics::{
        Numerics,
        attention::Attention,
        choice::Choice,
        elementary::exp,
        kernel::{At, Attended, End, Fast, Faulty, Kernel, KernelFault, Op, Step},
        order::Launch,
        random::Stream,
    },
    plan::Plan,
};

use crate::support::{fixed_prompts, fixture};

const CONTEXT: At = At::layer(0, Step::Context);

fn fast(numerics: &str) -> Fast {
    Fast::new(numerics.parse().unwrap()).unwrap()
}

/// A row of scores and the values that it weighs, key after key.
struct Row {
    scores: Vec<f32>,
    values: Vec<f32>,
}

const WIDTH: usize = 40;

impl Row {
    fn new(keys: usize, seed: u64) -> Row {
        let mut stream = Stream::new(seed, 0);
        let mut unit = || (stream.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let scores = (0..keys).map(|_| 8.0 * unit()).collect();
        Row { scores, values: (0..keys * WIDTH).map(|_| unit()).collect() }
    }

    fn attend(&self, kernel: &Fast, launch: Launch) -> Vec<f32> {
        let mut values = kernel.pack(CONTEXT, WIDTH, 0, &mut |_: usize, _: &mut [f32]| {});
        self.values.chunks(WIDTH).for_each(|value| kernel.push(&mut values, End::Row(value)));
        let mut out = vec![f32::NAN; WIDTH];
        let (scores, seen) = (&self.scores[..], 0..self.scores.len());
        let own = Attended { scores, rows: 1, seen, values: &values, out: &mut out };
        kernel.apply(CONTEXT, launch, Op::Attend { rows: vec![own], scale: 1.0 });
        out
    }

    fn under(&self, attention: &str) -> Vec<f32> {
        self.attend(&fast(&format!("fp32/sequential/t1/{attention}")), Launch::default())
    }

    fn value(&self, key: usize, column: usize) -> f32 {
        self.values[key * WIDTH + column]
    }
}

#[test]
fn every_form_is_the_exact_softmax_within_its_roundings() {
    for keys in [1, 2, 15, 64, 65, 150] {
        let row = Row::new(keys, keys as u64);
        let largest = row.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> =
            row.scores.iter().map(|score| (f64::from(*score) - f64::from(largest)).exp()).collect();
        let sum = weights.iter().fold(0.0, |sum, weight| sum + weight);
        for name in Attention::NAMES.into_iter().chain(["online:1", "split-kv:150"]) {
            for (column, found) in row.under(name).into_iter().enumerate() {
                let weighed = weights.iter().enumerate();
                let exact = weighed
                    .fold(0.0, |sum, (key, weight)| sum + weight * f64::from(row.value(key, column)))
                    / sum;
                // A score is up to 16 from the largest, so that its distance rounds by 2^-21.
                let apart = (f64::from(found) - exact).abs();
                assert!(apart < 3e-6, "{name} of {keys} keys is {found}, {apart:e} from {exact}");
            }
        }
    }
}

#[test]
fn one_block_has_the_weights_and_the_sum_of_three_passes_and_divides_behind_the_values() {
    let row = Row::new(50, 7);
    let largest = row.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = row.scores.iter().map(|score| exp(score - largest)).collect();
    let sum = weights.iter().fold(0.0, |sum: f32, weight| sum + weight);
    let added = |weights: &[f32], column: usize| {
        let terms = weights.iter().enumerate();
        terms.fold(0.0, |sum: f32, (key, weight)| weight.mul_add(row.value(key, column), sum))
    };
    let divided: Vec<f32> = weights.iter().map(|weight| weight / sum).collect();
    let before: Vec<f32> = (0..WIDTH).map(|column| added(&divided, column)).collect();
    let behind: Vec<f32> = (0..WIDTH).map(|column| added(&weights, column) / sum).collect();
    assert_eq!(row.under("three-pass"), before);
    for name in ["online:50", "online:64", "split-kv:1", "split-kv:1+online:64"] {
        assert_eq!(row.under(name), behind, "{name}");
    }
    assert_ne!(before, behind);
    assert_ne!(row.under("online:49"), behind);
}

#[test]
fn blocks_and_parts_of_one_key_are_joined_by_what_their_definition_says() {
    let row = Row::new(9, 3);
    for column in 0..WIDTH {
        let (mut largest, mut sum, mut context) = (row.scores[0], 1.0_f32, row.value(0, column));
        let mut parts = (largest, sum, context);
        for key in 1..9 {
            let (score, value) = (row.scores[key], row.value(key, column));
            let top = largest.max(score);
            // A block is weighed by the largest score so far, and what came before fades to it.
            let fade = exp(largest - top);
            sum = sum * fade + exp(score - top);
            context = context * fade + exp(score - top) * value;
            largest = top;
            // A part is weighed by its own, and fades, too.
            let top = parts.0.max(score);
            let [fade, own] = [parts.0, score].map(|before| exp(before - top));
            parts = (top, parts.1 * fade + own, parts.2 * fade + value * own);
        }
        assert_eq!(row.under("online:1")[column], context / sum);
        assert_eq!(row.under("split-kv:9")[column], parts.2 / parts.1);
    }
}

#[test]
fn whoever_sees_one_key_has_its_value_but_for_two_passes() {
    let row = Row::new(1, 5);
    for name in Attention::NAMES.into_iter().filter(|name| *name != "two-pass") {
        assert_eq!(row.under(name), row.values, "{name}");
    }
    // A number times its rounded reciprocal need not be 1.
    let ones = (0..100).map(|seed| Row { values: vec![1.0; WIDTH], ..Row::new(1, seed) });
    let found: BTreeSet<u32> = ones.map(|row| row.under("two-pass")[0].to_bits()).collect();
    assert_eq!(found, BTreeSet::from([1.0_f32.to_bits(), 1.0_f32.to_bits() - 1]));
}

#[test]
fn a_stretch_of_scores_of_minus_infinity_weighs_nothing_and_nothing_else_is_nan() {
    for name in Attention::NAMES.into_iter().chain(["online:2", "split-kv:3"]) {
        let mut row = Row::new(6, 11);
        let seen_alone = Row { scores: row.scores[4..].to_vec(), values: row.values[4 * WIDTH..].to_vec() };
        row.scores[..4].fill(f32::NEG_INFINITY);
        let [found, alone] = [row.under(name), seen_alone.under(name)];
        assert!(found.iter().zip(&alone).all(|(one, other)| (one - other).abs() < 1e-6), "{name}");
        row.scores.fill(f32::NEG_INFINITY);
        assert!(row.under(name).iter().all(|value| value.is_nan()), "{name}");
        for spoiler in [f32::NAN, f32::INFINITY] {
            for key in [0, 3, 5] {
                let mut row = Row::new(6, 11);
                row.scores[key] = spoiler;
                assert!(row.under(name).iter().all(|value| value.is_nan()), "{name}, {spoiler}, {key}");
            }
        }
    }
}

#[test]
fn a_split_follows_the_launch_that_it_names() {
    let row = Row::new(50, 2);
    let under =
        |attention: &str, launch| row.attend(&fast(&format!("fp32/sequential/t1/{attention}")), launch);
    let launch = Launch { rows: 4, threads: 3 };
    for (named, number) in [("rows", 4), ("threads", 3)] {
        let fixed = under(&format!("split-kv:{number}"), Launch::default());
        assert_eq!(under(&format!("split-kv:{named}"), launch), fixed);
        assert_ne!(under(&format!("split-kv:{named}"), Launch::default()), fixed);
    }
    for name in
        Attention::NAMES.into_iter().filter(|name| !name.parse::<Attention>().unwrap().depends_on_launch())
    {
        assert_eq!(under(name, launch), under(name, Launch::default()), "{name}");
    }
}

/// The bits of all logits of one call that reads every prompt, and of one more token each.
fn logits<K: Kernel>(decoder: &Decoder<K>, prompts: &[Prompt]) -> Vec<u32> {
    let mut caches: Vec<_> = prompts.iter().map(|_| decoder.cache()).collect();
    let mut all = Vec::new();
    for last in [false, true] {
        let spans = caches.iter_mut().zip(prompts).map(|(cache, prompt)| {
            let tokens = if last { &prompt.tokens[..1] } else { &prompt.tokens };
            Span { cache, tokens, logits: Wanted::All }
        });
        all.extend(decoder.forward(&mut spans.collect::<Vec<_>>()).into_iter().map(f32::to_bits));
    }
    all
}

fn of_model(checkpoint: &Checkpoint, numerics: &str) -> Vec<u32> {
    logits(&Decoder::load(fast(numerics), checkpoint).unwrap(), &fixed_prompts(checkpoint))
}

#[test]
fn every_form_is_bits_of_its_own_in_a_model_and_close_to_the_others() {
    let checkpoint = fixture("qwen2-window");
    let forms = ["three-pass", "two-pass", "online:4", "split-kv:3", "split-kv:3+online:4"];
    let all = forms.map(|name| of_model(&checkpoint, &format!("fp32/sequential/t1/{name}")));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), forms.len());
    for (one, name) in all.iter().zip(forms) {
        let apart =
            one.iter().zip(&all[0]).map(|(one, other)| (f32::from_bits(*one) - f32::from_bits(*other)).abs());
        assert!(apart.fold(0.0, f32::max) < 1e-4, "{name}");
    }
}

#[test]
fn three_passes_are_the_same_bits_as_one_operation() {
    let checkpoint = fixture("qwen2-window");
    for name in [
        "fp32/sequential/t1",
        "bf16/pairwise/t2/kv:int8",
        "lmul:scope=everything/exact/t1",
        "map:fp32;softmax=bf16/lanes:4/t1",
        "bf16/dpbf16/t1/two-pass",
    ] {
        let numerics: Numerics = name.parse().unwrap();
        let online = numerics.with_attention("online:4".parse().unwrap());
        let decoder = Decoder::load(fast(name), &checkpoint).unwrap();
        let prompts = fixed_prompts(&checkpoint);
        let apart = logits(&decoder, &prompts);
        assert_eq!(logits(&decoder.among([numerics, online]), &prompts), apart, "{name}");
    }
}

#[test]
fn a_split_by_rows_moves_bits_with_the_batch_and_one_by_threads_with_the_threads() {
    let checkpoint = fixture("llama-plain");
    // Each prompt by itself, and all of them together.
    let alone = |numerics: &str| {
        let decoder = Decoder::load(fast(numerics), &checkpoint).unwrap();
        let prompts = fixed_prompts(&checkpoint);
        prompts.chunks(1).map(|prompt| logits(&decoder, prompt)).collect::<Vec<_>>()
    };
    let together = |numerics: &str| {
        let decoder = Decoder::load(fast(numerics), &checkpoint).unwrap();
        logits(&decoder, &fixed_prompts(&checkpoint))
    };
    // The last token of each, which is read beside those of the others.
    let last = |all: &[u32]| all[all.len() - checkpoint.config.vocabulary..].to_vec();
    for (form, by_rows, by_threads) in [
        ("online:4", false, false),
        ("split-kv:3", false, false),
        ("split-kv:rows", true, false),
        ("split-kv:threads", false, true),
        ("split-kv:threads+online:4", false, true),
    ] {
        let [one, two] = [1, 2].map(|threads| format!("fp32/sequential/t{threads}/{form}"));
        let lone = last(alone(&one).last().unwrap());
        assert_eq!(lone != last(&together(&one)), by_rows, "{form}");
        assert_eq!(alone(&one) != alone(&two), by_threads, "{form}");
        let numerics: Numerics = one.parse().unwrap();
        assert_eq!(numerics.minds_its_rows(), by_rows, "{form}");
        assert_eq!(numerics.on_threads(NonZeroUsize::new(2).unwrap()) == numerics, by_threads, "{form}");
    }
}

/// A passage that both cells have read in calls of so many rows.
fn passage(checkpoint: &Checkpoint, rows: [usize; 2]) -> Passage {
    let tokens = (0..24).map(|place| (place * 7 + 3) % checkpoint.config.vocabulary as u32).collect();
    let rows = rows.map(|rows| Rows { layers: rows, head: rows });
    Passage { tokens, prompt: 20, calls: vec![rows; 24], together: NonZeroUsize::new(16).unwrap() }
}

/// What every operation read and gave of one of two cells, some operations of which are the other's, and the digests of its logits.
fn read(
    checkpoint: &Checkpoint,
    numerics: [Numerics; 2],
    [side, rows]: [usize; 2],
    donated: Donated,
) -> (Vec<Reading>, Vec<Digest>) {
    let kernel = Tap::new(Transplant::of(numerics, side).unwrap(), &checkpoint.config);
    let decoder = Decoder::load(kernel, checkpoint).unwrap().among(numerics);
    decoder.kernel().inner().donate(donated);
    decoder.kernel().listen(None);
    let mut digests = Vec::new();
    passage(checkpoint, [1, rows]).read(&decoder, |_, logits| digests.push(Digest::of_logits(logits)));
    (decoder.kernel().take().0, digests)
}

#[test]
fn another_form_is_found_where_it_is_and_its_transplant_is_the_other_cell() {
    let checkpoint = fixture("qwen3-untied-bias");
    let contexts = || (0..checkpoint.config.layers).map(|layer| At::layer(layer, Step::Context));
    for (one, other, rows) in [
        ("bf16/sequential/t1", "bf16/sequential/t1/online:4", 1),
        ("fp32/pairwise/t1/split-kv:3", "fp32/pairwise/t1/two-pass", 1),
        ("fp32/sequential/t1/split-kv:rows", "fp32/sequential/t1/split-kv:rows", 3),
    ] {
        let numerics: [Numerics; 2] = [one, other].map(|name| name.parse().unwrap());
        let nothing = || Donated::At(BTreeSet::new());
        let sides = [0, 1].map(|side| read(&checkpoint, numerics, [side, rows], nothing()));
        let Some(Parting::Gave(which)) = parting(&sides[0].0, &sides[1].0) else {
            panic!("{one} and {other} do not part by what an operation gives");
        };
        assert_eq!(which.at, CONTEXT, "{one}");
        assert_ne!(sides[0].1, sides[1].1);
        for side in [0, 1] {
            let donated = Donated::At(contexts().collect());
            let found = read(&checkpoint, numerics, [side, rows], donated).1;
            assert_eq!(found, sides[1 - side].1, "{one} as {other}, from {side}");
        }
        // A whole search names it, too.
        let passage = passage(&checkpoint, [1, rows]);
        let digests = [0, 1].map(|side| sides[side].1[..].to_vec());
        let case = Case {
            checkpoint: &checkpoint,
            numerics,
            passage,
            item: 0,
            choice: Choice::Greedy,
            digests,
            tries: 20,
        };
        let cause = case.cause().unwrap();
        assert_eq!((cause.first.operation.step.as_str(), cause.first.read_otherwise), ("context", false));
        assert!(cause.transplants.complete);
        assert!(cause.transplants.suspects.iter().all(|suspect| suspect.operation.step == "context"));
    }
}

#[test]
fn a_fault_of_attention_is_seen_in_every_form() {
    let checkpoint = fixture("qwen3-untied-bias");
    for form in ["online:4", "split-kv:2", "split-kv:rows+online:4"] {
        let numerics: Numerics = format!("fp32/sequential/t1/{form}").parse().unwrap();
        let sound = of_model(&checkpoint, &numerics.to_string());
        for fault in [
            KernelFault::DropsLastTerm,
            KernelFault::AddsInAnotherOrder,
            KernelFault::SkipsOperation,
            KernelFault::LooksAhead,
            KernelFault::FlipsBit,
            KernelFault::ComputesInBf16,
        ] {
            let faulty = Faulty::new(numerics, fault, Some(CONTEXT), Fast::new).unwrap();
            let decoder = Decoder::load(faulty, &checkpoint).unwrap();
            assert_ne!(logits(&decoder, &fixed_prompts(&checkpoint)), sound, "{form}: {fault:?}");
            assert!(decoder.kernel().strikes() > 0, "{form}: {fault:?}");
        }
    }
}

#[test]
fn what_a_form_multiplies_is_counted() {
    let checkpoint = fixture("qwen3-untied-bias");
    let cost = |name: &str| {
        let numerics: Numerics = format!("bf16/sequential/t1/{name}").parse().unwrap();
        Cost::of(&checkpoint, numerics, NonZeroUsize::MIN).unwrap()
    };
    for name in Attention::NAMES {
        assert_eq!(cost(name), cost("three-pass"), "{name}");
    }
}

#[test]
fn the_matrix_of_all_forms_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/attention.toml");
    for profile in [None, Some("replay")] {
        let plan = Plan::read(&path, &fs::read_to_string(&path).unwrap(), profile);
        let plan = plan.unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!((plan.cells.len(), plan.gates.len()), (51, 5));
    }
}
