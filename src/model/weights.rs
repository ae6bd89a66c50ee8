//! The tensors of a checkpoint: headers of safetensors that are believed only as far as they are checked, and rows that
//! are read when they are asked for.
//!
//! A file is 8 bytes with the length of its header, the header, and the tensors' values. The header is JSON and says for
//! every tensor its type, its shape, and where its values begin and end. All of that is compared with the size of the
//! file and with itself before anything is made of it: the tensors must fill the file without a gap and without an
//! overlap, and each must have as many bytes as its shape takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use safetensors::Dtype;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::file::{FileError, PIECE, Source, Texts};
use crate::numerics::{
    block::BlockFormat,
    format::{Format, widen_f16},
    kernel::Encoding,
};

/// The one file of a checkpoint that has only one.
pub(super) const SINGLE: &str = "model.safetensors";
/// Which tensor is in which file, where there are several.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// What the format itself allows.
const LONGEST_HEADER: u64 = 100_000_000;
const LARGEST_INDEX: u64 = 100_000_000;
/// More dimensions than any tensor of a language model has.
const MOST_DIMENSIONS: usize = 8;

/// Why tensors cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] FileError),
    /// Neither one file nor an index.
    #[error(
        "{folder} holds neither `model.safetensors` nor `model.safetensors.index.json`: \
         name the folder of a model whose weights are in that format"
    )]
    NoWeights {
        /// Where they should be.
        folder: String,
    },
    /// Not even the length of a header.
    #[error("{file} has {size} bytes, too few for the header of a safetensors file: fetch it again")]
    TooShort {
        /// Which file.
        file: String,
        /// How many.
        size: u64,
    },
    /// A header beyond what the format allows.
    #[error(
        "{file} announces a header of {length} bytes, and the format allows {LONGEST_HEADER}: \
         it is not a safetensors file, so fetch the one that belongs there"
    )]
    HeaderTooLong {
        /// Which file.
        file: String,
        /// How long.
        length: u64,
    },
    /// A header beyond the end of the file.
    #[error(
        "{file} announces a header of {length} bytes, but only {left} follow: \
         it is cut off or not a safetensors file, so fetch it again"
    )]
    HeaderCutOff {
        /// Which file.
        file: String,
        /// How long the header is said to be.
        length: u64,
        /// How much there is.
        left: u64,
    },
    /// A header that is not the JSON it must be.
    #[error("{file} has a header that does not read ({source}): fetch it again")]
    Header {
        /// Which file.
        file: String,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A tensor that ends before it begins.
    #[error("{file}: the tensor `{tensor}` ends at {end}, before it begins at {begin}: fetch the file again")]
    Backwards {
        /// Which file.
        file: String,
        /// Whose offsets.
        tensor: String,
        /// Its first byte.
        begin: u64,
        /// The byte after its last.
        end: u64,
    },
    /// A tensor outside the file.
    #[error(
        "{file}: the tensor `{tensor}` ends at {end}, but there are only {bytes} bytes of values: \
         the file is cut off, so fetch it again"
    )]
    BeyondTheEnd {
        /// Which file.
        file: String,
        /// Which tensor.
        tensor: String,
        /// The byte after its last.
        end: u64,
        /// How many bytes there are after the header.
        bytes: u64,
    },
    /// A shape whose size overflows.
    #[error("{file}: the tensor `{tensor}` has the absurd shape {shape:?}: fetch the file again")]
    AbsurdShape {
        /// Which file.
        file: String,
        /// Whose shape.
        tensor: String,
        /// The shape.
        shape: Vec<usize>,
    },
    /// More or fewer bytes than the shape takes.
    #[error(
        "{file}: the tensor `{tensor}` has {bytes} bytes, but {shape:?} in {dtype} takes {expected}: \
         fetch the file again"
    )]
    WrongSize {
        /// Which file.
        file: String,
        /// Which tensor.
        tensor: String,
        /// How many bytes it is said to have.
        bytes: u64,
        /// Its shape.
        shape: Vec<usize>,
        /// Its type.
        dtype: Dtype,
        /// How many bytes it takes.
        expected: u64,
    },
    /// Two tensors that share bytes.
    #[error(
        "{file}: the tensors `{first}` and `{second}` overlap: write the file again with each on its own"
    )]
    Overlap {
        /// Which file.
        file: String,
        /// The one that begins first.
        first: String,
        /// The one that begins inside it.
        second: String,
    },
    /// Bytes that belong to no tensor.
    #[error("{file}: the {bytes} bytes of values from {begin} on belong to no tensor: fetch the file again")]
    Hole {
        /// Which file.
        file: String,
        /// Where they begin.
        begin: u64,
        /// How many.
        bytes: u64,
    },
    /// An index that is not the JSON it must be.
    #[error("{file} does not read ({source}): fetch it again")]
    Index {
        /// Which file.
        file: String,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// An index that points out of its folder.
    #[error(
        "{index} puts `{tensor}` into `{shard}`, which is not the plain name of a file beside it: \
         do not use a model that reaches for other files"
    )]
    ShardPath {
        /// Which index.
        index: String,
        /// For which tensor.
        tensor: String,
        /// What it names.
        shard: String,
    },
    /// A file that the index names and that is not there.
    #[error("{shard} is missing, though {index} names it: fetch the rest of the model")]
    ShardMissing {
        /// Which index.
        index: String,
        /// Which file.
        shard: String,
    },
    /// A tensor that is not in the file that the index says.
    #[error(
        "{shard} lacks the tensor `{tensor}`, which {index} says is in it: fetch both from the same place"
    )]
    NotInShard {
        /// Which index.
        index: String,
        /// Which file.
        shard: String,
        /// Which tensor.
        tensor: String,
    },
    /// A tensor that the index does not put there.
    #[error(
        "{shard} holds the tensor `{tensor}`, which {index} does not put there: fetch both from the same place"
    )]
    NotInIndex {
        /// Which index.
        index: String,
        /// Which file.
        shard: String,
        /// Which tensor.
        tensor: String,
    },
    /// A tensor that the model needs.
    #[error(
        "{files}: there is no tensor `{tensor}`: fetch the model again, or see that its config is its own"
    )]
    Missing {
        /// Where it was looked for.
        files: String,
        /// Which tensor.
        tensor: String,
    },
    /// A tensor of another shape than the model needs.
    #[error(
        "{file}: the tensor `{tensor}` has the shape {found:?}, but the model's config makes it {expected:?}: \
         see that both are of the same model"
    )]
    Shape {
        /// Which file.
        file: String,
        /// Which tensor.
        tensor: String,
        /// The shape it has.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// Values of a type that is not read.
    #[error(
        "{file}: the tensor `{tensor}` is stored as {dtype}, and only F32, BF16 and F16 are read: \
         choose a version of the model in one of those"
    )]
    Type {
        /// Which file.
        file: String,
        /// Which tensor.
        tensor: String,
        /// Its type.
        dtype: Dtype,
    },
    /// NaN or an infinity among the weights.
    #[error(
        "{file}: the tensor `{tensor}` holds {value} in row {row}, column {column}: \
         the weights are damaged, so fetch the file again or choose another version"
    )]
    NotFinite {
        /// Which file.
        file: String,
        /// Which tensor.
        tensor: String,
        /// What it holds.
        value: f32,
        /// Where.
        row: usize,
        /// Where in that row.
        column: usize,
    },
}

