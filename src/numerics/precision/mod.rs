//! The table of precisions: what is stored how, how a product is formed, and where it all rounds.

mod calibration;
mod map;
mod name;
mod scaled;

use std::mem::discriminant;

pub use self::{
    calibration::{Calibration, CalibrationError, Channels, file_in},
    map::{Layers, Map, MapError, Rule, Where, file_of},
    name::PrecisionError,
    scaled::Scaled,
};
pub(crate) use self::{map::plain, name::pattern};
pub use super::quantizer::Bits;
pub use super::{at::Site, product::Threshold};
use super::{
    at::{At, Step},
    format::Format,
    product::LMul,
    quantizer::{Grid, Quantizer},
};
use crate::name::named;

/// How weights are stored, how a product is formed, and what sums and results round to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Precision {
    /// Everything in f32.
    Fp32,
    /// Weights as a GGUF file stores them, all that is computed in f32.
    Gguf,
    /// bfloat16 everywhere, sums in f32.
    Bf16,
    /// bfloat16 everywhere, running sums too.
    Bf16Acc16,
    /// IEEE half everywhere, sums in f32.
    Fp16,
    /// IEEE half everywhere, running sums too.
    Fp16Acc16,
    /// Weights in bfloat16, all that is computed in f32.
    LayerCast(Stored),
    /// Operands of products rounded to 10 mantissa bits, all else in f32.
    Tf32,
    /// A minifloat everywhere, sums in f32.
    Minifloat(Format),
    /// One of floats whose sums are in another format.
    Summed(Summed),
    /// Products by integer addition, everything else in f32.
    LMul {
        /// The product.
        product: LMul,
        /// Where it is used.
        scope: Scope,
    },
    /// LLM.int8(): integer products, columns with outliers in 16 bit.
    Int8(Threshold),
    /// Codes with scales, as they are served.
    Scaled(Scaled),
    /// Others, each at its places.
    Map(Map),
}

/// A precision of floats, and the format that every step of its sums rounds to in place of f32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Summed {
    floats: Floats,
    sum: Format,
}

/// The precisions that say in which format they add.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Floats {
    Bf16,
    Fp16,
    LayerCast(Stored),
    Tf32,
    Minifloat(Format),
}

impl Summed {
    /// The same with sums in f32.
    fn in_f32(self) -> Precision {
        match self.floats {
            Floats::Bf16 => Precision::Bf16,
            Floats::Fp16 => Precision::Fp16,
            Floats::LayerCast(stored) => Precision::LayerCast(stored),
            Floats::Tf32 => Precision::Tf32,
            Floats::Minifloat(format) => Precision::Minifloat(format),
        }
    }
}

/// Which products an L-Mul cell forms by L-Mul; the others are ordinary f32 products.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    /// Both products of attention.
    Attention,
    /// The products with weights.
    Linear,
    /// Both.
    All,
    /// Those of two values, too, which stand between the products of matrices.
    Everything,
}

named! {
    Scope, "scope":
    Attention = "attention",
    Linear = "linear",
    All = "all",
    Everything = "everything",
}

/// What LayerCast stores in bfloat16; the rest stays as the model's file has it, in f32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stored {
    /// Everything: the table, the head and the weights of norms, too.
    All,
    /// The products of layers, with their biases, as the paper has it.
    Layers,
}

named! { Stored, "scope": All = "all", Layers = "layers" }

/// How the terms of a sum come about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Product {
    /// The exact product goes into a fused multiply-add.
    Fused,
    /// The sum of the bit patterns.
    LMul(LMul),
    /// LLM.int8().
    Int8(Threshold),
    /// Codes of activations and weights, and what scales the sums of their products back.
    Scaled(Quantizer),
}

/// What the right-hand side of a product (weights, keys, values) is stored in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Storage {
    /// Values of this format.
    Values(Format),
    /// What it came in, where that takes less than f32.
    Kept,
    /// Codes and scales.
    Codes(Quantizer),
}

impl Storage {
    /// What a value is where it is multiplied.
    pub fn format(self) -> Format {
        match self {
            Storage::Values(format) => format,
            Storage::Kept | Storage::Codes(_) => Format::F32,
        }
    }
}

