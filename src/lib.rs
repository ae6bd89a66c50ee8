//! What can change the output of a language model, and by how much.
//!
//! The answer rests on arithmetic whose every bit is pinned: precisions, orders of addition, elementary functions,
//! and a kernel that computes with them twice. On it stands one decoder for Qwen2, Qwen3 and Llama, which runs real
//! checkpoints, and beside it the same models as candle ships them; suites ask what such a model can do, and statistics
//! say what two answers differ by. A matrix file says which cells are to run and what must hold; a run leaves a trace of every
//! cell, and a review of the traces ends in a report and a verdict.
//!
//! # The picture
//!
//! From a prompt to its evidence:
//!
//! ```text
//!   suite.toml ── Generator ─┐
//!   lines of JSON ── load ───┴─ Item ── asked in a Style ── Prompt        a text ── extract ── score ── Outcome
//!
//!   ci.toml ── Plan: suites, Cells = engine, Numerics, batch, …, and Gates
//!
//!   folder, Hub, this binary ── Checkpoint: config, tokenizer, tensors read row by row
//!                                    │
//!            Numerics ── Kernel ── Decoder            the stock models, in a process of their own
//!                                    │                                  │
//!   Prompt ──────────────────► engine::lab                       engine::candle
//!                                    └─────────────┬────────────────────┘
//!                                                  ▼
//!                     Sample: tokens, text, and for each token the digest of
//!                     its logits, the candidates, the margin, the launch
//! ```
//!
//! From a matrix file to an exit code:
//!
//! ```text
//!   Plan ──► run ── every Question, under every Cell ──► store: traces, and a Record of every cell
//!     │                                                                  │
//!     │                                                               review, item by item
//!     │                                                                  ▼
//!     └── Gates ──────────────► verdict: Rulings ◄── Evidence: Tallies of pairs, Spreads of precisions
//!                                      │                                 │
//!                                      └────────────► Report ◄───────────┘
//!                                                        │
//!                                             FORMATS, and an exit code
//! ```
//!
//! And below, what every number of the lab rests on:
//!
//! ```text
//!   Precision                   Order + number of terms + Launch
//!   what rounds, and how        which terms meet, and when
//!   a product is formed                      │
//!       │                                    ▼
//!       │                                Schedule ── reduce, over symbols ──► Tree, the declared one
//!       │                                    │                                  ║
//!       └──────────────────┬─────────────────┘                                  ║ must be equal
//!                          ▼                                                    ║
//!          Definition ══ equal bits ══ Fast ──── reveal, by masks ────────────► Tree, the revealed one
//!          scalar code                 vectors, threads
//! ```
//!
//! [`Precision`] says how weights are stored, how a term is formed and what rounds; [`Order`] says in which order
//! terms are added; [`Numerics`] is both, with the number of threads: everything that may move a bit, as one value.
//!
//! An order is written down once. Together with the number of terms and the [`Launch`] it gives a [`Schedule`],
//! and [`Schedule::reduce`] carries that out over whatever implements [`Adder`]: `f32` for [`Definition`],
//! registers full of outputs for [`Fast`], symbols for the [`Tree`] that `reprocheck explain order` draws. The
//! fast kernel holds one output element in each lane, so neither the width of the vectors nor the height of a
//! tile nor the number of threads changes in which order one output is added.
//!
//! From outside, [`reveal`] sends masks through a finished kernel and finds the tree that it really adds by.
//!
//! ```
//! use reprocheck::numerics::{
//!     Numerics,
//!     kernel::{At, Definition, Fast, Kernel, matmul},
//!     precision::Site,
//! };
//!
//! /// Two rows of four activations times a matrix of four terms and three outputs.
//! fn product(kernel: &impl Kernel) -> Vec<u32> {
//!     let activations = [0.1, -2.5, 3e4, 1.0, 7.0, 1e-3, -0.3, 2.0];
//!     let weights = kernel.pack(At::alone(Site::Linear), 3, 4, &mut |output: usize, terms: &mut [f32]| {
//!         for (term, weight) in terms.iter_mut().enumerate() {
//!             *weight = 1.0 / (1 + output + term) as f32;
//!         }
//!     });
//!     let mut out = [0.0; 2 * 3];
//!     matmul(kernel, Site::Linear, &activations, 2, &weights, &mut out);
//!     out.map(f32::to_bits).to_vec()
//! }
//!
//! let numerics: Numerics = "bf16/pairwise/t2".parse()?;
//! assert_eq!(product(&Fast::new(numerics)?), product(&Definition { numerics }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Code map
//!
//! | where | what |
//! |---|---|
//! | [`name`] | enums by name: printing, parsing, and the nearest suggestion |
//! | `json_float` | an f32 in JSON, infinities included |
//! | [`numerics`] | [`Numerics`], and the one NaN that a result may be; knows nothing of models |
//! | [`numerics::format`] | binary formats up to f32: how a value rounds, which code stands for it |
//! | [`numerics::block`] | the block formats of GGUF: where the bits of their values lie, and what each is worth |
//! | [`numerics::at`] | where in a forward pass an operation stands, and which [`Site`] that is |
//! | [`numerics::precision`] | the table [`PRECISIONS`]; a [`Recipe`] names every rounding point at a place, a [`Map`] gives places their precisions, and a [`Calibration`] the limits of what they read |
//! | [`numerics::kv`] | what keys and values are kept in, where that is not what attention multiplies |
//! | [`numerics::attention`] | how attention is computed behind its scores: over all keys, in blocks of them, or in parts that are joined |
//! | [`numerics::parallel`] | how many ranks share a model, and how the parts of a product come together that they share by its terms |
//! | [`numerics::quantizer`] | how values become codes of a few bits, and the scales that bring them back |
//! | [`numerics::smooth`] | what channels of activations are divided by, and the weights that meet them multiplied |
//! | [`numerics::product`] | terms that are not an ordinary product: L-Mul, and the integers of int8 |
//! | [`numerics::order`] | the table [`ORDERS`], schedules, and the one generic `reduce` |
//! | [`numerics::unit`] | what the matrix units of GPUs make of a block of products and the sum so far |
//! | [`numerics::tree`] | a reduction tree as a value: printed, drawn, compared |
//! | [`numerics::exact`] | sums rounded once: the accumulator that holds them, and the bounds that save its work |
//! | [`numerics::elementary`] | exp, tanh, sin and the like, with the same bits on every machine |
//! | [`numerics::functions`] | which functions a model calls, and what they are: exact, a library's, polynomials, bits, or a program |
//! | [`numerics::survey`] | how far a function is from the exact one, over all inputs |
//! | [`numerics::kernel`] | [`Kernel`], the one door to arithmetic, and who stands behind it: [`Definition`], [`Fast`], and [`Faulty`] around either |
//! | [`numerics::rotary`], [`numerics::activation`] | the angles of rotary embeddings; what a gate passes through |
//! | [`numerics::choice`] | which token follows: candidates, and draws whose noise two cells share |
//! | [`numerics::random`] | the counter-based source of that noise |
//! | [`numerics::special`], [`numerics::total`] | quantiles and tails of distributions; sums rounded once |
//! | [`numerics::reveal`] | the tree that a kernel adds by, found with masks |
//! | [`numerics::error`] | the relative error of one product, measured through the kernel |
//! | [`numerics::agreement`] | in how many bits numbers agree that two engines show of the same tokens |
//! | [`numerics::apart`] | how far apart two rows of logits are: steps, log-probabilities, divergence |
//! | [`digest`] | SHA-256 of bytes, logits and files, and the Merkle tree over many |
//! | `http` | one exchange over blocking sockets, with the environment's proxies and the system's certificates |
//! | [`trace`] | what one cell leaves behind of a prompt |
//! | [`stats`] | spread, intervals, paired tests, survival, what several draws amount to, limits that few rows exceed, and how well rows tell two kinds apart |
//! | [`model`] | checkpoints from a folder, a file of GGUF, the Hub or this binary, and the one decoder; [`model::cost`] counts what goes through it |
//! | [`suite`] | families of problems: [`suite::generate`] makes them, [`suite::load`] reads those of others |
//! | [`suite::extract`], [`suite::answer`], [`suite::score`] | the answer in a text, whether it is right, what became of a question |
//! | [`suite::compact`] | how a model of characters is asked, and the steps it writes |
//! | [`source`] | which characters hide; a file that a person wrote, and what is wrong with it, each with its place; whose fault an error is |
//! | [`cell`] | one point of a matrix: the tables [`AXES`] and [`ENGINES`], what computes, how it is served; [`cell::map`] reads and writes the files of maps, [`cell::calibration`] those of what was measured of activations, [`cell::program`] those of functions |
//! | [`plan`] | what a matrix file means; [`plan::keys`] is all that may stand in one, [`plan::gate`] what must hold |
//! | [`cause`] | why two cells part: [`cause::passage`] is what both have read, in whose calls; [`cause::tap`], [`cause::transplant`] and [`cause::watch`] are kernels around others; [`cause::search`] names operations, [`cause::attribution`] ranks parts of the model, [`cause::sensitivity`] finds what bears a lower precision, [`cause::likeness`] which declared order comes nearest to an engine whose operations cannot be seen |
//! | [`engine`] | whatever continues a prompt: the lab, candle's own models in a child process, and the servers of [`engine::server`], each in its [`engine::server::dialect`]; [`engine::faulty`] is the lab with a defect |
//! | [`compare`] | the ladder of agreement: bits, tokens, answers; where two outputs part, how far many are apart |
//! | [`record`] | what is known of a run: what it is about, what became of each cell |
//! | [`verdict`] | [`verdict::evidence`] is what is compared with what; gates become rulings; [`verdict::baseline`] is what was approved |
//! | [`store`] | the only writer of results; [`store::run`] is a run's folder, [`store::trace`] what a cell leaves behind, [`store::partial`] what is done of one that still runs, [`store::open`] a trace that any program can write, [`store::faulty`] spoils one |
//! | [`report`] | the result of a run as data, and the table [`report::FORMATS`]: a function of it for each way to write it down, with the words of `report/words.rs` |
//! | [`mod@run`] | the main loop; [`run::review`] makes a report of the traces, [`run::merge`] joins shards, [`run::diff`] holds two runs, cells or logs against each other, [`run::bisect`] says why two cells part, [`run::calibrate`] measures what products read, [`run::certify`] tells which answers of a cell no other order changes, [`run::panel`] which parts of the model carry that, [`run::selftest`] whether the gates of a matrix see faults, [`run::tolerance`] how far legitimate arithmetic moves logits and what a limit on that sees, [`run::sweep`] at which width of a format outputs begin to move, [`run::foreign`] what comes nearest to a cell of another engine, [`run::verify`] whether a run is what its model computes, [`run::export`] writes samples for other tools, [`run::pace`] says how far a run has come and [`run::forecast`] how long one would take |
//! | [`attest`] | what a run came to, signed: [`attest::statement`] is in-toto's, [`attest::envelope`] DSSE's, [`attest::key`] Ed25519's |
//! | [`parity`] | what several engines show after the same tokens, and how far apart that is |
//! | [`cli`] | words only: one file per verb |
//!
//! Inside `numerics/kernel`, whatever is computed is an operation (`op`) at an address (`numerics/at.rs`): a kernel around another one,
//! such as `faulty`, sees each of them, and can act at one place alone. `definition` takes nothing from the files of the fast kernel. `fast` hands what goes row by
//! row to `rows` and each job of a product to `prepared`; from there `float`, `certified` (exact sums) or `integer` drives
//! the loops of `tile` over the panels of `packed`, and all of them read the job's `task`. `isa` names the instruction sets,
//! `workers` are the threads, `schedules` keeps what an order came to. No file uses one that uses it.
//!
//! Dependencies point one way, `name, json_float, http <- numerics <- digest, source, stats <- cell, model, suite, trace <- compare, cause, engine <- plan <-
//! record <- verdict <- report, store <- parity, run <- attest <- cli`, which `tests/shape.rs` reads off the sources; `main` calls `cli` and nothing else.
//!
//! # Invariants, and what holds each
//!
//! 1. **The fast kernel may only be faster than the definition, never different.** `tests/conformance.rs` compares
//!    bits over every precision, order and instruction set that the machine has, on ordinary numbers and on
//!    those at the edge (`every_precision_and_order_is_its_definition_on_…`), for attention, the head, growing
//!    caches and many jobs at once.
//! 2. **The declared tree is the revealed one**, for every order (`the_revealed_tree_is_the_declared_one`). Integers and
//!    narrow floats leave no room for masks; that test names them.
//! 3. **The checks can fail.** Every [`KernelFault`] of sums must break both of the above
//!    (`sabotage_is_seen_by_conformance_and_by_the_revealed_tree`, `sabotage_is_seen_in_everything_that_goes_row_by_row`),
//!    and no operation of a forward pass can be skipped unseen (`tests/operations.rs`).
//! 4. **A row has the same bits alone and in any batch, on any number of threads**, unless its order follows the
//!    launch or its precision is int8 (`a_row_has_the_same_bits_alone_and_in_any_batch`,
//!    `threads_share_the_work_and_change_no_bit`). The first test also fails if int8 ceases to be an exception.
//! 5. **An order says that it depends on the launch exactly if its tree does**
//!    (`an_order_depends_on_the_launch_exactly_if_its_tree_does`, in `order/schedule.rs`).
//! 6. **Numerics are a value.** A name parses to it, it prints back as that name, and one value has one name; what
//!    cannot be computed cannot be made (the unit tests of `numerics`, `precision` and `order`). There is no global
//!    mode; `clippy.toml` forbids reading the environment.
//! 7. **No function of the platform whose bits may differ elsewhere.** `clippy.toml` forbids `f32::exp` and its like,
//!    and this file turns that lint on. What stands in for them is compared with CORE-MATH and with recorded
//!    digests, in `tests/elementary.rs`.
//! 8. **Roundings and exact sums are those of independent implementations**: `half`, `float8` and `microfloat` in
//!    `tests/formats.rs`, rational numbers in `tests/exact.rs`.
//! 9. **A NaN result is always [`NAN`]**: a rounding has the last word, and it knows no other
//!    (`specials_convert_as_pinned` in `tests/formats.rs`; the conformance tests send infinities and many NaNs).
//! 10. **No unsafe code**, but for one prefetch (`tile`) and the instructions of AVX-512 that the library of vectors lacks, for
//!     products of 8-bit integers (`integer`) and of bfloat16 (`pairs`), each allowed by name (`unsafe_code` is denied, and every
//!     block must say why it is sound; `only_the_kernel_is_unsafe`).
//! 11. **Only `cli` prints** (`clippy::print_stdout`, `clippy::print_stderr`), data on stdout, complaints on stderr, and
//!     only `store` writes results (`tests/shape.rs`).
//! 12. **The decoder computes what its architecture says**: logits within 2e-5 of Hugging Face transformers', the same
//!     greedy tokens, for every fixture and prompt (`tests/parity.rs`, `tests/candle.rs`).
//! 13. **Batch, grouping, threads, prompt chunks and the cache move no bit of a sequence**, unless its order follows the
//!     launch or its precision is int8 (`tests/invariance.rs`, which also fails if those two cease to be exceptions), and
//!     the fast decoder has the bits of the definition (`the_fast_decoder_gives_the_bits_of_the_definition`).
//! 14. **Every way in which a checkpoint can lie is a sentence**, with the file, the place and the way out; no length
//!     is believed before it is checked (`tests/checkpoint.rs`, `tests/hub`).
//! 15. **An item is a function of suite, version, seed and index**, its answer exact: `tests/golden/suites.txt` pins the
//!     items of every suite, and `tests/suites` finds every answer a second way.
//! 16. **No text brings extraction down**, and none costs more than its length (`tests/suites/extraction.rs`); no line of a
//!     file is skipped in silence (`tests/suites/loaders.rs`).
//! 17. **What is counted stays a count until it is read**: equal cells have a deviation of exactly 0
//!     (`tests/stats.rs`).
//! 18. **A matrix file means what it says or is refused**: every unknown key, name and value at once, with its line
//!     (`tests/plan.rs`, and the pairs in `tests/bad`).
//! 19. **What an engine cannot do it refuses**, with the name of the cell, before it runs (`tests/candle.rs`).
//! 20. **A run that was killed is resumed to the same report, byte for byte**
//!     (`a_run_killed_at_any_moment_is_resumed_to_the_same_report`,
//!     `a_run_that_is_killed_before_every_cell_is_done_comes_to_its_end`), and shards add up to the whole
//!     (`shards_that_are_merged_give_the_report_of_one_run`).
//! 21. **No byte of a store is believed that its digest does not cover**
//!     (`a_store_with_a_flipped_byte_or_a_truncated_file_is_repaired_or_refused_and_never_trusted`,
//!     `a_cell_goes_on_where_its_file_ends_and_no_flipped_byte_is_believed`).
//! 22. **Missing evidence is not a pass**, nor is an axis that made no difference to what ran, and what is not seen is never
//!     equal: hiding evidence makes an outcome unknown, and never another one
//!     (`hiding_evidence_makes_any_outcome_unknown_and_none_another`).
//! 23. **A trace holds neither time nor machine, nor the order in which groups ran**, and a report of these the machine alone,
//!     as its `environments` (`a_run_ends_with_a_verdict_and_its_report_is_made_again_byte_for_byte`).
//! 24. **A character that hides is refused in a matrix file, written out in a report and overlooked in an answer**, by one
//!     list, [`source::hides`] (`whatever_controls_formats_turns_tags_or_selects_hides`).
//! 25. **No files of one folder use one another in a circle** (`tests/shape.rs`).
//! 26. **A server is believed as far as it proves what it says**, asked nothing twice and followed nowhere, and ends with whatever
//!     it has started, however the run ends (`tests/serving.rs`).
//! 27. **Whichever operation makes two cells part is named**, from what each read and gave where the run's own digests are met again:
//!     25 of 25 that were spoiled by a seed (`of_25_seeded_differences_the_operation_is_named_in_25`), whatever else is read at once
//!     (`the_answer_is_the_same_byte_for_byte_however_it_is_read_and_whatever_else_ran`).
//! 28. **A map computes at every place as the precision of that place does** (`a_map_computes_what_a_transplant_of_its_places_computes`,
//!     `the_fast_kernel_has_the_bits_of_the_definition_under_any_map`), and whatever gives every place the same has one name
//!     (`a_map_is_what_its_lines_say_and_has_one_name_and_one_text`).
//!
//! 29. **Nothing is attested of a run that was changed, and no gate that was not shown to hold is attested as passed**
//!     (`a_run_with_a_byte_changed_is_neither_attested_nor_what_was_attested`,
//!     `every_gate_is_attested_and_none_that_was_not_shown_to_hold_has_passed`); no byte of an attestation can be another one
//!     (`no_byte_of_an_attestation_can_be_another_one`).
//! 30. **Whatever is changed in a run is found where all samples are drawn, and as often as is said where a part is**, although every
//!     digest was mended (`whatever_is_changed_is_found_where_all_is_drawn`, `of_changes_in_a_part_as_many_are_found_as_is_said`); what
//!     cannot be computed is never verified (`what_cannot_be_checked_is_said_and_never_verified`).
//! 31. **Every seeded fault is seen by the observer that it is declared with**, its code ran, and something was another thing because of
//!     it (`the_shipped_matrix_sees_every_fault_by_its_observer`); what others see is not counted
//!     (`a_fault_that_another_gate_sees_is_killed_for_the_wrong_reason`).
//! 32. **What the cache keeps of a token is the definition's in every format, and depends on no other token**
//!     (`keys_and_values_of_every_format_are_the_definition_s_on_every_instruction_set`, and the tests of 13); sorted channels move no
//!     bit of an exact score (`sorted_channels_move_no_bit_of_exact_sums_where_a_block_is_as_wide_as_the_head`).
//! 33. **What was measured beforehand is the same bytes however it is run, and whoever reads it has the bits of the definition**
//!     (`one_seed_gives_one_file_and_a_run_keeps_what_its_cells_read`, `cells_with_a_calibration_have_the_bits_of_the_definition`); a
//!     transform moves f32 by a few steps alone (`in_f32_a_transform_moves_logits_by_a_few_steps_alone`).
//! 34. **What was read before a token, and who is beside it, moves no bit** of an order that ignores its launch: pages of a prefix cache,
//!     drafted tokens, keys and values that are built again, neighbors
//!     (`nothing_that_was_read_before_moves_a_bit_of_an_order_that_ignores_its_launch`); in an order that follows its rows all of it does
//!     (`everything_that_was_read_before_moves_bits_of_an_order_that_follows_its_rows`) but for what neighbors hold
//!     (`what_is_beside_a_prompt_moves_no_bit_unless_a_precision_looks_at_other_rows`).
//!
//! The tests walk [`PRECISIONS`] and [`ORDERS`], so a new row is held to all of this without a new test.
//!
//! [`AXES`]: cell::AXES
//! [`Adder`]: numerics::order::Adder
//! [`Calibration`]: numerics::precision::Calibration
//! [`Definition`]: numerics::kernel::Definition
//! [`ENGINES`]: cell::ENGINES
//! [`Fast`]: numerics::kernel::Fast
//! [`Faulty`]: numerics::kernel::Faulty
//! [`KernelFault`]: numerics::kernel::KernelFault
//! [`Kernel`]: numerics::kernel::Kernel
//! [`Launch`]: numerics::order::Launch
//! [`Map`]: numerics::precision::Map
//! [`NAN`]: numerics::NAN
//! [`Numerics`]: numerics::Numerics
//! [`ORDERS`]: numerics::order::ORDERS
//! [`Order`]: numerics::order::Order
//! [`PRECISIONS`]: numerics::precision::PRECISIONS
//! [`Precision`]: numerics::precision::Precision
//! [`Recipe`]: numerics::precision::Recipe
//! [`Schedule`]: numerics::order::Schedule
//! [`Schedule::reduce`]: numerics::order::Schedule::reduce
//! [`Site`]: numerics::precision::Site
//! [`Tree`]: numerics::tree::Tree
//! [`reveal`]: numerics::reveal::reveal

#![warn(clippy::disallowed_methods)]

pub mod attest;
pub mod cause;
pub mod cell;
pub mod cli;
pub mod compare;
pub mod digest;
pub mod engine;
mod http;
pub(crate) mod json_float;
pub mod model;
pub mod name;
pub mod numerics;
pub mod parity;
pub mod plan;
pub mod record;
pub mod report;
pub mod run;
pub mod source;
pub mod stats;
pub mod store;
pub mod suite;
pub mod trace;
pub mod verdict;
