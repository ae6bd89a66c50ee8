//! What happens in the heads: norms, rotary positions and causal attention within each line, with their gradients.

use std::{ops::Range, sync::Arc};

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};
use reprocheck::numerics::{elementary, rotary::Turn};

use crate::ops::{LANES, add, dot, fast, like, made, norm, norm_back, read, slice, total};

/// The width of a head: known to the compiler, for its loops.
pub(crate) const HEAD: usize = 32;
/// What scores are multiplied by: one over the root of the head's width.
const FACTOR: f32 = 0.176_776_7;

type Head = [f32; HEAD];

/// Where the lines of a batch begin and end, and the shape of the heads.
#[derive(Clone)]
pub(crate) struct Heads {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    /// The first row of each line, and how many it has.
    pub(crate) lines: Vec<(usize, usize)>,
    /// The turn of every position.
    pub(crate) turns: Arc<Vec<Turn>>,
}

impl Heads {
    /// Of a row: queries, keys, values.
    fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * HEAD
    }

    /// The queries and keys of every row, and how they turn there.
    fn turning(&self) -> impl Iterator<Item = (Range<usize>, &Turn)> {
        let turning = (self.heads + self.kv_heads) * HEAD;
        let rows =
            self.lines.iter().flat_map(|&(start, count)| (start..start + count).zip(self.turns.iter()));
        rows.map(move |(row, turn)| (row * self.width()..row * self.width() + turning, turn))
    }

    /// One head of every row of a line.
    #[inline(always)]
    fn of_line(&self, x: &[f32], (start, count): (usize, usize), head: usize) -> Vec<Head> {
        let row = |row| {
            let at = row * self.width() + head * HEAD;
            *x[at..].first_chunk().expect("a row holds all its heads")
        };
        (start..start + count).map(row).collect()
    }

    /// Every line with every pair of a key head and a value head, and the query heads that share it.
    fn groups(&self) -> impl Iterator<Item = ((usize, usize), [usize; 2], Range<usize>)> {
        let &Heads { heads, kv_heads, .. } = self;
        let group = heads / kv_heads;
        self.lines.iter().flat_map(move |&line| {
            (0..kv_heads)
                .map(move |kv| (line, [heads + kv, heads + kv_heads + kv], kv * group..(kv + 1) * group))
        })
    }
}

/// Pair i is feature i with feature i + half; `back` turns the other way.
#[inline(always)]
fn turn_by(head: &mut [f32], turn: &Turn, back: bool) {
    let (low, high) = head.split_at_mut(HEAD / 2);
    for pair in 0..HEAD / 2 {
        let (cos, sin) = (turn.cos[pair], if back { -turn.sin[pair] } else { turn.sin[pair] });
        let (x, y) = (low[pair], high[pair]);
        low[pair] = x * cos - y * sin;
        high[pair] = y * cos + x * sin;
    }
}

/// Queries and keys over their norm, times their weights, turned by their position; values as they are.
pub(crate) struct Turned(pub(crate) Heads);

impl Turned {
    #[inline(always)]
    fn forward(&self, weights: [&[f32]; 2], out: &mut [f32]) {
        for (place, turn) in self.0.turning() {
            for (at, head) in out[place].chunks_exact_mut(HEAD).enumerate() {
                let before: Head = std::array::from_fn(|feature| head[feature]);
                norm(&before, weights[usize::from(at >= self.0.heads)], head);
                turn_by(head, turn, false);
            }
        }
    }

    /// `to_x` holds the gradient of the result at first.
    #[inline(always)]
    fn backward(&self, x: &[f32], weights: [&[f32]; 2], to_x: &mut [f32], to_weights: &mut [Vec<f32>; 2]) {
        for (place, turn) in self.0.turning() {
            let heads = x[place.clone()].chunks_exact(HEAD).zip(to_x[place].chunks_exact_mut(HEAD));
            for (at, (head, to_head)) in heads.enumerate() {
                turn_by(to_head, turn, true);
                let mut grad: Head = std::array::from_fn(|feature| to_head[feature]);
                let which = usize::from(at >= self.0.heads);
                norm_back(head, weights[which], &mut grad, to_head, &mut to_weights[which]);
            }
        }
    }
}

