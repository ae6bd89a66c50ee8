//! The head of a GGUF file: its keys and where its tensors are, believed only as far as they are checked.
//!
//! A file is its magic, its version, two counts, the keys with their values, what there is to know of every tensor, and
//! the tensors' values, each aligned. Every length is held to what is left of the file before anything is made of it.
//! Candle's reader, which is in the tree, takes tensors that overlap, names that stand there twice and files of version 1,
//! and knows no IQ4_NL.

use std::collections::BTreeMap;

use super::{
    GgufError,
    metadata::{Metadata, Value},
};
use crate::model::{
    file::{PIECE, Source},
    weights::{Place, Stored},
};

const MAGIC: [u8; 4] = *b"GGUF";
/// The versions whose lengths have 64 bits; the first had 32, and nobody has written it since 2023.
const VERSIONS: [u32; 2] = [2, 3];
const ALIGNMENT: &str = "general.alignment";
/// What ggml itself allows.
const MOST_DIMENSIONS: u32 = 4;
const LONGEST_NAME: u64 = 1 << 16;
/// The longest chat templates have some ten thousand bytes.
const LONGEST_TEXT: u64 = 16 << 20;

/// Reads keys and places.
pub(super) fn read(source: &Source) -> Result<(Metadata, BTreeMap<String, Place>), GgufError> {
    let mut reader = Reader { source, next: 0, buffer: Vec::new(), used: 0 };
    if source.size < MAGIC.len() as u64 || reader.array::<4>("the magic")? != MAGIC {
        return Err(GgufError::NoGguf { file: source.label.clone() });
    }
    let version = reader.u32("the version")?;
    if !VERSIONS.contains(&version) {
        return Err(GgufError::Version { file: source.label.clone(), version });
    }
    let tensors = reader.u64("the number of tensors")?;
    let keys = reader.u64("the number of keys")?;
    // A key takes a length, a letter, a type and a value; a tensor a length, a letter, and five numbers.
    reader.must_hold("the keys", keys, 8 + 1 + 4 + 1)?;
    reader.must_hold("the list of tensors", tensors, 8 + 1 + 4 + 8 + 4 + 8)?;

    let mut values = BTreeMap::new();
    for _ in 0..keys {
        let at = reader.at();
        let key = reader.name("a key")?;
        let value = reader.value(&format!("`{key}`"))?;
        if values.insert(key.clone(), value).is_some() {
            return Err(reader.damaged(at, format!("the key `{key}` stands there twice")));
        }
    }
    let metadata = Metadata { file: source.label.clone(), values };
    let alignment = match metadata.whole(ALIGNMENT)? {
        None => 32,
        Some(alignment) if alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment) => alignment,
        Some(_) => {
            return Err(metadata.wrong(ALIGNMENT, "not a power of two from 8 up", "fetch the file again"));
        }
    };

    let mut places = BTreeMap::new();
    for _ in 0..tensors {
        let at = reader.at();
        let (tensor, place) = reader.place(alignment)?;
        if places.insert(tensor.clone(), place).is_some() {
            return Err(reader.damaged(at, format!("the tensor `{tensor}` stands there twice")));
        }
    }
    let begin = reader.at().next_multiple_of(alignment);
    for (tensor, place) in &mut places {
        // An offset is far below 2^63, or its end would have overflowed.
        (place.begin, place.end) = (place.begin + begin, place.end + begin);
        if place.end > source.size {
            let wrong = format!("it ends at byte {}, but the file has {}", place.end, source.size);
            return Err(reader.tensor(tensor, wrong));
        }
    }
    must_fill(&reader, &places, begin, alignment)?;
    Ok((metadata, places))
}

/// Tensors follow one another, each from the next aligned byte on: what is between them is no more than padding.
fn must_fill(
    reader: &Reader<'_>,
    places: &BTreeMap<String, Place>,
    begin: u64,
    alignment: u64,
) -> Result<(), GgufError> {
    let mut in_order: Vec<_> = places.iter().collect();
    in_order.sort_by_key(|(_, place)| (place.begin, place.end));
    let (mut filled, mut last) = (begin, None);
    for (tensor, place) in in_order {
        if let Some(last) = last.filter(|_| place.begin < filled) {
            return Err(reader.tensor(tensor, format!("it overlaps with `{last}`")));
        }
        if place.begin - filled >= alignment {
            let hole = place.begin - filled;
            return Err(reader.tensor(tensor, format!("the {hole} bytes before it belong to no tensor")));
        }
        (filled, last) = (place.end, Some(tensor));
    }
    match reader.source.size.saturating_sub(filled) {
        rest if rest >= alignment && !places.is_empty() => {
            Err(reader.damaged(filled, format!("the last {rest} bytes belong to no tensor")))
        }
        _ => Ok(()),
    }
}

