//! Carries out the calls that a plugin describes: which hosts may be called, how often, limits, answers.

pub mod address;
mod budget;
mod client;
pub mod oauth;
mod quota;
mod rate;
#[cfg(test)]
mod tests;

pub use budget::BudgetKey;
pub use client::{CallFailure, Client, Settings, read_authorities};
pub use rate::{Rate, Schedule};