/// One kind of product, with all its rounding points.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Recipe {
    /// What the right-hand side is stored in.
    pub weights: Storage,
    /// What the left-hand side rounds to before the product.
    pub activations: Format,
    /// How a term is formed.
    pub product: Product,
    /// What every step of a sum rounds to.
    pub sum: Format,
    /// What the finished sum rounds to.
    pub result: Format,
}

impl Recipe {
    /// The longest sum there can be: that of 8-bit integers must fit 32 bits.
    pub fn most_terms(&self) -> usize {
        match self.product {
            Product::Int8(_) | Product::Scaled(_) => (i32::MAX / (127 * 127)) as usize,
            Product::Fused | Product::LMul(_) => u32::MAX as usize,
        }
    }

    /// How many bits the right-hand side takes; none where the model's file says that.
    pub fn weight_bits(&self) -> Option<Bits> {
        match (self.product, self.weights) {
            (_, Storage::Kept) => None,
            (_, Storage::Codes(quantizer)) => Some(quantizer.bits()),
            (Product::Int8(_), _) => Some(Bits { code: 8, scale: 32, shared_by: None }),
            (_, Storage::Values(format)) => Some(Bits { code: format.bits(), scale: 0, shared_by: None }),
        }
    }

    /// How many bits of an entry of the left-hand side a product multiplies.
    pub fn activation_bits(&self) -> u32 {
        match self.product {
            Product::Int8(_) => 8,
            Product::Scaled(quantizer) => quantizer.grid.bits(),
            Product::Fused | Product::LMul(_) => self.activations.bits(),
        }
    }

    /// How many bits one entry of the right-hand side takes in the kernels' memory without its scale: those of a code as they are,
    /// those of a value in whole bytes; none where the model's file says that.
    pub fn stored_bits(&self) -> Option<u32> {
        let codes = matches!(self.weights, Storage::Codes(_));
        self.weight_bits().map(|bits| match bits.code {
            bits if codes => bits,
            ..=8 => 8,
            9..=16 => 16,
            _ => 32,
        })
    }

    /// What both factors of a product are; nothing where products are whole numbers under one scale, or come about otherwise. Codes
    /// that no format has are numbers of f32.
    pub fn factors(&self) -> Option<[Format; 2]> {
        let of = |grid: Grid| if let Grid::Floats(format) = grid { format } else { Format::F32 };
        match (self.product, self.weights, self.code_sums()) {
            (_, _, Some(CodeSums::Exact)) => None,
            (Product::Scaled(left), Storage::Codes(right), Some(CodeSums::InOrder)) => {
                Some([of(left.grid), of(right.grid)])
            }
            (Product::Fused, right, None) => Some([self.activations, right.format()]),
            _ => Some([Format::F32; 2]),
        }
    }

    /// How many of so many terms are added exactly, one after the other, before their sums are added in the order's way.
    pub fn exact_terms(&self, terms: usize) -> usize {
        let all = terms.max(1);
        match (self.code_sums(), self.weights, self.product) {
            (Some(CodeSums::Groups), Storage::Codes(weights), Product::Scaled(activations)) => {
                weights.group(terms).min(activations.group(terms))
            }
            (Some(CodeSums::Exact), ..) | (None, _, Product::Int8(_)) => all,
            _ => 1,
        }
    }

    /// How the sums of codes are formed; none where a product is one of values.
    pub fn code_sums(&self) -> Option<CodeSums> {
        let (Storage::Codes(weights), Product::Scaled(activations)) = (self.weights, self.product) else {
            return None;
        };
        let floats =
            [weights, activations].iter().any(|one| matches!(one.grid, Grid::Floats(_) | Grid::Lists(_)));
        Some(match weights.is_whole() && activations.is_whole() {
            true if floats => CodeSums::InOrder,
            true => CodeSums::Exact,
            false => CodeSums::Groups,
        })
    }
}

/// What happens to values one by one, between the products of matrices: in norms, softmax, rotations and gates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elementwise {
    /// How two values are multiplied, if not as two f32 are.
    pub product: Option<LMul>,
    /// What a value rounds to when it is handed on.
    pub result: Format,
}

