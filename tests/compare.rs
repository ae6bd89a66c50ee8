//! Where two outputs part, and on which level they still agree.

use std::{fs, path::Path};

use proptest::prelude::*;
use reprocheck::{
    compare::{ByLevel, Compared, Count, Level, Output, Redrawn, Spread, Tally, compare},
    digest::Digest,
    numerics::{choice::Candidate, total::Mean},
    stats::{
        Interval,
        paired::Paired,
        proportion::Proportion,
        spread::{
            Correctness, agreement, deviation_of_lengths, deviation_of_probabilities, divergence_index,
            shared_prefix,
        },
    },
    suite::{
        answer::{Answer, Kind},
        question::Question,
        score::Outcome,
        style::Style,
    },
    trace::{Seen, Sight, Token, chain},
};

/// A token chosen from logits: the first number is the token, the second stands for the logits.
fn token((token, logits): (u32, u8)) -> Token {
    let candidate = |token, logit| Candidate { token, logit };
    Token {
        id: token,
        seen: Seen::Logits {
            digest: Digest::of(&[logits]),
            candidates: vec![candidate(token, 2.0 + f32::from(logits)), candidate(token + 1, 1.0)],
            margin: 1.0 + f32::from(logits),
            probability: 0.5 / (1.0 + f32::from(logits)),
        },
    }
}

/// A token of which the best log-probabilities are shown.
fn top(best: &[(u32, f32)]) -> Token {
    let best = best.iter().map(|&(token, logit)| Candidate { token, logit });
    Token { id: 1, seen: Seen::Top(best.collect()) }
}

fn compared(one: &[(u32, u8)], other: &[(u32, u8)]) -> Compared {
    let [one, other] = [one, other].map(|tokens| tokens.iter().copied().map(token).collect::<Vec<_>>());
    compare(output(&one, Some("1"), true), output(&other, Some("1"), true))
}

fn output<'a>(tokens: &'a [Token], answer: Option<&'a str>, correct: bool) -> Output<'a> {
    let sight = tokens.iter().map(Token::sight).min().unwrap_or(Sight::Logits);
    let outcome = if correct { Outcome::Correct } else { Outcome::Wrong };
    let root = chain(sight, tokens);
    Output { tokens, sight, text: "text", root, answer, outcome, flexible: correct, replayed: false }
}

fn question(item: u64, suite: &str) -> Question {
    Question {
        item,
        suite: suite.to_owned(),
        id: format!("{suite}-{item}"),
        stratum: "easy".to_owned(),
        cluster: None,
        prompt: "1+2=".to_owned(),
        tokens: vec![1],
        max_new_tokens: 9,
        stop: Vec::new(),
        answer: Answer::new(Kind::Integer, 3),
        read_as: Style::Compact,
    }
}

fn levels(compared: &Compared) -> [bool; 3] {
    compared.agree.map(|is_same| is_same.expect("all logits are seen")).into_values()
}

/// All of them are told.
fn told(same: u64, other: u64) -> Count {
    Count { same, other, untold: 0 }
}

#[test]
fn equal_outputs_agree_on_every_level() {
    let found = compared(&[(1, 0), (2, 0)], &[(1, 0), (2, 0)]);
    assert_eq!((found.places, found.best), (told(2, 0), told(2, 0)));
    assert_eq!((found.first_bits, found.first_token, found.drift), (None, None, Some(0.0)));
    assert_eq!(levels(&found), [true; 3]);
    assert_eq!(levels(&compared(&[], &[])), [true; 3]);
}

#[test]
fn other_logits_under_equal_tokens_are_other_bits_alone() {
    let found = compared(&[(1, 0), (2, 0), (3, 0)], &[(1, 0), (2, 5), (3, 2)]);
    assert_eq!(found.places, told(1, 2));
    assert_eq!((found.first_bits, found.first_token, found.drift), (Some(1), None, Some(5.0)));
    assert_eq!(levels(&found), [false, true, true]);
}

