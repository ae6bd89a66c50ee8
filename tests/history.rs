//! What was read before, and who is beside: pages of a prefix cache, drafted tokens, keys and values that are built again, neighbors.

use std::num::NonZeroUsize;

use crate::invariance::{called, invariant_orders, invariant_precisions, kept, shared};
use crate::support::{Fact, facts, fixture, request};
use reprocheck::{
    cell::Cell,
    engine::{Prompt, Request, in_groups, lab::Lab},
    model::Checkpoint,
    numerics::{
        Numerics,
        kernel::{Fast, Faulty, Kernel, KernelFault},
        order::Order,
        precision::Precision,
    },
    trace::{Finish, History, Sample},
};

const NEW_TOKENS: usize = 9;

/// Prompts of which most begin alike: some for a page, some for several, one like another, one as another begins.
fn prompts(checkpoint: &Checkpoint) -> Vec<Prompt> {
    let vocabulary = checkpoint.config.vocabulary as u32;
    let template: Vec<u32> = (0..14_u32).map(|at| (at * at * 11 + at * 5 + 3) % vocabulary).collect();
    let prompt = |(item, (shared, own)): (u64, (usize, u32))| {
        let tail = (0..own).map(|at| (item as u32 * 37 + at * 7 + 1) % vocabulary);
        Prompt { item, tokens: template[..shared].iter().copied().chain(tail).collect(), replay: None }
    };
    let mut prompts: Vec<_> =
        (0..).zip([(14, 5), (9, 3), (0, 1), (14, 1), (14, 0), (5, 8)]).map(prompt).collect();
    let twice = prompts[0].tokens.clone();
    prompts.push(Prompt { item: 6, tokens: twice, replay: None });
    prompts
}

/// The settings of a cell's name, of a batch and of chunks.
fn asked(settings: &str, batch: usize, chunk: Option<usize>) -> Request {
    let name = format!("lab/fp32/sequential/t1/b{batch}{settings}");
    let cell: Cell = name.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
    // A token that some samples end with, so that a batch gets smaller.
    Request {
        prefill_chunk: chunk.and_then(NonZeroUsize::new),
        asking: cell.serving.asking(),
        stop_tokens: vec![7, 11, 30],
        ..request(NEW_TOKENS)
    }
}

fn samples<K: Kernel>(lab: &mut Lab<'_, K>, request: &Request, prompts: &[Prompt]) -> Vec<Sample> {
    let mut samples = Vec::new();
    in_groups(lab, request.asking.concurrency, prompts, request, &mut samples).unwrap();
    samples.sort_by_key(|sample| sample.item);
    samples
}

/// All but the launches.
fn answers(samples: &[Sample]) -> Vec<(String, Finish, Vec<Fact>)> {
    let facts = facts(samples.to_vec()).into_iter();
    facts.zip(samples).map(|((_, facts), sample)| (sample.text.clone(), sample.finish, facts)).collect()
}

fn history(samples: &[Sample]) -> History {
    let all = samples.iter().map(|sample| sample.launch.as_ref().unwrap().history);
    all.fold(History::default(), History::and)
}

/// Each with the batches under which it is more than a name.
const HISTORIES: [(&str, &[usize]); 14] = [
    ("/cold", &[3, 7]),
    ("/cold:4", &[3, 7]),
    ("/warm", &[1, 3, 7]),
    ("/warm:4", &[1, 3, 7]),
    ("/v1", &[1, 3]),
    ("/v4", &[1, 3]),
    ("/re-prefill:1", &[1, 3]),
    ("/re-prefill:4", &[1, 3]),
    ("/re-decode:3", &[1, 3]),
    ("/copies", &[2, 5]),
    ("/noise:3", &[2, 5]),
    ("/warm:4/v2/re-prefill:3", &[1, 3]),
    ("/copies/warm:2/v3/re-decode:2", &[3]),
    ("/noise:1/cold/v1/re-prefill:2", &[3]),
];

/// Under a part of all histories: another one for every number, so that many numerics walk all.
fn moves_no_bit(checkpoint: &Checkpoint, numerics: Numerics, number: usize) {
    let prompts = prompts(checkpoint);
    let mut lab = Lab::load(checkpoint, numerics).unwrap();
    let plain = answers(&samples(&mut lab, &asked("", 3, None), &prompts));
    for (at, (settings, batches)) in HISTORIES.iter().cycle().skip(2 * number).take(2).enumerate() {
        let (batch, chunk) = (batches[number % batches.len()], [None, Some(3)][(number + at) % 2]);
        let read = samples(&mut lab, &asked(settings, batch, chunk), &prompts);
        assert_eq!(answers(&read), plain, "{}: {numerics}{settings}/b{batch} {chunk:?}", checkpoint.name);
        let is_beside = !history(&read).is_none() || ["/copies", "/noise:3"].contains(settings);
        assert!(is_beside, "{settings}");
        assert!(!read.iter().any(|sample| sample.launch.as_ref().unwrap().has_unlike_copy));
    }
}

