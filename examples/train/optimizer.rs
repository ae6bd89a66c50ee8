//! AdamW and the course of the learning rate.
//!
//! candle-nn has an AdamW, but its moments are private, so that a training could not go on from a file; and its correction
//! for the first steps takes a power from the platform's library.

use std::f64::consts::PI;

use reprocheck::numerics::elementary;

use crate::{network::Parameter, recipe::Recipe};

/// All that a training has come to: what a checkpoint holds.
pub(crate) struct State {
    /// Steps made.
    pub(crate) step: u64,
    pub(crate) values: Vec<Vec<f32>>,
    /// The running means of the gradients and of their squares.
    pub(crate) means: Vec<Vec<f32>>,
    pub(crate) squares: Vec<Vec<f32>>,
}

impl State {
    pub(crate) fn new(values: Vec<Vec<f32>>) -> State {
        let zeros: Vec<_> = values.iter().map(|values| vec![0.0; values.len()]).collect();
        State { step: 0, values, means: zeros.clone(), squares: zeros }
    }

    /// Makes a step, and gives the length of the gradient.
    pub(crate) fn advance(
        &mut self,
        recipe: &Recipe,
        parameters: &[Parameter],
        gradients: &[Vec<f32>],
    ) -> f64 {
        let square = |gradient: &Vec<f32>| gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
        let length = gradients.iter().map(square).sum::<f64>().sqrt();
        let clip = if length > recipe.clip { (recipe.clip / length) as f32 } else { 1.0 };
        let rate = learning_rate(recipe, self.step);
        self.step += 1;
        let (mean_beta, square_beta) = recipe.betas;
        // Both means begin at 0: early on they are too small by this much.
        let rest = |beta| 1.0 - power(beta, self.step);
        let step = (rate / rest(mean_beta)) as f32;
        let grown = (1.0 / rest(square_beta)).sqrt() as f32;
        let (mean_beta, square_beta, epsilon) = (mean_beta as f32, square_beta as f32, recipe.epsilon as f32);
        let moments = self.means.iter_mut().zip(&mut self.squares);
        let all = self.values.iter_mut().zip(moments).zip(gradients).zip(parameters);
        for (((values, (means, squares)), gradients), parameter) in all {
            let kept = if parameter.is_matrix() { (1.0 - rate * recipe.weight_decay) as f32 } else { 1.0 };
            let moments = means.iter_mut().zip(squares);
            for ((value, (mean, square)), gradient) in values.iter_mut().zip(moments).zip(gradients) {
                let gradient = clip * gradient;
                *mean = mean_beta * *mean + (1.0 - mean_beta) * gradient;
                *square = square_beta * *square + (1.0 - square_beta) * gradient * gradient;
                *value = kept * *value - step * *mean / (square.sqrt() * grown + epsilon);
            }
        }
        length
    }
}

/// It rises in a line, then falls as a cosine does from its top to its bottom.
fn learning_rate(recipe: &Recipe, step: u64) -> f64 {
    let Recipe { learning_rate, last_rate, warm_up, schedule, .. } = *recipe;
    if step < warm_up {
        return learning_rate * (step + 1) as f64 / warm_up as f64;
    }
    let passed = (step - warm_up) as f64 / schedule.saturating_sub(warm_up).max(1) as f64;
    let cosine = f64::from(elementary::cos((PI * passed) as f32));
    learning_rate * (last_rate + (1.0 - last_rate) * 0.5 * (1.0 + cosine))
}

/// By squaring: products alone, whose bits are the same everywhere.
fn power(base: f64, mut exponent: u64) -> f64 {
    let (mut result, mut square) = (1.0, base);
    while exponent > 0 {
        if exponent % 2 == 1 {
            result *= square;
        }
        square *= square;
        exponent /= 2;
    }
    result
}