#[test]
fn nothing_is_compared_behind_the_place_where_the_tokens_part() {
    let found = compared(&[(1, 3), (2, 0), (3, 0)], &[(1, 3), (7, 9), (3, 0)]);
    assert_eq!((found.places, found.best), (told(1, 1), told(1, 1)));
    assert_eq!((found.first_bits, found.first_token), (Some(1), Some(1)));
    assert_eq!(levels(&found), [false, false, true]);
    // How far the logits had drifted before, not what they are where the tokens part: 3 and 4 share the token 4.
    assert_eq!(compared(&[(1, 3), (3, 9)], &[(1, 4), (4, 7)]).drift, Some(1.0));
    // The same logits may lead to other tokens: a draw with another seed.
    let found = compared(&[(1, 3), (2, 0)], &[(1, 3), (7, 0)]);
    assert_eq!((found.first_bits, found.first_token), (None, Some(1)));
    assert_eq!(levels(&found), [false, false, true]);
}

#[test]
fn an_output_that_ends_earlier_parts_where_it_ends() {
    for (one, other) in [(&[(1, 0)][..], &[(1, 0), (2, 0)][..]), (&[(1, 0), (2, 0)], &[(1, 0)])] {
        let found = compared(one, other);
        assert_eq!((found.places.of(), found.first_bits, found.first_token), (1, None, Some(1)));
        assert_eq!(levels(&found), [false, false, true]);
    }
}

#[test]
fn replayed_cells_differ_in_what_they_rank_first() {
    let given = [(1, 0), (2, 0)].map(token);
    let mut other = given.clone();
    let Seen::Logits { digest, candidates, .. } = &mut other[1].seen else { unreachable!() };
    candidates.swap(0, 1);
    *digest = Digest::of(b"other");
    fn replayed(tokens: &[Token]) -> Output<'_> {
        Output { replayed: true, ..output(tokens, None, false) }
    }
    let found = compare(replayed(&given), replayed(&other));
    assert_eq!((found.best, found.first_token), (told(1, 1), Some(1)));
    // Both have read the same all the same, so what follows is comparable.
    other.swap(0, 1);
    let found = compare(replayed(&given), replayed(&other));
    assert_eq!((found.places.of(), found.first_token), (2, Some(0)));
}

#[test]
fn a_missing_answer_is_the_same_only_as_a_missing_one() {
    let tokens = [(1, 0)].map(token);
    let output = |answer, correct| output(&tokens, answer, correct);
    assert_eq!(compare(output(None, false), output(None, false)).agree.answers, Some(true));
    let found = compare(output(Some("7"), true), output(None, false));
    assert_eq!((found.agree.answers, found.correct), (Some(false), (true, false)));
}

#[test]
fn a_tally_counts_items_places_and_what_was_lost() {
    let mut tally = Tally::default();
    let tokens = [(1, 0), (2, 0), (3, 0)].map(token);
    let parted = [(1, 0), (9, 4)].map(token);
    let right = output(&tokens[..], Some("3"), true);
    tally.add(&question(0, "one"), right, right);
    tally.add(&question(1, "one"), right, output(&parted[..], Some("9"), false));
    tally.add(&question(2, "two"), output(&tokens[..], Some("9"), false), right);
    assert_eq!(tally.levels.into_values(), [told(2, 1), told(2, 1), told(1, 2)]);
    assert_eq!((tally.places, tally.best), (told(7, 1), told(7, 1)));
    assert_eq!(tally.agreeing(Level::Tokens), Some(Proportion { hits: 2, of: 3 }));
    assert_eq!(tally.change().counts, Paired { both: 1, lost: 1, gained: 1, neither: 0 });
    assert_eq!(tally.suites["one"].counts, Paired { both: 1, lost: 1, gained: 0, neither: 0 });
    assert_eq!(tally.suites["two"].counts, Paired { both: 0, lost: 0, gained: 1, neither: 0 });
    assert_eq!((tally.course.first_part(), tally.level()), (Some(1), None));
    let survival = tally.course.survival();
    assert_eq!((survival.steps.len(), survival.steps[0].time, survival.steps[0].at_risk), (1, 1, 3));
    let first = tally.first().unwrap();
    assert_eq!((first.item, first.suite.as_str(), first.place, first.right.as_str()), (1, "one", 1, "3"));
    assert_eq!(first.sides.each_ref().map(|side| side.token), [Some(2), Some(9)]);
}