impl Elementwise {
    /// Values that round to this format.
    pub fn to(result: Format) -> Elementwise {
        Elementwise { product: None, result }
    }
}

/// How sums of products of codes are formed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodeSums {
    /// Whole numbers under one scale: exactly.
    Exact,
    /// Floats under one scale: in the order's way, in f32.
    InOrder,
    /// The sum of each group exactly; times its scales, rounded to f32, it is a term of a sum in the order's way.
    Groups,
}

/// One row of the table of precisions.
#[derive(Debug)]
pub struct PrecisionEntry {
    /// The name, parameters as letters.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub sentence: &'static str,
    /// Where it rounds.
    pub rounds: &'static str,
    /// The parameters it takes, as they are written.
    pub parameters: &'static [&'static str],
    /// A value of it, ready to run: tests and benchmarks walk these.
    pub example: Precision,
}

/// The row of the minifloats that have none of their own. Those stand before it.
const ANY: &str = "cast:eXmY";
/// What the name of a minifloat begins with; its parameters follow the format after a comma.
const CAST: &str = "cast:";
/// The row of maps, which are named by a file, or by what it says.
const MAP: &str = "map:FILE";
/// The row of quantizers that have none of their own. Those stand before it.
const SCALED: &str = "scaled";
/// How the name of a quantizer is shown.
const QUANTIZER: &str = "GRID-SCALE-SPAN";
const BOTH: &[&str] =
    &["channel|gN|sN|tensor", "a=token|gN|tensor", "compute=bf16|fp16|fp32", SUM, "calibration=FILE"];
const WEIGHTS: &[&str] = &["channel|gN|sN|tensor", "compute=bf16|fp16|fp32", SUM, "calibration=FILE"];
const SUM: &str = "sum=f32|bf16|f16|eXmY";
const MINIFLOAT_PARAMETERS: &[&str] =
    &["round=even|away|up|down|zero|half-zero", "saturate=yes|no", "subnormal=yes|no", SUM];

