//! Rankings and draws against slow and obvious ones: everything sorted, every score computed, in `f64`.

use std::num::NonZeroUsize;

use proptest::prelude::*;
use reprocheck::numerics::{
    choice::{Candidate, Choice, ChoiceError, Place, RankError, Ranking, Sampling, rank},
    random::{Stream, philox},
};

/// Everything, the best first.
fn sorted(logits: &[f32]) -> Vec<Candidate> {
    let mut all: Vec<_> = (0..).zip(logits).map(|(token, &logit)| Candidate { token, logit }).collect();
    // Stable: of equal logits, the lower token stays first.
    all.sort_by(|a, b| b.logit.partial_cmp(&a.logit).unwrap());
    all
}

/// e^((logit - highest) / temperature), where infinities less themselves are 0.
fn weight(logit: f32, highest: f32, temperature: f32) -> f64 {
    let difference = if logit == highest { 0.0 } else { f64::from(logit) - f64::from(highest) };
    (difference / f64::from(temperature)).exp()
}

fn slow_rank(logits: &[f32], candidates: usize) -> (Vec<Candidate>, f32, f64) {
    let all = sorted(logits);
    let margin = match all[..] {
        [_] => f32::INFINITY,
        [a, b, ..] if a.logit == b.logit => 0.0,
        [a, b, ..] => a.logit - b.logit,
        [] => unreachable!(),
    };
    let sum: f64 = logits.iter().map(|&logit| weight(logit, all[0].logit, 1.0)).sum();
    (all[..candidates.clamp(1, logits.len())].to_vec(), margin, 1.0 / sum)
}

#[track_caller]
fn assert_ranked(logits: &[f32], candidates: usize) -> Ranking {
    let ranking = rank(logits, candidates).unwrap();
    let (best, margin, probability) = slow_rank(logits, candidates);
    assert_eq!(ranking.candidates, best);
    assert_eq!(ranking.margin.to_bits(), margin.to_bits(), "{} and {margin}", ranking.margin);
    let error = f64::from(ranking.probability) / probability - 1.0;
    assert!(error.abs() < 2.0_f64.powi(-22), "{} is not {probability}", ranking.probability);
    ranking
}

