//! A table before it has a format: its columns, its rows, and how it is to be read.

use super::words::without_shared;

/// Rows below a line of names.
pub(crate) struct Table {
    /// What it shows, in a few words.
    pub(crate) title: String,
    /// What each column holds.
    pub(crate) columns: Vec<Column>,
    /// As many texts in each as there are columns.
    pub(crate) rows: Vec<Vec<String>>,
    /// How it is to be read.
    pub(crate) sentence: String,
    /// What a row stands for.
    pub(crate) noun: &'static str,
    /// For how many of them each row stands.
    pub(crate) alike: Option<Vec<u64>>,
}

/// What a column holds.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    /// Above it.
    pub(crate) head: &'static str,
    /// Words, or numbers.
    pub(crate) is_word: bool,
    /// Where it is shown.
    room: Room,
}

/// How much room a column wants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// That of 80 letters.
    Narrow,
    /// That of a wide terminal.
    Wide,
    /// That of a page, on which tables scroll.
    Page,
}

impl Column {
    pub(super) const fn word(head: &'static str) -> Column {
        Column { head, is_word: true, room: Room::Narrow }
    }

    pub(super) const fn number(head: &'static str) -> Column {
        Column { head, is_word: false, room: Room::Narrow }
    }

    pub(super) const fn extra(head: &'static str) -> Column {
        Column { head, is_word: false, room: Room::Wide }
    }

    pub(super) const fn of_page(head: &'static str) -> Column {
        Column { head, is_word: false, room: Room::Page }
    }
}

impl Table {
    /// Without what wants more room.
    pub(crate) fn within(mut self, room: Room) -> Table {
        let kept: Vec<bool> = self.columns.iter().map(|column| column.room <= room).collect();
        for row in &mut self.rows {
            let mut kept = kept.iter();
            row.retain(|_| kept.next() == Some(&true));
        }
        self.columns.retain(|column| column.room <= room);
        self
    }

    /// With names of cells that leave out what all of them share, and say so below.
    pub(crate) fn short(mut self) -> Table {
        let names = self.rows.iter().map(|row| row[0].clone()).collect();
        let (names, shared) = without_shared(names);
        for (row, name) in self.rows.iter_mut().zip(names) {
            row[0] = name;
        }
        self.sentence += &shared;
        self
    }
}
