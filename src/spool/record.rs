//! What the spool keeps: requests, what they matched, and what became of each delivery.
//!
//! All times are Unix milliseconds and come from the caller, so that a test can simulate them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many attempts of one delivery are kept; older ones are forgotten first.
pub const ATTEMPTS_KEPT: usize = 20;

/// How many bytes of a runner's answer are kept.
pub const ANSWER_KEPT: usize = 2048;

/// One verified HTTP call to a callback URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Identifies the request and is its dedupe key: the same call, redelivered, has the same id.
    pub id: Uuid,
    /// UID of the Subscription that it came for.
    pub subscription: Uuid,
    /// Namespace of the Subscription.
    pub namespace: String,
    /// Name of the Subscription.
    pub name: String,
    /// When it was received.
    pub received_at: u64,
    /// The external system's own id of this delivery, if it sends one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<String>,
    /// HTTP method.
    pub method: String,
    /// Query string without the question mark; empty if there was none.
    #[serde(default)]
    pub query: String,
    /// Headers in the order in which they came.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// That a person has had it sent, if it did not come from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<SentBy>,
    /// The body, byte for byte.
    #[serde(skip)]
    pub body: Bytes,
}

/// How the sender of a request was answered that was not told at once that it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// Milliseconds from the beginning of the request.
    pub after: u32,
    /// What sort of answer it was, in one word.
    pub reason: String,
    /// Name of the trigger whose runner gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Why no runner gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// That a request was made up at the wish of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentBy {
    /// The user's name.
    pub by: String,
    /// Why it has no signature; absent: it has one, and that was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsigned: Option<String>,
}

/// What [`append`](super::Spool::append) did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is new and on disk.
    Stored,
    /// A request with this id is already on disk; nothing was written.
    Duplicate,
    /// The earlier request had ended as a dead letter: what was dead is pending again.
    Requeued,
}

/// What the matcher found out about a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Matched {
    /// When it was matched; new deliveries are due from this moment.
    pub at: u64,
    /// The events that the request carried; none is possible.
    pub events: Vec<EventOutcome>,
    /// Why there are no events, for the reader of the log: "the subscription is gone".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Matched {
    /// The note of a request without events, where that is what the plugin says.
    pub const NO_EVENT: &str = "the request carries no event";
    /// The note of a request that means nothing, and is no failure.
    pub const PING: &str = "a ping: it tells that the webhook works, and carries no event";
}

/// One event of a request and the triggers it was held against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventOutcome {
    /// The event's id, which every attempt carries.
    pub id: Uuid,
    /// Position of the event in its request, from 0.
    pub item: u32,
    /// Name of the event in the plugin.
    pub name: String,
    /// Why it was not held against any trigger ("not subscribed"); `None` if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// What the event hands to workflows.
    pub variables: serde_json::Value,
    /// Why variables are `null` that should not be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Every trigger that was considered.
    pub triggers: Vec<TriggerOutcome>,
}

impl EventOutcome {
    /// Why an event of the plugin that the Subscription did not ask for goes nowhere.
    pub const NOT_SUBSCRIBED: &str = "not subscribed";
}

/// Whether one trigger matched one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriggerOutcome {
    /// Name of the WorkflowTrigger.
    pub trigger: String,
    /// UID of the WorkflowTrigger.
    pub uid: Uuid,
    /// The workflow that it starts.
    pub workflow: String,
    /// Why it did not match; `None` means that it matched and became a delivery, unless it was captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<String>,
    /// Whether it matched and is a draft that somebody listens to: then it does not become a delivery.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub captured: bool,
}

/// That a person had a delivery made pending (again).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// When.
    pub at: u64,
    /// The user's name, if it is known; cut after 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// One delivery that is to be made pending, at the wish of a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayLine {
    /// Position of the event in the request.
    pub item: u32,
    /// UID of the WorkflowTrigger.
    pub trigger: Uuid,
    /// The trigger as it is now, if the event was not held against it when the request was matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<TriggerOutcome>,
}

/// Names one delivery: one event of one request on its way to one trigger's runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeliveryKey {
    /// The request.
    pub request: Uuid,
    /// Position of the event in the request.
    pub item: u32,
    /// UID of the WorkflowTrigger.
    pub trigger: Uuid,
}

