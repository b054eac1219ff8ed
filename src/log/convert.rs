//! Makes a [`Request`] of what is stored, and of what is not. Pure.

use super::mask::Mask;
use super::model::{
    API_VERSION, Answer, Attempt, Body, Delivery, Event, Header, KIND, Metadata, Outcome, Received, Replay, Request,
    State, SubscriptionRef, Trigger, Verification, Version, name, seconds, time,
};
use crate::spool::{self, DeliveryState, Entry, EventOutcome, Matched, TriggerOutcome};
use base64::Engine as _;
use uuid::Uuid;

/// Bytes of the body of a stored request that are shown.
pub const SHOWN: usize = 64 * 1024;
/// Bytes of the body of another one that are kept.
const PASSING_BODY: usize = 4 * 1024;
/// Bytes of its header fields.
const PASSING_HEADERS: usize = 8 * 1024;
/// Bytes of its query, and of what the sender was told.
const PASSING_TEXT: usize = 2 * 1024;

/// What is not in the spool and still belongs to a request.
pub struct About<'a> {
    /// The replica of the ingress.
    pub replica: &'a str,
    /// The Subscription's plugin, if it is known.
    pub plugin: Option<&'a str>,
    /// What is not shown.
    pub mask: &'a Mask,
}

/// A request that is in the spool.
pub fn stored(entry: &Entry, about: &About<'_>) -> Request {
    let (request, mask) = (&entry.request, about.mask);
    let matched = entry.matched.as_ref();
    let note = matched.and_then(|matched| matched.note.as_ref()).or(entry.dead.as_ref());
    let sent = request.sent.as_ref().map(|sent| format!("sent by {}", sent.by));
    let notes: Vec<String> = sent.into_iter().chain(note.cloned()).collect();
    let unsigned = request.sent.as_ref().and_then(|sent| sent.unsigned.as_ref());
    let headers = request.headers.iter();
    Request {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        metadata: metadata(about.replica, request.id, &request.namespace, request.received_at, entry.touched),
        subscription: SubscriptionRef {
            name: request.name.clone(),
            uid: request.subscription,
            plugin: about.plugin.map(str::to_owned),
        },
        outcome: outcome(entry),
        received: Received {
            time: time(request.received_at),
            method: request.method.clone(),
            query: mask.query(&request.query),
            delivery_id: request.delivery_id.as_deref().map(|id| mask.text(id)),
            headers: headers
                .map(|(name, value)| Header { name: name.clone(), value: mask.header(name, value) })
                .collect(),
            body: Some(body(&request.body, SHOWN, mask)),
        },
        answer: Some(answer(entry, mask)),
        verification: Some(Verification {
            verified: unsigned.is_none(),
            message: unsigned
                .map(|why| format!("taken without a signature, which cannot be made here: {}", mask.text(why))),
        }),
        events: matched.map(|m| m.events.iter().map(|e| event(e, entry, mask)).collect()).unwrap_or_default(),
        note: (!notes.is_empty()).then(|| mask.text(&notes.join("; "))),
    }
}

fn answer(entry: &Entry, mask: &Mask) -> Answer {
    match &entry.answered {
        None => Answer {
            status: 200,
            after_millis: entry.answered_after.map(u64::from),
            reason: "Accepted".to_owned(),
            ..Answer::default()
        },
        Some(answered) => Answer {
            status: answered.status,
            after_millis: Some(answered.after.into()),
            reason: answered.reason.clone(),
            message: None,
            trigger: answered.trigger.clone(),
            note: answered.note.as_deref().map(|note| mask.text(note)),
        },
    }
}

/// What became of a request that is in the spool.
pub fn outcome(entry: &Entry) -> Outcome {
    let Some(matched) = &entry.matched else {
        return if entry.dead.is_some() { Outcome::DeadLettered } else { Outcome::Received };
    };
    let any = |which: fn(&DeliveryState) -> bool| entry.deliveries.iter().any(|d| which(&d.state));
    if any(|state| matches!(state, DeliveryState::Pending { .. })) {
        return Outcome::Pending;
    }
    if any(|state| matches!(state, DeliveryState::Dead { .. })) {
        return Outcome::DeadLettered;
    }
    if any(|state| matches!(state, DeliveryState::Delivered { .. })) {
        return Outcome::Delivered;
    }
    if matched.note.as_deref() == Some(Matched::PING) {
        return Outcome::Ping;
    }
    let (mut skipped, tried): (Vec<_>, Vec<_>) = matched.events.iter().partition(|event| event.skipped.is_some());
    if tried.iter().any(|event| event.triggers.iter().any(|trigger| trigger.captured)) {
        return Outcome::Captured;
    }
    if !tried.is_empty() {
        return Outcome::NotFired;
    }
    skipped.retain(|event| event.skipped.as_deref() == Some(EventOutcome::NOT_SUBSCRIBED));
    if skipped.is_empty() { Outcome::NoEvent } else { Outcome::NotSubscribed }
}

