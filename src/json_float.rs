//! An f32 in a text format, infinities included, for which JSON has no number.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number where it is one, and `"inf"`, `"-inf"` or `"NaN"` otherwise. A report has no NaN.
///
/// # Errors
///
/// Those of the serializer.
// What `#[serde(with = ...)]` calls takes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(crate) fn serialize<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { value.serialize(serializer) } else { serializer.collect_str(value) }
}

/// The other way.
///
/// # Errors
///
/// When it is neither a number nor one of these words.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f32),
        Word(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(number) => Ok(number),
        Written::Word(word) if word == "inf" => Ok(f32::INFINITY),
        Written::Word(word) if word == "-inf" => Ok(f32::NEG_INFINITY),
        Written::Word(word) if word == "NaN" => Ok(f32::NAN),
        Written::Word(word) => {
            Err(de::Error::custom(format!("`{word}` is not a logit: write a number, `inf` or `-inf`")))
        }
    }
}

/// What [`serialize`] writes in a report.
pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [{ "type": "number" }, { "enum": ["inf", "-inf"] }] })
}

/// The same for a number that may be missing.
pub(crate) mod option {
    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::{Serialize, Serializer};

    #[derive(Serialize)]
    struct Number(#[serde(with = "super")] f32);

    /// A number, one of the two words, or nothing.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    // What `#[serde(with = ...)]` calls takes a reference.
    #[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option)]
    pub(crate) fn serialize<S: Serializer>(value: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(Number).serialize(serializer)
    }

    /// What [`serialize`] writes.
    pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": ["number", "null"] }, { "enum": ["inf", "-inf"] }] })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_written_comes_back_to_the_last_bit() {
        let mut bits = 1_u64;
        for _ in 0..20_000 {
            // Marsaglia's xorshift: every pattern but 0, in no order.
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            let (single, double) = (f32::from_bits(bits as u32), f64::from_bits(bits));
            if single.is_finite() {
                let written = serde_json::to_string(&single).unwrap();
                assert_eq!(serde_json::from_str::<f32>(&written).unwrap().to_bits(), single.to_bits());
            }
            if double.is_finite() {
                let written = serde_json::to_string(&double).unwrap();
                assert_eq!(serde_json::from_str::<f64>(&written).unwrap().to_bits(), double.to_bits());
            }
        }
    }
}