/// All tensors of a checkpoint.
#[derive(Debug)]
pub(super) struct Weights {
    shards: Vec<Shard>,
    /// By the names of Hugging Face.
    tensors: BTreeMap<String, Place>,
    /// What a file calls a tensor that Hugging Face calls so.
    name_in_file: fn(&str) -> String,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) name: String,
    pub(super) source: Source,
}

/// Where a tensor is.
#[derive(Debug)]
pub(super) struct Place {
    shard: usize,
    stored: Stored,
    pub(super) shape: Vec<usize>,
    /// In the file, not in its values.
    pub(super) begin: u64,
    pub(super) end: u64,
    /// The height of the blocks whose rows stand pair by pair, if they do: row i of the first half, then of the second.
    pub(super) paired: Option<usize>,
}

impl Place {
    /// A place in the first file.
    pub(super) fn new(stored: Stored, shape: Vec<usize>, begin: u64, end: u64) -> Place {
        Place { shard: 0, stored, shape, begin, end, paired: None }
    }
}

impl Weights {
    /// Reads the headers.
    pub(super) fn open(texts: &mut Texts<'_>) -> Result<Weights, WeightsError> {
        let folder = texts.folder;
        let mut weights =
            Weights { shards: Vec::new(), tensors: BTreeMap::new(), name_in_file: str::to_owned };
        if let Some(source) = folder.open(SINGLE)? {
            let places = header(&source, 0)?;
            weights.tensors = places;
            weights.shards.push(Shard { name: SINGLE.to_owned(), source });
            return Ok(weights);
        }
        let Some(index) = texts.read(INDEX, LARGEST_INDEX)? else {
            let folder = folder.label("");
            return Err(WeightsError::NoWeights { folder: folder.trim_end_matches('/').to_owned() });
        };
        let label = folder.label(INDEX);
        for (shard, listed) in shards_of(&index, &label)? {
            let number = weights.shards.len();
            let Some(source) = folder.open(&shard)? else {
                return Err(WeightsError::ShardMissing { index: label, shard: folder.label(&shard) });
            };
            let places = header(&source, number)?;
            if let Some(tensor) = listed.iter().find(|tensor| !places.contains_key(*tensor)) {
                let tensor = tensor.clone();
                return Err(WeightsError::NotInShard { index: label, shard: source.label, tensor });
            }
            if let Some(tensor) = places.keys().find(|tensor| !listed.contains(*tensor)) {
                let tensor = tensor.clone();
                return Err(WeightsError::NotInIndex { index: label, shard: source.label, tensor });
            }
            weights.tensors.extend(places);
            weights.shards.push(Shard { name: shard, source });
        }
        Ok(weights)
    }

