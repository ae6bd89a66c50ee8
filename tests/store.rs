//! Traces on disk: what is written is read again, equal traces lie there once, and damage is seen.

use std::{fs, path::Path};

use proptest::prelude::*;
use reprocheck::{
    cell::Cell,
    digest::{Digest, MerkleTree},
    engine::environment::Environment,
    numerics::choice::Candidate,
    store::{
        partial::{Maker, Partial, Traits},
        parts::Parts,
        trace::{Line, Reader, TraceError, TreeFile, Writer, lines, sweep, verify},
    },
    suite::{
        answer::Answer,
        question::Question,
        score::{Outcome, Score, Scores},
        style::Style,
    },
    trace::{Finish, History, Launched, Sample, Seen, Sight, Step, Token},
};
use safetensors::SafeTensors;

fn scores() -> Scores {
    let score = Score { outcome: Outcome::Correct, answer: Some("7".to_owned()), rule: None, how: None };
    Scores { strict: score.clone(), flexible: score }
}

fn sample(item: u64, tokens: &[u32], text: &str) -> Sample {
    seen(Sight::Logits, item, tokens, text)
}

/// A sample of an engine that shows so much.
fn seen(sight: Sight, item: u64, tokens: &[u32], text: &str) -> Sample {
    let step = |(at, &token): (usize, &u32)| {
        let candidates = vec![
            Candidate { token, logit: 1.5 + at as f32 },
            Candidate { token: token ^ 1, logit: f32::NEG_INFINITY },
        ];
        let seen = match sight {
            Sight::Text | Sight::Tokens => Seen::Nothing,
            Sight::Top => Seen::Top(candidates),
            Sight::Logits => Seen::Logits {
                digest: Digest::of(&[item as u8, at as u8]),
                candidates,
                margin: f32::INFINITY,
                probability: 1.0 / (1 + at) as f32,
            },
        };
        Step { token: Token { id: token, seen }, rows: Some(3) }
    };
    Sample {
        item,
        prompt: vec![1],
        steps: tokens.iter().enumerate().map(step).collect(),
        text: text.to_owned(),
        finish: Finish::Stop,
        launch: Some(Launched {
            prefill: vec![1],
            threads: Some(1),
            has_unlike_copy: false,
            history: History::default(),
        }),
    }
}

fn write(store: &Path, samples: &[Sample]) -> Digest {
    write_seen(Sight::Logits, store, samples)
}

fn write_seen(sight: Sight, store: &Path, samples: &[Sample]) -> Digest {
    let mut writer = Writer::new(store, sight).unwrap();
    for sample in samples {
        writer.add(sample, scores()).unwrap();
    }
    let written = writer.finish(store).unwrap();
    let roots = samples
        .iter()
        .map(|sample| (sample.item, sample.root(sight)))
        .collect::<std::collections::BTreeMap<_, _>>();
    assert_eq!(written.root, MerkleTree::over(roots.into_values().collect()).root());
    written.digest
}

fn read(store: &Path, digest: Digest) -> Result<Vec<(Line, Vec<Token>)>, TraceError> {
    Reader::open(store, digest)?.collect()
}

