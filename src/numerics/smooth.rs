//! What the channels of activations are divided by, and the weights that meet them multiplied, so that both are easier to quantize.
//!
//! In exact arithmetic a product stays what it is. Where a norm comes before the product, its weights take the division.

use std::{fmt, str::FromStr};

use super::{
    kernel::{At, Kernel, matmul},
    precision::{Channels, Scaled, Site},
    quantizer::{Quantized, Quantizer, Span},
    special::{exp, log},
};

/// How the divisors of channels are found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Transform {
    /// SmoothQuant: the largest activation of a channel to this power, over its largest weight to what is left of 1.
    Smooth(f64),
    /// Outlier Suppression+ without its shift: what brings every channel within one limit, the one of least loss.
    Outliers,
}

impl Transform {
    /// How it is written.
    pub const WANTED: &str = "smooth:0.5 (any share from 0 to 1) or os+";
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transform::Smooth(share) => write!(f, "smooth:{share}"),
            Transform::Outliers => f.write_str("os+"),
        }
    }
}

impl FromStr for Transform {
    type Err = String;

    fn from_str(text: &str) -> Result<Transform, String> {
        let share = text.strip_prefix("smooth:").and_then(|share| share.parse().ok());
        match share.filter(|share| (0.0..=1.0).contains(share)) {
            Some(share) => Ok(Transform::Smooth(share)),
            None if text == "os+" => Ok(Transform::Outliers),
            None => Err(format!("`{text}` names no transform: write {}", Transform::WANTED)),
        }
    }
}

/// A divisor of SmoothQuant is no smaller, as in its authors' code.
const LEAST: f64 = 1e-5;
/// How many limits Outlier Suppression+ tries below the largest value, and the smallest of them.
const STEPS: u16 = 100;
const SMALLEST: f32 = 0.1;

/// A product whose inputs are to be smoothed.
pub struct Smoothed<'a, K> {
    /// What computes products in f32.
    pub kernel: &'a K,
    /// The limits of its channels.
    pub channels: &'a Channels,
    /// Some of the rows that it reads, one after the other.
    pub rows: &'a [f32],
    /// Its weights, output after output.
    pub weights: &'a [f32],
}