/// The noise, as the documentation has it.
fn gumbel(seed: u64, place: Place, token: u32) -> f64 {
    let counter = [token, place.position, place.item as u32, (place.item >> 32) as u32];
    let [a, b, ..] = philox(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = u64::from(a) | u64::from(b) << 32;
    let unit = ((bits >> 12) as f64 + 0.5) / 2.0_f64.powi(52);
    -(-unit.ln()).ln()
}

/// The tokens that the filters leave, and how near the share of the last one's betters comes to top-p: where
/// it is very near, rounding may decide.
fn kept(sampling: &Sampling, logits: &[f32]) -> (Vec<Candidate>, f64) {
    let mut kept = sorted(logits);
    kept.truncate(sampling.top_k().map_or(usize::MAX, NonZeroUsize::get));
    let mut nearest = 1.0_f64;
    if sampling.top_p() < 1.0 {
        let highest = kept[0].logit;
        let of = |candidate: &Candidate| weight(candidate.logit, highest, sampling.temperature());
        let total: f64 = kept.iter().map(of).sum();
        let mut better = 0.0;
        for at in 0..kept.len() {
            let missing = f64::from(sampling.top_p()) - better / total;
            nearest = nearest.min(missing.abs());
            if missing <= 0.0 {
                kept.truncate(at);
                break;
            }
            better += of(&kept[at]);
        }
    }
    (kept, nearest)
}

fn slow_draw(sampling: &Sampling, kept: &[Candidate], place: Place) -> u32 {
    let highest = kept[0].logit;
    let score = |candidate: &Candidate| {
        let difference =
            if candidate.logit == highest { 0.0 } else { f64::from(candidate.logit) - f64::from(highest) };
        difference / f64::from(sampling.temperature()) + gumbel(sampling.seed(), place, candidate.token)
    };
    let better =
        |a: &&Candidate, b: &&Candidate| score(a).partial_cmp(&score(b)).unwrap().then(b.token.cmp(&a.token));
    kept.iter().max_by(better).unwrap().token
}

fn sampled(name: &str) -> Sampling {
    match name.parse() {
        Ok(Choice::Sampled(sampling)) => sampling,
        other => panic!("{name}: {other:?}"),
    }
}

fn choose(sampling: Sampling, logits: &[f32], place: Place) -> u32 {
    Choice::Sampled(sampling).choose(logits, &rank(logits, 1).unwrap(), place)
}

/// Logits that look like a model's: most in a heap, a few far above it.
fn like_a_model(tokens: usize, number: u64) -> Vec<f32> {
    let mut stream = Stream::new(42, number);
    let mut logits: Vec<_> =
        (0..tokens).map(|_| (3.0 * (0..12).map(|_| stream.unit()).sum::<f64>() - 18.0) as f32).collect();
    for _ in 0..tokens.min(5) {
        let token = stream.below((tokens as u64).try_into().unwrap()) as usize;
        logits[token] = (10.0 + 5.0 * stream.unit()) as f32;
    }
    logits
}

/// Logits with ties, zeros of both signs and infinities among them.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        8 => -30.0_f32..30.0,
        4 => (-4_i8..4).prop_map(f32::from),
        1 => prop_oneof![Just(0.0), Just(-0.0), Just(f32::NEG_INFINITY), Just(f32::MIN), Just(1e-40)],
    ];
    let tall = prop_oneof![20 => Just(None), 1 => Just(Some(f32::INFINITY)), 1 => Just(Some(f32::MAX))];
    (prop::collection::vec(logit, 1..1500), tall, any::<prop::sample::Index>()).prop_map(
        |(mut logits, tall, at)| {
            if let Some(tall) = tall {
                let (at, len) = (at.index(logits.len()), logits.len());
                logits[at] = tall;
                logits[(at + 300) % len] = tall;
            }
            logits
        },
    )
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let temperature = prop_oneof![Just(1.0), 0.05_f32..3.0, Just(1e-45), Just(1e30)];
    let top_k = prop_oneof![
        Just(None),
        (1_usize..100).prop_map(NonZeroUsize::new),
        (1_usize..3000).prop_map(NonZeroUsize::new)
    ];
    let top_p = prop_oneof![Just(1.0), 0.01_f32..1.0];
    (any::<u64>(), temperature, top_k, top_p)
        .prop_map(|(seed, temperature, top_k, top_p)| Sampling::new(seed, temperature, top_k, top_p).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_ranking_is_that_of_a_full_sort(logits in logits(), candidates in 0_usize..2000) {
        assert_ranked(&logits, candidates);
        assert_ranked(&logits, candidates % 10);
    }

    #[test]
    fn a_draw_is_that_of_all_scores(
        logits in logits(), sampling in sampling(), item: u64, position: u32
    ) {
        let place = Place { item, position };
        let (kept, nearest) = kept(&sampling, &logits);
        if nearest > 1e-6 {
            prop_assert_eq!(choose(sampling, &logits, place), slow_draw(&sampling, &kept, place));
        }
    }

    #[test]
    fn a_choice_parses_back_to_its_value(sampling in sampling()) {
        let choice = Choice::Sampled(sampling);
        prop_assert_eq!(choice.to_string().parse(), Ok(choice));
        let json = serde_json::to_string(&choice).unwrap();
        prop_assert_eq!(serde_json::from_str::<Choice>(&json).unwrap(), choice);
    }

    #[test]
    fn the_first_nan_is_named(
        logits in logits(), at: prop::sample::Index, payload in 1_u32..0x0080_0000, sign: bool
    ) {
        let (mut logits, at) = (logits.clone(), at.index(logits.len()));
        let last = logits.len() - 1;
        logits[last] = f32::NAN;
        logits[at] = f32::from_bits(u32::from(sign) << 31 | 0x7F80_0000 | payload);
        prop_assert_eq!(rank(&logits, 3), Err(RankError::NotANumber { token: at as u32 }));
    }
}

// ------------------------------------------------------------------------------------------------- rankings

#[test]
fn a_whole_vocabulary_is_ranked_as_a_full_sort_ranks_it() {
    for (number, candidates) in [(0, 8), (1, 1), (2, 700), (3, 151_936), (4, usize::MAX)] {
        assert_ranked(&like_a_model(151_936, number), candidates);
    }
    let ascending: Vec<_> = (0..151_936).map(|token| token as f32 / 1e4).collect();
    let descending: Vec<_> = ascending.iter().rev().copied().collect();
    assert_ranked(&ascending, 8);
    assert_ranked(&descending, 8);
}

