//! The names of precisions: printed, parsed, as a pattern, and what is said of a name that is none.

use std::{fmt, str::FromStr};

use super::{
    ANY, CAST, MAP, PRECISIONS, Precision, PrecisionEntry, QUANTIZER, SCALED, Scaled, Scope, Stored,
    calibration::{CALIBRATION, Calibration, CalibrationError},
    map::{self, MapError},
    scaled::COMPUTE,
};
use crate::{
    name::{did_you_mean, nearest},
    numerics::{
        format::{Format, FormatError, Rounding},
        product::{Threshold, Variant},
        quantizer::{Quantizer, Side, Span},
    },
};

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.with_sums_in_f32() {
            Precision::Map(map) => return map.fmt(f),
            Precision::Minifloat(format) => {
                write!(f, "{CAST}e{}m{}", format.exponent_bits(), format.mantissa_bits())?;
            }
            _ => f.write_str(self.entry().name)?,
        }
        let parameters = self.parameters();
        let before = before_parameters(self.entry().name);
        if parameters.is_empty() { Ok(()) } else { write!(f, "{before}{}", parameters.join(",")) }
    }
}

/// What stands between this name and its parameters.
fn before_parameters(name: &str) -> char {
    if name.starts_with(CAST) { ',' } else { ':' }
}

/// What a name looks like, for a schema: a regular expression without its ends.
pub(crate) fn pattern() -> String {
    let values = |values: &str| values.replace(QUANTIZER, "[a-z0-9]+(-[a-z0-9]+)+").replace('N', "[0-9]+");
    let parameter = |written: &&str| match written.split_once('=') {
        Some((key, some)) if some.contains('|') || some == QUANTIZER => format!("{key}=({})", values(some)),
        // A file, or what stands for what it says.
        _ if written.starts_with(CALIBRATION) => format!("{CALIBRATION}[^/,;]+"),
        Some((key, _)) => format!("{key}=[0-9.]+"),
        None => values(written),
    };
    let of_entry = |entry: &PrecisionEntry| {
        let name = entry.name;
        let parameters: Vec<_> = entry.parameters.iter().map(parameter).collect();
        let whole = match parameters.join("|") {
            none if none.is_empty() => name.to_owned(),
            one => format!("{name}({}({one})(,({one}))*)?", before_parameters(name)),
        };
        whole.replace("eXmY", "e[2-8]m[1-9][0-9]?")
    };
    let plain = PRECISIONS.iter().filter(|entry| entry.name != MAP);
    let plain = plain.map(of_entry).collect::<Vec<_>>().join("|");
    format!("({plain}|{})", map::pattern(&format!("({plain})")))
}

/// Why a text is not the name of a precision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrecisionError {
    /// No such precision.
    #[error(
        "unknown precision `{name}`: {}see `reprocheck list precisions`",
        did_you_mean(.nearest.as_deref())
    )]
    Unknown {
        /// What was given.
        name: String,
        /// The nearest name there is.
        nearest: Option<String>,
    },
    /// A name that has become another.
    #[error("`{name}` has been renamed to `{now}`: it is a cast without a scale")]
    Renamed {
        /// What was given.
        name: String,
        /// What it is called now.
        now: String,
    },
    /// A parameter that is not written `key=value`, or that the precision does not take.
    #[error("precision `{precision}` has no parameter `{parameter}`: {}", takes(.precision, .known))]
    Parameter {
        /// The precision.
        precision: String,
        /// What was given.
        parameter: String,
        /// What it takes.
        known: &'static [&'static str],
    },
    /// A parameter given twice.
    #[error("parameter `{parameter}` stands twice in `{name}`: keep one")]
    Twice {
        /// The whole name.
        name: String,
        /// The parameter.
        parameter: String,
    },
    /// A value that does not read.
    #[error("`{value}` is not a value of `{parameter}`: write {wanted}")]
    Value {
        /// The parameter.
        parameter: String,
        /// What was given.
        value: String,
        /// What would do.
        wanted: &'static str,
    },
    /// A map that is none.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A calibration that was not read.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// Quantizers that do not go together.
    #[error("`{name}` cannot be computed: choose {wanted}")]
    Scaled {
        /// The whole name.
        name: String,
        /// What would do.
        wanted: &'static str,
    },
    /// A minifloat that cannot be.
    #[error(transparent)]
    Format(#[from] FormatError),
}

