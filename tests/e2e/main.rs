//! Bellhop in pods, on a real cluster. Where pods cannot run, one line says that these were left out.
//!
//! One cluster serves all tests, and two of them at a time would disturb each other: run with `--test-threads=1`.

mod node;