#[test]
fn the_lowest_token_is_best_on_a_tie() {
    let tokens = |logits: &[f32], candidates| -> Vec<u32> {
        assert_ranked(logits, candidates).candidates.iter().map(|candidate| candidate.token).collect()
    };
    assert_eq!(tokens(&[1.0; 1000], 4), [0, 1, 2, 3]);
    // Zeros of both signs are equal.
    assert_eq!(tokens(&[-1.0, -0.0, 0.0, -0.0], 3), [1, 2, 3]);
    let mut logits = vec![0.0; 2000];
    for token in [1999, 300, 255, 256, 700] {
        logits[token] = 2.0;
    }
    assert_eq!(tokens(&logits, 3), [255, 256, 300]);
    assert_eq!(tokens(&logits, 7), [255, 256, 300, 700, 1999, 0, 1]);
    assert_eq!(assert_ranked(&logits, 1).margin, 0.0);
}

#[test]
fn infinities_have_their_place() {
    const INF: f32 = f32::INFINITY;
    let figures = |logits: &[f32]| {
        let ranking = assert_ranked(logits, 2);
        (ranking.candidates[0].token, ranking.margin, ranking.probability)
    };
    assert_eq!(figures(&[0.0, INF, 3.0]), (1, INF, 1.0));
    assert_eq!(figures(&[0.0, INF, INF, -INF]), (1, 0.0, 0.5));
    assert_eq!(figures(&[-INF, 7.0, -INF]), (1, INF, 1.0));
    assert_eq!(figures(&[-INF; 4]), (0, 0.0, 0.25));
    assert_eq!(figures(&[f32::MAX, f32::MIN]), (0, INF, 1.0));
    assert_eq!(figures(&[5.0]), (0, INF, 1.0));
    for seed in 0..50 {
        let sampling = Sampling::new(seed, 1.0, None, 1.0).unwrap();
        let place = Place { item: 1, position: 1 };
        assert!([1, 3].contains(&choose(sampling, &[0.0, INF, 9.0, INF], place)));
        assert_eq!(choose(sampling, &[-INF, -INF, -100.0], place), 2);
        assert!(choose(sampling, &[-INF; 3], place) < 3);
    }
}

#[test]
fn without_logits_there_is_no_ranking() {
    assert_eq!(rank(&[], 8), Err(RankError::Vocabulary(0)));
    assert_eq!(
        rank(&[0.0, f32::NAN, f32::NAN], 8).unwrap_err().to_string(),
        "the logit of token 1 is not a number: the sums before it left the range of their format, so try a wider \
         precision"
    );
}

// ---------------------------------------------------------------------------------------------------- draws

#[test]
fn a_draw_from_a_whole_vocabulary_is_that_of_all_scores() {
    let mut differ_from_the_best = 0;
    for position in 0..8 {
        let logits = like_a_model(151_936, u64::from(position));
        for name in [
            "sampled:seed=5",
            "sampled:seed=5,temperature=0.6",
            "sampled:seed=5,temperature=4",
            "sampled:seed=5,top-k=50",
            "sampled:seed=5,top-p=0.9",
            "sampled:seed=5,temperature=3,top-p=0.95",
            "sampled:seed=5,temperature=1.5,top-k=1000,top-p=0.5",
        ] {
            let place = Place { item: 1 << 40 | 3, position };
            let token = choose(sampled(name), &logits, place);
            let (kept, _) = kept(&sampled(name), &logits);
            assert_eq!(token, slow_draw(&sampled(name), &kept, place), "{name}, {position}");
            differ_from_the_best += u32::from(token != rank(&logits, 1).unwrap().candidates[0].token);
        }
    }
    assert!(differ_from_the_best > 20, "a draw is no argmax: {differ_from_the_best}");
}

/// Draws at many positions: how often each token came.
fn counts(sampling: Sampling, logits: &[f32], draws: u32) -> Vec<u32> {
    let ranking = rank(logits, 1).unwrap();
    let mut counts = vec![0; logits.len()];
    for position in 0..draws {
        let place = Place { item: u64::from(position % 7), position };
        counts[Choice::Sampled(sampling).choose(logits, &ranking, place) as usize] += 1;
    }
    counts
}

