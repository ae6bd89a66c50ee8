//! Formats against libraries by others, against the definition of each rounding, and against themselves.

use std::cmp::Ordering;

use float8::{F8E4M3, F8E5M2};
use half::{bf16, f16};
use microfloat::{f4e2m1fn, f6e2m3fn, f6e3m2fn, f8e3m4, f8e4m3fn, f8e5m2};
use rayon::prelude::*;
use reprocheck::numerics::format::{Format, FormatError, Rounding, Specials};

const NAN: u32 = 0x7FC0_0000;

fn minifloat(exponent: u8, mantissa: u8) -> Format {
    Format::minifloat(exponent, mantissa).unwrap()
}

fn overflowing(format: Format) -> Format {
    format.with_saturation(false).unwrap()
}

/// Every kind of special code, exponent range and mantissa width, with and without saturation.
fn formats() -> Vec<Format> {
    let shapes = [(2, 1), (2, 2), (2, 3), (3, 2), (3, 4), (4, 3), (5, 2), (5, 10), (6, 9), (7, 1), (7, 23)];
    let more = [(8, 1), (8, 4), (8, 7), (8, 22), (8, 23), (2, 23), (5, 22)];
    let all = shapes.iter().chain(&more).map(|&(exponent, mantissa)| minifloat(exponent, mantissa));
    let mut all: Vec<_> = all.collect();
    let open: Vec<_> = all.iter().filter_map(|format| format.with_saturation(false).ok()).collect();
    all.extend(open);
    all
}

/// A sample of all patterns of f32 and the edges of every exponent.
fn sample(step: usize) -> Vec<f32> {
    let strided = (0..=u32::MAX).step_by(step);
    let edges = (0..512u32).map(|exponent| exponent << 23);
    let edges = edges.flat_map(|edge| [edge.wrapping_sub(1), edge, edge + 1, edge | 0x40_0000]);
    strided.chain(edges).map(f32::from_bits).collect()
}

/// Around the codes of a format: each value and the middle to the next, with f32's neighbors of both.
fn around_codes(format: Format) -> Vec<f32> {
    let last = format.encode(format.max_finite());
    let half_a_step = 1u32 << (22 - format.mantissa_bits());
    let middles = (0..last)
        .map(|code| ((f64::from(format.decode(code)) + f64::from(format.decode(code + 1))) / 2.0) as f32);
    let middles = middles.chain([f32::from_bits(format.max_finite().to_bits() + half_a_step)]);
    let centers = (0..=last).map(|code| format.decode(code)).chain(middles);
    let nearby = centers.flat_map(|x| [x.next_down(), x, x.next_up()]);
    nearby.flat_map(|x| [x, -x]).collect()
}

fn assert_bits(got: f32, want: f32, x: f32, format: Format) {
    let want = if want.is_nan() { NAN } else { want.to_bits() };
    assert_eq!(got.to_bits(), want, "{format:?} of {x:e} ({:#010x})", x.to_bits());
}

/// Compares with an oracle around every code and on a sample of all values.
fn agrees(format: Format, step: usize, oracle: impl Fn(f32) -> f32) {
    for x in around_codes(format).into_iter().chain(sample(step)) {
        assert_bits(format.round(x), oracle(x), x, format);
    }
}

fn round_trips(format: Format) {
    for code in 0..1u32 << format.bits() {
        let value = format.decode(code);
        if value.is_nan() {
            assert_eq!(value.to_bits(), NAN, "{format:?} {code:#x}");
            assert!(format.decode(format.encode(value)).is_nan(), "{format:?} {code:#x}");
        } else if value.is_infinite() && format.saturates() {
            assert_eq!(format.round(value), format.max_finite().copysign(value));
        } else {
            assert_eq!(format.encode(value), code, "{format:?}");
            assert_bits(format.round(value), value, value, format);
        }
    }
}

#[test]
fn every_bf16_pattern_round_trips() {
    round_trips(Format::BF16);
    for bits in 0..=u16::MAX {
        assert_bits(Format::BF16.decode(bits.into()), bf16::from_bits(bits).to_f32(), 0.0, Format::BF16);
    }
}

#[test]
fn every_f16_pattern_round_trips() {
    round_trips(Format::F16);
    for bits in 0..=u16::MAX {
        assert_bits(Format::F16.decode(bits.into()), f16::from_bits(bits).to_f32(), 0.0, Format::F16);
    }
}

