//! `Request`: one request at a callback URL and everything that became of it, as people and programs read it.
//!
//! The same types are what an ingress answers to the controller, and what the API server hands out. They are data: how they
//! are made of what is stored is in `convert`, what is not shown in `mask`. Times are RFC 3339, UTC, with milliseconds.

use k8s_openapi::jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// API group of the request log.
pub const GROUP: &str = "log.bellhop.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// Group and version, as objects name them.
pub const API_VERSION: &str = "log.bellhop.dev/v1alpha1";
/// Its kind.
pub const KIND: &str = "Request";
/// What is shown in place of a secret.
pub const MASK: &str = "***";

/// One request at a callback URL.
///
/// What is unknown or does not apply is left out. In lists, headers, body and variables are left out too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Always `log.bellhop.dev/v1alpha1`.
    pub api_version: String,
    /// Always `Request`.
    pub kind: String,
    /// Name, namespace and age.
    pub metadata: Metadata,
    /// The Subscription whose callback URL was called.
    pub subscription: SubscriptionRef,
    /// What became of it as a whole.
    pub outcome: Outcome,
    /// What was received.
    pub received: Received,
    /// How it was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Whether the sender was proven; absent if it did not come to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// The events that it carried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// Why there is nothing more to tell: that the Subscription was gone when it was matched, that others like it were
    /// left out of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The part of an object's metadata that a request has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// `<replica>-<uid>`: which replica of the ingress has it, and its id there.
    pub name: String,
    /// Namespace of the Subscription.
    pub namespace: String,
    /// The request's id. A redelivery that reaches another replica has the same one there.
    #[schemars(with = "String")]
    pub uid: Uuid,
    /// When it was received, with whole seconds.
    pub creation_timestamp: String,
    /// A [`Version`]: orders requests by the time of their receipt and changes whenever the request does.
    pub resource_version: String,
}

/// A Subscription, as it was when the request came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionRef {
    /// Its name.
    pub name: String,
    /// Its UID.
    #[schemars(with = "String")]
    pub uid: Uuid,
    /// Its plugin; absent if the Subscription is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
}

/// What became of a request as a whole. The first that applies, in this order of those that were stored: `Received`,
/// `Pending`, `DeadLettered`, `Delivered`, `Captured`, `NotFired`, `Ping`, `NotSubscribed`, `NoEvent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// It is stored and not held against the triggers yet.
    Received,
    /// At least one delivery is under way or waits for its next attempt.
    Pending,
    /// Nothing is pending, and every delivery was taken by its runner.
    Delivered,
    /// Nothing is pending, and at least one delivery was given up.
    DeadLettered,
    /// It carried events that are subscribed, and no trigger wanted one.
    NotFired,
    /// It carried nothing but events that are not subscribed.
    NotSubscribed,
    /// It carried no event that could be read.
    NoEvent,
    /// It means nothing, as the plugin says: a ping or a heartbeat.
    Ping,
    /// Only drafts that somebody listens to wanted it.
    Captured,
    /// It was a handshake, which is no event.
    Handshake,
    /// It repeated one that is stored.
    Duplicate,
    /// It was refused.
    Refused,
}

impl Outcome {
    /// The word of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Received => "Received",
            Outcome::Pending => "Pending",
            Outcome::Delivered => "Delivered",
            Outcome::DeadLettered => "DeadLettered",
            Outcome::NotFired => "NotFired",
            Outcome::NotSubscribed => "NotSubscribed",
            Outcome::NoEvent => "NoEvent",
            Outcome::Ping => "Ping",
            Outcome::Captured => "Captured",
            Outcome::Handshake => "Handshake",
            Outcome::Duplicate => "Duplicate",
            Outcome::Refused => "Refused",
        }
    }
}

/// What was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    /// When.
    pub time: String,
    /// HTTP method.
    pub method: String,
    /// Query without the question mark, secrets masked; absent if there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub query: String,
    /// The external system's own id of the delivery, if it sends one.
    #[serde(default, rename = "deliveryID", skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<String>,
    /// Header fields in the order in which they came, secrets masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// The body; absent if it was not read, and in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Body>,
}

/// A header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Its name, in lower case.
    pub name: String,
    /// Its value; `***` in place of a secret.
    pub value: String,
}

/// A body: as text if it is UTF-8, else as base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Body {
    /// How long it was, in bytes.
    pub bytes: u64,
    /// Its beginning, if that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its beginning, if that is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Whether there is more than is shown.
    #[serde(default)]
    pub truncated: bool,
}

