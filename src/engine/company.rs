//! Who is beside a prompt, and when: functions of the settings, the item and the place, the same in every run.

use std::{borrow::Cow, num::NonZeroU64, time::Duration};

use crate::{
    cell::{Arrival, Asking, Neighbors},
    engine::Prompt,
    model::tokenizer::Tokenizer,
    numerics::random::Stream,
};

/// One of those that are asked at the same time.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Member<'p> {
    /// The item of the prompt, or of the prompt that it is beside.
    pub(super) item: u64,
    /// What is read.
    pub(super) tokens: Cow<'p, [u32]>,
    /// How long after the others may begin it arrives.
    pub(super) delay: Duration,
    /// Is it a prompt of ours? Of all others the answer is thrown away.
    pub(super) is_ours: bool,
}

/// The groups in which prompts are asked, with all that is in flight; `ordinary` are the tokens that noise is made of.
pub(super) fn groups<'p>(prompts: &'p [Prompt], asking: &Asking, ordinary: &[u32]) -> Vec<Vec<Member<'p>>> {
    let member = |prompt: &'p Prompt| Member {
        item: prompt.item,
        tokens: Cow::Borrowed(&prompt.tokens[..]),
        delay: Duration::ZERO,
        is_ours: true,
    };
    let among = |prompt: &'p Prompt| {
        let (place, others) = beside(prompt.item, prompt.tokens.len(), asking, ordinary);
        let other = |tokens: Option<Vec<u32>>| Member {
            tokens: tokens.map_or(Cow::Borrowed(&prompt.tokens[..]), Cow::Owned),
            is_ours: false,
            ..member(prompt)
        };
        let mut group: Vec<_> = others.into_iter().map(other).collect();
        group.insert(place, member(prompt));
        group
    };
    let mut groups: Vec<Vec<_>> = match asking.neighbors {
        Neighbors::Own => vec![prompts.iter().map(member).collect()],
        Neighbors::Noise(_) | Neighbors::Copies => prompts.iter().map(among).collect(),
    };
    if let Arrival::Staggered(seed) = asking.arrival {
        for group in &mut groups {
            for (member, place) in group.iter_mut().zip(0..) {
                member.delay = delay(seed, member.item, place);
            }
        }
    }
    groups
}

/// Who is beside a prompt of an item: at which place that is among them, which a seed draws, and of each its first tokens, so many;
/// of a copy nothing. Nobody, where the neighbors are its suite's own.
pub(super) fn beside(
    item: u64,
    length: usize,
    asking: &Asking,
    ordinary: &[u32],
) -> (usize, Vec<Option<Vec<u32>>>) {
    let others = 0..asking.concurrency.get() as u64 - 1;
    let (seed, others): (u64, Vec<_>) = match asking.neighbors {
        Neighbors::Own => return (0, Vec::new()),
        Neighbors::Copies => (0, others.map(|_| None).collect()),
        Neighbors::Noise(seed) => {
            (seed, others.map(|number| Some(noise(seed, item, number, length, ordinary))).collect())
        }
    };
    let places = NonZeroU64::MIN.saturating_add(others.len() as u64);
    let place = Stream::new(seed ^ u64::from_le_bytes(*b"at place"), item).below(places);
    (place as usize, others)
}

/// The tokens that noise is made of.
pub(super) fn ordinary(tokenizer: Option<&Tokenizer>, vocabulary: usize) -> Vec<u32> {
    let ordinary = tokenizer.map(Tokenizer::ordinary).unwrap_or_default();
    if ordinary.is_empty() { (0..vocabulary as u32).collect() } else { ordinary }
}

/// The tokens of a neighbor of an item. Those of a longer one begin with those of a shorter one.
fn noise(seed: u64, item: u64, neighbor: u64, length: usize, ordinary: &[u32]) -> Vec<u32> {
    let Some(bound) = NonZeroU64::new(ordinary.len() as u64) else { return Vec::new() };
    let of_item = Stream::new(seed ^ u64::from_le_bytes(*b"neighbor"), item).bits();
    let mut stream = Stream::new(of_item, neighbor);
    (0..length).map(|_| ordinary[stream.below(bound) as usize]).collect()
}

