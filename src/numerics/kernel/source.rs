//! Where a matrix comes from: its outputs as values, or as the blocks in which they are stored.

use std::ops::Range;

use crate::numerics::{block::BlockFormat, format::Format};

/// Hands out the outputs of a matrix. A kernel asks for each of them once, in turn, in one form or the other.
///
/// A closure `|output: usize, terms: &mut [f32]|` that writes the terms of an output is a source of values.
pub trait Source {
    /// What holds every term of an output as it is.
    fn encoding(&self, output: usize) -> Encoding;

    /// Writes the terms of an output.
    fn values(&mut self, output: usize, terms: &mut [f32]);

    /// Writes the blocks of an output whose [`encoding`](Self::encoding) says that it has some, and the terms that they are.
    fn blocks(&mut self, output: usize, bytes: &mut [u8], terms: &mut [f32]);
}

impl<F: FnMut(usize, &mut [f32])> Source for F {
    fn encoding(&self, _: usize) -> Encoding {
        Encoding::Values(Format::F32)
    }

    fn values(&mut self, output: usize, terms: &mut [f32]) {
        self(output, terms);
    }

    fn blocks(&mut self, _: usize, _: &mut [u8], _: &mut [f32]) {
        unreachable!("a source of values has no blocks");
    }
}

/// What holds the terms of an output without a loss.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encoding {
    /// Each term on its own: a value of this format.
    Values(Format),
    /// Whole blocks of terms.
    Blocks(BlockFormat),
}

impl Encoding {
    /// How many terms stand together.
    pub fn terms(self) -> usize {
        match self {
            Encoding::Values(_) => 1,
            Encoding::Blocks(format) => format.values(),
        }
    }

    /// How many bytes those take: whole ones.
    pub fn bytes(self) -> usize {
        match self {
            Encoding::Values(format) => format.bits().div_ceil(8) as usize,
            Encoding::Blocks(format) => format.bytes(),
        }
    }
}

/// Keeps the values of all that it hands on, for somebody else to pack: a source can be asked only once.
pub struct Copied<'a> {
    source: &'a mut dyn Source,
    depth: usize,
    values: Vec<f32>,
}

impl<'a> Copied<'a> {
    /// Of a source whose outputs have so many terms.
    pub fn new(source: &'a mut dyn Source, depth: usize) -> Copied<'a> {
        Copied { source, depth, values: Vec::new() }
    }

    /// What was handed on, once more.
    pub fn again(self) -> impl Source {
        let Copied { depth, values, .. } = self;
        move |output: usize, terms: &mut [f32]| {
            terms.copy_from_slice(&values[output * depth..][..depth]);
        }
    }
}

impl Source for Copied<'_> {
    fn encoding(&self, output: usize) -> Encoding {
        self.source.encoding(output)
    }

    fn values(&mut self, output: usize, terms: &mut [f32]) {
        self.source.values(output, terms);
        self.values.extend_from_slice(terms);
    }

    fn blocks(&mut self, output: usize, bytes: &mut [u8], terms: &mut [f32]) {
        self.source.blocks(output, bytes, terms);
        self.values.extend_from_slice(terms);
    }
}

/// All of a source, in stretches of its terms.
pub(super) struct Held {
    depth: usize,
    encodings: Vec<Encoding>,
    /// The blocks of each output, where it has some.
    blocks: Vec<Vec<u8>>,
    values: Vec<f32>,
}

impl Held {
    /// Of so many outputs of so many terms, in the blocks in which they are stored if these are kept.
    pub(super) fn read(source: &mut dyn Source, outputs: usize, depth: usize, keeps: bool) -> Held {
        let mut held = Held {
            depth,
            encodings: (0..outputs).map(|output| source.encoding(output)).collect(),
            blocks: vec![Vec::new(); outputs],
            values: vec![0.0; outputs * depth],
        };
        for (output, terms) in held.values.chunks_exact_mut(depth.max(1)).enumerate() {
            match held.encodings[output] {
                Encoding::Blocks(format) if keeps => {
                    let bytes = &mut held.blocks[output];
                    bytes.resize(depth / format.values() * format.bytes(), 0);
                    source.blocks(output, bytes, terms);
                }
                _ => source.values(output, terms),
            }
        }
        held
    }

    /// These terms of every output: whole blocks, where they are stored in some.
    pub(super) fn stretch(&self, terms: Range<usize>) -> impl Source {
        Stretch { held: self, terms }
    }
}

struct Stretch<'a> {
    held: &'a Held,
    terms: Range<usize>,
}

impl Source for Stretch<'_> {
    fn encoding(&self, output: usize) -> Encoding {
        self.held.encodings[output]
    }

    fn values(&mut self, output: usize, terms: &mut [f32]) {
        terms.copy_from_slice(&self.held.values[output * self.held.depth..][self.terms.clone()]);
    }

    fn blocks(&mut self, output: usize, bytes: &mut [u8], terms: &mut [f32]) {
        let encoding = self.encoding(output);
        let [first, last] =
            [self.terms.start, self.terms.end].map(|term| term / encoding.terms() * encoding.bytes());
        bytes.copy_from_slice(&self.held.blocks[output][first..last]);
        self.values(output, terms);
    }
}