#[test]
fn the_first_item_that_parts_is_told_and_other_texts_before_other_logits() {
    let same = [(1, 0), (2, 0)].map(token);
    let other_logits = [(1, 0), (2, 5)].map(token);
    let other_text = [(1, 0)].map(token);
    let one = output(&same, None, false);
    let mut tally = Tally::default();
    tally.add(&question(0, "one"), one, one);
    assert_eq!((tally.first(), tally.level()), (None, Some(Level::Bits)));
    tally.add(&question(1, "one"), one, output(&other_logits, None, false));
    tally.add(&question(2, "one"), one, output(&other_logits, None, false));
    let first = tally.first().unwrap();
    assert_eq!((first.item, first.place, tally.level()), (1, 1, Some(Level::Tokens)));
    assert_eq!(first.sides.each_ref().map(|side| side.margin), [Some(1.0), Some(6.0)]);
    tally.add(&question(3, "one"), one, output(&other_text, None, false));
    tally.add(&question(4, "one"), one, output(&other_text, None, false));
    let first = tally.first().unwrap();
    assert_eq!((first.item, first.place, tally.level()), (3, 1, Some(Level::Answers)));
    // The other one has ended there.
    assert_eq!(first.sides.each_ref().map(|side| side.token), [Some(2), None]);
}

proptest! {
    /// Item by item, or all at once: the statistics are the same.
    #[test]
    fn a_spread_is_what_the_statistics_say_of_all_items(
        cells in (1..4_usize, 0..5_usize).prop_flat_map(|(cells, items)| {
            prop::collection::vec(prop::collection::vec((outputs(), 0..3_u8), items), cells)
        })
    ) {
        let tokens: Vec<Vec<Vec<Token>>> = cells
            .iter()
            .map(|cell| cell.iter().map(|(tokens, _)| tokens.iter().copied().map(token).collect()).collect())
            .collect();
        let answers = ["0", "1", "2"];
        let items = cells[0].len();
        let mut spread = Spread::default();
        for item in 0..items {
            let of_item: Vec<_> = (0..cells.len())
                .map(|cell| {
                    let answer = cells[cell][item].1;
                    output(&tokens[cell][item], Some(answers[usize::from(answer)]), answer == 1)
                })
                .collect();
            spread.add(question(0, "one").cluster(), &of_item);
        }
        let found = spread.read(0.95);
        let right: Vec<Vec<bool>> =
            cells.iter().map(|cell| cell.iter().map(|(_, answer)| *answer == 1).collect()).collect();
        let correctness = Correctness::count(&right).unwrap();
        // Without items nobody has told how many cells there are.
        if items > 0 {
            prop_assert_eq!(found.deviation_of_accuracy, correctness.deviation());
            prop_assert_eq!(found.range_of_accuracy, correctness.range());
            prop_assert_eq!(found.accuracy, correctness.accuracies().sum());
        }
        let ids: Vec<Vec<Vec<u32>>> = tokens
            .iter()
            .map(|cell| cell.iter().map(|tokens| tokens.iter().map(|token| token.id).collect()).collect())
            .collect();
        prop_assert_eq!(found.agreement.tokens, Some(agreement(&ids).unwrap()));
        let answered: Vec<Vec<u8>> =
            cells.iter().map(|cell| cell.iter().map(|(_, answer)| *answer).collect()).collect();
        prop_assert_eq!(found.agreement.answers, Some(agreement(&answered).unwrap()));
        let lengths: Vec<Vec<u64>> =
            ids.iter().map(|cell| cell.iter().map(|tokens| tokens.len() as u64).collect()).collect();
        prop_assert_eq!(found.deviation_of_lengths, deviation_of_lengths(&lengths).unwrap());
        let prefixes: Vec<(u64, bool)> = (0..items)
            .map(|item| shared_prefix(&ids.iter().map(|cell| &cell[item]).collect::<Vec<_>>()))
            .collect();
        prop_assert_eq!(found.divergence_index, divergence_index(&prefixes));
        let probabilities: Vec<(u64, Vec<Vec<f32>>)> = (0..items)
            .map(|item| {
                let of_item = tokens.iter().map(|cell| cell[item].iter().map(|token| token.probability().unwrap()).collect());
                (prefixes[item].0, of_item.collect())
            })
            .collect();
        prop_assert_eq!(found.deviation_of_probabilities, deviation_of_probabilities(&probabilities));
    }
}

