//! The activation functions of the models' feed-forward layers, by the names that checkpoints use.

use std::{fmt, str::FromStr};

use super::{
    canonical,
    functions::{Called, Functions},
};
use crate::name::{did_you_mean, nearest};

/// What a gate passes through.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Activation {
    /// x / (1 + e^-x).
    Silu,
    /// The Gaussian error unit, by the error function.
    Gelu,
    /// The same, approximated by tanh.
    GeluTanh,
    /// The larger of x and 0.
    Relu,
}

/// What a checkpoint's `hidden_act` may say; the first name of each is the one that is printed. Names that differ only
/// in which roundings their formula goes through are one function, because ours rounds once.
const NAMES: &[(&str, Activation)] = &[
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    // Writes sqrt(2/pi) to ten digits, which is the same f32.
    ("gelu_fast", Activation::GeluTanh),
    ("relu", Activation::Relu),
];

impl Activation {
    /// Every activation.
    pub const ALL: [Activation; 4] =
        [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu];

    /// The elementary function that it is; nothing where it is none.
    pub fn called(self) -> Option<Called> {
        match self {
            Activation::Silu => Some(Called::Silu),
            Activation::Gelu => Some(Called::GeluErf),
            Activation::GeluTanh => Some(Called::GeluTanh),
            Activation::Relu => None,
        }
    }

    /// The function of one value, in f32.
    pub fn apply(self, functions: Functions, x: f32) -> f32 {
        self.called().map_or_else(|| relu(x), |called| functions.of(called, x))
    }

    /// The function of every value, in place: the same bits, sooner.
    #[inline(always)]
    pub fn apply_slice(self, functions: Functions, xs: &mut [f32]) {
        match self.called() {
            Some(called) => functions.each(called, 0.0, xs),
            None => xs.iter_mut().for_each(|x| *x = relu(*x)),
        }
    }
}

/// +0 for both zeros, NaN for NaN.
#[inline(always)]
fn relu(x: f32) -> f32 {
    canonical(if x <= 0.0 { 0.0 } else { x })
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) =
            NAMES.iter().find(|(_, activation)| activation == self).expect("every activation has a name");
        f.pad(name)
    }
}

/// A text that names no activation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown activation `{name}`: {}choose a model that uses {}", did_you_mean(.nearest.as_deref()), known())]
pub struct ActivationError {
    /// What was given.
    pub name: String,
    /// The nearest name there is.
    pub nearest: Option<String>,
}

fn known() -> String {
    let names: Vec<_> = Activation::ALL.iter().map(Activation::to_string).collect();
    names.join(", ")
}

impl FromStr for Activation {
    type Err = ActivationError;

    fn from_str(name: &str) -> Result<Self, ActivationError> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, activation)| *activation).ok_or_else(|| ActivationError {
            name: name.to_owned(),
            nearest: nearest(name, NAMES.iter().map(|(known, _)| *known)).map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_parses_back_to_its_value() {
        for activation in Activation::ALL {
            assert_eq!(activation.to_string().parse(), Ok(activation));
        }
        assert_eq!("swish".parse(), Ok(Activation::Silu));
        assert_eq!("gelu_new".parse(), Ok(Activation::GeluTanh));
    }

    #[test]
    fn a_bad_name_says_what_would_do() {
        let error = |name: &str| name.parse::<Activation>().unwrap_err().to_string();
        assert_eq!(
            error("quick_gelu"),
            "unknown activation `quick_gelu`: choose a model that uses silu, gelu, gelu_pytorch_tanh, relu"
        );
        assert_eq!(
            error("siluu"),
            "unknown activation `siluu`: did you mean `silu`? choose a model that uses silu, gelu, \
             gelu_pytorch_tanh, relu"
        );
    }

    #[test]
    fn activations_are_those_of_torch() {
        // [f(torch.tensor([-3.0, -0.5, 0.0, 0.25, 2.0], dtype=torch.float64)) for f in (F.silu, F.gelu,
        // partial(F.gelu, approximate="tanh"), F.relu)] with torch 2.15
        let xs = [-3.0, -0.5, 0.0, 0.25, 2.0];
        let theirs = [
            (Activation::Silu, [-0.142_277_62, -0.188_770_33, 0.0, 0.140_544_14, 1.761_594_2]),
            (Activation::Gelu, [-0.004_049_694, -0.154_268_77, 0.0, 0.149_676_58, 1.954_499_7]),
            (Activation::GeluTanh, [-0.003_637_392, -0.154_286, 0.0, 0.149_675_35, 1.954_597_7]),
            (Activation::Relu, [0.0, 0.0, 0.0, 0.25, 2.0]),
        ];
        for (activation, theirs) in theirs {
            for (x, theirs) in xs.into_iter().zip(theirs) {
                let ours = activation.apply(Functions::Exact, x);
                assert!(
                    (ours - theirs).abs() <= 3e-7 * theirs.abs(),
                    "{activation}({x}) is {ours}, not {theirs}"
                );
            }
        }
    }

    #[test]
    fn a_slice_has_the_bits_of_its_values() {
        let xs: Vec<f32> = (0..=u32::MAX).step_by(0x0010_0001).map(f32::from_bits).collect();
        for activation in Activation::ALL {
            let mut slice = xs.clone();
            activation.apply_slice(Functions::Exact, &mut slice);
            for (x, y) in xs.iter().zip(&slice) {
                let value = activation.apply(Functions::Exact, *x);
                assert_eq!(value.to_bits(), y.to_bits(), "{activation}({x:e})");
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for activation in Activation::ALL {
            let value = activation.apply(Functions::Exact, f32::from_bits(0xFFA1_2345));
            assert_eq!(value.to_bits(), super::super::NAN.to_bits());
        }
    }
}
