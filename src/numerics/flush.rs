//! Steps of a sum without subnormal numbers, as the instruction VDPBF16PS takes them.

/// The value, and zero with its sign for a subnormal number.
pub(super) fn flush(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(value) } else { value }
}

/// `x * w + sum`, rounded once, where a subnormal operand is zero, and so is a result that is [tiny](is_tiny).
pub(super) fn fused(x: f32, w: f32, sum: f32) -> f32 {
    let [x, w, sum] = [x, w, sum].map(flush);
    let value = x.mul_add(w, sum);
    if is_tiny(x, w, sum) { 0.0_f32.copysign(value) } else { value }
}

/// Would `x * w + sum` round to less than the smallest normal number, if exponents went on below it?
///
/// The rounded f32 does not tell. From 2^-126 - 2^-150 up it is 2^-126, but exponents that go on leave room for that
/// number itself, and only from halfway between the two does a sum round up to a normal one.
fn is_tiny(x: f32, w: f32, sum: f32) -> bool {
    /// 2^-126 - 2^-151, which lies halfway and rounds to even.
    const LEAST: f64 = f64::from_bits(((1023 - 127) << 52) | (0xFF_FFFF << 28));
    // Both are exact, and so is what their sum lost.
    let (product, sum) = (f64::from(x) * f64::from(w), f64::from(sum));
    let total = product + sum;
    let added = total - product;
    let lost = (product - (total - added)) + (sum - added);
    let (size, lost) = if total < 0.0 { (-total, -lost) } else { (total, lost) };
    size < LEAST || (size == LEAST && lost < 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 to this power, which f64 holds.
    fn power(exponent: i32) -> f64 {
        f64::from_bits(((1023 + exponent) as u64) << 52)
    }

    #[test]
    fn what_is_subnormal_is_zero_with_its_sign() {
        for (value, flushed) in [
            (1, 0),
            (0x007F_FFFF, 0),
            (0x0080_0000, 0x0080_0000),
            (0x8000_0001, 0x8000_0000),
            (0x807F_FFFF, 0x8000_0000),
            (0x8080_0000, 0x8080_0000),
            (0x7F80_0000, 0x7F80_0000),
        ] {
            assert_eq!(flush(f32::from_bits(value)).to_bits(), flushed, "{value:#x}");
        }
        assert!(flush(f32::NAN).is_nan());
    }

    #[test]
    fn a_result_is_tiny_up_to_halfway_below_the_smallest_normal_number() {
        let least = f64::from(f32::MIN_POSITIVE);
        // How far below, as two factors.
        for (factors, stays) in [
            ([-75, -76], true),
            ([-75, -75], false),
            ([-74, -75], false),
            ([-76, -76], true),
            ([-126, -126], true),
        ] {
            for sign in [1.0, -1.0] {
                let [x, w] = factors.map(|exponent| power(exponent) as f32);
                let value = fused(-sign * x, w, sign * f32::MIN_POSITIVE);
                let expected = if stays { sign * f32::MIN_POSITIVE } else { sign * 0.0 };
                assert_eq!(value.to_bits(), expected.to_bits(), "{factors:?} {sign}");
            }
        }
        // One f32 has both: at 2^-150 below it is what f32 rounds to and yet tiny.
        assert_eq!((least - power(-150)) as f32, f32::MIN_POSITIVE);
        // The halfway point and something of either sign that is too small to show beside it, even in f64: the factors'
        // significands times 2^23 and 2^24, whose product is 2^47 and that much more.
        for (u, v, more, stays) in
            [((1 << 23) + 2048, (1 << 24) - 4095, 2048, false), ((1 << 23) + 1, (1 << 24) - 2, -2, true)]
        {
            assert_eq!(u * v, (1_i64 << 47) + more);
            let [x, w] = [u as f64 * power(-23 - 75), v as f64 * power(-24 - 76)];
            assert_eq!((least - x * w).to_bits(), (least - power(-151)).to_bits());
            let value = fused(-x as f32, w as f32, f32::MIN_POSITIVE);
            assert_eq!(value != 0.0, stays, "{more}");
        }
    }
}