/// How much later than the first one a member at a place arrives: from 0 to 50 ms times its place, and a second at most. An
/// answer takes longer than that on most servers, so that they meet.
fn delay(seed: u64, item: u64, place: u64) -> Duration {
    const STEP: u64 = 50;
    const MOST: u64 = 1000;
    let of_item = Stream::new(seed ^ u64::from_le_bytes(*b"a moment"), item).bits();
    let choices = NonZeroU64::MIN.saturating_add((STEP * place).min(MOST));
    Duration::from_millis(Stream::new(of_item, place).below(choices))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, num::NonZeroUsize};

    use super::*;

    fn prompts() -> Vec<Prompt> {
        let prompt = |item| Prompt { item, tokens: vec![1; 3 + item as usize], replay: None };
        (0..40).map(prompt).collect()
    }

    fn asking(concurrency: usize, neighbors: Neighbors, arrival: Arrival) -> Asking {
        let concurrency = NonZeroUsize::new(concurrency).unwrap();
        Asking { concurrency, neighbors, arrival, ..Asking::default() }
    }

    fn places(groups: &[Vec<Member<'_>>]) -> Vec<usize> {
        groups.iter().map(|group| group.iter().position(|member| member.is_ours).unwrap()).collect()
    }

    #[test]
    fn noise_is_as_long_as_its_prompt_and_the_same_for_one_seed_alone() {
        let (prompts, ordinary) = (prompts(), [5, 6, 7, 8, 9]);
        let of_seed = |seed, concurrency| {
            let asking = asking(concurrency, Neighbors::Noise(seed), Arrival::Together);
            groups(&prompts, &asking, &ordinary)
        };
        let all = of_seed(3, 4);
        for (prompt, group) in prompts.iter().zip(&all) {
            assert_eq!(group.len(), 4);
            let (ours, noise): (Vec<_>, Vec<_>) = group.iter().partition(|member| member.is_ours);
            assert_eq!(ours.len(), 1);
            assert_eq!(*ours[0].tokens, prompt.tokens[..]);
            for member in &noise {
                assert_eq!((member.item, member.tokens.len()), (prompt.item, prompt.tokens.len()));
                assert!(member.tokens.iter().all(|token| ordinary.contains(token)));
            }
            let distinct: HashSet<_> = noise.iter().map(|member| &member.tokens).collect();
            assert!(prompt.tokens.len() < 8 || distinct.len() == 3, "{group:?}");
        }
        assert_eq!(all, of_seed(3, 4));
        assert_ne!(all, of_seed(4, 4));
        assert_eq!(places(&all).into_iter().collect::<HashSet<_>>().len(), 4);
        assert_ne!(places(&all), places(&of_seed(4, 4)));
        // More company leaves the noise as it is.
        let noise = |groups: &[Vec<Member<'_>>]| {
            let tokens =
                groups[7].iter().filter(|member| !member.is_ours).map(|member| member.tokens.to_vec());
            tokens.collect::<Vec<_>>()
        };
        assert_eq!(noise(&all), noise(&of_seed(3, 9))[..3]);
        // Written down, so that no change can change both sides.
        assert_eq!(super::noise(3, 7, 0, 8, &ordinary), RECORDED);
        assert_eq!(super::noise(3, 7, 0, 5, &ordinary), RECORDED[..5]);
        assert_eq!(places(&all)[..8], [3, 3, 3, 3, 2, 0, 3, 0]);
    }

    /// As Philox in Python gives them.
    const RECORDED: [u32; 8] = [5, 9, 7, 6, 8, 5, 9, 7];

    #[test]
    fn a_copy_is_its_prompt_and_the_one_that_is_kept_is_at_any_place() {
        let prompts = prompts();
        let all = groups(&prompts, &asking(3, Neighbors::Copies, Arrival::Together), &[]);
        for (prompt, group) in prompts.iter().zip(&all) {
            assert_eq!(group.len(), 3);
            assert!(group.iter().all(|member| *member.tokens == prompt.tokens[..]));
            assert_eq!(group.iter().filter(|member| member.is_ours).count(), 1);
        }
        assert_eq!(places(&all).into_iter().collect::<HashSet<_>>().len(), 3);
    }

    #[test]
    fn all_but_the_first_arrive_a_moment_later_that_is_the_same_for_one_seed_alone() {
        let prompts = prompts();
        let delays = |neighbors, arrival| -> Vec<Vec<u128>> {
            let groups = groups(&prompts, &asking(4, neighbors, arrival), &[5]);
            let of_group =
                |group: &Vec<Member<'_>>| group.iter().map(|member| member.delay.as_millis()).collect();
            groups.iter().map(of_group).collect()
        };
        for neighbors in [Neighbors::Own, Neighbors::Copies, Neighbors::Noise(1)] {
            assert!(delays(neighbors, Arrival::Together).concat().iter().all(|delay| *delay == 0));
            let staggered = delays(neighbors, Arrival::Staggered(2));
            for group in &staggered {
                for (place, delay) in group.iter().enumerate() {
                    assert!(*delay <= 50 * place.min(20) as u128, "{group:?}");
                }
                assert!(group[0] == 0 && group.iter().any(|delay| *delay > 0), "{group:?}");
            }
            assert_eq!(staggered, delays(neighbors, Arrival::Staggered(2)));
            assert_ne!(staggered, delays(neighbors, Arrival::Staggered(3)));
        }
        let spread: HashSet<_> =
            delays(Neighbors::Copies, Arrival::Staggered(2)).concat().into_iter().collect();
        assert!(spread.len() > 30, "{spread:?}");
        assert_eq!((1..4).map(|place| delay(2, 7, place).as_millis()).collect::<Vec<_>>(), [3, 15, 84]);
    }
}