/// How a request was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// How many milliseconds lay between its head and the answer; absent if the process ended before it could note that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_millis: Option<u64>,
    /// One word, such as `Accepted` or `Unverified`.
    pub reason: String,
    /// What the sender was told, if there was more to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The WorkflowTrigger whose runner gave the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Why no runner gave it, where the sender would have waited for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Whether the sender was proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Whether it was, in a way that the plugin accepts.
    pub verified: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// An event that a request carried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its name in the plugin; empty if it could not be found out.
    pub name: String,
    /// Its position in the request, from 0.
    pub item: u32,
    /// The `ce-id` that every attempt carries.
    #[schemars(with = "String")]
    pub id: Uuid,
    /// Why it was not held against any trigger, such as `not subscribed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// What it hands to workflows; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_value")]
    pub variables: Option<Value>,
    /// Why variables are null that should not be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Every trigger that it was held against, and every one that it was replayed to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Trigger>,
}

/// A WorkflowTrigger that an event was held against, as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// Its UID.
    #[schemars(with = "String")]
    pub uid: Uuid,
    /// The workflow that it starts.
    pub workflow: String,
    /// Whether it wanted the event.
    pub fired: bool,
    /// Whether it is a draft that somebody listened to: it wanted the event, and nothing was delivered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub captured: bool,
    /// Why it did not want the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When somebody had the event delivered (again); the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<Replay>,
    /// What became of the delivery; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
}

/// The wish of a person to have an event delivered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// When.
    pub time: String,
    /// Whose: the name of the user, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// An event on its way to one trigger's runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Where it stands.
    pub state: State,
    /// Its last attempts, oldest first, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// When the next attempt is due; only of one that is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<String>,
    /// Why it was given up; only of a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// It is still to be delivered.
    Pending,
    /// The runner took it.
    Delivered,
    /// It was given up.
    DeadLettered,
}

/// One try to hand an event to a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When it began.
    pub time: String,
    /// Where it went, without credentials and query, or which object was made; absent if there was nowhere to go.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// HTTP status of the answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_millis: u64,
    /// The beginning of the runner's answer, if it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// What an ingress answers to the question for requests: newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// The requests.
    pub items: Vec<Request>,
    /// With this as `before`, the next page is found. Absent if there is none. It is also there when nothing was found
    /// among the many that were looked at: then `items` may be empty although older ones match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One line of a watch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: ChangeKind,
    /// To which request, without headers, body and variables; only with the first three kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Request>,
}

/// What happened to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChangeKind {
    /// It came, or matches the question now.
    Added,
    /// Its outcome or one of its deliveries changed.
    Modified,
    /// It left the log, or does not match the question any more.
    Deleted,
    /// Nothing, but the connection lives; also sent once when all that had happened before has been told.
    Bookmark,
    /// More happened than the reader could take: the last line, after which it has to list again.
    Expired,
}

/// The question for a replay, as the controller hands it to the ingress that has the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplayWish {
    /// Name of the trigger; left out: every trigger that has a delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Only what is a dead letter.
    pub dead_letters: bool,
    /// The user who wishes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What a replay made pending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// One for each event and trigger.
    #[serde(default)]
    pub deliveries: Vec<ReplayedDelivery>,
}

/// One delivery of a replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayedDelivery {
    /// Name of the trigger.
    pub trigger: String,
    /// The event's `ce-id`, the same as ever.
    #[schemars(with = "String")]
    pub event: Uuid,
}

/// Which version of which request, as a decimal number: the milliseconds of its receipt, ten digits of its id, and the
/// milliseconds since then until it last changed. So the order of the numbers is that of the times of receipt, in all
/// replicas, and a request that changes has a higher number than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u128);

impl Version {
    /// Before all others.
    pub const NONE: Self = Self(0);
    /// Digits of the id.
    const ID: u128 = 10_u128.pow(10);
    /// Digits of the age.
    const AGE: u128 = 10_u128.pow(13);

    /// The version of the request `id` that was received at `received` and changed last at `touched` (Unix milliseconds).
    pub fn new(received: u64, id: Uuid, touched: u64) -> Self {
        let age = u128::from(touched.saturating_sub(received)).min(Self::AGE - 1);
        Self((u128::from(received) * Self::ID + u128::from(prefix(id))) * Self::AGE + age)
    }

    /// When the request was received, in Unix milliseconds, and the least id that the request may have.
    pub fn position(self) -> (u64, Uuid) {
        let place = self.0 / Self::AGE;
        let received = u64::try_from(place / Self::ID).unwrap_or(u64::MAX);
        (received, Uuid::from_u128((place % Self::ID) << 96))
    }