    /// The tensors of one file that says itself where they are, and has names of its own for them.
    pub(super) fn of_one(
        name: String,
        source: Source,
        tensors: BTreeMap<String, Place>,
        name_in_file: fn(&str) -> String,
    ) -> Weights {
        Weights { shards: vec![Shard { name, source }], tensors, name_in_file }
    }

    /// What errors call a tensor: whoever mends a file looks for the name that stands in it.
    pub(super) fn name_in_file(&self, tensor: &str) -> String {
        (self.name_in_file)(tensor)
    }

    /// The types in which the tensors are stored, what there is most of first.
    pub(super) fn stored(&self) -> Vec<Stored> {
        let mut types = Vec::<(Stored, u64)>::new();
        for place in self.tensors.values() {
            let bytes = place.end - place.begin;
            match types.iter_mut().find(|(stored, _)| *stored == place.stored) {
                Some((_, all)) => *all += bytes,
                None => types.push((place.stored, bytes)),
            }
        }
        types.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        types.into_iter().map(|(stored, _)| stored).collect()
    }

    pub(super) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Is that tensor there, of that shape, and of a type that is read?
    pub(super) fn check(&self, name: &str, shape: &[usize]) -> Result<(), WeightsError> {
        self.tensor(name, shape).map(drop)
    }

    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>, WeightsError> {
        let Some(place) = self.tensors.get(name) else {
            let files: Vec<_> = self.shards.iter().map(|shard| shard.source.label.as_str()).collect();
            return Err(WeightsError::Missing { files: files.join(", "), tensor: self.name_in_file(name) });
        };
        let source = &self.shards[place.shard].source;
        let (file, tensor) = (source.label.clone(), self.name_in_file(name));
        if place.shape != shape {
            let (found, expected) = (place.shape.clone(), shape.to_vec());
            return Err(WeightsError::Shape { file, tensor, found, expected });
        }
        if let Stored::Other(dtype) = place.stored {
            return Err(WeightsError::Type { file, tensor, dtype });
        }
        let width = shape.last().copied().unwrap_or(1);
        let (next, buffer) = (place.begin, Vec::new());
        Ok(Tensor { name: tensor, source, place, width, row: 0, next, buffer, used: 0 })
    }

