//! One watch for each kind, whatever the number of controllers that follow it.
//!
//! A follower is told of a change after the store has it. With a watch for each controller, one could react to a change
//! while the store that it reads is still behind, and then nothing would wake it again.

use crate::telemetry::Metrics;
use futures::{Stream, StreamExt};
use kube::Resource;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::hash::Hash;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

/// The changes of one kind, for one follower: objects that were added, changed or deleted.
pub type Changes<K> = UnboundedReceiver<Result<K, watcher::Error>>;

/// Follows a kind, which log and metrics call `kind`, until `shutdown`: its store, and the changes for `N` followers.
///
/// The queues are without a bound, because a follower that did not read would hold up the others; every follower is a
/// controller, which reads at once and remembers names only.
pub fn follow<K, const N: usize>(
    apis: Vec<Api<K>>,
    config: &watcher::Config,
    kind: &'static str,
    metrics: &Metrics,
    shutdown: CancellationToken,
) -> (Store<K>, [Changes<K>; N])
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..N).map(|_| unbounded_channel()).unzip();
    let events = crate::watch::watch(apis, config, kind, metrics);
    let events = events.map(Ok::<_, watcher::Error>).reflect(writer).filter_map(async |event| event.ok()).boxed();
    tokio::spawn(async move {
        tokio::select! {
            () = pass_on(events, &senders) => {}
            () = shutdown.cancelled() => {}
        }
    });
    let receivers = receivers.try_into().unwrap_or_else(|_| unreachable!("there are N of them"));
    (store, receivers)
}

/// The objects of a kind without a store that are listed or change, for a controller to map to its own.
pub fn touched<K>(events: impl Stream<Item = Event<K>> + Send) -> impl Stream<Item = Result<K, watcher::Error>> + Send
where
    K: Send,
{
    events.filter_map(|event| {
        std::future::ready(match event {
            Event::Init | Event::InitDone => None,
            Event::InitApply(object) | Event::Apply(object) | Event::Delete(object) => Some(Ok(object)),
        })
    })
}

/// As a stream, which is what a controller takes.
pub fn stream<K: Send + 'static>(changes: Changes<K>) -> impl Stream<Item = Result<K, watcher::Error>> + Send {
    futures::stream::unfold(changes, |mut changes| async move { changes.recv().await.map(|change| (change, changes)) })
}

async fn pass_on<K: Clone>(
    mut events: impl Stream<Item = Event<K>> + Unpin,
    senders: &[UnboundedSender<Result<K, watcher::Error>>],
) {
    let tell = |object: K| {
        for sender in senders {
            // A follower that has ended needs nothing any more.
            let _ = sender.send(Ok(object.clone()));
        }
    };
    // The store takes a list as a whole, at its end.
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Apply(object) | Event::Delete(object) => tell(object),
            Event::Init => listed.clear(),
            Event::InitApply(object) => listed.push(object),
            Event::InitDone => listed.drain(..).for_each(tell),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn named(name: &str) -> ConfigMap {
        let metadata = kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    #[tokio::test]
    async fn a_list_is_passed_on_when_it_is_complete() {
        let (sender, mut changes) = unbounded_channel();
        let (events, stream) = futures::channel::mpsc::unbounded();
        let task = tokio::spawn(async move { pass_on(stream, &[sender]).await });
        for event in [Event::Init, Event::InitApply(named("a"))] {
            events.unbounded_send(event).unwrap();
        }
        tokio::task::yield_now().await;
        assert!(changes.try_recv().is_err());
        for event in [Event::InitDone, Event::Delete(named("b"))] {
            events.unbounded_send(event).unwrap();
        }
        for expected in ["a", "b"] {
            assert_eq!(changes.recv().await.unwrap().unwrap().metadata.name.as_deref(), Some(expected));
        }
        drop(events);
        task.await.unwrap();
    }
}
