//! Where two outputs part, and on which level they still agree.

use proptest::prelude::*;
use reprocheck::{
    compare::{Compared, Level, Output, Tally, compare},
    numerics::choice::Candidate,
    stats::{paired::Paired, proportion::Proportion},
    trace::{Digest, Token},
};

/// A token chosen from logits: the first number is the token, the second stands for the logits.
fn token((token, logits): (u32, u8)) -> Token {
    let candidate = |token, logit| Candidate { token, logit };
    Token {
        token,
        digest: Digest::of(&[logits]),
        candidates: vec![candidate(token, 2.0 + f32::from(logits)), candidate(token + 1, 1.0)],
        margin: 1.0 + f32::from(logits),
        probability: 0.5,
    }
}

fn compared(one: &[(u32, u8)], other: &[(u32, u8)]) -> Compared {
    let [one, other] = [one, other].map(|tokens| tokens.iter().copied().map(token).collect::<Vec<_>>());
    let output = |tokens, answer, correct| Output { tokens, answer, correct };
    compare(output(&one, Some("1"), true), output(&other, Some("1"), true))
}

fn levels(compared: &Compared) -> [bool; 3] {
    Level::ALL.map(|level| compared.agree(level))
}

#[test]
fn equal_outputs_agree_on_every_level() {
    let found = compared(&[(1, 0), (2, 0)], &[(1, 0), (2, 0)]);
    assert_eq!((found.places, found.equal_places, found.same_best), (2, 2, 2));
    assert_eq!((found.first_bits, found.first_token, found.drift, found.margin), (None, None, 0.0, 1.0));
    assert_eq!(levels(&found), [true; 3]);
    assert_eq!(levels(&compared(&[], &[])), [true; 3]);
}

#[test]
fn other_logits_under_equal_tokens_are_other_bits_alone() {
    let found = compared(&[(1, 0), (2, 0), (3, 0)], &[(1, 0), (2, 5), (3, 2)]);
    assert_eq!((found.places, found.equal_places), (3, 1));
    assert_eq!((found.first_bits, found.first_token, found.drift), (Some(1), None, 5.0));
    assert_eq!(levels(&found), [false, true, true]);
}

#[test]
fn nothing_is_compared_behind_the_place_where_the_tokens_part() {
    let found = compared(&[(1, 3), (2, 0), (3, 0)], &[(1, 3), (7, 9), (3, 0)]);
    assert_eq!((found.places, found.equal_places, found.same_best), (2, 1, 1));
    assert_eq!((found.first_bits, found.first_token), (Some(1), Some(1)));
    assert_eq!(levels(&found), [false, false, true]);
    // How far the logits had drifted before, not what they are where the tokens part: 3 and 4 share the token 4.
    assert_eq!(compared(&[(1, 3), (3, 9)], &[(1, 4), (4, 7)]).drift, 1.0);
    // The same logits may lead to other tokens: a draw with another seed.
    let found = compared(&[(1, 3), (2, 0)], &[(1, 3), (7, 0)]);
    assert_eq!((found.first_bits, found.first_token), (None, Some(1)));
    assert_eq!(levels(&found), [false, false, true]);
}

#[test]
fn an_output_that_ends_earlier_parts_where_it_ends() {
    for (one, other) in [(&[(1, 0)][..], &[(1, 0), (2, 0)][..]), (&[(1, 0), (2, 0)], &[(1, 0)])] {
        let found = compared(one, other);
        assert_eq!((found.places, found.first_bits, found.first_token), (1, None, Some(1)));
        assert_eq!(levels(&found), [false, false, true]);
    }
}

#[test]
fn replayed_cells_differ_in_what_they_rank_first() {
    let given = [(1, 0), (2, 0)].map(token);
    let mut other = given.clone();
    other[1].candidates.swap(0, 1);
    other[1].digest = Digest::of(b"other");
    let output = |tokens| Output { tokens, answer: None, correct: false };
    let found = compare(output(&given), output(&other));
    assert_eq!((found.places, found.same_best, found.first_token), (2, 1, None));
}

#[test]
fn a_missing_answer_is_the_same_only_as_a_missing_one() {
    let tokens = [(1, 0)].map(token);
    let output = |answer, correct| Output { tokens: &tokens, answer, correct };
    assert!(compare(output(None, false), output(None, false)).same_answer);
    let found = compare(output(Some("7"), true), output(None, false));
    assert_eq!((found.same_answer, found.correct), (false, (true, false)));
}

#[test]
fn a_tally_counts_items_places_and_what_was_lost() {
    let mut tally = Tally::default();
    let tokens = [(1, 0), (2, 0), (3, 0)].map(token);
    let parted = [(1, 0), (9, 4)].map(token);
    let output = |tokens, answer, correct| Output { tokens, answer, correct };
    let right = output(&tokens[..], Some("3"), true);
    tally.add(&compare(right, right), 3);
    tally.add(&compare(right, output(&parted[..], Some("9"), false)), 3);
    tally.add(&compare(output(&tokens[..], Some("9"), false), right), 3);
    let of = |hits, of| Proportion { hits, of };
    assert_eq!((tally.bits, tally.tokens, tally.answers), (of(2, 3), of(2, 3), of(1, 3)));
    assert_eq!((tally.places, tally.best), (of(7, 8), of(7, 8)));
    assert_eq!(tally.paired, Paired { both: 1, lost: 1, gained: 1, neither: 0 });
    assert_eq!(tally.parts, [(3, false), (1, true), (3, false)]);
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
            (found.places, found.equal_places, found.first_bits, found.first_token, found.drift),
            (back.places, back.equal_places, back.first_bits, back.first_token, back.drift)
        );
        prop_assert!(found.first_bits.is_none_or(|bits| found.first_token.is_none_or(|token| bits <= token)));
    }
}
