//! togi