/// Every precision there is. `list`, `explain`, the conformance tests and the benchmark walk this table.
pub const PRECISIONS: &[PrecisionEntry] = &[
    PrecisionEntry {
        name: "fp32",
        sentence: "single precision throughout",
        rounds: "each fused multiply-add rounds to f32",
        parameters: &[],
        example: Precision::Fp32,
    },
    PrecisionEntry {
        name: "gguf",
        sentence: "a GGUF file's weights as it stores them, widened where they are multiplied, everything computed in f32",
        rounds: "as fp32, with its bits: each fused multiply-add rounds to f32",
        parameters: &[],
        example: Precision::Gguf,
    },
    PrecisionEntry {
        name: "bf16",
        sentence: "bfloat16 storage, f32 sums: what most models are served in",
        rounds: "weights, activations, cache, logits to bf16; each multiply-add to f32, and with sum= to that too; \
                 norms, softmax, RoPE in f32",
        parameters: &[SUM],
        example: Precision::Bf16,
    },
    PrecisionEntry {
        name: "bf16-acc16",
        sentence: "bfloat16 storage and bfloat16 running sums: hardware without a wide accumulator",
        rounds: "as bf16, and each multiply-add to f32 and then to bf16",
        parameters: &[],
        example: Precision::Bf16Acc16,
    },
    PrecisionEntry {
        name: "fp16",
        sentence: "IEEE half storage, f32 sums",
        rounds: "weights, activations, cache, logits to fp16; each multiply-add to f32, and with sum= to that too; \
                 norms, softmax, RoPE in f32",
        parameters: &[SUM],
        example: Precision::Fp16,
    },
    PrecisionEntry {
        name: "fp16-acc16",
        sentence: "IEEE half storage and half running sums",
        rounds: "as fp16, and each multiply-add to f32 and then to fp16",
        parameters: &[],
        example: Precision::Fp16Acc16,
    },
    PrecisionEntry {
        name: "layercast",
        sentence: "weights stored in bfloat16 and widened layer by layer, everything computed in f32",
        rounds: "weights to bf16, once, with scope=layers those of layers' products alone; each multiply-add to f32, and with sum= \
                 to that too",
        parameters: &["scope=all|layers", SUM],
        example: Precision::LayerCast(Stored::All),
    },
    PrecisionEntry {
        name: "tf32",
        sentence: "f32 storage and f32 sums of products whose factors have 10 mantissa bits: a GPU's matrix units on f32",
        rounds: "the factors of every product to e8m10; each multiply-add to f32, and with sum= to that too; all else in f32",
        parameters: &[SUM],
        example: Precision::Tf32,
    },
    PrecisionEntry {
        name: "cast:e4m3",
        sentence: "8-bit floats with 3 mantissa bits (OCP: largest 448, no infinity), cast without a scale; f32 sums",
        rounds: "weights, activations, cache cast to e4m3 as they are; each multiply-add to f32, and with sum= to that too; \
                 logits stay f32",
        parameters: MINIFLOAT_PARAMETERS,
        example: Precision::Minifloat(Format::E4M3),
    },
    PrecisionEntry {
        name: "cast:e5m2",
        sentence: "8-bit floats with 2 mantissa bits (OCP: IEEE-like, largest 57344), cast without a scale; f32 sums",
        rounds: "weights, activations, cache cast to e5m2 as they are; each multiply-add to f32, and with sum= to that too; \
                 logits stay f32",
        parameters: MINIFLOAT_PARAMETERS,
        example: Precision::Minifloat(Format::E5M2),
    },
    PrecisionEntry {
        name: ANY,
        sentence: "a float with X exponent bits (2 to 8) and Y mantissa bits (1 to 23), cast without a scale; f32 sums",
        rounds: "weights, activations, cache cast to eXmY as they are; each multiply-add to f32, and with sum= to that too; \
                 logits stay f32",
        parameters: MINIFLOAT_PARAMETERS,
        example: Precision::Minifloat(Format::E3M4),
    },
    PrecisionEntry {
        name: "lmul",
        sentence: "L-Mul: a product is one integer addition of the f32 words, less 0x3f780000",
        rounds: "inputs to m mantissa bits if m is given; the product as it falls; each addition to f32",
        parameters: &["m=1..23", "scope=attention|linear|all|everything", "variant=bits|formula"],
        example: Precision::LMul { product: LMul::PUBLISHED, scope: Scope::All },
    },
    PrecisionEntry {
        name: "int8",
        sentence: "LLM.int8(): rows scaled by their largest entry to 8-bit integers, outlier columns in 16 bit",
        rounds: "activations to fp16; rows and weights to integers; integer sums exact; result to fp16; \
                 attention and logits as fp16",
        parameters: &["threshold=T"],
        example: Precision::Int8(Threshold::PUBLISHED),
    },
    PrecisionEntry {
        name: "w8a8",
        sentence: "8-bit integers, one scale a token and one a channel, no outliers kept apart",
        rounds: "rows and weights to integers; integer sums exact; result to f32; attention and logits as fp32",
        parameters: BOTH,
        example: Precision::Scaled(Scaled::W8A8),
    },
    PrecisionEntry {
        name: "fp8",
        sentence: "8-bit floats (e4m3) as servers have them: one scale a channel and one a token, f32 sums",
        rounds: "weights and activations to e4m3 times their scale; each multiply-add to f32; everything else as bf16",
        parameters: BOTH,
        example: Precision::Scaled(Scaled::FP8),
    },
    PrecisionEntry {
        name: "mxfp8",
        sentence: "the OCP's MXFP8: e4m3, 32 values under a power of two, sums of a block exact",
        rounds: "weights and activations to e4m3 times a power of two; each block's sum to f32; everything else as bf16",
        parameters: BOTH,
        example: Precision::Scaled(Scaled::MXFP8),
    },
    PrecisionEntry {
        name: "mxfp6",
        sentence: "the OCP's MXFP6: e2m3, 32 values under a power of two, sums of a block exact",
        rounds: "weights and activations to e2m3 times a power of two; each block's sum to f32; everything else as bf16",
        parameters: BOTH,
        example: Precision::Scaled(Scaled::MXFP6),
    },
    PrecisionEntry {
        name: "mxfp4",
        sentence: "the OCP's MXFP4: e2m1, 32 values under a power of two, sums of a block exact",
        rounds: "weights and activations to e2m1 times a power of two; each block's sum to f32; everything else as bf16",
        parameters: BOTH,
        example: Precision::Scaled(Scaled::MXFP4),
    },
    PrecisionEntry {
        name: "nvfp4",
        sentence: "NVIDIA's FP4: e2m1, 16 values under an e4m3 under an f32 of the matrix or the token, sums of a block exact",
        rounds: "weights and activations to e2m1 times e4m3 times f32; each block's sum to f32; everything else as bf16",
        parameters: BOTH,
        example: Precision::Scaled(Scaled::NVFP4),
    },
    PrecisionEntry {
        name: "w4a8-fp",
        sentence: "ZeroQuant-FP's pair: weights e2m1 in groups of 256 under a power of two, activations e4m3 a token",
        rounds: "weights to e2m1, activations to e4m3 times their scale; each group's sum to f32; everything else as bf16",
        parameters: BOTH,
        example: Precision::Scaled(Scaled::W4A8_FP),
    },
    PrecisionEntry {
        name: "w8a16",
        sentence: "weights alone as 8-bit integers, one f16 scale a channel",
        rounds: "weights to integers times an f16; each multiply-add to f32; everything else as bf16",
        parameters: WEIGHTS,
        example: Precision::Scaled(Scaled::W8A16),
    },
    PrecisionEntry {
        name: "w4a16",
        sentence: "weights alone as 4-bit integers, an f16 scale for every 128 of a channel",
        rounds: "weights to integers times an f16; each multiply-add to f32; everything else as bf16",
        parameters: WEIGHTS,
        example: Precision::Scaled(Scaled::W4A16),
    },
    PrecisionEntry {
        name: "w3a16",
        sentence: "weights alone as 3-bit integers, an f16 scale for every 128 of a channel",
        rounds: "weights to integers times an f16; each multiply-add to f32; everything else as bf16",
        parameters: WEIGHTS,
        example: Precision::Scaled(Scaled::W3A16),
    },
    PrecisionEntry {
        name: SCALED,
        sentence: "any quantizers, spelled out: grid-scale-span of weights and of activations, -zero where codes have one",
        rounds: "weights, and activations if told, to their codes; sums as its spans have them; everything else as its compute",
        parameters: &[
            "w=GRID-SCALE-SPAN",
            "a=GRID-SCALE-SPAN",
            "compute=bf16|fp16|fp32",
            SUM,
            "calibration=FILE",
        ],
        example: Precision::Scaled(Scaled {
            weights: Quantizer { zero: true, ..Scaled::W4A16.weights },
            ..Scaled::W4A16
        }),
    },
    PrecisionEntry {
        name: MAP,
        sentence: "others by place: a file beside the matrix says which steps of which layers have which",
        rounds: "every operation as the precision of its place does: what it reads, its sums, what it gives",
        parameters: &[],
        example: Precision::Map(Map::EXAMPLE),
    },
];

