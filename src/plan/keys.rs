//! What may stand in a matrix file: every key once, with its form and its sentence. The check of a file, the JSON
//! Schema and the help are made from these tables; the limits of a gate come from [`LIMITS`].

use serde_json::{Value, json};

use super::{
    gate::LIMITS,
    shape::{AxisForm, Form, Key, Section, WHOLE, key},
};
use crate::{engine::server::dialect, suite::style::Style};

/// The items that a suite may be asked for by name.
pub const SIZES: &[&str] = &["quick", "std", "full"];

const SUITES: Key = key(
    "suites",
    Form::Suites(&SUITE),
    "the suites to run: names, paths with a slash, or tables that say more",
);
const ITEMS: Key = key("items", Form::WordOrCount(SIZES), "how many items of each suite");
const ITEM_SEED: Key = key("item-seed", Form::Count(0), "the seed that items are drawn by");
const STYLE: Key =
    key("style", Form::Word(Style::NAMES), "how items are asked; what suits the model where it is left out");
const SHOTS: Key = key("shots", Form::Count(0), "how many solved examples stand before each item");
const GENERATE: Key = key("generate", Form::Table(&GENERATION), "how prompts are continued");
const REFERENCE: Key =
    key("reference", Form::Table(&REFERENCE_CELL), "the cell that all others are compared with");
const MATRIX: Key = key("matrix", Form::Table(&MATRIX_AXES), "what is varied: every combination is a cell");
const GATE: Key = key("gate", Form::Tables(&GATES), "what must hold");
const BISECT: Key = key(
    "bisect",
    Form::Flag,
    "whether a run then looks for the operation that makes the first two cells part that do, as `run --bisect` does; it moves no bit",
);
const SELFTEST: Key = key(
    "selftest",
    Form::Flag,
    "whether a run then seeds faults and asks the gates of each, as `run --selftest` does: it runs the matrix once for every fault",
);
const ENGINE: Key = key("engine", Form::Named(&SERVER), "servers, which the matrix names as `server:NAME`");

const CLUSTER: Key = key(
    "cluster",
    Form::Table(&RESOURCES),
    "what `submit` asks a scheduler for; an option of the command line wins, and no bit moves",
);

/// The file as a whole.
pub static FILE: Section = Section {
    name: WHOLE,
    sentence: "what runs under which cells, and what must hold",
    keys: &[
        key("$schema", Form::Text, "where an editor finds the schema of this file"),
        SUITES,
        ITEMS,
        ITEM_SEED,
        STYLE,
        SHOTS,
        key("model", Form::Text, "the model, unless the command line names one"),
        GENERATE,
        REFERENCE,
        MATRIX,
        ENGINE,
        GATE,
        BISECT,
        SELFTEST,
        CLUSTER,
        key("profile", Form::Named(&PROFILE), "other values for `--profile NAME`"),
    ],
    axes: None,
};

/// A profile.
static PROFILE: Section = Section {
    name: "profile",
    sentence: "what differs under `--profile NAME`: a key here replaces that of the file, a gate that of its name",
    keys: &[
        key(
            "inherits",
            Form::Text,
            "the profile that this one differs from; the file itself where it is left out",
        ),
        SUITES,
        ITEMS,
        ITEM_SEED,
        STYLE,
        SHOTS,
        GENERATE,
        REFERENCE,
        MATRIX,
        GATE,
        BISECT,
        SELFTEST,
        CLUSTER,
    ],
    axes: None,
};

static RESOURCES: Section = Section {
    name: "cluster",
    sentence: "what a part of a run asks a scheduler for",
    keys: &[
        key("queue", Form::Text, "the queue, which Slurm calls a partition"),
        key("memory", Form::Memory, "how much memory a part may take, such as 64G"),
        key("time", Form::Limit, "how long a part may take, such as 12h"),
        key(
            "cpus",
            Form::Count(1),
            "how many processors a part computes on; the most threads of a cell where it is left out",
        ),
        key("parts", Form::Count(1), "into how many parts the run is divided"),
    ],
    axes: None,
};

