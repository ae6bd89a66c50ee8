//! From a place at which two cells part to the operations that make them part.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Apart, Cause, CauseError, Culprit, Effect, Growth, Manner, Smallest, Suspect, Transplants, is_station,
    passage::Passage,
    tap::{Kept, Parting, Reading, Tap, Which, parting},
    transplant::{Donated, Moved, Transplant},
};
use crate::{
    digest::Digest,
    model::{Checkpoint, Config, Decoder},
    numerics::{
        Numerics,
        choice::{Choice, Place, rank},
        format::Format,
        kernel::{At, Fast, Kernel as _, Step},
    },
};

/// Two cells of the lab that part.
pub struct Case<'a> {
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// What either computes with.
    pub numerics: [Numerics; 2],
    /// What both have read before the place at which they part.
    pub passage: Passage,
    /// The item, which a draw may depend on.
    pub item: u64,
    /// How a token is chosen.
    pub choice: Choice,
    /// The digests of the logits that each had after the prompt and after every token that followed, the last of them
    /// those at which they part.
    pub digests: [Vec<Digest>; 2],
    /// How many sets of operations may be tried.
    pub tries: usize,
}

type Both = Decoder<Tap<Transplant<Fast>>>;

/// What a decoder does with a passage: the token that it chooses at every place, and the digest of the logits from which.
#[derive(PartialEq)]
struct Heard {
    choices: Vec<Option<u32>>,
    digests: Vec<Digest>,
}

impl Case<'_> {
    /// Looks for the cause.
    ///
    /// # Errors
    ///
    /// When the model does not load, or does not compute here what was recorded.
    pub fn cause(&self) -> Result<Cause, CauseError> {
        let last = self.passage.tokens.len() - 1;
        let other = self.decoder(1)?;
        let (of_other, other_readings, other_kept) = self.tapped(1, &other, last)?;
        let one = self.decoder(0)?;
        let (of_one, one_readings, one_kept) = self.tapped(0, &one, last)?;
        let found = parting(&one_readings, &other_readings).ok_or(CauseError::Same)?;
        let (Parting::Gave(which) | Parting::Read(which)) = found;
        // A position is read as it was, whatever follows.
        let upto = self.passage.up_to(which.position);
        let kept = [&one, &other].map(|decoder| self.kept(decoder, &upto, which.position));

        let mut moved = self.moved(&one);
        for (at, more) in self.moved(&other) {
            let moved = moved.entry(at).or_default();
            *moved = Moved { values: moved.values + more.values, moved: moved.moved + more.moved };
        }
        moved.retain(|_, moved| moved.moved > 0);
        let trial = Trial { case: self, decoders: [&one, &other], heard: [of_one, of_other] };
        Ok(Cause {
            tokens: self.passage.tokens.len(),
            prompt: self.passage.prompt,
            first: self.culprit(found, one.config(), kept),
            growth: self.growth([&one_kept, &other_kept]),
            transplants: trial.transplants(which.at, &moved),
        })
    }

    /// A decoder of one cell that can do what the other one does.
    fn decoder(&self, side: usize) -> Result<Both, CauseError> {
        let both = Transplant::of(self.numerics, side)?;
        let tap = Tap::new(both, &self.checkpoint.config);
        Ok(Decoder::load(tap, self.checkpoint)?.among(self.numerics))
    }

    /// Reads the passage as a cell does, which must be as it was recorded; with everything that its operations read and gave,
    /// and what they gave at one position.
    fn tapped(
        &self,
        side: usize,
        decoder: &Both,
        position: usize,
    ) -> Result<(Heard, Vec<Reading>, Kept), CauseError> {
        decoder.kernel().listen(Some(position));
        let heard = self.heard(decoder, &self.passage);
        let (readings, kept) = decoder.kernel().take();
        let recorded = &self.digests[side];
        if heard.digests == *recorded {
            return Ok((heard, readings, kept));
        }
        let same = heard.digests.iter().zip(recorded).take_while(|(here, recorded)| here == recorded).count();
        Err(CauseError::Unlike { numerics: Box::new(self.numerics[side]), read: self.passage.prompt + same })
    }

    /// What operations give at a position.
    fn kept(&self, decoder: &Both, passage: &Passage, position: usize) -> Kept {
        decoder.kernel().listen(Some(position));
        self.heard(decoder, passage);
        decoder.kernel().take().1
    }

    /// How much of what each operation gives is moved by carrying it out as the other cell does, along the way of this one.
    fn moved(&self, decoder: &Both) -> BTreeMap<At, Moved> {
        let kernel = decoder.kernel().inner();
        kernel.donate(Donated::Compared(BTreeMap::new()));
        self.heard(decoder, &self.passage);
        kernel.donate(Donated::At(BTreeSet::new())).compared()
    }

    fn heard(&self, decoder: &Both, passage: &Passage) -> Heard {
        decoder.kernel().workers().within(|| {
            let mut heard = Heard { choices: Vec::new(), digests: Vec::new() };
            passage.read(decoder, |read, logits| {
                // Checkpoints have at most 2^31 positions.
                let place = Place { item: self.item, position: read as u32 };
                let ranking = rank(logits, 1).ok();
                heard.choices.push(ranking.map(|ranking| self.choice.choose(logits, &ranking, place)));
                heard.digests.push(Digest::of_logits(logits));
            });
            heard
        })
    }

    /// What is said of the first operation that is carried out otherwise.
    fn culprit(&self, found: Parting, config: &Config, [one, other]: [Kept; 2]) -> Culprit {
        let (Parting::Gave(which) | Parting::Read(which)) = found;
        let Which { position, at, head } = which;
        let manner = |side: usize| {
            let numerics = self.numerics[side];
            let rows = self.passage.calls[position][side];
            Manner { numerics: numerics.to_string(), rows: rows.at(at), threads: numerics.threads().get() }
        };
        let has_heads =
            matches!(at.step, Step::Scores | Step::Softmax | Step::Context | Step::QueryNorm | Step::KeyNorm);
        let of = |kept: &Kept| kept.get(&which).cloned().unwrap_or_default();
        Culprit {
            operation: at.into(),
            position,
            head: has_heads.then_some(head),
            read_otherwise: matches!(found, Parting::Read(_)),
            terms: terms(at, config, position),
            sides: [manner(0), manner(1)],
            apart: Apart::of(&of(&one), &of(&other), self.format(at)),
        }
    }

    /// How far apart the cells are on the way to the last logits.
    fn growth(&self, [one, other]: [&Kept; 2]) -> Vec<Growth> {
        let stations = one.iter().filter(|(which, _)| is_station(which));
        let growth = stations.filter_map(|(which, values)| {
            let apart = Apart::of(values, other.get(which)?, self.format(which.at));
            Some(Growth { operation: which.at.into(), apart })
        });
        growth.collect()
    }

    /// The format in which both hand on what they computed, if it is one.
    fn format(&self, at: At) -> Format {
        let [one, other] = self.numerics.map(|numerics| numerics.precision().activations(at));
        if one == other { one } else { Format::F32 }
    }
}