    /// Do both tensors hold the same bytes?
    pub(super) fn are_equal(&self, first: &str, second: &str) -> Result<bool, WeightsError> {
        let (Some(first), Some(second)) = (self.tensors.get(first), self.tensors.get(second)) else {
            return Ok(false);
        };
        if (first.stored, &first.shape) != (second.stored, &second.shape) {
            return Ok(false);
        }
        let length = first.end - first.begin;
        let mut bytes = [0; 2].map(|byte| vec![byte; length.min(PIECE as u64) as usize]);
        for offset in (0..length).step_by(PIECE) {
            let piece = (length - offset).min(PIECE as u64) as usize;
            for (bytes, place) in bytes.iter_mut().zip([first, second]) {
                self.shards[place.shard].source.read(&mut bytes[..piece], place.begin + offset)?;
            }
            if bytes[0][..piece] != bytes[1][..piece] {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The files that an index names, each with its tensors.
fn shards_of(index: &[u8], label: &str) -> Result<BTreeMap<String, BTreeSet<String>>, WeightsError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index)
        .map_err(|source| WeightsError::Index { file: label.to_owned(), source })?;
    let mut shards = BTreeMap::<String, BTreeSet<String>>::new();
    for (tensor, shard) in index.weight_map {
        // A colon could name a drive or a stream of Windows.
        if shard.is_empty() || shard == "." || shard == ".." || shard.contains(['/', '\\', ':', '\0']) {
            return Err(WeightsError::ShardPath { index: label.to_owned(), tensor, shard });
        }
        shards.entry(shard).or_default().insert(tensor);
    }
    Ok(shards)
}

/// The header of one file, checked from end to end.
fn header(source: &Source, shard: usize) -> Result<BTreeMap<String, Place>, WeightsError> {
    let file = || source.label.clone();
    let mut length = [0; 8];
    let Some(left) = source.size.checked_sub(length.len() as u64) else {
        return Err(WeightsError::TooShort { file: file(), size: source.size });
    };
    source.read(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(WeightsError::HeaderTooLong { file: file(), length });
    }
    let Some(bytes) = left.checked_sub(length) else {
        return Err(WeightsError::HeaderCutOff { file: file(), length, left });
    };
    let mut header = vec![0; length as usize];
    source.read(&mut header, 8)?;
    let Header(tensors) =
        serde_json::from_slice(&header).map_err(|source| WeightsError::Header { file: file(), source })?;
    drop(header);

    for (tensor, info) in &tensors {
        check_one(tensor, info, bytes, source)?;
    }
    let mut in_order: Vec<_> = tensors.iter().collect();
    in_order.sort_by_key(|(_, info)| info.data_offsets);
    let mut filled = 0;
    let mut last = "";
    for (tensor, info) in in_order {
        let (begin, end) = info.data_offsets;
        if begin < filled {
            return Err(WeightsError::Overlap {
                file: file(),
                first: last.to_owned(),
                second: tensor.clone(),
            });
        }
        if begin > filled {
            return Err(WeightsError::Hole { file: file(), begin: filled, bytes: begin - filled });
        }
        (filled, last) = (end, tensor);
    }
    if filled < bytes {
        return Err(WeightsError::Hole { file: file(), begin: filled, bytes: bytes - filled });
    }

    let values = 8 + length;
    let place = |info: Info| {
        let (begin, end) = (values + info.data_offsets.0, values + info.data_offsets.1);
        Place { shard, ..Place::new(Stored::of_dtype(info.dtype), info.shape.0, begin, end) }
    };
    Ok(tensors.into_iter().map(|(tensor, info)| (tensor, place(info))).collect())
}

/// What can be said of a tensor without the others.
fn check_one(tensor: &str, info: &Info, bytes: u64, source: &Source) -> Result<(), WeightsError> {
    let (file, tensor) = (|| source.label.clone(), || tensor.to_owned());
    let (begin, end) = info.data_offsets;
    if end < begin {
        return Err(WeightsError::Backwards { file: file(), tensor: tensor(), begin, end });
    }
    if end > bytes {
        return Err(WeightsError::BeyondTheEnd { file: file(), tensor: tensor(), end, bytes });
    }
    let shape = &info.shape.0;
    let bits = shape
        .iter()
        .try_fold(info.dtype.bitsize() as u64, |bits, &length| bits.checked_mul(length as u64))
        .filter(|bits| bits % 8 == 0);
    let Some(bits) = bits else {
        return Err(WeightsError::AbsurdShape { file: file(), tensor: tensor(), shape: shape.clone() });
    };
    if bits / 8 != end - begin {
        return Err(WeightsError::WrongSize {
            file: file(),
            tensor: tensor(),
            bytes: end - begin,
            shape: shape.clone(),
            dtype: info.dtype,
            expected: bits / 8,
        });
    }
    Ok(())
}

/// A header as it is written, its names each once.
struct Header(BTreeMap<String, Info>);

#[derive(Deserialize)]
struct Info {
    dtype: Dtype,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// A shape that cannot fill the memory: its list ends, or it does not read.
struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object with one entry for each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = BTreeMap::new();
                while let Some(tensor) = map.next_key::<String>()? {
                    if tensor == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let info: Info = map
                        .next_value()
                        .map_err(|error| A::Error::custom(format_args!("the tensor `{tensor}`: {error}")))?;
                    if tensors.contains_key(&tensor) {
                        return Err(A::Error::custom(format_args!(
                            "the tensor `{tensor}` stands there twice"
                        )));
                    }
                    tensors.insert(tensor, info);
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lengths;
        impl<'de> Visitor<'de> for Lengths {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MOST_DIMENSIONS} lengths")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(length) = seq.next_element()? {
                    if shape.len() == MOST_DIMENSIONS {
                        return Err(A::Error::invalid_length(MOST_DIMENSIONS + 1, &self));
                    }
                    shape.push(length);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Lengths)
    }
}

/// How a tensor's values are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stored {
    F32,
    Bf16,
    F16,
    /// Whole blocks of them.
    Block(BlockFormat),
    /// A type that is not read.
    Other(Dtype),
}

