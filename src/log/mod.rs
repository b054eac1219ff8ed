//! The request log: what is kept of every request, and the API that serves it.

pub mod model;
