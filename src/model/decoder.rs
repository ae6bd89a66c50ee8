//! One forward pass for Qwen2, Qwen3 and Llama: every number comes from the kernel, this file only says which.
//!
//! Rows are tokens, of any number of sequences and without padding. A matrix's outputs stand side by side in its
//! row of results. Shapes are given as `[rows, columns]`, the columns one after the other in memory.

use super::{
    Checkpoint, CheckpointError, Config,
    checkpoint::Tensor,
    products::{Made, in_layer},
    ranks,
    weights::WeightsError,
};
use crate::numerics::{
    Numerics,
    elementary::rsqrt,
    format::Format,
    kernel::{At, Attended, Encoding, End, Fast, Job, Kernel, Op, Source, Step},
    kv::k_sort,
    order::Launch,
    precision::{Calibration, Site},
    rotary::{Rotary, Turn},
};

/// A model ready to run.
#[derive(Debug)]
pub struct Decoder<K: Kernel = Fast> {
    kernel: K,
    config: Config,
    rotary: Rotary,
    /// [vocabulary, width]
    embedding: K::Weights,
    layers: Vec<Layer<K::Weights>>,
    /// [width]
    norm: Vec<f32>,
    /// [vocabulary, width]; none where the embedding is the head.
    head: Option<K::Weights>,
    /// Is everything behind the scores one operation, and not a softmax and a product?
    attends: bool,
}

#[derive(Debug)]
struct Layer<W> {
    /// [width]
    attention_norm: Vec<f32>,
    /// [(heads + 2 kv_heads) * head_width, width]: queries, keys, values.
    qkv: Linear<W>,
    /// [head_width]
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    /// [kv_heads][head_width]: where each channel of a key comes from, if they are sorted before they are kept.
    channels: Option<Vec<Vec<usize>>>,
    /// [width, heads * head_width]
    output: Linear<W>,
    /// [width]
    mlp_norm: Vec<f32>,
    /// [2 * inner_width, width]: what is gated by, what is gated.
    gate_up: Linear<W>,
    /// [width, inner_width]
    down: Linear<W>,
    /// How many keys back a query sees, itself included.
    window: Option<usize>,
}

#[derive(Debug)]
struct Linear<W> {
    /// [outputs, inputs]
    weights: W,
    outputs: usize,
    /// [outputs]
    bias: Option<Vec<f32>>,
}

/// What one sequence remembers: the keys and values of every layer.
#[derive(Debug)]
pub struct Cache<W> {
    /// [layers][kv_heads]
    heads: Vec<Vec<Memory<W>>>,
    length: usize,
    /// [layers], of one that others may begin with.
    came: Option<Vec<Came>>,
}

/// The keys and values of a layer as they came, before they were kept: [tokens, kv_heads * head_width] each.
#[derive(Debug, Default)]
struct Came {
    keys: Vec<f32>,
    values: Vec<f32>,
}

#[derive(Debug)]
struct Memory<W> {
    /// One output for each token: [tokens, head_width].
    keys: W,
    /// One term for each token: [head_width, tokens].
    values: W,
}

impl<W> Cache<W> {
    /// How many tokens it holds.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Holds it none?
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// What one call reads of one sequence.
#[derive(Debug)]
pub struct Span<'a, W> {
    /// What came before.
    pub cache: &'a mut Cache<W>,
    /// The tokens that follow.
    pub tokens: &'a [u32],
    /// After which of them logits are wanted.
    pub logits: Wanted,
}

/// After which tokens of a span logits are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// After none.
    None,
    /// After the last.
    Last,
    /// After every one.
    All,
}

impl Wanted {
    /// After how many of so many, of which there is one.
    pub fn of(self, tokens: usize) -> usize {
        match self {
            Wanted::None => 0,
            Wanted::Last => 1,
            Wanted::All => tokens,
        }
    }
}

impl<K: Kernel> Decoder<K> {
    /// Reads a checkpoint's weights into the kernel's own form.
    ///
    /// # Errors
    ///
    /// When a tensor is missing, or is not what the config says, when nothing was measured for a product that needs it, or when its
    /// ranks cannot share the model.
    pub fn load(kernel: K, checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        Decoder::smoothed(kernel, checkpoint, None)
    }