fn folders(store: &Path) -> Vec<String> {
    let entries = fs::read_dir(store.join("traces")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

proptest! {
    #[test]
    fn what_is_written_is_read_again_however_much_is_seen(
        items in prop::collection::vec((prop::collection::vec(any::<u32>(), 0..9), ".{0,9}"), 0..9)
    ) {
        let store = tempfile::tempdir().unwrap();
        let mut digests = Vec::new();
        for sight in [Sight::Tokens, Sight::Top, Sight::Logits] {
            let samples = (0..).zip(&items).map(|(item, (tokens, text))| seen(sight, item, tokens, text));
            let samples: Vec<_> = samples.collect();
            let digest = write_seen(sight, store.path(), &samples);
            verify(store.path(), digest).unwrap();
            prop_assert_eq!(Reader::open(store.path(), digest).unwrap().sight(), sight);
            let found = read(store.path(), digest).unwrap();
            prop_assert_eq!(found.len(), samples.len());
            for ((line, seen), sample) in found.iter().zip(&samples) {
                prop_assert_eq!((line.item, &line.text, line.root), (sample.item, &sample.text, sample.root(sight)));
                prop_assert_eq!(&line.tokens, &sample.steps.iter().map(|step| step.token.id).collect::<Vec<_>>());
                prop_assert_eq!(&line.scores, &scores());
                prop_assert_eq!(seen, &sample.steps.iter().map(|step| step.token.clone()).collect::<Vec<_>>());
            }
            // Others read it too.
            let folder = store.path().join("traces").join(digest.to_string());
            let bytes = fs::read(folder.join("tokens.safetensors")).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let tokens: usize = items.iter().map(|(tokens, _)| tokens.len()).sum();
            let shape = |name: &str| file.tensor(name).ok().map(|tensor| tensor.shape().to_vec());
            let has = |least: Sight, shape: Vec<usize>| (sight >= least).then_some(shape);
            prop_assert_eq!(shape("digest"), has(Sight::Logits, vec![tokens, 32]));
            prop_assert_eq!(shape("margin"), has(Sight::Logits, vec![tokens]));
            // Without a token nobody sees how many candidates there are.
            if tokens > 0 {
                prop_assert_eq!(shape("candidate"), has(Sight::Top, vec![tokens, 2]));
            }
            digests.push(digest);
        }
        // Whatever they hold, traces of other sights are others.
        digests.dedup();
        prop_assert_eq!(digests.len(), 3);
    }
}

#[test]
fn equal_traces_lie_there_once_and_an_unfinished_one_leaves_nothing() {
    let store = tempfile::tempdir().unwrap();
    let samples = [sample(0, &[1, 2, 3], "abc"), sample(1, &[], "")];
    let digest = write(store.path(), &samples);
    assert_eq!(write(store.path(), &samples), digest);
    let other = write(store.path(), &samples[..1]);
    assert_ne!(other, digest);
    let mut unfinished = Writer::new(store.path(), Sight::Logits).unwrap();
    unfinished.add(&samples[0], scores()).unwrap();
    drop(unfinished);
    let mut names = [digest.to_string(), other.to_string()];
    names.sort();
    assert_eq!(folders(store.path()), names);
}

#[test]
fn the_order_in_which_items_come_does_not_matter() {
    let store = tempfile::tempdir().unwrap();
    let mut samples =
        [sample(0, &[1, 2, 3], "abc"), sample(1, &[], ""), sample(2, &[9], "x"), sample(7, &[4, 4], "dd")];
    let digest = write(store.path(), &samples);
    samples.rotate_left(1);
    samples.swap(0, 1);
    assert_eq!(write(store.path(), &samples), digest);
    let items: Vec<_> = read(store.path(), digest).unwrap().iter().map(|(line, _)| line.item).collect();
    assert_eq!(items, [0, 1, 2, 7]);
}

#[test]
fn every_flipped_byte_is_seen() {
    let store = tempfile::tempdir().unwrap();
    let digest = write(store.path(), &[sample(0, &[1, 2, 3], "abc"), sample(1, &[4], "d")]);
    let folder = store.path().join("traces").join(digest.to_string());
    for name in ["samples.jsonl", "tokens.safetensors", "tree.bin"] {
        let file = folder.join(name);
        let good = fs::read(&file).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&file, bad).unwrap();
            let error = verify(store.path(), digest).unwrap_err().to_string();
            assert!(error.contains("is not what was written there") && error.contains("--resume"), "{error}");
            // Whoever reads it all the same gets an error or other values, but never a panic.
            let _ = read(store.path(), digest);
        }
        for length in 0..good.len() {
            fs::write(&file, &good[..length]).unwrap();
            assert!(verify(store.path(), digest).is_err(), "{name} {length}");
            let _ = read(store.path(), digest);
        }
        fs::write(&file, &good).unwrap();
    }
    verify(store.path(), digest).unwrap();
    // Another version might write another form.
    let file = folder.join("tokens.safetensors");
    let good = fs::read(&file).unwrap();
    let at = good.windows(6).position(|word| word == b"margin").unwrap();
    let mut other = good.clone();
    other[at] = b'M';
    fs::write(&file, other).unwrap();
    let error = read(store.path(), digest).unwrap_err().to_string();
    assert!(error.contains("its tensors have other forms than this version writes"), "{error}");
    fs::remove_file(&file).unwrap();
    let error = verify(store.path(), digest).unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("--resume"), "{error}");
    assert!(matches!(read(store.path(), digest), Err(TraceError::Read { .. })));
    // Whoever makes the same again mends it.
    assert_eq!(write(store.path(), &[sample(0, &[1, 2, 3], "abc"), sample(1, &[4], "d")]), digest);
    verify(store.path(), digest).unwrap();
    assert_eq!(folders(store.path()), [digest.to_string()]);
}

