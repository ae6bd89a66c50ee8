//! Where in a forward pass an operation stands: an address that every operation has, and no two of one pass share.

use std::{cmp::Ordering, fmt, str::FromStr};

use crate::name::NameError;

/// Where in the model a matrix stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Site {
    /// A layer's product with weights.
    Linear,
    /// Queries with keys, or probabilities with values.
    Attention,
    /// The last product, which gives the logits.
    Head,
    /// A table that is looked up, and the small vectors (norm weights, biases): nothing is multiplied through a
    /// matrix, so what a precision does to factors does not happen here.
    Table,
}

/// The place of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct At {
    /// The layer, counted from 0; none before the first and behind the last.
    pub layer: Option<usize>,
    /// What it does there.
    pub step: Step,
}

impl At {
    /// A step of a layer.
    pub const fn layer(layer: usize, step: Step) -> At {
        At { layer: Some(layer), step }
    }

    /// A step outside of the layers.
    pub const fn outside(step: Step) -> At {
        At { layer: None, step }
    }

    /// An operation on its own, which belongs to no forward pass; its product is one of this site.
    pub const fn alone(site: Site) -> At {
        At::outside(Step::Alone(site))
    }

    /// Its turn in a forward pass: whatever comes earlier has a smaller one.
    const fn turn(self) -> (usize, Step) {
        let layer = match (self.layer, self.step) {
            (None, Step::Embed) => 0,
            (Some(layer), _) => layer + 1,
            (None, _) => usize::MAX,
        };
        (layer, self.step)
    }

    /// Where scores become the weights of a sum that stands here: the softmax before it, which has a place of its own.
    pub const fn weighing(self) -> At {
        match self.step {
            Step::Context => At { step: Step::Softmax, ..self },
            _ => self,
        }
    }

    /// Whose recipe holds here. What goes row by row rounds to what the linear layers give, and so stands with them.
    pub const fn site(self) -> Site {
        match self.step {
            Step::Embed => Site::Table,
            Step::Scores | Step::Context => Site::Attention,
            Step::Head => Site::Head,
            Step::Alone(site) => site,
            _ => Site::Linear,
        }
    }
}

/// As they come in a forward pass.
impl Ord for At {
    fn cmp(&self, other: &At) -> Ordering {
        self.turn().cmp(&other.turn())
    }
}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &At) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "{} of layer {layer}", self.step.name()),
            None => f.write_str(self.step.name()),
        }
    }
}

impl Step {
    /// The products with weights of every layer.
    pub const PRODUCTS: [Step; 4] = [Step::Qkv, Step::Output, Step::GateUp, Step::Down];
    /// Those of them that read what a norm gives, and nothing else does.
    pub const BEHIND_NORMS: [Step; 2] = [Step::Qkv, Step::GateUp];
    /// Those of them that ranks share by their terms, because these lie apart: by heads, by channels behind the gate.
    pub const BY_TERMS: [Step; 2] = [Step::Output, Step::Down];
}

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident = $name:literal,)*) => {
        /// What an operation does in a forward pass, in the order in which it comes.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Step {
            $($(#[$doc])* $step,)*
            /// Something on its own, outside of a forward pass.
            Alone(Site),
        }

        impl Step {
            /// Every step of a forward pass.
            pub const ALL: &[Step] = &[$(Step::$step),*];
            /// Their names, in the same order.
            pub const NAMES: &[&str] = &[$($name),*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Step::$step => $name,)*
                    Step::Alone(_) => "alone",
                }
            }

            /// Its number among [`Step::ALL`]; what stands alone has none.
            pub const fn number(self) -> Option<usize> {
                /// The same without what stands alone: these are numbered.
                enum Numbered {
                    $($step,)*
                }
                match self {
                    $(Step::$step => Some(Numbered::$step as usize),)*
                    Step::Alone(_) => None,
                }
            }

            /// Is it taken in every layer, and not once before or behind them?
            pub const fn is_of_layer(self) -> bool {
                !matches!(self, Step::Embed | Step::Norm | Step::Head | Step::Alone(_))
            }
        }
    };
}

impl FromStr for Step {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Step, NameError> {
        let found = Step::ALL.iter().copied().find(|step| step.name() == name);
        found.ok_or_else(|| NameError::new("step", Step::NAMES, name))
    }
}

steps! {
    /// The tokens' rows of the embedding.
    Embed = "embed",
    /// The norm before attention.
    AttentionNorm = "attention-norm",
    /// The product that gives queries, keys and values.
    Qkv = "qkv",
    /// The norm of each head of queries.
    QueryNorm = "query-norm",
    /// The rotation of the queries by their positions.
    QueryRotation = "query-rotation",
    /// The norm of each head of keys.
    KeyNorm = "key-norm",
    /// The rotation of the keys by their positions.
    KeyRotation = "key-rotation",
    /// The product of queries with keys.
    Scores = "scores",
    /// The softmax of the scores.
    Softmax = "softmax",
    /// The product of probabilities with values.
    Context = "context",
    /// The product behind attention.
    Output = "output",
    /// The addition of its result to the residual stream.
    AttentionAdd = "attention-add",
    /// The norm before the gated layers.
    MlpNorm = "mlp-norm",
    /// The product that gives what is gated, and by what.
    GateUp = "gate-up",
    /// The gate.
    Gate = "gate",
    /// The product behind the gate.
    Down = "down",
    /// The addition of its result to the residual stream.
    MlpAdd = "mlp-add",
    /// The norm behind the last layer.
    Norm = "norm",
    /// The product that gives the logits.
    Head = "head",
}
