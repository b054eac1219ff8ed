//! The events that `kubectl describe` shows.

use super::Context;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

impl Context {
    /// Publishes an event of type Normal on an object.
    pub(super) async fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: impl Into<String>) {
        self.publish(object, EventType::Normal, reason, note.into()).await;
    }

    /// Publishes an event of type Warning on an object.
    pub(super) async fn warn<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: impl Into<String>) {
        self.publish(object, EventType::Warning, reason, note.into()).await;
    }

    /// The same for something that happens now and then, each time with other words: events with the same reason are
    /// counted otherwise, and keep the words of the first.
    pub(super) async fn warn_anew<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: String) {
        let recorder = Recorder::new(self.client.clone(), reporter());
        publish(&recorder, object, EventType::Warning, reason, &note).await;
    }

    async fn publish<K: Resource<DynamicType = ()>>(&self, object: &K, type_: EventType, reason: &str, note: String) {
        publish(&self.recorder, object, type_, reason, &note).await;
    }
}

/// Who publishes events.
pub(super) fn reporter() -> Reporter {
    Reporter { controller: "bellhop".to_owned(), instance: None }
}

async fn publish<K: Resource<DynamicType = ()>>(
    recorder: &Recorder,
    object: &K,
    type_: EventType,
    reason: &str,
    note: &str,
) {
    let event = Event {
        type_,
        reason: reason.to_owned(),
        // The API server refuses more than 1 kB.
        note: Some(note.chars().take(250).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
        // Never worth failing for; in a terminating namespace the API server refuses every new event.
        tracing::debug!(%error, reason, "an event could not be published");
    }
}
