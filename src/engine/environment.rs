//! The machine and the build that a cell ran on: it moves no bit of the lab, and any bit of an engine that is not ours.

use std::{env::consts, fs};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::numerics::kernel::Isa;

/// Of candle, as `Cargo.lock` has it; a test compares.
const CANDLE: &str = "0.11.1";

/// The machine and the build that cells ran on: what a foreign engine's bits may depend on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// For which machines the program was built, such as `x86_64-linux`.
    pub target: String,
    /// The name of the processor, where the system tells.
    pub processor: Option<String>,
    /// The widest vectors that the processor has.
    #[schemars(extend("enum" = Isa::ALL.map(|isa| isa.to_string())))]
    pub isa: String,
    /// The version of candle.
    pub candle: String,
}

impl Environment {
    /// Of this process.
    pub fn here() -> Environment {
        Environment {
            target: format!("{}-{}", consts::ARCH, consts::OS),
            processor: processor(),
            isa: Isa::best().to_string(),
            candle: CANDLE.to_owned(),
        }
    }
}

/// The processor's name, where the system tells.
pub fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_candle_is_the_one_that_is_built() {
        let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
        for part in ["core", "nn", "transformers"] {
            assert!(lock.contains(&format!("name = \"candle-{part}\"\nversion = \"{CANDLE}\"\n")), "{part}");
        }
    }
}
