//! Servers that others serve with: each is asked over HTTP in its own dialect, and believed as far as it can show.
//!
//! What a server shows is the best log-probabilities of each token. How many prompts shared its calls is what it counts itself:
//! whoever is asked eight things at once may well do one after the other. So a setting of ours that a server does not prove is no
//! setting, and what it says that cannot be true ends its cell.

mod contact;
mod declaration;
pub mod dialect;
mod exchange;
pub mod process;
mod serving;

pub use self::{
    contact::Opening,
    declaration::{Piece, Place, Server, pieces},
    exchange::check_address,
    serving::Serving,
};