/// A list for each item, and in it something for each cell.
type OfItems<T> = Vec<Vec<T>>;

/// What cells made of items, and what SciPy says of it: see `stats/make_expected.py`.
#[derive(serde::Deserialize)]
struct RedrawnRow {
    /// Tokens, and 256 times the probability of each.
    outputs: OfItems<Vec<(u32, u16)>>,
    right: OfItems<u8>,
    values: [f64; 4],
    intervals: [[f64; 2]; 4],
}

impl RedrawnRow {
    fn spread(&self, items: impl IntoIterator<Item = usize>) -> Spread {
        let mut spread = Spread::default();
        for item in items {
            let tokens = self.outputs[item].iter().map(|tokens| {
                let token = |&(id, chance): &(u32, u16)| {
                    let mut token = token((id, 0));
                    let Seen::Logits { probability, .. } = &mut token.seen else { unreachable!() };
                    *probability = f32::from(chance) / 256.0;
                    token
                };
                tokens.iter().map(token).collect::<Vec<_>>()
            });
            let tokens: Vec<_> = tokens.collect();
            let outputs = tokens.iter().zip(&self.right[item]);
            let outputs: Vec<_> = outputs.map(|(tokens, right)| output(tokens, None, *right == 1)).collect();
            spread.add(question(0, "one").cluster(), &outputs);
        }
        spread
    }
}

#[test]
fn other_draws_of_the_items_lie_where_scipy_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stats/expected.json");
    let mut tables: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let rows: Vec<RedrawnRow> = serde_json::from_value(tables["redrawn"].take()).unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let items = row.outputs.len();
        let found = row.spread(0..items).read(0.95);
        // Nothing depends on the order in which items came.
        assert_eq!(row.spread((0..items).rev()).read(0.95), found);
        let values = [
            found.deviation_of_accuracy,
            found.divergence_index,
            found.deviation_of_lengths,
            found.deviation_of_probabilities,
        ];
        for (value, expected) in values.into_iter().zip(row.values) {
            assert!((value.unwrap() - expected).abs() < 1e-12, "{value:?} for {expected}");
        }
        let Redrawn {
            deviation_of_accuracy,
            divergence_index,
            deviation_of_lengths,
            deviation_of_probabilities,
        } = found.redrawn;
        let intervals =
            [deviation_of_accuracy, divergence_index, deviation_of_lengths, deviation_of_probabilities];
        for (interval, [lower, upper]) in intervals.into_iter().zip(row.intervals) {
            let found = interval.unwrap();
            // Five standard errors of an end that is known from a thousand draws.
            let near = 0.11 * (upper - lower);
            let is_near = (found.lower - lower).abs() < near && (found.upper - upper).abs() < near;
            assert!(is_near, "{found:?} for {lower} to {upper}");
        }
        // Less confidence is a part of it.
        let half = row.spread(0..items).read(0.5).redrawn.deviation_of_lengths.unwrap();
        let Interval { lower, upper } = deviation_of_lengths.unwrap();
        assert!(lower < half.lower && half.lower < half.upper && half.upper < upper, "{half:?}");
    }
}