    /// The same, smoothed by a calibration even where the precision reads none.
    ///
    /// # Errors
    ///
    /// Those of [`Decoder::load`].
    pub fn smoothed(
        kernel: K,
        checkpoint: &Checkpoint,
        calibration: Option<Calibration>,
    ) -> Result<Self, CheckpointError> {
        ranks::fit(checkpoint, kernel.numerics())?;
        let config = checkpoint.config.clone();
        let load = Loader { kernel: &kernel, checkpoint, calibration };
        let width = config.width;
        let table =
            |step, name: &str| load.matrix(At::outside(step), &[(name.to_owned(), config.vocabulary)], width);
        const EMBEDDING: &str = "model.embed_tokens.weight";
        // One matrix serves as both where they are tied, unless the head's products need it rounded further.
        let shared = config.tied && kernel.numerics().precision().head_is_table();
        let embedding = table(if shared { Step::Head } else { Step::Embed }, EMBEDDING)?;
        let head = match (shared, config.tied) {
            (true, _) => None,
            (false, true) => Some(table(Step::Head, EMBEDDING)?),
            (false, false) => Some(table(Step::Head, "lm_head.weight")?),
        };
        let sorts = kernel.numerics().kv().sorts_keys();
        let layer = |index: usize| {
            let name = |part: &str| in_layer(index, part);
            let at = |step| At::layer(index, step);
            let head_norm =
                |step, part| config.qk_norm.then(|| load.vector(at(step), &name(part), config.head_width));
            let norm = |step, part, before| load.norm(at(step), &name(part), width, at(before));
            Ok(Layer {
                attention_norm: norm(Step::AttentionNorm, "input_layernorm.weight", Step::Qkv)?,
                qkv: load.linear(index, Step::Qkv)?,
                query_norm: head_norm(Step::QueryNorm, "self_attn.q_norm.weight").transpose()?,
                key_norm: head_norm(Step::KeyNorm, "self_attn.k_norm.weight").transpose()?,
                channels: sorts.then(|| load.channels(&name("self_attn"), &config)).transpose()?,
                output: load.linear(index, Step::Output)?,
                mlp_norm: norm(Step::MlpNorm, "post_attention_layernorm.weight", Step::GateUp)?,
                gate_up: load.linear(index, Step::GateUp)?,
                down: load.linear(index, Step::Down)?,
                window: config.windows[index],
            })
        };
        let layers = (0..config.layers).map(layer).collect::<Result<_, CheckpointError>>()?;
        let norm = load.vector(At::outside(Step::Norm), "model.norm.weight", width)?;
        let rotary = Rotary::new(config.head_width, config.rope_theta, config.rope_scaling);
        let attends = kernel.numerics().attention().is_cut();
        Ok(Decoder { kernel, config, rotary, embedding, layers, norm, head, attends })
    }

    /// The same by the operations that it has under each of these numerics: two cells are compared operation by operation. It moves no
    /// bit.
    #[must_use]
    pub fn among(self, numerics: [Numerics; 2]) -> Self {
        let attends = numerics.iter().any(|own| own.attention().is_cut());
        Decoder { attends, ..self }
    }

    /// The kernel it computes with.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A sequence of no tokens yet.
    pub fn cache(&self) -> Cache<K::Weights> {
        let width = self.config.head_width;
        let layer = |index| {
            let grows = |step, columns, depth| {
                self.kernel.pack(At::layer(index, step), columns, depth, &mut |_: usize, _: &mut [f32]| {})
            };
            let memory =
                |_| Memory { keys: grows(Step::Scores, 0, width), values: grows(Step::Context, width, 0) };
            (0..self.config.kv_heads).map(memory).collect()
        };
        Cache { heads: (0..self.config.layers).map(layer).collect(), length: 0, came: None }
    }

    /// The same of which [`Decoder::beginning`] can be taken: what comes is kept beside it as it comes, in f32.
    pub fn divisible_cache(&self) -> Cache<K::Weights> {
        let came = std::iter::repeat_with(Came::default).take(self.config.layers).collect();
        Cache { came: Some(came), ..self.cache() }
    }