/// How many terms an operation adds for each of its results.
fn terms(at: At, config: &Config, position: usize) -> Option<usize> {
    Some(match at.step {
        Step::AttentionNorm | Step::Qkv | Step::MlpNorm | Step::GateUp | Step::Norm | Step::Head => {
            config.width
        }
        Step::QueryNorm | Step::KeyNorm | Step::Scores => config.head_width,
        Step::Softmax | Step::Context => position + 1,
        Step::Output => config.heads * config.head_width,
        Step::Down => config.inner_width,
        Step::Embed
        | Step::QueryRotation
        | Step::KeyRotation
        | Step::AttentionAdd
        | Step::Gate
        | Step::MlpAdd
        | Step::Alone(_) => return None,
    })
}

/// Sets of operations, each tried in the first cell or in the other one.
struct Trial<'t, 'a> {
    case: &'t Case<'a>,
    decoders: [&'t Both; 2],
    /// What either does by itself.
    heard: [Heard; 2],
}

impl Trial<'_, '_> {
    /// What comes of a cell that carries these operations out as the other one does.
    fn with(&self, side: usize, places: &BTreeSet<At>) -> Heard {
        let decoder = self.decoders[side];
        decoder.kernel().inner().donate(Donated::At(places.clone()));
        let heard = self.case.heard(decoder, &self.case.passage);
        decoder.kernel().inner().donate(Donated::At(BTreeSet::new()));
        heard
    }

    /// Does a cell with these operations do what the other one does at the place at which they part, and before it what it does
    /// by itself? Where both choose the same token there, the logits must be those of the other.
    fn turns(&self, side: usize, places: &BTreeSet<At>) -> bool {
        self.is_turned(side, &self.with(side, places))
    }