fn numerics(precision: Precision, order: Order) -> Numerics {
    Numerics::new(precision, order, NonZeroUsize::MIN).unwrap()
}

#[test]
fn nothing_that_was_read_before_moves_a_bit_of_an_order_that_ignores_its_launch() {
    let checkpoints = ["qwen3-wide-heads", "qwen2-window"].map(fixture);
    let of_precisions = invariant_precisions().into_iter().map(|of| numerics(of, Order::SEQUENTIAL));
    let of_orders = invariant_orders(Precision::Bf16).map(|order| numerics(Precision::Bf16, order));
    let of_kept = kept().into_iter().map(|(of, order, kv)| numerics(of, order).with_kv(kv).unwrap());
    let others = called().into_iter().chain(shared()).map(Numerics::alone);
    for (number, numerics) in of_precisions.chain(of_orders).chain(of_kept).chain(others).enumerate() {
        moves_no_bit(&checkpoints[number % 2], numerics, number);
    }
    // All of them under one.
    for number in 0..HISTORIES.len() {
        moves_no_bit(&checkpoints[0], numerics(Precision::Bf16, Order::PAIRWISE), number);
    }
}

#[test]
fn everything_that_was_read_before_moves_bits_of_an_order_that_follows_its_rows() {
    let checkpoint = fixture("qwen3-untied-bias");
    let prompts = prompts(&checkpoint);
    let mut lab = Lab::load(&checkpoint, "fp32/split-k:rows/t1".parse().unwrap()).unwrap();
    for (settings, batches) in HISTORIES {
        let batch = batches[batches.len() - 1];
        let usual = answers(&samples(&mut lab, &asked("", batch, None), &prompts));
        assert_ne!(answers(&samples(&mut lab, &asked(settings, batch, None), &prompts)), usual, "{settings}");
    }
}

#[test]
fn what_is_beside_a_prompt_moves_no_bit_unless_a_precision_looks_at_other_rows() {
    let checkpoint = fixture("qwen3-untied-bias");
    let prompts = prompts(&checkpoint);
    let moved = |name: &str, others: [&str; 2]| {
        let mut lab = Lab::load(&checkpoint, name.parse().unwrap()).unwrap();
        let [one, other] = others.map(|beside| samples(&mut lab, &asked(beside, 4, Some(5)), &prompts));
        // The same calls, whatever they hold.
        if answers(&one) == answers(&other) {
            let rows = |samples: &[Sample]| -> Vec<_> {
                let of = |sample: &Sample| {
                    let steps: Vec<_> = sample.steps.iter().map(|step| step.rows).collect();
                    (sample.launch.as_ref().unwrap().prefill.clone(), steps)
                };
                samples.iter().map(of).collect()
            };
            assert_eq!(rows(&one), rows(&other), "{name}");
        }
        answers(&one) != answers(&other)
    };
    for name in ["fp32/sequential/t1", "fp32/split-k:rows/t1", "bf16/split-k:rows/t1", "w8a8/pairwise/t1"] {
        assert!(!moved(name, ["/copies", "/noise:1"]), "{name}");
        assert!(!moved(name, ["/noise:1", "/noise:2"]), "{name}");
        assert!(
            !moved(name, ["/copies/warm:2/v2/re-prefill:2", "/noise:2/warm:2/v2/re-prefill:2"]),
            "{name}"
        );
    }
    for others in [["/copies", "/noise:1"], ["/noise:1", "/noise:2"]] {
        assert!(moved("int8:threshold=2/sequential/t1", others), "{others:?}");
    }
}

#[test]
fn a_copy_that_has_other_logits_is_told() {
    let checkpoint = fixture("qwen3-untied-bias");
    let numerics = numerics(Precision::Fp32, Order::SEQUENTIAL);
    let unlike = |fault, settings: &str| {
        let kernel = Faulty::new(numerics, fault, None, Fast::new).unwrap();
        let mut lab = Lab::on(&checkpoint, kernel).unwrap();
        let read = samples(&mut lab, &asked(settings, 3, None), &prompts(&checkpoint));
        read.iter().filter(|sample| sample.launch.as_ref().unwrap().has_unlike_copy).count()
    };
    // The last row of a call is another one.
    assert_eq!(unlike(KernelFault::FlipsBit, "/copies"), 7);
    assert_eq!(unlike(KernelFault::FlipsBit, "/noise:1"), 0);
    // All rows are.
    assert_eq!(unlike(KernelFault::LosesEpsilon, "/copies"), 0);
}