#[test]
fn what_is_the_same_in_every_draw_has_no_interval() {
    let (same, longer) = ([(1, 0), (2, 0)].map(token), [(1, 0), (2, 0), (3, 0)].map(token));
    let mut spread = Spread::default();
    for _ in 0..20 {
        spread.add(question(0, "one").cluster(), &[output(&same, None, true), output(&same, None, true)]);
    }
    let Redrawn { deviation_of_accuracy, divergence_index, deviation_of_lengths, deviation_of_probabilities } =
        spread.read(0.95).redrawn;
    assert_eq!([deviation_of_accuracy, divergence_index], [None; 2]);
    assert_eq!([deviation_of_lengths, deviation_of_probabilities], [None; 2]);
    // A single item that parts is drawn or not, and wherever it is, it parts at its place.
    spread.add(question(0, "one").cluster(), &[output(&same, None, true), output(&longer, None, false)]);
    let found = spread.read(0.95);
    assert_eq!((found.divergence_index, found.redrawn.divergence_index), (Some(2.0), None));
    let upper = |interval: Option<Interval>| interval.map(|interval| (interval.lower, interval.upper > 0.0));
    assert_eq!(upper(found.redrawn.deviation_of_accuracy), Some((0.0, true)));
    assert_eq!(upper(found.redrawn.deviation_of_lengths), Some((0.0, true)));
    // One cell has no deviations, and nothing has none.
    let mut alone = Spread::default();
    assert_eq!(alone.read(0.95).redrawn.deviation_of_lengths, None);
    alone.add(question(0, "one").cluster(), &[output(&same, None, true)]);
    assert_eq!(alone.read(0.95).redrawn, Spread::default().read(0.95).redrawn);
}

fn outputs() -> impl Strategy<Value = Vec<(u32, u8)>> {
    prop::collection::vec((0..3_u32, 0..3_u8), 0..6)
}

proptest! {
    #[test]
    fn the_ladder_has_no_gap_and_sides_do_not_matter(one in outputs(), other in outputs()) {
        let (found, back) = (compared(&one, &other), compared(&other, &one));
        let [bits, tokens, _] = levels(&found);
        prop_assert!(tokens || !bits);
        prop_assert_eq!(bits, one == other);
        prop_assert_eq!(tokens, one.iter().map(|t| t.0).eq(other.iter().map(|t| t.0)));
        prop_assert_eq!(
            (found.places, found.first_bits, found.first_token, found.drift),
            (back.places, back.first_bits, back.first_token, back.drift)
        );
        prop_assert!(found.first_bits.is_none_or(|bits| found.first_token.is_none_or(|token| bits <= token)));
    }
}

