//! How far one product lies from the exact one, measured through the kernel itself.

use std::num::NonZeroUsize;

use rayon::ThreadPoolBuildError;

use super::{
    Numerics,
    kernel::{At, Fast, Kernel, matmul},
    order::Order,
    precision::{Precision, Product, Storage},
};

/// The errors of single products over an even grid of factors from 1 to 2.
#[derive(Clone, Copy, Debug)]
pub struct ProductError {
    /// Against the exact product of the factors as the precision rounds them: what the product itself does.
    pub of_rounded: Spread,
    /// Against the exact product of the factors as given.
    pub of_given: Spread,
    /// Do the errors depend on a vector's largest entry?
    pub scaled: bool,
}

/// Relative errors, put together.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The mean, with signs.
    pub mean: f64,
    /// The mean of the magnitudes.
    pub mean_size: f64,
    /// The largest magnitude.
    pub largest: f64,
}

/// Factors on each side.
const GRID: usize = 512;
/// The largest entry of the vectors around the factors, for precisions that scale by it.
const LARGEST: f32 = 2.0;

impl ProductError {
    /// Measures a precision's own product.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be made.
    pub fn of(precision: Precision) -> Result<ProductError, ThreadPoolBuildError> {
        let numerics = Numerics::new(precision, Order::SEQUENTIAL, NonZeroUsize::MIN);
        let kernel = Fast::new(numerics.expect("every precision adds first to last"))?;
        let site = precision.own_site();
        let recipe = precision.recipe(At::alone(site));
        let factors: Vec<f32> = (0..GRID).map(|step| 1.0 + (step as f32 + 0.5) / GRID as f32).collect();
        // A vector with the factor and its largest entry, which meets a zero on the other side.
        let x: Vec<f32> = factors.iter().flat_map(|&x| [x, LARGEST, 0.0]).collect();
        let weights = kernel.pack(At::alone(site), GRID, 3, &mut |column: usize, terms: &mut [f32]| {
            terms.copy_from_slice(&[factors[column], 0.0, LARGEST]);
        });
        let mut products = vec![0.0; GRID * GRID];
        matmul(&kernel, site, &x, GRID, &weights, &mut products);
        let spread = |left: &dyn Fn(f32) -> f32, right: &dyn Fn(f32) -> f32| {
            let errors = products.iter().enumerate().map(|(index, &product)| {
                let exact = f64::from(left(factors[index / GRID])) * f64::from(right(factors[index % GRID]));
                f64::from(product) / exact - 1.0
            });
            let mut spread = Spread { mean: 0.0, mean_size: 0.0, largest: 0.0 };
            for error in errors {
                spread.mean += error / products.len() as f64;
                spread.mean_size += error.abs() / products.len() as f64;
                spread.largest = spread.largest.max(error.abs());
            }
            spread
        };
        Ok(ProductError {
            of_rounded: spread(&|x| recipe.activations.round(x), &|w| recipe.weights.format().round(w)),
            of_given: spread(&|x| x, &|w| w),
            scaled: matches!(recipe.product, Product::Int8(_)) || matches!(recipe.weights, Storage::Codes(_)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(name: &str) -> Spread {
        ProductError::of(name.parse().unwrap()).unwrap().of_rounded
    }

    #[test]
    fn lmul_errs_as_enumeration_says() {
        // Enumerated over all pairs of m-bit mantissas, in percent: mean, mean size, largest. The printed
        // formula's mean over all of f32's is the integral, 2 ln 2 - (15/16) ln² 2 - 1.
        for (name, expected) in [
            ("lmul:m=2", [14.7, 14.7, 25.0]),
            ("lmul:m=3", [4.9, 5.2, 12.5]),
            ("lmul:m=4", [4.9, 5.1, 12.5]),
            ("lmul", [0.41, 2.66, 7.3]),
            ("lmul:m=2,variant=formula", [8.6, 11.1, 25.0]),
            ("lmul:variant=formula", [-6.413, 7.4, 23.0]),
        ] {
            let Spread { mean, mean_size, largest } = rounded(name);
            for (got, expected) in [mean, mean_size, largest].into_iter().zip(expected) {
                assert!(
                    (100.0 * got - expected).abs() < 0.06 + 0.03 * expected.abs(),
                    "{name}: {got} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_real_product_errs_by_its_last_rounding() {
        assert!(rounded("fp32").largest <= f64::from(f32::EPSILON) / 2.0);
        assert!(rounded("bf16").largest <= 1.0 / 256.0);
        assert!(rounded("layercast").largest <= f64::from(f32::EPSILON) / 2.0);
    }
}
