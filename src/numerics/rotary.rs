//! Rotary position embeddings: by which angle every pair of features turns at a position.
//!
//! The angles are those of Hugging Face transformers, rounded to f32 where it rounds; only the elementary functions
//! are our own, or those that a cell names, so that their bits are the same everywhere.

use std::{borrow::Cow, f64::consts::PI};

use super::functions::{Called, Functions};

/// How a checkpoint stretches its positions.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scaling {
    /// Not at all.
    None,
    /// Every position divided by one factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// What low frequencies are divided by.
        factor: f64,
        /// A wavelength longer than the original context over this is long.
        low_frequency: f64,
        /// A wavelength shorter than the original context over this is short.
        high_frequency: f64,
        /// The context that the model was first trained with.
        original_positions: usize,
    },
    /// YaRN: as Llama 3 with a ramp over dimensions, and attention made sharper.
    Yarn {
        /// What low frequencies are divided by.
        factor: f64,
        /// Turns over the original context from which a dimension is kept.
        beta_fast: f64,
        /// Turns below which it is divided.
        beta_slow: f64,
        /// The context that the model was first trained with.
        original_positions: usize,
        /// What cosine and sine are multiplied by.
        attention: f64,
        /// Whether the ends of the ramp are rounded to whole dimensions.
        truncate: bool,
    },
}

/// What YaRN multiplies cosine and sine by where a checkpoint does not say: `mscale` and `mscale_all_dim` are the
/// fields of that name, and only the two together count.
pub fn yarn_attention(factor: f64, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> f64 {
    let sharper = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * libm::log(factor) + 1.0 };
    let given = |mscale: Option<f64>| mscale.filter(|&mscale| mscale != 0.0);
    match (given(mscale), given(mscale_all_dim)) {
        (Some(mscale), Some(all)) => sharper(mscale) / sharper(all),
        _ => sharper(1.0),
    }
}

/// The angles of one model's heads.
#[derive(Clone, PartialEq, Debug)]
pub struct Rotary {
    frequencies: Vec<f32>,
    attention: f32,
}

/// By how much the pairs of one head turn at one position: pair i is feature i with feature i + half.
#[derive(Clone, PartialEq, Debug)]
pub struct Turn {
    /// The cosine of each pair's angle.
    pub cos: Vec<f32>,
    /// The sine of each pair's angle.
    pub sin: Vec<f32>,
    /// What made them, of which angles.
    made: Option<Made>,
}

/// What a turn was made by.
#[derive(Clone, PartialEq, Debug)]
struct Made {
    functions: Functions,
    angles: Vec<f32>,
    attention: f32,
}

impl Made {
    fn turn(self) -> Turn {
        let [mut cos, mut sin] = [self.angles.clone(), self.angles.clone()];
        self.functions.slice(Called::Cos, &mut cos);
        self.functions.slice(Called::Sin, &mut sin);
        for value in cos.iter_mut().chain(&mut sin) {
            *value *= self.attention;
        }
        Turn { cos, sin, made: Some(self) }
    }
}

impl Turn {
    /// One of these cosines and sines, whatever made them.
    pub fn given(cos: Vec<f32>, sin: Vec<f32>) -> Turn {
        Turn { cos, sin, made: None }
    }

    /// The same turn by other functions: a kernel that stands in for another one has its own.
    pub(super) fn by(&self, functions: Functions) -> Cow<'_, Turn> {
        match &self.made {
            Some(made) if made.functions != functions => {
                Cow::Owned(Made { functions, ..made.clone() }.turn())
            }
            _ => Cow::Borrowed(self),
        }
    }
}