#[test]
fn every_code_of_up_to_16_bits_round_trips_in_every_rounding() {
    for format in formats().into_iter().filter(|format| format.bits() <= 16) {
        Rounding::ALL.iter().for_each(|&rounding| round_trips(format.with_rounding(rounding)));
    }
}

#[test]
fn every_code_of_8_bits_has_the_value_others_give_it() {
    for code in 0..=u8::MAX {
        let (wide, value) = (u32::from(code), |format: Format| format.decode(code.into()));
        assert_bits(value(Format::E4M3), f8e4m3fn::from_bits(code).to_f32(), 0.0, Format::E4M3);
        assert_bits(value(Format::E4M3), F8E4M3::from_bits(code).to_f32(), 0.0, Format::E4M3);
        assert_bits(value(Format::E5M2), f8e5m2::from_bits(code).to_f32(), 0.0, Format::E5M2);
        assert_bits(value(minifloat(3, 4)), f8e3m4::from_bits(code).to_f32(), 0.0, minifloat(3, 4));
        assert_eq!(value(Format::E4M3).to_bits(), Format::E4M3.decode(wide | 0xABCD_EF00).to_bits());
    }
    let values: Vec<_> = (0..16).map(|code| minifloat(2, 1).decode(code)).collect();
    assert_eq!(values[..8], [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
    assert!((0..8).all(|code| values[code + 8].to_bits() == (-values[code]).to_bits()));
}

#[test]
fn bf16_and_f16_agree_with_half() {
    agrees(Format::BF16, 1021, |x| bf16::from_f32(x).to_f32());
    agrees(Format::F16, 1021, |x| f16::from_f32(x).to_f32());
}

#[test]
fn e4m3_and_e5m2_agree_with_float8() {
    agrees(Format::E4M3, 1021, |x| F8E4M3::from_f32(x).to_f32());
    agrees(Format::E5M2, 1021, |x| F8E5M2::from_f32(x).to_f32());
}

#[test]
fn small_formats_agree_with_microfloat() {
    agrees(overflowing(Format::E5M2), 1021, |x| f8e5m2::from_f32(x).to_f32());
    agrees(overflowing(minifloat(3, 4)), 1021, |x| f8e3m4::from_f32(x).to_f32());
    agrees(overflowing(Format::E4M3), 1021, |x| {
        // The crate sends the tie to NaN, though the even neighbor is the largest value.
        if x.abs() == 464.0 { 448f32.copysign(x) } else { f8e4m3fn::from_f32(x).to_f32() }
    });
    // The crate's formats without NaN have their own idea of one; `specials_convert_as_pinned` has ours.
    let numbers = |format: Format, oracle: fn(f32) -> f32| {
        agrees(format, 1021, |x| if x.is_nan() { format.max_finite() } else { oracle(x) });
    };
    numbers(minifloat(2, 1), |x| f4e2m1fn::from_f32(x).to_f32());
    numbers(minifloat(2, 3), |x| f6e2m3fn::from_f32(x).to_f32());
    numbers(minifloat(3, 2), |x| f6e3m2fn::from_f32(x).to_f32());
}

#[test]
fn each_rounding_picks_its_neighbor() {
    for format in formats() {
        let [even, away, up, down, zero, half_zero] = [0, 1, 2, 3, 4, 5]
            .map(|i| format.with_rounding(Rounding::ALL[i]))
            .map(|format| move |x| format.round(x));
        let dense = if format.bits() <= 12 { around_codes(format) } else { Vec::new() };
        let finite = |x: &f32| x.abs() <= format.max_finite();
        for x in sample(1_000_003).into_iter().chain(dense).filter(finite) {
            let (below, above) = (down(x), up(x));
            assert!(below <= x && x <= above, "{format:?} of {x:e}: {below:e} {above:e}");
            // Codes as integers in the order of their values.
            let place = |x: f32| {
                let code = i64::from(format.encode(x.abs()));
                if x < 0.0 { -code } else { code }
            };
            let apart = place(above) - place(below);
            assert_eq!(apart, i64::from(below != above), "{format:?} of {x:e}");
            assert!(below == above || (below < x && x < above), "{format:?} of {x:e}");
            assert_bits(zero(x), if x.is_sign_negative() { above } else { below }, x, format);

            let [above64, below64, x64] = [above, below, x].map(f64::from);
            let (to_above, to_below) = (above64 - x64, x64 - below64);
            let (farther, nearer, even_one) = (
                if x.is_sign_negative() { below } else { above },
                if x.is_sign_negative() { above } else { below },
                if place(below) & 1 == 0 { below } else { above },
            );
            let nearest = |tie| match to_below.total_cmp(&to_above) {
                Ordering::Less => below,
                Ordering::Equal => tie,
                Ordering::Greater => above,
            };
            assert_bits(even(x), nearest(even_one), x, format);
            assert_bits(away(x), nearest(farther), x, format);
            assert_bits(half_zero(x), nearest(nearer), x, format);
        }
    }
}

/// The values of a format, from zero up, by the formula of the standards.
fn magnitudes(format: Format) -> Vec<f64> {
    let (exponent, mantissa) = (format.exponent_bits(), format.mantissa_bits());
    let bias = (1 << (exponent - 1)) - 1;
    let of_code = |code: i32| {
        let (power, fraction) =
            (code >> mantissa, f64::from(code % (1 << mantissa)) / f64::from(1 << mantissa));
        let normal = power > 0;
        (if normal { 1.0 + fraction } else { fraction }) * 2f64.powi(power.max(1) - bias)
    };
    let codes = (0..1 << (exponent + mantissa)).map(of_code);
    codes.take_while(|value| *value <= f64::from(format.max_finite())).collect()
}

#[test]
fn small_formats_round_as_a_list_of_their_values_does_in_every_way_to_treat_ties_and_small_numbers() {
    use Rounding::{Down, NearestAway, NearestEven, NearestZero, Up, Zero};
    let small = |format: &Format| format.bits() <= 9 && format.saturates() && format.exponent_bits() < 8;
    for plain in formats().into_iter().filter(small) {
        let values = magnitudes(plain);
        let last = values.len() - 1;
        assert_eq!((values[last], values[0]), (f64::from(plain.max_finite()), 0.0));
        let places = values.windows(2).flat_map(|pair| [pair[0], (pair[0] + pair[1]) / 2.0]);
        let places = places.chain([values[last], 1.5 * values[last]]).map(|place| place as f32);
        let near: Vec<f32> = places.flat_map(|x| [x.next_down().abs(), x, x.next_up()]).collect();
        for (rounding, subnormal) in
            Rounding::ALL.iter().flat_map(|rounding| [(*rounding, true), (*rounding, false)])
        {
            let format = plain.with_rounding(rounding).with_subnormals(subnormal);
            let smallest = if subnormal { format.decode(1) } else { format.min_normal() };
            assert_eq!(format.min_subnormal(), smallest);
            for x in near.iter().flat_map(|x| [*x, -*x]) {
                let size = f64::from(x.abs());
                let above = values.partition_point(|value| *value < size).min(last);
                let below = if values[above] <= size { above } else { above - 1 };
                let middle = (values[below] + values[above]) / 2.0;
                let takes_larger = match rounding {
                    NearestEven => size > middle || (size == middle && above % 2 == 0),
                    NearestAway => size >= middle,
                    NearestZero => size > middle,
                    Up => x > 0.0,
                    Down => x < 0.0,
                    Zero => false,
                };
                let value = match values[if takes_larger { above } else { below }] {
                    _ if !subnormal && size < f64::from(format.min_normal()) => 0.0,
                    value => value as f32,
                };
                assert_bits(format.round(x), value.copysign(x), x, format);
                let mut slice = [x];
                format.round_slice(&mut slice);
                assert_bits(slice[0], value.copysign(x), x, format);
            }
        }
    }
}

#[test]
fn without_subnormal_numbers_only_smaller_ones_differ() {
    for plain in formats() {
        for &rounding in &Rounding::ALL {
            let plain = plain.with_rounding(rounding);
            let format = plain.with_subnormals(false);
            let xs = sample(1_000_003);
            let mut all = xs.clone();
            format.round_slice(&mut all);
            for (x, rounded) in xs.into_iter().zip(all) {
                let want = if x.abs() < plain.min_normal() { 0f32.copysign(x) } else { plain.round(x) };
                assert_bits(rounded, want, x, format);
                assert_bits(format.round(x), want, x, format);
            }
        }
    }
}

#[test]
fn rounding_twice_changes_nothing_and_keeps_the_sign() {
    for format in formats() {
        for &rounding in &Rounding::ALL {
            let format = format.with_rounding(rounding);
            for x in sample(1_000_003) {
                let once = format.round(x);
                assert_bits(format.round(once), once, x, format);
                assert!(once.is_nan() || x.is_nan() || once.is_sign_negative() == x.is_sign_negative());
            }
        }
    }
}

#[test]
fn overflow_goes_where_the_rounding_says() {
    const INF: f32 = f32::INFINITY;
    use Rounding::{Down, NearestAway, NearestEven, NearestZero, Up, Zero};
    let (f16, e4m3) = (Format::F16, overflowing(Format::E4M3));
    let cases = [
        (f16, NearestEven, 65519.0, 65504.0, -65504.0),
        (f16, NearestEven, 65520.0, INF, -INF),
        (f16, NearestAway, 65520.0, INF, -INF),
        (f16, NearestZero, 65520.0, 65504.0, -65504.0),
        (f16, NearestZero, 65520f32.next_up(), INF, -INF),
        (e4m3, NearestZero, 464.0, 448.0, -448.0),
        (f16, Up, 65505.0, INF, -65504.0),
        (f16, Down, 1e9, 65504.0, -INF),
        (f16, Zero, 1e9, 65504.0, -65504.0),
        (f16, Zero, INF, INF, -INF),
        (e4m3, NearestEven, 464.0, 448.0, -448.0),
        (e4m3, NearestEven, 464f32.next_up(), f32::NAN, f32::NAN),
        (e4m3, NearestAway, 464.0, f32::NAN, f32::NAN),
        (e4m3, Up, 449.0, f32::NAN, -448.0),
        (e4m3, Down, 1e9, 448.0, f32::NAN),
        (e4m3, Zero, 1e9, 448.0, -448.0),
        (e4m3, Zero, INF, f32::NAN, f32::NAN),
        (Format::BF16, NearestEven, f32::MAX, INF, -INF),
        (Format::BF16, Zero, f32::MAX, f32::from_bits(0x7F7F_0000), f32::from_bits(0xFF7F_0000)),
    ];
    for (format, rounding, x, positive, negative) in cases {
        let format = format.with_rounding(rounding);
        assert_bits(format.round(x), positive, x, format);
        assert_bits(format.round(-x), negative, -x, format);
    }
}

#[test]
fn specials_convert_as_pinned() {
    for format in formats() {
        for &rounding in &Rounding::ALL {
            let format = format.with_rounding(rounding);
            let largest = format.max_finite();
            let nan = if format.specials() == Specials::Finite { largest } else { f32::NAN };
            for bits in [NAN, 0xFFC0_0000, 0x7F80_0001, 0xFFFF_FFFF] {
                assert_bits(format.round(f32::from_bits(bits)), nan, f32::NAN, format);
            }
            for zero in [0.0, -0.0] {
                assert_bits(format.round(zero), zero, zero, format);
            }
            let infinite = match format.specials() {
                _ if format.saturates() => largest,
                Specials::Ieee => f32::INFINITY,
                Specials::NanOnly | Specials::Finite => f32::NAN,
            };
            assert_bits(format.round(f32::INFINITY), infinite, f32::INFINITY, format);
            assert_bits(format.round(f32::NEG_INFINITY), -infinite, f32::NEG_INFINITY, format);
        }
    }
}

#[test]
fn f32_changes_only_nans() {
    for x in sample(1021) {
        assert_bits(Format::F32.round(x), x, x, Format::F32);
    }
}

#[test]
fn limits_are_those_of_the_standards() {
    let two = |power: i32| 2f64.powi(power) as f32;
    let limits = |format: Format| (format.max_finite(), format.min_normal(), format.min_subnormal());
    assert_eq!(limits(Format::F32), (f32::MAX, f32::MIN_POSITIVE, two(-149)));
    assert_eq!(limits(Format::BF16), (bf16::MAX.to_f32(), two(-126), two(-133)));
    assert_eq!(limits(Format::F16), (65504.0, two(-14), two(-24)));
    assert_eq!(limits(Format::E4M3), (448.0, two(-6), two(-9)));
    assert_eq!(limits(Format::E5M2), (57344.0, two(-14), two(-16)));
    assert_eq!(limits(minifloat(2, 1)), (6.0, 1.0, 0.5));
    assert_eq!(limits(minifloat(2, 3)), (7.5, 1.0, 0.125));
    assert_eq!(limits(minifloat(3, 2)), (28.0, 0.25, 0.0625));
    assert_eq!((Format::E4M3.bits(), Format::E4M3.exponent_bits(), Format::E4M3.mantissa_bits()), (8, 4, 3));
}

#[test]
fn slices_round_as_single_values_do() {
    let xs = sample(500_009);
    let named = [Format::F32, Format::BF16, Format::F16, Format::E4M3, Format::E5M2];
    for format in formats().into_iter().chain(named) {
        let dense = if format.bits() <= 16 { around_codes(format) } else { Vec::new() };
        for &rounding in &Rounding::ALL {
            let format = format.with_rounding(rounding);
            for xs in [&xs, &dense] {
                let mut rounded = xs.clone();
                format.round_slice(&mut rounded);
                xs.iter().zip(&rounded).for_each(|(x, got)| assert_bits(*got, format.round(*x), *x, format));
            }
        }
    }
}

#[test]
fn names_are_short_and_parse() {
    let names = [Format::F32, Format::BF16, Format::F16, Format::E4M3, Format::E5M2].map(|f| f.to_string());
    assert_eq!(names, ["f32", "bf16", "f16", "e4m3", "e5m2"]);
    assert_eq!(minifloat(5, 10).to_string(), "e5m10");
    assert_eq!(overflowing(minifloat(5, 10)), Format::F16);
    assert_eq!((minifloat(4, 3), minifloat(5, 2)), (Format::E4M3, Format::E5M2));
    assert_eq!(Format::BF16.with_rounding(Rounding::Up).to_string(), "bf16");
    for rounding in &Rounding::ALL {
        assert_eq!(rounding.to_string().parse(), Ok(*rounding));
        assert_eq!(Format::F16.with_rounding(*rounding).rounding(), *rounding);
    }
}

#[test]
fn errors_say_what_to_do() {
    let text = |result: Result<Format, FormatError>| result.unwrap_err().to_string();
    assert_eq!(text(Format::minifloat(1, 3)), "a format cannot have 1 exponent bits: choose 2 to 8");
    assert_eq!(text(Format::minifloat(9, 3)), "a format cannot have 9 exponent bits: choose 2 to 8");
    assert_eq!(text(Format::minifloat(4, 0)), "a format cannot have 0 mantissa bits: choose 1 to 23");
    assert_eq!(text(Format::minifloat(4, 24)), "a format cannot have 24 mantissa bits: choose 1 to 23");
    for (exponent, mantissa) in [(2, 1), (2, 3), (3, 2)] {
        let format = minifloat(exponent, mantissa);
        let want = format!(
            "{format} has no code for infinity or NaN, so a value too large has nowhere to go: let it saturate"
        );
        assert_eq!(text(format.with_saturation(false)), want);
        assert_eq!(format.with_saturation(true), Ok(format));
    }
    let unknown = "Even".parse::<Rounding>().unwrap_err().to_string();
    assert_eq!(
        unknown,
        "unknown rounding `Even`: write `even`, or one of even, away, up, down, zero, half-zero"
    );
}

/// Calls `check` with all f32, a block at a time, on all cores.
fn all_f32(check: impl Fn(&[f32]) + Sync) {
    (0..1u32 << 12).into_par_iter().for_each(|block| {
        let xs: Vec<_> = (0..1u32 << 20).map(|low| f32::from_bits(block << 20 | low)).collect();
        check(&xs);
    });
}

#[test]
#[ignore = "all 2^32 values take minutes: cargo test --release --test all formats:: -- --ignored"]
fn every_f32_agrees_with_half_and_float8() {
    all_f32(|xs| {
        let compare = |format: Format, oracle: fn(f32) -> f32| {
            let mut rounded = xs.to_vec();
            format.round_slice(&mut rounded);
            for (&x, got) in xs.iter().zip(rounded) {
                assert_bits(got, oracle(x), x, format);
                assert_bits(format.round(x), oracle(x), x, format);
            }
        };
        compare(Format::BF16, |x| bf16::from_f32(x).to_f32());
        compare(Format::F16, |x| f16::from_f32(x).to_f32());
        compare(Format::E4M3, |x| F8E4M3::from_f32(x).to_f32());
        compare(Format::E5M2, |x| F8E5M2::from_f32(x).to_f32());
    });
}