#[test]
fn files_that_do_not_fit_together_are_told() {
    let store = tempfile::tempdir().unwrap();
    let one = write(store.path(), &[sample(0, &[1, 2, 3], "abc")]);
    let two = write(store.path(), &[sample(0, &[1, 2, 3], "abc"), sample(1, &[4], "d")]);
    let folder = |digest: Digest| store.path().join("traces").join(digest.to_string());
    let copy = |from: Digest, to: Digest, name: &str| {
        fs::copy(folder(from).join(name), folder(to).join(name)).unwrap();
    };
    copy(two, one, "tokens.safetensors");
    let error = read(store.path(), one).unwrap_err().to_string();
    assert!(error.contains("samples.jsonl: it ends 1 tokens before tokens.safetensors does"), "{error}");
    let one = write(store.path(), &[sample(0, &[1, 2], "ab")]);
    copy(one, two, "tokens.safetensors");
    let error = read(store.path(), two).unwrap_err().to_string();
    assert!(error.contains("line 1: it has more tokens than tokens.safetensors"), "{error}");
}

#[test]
fn a_reader_that_pauses_goes_on_where_it_was_and_lines_are_read_in_any_order() {
    let store = tempfile::tempdir().unwrap();
    let samples: Vec<_> = (0..9).map(|item| sample(item, &vec![7; item as usize % 4], "é\n")).collect();
    let digest = write(store.path(), &samples);
    let all = read(store.path(), digest).unwrap();
    let mut reader = Reader::open(store.path(), digest).unwrap();
    for item in 0..9 {
        if item % 2 == 0 {
            reader.pause();
        }
        assert_eq!(reader.expect(item).unwrap(), all[item as usize]);
    }
    reader.end().unwrap();
    let mut reader = Reader::open(store.path(), digest).unwrap();
    assert!(reader.expect(3).unwrap_err().to_string().contains("item 3: item 0 stands in its place"));
    assert!(reader.end().unwrap_err().to_string().contains("item 1: there is no such question"));
    let mut lines = lines(store.path(), digest).unwrap();
    assert_eq!(lines.len(), 9);
    for item in [8, 0, 3, 4, 5, 1, 1] {
        assert_eq!(lines.get(item).unwrap(), all[item as usize].0);
    }
    assert!(lines.get(9).is_err());
}

#[test]
fn two_trees_tell_the_first_item_that_differs_through_few_nodes() {
    let store = tempfile::tempdir().unwrap();
    for items in [1, 2, 3, 5, 8, 13, 100] {
        let samples: Vec<_> = (0..items).map(|item| sample(item, &[1, 2], "ab")).collect();
        let digest = write(store.path(), &samples);
        let open = |digest| TreeFile::open(store.path(), digest).unwrap();
        assert_eq!(open(digest).first_difference(&mut open(digest)).unwrap(), None);
        for at in 0..items {
            // All items from there on differ.
            let mut other = samples.clone();
            other[at as usize..].iter_mut().for_each(|sample| sample.steps[1].token.id = 3);
            let (found, nodes) =
                open(digest).first_difference(&mut open(write(store.path(), &other))).unwrap().unwrap();
            assert_eq!(found, at);
            assert!(nodes <= 2 + items.ilog2() as usize, "{nodes} nodes for {items} items");
        }
        let shorter = write(store.path(), &samples[..items as usize - 1]);
        let (found, _) = open(digest).first_difference(&mut open(shorter)).unwrap().unwrap();
        assert_eq!(found, items - 1);
    }
}

