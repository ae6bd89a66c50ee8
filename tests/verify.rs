//! A finished run is checked: one that is as it was computed holds, and whatever is changed in it is found, as often as is said.

use std::{
    collections::BTreeSet,
    fs,
    num::NonZeroU64,
    path::{Path, PathBuf},
    process::Command,
};

use num_rational::BigRational;
use reprocheck::{
    cell::Cell,
    digest::Digest,
    engine::{
        Engines, Prompt, Request,
        ending::{Decode, Endings},
    },
    model::{Checkpoint, Subject, embedded::MODELS},
    numerics::{choice::Candidate, random::Stream, special::binomial_tail},
    plan::Plan,
    record::{Done, Record},
    run::{
        self, Options, Present,
        review::review,
        verify::{Verified, Wanted, drawn, verify},
    },
    stats::detection::Draw,
    store::{
        StoreError,
        run::{Locked, Run},
        trace::{Reader, Writer},
    },
    suite::{question::Question, score::Scores},
    trace::{Finish, Sample, Seen, Sight, Step},
    verdict::Outcome,
};
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_reprocheck");

/// A folder with a run of the model in the binary.
struct Place {
    folder: TempDir,
    checkpoint: Checkpoint,
}

/// What a trace holds of an item.
type Kept = (Sample, Scores);