    /// The first so many tokens of a sequence, as it has read them: the same keys and values, kept in the same way.
    ///
    /// # Panics
    ///
    /// If it has no so many, or is none that can be divided.
    pub fn beginning(&self, cache: &Cache<K::Weights>, tokens: usize) -> Cache<K::Weights> {
        assert!(tokens <= cache.length, "a sequence of {} tokens does not begin with {tokens}", cache.length);
        let width = self.config.kv_heads * self.config.head_width;
        let mut beginning = self.divisible_cache();
        let all = cache.came.as_deref().expect("only what was made for it is divided");
        for (layer, Came { keys, values }) in all.iter().enumerate() {
            self.remember(&mut beginning, layer, &keys[..tokens * width], &values[..tokens * width]);
        }
        beginning.length = tokens;
        beginning
    }

    /// Keeps the keys and values of a layer's next tokens: [tokens, kv_heads * head_width] each.
    fn remember(&self, cache: &mut Cache<K::Weights>, layer: usize, keys: &[f32], values: &[f32]) {
        let heads = cache.heads[layer].len();
        let ends = keys.chunks_exact(self.config.head_width).zip(values.chunks_exact(self.config.head_width));
        for (head, (key, value)) in ends.enumerate() {
            let memory = &mut cache.heads[layer][head % heads];
            self.kernel.push(&mut memory.keys, End::Column(key));
            self.kernel.push(&mut memory.values, End::Row(value));
        }
        if let Some(came) = &mut cache.came {
            came[layer].keys.extend_from_slice(keys);
            came[layer].values.extend_from_slice(values);
        }
    }