impl<K: Kernel> Smoothed<'_, K> {
    /// The divisor of each channel.
    pub fn by(&self, transform: Transform) -> Vec<f32> {
        match transform {
            Transform::Smooth(share) => self.smooth(share),
            Transform::Outliers => self.outliers(),
        }
    }

    fn depth(&self) -> usize {
        self.channels.low.len()
    }

    fn largest(&self) -> impl Iterator<Item = f32> {
        self.channels.low.iter().zip(&self.channels.high).map(|(low, high)| high.max(-low))
    }

    fn smooth(&self, share: f64) -> Vec<f32> {
        let mut weights = vec![0.0_f32; self.depth()];
        for output in self.weights.chunks_exact(self.depth()) {
            weights.iter_mut().zip(output).for_each(|(largest, weight)| *largest = largest.max(weight.abs()));
        }
        let divisor = |(activation, weight): (f32, &f32)| {
            // A channel that is always zero, or that nothing reads, is as smooth as it can be.
            if activation == 0.0 || *weight == 0.0 {
                return 1.0;
            }
            let power = share * log(activation.into()) - (1.0 - share) * log((*weight).into());
            exp(power).max(LEAST) as f32
        };
        self.largest().zip(&weights).map(divisor).collect()
    }

    fn outliers(&self) -> Vec<f32> {
        let largest = self.largest().fold(0.0, f32::max);
        let step = (largest - SMALLEST) / f32::from(STEPS);
        let wanted = self.product(self.rows, self.weights);
        let within = |limit: f32| -> Vec<f32> {
            let ends = self.channels.low.iter().zip(&self.channels.high);
            ends.map(|(low, high)| (high / limit).max(low / -limit).max(1.0)).collect()
        };
        // Where all values are that small already, there is nothing to look for.
        let steps = if step > 0.0 { 0..=STEPS } else { 0..=0 };
        let mut best: Option<(f64, Vec<f32>)> = None;
        for limit in steps.map(|index| largest - f32::from(index) * step) {
            let smooth = if limit > 0.0 { within(limit) } else { vec![1.0; self.depth()] };
            let loss = self.loss(&smooth, &wanted);
            if best.as_ref().is_none_or(|(least, _)| loss < *least) {
                best = Some((loss, smooth));
            }
        }
        best.map_or_else(Vec::new, |(_, smooth)| smooth)
    }

    /// How far products of 8-bit integers lie from these, squared and added up: one scale for all activations, one for every output.
    fn loss(&self, smooth: &[f32], wanted: &[f32]) -> f64 {
        let Scaled { weights: quantizer, .. } = Scaled::W8A8;
        let channels = Channels { smooth: Some(smooth.to_vec()), ..self.channels.clone() };
        let rows = self.quantized(
            quantizer.over(Span::Measured(channels.limits())),
            self.rows,
            |value, by| value / by,
            smooth,
        );
        let weights = self.quantized(quantizer, self.weights, |value, by| value * by, smooth);
        let found = self.product(&rows, &weights);
        found.iter().zip(wanted).fold(0.0, |sum, (found, wanted)| {
            let distance = f64::from(*found) - f64::from(*wanted);
            sum + distance * distance
        })
    }

    /// What the codes of lines are worth, once each channel is what this makes of it.
    fn quantized(
        &self,
        quantizer: Quantizer,
        lines: &[f32],
        channel: impl Fn(f32, f32) -> f32,
        smooth: &[f32],
    ) -> Vec<f32> {
        let lines = lines.chunks_exact(self.depth());
        let quantized = |line: &[f32]| -> Quantized {
            let line: Vec<f32> = line.iter().zip(smooth).map(|(value, by)| channel(*value, *by)).collect();
            quantizer.quantize(&[&line]).remove(0)
        };
        lines.flat_map(|line| quantized(line).values(self.depth()).collect::<Vec<_>>()).collect()
    }

    fn product(&self, rows: &[f32], weights: &[f32]) -> Vec<f32> {
        let depth = self.depth();
        let (count, columns) = (rows.len() / depth, weights.len() / depth);
        let mut source = |output: usize, terms: &mut [f32]| {
            terms.copy_from_slice(&weights[output * depth..][..depth]);
        };
        let packed = self.kernel.pack(At::alone(Site::Linear), columns, depth, &mut source);
        let mut out = vec![0.0; count * columns];
        matmul(self.kernel, Site::Linear, rows, count, &packed, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::kernel::{Definition, Fast};

    const DEPTH: usize = 6;

    /// Rows and weights in which one channel has outliers.
    fn product() -> (Channels, Vec<f32>, Vec<f32>) {
        let value = |at: usize, step: f32| ((at * 7 + at / DEPTH * 5) % 23) as f32 * step - 11.0 * step;
        let mut rows: Vec<f32> = (0..4 * DEPTH).map(|at| value(at, 0.04)).collect();
        let mut weights: Vec<f32> = (0..5 * DEPTH).map(|at| value(at + 3, 0.03)).collect();
        rows.chunks_exact_mut(DEPTH).for_each(|row| (row[1], row[4]) = (row[1] * 60.0, 0.0));
        weights.chunks_exact_mut(DEPTH).for_each(|output| output[3] = 0.0);
        let end = |end: fn(f32, f32) -> f32| -> Vec<f32> {
            let of = |channel| rows.chunks_exact(DEPTH).fold(0.0, |so_far, row| end(so_far, row[channel]));
            (0..DEPTH).map(of).collect()
        };
        (Channels { low: end(f32::min), high: end(f32::max), smooth: None }, rows, weights)
    }

    fn largest(values: &[f32], channel: usize) -> f32 {
        values.chunks_exact(DEPTH).fold(0.0, |largest, line| largest.max(line[channel].abs()))
    }

    #[test]
    fn smoothing_leaves_of_a_channel_what_its_share_says() {
        let (channels, rows, weights) = product();
        let kernel = Definition { numerics: "fp32/sequential/t1".parse().unwrap() };
        let smoothed = Smoothed { kernel: &kernel, channels: &channels, rows: &rows, weights: &weights };
        for share in [0.0, 0.3, 0.5, 1.0] {
            let by = smoothed.by(Transform::Smooth(share));
            for (channel, by) in by.into_iter().enumerate() {
                if [3, 4].contains(&channel) {
                    assert_eq!(by, 1.0, "nothing is to be smoothed where one side is zero");
                    continue;
                }
                let [x, w] = [&rows, &weights].map(|values| f64::from(largest(values, channel)));
                // The definition, without its powers: what it divides by is undone by what it multiplies by.
                let undone = exp(log(f64::from(by)) + (1.0 - share) * log(w)) / exp(share * log(x));
                assert!((undone - 1.0).abs() < 1e-6, "{share}, {channel}: {by}");
                if share == 0.5 {
                    assert!((f64::from(by) / (x / w).sqrt() - 1.0).abs() < 1e-6, "{channel}: {by}");
                }
            }
        }
    }

    #[test]
    fn outliers_come_within_one_limit_and_the_loss_is_the_least_of_all_tried() {
        let (channels, rows, weights) = product();
        let kernel = Fast::new("fp32/sequential/t1".parse().unwrap()).unwrap();
        let smoothed = Smoothed { kernel: &kernel, channels: &channels, rows: &rows, weights: &weights };
        let by = smoothed.by(Transform::Outliers);
        let wanted = smoothed.product(&rows, &weights);
        let loss = |by: &[f32]| smoothed.loss(by, &wanted);
        assert!(loss(&by) < 0.2 * loss(&[1.0; DEPTH]), "{} {}", loss(&by), loss(&[1.0; DEPTH]));
        // One limit: whichever channel was divided ends there.
        assert!(by.iter().all(|by| *by >= 1.0) && by[1] > 5.0, "{by:?}");
        let ends = |channel: usize| channels.high[channel].max(-channels.low[channel]) / by[channel];
        let limit = ends(1);
        for (channel, by) in by.iter().enumerate() {
            assert!(ends(channel) <= limit * 1.000_001, "{channel}: {} {limit}", ends(channel));
            assert!(*by == 1.0 || ends(channel) > limit * 0.999_999, "{channel}");
        }
        let all = largest(&rows, 1);
        for step in 0..=100 {
            let limit = all - step as f32 * ((all - 0.1) / 100.0);
            let other: Vec<f32> = (0..DEPTH)
                .map(|channel| (channels.high[channel].max(-channels.low[channel]) / limit).max(1.0))
                .collect();
            assert!(loss(&by) <= loss(&other), "{limit}");
        }
    }

    #[test]
    fn channels_that_are_all_zero_are_left_alone() {
        let (zeros, weights) = (vec![0.0; DEPTH], vec![1.0; 2 * DEPTH]);
        let channels = Channels { low: zeros.clone(), high: zeros.clone(), smooth: None };
        let kernel = Definition { numerics: "fp32/sequential/t1".parse().unwrap() };
        let smoothed = Smoothed { kernel: &kernel, channels: &channels, rows: &zeros, weights: &weights };
        for transform in [Transform::Smooth(0.5), Transform::Outliers] {
            assert_eq!(smoothed.by(transform), [1.0; DEPTH], "{transform}");
            assert_eq!(transform.to_string().parse(), Ok(transform));
        }
        for bad in ["smooth", "smooth:2", "smooth:NaN", "os", ""] {
            assert!(bad.parse::<Transform>().unwrap_err().contains("smooth:0.5"), "{bad}");
        }
    }
}
