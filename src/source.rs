//! A file that a person wrote, and everything that is wrong with it, each with its place.

use std::{fmt, ops::Range};

/// What is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The bytes it is about; the whole file where there are none.
    pub span: Option<Range<usize>>,
    /// The sentence, which ends with the way out.
    pub sentence: String,
}

/// Everything that is wrong with a file, in the order of the places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problems {
    file: String,
    text: String,
    problems: Vec<Problem>,
}

impl std::error::Error for Problems {}

impl Problems {
    /// Of a file of this name with this text.
    pub fn new(file: &str, text: &str) -> Problems {
        Problems { file: file.to_owned(), text: text.to_owned(), problems: Vec::new() }
    }

    /// One more.
    pub fn add(&mut self, span: impl Into<Option<Range<usize>>>, sentence: impl Into<String>) {
        let problem = Problem { span: span.into(), sentence: sentence.into() };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The problems, if there are any.
    ///
    /// # Errors
    ///
    /// The problems.
    pub fn none(mut self) -> Result<Problems, Problems> {
        if self.problems.is_empty() {
            return Ok(self);
        }
        self.problems.sort_by_key(|problem| problem.span.as_ref().map(|span| (span.start, span.end)));
        Err(self)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    /// The line of a place, counted from 1.
    pub fn line(&self, at: usize) -> usize {
        1 + self.text[..self.text.floor_char_boundary(at)].matches('\n').count()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Problem { span, sentence }) in self.problems.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            let Some(Range { start, end }) = span else {
                write!(f, "{}: {sentence}", self.file)?;
                continue;
            };
            let (start, end) = (self.text.floor_char_boundary(*start), self.text.floor_char_boundary(*end));
            let line_start = self.text[..start].rfind('\n').map_or(0, |end| end + 1);
            let line = self.text[line_start..].lines().next().unwrap_or_default();
            // A place that goes on in other lines is marked in its first.
            let marked = &self.text[start..end.clamp(start, line_start + line.len())];
            write!(
                f,
                "{}:{}: {sentence}\n  | {line}\n  | {}{}",
                self.file,
                self.line(start),
                blank(&self.text[line_start..start]),
                "^".repeat(marked.chars().count().max(1))
            )?;
        }
        Ok(())
    }
}

/// As much room as a text takes: tabs stay tabs.
fn blank(text: &str) -> String {
    text.chars().map(|character| if character == '\t' { '\t' } else { ' ' }).collect()
}
