//! What people prefer: items to judge, a terminal to judge them in, a log of the judgements, and
//! the log as rows to train on. No tensors.
//!
//! The log is the only truth: one JSON line for each judgement, never rewritten. What is shown
//! next, what was done and what is exported follow from it.

mod agenda;
pub mod annotation;
pub mod annotators;
pub mod choices;
mod comparison;
pub mod error;
pub mod export;
pub mod items;
pub mod log;
pub mod open;
pub mod order;
pub mod picks;
pub mod scroll;
pub mod session;
pub mod terminal;
mod text;
pub mod view;

pub use annotation::{Annotation, Entry, Retraction, Strength, Verdict};
pub use choices::{Choice, choices};
pub use error::FeedbackError;
pub use export::{Aggregate, Export, ExportLayout, export};
pub use items::{Item, Items};
pub use log::{Log, Torn, read};
pub use order::PlanOptions;
pub use session::{Effect, Key, Session, SessionOptions};