impl Place {
    /// Of a matrix, which lies beside it.
    fn new(matrix: &str) -> Place {
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
            checkpoint: Checkpoint::embedded(&MODELS[0]).unwrap(),
        };
        let file = place.path("m.toml");
        fs::write(&file, matrix).unwrap();
        let plan = Plan::read(&file, matrix, None).unwrap_or_else(|problems| panic!("{problems}"));
        let (subject, folder) = (place.subject(), place.path("r"));
        let engines = Engines {
            checkpoint: Some(&place.checkpoint),
            program: Path::new(BINARY),
            scripts: &plan.scripts,
            servers: &plan.servers,
            logs: &folder,
            subject: &subject,
        };
        let options = Options::of_all(folder.clone(), Present::Refuse, ("m.toml".to_owned(), None));
        run::run(&plan, &subject, &engines, &options, &mut |_| {}).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn subject(&self) -> Subject<'_> {
        Subject::of(&self.checkpoint).unwrap()
    }

    fn run(&self) -> Run {
        Run::open(&self.path("r")).unwrap()
    }

    fn verified(&self, wanted: &Wanted<'_>) -> Verified {
        verify(&self.path("r"), &self.checkpoint, &self.subject(), wanted, &mut |_, _| {}).unwrap()
    }

    fn checked(&self, percent: f64) -> Verified {
        self.verified(&Wanted { percent, ..Wanted::default() })
    }

    fn done(&self, cell: Cell) -> Done {
        match self.run().records(&[cell]).swap_remove(0).1.unwrap() {
            Some(Record::Done(done)) => *done,
            other => panic!("{other:?}"),
        }
    }

    fn record(&self, done: Done) {
        Locked::new(&self.path("r")).unwrap().record(&Record::Done(Box::new(done))).unwrap();
    }

    fn questions(&self) -> Vec<Question> {
        let mut questions = self.run().questions().unwrap();
        (0..questions.len()).map(|item| questions.get(item).unwrap()).collect()
    }

    fn kept(&self, cell: Cell) -> Vec<Kept> {
        let reader = Reader::open(&self.path("r"), self.done(cell).trace).unwrap();
        let kept = reader.map(|read| {
            let (line, tokens) = read.unwrap();
            let steps = tokens.into_iter().map(|token| Step { token, rows: None }).collect();
            let (item, text, finish) = (line.item, line.text, line.finish);
            (Sample { item, prompt: Vec::new(), steps, text, finish, launch: None }, line.scores)
        });
        kept.collect()
    }

    /// Puts another trace in the place of a cell's, with all digests as a store has them.
    fn forge(&self, cell: Cell, kept: &[Kept]) {
        let mut writer = Writer::new(&self.path("r"), Sight::Logits).unwrap();
        kept.iter().for_each(|(sample, scores)| writer.add(sample, scores.clone()).unwrap());
        let written = writer.finish(&self.path("r")).unwrap();
        self.record(Done { trace: written.digest, root: written.root, ..self.done(cell) });
    }

    /// The text of these tokens, and what comes of it.
    fn mend(&self, question: &Question, (sample, scores): &mut Kept) {
        let subject = self.subject();
        let request = Request {
            max_new_tokens: question.max_new_tokens,
            stop_tokens: subject.stop_tokens.to_vec(),
            stop_strings: question.stop.clone(),
            ..crate::support::request(0)
        };
        let tokenizer = subject.tokenizer.unwrap();
        let decode = |tokens: &[u32]| tokenizer.decode(tokens, true);
        let endings = Endings::new(&request, Some(&decode as &Decode<'_>)).unwrap();
        let prompt = Prompt { item: 0, tokens: Vec::new(), replay: None };
        let mut ending = endings.begin(&prompt);
        for step in &sample.steps {
            ending.push(step.token.id);
        }
        sample.text = ending.text();
        *scores = question.score(&sample.text, sample.finish == Finish::Length);
    }

    fn program(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(BINARY);
        let output =
            command.args(arguments).current_dir(self.folder.path()).env("NO_COLOR", "1").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let said = text(output.stderr);
        assert!(!said.contains("panicked"), "{said}");
        (output.status.code().unwrap(), text(output.stdout), said)
    }
}

#[track_caller]
fn holds(verified: &Verified) {
    assert_eq!(verified.verdict(), Outcome::Pass, "{:#?}", verified.mismatches);
}

#[test]
fn a_healthy_run_holds_in_full_whatever_moves_its_bits() {
    let head = "suites = [\"carry_chain\", \"mul_ladder\"]\nitems = 3\n[generate]\nmax-new-tokens = 5\n";
    for (matrix, cells) in [
        (
            "[matrix]\nprecision = \"fp32\"\norder = [\"pairwise\", \"split-k:rows\", \"split-k:threads\"]\nthreads = [1, 2]\n\
             batch = [1, 3]\n",
            12,
        ),
        (
            "[matrix]\nprecision = [\"int8\", \"w8a8\", \"lmul\"]\nbatch = [1, 2]\ngrouping = \"shuffled:3\"\n",
            6,
        ),
        (
            "[matrix]\norder = \"split-k:rows\"\nprefill-chunk = [2, \"all\"]\nbatch = 2\ngrouping = \"by-length\"\n",
            2,
        ),
        (
            "choice = \"sampled:temperature=1.5\"\n[matrix]\nprecision = [\"fp16\", \"int8\"]\nseed = [0, 7]\nbatch = 2\n",
            4,
        ),
        (
            "replay = true\n[reference]\norder = \"exact\"\n[matrix]\nprecision = [\"cast:e4m3\", \"int8\"]\nbatch = [1, 3]\n",
            5,
        ),
        (
            "[matrix]\norder = [\"pairwise\", \"split-k:rows\"]\ncache = [\"off\", \"warm:4\"]\nverify = [\"off\", 2]\n\
             rebuild = [\"off\", \"prefill:2\"]\nbatch = 3\n",
            16,
        ),
        (
            "[matrix]\nprecision = [\"int8\", \"bf16\"]\norder = \"split-k:rows\"\nneighbors = [\"copies\", \"noise:1\"]\nbatch = 2\n",
            4,
        ),
    ] {
        let place = Place::new(&format!("{head}{matrix}"));
        let verified = place.checked(100.0);
        holds(&verified);
        assert_eq!((verified.cells.len(), verified.items, verified.drawn), (cells, 6, 6), "{matrix}");
        assert_eq!(verified.samples, 6 * cells as u64);
        assert!(verified.tokens > 12 * cells as u64 && verified.unchecked.is_empty());
        assert_eq!(verified.power[0].found, 1.0);
        assert_eq!(verified.found_with_95_percent, Some(1));
        // Its matrix file says the same of it.
        let text = fs::read_to_string(place.path("m.toml")).unwrap();
        let plan = Plan::read(&place.path("m.toml"), &text, None).unwrap();
        holds(&place.verified(&Wanted { percent: 1.0, seed: 3, plan: Some(&plan) }));
    }
}

/// One cell, whose samples the model computes in no time.
const SMALL: &str =
    "suites = [\"carry_chain\"]\nitems = 6\n[generate]\nmax-new-tokens = 5\n[matrix]\nprecision = \"bf16\"\n";

/// What can be changed of a sample, so that a store does not notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Token,
    Digest,
    Swap,
    Score,
    Text,
    Finish,
    Margin,
    Probability,
    Logit,
    Candidate,
    Cut,
}