impl CustomOp3 for Turned {
    fn name(&self) -> &'static str {
        "turned"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        queries: &CpuStorage,
        queries_layout: &Layout,
        keys: &CpuStorage,
        keys_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let weights = [slice(queries, queries_layout)?, slice(keys, keys_layout)?];
        let mut out = slice(x, x_layout)?.to_vec();
        fast(
            #[inline(always)]
            || self.forward(weights, &mut out),
        );
        made(out, x_layout.shape())
    }

    fn bwd(
        &self,
        x: &Tensor,
        queries: &Tensor,
        keys: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (to_x, [to_queries, to_keys]) = read([x, queries, keys, grad], |[x, queries, keys, grad]| {
            let (mut to_x, mut to_weights) = (grad.to_vec(), [vec![0.0; HEAD], vec![0.0; HEAD]]);
            fast(
                #[inline(always)]
                || self.backward(x, [queries, keys], &mut to_x, &mut to_weights),
            );
            (to_x, to_weights)
        })?;
        Ok((like(to_x, x)?, like(to_queries, queries)?, like(to_keys, keys)?))
    }
}

/// One head of every row of a line, feature by feature in blocks of rows: products with many rows at once.
struct Across(Vec<[[f32; LANES]; HEAD]>);

impl Across {
    #[inline(always)]
    fn new(rows: &[Head]) -> Across {
        let mut blocks = vec![[[0.0; LANES]; HEAD]; rows.len().div_ceil(LANES)];
        for (at, row) in rows.iter().enumerate() {
            for (feature, value) in row.iter().enumerate() {
                blocks[at / LANES][feature][at % LANES] = *value;
            }
        }
        Across(blocks)
    }

    /// `head` times each row of the first blocks, as many as there is room for.
    #[inline(always)]
    fn dots(&self, head: &Head, out: &mut [f32]) {
        for (block, out) in self.0.iter().zip(out.chunks_exact_mut(LANES)) {
            let mut lanes = [0.0_f32; LANES];
            for (value, row) in head.iter().zip(block) {
                for lane in 0..LANES {
                    lanes[lane] = value.mul_add(row[lane], lanes[lane]);
                }
            }
            out.copy_from_slice(&lanes);
        }
    }
}

/// In whole blocks: the room for what a row has to do with those up to itself.
fn room(row: usize) -> usize {
    (row + 1).next_multiple_of(LANES)
}

/// What row `row` of a line attends to: shares that add up to 1, over the rows up to itself, and 0 for the rest of the
/// last block.
#[inline(always)]
fn shares(query: &Head, keys: &Across, row: usize, out: &mut [f32]) {
    keys.dots(query, out);
    out[row + 1..].fill(f32::NEG_INFINITY);
    let larger = |best: f32, score: f32| if score > best { score } else { best };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in out.chunks_exact(LANES) {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], block[lane]);
        }
    }
    let best = lanes.into_iter().fold(f32::NEG_INFINITY, larger);
    for score in out.iter_mut() {
        *score = elementary::exp((*score - best) * FACTOR);
    }
    let mut lanes = [0.0; LANES];
    for block in out.chunks_exact(LANES) {
        for lane in 0..LANES {
            lanes[lane] += block[lane];
        }
    }
    let factor = 1.0 / total(lanes);
    for share in out {
        *share *= factor;
    }
}

/// Causal attention within each line, of rows as [`Turned`] makes them.
pub(crate) struct Attention(pub(crate) Heads);

