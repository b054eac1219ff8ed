//! The charts: what they render for many values, what they refuse, and what a real API server makes of them. There is no
//! node here; `tests/e2e` has the pods.

mod install;
mod monitoring;
mod refusals;
mod render;
mod rights;
mod support;
mod upgrade;