fn metadata(replica: &str, id: Uuid, namespace: &str, received_at: u64, touched: u64) -> Metadata {
    Metadata {
        name: name(replica, id),
        namespace: namespace.to_owned(),
        uid: id,
        creation_timestamp: seconds(received_at),
        resource_version: Version::new(received_at, id, touched).to_string(),
    }
}

fn event(event: &EventOutcome, entry: &Entry, mask: &Mask) -> Event {
    let of_event = |delivery: &&spool::Delivery| delivery.key.item == event.item;
    let deliveries: Vec<&spool::Delivery> = entry.deliveries.iter().filter(of_event).collect();
    let find = |uid: Uuid| deliveries.iter().find(|delivery| delivery.key.trigger == uid).copied();
    let held = event.triggers.iter().map(|t| trigger(t, t.mismatch.is_none(), find(t.uid), mask));
    // Those that were added by a replay did not exist when the event came, so they had no say then.
    let known = |uid: Uuid| event.triggers.iter().any(|t| t.uid == uid);
    let added = deliveries.iter().filter(|delivery| !known(delivery.key.trigger));
    let added = added.filter_map(|d| Some(trigger(d.added.as_ref()?, false, Some(d), mask)));
    let mut variables = event.variables.clone();
    mask.value(&mut variables);
    Event {
        name: event.name.clone(),
        item: event.item,
        id: event.id,
        skipped: event.skipped.as_deref().map(|why| mask.text(why)),
        variables: event.skipped.is_none().then_some(variables),
        notes: event.notes.iter().map(|note| mask.text(note)).collect(),
        triggers: held.chain(added).collect(),
    }
}

fn trigger(trigger: &TriggerOutcome, fired: bool, delivery: Option<&spool::Delivery>, mask: &Mask) -> Trigger {
    let replayed = delivery.and_then(|delivery| delivery.replayed.as_ref());
    Trigger {
        name: trigger.trigger.clone(),
        uid: trigger.uid,
        workflow: trigger.workflow.clone(),
        fired,
        captured: trigger.captured,
        reason: trigger.mismatch.as_deref().map(|why| mask.text(why)),
        replayed: replayed.map(|replayed| Replay { time: time(replayed.at), by: replayed.by.clone() }),
        delivery: delivery.map(|delivery| self::delivery(delivery, mask)),
    }
}

fn delivery(delivery: &spool::Delivery, mask: &Mask) -> Delivery {
    let (state, next_attempt, reason) = match &delivery.state {
        DeliveryState::Pending { due_at, .. } => (State::Pending, Some(time(*due_at)), None),
        DeliveryState::Delivered { .. } => (State::Delivered, None, None),
        DeliveryState::Dead { reason, .. } => (State::DeadLettered, None, Some(mask.text(reason))),
    };
    let attempt = |attempt: &spool::Attempt| Attempt {
        time: time(attempt.at),
        url: mask.text(&attempt.url),
        status: attempt.status,
        error: attempt.error.as_deref().map(|error| mask.text(error)),
        duration_millis: attempt.duration_ms.into(),
        answer: attempt.answer.as_deref().map(|answer| mask.text(answer)),
    };
    Delivery { state, attempts: delivery.attempts.iter().map(attempt).collect(), next_attempt, reason }
}

