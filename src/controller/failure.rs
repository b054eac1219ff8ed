//! Why a pass has not come to its end.

use super::Blocked;
use std::time::Duration;

/// Why a pass has not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API server refused or did not answer.
    #[error("the API server: {0}")]
    Api(#[source] Box<kube::Error>),
    /// Somebody else was faster; the next pass sees what they did.
    #[error("{0} was changed at the same moment")]
    Conflict(String),
    /// The API server or the external systems have kept the pass waiting; without a limit, one request that is never
    /// answered would stop all further passes of its object.
    #[error("the pass took longer than {0:?}")]
    TooLong(Duration),
    /// More is to be done than one pass may do; the next one goes on at once.
    #[error("more is to be done than one pass may do")]
    Unfinished,
    /// Something that Bellhop itself had written cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The object cannot go on, for a reason that its conditions tell.
    #[error("{}", .0.message)]
    Blocked(Box<Blocked>),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_conflict() => Failure::Conflict(status.message.clone()),
            error => Failure::Api(Box::new(error)),
        }
    }
}

impl From<Blocked> for Failure {
    fn from(blocked: Blocked) -> Self {
        Failure::Blocked(Box::new(blocked))
    }
}
