//! Programs as files: straight-line `f32` code for the functions that a model calls.
//!
//! ```text
//! # 2^n * (1 + r + r^2/2), where x = (n + r) * ln 2.
//! function exp(x)
//! t = mul x 0x3FB8AA3B
//! n = floor t
//! ...
//! return y
//! ```
//!
//! A line names what an operation gives, once. It reads the argument, names of lines before it, and constants by the bits of an `f32`.
//! What stands behind `#` is for people. Functions that a file does not give are exact.

use std::{collections::HashMap, fs, ops::Range, path::Path};

use super::axis::Axis;
use crate::{
    digest::Digest,
    name::shortened,
    numerics::functions::{
        Called, Functions,
        program::{Code, MOST_STEPS, Operation, Program, Read, file_of},
    },
    source::Problems,
};

/// After so many problems no more is read: such a file is no program.
const MOST_PROBLEMS: usize = 64;

/// A function while it is read.
struct Reading {
    /// Which; nothing where its first line does not say, and then its other lines say nothing either.
    called: Option<Called>,
    /// Where its first line is.
    start: Range<usize>,
    names: HashMap<String, Read>,
    lines: Vec<(Operation, Vec<Read>)>,
    /// Is something wrong with a line of it? Then it is not made.
    is_broken: bool,
    result: Option<Read>,
}

/// Reads a file, which problems call `file`.
///
/// # Errors
///
/// Everything that is wrong with its lines.
pub fn read(file: &str, text: &str) -> Result<Program, Problems> {
    let mut problems = Problems::new(file, text);
    let mut all: Vec<Reading> = Vec::new();
    for line in text.lines() {
        let words = line.split('#').next().unwrap_or_default().trim();
        if words.is_empty() {
            continue;
        }
        let place = |part: &str| {
            let start = part.as_ptr() as usize - text.as_ptr() as usize;
            start..start + part.len()
        };
        let wrong = match (words.strip_prefix("function "), all.last_mut()) {
            (Some(head), _) => {
                let (called, argument, wrong) = match begun(head, &all) {
                    Ok((called, argument)) => (Some(called), argument, None),
                    Err(wrong) => (None, "", Some(wrong)),
                };
                all.push(Reading {
                    called,
                    start: place(words),
                    names: HashMap::from([(argument.to_owned(), Read::Argument)]),
                    lines: Vec::new(),
                    is_broken: false,
                    result: None,
                });
                wrong
            }
            (None, Some(reading)) => {
                let wrong = reading.called.and_then(|_| reading.add(words).err());
                reading.is_broken |= wrong.is_some();
                wrong
            }
            (None, None) => {
                Some((words, "a function begins with its name: write function exp(x) before it".to_owned()))
            }
        };
        if let Some((part, sentence)) = wrong {
            problems.add(place(part), sentence);
        }
        if problems.count() == MOST_PROBLEMS {
            break;
        }
    }
    if all.is_empty() && problems.count() == 0 {
        problems.add(None, "it gives no function: begin with a line such as function exp(x)");
    }
    let mut functions: Vec<(Called, Code)> = Vec::new();
    for Reading { called, start, lines, is_broken, result, .. } in all {
        match (called, result) {
            (Some(_), None) => {
                problems.add(start, "this function returns nothing: end it with a line such as return y");
            }
            (Some(called), Some(result)) if !is_broken => {
                functions.extend(Code::new(&lines, result).map(|code| (called, code)));
            }
            // What is wrong with it has been told.
            _ => {}
        }
    }
    problems.none()?;
    let sha256 = Digest::of(text.as_bytes()).to_string();
    Program::learned(&sha256, text, functions).map_err(|error| nothing(file, error))
}

/// A function and its argument, by what stands behind the word.
fn begun<'t>(head: &'t str, before: &[Reading]) -> Result<(Called, &'t str), (&'t str, String)> {
    let head = head.trim_start();
    let (name, argument) = head
        .strip_suffix(')')
        .and_then(|head| head.split_once('('))
        .filter(|(_, argument)| is_name(argument))
        .ok_or_else(|| (head, "a function has one argument: write function exp(x)".to_owned()))?;
    let called: Called = name.parse().map_err(|error| (name, format!("no model calls this ({error})")))?;
    if before.iter().any(|reading| reading.called == Some(called)) {
        return Err((name, format!("`{name}` is given above: keep one of the two")));
    }
    Ok((called, argument))
}

