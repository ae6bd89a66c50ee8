//! Every operation of a forward pass has an address of its own, and a fault at any of them is seen.

use std::sync::Mutex;

use crate::support::{facts, fixed_prompts, fixture, request};
use reprocheck::{
    engine::{Engine, lab::Lab},
    model::{
        Checkpoint, Decoder,
        decoder::{Span, Wanted},
    },
    numerics::{
        Numerics,
        kernel::{At, End, Fast, Faulty, Kernel, KernelFault, Op, Source, Step, Workers},
        order::Launch,
    },
};

fn numerics() -> Numerics {
    "fp32/sequential/t1".parse().unwrap()
}

fn fast() -> Fast {
    Fast::new(numerics()).unwrap()
}

fn faulty(fault: KernelFault, only: Option<At>) -> Faulty<Fast> {
    Faulty::new(numerics(), fault, only, Fast::new).unwrap()
}

/// A kernel that writes down where it is called, and with matrices that were packed where.
struct Recorder {
    kernel: Fast,
    seen: Mutex<Vec<At>>,
}

#[derive(Debug)]
struct Addressed<W> {
    at: At,
    weights: W,
}

impl Kernel for Recorder {
    type Weights = Addressed<<Fast as Kernel>::Weights>;

    fn numerics(&self) -> Numerics {
        self.kernel.numerics()
    }

    fn workers(&self) -> &Workers {
        self.kernel.workers()
    }

    fn pack(&self, at: At, columns: usize, depth: usize, source: &mut dyn Source) -> Self::Weights {
        Addressed { at, weights: self.kernel.pack(at, columns, depth, source) }
    }

    fn push(&self, weights: &mut Self::Weights, end: End<'_>) {
        self.kernel.push(&mut weights.weights, end);
    }

    fn apply(&self, at: At, launch: Launch, mut op: Op<'_, Self::Weights>) {
        match &op {
            Op::Product(jobs) => {
                for job in jobs {
                    assert_eq!(job.weights.at, at, "a matrix is packed where it is multiplied");
                }
            }
            // One matrix may serve as both.
            Op::Lookup { table, .. } => assert!([Step::Embed, Step::Head].contains(&table.at.step)),
            _ => {}
        }
        self.seen.lock().unwrap().push(at);
        self.kernel.apply(at, launch, op.lend(|weights| &weights.weights));
    }
}

/// Reads a prompt in one call and a token more in another: the bits of the logits after each.
fn forward<K: Kernel>(decoder: &Decoder<K>) -> Vec<u32> {
    let mut cache = decoder.cache();
    let mut logits = Vec::new();
    for tokens in [&[5, 9, 2, 30, 17, 11, 3, 8, 21][..], &[4]] {
        logits.extend(decoder.forward(&mut [Span { cache: &mut cache, tokens, logits: Wanted::Last }]));
    }
    logits.into_iter().map(f32::to_bits).collect()
}

fn logits<K: Kernel>(checkpoint: &Checkpoint, kernel: K) -> Vec<u32> {
    forward(&Decoder::load(kernel, checkpoint).unwrap())
}

/// Where one call of a decoder calls its kernel.
fn places(checkpoint: &Checkpoint) -> Vec<At> {
    let recorder = Recorder { kernel: fast(), seen: Mutex::default() };
    let decoder = Decoder::load(recorder, checkpoint).unwrap();
    forward(&decoder);
    let seen = decoder.kernel().seen.lock().unwrap().clone();
    let (first, second) = seen.split_at(seen.len() / 2);
    assert_eq!(first, second, "a prompt goes through the places that a token goes through");
    first.to_vec()
}

/// The places of a model of so many layers, as text.
fn listed(layers: usize, steps: &[&str]) -> Vec<String> {
    let mut listed = vec!["embed".to_owned()];
    for layer in 0..layers {
        listed.extend(steps.iter().map(|step| format!("{step} of layer {layer}")));
    }
    listed.extend(["norm", "head"].map(str::to_owned));
    listed
}

const QWEN3: [&str; 16] = [
    "attention-norm",
    "qkv",
    "query-norm",
    "query-rotation",
    "key-norm",
    "key-rotation",
    "scores",
    "softmax",
    "context",
    "output",
    "attention-add",
    "mlp-norm",
    "gate-up",
    "gate",
    "down",
    "mlp-add",
];

#[test]
fn every_operation_of_a_forward_pass_has_an_address_of_its_own() {
    let without_norms: Vec<_> = QWEN3.into_iter().filter(|step| !step.ends_with("y-norm")).collect();
    for (name, layers, steps) in
        [("qwen3-tied", 2, &QWEN3[..]), ("qwen3-wide-heads", 2, &QWEN3), ("qwen2-window", 3, &without_norms)]
    {
        let places = places(&fixture(name));
        let words: Vec<_> = places.iter().map(At::to_string).collect();
        assert_eq!(words, listed(layers, steps), "{name}");
        for (index, at) in places.iter().enumerate() {
            assert!(!places[..index].contains(at), "{name} has two operations at {at}");
        }
    }
}

#[test]
fn every_step_occurs_and_is_listed_in_the_order_in_which_it_comes() {
    let mut steps: Vec<_> = places(&fixture("qwen3-wide-heads")).iter().map(|at| at.step).collect();
    let last = steps.split_off(steps.len() - 2);
    steps.truncate(steps.len() / 2 + 1);
    assert_eq!([steps, last].concat(), Step::ALL);
}

#[test]
fn an_operation_that_is_skipped_anywhere_is_seen_in_the_logits() {
    for name in ["qwen3-wide-heads", "qwen2-window"] {
        let checkpoint = fixture(name);
        let sound = logits(&checkpoint, fast());
        for at in places(&checkpoint) {
            let skipped = logits(&checkpoint, faulty(KernelFault::SkipsOperation, Some(at)));
            assert_ne!(skipped, sound, "{name} without {at}");
        }
    }
}

#[test]
fn a_fault_is_seen_at_its_place_and_nowhere_else() {
    let checkpoint = fixture("qwen3-wide-heads");
    let sound = logits(&checkpoint, fast());
    for fault in KernelFault::OF_SUMS {
        for at in [At::layer(1, Step::Qkv), At::layer(0, Step::Scores), At::layer(1, Step::Context)] {
            assert_ne!(logits(&checkpoint, faulty(fault, Some(at))), sound, "{fault:?} at {at}");
        }
        for at in [At::layer(2, Step::Qkv), At::outside(Step::Qkv), At::alone(At::layer(0, Step::Qkv).site())]
        {
            assert_eq!(logits(&checkpoint, faulty(fault, Some(at))), sound, "{fault:?} at {at}");
        }
    }
}

#[test]
fn the_engine_runs_on_any_kernel_and_shows_every_fault_of_it() {
    let checkpoint = fixture("qwen3-wide-heads");
    let prompts = fixed_prompts(&checkpoint);
    let sampled = |engine: &mut dyn Engine| {
        let mut samples = Vec::new();
        engine.generate(&prompts, &request(4), &mut samples).map(|()| facts(samples)).ok()
    };
    let sound = sampled(&mut Lab::load(&checkpoint, numerics()).unwrap());
    assert!(sound.is_some());
    let recorder = Recorder { kernel: fast(), seen: Mutex::default() };
    assert_eq!(sampled(&mut Lab::on(&checkpoint, recorder).unwrap()), sound);
    for fault in KernelFault::OF_SUMS {
        let broken = sampled(&mut Lab::on(&checkpoint, faulty(fault, None)).unwrap());
        assert_ne!(broken, sound, "{fault:?} passed");
    }
}