#[test]
fn tokens_come_as_often_as_softmax_says() {
    const DRAWS: u32 = 60_000;
    let few = vec![1.0, -0.5, 2.0, 2.0, 0.3, -1.2, 1.9];
    // Enough tokens for several rows of lanes.
    let many: Vec<_> = (0..300).map(|token| ((token * 37) % 23) as f32 / 10.0).collect();
    for (logits, name, expected_tokens) in [
        (&few, "sampled:seed=1", 7),
        (&few, "sampled:seed=2,temperature=0.5", 7),
        (&few, "sampled:seed=3,temperature=2.5", 7),
        (&few, "sampled:seed=4,top-k=3", 3),
        (&few, "sampled:seed=5,top-p=0.85", 4),
        // The best three have 0.812 of all, and 0.888 of the best four.
        (&few, "sampled:seed=6,top-k=4,top-p=0.88", 3),
        (&many, "sampled:seed=7", 300),
        (&many, "sampled:seed=8,temperature=0.8,top-p=0.9", 198),
    ] {
        let sampling = sampled(name);
        let (kept, _) = kept(&sampling, logits);
        assert_eq!(kept.len(), expected_tokens, "{name}");
        let of = |candidate: &Candidate| weight(candidate.logit, kept[0].logit, sampling.temperature());
        let total: f64 = kept.iter().map(of).sum();
        let counts = counts(sampling, logits, DRAWS);
        let (mut chi_square, mut seen) = (0.0, 0);
        for candidate in &kept {
            let expected = f64::from(DRAWS) * of(candidate) / total;
            let count = counts[candidate.token as usize];
            chi_square += (f64::from(count) - expected).powi(2) / expected;
            seen += count;
        }
        assert_eq!(seen, DRAWS, "{name}: a token came that no filter leaves");
        let freedom = kept.len() as f64 - 1.0;
        // Four standard deviations of it.
        assert!((chi_square - freedom).abs() < 4.0 * (2.0 * freedom).sqrt(), "{name}: {chi_square}");
    }
}

#[test]
fn logits_that_differ_a_little_meet_the_same_noise() {
    const DRAWS: u32 = 2000;
    let mut stream = Stream::new(1, 0);
    let sampling = sampled("sampled:seed=9");
    let (mut differ, mut differ_by_seed) = (0, 0);
    for position in 0..DRAWS {
        let logits: Vec<_> = (0..200).map(|_| (4.0 * stream.unit()) as f32).collect();
        let near: Vec<_> = logits.iter().map(|logit| logit + (stream.unit() as f32 - 0.5) * 2e-4).collect();
        let place = Place { item: 7, position };
        let (token, other) = (choose(sampling, &logits, place), choose(sampling, &near, place));
        if token != other {
            differ += 1;
            let score = |token: u32| f64::from(logits[token as usize]) + gumbel(9, place, token);
            assert!((score(token) - score(other)).abs() < 4e-4, "{position}");
        }
        differ_by_seed += u32::from(choose(sampled("sampled:seed=10"), &logits, place) != token);
    }
    // Two scores are within 1e-4 of each other about that often; under other noise hardly anything agrees.
    assert!(differ <= 3, "{differ}");
    assert!(differ_by_seed > DRAWS * 9 / 10, "{differ_by_seed}");
}

#[test]
fn the_noise_follows_seed_item_position_and_token() {
    let flat = [0.0; 64];
    let drawn = |seed: u64, item, position| {
        choose(Sampling::new(seed, 1.0, None, 1.0).unwrap(), &flat, Place { item, position })
    };
    let differ = |other: &dyn Fn(u32) -> u32| {
        (0..200).filter(|&position| other(position) != drawn(1, 2, position)).count()
    };
    assert_eq!(differ(&|position| drawn(1, 2, position)), 0);
    for (what, differ) in [
        ("seed", differ(&|position| drawn(3, 2, position))),
        ("upper half of the seed", differ(&|position| drawn(1 << 32 | 1, 2, position))),
        ("item", differ(&|position| drawn(1, 3, position))),
        ("upper half of the item", differ(&|position| drawn(1, 1 << 32 | 2, position))),
        ("position", differ(&|position| drawn(1, 2, position + 1))),
    ] {
        // One in 64 agrees by chance.
        assert!(differ > 180, "{what}: {differ} of 200");
    }
    // Written down: these may never change.
    assert_eq!(
        (0..12).map(|position| drawn(1, 2, position)).collect::<Vec<_>>(),
        [23, 59, 20, 57, 62, 49, 10, 42, 15, 48, 45, 39]
    );
}

