//! The operations between the matrix products, each with its gradient: candle's own have none on the CPU, or take apart
//! into a dozen passes over memory.
//!
//! Lines stand one after the other without padding: a batch is a matrix of one row for each of their tokens. Loops are
//! written for vectors of any width, in one order: instruction sets do not change their bits.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor};
use pulp::Arch;
use reprocheck::numerics::elementary;

/// Numbers that are added up beside each other.
pub(crate) const LANES: usize = 16;
const EPSILON: f32 = 1e-6;

/// All values of what a fused operation reads.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!(
            "a fused operation reads rows that lie one after the other: make them so first"
        ),
    }
}

/// The same of tensors, for the way back.
pub(crate) fn read<const N: usize, R>(tensors: [&Tensor; N], f: impl FnOnce([&[f32]; N]) -> R) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices = [&[][..]; N];
    for (to, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Storage::Cpu(storage) = &**storage else {
            candle_core::bail!("fused operations run on the CPU: train there");
        };
        *to = slice(storage, layout)?;
    }
    Ok(f(slices))
}

pub(crate) fn made(values: Vec<f32>, shape: impl Into<Shape>) -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(values), shape.into()))
}

pub(crate) fn like(values: Vec<f32>, other: &Tensor) -> Result<Option<Tensor>> {
    Tensor::from_vec(values, other.shape(), other.device()).map(Some)
}

/// Compiles `f` for the vectors that this machine has.
pub(crate) fn fast<R>(f: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(f)
}

/// A sum of products in a fixed order, for vectors of up to 16 lanes.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for lane in 0..LANES {
            lanes[lane] = a[lane].mul_add(b[lane], lanes[lane]);
        }
    }
    total(lanes)
}

/// The sum of all lanes, halved again and again.
#[inline(always)]
pub(crate) fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `to += factor * from`.
#[inline(always)]
pub(crate) fn add(to: &mut [f32], factor: f32, from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = factor.mul_add(*from, *to);
    }
}

/// One over the root of the mean square.
#[inline(always)]
fn scale(row: &[f32]) -> f32 {
    1.0 / (dot(row, row) / row.len() as f32 + EPSILON).sqrt()
}

/// `row * scale * weight`.
#[inline(always)]
pub(crate) fn norm(row: &[f32], weight: &[f32], out: &mut [f32]) {
    let scale = scale(row);
    for ((out, x), w) in out.iter_mut().zip(row).zip(weight) {
        *out = x * scale * w;
    }
}

/// The way back of a norm: what the row and the weight get of `grad`. `grad` is spent.
#[inline(always)]
pub(crate) fn norm_back(
    row: &[f32],
    weight: &[f32],
    grad: &mut [f32],
    to_row: &mut [f32],
    to_weight: &mut [f32],
) {
    let scale = scale(row);
    for (((to, g), x), w) in to_weight.iter_mut().zip(grad.iter_mut()).zip(row).zip(weight) {
        *to += *g * x * scale;
        *g *= w;
    }
    let along = dot(grad, row) * scale * scale / row.len() as f32;
    for ((to, g), x) in to_row.iter_mut().zip(grad).zip(row) {
        *to = scale * (*g - along * x);
    }
}

/// Rows `[T, n]` over the root of their mean square, times a weight `[n]`.
pub(crate) struct Norm;

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (slice(x, x_layout)?, slice(weight, weight_layout)?);
        let mut out = vec![0.0; x.len()];
        fast(
            #[inline(always)]
            || {
                for (row, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
                    norm(row, weight, out);
                }
            },
        );
        made(out, x_layout.shape())
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (to_x, to_weight) = read([x, w, grad], |[x, weight, grad]| {
            let width = weight.len();
            let (mut to_x, mut to_weight, mut spent) = (vec![0.0; x.len()], vec![0.0; width], grad.to_vec());
            fast(
                #[inline(always)]
                || {
                    let rows = x.chunks_exact(width).zip(spent.chunks_exact_mut(width));
                    for ((row, grad), to_row) in rows.zip(to_x.chunks_exact_mut(width)) {
                        norm_back(row, weight, grad, to_row, &mut to_weight);
                    }
                },
            );
            (to_x, to_weight)
        })?;
        Ok((like(to_x, x)?, like(to_weight, w)?))
    }
}

/// The first half of each row through SiLU, times the second half.
pub(crate) struct Gated;

impl CustomOp1 for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let x = slice(x, layout)?;
        let mut out = vec![0.0; rows * width / 2];
        fast(
            #[inline(always)]
            || {
                for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width / 2)) {
                    let (gate, up) = row.split_at(width / 2);
                    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                        *out = elementary::silu(*gate) * up;
                    }
                }
            },
        );
        made(out, (rows, width / 2))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let width = x.dim(1)?;
        let to_x = read([x, grad], |[x, grad]| {
            let mut to_x = vec![0.0; x.len()];
            fast(
                #[inline(always)]
                || {
                    let rows = x.chunks_exact(width).zip(grad.chunks_exact(width / 2));
                    for ((row, grad), to_row) in rows.zip(to_x.chunks_exact_mut(width)) {
                        let (gate, up) = row.split_at(width / 2);
                        let (to_gate, to_up) = to_row.split_at_mut(width / 2);
                        for (sigmoid, x) in to_gate.iter_mut().zip(gate) {
                            *sigmoid = elementary::sigmoid(*x);
                        }
                        let inputs = gate.iter().zip(up).zip(grad);
                        for (((x, up), grad), (to_gate, to_up)) in inputs.zip(to_gate.iter_mut().zip(to_up)) {
                            let sigmoid = *to_gate;
                            *to_up = grad * x * sigmoid;
                            *to_gate = grad * up * sigmoid * (1.0 + x * (1.0 - sigmoid));
                        }
                    }
                },
            );
            to_x
        })?;
        like(to_x, x)
    }
}

/// The sum over rows of logits of what their targets cost, in nats, times a weight.
pub(crate) struct Cost {
    pub(crate) targets: Vec<u32>,
    pub(crate) weight: f32,
}

impl Cost {
    /// A row as probabilities, and the logarithm of what they add up to before.
    fn probabilities(row: &mut [f32]) -> f32 {
        let best =
            row.iter().fold(f32::NEG_INFINITY, |best, logit| if *logit > best { *logit } else { best });
        row.iter_mut().for_each(|logit| *logit -= best);
        elementary::exp_slice(row);
        let total: f32 = row.iter().sum();
        row.iter_mut().for_each(|value| *value /= total);
        best + elementary::log(total)
    }
}

impl CustomOp1 for Cost {
    fn name(&self) -> &'static str {
        "cost"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = layout.shape().dims2()?.1;
        let mut sum = 0.0_f64;
        for (row, &target) in slice(x, layout)?.chunks_exact(width).zip(&self.targets) {
            sum += f64::from(Cost::probabilities(&mut row.to_vec()) - row[target as usize]);
        }
        made(vec![(sum * f64::from(self.weight)) as f32], ())
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (width, factor) = (x.dim(1)?, self.weight * grad.to_scalar::<f32>()?);
        let mut to_x = read([x], |[x]| x.to_vec())?;
        for (row, &target) in to_x.chunks_exact_mut(width).zip(&self.targets) {
            Cost::probabilities(row);
            row[target as usize] -= 1.0;
            row.iter_mut().for_each(|value| *value *= factor);
        }
        like(to_x, x)
    }
}
