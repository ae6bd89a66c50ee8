//! Quantizers make of a block what torchao, torch and ml_dtypes make of it, bit for bit.

use std::collections::BTreeMap;

use reprocheck::numerics::quantizer::{Quantizer, Side};

/// The words of a line of hexadecimal digits.
fn words(line: &str) -> Vec<u32> {
    let digits = line.as_bytes().chunks(8).map(|digits| str::from_utf8(digits).unwrap());
    digits.map(|digits| u32::from_str_radix(digits, 16).unwrap()).collect()
}

#[test]
fn a_quantizer_is_that_of_other_libraries() {
    let expected: BTreeMap<String, Vec<[String; 2]>> =
        serde_json::from_str(include_str!("quantizers/expected.json")).unwrap();
    assert_eq!(expected.len(), 9);
    for (name, blocks) in expected {
        let quantizer = Quantizer::named(&name, Side::Weights).unwrap();
        for [given, worth] in blocks {
            let given: Vec<f32> = words(&given).into_iter().map(f32::from_bits).collect();
            let quantized = quantizer.quantize(&[&given]).remove(0);
            let found: Vec<u32> = quantized.values(quantizer.group(32)).map(f32::to_bits).collect();
            assert_eq!(found, words(&worth), "{name} of {given:?}");
        }
    }
}