impl Attention {
    #[inline(always)]
    fn forward(&self, x: &[f32], out: &mut [f32]) {
        let width = self.0.heads * HEAD;
        for (line, [key, value], queries) in self.0.groups() {
            let (keys, values) = (Across::new(&self.0.of_line(x, line, key)), self.0.of_line(x, line, value));
            let mut shared = vec![0.0; room(line.1)];
            for head in queries {
                for (row, query) in self.0.of_line(x, line, head).iter().enumerate() {
                    shares(query, &keys, row, &mut shared[..room(row)]);
                    let mut sum = [0.0; HEAD];
                    for (share, value) in shared.iter().zip(&values[..=row]) {
                        add(&mut sum, *share, value);
                    }
                    out[(line.0 + row) * width + head * HEAD..][..HEAD].copy_from_slice(&sum);
                }
            }
        }
    }

    #[inline(always)]
    fn backward(&self, x: &[f32], grad: &[f32], to_x: &mut [f32]) {
        let (width, grad_width) = (self.0.width(), self.0.heads * HEAD);
        for (line, [key, value], queries) in self.0.groups() {
            let (start, count) = line;
            let (keys, values) = (self.0.of_line(x, line, key), self.0.of_line(x, line, value));
            let (across_keys, across_values) = (Across::new(&keys), Across::new(&values));
            let (mut to_keys, mut to_values) = (vec![[0.0; HEAD]; count], vec![[0.0; HEAD]; count]);
            let mut give = |row: usize, head: usize, to: &Head| {
                to_x[(start + row) * width + head * HEAD..][..HEAD].copy_from_slice(to);
            };
            // A row of shares and one of what their scores get, for each row of the line.
            let room_of_all = room(count - 1);
            let mut shared = vec![0.0; count * room_of_all];
            let mut to_scores = shared.clone();
            for head in queries {
                let asking = self.0.of_line(x, line, head);
                let grads = (start..start + count).map(|row| {
                    let grad = &grad[row * grad_width + head * HEAD..];
                    *grad.first_chunk::<HEAD>().expect("a row holds all its heads")
                });
                let grads: Vec<Head> = grads.collect();
                for (row, (query, grad)) in asking.iter().zip(&grads).enumerate() {
                    let place = row * room_of_all..row * room_of_all + room(row);
                    let (shared, to_scores) = (&mut shared[place.clone()], &mut to_scores[place]);
                    shares(query, &across_keys, row, shared);
                    across_values.dots(grad, to_scores);
                    let mean = dot(shared, to_scores);
                    for (to_score, share) in to_scores.iter_mut().zip(shared.iter()) {
                        *to_score = share * (*to_score - mean) * FACTOR;
                    }
                    let mut to_query = [0.0; HEAD];
                    for (to_score, key) in to_scores.iter().zip(&keys[..=row]) {
                        add(&mut to_query, *to_score, key);
                    }
                    give(row, head, &to_query);
                }
                for at in 0..count {
                    // Copies, which stay in registers while the rows go by.
                    let (mut to_key, mut to_value) = (to_keys[at], to_values[at]);
                    for row in at..count {
                        let place = row * room_of_all + at;
                        add(&mut to_key, to_scores[place], &asking[row]);
                        add(&mut to_value, shared[place], &grads[row]);
                    }
                    (to_keys[at], to_values[at]) = (to_key, to_value);
                }
            }
            for row in 0..count {
                give(row, key, &to_keys[row]);
                give(row, value, &to_values[row]);
            }
        }
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let shape = (x.len() / self.0.width(), self.0.heads * HEAD);
        let mut out = vec![0.0; shape.0 * shape.1];
        fast(
            #[inline(always)]
            || self.forward(x, &mut out),
        );
        made(out, shape)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let to_x = read([x, grad], |[x, grad]| {
            let mut to_x = vec![0.0; x.len()];
            fast(
                #[inline(always)]
                || self.backward(x, grad, &mut to_x),
            );
            to_x
        })?;
        like(to_x, x)
    }
}
