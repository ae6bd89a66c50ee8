//! The maps of a matrix file: what each says takes the place of the file that says it, before anything else is read.

use std::{collections::BTreeMap, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    cell::{Axis, map},
    numerics::precision::file_of,
    source::Problems,
};

/// The folder of a matrix file, and what was read in it: the words of each map, or where it is first named and what is wrong.
struct Maps<'m> {
    folder: &'m Path,
    read: BTreeMap<String, Result<String, (Range<usize>, String)>>,
}

/// Puts the words of each map in the place of its file's name, wherever a precision is set.
pub(super) fn in_their_words(file: &mut DeTable<'_>, folder: &Path, problems: &mut Problems) {
    let mut maps = Maps { folder, read: BTreeMap::new() };
    maps.table(file);
    for (place, sentence) in maps.read.into_values().filter_map(Result::err) {
        problems.add(place, sentence);
    }
}

impl Maps<'_> {
    fn table(&mut self, table: &mut DeTable<'_>) {
        for (name, value) in table.iter_mut() {
            let name = name.get_ref().as_ref();
            match value.get_mut() {
                DeValue::Array(list) => list.iter_mut().for_each(|value| self.value(name, value)),
                _ => self.value(name, value),
            }
        }
    }

    fn value(&mut self, name: &str, value: &mut Spanned<DeValue<'_>>) {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) if name == Axis::Precision.name() => {
                let Some(file) = file_of(text).map(str::to_owned) else { return };
                let words = self.read.entry(file).or_insert_with_key(|file| {
                    let precision = map::open(self.folder, file);
                    precision.map(|map| map.to_string()).map_err(|wrong| (span.clone(), wrong.to_string()))
                });
                match words {
                    Ok(words) => *text = words.clone().into(),
                    // Keys do not come in the order of their places.
                    Err((place, _)) if span.start < place.start => *place = span,
                    Err(_) => {}
                }
            }
            // What a file says of a server is in words of that server.
            DeValue::Table(table) if name != Axis::Engine.name() => self.table(table),
            _ => {}
        }
    }
}
