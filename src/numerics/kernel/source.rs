//! Where a matrix comes from: its outputs as values, or as the blocks in which they are stored.

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
