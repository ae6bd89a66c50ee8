//! The result of a run as data, and every way to write it down: each is a function of one [`Report`], but for
//! [`lm_eval`], whose samples no report holds; [`crate::run::export`] writes those.

mod answers;
pub(crate) mod around;
pub(crate) mod attribution;
mod before;
pub(crate) mod cause;
mod cost;
pub mod csv;
mod data;
mod draws;
pub(crate) mod escape;
pub(crate) mod figure;
mod formats;
pub mod github;
pub mod html;
pub mod junit;
pub(crate) mod likeness;
pub mod lm_eval;
mod made;
pub mod markdown;
pub(crate) mod parting;
pub mod sarif;
pub(crate) mod sensitivity;
mod table;
mod tables;
pub mod text;
pub(crate) mod words;

pub use data::{
    Against, Before, CONFIDENCE, CellRow, Change, ChangeRow, ClosenessRow, ConfigurationRow, CourseRow,
    DigitRow, DigitsRow, DrawsRow, First, Missing, Other, OutcomesRow, PrecisionRow, Report, SettingRow,
    SizeRow, Stated, StratumRow, SuiteRow, Surrounding, SurvivalRow, TransitionRow, Trees,
};
pub use formats::{FORMATS, Format, Written};