/// Goes through a file from its beginning.
struct Reader<'a> {
    source: &'a Source,
    /// Where in the file the buffer ends.
    next: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Reader<'_> {
    /// The place in the file that is read next.
    fn at(&self) -> u64 {
        self.next - (self.buffer.len() - self.used) as u64
    }

    fn damaged(&self, at: u64, wrong: String) -> GgufError {
        GgufError::Damaged { file: self.source.label.clone(), at, wrong }
    }

    fn tensor(&self, tensor: &str, wrong: String) -> GgufError {
        GgufError::Tensor { file: self.source.label.clone(), tensor: tensor.to_owned(), wrong }
    }

    /// Is there room for so many things of at least that size?
    fn must_hold(&self, what: &str, count: u64, size: u64) -> Result<(), GgufError> {
        let left = self.source.size.saturating_sub(self.at());
        match count.checked_mul(size) {
            Some(needed) if needed <= left => Ok(()),
            _ => Err(self.damaged(
                self.at(),
                format!(
                    "{what} should hold {count} entries, for which the {left} bytes that follow are too few"
                ),
            )),
        }
    }

    /// That many bytes, which are few.
    fn bytes(&mut self, what: &str, length: usize) -> Result<&[u8], GgufError> {
        if self.buffer.len() - self.used < length {
            let left = self.source.size.saturating_sub(self.at());
            if (length as u64) > left {
                let wrong = format!("{what} takes {length} bytes, and only {left} follow");
                return Err(self.damaged(self.at(), wrong));
            }
            self.buffer.drain(..self.used);
            self.used = 0;
            let kept = self.buffer.len();
            let more = (self.source.size - self.next).min(PIECE.max(length - kept) as u64) as usize;
            self.buffer.resize(kept + more, 0);
            self.source.read(&mut self.buffer[kept..], self.next)?;
            self.next += more as u64;
        }
        self.used += length;
        Ok(&self.buffer[self.used - length..self.used])
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        Ok(*self.bytes(what, N)?.first_chunk().expect("as many bytes were asked for"))
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn text(&mut self, what: &str, longest: u64) -> Result<String, GgufError> {
        let length = self.u64(what)?;
        let at = self.at();
        if length > longest {
            return Err(
                self.damaged(at, format!("{what} has {length} bytes, and no more than {longest} are read"))
            );
        }
        match std::str::from_utf8(self.bytes(what, length as usize)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.damaged(at, format!("{what} is not UTF-8"))),
        }
    }

    fn name(&mut self, what: &str) -> Result<String, GgufError> {
        let at = self.at();
        match self.text(what, LONGEST_NAME)? {
            name if name.is_empty() => Err(self.damaged(at, format!("{what} has no name"))),
            name => Ok(name),
        }
    }

    /// `key` is what errors call it.
    fn value(&mut self, key: &str) -> Result<Value, GgufError> {
        let at = self.at();
        let kind = self.u32(key)?;
        Ok(match Kind::of(kind) {
            Some(Kind::Integer(width, signed)) => Value::Integer(self.integer(key, width, signed)?),
            Some(Kind::F32) => Value::Float(f32::from_le_bytes(self.array(key)?).into()),
            Some(Kind::F64) => Value::Float(f64::from_le_bytes(self.array(key)?)),
            Some(Kind::Bool) => Value::Bool(self.flag(key)?),
            Some(Kind::Text) => Value::Text(self.text(key, LONGEST_TEXT)?),
            Some(Kind::List) => self.list(key)?,
            None => return Err(self.damaged(at, format!("{key} is of the type {kind}, which there is not"))),
        })
    }

    fn list(&mut self, key: &str) -> Result<Value, GgufError> {
        let at = self.at();
        let kind = self.u32(key)?;
        let length = self.u64(key)?;
        let Some(kind) = Kind::of(kind).filter(|kind| *kind != Kind::List) else {
            return Err(self.damaged(at, format!("{key} is a list of the type {kind}, which is not read")));
        };
        self.must_hold(key, length, kind.least())?;
        // Nothing is set aside for all of it: it grows with what is really read.
        let all = 0..length;
        Ok(match kind {
            Kind::Integer(width, signed) => {
                let mut list = Vec::new();
                for _ in all {
                    let at = self.at();
                    let value = self.integer(key, width, signed)?;
                    let value = i64::try_from(value);
                    list.push(
                        value.map_err(|_| self.damaged(at, format!("{key} holds a number beyond 2^63")))?,
                    );
                }
                Value::Integers(list)
            }
            Kind::F32 => {
                let mut list = Vec::new();
                for _ in all {
                    list.push(f32::from_le_bytes(self.array(key)?));
                }
                Value::Floats(list)
            }
            Kind::Text => {
                let mut list = Vec::new();
                for _ in all {
                    list.push(self.text(key, LONGEST_TEXT)?);
                }
                Value::Texts(list)
            }
            Kind::F64 | Kind::Bool | Kind::List => {
                for _ in all {
                    self.bytes(key, kind.least() as usize)?;
                }
                Value::Other("a list of a type that nothing here needs")
            }
        })
    }

    fn flag(&mut self, key: &str) -> Result<bool, GgufError> {
        let at = self.at();
        match self.array(key)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.damaged(at, format!("{key} is {other}, which is neither false nor true"))),
        }
    }

    fn integer(&mut self, key: &str, width: usize, signed: bool) -> Result<i128, GgufError> {
        let mut bytes = [0; 16];
        bytes[..width].copy_from_slice(self.bytes(key, width)?);
        let unused = 128 - 8 * width as u32;
        let value = i128::from_le_bytes(bytes) << unused;
        Ok(if signed { value >> unused } else { (value.cast_unsigned() >> unused).cast_signed() })
    }

    /// A tensor's name, and its place counted from where the values begin.
    fn place(&mut self, alignment: u64) -> Result<(String, Place), GgufError> {
        let tensor = self.name("a tensor")?;
        let at = self.at();
        let what = format!("the tensor `{tensor}`");
        let dimensions = self.u32(&what)?;
        if dimensions > MOST_DIMENSIONS {
            let wrong =
                format!("{what} has {dimensions} dimensions, and there are no more than {MOST_DIMENSIONS}");
            return Err(self.damaged(at, wrong));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(self.u64(&what)?);
        }
        let kind = self.u32(&what)?;
        let begin = self.u64(&what)?;
        let Some(stored) = Stored::of_ggml_type(kind) else {
            let wrong = format!(
                "it is stored in ggml's type {kind}, and those that are read are {}",
                Stored::ggml_types().collect::<Vec<_>>().join(", ")
            );
            return Err(self.tensor(&tensor, wrong));
        };
        let width = shape.first().copied().unwrap_or(1);
        let values = stored.values() as u64;
        if !width.is_multiple_of(values) {
            let wrong = format!(
                "its rows of {width} values are not made of blocks of {values}, as {stored} has them"
            );
            return Err(self.tensor(&tensor, wrong));
        }
        let units = shape.iter().try_fold(1, |product: u64, &length| product.checked_mul(length));
        let bytes = units.and_then(|all| (all / values).checked_mul(stored.bytes() as u64));
        let shape = shape.iter().rev().map(|&length| usize::try_from(length)).collect::<Result<Vec<_>, _>>();
        // Where values begin is added later, and is less than the size of a file.
        let end = bytes.and_then(|bytes| begin.checked_add(bytes)).filter(|end| end >> 62 == 0);
        let (Some(end), Ok(shape)) = (end, shape) else {
            return Err(self.tensor(&tensor, "its shape is absurd".to_owned()));
        };
        if !begin.is_multiple_of(alignment) {
            return Err(
                self.tensor(&tensor, format!("it begins at {begin}, which is not a multiple of {alignment}"))
            );
        }
        Ok((tensor, Place::new(stored, shape, begin, end)))
    }
}

/// The types of values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// How many bytes, and has it a sign?
    Integer(usize, bool),
    F32,
    F64,
    Bool,
    Text,
    List,
}

impl Kind {
    fn of(number: u32) -> Option<Kind> {
        Some(match number {
            0 => Kind::Integer(1, false),
            1 => Kind::Integer(1, true),
            2 => Kind::Integer(2, false),
            3 => Kind::Integer(2, true),
            4 => Kind::Integer(4, false),
            5 => Kind::Integer(4, true),
            6 => Kind::F32,
            7 => Kind::Bool,
            8 => Kind::Text,
            9 => Kind::List,
            10 => Kind::Integer(8, false),
            11 => Kind::Integer(8, true),
            12 => Kind::F64,
            _ => return None,
        })
    }

    /// How many bytes one of them takes at least.
    fn least(self) -> u64 {
        match self {
            Kind::Integer(width, _) => width as u64,
            Kind::F32 => 4,
            Kind::Bool => 1,
            Kind::F64 | Kind::Text | Kind::List => 8,
        }
    }
}
