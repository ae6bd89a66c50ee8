//! The suites that a matrix file names, and how many items of each, in which style.

use std::{collections::HashSet, ops::Range};

use toml::de::{DeTable, DeValue};

use super::{Reader, many, text};
use crate::{
    plan::{
        Asked,
        shape::{self, all_of},
    },
    suite::{Suite, style::Style},
};

/// More than anybody waits for.
const MOST_ITEMS: u64 = 1_000_000;

/// What a table says of suites, if it says anything.
#[derive(Clone, Default)]
struct Asking<'v> {
    items: Option<(Range<usize>, Items<'v>)>,
    item_seed: Option<u64>,
    style: Option<(Range<usize>, Style)>,
    shots: Option<u64>,
}

#[derive(Clone, Copy)]
enum Items<'v> {
    Size(&'v str),
    Count(u64),
}

impl<'v> Asking<'v> {
    fn read(table: &'v DeTable<'_>) -> Asking<'v> {
        let number = |name: &str| shape::count(table.get(name)?.get_ref());
        Asking {
            items: table.get("items").and_then(|value| {
                let items =
                    text(value).map(Items::Size).or_else(|| shape::count(value.get_ref()).map(Items::Count));
                Some((value.span(), items?))
            }),
            item_seed: number("item-seed"),
            style: table.get("style").and_then(|value| Some((value.span(), text(value)?.parse().ok()?))),
            shots: number("shots"),
        }
    }

    fn or(self, other: &Asking<'v>) -> Asking<'v> {
        let other = other.clone();
        Asking {
            items: self.items.or(other.items),
            item_seed: self.item_seed.or(other.item_seed),
            style: self.style.or(other.style),
            shots: self.shots.or(other.shots),
        }
    }
}

impl Reader<'_, '_> {
    pub(super) fn suites(&mut self) -> Vec<Asked> {
        let general = Asking::read(self.table);
        let Some(list) = self.table.get("suites") else {
            self.problems.add(
                None,
                "`suites` is missing: name some, such as suites = [\"carry_chain\", \"mul_ladder\"]",
            );
            return Vec::new();
        };
        let mut seen = HashSet::new();
        let mut suites = Vec::new();
        for entry in many(list) {
            let (name, own) = match entry.get_ref() {
                DeValue::Table(table) => (table.get("name").and_then(text), Asking::read(table)),
                _ => (text(entry), Asking::default()),
            };
            let Some(name) = name else { continue };
            let span = entry.span();
            // Paths begin at the file that names them.
            let is_path = name.contains(['/', '\\']);
            let place = if is_path { self.folder.join(name).display().to_string() } else { name.to_owned() };
            match Suite::open(&place) {
                Ok(suite) => {
                    if !seen.insert(suite.name.clone()) {
                        self.problems.add(span, format!("`{}` comes up twice: take one out", suite.name));
                    } else if let Some(asked) = self.asked(suite, span, own.or(&general)) {
                        suites.push(asked);
                    }
                }
                Err(error) => self.problems.add(span, error.to_string()),
            }
        }
        suites
    }

    fn asked(&mut self, suite: Suite, span: Range<usize>, asking: Asking<'_>) -> Option<Asked> {
        let items = match asking.items.clone() {
            None | Some((_, Items::Size("std"))) => suite.sizes.std,
            Some((_, Items::Size("quick"))) => suite.sizes.quick,
            Some((_, Items::Size(_))) => suite.sizes.full,
            Some((place, Items::Count(items))) => {
                let there_are = suite.count();
                if there_are.is_some_and(|there_are| there_are < items) {
                    let there_are = there_are.unwrap_or_default();
                    let sentence =
                        format!("`{}` has {there_are} items, not {items}: ask for fewer", suite.name);
                    self.problems.add(place, sentence);
                    return None;
                }
                items
            }
        };
        if items > MOST_ITEMS {
            let sentence = format!("at most {MOST_ITEMS} items are allowed, not {items}: ask for fewer");
            self.problems.add(asking.items.map_or(span, |(place, _)| place), sentence);
            return None;
        }
        let style = asking.style.map(|(place, style)| {
            if suite.limits.of(style).is_none() {
                let styles: Vec<_> = suite.styles().iter().map(ToString::to_string).collect();
                let names: Vec<_> = styles.iter().map(String::as_str).collect();
                // At the suite, if its own table does not say so: the file's style suits the others.
                let place = if span.contains(&place.start) { place } else { span };
                let sentence =
                    format!("`{}` is not asked in `{style}`: {}", suite.name, all_of("it is in", &names));
                self.problems.add(place, sentence);
            }
            style
        });
        Some(Asked {
            suite,
            items,
            item_seed: asking.item_seed.unwrap_or(0),
            style,
            shots: asking.shots.unwrap_or(0) as usize,
        })
    }
}