    /// Reads the spans' tokens, extends their caches, and gives the logits that are wanted: [wanted, vocabulary].
    ///
    /// # Panics
    ///
    /// If a token is not in the vocabulary.
    pub fn forward(&self, spans: &mut [Span<'_, K::Weights>]) -> Vec<f32> {
        let Config { width, inner_width, activation, .. } = self.config;
        let tokens: Vec<u32> = spans.iter().flat_map(|span| span.tokens.iter().copied()).collect();
        let launch = self.launch(tokens.len());
        let functions = self.kernel.numerics().functions();
        let turns = spans.iter().flat_map(positions).map(|at| self.rotary.turn(functions, at));
        let turns: Vec<Turn> = turns.collect();
        let turns: Vec<&Turn> = turns.iter().collect();

        let mut stream = vec![0.0; tokens.len() * width]; // [tokens, width]
        let embed = Op::Lookup { table: &self.embedding, columns: &tokens, out: &mut stream };
        self.kernel.apply(At::outside(Step::Embed), launch, embed);
        for (index, layer) in self.layers.iter().enumerate() {
            let at = |step| At::layer(index, step);
            let add = |step, stream: &mut [f32], update: &[f32]| {
                self.kernel.apply(at(step), launch, Op::Add { stream, update });
            };
            let normed = self.norm(at(Step::AttentionNorm), launch, &stream, &layer.attention_norm);
            let qkv = self.linear(at(Step::Qkv), launch, &layer.qkv, &normed);
            let context = self.attention(launch, index, qkv, &turns, spans); // [tokens, heads * head_width]
            add(
                Step::AttentionAdd,
                &mut stream,
                &self.linear(at(Step::Output), launch, &layer.output, &context),
            );

            let normed = self.norm(at(Step::MlpNorm), launch, &stream, &layer.mlp_norm);
            let gate_up = self.linear(at(Step::GateUp), launch, &layer.gate_up, &normed);
            let mut inner = vec![0.0; tokens.len() * inner_width];
            let gate = Op::Gate { activation, gate_up: &gate_up, width: inner_width, out: &mut inner };
            self.kernel.apply(at(Step::Gate), launch, gate);
            add(Step::MlpAdd, &mut stream, &self.linear(at(Step::Down), launch, &layer.down, &inner));
        }
        for span in &mut *spans {
            span.cache.length += span.tokens.len();
        }

        let wanted = wanted_rows(spans);
        if wanted.is_empty() {
            return Vec::new();
        }
        let launch = self.launch(wanted.len());
        let rows: Vec<f32> = wanted.iter().flat_map(|row| &stream[row * width..][..width]).copied().collect();
        let normed = self.norm(At::outside(Step::Norm), launch, &rows, &self.norm);
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        self.product(At::outside(Step::Head), launch, head, self.config.vocabulary, None, &normed)
    }

    /// Rotates, remembers and attends: [tokens, (heads + 2 kv_heads) * head_width] to [tokens, heads * head_width].
    fn attention(
        &self,
        launch: Launch,
        index: usize,
        qkv: Vec<f32>,
        turns: &[&Turn],
        spans: &mut [Span<'_, K::Weights>],
    ) -> Vec<f32> {
        let Config { heads, kv_heads, head_width, .. } = self.config;
        let layer = &self.layers[index];
        let at = |step| At::layer(index, step);
        // Which query heads share a head of keys.
        let group = heads / kv_heads;
        let [mut queries, mut keys, values] =
            split(&qkv, [heads, kv_heads, kv_heads].map(|n| n * head_width));
        for (values, heads, norm, norm_step, rotation_step) in [
            (&mut queries, heads, &layer.query_norm, Step::QueryNorm, Step::QueryRotation),
            (&mut keys, kv_heads, &layer.key_norm, Step::KeyNorm, Step::KeyRotation),
        ] {
            if let Some(norm) = norm {
                *values = self.norm(at(norm_step), launch, values, norm);
            }
            self.kernel.apply(at(rotation_step), launch, Op::Rotate { values, heads, turns });
            // As if the rows of both weights, the norms and the angles stood in this order. A sum over the channels has other terms
            // first then, and a block of them other neighbors.
            if let Some(channels) = &layer.channels {
                sort_channels(values, heads, channels);
            }
        }

        let mut context = vec![0.0; queries.len()];
        let mut seen = Vec::new();
        let mut row = 0;
        let mut spans: Vec<Attending<'_, K::Weights>> = spans
            .iter_mut()
            .map(|span| {
                let rows = row..row + span.tokens.len();
                row = rows.end;
                let part = rows.start * kv_heads * head_width..rows.end * kv_heads * head_width;
                self.remember(span.cache, index, &keys[part.clone()], &values[part]);
                let memories = &span.cache.heads[index];
                let tokens = rows.len();
                let length = span.cache.length + tokens;
                // [kv_heads, tokens, group, head_width]: the rows that meet the same keys stand together.
                let queries =
                    gather(&queries[rows.start * heads * head_width..], kv_heads, tokens, group * head_width);
                let scores = vec![0.0; heads * tokens * length];
                Attending { memories, before: span.cache.length, tokens, queries, scores }
            })
            .collect();

        let mut jobs = Vec::new();
        for span in &mut spans {
            let (rows, length) = (span.tokens * group, span.before + span.tokens);
            let queries = span.queries.chunks_exact(rows * head_width);
            let scores = span.scores.chunks_exact_mut(rows * length);
            for ((memory, activations), out) in span.memories.iter().zip(queries).zip(scores) {
                jobs.push(Job { activations, rows, weights: &memory.keys, start: None, out });
            }
        }
        self.kernel.apply(at(Step::Scores), launch, Op::Product(jobs));

        let scale = rsqrt(head_width as f32);
        let first_seen = |end: usize| layer.window.map_or(0, |window| end.saturating_sub(window));
        let mut out = context.chunks_exact_mut(group * head_width);
        const OUT: &str = "there is a context for every token and head of keys";
        if self.attends {
            let mut rows = Vec::new();
            for span in &spans {
                let length = span.before + span.tokens;
                for token in 0..span.tokens {
                    let end = span.before + token + 1;
                    for (head, memory) in span.memories.iter().enumerate() {
                        let scores = &span.scores[(head * span.tokens + token) * group * length..];
                        let (scores, seen) = (&scores[..group * length], first_seen(end)..end);
                        let out = out.next().expect(OUT);
                        rows.push(Attended { scores, rows: group, seen, values: &memory.values, out });
                    }
                }
            }
            self.kernel.apply(at(Step::Context), launch, Op::Attend { rows, scale });
            return context;
        }
        for span in &mut spans {
            let length = span.before + span.tokens;
            seen.clear();
            for _ in 0..kv_heads {
                for end in span.before + 1..=length {
                    seen.extend((0..group).map(|_| first_seen(end)..end));
                }
            }
            // [kv_heads, tokens, group, length]
            let softmax = Op::Softmax { scores: &mut span.scores, width: length, seen: &seen, scale };
            self.kernel.apply(at(Step::Softmax), launch, softmax);
            if span.tokens > 1 {
                span.pack_seen(kv_heads, group);
            }
        }

        let mut jobs = Vec::new();
        for span in &spans {
            let length = span.before + span.tokens;
            for token in 0..span.tokens {
                for (head, memory) in span.memories.iter().enumerate() {
                    let first = (head * span.tokens + token) * group * length;
                    let activations = &span.scores[first..][..group * (span.before + token + 1)];
                    let out = out.next().expect(OUT);
                    jobs.push(Job { activations, rows: group, weights: &memory.values, start: None, out });
                }
            }
        }
        self.kernel.apply(at(Step::Context), launch, Op::Product(jobs));
        context
    }

    fn launch(&self, rows: usize) -> Launch {
        Launch { rows, threads: self.kernel.numerics().threads().get() }
    }

    fn norm(&self, at: At, launch: Launch, rows: &[f32], weight: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; rows.len()];
        let epsilon = self.config.epsilon;
        self.kernel.apply(at, launch, Op::Norm { rows, weight, epsilon, out: &mut out });
        out
    }

    fn linear(&self, at: At, launch: Launch, linear: &Linear<K::Weights>, rows: &[f32]) -> Vec<f32> {
        let Linear { weights, outputs, bias } = linear;
        self.product(at, launch, weights, *outputs, bias.as_deref(), rows)
    }

    fn product(
        &self,
        at: At,
        launch: Launch,
        weights: &K::Weights,
        outputs: usize,
        start: Option<&[f32]>,
        activations: &[f32],
    ) -> Vec<f32> {
        let mut out = vec![0.0; launch.rows * outputs];
        let job = Job { activations, rows: launch.rows, weights, start, out: &mut out };
        self.kernel.apply(at, launch, Op::Product(vec![job]));
        out
    }
}

/// One sequence while a layer attends.
struct Attending<'a, W> {
    memories: &'a [Memory<W>],
    /// Tokens that were there before this call.
    before: usize,
    tokens: usize,
    queries: Vec<f32>,
    /// [kv_heads, tokens, group, before + tokens], then probabilities.
    scores: Vec<f32>,
}