impl Change {
    const ALL: [Change; 11] = [
        Change::Token,
        Change::Digest,
        Change::Swap,
        Change::Score,
        Change::Text,
        Change::Finish,
        Change::Margin,
        Change::Probability,
        Change::Logit,
        Change::Candidate,
        Change::Cut,
    ];

    /// In what it is found, at the least.
    fn shows_in(self) -> &'static [&'static str] {
        match self {
            Change::Token | Change::Swap => &["token", "digest of the logits"],
            Change::Digest => &["digest of the logits"],
            Change::Score => &["scores"],
            Change::Text => &["text"],
            Change::Finish | Change::Cut => &["finish"],
            Change::Margin => &["margin"],
            Change::Probability => &["probability"],
            Change::Logit | Change::Candidate => &["candidates"],
        }
    }

    /// Changes one of these somewhere, and mends what follows from it. Returns the item.
    fn make(self, place: &Place, kept: &mut [Kept], stream: &mut Stream) -> usize {
        let mut below = |bound: usize| stream.below(NonZeroU64::new(bound as u64).unwrap()) as usize;
        let questions = place.questions();
        let at = below(kept.len());
        let step = below(kept[at].0.steps.len());
        let (bit, other) = (below(256), below(kept.len() - 1));
        match self {
            Change::Token => {
                let id = &mut kept[at].0.steps[step].token.id;
                // A digit for another one: the ends stay where they are.
                let digits: Vec<u32> =
                    "0123456789".chars().map(|digit| token(place, &digit.to_string())).collect();
                *id = *digits.iter().find(|digit| *digit != id).unwrap();
                place.mend(&questions[at], &mut kept[at]);
            }
            Change::Swap => {
                let others: Vec<usize> =
                    (0..kept.len()).filter(|other| kept[*other].0.steps != kept[at].0.steps).collect();
                let other = others[other % others.len()];
                kept.swap(at, other);
                for item in [at, other] {
                    kept[item].0.item = item as u64;
                    place.mend(&questions[item], &mut kept[item]);
                }
            }
            Change::Score => {
                let scores = &mut kept[at].1;
                let outcome = &mut scores.strict.outcome;
                use reprocheck::suite::score::Outcome::{Correct, Wrong};
                *outcome = if *outcome == Correct { Wrong } else { Correct };
            }
            Change::Text => {
                kept[at].0.text.push('1');
                let (sample, scores) = &mut kept[at];
                *scores = questions[at].score(&sample.text, sample.finish == Finish::Length);
            }
            Change::Finish => {
                let (sample, scores) = &mut kept[at];
                sample.finish = if sample.finish == Finish::Stop { Finish::Length } else { Finish::Stop };
                *scores = questions[at].score(&sample.text, sample.finish == Finish::Length);
            }
            Change::Cut => {
                kept[at].0.steps.pop();
                place.mend(&questions[at], &mut kept[at]);
            }
            Change::Digest | Change::Margin | Change::Probability | Change::Logit | Change::Candidate => {
                let Seen::Logits { digest, candidates, margin, probability } =
                    &mut kept[at].0.steps[step].token.seen
                else {
                    panic!("the lab shows all")
                };
                let of = below(candidates.len());
                let Candidate { token, logit } = &mut candidates[of];
                match self {
                    Change::Digest => digest.0[bit / 8] ^= 1 << (bit % 8),
                    Change::Margin => *margin = margin.next_up(),
                    Change::Probability => *probability = probability.next_down(),
                    Change::Logit => *logit = logit.next_up(),
                    _ => *token ^= 1,
                }
            }
        }
        at
    }
}