    fn is_turned(&self, side: usize, heard: &Heard) -> bool {
        let [own, other] = [&self.heard[side], &self.heard[1 - side]];
        let place = own.choices.len() - 1;
        if own.choices[place] == other.choices[place] {
            return heard.digests[place] == other.digests[place];
        }
        heard.choices[..place] == own.choices[..place] && heard.choices[place] == other.choices[place]
    }

    fn effect(&self, places: &BTreeSet<At>) -> Effect {
        Effect { sufficient: self.turns(0, places), necessary: self.turns(1, places) }
    }

    fn transplants(&self, first: At, moved: &BTreeMap<At, Moved>) -> Transplants {
        let all: Vec<At> = moved.keys().copied().collect();
        // A set is tried once, however often it is asked for.
        let mut tried = BTreeMap::new();
        let alone = BTreeSet::from([first]);
        let sufficient = self.turns(0, &alone);
        tried.insert(alone.clone(), sufficient);
        let every: BTreeSet<At> = all.iter().copied().collect();
        let with_all = self.with(0, &every);
        tried.insert(every, self.is_turned(0, &with_all));
        let complete = with_all.digests == self.heard[1].digests;
        let (set, minimal) = match () {
            () if sufficient => (vec![first], true),
            () if self.is_turned(0, &with_all) => {
                fewest(all.clone(), self.case.tries, &mut |places: &[At]| {
                    let places: BTreeSet<At> = places.iter().copied().collect();
                    *tried.entry(places).or_insert_with_key(|places| self.turns(0, places))
                })
            }
            () => (Vec::new(), false),
        };
        let first = Effect { sufficient, necessary: self.turns(1, &alone) };
        let smallest = (!set.is_empty()).then(|| Smallest {
            operations: set.iter().map(|at| (*at).into()).collect(),
            minimal,
            effect: if set == [*alone.first().expect("there is one")] {
                first
            } else {
                self.effect(&set.iter().copied().collect())
            },
        });
        let suspects = moved.iter().map(Suspect::new).collect();
        Transplants { suspects, complete, first, smallest, tried: tried.len() }
    }
}

/// As few of these as still do something together, and whether each of them is needed: halves are left out, then smaller parts,
/// until none can be or so many sets were tried.
fn fewest<T: Clone>(mut set: Vec<T>, tries: usize, does: &mut dyn FnMut(&[T]) -> bool) -> (Vec<T>, bool) {
    let (mut parts, mut left) = (2, tries);
    while set.len() > 1 {
        let bounds: Vec<usize> = (0..=parts).map(|part| set.len() * part / parts).collect();
        let part = |at: usize| bounds[at]..bounds[at + 1];
        let alone = (0..parts).map(|at| (set[part(at)].to_vec(), 2));
        let without = |at: usize| [&set[..bounds[at]], &set[bounds[at + 1]..]].concat();
        // Of two parts, all but the one is the other.
        let others = (0..parts).filter(|_| parts > 2).map(|at| (without(at), (parts - 1).max(2)));
        let mut found = None;
        for (smaller, next) in alone.chain(others) {
            if left == 0 {
                return (set, false);
            }
            left -= 1;
            if does(&smaller) {
                found = Some((smaller, next));
                break;
            }
        }
        match found {
            Some((smaller, next)) => (set, parts) = (smaller, next.min(set.len().max(2))),
            None if parts >= set.len() => return (set, true),
            None => parts = (2 * parts).min(set.len()),
        }
        parts = parts.min(set.len()).max(2);
    }
    (set, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_are_those_without_any_of_which_it_does_not_work() {
        let all: Vec<u32> = (0..100).collect();
        for needed in [vec![0], vec![99], vec![3, 50], vec![10, 11, 12, 90], vec![0, 33, 34, 66, 99]] {
            let mut tried = 0;
            let mut does = |set: &[u32]| {
                tried += 1;
                needed.iter().all(|one| set.contains(one))
            };
            assert_eq!(fewest(all.clone(), 1000, &mut does), (needed.clone(), true));
            assert!(tried < 300, "{tried} for {needed:?}");
        }
        // Where several do by themselves, one of them is enough.
        let (set, minimal) = fewest(all.clone(), 1000, &mut |set: &[u32]| set.iter().any(|one| one % 7 == 3));
        assert_eq!((set.len(), minimal), (1, true));
        // Whoever may not go on says so.
        let (set, minimal) = fewest(all, 3, &mut |set: &[u32]| set.contains(&70));
        assert!(set.contains(&70) && set.len() > 1 && !minimal, "{set:?}");
    }
}
