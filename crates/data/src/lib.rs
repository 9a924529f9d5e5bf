//! Records, formats, chat templates, tokenised samples and the lab. No tensors.
//!
//! Token ids are the only truth: text is tokenised once, each token keeps its role and its loss
//! weight, and everything downstream works on ids.

pub mod batch;
pub mod constitution;
pub mod error;
pub mod formats;
pub mod hh;
mod jsonl;
pub mod lab;
pub mod layout;
mod parquet;
mod python;
pub mod record;
pub mod rng;
pub mod sample;
pub mod stats;
pub mod template;
pub mod token_bytes;
pub mod tokenize;
pub mod tokenizer;

pub use constitution::{Constitution, Principle};
pub use error::DataError;
pub use formats::{BadRows, Dataset, LoadOptions, Skipped, load, load_with};
pub use layout::Layout;
pub use record::{Content, Located, Message, Record};
pub use sample::{
    LabelledSample, PairSample, PromptSample, RankedSample, RatedSample, Role, Sample, StepSample,
};
pub use token_bytes::TokenBytes;
pub use tokenize::{HhAs, LossOn, OverLong, TokenizeOptions};
pub use tokenizer::{AnswerFrame, SpecialTokens, Tokenizer};