#[test]
fn what_a_killed_writer_left_is_swept_away() {
    let store = tempfile::tempdir().unwrap();
    sweep(store.path()).unwrap();
    let digest = write(store.path(), &[sample(0, &[1], "a")]);
    let mut unfinished = Writer::new(store.path(), Sight::Logits).unwrap();
    unfinished.add(&sample(0, &[1], "a"), scores()).unwrap();
    std::mem::forget(unfinished);
    let entries = || fs::read_dir(store.path()).unwrap().count();
    assert_eq!(entries(), 2);
    sweep(store.path()).unwrap();
    assert_eq!((entries(), folders(store.path())), (1, vec![digest.to_string()]));
}

#[test]
fn many_writers_share_a_store_and_whoever_reads_there_sees_whole_traces() {
    let store = tempfile::tempdir().unwrap();
    let of = |number: u32| [sample(0, &[number, 2, 3], "abc"), sample(1, &[number], "d")];
    let alone = tempfile::tempdir().unwrap();
    let digests: Vec<_> = (0..5).map(|number| write(alone.path(), &of(number))).collect();
    let written = |round: usize, writer: usize| {
        let own = tempfile::tempdir_in(store.path()).unwrap();
        let number = (round + writer) % digests.len();
        let mut writer = Writer::new(own.path(), Sight::Logits).unwrap();
        for sample in of(number as u32) {
            writer.add(&sample, scores()).unwrap();
        }
        assert_eq!(writer.finish(store.path()).unwrap().digest, digests[number]);
        assert_eq!(verify(store.path(), digests[number]).map_err(|error| error.to_string()), Ok(()));
    };
    let done = std::sync::atomic::AtomicUsize::new(0);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        for writer in 0..6 {
            let (written, done) = (&written, &done);
            scope.spawn(move || {
                (0..30).for_each(|round| written(round, writer));
                done.fetch_add(1, order);
            });
        }
        // A trace is whole or not there.
        while done.load(order) < 6 {
            for digest in &digests {
                match verify(store.path(), *digest) {
                    Ok(()) => {}
                    Err(TraceError::Read { error, .. }) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::NotFound)
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    let mut names: Vec<_> = digests.iter().map(ToString::to_string).collect();
    names.sort();
    assert_eq!(folders(store.path()), names);
    // What befell a trace in between is mended by the next of many who write it.
    let place = store.path().join("traces").join(digests[0].to_string());
    fs::write(place.join("samples.jsonl"), "damaged").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| written(0, 0));
        }
    });
    assert_eq!(folders(store.path()), names);
    // Nor does a leftover of one go with what another sweeps.
    let [one, other] = [0, 1].map(|_| tempfile::tempdir_in(store.path()).unwrap());
    let mut unfinished = Writer::new(one.path(), Sight::Logits).unwrap();
    sweep(other.path()).unwrap();
    sweep(store.path()).unwrap();
    unfinished.add(&sample(0, &[9], "a"), scores()).unwrap();
    unfinished.finish(store.path()).unwrap();
}

#[test]
fn parts_lie_there_one_after_the_other_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("of/parts.txt");
    let write = |text: &str| {
        let mut parts = Parts::new(&path, 2).unwrap();
        for at in 0..3 {
            for part in [2, 0, 1] {
                parts.write(part, format!("{text}{part}{at} ").as_bytes()).unwrap();
            }
        }
        // More than any buffer holds.
        parts.write(1, &[b'x'; 100_000]).unwrap();
        parts
    };
    let expected = |text: &str| {
        let parts = [0, 1, 2].map(|part| [0, 1, 2].map(|at| format!("{text}{part}{at} ")).concat());
        parts[0].clone() + &parts[1] + &"x".repeat(100_000) + &parts[2]
    };
    let names = || fs::read_dir(path.parent().unwrap()).unwrap().count();
    drop(write("a"));
    assert_eq!(names(), 0);
    write("b").finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), expected("b"));
    drop(write("c"));
    assert_eq!(fs::read_to_string(&path).unwrap(), expected("b"));
    write("d").finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), expected("d"));
    assert_eq!(names(), 1);
    // A file is where a folder would have to be.
    let error = Parts::new(&path.join("more.txt"), 1).err().unwrap().to_string();
    assert!(error.starts_with("cannot write ") && error.contains("choose another place"), "{error}");
}

// --------------------------------------------------------------------------------------------- cells that still run