impl Stored {
    fn of_dtype(dtype: Dtype) -> Stored {
        match dtype {
            Dtype::F32 => Stored::F32,
            Dtype::BF16 => Stored::Bf16,
            Dtype::F16 => Stored::F16,
            dtype => Stored::Other(dtype),
        }
    }

    pub(super) fn of_ggml_type(number: u32) -> Option<Stored> {
        match number {
            0 => Some(Stored::F32),
            1 => Some(Stored::F16),
            30 => Some(Stored::Bf16),
            number => BlockFormat::of_ggml_type(number).map(Stored::Block),
        }
    }

    /// Those that there are in GGUF.
    pub(super) fn ggml_types() -> impl Iterator<Item = String> {
        let plain = [Stored::F32, Stored::F16, Stored::Bf16];
        let blocks = BlockFormat::ALL.iter().map(|&block| Stored::Block(block));
        plain.into_iter().chain(blocks).map(|stored| stored.to_string())
    }

    /// How many values stand together.
    pub(super) fn values(self) -> usize {
        match self {
            Stored::Other(_) => 1,
            stored => stored.encoding().terms(),
        }
    }

    /// How many bytes those take.
    pub(super) fn bytes(self) -> usize {
        match self {
            Stored::Other(dtype) => dtype.bitsize().div_ceil(8),
            stored => stored.encoding().bytes(),
        }
    }

    /// What holds such values as they are.
    fn encoding(self) -> Encoding {
        match self {
            Stored::F32 => Encoding::Values(Format::F32),
            Stored::Bf16 => Encoding::Values(Format::BF16),
            Stored::F16 => Encoding::Values(Format::F16),
            Stored::Block(block) => Encoding::Blocks(block),
            Stored::Other(dtype) => unreachable!("a tensor of {dtype} is not read"),
        }
    }

    /// Every value as f32; is each of them finite?
    fn widen(self, bytes: &[u8], out: &mut [f32]) -> bool {
        match self {
            Stored::F32 => widen(bytes, out, f32::from_le_bytes),
            Stored::Bf16 => widen(bytes, out, from_bf16),
            Stored::F16 => widen(bytes, out, widen_f16),
            Stored::Block(block) => {
                block.dequantize(bytes, out);
                out.iter().all(|value| value.is_finite())
            }
            Stored::Other(dtype) => unreachable!("a tensor of {dtype} is not read"),
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stored::F32 => f.write_str("F32"),
            Stored::Bf16 => f.write_str("BF16"),
            Stored::F16 => f.write_str("F16"),
            Stored::Block(block) => write!(f, "{block}"),
            Stored::Other(dtype) => write!(f, "{dtype}"),
        }
    }
}