/// One try to hand an event to a runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    pub at: u64,
    /// Where it went, without credentials.
    pub url: String,
    /// HTTP status, if there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: u32,
    /// The beginning of what the runner answered, at most [`ANSWER_KEPT`] bytes; `None` if that was nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// What follows an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Next {
    /// The runner took it.
    Delivered,
    /// It is to be tried again.
    Retry {
        /// Not before this time.
        due_at: u64,
    },
    /// It will not be tried again, unless it is requeued.
    Dead {
        /// Why, for people; cut after 512 bytes.
        reason: String,
    },
}

/// Where a delivery stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum DeliveryState {
    /// Still to be delivered.
    Pending {
        /// Attempts so far, since it was last requeued.
        attempts: u32,
        /// When the next attempt may begin.
        due_at: u64,
    },
    /// The runner took it.
    Delivered {
        /// Attempts that it needed.
        attempts: u32,
        /// When the last of them began.
        at: u64,
    },
    /// Given up: a dead letter.
    Dead {
        /// Attempts that were made.
        attempts: u32,
        /// When it was given up.
        at: u64,
        /// Why.
        reason: String,
    },
}

/// A delivery with its most recent attempts, at most [`ATTEMPTS_KEPT`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// Which.
    pub key: DeliveryKey,
    /// Where it stands.
    pub state: DeliveryState,
    /// Its last attempts, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// When a person last had it made pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<Replayed>,
    /// The trigger, if the event was not held against it when the request was matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<TriggerOutcome>,
}

/// A delivery that is waiting, with what scheduling needs and no more.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingDelivery {
    /// Which.
    pub key: DeliveryKey,
    /// UID of the Subscription.
    pub subscription: Uuid,
    /// The number of its request in the order of receipt; the order of ordered deliveries. No clock is in it, so a clock
    /// that is set changes nothing.
    pub number: u64,
    /// When its request was received.
    pub received_at: u64,
    /// Attempts so far, since it was last requeued.
    pub attempts: u32,
    /// When the next attempt may begin.
    pub due_at: u64,
}

/// Everything that is known about one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The request.
    pub request: Request,
    /// What it matched; `None` until the matcher has stored it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<Matched>,
    /// Its deliveries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<Delivery>,
    /// Why the request ended without having been matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<String>,
    /// From when its age counts: its receipt, or the last requeue.
    #[serde(default)]
    pub since: u64,
    /// When something last happened to it; retention counts from here.
    #[serde(default)]
    pub touched: u64,
    /// Milliseconds from the beginning of the request until it was durable, and so was answered; `None` if that is not
    /// known: a crash came before the match, or an earlier version stored it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_after: Option<u32>,
    /// How it was answered, if not at once and as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Box<Answered>>,
    /// Its number in the order of receipt; 0 in what was written before requests had one.
    #[serde(default)]
    pub number: u64,
}

/// What one delivery needs: see [`event`](super::Spool::event).
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryEvent {
    /// The request that carried the event.
    pub request: Request,
    /// The event.
    pub event: EventOutcome,
    /// The trigger, as it was when it matched.
    pub trigger: TriggerOutcome,
    /// Where the delivery stands, with its last attempts.
    pub delivery: Delivery,
}

/// Where a request stands as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not matched yet.
    Unmatched,
    /// At least one delivery is pending.
    Pending,
    /// Nothing is pending, and at least one delivery (or the request itself) is a dead letter.
    Dead,
    /// Nothing is left to do.
    Finished,
}

/// That something about a request was written: it came, was matched, attempted, given up or replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The request.
    pub request: Uuid,
    /// UID of its Subscription.
    pub subscription: Uuid,
}

/// One line of the request log.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The request.
    pub id: Uuid,
    /// UID of its Subscription.
    pub subscription: Uuid,
    /// When it was received.
    pub received_at: u64,
    /// When something last happened to it.
    pub touched: u64,
    /// Where it stands.
    pub status: Status,
    /// Bytes that it takes on disk, match and attempts included.
    pub bytes: u64,
    /// Deliveries that a runner took.
    pub delivered: u32,
    /// Deliveries that are waiting.
    pub pending: u32,
    /// Deliveries that are dead letters.
    pub dead: u32,
}

/// Cuts `text` to at most `max` bytes at a character boundary.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
