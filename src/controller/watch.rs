//! One watch for each kind, whatever the number of controllers that follow it.
//!
//! A follower is told of a change after the store has it. With a watch for each controller, one could react to a change
//! while the store that it reads is still behind, and then nothing would wake it again.

use super::cache::Cache;
use crate::telemetry::Metrics;
use futures::{Stream, StreamExt};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

/// The changes of one kind, for one follower: objects that were added, changed or deleted. All followers get the same
/// object, so that a list of 10,000 that waits to be read costs 10,000 pointers and no copies. What a later list does not
/// have any more was deleted while nobody watched, and is told as it was.
pub type Changes<K> = UnboundedReceiver<Arc<K>>;

/// Follows a kind, which log and metrics call `kind`, until `shutdown`: its cache, and the changes for `N` followers.
///
/// The queues are without a bound, because a follower that did not read would hold up the others; every follower is a
/// controller, which reads at once and remembers names only.
pub fn follow<K, const N: usize>(
    apis: Vec<Api<K>>,
    config: &watcher::Config,
    kind: &'static str,
    metrics: &Metrics,
    shutdown: CancellationToken,
) -> (Cache<K>, [Changes<K>; N])
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    follow_changes_of(None, apis, config, kind, metrics, shutdown)
}

/// What of an object followers are interested in, as bytes.
pub type Relevant<K> = fn(&K) -> Vec<u8>;

/// The same, but followers are not told of a change that leaves alone what `relevant` gives.
pub fn follow_changes_of<K, const N: usize>(
    relevant: Option<Relevant<K>>,
    apis: Vec<Api<K>>,
    config: &watcher::Config,
    kind: &'static str,
    metrics: &Metrics,
    shutdown: CancellationToken,
) -> (Cache<K>, [Changes<K>; N])
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let cache = Cache::new(store);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..N).map(|_| unbounded_channel()).unzip();
    // Who has written which field takes more room than most objects themselves, and nobody here asks for it.
    let events = crate::watch::watch(apis, config, kind, metrics).map(|mut event| {
        if let Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) = &mut event {
            object.meta_mut().managed_fields = None;
        }
        event
    });
    let events = events.map(Ok::<_, watcher::Error>).reflect(writer).filter_map(async |event| event.ok()).boxed();
    let followed = cache.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = pass_on(events, &followed, &senders, relevant) => {}
            () = shutdown.cancelled() => {}
        }
    });
    let receivers = receivers.try_into().unwrap_or_else(|_| unreachable!("there are N of them"));
    (cache, receivers)
}

/// The objects of a kind without a store that are listed or change, for a controller to map to its own. Those that a later
/// list does not have any more are among them, with their names alone: nothing else is kept of objects.
pub fn touched<K>(events: impl Stream<Item = Event<K>> + Send) -> impl Stream<Item = Result<K, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Default + Send,
{
    async_stream::stream! {
        let mut events = std::pin::pin!(events);
        // `listed` is what the list under way has so far; what is known from before it stays known until its end.
        let (mut known, mut listed) = (HashSet::new(), HashSet::new());
        while let Some(event) = events.next().await {
            match event {
                Event::Init => listed.clear(),
                Event::InitApply(object) => {
                    listed.insert(named(&object));
                    yield Ok(object);
                }
                Event::InitDone => {
                    let before = std::mem::replace(&mut known, std::mem::take(&mut listed));
                    for (namespace, name) in before.into_iter().filter(|name| !known.contains(name)).collect::<Vec<_>>() {
                        let mut vanished = K::default();
                        (vanished.meta_mut().namespace, vanished.meta_mut().name) = (namespace, Some(name));
                        yield Ok(vanished);
                    }
                }
                Event::Apply(object) => {
                    known.insert(named(&object));
                    yield Ok(object);
                }
                Event::Delete(object) => {
                    known.remove(&named(&object));
                    yield Ok(object);
                }
            }
        }
    }
}

/// Namespace and name.
fn named<K: Resource<DynamicType = ()>>(object: &K) -> (Option<String>, String) {
    (object.namespace(), object.name_any())
}