/// One tensor, a row at a time.
#[derive(Debug)]
pub struct Tensor<'a> {
    /// What its file calls it.
    name: String,
    source: &'a Source,
    place: &'a Place,
    width: usize,
    /// Which row is next.
    row: usize,
    /// Where in the file the buffer's end is.
    next: u64,
    buffer: Vec<u8>,
    /// How much of the buffer has been handed out.
    used: usize,
}

impl Tensor<'_> {
    /// Reads the next row, exactly, as f32.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a value is not finite.
    ///
    /// # Panics
    ///
    /// When `out` is not as long as a row, or there is no row left: the shape was given when the tensor was asked for.
    pub fn next_row(&mut self, out: &mut [f32]) -> Result<(), WeightsError> {
        assert_eq!(out.len(), self.width, "a row of `{}`", self.name);
        self.read_row(out, |_| {})
    }

    /// What holds its values as they are.
    pub fn encoding(&self) -> Encoding {
        self.place.stored.encoding()
    }

    /// Reads the next row as it is stored, and what it is worth.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a value is not finite.
    ///
    /// # Panics
    ///
    /// When `out` is not as long as a row takes, `worth` not as long as a row, or there is no row left.
    pub fn next_stored_row(&mut self, out: &mut [u8], worth: &mut [f32]) -> Result<(), WeightsError> {
        let stored = self.place.stored;
        assert_eq!(out.len(), self.width / stored.values() * stored.bytes(), "a row of `{}`", self.name);
        assert_eq!(worth.len(), self.width, "a row of `{}`", self.name);
        let mut filled = 0;
        self.read_row(worth, |bytes| {
            out[filled..][..bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        })
    }

    /// Reads the next row; `see` is shown its bytes, piece after piece.
    fn read_row(&mut self, out: &mut [f32], mut see: impl FnMut(&[u8])) -> Result<(), WeightsError> {
        let stored = self.place.stored;
        let mut end = self.place.end;
        if let Some(height) = self.place.paired {
            let (block, row) = (self.row / height * height, self.row % height);
            let row = block + row % (height / 2) * 2 + row / (height / 2);
            let bytes = (self.width / stored.values() * stored.bytes()) as u64;
            // Rows are read from here and there: what follows this one is not read along.
            self.next = self.place.begin + row as u64 * bytes;
            end = self.next + bytes;
            self.buffer.clear();
            self.used = 0;
        }
        let mut column = 0;
        while column < out.len() {
            if self.used == self.buffer.len() {
                self.refill(end)?;
            }
            let bytes = &self.buffer[self.used..];
            let units = (bytes.len() / stored.bytes()).min((out.len() - column) / stored.values());
            let (values, used) = (units * stored.values(), units * stored.bytes());
            let (bytes, out) = (&bytes[..used], &mut out[column..][..values]);
            if !stored.widen(bytes, out) {
                return Err(self.not_finite(out, column));
            }
            see(bytes);
            column += values;
            self.used += used;
        }
        self.row += 1;
        Ok(())
    }

    fn refill(&mut self, end: u64) -> Result<(), WeightsError> {
        assert!(self.next < end, "`{}` has no row {}", self.name, self.row);
        // Whole values or blocks, of which there is a whole number in a tensor.
        let piece = PIECE - PIECE % self.place.stored.bytes();
        let length = (end - self.next).min(piece as u64) as usize;
        self.buffer.resize(length, 0);
        self.source.read(&mut self.buffer, self.next)?;
        self.next += length as u64;
        self.used = 0;
        Ok(())
    }

    /// Where in this piece of a row the first such value is.
    #[cold]
    fn not_finite(&self, piece: &[f32], begin: usize) -> WeightsError {
        let column = piece.iter().position(|value| !value.is_finite()).expect("one was seen in this piece");
        WeightsError::NotFinite {
            file: self.source.label.clone(),
            tensor: self.name.clone(),
            value: piece[column],
            row: self.row,
            column: begin + column,
        }
    }
}

/// Every value as f32; is each of them finite?
#[inline(always)]
fn widen<const SIZE: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; SIZE]) -> f32) -> bool {
    let mut infinite = 0;
    for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = value(*bytes);
        // Without a branch, so that the loop becomes vectors.
        infinite |= u32::from(out.to_bits() & INFINITE == INFINITE);
    }
    infinite == 0
}

/// The exponent of infinities and NaNs.
const INFINITE: u32 = 0x7F80_0000;

fn from_bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}