impl<W> Attending<'_, W> {
    /// Moves the rows of each token together, each cut off behind the token's own key: that is all it sees.
    fn pack_seen(&mut self, kv_heads: usize, group: usize) {
        let length = self.before + self.tokens;
        for block in 0..kv_heads * self.tokens {
            let seen = self.before + block % self.tokens + 1;
            let first = block * group * length;
            for row in 1..group {
                self.scores
                    .copy_within(first + row * length..first + row * length + seen, first + row * seen);
            }
        }
    }
}

/// The positions of a span's tokens.
fn positions<W>(span: &Span<'_, W>) -> std::ops::Range<usize> {
    span.cache.length..span.cache.length + span.tokens.len()
}

/// The rows after which logits are wanted.
fn wanted_rows<W>(spans: &[Span<'_, W>]) -> Vec<usize> {
    let mut wanted = Vec::new();
    let mut end = 0;
    for span in spans {
        let start = end;
        end += span.tokens.len();
        match span.logits {
            Wanted::None => {}
            Wanted::Last => wanted.extend((start..end).last()),
            Wanted::All => wanted.extend(start..end),
        }
    }
    wanted
}

/// Takes rows of several parts apart: [rows, sum of widths] to [rows, width] each.
fn split<const N: usize>(rows: &[f32], widths: [usize; N]) -> [Vec<f32>; N] {
    let whole: usize = widths.iter().sum();
    let mut start = 0;
    widths.map(|width| {
        let part = start..start + width;
        start = part.end;
        rows.chunks_exact(whole).flat_map(|row| &row[part.clone()]).copied().collect()
    })
}

/// [tokens, blocks, width] to [blocks, tokens, width].
fn gather(values: &[f32], blocks: usize, tokens: usize, width: usize) -> Vec<f32> {
    let mut gathered = Vec::with_capacity(blocks * tokens * width);
    for block in 0..blocks {
        for token in 0..tokens {
            gathered.extend_from_slice(&values[(token * blocks + block) * width..][..width]);
        }
    }
    gathered
}

/// Puts the channels of every head in the order of the head of keys that it meets: [tokens, heads * head_width].
fn sort_channels(values: &mut [f32], heads: usize, channels: &[Vec<usize>]) {
    let of_heads = channels.iter().flat_map(|own| std::iter::repeat_n(own, heads / channels.len()));
    let width = channels.first().map_or(1, Vec::len);
    let mut before = vec![0.0; width];
    for (head, own) in values.chunks_exact_mut(width).zip(of_heads.cycle()) {
        before.copy_from_slice(head);
        head.iter_mut().zip(own).for_each(|(value, &channel)| *value = before[channel]);
    }
}

/// The weights of one of [`Step::PRODUCTS`] as the checkpoint has them: [outputs, terms].
///
/// # Errors
///
/// When a tensor is missing, or is not what the config says.
pub fn weights(checkpoint: &Checkpoint, layer: usize, step: Step) -> Result<Vec<f32>, CheckpointError> {
    let made = Made::new(&checkpoint.config, step);
    let tensors = made.tensors(layer, "weight");
    let mut values = vec![0.0; made.depth * tensors.iter().map(|(_, outputs)| outputs).sum::<usize>()];
    let mut rows = values.chunks_exact_mut(made.depth);
    for (name, outputs) in tensors {
        let mut tensor = checkpoint.tensor(&name, &[outputs, made.depth])?;
        rows.by_ref().take(outputs).try_for_each(|row| tensor.next_row(row))?;
    }
    Ok(values)
}

/// Tensors on their way into a kernel.
struct Loader<'a, K> {
    kernel: &'a K,
    checkpoint: &'a Checkpoint,
    calibration: Option<Calibration>,
}