impl Rotary {
    /// How much every pair turns from one position to the next, in radians.
    pub fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    /// The angles of heads of this width, of which half are pairs. `theta` is the base of the frequencies.
    pub fn new(head_width: usize, theta: f64, scaling: Scaling) -> Rotary {
        let width = head_width as f32;
        let power = |pair: usize| {
            let exponent = (2 * pair) as f32 / width;
            libm::pow(f64::from(theta as f32), f64::from(exponent)) as f32
        };
        let pairs = 0..head_width / 2;
        let mut attention = 1.0;
        let frequencies = match scaling {
            Scaling::None => pairs.map(|pair| 1.0 / power(pair)).collect(),
            Scaling::Linear { factor } => pairs.map(|pair| 1.0 / power(pair) / factor as f32).collect(),
            Scaling::Llama3 { factor, low_frequency, high_frequency, original_positions } => {
                let context = original_positions as f64;
                let longest = (context / low_frequency) as f32;
                let shortest = (context / high_frequency) as f32;
                let (factor, low) = (factor as f32, low_frequency as f32);
                let span = (high_frequency - low_frequency) as f32;
                let stretch = |frequency: f32| {
                    // A number over a tensor is its reciprocal times the number there: two roundings.
                    let wavelength = 1.0 / frequency * (2.0 * PI) as f32;
                    if wavelength < shortest {
                        frequency
                    } else if wavelength > longest {
                        frequency / factor
                    } else {
                        let smooth = (1.0 / wavelength * context as f32 - low) / span;
                        (1.0 - smooth) * frequency / factor + smooth * frequency
                    }
                };
                pairs.map(|pair| stretch(1.0 / power(pair))).collect()
            }
            Scaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_positions,
                attention: sharper,
                truncate,
            } => {
                attention = sharper as f32;
                // The dimension that makes so many turns over the original context.
                let dimension = |turns: f64| {
                    let turn = original_positions as f64 / (turns * 2.0 * PI);
                    head_width as f64 * libm::log(turn) / (2.0 * libm::log(theta))
                };
                let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(head_width as f64 - 1.0));
                if low == high {
                    high += 0.001;
                }
                let frequency = |pair: usize| {
                    let ramp = ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                    let (kept, power) = (1.0 - ramp, power(pair));
                    1.0 / (factor as f32 * power) * (1.0 - kept) + 1.0 / power * kept
                };
                pairs.map(frequency).collect()
            }
        };
        Rotary { frequencies, attention }
    }

    /// By how much a head turns at a position, with these functions.
    pub fn turn(&self, functions: Functions, position: usize) -> Turn {
        let angles = self.frequencies.iter().map(|frequency| position as f32 * frequency).collect();
        Made { functions, angles, attention: self.attention }.turn()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What transformers 5.23 computes (with torch 2.15, f32, on a CPU), made for each case by
    ///
    /// ```python
    /// config = LlamaConfig(hidden_size=2 * WIDTH, num_attention_heads=2, head_dim=WIDTH,
    ///                      max_position_embeddings=131072, rope_parameters=PARAMETERS)
    /// rotary = LlamaRotaryEmbedding(config)
    /// print(rotary.inv_freq, rotary(torch.zeros(1, 1, WIDTH), torch.tensor([[POSITION]])))
    /// ```
    struct Theirs<const PAIRS: usize> {
        frequencies: [f32; PAIRS],
        position: usize,
        cos: [f32; PAIRS],
        sin: [f32; PAIRS],
    }

    impl<const PAIRS: usize> Theirs<PAIRS> {
        fn check(&self, theta: f64, scaling: Scaling) {
            let rotary = Rotary::new(2 * PAIRS, theta, scaling);
            let turn = rotary.turn(Functions::Exact, self.position);
            let largest = f64::from(rotary.attention.max(1.0));
            for pair in 0..PAIRS {
                let (ours, theirs) = (rotary.frequencies[pair], self.frequencies[pair]);
                let ulps = f64::from(ours.to_bits().abs_diff(theirs.to_bits()));
                assert!(ulps <= 4.0, "pair {pair} turns by {ours}, must by {theirs}");
                // What a frequency lacks, the position multiplies.
                let angle = self.position as f64 * f64::from(theirs);
                let bound = (ulps + 2.0) * f64::from(f32::EPSILON) * (angle + 1.0) * largest;
                for (ours, theirs) in [(turn.cos[pair], self.cos[pair]), (turn.sin[pair], self.sin[pair])] {
                    let off = (f64::from(ours) - f64::from(theirs)).abs();
                    assert!(off <= bound, "pair {pair}: {ours} is {off:e} from {theirs}");
                }
            }
        }
    }

    #[test]
    fn plain_angles_are_those_of_transformers() {
        // WIDTH = 16, POSITION = 4097, {"rope_type": "default", "rope_theta": 1e6}
        Theirs {
            frequencies: [
                1.0,
                0.177_827_94,
                0.031_622_78,
                0.005_623_413_2,
                0.001,
                0.000_177_827_94,
                3.162_277_4e-5,
                5.623_413_5e-6,
            ],
            position: 4097,
            cos: [
                0.934_771_95,
                0.958_700_36,
                -0.729_491_1,
                -0.499_326_6,
                -0.577_276_1,
                0.746_133_2,
                0.991_619_05,
                0.999_734_6,
            ],
            sin: [
                0.355_248_33,
                -0.284_418_14,
                -0.683_990_3,
                -0.866_413_83,
                -0.816_549,
                0.665_796_7,
                0.129_196_36,
                0.023_037_087,
            ],
        }
        .check(1e6, Scaling::None);
    }

    #[test]
    fn linear_scaling_is_that_of_transformers() {
        // WIDTH = 8, POSITION = 77, {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}
        Theirs {
            frequencies: [0.333_333_34, 0.033_333_335, 0.003_333_333_2, 0.000_333_333_36],
            position: 77,
            cos: [0.860_815_35, -0.839_232_6, 0.967_241_5, 0.999_670_6],
            sin: [0.508_917_45, 0.543_772_5, 0.253_857_82, 0.025_663_85],
        }
        .check(1e4, Scaling::Linear { factor: 3.0 });
    }

    #[test]
    fn llama_3_scaling_is_that_of_transformers() {
        // WIDTH = 32, POSITION = 1000, {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0,
        // "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
        Theirs {
            frequencies: [
                1.0,
                0.440_366_63,
                0.193_922_76,
                0.085_397_1,
                0.037_606_03,
                0.016_560_44,
                0.007_292_665,
                0.003_211_446,
                0.000_524_846,
                7.784_655_5e-5,
                3.428_102_4e-5,
                1.509_621_8e-5,
                6.647_869_7e-6,
                2.927_499_7e-6,
                1.289_173_2e-6,
                5.677_088e-7,
            ],
            position: 1000,
            cos: [
                0.562_379_06,
                0.855_817_74,
                0.655_475_3,
                -0.839_681,
                0.995_671,
                -0.658_120_33,
                0.532_301_25,
                -0.997_561_2,
                0.865_401_1,
                0.996_971_5,
                0.999_412_5,
                0.999_886_04,
                0.999_977_9,
                0.999_995_7,
                0.999_999_17,
                0.999_999_8,
            ],
            sin: [
                0.826_879_56,
                0.517_277_5,
                -0.755_216_6,
                -0.543_079_9,
                -0.092_947_975,
                -0.752_912_76,
                0.846_555,
                -0.069_796_6,
                0.501_079_74,
                0.077_767_95,
                0.034_274_31,
                0.015_095_644,
                0.006_647_820_6,
                0.002_927_495_6,
                0.001_289_172_8,
                0.000_567_708_75,
            ],
        }
        .check(
            5e5,
            Scaling::Llama3 {
                factor: 8.0,
                low_frequency: 1.0,
                high_frequency: 4.0,
                original_positions: 8192,
            },
        );
    }

    #[test]
    fn yarn_scaling_is_that_of_transformers() {
        // WIDTH = 32, POSITION = 1000, {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
        // "original_max_position_embeddings": 32768}
        Theirs {
            frequencies: [
                1.0,
                0.421_696_5,
                0.177_827_94,
                0.074_989_416,
                0.031_622_78,
                0.013_335_215,
                0.004_779_901_4,
                0.001_659_961_7,
                0.000_55,
                0.000_168_678_58,
                4.445_698_5e-5,
                1.874_735_6e-5,
                7.905_694e-6,
                3.333_803_5e-6,
                1.405_853_4e-6,
                5.928_434_3e-7,
            ],
            position: 1000,
            cos: [
                0.640_341_34,
                0.853_706_24,
                -0.366_763_4,
                1.044_802_1,
                1.114_356_6,
                0.818_349_96,
                0.076_813_37,
                -0.101_391_84,
                0.970_709_5,
                1.122_469_4,
                1.137_504_3,
                1.138_429_4,
                1.138_593_9,
                1.138_623_1,
                1.138_628_4,
                1.138_629_2,
            ],
            sin: [
                0.941_509_4,
                0.753_433_9,
                1.077_943_2,
                -0.452_620_77,
                0.233_851_08,
                0.791_694_6,
                -1.136_035_6,
                1.134_106_2,
                0.595_147_1,
                0.191_152_92,
                0.050_603_356,
                0.021_345_04,
                0.009_001_562,
                0.003_795_959_8,
                0.001_600_745_5,
                0.000_675_028_95,
            ],
        }
        .check(
            1e6,
            Scaling::Yarn {
                factor: 4.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                original_positions: 32768,
                attention: yarn_attention(4.0, None, None),
                truncate: true,
            },
        );
    }

    #[test]
    fn yarn_takes_its_two_scales_and_ends_between_dimensions() {
        // WIDTH = 32, POSITION = 333, {"rope_type": "yarn", "rope_theta": 1e4, "factor": 40.0, "mscale": 0.707,
        // "mscale_all_dim": 1.3, "truncate": False, "beta_fast": 24.0, "beta_slow": 1.5,
        // "original_max_position_embeddings": 4096}
        Theirs {
            frequencies: [
                1.0,
                0.562_341_33,
                0.316_227_76,
                0.177_827_94,
                0.1,
                0.056_234_13,
                0.029_932_009,
                0.013_232_235,
                0.005_416_733,
                0.001_907_705,
                0.000_432_641_62,
                4.445_698_5e-5,
                2.5e-5,
                1.405_853_3e-5,
                7.905_694_5e-6,
                4.445_698_3e-6,
            ],
            position: 333,
            cos: [
                0.852_117_9,
                0.280_077_25,
                0.051_518_902,
                -0.758_374_04,
                -0.262_613_53,
                0.845_651_15,
                -0.729_764_3,
                -0.256_752_2,
                -0.196_739_35,
                0.685_908_3,
                0.843_322_63,
                0.852_057_7,
                0.852_121_53,
                0.852_141_7,
                0.852_148_1,
                0.852_150_14,
            ],
            sin: [
                -0.007_516_965_7,
                -0.804_809_4,
                -0.850_592_26,
                0.388_626_04,
                0.810_676,
                -0.105_049_8,
                -0.440_006_23,
                -0.812_551_3,
                0.829_129_1,
                0.505_659_16,
                0.122_344_85,
                0.012_614_933,
                0.007_094_075,
                0.003_989_323,
                0.002_243_367,
                0.001_261_538_8,
            ],
        }
        .check(
            1e4,
            Scaling::Yarn {
                factor: 40.0,
                beta_fast: 24.0,
                beta_slow: 1.5,
                original_positions: 4096,
                attention: yarn_attention(40.0, Some(0.707), Some(1.3)),
                truncate: false,
            },
        );
    }

    #[test]
    fn yarn_attention_is_that_of_transformers() {
        // `attention_scaling` of the two rotaries above.
        assert!((yarn_attention(4.0, None, None) - 1.138_629_436_111_989).abs() < 1e-15);
        assert!((yarn_attention(40.0, Some(0.707), Some(1.3)) - 0.852_151_051_613_185_2).abs() < 1e-15);
        assert_eq!(yarn_attention(40.0, Some(0.707), None), yarn_attention(40.0, None, None));
        assert_eq!(yarn_attention(0.5, None, None), 1.0);
    }

    #[test]
    fn nothing_turns_at_position_zero() {
        let turn = Rotary::new(6, 1e4, Scaling::None).turn(Functions::Exact, 0);
        assert_eq!((turn.cos, turn.sin), (vec![1.0; 3], vec![0.0; 3]));
    }
}
