//! The suites inside this binary: their files as they are.

/// A suite's name and its file.
macro_rules! suites {
    ($($name:literal),+ $(,)?) => {
        /// Every suite in this binary, in the order of their names.
        pub const SUITES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../suites/", $name, "/suite.toml")))),+];
    };
}

suites! {
    "carry_chain",
    "digit_ops",
    "divmod",
    "exec_trace",
    "expr_chain",
    "gpt3_arith",
    "list_stats",
    "mul_ladder",
    "number_theory",
    "nupa_core",
    "perturb_num",
    "sequence_next",
    "street_approx",
    "tok_chunk",
    "word_checklist",
    "word_symbolic",
}