/// The only token of a text.
fn token(place: &Place, text: &str) -> u32 {
    let tokens = place.subject().tokenizer.unwrap().encode(text, false).unwrap();
    assert_eq!(tokens.len(), 1, "{text:?}");
    tokens[0]
}

#[test]
fn whatever_is_changed_is_found_where_all_is_drawn() {
    let place = Place::new(SMALL);
    let cell = place.run().about.cells[0];
    let (healthy, kept) = (place.done(cell), place.kept(cell));
    holds(&place.checked(100.0));
    for number in 0..91 * Change::ALL.len() as u64 {
        let change = Change::ALL[number as usize % Change::ALL.len()];
        let mut forged = kept.clone();
        let item = change.make(&place, &mut forged, &mut Stream::new(5, number));
        place.forge(cell, &forged);
        // The store itself notices nothing, nor does a report that adds up the scores anew, but for the score.
        assert_ne!(place.done(cell).trace, healthy.trace, "{change:?}");
        assert_eq!(review(&place.path("r"), None).is_err(), change == Change::Score, "{change:?}");
        let verified = place.checked(100.0);
        assert_eq!(verified.verdict(), Outcome::Fail, "{change:?} {number}");
        let id = &place.questions()[item].id;
        let shown = verified.mismatches.iter().find(|mismatch| mismatch.item.as_ref() == Some(id));
        let shown = shown.unwrap_or_else(|| panic!("{change:?} {number}: {:#?}", verified.mismatches));
        assert_eq!(shown.cell, Some(cell));
        assert!(change.shows_in().contains(&shown.difference.what), "{change:?}: {shown:?}");
        assert_ne!(shown.difference.recorded, shown.difference.computed);
        assert_eq!(verified.wrong, if change == Change::Swap { 2 } else { 1 }, "{:#?}", verified.mismatches);
    }
    place.record(healthy);
    holds(&place.checked(100.0));
}

#[test]
fn a_change_is_found_however_a_cell_is_read_again() {
    let replay = "replay = true\n[reference]\nprecision = \"bf16\"\n[matrix]";
    for (matrix, changes) in [
        ("[matrix]\norder = \"split-k:rows\"", &[Change::Token, Change::Digest, Change::Margin][..]),
        ("[matrix]\nprecision = \"int8\"", &[Change::Token, Change::Digest, Change::Candidate]),
        (
            "[matrix]\norder = \"split-k:rows\"\ncache = \"warm:4\"\nverify = 2",
            &[Change::Token, Change::Digest, Change::Margin],
        ),
        (
            "choice = \"sampled:temperature=1.5\"\n[matrix]\nprecision = \"w8a8\"",
            &[Change::Token, Change::Logit],
        ),
        (&format!("{replay}\nprecision = \"cast:e4m3\""), &[Change::Token, Change::Digest, Change::Text]),
        (&format!("{replay}\nprecision = \"int8\""), &[Change::Token, Change::Digest]),
    ] {
        let place =
            Place::new(&SMALL.replace("[matrix]\nprecision = \"bf16\"", &format!("{matrix}\nbatch = 3")));
        let cell = *place.run().about.cells.last().unwrap();
        let (healthy, kept) = (place.done(cell), place.kept(cell));
        holds(&place.checked(100.0));
        for (number, change) in changes.iter().enumerate() {
            let mut forged = kept.clone();
            let item = change.make(&place, &mut forged, &mut Stream::new(7, number as u64));
            place.forge(cell, &forged);
            let verified = place.checked(100.0);
            let id = Some(&place.questions()[item].id);
            let shown = verified.mismatches.iter().find(|mismatch| mismatch.item.as_ref() == id).unwrap();
            assert_eq!(shown.cell, Some(cell), "{matrix}: {change:?}");
            let given = matrix.contains("replay") && *change == Change::Token;
            let expected = if given { &["given token"][..] } else { change.shows_in() };
            assert!(expected.contains(&shown.difference.what), "{matrix}: {change:?}: {shown:?}");
            place.record(healthy.clone());
        }
    }
}

