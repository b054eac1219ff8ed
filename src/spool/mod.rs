//! What makes a 2xx true.