fn takes(precision: &str, known: &[&str]) -> String {
    match known {
        [] => format!("it takes none, write `{precision}`"),
        known => format!("it takes {}", known.join(", ")),
    }
}

impl FromStr for Precision {
    type Err = PrecisionError;

    fn from_str(name: &str) -> Result<Self, PrecisionError> {
        if let Some(rest) = name.strip_prefix(map::PREFIX) {
            return Ok(map::parse(rest)?);
        }
        let (base, parameters) = name.split_once(before_parameters(name)).unwrap_or((name, ""));
        let mut precision = match PRECISIONS.iter().find(|entry| entry.name == base && base != ANY) {
            Some(entry) => entry.example,
            None => minifloat(base).ok_or_else(|| {
                if let Some(now) = renamed(name) {
                    return PrecisionError::Renamed { name: name.to_owned(), now };
                }
                let nearest = nearest(base, PRECISIONS.iter().map(|entry| entry.name));
                PrecisionError::Unknown { name: name.to_owned(), nearest: nearest.map(str::to_owned) }
            })??,
        };
        let mut seen = Vec::new();
        if base.len() < name.len() {
            for parameter in parameters.split(',') {
                let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                if seen.contains(&key) {
                    let parameter = key.to_owned();
                    return Err(PrecisionError::Twice { name: name.to_owned(), parameter });
                }
                seen.push(key);
                precision = precision.with(base, key, value)?;
            }
        }
        if let Precision::Scaled(own) = precision {
            own.check().map_err(|wanted| PrecisionError::Scaled { name: name.to_owned(), wanted })?;
        }
        Ok(precision)
    }
}

/// `cast:eXmY`, if the name has that shape at all.
fn minifloat(name: &str) -> Option<Result<Precision, FormatError>> {
    Some(format(name.strip_prefix(CAST)?)?.map(Precision::Minifloat))
}

/// `eXmY`, if the name has that shape at all.
fn format(name: &str) -> Option<Result<Format, FormatError>> {
    let (exponent, mantissa) = name.strip_prefix('e')?.split_once('m')?;
    let (exponent, mantissa) = (exponent.parse().ok()?, mantissa.parse().ok()?);
    Some(Format::minifloat(exponent, mantissa))
}

/// What the name of a quantizer looks like.
const SPELLED_OUT: &str = "grid, scale and span, such as int4-f16-g128 or e4m3-f32-token";
/// What a cast is called whose name is of the time when it had none of its own: `fp8-e4m3`, `fp8-e5m2`, `eXmY`.
fn renamed(name: &str) -> Option<String> {
    let name = name.to_lowercase();
    let (base, parameters) = name.split_once(':').unwrap_or((&name, ""));
    let format = match base {
        "fp8-e4m3" | "fp8-e5m2" => &base["fp8-".len()..],
        format => format,
    };
    let now = format!("{CAST}{format}");
    minifloat(&now)?.ok()?;
    Some(if parameters.is_empty() { now } else { format!("{now},{parameters}") })
}

impl Precision {
    /// The parameters that differ from the defaults, as `key=value`.
    fn parameters(self) -> Vec<String> {
        let mut parameters = Vec::new();
        match self.with_sums_in_f32() {
            Precision::Minifloat(format) => {
                if format.rounding() != Rounding::NearestEven {
                    parameters.push(format!("round={}", format.rounding()));
                }
                if !format.saturates() {
                    parameters.push("saturate=no".to_owned());
                }
                if !format.has_subnormals() {
                    parameters.push("subnormal=no".to_owned());
                }
            }
            Precision::LayerCast(stored) if stored != Stored::All => {
                parameters.push(format!("scope={stored}"));
            }
            Precision::LMul { product, scope } => {
                if let Some(bits) = product.mantissa() {
                    parameters.push(format!("m={bits}"));
                }
                if scope != Scope::All {
                    parameters.push(format!("scope={scope}"));
                }
                if product.variant != Variant::Bits {
                    parameters.push(format!("variant={}", product.variant));
                }
            }
            Precision::Scaled(own) => {
                let Precision::Scaled(row) = self.entry().example else {
                    unreachable!("a row has its own kind")
                };
                if self.entry().name == SCALED {
                    parameters.push(format!("w={}", own.weights.name(Side::Weights)));
                    let activations = own.activations.map(|own| format!("a={}", own.name(Side::Activations)));
                    parameters.extend(activations);
                    parameters.extend(own.parameters(Scaled {
                        compute: row.compute,
                        sum: row.sum,
                        calibration: None,
                        ..own
                    }));
                } else {
                    parameters = own.parameters(row);
                }
            }
            Precision::Int8(threshold) if threshold != Threshold::PUBLISHED => {
                parameters.push(format!("threshold={}", threshold.value()));
            }
            _ => {}
        }
        if let Precision::Summed(summed) = self {
            parameters.push(format!("sum={}", summed.sum));
        }
        parameters
    }