#[test]
fn whole_pages_that_others_share_are_taken_and_never_the_last_token() {
    let checkpoint = fixture("qwen3-wide-heads");
    let prompts = prompts(&checkpoint);
    let mut lab = Lab::load(&checkpoint, numerics(Precision::Fp32, Order::SEQUENTIAL)).unwrap();
    let mut read = |settings, batch| {
        let read = samples(&mut lab, &asked(settings, batch, None), &prompts);
        let of = |sample: &Sample| {
            let launch = sample.launch.as_ref().unwrap();
            (launch.history.cached, launch.prefill.clone())
        };
        read.iter().map(of).collect::<Vec<_>>()
    };
    // The prompts have 19, 12, 1, 15, 14, 13 and 19 tokens. First all who share nothing with one before them, and then the rest of
    // all others.
    let none = |rows: usize| (0, vec![rows]);
    let rest = 3 + 1 + 1 + 8 + 1;
    let shares = |tokens| (tokens, vec![rest]);
    assert_eq!(
        read("/cold", 7),
        [none(20), shares(9), none(20), shares(14), shares(13), shares(5), shares(18)]
    );
    let rest = 4 + 3 + 2 + 9 + 3;
    let shares = |tokens| (tokens, vec![rest]);
    assert_eq!(
        read("/cold:4", 7),
        [none(20), shares(8), none(20), shares(12), shares(12), shares(4), shares(16)]
    );
    // Nothing of another group is there.
    assert!(read("/cold", 1).iter().all(|(cached, _)| *cached == 0));
    let warm = |cached, left| (cached, vec![left]);
    assert_eq!(
        read("/warm:4", 1),
        [warm(16, 3), warm(8, 4), warm(0, 1), warm(12, 3), warm(12, 2), warm(12, 1), warm(16, 3)]
    );
}

#[test]
fn what_is_drafted_is_counted_and_what_is_rejected_leaves_no_trace() {
    let checkpoint = fixture("qwen3-wide-heads");
    let prompts = prompts(&checkpoint);
    let mut lab = Lab::load(&checkpoint, numerics(Precision::Bf16, Order::SEQUENTIAL)).unwrap();
    let plain = samples(&mut lab, &asked("", 1, None), &prompts);
    let drafted = samples(&mut lab, &asked("/v3", 1, None), &prompts);
    assert_eq!(answers(&drafted), answers(&plain));
    for (sample, plain) in drafted.iter().zip(&plain) {
        let history = sample.launch.as_ref().unwrap().history;
        // What a call drafts stays or does not, and every call gives a token more than stays.
        let calls = (history.accepted + history.rejected) / 3;
        assert_eq!(calls * 3, history.accepted + history.rejected);
        assert_eq!(1 + calls + history.accepted, plain.steps.len(), "{history:?}");
        assert!(sample.steps.iter().skip(1).all(|step| step.rows == Some(4)));
    }
    let all = history(&drafted);
    assert!(all.accepted > 0 && all.rejected > 0, "{all:?}");
    // Whoever is given its tokens drafts those.
    let given = |(prompt, sample): (&Prompt, &Sample)| {
        let tokens = sample.steps.iter().map(|step| step.token.id).collect();
        Prompt { replay: Some(tokens), ..prompt.clone() }
    };
    let given: Vec<_> = prompts.iter().zip(&plain).map(given).collect();
    let replayed = samples(&mut lab, &asked("/v2", 1, None), &given);
    assert_eq!(facts(replayed.clone()), facts(plain));
    let calls = |sample: &Sample| {
        let history = sample.launch.as_ref().unwrap().history;
        (history.accepted + history.rejected) / 2
    };
    assert!(replayed.iter().all(|sample| calls(sample) == (sample.steps.len() - 1).div_ceil(3)));
}

#[test]
fn keys_and_values_are_built_again_from_all_that_was_read() {
    let checkpoint = fixture("qwen3-wide-heads");
    let prompts = &prompts(&checkpoint)[..1];
    let mut lab = Lab::load(&checkpoint, numerics(Precision::Bf16, Order::SEQUENTIAL)).unwrap();
    let mut read = |settings: &str| {
        let request = Request { stop_tokens: Vec::new(), ..asked(settings, 1, None) };
        let sample = samples(&mut lab, &request, prompts).remove(0);
        let rows: Vec<_> = sample.steps.iter().map(|step| step.rows.unwrap()).collect();
        (sample.launch.unwrap().history.rebuilt, rows)
    };
    // Of 19 tokens, and what followed but for the last.
    assert_eq!(read("/re-prefill:4"), (22 + 26, vec![19, 1, 1, 1, 23, 1, 1, 1, 27]));
    assert_eq!(read("/re-decode:4"), (22 + 26, vec![19, 1, 1, 1, 1, 1, 1, 1, 1]));
    assert_eq!(read("/re-prefill:9"), (0, vec![19, 1, 1, 1, 1, 1, 1, 1, 1]));
}