/// As a stream, which is what a controller takes.
pub fn stream<K>(changes: Changes<K>) -> impl Stream<Item = Result<K, watcher::Error>> + Send
where
    K: Clone + Send + Sync + 'static,
{
    futures::stream::unfold(changes, |mut changes| async move {
        let change = changes.recv().await?;
        Some((Ok(Arc::unwrap_or_clone(change)), changes))
    })
}

async fn pass_on<K>(
    mut events: impl Stream<Item = Event<K>> + Unpin,
    cache: &Cache<K>,
    senders: &[UnboundedSender<Arc<K>>],
    relevant: Option<Relevant<K>>,
) where
    K: Resource<DynamicType = ()> + Clone,
{
    let tell = |object: Arc<K>| {
        for sender in senders {
            // A follower that has ended needs nothing any more.
            let _ = sender.send(object.clone());
        }
    };
    // The store takes a list as a whole, at its end; what it had before is there until then.
    let (mut before, mut listed) = (Vec::new(), Vec::new());
    let mut told = Told { relevant, hashes: HashMap::new() };
    while let Some(event) = events.next().await {
        match event {
            Event::Apply(object) => {
                cache.add(&object);
                if told.is_new(&object) {
                    tell(cache.shared(object));
                }
            }
            Event::Delete(object) => {
                cache.remove(&object);
                told.forget(&object);
                tell(Arc::new(object));
            }
            Event::Init => {
                listed.clear();
                before = cache.store().state();
            }
            Event::InitApply(object) => listed.push(ObjectRef::from_obj(&object)),
            Event::InitDone => {
                told.hashes.clear();
                cache.replace(&listed);
                // Those who wait for such an object to be gone, or have something that depends on it, hear it now.
                let is_there = |object: &K| {
                    let now = cache.store().get(&ObjectRef::from_obj(object));
                    now.is_some_and(|now| now.meta().uid == object.meta().uid)
                };
                before.drain(..).filter(|object| !is_there(object)).for_each(&tell);
                for object in listed.drain(..).filter_map(|object| cache.store().get(&object)) {
                    told.is_new(&object);
                    tell(object);
                }
            }
        }
    }
}

/// What followers were told last of each object, by its UID.
struct Told<K> {
    relevant: Option<Relevant<K>>,
    hashes: HashMap<String, u64>,
}

impl<K: Resource> Told<K> {
    /// Whether the object differs in what is relevant; it counts as told from now on.
    fn is_new(&mut self, object: &K) -> bool {
        let (Some(relevant), Some(uid)) = (self.relevant, object.meta().uid.clone()) else { return true };
        let mut hasher = DefaultHasher::new();
        relevant(object).hash(&mut hasher);
        let hash = hasher.finish();
        self.hashes.insert(uid, hash) != Some(hash)
    }