/// What is asked where these samples are the answers.
fn questions(samples: &[Sample]) -> Vec<Question> {
    let question = |sample: &Sample| Question {
        item: sample.item,
        suite: "s".to_owned(),
        id: "i".to_owned(),
        stratum: "1".to_owned(),
        cluster: None,
        prompt: String::new(),
        tokens: sample.prompt.clone(),
        max_new_tokens: 9,
        stop: Vec::new(),
        answer: Answer::integer(7),
        read_as: Style::Compact,
    };
    samples.iter().map(question).collect()
}

fn maker() -> Maker {
    Maker {
        cell: Cell::default(),
        work: Digest::of(b"work"),
        replays: None,
        environment: Environment { engine: "lab".to_owned(), facts: [].into() },
        sight: Sight::Logits,
        traits: Traits { sums: [1; 4], functions: None, cost: None },
    }
}

fn groups() -> Vec<Vec<Sample>> {
    vec![
        vec![sample(0, &[1, 2, 3], "abc"), sample(1, &[], "")],
        vec![seen(Sight::Top, 3, &[4], "d"), seen(Sight::Tokens, 2, &[5], "\n")],
        vec![sample(4, &[7], "é")],
    ]
}

/// The groups that are believed, and why no more are.
fn believed(store: &Path, maker: Maker) -> (usize, Option<String>) {
    let mut partial = Partial::open(store, maker).unwrap();
    for (at, group) in groups().iter().enumerate() {
        match partial.next(&questions(group)) {
            Ok(Some(samples)) => assert_eq!(&samples, group),
            Ok(None) => return (at, None),
            Err(error) => {
                assert!(partial.next(&questions(group)).unwrap().is_none());
                return (at, Some(error.to_string()));
            }
        }
    }
    (3, None)
}

#[test]
fn a_cell_goes_on_where_its_file_ends_and_no_flipped_byte_is_believed() {
    let store = tempfile::tempdir().unwrap();
    let write = || {
        let mut partial = Partial::open(store.path(), maker()).unwrap();
        for group in groups() {
            if partial.next(&questions(&group)).ok().flatten().is_none() {
                partial.add(&group, std::time::Duration::from_secs(1)).unwrap();
            }
        }
    };
    write();
    let mut files = fs::read_dir(store.path().join("cells")).unwrap();
    let file = files.next().unwrap().unwrap().path();
    let good = fs::read(&file).unwrap();
    let ends: Vec<_> = (1..).zip(&good).filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end).collect();
    assert_eq!(ends.len(), 3);
    for at in 0..good.len() {
        for bit in [0, 5] {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            fs::write(&file, &bad).unwrap();
            let line = ends.iter().filter(|end| **end <= at).count();
            let (groups, problem) = believed(store.path(), maker());
            assert!(groups == line && problem.is_some(), "byte {at}: {groups} {problem:?}");
        }
    }
    for length in 0..good.len() {
        fs::write(&file, &good[..length]).unwrap();
        let whole = ends.iter().filter(|end| **end <= length).count();
        let (groups, problem) = believed(store.path(), maker());
        assert_eq!(groups, whole);
        assert_eq!(problem.is_some(), length > 0 && !ends.contains(&length), "{length}");
        // What was not believed is gone, and what is made again lies where it would have.
        let left = if groups == 0 { 0 } else { ends[groups - 1] };
        assert_eq!(fs::read(&file).unwrap(), &good[..left]);
    }
    fs::write(&file, &good[..ends[1] + 5]).unwrap();
    write();
    assert_eq!(believed(store.path(), maker()), (3, None));
    for (other, problem) in [
        (Maker { work: Digest::of(b"other"), ..maker() }, "it is of another run"),
        (Maker { replays: Some(Digest::of(b"")), ..maker() }, "it is of another run"),
        (
            Maker { environment: Environment { engine: "x".to_owned(), facts: [].into() }, ..maker() },
            "lab made it in another environment",
        ),
    ] {
        fs::write(&file, &good).unwrap();
        let (groups, found) = believed(store.path(), other);
        assert!(groups == 0 && found.as_ref().unwrap().contains(problem), "{found:?}");
        assert!(found.unwrap().ends_with("; the items from there on run again"));
    }
}