#[test]
fn a_cold_draw_is_greedy_and_a_hot_one_fair() {
    let logits = [1.0, 3.0, 2.999, -4.0];
    assert_eq!(counts(sampled("sampled:seed=1,temperature=0.00001"), &logits, 500), [0, 500, 0, 0]);
    assert_eq!(counts(sampled("sampled:seed=1,top-k=1,temperature=1000"), &logits, 500), [0, 500, 0, 0]);
    for count in counts(sampled("sampled:seed=1,temperature=1e30"), &logits, 4000) {
        assert!((870..1130).contains(&count), "{count}");
    }
    // Equal logits stay equal, however cold.
    for count in &counts(sampled("sampled:seed=1,temperature=1e-45"), &[2.0, 2.0, 1.999_999], 4000)[..2] {
        assert!((1800..2200).contains(count), "{count}");
    }
}

#[test]
fn filters_that_leave_everything_change_nothing() {
    let logits = like_a_model(3000, 9);
    for position in 0..50 {
        let place = Place { item: 0, position };
        let token = choose(sampled("sampled:seed=1,temperature=2"), &logits, place);
        for name in ["sampled:seed=1,temperature=2,top-k=3000", "sampled:seed=1,temperature=2,top-k=999999"] {
            assert_eq!(choose(sampled(name), &logits, place), token, "{name}, {position}");
        }
    }
}

// ---------------------------------------------------------------------------------------------------- names

#[test]
fn one_choice_has_one_name() {
    let name = |text: &str| text.parse::<Choice>().unwrap().to_string();
    assert_eq!(name("greedy"), "greedy");
    assert_eq!(name("sampled:seed=3"), "sampled:seed=3");
    assert_eq!(name("sampled:top-p=1.0,temperature=1,seed=03"), "sampled:seed=3");
    assert_eq!(
        name("sampled:top-p=0.90,top-k=40,seed=18446744073709551615,temperature=7e-1"),
        "sampled:seed=18446744073709551615,temperature=0.7,top-k=40,top-p=0.9"
    );
}

#[test]
fn a_bad_choice_says_what_to_write_instead() {
    let error = |text: &str| text.parse::<Choice>().unwrap_err().to_string();
    let shape = |text: &str| {
        format!(
            "`{text}` is not a way to choose a token: write `greedy`, or for example `sampled:seed=1,temperature=0.7`"
        )
    };
    for text in ["", "gredy", "sampled", "sampled:temperature=1", "greedy:seed=1", "Sampled:seed=1"] {
        assert_eq!(error(text), shape(text));
    }
    assert_eq!(
        error("sampled:seed=1,topk=4"),
        "a draw has no parameter `topk`: it takes seed, temperature, top-k, top-p"
    );
    assert_eq!(
        error("sampled:seed=1,seed=1"),
        "parameter `seed` stands twice in `sampled:seed=1,seed=1`: keep one"
    );
    assert_eq!(
        error("sampled:seed=-1"),
        "`-1` is not a value of `seed`: write a whole number from 0 to 2^64 - 1"
    );
    for temperature in ["0", "-0", "-1", "inf", "NaN"] {
        let value = if temperature == "-0" { "-0" } else { temperature };
        assert_eq!(
            error(&format!("sampled:seed=1,temperature={temperature}")),
            format!(
                "`{value}` is not a value of `temperature`: write a finite number above 0, such as 0.7; for the \
                 best token always, write `greedy`"
            )
        );
    }
    for top_p in ["0", "1.1", "-0.5", "NaN"] {
        assert_eq!(
            error(&format!("sampled:seed=1,top-p={top_p}")),
            format!("`{top_p}` is not a value of `top-p`: write a number above 0 and up to 1, such as 0.95")
        );
    }
    assert_eq!(
        error("sampled:seed=1,top-k=0"),
        "`0` is not a value of `top-k`: write a whole number from 1 up; to keep all tokens, leave it out"
    );
    assert!(matches!(
        Sampling::new(0, f32::INFINITY, None, 1.0),
        Err(ChoiceError::Value { parameter: "temperature", .. })
    ));
}