impl Precision {
    /// The row of [`PRECISIONS`] that this precision belongs to.
    pub fn entry(self) -> &'static PrecisionEntry {
        let own = |entry: &&PrecisionEntry| match (entry.example, self.with_sums_in_f32()) {
            (Precision::Minifloat(row), Precision::Minifloat(own)) => {
                entry.name == ANY || row.has_widths_of(own)
            }
            (Precision::Scaled(row), Precision::Scaled(own)) => {
                entry.name == SCALED || row.kind() == own.kind()
            }
            (row, own) => discriminant(&row) == discriminant(&own),
        };
        PRECISIONS.iter().find(own).expect("every precision has a row in PRECISIONS")
    }

    /// The same, but for what its sums round to.
    fn with_sums_in_f32(self) -> Precision {
        match self {
            Precision::Summed(summed) => summed.in_f32(),
            own => own,
        }
    }

    /// The same with sums that round to this format at every step, if its sums are in f32 and may be in another.
    #[must_use]
    pub fn with_sum(self, sum: Format) -> Option<Precision> {
        let floats = match (self, sum) {
            (Precision::Bf16, Format::BF16) => return Some(Precision::Bf16Acc16),
            (Precision::Fp16, Format::F16) => return Some(Precision::Fp16Acc16),
            (Precision::Bf16, _) => Floats::Bf16,
            (Precision::Fp16, _) => Floats::Fp16,
            (Precision::LayerCast(stored), _) => Floats::LayerCast(stored),
            (Precision::Tf32, _) => Floats::Tf32,
            (Precision::Minifloat(format), _) => Floats::Minifloat(format),
            (Precision::Scaled(own), _) => return Some(Precision::Scaled(Scaled { sum, ..own })),
            _ => return None,
        };
        Some(if sum == Format::F32 { self } else { Precision::Summed(Summed { floats, sum }) })
    }

    /// The one that holds at a place: itself, unless it is a map.
    pub fn at(self, at: At) -> Precision {
        match self {
            Precision::Map(map) => map.at(at),
            plain => plain,
        }
    }

    /// The precisions that it is made of: itself, unless it is a map.
    pub fn parts(self) -> Vec<Precision> {
        match self {
            Precision::Map(map) => map.parts(),
            plain => vec![plain],
        }
    }

    /// Those that hold at these steps of a layer.
    pub(super) fn in_steps(self, steps: &[Step]) -> Vec<Precision> {
        match self {
            Precision::Map(map) => map.in_steps(steps),
            plain => vec![plain],
        }
    }

    /// From which layer on all are alike.
    pub fn alike_from(self) -> usize {
        if let Precision::Map(map) = self { map.alike_from() } else { 0 }
    }

    /// What was measured beforehand for a place, if it reads any of that.
    pub fn calibration(self, at: At) -> Option<Calibration> {
        match self.at(at) {
            Precision::Scaled(own) => own.calibration,
            _ => None,
        }
    }

    /// Everything that was measured for one of its places, each once.
    pub fn calibrations(self) -> Vec<Calibration> {
        let mut found = Vec::new();
        for part in self.parts() {
            let Precision::Scaled(Scaled { calibration: Some(own), .. }) = part else { continue };
            if !found.contains(&own) {
                found.push(own);
            }
        }
        found
    }

    /// Does what it makes of a row depend on the other rows of the call?
    pub fn sees_other_rows(self) -> bool {
        // A column in which any row has an outlier is one of outliers for all.
        self.parts().iter().any(|part| matches!(part, Precision::Int8(_)))
    }

    /// All rounding points of a product at this place.
    pub fn recipe(self, at: At) -> Recipe {
        let site = at.site();
        let uniform = |format| Recipe {
            weights: Storage::Values(format),
            activations: format,
            product: Product::Fused,
            sum: Format::F32,
            result: format,
        };
        let linear = site != Site::Attention;
        match self {
            Precision::Fp32 => uniform(Format::F32),
            Precision::Gguf if linear => Recipe { weights: Storage::Kept, ..uniform(Format::F32) },
            Precision::Gguf => uniform(Format::F32),
            Precision::Bf16 => uniform(Format::BF16),
            Precision::Bf16Acc16 => Recipe { sum: Format::BF16, ..uniform(Format::BF16) },
            Precision::Fp16 => uniform(Format::F16),
            Precision::Fp16Acc16 => Recipe { sum: Format::F16, ..uniform(Format::F16) },
            Precision::LayerCast(stored) if stored == Stored::All && linear || site == Site::Linear => {
                Recipe { weights: Storage::Values(Format::BF16), ..uniform(Format::F32) }
            }
            Precision::LayerCast(_) => uniform(Format::F32),
            // What is read from it is not a factor of a product.
            Precision::Tf32 if site == Site::Table => uniform(Format::F32),
            Precision::Tf32 => Recipe {
                weights: Storage::Values(Format::TF32),
                activations: Format::TF32,
                ..uniform(Format::F32)
            },
            Precision::Summed(summed) => Recipe { sum: summed.sum, ..summed.in_f32().recipe(at) },
            // Eight bits of logits would tie everywhere; no engine serves them.
            Precision::Minifloat(format) if site == Site::Head => {
                Recipe { result: Format::F32, ..uniform(format) }
            }
            Precision::Minifloat(format) => uniform(format),
            Precision::LMul { product, scope } => {
                let inside = match scope {
                    _ if site == Site::Table => false,
                    Scope::All | Scope::Everything => true,
                    Scope::Linear => linear,
                    Scope::Attention => !linear,
                };
                let operands = product.operands();
                let lmul = Recipe {
                    weights: Storage::Values(operands),
                    activations: operands,
                    product: Product::LMul(product),
                    ..uniform(Format::F32)
                };
                if inside { lmul } else { uniform(Format::F32) }
            }
            Precision::Int8(threshold) if site == Site::Linear => {
                Recipe { product: Product::Int8(threshold), ..uniform(Format::F16) }
            }
            Precision::Int8(_) => uniform(Format::F16),
            Precision::Scaled(own) if site == Site::Linear => Recipe {
                weights: Storage::Codes(own.weights),
                product: own.activations_at(at).map_or(Product::Fused, Product::Scaled),
                sum: own.sum,
                ..uniform(own.compute)
            },
            Precision::Scaled(Scaled { compute, .. }) => uniform(compute),
            Precision::Map(map) => map.at(at).recipe(at),
        }
    }

    /// What this place does to values one by one. Those of norms, softmax, gates and the residual stream round to what those of
    /// the linear layers do.
    pub fn elementwise(self, at: At) -> Elementwise {
        let own = self.at(at);
        let product = match own {
            Precision::LMul { product, scope: Scope::Everything } => Some(product),
            _ => None,
        };
        let Recipe { result, .. } = own.recipe(At::alone(Site::Linear));
        Elementwise { product, result }
    }

    /// What the values that this place hands on round to.
    pub fn activations(self, at: At) -> Format {
        self.elementwise(at).result
    }

    /// What the small vectors of a place are stored in: the weights of its norm, the biases of its product.
    pub fn vectors(self, at: At) -> Format {
        let own = self.at(at);
        // A bias goes with the weights of its product.
        let site = match own.with_sums_in_f32() {
            Precision::LayerCast(Stored::Layers) if Step::PRODUCTS.contains(&at.step) => Site::Linear,
            _ => Site::Table,
        };
        own.recipe(At::alone(site)).weights.format()
    }

    /// Where a checkpoint ties its embedding to its head: can one matrix, packed for the head, be both? Otherwise the
    /// head needs one of its own.
    pub fn head_is_table(self) -> bool {
        let [head, table] =
            [Step::Head, Step::Embed].map(|step| self.recipe(At::outside(step)).weights.format());
        head == table
    }

    /// A site at which the product that gives the precision its name is used.
    pub fn own_site(self) -> Site {
        match self {
            Precision::LMul { scope: Scope::Attention, .. } => Site::Attention,
            Precision::Map(map) => map.base().own_site(),
            _ => Site::Linear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_what_no_product_asks_for() {
        let table = |name: &str| name.parse::<Precision>().unwrap().recipe(At::alone(Site::Table));
        for (name, stored) in [
            ("fp32", Format::F32),
            ("gguf", Format::F32),
            ("bf16", Format::BF16),
            ("bf16-acc16", Format::BF16),
            ("fp16", Format::F16),
            ("fp16-acc16", Format::F16),
            ("layercast", Format::BF16),
            ("tf32", Format::F32),
            ("layercast:sum=e8m13", Format::BF16),
            ("layercast:scope=layers", Format::F32),
            ("cast:e4m3", Format::E4M3),
            ("cast:e5m2", Format::E5M2),
            ("cast:e3m4", Format::E3M4),
            ("lmul:m=3", Format::F32),
            ("int8", Format::F16),
            ("w8a8", Format::F32),
        ] {
            assert_eq!(
                (table(name).weights.format(), table(name).product),
                (stored, Product::Fused),
                "{name}"
            );
        }
    }

    #[test]
    fn a_tied_head_is_stored_twice_only_where_a_product_or_a_map_rounds_it_otherwise() {
        for entry in PRECISIONS {
            assert_eq!(entry.example.head_is_table(), !["tf32", MAP].contains(&entry.name), "{}", entry.name);
        }
        let shared = |name: &str| name.parse::<Precision>().unwrap().head_is_table();
        assert!(shared("lmul:m=3,scope=attention"));
        assert!(!shared("lmul:m=3") && !shared("lmul:m=3,scope=linear"));
    }

    #[test]
    fn a_format_of_sums_is_all_that_it_changes() {
        for name in [
            "bf16",
            "fp16",
            "layercast",
            "layercast:scope=layers",
            "tf32",
            "cast:e4m3",
            "cast:e3m2,round=zero",
        ] {
            let plain: Precision = name.parse().unwrap();
            let sum = Format::minifloat(6, 9).unwrap();
            let summed = plain.with_sum(sum).unwrap();
            assert_eq!(plain.with_sum(Format::F32), Some(plain));
            assert_eq!((summed.entry().name, summed.with_sum(sum)), (plain.entry().name, None));
            for site in [Site::Linear, Site::Attention, Site::Head, Site::Table].map(At::alone) {
                assert_eq!(summed.recipe(site), Recipe { sum, ..plain.recipe(site) }, "{name}");
            }
        }
        for name in ["fp32", "gguf", "bf16-acc16", "fp16-acc16", "lmul", "int8"] {
            assert_eq!(name.parse::<Precision>().unwrap().with_sum(Format::BF16), None, "{name}");
        }
    }

    #[test]
    fn the_scope_of_layers_stores_their_products_and_biases_in_bfloat16_and_nothing_else() {
        for name in ["layercast:scope=layers", "layercast:scope=layers,sum=e8m13"] {
            let (own, all): (Precision, Precision) =
                (name.parse().unwrap(), name.replace("scope=layers", "scope=all").parse().unwrap());
            let fp32 = own.recipe(At::alone(Site::Attention));
            for (layer, step) in Step::ALL.iter().map(|step| (step.is_of_layer().then_some(0), *step)) {
                let at = At { layer, step };
                let is_product = Step::PRODUCTS.contains(&step);
                let vectors = if is_product { Format::BF16 } else { Format::F32 };
                assert_eq!((own.vectors(at), all.vectors(at)), (vectors, Format::BF16), "{name} {at}");
                if is_product {
                    assert_eq!(own.recipe(at), all.recipe(at), "{name} {at}");
                } else if at.site() != Site::Linear {
                    assert_eq!(own.recipe(at), fp32, "{name} {at}");
                }
            }
            assert!(own.head_is_table());
        }
    }

    #[test]
    fn everything_is_all_and_the_products_of_two_values() {
        for parameters in ["", "m=3,", "m=5,variant=formula,"] {
            let [all, everything, fp32] = [
                format!("lmul:{parameters}scope=all"),
                format!("lmul:{parameters}scope=everything"),
                "fp32".to_owned(),
            ]
            .map(|name| name.parse::<Precision>().unwrap());
            for site in [Site::Linear, Site::Attention, Site::Head, Site::Table].map(At::alone) {
                assert_eq!(everything.recipe(site), all.recipe(site));
            }
            let Precision::LMul { product, .. } = everything else { unreachable!("it was made so") };
            let at = At::layer(0, Step::Gate);
            assert_eq!(all.elementwise(at), fp32.elementwise(at));
            assert_eq!(
                everything.elementwise(at),
                Elementwise { product: Some(product), ..all.elementwise(at) }
            );
        }
    }

    #[test]
    fn attention_scope_leaves_the_linear_layers_alone() {
        let precision: Precision = "lmul:m=4,scope=attention".parse().unwrap();
        let [linear, attention] = [Site::Linear, Site::Attention].map(At::alone);
        assert_eq!(precision.recipe(linear), Precision::Fp32.recipe(linear));
        assert_ne!(precision.recipe(attention), Precision::Fp32.recipe(attention));
    }
}