    /// This precision with one parameter set.
    fn with(self, base: &str, key: &str, value: &str) -> Result<Precision, PrecisionError> {
        let wrong =
            |wanted| PrecisionError::Value { parameter: key.to_owned(), value: value.to_owned(), wanted };
        let yes_or_no = || match value {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(wrong("`yes` or `no`")),
        };
        let none = || PrecisionError::Parameter {
            precision: base.to_owned(),
            parameter: key.to_owned(),
            known: self.entry().parameters,
        };
        Ok(match (self, key) {
            (Precision::Summed(summed), _) => {
                let in_f32 = summed.in_f32().with(base, key, value)?;
                in_f32.with_sum(summed.sum).ok_or_else(none)?
            }
            (_, "sum") => {
                let sum = match value {
                    "f32" => Format::F32,
                    "bf16" => Format::BF16,
                    "f16" => Format::F16,
                    other => format(other).ok_or_else(|| wrong("a format such as e8m13, bf16 or f16"))??,
                };
                self.with_sum(sum).ok_or_else(none)?
            }
            (Precision::Minifloat(format), "round") => {
                let rounding = value.parse();
                let rounding =
                    rounding.map_err(|_| wrong("`even`, `away`, `up`, `down`, `zero` or `half-zero`"))?;
                Precision::Minifloat(format.with_rounding(rounding))
            }
            (Precision::Minifloat(format), "saturate") => {
                Precision::Minifloat(format.with_saturation(yes_or_no()?)?)
            }
            (Precision::Minifloat(format), "subnormal") => {
                Precision::Minifloat(format.with_subnormals(yes_or_no()?))
            }
            (Precision::LayerCast(_), "scope") => {
                Precision::LayerCast(value.parse().map_err(|_| wrong("`all` or `layers`"))?)
            }
            (Precision::LMul { product, scope }, "m") => {
                let product = value.parse().ok().and_then(|bits| product.with_mantissa(bits));
                let product = product.ok_or_else(|| wrong("a number of mantissa bits from 1 to 23"))?;
                Precision::LMul { product, scope }
            }
            (Precision::LMul { product, .. }, "scope") => {
                let scope =
                    value.parse().map_err(|_| wrong("`attention`, `linear`, `all` or `everything`"))?;
                Precision::LMul { product, scope }
            }
            (Precision::LMul { mut product, scope }, "variant") => {
                product.variant = value.parse().map_err(|_| wrong("`bits` or `formula`"))?;
                Precision::LMul { product, scope }
            }
            (Precision::Int8(_), "threshold") => {
                let threshold = value.parse().ok().and_then(Threshold::new);
                Precision::Int8(threshold.ok_or_else(|| wrong("a positive number, such as 6"))?)
            }
            (Precision::Scaled(own), "compute") => {
                let named = COMPUTE.iter().find(|(name, _)| *name == value);
                let &(_, compute) = named.ok_or_else(|| wrong("`bf16`, `fp16` or `fp32`"))?;
                Precision::Scaled(Scaled { compute, ..own })
            }
            (Precision::Scaled(own), "calibration") => {
                let calibration: Calibration = value.parse()?;
                Precision::Scaled(Scaled { calibration: Some(calibration), ..own })
            }
            (Precision::Scaled(own), "w") if base == SCALED => {
                let weights = Quantizer::named(value, Side::Weights).ok_or_else(|| wrong(SPELLED_OUT))?;
                Precision::Scaled(Scaled { weights, ..own })
            }
            (Precision::Scaled(own), "a") if base == SCALED => {
                let named = Quantizer::named(value, Side::Activations);
                let activations = Some(named.ok_or_else(|| wrong(SPELLED_OUT))?);
                Precision::Scaled(Scaled { activations, ..own })
            }
            (Precision::Scaled(own @ Scaled { activations: Some(activations), .. }), "a") => {
                let span = Span::named(value, Side::Activations).ok_or_else(|| {
                    wrong("`token`, `tensor`, or groups such as `g128`, of 8 to 1024 terms, a multiple of 8")
                })?;
                Precision::Scaled(Scaled { activations: Some(activations.over(span)), ..own })
            }
            (Precision::Scaled(own), span)
                if base != SCALED && value.is_empty() && Span::named(span, Side::Weights).is_some() =>
            {
                let span = Span::named(span, Side::Weights).unwrap_or(own.weights.span);
                Precision::Scaled(Scaled { weights: own.weights.over(span), ..own })
            }
            _ => return Err(none()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_parses_back_to_its_value() {
        let more = [
            "lmul:m=4,scope=attention",
            "lmul:scope=linear",
            "lmul:scope=everything",
            "lmul:m=7,scope=attention,variant=formula",
            "int8:threshold=4.5",
            "cast:e2m1",
            "cast:e3m2,round=zero",
            "cast:e8m4",
            "cast:e4m3,round=down,saturate=no",
            "cast:e5m2,saturate=no",
            "w4a16:g64,compute=fp16",
            "w4a16:channel",
            "fp8:s128,a=g128",
            "fp8:tensor",
            "w8a8:compute=bf16",
            "fp8:sum=e8m13",
            "w4a16:g64,compute=fp16,sum=bf16",
            "scaled:w=int4-f16-g128-zero",
            "scaled:w=odd3-e8m0-g32,a=int8-f32-token,compute=fp32",
            "cast:e4m3,sum=e4m3",
            "cast:e5m2,round=half-zero,saturate=no,subnormal=no,sum=bf16",
            "cast:e3m2,round=zero,sum=f16",
            "bf16:sum=e8m13",
            "bf16:sum=e8m7",
            "fp16:sum=bf16",
            "layercast:sum=e8m23",
            "layercast:scope=layers",
            "layercast:scope=layers,sum=e8m13",
            "tf32:sum=e2m1",
        ];
        let examples = PRECISIONS.iter().map(|entry| entry.example);
        for precision in examples.chain(more.iter().map(|name| name.parse().unwrap())) {
            assert_eq!(precision.to_string().parse(), Ok(precision), "{precision}");
        }
    }

    #[test]
    fn one_value_has_one_name() {
        let name = |text: &str| text.parse::<Precision>().unwrap().to_string();
        assert_eq!(name("lmul:scope=attention,m=4"), "lmul:m=4,scope=attention");
        assert_eq!(name("lmul:m=23,scope=all,variant=bits"), "lmul");
        assert_eq!(name("layercast:sum=e8m13,scope=layers"), "layercast:scope=layers,sum=e8m13");
        assert_eq!(name("layercast:scope=all"), "layercast");
        assert_eq!(name("int8:threshold=6.0"), "int8");
        assert_eq!(name("w4a16:g128,compute=bf16"), "w4a16");
        assert_eq!(name("scaled:w=int4-f16-g64"), "w4a16:g64");
        assert_eq!(name("scaled:a=e2m1-e4m3-g16,w=e2m1-e4m3-g16"), "nvfp4");
        assert_eq!(name("scaled"), "scaled:w=int4-f16-g128-zero");
        assert_eq!(name("cast:e04m3"), "cast:e4m3");
        assert_eq!(name("cast:e4m3,sum=f32,subnormal=yes"), "cast:e4m3");
        assert_eq!(name("cast:e4m3,sum=e4m3,round=up"), "cast:e4m3,round=up,sum=e4m3");
        assert_eq!([name("bf16:sum=bf16"), name("fp16:sum=f16")], ["bf16-acc16", "fp16-acc16"]);
        assert_eq!(name("cast:e5m2,round=even,saturate=yes"), "cast:e5m2");
        for entry in PRECISIONS.iter().filter(|entry| ![ANY, MAP, SCALED].contains(&entry.name)) {
            assert_eq!(entry.example.to_string(), entry.name);
        }
    }

    #[test]
    fn a_bad_name_says_what_to_write_instead() {
        let error = |name: &str| name.parse::<Precision>().unwrap_err().to_string();
        assert_eq!(
            error("bf61"),
            "unknown precision `bf61`: did you mean `bf16`? see `reprocheck list precisions`"
        );
        assert_eq!(
            error("cast:eXmY"),
            "unknown precision `cast:eXmY`: did you mean `cast:e4m3`? see `reprocheck list precisions`"
        );
        assert_eq!(
            error("cast"),
            "unknown precision `cast`: did you mean `cast:e4m3`? see `reprocheck list precisions`"
        );
        assert_eq!(error("zzz"), "unknown precision `zzz`: see `reprocheck list precisions`");
        assert_eq!(error("fp32:m=4"), "precision `fp32` has no parameter `m`: it takes none, write `fp32`");
        assert_eq!(
            error("bf16:m=4"),
            "precision `bf16` has no parameter `m`: it takes sum=f32|bf16|f16|eXmY"
        );
        assert_eq!(
            error("bf16-acc16:sum=f16"),
            "precision `bf16-acc16` has no parameter `sum`: it takes none, write `bf16-acc16`"
        );
        assert_eq!(
            error("bf16:sum=half"),
            "`half` is not a value of `sum`: write a format such as e8m13, bf16 or f16"
        );
        assert_eq!(error("bf16:sum=e8m24"), "a format cannot have 24 mantissa bits: choose 1 to 23");
        assert_eq!(
            error("lmul:bits=4"),
            "precision `lmul` has no parameter `bits`: it takes m=1..23, scope=attention|linear|all|everything, \
             variant=bits|formula"
        );
        assert_eq!(
            error("lmul:m=24"),
            "`24` is not a value of `m`: write a number of mantissa bits from 1 to 23"
        );
        assert_eq!(error("lmul:m=4,m=5"), "parameter `m` stands twice in `lmul:m=4,m=5`: keep one");
        assert_eq!(
            error("int8:threshold=-1"),
            "`-1` is not a value of `threshold`: write a positive number, such as 6"
        );
        assert_eq!(
            error("w4a16:g100"),
            "precision `w4a16` has no parameter `g100`: it takes channel|gN|sN|tensor, \
             compute=bf16|fp16|fp32, sum=f32|bf16|f16|eXmY, calibration=FILE"
        );
        assert_eq!(
            error("fp8:a=tensor"),
            "`fp8:a=tensor` cannot be computed: choose calibration=FILE, which `reprocheck calibrate` writes, for one \
             scale of all activations"
        );
        assert_eq!(
            error("scaled:w=int4-f16"),
            "`int4-f16` is not a value of `w`: write grid, scale and span, such as int4-f16-g128 or e4m3-f32-token"
        );
        assert_eq!(
            error("mxfp4:g48"),
            "`mxfp4:g48` cannot be computed: choose groups of weights and of activations of which one is a multiple of \
             the other"
        );
        assert_eq!(
            error("mxfp8:sum=e8m13"),
            "`mxfp8:sum=e8m13` cannot be computed: choose floats under scales of a channel and of a token for a sum in \
             another format than f32"
        );
        // Whole numbers are added exactly.
        assert_eq!(
            error("w8a8:sum=bf16"),
            error("mxfp8:sum=e8m13").replace("mxfp8:sum=e8m13", "w8a8:sum=bf16")
        );
        assert_eq!(
            error("nvfp4:channel"),
            "`nvfp4:channel` cannot be computed: choose a group for a scale under another"
        );
        for (old, now) in [
            ("fp8-e4m3", "cast:e4m3"),
            ("FP8-E5M2", "cast:e5m2"),
            ("e4m3", "cast:e4m3"),
            ("e3m4", "cast:e3m4"),
            ("fp8-e4m3:round=down,saturate=no", "cast:e4m3,round=down,saturate=no"),
        ] {
            let told = format!("`{old}` has been renamed to `{now}`: it is a cast without a scale");
            assert_eq!((error(old), now.parse::<Precision>().is_ok()), (told, true));
        }
        assert_eq!(error("cast:e9m3"), "a format cannot have 9 exponent bits: choose 2 to 8");
        assert_eq!(error("fp32:"), "precision `fp32` has no parameter ``: it takes none, write `fp32`");
    }
}