static SERVER: Section = Section {
    name: "engine",
    sentence: "a server that answers over HTTP, and how it is started where it is not there already",
    keys: &[
        key("dialect", Form::Word(dialect::NAMES), "how it is spoken to"),
        key("url", Form::Text, "where it is, such as http://127.0.0.1:8000"),
        key(
            "command",
            Form::Texts,
            "what starts it here, where {model}, {port} and the names of its axes in braces stand for what they name",
        ),
        key(
            "ready",
            Form::Text,
            "the path that answers with 200 once it can be asked; its dialect's where it is left out",
        ),
        key("env", Form::Variables, "variables of the environment that it is started with, beside our own"),
        key(
            "timeout",
            Form::Count(1),
            "after how many seconds an answer, or its start, is waited for no more; 300 where it is left out",
        ),
        key(
            "model",
            Form::Text,
            "what it calls the model, where {model} is its path; the first that it names where it is left out",
        ),
        key(
            "key-env",
            Form::Text,
            "the variable of the environment that holds the key it asks for, which is written nowhere",
        ),
        key("axes", Form::Declared, "its settings: every combination of them is a server, and a cell"),
    ],
    axes: None,
};

static SUITE: Section = Section {
    name: "suites",
    sentence: "a suite that runs with settings of its own",
    keys: &[key("name", Form::Text, "its name, or its path"), ITEMS, ITEM_SEED, STYLE, SHOTS],
    axes: None,
};

static GENERATION: Section = Section {
    name: "generate",
    sentence: "how prompts are continued",
    keys: &[
        key(
            "max-new-tokens",
            Form::Count(1),
            "how many tokens may follow a prompt; as many as its suite says where it is left out",
        ),
        key("choice", Form::Choice, "how a token is chosen: greedy, or sampled:temperature=0.8,top-p=0.95"),
        key("candidates", Form::Count(2), "how many of the best tokens to keep for each position"),
        key(
            "replay",
            Form::Flag,
            "whether cells read what the reference wrote, so that every token is compared and none follows another one",
        ),
    ],
    axes: None,
};

static REFERENCE_CELL: Section = Section {
    name: "reference",
    sentence: "the cell that all others are compared with; what it does not say is the matrix's first value",
    keys: &[],
    axes: Some(AxisForm::One),
};

static MATRIX_AXES: Section = Section {
    name: "matrix",
    sentence: "the values of every axis; every combination is a cell",
    keys: &[
        key(
            "include",
            Form::Tables(&INCLUDED),
            "cells beside the product; what one does not say is the reference's",
        ),
        key(
            "exclude",
            Form::Tables(&FILTER),
            "combinations to leave out: those that match all that one says",
        ),
    ],
    axes: Some(AxisForm::OneOrMore),
};

static INCLUDED: Section =
    Section { name: "include", sentence: "a cell beside the product", keys: &[], axes: Some(AxisForm::One) };

static FILTER: Section = Section {
    name: "where",
    sentence: "the cells that have, on each axis named, one of the values",
    keys: &[],
    axes: Some(AxisForm::OneOrMore),
};

static GATES: Section =
    Section { name: "gate", sentence: "something that must hold", keys: &GATE_KEYS, axes: None };

/// What a gate compares, the limits that it may set, and what belongs to some of these.
const GATE_KEYS: [Key; GATE_HEAD.len() + LIMITS.len() + GATE_TAIL.len()] = {
    let mut keys = [GATE_TAIL[0]; GATE_HEAD.len() + LIMITS.len() + GATE_TAIL.len()];
    let (head, limits) = (GATE_HEAD.len(), LIMITS.len());
    let mut at = 0;
    while at < keys.len() {
        keys[at] = if at < head {
            GATE_HEAD[at]
        } else if at < head + limits {
            LIMITS[at - head].key
        } else {
            GATE_TAIL[at - head - limits]
        };
        at += 1;
    }
    keys
};

const GATE_HEAD: [Key; 4] = [
    key("name", Form::Text, "what the report calls it"),
    key("where", Form::Table(&FILTER), "which cells it is about; all where it is left out"),
    key("vary", Form::Axes, "compares the cells that differ on these axes alone"),
    key(
        "against",
        Form::Word(&["reference", "baseline"]),
        "compares each cell with the reference, or with its approved digests",
    ),
];

const GATE_TAIL: [Key; 3] = [
    key(
        "pass-at",
        Form::Count(1),
        "of how many answers `max-pass-drop` asks for a right one: the k of pass@k; 1 where it is left out",
    ),
    key(
        "confidence",
        Form::Share,
        "of the tests and the intervals of `max-accuracy-drop` and `max-pass-drop`; 95% where it is left out",
    ),
    key(
        "exceeding",
        Form::Share,
        "in which share of the rows `max-logit-difference`, `max-ulp` and `max-kl` may be exceeded; in none where it is left out",
    ),
];

/// The JSON Schema of a matrix file, for an editor.
pub fn schema() -> Value {
    let mut schema = FILE.schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("a matrix file of reprocheck");
    schema
}
