//! Every reader of what somebody else wrote, over every input that was ever worth keeping: none ends the program, or hangs it.
//! What goes beyond those inputs is `.ci/fuzz`.

#[path = "fuzz/readers.rs"]
mod readers;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use self::readers::READERS;

/// No input of a corpus takes longer, on the slowest machine and without the optimizer.
const MOST: Duration = Duration::from_secs(60);

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

#[test]
fn every_reader_survives_its_corpus() {
    for reader in READERS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpora().join(reader.name)).expect(reader.name) {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let start = Instant::now();
            let read = std::panic::catch_unwind(|| (reader.read)(&bytes, folder.path()));
            assert!(read.is_ok(), "{} ends the program: see above", path.display());
            assert!(start.elapsed() < MOST, "{} takes {:?}", path.display(), start.elapsed());
            inputs += 1;
        }
        assert!(inputs > 0, "the reader {} has no inputs: give it some", reader.name);
    }
}

#[test]
fn every_corpus_has_its_reader() {
    let names: BTreeSet<_> = READERS.iter().map(|reader| reader.name.to_owned()).collect();
    let folders =
        fs::read_dir(corpora()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(folders.collect::<BTreeSet<_>>(), names);
}