impl<K: Kernel> Loader<'_, K> {
    /// What the inputs of a product are divided by and its weights multiplied, if anything.
    fn smooth(&self, at: At, depth: usize) -> Result<Option<&'static [f32]>, CheckpointError> {
        let own = self.kernel.numerics().precision().calibration(at);
        let Some(calibration) = self.calibration.or(own) else { return Ok(None) };
        match calibration.depth(at) {
            Some(measured) if measured == depth => Ok(calibration.smooth(at)),
            measured => Err(CheckpointError::Calibration { calibration, at, measured, depth }),
        }
    }

    /// Several matrices of the same depth as one, their outputs side by side.
    fn matrix(&self, at: At, parts: &[(String, usize)], depth: usize) -> Result<K::Weights, CheckpointError> {
        let open = |(name, columns): &(String, usize)| self.checkpoint.tensor(name, &[*columns, depth]);
        let tensors = parts.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let ends = parts.iter().scan(0, |end, (_, columns)| {
            *end += columns;
            Some(*end)
        });
        let smooth = if at.site() == Site::Linear { self.smooth(at, depth)? } else { None };
        let mut side_by_side = SideBySide { tensors, ends: ends.collect(), smooth, problem: None };
        let columns = parts.iter().map(|(_, columns)| columns).sum();
        let weights = self.kernel.pack(at, columns, depth, &mut side_by_side);
        side_by_side.problem.map_or(Ok(weights), |problem| Err(problem.into()))
    }

    /// The projections of a layer's product side by side, with their biases if they have some.
    fn linear(&self, layer: usize, step: Step) -> Result<Linear<K::Weights>, CheckpointError> {
        let (at, made) = (At::layer(layer, step), Made::new(&self.checkpoint.config, step));
        let tensors = made.tensors(layer, "weight");
        let weights = self.matrix(at, &tensors, made.depth)?;
        let biases = if made.bias { made.tensors(layer, "bias") } else { Vec::new() };
        let biases = biases.iter().map(|(name, outputs)| self.vector(at, name, *outputs));
        let bias = biases.collect::<Result<Vec<_>, _>>()?.concat();
        let outputs = tensors.iter().map(|(_, outputs)| outputs).sum();
        Ok(Linear { weights, outputs, bias: Some(bias).filter(|bias| !bias.is_empty()) })
    }

    /// The channels of each head of keys of a layer, sorted by the weights as the checkpoint has them.
    fn channels(&self, attention: &str, config: &Config) -> Result<Vec<Vec<usize>>, CheckpointError> {
        let Config { width, kv_heads, head_width, .. } = *config;
        let read = |name: &str, shape: &[usize], rows: usize| {
            let mut tensor = self.checkpoint.tensor(&format!("{attention}.{name}.weight"), shape)?;
            let row = |_| {
                let mut row = vec![0.0; shape[shape.len() - 1]];
                tensor.next_row(&mut row)?;
                Ok::<_, CheckpointError>(row)
            };
            (0..rows).map(row).collect::<Result<Vec<_>, _>>()
        };
        let rows = read("k_proj", &[kv_heads * head_width, width], kv_heads * head_width)?;
        let norm = match config.qk_norm {
            true => read("k_norm", &[head_width], 1)?.pop(),
            false => None,
        };
        Ok(rows.chunks_exact(head_width).map(|rows| k_sort(rows, norm.as_deref())).collect())
    }

    /// The weights of a norm, divided by what the inputs of the product behind it are.
    fn norm(&self, at: At, name: &str, width: usize, before: At) -> Result<Vec<f32>, CheckpointError> {
        let smooth = self.smooth(before, width)?.unwrap_or_default();
        self.divided(at, name, width, smooth)
    }

    /// A vector of a place, rounded to what the precision stores there.
    fn vector(&self, at: At, name: &str, length: usize) -> Result<Vec<f32>, CheckpointError> {
        self.divided(at, name, length, &[])
    }

    fn divided(&self, at: At, name: &str, length: usize, by: &[f32]) -> Result<Vec<f32>, CheckpointError> {
        let mut values = vec![0.0; length];
        self.checkpoint.tensor(name, &[length])?.next_row(&mut values)?;
        values.iter_mut().zip(by).for_each(|(value, by)| *value /= by);
        self.kernel.numerics().precision().vectors(at).round_slice(&mut values);
        Ok(values)
    }
}

