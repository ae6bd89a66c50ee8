//! Elementary functions as a setting: what each is held to, how programs are read, and where a model's own calls decide.

use std::fs;

use reprocheck::{
    cell::{Cell, map, program},
    numerics::{
        Numerics,
        functions::{Called, Functions, program::MOST_STEPS},
    },
};
use tempfile::TempDir;

/// A program that uses every operation there is.
pub(crate) const EVERY_OPERATION: &str = "\
# Nothing that anybody would want, and every operation.
function exp(x)
t = mul x 0x3FB8AA3B      # 1/ln(2)
n = floor t
f = sub t n
p = fma f 0x3F317218 0x3F800000
q = ldexp p n
a = abs q
s = sqrt a
r = add s 0x33800000
d = div q r
y = max d 0x00000000
return y

function silu(x)
m = neg x
l = min m 0x42C80000
h = fma l l x
return h

function sin(angle)
return angle
";

/// Two to the power of x/ln(2), by a line between the powers: good enough for a softmax.
pub(crate) const ROUGH: &str = "\
function exp(x)
t = mul x 0x3FB8AA3B
n = floor t
f = sub t n
p = add f 0x3F800000
y = ldexp p n
return y
";

fn functions(name: &str) -> Functions {
    name.parse().unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn program(text: &str) -> Functions {
    Functions::Program(program::read("f.txt", text).unwrap_or_else(|problems| panic!("{problems}")))
}

/// Inputs over all exponents, and those where models are.
fn inputs() -> impl Iterator<Item = f32> {
    let all = (0..=u32::MAX).step_by(0x0001_0003).map(f32::from_bits);
    all.chain((-2000..2000).map(|step| step as f32 / 37.0))
}

/// How many f32 lie between two numbers, one of them counted.
fn ulps(one: f32, other: f32) -> u64 {
    let place = |x: f32| {
        let magnitude = i64::from(x.to_bits() & 0x7FFF_FFFF);
        if x.is_sign_negative() { -magnitude } else { magnitude }
    };
    place(one).abs_diff(place(other))
}

#[test]
fn a_name_parses_back_and_one_that_is_none_says_what_to_write() {
    for name in Functions::NAMES.into_iter().chain(["program:00000000000000ab"]) {
        assert_eq!(functions(name).to_string(), name);
    }
    for (name, end) in [
        ("libn", "did you mean `libm`? write one of exact, libm, poly:D, exp2-fast, program:FILE"),
        ("poly:2", "write poly:5, or another from 3 to 7"),
        ("poly:05", "write poly:5, or another from 3 to 7"),
        ("program:x.txt", "write the 16 hexadecimal digits that stand for it in the names of cells"),
    ] {
        let error = name.parse::<Functions>().unwrap_err();
        assert!(error.ends_with(end), "{error}");
    }
}

#[test]
fn a_slice_has_the_bits_of_its_values() {
    let xs: Vec<f32> = inputs().step_by(7).collect();
    let all = Functions::NAMES.map(functions).into_iter().chain([program(EVERY_OPERATION)]);
    for functions in all {
        for called in Called::ALL {
            let mut slice = xs.clone();
            functions.slice(called, &mut slice);
            for (x, y) in xs.iter().zip(&slice) {
                assert_eq!(functions.of(called, *x).to_bits(), y.to_bits(), "{functions} {called}({x:e})");
            }
        }
    }
}

#[test]
fn those_of_libm_are_its_own() {
    for x in inputs() {
        for (called, theirs) in [
            (Called::Exp, libm::expf(x)),
            (Called::Rsqrt, 1.0 / libm::sqrtf(x)),
            (Called::Silu, x / (1.0 + libm::expf(-x))),
            (Called::Sin, libm::sinf(x)),
            (Called::Cos, libm::cosf(x)),
        ] {
            let ours = functions("libm").of(called, x);
            assert!(
                ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(),
                "{called}({x:e})"
            );
        }
    }
}

#[test]
fn polynomials_of_a_higher_degree_are_nearer_to_the_exact_functions() {
    // The largest error in ulp over all inputs between -80 and 80, but where the value is next to a zero of it.
    for (called, limits) in [
        (Called::Exp, [1800, 60, 4, 2, 2]),
        (Called::Silu, [1800, 60, 6, 4, 4]),
        (Called::Sin, [10_000, 10_000, 40, 40, 3]),
        (Called::Cos, [60_000, 400, 400, 4, 4]),
    ] {
        let worst = |degree: usize| {
            let own = functions(&format!("poly:{degree}"));
            let near = inputs().filter(|x| x.abs() < 80.0 && called.exact(*x).abs() > 1e-30);
            near.filter(|x| called != Called::Cos && called != Called::Sin || x.abs() < 0.7)
                .map(|x| ulps(own.of(called, x), called.exact(x)))
                .max()
                .unwrap()
        };
        let found = [3, 4, 5, 6, 7].map(worst);
        assert!(found.iter().zip(limits).all(|(found, limit)| *found <= limit), "{called}: {found:?}");
        assert!(found[0] > 20 * found[4], "{called}: {found:?}");
    }
    // Softmax asks it of its largest score.
    for degree in 3..=7 {
        assert_eq!(functions(&format!("poly:{degree}")).of(Called::Exp, 0.0), 1.0);
    }
}

#[test]
fn a_polynomial_takes_its_argument_from_whole_turns_and_halvings() {
    let own = functions("poly:7");
    // Far from zero, where Cody and Waite's pieces of pi/2 count.
    for x in (1..4000).map(|step| step as f32 * 251.77) {
        for called in [Called::Sin, Called::Cos] {
            let (ours, exact) = (own.of(called, x), called.exact(x));
            assert!((ours - exact).abs() < 4e-7, "{called}({x}) is {ours}, must be {exact}");
        }
    }
    // Subnormal results round once, and the ends are those of f32.
    for x in [-87.5, -95.0, -103.0, -103.97, 88.72, -200.0, 100.0] {
        assert!(ulps(own.of(Called::Exp, x), Called::Exp.exact(x)) <= 2, "{x}");
    }
    for (x, y) in [(f32::INFINITY, f32::INFINITY), (f32::NEG_INFINITY, 0.0)] {
        assert_eq!(own.of(Called::Exp, x), y);
    }
    assert_eq!(own.of(Called::Sin, -0.0).to_bits(), (-0.0_f32).to_bits());
    assert!(own.of(Called::Sin, f32::INFINITY).is_nan());
}

#[test]
fn a_gaussian_unit_of_polynomials_is_near_the_exact_one_and_has_its_ends() {
    for (name, limit) in [("poly:7", 2e-6), ("poly:3", 4e-3), ("exp2-fast", 4e-2)] {
        let own = functions(name);
        for called in [Called::GeluErf, Called::GeluTanh, Called::Silu] {
            for x in (-2000..2000).map(|step| step as f32 / 37.0) {
                let (ours, exact) = (own.of(called, x), called.exact(x));
                assert!(
                    (ours - exact).abs() <= limit * (1.0 + x.abs()),
                    "{name} {called}({x}) is {ours}, must be {exact}"
                );
            }
        }
        assert_eq!(own.of(Called::GeluErf, f32::INFINITY), f32::INFINITY);
        assert_eq!(own.of(Called::GeluErf, f32::NEG_INFINITY).to_bits(), (-0.0_f32).to_bits());
    }
}

#[test]
fn the_exponential_by_bits_is_that_of_fast_softmax_kernels() {
    let own = functions("exp2-fast");
    // As C has it: (int)(12102203.0f * x + 1064866805.0f), the bits of a float.
    for (x, bits) in [
        (0.0, 1_064_866_816),
        // 1064866816 - 12102203 is 1052764613, to the nearest multiple of 64; the sum with 1 is near a multiple of 128.
        (-1.0, 1_052_764_608),
        (1.0, 1_076_968_960),
        (-87.0, 11_975_168),
        (-1e9, 11_975_168),
    ] {
        let ours = own.of(Called::Exp, x);
        assert_eq!(ours.to_bits(), bits, "{x}");
    }
    assert!(own.of(Called::Exp, f32::NAN).is_nan());
    for called in [Called::Rsqrt, Called::Sin, Called::Cos] {
        assert!(inputs().all(|x| own.of(called, x).to_bits() == called.exact(x).to_bits()), "{called}");
    }
}

#[test]
fn a_program_computes_what_its_lines_say() {
    let every = program(EVERY_OPERATION);
    for x in inputs() {
        let t = x * std::f32::consts::LOG2_E;
        let n = t.floor();
        let p = (t - n).mul_add(f32::from_bits(0x3F31_7218), 1.0);
        let q = (f64::from(p) * 2_f64.powf(f64::from(n).clamp(-300.0, 300.0))) as f32;
        let d = q / (q.abs().sqrt() + f32::from_bits(0x3380_0000));
        let y = if d > 0.0 { d } else { 0.0 };
        assert_eq!(every.of(Called::Exp, x).to_bits(), y.to_bits(), "{x:e}");
        let l = if -x < 100.0 { -x } else { 100.0 };
        let (ours, h) = (every.of(Called::Silu, x), l.mul_add(l, x));
        assert!(ours.to_bits() == h.to_bits() || ours.is_nan() && h.is_nan(), "{x:e}");
        // What it does not give is exact.
        assert_eq!(every.of(Called::Cos, x).to_bits(), Called::Cos.exact(x).to_bits());
    }
    assert_eq!(every.of(Called::Sin, 3.0), 3.0);
}

#[test]
fn whatever_is_wrong_with_a_program_is_told_with_its_line() {
    let long: String = (0..=MOST_STEPS).map(|line| format!("a{line} = neg x\n")).collect();
    for (text, expected) in [
        ("", "f.txt: it gives no function: begin with a line such as function exp(x)"),
        ("t = mul x x\n", "f.txt:1: a function begins with its name: write function exp(x) before it"),
        ("function exp x\nreturn x\n", "f.txt:1: a function has one argument: write function exp(x)"),
        (
            "function tanh(x)\nreturn x\n",
            "f.txt:1: no model calls this (unknown function `tanh`: write one of exp, rsqrt, silu, gelu_erf, gelu_tanh, sin, cos)",
        ),
        (
            "function exp(x)\nreturn x\nfunction exp(y)\nreturn y\n",
            "f.txt:3: `exp` is given above: keep one of the two",
        ),
        (
            "function exp(x)\ny = mul x z\nreturn y\n",
            "f.txt:2: nothing above is called `z`: write a name that has a value",
        ),
        (
            "function exp(x)\ny = mul x y\nreturn y\n",
            "f.txt:2: nothing above is called `y`: write a name that has a value",
        ),
        (
            "function exp(x)\ny = mul x 1.5\nreturn y\n",
            "f.txt:2: a constant is written by its bits: write 0x3FC00000",
        ),
        (
            "function exp(x)\ny = mul x 0x3F8\nreturn y\n",
            "f.txt:2: the bits of an f32 have eight hexadecimal digits: write for example 0x3F800000",
        ),
        (
            "function exp(x)\ny = mull x x\nreturn y\n",
            "f.txt:2: unknown operation `mull`: write `mul`, or one of add, sub, mul, div, fma, neg, abs, min, max, sqrt, floor, ldexp",
        ),
        (
            "function exp(x)\ny = fma x x\nreturn y\n",
            "f.txt:2: `fma` takes 3, not 2: write so many names or constants",
        ),
        (
            "function exp(x)\nx = neg x\nreturn x\n",
            "f.txt:2: `x` is given above, and a name has one value: write another name",
        ),
        (
            "function exp(x)\n7 = neg x\nreturn x\n",
            "f.txt:2: a name has letters, digits and `_`, begins with a letter, and has up to 32 of them: write one",
        ),
        (
            "function exp(x)\ny\nreturn x\n",
            "f.txt:2: this is neither a line such as t = mul x y nor return y: write one of them",
        ),
        (
            "function exp(x)\nreturn x\ny = neg x\n",
            "f.txt:3: the function has returned: take this out, or begin another one",
        ),
        (
            "function exp(x)\ny = neg x\n",
            "f.txt:1: this function returns nothing: end it with a line such as return y",
        ),
        (
            &format!("function exp(x)\n{long}return x\n"),
            "f.txt:258: a function has up to 256 lines: make it shorter",
        ),
    ] {
        let problems = program::read("f.txt", text).unwrap_err();
        assert_eq!(problems.count(), 1, "{problems}");
        let told = problems.to_string();
        assert_eq!(told.lines().next().unwrap(), expected);
    }
    // All of it at once.
    let problems = program::read("f.txt", "function exp(x)\ny = mul x z\nw = neg\nreturn v\n").unwrap_err();
    assert_eq!(problems.count(), 3, "{problems}");
}

#[test]
fn a_file_is_named_by_its_digest_wherever_a_cell_is_named() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("f.txt"), ROUGH).unwrap();
    let own = program(ROUGH);
    let name = map::in_its_words("lab/fp32/sequential/t1/fn:program:f.txt/b1", folder.path()).unwrap();
    assert_eq!(name, format!("lab/fp32/sequential/t1/fn:{own}/b1"));
    let cell: Cell = name.parse().unwrap();
    assert_eq!((cell.compute.functions(), cell.to_string()), (own, name.into_owned()));
    assert_eq!(map::in_its_words("program:f.txt", folder.path()).unwrap(), own.to_string());
    for (text, told) in
        [("program:g.txt", "g.txt: it cannot be read"), ("program:../f.txt", "with its name and no folder")]
    {
        let problems = map::in_its_words(text, folder.path()).unwrap_err().to_string();
        assert!(problems.contains(told), "{problems}");
    }
    let numerics: Numerics = format!("bf16/exact/t1/fn:{own}").parse().unwrap();
    assert_eq!(numerics.functions(), own);
    // Another file is another program, whatever it computes.
    let other = program(&format!("# The same.\n{ROUGH}"));
    assert_ne!(own, other);
    assert_eq!(own.meaning(Called::Exp), other.meaning(Called::Exp));
}

#[test]
fn two_names_mean_one_where_they_are_one_function() {
    let [three, four, seven] = ["poly:3", "poly:4", "poly:7"].map(functions);
    assert_ne!(three.meaning(Called::Exp), four.meaning(Called::Exp));
    assert_ne!(three.meaning(Called::Cos), seven.meaning(Called::Cos));
    assert_eq!(three.meaning(Called::Rsqrt), None);
    assert_eq!(functions("exp2-fast").meaning(Called::Sin), None);
    assert_eq!(program(ROUGH).meaning(Called::GeluErf), None);
    // Nobody has read it, so that it is nothing but itself, and no number.
    let unread = functions("program:00000000000000ab");
    assert_eq!(unread.meaning(Called::Cos), Some(unread.to_string()));
    assert!(unread.of(Called::Cos, 0.0).is_nan());
}
