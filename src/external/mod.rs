//! Carries out the calls that a plugin describes: which hosts may be called, limits, answers.

pub mod address;
mod client;
pub mod oauth;

pub use client::{CallFailure, Client};