/// Tensors whose rows are one matrix's outputs.
struct SideBySide<'a> {
    tensors: Vec<Tensor<'a>>,
    /// The output after the last of each.
    ends: Vec<usize>,
    /// What multiplies the terms of every output.
    smooth: Option<&'a [f32]>,
    /// What went wrong first. After that nothing more is read: the matrix is not used.
    problem: Option<WeightsError>,
}

impl SideBySide<'_> {
    fn part(&self, output: usize) -> usize {
        self.ends.partition_point(|&end| end <= output)
    }
}

impl Source for SideBySide<'_> {
    fn encoding(&self, output: usize) -> Encoding {
        match self.smooth {
            Some(_) => Encoding::Values(Format::F32),
            None => self.tensors[self.part(output)].encoding(),
        }
    }

    fn values(&mut self, output: usize, terms: &mut [f32]) {
        let part = self.part(output);
        if self.problem.is_none() {
            self.problem = self.tensors[part].next_row(terms).err();
        }
        terms.iter_mut().zip(self.smooth.unwrap_or_default()).for_each(|(term, smooth)| *term *= smooth);
    }

    fn blocks(&mut self, output: usize, bytes: &mut [u8], terms: &mut [f32]) {
        let part = self.part(output);
        if self.problem.is_none() {
            self.problem = self.tensors[part].next_stored_row(bytes, terms).err();
        }
    }
}
