//! The maps, calibrations and programs of a matrix file: what each says, or what stands for it, takes the place of the file, before anything else
//! is read.

use std::{borrow::Cow, collections::BTreeMap, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    cell::{Axis, map},
    numerics::{
        functions::program,
        precision::{file_in, file_of},
    },
    source::Problems,
};

/// The folder of a matrix file, and what was read in it: the words of each setting that names a file, or where it first stands and
/// what is wrong.
struct Maps<'m> {
    folder: &'m Path,
    read: BTreeMap<String, Result<String, (Range<usize>, String)>>,
}

/// Puts the words of each such setting in its place, wherever it stands.
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
            DeValue::String(text)
                if [Axis::Precision, Axis::Functions].iter().any(|axis| name == axis.name()) =>
            {
                if file_of(text).is_none() && file_in(text).is_none() && program::file_of(text).is_none() {
                    return;
                }
                let words = self.read.entry(text.as_ref().to_owned()).or_insert_with_key(|named| {
                    let words = map::in_its_words(named, self.folder);
                    words.map(Cow::into_owned).map_err(|wrong| (span.clone(), wrong.to_string()))
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