    fn forget(&mut self, object: &K) {
        if let Some(uid) = &object.meta().uid {
            self.hashes.remove(uid);
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

    /// As [`follow`] has them: in the store first.
    fn stored(
        events: impl Stream<Item = Event<ConfigMap>> + Send + 'static,
        writer: reflector::store::Writer<ConfigMap>,
    ) -> impl Stream<Item = Event<ConfigMap>> + Send + Unpin {
        let events = events.map(Ok::<_, watcher::Error>).reflect(writer);
        events.filter_map(|event| std::future::ready(event.ok())).boxed()
    }

    #[tokio::test]
    async fn a_list_is_passed_on_when_it_is_complete() {
        let (sender, mut changes) = unbounded_channel();
        let (events, stream) = futures::channel::mpsc::unbounded();
        let (store, writer) = reflector::store();
        let cache = Cache::new(store);
        let stream = stored(stream, writer);
        let task = tokio::spawn(async move { pass_on(stream, &cache, &[sender], None).await });
        for event in [Event::Init, Event::InitApply(named("a"))] {
            events.unbounded_send(event).unwrap();
        }
        tokio::task::yield_now().await;
        assert!(changes.try_recv().is_err());
        for event in [Event::InitDone, Event::Delete(named("b"))] {
            events.unbounded_send(event).unwrap();
        }
        for expected in ["a", "b"] {
            assert_eq!(changes.recv().await.unwrap().metadata.name.as_deref(), Some(expected));
        }
        drop(events);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn what_a_later_list_does_not_have_is_told_as_it_was() {
        let with = |name: &str, uid: &str| {
            let mut object = named(name);
            object.metadata.uid = Some(uid.to_owned());
            object
        };
        let (sender, mut changes) = unbounded_channel();
        let (events, stream) = futures::channel::mpsc::unbounded();
        for event in [
            Event::Init,
            Event::InitApply(with("stays", "1")),
            Event::InitApply(with("vanishes", "2")),
            Event::InitApply(with("made-again", "3")),
            Event::InitDone,
            Event::Apply(with("late", "4")),
            // A list that breaks off says nothing of what it did not come to.
            Event::Init,
            Event::InitApply(with("made-again", "5")),
            Event::Init,
            Event::InitApply(with("made-again", "5")),
            Event::InitApply(with("stays", "1")),
            Event::InitDone,
        ] {
            events.unbounded_send(event).unwrap();
        }
        drop(events);
        let (store, writer) = reflector::store();
        let cache = Cache::new(store);
        pass_on(stored(stream, writer), &cache, &[sender], None).await;
        let mut told = Vec::new();
        while let Some(change) = changes.recv().await {
            told.push((change.metadata.name.clone().unwrap(), change.metadata.uid.clone().unwrap()));
        }
        let uids = |name: &str| told.iter().filter(|told| told.0 == name).map(|told| &*told.1).collect::<Vec<_>>();
        assert_eq!(uids("stays"), ["1", "1"]);
        assert_eq!(uids("vanishes"), ["2", "2"]);
        assert_eq!(uids("late"), ["4", "4"]);
        assert_eq!(uids("made-again"), ["3", "3", "5"]);
    }

    #[tokio::test]
    async fn what_is_not_kept_is_told_by_its_name_when_a_later_list_does_not_have_it() {
        let within = |name: &str| {
            let mut object = named(name);
            object.metadata.namespace = Some("team-a".to_owned());
            object.data = Some([("key".to_owned(), name.to_owned())].into());
            object
        };
        let events = [
            Event::Init,
            Event::InitApply(within("a")),
            Event::InitApply(within("b")),
            Event::InitDone,
            Event::Apply(within("c")),
            Event::Delete(within("b")),
            Event::Init,
            Event::Init,
            Event::InitApply(within("a")),
            Event::InitDone,
        ];
        let told = touched(futures::stream::iter(events)).collect::<Vec<_>>().await;
        let told: Vec<_> =
            told.into_iter().map(|it| it.unwrap()).map(|it| (it.name_any(), it.data.is_some())).collect();
        let expected = [("a", true), ("b", true), ("c", true), ("b", true), ("a", true), ("c", false)];
        assert_eq!(told, expected.map(|(name, whole)| (name.to_owned(), whole)));
    }

    #[tokio::test]
    async fn a_change_of_what_is_not_relevant_is_not_passed_on() {
        let object = |version: &str, value: &str| {
            let mut object = named("a");
            object.metadata.uid = Some("uid".to_owned());
            object.metadata.resource_version = Some(version.to_owned());
            object.data = Some([("key".to_owned(), value.to_owned())].into());
            object
        };
        let (sender, mut changes) = unbounded_channel();
        let (events, stream) = futures::channel::mpsc::unbounded();
        let relevant: Relevant<ConfigMap> =
            |map| map.data.iter().flat_map(|data| data["key"].clone().into_bytes()).collect();
        for event in [
            Event::Init,
            Event::InitApply(object("1", "x")),
            Event::InitDone,
            Event::Apply(object("2", "x")),
            Event::Apply(object("3", "y")),
            Event::Apply(object("4", "y")),
            Event::Delete(object("5", "y")),
            Event::Apply(object("6", "y")),
        ] {
            events.unbounded_send(event).unwrap();
        }
        drop(events);
        let (store, writer) = reflector::store();
        pass_on(stored(stream, writer), &Cache::new(store), &[sender], Some(relevant)).await;
        let mut versions = Vec::new();
        while let Some(change) = changes.recv().await {
            versions.push(change.metadata.resource_version.clone().unwrap());
        }
        assert_eq!(versions, ["1", "3", "5", "6"]);
    }
}
