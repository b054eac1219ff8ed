//! What can go wrong, in words for people.

use std::{io, path::Path, path::PathBuf, sync::Arc};

use thiserror::Error;
use uuid::Uuid;

/// Why a spool cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it open, or this one has, twice.
    #[error(
        "the spool in {} is in use by another process; every ingress replica needs a volume of its own",
        path.display()
    )]
    Locked {
        /// The spool's directory.
        path: PathBuf,
    },
    /// A newer version wrote it.
    #[error(
        "{} has format {found}, written by a newer version of Bellhop; this version reads up to \
         format {supported}: go back to the newer version, or start with an empty volume",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this version reads.
        supported: u32,
    },
    /// The limits make no sense.
    #[error("the spool's limits are wrong: {0}")]
    Limits(String),
    /// The disk fails.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// Why a request was not stored.
#[derive(Clone, Debug, Error)]
pub enum AppendError {
    /// Its subscription holds as much as it may. Others go on.
    #[error(
        "Subscription {namespace}/{name} has {held} bytes of undelivered requests and dead letters, \
         and may have {limit} at present: nothing more is taken for it until some are delivered"
    )]
    SubscriptionFull {
        /// Namespace of the Subscription.
        namespace: String,
        /// Name of the Subscription.
        name: String,
        /// Bytes that it holds.
        held: u64,
        /// Bytes that it may hold: its limit, or what is still free, whichever is less.
        limit: u64,
    },
    /// All subscriptions together hold as much as they may.
    #[error(
        "the spool has {held} bytes of undelivered requests and dead letters, and may have {limit}: \
         nothing more is taken until some are delivered"
    )]
    Full {
        /// Bytes that are held.
        held: u64,
        /// Bytes that may be held.
        limit: u64,
    },
    /// It would not fit even if nothing else were held.
    #[error("the request takes {bytes} bytes in the spool, and {limit} are the most for one")]
    TooLarge {
        /// Bytes that it would take.
        bytes: u64,
        /// Bytes that it may take.
        limit: u64,
    },
    /// The disk fails.
    #[error("the spool's disk refuses to store the request: {0}")]
    Failed(Arc<io::Error>),
    /// The writer has stopped because of a defect.
    #[error("the spool's writer has stopped: restart the process and report its log")]
    Stopped,
}

/// Why something about a stored request cannot be read or written.
#[derive(Clone, Debug, Error)]
pub enum SpoolError {
    /// It is not in the spool, or not any more.
    #[error("request {request}, or the delivery of it, is not in the spool (any more)")]
    Unknown {
        /// The request.
        request: Uuid,
    },
    /// What would become pending again has no room among what is undelivered.
    #[error(transparent)]
    NoRoom(AppendError),
    /// What is on the disk is not what was written.
    #[error("the record of request {request} is damaged on disk")]
    Damaged {
        /// The request.
        request: Uuid,
    },
    /// The disk fails.
    #[error("the spool's disk fails: {0}")]
    Failed(Arc<io::Error>),
    /// The writer has stopped because of a defect.
    #[error("the spool's writer has stopped: restart the process and report its log")]
    Stopped,
}

impl From<io::Error> for SpoolError {
    fn from(e: io::Error) -> Self {
        Self::Failed(Arc::new(e))
    }
}