/// A request that is not in the spool, as the ingress has seen it.
pub struct Passed<'a> {
    /// A new id.
    pub id: Uuid,
    /// When it was received, in Unix milliseconds.
    pub at: u64,
    /// The Subscription: namespace, name, UID.
    pub subscription: (&'a str, &'a str, Uuid),
    /// What became of it: `Refused`, `Handshake` or `Duplicate`.
    pub outcome: Outcome,
    /// Its head.
    pub head: &'a http::request::Parts,
    /// Its body, if it was read.
    pub body: Option<&'a [u8]>,
    /// The sender's id of the delivery, if it was found out.
    pub delivery_id: Option<&'a str>,
    /// How it was answered.
    pub answer: Answer,
    /// Whether the sender was proven, if it came to that.
    pub verification: Option<Verification>,
    /// What else there is to say.
    pub note: Option<String>,
}

/// A request that is not in the spool: less is kept of it, and secrets are masked before it is kept.
pub fn passing(passed: Passed<'_>, about: &About<'_>) -> Request {
    let mask = about.mask;
    let (namespace, subscription, uid) = passed.subscription;
    let mut room = PASSING_HEADERS;
    let mut headers = Vec::new();
    for (name, value) in &passed.head.headers {
        let value = mask.header(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        if let Some(left) = room.checked_sub(name.as_str().len() + value.len()) {
            room = left;
            headers.push(Header { name: name.as_str().to_owned(), value });
        }
    }
    Request {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        metadata: metadata(about.replica, passed.id, namespace, passed.at, passed.at),
        subscription: SubscriptionRef { name: subscription.to_owned(), uid, plugin: about.plugin.map(str::to_owned) },
        outcome: passed.outcome,
        received: Received {
            time: time(passed.at),
            method: cut(passed.head.method.as_str(), 32),
            query: cut(&mask.query(passed.head.uri.query().unwrap_or_default()), PASSING_TEXT),
            delivery_id: passed.delivery_id.map(|id| mask.text(id)),
            headers,
            body: passed.body.map(|content| body(content, PASSING_BODY, mask)),
        },
        answer: Some(Answer {
            message: passed.answer.message.map(|message| cut(&mask.text(&message), PASSING_TEXT)),
            ..passed.answer
        }),
        verification: passed.verification,
        events: Vec::new(),
        note: passed.note,
    }
}

/// The first `most` bytes of a body, secrets masked: as text if they are, but for a character that is cut, UTF-8.
fn body(content: &[u8], most: usize, mask: &Mask) -> Body {
    // A secret that begins within what is shown is masked as a whole.
    let near = &content[..content.len().min(most.saturating_add(mask.longest()))];
    let masked = mask.bytes(near);
    let shown = &masked[..masked.len().min(most)];
    let truncated = shown.len() < masked.len() || near.len() < content.len();
    let whole = match std::str::from_utf8(shown) {
        Ok(text) => Some(text),
        Err(error) if truncated && error.error_len().is_none() => {
            std::str::from_utf8(&shown[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let base64 = || base64::engine::general_purpose::STANDARD.encode(shown);
    Body {
        bytes: content.len() as u64,
        text: whole.map(str::to_owned),
        base64: whole.is_none().then(base64),
        truncated,
    }
}

fn cut(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(content: &[u8], most: usize) -> Body {
        body(content, most, &Mask::default().with(b"q7xVb9wQ"))
    }

    #[test]
    fn a_body_is_text_or_base64_and_bounded() {
        let whole = shown("grün".as_bytes(), 100);
        assert_eq!((whole.text.as_deref(), whole.bytes, whole.truncated), (Some("grün"), 5, false));
        // The third byte is half of a character.
        let cut = shown("grün".as_bytes(), 3);
        assert_eq!((cut.text.as_deref(), cut.bytes, cut.truncated), (Some("gr"), 5, true));
        let binary = shown(&[0xff, 0xfe], 100);
        assert_eq!((binary.text, binary.base64.as_deref()), (None, Some("//4=")));
        // A whole body that ends in half of a character is not text.
        assert!(shown(&"ü".as_bytes()[..1], 100).base64.is_some());
        assert_eq!(shown(b"", 100).text.as_deref(), Some(""));
    }

    #[test]
    fn a_secret_at_the_end_of_what_is_shown_is_masked_as_a_whole() {
        let body = shown(b"0123q7xVb9wQ and more", 8);
        assert_eq!((body.text.as_deref(), body.truncated), (Some("0123*** "), true));
        let cut = shown(b"012345q7xVb9wQ", 8);
        assert_eq!((cut.text.as_deref(), cut.truncated), (Some("012345**"), true));
    }
}
