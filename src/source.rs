//! What comes from outside: characters that hide in a text, and a file that a person wrote, with everything that is wrong
//! with it, each with its place.

use std::{fmt, ops::Range};

/// An error that knows whose fault it is.
pub trait Blame {
    /// Did the machine fail, such as its disk, its network or its memory, rather than what it was asked? The same command
    /// may then succeed later, or elsewhere.
    fn is_environment(&self) -> bool;
}

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

/// Does a character hide, or act on the text around it: a control character or a line's end of another kind, a mark of
/// direction, a tag, what has no width, a selector of how another one looks, a noncharacter?
pub fn hides(character: char) -> bool {
    let unseen = matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
        | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}');
    character.is_control() || unseen || u32::from(character) & 0xfffe == 0xfffe
}

/// Does a character hide that a text can do without? Joiners, and the two selectors by which emoji are drawn or written,
/// are a part of how many people write.
pub fn misleads(character: char) -> bool {
    hides(character) && !matches!(character, '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}')
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;

    /// Every character of the general category Cf, as Unicode 16 has them.
    const FORMATS: &[RangeInclusive<char>] = &[
        '\u{ad}'..='\u{ad}',
        '\u{600}'..='\u{605}',
        '\u{61c}'..='\u{61c}',
        '\u{6dd}'..='\u{6dd}',
        '\u{70f}'..='\u{70f}',
        '\u{890}'..='\u{891}',
        '\u{8e2}'..='\u{8e2}',
        '\u{180e}'..='\u{180e}',
        '\u{200b}'..='\u{200f}',
        '\u{202a}'..='\u{202e}',
        '\u{2060}'..='\u{2064}',
        '\u{2066}'..='\u{206f}',
        '\u{feff}'..='\u{feff}',
        '\u{fff9}'..='\u{fffb}',
        '\u{110bd}'..='\u{110bd}',
        '\u{110cd}'..='\u{110cd}',
        '\u{13430}'..='\u{1343f}',
        '\u{1bca0}'..='\u{1bca3}',
        '\u{1d173}'..='\u{1d17a}',
        '\u{e0001}'..='\u{e0001}',
        '\u{e0020}'..='\u{e007f}',
    ];

    #[test]
    fn whatever_controls_formats_turns_tags_or_selects_hides() {
        let controls = ['\0'..='\u{1f}', '\u{7f}'..='\u{9f}'];
        // Separators of lines and paragraphs, marks of direction, joiners, selectors, noncharacters.
        let others = [
            '\u{2028}'..='\u{2029}',
            '\u{202a}'..='\u{202e}',
            '\u{2066}'..='\u{2069}',
            '\u{200b}'..='\u{200d}',
            '\u{34f}'..='\u{34f}',
            '\u{180b}'..='\u{180f}',
            '\u{fe00}'..='\u{fe0f}',
            '\u{e0100}'..='\u{e01ef}',
            '\u{fdd0}'..='\u{fdef}',
            '\u{ffff}'..='\u{ffff}',
            '\u{10ffff}'..='\u{10ffff}',
        ];
        for range in FORMATS.iter().chain(&controls).chain(&others) {
            for character in range.clone() {
                assert!(hides(character), "{}", character.escape_unicode());
            }
        }
    }

    #[test]
    fn what_is_read_does_not_hide() {
        let read = "aZ09 ~é🦀中ش\u{a0}\u{3000}\u{301}\u{1f3fb}\u{ad00}\u{fffd}\u{e000}\u{fdcf}\u{fdf0}";
        for character in read.chars() {
            assert!(!hides(character), "{}", character.escape_unicode());
        }
    }

    #[test]
    fn of_what_hides_joiners_and_the_selectors_of_emoji_alone_do_not_mislead() {
        let kept = (0..=u32::from(char::MAX)).filter_map(char::from_u32);
        let kept: String = kept.filter(|character| hides(*character) && !misleads(*character)).collect();
        assert_eq!(kept, "\u{200c}\u{200d}\u{fe0e}\u{fe0f}");
    }
}
