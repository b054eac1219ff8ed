//! The life of a webhook with each peculiarity of external systems, against stand-ins for them
//! (`tests/harness/src/vendor`): each test installs the plugin beside it and tells the story from `kubectl apply` to
//! `kubectl delete`.

mod answers;
mod compiles;
mod encodings;
mod exclusive;
mod expiry;
mod handshakes;
mod libraries;
mod manual;
mod paging;
mod per_event;
mod plugins;
mod rehearsal;
mod rotation;
mod stage;
mod steps;
mod tokens;
mod upserts;