impl Reading {
    /// Adds a line, or says which part of it is wrong and why.
    fn add<'t>(&mut self, line: &'t str) -> Result<(), (&'t str, String)> {
        if self.result.is_some() {
            return Err((line, "the function has returned: take this out, or begin another one".to_owned()));
        }
        if let Some(("return", value)) = line.split_once(' ') {
            self.result =
                Some(self.value(value.trim_start()).inspect_err(|_| self.result = Some(Read::Argument))?);
            return Ok(());
        }
        let Some((name, words)) = line.split_once('=') else {
            return Err((
                line,
                "this is neither a line such as t = mul x y nor return y: write one of them".to_owned(),
            ));
        };
        let name = name.trim_end();
        if !is_name(name) {
            let sentence = "a name has letters, digits and `_`, begins with a letter, and has up to 32 of them: write one";
            return Err((name, sentence.to_owned()));
        }
        // Whatever is wrong behind it, what follows may read it.
        let number = self.lines.len();
        if self.names.insert(name.to_owned(), Read::Step(number)).is_some() {
            return Err((
                name,
                format!("`{name}` is given above, and a name has one value: write another name"),
            ));
        }
        let mut words = words.split_whitespace();
        let word = words.next().unwrap_or(line);
        let operation: Operation = word.parse().map_err(|error| (word, format!("{error}")))?;
        let read: Vec<&str> = words.collect();
        if read.len() != operation.takes() {
            let (takes, given) = (operation.takes(), read.len());
            return Err((
                line,
                format!("`{operation}` takes {takes}, not {given}: write so many names or constants"),
            ));
        }
        if number == MOST_STEPS {
            return Err((line, format!("a function has up to {MOST_STEPS} lines: make it shorter")));
        }
        let own = self.names.remove(name);
        let read = read.into_iter().map(|value| self.value(value)).collect::<Result<Vec<_>, _>>();
        self.names.extend(own.map(|own| (name.to_owned(), own)));
        self.lines.push((operation, read?));
        Ok(())
    }

    fn value<'t>(&self, word: &'t str) -> Result<Read, (&'t str, String)> {
        if let Some(digits) = word.strip_prefix("0x") {
            let is_whole = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let bits = u32::from_str_radix(digits, 16).ok().filter(|_| is_whole);
            return bits.map(Read::Constant).ok_or_else(|| {
                (
                    word,
                    "the bits of an f32 have eight hexadecimal digits: write for example 0x3F800000"
                        .to_owned(),
                )
            });
        }
        if let Some(read) = self.names.get(word) {
            return Ok(*read);
        }
        Err((
            word,
            match word.parse::<f32>() {
                Ok(number) if !is_name(word) => {
                    format!("a constant is written by its bits: write 0x{:08X}", number.to_bits())
                }
                _ => format!("nothing above is called `{}`: write a name that has a value", shortened(word)),
            },
        ))
    }
}

fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    text.len() <= 32
        && text.bytes().next().is_some_and(is_letter)
        && text.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// A problem of a whole file.
fn nothing(file: &str, sentence: String) -> Problems {
    let mut problems = Problems::new(file, "");
    problems.add(None, sentence);
    problems
}

/// Reads the file of that name in a folder.
///
/// # Errors
///
/// When there is none, or what is wrong with it.
pub fn open(folder: &Path, name: &str) -> Result<Program, Problems> {
    let path = folder.join(name);
    let file = path.display().to_string();
    if name.is_empty() || name.contains(['/', '\\']) {
        return Err(nothing(
            &file,
            "a program lies beside the matrix file, or where the program runs: write program:FILE, with its name and no folder"
                .to_owned(),
        ));
    }
    let text = fs::read_to_string(&path).map_err(|error| {
        nothing(&file, format!("it cannot be read ({error}): put the program there, beside the matrix file"))
    })?;
    read(&file, &text)
}

/// What stands for a program in the place of its file, which lies in this folder: in a setting of `functions`, or in the part of a
/// cell's name that is one. Nothing where it names no file.
///
/// # Errors
///
/// What is wrong with the file.
pub fn in_its_words(part: &str, folder: &Path) -> Result<Option<String>, Problems> {
    let tag = Axis::Functions.entry().tag;
    let (tag, setting) = part.strip_prefix(tag).map_or(("", part), |setting| (tag, setting));
    let Some(file) = file_of(setting) else { return Ok(None) };
    Ok(Some(format!("{tag}{}", Functions::Program(open(folder, file)?))))
}
