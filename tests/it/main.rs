//! The integration tests: one binary, against the real API server and the real Gitea.

mod activity;
mod admission;
mod api_server;
mod bad_input;
mod cap;
mod crash;
mod crash_points;
mod creation;
mod deletion;
mod delivery;
mod drift;
mod election;
mod examples;
mod faults;
mod gitops;
mod manual;
mod outgoing;
mod renewal;
mod rotation;
mod scale;
mod schema;
mod security;
mod story;
mod support;
mod vendors;
mod workspaces;