#[test]
fn of_changes_in_a_part_as_many_are_found_as_is_said() {
    let place = Place::new(&SMALL.replace("items = 6", "items = 12").replace("= 5", "= 2"));
    let cell = place.run().about.cells[0];
    let kept = place.kept(cell);
    // Three of twelve are drawn, and one is changed so that the model alone can tell.
    let tries = 240;
    let mut found = 0;
    let mut said = 0.0;
    for number in 0..tries {
        let change =
            [Change::Digest, Change::Margin, Change::Logit, Change::Probability][number as usize % 4];
        let mut forged = kept.clone();
        change.make(&place, &mut forged, &mut Stream::new(6, number));
        place.forge(cell, &forged);
        let verified = place.checked(25.0);
        assert_eq!((verified.drawn, verified.samples), (3, 3));
        said = verified.power[0].found;
        found += u64::from(verified.verdict() == Outcome::Fail);
    }
    assert_eq!(said, 0.25);
    let tails = [binomial_tail(found, tries, said), 1.0 - binomial_tail(found + 1, tries, said)];
    assert!(tails.iter().all(|tail| *tail > 0.005), "{found} of {tries}: {tails:?}");
}

#[test]
fn what_is_said_of_a_draw_is_so_for_every_draw_and_every_way_to_change() {
    for (groups, of, count) in [(1, 6, 2), (2, 4, 1), (3, 3, 2), (2, 5, 5), (4, 2, 1)] {
        let draw = Draw { groups, of, drawn: count };
        let sets: Vec<u32> = (0..1_u32 << of).filter(|set| u64::from(set.count_ones()) == count).collect();
        // How likely a group is missed that has so many changed ones: every draw is looked at.
        let missed = |changed: u64| {
            let missed = sets.iter().filter(|set| *set & ((1 << changed) - 1) == 0).count();
            BigRational::new(missed.into(), sets.len().into())
        };
        for changed in 0..=draw.all() {
            let mut least = None;
            // Every way to spread them.
            let mut spread = vec![0; groups as usize];
            loop {
                if spread.iter().sum::<u64>() == changed {
                    let all = spread
                        .iter()
                        .fold(BigRational::from_integer(1.into()), |all, one| all * missed(*one));
                    let found = BigRational::from_integer(1.into()) - all;
                    least = Some(least.map_or(found.clone(), |least: BigRational| least.min(found)));
                }
                let Some(at) = spread.iter().position(|one| *one < of) else { break };
                spread[at] += 1;
                spread[..at].fill(0);
            }
            assert_eq!(Some(draw.exactly_found(changed)), least, "{draw:?} {changed}");
        }
        let fewest = (0..=draw.all()).find(|changed| draw.found(*changed) >= 0.95);
        assert_eq!(draw.fewest_found(95), fewest, "{draw:?}");
    }
    assert_eq!(Draw { groups: 0, of: 9, drawn: 1 }.fewest_found(95), None);
    let large = Draw { groups: 1, of: 100_000, drawn: 5_000 };
    assert_eq!((large.found(1), large.fewest_found(95)), (0.05, Some(59)));
    // And every set is drawn as often as any other.
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..6_000 {
        *counts.entry(drawn(&mut Stream::new(seed, 0), 2, 4)).or_insert(0) += 1;
    }
    assert!(counts.len() == 6 && counts.values().all(|count| (900..1100).contains(count)), "{counts:?}");
    assert_eq!(drawn(&mut Stream::new(0, 0), 4, 4), BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn a_run_of_other_questions_is_none_of_the_suite_s() {
    let place = Place::new(SMALL);
    let cell = place.run().about.cells[0];
    let (done, kept, about) = (place.done(cell), place.kept(cell), place.run().about);
    let vocabulary = fs::read(place.path("r/vocabulary.json")).unwrap();
    // Every answer is right where each question asks for what was answered.
    for what in ["prompt", "answer", "id", "fewer"] {
        let mut questions = place.questions();
        match what {
            "prompt" => questions[2].prompt = questions[1].prompt.clone(),
            "answer" => questions[2].answer = questions[1].answer.clone(),
            "id" => questions[2].id.push('0'),
            _ => drop(questions.pop()),
        }
        let mut kept = kept.clone();
        kept.truncate(questions.len());
        for ((sample, scores), question) in kept.iter_mut().zip(&questions) {
            *scores = question.score(&sample.text, sample.finish == Finish::Length);
        }
        {
            let folder = Locked::new(&place.path("r")).unwrap();
            let draft = folder.draft(questions.into_iter().map(Ok::<_, StoreError>)).unwrap();
            let about =
                reprocheck::record::About { items: draft.items, questions: draft.questions, ..about.clone() };
            folder.begin(about, draft, Some(&vocabulary)).unwrap();
            folder.record(&Record::Done(Box::new(done.clone()))).unwrap();
        }
        let mut writer = Writer::new(&place.path("r"), Sight::Logits).unwrap();
        kept.iter().for_each(|(sample, scores)| writer.add(sample, scores.clone()).unwrap());
        let written = writer.finish(&place.path("r")).unwrap();
        place.record(Done { trace: written.digest, root: written.root, ..done.clone() });
        assert!(review(&place.path("r"), None).is_ok(), "{what}");
        let verified = place.checked(20.0);
        assert_eq!(verified.verdict(), Outcome::Fail, "{what}");
        let first = &verified.mismatches[0];
        assert_eq!(first.cell, None, "{what}");
        let expected = if what == "fewer" { "number of questions" } else { "question" };
        assert_eq!(first.difference.what, expected, "{first:?}");
        place.checked(100.0);
        // The questions are read again for the next change.
        let folder = Locked::new(&place.path("r")).unwrap();
        let asked = Place::new(SMALL).questions();
        let draft = folder.draft(asked.into_iter().map(Ok::<_, StoreError>)).unwrap();
        folder.begin(about.clone(), draft, Some(&vocabulary)).unwrap();
    }
}

#[test]
fn launches_and_the_root_of_a_cell_are_those_of_its_samples() {
    let place = Place::new(&format!("{SMALL}batch = 3\n"));
    let cell = place.run().about.cells[0];
    let done = place.done(cell);
    let mut forged = done.clone();
    forged.launches.decode_rows = Some(6);
    place.record(forged);
    let verified = place.checked(20.0);
    let [mismatch] = &verified.mismatches[..] else { panic!("{verified:?}") };
    let difference = &mismatch.difference;
    assert_eq!((mismatch.cell, difference.what), (Some(cell), "launches"));
    assert_eq!((&*difference.recorded, &*difference.computed), ("decode_rows 6", "decode_rows 3"));
    // A tree whose leaves are not those of the lines, under its own root.
    let tree = place.path("r/traces").join(done.trace.to_string()).join("tree.bin");
    let mut nodes = fs::read(&tree).unwrap();
    let root = nodes.len() - 32;
    nodes[root] ^= 1;
    let mut folder = tree.parent().unwrap().to_owned();
    fs::write(&tree, &nodes).unwrap();
    let lines = ["samples.jsonl", "tokens.safetensors", "tree.bin"]
        .map(|name| format!("{}  {name}\n", Digest::of(&fs::read(folder.join(name)).unwrap())));
    let trace = Digest::of(lines.concat().as_bytes());
    fs::rename(&folder, folder.with_file_name(trace.to_string())).unwrap();
    folder.set_file_name(trace.to_string());
    place.record(Done { trace, root: Digest(nodes[root..].try_into().unwrap()), ..done });
    assert!(review(&place.path("r"), None).is_ok());
    let verified = place.checked(20.0);
    assert_eq!(verified.mismatches[0].difference.what, "root of all samples", "{verified:?}");
}

#[test]
fn a_cell_of_the_lab_that_hides_its_logits_does_not_hold() {
    let place = Place::new(SMALL);
    let cell = place.run().about.cells[0];
    let mut writer = Writer::new(&place.path("r"), Sight::Tokens).unwrap();
    for (mut sample, scores) in place.kept(cell) {
        sample.steps.iter_mut().for_each(|step| step.token.seen = Seen::Nothing);
        writer.add(&sample, scores).unwrap();
    }
    let written = writer.finish(&place.path("r")).unwrap();
    place.record(Done { trace: written.digest, root: written.root, ..place.done(cell) });
    let verified = place.checked(20.0);
    assert_eq!(verified.verdict(), Outcome::Fail);
    assert_eq!(verified.mismatches[0].difference.what, "what is seen");
    assert_eq!(verified.samples, 0);
}

#[test]
fn a_draw_is_the_same_every_time_and_another_of_another_run() {
    let place = Place::new(&SMALL.replace("items = 6", "items = 40").replace("= 5", "= 1"));
    let cell = place.run().about.cells[0];
    let one = place.checked(10.0);
    assert_eq!(one, place.checked(10.0));
    holds(&one);
    // The digest is that of lines which anyone can write.
    let done = place.done(cell);
    let stated: Value = serde_json::from_slice(&fs::read(place.path("r/run.json")).unwrap()).unwrap();
    let lines = format!(
        "reprocheck verify 1\n{}  run.json\n{} {} {cell}\n",
        stated["sha256"].as_str().unwrap(),
        done.trace,
        done.root
    );
    assert_eq!(one.digest, Digest::of(lines.as_bytes()));
    // Which four of forty are drawn is told by what is found where all are changed, one after the other.
    let drawn_of = |digest: Digest, seed: u64| {
        let line = Digest::of(format!("{digest}\n{seed}\n{cell}\n").as_bytes());
        let seed = u64::from_le_bytes(line.0[..8].try_into().unwrap());
        drawn(&mut Stream::new(seed, 0), 4, 40)
    };
    let mut forged = place.kept(cell);
    for (sample, _) in &mut forged {
        let Seen::Logits { margin, .. } = &mut sample.steps[0].token.seen else {
            panic!("the lab shows all")
        };
        *margin = margin.next_up();
    }
    place.forge(cell, &forged);
    let mut all = Vec::new();
    for seed in [0, 1] {
        let other = place.verified(&Wanted { percent: 10.0, seed, plan: None });
        assert_ne!(other.digest, one.digest);
        let questions = place.questions();
        let ids =
            drawn_of(other.digest, seed).into_iter().map(|item| Some(questions[item as usize].id.clone()));
        assert_eq!(
            other.mismatches.iter().map(|mismatch| mismatch.item.clone()).collect::<Vec<_>>(),
            ids.collect::<Vec<_>>()
        );
        all.push(drawn_of(other.digest, seed));
    }
    all.push(drawn_of(one.digest, 0));
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "{all:?}");
}

#[test]
fn what_cannot_be_checked_is_said_and_never_verified() {
    let place = Place::new(
        "suites = [\"carry_chain\"]\nitems = 3\n[generate]\nmax-new-tokens = 3\n[matrix]\nengine = [\"candle\"]\nthreads = [1, 2]\n",
    );
    let (code, out, err) = place.program(&["verify", "r", "--sample", "100%"]);
    assert_eq!(code, 3, "{out}{err}");
    assert!(out.starts_with("UNKNOWN: nothing of r could be checked\n"), "{out}");
    let text = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("Not checked: candle, 2 cells: its arithmetic is not that of the lab"), "{out}");
    assert!(!out.contains("found with"), "{out}");
    let (code, out, _) = place.program(&["verify", "r", "--format", "json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["verdict"], &json["unchecked"][0]["cells"]), (3, &"unknown".into(), &2.into()));
    assert_eq!(json["samples"], 0);
}

#[test]
fn of_cells_that_have_read_before_launches_are_said_to_be_taken_as_they_were_told() {
    const TOLD: &str = "Of 1 cell the launches are taken as they were told";
    for (cache, is_told) in [("\"off\"", false), ("[\"off\", \"warm\"]", true)] {
        let place = Place::new(&format!("{SMALL}cache = {cache}\nbatch = 2\n"));
        let (code, out, err) = place.program(&["verify", "r"]);
        let text = out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!((code, text.contains(TOLD)), (0, is_told), "{out}{err}");
    }
}

#[test]
fn verdict_and_exit_code_say_what_was_found_and_mistakes_are_the_callers() {
    let place = Place::new(&format!("{SMALL}batch = [1, 2]\n"));
    let (code, out, err) = place.program(&["verify", "r"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("PASS: what was checked of r is what qwen computes\n"), "{out}");
    let cell = place.run().about.cells[1];
    let mut forged = place.kept(cell);
    let Seen::Logits { margin, .. } = &mut forged[4].0.steps[1].token.seen else {
        panic!("the lab shows all")
    };
    *margin = 0.5;
    place.forge(cell, &forged);
    let (code, out, err) = place.program(&["verify", "r", "--sample", "100%"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.starts_with("FAIL: r is not what qwen computes: 1 mismatch in 1 sample\n"), "{out}");
    let id = &place.questions()[4].id;
    assert!(out.contains(&format!("  {cell}, {id}, after 1 token: margin\n    recorded  0.5\n")), "{out}");
    let (code, out, _) = place.program(&["verify", "r", "--sample", "100%", "--format", "json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    let first = &json["mismatches"][0];
    assert_eq!(
        (code, &json["count"], &first["what"], &first["place"]),
        (1, &1.into(), &"margin".into(), &1.into())
    );
    // Another model, no share, no run, another matrix.
    for (arguments, says) in [
        (&["verify", "r", "--model", "qwen-full"][..], "name that model with --model"),
        (&["verify", "r", "--sample", "5"], "write a share above 0% and up to 100%, such as 5%"),
        (&["verify", "r", "--sample", "0%"], "write a share above 0% and up to 100%, such as 5%"),
        (&["verify", "none"], "there is no run in none"),
        (
            &["verify", "r", "--matrix", "o.toml"],
            "r is not a run of this matrix: it asks 6 of carry_chain, not 5 of carry_chain",
        ),
    ] {
        fs::write(place.path("o.toml"), SMALL.replace("items = 6", "items = 5")).unwrap();
        let (code, out, err) = place.program(arguments);
        assert_eq!((code, &*out), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(says), "{arguments:?}: {err}");
    }
}

#[test]
fn questions_of_a_suite_of_ones_own_are_made_again_from_the_matrix_file() {
    let own = tempfile::tempdir().unwrap();
    let folder = own.path().join("own");
    fs::create_dir(&folder).unwrap();
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/carry_chain/suite.toml");
    fs::copy(suite, folder.join("suite.toml")).unwrap();
    let place = Place::new(&SMALL.replace("carry_chain", folder.to_str().unwrap()));
    let (code, _, err) = place.program(&["verify", "r"]);
    assert!(code == 2 && err.contains("the suite own is not in this binary"), "{code} {err}");
    assert!(err.contains("name the run's matrix file with --matrix"), "{err}");
    let (code, out, err) = place.program(&["verify", "r", "--matrix", "m.toml"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn a_record_or_a_line_that_was_damaged_does_not_hold() {
    let place = Place::new(&format!("{SMALL}batch = [1, 2]\n"));
    let [cell, other] = place.run().about.cells[..] else { panic!("there are two") };
    let healthy = place.done(other);
    // A line too few, under digests that fit.
    let kept = place.kept(cell);
    place.forge(cell, &kept[..5]);
    let verified = place.checked(20.0);
    assert_eq!(verified.verdict(), Outcome::Fail);
    assert_eq!((verified.mismatches[0].cell, verified.mismatches[0].difference.what), (Some(cell), "trace"));
    assert!(verified.mismatches[0].difference.recorded.contains("item 5: it ends before this"));
    // A token that the model does not know.
    let mut unknown = kept.clone();
    unknown[0].0.steps[0].token.id = u32::MAX;
    place.forge(cell, &unknown);
    let verified = place.checked(100.0);
    assert!(
        verified
            .mismatches
            .iter()
            .any(|mismatch| mismatch.difference.computed.contains("holds token 4294967295")),
        "{verified:#?}"
    );
    // A byte that no digest covers any more.
    place.forge(cell, &kept);
    let file = place.path("r/traces").join(healthy.trace.to_string()).join("samples.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"text\"", "\"test\"", 1)).unwrap();
    let verified = place.checked(20.0);
    assert!(verified.mismatches.iter().any(|mismatch| mismatch.difference.what == "record"), "{verified:#?}");
}