    /// When the request changed last, in Unix milliseconds.
    pub fn touched(self) -> u64 {
        self.position().0.saturating_add(u64::try_from(self.0 % Self::AGE).unwrap_or(u64::MAX))
    }

    /// Whether both are versions of the same request.
    pub fn is_of_the_same(self, other: Self) -> bool {
        self.0 / Self::AGE == other.0 / Self::AGE
    }
}

/// Any JSON.
fn free_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// The first 32 bits of an id: enough to order requests of the same millisecond.
fn prefix(id: Uuid) -> u32 {
    (id.as_u128() >> 96) as u32
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Request {
    /// Its version; the lowest one if the resource version is none of ours.
    pub fn version(&self) -> Version {
        self.metadata.resource_version.parse().unwrap_or(Version(0))
    }

    /// Leaves out what lists leave out: headers, body and variables.
    pub fn without_content(mut self) -> Self {
        self.received.headers.clear();
        self.received.body = None;
        for event in &mut self.events {
            event.variables = None;
            let deliveries = event.triggers.iter_mut().filter_map(|trigger| trigger.delivery.as_mut());
            deliveries.flat_map(|delivery| &mut delivery.attempts).for_each(|attempt| attempt.answer = None);
        }
        self
    }
}

/// Annotation of the bookmark with which it begins that a draft listens: the replicas at which it does not, and why.
pub const SILENT_ANNOTATION: &str = "log.bellhop.dev/silent";

/// The name of a request: the replica that has it, and its id.
pub fn name(replica: &str, id: Uuid) -> String {
    format!("{replica}-{id}")
}

/// Takes a name apart, into the replica and the id; `None` if it is no request's name.
pub fn split_name(name: &str) -> Option<(&str, Uuid)> {
    let (replica, id) = name.split_once('-')?;
    let decimal = !replica.is_empty() && replica.len() <= 5 && replica.bytes().all(|b| b.is_ascii_digit());
    let parsed: Uuid = id.parse().ok()?;
    // One spelling only, so that one request has one name.
    (decimal && parsed.to_string() == id).then_some((replica, parsed))
}

/// Whether this can be the name of a Subscription or a WorkflowTrigger (a DNS subdomain, RFC 1123), so that it can be a part
/// of a path.
pub fn can_be_a_name(text: &str) -> bool {
    let plain = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
    plain && (1..=253).contains(&text.len())
}

/// Unix milliseconds as RFC 3339 with milliseconds.
pub fn time(millis: u64) -> String {
    format!("{:.3}", timestamp(millis))
}

/// Unix milliseconds as RFC 3339 with whole seconds.
pub fn seconds(millis: u64) -> String {
    format!("{:.0}", timestamp(millis))
}

fn timestamp(millis: u64) -> Timestamp {
    i64::try_from(millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_receipt_and_grow_with_changes() {
        let (a, b) = (Uuid::from_u128(7 << 96 | 5), Uuid::from_u128(u128::MAX));
        let old = Version::new(1_700_000_000_000, b, 1_700_000_500_000);
        let same = Version::new(1_700_000_000_001, a, 0);
        let later = Version::new(1_700_000_000_001, a, 1_700_000_000_009);
        let other = Version::new(1_700_000_000_001, b, 1_700_000_000_001);
        assert!(old < same && same < later && later < other);
        assert!(same.is_of_the_same(later) && !later.is_of_the_same(other));
        assert_eq!((later.touched(), same.touched()), (1_700_000_000_009, 1_700_000_000_001));
        assert_eq!(later.position(), (1_700_000_000_001, Uuid::from_u128(7 << 96)));
        assert_eq!(later.to_string().parse::<Version>().unwrap(), later);
        assert!("x".parse::<Version>().is_err());
    }

    #[test]
    fn a_name_says_where_a_request_is() {
        let id = Uuid::from_u128(0x5f);
        assert_eq!(split_name(&name("12", id)), Some(("12", id)));
        for wrong in ["", "0", "x-00000000-0000-0000-0000-00000000005f", "0-5f", "0-0000000000000000000000000000005f"] {
            assert_eq!(split_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_have_milliseconds() {
        assert_eq!(time(1_700_000_000_007), "2023-11-14T22:13:20.007Z");
        assert_eq!(seconds(1_700_000_000_000), "2023-11-14T22:13:20Z");
    }
}
