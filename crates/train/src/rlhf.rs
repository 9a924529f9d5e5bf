//! The whole pipeline on the lab.