#[test]
fn every_level_has_something_of_its_own() {
    let mut names = ByLevel::of(|level| level.to_string());
    assert_eq!(Level::ALL.map(|level| names[level].clone()), ["bits", "tokens", "answers"]);
    assert_eq!(names.iter().map(|(level, name)| level.to_string() == *name).collect::<Vec<_>>(), [true; 3]);
    assert_eq!(names.clone().map(|name| name.len()).into_values(), [4, 6, 7]);
    names[Level::Tokens] = "words".to_owned();
    let json = serde_json::to_string(&names).unwrap();
    assert_eq!(json, r#"{"bits":"bits","tokens":"words","answers":"answers"}"#);
    assert_eq!(serde_json::from_str::<ByLevel<String>>(&json).unwrap(), names);
    assert!(serde_json::from_str::<ByLevel<u8>>(r#"{"bits":1,"tokens":2,"answers":3,"texts":4}"#).is_err());
}

#[test]
fn a_count_is_settled_by_one_that_is_other_and_by_nothing_that_is_not_told() {
    let count = |same, other, untold| Count { same, other, untold };
    assert_eq!(count(2, 0, 0).all(), Some(true));
    assert_eq!(count(2, 1, 5).all(), Some(false));
    assert_eq!(count(2, 0, 1).all(), None);
    assert_eq!(count(2, 1, 0).told(), Some(Proportion { hits: 2, of: 3 }));
    assert_eq!(count(2, 1, 1).told(), None);
    assert_eq!(count(1, 2, 3) + count(10, 20, 30), count(11, 22, 33));
}

#[test]
fn tokens_alone_prove_other_bits_and_no_equal_ones() {
    let blind = |ids: &[u32]| ids.iter().map(|&id| Token { id, seen: Seen::Nothing }).collect::<Vec<_>>();
    let (one, other) = (blind(&[1, 2]), blind(&[1, 3]));
    let [one, other] = [&one, &other].map(|tokens| output(tokens, None, false));
    let same = compare(one, one);
    assert_eq!(same.agree.into_values(), [None, Some(true), Some(true)]);
    assert_eq!(
        (same.places, same.best),
        (Count { untold: 2, ..told(0, 0) }, Count { untold: 2, ..told(0, 0) })
    );
    assert_eq!((same.first_bits, same.drift), (None, None));
    let parted = compare(one, other);
    assert_eq!(
        (parted.agree.bits, parted.agree.tokens, parted.first_token),
        (Some(false), Some(false), Some(1))
    );
    // An output without a token shows nothing, either.
    assert_eq!(compare(Output { tokens: &[], ..one }, Output { tokens: &[], ..one }).agree.bits, None);
    // What is seen of the one is nothing beside the other.
    let seen = [(1, 0), (2, 0)].map(token);
    assert_eq!(compare(output(&seen, None, false), one).agree.bits, None);
    // Of given tokens it says nothing that they are the same.
    let given = |output: Output<'static>| Output { replayed: true, ..output };
    let given_tokens: &'static [Token] = Box::leak(blind(&[1, 2]).into_boxed_slice());
    let replayed = given(Output { tokens: given_tokens, ..output(&[], None, false) });
    let replayed = Output { sight: Sight::Tokens, ..replayed };
    assert_eq!(compare(replayed, replayed).agree.tokens, None);
    let mut tally = Tally::default();
    tally.add(&question(0, "one"), one, one);
    assert_eq!((tally.agreeing(Level::Bits), tally.drift, tally.level()), (None, None, Some(Level::Tokens)));
    let mut spread = Spread::default();
    spread.add(question(0, "one").cluster(), &[one, one]);
    let found = spread.read(0.95);
    assert_eq!((found.agreement.bits, found.deviation_of_probabilities), (None, None));
    assert!(found.agreement.tokens.is_some() && found.agreement.answers.is_some());
}

#[test]
fn log_probabilities_prove_other_logits_where_they_differ_and_nothing_where_not() {
    let found = |one: &[(u32, f32)], other: &[(u32, f32)]| {
        let [one, other] = [[top(one)], [top(other)]];
        let found = compare(output(&one, None, false), output(&other, None, false));
        // Of the only place nothing else is told than of the item.
        assert_eq!((found.places.all(), found.drift), (found.agree.bits, None));
        assert_eq!((found.agree.tokens, found.first_token), (Some(true), None));
        found.agree.bits
    };
    let best = [(1, -0.5), (2, -1.5)];
    assert_eq!(found(&best, &best), None);
    assert_eq!(found(&best, &[(1, -0.5), (2, -1.25)]), Some(false));
    // Another value in a rank, and one of another token.
    assert_eq!(found(&best, &[(1, -0.5), (3, -1.25)]), Some(false));
    assert_eq!(found(&best, &[(2, -0.5), (1, -1.5)]), Some(false));
    // Fewer are shown, or others that are as good.
    assert_eq!(found(&best, &best[..1]), None);
    assert_eq!(found(&best, &[(1, -0.5), (3, -1.5)]), None);
    assert_eq!(found(&[], &best), None);
}

#[test]
fn the_mean_divergence_is_that_of_the_distributions_which_the_tokens_show() {
    let mut tally = Tally { divergence: Some(Mean::default()), ..Tally::default() };
    let [one, other] = [0, 1].map(|logits| [(1, 0), (3, logits)].map(token));
    tally.add(&question(0, "a"), output(&one, None, false), output(&other, None, false));
    // The best has a half and a quarter; the logits of the other token are 1 and 2 below it; the rest has what is left.
    let shares = |best: f64, below: f64| [best, best * (-below).exp(), 1.0 - best - best * (-below).exp()];
    let pairs = shares(0.5, 1.0).into_iter().zip(shares(0.25, 2.0));
    let divergence: f64 = pairs.map(|(a, b)| a * (a / b).ln()).sum();
    // Nothing is apart at the first of the two places.
    let found = tally.divergence.as_ref().and_then(Mean::round).unwrap();
    assert!((found - divergence / 2.0).abs() < 1e-6, "{found} for {}", divergence / 2.0);
    assert!(divergence > 0.1);
    // Where logits are not seen it is not told, and where it is not asked it is not there.
    let shown = [top(&[(1, -0.5)])];
    tally.add(&question(1, "a"), output(&shown, None, false), output(&shown, None, false));
    assert!(tally.divergence.as_ref().and_then(Mean::round).unwrap().is_nan());
    assert_eq!(Tally::default().divergence, None);
}
